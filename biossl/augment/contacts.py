"""Settings of noise that comes in at electrodes: baseline wander, mains, motion.

What lives here: settings and draws. Noise is drawn at each electrode and reaches the channels as a real one would: the left
arm's is in I, III, aVL and, through the central terminal, in every chest lead, and III = II - I holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biossl.augment import functional as F
from biossl.augment.base import Settings, amounts, below_nyquist, check_by_type, ordered
from biossl.augment.spatial import electrode_matrix
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.signal import InputSpec

_WANDER_SINES = 3
_WANDER_KEEPS_SHAPE = {"ecg": 0.3, "eeg": 50.0}  # canonical units; slow enough to leave single waves readable


@dataclass(kw_only=True)
class _AtElectrodes(Settings):
    """Noise of ``amplitude`` (by channel type, largest value at one electrode)."""

    amplitude: dict[str, float]
    modalities: ClassVar[tuple[str, ...]] = ("ecg", "eeg")
    units: ClassVar[str] = "amplitude: mV (ecg), uV (eeg)"
    remedy: ClassVar[str] = "lower amplitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_by_type(self.amplitude, "amplitude")

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        size = amounts(self.amplitude, spec, "amplitude")
        average = [spec.reference == "average" and kind == "eeg" for kind in spec.ch_types]
        return {"mix": size[:, None] * electrode_matrix(spec.ch_names, average=average)}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        T = batch.x.shape[2]
        noise = self._noise(keys, draw, tables["mix"].shape[1], T, batch.sfreq)
        return replace(batch, x=batch.x + (tables["mix"] @ noise).to(batch.x.dtype))

    def _noise(self, keys: Keys, draw: int, n_electrodes: int, n_samples: int, sfreq: float) -> Tensor:
        """(B, E, T) noise of amplitude up to 1."""
        raise NotImplementedError  # every subclass


@dataclass(kw_only=True)
class BaselineWander(_AtElectrodes):
    """Slow drift by breathing and skin: three sines between 0.05 Hz and ``max_hz`` at each electrode."""

    max_hz: float = 0.5
    units: ClassVar[str] = "amplitude: mV (ecg), uV (eeg); max_hz: Hz"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_hz < 0.05:
            raise ValueError(f"max_hz is {self.max_hz:g} Hz; it is at least 0.05")

    def _breaks(self) -> set[str]:
        large = any(a > _WANDER_KEEPS_SHAPE.get(kind, 0.0) for kind, a in self.amplitude.items())
        return {"morphology"} if large else set()

    def _noise(self, keys: Keys, draw: int, n_electrodes: int, n_samples: int, sfreq: float) -> Tensor:
        u = keys.uniform((3, n_electrodes, _WANDER_SINES), draw)
        return F.waves(u[:, 0] / _WANDER_SINES, F.between(u[:, 1], 0.05, self.max_hz), u[:, 2], n_samples, sfreq)


@dataclass(kw_only=True)
class Mains(_AtElectrodes):
    """Mains hum of ``hz`` (off by up to 0.1 Hz, as a real net is) and its ``harmonics``, each half as large as the one before."""

    hz: Literal[50, 60] = 50
    harmonics: int = 1
    units: ClassVar[str] = "amplitude: mV (ecg), uV (eeg); hz: Hz"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.harmonics < 1:
            raise ValueError(f"harmonics is {self.harmonics}; 1 is the mains frequency alone")

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        below_nyquist("hz times harmonics", self.hz * self.harmonics + 0.1 * self.harmonics, spec)
        return super()._tables(spec)

    def _noise(self, keys: Keys, draw: int, n_electrodes: int, n_samples: int, sfreq: float) -> Tensor:
        number = torch.arange(1, self.harmonics + 1, device=keys.position.device, dtype=torch.float64)
        u = keys.uniform((2, n_electrodes, self.harmonics), draw)
        hz = (self.hz + F.between(keys.uniform((1, 1), draw + 1), -0.1, 0.1)) * number
        return F.waves(u[:, 0] * 0.5 ** (number - 1), hz.expand_as(u[:, 0]), u[:, 1], n_samples, sfreq)


@dataclass(kw_only=True)
class ElectrodeMotion(_AtElectrodes):
    """Pulled electrodes: each with probability ``share`` has ``pulls`` jumps that fall off over ``decay_s``."""

    share: float = 0.3
    pulls: int = 2
    decay_s: list[float] = field(default_factory=lambda: [0.1, 1.0])
    units: ClassVar[str] = "amplitude: mV (ecg), uV (eeg); decay_s: s"
    remedy: ClassVar[str] = "take baseline_wander"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.decay_s, "decay_s", 0.01, 100.0)
        if not 0 <= self.share <= 1 or self.pulls < 1:
            raise ValueError(f"share is {self.share:g} and pulls {self.pulls}; share is from 0 to 1, pulls at least 1")

    def _breaks(self) -> set[str]:
        return {"morphology"}

    def _noise(self, keys: Keys, draw: int, n_electrodes: int, n_samples: int, sfreq: float) -> Tensor:
        u = keys.uniform((3, n_electrodes, self.pulls), draw)
        hit = keys.uniform((n_electrodes, 1), draw + 1) < self.share
        amplitude = F.between(u[:, 0], -1, 1) * hit
        decay = F.between(u[:, 2], *self.decay_s)
        return F.transients(amplitude, u[:, 1] * n_samples / sfreq, decay, n_samples, sfreq, rise_s=0.02)
