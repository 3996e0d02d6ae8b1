"""Settings of augmentations of movement sensors: rotation, tilt, mirror image.

What lives here: settings and draws. What happens to tensors is in ``spatial.py``. Acceleration and rotation rate of one site
turn together; several sites turn independently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import radians
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biossl.augment import functional as F
from biossl.augment import spatial
from biossl.augment.base import Settings
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.signal import InputSpec

_TILT_KEEPS_POSTURE = 30.0  # degrees


@dataclass(kw_only=True)
class Rotation(Settings):
    """The sensor turned by a rotation uniform on SO(3) (a normalised Gaussian quaternion), one a site."""

    modalities: ClassVar[tuple[str, ...]] = ("imu",)
    remedy: ClassVar[str] = "take tilt with max_deg up to 30"

    def _breaks(self) -> set[str]:
        return {"posture", "orientation", "polarity", "channel"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        return _triads(spec)

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        q = F.normal(keys.uniform((tables["sites"].shape[1], 4), draw))
        return _turn(batch, spatial.quaternion_matrix(q), tables)


@dataclass(kw_only=True)
class Tilt(Settings):
    """The sensor turned by an angle uniform up to ``max_deg`` about any axis, one a site: a strap that slipped."""

    max_deg: float = 20.0
    modalities: ClassVar[tuple[str, ...]] = ("imu",)
    units: ClassVar[str] = "max_deg: degrees"
    remedy: ClassVar[str] = "keep max_deg within 30"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_deg <= 180:
            raise ValueError(f"max_deg is {self.max_deg:g}; it is from 0 to 180 degrees")

    def _breaks(self) -> set[str]:
        return {"posture", "orientation"} if self.max_deg > _TILT_KEEPS_POSTURE else set()

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        return _triads(spec)

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        u = keys.uniform((tables["sites"].shape[1], 4), draw)
        matrix = spatial.tilt_matrix(F.normal(u[..., :3]), u[..., 3] * radians(self.max_deg))
        return _turn(batch, matrix, tables)


@dataclass(kw_only=True)
class SideSwapIMU(Settings):
    """The mirror image of the movement, as the other wrist would record it.

    With s = -1 on ``axis`` and 1 elsewhere: acceleration becomes s times itself, rotation rate (an axial vector) -s.
    """

    axis: Literal["x", "y", "z"] = "x"
    p: float = 0.5
    modalities: ClassVar[tuple[str, ...]] = ("imu",)

    def _breaks(self) -> set[str]:
        return {"laterality", "orientation"}

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        table, kinds, _, _ = spatial.triad_table(spec.ch_names)
        _whole(spec)
        along = torch.tensor([-1.0 if a == self.axis else 1.0 for a in "xyz"])
        axial = torch.tensor([-1.0 if kind == "gyro" else 1.0 for kind in kinds])
        hit = table.sum(dim=(0, 1))
        return {"sign": torch.einsum("k,a,kac->c", axial, along, table) + (1 - hit)}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        return replace(batch, x=batch.x * tables["sign"][:, None])


def _whole(spec: InputSpec) -> None:
    """RequestError unless every axis of a sensor is there."""
    table, _, _, lonely = spatial.triad_table(spec.ch_names)
    if not len(table) or lonely:
        what = f"channel {lonely[0]} has not all three axes beside it" if lonely else "there is no triad of axes"
        raise RequestError(f"{what}; here: {', '.join(spec.ch_names)}; take x, y and z, or remove it")


def _triads(spec: InputSpec) -> dict[str, Tensor]:
    """Triads, and which site each belongs to: ``sites`` (K, S) is 1 there."""
    _whole(spec)
    table, _, sites, _ = spatial.triad_table(spec.ch_names)
    order = sorted(set(sites))
    return {"triads": table, "sites": torch.tensor([[float(s == site) for s in order] for site in sites])}


def _turn(batch: Batch, matrix: Tensor, tables: dict[str, Tensor]) -> Batch:
    """``matrix`` (B, S, 3, 3) applied to the triads of each site."""
    each = torch.einsum("ks,bsij->bkij", tables["sites"].to(matrix.dtype), matrix)
    x, observed = spatial.rotate(batch.x, each, tables["triads"], batch.observed)
    return replace(batch, x=x, observed=observed)
