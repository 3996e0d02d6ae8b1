"""Self-attention over tokens: full, and cross-pattern (CroPA) on a (channels, times) grid.

What lives here: the two attention operations as pure functions, the Layout that says who may see whom, and the module
with the weights. In CroPA a token sees the tokens of its own channel and those of its own time, nothing else
(ECG-JEPA, arXiv 2410.08559); on a grid that is one row block and one column block under a joint softmax, so no
N x N score matrix is made. Register tokens see everything and are seen by everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# CPU: SDPA's bfloat16 backward is 3 to 6 times slower than plain products up to about this length (measured).
_CPU_BF16_PLAIN_UP_TO = 1500


@dataclass(frozen=True)
class Layout:
    """Who may attend to whom; made once per forward and shared by all blocks.

    Attributes
    ----------
    registers : int
        R: the first R rows of the sequence are register tokens.
    grid : (C, K) or None
        Set: block CroPA over a lead-major grid. None: dense attention under ``allowed``.
    observed : Tensor, bool, (B, N), or None
        With a grid: tokens that may be keys; None = all.
    allowed : Tensor, bool, (B or 1, 1, S, S), or None
        Dense: which key a query may see; None = all.
    """

    registers: int = 0
    grid: tuple[int, int] | None = None
    observed: Tensor | None = None
    allowed: Tensor | None = None


def make_layout(
    kind: Literal["full", "cropa"],
    *,
    registers: int = 0,
    grid: tuple[int, int] | None = None,
    channel: Tensor | None = None,
    time: Tensor | None = None,
    observed: Tensor | None = None,
) -> Layout:
    """Layout of one forward pass.

    Parameters
    ----------
    kind : {"full", "cropa"}
    registers : int
    grid : (C, K) or None
        Given when the tokens are a full lead-major grid.
    channel, time : Tensor, int64, (B or 1, N)
        Needed for ``cropa`` without a grid: dense attention under a boolean mask.
    observed : Tensor, bool, (B, N), or None
        None = all observed, the fast path. A token that is not observed is a key for itself only (so that no softmax
        is empty); nothing observed depends on it.
    """
    one_pattern = kind == "full" or (grid is not None and grid[0] == 1)  # with one channel the column is the token itself
    if not one_pattern and grid is not None:
        return Layout(registers=registers, grid=grid, observed=observed)
    allowed = None
    if not one_pattern:
        if channel is None or time is None:
            raise ValueError("cropa without a grid needs channel and time of every token")
        allowed = (channel[:, :, None] == channel[:, None, :]) | (time[:, :, None] == time[:, None, :])
    if observed is not None:
        itself = torch.eye(observed.shape[1], dtype=torch.bool, device=observed.device)
        seen = observed[:, None, :] | itself
        allowed = seen if allowed is None else allowed & seen
    if allowed is not None:
        allowed = F.pad(allowed, (registers, 0, registers, 0), value=True)
        if observed is not None:
            allowed[:, :registers, registers:] = observed[:, None, :]
        allowed = allowed[:, None]
    return Layout(registers=registers, allowed=allowed)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d)) v.

    Parameters
    ----------
    q, k, v : Tensor, (B, H, S, d)
    allowed : Tensor, bool, broadcastable to (B, H, S, S), or None

    Returns
    -------
    Tensor, (B, H, S, d)

    Notes
    -----
    The path is chosen by device, dtype and length alone, so it is the same in every run of a recipe on a machine.
    """
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[2] <= _CPU_BF16_PLAIN_UP_TO
    if not plain:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf"))
    return logits.softmax(dim=-1) @ v


def cropa_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *, registers: int = 0, observed: Tensor | None = None
) -> Tensor:
    """Cross-pattern attention on a lead-major (C, K) grid as row + column blocks under one softmax.

    Parameters
    ----------
    q, k, v : Tensor, (B, H, R + C * K, d)
        Register tokens first.
    grid : (C, K)
    registers : int
        R.
    observed : Tensor, bool, (B, C * K), or None
        Tokens that may be keys (a token is always a key for itself).

    Returns
    -------
    Tensor, (B, H, R + C * K, d)
    """
    C, K = grid
    B, H, _, d = q.shape
    qt, kt, vt = (a[:, :, registers:].reshape(B, H, C, K, d) for a in (q * d**-0.5, k, v))
    row = qt @ kt.transpose(-2, -1)  # (B, H, C, K, K): same channel, all times
    col = qt.transpose(2, 3) @ kt.permute(0, 1, 3, 4, 2)  # (B, H, K, C, C): same time, all channels
    # A token's own position is in both blocks; it counts once, in the row.
    col = col.masked_fill(torch.eye(C, dtype=torch.bool, device=q.device), float("-inf"))
    if observed is not None:
        seen = observed.view(B, 1, C, 1, K)
        row = row.masked_fill(~(seen | torch.eye(K, dtype=torch.bool, device=q.device)), float("-inf"))
        col = col.masked_fill(~seen.permute(0, 1, 4, 3, 2), float("-inf"))
    logits = [row, col.transpose(2, 3)]
    if registers:
        kr, vr = k[:, :, :registers], v[:, :, :registers]
        logits.append((qt.reshape(B, H, C * K, d) @ kr.transpose(-2, -1)).view(B, H, C, K, registers))
    weight = torch.cat(logits, dim=-1).softmax(dim=-1)
    out = weight[..., :K] @ vt + (weight[..., K : K + C].transpose(2, 3) @ vt.transpose(2, 3)).transpose(2, 3)
    out = out.reshape(B, H, C * K, d)
    if not registers:
        return out
    out = out + weight[..., K + C :].reshape(B, H, C * K, registers) @ vr
    keys = None if observed is None else F.pad(observed, (registers, 0), value=True)[:, None, None, :]
    return torch.cat([dense_attention(q[:, :, :registers], k, v, keys), out], dim=2)


class Attention(nn.Module):
    """Multi-head self-attention with one packed projection: rows q, k, v, then head, then feature.

    Parameters
    ----------
    dim, heads : int
    qkv_bias : bool
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        B, S, D = x.shape
        q, k, v = self.qkv(x).view(B, S, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if layout.grid is not None:
            out = cropa_attention(q, k, v, layout.grid, registers=layout.registers, observed=layout.observed)
        else:
            out = dense_attention(q, k, v, layout.allowed)
        return self.proj(out.transpose(1, 2).reshape(B, S, D))
