"""Schedules: the values at the corners, monotone in between, and equal to a slow statement of the published recipe."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.schedules import (
    ConstantCooldown,
    Infinite,
    WarmupCosine,
    constant_cooldown,
    infinite,
    linear_ramp,
    warmup_cosine,
)


def test_the_published_warmup_cosine():
    per_epoch, epochs, warm = 10, 100, 5

    def published(iteration):
        if iteration < warm * per_epoch:
            return 1e-6 + (2.5e-5 - 1e-6) * iteration / (warm * per_epoch)
        done = iteration / (epochs * per_epoch)  # its library counts the cosine from step 0
        return 1e-6 + 0.5 * (2.5e-5 - 1e-6) * (1 + math.cos(math.pi * done))

    schedule = WarmupCosine(warmup_steps=warm * per_epoch, from_start=True)
    for i in range(epochs * per_epoch + 1):
        assert schedule.value(i, peak=2.5e-5, total=epochs * per_epoch) == pytest.approx(published(i), rel=1e-9)


def test_corners_of_every_schedule():
    assert warmup_cosine(0, peak=1.0, total=100, warmup_steps=10, start_lr=0.1) == pytest.approx(0.1)
    assert warmup_cosine(10, peak=1.0, total=100, warmup_steps=10) == pytest.approx(1.0)
    assert warmup_cosine(100, peak=1.0, total=100, warmup_steps=10, floor_lr=0.2) == pytest.approx(0.2)
    assert warmup_cosine(500, peak=1.0, total=100, warmup_steps=10, floor_lr=0.2) == pytest.approx(0.2)  # a longer run stays down

    flat = ConstantCooldown(warmup_steps=10, cooldown_steps=20, floor_lr=0.0)
    values = [flat.value(s, peak=1.0, total=100) for s in range(101)]
    assert values[10:81] == [1.0] * 71 and values[90] == pytest.approx(0.5) and values[100] == 0.0

    endless = Infinite(warmup_steps=10, cooldown_steps=20, constant_lr=0.4, anneal_steps=20, floor_lr=0.004)
    values = [endless.value(s, peak=1.0, total=100) for s in range(101)]
    assert values[10] == 1.0 and values[20] == pytest.approx(0.7)
    assert all(v == pytest.approx(0.4) for v in values[30:81])
    assert values[90] == pytest.approx(0.04) and values[100] == pytest.approx(
        0.004
    )  # exponential: half way is the geometric mean


def test_infinite_without_anneal_stays_constant_for_ever():
    assert infinite(10**7, peak=1.0, total=100, warmup_steps=1, cooldown_steps=5, constant_lr=0.3, anneal_steps=0) == 0.3


@given(st.integers(0, 300), st.integers(0, 50), st.integers(60, 200))
def test_rates_stay_between_floor_and_peak(step, warmup, total):
    for value in (
        warmup_cosine(step, peak=1.0, total=total, warmup_steps=warmup),
        constant_cooldown(step, peak=1.0, total=total, warmup_steps=warmup, cooldown_steps=5),
        infinite(step, peak=1.0, total=total, warmup_steps=warmup, cooldown_steps=5, constant_lr=0.5, anneal_steps=3),
    ):
        assert 1e-6 * (1 - 1e-9) <= value <= 1.0


def test_linear_ramp_hits_both_ends_and_a_run_of_no_steps_is_at_its_end():
    assert linear_ramp(0, total=100, start=0.996, end=1.0) == 0.996
    assert linear_ramp(50, total=100, start=0.996, end=1.0) == pytest.approx(0.998)
    assert linear_ramp(100, total=100, start=0.996, end=1.0) == 1.0 == linear_ramp(400, total=100, start=0.996, end=1.0)
    assert linear_ramp(0, total=0, start=0.5, end=1.0) == 1.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WarmupCosine(warmup_steps=-3), "warmup_steps must be at least 0, not -3"),
        (lambda: WarmupCosine(warmup_steps=3, floor_lr=-1.0), "floor_lr must be at least 0, not -1"),
        (lambda: ConstantCooldown(warmup_steps=3, cooldown_steps=-1), "cooldown_steps must be at least 0, not -1"),
        (lambda: Infinite(warmup_steps=0, cooldown_steps=0, constant_lr=0.0, anneal_steps=2), "must be above 0, not 0"),
    ],
)
def test_a_phase_or_a_rate_that_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_run_too_short_for_its_phases_is_no_run_to_go_on_from():
    """Its checkpoint before the anneal would lie inside the warm-up or the cool-down."""
    endless = Infinite(warmup_steps=5, cooldown_steps=10, constant_lr=0.4, anneal_steps=10)
    falling = ConstantCooldown(warmup_steps=10, cooldown_steps=10)
    assert (endless.released_from(24), endless.released_from(25)) == (None, 15)
    assert (falling.released_from(19), falling.released_from(20)) == (None, 10)
