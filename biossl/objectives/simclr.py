"""SimCLR: views of one window (or of it and its partner) attract, those of other windows repel.

What lives here: the objective after SimCLR (Chen et al., arXiv 2002.05709) on the encoder of the recipe. The loss is in
``losses_contrastive.py``, views in ``views.py``, partners of windows come from the loader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig
from biossl.objectives.base import Outcome, SamplePlan
from biossl.objectives.equivariance import EquivarianceConfig, build_equivariance, with_equivariance
from biossl.objectives.losses_contrastive import SameSubject, nt_xent
from biossl.objectives.regularizers import RegularizerConfig, window_regularizer, with_spread
from biossl.objectives.views import Pairing, TwoViews, check_pairing, check_temperature, watched, with_penalty


@dataclass
class SimCLRConfig:
    """Settings of :class:`SimCLR`.

    Attributes
    ----------
    temperature : float
    same_subject : {"negative", "positive", "drop"}
        What two windows of one subject are to each other; see :func:`~biossl.objectives.losses_contrastive.nt_xent`.
    pairing : {"none", "adjacent", "same_subject"}
        Of which window the second view is made: the same, the neighbouring one, any other of the subject.
    pairing_share : float
        Share of windows whose second view is made of the partner; the others' of themselves.
    sampler : {"uniform", "motion", "subjects"}
        How windows are drawn; see :class:`~biossl.objectives.base.SamplePlan`.
    windows_per_subject : int
        For ``subjects``.
    projector : ProjectorConfig
    regularizer : RegularizerConfig
        Terms on the first view's pooled features.
    equivariance : EquivarianceConfig or None
    """

    name: ClassVar[str] = "simclr"
    temperature: float = 0.2
    same_subject: SameSubject = "negative"
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    sampler: Literal["uniform", "motion", "subjects"] = "uniform"
    windows_per_subject: int = 1
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    regularizer: RegularizerConfig = field(default_factory=RegularizerConfig)
    equivariance: EquivarianceConfig | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_pairing(self.pairing, self.pairing_share)
        if self.windows_per_subject < 1:
            raise ValueError(f"windows_per_subject must be at least 1, not {self.windows_per_subject}")
        if self.windows_per_subject > 1 and self.sampler != "subjects":
            raise ValueError(
                f"windows_per_subject {self.windows_per_subject} has a meaning with sampler subjects only; set it, or leave this out"
            )


class SimCLR(TwoViews[SimCLRConfig]):
    """Two augmented views of a window, or of it and its partner, under NT-Xent."""

    def _build(self, encoder: Encoder, config: SimCLRConfig) -> None:
        self.projector = config.projector.build(encoder.dim)
        self.regularizer = window_regularizer(encoder.dim, config.regularizer, objective=config.name)
        self.equivariance = build_equivariance(encoder, config.equivariance)
        self.needs = SamplePlan(
            pairing=config.pairing, sampler=config.sampler, windows_per_subject=config.windows_per_subject, in_batch=True,
            several_subjects=config.same_subject != "negative",
        )  # fmt: skip

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        h, other, valid = self.features(self.views(batch, keys))
        z1, z2 = (self.projector(each, valid) for each in (h, other))
        loss = nt_xent(
            z1, z2, temperature=self.config.temperature, subject=batch.subject, same_subject=self.config.same_subject,
            valid=valid,
        )  # fmt: skip
        outcome = with_spread(Outcome(loss, {"nt_xent": loss.detach()}, watched(h, z1)), self.regularizer, h, valid, keys)
        return with_penalty(with_equivariance(outcome, self.equivariance, self.encoder, batch, keys), self.augment)
