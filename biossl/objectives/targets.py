"""What masked reconstruction predicts: values of every patch, computed from the samples as pure functions in float32.

What lives here: the five targets, each with the values that exist (an unobserved sample is never a target), and the
dataclass that names them in a recipe. No modules, no randomness, no loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

TargetKind = Literal["raw", "recording", "patch", "spectrum", "derivative"]


@dataclass
class TargetConfig:
    """What is predicted of a patch of n samples of one channel; x is in canonical units over the encoder's fixed scale.

    Attributes
    ----------
    target : {"raw", "recording", "patch", "spectrum", "derivative"}
        ``raw``: x, n values. ``recording``: (x - mean) / sd of the window; keeps how large a patch is beside the others.
        ``patch``: (x - mean) / sd of the patch itself (MAE, ST-MEM); deletes voltage and offset. ``spectrum``:
        log(1 + A_k / floor) of its amplitudes, n // 2 + 1 values. ``derivative``: differences inside the patch at
        several ``scales``, each over its root mean square in the window.
    per : {"channel", "recording"}
        ``recording`` only: mean and sd of each channel, or of all channels together, so that their relations stay.
    scales : list of int
        ``derivative`` only: distances in samples, below n; 0 stands for the samples as in ``recording``.
    """

    target: TargetKind = "recording"
    per: Literal["channel", "recording"] = "channel"
    scales: list[int] = field(default_factory=lambda: [1, 2, 4])

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 0 or len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales must be different whole numbers, at least 0, not {self.scales}")

    def n_values(self, patch: int) -> int:
        """V, values of a patch of ``patch`` samples of one channel.

        Examples
        --------
        >>> TargetConfig("spectrum").n_values(8), TargetConfig("derivative", scales=[1, 4]).n_values(8)
        (5, 11)
        """
        if self.target == "spectrum":
            return patch // 2 + 1
        return sum(patch - s for s in self.scales) if self.target == "derivative" else patch


def patch_targets(
    x: Tensor, observed: Tensor | None, patch: int, config: TargetConfig, *, scale: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Values of all patches, and which of them exist.

    Parameters
    ----------
    x : Tensor, (B, C, T)
        Canonical units; anything where not observed.
    observed : Tensor, bool, (B, C, T), or None
        None = all.
    patch : int
        Samples per patch; divides T.
    config : TargetConfig
    scale : Tensor, (C, 1)
        Divisor of ``raw``, and of channels that are normalised together; canonical units.
    floor : Tensor, (C, 1)
        Below this a standard deviation counts as flat and an amplitude as silent; canonical units.

    Returns
    -------
    values : Tensor, float32, (B, C, P, V)
        0 where they do not exist. No gradient.
    exist : Tensor, bool, (B, C, P, V), or None
        None = all. A spectrum needs every sample of its patch, a difference both of its samples.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> values, exist = patch_targets(torch.ones(2, 1, 20), None, 10, TargetConfig("raw"), scale=2 * one, floor=one)
    >>> values.shape, float(values[0, 0, 0, 0]), exist
    (torch.Size([2, 1, 2, 10]), 0.5, None)
    """
    with torch.no_grad():
        x = (x if x.dtype == torch.float64 else x.float()) / scale
        floor = floor / scale
        if config.target == "recording":
            x = _standardise(x, observed, floor, (1, 2) if config.per == "recording" else (2,))
        cut, seen = _cut(x, patch), None if observed is None else _cut(observed, patch)
        if config.target == "patch":
            cut = _standardise(cut, seen, floor[..., None], (3,))
        elif config.target == "spectrum":
            amplitude = torch.fft.rfft(cut).abs() * (2.0 / patch)
            cut = torch.log1p(amplitude / floor[..., None])
            seen = None if seen is None else seen.all(dim=-1, keepdim=True).expand(cut.shape)
        elif config.target == "derivative":
            cut, seen = _differences(x, observed, floor, patch, config.scales)
        return (cut if seen is None else torch.where(seen, cut, 0.0)), seen


def _cut(x: Tensor, patch: int) -> Tensor:
    """(B, C, T) to (B, C, P, patch)."""
    return x.reshape(*x.shape[:2], -1, patch)


def _mean(x: Tensor, seen: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Mean over observed entries (0 where there is none), dimensions kept."""
    if seen is None:
        return x.mean(dim=dims, keepdim=True)
    return torch.where(seen, x, 0.0).sum(dim=dims, keepdim=True) / seen.sum(dim=dims, keepdim=True).clamp_min(1)


def _standardise(x: Tensor, seen: Tensor | None, floor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(x - mean) / max(sd, floor) over ``dims``; of several floors the smallest counts."""
    x = x - _mean(x, seen, dims)
    if 1 in dims:
        floor = floor.amin(dim=0, keepdim=True)
    return x / torch.maximum(_mean(x.square(), seen, dims).sqrt(), floor)


def _differences(
    x: Tensor, observed: Tensor | None, floor: Tensor, patch: int, scales: list[int]
) -> tuple[Tensor, Tensor | None]:
    """x(t + s) - x(t) inside each patch over its root mean square in the window; scales one after the other."""
    values, exist = [], []
    for s in scales:
        cut, seen = _cut(x, patch), None if observed is None else _cut(observed, patch)
        if s == 0:
            values.append(_cut(_standardise(x, observed, floor, (2,)), patch))
        else:
            cut = cut[..., s:] - cut[..., :-s]
            seen = None if seen is None else seen[..., s:] & seen[..., :-s]
            size = _mean(cut.square(), seen, (2, 3)).sqrt()
            values.append(cut / torch.maximum(size, floor[..., None]))
        if seen is not None:
            exist.append(seen)
    return torch.cat(values, dim=-1), torch.cat(exist, dim=-1) if exist else None


def token_values(values: Tensor, *, joint: bool) -> Tensor:
    """(B, C, P, V) to (B, N, V') in token order: N = C P and V' = V, or for a joint tokenizer N = P and V' = C V."""
    return values.transpose(1, 2).flatten(2) if joint else values.flatten(1, 2)
