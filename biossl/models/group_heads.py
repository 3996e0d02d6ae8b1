"""Heads over the windows of one recording: a label for each window in its context, or one for all of them.

What lives here: the sequence head (GRU or transformer) and the pooling head (mean, attention), each a dataclass of settings with
``build(encoder, n_outputs)``, and what they know of time. A batch for them is S stretches of W windows that follow each other in
a recording, one stretch after the other; what stands at a window that is not there changes no output of the others. Heads of a
single window are in ``task_heads.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.batch import Encoded
from biossl.models.attention import make_layout
from biossl.models.encoder import Encoder, pool_parts
from biossl.models.positions import sincos_1d
from biossl.models.task_heads import Standardise, TaskHead, output_layer, pool_observed
from biossl.models.transformer import init_weights, make_blocks

N_TIMING = 4
_LONGEST = 3.0  # of a log ratio of intervals; e^3 = 20 times as long


def timing(seconds: Tensor, there: Tensor) -> Tensor:
    """What the times of the windows of a stretch say: of beats, their rhythm.

    Parameters
    ----------
    seconds : Tensor, (S, W)
        Rising starts.
    there : Tensor, bool, (S, W)
        Windows that are there come first.

    Returns
    -------
    Tensor, float32, (S, W, 4)
        Logarithms of the interval before over the stretch's median one, of the interval after, of their ratio, and of the median
        itself in seconds; 0 where there is no such interval, cut at +-3.

    Examples
    --------
    >>> timing(torch.tensor([[0.0, 1.0, 1.5, 3.0]]), torch.ones(1, 4, dtype=torch.bool))[0, 2].tolist()  # half, 1.5 times
    [-0.6931471824645996, 0.4054650068283081, -1.0986123085021973, 0.0]
    """
    both = there[:, 1:] & there[:, :-1]
    log = torch.where(both, torch.diff(seconds.double(), dim=1).clamp_min(1e-3).log(), float("nan"))
    if log.shape[1] == 0:
        return torch.zeros(*seconds.shape, N_TIMING, device=seconds.device)
    median = torch.nan_to_num(log.nanmedian(dim=1, keepdim=True).values)
    edge = torch.full_like(median, float("nan"))
    before, after = torch.cat([edge, log - median], dim=1), torch.cat([log - median, edge], dim=1)
    out = torch.stack([before, after, before - after, median.expand_as(before)], dim=-1)
    return torch.nan_to_num(torch.where(there[..., None], out, 0.0)).clamp(-_LONGEST, _LONGEST).float()


class GroupHead(TaskHead):
    """A head whose answer on a window depends on the windows around it.

    Attributes
    ----------
    windows : int
        Length W of a stretch in training.
    whole : bool
        At use a stretch is the whole recording; else pieces of W windows that overlap by half.
    pool : str
    norm : Standardise
    """

    windows: int
    whole: bool
    pool: str
    norm: Standardise

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Standardised pooled features (B, F) of windows, 0 where nothing was observed, and where something was (B,)."""
        return self.of_pooled(*pool_observed(encoded, self.pool))

    def of_pooled(self, features: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`features` from the two of :func:`~biossl.models.task_heads.pool_observed`."""
        return torch.where(seen[:, None], self.norm(features), 0.0), seen

    def in_context(self, features: Tensor, seen: Tensor, seconds: Tensor, there: Tensor) -> Tensor:
        """Outputs (S, W, n_outputs) of stretches: features (S, W, F), seen bool, seconds, there bool (S, W)."""
        raise NotImplementedError  # every subclass


def _check(windows: int, pool: str, dropout: float) -> None:
    if windows < 2:
        raise ValueError(f"windows must be at least 2, not {windows}; for single windows take another head")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), not {dropout:g}")
    pool_parts(pool)


@dataclass
class SequenceHeadConfig:
    """A network over consecutive windows, whose outputs stand beside each window's own features.

    Attributes
    ----------
    kind : {"gru", "transformer"}
        The GRU runs both ways, over the windows that are there, one after the other.
    windows : int
        Of a stretch: how far a window may look, half of it at least either way except at a recording's ends.
    dim : int
        Width; a multiple of 4 and of ``heads``.
    depth : int
    heads : int
        For ``transformer``.
    pool : str
        Of a window's tokens.
    dropout : float
        Of what goes in and before the output.
    ordinal : bool
    """

    kind: Literal["gru", "transformer"] = "gru"
    windows: int = 32
    dim: int = 64
    depth: int = 1
    heads: int = 4
    pool: str = "mean+std+max"
    dropout: float = 0.5
    ordinal: bool = False

    def __post_init__(self) -> None:
        _check(self.windows, self.pool, self.dropout)
        if self.dim < 4 or self.dim % 4 or self.dim % self.heads or self.depth < 1:
            raise ValueError(
                f"dim must be a multiple of 4 and of heads, depth at least 1, not {self.dim}, {self.heads}, {self.depth}"
            )

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""
        return SequenceHead(encoder.dim * len(pool_parts(self.pool)), self, n_outputs)


class SequenceHead(GroupHead):
    """One row of outputs for every window, from it and the windows around it.

    Each window goes in with its features, what they are less the mean of the stretch, and :func:`timing`.
    """

    whole = False

    def __init__(self, width: int, config: SequenceHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        self.pool, self.windows = config.pool, config.windows
        self.norm, self.dropout = Standardise(width), nn.Dropout(config.dropout)
        self.into, self.mid = nn.Linear(2 * width + N_TIMING, dim), nn.LayerNorm(dim)
        self.after = nn.LayerNorm(dim)
        self.out = output_layer(width + dim, n_outputs, ordinal=config.ordinal)
        self.blocks, self.gru = nn.ModuleList(), None
        if config.kind == "transformer":
            self.blocks = make_blocks(dim, config.depth, config.heads, mlp_ratio=4.0, qkv_bias=True, norm_eps=1e-5, drop_path=0.0)
            init_weights(self.blocks, self.blocks, "fan_in")
        else:
            self.gru = nn.GRU(dim, dim // 2, config.depth, batch_first=True, bidirectional=True)

    def in_context(self, features: Tensor, seen: Tensor, seconds: Tensor, there: Tensor) -> Tensor:
        """See :class:`GroupHead`."""
        observed = seen & there
        x = torch.where(observed[..., None], features, 0.0)
        mean = x.sum(dim=1, keepdim=True) / observed.sum(dim=1)[:, None, None].clamp_min(1)
        own = self.dropout(x)
        relative = torch.where(observed[..., None], x - mean, 0.0)
        h = self.mid(self.into(torch.cat([own, self.dropout(relative), timing(seconds, there).to(x.dtype)], dim=-1)))
        h = self._attend(h, observed) if self.gru is None else self._recur(h, observed)
        return self.out(torch.cat([own, self.dropout(self.after(h))], dim=-1))

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
    """One answer for all windows of a recording.

    Attributes
    ----------
    how : {"mean", "attention"}
        ``attention``: gated attention-based multiple-instance learning (arXiv 1802.04712): a learned weight a window.
    windows : int
        Of a stretch in training; at use all windows of a recording are taken.
    hidden : int
        Of the attention.
    pool : str
        Of a window's tokens.
    dropout : float
        Before the output.
    ordinal : bool
    """

    how: Literal["mean", "attention"] = "mean"
    windows: int = 32
    hidden: int = 64
    pool: str = "mean+std+max"
    dropout: float = 0.0
    ordinal: bool = False

    def __post_init__(self) -> None:
        _check(self.windows, self.pool, self.dropout)

    def build(self, encoder: Encoder, n_outputs: int) -> TaskHead:
        """The head behind an encoder."""
        return PoolingHead(encoder.dim * len(pool_parts(self.pool)), self, n_outputs)


class PoolingHead(GroupHead):
    """From the windows of a recording to its outputs, said of each of them."""

    whole = True

    def __init__(self, width: int, config: PoolingHeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.pool, self.windows = config.pool, config.windows
        self.norm, self.dropout = Standardise(width), nn.Dropout(config.dropout)
        self.out = output_layer(width, n_outputs, ordinal=config.ordinal)
        self.gate: nn.ModuleList | None = None
        if config.how == "attention":
            self.gate = nn.ModuleList(
                [nn.Linear(width, config.hidden), nn.Linear(width, config.hidden), nn.Linear(config.hidden, 1)]
            )

    def weights(self, x: Tensor, observed: Tensor) -> Tensor:
        """Share of each window (S, W): 0 where not observed, 1 in all; 0 throughout where nothing is."""
        if self.gate is None:
            score = torch.zeros_like(x[..., 0])
        else:
            value, gate, last = self.gate
            score = last(value(x).tanh() * gate(x).sigmoid())[..., 0]
        score = score.masked_fill(~observed, torch.finfo(score.dtype).min)
        return torch.where(observed, score.softmax(dim=1), 0.0)

    def in_context(self, features: Tensor, seen: Tensor, seconds: Tensor, there: Tensor) -> Tensor:
        """See :class:`GroupHead`."""
        observed = seen & there
        x = torch.where(observed[..., None], features, 0.0)
        found = self.out(self.dropout((self.weights(x, observed)[..., None] * x).sum(dim=1)))
        return found[:, None].expand(-1, x.shape[1], -1)


@torch.no_grad()
def outputs_of_recording(head: GroupHead, features: Tensor, seen: Tensor, seconds: Tensor) -> Tensor:
    """Outputs of all windows of one recording, in the order of time.

    Parameters
    ----------
    head : GroupHead
    features : Tensor, (n, F)
        Of :meth:`GroupHead.features`.
    seen : Tensor, bool, (n,)
    seconds : Tensor, float64, (n,)
        Rising.

    Returns
    -------
    Tensor, (n, n_outputs)
        A sequence head sees pieces of ``windows`` windows that begin half a piece after each other; of each its middle half is kept,
        and what lies before and behind at the recording's ends.
    """
    n, W = len(features), head.windows
    if head.whole or n <= W:
        there = torch.ones(1, n, dtype=torch.bool, device=features.device)
        return head.in_context(features[None], seen[None], seconds[None], there)[0]
    half, quarter = W // 2, W // 4
    starts = [*range(0, n - W, half), n - W]
    at = torch.tensor(starts, device=features.device)[:, None] + torch.arange(W, device=features.device)
    found = torch.cat(
        [head.in_context(features[a], seen[a], seconds[a], torch.ones_like(a, dtype=torch.bool)) for a in at.split(64)]
    )
    out = torch.empty(n, found.shape[-1], dtype=found.dtype, device=found.device)
    for k, start in enumerate(starts):  # later pieces write over the last quarter of those before
        skip = 0 if k == 0 else quarter
        out[start + skip : start + W] = found[k, skip:]
    return out
