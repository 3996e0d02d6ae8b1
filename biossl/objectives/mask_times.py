"""What a recipe's ``mask`` section may say about hidden times: dataclasses around :mod:`biossl.masks.times`.

What lives here: families whose hidden times all channels share (``random`` may also be told to let every channel hide its
own). Those that hide whole channels or parts of them are in ``mask_tokens.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from biossl.errors import RequestError
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
    random_tokens,
    step_share,
    visible_spans,
)
from biossl.masks.priors import Prior
from biossl.signal import InputSpec


def check_share(name: str, value: float) -> None:
    """ValueError unless 0 < value < 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value:g}")


def check_range(name: str, value: list[float]) -> None:
    """ValueError unless two ascending shares."""
    if len(value) != 2 or not 0.0 < value[0] <= value[1] < 1.0:
        raise ValueError(f"{name} must be two shares in ascending order, e.g. [0.6, 0.7], not {value}")


def require_patches(grid: tuple[int, int], least: int = 2) -> None:
    """RequestError unless a window has so many patches."""
    if grid[1] < least:
        raise RequestError(
            f"mask: a window has {grid[1]} patches, this mask needs at least {least}; take a smaller model.patch_s"
        )


def times_prior(prior: Tensor | None, grid: tuple[int, int]) -> Tensor | None:
    """Weights (B, P) from (B, P) or (B, C * P): the mean over channels."""
    if prior is None or prior.shape[1] == grid[1]:
        return prior
    return prior.view(-1, *grid).mean(dim=1)


