"""Heads over the windows of a recording: what is not there changes nothing, time and order count, pieces make the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from biossl.config import build
from biossl.errors import RequestError
from biossl.models.group_heads import (
    GroupHead,
    PoolingHead,
    PoolingHeadConfig,
    SequenceHeadConfig,
    outputs_of_recording,
    timing,
)

HEADS = {
    "transformer": SequenceHeadConfig("transformer", windows=8, dim=8, depth=2, heads=2, pool="mean"),
    "gru": SequenceHeadConfig("gru", windows=8, dim=8, depth=2, heads=2, pool="mean"),
    "mean": PoolingHeadConfig("mean", pool="mean"),
    "attention": PoolingHeadConfig("attention", hidden=4, pool="mean"),
}


class _Width:
    dim = 6


def group(name: str) -> tuple[Any, Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    head = HEADS[name].build(_Width(), 3).eval()  # type: ignore[arg-type]
    assert isinstance(head, GroupHead)
    with torch.no_grad():  # a fresh output layer says next to nothing; these tests need heads that speak
        for p in head.parameters():
            p.add_(0.3 * torch.randn_like(p))
    seen = torch.rand(4, 7) < 0.6
    seen[0], seen[1] = True, False
    seen[2, 3] = True
    return head, torch.randn(4, 7, 6), seen, torch.rand(4, 7).cumsum(1).double()


WHOLE = torch.ones(4, 7, dtype=torch.bool)


@pytest.mark.parametrize("name", HEADS)
def test_windows_without_signal_change_no_output_of_others(name: str) -> None:
    head, x, seen, seconds = group(name)
    a = head.in_context(x, seen, seconds, WHOLE)
    b = head.in_context(torch.where(seen[..., None], x, 1e3 * torch.randn_like(x)), seen, seconds, WHOLE)
    assert a.shape == (4, 7, 3) and bool(a.isfinite().all())
    torch.testing.assert_close(a[seen], b[seen])
    one = head.in_context(x[2:3], seen[2:3], seconds[2:3], WHOLE[2:3])
    torch.testing.assert_close(one[0], a[2], rtol=1e-4, atol=1e-5)  # and stretches do not see each other


@pytest.mark.parametrize("name", HEADS)
def test_repeats_behind_a_short_recording_change_nothing(name: str) -> None:
    head, x, _, seconds = group(name)
    there = torch.arange(7).expand(4, 7) < 5
    a = head.in_context(x, WHOLE, seconds, there)[:, :5]
    alone = head.in_context(x[:, :5], WHOLE[:, :5], seconds[:, :5], WHOLE[:, :5])
    torch.testing.assert_close(a, alone, rtol=1e-4, atol=1e-5)


def test_a_sequence_sees_its_neighbours_their_order_and_their_times() -> None:
    for name in ("transformer", "gru"):
        head, x, _, seconds = group(name)
        a = head.in_context(x, WHOLE, seconds, WHOLE)
        for other in (0, 6):
            moved = x.clone()
            moved[:, other] += 1
            assert not torch.allclose(head.in_context(moved, WHOLE, seconds, WHOLE)[:, 3], a[:, 3], atol=1e-5)
        even = torch.arange(7).double().expand(4, 7)
        b = head.in_context(x, WHOLE, even, WHOLE)
        assert not torch.allclose(a, b, atol=1e-4)
        assert not torch.allclose(head.in_context(x.flip(1), WHOLE, even, WHOLE).flip(1), b, atol=1e-4)


def test_timing_is_the_rhythm_and_a_gap_at_the_ends_is_nothing() -> None:
    beats = np.array([0.0, 0.8, 1.6, 2.0, 3.2, 4.0])  # one comes early
    out = timing(torch.from_numpy(beats)[None], torch.ones(1, 6, dtype=torch.bool))[0].numpy()
    rr = np.diff(beats)
    expected = np.log(rr / np.median(rr))
    np.testing.assert_allclose(out[1:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(out[:-1, 1], expected, atol=1e-6)
    np.testing.assert_allclose(out[3, 2], np.log(0.4 / 1.2), atol=1e-6)
    np.testing.assert_allclose(out[:, 3], np.log(0.8), atol=1e-6)
    assert out[0, 0] == out[0, 2] == out[-1, 1] == out[-1, 2] == 0


def test_pooling_weights_are_shares_and_all_windows_get_one_answer() -> None:
    for name in ("mean", "attention"):
        head, x, seen, seconds = group(name)
        assert isinstance(head, PoolingHead)
        w = head.weights(x, seen)
        torch.testing.assert_close(w.sum(1), seen.any(1).float())
        assert bool((w[~seen] == 0).all())
        out = head.in_context(x, seen, seconds, WHOLE)
        assert torch.equal(out[:, 0], out[:, 6])
    head, x, seen, seconds = group("mean")
    torch.testing.assert_close(head.in_context(x, seen, seconds, WHOLE)[3, 0], head.out(x[3][seen[3]].mean(0)))


@given(st.integers(1, 40))
def test_a_recording_of_any_length_has_one_output_a_window_and_each_sees_both_sides(n: int) -> None:
    head, *_ = group("gru")
    g = torch.Generator().manual_seed(n)
    x, seen = torch.randn(n, 6, generator=g), torch.ones(n, dtype=torch.bool)
    seconds = torch.arange(n).double()
    out = outputs_of_recording(head, x, seen, seconds)
    assert out.shape == (n, 3) and bool(out.isfinite().all())
    for i in (0, n // 2, n - 1):
        for near in (i - 1, i + 1):  # a neighbour on either side is always in the piece
            if 0 <= near < n:
                moved = x.clone()
                moved[near] += 3
                assert not torch.allclose(outputs_of_recording(head, moved, seen, seconds)[i], out[i], atol=1e-6)
    if n > 24:
        moved = x.clone()
        moved[-1] += 100
        assert torch.equal(outputs_of_recording(head, moved, seen, seconds)[0], out[0])  # and none beyond a piece


def test_a_whole_piece_is_read_as_in_training() -> None:
    head, *_ = group("gru")
    x, seconds = torch.randn(8, 6), torch.rand(8).cumsum(0).double()
    seen = torch.ones(8, dtype=torch.bool)
    torch.testing.assert_close(
        outputs_of_recording(head, x, seen, seconds), head.in_context(x[None], seen[None], seconds[None], seen[None])[0]
    )


def test_settings_without_meaning_are_refused() -> None:
    for config, settings, text in (
        (SequenceHeadConfig, {"dim": 10}, "multiple of 4"),
        (SequenceHeadConfig, {"windows": 1}, "at least 2"),
        (PoolingHeadConfig, {"dropout": 1.0}, "dropout"),
    ):
        with pytest.raises(RequestError, match=text):
            build(config, settings, where="head")
