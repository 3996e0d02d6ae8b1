"""Reconstruction and contrast at once: two views of a window, each hidden by a mask of its own.

What lives here: one objective for CoRe-ECG (arXiv 2604.11359) and NeuroNet (arXiv 2404.17585), which differ in what the
hidden tokens are predicted to be and in how the views come about. It composes the masks, decoders, targets and losses of the
other files and adds no equation to theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch, Encoded, Tokens
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.decoders import Decoder, DecoderConfig
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import TransformerEncoder, channel_rows, shared_rows, take_tokens
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses import normalise_target
from biossl.objectives.losses_contrastive import nt_xent
from biossl.objectives.masking import DrawnMask, MaskConfig, draw_masks, mask_prior, require_mask, require_maskable
from biossl.objectives.reconstruction import (
    LossKind,
    Reconstructor,
    ReconstructorConfig,
    explained,
    reconstruction_loss,
    require_still,
    watched,
)
from biossl.objectives.views import pooled, two_views, with_penalty


@dataclass
class HybridConfig:
    """Settings of :class:`Hybrid`: L = ``reconstruction`` * L_rec + ``contrast`` * L_con.

    Attributes
    ----------
    target : {"tokens", "raw", "recording", "patch", "spectrum", "derivative"}
        What hidden tokens are predicted to be: ``tokens`` = the tokenizer's output for them (NeuroNet), else values of the
        samples as recorded, before any augmentation (:class:`~biossl.objectives.targets.TargetConfig`; CoRe-ECG: ``patch``).
    stop_gradient : bool
        ``tokens`` only: no gradient into the targets. NeuroNet has none of this; then the tokenizer may make its output
        easy to predict, and only the contrast speaks against it.
    loss : {"mse", "l1", "smooth_l1"}
    reconstruction, contrast : float
        Weights. L_rec is a mean over both views; papers that add the views have ``reconstruction`` 2.
    temperature : float
        Of NT-Xent. NeuroNet's paper prints 0.5; 0.05 is meant.
    pool : {"mean", "register"}
        What represents a view: the mean of its visible tokens, or the encoder's first register (CLS) token.
    decoder : DecoderConfig
    projector : ProjectorConfig
    """

    target: Literal["tokens", "raw", "recording", "patch", "spectrum", "derivative"] = "patch"
    stop_gradient: bool = True
    loss: LossKind = "mse"
    reconstruction: float = 1.0
    contrast: float = 1.0
    temperature: float = 0.1
    pool: Literal["mean", "register"] = "mean"
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature:g}")
        if self.reconstruction <= 0 or self.contrast <= 0:
            raise ValueError(
                f"reconstruction and contrast must be above 0, not {self.reconstruction:g} and {self.contrast:g}; "
                "without one of them take objective simclr or reconstruction"
            )


class Hybrid(Objective):
    """Encoder, decoder and projector.

    Every view is a positive of the other view of its window; all other windows of the batch are negatives.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : HybridConfig
    mask : MaskConfig
        Each view draws its own.
    steps : int
        Not used: nothing is scheduled.
    augment : Pipeline, optional
        Applied once for each view; without it the views differ by their masks alone, as in NeuroNet.

    Raises
    ------
    RequestError
        No mask, masks of varying size, no register to pool, a decoder that does not fit, an augmentation that moves samples away
        from their targets.
    """

    needs = SamplePlan(in_batch=True)

    def __init__(
        self,
        encoder: TransformerEncoder,
        config: HybridConfig,
        *,
        mask: MaskConfig | None,
        steps: int,
        augment: Pipeline | None = None,
    ) -> None:
        super().__init__()
        require_maskable(encoder, objective="hybrid")
        if mask is not None and not mask.per_sample:
            raise RequestError("mask: objective hybrid draws two masks of one size; give mask.ratio as one number")
        if config.pool == "register" and not encoder.config.registers:
            raise RequestError("objective.pool: 'register' needs model.registers of at least 1; set it, or take pool: mean")
        if config.target != "tokens":
            require_still(augment, where=f"objective.target: {config.target}")
        self.mask = require_mask(mask, encoder, objective="hybrid", n_masks=2)
        self.config, self.augment = config, augment
        self.encoder: TransformerEncoder = encoder
        self.decoder: Decoder | Reconstructor
        if config.target == "tokens":
            self.decoder = Decoder(encoder.dim, encoder.grid, encoder.dim, config.decoder)
        else:
            settings = ReconstructorConfig(target=config.target, loss=config.loss, decoder=config.decoder)
            self.decoder = Reconstructor(encoder, settings)
        self.projector = config.projector.build(encoder.dim)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        Rows b and B + b are the two views of window b. ``terms``: ``reconstruction``, ``explained`` (share of the targets'
        variance that the predictions explain), ``contrast``, ``penalty`` of learned augmentations. ``watch``: ``embedding``
        (2B, D) pooled visible tokens, ``target`` and ``prediction`` (n, V).
        """
        config = self.config
        views = batch
        if self.augment is not None:
            views = _stack(*two_views(batch, keys, self.augment, pairing="none"))
        tokens = self.encoder.tokenize(views)
        assert tokens.grid is not None
        mask = draw_masks(self.mask, keys, tokens.grid, 2, prior=mask_prior(self.mask, batch, self.encoder))
        context = self.encoder.encode(tokens, keep=mask.keep())

        prediction, target, exist = self._hidden(batch, tokens, context, mask)
        reconstruction = reconstruction_loss(prediction, target, exist, loss=config.loss)
        B = len(batch)
        h, valid = pooled(tokens, context)
        if config.pool == "register":
            h = context.registers[:, 0]
        valid = None if valid is None else valid[:B] & valid[B:]
        z1, z2 = self.projector(h[:B], valid), self.projector(h[B:], valid)
        contrast = nt_xent(z1, z2, temperature=config.temperature, valid=valid)

        loss = config.reconstruction * reconstruction + config.contrast * contrast
        terms = {"reconstruction": reconstruction.detach(), "contrast": contrast.detach()}
        terms["explained"] = explained(prediction, target, exist)
        watch = {"embedding": h.detach().float()}
        watch |= (_latent if config.target == "tokens" else watched)(prediction, target, exist)
        return with_penalty(Outcome(loss, terms, watch), self.augment)

    def _hidden(self, batch: Batch, tokens: Tokens, context: Encoded, mask: DrawnMask) -> tuple[Tensor, Tensor, Tensor | None]:
        """Prediction and target (2B, M, V) of the hidden tokens, and which values exist."""
        channel = channel_rows(tokens, self.encoder)
        if isinstance(self.decoder, Reconstructor):
            return self.decoder(context, mask, channel=channel), *self.decoder.target(batch, mask)
        hidden = shared_rows(mask.masked_tokens())
        prediction = self.decoder(
            context.x, mask.visible_tokens(), mask.masked_tokens(), observed=context.observed, channel=channel
        )
        target = take_tokens(tokens.x.detach() if self.config.stop_gradient else tokens.x, hidden)
        exist = None
        if not tokens.complete:
            exist = take_tokens(tokens.observed, hidden)[..., None].expand_as(prediction)
        return prediction, target, exist


def _latent(prediction: Tensor, target: Tensor, exist: Tensor | None) -> dict[str, Tensor]:
    """``target`` and ``prediction`` (n, D) of observed tokens, layer-normalised: their scale is free, so only how they differ
    can collapse.
    """
    seen = slice(None) if exist is None else exist[..., 0].flatten()
    both = {"target": target, "prediction": prediction}
    return {name: normalise_target(value.detach()).flatten(0, 1)[seen] for name, value in both.items()}


def _stack(first: Batch, second: Batch) -> Batch:
    """The windows of one view, then those of the other."""
    observed = None
    if first.observed is not None or second.observed is not None:
        seen = [torch.ones_like(b.x, dtype=torch.bool) if b.observed is None else b.observed for b in (first, second)]
        observed = torch.cat(seen)
    return Batch(torch.cat([first.x, second.x]), first.channels, first.sfreq, observed=observed, positions=first.positions)
