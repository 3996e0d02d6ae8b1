"""Predictors of JEPA objectives: from visible token features to features of masked tokens. No loss, no targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.errors import RequestError
from biossl.models.attention import make_layout
from biossl.models.positions import sincos_2d
from biossl.models.transformer import init_weights, make_blocks, shared_rows


@dataclass(frozen=True)
class PredictorConfig:
    """Architecture of a predictor; ``dim=384, depth=6, heads=12, qkv_bias=False, drop_path=0.1`` is that of ECG-JEPA.

    Attributes
    ----------
    kind : {"lead", "grid"}
        ``lead``: :class:`LeadPredictor`, for masks over times. ``grid``: :class:`GridPredictor`, for any mask.
    dim : int
        Width d; a multiple of 4 and of ``heads``.
    depth, heads : int
    mlp_ratio : float
    position : {"once", "every_block"}
    drop_path : float
    qkv_bias : bool
    norm_eps : float
    init : {"normal", "fan_in"}
        See :func:`biossl.models.transformer.init_weights`.
    """

    kind: Literal["lead", "grid"] = "lead"
    dim: int = 96
    depth: int = 3
    heads: int = 3
    mlp_ratio: float = 4.0
    position: Literal["once", "every_block"] = "every_block"
    drop_path: float = 0.0
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    init: Literal["normal", "fan_in"] = "normal"


class _Predictor(nn.Module):
    """The layers both predictors have, and the position table of a (C, P) grid."""

    def __init__(self, dim: int, grid: tuple[int, int], config: PredictorConfig) -> None:
        super().__init__()
        if config.dim % 4 or config.dim % config.heads:
            raise RequestError(f"predictor.dim: {config.dim} must be a multiple of 4 and of predictor.heads ({config.heads})")
        self.config = config
        self.embed = nn.Linear(dim, config.dim)
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        self.blocks = make_blocks(
            config.dim, config.depth, config.heads, mlp_ratio=config.mlp_ratio, qkv_bias=config.qkv_bias,
            norm_eps=config.norm_eps, drop_path=config.drop_path,
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.proj = nn.Linear(config.dim, dim)
        init_weights(self, self.blocks, config.init)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.position: Tensor
        self.register_buffer("position", sincos_2d(*grid, config.dim), persistent=False)


class LeadPredictor(_Predictor):
    """The predictor of ECG-JEPA (arXiv 2410.08559): every channel on its own, as B * C sequences of P tokens.

    Channels do not see each other here; what they share comes from the encoder. Joint tokens are the case C = 1.

    Parameters
    ----------
    dim : int
        Width D of the encoder.
    n_patches : int
        P.
    config : PredictorConfig

    Examples
    --------
    >>> predictor = LeadPredictor(32, 10, PredictorConfig(dim=16, depth=1, heads=2))
    >>> predictor(torch.zeros(2, 3 * 6, 32), torch.arange(6), torch.arange(6, 10)).shape
    torch.Size([2, 3, 4, 32])
    """

    def __init__(self, dim: int, n_patches: int, config: PredictorConfig) -> None:
        super().__init__(dim, (1, n_patches), config)

    def forward(self, x: Tensor, visible: Tensor, masked: Tensor, *, observed: Tensor | None = None) -> Tensor:
        """Predicted features of the masked times of every channel.

        Parameters
        ----------
        x : Tensor, (B, C * K, D)
            Encoder output on the kept grid (C, K), lead-major. With M masks stacked, B stands for M * B.
        visible : Tensor, int64, (B, K) or (K,)
            Time patches of the kept tokens.
        masked : Tensor, int64, (B, M) or (M,)
            Time patches to predict.
        observed : Tensor, bool, (B, C * K), or None
            Kept tokens that may be used; None = all.

        Returns
        -------
        Tensor, (B, C, M, D)
        """
        B, K, M = x.shape[0], visible.shape[-1], masked.shape[-1]
        C = x.shape[1] // K
        d = self.config.dim
        z = self.embed(x).view(B, C, K, d)
        z = torch.cat([z, self.mask_token.to(z.dtype).expand(B, C, M, d)], dim=2)
        rows_v, rows_m = shared_rows(visible), shared_rows(masked)
        n = max(rows_v.shape[0], rows_m.shape[0])
        number = torch.cat([rows_v.expand(n, K), rows_m.expand(n, M)], dim=1)
        position = self.position.index_select(0, number.reshape(-1)).view(n, 1, K + M, d)
        keys = None
        if observed is not None:
            keys = nn.functional.pad(observed.reshape(B * C, K), (0, M), value=True)
        layout = make_layout("full", observed=keys)
        for i, block in enumerate(self.blocks):
            if i == 0 or self.config.position == "every_block":
                z = z.view(B, C, K + M, d) + position
            z = block(z.reshape(B * C, K + M, d), layout)
        z = z.view(B, C, K + M, d)[:, :, K:]  # only masked tokens are wanted: norm and projection of the rest are spared
        return self.proj(self.norm(z))


class GridPredictor(_Predictor):
    """A predictor over all tokens of the (C, P) grid at once, whatever a mask hides of which channel.

    Every token sees every other one; positions code channel and time. So a hidden channel can be predicted from the other
    channels, which :class:`LeadPredictor` leaves to the encoder.

    Parameters
    ----------
    dim : int
        Width D of the encoder.
    grid : (C, P)
    config : PredictorConfig

    Examples
    --------
    >>> predictor = GridPredictor(32, (3, 10), PredictorConfig(kind="grid", dim=16, depth=1, heads=2))
    >>> predictor(torch.zeros(2, 5, 32), torch.arange(5), torch.arange(5, 30)).shape
    torch.Size([2, 25, 32])
    """

    def __init__(self, dim: int, grid: tuple[int, int], config: PredictorConfig) -> None:
        super().__init__(dim, grid, config)
        self.n_patches = grid[1]

    def forward(
        self, x: Tensor, visible: Tensor, masked: Tensor, *, observed: Tensor | None = None, channel: Tensor | None = None
    ) -> Tensor:
        """Predicted features of the masked tokens.

        Parameters
        ----------
        x : Tensor, (R, K, D)
            Encoder output of the visible tokens.
        visible : Tensor, int64, (R, K) or (K,)
            Their numbers on the batch's grid, lead-major.
        masked : Tensor, int64, (R, M) or (M,)
            Tokens to predict.
        observed : Tensor, bool, (R, K), or None
            Visible tokens that may be used; None = all.
        channel : Tensor, int64, (C',), or None
            Rows of the grid that this batch's channels stand for, when it has not all of them.

        Returns
        -------
        Tensor, (R, M, D)
        """
        R, K, M = x.shape[0], visible.shape[-1], masked.shape[-1]
        d, P = self.config.dim, self.n_patches
        z = self.embed(x)
        z = torch.cat([z, self.mask_token.to(z.dtype).expand(R, M, d)], dim=1)
        rows_v, rows_m = shared_rows(visible), shared_rows(masked)
        n = max(rows_v.shape[0], rows_m.shape[0])
        number = torch.cat([rows_v.expand(n, K), rows_m.expand(n, M)], dim=1)
        if channel is not None:
            number = channel[number // P] * P + number % P
        position = self.position.index_select(0, number.reshape(-1)).view(n, K + M, d)
        keys = None if observed is None else nn.functional.pad(observed, (0, M), value=True)
        layout = make_layout("full", observed=keys)
        for i, block in enumerate(self.blocks):
            if i == 0 or self.config.position == "every_block":
                z = z + position
            z = block(z, layout)
        return self.proj(self.norm(z[:, K:]))
