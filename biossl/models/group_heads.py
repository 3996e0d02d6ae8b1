"""Heads over the windows of one recording or subject: a label for each window in its context, or one for all of them.

What lives here: the sequence head (transformer or GRU) and the pooling head (mean, attention), each a dataclass of settings with
``build(dim, n_outputs)``. Both take embeddings (B, W, D) and which of the W windows are there (B, W); what stands at one that is
not there changes no output of the others. Heads of a single window are in ``task_heads.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.models.attention import make_layout
from biossl.models.positions import sincos_1d
from biossl.models.task_heads import output_layer
from biossl.models.transformer import init_weights, make_blocks


@dataclass
class SequenceHeadConfig:
    """A network over consecutive windows.

    Attributes
    ----------
    kind : {"transformer", "gru"}
        The GRU runs both ways, over the windows that are there, one after the other.
    dim : int
        Width; a multiple of 4 and of ``heads``.
    depth : int
    heads : int
        For ``transformer``.
    dropout : float
        Before the output.
    """

    kind: Literal["transformer", "gru"] = "transformer"
    dim: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.dim < 4 or self.dim % 4 or self.dim % self.heads or self.depth < 1:
            raise ValueError(
                f"dim must be a multiple of 4 and of heads, depth at least 1, not {self.dim}, {self.heads}, {self.depth}"
            )

    def build(self, dim: int, n_outputs: int) -> nn.Module:
        """The head for embeddings of width ``dim``."""
        return SequenceHead(dim, self, n_outputs)


class SequenceHead(nn.Module):
    """One row of outputs for every window, from it and the windows around it.

    Examples
    --------
    >>> head = SequenceHeadConfig(dim=8, depth=1, heads=2).build(6, 3)
    >>> head(torch.zeros(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, dim: int, config: SequenceHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.config, width = config, config.dim
        self.into, self.norm = nn.Linear(dim, width), nn.LayerNorm(width)
        self.dropout, self.out = nn.Dropout(config.dropout), output_layer(width, n_outputs, ordinal=False)
        self.blocks, self.gru = nn.ModuleList(), None
        if config.kind == "transformer":
            self.blocks = make_blocks(
                width, config.depth, config.heads, mlp_ratio=4.0, qkv_bias=True, norm_eps=1e-5, drop_path=0.0
            )
            init_weights(self.blocks, self.blocks, "fan_in")
        else:
            self.gru = nn.GRU(width, width // 2, config.depth, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """(B, W, dim) and bool (B, W) to (B, W, n_outputs); rows that are not observed are of no meaning."""
        h = self.into(torch.where(observed[..., None], x, 0.0))
        h = self._attend(h, observed) if self.gru is None else self._recur(h, observed)
        return self.out(self.dropout(self.norm(h)))

    def _attend(self, h: Tensor, observed: Tensor) -> Tensor:
        h = h + sincos_1d(torch.arange(h.shape[1]), self.config.dim).to(h)
        layout = make_layout("full", observed=observed)
        for block in self.blocks:
            h = block(h, layout)
        return h

    def _recur(self, h: Tensor, observed: Tensor) -> Tensor:
        assert self.gru is not None
        order = torch.argsort((~observed).to(torch.int8), dim=1, stable=True)  # those that are there first, in their order
        length = observed.sum(dim=1).clamp_min(1).cpu()
        index = order[..., None].expand_as(h)
        packed = nn.utils.rnn.pack_padded_sequence(h.gather(1, index), length, batch_first=True, enforce_sorted=False)
        found, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=h.shape[1])
        return torch.zeros_like(found).scatter(1, index, found)


@dataclass
class PoolingHeadConfig:
    """One answer for a set of windows.

    Attributes
    ----------
    how : {"mean", "attention"}
        ``attention``: gated attention-based multiple-instance learning (arXiv 1802.04712): a learned weight a window.
    hidden : int
        Of the attention.
    dropout : float
        Before the output.
    """

    how: Literal["mean", "attention"] = "mean"
    hidden: int = 64
    dropout: float = 0.0

    def build(self, dim: int, n_outputs: int) -> nn.Module:
        """The head for embeddings of width ``dim``."""
        return PoolingHead(dim, self, n_outputs)


class PoolingHead(nn.Module):
    """From the windows of a recording or a subject to its outputs.

    Examples
    --------
    >>> PoolingHeadConfig("attention", hidden=4).build(6, 3)(torch.zeros(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int, config: PoolingHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(config.dropout)
        self.out = output_layer(dim, n_outputs, ordinal=False)
        self.gate: nn.ModuleList | None = None
        if config.how == "attention":
            self.gate = nn.ModuleList([nn.Linear(dim, config.hidden), nn.Linear(dim, config.hidden), nn.Linear(config.hidden, 1)])

    def weights(self, x: Tensor, observed: Tensor) -> Tensor:
        """Share of each window (B, W): 0 where not observed, 1 in all; 0 throughout where nothing is."""
        if self.gate is None:
            score = torch.zeros_like(x[..., 0])
        else:
            value, gate, last = self.gate
            score = last(value(x).tanh() * gate(x).sigmoid())[..., 0]
        score = score.masked_fill(~observed, torch.finfo(score.dtype).min)
        return torch.where(observed, score.softmax(dim=1), 0.0)

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """(B, W, dim) and bool (B, W) to (B, n_outputs)."""
        x = self.norm(torch.where(observed[..., None], x, 0.0))
        return self.out(self.dropout((self.weights(x, observed)[..., None] * x).sum(dim=1)))
