"""DINO and SwAV: two views of a window are assigned to the same of a few learned prototypes. No negatives.

What lives here: the objectives after DINO (Caron et al., arXiv 2104.14294), whose targets an averaged copy gives, centred and
sharpened, and after SwAV (Caron et al., arXiv 2006.09882), whose targets are the batch's own assignments, balanced over the
prototypes. Losses are in ``losses_clustering.py``, the copy in ``averaged.py``, views in ``views.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from biossl.batch import Batch
from biossl.distributed import all_gather
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig, PrototypeHead
from biossl.objectives.averaged import Averaged, Teacher, check_momentum, check_noise
from biossl.objectives.base import Outcome, SamplePlan
from biossl.objectives.losses_averaged import mean_of_rows
from biossl.objectives.losses_clustering import centred_targets, sinkhorn, swapped_cross_entropy
from biossl.objectives.views import Pairing, TwoViews, check_pairing, check_temperature, watched, with_penalty
from biossl.schedules import linear_ramp


def _plain() -> ProjectorConfig:
    return ProjectorConfig(layers=3, norm="none")


def _check_prototypes(number: int) -> None:
    if number < 2:
        raise ValueError(f"prototypes must be at least 2, not {number}; to one all windows belong")


@dataclass
class DINOConfig:
    """Settings of :class:`DINO`.

    Attributes
    ----------
    prototypes : int
        Published: 65536, for 1.28 million images.
    temperature : float
        Of the student.
    teacher_start, teacher_end : float
        Temperature of the teacher, below the student's; linear over the warm-up. Lower it when the run collapses.
    teacher_warmup : float
        Share of the run's steps that the warm-up takes; published: 30 epochs of 100 to 800.
    centre_momentum : float
        Of the centre, once per optimiser step.
    ema_start, ema_end : float
        Momentum of the teacher, by a cosine over all steps.
    teacher_noise : float
        Noise on the tokens that the teacher sees; see :func:`~biossl.objectives.averaged.noisy_tokens`. 0 = off.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`.
    projector : ProjectorConfig
        Before the prototypes; as published without batch norm.
    """

    name: ClassVar[str] = "dino"
    prototypes: int = 256
    temperature: float = 0.1
    teacher_start: float = 0.04
    teacher_end: float = 0.07
    teacher_warmup: float = 0.3
    centre_momentum: float = 0.9
    ema_start: float = 0.996
    ema_end: float = 1.0
    teacher_noise: float = 0.0
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=_plain)

    def __post_init__(self) -> None:
        _check_prototypes(self.prototypes)
        check_temperature(self.temperature)
        if not (0 < self.teacher_start < self.temperature and 0 < self.teacher_end < self.temperature):
            raise ValueError(
                f"teacher_start and teacher_end must be above 0 and below temperature {self.temperature:g}, not {self.teacher_start:g} "
                f"and {self.teacher_end:g}; a teacher that is not sharper lets all windows become alike"
            )
        if not 0 <= self.teacher_warmup <= 1 or not 0 <= self.centre_momentum < 1:
            raise ValueError(
                f"teacher_warmup must be from 0 to 1 and centre_momentum from 0 to below 1, not {self.teacher_warmup:g} and "
                f"{self.centre_momentum:g}"
            )
        check_momentum(self.ema_start, self.ema_end)
        check_noise(self.teacher_noise)
        check_pairing(self.pairing, self.pairing_share)


class DINO(TwoViews[DINOConfig], Averaged):
    """The student's assignment of each view goes to the teacher's of the other.

    Attributes
    ----------
    centre : Tensor, (prototypes,)
        Moving mean of the teacher's scores: a buffer that a checkpoint carries.
    """

    teacher: Teacher

    def _build(self, encoder: Encoder, config: DINOConfig) -> None:
        self.head = PrototypeHead(encoder.dim, config.projector, config.prototypes)
        self.teacher = Teacher(encoder, self.head, noise=config.teacher_noise)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self._waiting: list[Tensor] = []  # sums of the teacher's scores and their number, of this step's micro-batches
        self.needs = SamplePlan(pairing=config.pairing, in_batch=config.projector.norm == "batch")

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``terms``: ``cross_entropy``; ``target_entropy``, 0 when targets are one prototype, log of their number when they are all.
        """
        views = self.views(batch, keys)
        h1, h2, valid = self.features(views)
        (z, scores1), (_, scores2) = (self.head(h, valid) for h in (h1, h2))
        (_, taught1), (goal, taught2) = self.teacher.targets(views, keys, valid)
        target1, target2 = (
            centred_targets(t, self.centre, temperature=self.teacher_temperature(step)) for t in (taught1, taught2)
        )
        loss = swapped_cross_entropy(target1, target2, scores1, scores2, temperature=self.config.temperature, valid=valid)
        self._remember(taught1 + taught2, valid)
        entropy = mean_of_rows(-torch.special.xlogy(target1, target1).sum(dim=1), valid)
        terms = {"cross_entropy": loss.detach(), "target_entropy": entropy}
        return with_penalty(Outcome(loss, terms, watched(h1, z, goal)), self.augment)

    def teacher_temperature(self, step: int) -> float:
        """Linear from ``teacher_start`` to ``teacher_end`` over the warm-up, constant from there on."""
        warmup = round(self.config.teacher_warmup * self.steps)
        return linear_ramp(step, total=warmup, start=self.config.teacher_start, end=self.config.teacher_end)

    @torch.no_grad()
    def _remember(self, scores: Tensor, valid: Tensor | None) -> None:
        """Scores (B, prototypes), the sum of two views', for the centre; of windows that count, on all processes."""
        use = scores.new_ones(len(scores)) if valid is None else valid.to(scores.dtype)
        sums = torch.cat([(scores.float() * use[:, None]).sum(dim=0), 2.0 * use.sum()[None]])
        self._waiting.append(all_gather(sums[None]).sum(dim=0))

    @torch.no_grad()
    def after_step(self) -> None:
        """The centre moves towards the mean of the teacher's scores of all micro-batches of the step."""
        if not self._waiting:
            return
        total = torch.stack(self._waiting).sum(dim=0)
        self._waiting = []
        moved = self.centre.lerp(total[:-1] / total[-1].clamp_min(1.0), 1.0 - self.config.centre_momentum)
        self.centre.copy_(torch.where(total[-1] > 0, moved, self.centre))


@dataclass
class SwAVConfig:
    """Settings of :class:`SwAV`.

    Attributes
    ----------
    prototypes : int
        Published: 3000. All are used equally often, so take fewer than a batch has windows.
    temperature : float
    eps : float
        Of the codes; see :func:`~biossl.objectives.losses_clustering.sinkhorn`.
    iterations : int
        Rounds of balancing.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`.
    projector : ProjectorConfig
        Before the prototypes.
    """

    name: ClassVar[str] = "swav"
    prototypes: int = 32
    temperature: float = 0.1
    eps: float = 0.05
    iterations: int = 3
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        _check_prototypes(self.prototypes)
        check_temperature(self.temperature)
        if not self.eps > 0 or self.iterations < 1:
            raise ValueError(f"eps must be above 0 and iterations at least 1, not {self.eps:g} and {self.iterations}")
        check_pairing(self.pairing, self.pairing_share)


class SwAV(TwoViews[SwAVConfig]):
    """The assignment of each view goes to the balanced code of the other."""

    def _build(self, encoder: Encoder, config: SwAVConfig) -> None:
        self.head = PrototypeHead(encoder.dim, config.projector, config.prototypes)
        self.needs = SamplePlan(pairing=config.pairing, in_batch=True)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        h1, h2, valid = self.features(self.views(batch, keys))
        (z, scores1), (_, scores2) = (self.head(h, valid) for h in (h1, h2))
        code1, code2 = (
            sinkhorn(scores, eps=self.config.eps, iterations=self.config.iterations, valid=valid) for scores in (scores1, scores2)
        )
        loss = swapped_cross_entropy(code1, code2, scores1, scores2, temperature=self.config.temperature, valid=valid)
        return with_penalty(Outcome(loss, {"cross_entropy": loss.detach()}, watched(h1, z)), self.augment)
