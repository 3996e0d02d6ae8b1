"""The transformer encoder: windows to tokens, tokens to features.

What lives here: EncoderConfig, the pre-norm blocks (shared with the predictor) and the encoder. Defaults
are those of ECG-JEPA (Kim; arXiv 2410.08559) at a small size; ``dim=768, depth=12, heads=16, qkv_bias=False,
drop_path=0.1`` is the published base encoder. No loss, no mask drawing, no file access.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.batch import Batch, Encoded, TimeKeep, Tokens
from biossl.errors import RequestError
from biossl.models.attention import Attention, Layout, make_layout
from biossl.models.encoder import Encoder
from biossl.models.positions import sincos_2d
from biossl.models.tokenizers import PatchTokenizer, amplitude, patch_samples
from biossl.signal import InputSpec


@dataclass(frozen=True)
class EncoderConfig:
    """Architecture of a :class:`TransformerEncoder`.

    Attributes
    ----------
    dim : int
        Width D; a multiple of 4 and of ``heads``.
    depth, heads : int
    mlp_ratio : float
    patch_s : float
        Patch length in seconds; ``patch_s * sfreq`` must be whole and divide the window.
    tokenizer : {"channel", "joint"}
        One token per channel and patch, or one per patch of all channels.
    attention : {"cropa", "full"}
        ``cropa``: own channel and own time only.
    position : {"once", "every_block"}
        ``every_block`` adds the table to the input of each block, as published; ``once`` to the first only.
    registers : int
        Learned tokens that are never masked, positioned or pooled.
    drop_path : float
        Stochastic depth of the last block; linear from 0.
    qkv_bias : bool
    norm_eps : float
    init : {"normal", "fan_in"}
        Initial weights, see :func:`init_weights`: ``normal`` as published, ``fan_in`` for small widths.
    normalise : {"none", "window", "fixed"}
        Amplitudes as they are; z-score per window and channel; divided by ``scale``.
    scale : dict
        Channel type -> divisor in canonical units, for ``fixed``.
    """

    dim: int = 192
    depth: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    patch_s: float = 0.2
    tokenizer: Literal["channel", "joint"] = "channel"
    attention: Literal["full", "cropa"] = "cropa"
    position: Literal["once", "every_block"] = "every_block"
    registers: int = 0
    drop_path: float = 0.0
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    init: Literal["normal", "fan_in"] = "normal"
    normalise: Literal["none", "window", "fixed"] = "none"
    scale: dict[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """One sentence for the model card."""
        return (
            f"Transformer, width {self.dim}, depth {self.depth}, {self.heads} heads, patches of {self.patch_s:g} s "
            f"({self.tokenizer}), attention {self.attention}"
        )

    def size(self, spec: InputSpec) -> tuple[int, int, float]:
        """See :class:`~biossl.models.encoder.EncoderSettings`."""
        tokens = len(spec.ch_names) * spec.n_samples / max(1.0, self.patch_s * spec.sfreq)
        return self.dim, self.depth, tokens * self.dim


def token_grid(spec: InputSpec, config: EncoderConfig) -> tuple[int, int]:
    """Grid (C, P) of the tokens of one window; RequestError naming the key when spec and config do not fit.

    Examples
    --------
    >>> token_grid(InputSpec("ecg", 250.0, 2500, ("I", "II"), ("ecg",) * 2, ("mV",) * 2), EncoderConfig())
    (2, 50)
    """
    if config.dim < 4 or config.heads < 1:
        raise RequestError(f"encoder: dim must be at least 4 and heads at least 1, not {config.dim} and {config.heads}")
    if config.dim % 4 or config.dim % config.heads:
        raise RequestError(f"encoder.dim: {config.dim} must be a multiple of 4 and of encoder.heads ({config.heads})")
    if config.depth < 1 or config.registers < 0 or not 0.0 <= config.drop_path < 1.0:
        raise RequestError("encoder: depth must be at least 1, registers at least 0, drop_path in [0, 1)")
    patch = patch_samples(spec, config.patch_s)
    amplitude(spec, config.normalise, config.scale)
    return (1 if config.tokenizer == "joint" else len(spec.ch_names)), spec.n_samples // patch


class DropPath(nn.Module):
    """Drops the residual branch of whole samples in training and rescales the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; the first dimension is the sample."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * (keep / (1.0 - self.rate))


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, qkv_bias: bool, norm_eps: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x), layout))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def make_blocks(
    dim: int, depth: int, heads: int, *, mlp_ratio: float, qkv_bias: bool, norm_eps: float, drop_path: float
) -> nn.ModuleList:
    """Blocks with drop-path rising linearly from 0."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return nn.ModuleList(Block(dim, heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, norm_eps=norm_eps, drop_path=r) for r in rates)


def init_weights(module: nn.Module, blocks: nn.ModuleList, how: Literal["normal", "fan_in"] = "normal") -> None:
    """Weights of linear layers from a truncated normal, biases 0; residual outputs of layer l (from 1) over sqrt(2 l).

    ``normal``: std 0.02, as published for width 768. ``fan_in``: std 1 / sqrt(inputs); at small widths 0.02 leaves the
    blocks almost linear and the tokens far below the position table.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02 if how == "normal" else m.in_features**-0.5)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    with torch.no_grad():
        for layer, block in enumerate(blocks, start=1):
            assert isinstance(block, Block)
            block.attn.proj.weight.div_(math.sqrt(2.0 * layer))
            block.mlp.fc2.weight.div_(math.sqrt(2.0 * layer))


