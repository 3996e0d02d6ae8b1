"""Pure functions on spectra: surrogates, frequency shift, band-stop, styles, and the two frequency-domain augmentations (FDA).

What lives here: batched functions of tensors, whose random numbers are arguments. All take the whole window's discrete Fourier
transform, so a window is one period: what crosses one end comes in at the other. Gaps are to be bridged before
(:func:`biossl.augment.functional.fill_gaps`) and set to 0 again after, so that their edges put nothing into the spectrum.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FLAT = 1e-10  # share of the power below which a band holds rounding only


def fourier_surrogate(x: Tensor, phase: Tensor) -> Tensor:
    """The same amplitude spectrum with other phases; mean and the bin at half the rate stay.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    phase : Tensor, (B, C or 1, T // 2 + 1)
        Radians added. The same for all channels keeps the phases between them.
    """
    T = x.shape[2]
    spectrum = torch.fft.rfft(x)
    turn = _but_ends(phase, T).to(x.dtype)
    return torch.fft.irfft(spectrum * torch.polar(torch.ones_like(turn), turn), n=T)


def frequency_shift(x: Tensor, shift_hz: Tensor, sfreq: float) -> Tensor:
    """All frequencies moved by the same number of Hz: the analytic signal times exp(2 pi i shift t); the mean stays.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    shift_hz : Tensor, (B,)
        What would come below 0 or above half the rate folds back; keep it small against the signal's band.
    sfreq : float
        Hz.
    """
    T = x.shape[2]
    mean = x.mean(dim=2, keepdim=True)
    spectrum = torch.fft.fft(x - mean)
    weight = torch.zeros(T, device=x.device, dtype=x.dtype)
    weight[0] = 1
    weight[1 : (T + 1) // 2] = 2
    if T % 2 == 0:
        weight[T // 2] = 1
    analytic = torch.fft.ifft(spectrum * weight)
    turns = shift_hz.to(torch.float64)[:, None] * torch.arange(T, device=x.device) / sfreq
    angle = (2 * torch.pi * (turns - turns.floor())).to(x.dtype)[:, None]
    return analytic.real * angle.cos() - analytic.imag * angle.sin() + mean


def band_stop(x: Tensor, centre_hz: Tensor, width_hz: float, sfreq: float, *, edge_hz: float) -> Tensor:
    """One band taken out, without delay.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    centre_hz : Tensor, (B,)
    width_hz : float
        Full width of what is 0.
    sfreq : float
        Hz.
    edge_hz : float
        Over which the gain rises from 0 to 1 on either side (half a cosine): wider = less ringing.
    """
    T = x.shape[2]
    hz = torch.arange(T // 2 + 1, device=x.device, dtype=torch.float64) * (sfreq / T)
    outside = (hz - centre_hz.to(torch.float64)[:, None]).abs() - width_hz / 2
    passes = (1 - torch.cos(torch.pi * (outside / edge_hz).clamp(0, 1))) / 2
    return torch.fft.irfft(torch.fft.rfft(x) * passes.to(x.dtype)[:, None], n=T)


def in_band(n_samples: int, sfreq: float, band_hz: tuple[float, float], device: torch.device) -> Tensor:
    """Which bins of the transform of T samples lie within a band, its ends included, bool (T // 2 + 1,)."""
    hz = torch.arange(n_samples // 2 + 1, device=device, dtype=torch.float64) * (sfreq / n_samples)
    return (hz >= band_hz[0]) & (hz <= band_hz[1])


def take_style(x: Tensor, amplitude: Tensor, band: Tensor) -> Tensor:
    """The amplitudes of another window within a band, one's own phases (batch styles standardisation, arXiv 2303.06088).

    Parameters
    ----------
    x : Tensor, (B, C, T)
    amplitude : Tensor, (C, F), F = T // 2 + 1
        Absolute values of the transform of the window whose style is taken.
    band : Tensor, bool, (F,)
        Bins that are replaced (:func:`in_band`). A bin in which a window has nothing takes the amplitude with phase 0.
    """
    spectrum = torch.fft.rfft(x)
    size = spectrum.abs()
    unit = torch.where(size > 0, spectrum / torch.where(size > 0, size, 1.0), 1.0)
    return torch.fft.irfft(torch.where(band, unit * amplitude.to(size.dtype), spectrum), n=x.shape[2])


def fda_weights(score: Tensor, uniform: Tensor | None, *, temperature: float = 0.1) -> Tensor:
    """Real gains of the learnable FDA: important bins pass, unimportant ones are distorted.

    Reconstruction after CoRe-ECG (arXiv 2604.11359) and FreRA (arXiv 2505.23181), with s the score and u uniform on
    [1e-4, 1 - 1e-4]: keep = sigmoid((logit(u) + s) / temperature); n = -stopgrad(s), 0 where n < max(0, mean n);
    gain = keep + n / mean of the n that are not 0.

    Parameters
    ----------
    score : Tensor, (F,)
    uniform : Tensor, (B, F), or None
        In [0, 1). None = keep is sigmoid(s), as in evaluation.
    temperature : float

    Returns
    -------
    Tensor, (B, F), or (1, F) without ``uniform``
    """
    if uniform is None:
        keep = torch.sigmoid(score)[None]
    else:
        u = 1e-4 + (1 - 2e-4) * uniform
        keep = torch.sigmoid((torch.logit(u).to(score.dtype) + score) / temperature)
    noise = -score.detach()
    noise = torch.where(noise < noise.mean().clamp_min(0), 0.0, noise)
    total = noise.sum()
    count = (noise != 0).sum()
    return keep + noise * torch.where(total > 0, count / torch.where(total > 0, total, 1.0), 0.0)


def fda_learned(x: Tensor, score: Tensor, uniform: Tensor | None, *, temperature: float = 0.1) -> Tensor:
    """Learnable FDA: the spectrum of every channel times :func:`fda_weights`.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    score : Tensor, (F,), F = T // 2 + 1
    uniform : Tensor, (B, F), or None
    temperature : float
    """
    weights = fda_weights(score, uniform, temperature=temperature)
    return torch.fft.irfft(torch.fft.rfft(x) * weights.to(x.dtype)[:, None], n=x.shape[2])


def fda_protected(x: Tensor, sfreq: float, *, band_hz: tuple[float, float], power: float) -> Tensor:
    """The fewest bins that hold a share of the power within a band: what the learning-free FDA spares.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    sfreq : float
        Hz.
    band_hz : (float, float)
    power : float
        Share, in (0, 1].

    Returns
    -------
    Tensor, bool, (B, F)
        By the power of each sample, normalised per channel and averaged over channels.
    """
    T = x.shape[2]
    hz = torch.arange(T // 2 + 1, device=x.device, dtype=torch.float64) * (sfreq / T)
    inside = (hz >= band_hz[0]) & (hz <= band_hz[1])
    everything = torch.fft.rfft(x).abs().square().to(torch.float64)
    energy = torch.where(inside, everything, 0.0)
    total = energy.sum(dim=2, keepdim=True)
    alive = total > _FLAT * everything.sum(dim=2, keepdim=True)  # else the rounding of a flat line would have a vote
    importance = torch.where(alive, energy / torch.where(alive, total, 1.0), 0.0).mean(dim=1)
    sorted_, order = importance.sort(dim=1, descending=True, stable=True)
    before = sorted_.cumsum(1) - sorted_  # power of the more important ones
    enough = before < power * importance.sum(dim=1, keepdim=True) * (1 - 1e-12)
    return torch.zeros_like(enough).scatter(1, order, enough)


def fda_free(x: Tensor, protected: Tensor, log_gain: Tensor, phase: Tensor, *, spread: float, spread_protected: float) -> Tensor:
    """Learning-free FDA: amplitudes times exp(N(0, spread^2)), phases plus N(0, spread^2); protected bins much less.

    One filter for all channels, so linear relations between them (Einthoven's, a rotated axis) hold; the mean stays.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    protected : Tensor, bool, (B, F)
    log_gain, phase : Tensor, (B, F)
        Standard normal.
    spread, spread_protected : float
    """
    T = x.shape[2]
    size = spread + (spread_protected - spread) * protected.to(torch.float64)
    size = torch.cat([torch.zeros_like(size[:, :1]), size[:, 1:]], dim=1)
    turn = _but_ends(size * phase, T).to(x.dtype)
    change = torch.polar((size * log_gain).exp().to(x.dtype), turn)
    return torch.fft.irfft(torch.fft.rfft(x) * change[:, None], n=T)


def _but_ends(phase: Tensor, n_samples: int) -> Tensor:
    """0 at the bins that a real signal cannot turn: the mean, and half the rate where the window is even."""
    k = torch.arange(phase.shape[-1], device=phase.device)
    return torch.where((k == 0) | (2 * k == n_samples), 0.0, phase)
