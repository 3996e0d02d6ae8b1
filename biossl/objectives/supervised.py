"""Training with a label on the one loop: an encoder and a head, frozen, with low-rank adapters, or whole.

What lives here: which loss and which prediction a kind of label has, and :class:`Supervised`. It takes its targets from
``batch.labels``; where they come from is the loader's, which rows are trained on ``downstream/finetune.py``'s.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.group_heads import GroupHead
from biossl.models.lowrank import LowRankConfig, add_adapters, draw_active, merged, set_ranks
from biossl.models.task_heads import PooledHead, TaskHead, pool_observed
from biossl.objectives import losses_supervised as losses
from biossl.objectives.base import Objective, Outcome, SamplePlan

Kind = Literal["multiclass", "multilabel", "binary", "ordinal", "regression", "survival", "dense"]
Mode = Literal["frozen", "lowrank", "full"]


def n_outputs(kind: str, n_classes: int) -> int:
    """Numbers a head gives for a label: K classes, K - 1 thresholds of an ordinal one, 1 of a value, a risk or a binary label.

    Examples
    --------
    >>> n_outputs("ordinal", 5), n_outputs("regression", 0)
    (4, 1)
    """
    return {"binary": 1, "regression": 1, "survival": 1, "ordinal": n_classes - 1}.get(kind, n_classes)


def supervised_loss(
    outputs: Tensor, y: Tensor, kind: str, *, weight: Tensor | None = None, smoothing: float = 0.0, delta: float | None = None
) -> Tensor:
    """The loss a kind of label has; see :mod:`~biossl.objectives.losses_supervised`.

    Parameters
    ----------
    outputs : Tensor, (B, n_outputs), or (B, K, T) or (B, C, K, T) for ``dense``
    y : Tensor, (B, k), or (B, T) or (B, C, T) for ``dense``
        NaN = unknown. Class number, 0/1 of every label, value (standardised), or time and event (``survival``). (B,) where k is 1.
    kind : str
    weight : Tensor, (K,), optional
        Of classes, or of the positives of each label.
    smoothing : float
        For ``multiclass`` and ``dense``.
    delta : float, optional
        Huber's, for ``regression``.
    """
    if kind == "dense":
        return losses.dense_cross_entropy(outputs, y, weight=weight, smoothing=smoothing)
    y = y[:, None] if y.ndim == 1 else y
    if kind == "multiclass":
        return losses.cross_entropy(outputs, y[:, 0], weight=weight, smoothing=smoothing)
    if kind == "ordinal":
        return losses.ordinal_nll(outputs, y[:, 0])
    if kind == "regression":
        return losses.regression(outputs[:, 0], y[:, 0], delta=delta)
    if kind == "survival":
        return losses.cox(outputs[:, 0], y)
    return losses.binary_cross_entropy(outputs, y, positive=weight)


def predictions(outputs: Tensor, kind: str, scale: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """What outputs say: probabilities, values, or log hazards.

    Parameters
    ----------
    outputs : Tensor
        Of a head.
    kind : str
    scale : (mean, std)
        Of the values of a regression.

    Returns
    -------
    Tensor, float64
        (B, K) probabilities (``ordinal`` too); (B,) values or log hazards; as ``outputs`` for ``dense``.

    Examples
    --------
    >>> predictions(torch.zeros(1, 1), "ordinal")
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    z = outputs.double()
    if kind == "multiclass":
        return z.softmax(dim=1)
    if kind == "dense":
        return z.softmax(dim=-2)
    if kind == "ordinal":
        upto = z.sigmoid()
        return torch.diff(upto, prepend=torch.zeros_like(upto[:, :1]), append=torch.ones_like(upto[:, :1]), dim=1)
    if kind == "regression":
        return z[:, 0] * scale[1] + scale[0]
    return z[:, 0] if kind == "survival" else z.sigmoid()


@dataclass
class SupervisedConfig:
    """Settings of :class:`Supervised`.

    Attributes
    ----------
    label : str
        Key of ``batch.labels``.
    kind : str
    classes : list of str
    mode : {"frozen", "lowrank", "full"}
        What is trained beside the head: nothing; low-rank adapters and biases; everything.
    smoothing : float
        Of the classes.
    weights : list of float
        Of classes, or of the positives of each label (:func:`~biossl.objectives.losses_supervised.class_weights`); empty = 1.
    scale : list of float
        Mean and standard deviation of a regression's values in the training rows.
    delta : float or None
        Huber's, in standard deviations; None = squared error.
    lowrank : LowRankConfig
    ranks : dict of str to int
        Rank of each adapter by the name of its layer; empty = all of ``lowrank.rank``.
    """

    label: str
    kind: Kind
    classes: list[str]
    mode: Mode = "full"
    smoothing: float = 0.0
    weights: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=lambda: [0.0, 1.0])
    delta: float | None = None
    lowrank: LowRankConfig = field(default_factory=LowRankConfig)
    ranks: dict[str, int] = field(default_factory=dict)


