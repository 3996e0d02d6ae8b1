"""S-PCL: two disjoint halves of one window attract, those of other windows repel.

What lives here: the objective after S-PCL (arXiv 2603.07113) on the encoder of the recipe. The loss is in
``losses_contrastive.py``, the halves are those of a partition mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses_contrastive import SameSubject, nt_xent
from biossl.objectives.masking import MaskConfig, PartitionMask, draw_masks, require_mask
from biossl.objectives.views import check_temperature, pooled, watched, with_penalty


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