def shared_rows(index: Tensor) -> Tensor:
    """(B, K) or (K,) to (1, K) when all samples share the index (1-D, or expanded), else unchanged."""
    if index.ndim == 1:
        return index[None]
    return index[:1] if index.stride(0) == 0 else index


def channel_rows(tokens: Tokens, encoder: TransformerEncoder) -> Tensor | None:
    """Rows (C,) of the encoder's channels that tokens on a grid belong to; None = all, in order."""
    return None if tokens.grid == encoder.grid else tokens.channel[0, :: encoder.grid[1]]


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens.

    Parameters
    ----------
    x : Tensor, (B, N, ...)
    index : Tensor, int64, (1, K), (B, K) or (M * B, K)
        (1, K) = the same for all; row m * B + b picks from sample b.

    Returns
    -------
    Tensor, (B, K, ...) or (M * B, K, ...)
    """
    B, N = x.shape[:2]
    if index.shape[0] == 1:
        return x.index_select(1, index[0])
    sample = torch.arange(index.shape[0], device=index.device) % B
    flat = (sample[:, None] * N + index).reshape(-1)
    return x.reshape(B * N, *x.shape[2:]).index_select(0, flat).view(*index.shape, *x.shape[2:])


class TransformerEncoder(Encoder):
    """Patch tokens, transformer blocks, final norm.

    Parameters
    ----------
    spec : InputSpec
        What one window is: channel names and order, rate, length. Channel subsets and other orders are served by name.
    config : EncoderConfig

    Examples
    --------
    >>> spec = InputSpec("ecg", 250.0, 2500, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
    >>> TransformerEncoder(spec, EncoderConfig(dim=32, depth=1, heads=2)).embed(torch.zeros(3, 2, 2500)).shape
    torch.Size([3, 32])
    """

    architecture, maskable = "transformer", True
    config: EncoderConfig

    def __init__(self, spec: InputSpec, config: EncoderConfig) -> None:
        grid = token_grid(spec, config)
        super().__init__(spec, config, config.dim)
        self.grid, self.patch = grid, patch_samples(spec, config.patch_s)
        joint = config.tokenizer == "joint"
        self.tokenizer = PatchTokenizer(self.patch, config.dim, joint_channels=len(spec.ch_names) if joint else 0)
        self.blocks = make_blocks(
            config.dim, config.depth, config.heads, mlp_ratio=config.mlp_ratio, qkv_bias=config.qkv_bias,
            norm_eps=config.norm_eps, drop_path=config.drop_path,
        )  # fmt: skip
        self.layer_dims = (config.dim,) * config.depth
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.registers = nn.Parameter(torch.empty(config.registers, config.dim)) if config.registers else None
        init_weights(self, self.blocks, config.init)
        if self.registers is not None:
            nn.init.trunc_normal_(self.registers, std=0.02)
        self.position: Tensor  # a fixed function of spec and config: recomputed, never stored
        self.register_buffer("position", sincos_2d(*self.grid, config.dim), persistent=False)

    def tokenize(self, batch: Batch) -> Tokens:
        """See :meth:`~biossl.models.encoder.Encoder.tokenize`: one token a patch."""
        x, observed, channel = self.windows(batch)
        tokens = self.tokenizer(x.to(self.tokenizer.proj.weight.dtype))
        B, N, _ = tokens.shape
        P = self.grid[1]
        C = N // P
        time = (torch.arange(P, device=x.device, dtype=torch.float32) + 0.5) * (self.patch / self.spec.sfreq)
        return Tokens(
            x=tokens,
            time_s=time.repeat(C).expand(B, N),
            channel=channel.repeat_interleave(P).expand(B, N),
            observed=(
                torch.ones(1, 1, dtype=torch.bool, device=x.device).expand(B, N)
                if observed is None
                else self.tokenizer.observed(observed)
            ),
            grid=(C, P),
            complete=observed is None,
        )

    def encode(self, tokens: Tokens, *, keep: TimeKeep | Tensor | None = None, layers: Sequence[int] = ()) -> Encoded:
        """Run the blocks over all or some tokens.

        Parameters
        ----------
        tokens : Tokens
            From :meth:`tokenize`, or a stretch of such (:func:`biossl.objectives.stretches.stretch`).
        keep : TimeKeep, Tensor or None
            None = all tokens. ``TimeKeep(index)``: kept time patches, the same for all channels; stays a grid, the fast
            form. Tensor int64: kept token numbers (lead-major), (K,) shared or (B, K) per sample, for masks that differ
            between channels. Either may have M * B rows (M masks): row m * B + b belongs to sample b.
        layers : sequence of int
            Blocks whose outputs are wanted in ``hidden`` (0 = first, -1 = last).

        Returns
        -------
        Encoded
        """
        if tokens.grid is None:
            raise ValueError("TransformerEncoder needs tokens on a (C, P) grid")
        C, P = tokens.grid
        x = tokens.x
        observed = None if tokens.complete else tokens.observed
        if observed is not None and observed.device.type == "cpu" and bool(observed.all()):
            observed = None  # on an accelerator asking would be a host sync; there the key mask is always applied
        position = self._position(tokens)[None]
        grid: tuple[int, int] | None = (C, P)
        rows = None
        if isinstance(keep, TimeKeep):
            times = shared_rows(keep.index)
            rows = (torch.arange(C, device=x.device)[:, None] * P + times[:, None, :]).flatten(1)
            grid = (C, times.shape[1])
        elif keep is not None:
            rows, grid = shared_rows(keep), None
        if rows is not None:
            x = take_tokens(x, rows)
            observed = None if observed is None else take_tokens(observed, rows)
            position = position[0].index_select(0, rows.reshape(-1)).view(*rows.shape, self.dim)
        B, N, _ = x.shape
        number = rows if rows is not None else torch.arange(N, device=x.device)[None]
        R = self.config.registers
        layout = make_layout(
            self.config.attention, registers=R, grid=grid, channel=number // P, time=number % P, observed=observed
        )
        if self.registers is not None:
            x = torch.cat([self.registers.to(x.dtype).expand(B, R, -1), x], dim=1)
            position = nn.functional.pad(position, (0, 0, R, 0))
        wanted = [self._layer(n) for n in layers]
        hidden: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks):
            if i == 0 or self.config.position == "every_block":
                x = x + position
            x = block(x, layout)
            if i in wanted:
                hidden[i] = x[:, R:]
        x = self.norm(x)
        return Encoded(
            x=x[:, R:],
            registers=x[:, :R],
            observed=torch.ones(1, 1, dtype=torch.bool, device=x.device).expand(B, N) if observed is None else observed,
            hidden=tuple(hidden[i] for i in wanted),
            grid=grid,
        )

    def _position(self, tokens: Tokens) -> Tensor:
        """(C * P, D): rows of the table for the channels present; a grid of fewer times has the table's first."""
        assert tokens.grid is not None
        if tokens.grid == self.grid:
            return self.position
        n = tokens.grid[1]
        number = tokens.channel[0].clamp_min(0) * self.grid[1] + torch.arange(n, device=tokens.x.device).repeat(tokens.grid[0])
        return self.position.index_select(0, number)
