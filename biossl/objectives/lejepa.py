"""LeJEPA: views of a window agree, and the embeddings of a batch look like a standard normal. No copy, no predictor.

What lives here: the objective after LeJEPA (Balestriero and LeCun, arXiv 2511.08544), written from its equations. Views come
from the recipe's augmentations, from its mask, or from both. SIGReg itself is in ``losses.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.distributed import all_gather
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import Encoder, pool_tokens
from biossl.models.heads import ProjectorConfig
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses import sigreg
from biossl.objectives.masking import DrawnMask, MaskConfig, mask_prior, require_mask
from biossl.objectives.regularizers import step_directions
from biossl.objectives.views import with_penalty


@dataclass
class LeJEPAConfig:
    """Settings of :class:`LeJEPA`.

    Attributes
    ----------
    views : int
        Whole views of a window, each with its own draw of the augmentations; published: 2 global crops. Without augmentations
        they would be equal: then 1.
    masked_views : int
        Further views of which the encoder sees only what a mask leaves; published: 6 local crops.
    lam : float
        Weight of SIGReg against agreement, between 0 and 1; published .02 to .05. SIGReg grows with the batch size.
    directions : int
        Random directions of a step.
    projector : ProjectorConfig
        Between the mean of a view's visible tokens and the loss.
    """

    views: int = 2
    masked_views: int = 0
    lam: float = 0.05
    directions: int = 256
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        if self.views < 1 or self.masked_views < 0 or self.views + self.masked_views < 2:
            raise ValueError(
                f"views must be at least 1 and, with masked_views, at least 2 in all, not {self.views} and {self.masked_views}"
            )
        if not 0.0 < self.lam < 1.0 or self.directions < 1:
            raise ValueError(f"lam must be between 0 and 1 and directions at least 1, not {self.lam:g} and {self.directions}")


class LeJEPA(Objective):
    """Encoder and projector.

    With z_v the projections of view v over the B windows of all processes, D wide, and c the mean of the whole views',

        L = (1 - lam) mean_v mean_b |z_vb - c_b|^2 / D  +  lam mean_v SIGReg(z_v)

    The mean over views runs over whole and masked ones; c has a gradient. SIGReg keeps its factor of the batch size
    (:func:`biossl.objectives.losses.sigreg`): 1.06 is a standard normal.

    Parameters
    ----------
    encoder : Encoder
    config : LeJEPAConfig
    mask : MaskConfig or None
        For ``masked_views``.
    steps : int
        Not used: nothing here depends on the run's length.
    augment : Pipeline, optional

    Raises
    ------
    RequestError
        Views that would all be the same; ``masked_views`` without a mask, or a mask without them.
    """

    needs = SamplePlan(in_batch=True)

    def __init__(
        self,
        encoder: Encoder,
        config: LeJEPAConfig,
        *,
        mask: MaskConfig | None,
        steps: int,
        augment: Pipeline | None = None,
    ) -> None:
        super().__init__()
        if augment is None and config.views > 1:
            raise RequestError(
                f"objective.views: {config.views} views are the same without augmentations; add 'augment', or take views: 1 and "
                "masked_views with a mask"
            )
        if mask is not None and not config.masked_views:
            raise RequestError("objective.masked_views: 0, but the recipe has a mask; take at least 1, or leave 'mask' out")
        self.mask = None
        if config.masked_views:
            self.mask = require_mask(
                mask, encoder, objective="lejepa with masked_views", n_masks=config.masked_views, key="masked_views"
            )
        self.config, self.augment = config, augment
        self.encoder: Encoder = encoder
        self.projector = config.projector.build(encoder.dim)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``terms``: ``agreement``, ``sigreg`` (near 1: healthy), unweighted. ``watch``: ``embedding`` (B, D) the first view's
        mean-pooled features.
        """
        pooled, there = self._views(batch, keys)
        V, B = there.shape
        use = there.all(dim=0)
        z = self.projector(torch.where(use[:, None], pooled, 0.0).flatten(0, 1), use.repeat(V)).view(V, B, -1).float()
        distance = (z - z[: self.config.views].mean(dim=0)).square().mean(dim=(0, 2))  # (B,)
        total = all_gather(torch.stack([(distance * use).sum(), use.sum().float()])[None]).sum(dim=0)
        agreement = total[0] / total[1].clamp_min(1.0)
        directions = step_directions(keys, self.config.directions, z[0])
        gauss = torch.stack([sigreg(view, directions, weight=use) for view in z]).mean()
        loss = (1.0 - self.config.lam) * agreement + self.config.lam * gauss
        terms = {"agreement": agreement.detach(), "sigreg": gauss.detach()}
        return with_penalty(Outcome(loss, terms, {"embedding": pooled[0].detach().float()}), self.augment)

    def _views(self, batch: Batch, keys: Keys) -> tuple[Tensor, Tensor]:
        """Pooled features (V, B, D) of all views, whole ones first, and where there is anything to pool (V, B)."""
        pooled, there = [], []
        for v in range(self.config.views + self.config.masked_views):
            view = batch if self.augment is None else self.augment(batch, keys, view=v)
            tokens = self.encoder.tokenize(view)
            keep = None
            if v >= self.config.views:
                assert self.mask is not None and tokens.grid is not None
                prior = mask_prior(self.mask, view, self.encoder)
                drawn = self.mask.draw(keys, tokens.grid, v - self.config.views, prior)
                keep = DrawnMask(*drawn, tokens.grid, self.mask.over).keep()
            encoded = self.encoder.encode(tokens, keep=keep)
            pooled.append(pool_tokens(encoded))
            there.append(encoded.observed.any(dim=1))
        return torch.stack(pooled), torch.stack(there)
