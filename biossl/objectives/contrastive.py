"""Contrastive objectives: views of one window (or one subject) attract, those of other windows repel.

What lives here: SimCLR (arXiv 2002.05709), CLOCS with its three variants (arXiv 2005.13249) and S-PCL, the contrast of two
disjoint halves of one window (arXiv 2603.07113), each "after" its source on the encoder of the recipe. Losses are in
``losses_contrastive.py``, views in ``views.py``, partners of windows come from the loader.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.equivariance import EquivarianceConfig, build_equivariance, with_equivariance
from biossl.objectives.losses_contrastive import SameSubject, clocs_nce, nt_xent
from biossl.objectives.masking import MaskConfig, PartitionMask, draw_masks, require_mask
from biossl.objectives.regularizers import RegularizerConfig, window_regularizer, with_spread
from biossl.objectives.views import (
    Pairing,
    both,
    check_pairing,
    check_temperature,
    features,
    pooled,
    project_views,
    require_no_mask,
    require_two_views,
    two_views,
    watched,
    with_penalty,
)


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


class SimCLR(Objective):
    """Two augmented views of a window, or of it and its partner, under NT-Xent.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : SimCLRConfig
    augment : Pipeline or None
        Views 0 and 1 of it.
    mask : None
        None is used.
    steps : int
        Of the run; not used.

    Raises
    ------
    RequestError
        A mask; neither augmentations nor pairing.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: SimCLRConfig, *, augment: Pipeline | None, mask: MaskConfig | None = None,
        steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        require_no_mask(mask, objective="simclr")
        require_two_views(augment, config.pairing, objective="simclr")
        self.config, self.augment = config, augment
        self.encoder: TransformerEncoder = encoder
        self.projector = config.projector.build(encoder.dim)
        self.regularizer = window_regularizer(encoder.dim, config.regularizer, objective="simclr")
        self.equivariance = build_equivariance(encoder, config.equivariance)
        self.needs = SamplePlan(
            pairing=config.pairing, sampler=config.sampler, windows_per_subject=config.windows_per_subject, in_batch=True,
            several_subjects=config.same_subject != "negative",
        )  # fmt: skip

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        views = two_views(batch, keys, self.augment, pairing=self.config.pairing, share=self.config.pairing_share)
        h, z1, z2, valid = project_views(self.encoder, self.projector, views)
        loss = nt_xent(
            z1, z2, temperature=self.config.temperature, subject=batch.subject, same_subject=self.config.same_subject,
            valid=valid,
        )  # fmt: skip
        outcome = with_spread(Outcome(loss, {"nt_xent": loss.detach()}, watched(h, z1)), self.regularizer, h, valid, keys)
        return with_penalty(with_equivariance(outcome, self.equivariance, self.encoder, batch, keys), self.augment)


@dataclass
class CLOCSConfig:
    """Settings of :class:`CLOCS`.

    Attributes
    ----------
    variant : {"cmsc", "cmlc", "cmsmlc"}
        What is compared: two adjacent segments, two leads of one segment, two leads of two segments.
    leads : {"each", "together"}
        ``each``: every lead is embedded by itself, as published. ``together``: all leads as one window, for ``cmsc`` alone;
        the only form of an encoder with a joint tokenizer.
    temperature : float
    projector : ProjectorConfig
    """

    variant: Literal["cmsc", "cmlc", "cmsmlc"] = "cmsc"
    leads: Literal["each", "together"] = "each"
    temperature: float = 0.1
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.leads == "together" and self.variant != "cmsc":
            raise ValueError(f"variant {self.variant} compares leads, so they must be embedded one by one: leads: each")


