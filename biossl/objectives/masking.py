"""What a recipe's ``mask`` section may say: settings of one mask family, and the draw of M masks from it.

What lives here: dataclasses around the functions of :mod:`biossl.masks`, and :class:`DrawnMask`, the one form in which an
objective sees a mask, whether all channels share the hidden times or every channel hides its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from biossl.batch import TimeKeep
from biossl.keys import Keys
from biossl.masks import Mask, exact_count, multi_block, multi_block_exact, random_times, random_times_exact


@dataclass(frozen=True)
class DrawnMask:
    """Masks of one step on a token grid (C, P), tokens numbered lead-major (channel * P + patch).

    ``over`` "time": ``masked`` (R, M) and ``visible`` (R, K) number time patches that all channels share; "token": they
    number tokens. R = B, or n_masks * B with row m * B + b for mask m of sample b. Sorted int64.
    """

    masked: Tensor
    visible: Tensor
    grid: tuple[int, int]
    over: Literal["time", "token"] = "time"

    def keep(self) -> TimeKeep | Tensor:
        """What :meth:`TransformerEncoder.encode` takes as ``keep``: the visible tokens."""
        return TimeKeep(self.visible) if self.over == "time" else self.visible

    def masked_tokens(self) -> Tensor:
        """Token numbers that are hidden, int64, (R, C * M) or (R, M)."""
        return self._tokens(self.masked)

    def visible_tokens(self) -> Tensor:
        """Token numbers that are visible, int64, (R, C * K) or (R, K)."""
        return self._tokens(self.visible)

    def _tokens(self, index: Tensor) -> Tensor:
        if self.over == "token":
            return index
        C, P = self.grid
        return (torch.arange(C, device=index.device)[:, None] * P + index[:, None, :]).flatten(1)


class MaskConfig(Protocol):
    """Settings that can draw a mask over a token grid (C, P)."""

    @property
    def over(self) -> Literal["time", "token"]:
        """Whether :meth:`draw` numbers time patches that all channels share, or tokens."""

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step; ``prior`` (B, P) or (B, C * P), not negative, makes a patch likelier to be hidden."""

    def share(self) -> float:
        """Expected share of hidden patches."""

    @property
    def per_sample(self) -> bool:
        """True: every sample has its own mask of the same size; False: one mask a step, of varying size."""


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value:g}")


def _check_range(name: str, value: list[float]) -> None:
    if len(value) != 2 or not 0.0 < value[0] <= value[1] < 1.0:
        raise ValueError(f"{name} must be two shares in ascending order, e.g. [0.6, 0.7], not {value}")


@dataclass
class RandomMask:
    """Single patches at random.

    Attributes
    ----------
    ratio : float or [float, float]
        A number: every sample hides exactly this share, each its own patches. Two numbers: as published in ECG-JEPA, one
        mask a step for the whole batch whose share is uniform between them.
    """

    ratio: float | list[float] = 0.65

    over: ClassVar[Literal["time"]] = "time"

    def __post_init__(self) -> None:
        if isinstance(self.ratio, list):
            _check_range("ratio", self.ratio)
        else:
            _check_share("ratio", self.ratio)

    @property
    def per_sample(self) -> bool:
        """True: one mask a sample."""
        return not isinstance(self.ratio, list)

    def share(self) -> float:
        """Expected share of hidden patches."""
        return sum(self.ratio) / 2 if isinstance(self.ratio, list) else self.ratio

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        n_patches = grid[1]
        if isinstance(self.ratio, list):
            return random_times(keys, n_patches, ratio=(self.ratio[0], self.ratio[1]), draw=number)
        return random_times_exact(keys, n_patches, exact_count(n_patches, self.ratio), draw=number)


@dataclass
class MultiBlockMask:
    """The union of several spans.

    Attributes
    ----------
    ratio : float or None
        A number: every sample hides exactly this share, each its own spans, which wrap round the window's end. None: as
        published in ECG-JEPA, one mask a step for the whole batch, of the size its spans happen to cover.
    blocks : int
        Spans, overlaps allowed.
    length : [float, float]
        Length of a span as share of the window, uniform between the two.
    """

    ratio: float | None = 0.55
    blocks: int = 4
    length: list[float] = field(default_factory=lambda: [0.175, 0.225])

    over: ClassVar[Literal["time"]] = "time"

    def __post_init__(self) -> None:
        if self.ratio is not None:
            _check_share("ratio", self.ratio)
        _check_range("length", self.length)
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {self.blocks}")

    @property
    def per_sample(self) -> bool:
        """True: one mask a sample."""
        return self.ratio is not None

    def share(self) -> float:
        """Expected share of hidden patches (of the published draw: if starts were uniform on a circle)."""
        return 1.0 - (1.0 - sum(self.length) / 2) ** self.blocks if self.ratio is None else self.ratio

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        n_patches = grid[1]
        length = (self.length[0], self.length[1])
        if self.ratio is None:
            return multi_block(keys, n_patches, blocks=self.blocks, length=length, draw=number)
        count = exact_count(n_patches, self.ratio)
        return multi_block_exact(keys, n_patches, count, blocks=self.blocks, length=length, draw=number)


def draw_masks(config: MaskConfig, keys: Keys, grid: tuple[int, int], n_masks: int, *, prior: Tensor | None = None) -> DrawnMask:
    """M masks of every sample, stacked: row m * B + b is mask m of sample b.

    Raises
    ------
    ValueError
        More than one mask of a family whose size varies: they could not be stacked.
    """
    if n_masks == 1:
        return DrawnMask(*config.draw(keys, grid, 0, prior), grid, config.over)
    if not config.per_sample:
        raise ValueError("several masks per target pass need masks of one size; give mask.ratio as one number")
    drawn = [config.draw(keys, grid, m, prior) for m in range(n_masks)]
    return DrawnMask(torch.cat([d.masked for d in drawn]), torch.cat([d.visible for d in drawn]), grid, config.over)