class Supervised(Objective):
    """An encoder and a head under the loss of a label.

    Parameters
    ----------
    encoder : Encoder
        Pretrained or not; in mode ``lowrank`` adapters are put into it.
    head : TaskHead
    config : SupervisedConfig
    augment : Pipeline or None
    seed : int
        Of the adapters' first weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: TaskHead,
        config: SupervisedConfig,
        *,
        augment: Pipeline | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        self.head, self.config, self.augment = head, config, augment
        self.remembered: tuple[Tensor, Tensor, Tensor] | None = None
        self.needs = SamplePlan(in_batch=config.kind == "survival")
        if isinstance(head, GroupHead):
            self.needs = SamplePlan(in_batch=config.kind == "survival", sampler="stretches", stretch=head.windows)
        self.weight: Tensor | None
        self.register_buffer("weight", torch.tensor(config.weights) if config.weights else None, persistent=False)
        if config.mode == "frozen":
            encoder.requires_grad_(False)
        elif config.mode == "lowrank":
            adapters = add_adapters(encoder, rank=config.lowrank.rank, p=config.lowrank.p, seed=seed)
            if config.ranks:
                set_ranks(encoder, {name: config.ranks[name] for name in adapters}, seed=seed)
        self.train()

    def train(self, mode: bool = True) -> Supervised:
        """A frozen encoder stays in evaluation mode, without dropped paths."""
        super().train(mode)
        if self.config.mode == "frozen":
            self.encoder.eval()
        return self

    def remember(self, rows: Tensor, features: Tensor, seen: Tensor) -> None:
        """Pooled features of index rows (n,), so that a frozen encoder need not read their windows again.

        Parameters
        ----------
        rows : Tensor, int64, (n,)
        features : Tensor, (n, F)
        seen : Tensor, bool, (n,)
            As :func:`~biossl.models.task_heads.pool_observed` gives them for ``head.pool``.
        """
        place = torch.full((int(rows.max()) + 1,), -1, dtype=torch.int64)
        place[rows] = torch.arange(len(rows))
        self.remembered = (place, features, seen)

    def outputs(self, batch: Batch) -> Tensor:
        """The head's outputs for a batch."""
        head = self.head
        if not isinstance(head, (PooledHead, GroupHead)):
            with torch.no_grad() if self.config.mode == "frozen" else nullcontext():
                encoded = self.encoder.encode(self.encoder.tokenize(batch), layers=head.layers)
            found: Tensor = head(encoded)
            return found
        features, seen = self._pooled(batch, head.pool)
        if isinstance(head, PooledHead):
            return head.of_pooled(features, seen)
        features, seen = head.of_pooled(features, seen)
        shape = (-1, head.windows)
        assert batch.start_s is not None
        found = head.in_context(
            features.view(*shape, features.shape[1]), seen.view(shape), batch.start_s.view(shape), self._there(batch).view(shape)
        )
        return found.reshape(len(batch), -1)

    def _pooled(self, batch: Batch, pool: str) -> tuple[Tensor, Tensor]:
        if self.remembered is not None:
            assert batch.index is not None
            place, features, seen = self.remembered
            at = place[batch.index.cpu()]
            return features[at].to(batch.x.device), seen[at].to(batch.x.device)
        with torch.no_grad() if self.config.mode == "frozen" else nullcontext():
            return pool_observed(self.encoder.encode(self.encoder.tokenize(batch)), pool)

    def _there(self, batch: Batch) -> Tensor:
        """Which windows (B,) of the stretches are no repeat of the one before."""
        assert isinstance(self.head, GroupHead) and batch.index is not None
        index = batch.index.view(-1, self.head.windows)
        return torch.cat([torch.ones_like(index[:, :1], dtype=torch.bool), index[:, 1:] != index[:, :-1]], dim=1).reshape(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Loss of the windows as they are."""
        config, y = self.config, batch.labels[self.config.label]
        if config.kind == "regression":
            y = (y - config.scale[0]) / config.scale[1]
        outputs = self.outputs(batch)
        if isinstance(self.head, GroupHead):
            y = torch.where(self._there(batch)[:, None], y, float("nan"))
        if config.kind == "dense" and batch.observed is not None:  # nothing was seen there, whatever is said of it
            seen = batch.observed if outputs.ndim == 4 else batch.observed.any(dim=1)
            y = y[:, None] if outputs.ndim == 4 and y.ndim == 2 else y
            y = torch.where(seen, y, float("nan"))
        elif config.kind == "dense" and outputs.ndim == 4 and y.ndim == 2:
            y = y[:, None].expand(-1, outputs.shape[1], -1)
        return supervised_loss(outputs, y, config.kind, weight=self.weight, smoothing=config.smoothing, delta=config.delta)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        if self.augment is not None:  # a stretch is one recording: what is drawn for it holds for all its windows
            drawn = replace(keys, position=keys.position // self.needs.stretch)
            batch = self.augment(batch, drawn)
        if self.config.mode == "lowrank":
            draw_active(self.encoder, keys)
        return Outcome(self.loss(batch))

    def export(self) -> nn.Module:
        """The encoder, its adapters merged."""
        plain: Any = merged(self.encoder) if self.config.mode == "lowrank" else self.encoder
        return plain
