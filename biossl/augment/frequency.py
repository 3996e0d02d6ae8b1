"""Settings of augmentations in the frequency domain: surrogate, shift, band-stop, and FDA with and without learning.

What lives here: settings, draws, and the one augmentation that learns. What happens to tensors is in ``spectral.py``. All
bridge gaps by a straight line first, so a gap's edges put nothing into the spectrum, and leave them unobserved.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from biossl.augment import functional as F
from biossl.augment import spectral
from biossl.augment.base import Augmentation, Settings, below_nyquist, blend, ordered, require_modality
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.signal import InputSpec

_PHASE_KEEPS_EVENTS = 0.1  # up to 18 degrees a bin: waves change their shape a little and stay where they are
_SHIFT_KEEPS_BANDS = 0.25  # Hz
_FREE_KEEPS_SHAPE = 0.1  # radians and natural logarithm


@dataclass(kw_only=True)
class FourierSurrogate(Settings):
    """Random phases, the amplitude spectrum kept: each bin's phase moves by up to ``magnitude`` times half a turn.

    ``per_channel`` draws for each channel and breaks what binds them; else the phases between channels stay.
    """

    magnitude: float = 1.0
    per_channel: bool = False
    units: ClassVar[str] = "magnitude: 1 (1 = all phases equally likely)"
    remedy: ClassVar[str] = "take band_stop, gain or jitter"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.magnitude <= 1:
            raise ValueError(f"magnitude is {self.magnitude:g}; it is from 0 to 1")

    def _breaks(self) -> set[str]:
        strong = self.magnitude > _PHASE_KEEPS_EVENTS
        return {"morphology"} | ({"timing", "order", "direction", "polarity"} if strong else set())

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        x = F.fill_gaps(batch.x, batch.observed)
        _, C, T = x.shape
        u = keys.uniform((C if self.per_channel else 1, T // 2 + 1), draw)
        return replace(batch, x=spectral.fourier_surrogate(x, F.between(u, -torch.pi, torch.pi) * self.magnitude))


@dataclass(kw_only=True)
class FrequencyShift(Settings):
    """All frequencies moved by the same amount, uniform up to ``max_hz`` either way."""

    max_hz: float = 0.5
    modalities: ClassVar[tuple[str, ...]] = ("eeg",)
    units: ClassVar[str] = "max_hz: Hz"
    remedy: ClassVar[str] = "keep max_hz within 0.25"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_hz < 0:
            raise ValueError(f"max_hz is {self.max_hz:g}; it is at least 0")

    def _breaks(self) -> set[str]:
        always = {"morphology", "timing"}  # a carrier's phase runs away from its envelope
        return always | ({"spectrum", "rate"} if self.max_hz > _SHIFT_KEEPS_BANDS else set())

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        below_nyquist("max_hz", self.max_hz, spec)
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        shift = F.between(keys.uniform((), draw), -self.max_hz, self.max_hz)
        x = F.fill_gaps(batch.x, batch.observed)
        return replace(batch, x=spectral.frequency_shift(x, shift, batch.sfreq))


@dataclass(kw_only=True)
class BandStop(Settings):
    """A band of ``width_hz`` taken out, its centre uniform on ``centre_hz``, edges of half a cosine over ``edge_hz``."""

    centre_hz: list[float]
    width_hz: float = 2.0
    edge_hz: float = 1.0
    units: ClassVar[str] = "centre_hz, width_hz, edge_hz: Hz"
    remedy: ClassVar[str] = "take gain or jitter"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.centre_hz, "centre_hz", 0.0, 1e6)
        if self.width_hz <= 0 or self.edge_hz <= 0:
            raise ValueError(f"width_hz is {self.width_hz:g} and edge_hz {self.edge_hz:g}; both are above 0")

    def _breaks(self) -> set[str]:
        return {"spectrum", "morphology"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        below_nyquist("centre_hz plus half of width_hz", self.centre_hz[1] + self.width_hz / 2, spec)
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        centre = F.between(keys.uniform((), draw), *self.centre_hz)
        x = F.fill_gaps(batch.x, batch.observed)
        return replace(batch, x=spectral.band_stop(x, centre, self.width_hz, batch.sfreq, edge_hz=self.edge_hz))


@dataclass(kw_only=True)
class FDAFree(Settings):
    """Frequency dynamic augmentation without learning, after CoRe-ECG (arXiv 2604.11359).

    The fewest bins that hold ``power`` of the power within ``band_hz`` are protected, by the sample's own spectrum; amplitudes
    are multiplied by exp(N(0, spread^2)) and phases moved by N(0, spread^2), for protected bins with ``spread_protected``.
    """

    band_hz: list[float] = field(default_factory=lambda: [0.5, 40.0])
    power: float = 0.9
    spread: float = 0.3
    spread_protected: float = 0.03
    units: ClassVar[str] = "band_hz: Hz; spread, spread_protected: natural logarithm and radians"
    remedy: ClassVar[str] = "take gain or jitter"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.band_hz, "band_hz", 0.0, 1e6)
        if not 0 < self.power <= 1 or not 0 <= self.spread_protected <= self.spread:
            raise ValueError("power is above 0 and at most 1, and spread_protected from 0 to spread")

    def _breaks(self) -> set[str]:
        return {"spectrum"} | ({"morphology"} if self.spread_protected > _FREE_KEEPS_SHAPE else set())

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        below_nyquist("band_hz", self.band_hz[1], spec)
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        x = F.fill_gaps(batch.x, batch.observed)
        band = (self.band_hz[0], self.band_hz[1])
        protected = spectral.fda_protected(x, batch.sfreq, band_hz=band, power=self.power)
        z = F.normal(keys.uniform((2, x.shape[2] // 2 + 1), draw))
        out = spectral.fda_free(x, protected, z[:, 0], z[:, 1], spread=self.spread, spread_protected=self.spread_protected)
        return replace(batch, x=out)


@dataclass(kw_only=True)
class FDAConfig(Settings):
    """Learnable frequency dynamic augmentation, after CoRe-ECG (arXiv 2604.11359) and FreRA (arXiv 2505.23181).

    Attributes
    ----------
    temperature : float
        Of the relaxed choice which bins pass.
    sparsity : float
        Weight of the penalty on passing bins, added to the loss.
    lr_scale : float
        Learning rate of the scores over the run's (FreRA: 0.01 to 0.03).
    """

    temperature: float = 0.1
    sparsity: float = 0.1
    lr_scale: float = 1 / 3
    remedy: ClassVar[str] = "take gain or jitter"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or self.sparsity < 0 or self.lr_scale < 0:
            raise ValueError("temperature is above 0, sparsity and lr_scale at least 0")

    def _breaks(self) -> set[str]:
        return {"morphology", "spectrum", "amplitude"}

    def build(self, spec: InputSpec) -> Augmentation:
        """The augmentation, with scores drawn from the global generator (as a model's weights are)."""
        require_modality(self, spec)
        return FDA(self, spec.n_samples)


class FDA(Augmentation):
    """Learnable FDA: one score a frequency bin, trained by the loss that the views go into.

    Parameters
    ----------
    config : FDAConfig
    n_samples : int
        T of the windows.
    """

    def __init__(self, config: FDAConfig, n_samples: int) -> None:
        super().__init__()
        self.config = config
        self.breaks = config.breaks
        self.lr_scale = config.lr_scale
        self.n_samples = n_samples
        self.score = nn.Parameter(0.1 * torch.randn(n_samples // 2 + 1))

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        """See :class:`Augmentation`; without draws of bins in evaluation mode."""
        if batch.x.shape[2] != self.n_samples:
            raise ValueError(f"fda was built for {self.n_samples} samples, got {batch.x.shape[2]}")
        u = keys.uniform((self.score.shape[0],), draw + 1) if self.training else None
        x = spectral.fda_learned(F.fill_gaps(batch.x, batch.observed), self.score, u, temperature=self.config.temperature)
        return blend(batch, replace(batch, x=x), keys.uniform((), draw) < self.config.p)

    def penalty(self) -> Tensor:
        """``sparsity`` times the expected number of passing bins over the window's samples."""
        return self.config.sparsity * torch.sigmoid(self.score).sum() / self.n_samples
