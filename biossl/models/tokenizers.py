"""From a batch of windows to tokens: amplitude normalisation and patch embedding. No attention, no positions.

``channel``: each channel is cut into patches of equal length and one shared Linear embeds them (token = channel * P +
patch). ``joint``: one patch holds all channels, so the grid is (1, P).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from biossl.errors import RequestError
from biossl.signal import InputSpec

Normalise = Literal["none", "window", "fixed"]

# Standard deviations below this (canonical units) are taken as flat: a flat channel must not become amplified noise.
FLOOR = {"ecg": 1e-2, "eeg": 0.5, "eog": 0.5, "emg": 0.5, "acc": 1e-2, "gyro": 1e-2}
FLOOR_OTHER = 1e-6


def patch_samples(spec: InputSpec, patch_s: float) -> int:
    """Samples per patch; RequestError unless whole and a divisor of the window.

    Examples
    --------
    >>> spec = InputSpec("ecg", 250.0, 2500, ("I",), ("ecg",), ("mV",))
    >>> patch_samples(spec, 0.2)
    50
    """
    exact = patch_s * spec.sfreq
    n = round(exact)
    if n < 1 or abs(exact - n) > 1e-6 * max(1.0, exact):
        raise RequestError(
            f"encoder.patch_s: {patch_s:g} s at {spec.sfreq:g} Hz is {exact:g} samples, not a whole number; "
            f"take {max(1, n) / spec.sfreq:g}"
        )
    if spec.n_samples % n:
        near = [m for m in range(1, spec.n_samples + 1) if spec.n_samples % m == 0]
        best = min(near, key=lambda m: abs(m - n))
        raise RequestError(
            f"encoder.patch_s: patches of {n} samples do not divide the window of {spec.n_samples}; "
            f"take {best / spec.sfreq:g} (patches of {best})"
        )
    return n


def amplitude(spec: InputSpec, how: Normalise, scale: dict[str, float]) -> Tensor:
    """Divisor (``fixed``) or floor of the standard deviation (``window``) of each channel, float32, (C, 1)."""
    if how == "fixed":
        absent = sorted({t for t in spec.ch_types if not scale.get(t, 0.0) > 0})
        if absent:
            raise RequestError(
                f"encoder.scale: normalise 'fixed' needs a positive divisor for channel type {', '.join(absent)}; "
                f"add e.g. scale: {{{absent[0]}: 1.0}}"
            )
        values = [scale[t] for t in spec.ch_types]
    else:
        values = [FLOOR.get(t, FLOOR_OTHER) for t in spec.ch_types]
    return torch.tensor(values, dtype=torch.float32, device="cpu")[:, None]


def normalise(x: Tensor, observed: Tensor | None, how: Normalise, amount: Tensor) -> Tensor:
    """Normalise amplitudes; unobserved samples come out 0.

    Parameters
    ----------
    x : Tensor, float32, (B, C, T)
        Canonical units.
    observed : Tensor, bool, (B, C, T), or None
        None = all.
    how : {"none", "window", "fixed"}
        ``window`` = z-score of each window and channel over its observed samples, ``fixed`` = division.
    amount : Tensor, (C, 1)
        From :func:`amplitude`.
    """
    if how == "none" and observed is None:
        return x
    if how == "window" and observed is None:
        var, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        return (x - mean) / torch.maximum(var.sqrt(), amount)
    if how == "window" and observed is not None:
        n = observed.sum(dim=-1, keepdim=True).clamp_min(1)
        mean = torch.where(observed, x, 0.0).sum(dim=-1, keepdim=True) / n
        x = torch.where(observed, x - mean, 0.0)
        return x / torch.maximum((x.square().sum(dim=-1, keepdim=True) / n).sqrt(), amount)
    if how == "fixed":
        x = x / amount
    return x if observed is None else torch.where(observed, x, 0.0)


class PatchTokenizer(nn.Module):
    """Cuts windows into patches and embeds them with one Linear.

    Parameters
    ----------
    patch : int
        Samples per patch.
    dim : int
        Width D.
    joint_channels : int
        0: one patch per channel; else the number of channels of a joint patch.
    """

    def __init__(self, patch: int, dim: int, *, joint_channels: int = 0) -> None:
        super().__init__()
        self.patch, self.joint_channels = patch, joint_channels
        self.proj = nn.Linear(patch * max(1, joint_channels), dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, N, D), lead-major; N = C * P, or P when joint."""
        B, C, T = x.shape
        patches = x.view(B, C, T // self.patch, self.patch)
        if self.joint_channels:
            return self.proj(patches.transpose(1, 2).reshape(B, T // self.patch, C * self.patch))
        return self.proj(patches.reshape(B, -1, self.patch))

    def observed(self, observed: Tensor) -> Tensor:
        """(B, C, T) to (B, N): a patch counts when any of its samples was observed."""
        B, C, T = observed.shape
        seen = observed.view(B, C, T // self.patch, self.patch).any(dim=-1)
        return seen.any(dim=1) if self.joint_channels else seen.reshape(B, -1)
