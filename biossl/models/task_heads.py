"""Heads that turn an encoder's tokens into the outputs of a label: one row of numbers a window, or one a sample.

What lives here: heads of windows (linear, attention pooling, MLP) and of samples (dense), each a dataclass of settings with
``build(encoder, n_outputs)``, and the one output layer they share. Heads over several windows of a recording are in
``group_heads.py``, losses in ``objectives/losses_supervised.py``. What was not observed changes no output: unobserved tokens are
neither pooled nor attended to, and a window of which nothing was observed is read as features of 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.batch import Encoded
from biossl.errors import RequestError
from biossl.models.encoder import Encoder, pool_parts, pool_tokens


class TaskHead(nn.Module):
    """From :class:`~biossl.batch.Encoded` to outputs (B, n_outputs), or (B, C or nothing, n_outputs, T) of a dense head.

    ``layers`` are the encoder's blocks whose outputs it reads in ``hidden``.
    """

    layers: tuple[int, ...] = ()

    def forward(self, encoded: Encoded) -> Tensor:
        """Outputs before softmax or sigmoid."""
        raise NotImplementedError  # every subclass


class HeadConfig(Protocol):
    """Settings of a head: a dataclass of the table ``head``."""

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""


class Standardise(nn.Module):
    """Features less their mean over their deviation, both set once from the training windows (:meth:`fit`), then fixed.

    Pooled features differ much in size and a few hardly move; without this a linear layer takes thousands of steps to find those.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take mean and deviation (n - 1) of rows (n, dim); a feature that does not move keeps deviation 1."""
        x = features.double()
        std = x.std(dim=0) if len(x) > 1 else torch.ones_like(x[0])
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return (x - self.mean) / self.std


class Ordinal(nn.Module):
    """A score a row against ascending thresholds: cumulative logits (B, K - 1), ``threshold_k - score`` (McCullagh 1980).

    The first threshold is free and each next one is a softplus above it, so they never cross.

    Examples
    --------
    >>> Ordinal(4, 5)(torch.zeros(2, 4)).diff(dim=1).min() > 0
    tensor(True)
    """

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)
        self.first = nn.Parameter(torch.tensor([-(n_classes - 2) / 2.0]))
        self.steps = nn.Parameter(torch.full((n_classes - 2,), 0.5413))  # softplus of it is 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) to (B, K - 1), ascending."""
        thresholds = self.first + F.pad(F.softplus(self.steps).cumsum(0), (1, 0))
        return thresholds - self.score(x)


def output_layer(dim: int, n_outputs: int, *, ordinal: bool) -> nn.Module:
    """The last layer: linear, of weights near 0 so that a fresh head says next to nothing; or :class:`Ordinal` of n_outputs + 1 classes."""
    if ordinal:
        return Ordinal(dim, n_outputs + 1)
    layer = nn.Linear(dim, n_outputs)
    nn.init.trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


# ---------------------------------------------------------------------------------------------- linear, MLP


@dataclass
class LinearHeadConfig:
    """A linear layer on standardised pooled features.

    Attributes
    ----------
    pool : str
        See :func:`~biossl.models.transformer.pool_tokens`.
    dropout : float
        Of the features.
    ordinal : bool
        Outputs are ascending cumulative logits; set by the kind of the label.
    """

    pool: str = "mean+std+max"
    dropout: float = 0.0
    ordinal: bool = False

    def __post_init__(self) -> None:
        _check_dropout(self.dropout)
        _check_pool(self.pool)

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""
        width = encoder.dim * len(pool_parts(self.pool))
        return PooledHead(self.pool, width, nn.Dropout(self.dropout), output_layer(width, n_outputs, ordinal=self.ordinal))


@dataclass
class MLPHeadConfig:
    """Hidden layers with GELU on standardised pooled features.

    Attributes
    ----------
    pool : str
    hidden, layers : int
        Width and number of the hidden layers.
    dropout : float
        After each.
    ordinal : bool
    """

    pool: str = "mean+std+max"
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.2
    ordinal: bool = False

    def __post_init__(self) -> None:
        _check_dropout(self.dropout)
        _check_pool(self.pool)
        if self.hidden < 1 or self.layers < 1:
            raise ValueError(f"hidden and layers must be at least 1, not {self.hidden} and {self.layers}")

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""
        width = encoder.dim * len(pool_parts(self.pool))
        parts: list[nn.Module] = []
        dim = width
        for _ in range(self.layers):
            parts += [nn.Linear(dim, self.hidden), nn.GELU(), nn.Dropout(self.dropout)]
            dim = self.hidden
        return PooledHead(self.pool, width, nn.Sequential(*parts), output_layer(dim, n_outputs, ordinal=self.ordinal))


