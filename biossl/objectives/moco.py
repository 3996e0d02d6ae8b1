"""MoCo: a window is told apart from earlier windows, whose keys an averaged copy of the network has left in a queue.

What lives here: the objective after MoCo v2 (He et al., arXiv 1911.05722; Chen et al., arXiv 2003.04297) on the encoder of the
recipe, and its queue. The loss is in ``losses_averaged.py``, the copy in ``averaged.py``, views in ``views.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.batch import Batch
from biossl.distributed import all_gather
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig
from biossl.objectives.averaged import Averaged, Teacher, check_momentum
from biossl.objectives.base import Outcome, SamplePlan
from biossl.objectives.losses_averaged import queue_nce
from biossl.objectives.views import Pairing, TwoViews, both, check_pairing, check_temperature, features, watched, with_penalty


def _projector() -> ProjectorConfig:
    return ProjectorConfig(norm="none")


@dataclass
class MoCoConfig:
    """Settings of :class:`MoCo`.

    Attributes
    ----------
    queue : int
        Keys of earlier windows: at most the training windows of the corpora, published 65536 of 1.28 million.
    temperature : float
    same_subject : {"negative", "drop"}
        Whether a window is compared with earlier ones of its own subject. Its own earlier keys it never is.
    ema_start, ema_end : float
        Momentum of the key network, by a cosine over all steps. Published: 0.999 throughout, for 200 epochs.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`; the key is that of the second view.
    projector : ProjectorConfig
        As published without batch norm, through which a query could know its key.
    """

    name: ClassVar[str] = "moco"
    queue: int = 4096
    temperature: float = 0.2
    same_subject: Literal["negative", "drop"] = "negative"
    ema_start: float = 0.999
    ema_end: float = 0.999
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=_projector)

    def __post_init__(self) -> None:
        if self.queue < 1:
            raise ValueError(f"queue must be at least 1, not {self.queue}; it holds the negatives")
        check_temperature(self.temperature)
        check_momentum(self.ema_start, self.ema_end)
        check_pairing(self.pairing, self.pairing_share)


class KeyQueue(nn.Module):
    """The newest keys of windows, in the order in which the steps took them: the same on every process.

    Buffers that a checkpoint carries: ``key`` (K, E) of length 1, ``subject`` and ``window`` (K,) int64 (-1 where there is no key
    yet), ``next``, where the oldest key stands. Keys of a step wait until :meth:`advance`, so that its micro-batches see one
    queue, and what they see does not depend on their number.

    Parameters
    ----------
    size, dim : int
        K and E.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.key: Tensor
        self.subject: Tensor
        self.window: Tensor
        self.next: Tensor
        self.register_buffer("key", torch.zeros(size, dim))
        self.register_buffer("subject", torch.full((size,), -1))
        self.register_buffer("window", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def allowed(self, subject: Tensor, window: Tensor, *, same_subject: bool) -> Tensor:
        """Entries (B, K) that windows (B,) are compared with: none of the same window and, unless ``same_subject``, subject."""
        alike = self.subject == subject[:, None]
        if same_subject:
            alike = alike & (self.window == window[:, None])  # rows of two corpora may be equal, their subjects are not
        return ~alike & (self.window >= 0)

    @torch.no_grad()
    def add(self, key: Tensor, subject: Tensor, window: Tensor, valid: Tensor | None) -> None:
        """Keys (B, E) of a micro-batch, and of those of the other processes; rows that are not valid stay out."""
        valid = torch.ones_like(subject, dtype=torch.bool) if valid is None else valid
        key = F.normalize(key.float(), dim=1)
        self._waiting.append((all_gather(key), all_gather(subject), all_gather(window), all_gather(valid)))

    @torch.no_grad()
    def advance(self) -> None:
        """The keys that wait take the places of the oldest, in the order of their windows in the step."""
        if not self._waiting:
            return
        key, subject, window, valid = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        order = torch.argsort(~valid, stable=True)[: len(self.window)]  # valid ones first; no count is asked of the device
        fresh = valid[order]
        place = (self.next + torch.arange(len(order), device=order.device)) % len(self.window)
        self.key[place] = torch.where(fresh[:, None], key[order], self.key[place])
        self.subject[place] = torch.where(fresh, subject[order], self.subject[place])
        self.window[place] = torch.where(fresh, window[order], self.window[place])
        self.next.copy_((self.next + fresh.sum()) % len(self.window))


class MoCo(TwoViews[MoCoConfig], Averaged):
    """The query of a window's first view against the key of its second and the keys of earlier windows."""

    teacher: Teacher

    def _build(self, encoder: Encoder, config: MoCoConfig) -> None:
        self.projector = config.projector.build(encoder.dim)
        self.teacher = Teacher(encoder, self.projector)
        self.queue = KeyQueue(config.queue, config.projector.out)
        self.needs = SamplePlan(
            pairing=config.pairing, in_batch=config.projector.norm == "batch", several_subjects=config.same_subject == "drop",
            queue=config.queue,
        )  # fmt: skip

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``terms``: ``nce``, and ``compared``, the share of the queue that a window was compared with.
        """
        assert batch.subject is not None and batch.index is not None
        first, second = self.views(batch, keys)
        h, valid1 = features(self.encoder, first)
        other, valid2 = self.teacher.features(second, keys)
        valid = both(valid1, valid2)
        query, key = self.projector(h, valid), self.teacher.project(other, valid)
        allowed = self.queue.allowed(batch.subject, batch.index, same_subject=self.config.same_subject == "negative")
        loss = queue_nce(query, key, self.queue.key, temperature=self.config.temperature, allowed=allowed, valid=valid)
        self.queue.add(key, batch.subject, batch.index, valid)
        terms = {"nce": loss.detach(), "compared": allowed.float().mean()}
        return with_penalty(Outcome(loss, terms, watched(h, query, key)), self.augment)

    def after_step(self) -> None:
        """The keys of the step enter the queue."""
        self.queue.advance()
