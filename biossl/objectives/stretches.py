"""Stretches of a window as windows of their own: whole patches, cut after tokenizing.

What lives here: :func:`stretch`, used by objectives that compare moments (CPC, TS2Vec). Where the stretches lie is theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biossl.batch import Tokens
from biossl.models.transformer import take_tokens


def stretch(tokens: Tokens, start: Tensor, n: int) -> Tokens:
    """``n`` consecutive time patches of all channels, numbered from 0.

    The encoder gives them the positions of the first patches of a window, wherever they were: their place in it cannot be
    read from what comes out.

    Parameters
    ----------
    tokens : Tokens
        On a grid (C, P).
    start : Tensor, int64, (B,) or (M * B,)
        First patch, at most P - n; row m * B + b is cut from window b.
    n : int

    Returns
    -------
    Tokens
        On a grid (C, n), one row for each of ``start``.

    Raises
    ------
    ValueError
        Tokens that are not on a grid.

    Examples
    --------
    >>> seen = torch.ones(1, 6, dtype=torch.bool)
    >>> whole = Tokens(torch.arange(6.0).view(1, 6, 1), torch.zeros(1, 6), torch.zeros(1, 6).long(), seen, grid=(2, 3))
    >>> stretch(whole, torch.tensor([1]), 2).x.flatten()
    tensor([1., 2., 4., 5.])
    """
    if tokens.grid is None:
        raise ValueError("a stretch is cut from tokens on a (C, P) grid")
    C, P = tokens.grid
    device = tokens.x.device
    times = start[:, None] + torch.arange(n, device=device)
    rows = (torch.arange(C, device=device)[:, None] * P + times[:, None]).flatten(1)
    each = len(start) // len(tokens.x)
    return Tokens(
        x=take_tokens(tokens.x, rows),
        time_s=take_tokens(tokens.time_s, rows),
        channel=tokens.channel.reshape(-1, C, P)[:, :, :n].flatten(1).repeat(each, 1),
        observed=take_tokens(tokens.observed, rows),
        grid=(C, n),
        complete=tokens.complete,
    )
