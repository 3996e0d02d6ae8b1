"""Decoders of masked reconstruction: from features of visible tokens to values of hidden ones. No loss, no targets.

The visible tokens are put back on the whole token grid, a learned mask token stands in every other place, and a light
transformer runs over it: over all tokens at once (MAE, arXiv 2111.06377), or over each channel on its own (ST-MEM, arXiv
2402.09450). So any mask fits, whatever it hides of which channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.errors import RequestError
from biossl.models.attention import make_layout
from biossl.models.positions import sincos_2d
from biossl.models.transformer import init_weights, make_blocks, shared_rows, take_tokens


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a :class:`Decoder`; ``scope: channel, dim: 256, depth: 4, heads: 4`` is ST-MEM's.

    Attributes
    ----------
    scope : {"joint", "channel"}
        ``joint``: every token sees every other one, positions code channel and time. ``channel``: channels do not see each
        other, positions code time; what channels share must come from the encoder.
    dim : int
        Width d; a multiple of 4 and of ``heads``.
    depth, heads : int
    mlp_ratio : float
    qkv_bias : bool
    norm_eps : float
    init : {"normal", "fan_in"}
        See :func:`biossl.models.transformer.init_weights`.
    """

    scope: Literal["joint", "channel"] = "joint"
    dim: int = 96
    depth: int = 2
    heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    init: Literal["normal", "fan_in"] = "normal"


class Decoder(nn.Module):
    """From encoded visible tokens to ``n_values`` numbers of every hidden token.

    Parameters
    ----------
    dim : int
        Width D of the encoder.
    grid : (C, P)
        Token grid of the encoder; a joint tokenizer has C = 1.
    n_values : int
        V, numbers to predict for a token.
    config : DecoderConfig

    Raises
    ------
    RequestError
        ``dim`` does not fit ``heads``, no block.

    Examples
    --------
    >>> decoder = Decoder(32, (2, 5), 8, DecoderConfig(dim=16, depth=1, heads=2))
    >>> decoder(torch.zeros(3, 4, 32), torch.tensor([[0, 1, 5, 6]]), torch.tensor([[2, 7]])).shape
    torch.Size([3, 2, 8])
    """

    def __init__(self, dim: int, grid: tuple[int, int], n_values: int, config: DecoderConfig) -> None:
        super().__init__()
        d = config.dim
        if d < 4 or config.heads < 1 or d % 4 or d % config.heads:
            raise RequestError(f"decoder.dim: {d} must be a positive multiple of 4 and of decoder.heads ({config.heads})")
        if config.depth < 1:
            raise RequestError(f"decoder.depth: {config.depth} must be at least 1")
        self.config, self.grid = config, grid
        self.embed = nn.Linear(dim, d)
        self.mask_token = nn.Parameter(torch.empty(d))
        self.blocks = make_blocks(
            d, config.depth, config.heads, mlp_ratio=config.mlp_ratio, qkv_bias=config.qkv_bias, norm_eps=config.norm_eps,
            drop_path=0.0,
        )  # fmt: skip
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.proj = nn.Linear(d, n_values)
        init_weights(self, self.blocks, config.init)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.position: Tensor
        table = sincos_2d(grid[0] if config.scope == "joint" else 1, grid[1], d)
        self.register_buffer("position", table, persistent=False)

    def forward(
        self, x: Tensor, visible: Tensor, masked: Tensor, *, observed: Tensor | None = None, channel: Tensor | None = None
    ) -> Tensor:
        """Values of the hidden tokens.

        Parameters
        ----------
        x : Tensor, (R, K, D)
            Encoder output of the visible tokens.
        visible : Tensor, int64, (R, K) or (1, K)
            Their numbers on the token grid of this batch, lead-major.
        masked : Tensor, int64, (R, M) or (1, M)
            Numbers of the tokens to predict. A token that is neither is treated as hidden and not predicted.
        observed : Tensor, bool, (R, K), or None
            Visible tokens that mean something; the others are treated as hidden. None = all.
        channel : Tensor, int64, (C',), or None
            Rows of the grid that this batch's channels stand for, when it has not all of them.

        Returns
        -------
        Tensor, (R, M, V)
        """
        R, _, _ = x.shape
        d, P = self.config.dim, self.grid[1]
        C = self.grid[0] if channel is None else channel.shape[0]
        z = self.embed(x)
        hidden = self.mask_token.to(z.dtype)
        if observed is not None:
            z = torch.where(observed[..., None], z, hidden)
        z = hidden.expand(R, C * P, d).scatter(1, visible.expand(R, -1)[..., None].expand(-1, -1, d), z)
        if self.config.scope == "channel":
            z = z.view(R, C, P, d) + self.position
            z = z.view(R * C, P, d)
        elif channel is None:
            z = z + self.position
        else:
            z = z + self.position.view(-1, P, d)[channel].flatten(0, 1)
        layout = make_layout("full")
        for block in self.blocks:
            z = block(z, layout)
        return self.proj(self.norm(take_tokens(z.view(R, C * P, d), shared_rows(masked))))