class PooledHead(TaskHead):
    """Pooling, standardisation, layers, output."""

    def __init__(self, pool: str, width: int, body: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.pool, self.norm, self.body, self.out = pool, Standardise(width), body, out

    def forward(self, encoded: Encoded) -> Tensor:
        """See :class:`TaskHead`."""
        return self.of_pooled(*pool_observed(encoded, self.pool))

    def of_pooled(self, features: Tensor, seen: Tensor) -> Tensor:
        """Outputs from the two of :func:`pool_observed`."""
        return self.out(self.body(torch.where(seen[:, None], self.norm(features), 0.0)))


def pool_observed(encoded: Encoded, pool: str) -> tuple[Tensor, Tensor]:
    """Pooled features (B, width) that are finite with finite gradients, and which windows have any observed token (B,).

    Those of a window without any are 0 and pass no gradient on; of :func:`~biossl.models.transformer.pool_tokens` they are NaN,
    and so would be the gradient of all weights.
    """
    seen = encoded.observed.any(dim=1)
    features = pool_tokens(replace(encoded, observed=encoded.observed | ~seen[:, None]), pool)
    return torch.where(seen[:, None], features, 0.0), seen


# ---------------------------------------------------------------------------------------------- attention pooling


@dataclass
class AttentionHeadConfig:
    """Learned queries look at the observed tokens; a linear layer on what they see.

    Attributes
    ----------
    queries : int
        Their answers are put side by side.
    heads : int
        Of the attention; divides the encoder's width.
    dropout : float
        Of the pooled features.
    ordinal : bool
    """

    queries: int = 1
    heads: int = 4
    dropout: float = 0.0
    ordinal: bool = False

    def __post_init__(self) -> None:
        _check_dropout(self.dropout)
        if self.queries < 1 or self.heads < 1:
            raise ValueError(f"queries and heads must be at least 1, not {self.queries} and {self.heads}")

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""
        if encoder.dim % self.heads:
            raise RequestError(f"head.heads: {self.heads} does not divide the encoder's width {encoder.dim}; take another number")
        return AttentionHead(encoder.dim, self, n_outputs)


class AttentionHead(TaskHead):
    """Cross-attention of learned queries, as in attentive probes (arXiv 2202.03026, 2205.01917): keys and values of the tokens."""

    def __init__(self, dim: int, config: AttentionHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Parameter(torch.randn(config.queries, dim) * 0.02)
        self.norm, self.kv = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim)
        self.dropout = nn.Dropout(config.dropout)
        width = dim * config.queries
        self.out_norm, self.out = nn.LayerNorm(width), output_layer(width, n_outputs, ordinal=config.ordinal)

    def forward(self, encoded: Encoded) -> Tensor:
        """See :class:`TaskHead`."""
        x = encoded.x
        B, N, D = x.shape
        seen = encoded.observed.expand(B, N)
        some = seen.any(dim=1)
        # a softmax over nothing is NaN: a window without tokens looks at all of them, and its answer is thrown away
        allowed = (seen | ~some[:, None])[:, None, None, :]
        k, v = self.kv(self.norm(x)).view(B, N, 2, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q = self.query.view(1, -1, self.heads, D // self.heads).transpose(1, 2).expand(B, -1, -1, -1)
        pooled = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=allowed).transpose(1, 2).reshape(B, -1)
        pooled = torch.where(some[:, None], self.out_norm(pooled), 0.0)
        return self.out(self.dropout(pooled))


# ---------------------------------------------------------------------------------------------- dense


@dataclass
class DenseHeadConfig:
    """Outputs for every sample: a linear layer from a token to the samples of its patch, then convolutions over time.

    Attributes
    ----------
    per : {"channel", "joint"}
        One answer for each channel (of an encoder whose tokens are of channels), or one of all channels together: the mean of
        the observed tokens of a time. Any number of channels either way.
    hidden : int
        Features of a sample.
    kernel, layers : int
        Of the convolutions; odd kernel, 0 layers = none. Patches alone leave steps at their borders.
    """

    per: Literal["channel", "joint"] = "channel"
    hidden: int = 32
    kernel: int = 9
    layers: int = 2

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.kernel < 1 or self.kernel % 2 == 0 or self.layers < 0:
            raise ValueError(
                f"hidden must be at least 1, kernel odd and layers at least 0, not {self.hidden}, {self.kernel} and {self.layers}"
            )

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder; RequestError where its tokens are of no single channel."""
        if self.per == "channel" and encoder.config.tokenizer == "joint":
            raise RequestError("head.per: this encoder's tokens are of all channels together; set it to joint")
        return DenseHead(encoder.dim, encoder.patch, encoder.spec.n_samples, self, n_outputs)


class DenseHead(TaskHead):
    """Tokens on a (C, P) grid to (B, C, n_outputs, T), or (B, n_outputs, T) for ``joint``."""

    def __init__(self, dim: int, patch: int, n_samples: int, config: DenseHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.per, self.patch, self.n_samples, hidden = config.per, patch, n_samples, config.hidden
        self.spread = nn.Linear(dim, patch * hidden)
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, config.kernel, padding=config.kernel // 2) for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(config.layers))
        self.out = output_layer(hidden, n_outputs, ordinal=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """See :class:`TaskHead`; ValueError without a grid."""
        if encoded.grid is None:
            raise ValueError("a dense head needs tokens on a (C, P) grid")
        B, _, D = encoded.x.shape
        C, P = encoded.grid
        x, seen = encoded.x.view(B, C, P, D), encoded.observed.expand(B, C * P).view(B, C, P, 1)
        x = torch.where(seen, x, 0.0)
        if self.per == "joint":
            x, seen = x.sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp_min(1), seen.any(dim=1, keepdim=True)
            C = 1
        h = self.spread(x).view(B * C, P * self.patch, -1)
        # what stands at an unobserved patch must not depend on its content, for the convolutions reach over its borders
        there = seen.expand(B, C, P, self.patch).reshape(B * C, P * self.patch, 1)
        h = torch.where(there, h, 0.0)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            new = F.gelu(conv(norm(h).transpose(1, 2))).transpose(1, 2)
            h = h + torch.where(there, new, 0.0)
        out = self.out(h).transpose(1, 2).view(B, C, -1, P * self.patch)[..., : self.n_samples]  # the last patch may be cut
        return out[:, 0] if self.per == "joint" else out


def _check_dropout(value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"dropout must be in [0, 1), not {value:g}")


def _check_pool(pool: str) -> None:
    try:
        pool_parts(pool)
    except RequestError as error:
        raise ValueError(str(error)) from None
