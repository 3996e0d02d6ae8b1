"""Batch styles standardisation: all windows of a batch in the spectral style of one of them.

What lives here: settings and draws of the one augmentation that looks at other windows of the batch. What happens to a window
is in ``spectral.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from biossl.augment import functional as F
from biossl.augment import spectral
from biossl.augment.base import Settings, below_nyquist, ordered
from biossl.batch import Batch
from biossl.distributed import all_gather
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.signal import InputSpec

_KEEPS_WAVES_BELOW = 0.67  # Hz: drift; above it the ST segment, delta waves and movements begin


@dataclass(kw_only=True)
class BatchStyle(Settings):
    """Amplitudes within ``band_hz`` of one random window of the batch for all of its windows (arXiv 2303.06088).

    Every view draws its own window. Windows of a batch then share device, baseline and gain in that band, so a contrastive loss
    cannot tell them apart by it.
    """

    band_hz: list[float]
    units: ClassVar[str] = "band_hz: Hz"
    remedy: ClassVar[str] = "keep band_hz above 0 and within 0.67"

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered(self.band_hz, "band_hz", 0.0, 1e6)

    def _breaks(self) -> set[str]:
        level = {"posture"} if self.band_hz[0] == 0 else set()  # the mean: gravity on each axis
        waves = {"amplitude", "spectrum", "morphology", "orientation"} if self.band_hz[1] > _KEEPS_WAVES_BELOW else set()
        return level | waves

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        below_nyquist("band_hz", self.band_hz[1], spec)
        band = spectral.in_band(spec.n_samples, spec.sfreq, (self.band_hz[0], self.band_hz[1]), torch.device("cpu"))
        if not band.any():
            raise RequestError(
                f"band_hz: no frequency of a window of {spec.window_s:g} s lies in {self.band_hz}; they are {1 / spec.window_s:.3g} Hz "
                "apart, take a wider band"
            )
        return {"band": band}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        x = F.fill_gaps(batch.x, batch.observed)
        amplitude, found = self._reference(x, batch.observed, keys.uniform((), draw))
        return replace(batch, x=torch.where(found, spectral.take_style(x, amplitude, tables["band"]), x))

    @staticmethod
    @torch.no_grad()
    def _reference(x: Tensor, observed: Tensor | None, lot: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes (C, F) of the window with the least lot among those of all processes, and whether there is one.

        Only windows with a signal in every channel take part.
        """
        if observed is not None:
            lot = torch.where(observed.any(dim=2).all(dim=1), lot, 2.0)
        best = lot.argmin()
        lots = all_gather(lot.index_select(0, best[None]))
        amplitudes = all_gather(torch.fft.rfft(x.index_select(0, best[None])).abs())
        winner = lots.argmin()[None]
        return amplitudes.index_select(0, winner)[0], lots.index_select(0, winner) < 2.0
