"""Movements along time: where each sample goes, that its flag goes too, and no alias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.augment import warp


def flags(n: int, *, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).uniform(size=(2, 3, n)) > 0.2)


def test_time_reverse_twice_is_the_signal() -> None:
    x, seen = torch.randn(2, 3, 9), flags(9)
    back = warp.time_reverse(*warp.time_reverse(x, seen))
    assert torch.equal(back[0], x) and back[1] is not None and torch.equal(back[1], seen)
    turned, _ = warp.time_reverse(x, sign=torch.tensor([1.0, -1.0, 1.0]))
    assert torch.equal(turned[:, 1], -x[:, 1].flip(1)) and torch.equal(turned[:, 0], x[:, 0].flip(1))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 40), segments=st.integers(1, 8), seed=st.integers(0, 99))
def test_permutation_moves_whole_segments(n: int, segments: int, seed: int) -> None:
    segments = min(segments, n)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3, n))
    order = np.array([rng.permutation(segments) for _ in range(2)])
    seen = flags(n, seed=seed)
    out, moved = warp.permute_segments(torch.tensor(x), torch.tensor(order), seen)
    assert moved is not None
    edges = [i * n // segments for i in range(segments + 1)]
    for b in range(2):
        for given_, got in ((x[b], out[b].numpy()), (seen[b].numpy(), moved[b].numpy())):
            want = np.concatenate([given_[:, edges[s] : edges[s + 1]] for s in order[b]], axis=1)
            np.testing.assert_array_equal(got, want)


@settings(max_examples=50, deadline=None)
@given(speeds=st.lists(st.floats(-1.0, 3.0), min_size=2, max_size=6), n=st.integers(2, 80))
def test_a_warped_clock_never_stops_and_keeps_both_ends(speeds: list[float], n: int) -> None:
    at = warp.warp_positions(torch.tensor([speeds]), n)[0]
    assert at[0] == 0 and at[-1] == pytest.approx(n - 1)
    assert (at.diff() > 0).all() and (at <= n - 1).all()


def test_even_speeds_change_nothing_and_all_channels_share_one_curve() -> None:
    x = torch.randn(2, 3, 50, dtype=torch.float64)
    torch.testing.assert_close(warp.time_warp(x, torch.full((2, 4), 1.3))[0], x)
    x[:, 1] = x[:, 0]
    out, _ = warp.time_warp(x, torch.tensor([[0.5, 1.5, 1.0], [1.0, 2.0, 1.0]]))
    assert torch.equal(out[:, 0], out[:, 1]) and not torch.allclose(out[:, 0], x[:, 0])


def test_twice_the_speed_passes_twice_the_signal() -> None:
    ramp = torch.arange(101, dtype=torch.float64)[None, None]
    out, _ = warp.time_warp(ramp, torch.tensor([[1.0, 1.0, 2.0, 2.0]]))
    slow, fast = out[0, 0, :20].diff().mean(), out[0, 0, -20:].diff().mean()
    assert fast / slow == pytest.approx(2, rel=0.05)


def test_crop_resize_takes_the_part_and_keeps_the_length() -> None:
    ramp = torch.arange(101, dtype=torch.float64).expand(3, 1, -1)
    out, _ = warp.crop_resize(ramp, torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.5, 0.5, 1.0]))
    assert out.shape == ramp.shape
    torch.testing.assert_close(out[:, 0, 0], torch.tensor([0.0, 50.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(out[:, 0, -1], torch.tensor([50.0, 100.0, 100.0], dtype=torch.float64))


def test_a_sample_between_an_observed_and_a_missing_one_is_missing() -> None:
    x = torch.tensor([[[1.0, 1.0, 0.0, 1.0]]])
    seen = torch.tensor([[[True, True, False, True]]])
    out, moved = warp.sample_at(x, torch.tensor([[0.5, 1.0, 1.5, 2.5, 3.0]]), seen)
    assert moved is not None
    assert moved[0, 0].tolist() == [True, True, False, False, True]
    assert out[0, 0].tolist() == [1, 1, 0, 0, 1]


def test_a_fast_clock_raises_frequencies_and_loses_the_ends() -> None:
    t = torch.arange(1000, dtype=torch.float64)
    x = torch.sin(2 * torch.pi * 0.1 * t)[None, None].repeat(2, 1, 1)
    out, seen = warp.rate_jitter(x, torch.tensor([0.1, -0.1]))
    assert seen is not None
    for b, hz in ((0, 0.11), (1, 0.09)):
        power = torch.fft.rfft(out[b, 0] * torch.hann_window(1000, dtype=torch.float64)).abs()
        assert power.argmax() / 1000 == pytest.approx(hz, abs=0.0011)
    assert (~seen[0, 0]).sum() == pytest.approx(1000 * (1 - 1 / 1.1), abs=2)
    assert seen[1].all() and (out[~seen] == 0).all()


def test_what_a_fast_clock_would_alias_is_taken_out() -> None:
    t = torch.arange(1000, dtype=torch.float64)
    x = torch.sin(2 * torch.pi * 0.48 * t)[None, None]  # would come down to 0.472 of the rate
    out, _ = warp.rate_jitter(x, torch.tensor([0.1]))
    assert out.abs().max() < 0.02
    untouched, _ = warp.rate_jitter(torch.sin(2 * torch.pi * 0.4 * t)[None, None], torch.tensor([0.1]))
    assert untouched.abs().max() > 0.5


def test_no_drift_changes_nothing() -> None:
    x = torch.randn(2, 3, 64, dtype=torch.float64)
    out, seen = warp.rate_jitter(x, torch.zeros(2))
    torch.testing.assert_close(out, x)
    assert seen is not None and seen.all()


def test_time_mask_marks_its_stretch_and_nothing_else() -> None:
    x = torch.ones(2, 1, 10)
    start, length = torch.tensor([2, 5]), torch.tensor([3, 0])
    out, seen = warp.time_mask(x, start, length)
    assert seen is not None
    assert out[0, 0].tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1] == seen[0, 0].float().tolist()
    assert seen[1].all() and torch.equal(out[1], x[1])
    flat, same = warp.time_mask(x, start, length, unobserved=False)
    assert same is None and torch.equal(flat, out)


def test_a_smooth_edge_falls_over_its_length_and_stays_observed() -> None:
    out, seen = warp.time_mask(torch.ones(1, 1, 20), torch.tensor([8]), torch.tensor([4]), edge=3)
    want = [(1 - np.cos(np.pi * k / 4)) / 2 for k in (1, 2, 3)]
    np.testing.assert_allclose(out[0, 0, 12:15].numpy(), want, atol=1e-6)
    np.testing.assert_allclose(out[0, 0, 5:8].numpy(), want[::-1], atol=1e-6)
    assert (out[0, 0, :5] == 1).all() and (out[0, 0, 15:] == 1).all()
    assert seen is not None and (~seen).sum() == 4
    untouched, _ = warp.time_mask(torch.ones(1, 1, 20), torch.tensor([8]), torch.tensor([0]), edge=3)
    assert (untouched == 1).all()
