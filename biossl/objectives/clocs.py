"""CLOCS: segments and leads of one patient attract, those of other patients repel.

What lives here: the objective after CLOCS (Kiyasseh et al., arXiv 2005.13249) with its three variants, on the encoder of the
recipe. The loss is in ``losses_contrastive.py``, views in ``views.py``, the neighbouring segment comes from the loader.
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
from biossl.models.encoder import Encoder
from biossl.models.heads import ProjectorConfig
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses_contrastive import clocs_nce
from biossl.objectives.masking import MaskConfig
from biossl.objectives.views import both, check_temperature, features, require_no_mask, two_views, watched, with_penalty


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
    encoder : Encoder
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
        self, encoder: Encoder, config: CLOCSConfig, *, augment: Pipeline | None = None, mask: MaskConfig | None = None,
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
        self.encoder: Encoder = encoder
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


def _lead(batch: Batch, c: int) -> Batch:
    """The batch with one of its channels."""
    return replace(
        batch, x=batch.x[:, c : c + 1], channels=(batch.channels[c],),
        observed=None if batch.observed is None else batch.observed[:, c : c + 1],
        positions=None if batch.positions is None else batch.positions[c : c + 1], paired={},
    )  # fmt: skip
