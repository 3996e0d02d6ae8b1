"""BYOL and SimSiam: from one view of a window a predictor says what the other's projection is. No negatives.

What lives here: the objective after BYOL (Grill et al., arXiv 2006.07733), whose targets come from an averaged copy, and after
SimSiam (Chen and He, arXiv 2011.10566), whose targets are the network's own projections without gradient. The loss is in
``losses_averaged.py``, the copy in ``averaged.py``, views in ``views.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.heads import Projector, ProjectorConfig
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.averaged import Teacher, check_momentum, check_noise
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses_averaged import cosine_distance
from biossl.objectives.masking import MaskConfig
from biossl.objectives.views import (
    Pairing,
    both,
    check_pairing,
    features,
    require_no_mask,
    require_two_views,
    two_views,
    watched,
    with_penalty,
)
from biossl.schedules import cosine_ramp


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
        As in :class:`~biossl.objectives.contrastive.SimCLRConfig`.
    projector : ProjectorConfig
        Its norm is the predictor's too.
    """

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


class BYOL(Objective):
    """Each view's prediction of the other's projection.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : BYOLConfig
    augment : Pipeline or None
        Views 0 and 1 of it.
    mask : None
        None is used.
    steps : int
        Of the run, for the momentum.

    Raises
    ------
    RequestError
        A mask; neither augmentations nor pairing.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: BYOLConfig, *, augment: Pipeline | None, mask: MaskConfig | None = None,
        steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        require_no_mask(mask, objective="byol")
        require_two_views(augment, config.pairing, objective="byol")
        self.config, self.augment, self.steps = config, augment, steps
        self.encoder: TransformerEncoder = encoder
        self.projector = config.projector.build(encoder.dim)
        width = config.projector.out
        self.predictor = Projector(width, config.predictor_hidden, width, norm=config.projector.norm)
        self.teacher = Teacher(encoder, self.projector, noise=config.teacher_noise) if config.ema == "on" else None
        self.needs = SamplePlan(pairing=config.pairing, in_batch=config.projector.norm == "batch")

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        views = two_views(batch, keys, self.augment, pairing=self.config.pairing, share=self.config.pairing_share)
        (h1, valid1), (h2, valid2) = (features(self.encoder, view) for view in views)
        valid = both(valid1, valid2)
        z = [self.projector(h, valid) for h in (h1, h2)]
        p1, p2 = (self.predictor(each, valid) for each in z)
        target1, target2 = (each.detach() for each in z)
        if self.teacher is not None:
            seen = [self.teacher.features(view, keys, view=v)[0] for v, view in enumerate(views)]
            target1, target2 = (self.teacher.project(h, valid) for h in seen)
        loss = cosine_distance(p1, p2, target1, target2, valid=valid)
        return with_penalty(Outcome(loss, {"distance": loss.detach()}, watched(h1, p1, target2)), self.augment)

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and projector, and the copies that make the targets; none with ``ema: off``."""
        return [] if self.teacher is None else self.teacher.pairs(self.encoder, self.projector)

    def ema_momentum(self, step: int) -> float:
        """By a cosine from ``ema_start`` at step 0 to ``ema_end`` at the run's end."""
        return cosine_ramp(step, total=self.steps, start=self.config.ema_start, end=self.config.ema_end)
