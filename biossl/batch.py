"""Batch, Tokens and Encoded: what flows between the loader, the encoder and the objective (torch alone).

Shape letters: B batch, C channels, T samples, P patches per channel, N tokens, D width, K kept, R registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """One (channels, sfreq, T) group of windows.

    Attributes
    ----------
    x : Tensor, float32, (B, C, T)
        Canonical units; 0 where not observed.
    observed : Tensor, bool, (B, C, T), or None
        None = all observed.
    channels : tuple of str, length C
        Canonical names.
    sfreq : float
        Hz.
    positions : Tensor, float32, (C, 3 or 6), or None
        Where channels sit (EEG metres; bipolar = midpoint + direction).
    start_s : Tensor, float64, (B,), or None
        Seconds from the start of the file.
    subject : Tensor, int64, (B,), or None
        Integer codes within the corpus list, never names.
    index : Tensor, int64, (B,), or None
        Row in the corpus index.
    labels : dict of str to Tensor
    paired : dict
        Other modality, neighbour window, vectors; joined on an index column.
    """

    x: Tensor
    channels: tuple[str, ...]
    sfreq: float
    observed: Tensor | None = None
    positions: Tensor | None = None
    start_s: Tensor | None = None
    subject: Tensor | None = None
    index: Tensor | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)
    paired: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.ndim != 3:
            raise ValueError(f"x must be (B, C, T), got {tuple(self.x.shape)}")
        if self.x.shape[1] != len(self.channels):
            raise ValueError(f"x has {self.x.shape[1]} channels, {len(self.channels)} names were given")
        if self.observed is not None and self.observed.shape != self.x.shape:
            raise ValueError("observed must have the shape of x")

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """All tensors on ``device``."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, Batch):
                return value.to(device, non_blocking)
            if isinstance(value, dict):
                return {k: move(v) for k, v in value.items()}
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})


@dataclass
class Tokens:
    """Embedded patches before the encoder, lead-major: token = channel * P + patch.

    ``x`` (B, N, D); ``time_s`` (B, N) centre of the token in seconds from the window's start; ``channel`` (B, N) index
    into the encoder's ``spec.ch_names``, -1 = all channels jointly; ``place`` (B, N, 6) or None; ``observed`` (B, N)
    bool; ``grid`` (C, P) when tokens are a full grid, else None; ``complete`` True when every token is known to be
    observed without asking the device.
    """

    x: Tensor
    time_s: Tensor
    channel: Tensor
    observed: Tensor
    place: Tensor | None = None
    grid: tuple[int, int] | None = None
    complete: bool = False

    def grid_view(self) -> Tensor:
        """(B, C, P, D) view without a copy; ValueError when there is no grid."""
        if self.grid is None:
            raise ValueError("these tokens are not on a grid")
        return self.x.view(self.x.shape[0], *self.grid, self.x.shape[-1])


@dataclass(frozen=True)
class TimeKeep:
    """Kept time patches, the same for all channels: the kept tokens stay a grid (C, K), so attention stays fast.

    ``index`` int64 (B, K), or (K,) shared by the batch, or (M * B, K) for M masks: row m * B + b belongs to sample b.
    """

    index: Tensor


@dataclass
class Encoded:
    """Encoder output.

    ``x`` (B, N or K, D) after the final norm; ``registers`` (B, R, D); ``hidden`` the requested block outputs, each
    (B, N or K, D), before the final norm; ``observed`` (B, N or K) which tokens count when pooling; ``grid`` as in
    Tokens, for the tokens that were kept. Where blocks differ in their number of tokens, ``hidden_observed`` is ``observed`` of each
    of ``hidden``; where a head needs what went in, ``tokens`` is that.
    """

    x: Tensor
    registers: Tensor
    observed: Tensor
    hidden: tuple[Tensor, ...] = ()
    grid: tuple[int, int] | None = None
    hidden_observed: tuple[Tensor, ...] = ()
    tokens: Tokens | None = None
