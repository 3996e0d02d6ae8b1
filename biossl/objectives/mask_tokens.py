"""What a recipe's ``mask`` section may say about hidden channels: dataclasses around :mod:`biossl.masks.tokens`.

What lives here: families in which channels differ in what they hide, so that what one channel says of another is learned.
They need one token per channel: a joint tokenizer has nothing to hide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from biossl.channels import positions
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.masks import Mask, exact_count, spatial_tokens, stdm_tokens, tube_tokens, whole_channels
from biossl.masks.tokens import centre_weights, neighbours
from biossl.objectives.mask_times import check_share, require_patches
from biossl.signal import InputSpec


def require_channels(grid: tuple[int, int], least: int = 2) -> None:
    """RequestError unless so many channels have tokens of their own."""
    if grid[0] < least:
        raise RequestError(
            f"mask: it hides whole channels, but the tokens have {grid[0]} (a joint tokenizer makes one of all); take "
            "model.tokenizer: channel, or a mask over times"
        )


@dataclass
class ChannelMask:
    """Whole channels, for the whole window.

    Attributes
    ----------
    ratio : float
        Share of the channels; rounded, at least one hidden and one seen.
    """

    ratio: float = 0.5

    over: ClassVar[Literal["token"]] = "token"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)

    def share(self) -> float:
        """Share of hidden tokens, before rounding."""
        return self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> ChannelMask:
        """At least two channels."""
        require_channels(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        return whole_channels(keys, grid, exact_count(grid[0], self.ratio), draw=number)


@dataclass
class SpatialMask:
    """A channel and its nearest neighbours on the head, for the whole window.

    Nearby electrodes see nearly the same: a single hidden channel is interpolated, a block has to be inferred.

    Attributes
    ----------
    ratio : float
        Share of the channels in the block; rounded, at least one hidden and one seen.
    """

    ratio: float = 0.4

    over: ClassVar[Literal["token"]] = "token"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)

    def share(self) -> float:
        """Share of hidden tokens, before rounding."""
        return self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> PlacedSpatialMask:
        """The mask with the places of this spec's electrodes; RequestError where one has none."""
        require_channels(grid)
        near, weight = _blocks(spec.ch_names, exact_count(grid[0], self.ratio))
        return PlacedSpatialMask(self.ratio, near, weight)

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Not before :meth:`require`: blocks need places."""
        raise ValueError("SpatialMask draws once `require` has placed its channels")


@dataclass
class PlacedSpatialMask(SpatialMask):
    """A :class:`SpatialMask` that knows where the channels are: ``near`` (C, n) and ``weight`` (C,) of its blocks."""

    near: Tensor = torch.empty(0, device="cpu")
    weight: Tensor = torch.empty(0, device="cpu")

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        if grid[0] != len(self.near):
            raise ValueError(f"blocks of {len(self.near)} channels, tokens of {grid[0]}")
        return spatial_tokens(keys, grid, self.near, self.weight, draw=number)


@lru_cache
def _blocks(names: tuple[str, ...], count: int) -> tuple[Tensor, Tensor]:
    """Neighbours of every channel and how likely each is the middle, on the CPU whatever the default device."""
    places = positions(names)
    lost = list(names) if places is None else [n for n, bad in zip(names, np.isnan(places).any(axis=1), strict=True) if bad]
    if lost or places is None:
        raise RequestError(
            f"mask.name: spatial needs electrode positions, none is known for {' '.join(lost[:8])}; take mask channel, or name "
            "the channels with positions in data.channels"
        )
    with torch.device("cpu"):
        near = neighbours(torch.from_numpy(places), count)
        return near, centre_weights(near)


@dataclass
class STDMMask:
    """Lead drop and whole-time drop at once, after CoRe-ECG (arXiv 2604.11359).

    At a hidden time every channel is hidden, so that leads that follow from others (III = II - I) cannot give the answer
    away; a hidden channel is hidden always. Hidden share: 1 - (1 - lead) (1 - time).

    Attributes
    ----------
    lead : float
        Share of the channels that are hidden; the number is the same in every sample: round(lead C), which may be 0.
    time : float
        Share of the time patches that are hidden in all channels.
    """

    lead: float = 0.2
    time: float = 0.5

    over: ClassVar[Literal["token"]] = "token"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_share("lead", self.lead)
        check_share("time", self.time)

    def share(self) -> float:
        """Share of hidden tokens, before rounding."""
        return 1.0 - (1.0 - self.lead) * (1.0 - self.time)

    def require(self, grid: tuple[int, int], spec: InputSpec) -> STDMMask:
        """At least two patches and, since leads are dropped, two channels."""
        require_channels(grid)
        require_patches(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        C, P = grid
        return stdm_tokens(keys, grid, leads=min(int(self.lead * C + 0.5), C - 1), times=exact_count(P, self.time), draw=number)


@dataclass
class TubeMask:
    """The same channels are hidden over one span of time, which wraps round the window's end.

    Attributes
    ----------
    channels : float
        Share of the channels.
    time : float
        Share of the window.
    """

    channels: float = 0.5
    time: float = 0.5

    over: ClassVar[Literal["token"]] = "token"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_share("channels", self.channels)
        check_share("time", self.time)

    def share(self) -> float:
        """Share of hidden tokens, before rounding."""
        return self.channels * self.time

    def require(self, grid: tuple[int, int], spec: InputSpec) -> TubeMask:
        """At least two channels and two patches."""
        require_channels(grid)
        require_patches(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        C, P = grid
        return tube_tokens(keys, grid, channels=exact_count(C, self.channels), times=exact_count(P, self.time), draw=number)
