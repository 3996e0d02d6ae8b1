"""Masks: exact counts, every patch hidden equally often, the published distribution, and independence of world size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from biossl.keys import Keys
from biossl.masks import Mask, exact_count, multi_block, multi_block_exact, random_times, random_times_exact

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
    [lambda k, p: random_times_exact(k, p, 27), lambda k, p: multi_block_exact(k, p, 27)],
    ids=["random", "multi_block"],
)
def test_exact_masks_hide_every_patch_equally_often(draw: Draw) -> None:
    """Chi-square over positions; cutting masks to a common length would fail this at once (the last fifth starves)."""
    n, P = 6000, 50
    counts = torch.bincount(draw(keys(n), P).masked.flatten(), minlength=P).double()
    expected = n * 27 / P
    spread = expected * (1 - 27 / P)  # each position is a coin per sample
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
    ],
    ids=["random", "multi_block", "random_exact", "multi_block_exact"],
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
