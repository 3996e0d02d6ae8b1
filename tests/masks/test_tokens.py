"""Masks over tokens: exact counts, the pattern each family promises, every place hidden equally often."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from biossl.channels import positions
from biossl.keys import Keys
from biossl.masks import Mask, random_tokens, spatial_tokens, stdm_tokens, tube_tokens, whole_channels
from biossl.masks.tokens import centre_weights, neighbours

HEAD = "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split()
GRID = (5, 12)


def keys(n: int, step: int = 0) -> Keys:
    return Keys(0, step, torch.arange(n))


def hidden(mask: Mask, grid: tuple[int, int]) -> Tensor:
    """(B, C, P) bool, after checking that masked and visible are a sorted partition of all tokens."""
    N = grid[0] * grid[1]
    both = torch.cat([mask.masked, mask.visible], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(N).expand(len(both), N))
    assert all(bool((part.diff(dim=1) > 0).all()) and part.dtype == torch.int64 for part in mask)
    return torch.zeros(len(both), N, dtype=torch.bool).scatter_(1, mask.masked, True).view(-1, *grid)


def head(count: int) -> tuple[Tensor, Tensor]:
    places = positions(HEAD)
    assert places is not None
    near = neighbours(torch.from_numpy(places), count)
    return near, centre_weights(near)


FAMILIES: dict[str, Callable[[Keys, int], Mask]] = {
    "random": lambda k, draw: random_tokens(k, GRID, 7, draw=draw),
    "channel": lambda k, draw: whole_channels(k, GRID, 2, draw=draw),
    "stdm": lambda k, draw: stdm_tokens(k, GRID, leads=1, times=6, draw=draw),
    "tube": lambda k, draw: tube_tokens(k, GRID, channels=2, times=5, draw=draw),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_is_hidden_equally_often(name: str) -> None:
    n = 5000
    flag = hidden(FAMILIES[name](keys(n), 0), GRID)
    share = float(flag.float().mean())
    counts = flag.sum(dim=0).double()
    assert counts.min() / n == pytest.approx(share, abs=0.04) and counts.max() / n == pytest.approx(share, abs=0.04)
    for line, length in ((flag.any(dim=2) if name == "channel" else flag[:, :, 0], GRID[0]), (flag[:, 0], GRID[1])):
        each = line.sum(dim=0).double()  # channels at one time, times of one channel
        p = float(each.mean() / n)
        statistic = float(((each - n * p) ** 2 / (n * p * (1 - p))).sum())
        assert statistic < chi2.ppf(1 - 1e-6, length)


@pytest.mark.parametrize("name", FAMILIES)
def test_masks_differ_by_sample_and_number_and_not_by_world_size(name: str) -> None:
    draw = FAMILIES[name]
    whole = draw(keys(8, 5), 1)
    for r in range(2):
        part = draw(Keys(0, 5, torch.arange(r, 8, 2), micro=r, rank=r), 1)
        assert torch.equal(whole.masked[r::2], part.masked) and torch.equal(whole.visible[r::2], part.visible)
    assert not torch.equal(whole.masked, draw(keys(8, 5), 2).masked)
    assert len({tuple(row) for row in draw(keys(64), 0).masked.tolist()}) >= 8


def test_random_tokens_hide_as_many_of_every_channel_and_not_the_same_ones() -> None:
    flag = hidden(random_tokens(keys(50), GRID, 7), GRID)
    assert bool((flag.sum(dim=2) == 7).all()) and not torch.equal(flag[:, 0], flag[:, 1])


def test_whole_channels_are_hidden_for_the_whole_window() -> None:
    flag = hidden(whole_channels(keys(50), GRID, 2), GRID)
    assert torch.equal(flag.any(dim=2), flag.all(dim=2)) and bool((flag[:, :, 0].sum(dim=1) == 2).all())


def test_stdm_hides_a_token_when_its_lead_or_its_time_is_dropped() -> None:
    flag = hidden(stdm_tokens(keys(200), GRID, leads=1, times=6), GRID)
    lead, time = flag.all(dim=2), flag.all(dim=1)
    assert torch.equal(flag, lead[:, :, None] | time[:, None, :])
    assert bool((lead.sum(dim=1) == 1).all()) and bool((time.sum(dim=1) == 6).all())
    none = hidden(stdm_tokens(keys(20), GRID, leads=0, times=6), GRID)
    assert torch.equal(none.any(dim=1), none.all(dim=1))


def test_a_tube_is_a_rectangle_on_the_circle() -> None:
    flag = hidden(tube_tokens(keys(300), GRID, channels=2, times=5), GRID)
    channel, time = flag.any(dim=2), flag.any(dim=1)
    assert torch.equal(flag, channel[:, :, None] & time[:, None, :])
    assert bool((channel.sum(dim=1) == 2).all()) and bool((time.sum(dim=1) == 5).all())
    starts = (time & ~time.roll(1, dims=1)).sum(dim=1)
    assert bool((starts == 1).all())  # one span


def test_a_spatial_block_is_a_channel_and_its_nearest_neighbours() -> None:
    near, weight = head(5)
    flag = hidden(spatial_tokens(keys(400), (19, 3), near, weight), (19, 3))
    assert torch.equal(flag.any(dim=2), flag.all(dim=2))
    places = positions(HEAD)
    blocks = set()
    for c in range(19):  # the slow way
        distance = sorted(
            (sum((float(a) - float(b)) ** 2 for a, b in zip(places[c], places[k], strict=True)), k) for k in range(19)
        )
        blocks.add(frozenset(k for _, k in distance[:5]))
    found = {frozenset(row.nonzero()[:, 0].tolist()) for row in flag[:, :, 0]}
    assert found <= blocks and len(found) > 10


@pytest.mark.parametrize("count", [4, 8])
def test_the_rim_of_the_head_is_hidden_nearly_as_often_as_its_middle(count: int) -> None:
    near, weight = head(count)
    n = 8000
    share = hidden(spatial_tokens(keys(n), (19, 2), near, weight), (19, 2))[:, :, 0].double().mean(dim=0) / (count / 19)
    assert 0.75 < float(share.min()) and float(share.max()) < 1.25
    even = torch.full((19,), 1 / 19, dtype=torch.float64)
    plain = hidden(spatial_tokens(keys(n), (19, 2), near, even), (19, 2))[:, :, 0].double().mean(dim=0) / (count / 19)
    assert float(plain.max() - plain.min()) > 1.3 * float(share.max() - share.min())  # without weights the middle is favoured


def test_weights_are_those_of_each_token() -> None:
    weight = torch.ones(3000, 5 * 12)
    weight[:, 2 * 12 + 4] = 100.0
    flag = hidden(random_tokens(keys(3000), GRID, 3, prior=weight), GRID).double().mean(dim=0)
    assert flag[2, 4] > 0.95 and float(flag[0, 4]) == pytest.approx(3 / 12, abs=0.05)


@pytest.mark.parametrize(
    "draw",
    [lambda: whole_channels(keys(2), (1, 8), 1), lambda: stdm_tokens(keys(2), (2, 8), leads=0, times=0),
     lambda: tube_tokens(keys(2), (2, 8), channels=2, times=8), lambda: random_tokens(keys(2), (2, 8), 8)],
)  # fmt: skip
def test_a_mask_that_leaves_nothing_is_refused(draw: Callable[[], Mask]) -> None:
    with pytest.raises(ValueError, match="count must be"):
        draw()
