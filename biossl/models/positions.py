"""Position tables: fixed 2-D sine-cosine codes of (channel, time patch). Pure functions, computed in float64.

Always made on the CPU, so that an encoder built on the meta device (to be filled from a file) has its tables.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_1d(index: Tensor, dim: int) -> Tensor:
    """Sine-cosine code of whole numbers.

    Parameters
    ----------
    index : Tensor, (n,)
    dim : int
        Even. ``w_i = 10000 ** (-i / (dim / 2))`` for i = 0 .. dim / 2 - 1.

    Returns
    -------
    Tensor, float64, (n, dim)
        ``concat[sin(index * w), cos(index * w)]``.
    """
    half = dim // 2
    w = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device="cpu") / half)
    angle = index.to(torch.float64)[:, None] * w[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_2d(n_channels: int, n_patches: int, dim: int) -> Tensor:
    """The table of ECG-JEPA (arXiv 2410.08559): first half of the features codes time, second half the channel.

    Parameters
    ----------
    n_channels, n_patches : int
        One channel gives the table of the per-lead predictor and of joint tokens: the channel half is constant.
    dim : int
        Width D, a multiple of 4.

    Returns
    -------
    Tensor, float32, (C * P, D)
        Lead-major: row = channel * P + patch.

    Examples
    --------
    >>> sincos_2d(8, 50, 768).shape
    torch.Size([400, 768])
    """
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4, got {dim}")
    time = sincos_1d(torch.arange(n_patches, device="cpu"), dim // 2)
    channel = sincos_1d(torch.arange(n_channels, device="cpu"), dim // 2)
    table = torch.cat([time[None].expand(n_channels, -1, -1), channel[:, None].expand(-1, n_patches, -1)], dim=2)  # (C, P, D)
    return table.reshape(n_channels * n_patches, dim).float()
