"""Settings of augmentations that change values where they stand: gain, sign, noise, slow gain, rounding.

What lives here: settings and draws. What happens to tensors is in ``functional.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from biossl.augment import functional as F
from biossl.augment.base import Settings, amounts, check_by_type, ordered
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.signal import InputSpec

# White noise up to here (sd, canonical unit) leaves the shape of single waves readable.
NOISE_KEEPS_SHAPE = {"ecg": 0.1, "eeg": 10.0, "eog": 20.0, "emg": 20.0, "acc": 0.1, "gyro": 0.3}
_GAIN_KEEPS_SIZE = (0.8, 1.25)
_WARP_KEEPS_SIZE = 0.2


@dataclass(kw_only=True)
class Gain(Settings):
    """Multiplication by a factor uniform on ``factor``.

    ``per_channel`` draws one for each channel: then leads no longer obey Einthoven's equation, the heart's axis and gravity turn.
    """

    factor: list[float] = field(default_factory=lambda: [0.8, 1.25])
    per_channel: bool = False
    units: ClassVar[str] = "factor: 1"
    remedy: ClassVar[str] = "keep factor within 0.8 to 1.25"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.factor, "factor", 0.0, 100.0)

    def _breaks(self) -> set[str]:
        low, high = self.factor
        if _GAIN_KEEPS_SIZE[0] <= low and high <= _GAIN_KEEPS_SIZE[1]:
            return set()
        return {"amplitude", "posture", "polarity"} if self.per_channel else {"amplitude"}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        u = keys.uniform((len(batch.channels) if self.per_channel else 1,), draw)
        return replace(batch, x=F.gain(batch.x, F.between(u, *self.factor)))


@dataclass(kw_only=True)
class SignFlip(Settings):
    """The sign of all channels turned: exchanged poles of the recorder."""

    p: float = 0.5
    remedy: ClassVar[str] = "take gain"

    def _breaks(self) -> set[str]:
        return {"polarity", "posture", "orientation"}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        return replace(batch, x=-batch.x)


@dataclass(kw_only=True)
class Jitter(Settings):
    """White Gaussian noise of standard deviation ``sd`` by channel type (mV, uV, g, rad/s).

    The noise comes from a generator seeded by (seed, step, micro-batch, rank): the one augmentation whose result depends on
    how a step is divided.
    """

    sd: dict[str, float]
    units: ClassVar[str] = "sd: mV (ecg), uV (eeg), g (acc), rad/s (gyro)"
    remedy: ClassVar[str] = "lower sd"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_by_type(self.sd, "sd")

    def _breaks(self) -> set[str]:
        loud = any(sd > NOISE_KEEPS_SHAPE.get(kind, 0.0) for kind, sd in self.sd.items())
        return {"morphology"} if loud else set()

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        return {"sd": amounts(self.sd, spec, "sd")}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        noise = F.bulk_noise(tuple(batch.x.shape), keys.fold(draw), batch.x.device)
        return replace(batch, x=F.jitter(batch.x, tables["sd"], noise))


@dataclass(kw_only=True)
class MagnitudeWarp(Settings):
    """Multiplication by a smooth curve through ``knots`` factors, normal around 1 with ``sd``, one curve a channel."""

    sd: float = 0.2
    knots: int = 4
    units: ClassVar[str] = "sd: 1"
    remedy: ClassVar[str] = "keep sd within 0.2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sd <= 1 or self.knots < 2:
            raise ValueError(f"sd is {self.sd:g} and knots {self.knots}; sd is from 0 to 1, knots at least 2")

    def _breaks(self) -> set[str]:
        return {"amplitude", "posture"} if self.sd > _WARP_KEEPS_SIZE else set()

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        knots = 1 + self.sd * F.normal(keys.uniform((len(batch.channels), self.knots), draw))
        return replace(batch, x=F.magnitude_warp(batch.x, knots))


@dataclass(kw_only=True)
class Quantise(Settings):
    """Rounded to steps of ``step`` and clipped at ``limit``, both by channel type: another device's converter."""

    step: dict[str, float] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)
    units: ClassVar[str] = "step, limit: mV (ecg), uV (eeg), g (acc), rad/s (gyro)"
    remedy: ClassVar[str] = "leave limit out"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step and not self.limit:
            raise ValueError("neither step nor limit is given; give one by channel type, e.g. step: {acc: 0.004} in g")
        for key, values in (("step", self.step), ("limit", self.limit)):
            if values:
                check_by_type(values, key)
                if min(values.values()) == 0:
                    raise ValueError(f"{key} has a 0; leave that channel type out")

    def _breaks(self) -> set[str]:
        return {"amplitude"} if self.limit else set()

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        n, out = len(spec.ch_names), {}
        out["step"] = amounts(self.step, spec, "step") if self.step else torch.zeros(n)
        endless = float("inf")
        out["limit"] = amounts(self.limit, spec, "limit", absent=endless) if self.limit else torch.full((n,), endless)
        return out

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        return replace(batch, x=F.quantise(batch.x, tables["step"], tables["limit"]))
