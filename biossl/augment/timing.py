"""Settings of augmentations along time: reversal, permutation, warp, crop, rate, cut-out.

What lives here: settings and draws. What happens to tensors is in ``warp.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biossl.augment import functional as F
from biossl.augment import warp
from biossl.augment.base import Settings, ordered
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.signal import InputSpec

_KEEPS_RATE = 0.05  # relative change of speed that leaves a rate what it is
_KEEPS_EVENTS = 0.15  # share of a window that may be cut out without losing what it is about


@dataclass(kw_only=True)
class TimeReverse(Settings):
    """The window backwards. ``gyro: negate`` gives the movement run backwards; ``keep`` flips the samples only."""

    p: float = 0.5
    gyro: Literal["negate", "keep"] = "negate"

    def _breaks(self) -> set[str]:
        return {"direction", "order", "timing", "morphology"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        turned = self.gyro == "negate"
        return {"sign": torch.tensor([-1.0 if turned and kind == "gyro" else 1.0 for kind in spec.ch_types])}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        x, observed = warp.time_reverse(batch.x, batch.observed, sign=tables["sign"])
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class Permutation(Settings):
    """The window cut into ``segments`` parts of equal length, which are shuffled."""

    segments: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segments < 2:
            raise ValueError(f"segments is {self.segments}; it takes at least 2")

    def _breaks(self) -> set[str]:
        return {"order", "timing", "direction"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        if self.segments > spec.n_samples:
            raise RequestError(f"{self.segments} segments of {spec.n_samples} samples; lower segments")
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        order = keys.uniform((self.segments,), draw).argsort(dim=1)
        x, observed = warp.permute_segments(batch.x, order, batch.observed)
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class TimeWarp(Settings):
    """Speeds normal around 1 with ``sd`` at ``knots``, smooth between them; one curve for all channels."""

    sd: float = 0.2
    knots: int = 4
    units: ClassVar[str] = "sd: 1 (relative speed)"
    remedy: ClassVar[str] = "keep sd within 0.05"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sd <= 1 or self.knots < 2:
            raise ValueError(f"sd is {self.sd:g} and knots {self.knots}; sd is from 0 to 1, knots at least 2")

    def _breaks(self) -> set[str]:
        more = {"rate", "morphology", "spectrum"} if self.sd > _KEEPS_RATE else set()
        return {"timing"} | more

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        speeds = 1 + self.sd * F.normal(keys.uniform((self.knots,), draw))
        x, observed = warp.time_warp(batch.x, speeds, batch.observed)
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class CropResize(Settings):
    """A part of the window, its share uniform on ``share``, stretched to the whole length."""

    share: list[float] = field(default_factory=lambda: [0.7, 1.0])
    units: ClassVar[str] = "share: 1 (of the window)"
    remedy: ClassVar[str] = "keep share at 0.95 and more"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.share, "share", 0.05, 1.0)

    def _breaks(self) -> set[str]:
        more = {"rate", "morphology", "spectrum"} if 1 - self.share[0] > _KEEPS_RATE else set()
        return {"timing"} | more

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        u = keys.uniform((2,), draw)
        x, observed = warp.crop_resize(batch.x, u[:, 0], F.between(u[:, 1], *self.share), batch.observed)
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class RateJitter(Settings):
    """A clock that runs wrong by up to ``drift`` either way, with anti-alias.

    Where things come faster, the ends of the window are not known and become unobserved.
    """

    drift: float = 0.02
    units: ClassVar[str] = "drift: 1 (of the rate)"
    remedy: ClassVar[str] = "keep drift within 0.05"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drift <= 0.5:
            raise ValueError(f"drift is {self.drift:g}; it is from 0 to 0.5, e.g. 0.02 for 2 %")

    def _breaks(self) -> set[str]:
        return {"rate", "morphology", "spectrum", "timing"} if self.drift > _KEEPS_RATE else set()

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        drift = F.between(keys.uniform((), draw), -self.drift, self.drift)
        x, observed = warp.rate_jitter(batch.x, drift, batch.observed)
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class TimeMask(Settings):
    """A stretch cut out of all channels; it lies wholly inside the window.

    Attributes
    ----------
    share : [least, most]
        Length as a share of the window.
    edge_s : float
        Seconds over which the signal falls to 0 on either side (half a cosine).
    leaves : {"unobserved", "zero"}
        What the stretch is afterwards: not observed, or a flat line that counts as signal.
    """

    share: list[float] = field(default_factory=lambda: [0.05, 0.15])
    edge_s: float = 0.0
    leaves: Literal["unobserved", "zero"] = "unobserved"
    units: ClassVar[str] = "share: 1 (of the window); edge_s: s"
    remedy: ClassVar[str] = "keep share within 0.15"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.share, "share", 0.0, 0.9)
        if self.edge_s < 0:
            raise ValueError(f"edge_s is {self.edge_s:g} s; it is at least 0")

    def _breaks(self) -> set[str]:
        return {"timing", "order"} if self.share[1] > _KEEPS_EVENTS else set()

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        T = batch.x.shape[2]
        u = keys.uniform((2,), draw)
        length = (F.between(u[:, 0], *self.share) * T).round().long()
        start = (u[:, 1] * (T - length + 1)).long()
        x, observed = warp.time_mask(
            batch.x, start, length, batch.observed, edge=self.edge_s * batch.sfreq, unobserved=self.leaves == "unobserved"
        )
        return replace(batch, x=x, observed=observed)