@dataclass
class RandomMask:
    """Single patches at random.

    Attributes
    ----------
    ratio : float or [float, float]
        A number: every sample hides exactly this share, each its own patches. Two numbers: as published in ECG-JEPA, one
        mask a step for the whole batch whose share is uniform between them.
    channelwise : bool
        Every channel hides its own patches, the same number of them, as in ST-MEM. False: all channels hide the same times.
    prior : Prior or None
        What makes a patch likelier to be hidden.
    """

    ratio: float | list[float] = 0.65
    channelwise: bool = False
    prior: Prior | None = None

    most: ClassVar[None] = None

    def __post_init__(self) -> None:
        if isinstance(self.ratio, list):
            check_range("ratio", self.ratio)
            if self.channelwise or self.prior is not None:
                raise ValueError("ratio must be one number with channelwise or prior, not two")
        else:
            check_share("ratio", self.ratio)

    @property
    def over(self) -> Literal["time", "token"]:
        """Tokens when every channel has its own mask."""
        return "token" if self.channelwise else "time"

    @property
    def per_sample(self) -> bool:
        """True: one mask a sample."""
        return not isinstance(self.ratio, list)

    def share(self) -> float:
        """Expected share of hidden patches."""
        return sum(self.ratio) / 2 if isinstance(self.ratio, list) else self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> RandomMask:
        """At least two patches."""
        require_patches(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        n_patches = grid[1]
        if isinstance(self.ratio, list):
            return random_times(keys, n_patches, ratio=(self.ratio[0], self.ratio[1]), draw=number)
        count = exact_count(n_patches, self.ratio)
        if self.channelwise:
            wide = prior.repeat(1, grid[0]) if prior is not None and prior.shape[1] != grid[0] * n_patches else prior
            return random_tokens(keys, grid, count, prior=wide, draw=number)
        return random_times_exact(keys, n_patches, count, prior=times_prior(prior, grid), draw=number)


@dataclass
class MultiBlockMask:
    """The union of several spans.

    Attributes
    ----------
    ratio : float or None
        A number: every sample hides exactly this share, each its own spans. None: as published in ECG-JEPA, one mask a
        step for the whole batch, of the size its spans happen to cover; its spans never wrap.
    blocks : int
        Spans, overlaps allowed.
    length : [float, float]
        Length of a span as share of the window, uniform between the two.
    circular : bool
        Spans wrap round the window's end, so every patch is hidden equally often. False: the ends are hidden less often.
    prior : Prior or None
        What makes a patch likelier to be the middle of a span.
    """

    ratio: float | None = 0.55
    blocks: int = 4
    length: list[float] = field(default_factory=lambda: [0.175, 0.225])
    circular: bool = True
    prior: Prior | None = None

    over: ClassVar[Literal["time"]] = "time"
    most: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.ratio is not None:
            check_share("ratio", self.ratio)
        elif self.prior is not None:
            raise ValueError("ratio must be a number with prior, not null")
        check_range("length", self.length)
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {self.blocks}")

    @property
    def per_sample(self) -> bool:
        """True: one mask a sample."""
        return self.ratio is not None

    def share(self) -> float:
        """Expected share of hidden patches (of the published draw: if starts were uniform on a circle)."""
        return 1.0 - (1.0 - sum(self.length) / 2) ** self.blocks if self.ratio is None else self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> MultiBlockMask:
        """At least two patches."""
        require_patches(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        n_patches = grid[1]
        length = (self.length[0], self.length[1])
        if self.ratio is None:
            return multi_block(keys, n_patches, blocks=self.blocks, length=length, draw=number)
        return multi_block_exact(
            keys, n_patches, exact_count(n_patches, self.ratio), blocks=self.blocks, length=length, circular=self.circular,
            prior=times_prior(prior, grid), draw=number,
        )  # fmt: skip


@dataclass
class SpanMask:
    """What stays visible comes in contiguous spans, after the joint-lead JEPA of Weimann and Conrad (arXiv 2410.13867).

    Attributes
    ----------
    ratio : float or [float, float]
        Hidden share of every sample, the same for all of a step; two numbers: drawn anew for every step, uniformly.
    patches : int
        Shortest visible span.
    circular : bool
        Turned by a random number of patches, so every patch is hidden equally often. False: spans stay whole at the ends,
        which are seen less often than the middle.
    """

    ratio: float | list[float] = field(default_factory=lambda: [0.75, 0.85])
    patches: int = 10
    circular: bool = True

    over: ClassVar[Literal["time"]] = "time"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        if isinstance(self.ratio, list):
            check_range("ratio", self.ratio)
        else:
            check_share("ratio", self.ratio)
        if self.patches < 1:
            raise ValueError(f"patches must be at least 1, not {self.patches}")

    def share(self) -> float:
        """Expected share of hidden patches."""
        return sum(self.ratio) / 2 if isinstance(self.ratio, list) else self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> SpanMask:
        """One span fits what stays visible."""
        require_patches(grid)
        left = grid[1] - exact_count(grid[1], self.ratio[1] if isinstance(self.ratio, list) else self.ratio)
        if left < self.patches:
            raise RequestError(
                f"mask.patches: {self.patches}, but mask.ratio leaves only {left} of {grid[1]} patches visible; "
                f"take at most {left}, or a lower ratio"
            )
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        P = grid[1]
        ratio = self.ratio
        if isinstance(ratio, list):
            ratio = ratio[0] + (ratio[1] - ratio[0]) * step_share(keys)
        return visible_spans(keys, P, exact_count(P, ratio), least=self.patches, circular=self.circular, draw=number)


@dataclass
class DisjointMask:
    """Masks of one sample see as different patches as the ratio allows, after DMJD; ``n_masks: 4`` with ratio .75 sees all.

    Attributes
    ----------
    ratio : float
        Hidden share of every mask.
    """

    ratio: float = 0.75

    over: ClassVar[Literal["time"]] = "time"
    per_sample: ClassVar[bool] = True
    most: ClassVar[None] = None
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)

    def share(self) -> float:
        """Share of hidden patches."""
        return self.ratio

    def require(self, grid: tuple[int, int], spec: InputSpec) -> DisjointMask:
        """At least two patches."""
        require_patches(grid)
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step."""
        return disjoint_times(keys, grid[1], exact_count(grid[1], self.ratio), draw=number)


@dataclass
class PartitionMask:
    """Mask k sees part k of a random partition into contiguous chunks, after S-PCL (arXiv 2603.07113).

    Attributes
    ----------
    parts : int
        Visible sets, all of P // parts patches and without a common one.
    patches : int
        Length of a chunk; 0.5 to 1 s is right, since gaps of single patches are filled by interpolation.
    """

    parts: int = 2
    patches: int = 4

    over: ClassVar[Literal["time"]] = "time"
    per_sample: ClassVar[bool] = True
    prior: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.parts < 2 or self.patches < 1:
            raise ValueError(f"parts must be at least 2 and patches at least 1, not {self.parts} and {self.patches}")

    @property
    def most(self) -> int:
        """The number of parts."""
        return self.parts

    def share(self) -> float:
        """Share of patches hidden from one part."""
        return 1.0 - 1.0 / self.parts

    def require(self, grid: tuple[int, int], spec: InputSpec) -> PartitionMask:
        """Every part gets at least one chunk."""
        if grid[1] < self.parts * self.patches:
            raise RequestError(
                f"mask.patches: {self.parts} parts of chunks of {self.patches} need {self.parts * self.patches} patches, a window "
                f"has {grid[1]}; take fewer"
            )
        return self

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Part ``number`` of this step's partition."""
        return partition_times(keys, grid[1], parts=self.parts, chunk=self.patches, draw=number)
