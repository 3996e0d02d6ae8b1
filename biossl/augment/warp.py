"""Pure functions that move samples along time: reversal, permutation, warps, crops, rate, and cut-outs.

What lives here: batched functions of tensors, whose random numbers are arguments. Each takes and gives (x, observed): where a
sample goes, its flag goes too. A value between two samples counts as observed when both are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biossl.augment.functional import cubic_at, curve, fill_gaps

Pair = tuple[Tensor, Tensor | None]

_SLOWEST = 0.1  # least speed of a warp: time never stands still or turns back


def time_reverse(x: Tensor, observed: Tensor | None = None, *, sign: Tensor | None = None) -> Pair:
    """The window backwards.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    observed : Tensor, bool, (B, C, T), or None
    sign : Tensor, (C,), optional
        -1 for channels that a movement run backwards would negate (rotation rates), else 1.

    Examples
    --------
    >>> time_reverse(torch.tensor([[[1.0, 2.0]]]))[0]
    tensor([[[2., 1.]]])
    """
    x = x.flip(2) if sign is None else x.flip(2) * sign.to(x.dtype)[:, None]
    return x, None if observed is None else observed.flip(2)


def permute_segments(x: Tensor, order: Tensor, observed: Tensor | None = None, *, bound: Tensor | None = None) -> Pair:
    """The window cut into segments, put in another order.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    order : Tensor, int64, (B, S)
        ``order[b, i]`` is the segment that comes at place i; S <= T.
    observed : Tensor, bool, (B, C, T), or None
    bound : Tensor, int64, (B, S + 1), optional
        Where segments begin, then T, ascending from 0; default segments of (nearly) equal length.

    Examples
    --------
    >>> permute_segments(torch.arange(5.0)[None, None], torch.tensor([[1, 0]]))[0]
    tensor([[[2., 3., 4., 0., 1.]]])
    """
    B, C, T = x.shape
    S = order.shape[1]
    if bound is None:
        bound = (torch.arange(S + 1, device=x.device) * T // S).expand(B, -1)
    length = bound.diff(dim=1).gather(1, order)  # (B, S) of the new places
    end = length.cumsum(1)
    t = torch.arange(T, device=x.device).expand(B, -1)
    place = torch.searchsorted(end, t.contiguous(), right=True)
    segment = order.gather(1, place)
    index = bound.gather(1, segment) + t - (end - length).gather(1, place)
    index = index[:, None].expand(B, C, T)
    return x.gather(2, index), None if observed is None else observed.gather(2, index)


def sample_at(x: Tensor, position: Tensor, observed: Tensor | None = None) -> Pair:
    """Values at other times; gaps are bridged first and stay gaps, times outside the window are unobserved.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    position : Tensor, (B, S)
        In samples; inside the window for every sample where ``observed`` is None (else see :func:`rate_jitter`).
    observed : Tensor, bool, (B, C, T), or None

    Returns
    -------
    (Tensor, Tensor or None), (B, C, S)
    """
    B, C, T = x.shape
    out = cubic_at(fill_gaps(x, observed), position)
    if observed is None:
        return out, None
    near = [p.long().clamp(0, T - 1)[:, None].expand(B, C, -1) for p in (position.floor(), position.ceil())]
    inside = (position >= 0) & (position <= T - 1)
    seen = observed.gather(2, near[0]) & observed.gather(2, near[1]) & inside[:, None]
    return torch.where(seen, out, 0.0), seen


def time_warp(x: Tensor, speeds: Tensor, observed: Tensor | None = None) -> Pair:
    """Time stretched here and pressed there by one smooth curve for all channels; the ends stay where they are.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    speeds : Tensor, (B, K)
        Relative speeds at equally spaced knots; only their ratios count, and they are kept above 0.1.
    observed : Tensor, bool, (B, C, T), or None
    """
    return sample_at(x, warp_positions(speeds, x.shape[2]), observed)


def warp_positions(speeds: Tensor, n_samples: int) -> Tensor:
    """Where each sample of a warped window comes from: (B, T), in samples, rising from 0 to T - 1."""
    speed = curve(speeds.to(torch.float64)[:, None], n_samples)[:, 0].clamp_min(_SLOWEST)
    path = torch.cat([torch.zeros_like(speed[:, :1]), ((speed[:, 1:] + speed[:, :-1]) / 2).cumsum(1)], dim=1)
    return (path * ((n_samples - 1) / path[:, -1:])).clamp_max(n_samples - 1)


def crop_resize(x: Tensor, start: Tensor, share: Tensor, observed: Tensor | None = None) -> Pair:
    """A part of the window stretched to its whole length.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    start : Tensor, (B,)
        In [0, 1]: 0 = the part begins with the window, 1 = it ends with it.
    share : Tensor, (B,)
        Length of the part, in (0, 1].
    observed : Tensor, bool, (B, C, T), or None
    """
    T = x.shape[2]
    length = share.to(torch.float64) * (T - 1)
    first = start.to(torch.float64) * (T - 1 - length)
    step = torch.linspace(0, 1, T, device=x.device, dtype=torch.float64)
    return sample_at(x, (first[:, None] + length[:, None] * step).clamp(0, T - 1), observed)


def rate_jitter(x: Tensor, change: Tensor, observed: Tensor | None = None) -> Pair:
    """As a clock that runs wrong would have recorded it: resampled about the window's centre.

    With ``change`` > 0 things come faster: what would lie above the new half rate is taken out first, and the ends, which
    the window does not hold, are unobserved.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    change : Tensor, (B,)
        Relative: 0.02 = 2 % faster.
    observed : Tensor, bool, (B, C, T), or None

    Returns
    -------
    (Tensor, Tensor)
    """
    T = x.shape[2]
    seen = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
    rate = 1 + change.to(torch.float64)
    spectrum = torch.fft.rfft(fill_gaps(x, observed))
    share = torch.linspace(0, 1, spectrum.shape[2], device=x.device, dtype=torch.float64)  # of half the rate
    limit = (1 / rate)[:, None]
    passes = ((limit - share) / 0.05).clamp(0, 1)  # falls over the last 5 % below the new half rate
    passes = torch.where(rate[:, None] > 1, passes, 1.0).to(x.dtype)
    limited = torch.fft.irfft(spectrum * passes[:, None], n=T)
    position = (T - 1) / 2 + (torch.arange(T, device=x.device) - (T - 1) / 2) * rate[:, None]
    return sample_at(limited, position, seen)


def time_mask(
    x: Tensor, start: Tensor, length: Tensor, observed: Tensor | None = None, *, edge: float = 0.0, unobserved: bool = True
) -> Pair:
    """One stretch of every sample set to 0 in all channels.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    start, length : Tensor, (B,)
        In samples.
    observed : Tensor, bool, (B, C, T), or None
    edge : float
        Samples over which the signal falls to 0 on either side of the stretch (half a cosine); 0 = at once.
    unobserved : bool
        The stretch counts as not observed; else it is a flat, observed 0.

    Examples
    --------
    >>> time_mask(torch.ones(1, 1, 4), torch.tensor([1]), torch.tensor([2]))[0]
    tensor([[[1., 0., 0., 1.]]])
    """
    t = torch.arange(x.shape[2], device=x.device)
    first, end = start[:, None], (start + length)[:, None]
    away = torch.maximum(first - t, t - (end - 1)).clamp_min(0)  # samples from the stretch
    inside = (away == 0) & (end > first)
    passes = torch.where(inside, 0.0, 1.0)
    if edge:
        taper = (1 - torch.cos(torch.pi * (away / (edge + 1)).clamp(0, 1))) / 2
        passes = torch.where(end > first, taper, 1.0)
    out = x * passes.to(x.dtype)[:, None]
    if not unobserved:
        return out, observed
    kept = (~inside)[:, None].expand_as(x)
    return out, kept if observed is None else observed & kept
