"""Settings of augmentations of leads and electrodes: dropout, exchanged cables, reference, sides.

What lives here: settings and draws. The arithmetic of leads is in ``spatial.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biossl.augment import spatial
from biossl.augment.base import Settings
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.signal import InputSpec


@dataclass(kw_only=True)
class LeadDropout(Settings):
    """Each channel with probability ``share`` not observed for the whole window; one observed channel always stays."""

    share: float = 0.2
    units: ClassVar[str] = "share: 1 (probability of a channel)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share:g}; it is a probability, from 0 to 1")

    def _breaks(self) -> set[str]:
        return {"channel"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        if len(spec.ch_names) < 2:
            raise RequestError("the windows have one channel, and one always stays; remove it, or take time_mask")
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        C = len(batch.channels)
        u = keys.uniform((C,), draw)
        seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.observed is None else batch.observed
        stays = (u * seen.any(dim=2)).argmax(dim=1, keepdim=True)
        kept = (u >= self.share) | (torch.arange(C, device=u.device) == stays)
        return replace(batch, observed=seen & kept[:, :, None])


@dataclass(kw_only=True)
class LeadReversal(Settings):
    """Two electrodes exchanged, one of ``swaps`` by chance, with all leads that follow from it.

    Limbs ``RA-LA RA-LL LA-LL RA-RL LA-RL`` (the right leg taken for equal to the left one), chest ``V1-V2`` .. ``V5-V6``.
    """

    swaps: list[str] = field(default_factory=lambda: ["RA-LA"])
    modalities: ClassVar[tuple[str, ...]] = ("ecg",)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = spatial.LIMB_SWAPS + spatial.CHEST_SWAPS
        wrong = [s for s in self.swaps if s not in known]
        if wrong or not self.swaps:
            raise ValueError(f"swaps has {f'no {wrong[0]!r}' if wrong else 'no entry'}; it takes some of {', '.join(known)}")

    def _breaks(self) -> set[str]:
        return {"channel", "polarity", "laterality", "morphology"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        try:
            return {"swaps": torch.stack([spatial.reversal_matrix(spec.ch_names, swap) for swap in self.swaps])}
        except ValueError as error:
            raise RequestError(f"{error}; here: {', '.join(spec.ch_names)}; leave it out") from None

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        which = (keys.uniform((), draw) * len(self.swaps)).long()
        x, observed = spatial.mix_channels(batch.x, tables["swaps"][which], batch.observed)
        return replace(batch, x=x, observed=observed)


@dataclass(kw_only=True)
class Rereference(Settings):
    """EEG against another reference.

    ``random``: against one of its channels, which is then not observed, and neither are the others where it was not.
    ``average``: against the mean of the channels observed at that time. Pairs (``C4-M1``) and other channels stay.
    """

    to: Literal["random", "average"] = "random"
    modalities: ClassVar[tuple[str, ...]] = ("eeg",)
    remedy: ClassVar[str] = "take to: average"

    def _breaks(self) -> set[str]:
        return {"channel", "polarity", "amplitude"} if self.to == "random" else set()

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        single = [kind == "eeg" and "-" not in name for name, kind in zip(spec.ch_names, spec.ch_types, strict=True)]
        if sum(single) < 2:
            raise RequestError(f"it takes two or more EEG electrodes; here: {', '.join(spec.ch_names)}")
        return {"single": torch.tensor(single)}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        x, single = batch.x, tables["single"][:, None]
        seen = torch.ones_like(x, dtype=torch.bool) if batch.observed is None else batch.observed
        if self.to == "average":
            counts = seen & single
            mean = (x * counts).sum(dim=1, keepdim=True) / counts.sum(dim=1, keepdim=True).clamp_min(1)
            return replace(batch, x=torch.where(single, x - mean, x))
        C = len(batch.channels)
        complete = seen.to(x.dtype).mean(dim=2)  # one of the most complete electrodes, so that little is lost
        complete = torch.where(single[:, 0], complete, -1.0)
        best = complete == complete.max(dim=1, keepdim=True).values
        chosen = torch.where(best, keys.uniform((C,), draw), -1.0).argmax(dim=1)[:, None, None]
        at = chosen.expand(-1, 1, x.shape[2])
        reference, present = x.gather(1, at), seen.gather(1, at)
        own = torch.arange(C, device=x.device)[:, None] == chosen
        return replace(batch, x=torch.where(single, x - reference, x), observed=torch.where(single, seen & present & ~own, seen))


@dataclass(kw_only=True)
class SideSwapEEG(Settings):
    """Left and right electrodes exchanged, by name: C3 and C4, F7 and F8; the midline stays."""

    p: float = 0.5
    modalities: ClassVar[tuple[str, ...]] = ("eeg",)

    def _breaks(self) -> set[str]:
        return {"laterality", "channel"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        other = []
        for name, kind in zip(spec.ch_names, spec.ch_types, strict=True):
            mirror = spatial.mirrored_name(name) if kind == "eeg" else name
            if mirror not in spec.ch_names:
                raise RequestError(f"{name} has no {mirror} on the other side; choose channels in pairs")
            other.append(spec.ch_names.index(mirror))
        return {"other": torch.tensor(other)}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        other = tables["other"]
        return replace(batch, x=batch.x[:, other], observed=None if batch.observed is None else batch.observed[:, other])
