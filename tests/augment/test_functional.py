"""Amplitude functions and the helpers that the others stand on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.augment import functional as F


def test_normal_has_the_moments_of_a_normal_and_no_infinity() -> None:
    z = F.normal((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    assert z.mean() == pytest.approx(0, abs=1e-6) and z.std() == pytest.approx(1, abs=1e-3)
    assert F.normal(torch.tensor([0.0, 1.0], dtype=torch.float64)).isfinite().all()


def test_gain_by_sample_and_by_channel() -> None:
    x = torch.ones(2, 3, 4)
    assert F.gain(x, torch.tensor([2.0, 3.0]))[:, 1, 0].tolist() == [2, 3]
    assert F.gain(x, torch.tensor([[1.0, 2.0, 3.0]] * 2))[1, :, 0].tolist() == [1, 2, 3]


def test_jitter_is_in_the_unit_of_each_channel() -> None:
    x = torch.zeros(8, 2, 4000)
    out = F.jitter(x, torch.tensor([0.05, 2.0]), F.bulk_noise((8, 2, 4000), 3, x.device))
    assert out[:, 0].std() == pytest.approx(0.05, rel=0.02) and out[:, 1].std() == pytest.approx(2, rel=0.02)


def test_cubic_passes_through_samples_and_is_exact_on_lines_and_parabolas() -> None:
    t = torch.arange(12, dtype=torch.float64)
    x = torch.stack([3 * t - 1, 0.5 * t**2 - t])[None]
    at = torch.tensor([[1.0, 2.25, 5.5, 9.75]], dtype=torch.float64)
    out = F.cubic_at(x, at)
    torch.testing.assert_close(out, torch.stack([3 * at[0] - 1, 0.5 * at[0] ** 2 - at[0]])[None])
    torch.testing.assert_close(F.cubic_at(x, t[None]), x)


def test_a_curve_begins_and_ends_at_its_first_and_last_knot() -> None:
    knots = torch.tensor([[[1.0, 3.0, 2.0, 0.5]]])
    out = F.curve(knots, 61)
    torch.testing.assert_close(out[0, 0, ::20], knots[0, 0])
    assert out.diff(dim=2).abs().max() < 0.2  # smooth


def test_magnitude_warp_of_constant_knots_is_a_gain() -> None:
    x = torch.randn(2, 3, 50)
    torch.testing.assert_close(F.magnitude_warp(x, torch.full((2, 1, 4), 1.5)), 1.5 * x)


def test_quantise_rounds_and_clips_only_where_told() -> None:
    x = torch.tensor([[[0.12, -3.0], [0.12, -3.0]]])
    out = F.quantise(x, torch.tensor([0.05, 0.0]), torch.tensor([2.0, float("inf")]))
    torch.testing.assert_close(out, torch.tensor([[[0.1, -2.0], [0.12, -3.0]]]))


def test_waves_equal_their_sum() -> None:
    amplitude, hz, phase = (torch.rand(2, 3, 4, dtype=torch.float64) for _ in range(3))
    hz = hz * 20
    out = F.waves(amplitude, hz, phase, 30, 100.0).numpy()
    for b, e, t in [(0, 0, 0), (1, 2, 29), (0, 1, 7)]:
        want = sum(amplitude[b, e, k] * np.sin(2 * np.pi * (hz[b, e, k] * t / 100 + phase[b, e, k])) for k in range(4))
        assert out[b, e, t] == pytest.approx(float(want), abs=1e-5)


def test_a_transient_rises_and_falls_off() -> None:
    one = torch.ones(1, 1, 1)
    out = F.transients(2 * one, 0.1 * one, 0.5 * one, 200, 100.0, rise_s=0.02)[0, 0]
    assert (out[:11] == 0).all()
    assert out.argmax() == 12 and out.max() == pytest.approx(2 * np.exp(-0.02 / 0.5), rel=1e-5)
    assert out[62] / out[12] == pytest.approx(np.exp(-1), rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(seen=st.lists(st.booleans(), min_size=1, max_size=30), seed=st.integers(0, 9))
def test_gaps_are_bridged_as_by_linear_interpolation(seen: list[bool], seed: int) -> None:
    flags = np.array(seen)
    x = np.random.default_rng(seed).normal(size=len(seen)) * flags
    out = F.fill_gaps(torch.tensor(x)[None, None], torch.tensor(flags)[None, None])[0, 0].numpy()
    at = np.arange(len(seen))
    want = np.interp(at, at[flags], x[flags]) if flags.any() else np.zeros(len(seen))
    np.testing.assert_allclose(out, want, atol=1e-12)
