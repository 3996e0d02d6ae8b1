"""BYOL and SimSiam: from one view of a window a predictor says what the other's projection is. No negatives.

What lives here: the objective after BYOL (Grill et al., arXiv 2006.07733), whose targets come from an averaged copy, and after
SimSiam (Chen and He, arXiv 2011.10566), whose targets are the network's own projections without gradient. The loss is in
``losses_averaged.py``, the copy in ``averaged.py``, views in ``views.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import Projector, ProjectorConfig
from biossl.objectives.averaged import Averaged, Teacher, check_momentum, check_noise
from biossl.objectives.base import Outcome, SamplePlan
from biossl.objectives.losses_averaged import cosine_distance
from biossl.objectives.views import Pairing, TwoViews, check_pairing, watched, with_penalty


@dataclass
class BYOLConfig:
    """Settings of :class:`BYOL`.

    Attributes
    ----------
    ema : {"on", "off"}
        ``on``: targets of an averaged copy (BYOL). ``off``: the network's own projections, without gradient (SimSiam).
    ema_start, ema_end : float
        Momentum of the copy, by a cosine over all steps.
    teacher_noise : float
        Noise on the tokens that the copy sees; see :func:`~biossl.objectives.averaged.noisy_tokens`. 0 = off.
    predictor_hidden : int
        Width of the predictor's hidden layer; BYOL takes the projector's, SimSiam a quarter of ``projector.out``.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`.
    projector : ProjectorConfig
        Its norm is the predictor's too.
    """

    name: ClassVar[str] = "byol"
    ema: Literal["on", "off"] = "on"
    ema_start: float = 0.996
    ema_end: float = 1.0
    teacher_noise: float = 0.0
    predictor_hidden: int = 256
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        check_momentum(self.ema_start, self.ema_end)
        check_noise(self.teacher_noise)
        if self.ema == "off" and self.teacher_noise > 0:
            raise ValueError("teacher_noise needs a teacher; set ema: on, or leave it out")
        if self.predictor_hidden < 1:
            raise ValueError(f"predictor_hidden must be at least 1, not {self.predictor_hidden}")
        check_pairing(self.pairing, self.pairing_share)


class BYOL(TwoViews[BYOLConfig], Averaged):
    """Each view's prediction of the other's projection."""

    def _build(self, encoder: Encoder, config: BYOLConfig) -> None:
        self.projector = config.projector.build(encoder.dim)
        width = config.projector.out
        self.predictor = Projector(width, config.predictor_hidden, width, norm=config.projector.norm)
        self.teacher = Teacher(encoder, self.projector, noise=config.teacher_noise) if config.ema == "on" else None
        self.needs = SamplePlan(pairing=config.pairing, in_batch=config.projector.norm == "batch")

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        views = self.views(batch, keys)
        h1, h2, valid = self.features(views)
        z = [self.projector(h, valid) for h in (h1, h2)]
        p1, p2 = (self.predictor(each, valid) for each in z)
        target1, target2 = (each.detach() for each in z)
        if self.teacher is not None:
            target1, target2 = self.teacher.targets(views, keys, valid)
        loss = cosine_distance(p1, p2, target1, target2, valid=valid)
        return with_penalty(Outcome(loss, {"distance": loss.detach()}, watched(h1, p1, target2)), self.augment)