class CLOCS(Objective):
    """Segments and leads of one patient attract, those of other patients repel.

    Parameters
    ----------
    encoder : TransformerEncoder
        With a tokenizer per channel, or joint for ``leads: together``.
    config : CLOCSConfig
    augment : Pipeline, optional
        View 0 for the first segment, 1 for the second.
    mask : None
        None is used.
    steps : int
        Of the run; not used.

    Raises
    ------
    RequestError
        A mask; leads that an encoder with a joint tokenizer cannot embed one by one; a comparison of leads and one channel.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: CLOCSConfig, *, augment: Pipeline | None = None, mask: MaskConfig | None = None,
        steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        require_no_mask(mask, objective="clocs")
        if config.leads == "each" and encoder.config.tokenizer == "joint":
            raise RequestError(
                "objective.leads: each needs an encoder that serves single leads; set model.tokenizer: channel, or take "
                "variant: cmsc with leads: together"
            )
        if config.variant != "cmsc" and len(encoder.spec.ch_names) < 2:
            raise RequestError(f"objective.variant: {config.variant} compares leads, the windows have one channel; take cmsc")
        self.config, self.augment = config, augment
        self.encoder: TransformerEncoder = encoder
        self.projector = config.projector.build(encoder.dim)
        self.needs = SamplePlan(pairing="none" if config.variant == "cmlc" else "adjacent", in_batch=True, several_subjects=True)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        first, second = two_views(batch, keys, self.augment, pairing=self.needs.pairing)
        h, valid = self._embed(first)
        z = self._project(h, valid)
        z2, valid2 = z, valid
        if self.needs.pairing != "none":
            h2, valid2 = self._embed(second)
            z2 = self._project(h2, valid2)
        assert batch.subject is not None
        one, other = self._pairs(len(h))
        pair_valid = both(None if valid is None else valid[one], None if valid2 is None else valid2[other])
        loss = clocs_nce(z[one], z2[other], temperature=self.config.temperature, subject=batch.subject, valid=pair_valid)
        outcome = Outcome(loss, {"nce": loss.detach()}, watched(h.flatten(0, 1), z.flatten(0, 1)))
        return with_penalty(outcome, self.augment)

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Features (leads, B, D), or (1, B, D) together, and which count (leads, B)."""
        parts = [batch] if self.config.leads == "together" else [_lead(batch, c) for c in range(len(batch.channels))]
        h, valid = zip(*(features(self.encoder, part) for part in parts), strict=True)
        return torch.stack(h), None if valid[0] is None else torch.stack(valid)

    def _project(self, h: Tensor, valid: Tensor | None) -> Tensor:
        """(leads, B, D) to (leads, B, E): one projector, and one batch, for all leads."""
        z: Tensor = self.projector(h.flatten(0, 1), None if valid is None else valid.flatten())
        return z.view(*h.shape[:2], -1)

    def _pairs(self, n: int) -> tuple[list[int], list[int]]:
        """Which of ``n`` leads of the first segment is compared with which of the second."""
        pairs = {
            "cmsc": [(i, i) for i in range(n)],
            "cmlc": [(i, j) for i in range(n) for j in range(i + 1, n)],
            "cmsmlc": [(i, j) for i in range(n) for j in range(n) if i != j],
        }[self.config.variant]
        return [i for i, _ in pairs], [j for _, j in pairs]


@dataclass
class SPCLConfig:
    """Settings of :class:`SPCL`.

    Attributes
    ----------
    temperature : float
    same_subject : {"negative", "positive", "drop"}
        What windows of one subject are to each other.
    projector : ProjectorConfig
    """

    temperature: float = 0.2
    same_subject: SameSubject = "negative"
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)


class SPCL(Objective):
    """Two disjoint halves of the patches of one window, encoded apart, under NT-Xent.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : SPCLConfig
    mask : MaskConfig
        ``partition`` with two parts.
    augment : Pipeline, optional
        The source needs none; given, one view serves both halves.
    steps : int
        Of the run; not used.

    Raises
    ------
    RequestError
        Another mask, or one whose chunks do not fit the window.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: SPCLConfig, *, mask: MaskConfig | None, augment: Pipeline | None = None,
        steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(mask, PartitionMask) or mask.parts != 2:
            raise RequestError(
                "objective spcl contrasts two disjoint halves of a window; give mask: {name: partition, parts: 2, patches: 4}"
            )
        self.config, self.augment = config, augment
        self.mask = require_mask(mask, encoder, objective="spcl", n_masks=2)
        self.encoder: TransformerEncoder = encoder
        self.projector = config.projector.build(encoder.dim)
        self.needs = SamplePlan(in_batch=True, several_subjects=config.same_subject != "negative")

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`."""
        if self.augment is not None:
            batch = self.augment(batch, keys)
        tokens = self.encoder.tokenize(batch)
        halves = draw_masks(self.mask, keys, self.encoder.grid, 2)
        h, valid = pooled(tokens, self.encoder.encode(tokens, keep=halves.keep()))  # row m * B + b is half m of window b
        valid = None if valid is None else valid.view(2, -1).all(dim=0)
        z1, z2 = (self.projector(half, valid) for half in h.chunk(2))
        loss = nt_xent(
            z1, z2, temperature=self.config.temperature, subject=batch.subject, same_subject=self.config.same_subject,
            valid=valid,
        )  # fmt: skip
        return with_penalty(Outcome(loss, {"nt_xent": loss.detach()}, watched(h, z1)), self.augment)


def _lead(batch: Batch, c: int) -> Batch:
    """The batch with one of its channels."""
    return replace(
        batch, x=batch.x[:, c : c + 1], channels=(batch.channels[c],),
        observed=None if batch.observed is None else batch.observed[:, c : c + 1],
        positions=None if batch.positions is None else batch.positions[c : c + 1], paired={},
    )  # fmt: skip
