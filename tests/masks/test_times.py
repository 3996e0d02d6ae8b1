"""Masks: exact counts, every patch hidden equally often, the published distribution, and independence of world size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from biossl.keys import Keys
from biossl.masks import (
    Mask,
    disjoint_times,
    exact_count,
    multi_block,
    multi_block_exact,
    partition_times,
    random_times,
    random_times_exact,
    visible_spans,
)

Draw = Callable[[Keys, int], Mask]


def keys(n: int, step: int = 0, seed: int = 0) -> Keys:
    return Keys(seed, step, torch.arange(n))


def check_partition(mask: Mask, n: int, n_patches: int) -> None:
    """Sorted, disjoint, in range, together all patches, at least one of each."""
    assert mask.masked.dtype == mask.visible.dtype == torch.int64
    assert mask.masked.shape[0] == mask.visible.shape[0] == n
    assert mask.masked.shape[1] >= 1 and mask.visible.shape[1] >= 1
    both = torch.cat([mask.masked, mask.visible], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(n_patches).expand(n, -1))
    for part in mask:
        assert (part.diff(dim=1) > 0).all()


@settings(max_examples=80, deadline=None)
@given(
    n_patches=st.integers(2, 80),
    share=st.floats(0.0, 1.0),
    n=st.integers(1, 5),
    step=st.integers(0, 10**6),
    blocks=st.integers(1, 6),
    length=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    circular=st.booleans(),
)
def test_every_draw_is_a_partition_of_the_right_size(
    n_patches: int, share: float, n: int, step: int, blocks: int, length: tuple[float, float], circular: bool
) -> None:
    k = keys(n, step)
    span = (min(length), max(length))
    count = exact_count(n_patches, share)
    for mask in (
        random_times_exact(k, n_patches, count),
        multi_block_exact(k, n_patches, count, blocks=blocks, length=span, circular=circular),
    ):
        check_partition(mask, n, n_patches)
        assert mask.masked.shape[1] == count
    check_partition(random_times(k, n_patches, ratio=span), n, n_patches)
    check_partition(multi_block(k, n_patches, blocks=blocks, length=span), n, n_patches)


@pytest.mark.parametrize(
    "draw",
    [
        lambda k, p: random_times_exact(k, p, 27),
        lambda k, p: multi_block_exact(k, p, 27),
        lambda k, p: visible_spans(k, p, 27, least=5),
        lambda k, p: disjoint_times(k, p, 27, draw=3),
        lambda k, p: partition_times(k, p, parts=2, chunk=4, draw=1),
    ],
    ids=["random", "multi_block", "span", "disjoint", "partition"],
)
def test_exact_masks_hide_every_patch_equally_often(draw: Draw) -> None:
    """Chi-square over positions; cutting masks to a common length would fail this at once (the last fifth starves)."""
    n, P = 6000, 50
    masked = draw(keys(n), P).masked
    share = masked.shape[1] / P
    counts = torch.bincount(masked.flatten(), minlength=P).double()
    expected = n * share
    spread = expected * (1 - share)  # each position is a coin per sample
    statistic = float(((counts - expected) ** 2 / spread).sum()) * (P - 1) / P
    assert statistic < chi2.ppf(1 - 1e-6, P - 1)
    fifths = counts.view(5, -1).sum(1) / counts.sum()
    assert fifths.tolist() == pytest.approx([0.2] * 5, abs=0.01)


def test_the_uniformity_test_can_fail() -> None:
    """Spans that stay inside the window hide its ends less often."""
    counts = torch.bincount(multi_block_exact(keys(6000), 50, 27, circular=False).masked.flatten(), minlength=50)
    assert counts[0] < 0.5 * counts[25]


def test_exact_multi_block_masks_are_few_spans() -> None:
    hidden = torch.zeros(500, 50)
    hidden.scatter_(1, multi_block_exact(keys(500), 50, 27).masked, 1.0)
    spans = ((hidden - hidden.roll(1, dims=1)) == 1).sum(dim=1)  # on the circle
    assert spans.max() <= 4 and spans.double().mean() > 1.2
    scattered = torch.zeros(500, 50)
    scattered.scatter_(1, random_times_exact(keys(500), 50, 27).masked, 1.0)
    assert ((scattered - scattered.roll(1, dims=1)) == 1).sum(dim=1).double().mean() > 8


def test_samples_and_draws_differ() -> None:
    for draw in (random_times_exact, multi_block_exact):
        a = draw(keys(64), 50, 27).masked
        assert len({tuple(r) for r in a.tolist()}) > 60
        assert not torch.equal(a, draw(keys(64), 50, 27, draw=1).masked)
        assert not torch.equal(a, draw(keys(64, step=1), 50, 27).masked)


@pytest.mark.parametrize(
    "draw",
    [
        random_times,
        multi_block,
        lambda k, p: random_times_exact(k, p, 27),
        lambda k, p: multi_block_exact(k, p, 27),
        lambda k, p: visible_spans(k, p, 38, least=4),
        lambda k, p: disjoint_times(k, p, 27, draw=1),
        lambda k, p: partition_times(k, p, parts=3, chunk=4, draw=1),
    ],
    ids=["random", "multi_block", "random_exact", "multi_block_exact", "span", "disjoint", "partition"],
)
def test_world_size_does_not_change_a_mask(draw: Draw) -> None:
    whole = draw(keys(8, step=5), 50)
    ranks = [draw(Keys(0, 5, torch.arange(r, 8, 2), micro=r, rank=r), 50) for r in range(2)]
    for part in range(2):
        assert torch.equal(whole[part][0::2], ranks[0][part]) and torch.equal(whole[part][1::2], ranks[1][part])


def test_published_random_mask_is_shared_and_of_the_published_size() -> None:
    sizes = []
    for step in range(300):
        mask = random_times(keys(4, step), 50)
        assert (mask.masked == mask.masked[0]).all() and mask.masked.stride(0) == 0
        sizes.append(mask.masked.shape[1])
    assert min(sizes) == 30 and max(sizes) <= 35 and 31.5 < sum(sizes) / len(sizes) < 32.5  # int(50 U(.6, .7))


def test_published_multi_block_mask_has_the_published_distribution() -> None:
    """Mean 55 % hidden, 5 to 95 % range 38 to 70 %; single spans of 8 to 11 patches that never reach the last patch."""
    share = torch.tensor([multi_block(keys(1, step), 50).masked.shape[1] / 50 for step in range(1500)]).double()
    assert float(share.mean()) == pytest.approx(0.55, abs=0.01)
    assert share.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist() == pytest.approx([0.38, 0.70], abs=0.021)
    lengths, last = set(), 0
    for step in range(400):
        span = multi_block(keys(1, step), 50, blocks=1).masked[0]
        assert span[-1] - span[0] == len(span) - 1
        lengths.add(len(span))
        last = max(last, int(span[-1]))
    assert lengths == {8, 9, 10, 11} and last == 48


def test_a_count_that_leaves_nothing_is_refused() -> None:
    for count in (0, 50):
        with pytest.raises(ValueError, match="1 .. 49"):
            multi_block_exact(keys(2), 50, count)


def runs(flag: torch.Tensor) -> list[int]:
    """Lengths of the runs of True of one row, on the circle."""
    row = flag.tolist()
    first = row.index(False)
    out, length = [], 0
    for value in row[first:] + row[:first]:
        if value:
            length += 1
        elif length:
            out, length = [*out, length], 0
    return [*out, length] if length else out


@settings(max_examples=60, deadline=None)
@given(P=st.integers(4, 60), K=st.integers(2, 40), least=st.integers(1, 12), step=st.integers(0, 10**6), circular=st.booleans())
def test_visible_spans_are_never_shorter_than_asked(P: int, K: int, least: int, step: int, circular: bool) -> None:
    K, least = min(K, P - 1), min(least, K, P - 1)
    mask = visible_spans(keys(4, step), P, P - K, least=least, circular=circular)
    check_partition(mask, 4, P)
    assert mask.visible.shape[1] == K
    seen = torch.zeros(4, P, dtype=torch.bool).scatter_(1, mask.visible, True)
    for row in seen:
        assert min(runs(row)) >= least
        if not circular:  # and no span is cut by the window's end
            left, right = int(row.int().argmin()), int(row.flip(0).int().argmin())
            assert left in (0, *range(least, P)) and right in (0, *range(least, P))


def test_spans_that_do_not_turn_favour_the_middle() -> None:
    masked = visible_spans(keys(4000), 50, 38, least=4, circular=False).masked
    counts = torch.bincount(masked.flatten(), minlength=50)
    assert counts[0] > 1.15 * counts[25]


@settings(max_examples=60, deadline=None)
@given(P=st.integers(2, 40), count=st.integers(1, 39), n=st.integers(1, 6), step=st.integers(0, 10**6))
def test_disjoint_masks_see_every_patch_as_often_as_every_other(P: int, count: int, n: int, step: int) -> None:
    count = min(count, P - 1)
    drawn = [disjoint_times(keys(3, step), P, count, draw=v) for v in range(n)]
    for mask in drawn:
        check_partition(mask, 3, P)
    for b in range(3):
        seen = torch.bincount(torch.cat([m.visible[b] for m in drawn]), minlength=P)
        assert int(seen.max() - seen.min()) <= 1
        if n * (P - count) <= P:
            assert int(seen.max()) == 1  # no two masks share a visible patch


def test_independent_masks_would_overlap() -> None:
    drawn = [random_times_exact(keys(50), 40, 30, draw=v) for v in range(4)]
    seen = torch.bincount(torch.cat([m.visible[0] for m in drawn]), minlength=40)
    assert int(seen.max()) > 1


@settings(max_examples=60, deadline=None)
@given(P=st.integers(4, 60), parts=st.integers(2, 4), chunk=st.integers(1, 9), step=st.integers(0, 10**6))
def test_parts_are_of_one_size_and_have_no_patch_in_common(P: int, parts: int, chunk: int, step: int) -> None:
    drawn = [partition_times(keys(3, step), P, parts=parts, chunk=chunk, draw=v) for v in range(parts)]
    for mask in drawn:
        check_partition(mask, 3, P)
        assert mask.visible.shape[1] == P // parts
    for b in range(3):
        together = torch.cat([m.visible[b] for m in drawn])
        assert len(together.unique()) == len(together) == parts * (P // parts)


def test_a_part_is_made_of_contiguous_chunks() -> None:
    mask = partition_times(keys(300), 48, parts=2, chunk=6, draw=0)
    seen = torch.zeros(300, 48, dtype=torch.bool).scatter_(1, mask.visible, True)
    lengths = [length for row in seen for length in runs(row)]
    assert min(lengths) == 6 and all(length % 6 == 0 for length in lengths)  # 8 chunks, none of them cut
    with pytest.raises(ValueError, match="part 2 of 2"):
        partition_times(keys(2), 48, parts=2, chunk=6, draw=2)


def test_weights_decide_what_is_hidden_as_sequential_draws_would() -> None:
    """Gumbel top-k against an explicit draw without replacement, and weights of 0 come last."""
    weight = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0])
    n = 20_000
    masked = random_times_exact(keys(n), 5, 2, prior=weight.expand(n, 5)).masked
    got = torch.bincount(masked.flatten(), minlength=5).double() / n
    p = (weight / weight.sum()).tolist()
    want = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(5) if j != i and p[j] > 0) for i in range(5)]
    assert got.tolist() == pytest.approx(want, abs=0.015) and got[4] == 0
    everything = random_times_exact(keys(200), 5, 4, prior=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).expand(200, 5)).masked
    assert bool((everything == 2).any(dim=1).all()) and len({tuple(r) for r in everything.tolist()}) == 4


def test_spans_are_centred_where_the_weights_are() -> None:
    n = 4000
    weight = torch.ones(n, 50)
    weight[:, 20] = 50.0
    masked = multi_block_exact(keys(n), 50, 15, blocks=2, prior=weight).masked
    counts = torch.bincount(masked.flatten(), minlength=50).double() / n
    assert counts[20] > 0.6 and counts[20] > 3 * counts[45]
    flat = multi_block_exact(keys(n), 50, 15, blocks=2, prior=torch.ones(n, 50)).masked
    even = torch.bincount(flat.flatten(), minlength=50).double() / n
    assert float(even.max() - even.min()) < 0.06
