"""Masks over single tokens of a (C, P) grid, for families in which channels do not share the hidden times.

What lives here: batched draws of exact size, tokens numbered lead-major (channel * P + patch). Every sample has its own mask
of the same size, so all are index tensors of one shape. Masks over times are in ``times.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biossl.keys import Keys
from biossl.masks.times import Mask, check_count, draw_number, top_mask, weighted_order, weighted_place


def random_tokens(keys: Keys, grid: tuple[int, int], count: int, *, prior: Tensor | None = None, draw: int = 0) -> Mask:
    """Every channel hides exactly ``count`` patches of its own, as in ST-MEM: tensors stay rectangular per channel.

    Parameters
    ----------
    keys : Keys
    grid : (C, P)
    count : int
        Patches hidden per channel; 1 .. P - 1.
    prior : Tensor, (B, C * P), optional
        Weights, not negative; see :func:`~biossl.masks.times.random_times_exact`.
    draw : int
        Number of the mask within the step.
    """
    C, P = grid
    check_count(P, count)
    u = keys.uniform((C, P), draw_number(draw, 0))
    B = len(u)
    mask = top_mask(weighted_order(u.view(B * C, P), None if prior is None else prior.reshape(B * C, P)), count)
    lead = torch.arange(C, device=u.device)[:, None] * P
    return Mask(*((lead + part.view(B, C, -1)).flatten(1) for part in mask))


def whole_channels(keys: Keys, grid: tuple[int, int], count: int, *, draw: int = 0) -> Mask:
    """``count`` channels of every sample are hidden for the whole window, the same count for all.

    Parameters
    ----------
    keys : Keys
    grid : (C, P)
    count : int
        1 .. C - 1.
    draw : int
        Number of the mask within the step.
    """
    C, P = grid
    check_count(C, count)
    chosen = top_mask(keys.uniform((C,), draw_number(draw, 0)), count).masked
    return _hide(_channels(chosen, C)[:, :, None].expand(-1, -1, P), count * P)


def spatial_tokens(keys: Keys, grid: tuple[int, int], near: Tensor, weight: Tensor, *, draw: int = 0) -> Mask:
    """A channel and its nearest neighbours are hidden for the whole window.

    Parameters
    ----------
    keys : Keys
    grid : (C, P)
    near : Tensor, int64, (C, n)
        Row c: channel c and its n - 1 nearest, from :func:`neighbours`.
    weight : Tensor, (C,)
        How likely each channel is the middle, from :func:`centre_weights`.
    draw : int
        Number of the mask within the step.
    """
    C, P = grid
    check_count(C, near.shape[1])
    u = keys.uniform((1,), draw_number(draw, 0))
    middle = weighted_place(u, weight.to(u.device).expand(len(u), C))[:, 0]
    return _hide(_channels(near.to(u.device)[middle], C)[:, :, None].expand(-1, -1, P), near.shape[1] * P)


def stdm_tokens(keys: Keys, grid: tuple[int, int], *, leads: int, times: int, draw: int = 0) -> Mask:
    """Lead drop and whole-time drop at once, after CoRe-ECG (arXiv 2604.11359): token (c, i) is hidden when c or i is.

    Parameters
    ----------
    keys : Keys
    grid : (C, P)
    leads : int
        Channels hidden in every sample, 0 .. C - 1: a fixed number, so that lengths agree within a batch.
    times : int
        Time patches hidden in all channels, 0 .. P - 1.
    draw : int
        Number of the mask within the step.
    """
    C, P = grid
    count = C * P - (C - leads) * (P - times)
    check_count(C * P, count)
    u = keys.uniform((C + P,), draw_number(draw, 0))
    lead = _channels(u[:, :C].argsort(dim=1)[:, :leads], C)
    time = _channels(u[:, C:].argsort(dim=1)[:, :times], P)
    return _hide(lead[:, :, None] | time[:, None, :], count)


def tube_tokens(keys: Keys, grid: tuple[int, int], *, channels: int, times: int, draw: int = 0) -> Mask:
    """The same ``channels`` channels are hidden over one span of ``times`` patches, which wraps round the window's end.

    Parameters
    ----------
    keys : Keys
    grid : (C, P)
    channels, times : int
        1 .. C and 1 .. P, not both at their most.
    draw : int
        Number of the mask within the step.
    """
    C, P = grid
    check_count(C * P, channels * times)
    u = keys.uniform((C + 1,), draw_number(draw, 0))
    chosen = _channels(u[:, :C].argsort(dim=1)[:, :channels], C)
    offset = (torch.arange(P, device=u.device) - (u[:, C:] * P).long()) % P
    return _hide(chosen[:, :, None] & (offset < times)[:, None, :], channels * times)


def neighbours(positions: Tensor, count: int) -> Tensor:
    """Every channel and its ``count - 1`` nearest ones, int64 (C, count); ``positions`` (C, 3) in metres."""
    distance = torch.cdist(positions.double(), positions.double())
    distance.fill_diagonal_(-1.0)  # itself first, also where two channels sit at one place
    return distance.argsort(dim=1, stable=True)[:, :count]


def centre_weights(near: Tensor, *, rounds: int = 2000) -> Tensor:
    """Weights (C,) of the middle channels under which all channels are hidden as equally often as blocks allow.

    With equal weights a channel in the middle of the head lies in many blocks and is hidden far more often than one at the
    rim. Multiplicative updates towards the share n / C that each channel should have.

    Parameters
    ----------
    near : Tensor, int64, (C, n)
        From :func:`neighbours`.
    """
    C, n = near.shape
    inside = torch.zeros(C, C, dtype=torch.float64).scatter_(1, near, 1.0)  # row: middle, column: hidden
    weight = torch.full((C,), 1.0 / C, dtype=torch.float64)
    for _ in range(rounds):
        hidden = weight @ inside
        weight = weight * (inside @ (n / C / hidden) / n)
        weight = weight / weight.sum()
    return weight


def _channels(chosen: Tensor, n: int) -> Tensor:
    """(B, k) numbers to a (B, n) bool."""
    return torch.zeros(len(chosen), n, dtype=torch.bool, device=chosen.device).scatter_(1, chosen, True)


def _hide(hidden: Tensor, count: int) -> Mask:
    """Mask of a (B, C, P) bool with ``count`` hidden tokens in every row."""
    return top_mask(hidden.flatten(1).to(torch.float64), count)
