"""Pure functions that change amplitudes: gain, noise, warps of magnitude, rounding, contact noise; and what the others share.

What lives here: batched functions of tensors, whose random numbers are arguments. Movement along time is in ``warp.py``,
spectra in ``spectral.py``, channels and axes in ``spatial.py``. Nothing is drawn here and no setting of a recipe is known.
Functions of the value alone leave it to the caller that unobserved samples stay 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones in [0, 1).

    Examples
    --------
    >>> normal(torch.tensor([0.5])).item()
    0.0
    """
    return torch.special.ndtri(uniform.to(torch.float64).clamp(2.0**-53, 1 - 2.0**-53))


def between(uniform: Tensor, low: float, high: float) -> Tensor:
    """Numbers uniform on [low, high) from uniform ones in [0, 1)."""
    return low + (high - low) * uniform


def gain(x: Tensor, factor: Tensor) -> Tensor:
    """Multiplied by one factor a sample or a channel.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    factor : Tensor, (B,) or (B, C)

    Examples
    --------
    >>> gain(torch.ones(2, 1, 3), torch.tensor([2.0, 3.0]))[:, 0, 0]
    tensor([2., 3.])
    """
    return x * factor.to(x.dtype).reshape(len(x), -1, 1)


def bulk_noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """White Gaussian noise of a generator, float32; without values where the device is ``meta``."""
    if device.type == "meta":
        return torch.empty(shape, device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device)


def jitter(x: Tensor, sd: Tensor, noise: Tensor) -> Tensor:
    """White noise added.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    sd : Tensor, (C,)
        In the unit of each channel.
    noise : Tensor, (B, C, T)
        Standard normal.
    """
    return x + sd.to(x.dtype)[:, None] * noise.to(x.dtype)


def cubic_at(x: Tensor, position: Tensor) -> Tensor:
    """Values between the samples: cubic interpolation through all of them (Catmull and Rom), ends held.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    position : Tensor, (B, S)
        In samples; whole numbers give the samples themselves.

    Returns
    -------
    Tensor, (B, C, S)

    Examples
    --------
    >>> cubic_at(torch.tensor([[[0.0, 1.0, 4.0]]]), torch.tensor([[2.0, 1.0]]))
    tensor([[[4., 1.]]])
    """
    B, C, T = x.shape
    left = position.floor()
    f = (position - left).to(x.dtype)[:, None]
    weights = (
        ((-0.5 * f + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )
    out = torch.zeros((), dtype=x.dtype, device=x.device)
    for k, weight in enumerate(weights):
        index = (left.long() + (k - 1)).clamp(0, T - 1)[:, None].expand(B, C, -1)
        out = out + weight * x.gather(2, index)
    return out


def curve(knots: Tensor, n_samples: int) -> Tensor:
    """Smooth curves through equally spaced knots, the first at the first sample, the last at the last.

    Parameters
    ----------
    knots : Tensor, (B, C, K), K >= 2
    n_samples : int

    Returns
    -------
    Tensor, (B, C, T)
    """
    at = torch.linspace(0, knots.shape[2] - 1, n_samples, device=knots.device, dtype=torch.float64)
    return cubic_at(knots, at.expand(len(knots), -1))


def magnitude_warp(x: Tensor, knots: Tensor) -> Tensor:
    """Multiplied by a smooth curve.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    knots : Tensor, (B, C or 1, K)
        Factors, equally spaced over the window.
    """
    return x * curve(knots, x.shape[2]).to(x.dtype)


def quantise(x: Tensor, step: Tensor, limit: Tensor) -> Tensor:
    """Rounded to whole steps and clipped, as a converter of few bits and a small range does.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    step : Tensor, (C,)
        In the unit of the channel; 0 = not rounded.
    limit : Tensor, (C,)
        Largest absolute value; infinite = not clipped.

    Examples
    --------
    >>> quantise(torch.tensor([[[0.26, 5.0]]]), torch.tensor([0.5]), torch.tensor([2.0]))
    tensor([[[0.5000, 2.0000]]])
    """
    step, limit = step.to(x.dtype)[:, None], limit.to(x.dtype)[:, None]
    rounded = torch.where(step > 0, (x / torch.where(step > 0, step, 1.0)).round() * step, x)
    return torch.clamp(rounded, -limit, limit)


def waves(amplitude: Tensor, hz: Tensor, phase: Tensor, n_samples: int, sfreq: float) -> Tensor:
    """Sums of sines, for baseline wander and mains.

    Parameters
    ----------
    amplitude, hz, phase : Tensor, (B, E, K)
        Of K sines at each of E electrodes; phase in turns.
    n_samples : int
    sfreq : float
        Hz.

    Returns
    -------
    Tensor, float32, (B, E, T)
    """
    time = torch.arange(n_samples, device=amplitude.device, dtype=torch.float32) / sfreq
    total = torch.zeros((), device=amplitude.device)
    for k in range(amplitude.shape[2]):  # one at a time: K times less memory
        turns = hz[:, :, k, None].float() * time + phase[:, :, k, None].float()
        total = total + amplitude[:, :, k, None].float() * (2 * torch.pi * turns).sin()
    return total


def transients(amplitude: Tensor, onset_s: Tensor, decay_s: Tensor, n_samples: int, sfreq: float, rise_s: float) -> Tensor:
    """Jumps that rise within ``rise_s`` and decay exponentially, as when an electrode is pulled.

    Parameters
    ----------
    amplitude, onset_s, decay_s : Tensor, (B, E, K)
        Of K transients at each of E electrodes.
    n_samples : int
    sfreq, rise_s : float
        Hz, s.

    Returns
    -------
    Tensor, float32, (B, E, T)
    """
    time = torch.arange(n_samples, device=amplitude.device, dtype=torch.float32) / sfreq
    total = torch.zeros((), device=amplitude.device)
    for k in range(amplitude.shape[2]):
        since = time - onset_s[:, :, k, None].float()
        shape = (since / rise_s).clamp(0, 1) * torch.exp(-since.clamp_min(0) / decay_s[:, :, k, None].float())
        total = total + amplitude[:, :, k, None].float() * shape
    return total


def fill_gaps(x: Tensor, observed: Tensor | None) -> Tensor:
    """Unobserved stretches bridged by a straight line, so that a filter meets no step at their edges.

    Before the first and after the last observed sample its value is held; a channel without any stays 0.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    observed : Tensor, bool, (B, C, T), or None

    Examples
    --------
    >>> x, seen = torch.tensor([[[1.0, 0.0, 3.0]]]), torch.tensor([[[True, False, True]]])
    >>> fill_gaps(x, seen)
    tensor([[[1., 2., 3.]]])
    """
    if observed is None:
        return x
    T = x.shape[2]
    at = torch.arange(T, device=x.device)
    left = torch.where(observed, at, -1).cummax(dim=2).values
    right = T - 1 - torch.where(observed.flip(2), at, -1).cummax(dim=2).values.flip(2)
    right = torch.where(right >= T, left, right)  # after the last observed sample
    left = torch.where(left < 0, right, left).clamp(0, T - 1)
    right = right.clamp(0, T - 1)
    share = (at - left).to(x.dtype) / (right - left).clamp_min(1).to(x.dtype)
    share = torch.where(right > left, share, 0.0)
    a, b = x.gather(2, left), x.gather(2, right)
    bridged = torch.where(observed, x, a + share * (b - a))
    return torch.where(observed.any(dim=2, keepdim=True), bridged, 0.0)
