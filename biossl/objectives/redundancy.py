"""Redundancy reduction: two views agree, and no feature is constant or says what another says. No negatives.

What lives here: VICReg (arXiv 2105.04906) and Barlow Twins (arXiv 2103.03230) on the encoder of the recipe: one objective,
whose settings choose the loss. Its statistics are over the windows of a batch on all processes. Losses are in
``losses_contrastive.py``, views in ``views.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig
from biossl.objectives.base import Outcome, SamplePlan
from biossl.objectives.equivariance import EquivarianceConfig, build_equivariance, with_equivariance
from biossl.objectives.losses_contrastive import barlow_twins, vicreg
from biossl.objectives.regularizers import RegularizerConfig, window_regularizer, with_spread
from biossl.objectives.views import Pairing, TwoViews, check_pairing, watched, with_penalty


def _expander() -> ProjectorConfig:
    return ProjectorConfig(hidden=512, out=512, layers=3)


@dataclass
class VICRegConfig:
    """VICReg; what each weight multiplies is in :func:`~biossl.objectives.losses_contrastive.vicreg`.

    Attributes
    ----------
    invariance, variance, covariance : float
        Weights.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`.
    projector : ProjectorConfig
    regularizer : RegularizerConfig
        Terms on the first view's pooled features.
    equivariance : EquivarianceConfig or None
    """

    name: ClassVar[str] = "vicreg"
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=_expander)
    regularizer: RegularizerConfig = field(default_factory=RegularizerConfig)
    equivariance: EquivarianceConfig | None = None

    def __post_init__(self) -> None:
        if min(self.invariance, self.variance, self.covariance) < 0 or self.invariance + self.variance <= 0:
            raise ValueError("weights must be at least 0, and invariance or variance above it")
        if self.regularizer.name == "vicreg":
            raise ValueError("regularizer vicreg has the terms of the loss itself; set variance and covariance instead")
        check_pairing(self.pairing, self.pairing_share)

    def loss(self, z1: Tensor, z2: Tensor, valid: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of projections (B, E) of two views, scalar float32, and its terms before weighting."""
        terms = vicreg(z1, z2, valid=valid)
        loss = self.invariance * terms["invariance"] + self.variance * terms["variance"] + self.covariance * terms["covariance"]
        return loss, terms


@dataclass
class BarlowTwinsConfig:
    """Barlow Twins: the correlation of the features of two views goes to the identity.

    Attributes
    ----------
    lam : float
        Weight of what is off the diagonal.
    pairing, pairing_share
        As in :class:`~biossl.objectives.simclr.SimCLRConfig`.
    projector : ProjectorConfig
    regularizer : RegularizerConfig
        Terms on the first view's pooled features.
    equivariance : EquivarianceConfig or None
    """

    name: ClassVar[str] = "barlow_twins"
    lam: float = 5e-3
    pairing: Pairing = "none"
    pairing_share: float = 1.0
    projector: ProjectorConfig = field(default_factory=_expander)
    regularizer: RegularizerConfig = field(default_factory=RegularizerConfig)
    equivariance: EquivarianceConfig | None = None

    def __post_init__(self) -> None:
        if not self.lam > 0:
            raise ValueError(f"lam must be above 0, not {self.lam:g}; without it all features may say the same")
        check_pairing(self.pairing, self.pairing_share)

    def loss(self, z1: Tensor, z2: Tensor, valid: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of projections (B, E) of two views, scalar float32, and its terms."""
        terms = barlow_twins(z1, z2, lam=self.lam, valid=valid)
        return sum(terms.values(), z1.new_zeros(())), terms


class RedundancyReduction(TwoViews[VICRegConfig | BarlowTwinsConfig]):
    """Two views of a window under the loss of the settings."""

    def _build(self, encoder: Encoder, config: VICRegConfig | BarlowTwinsConfig) -> None:
        self.projector = config.projector.build(encoder.dim)
        self.regularizer = window_regularizer(encoder.dim, config.regularizer, objective=config.name)
        self.equivariance = build_equivariance(encoder, config.equivariance)
        self.needs = SamplePlan(pairing=config.pairing, in_batch=True)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`. ``terms`` are those of ``config.loss``."""
        h, other, valid = self.features(self.views(batch, keys))
        z1, z2 = (self.projector(each, valid) for each in (h, other))
        loss, terms = self.config.loss(z1, z2, valid)
        outcome = Outcome(loss, {k: v.detach() for k, v in terms.items()}, watched(h, z1))
        outcome = with_spread(outcome, self.regularizer, h, valid, keys)
        return with_penalty(with_equivariance(outcome, self.equivariance, self.encoder, batch, keys), self.augment)
