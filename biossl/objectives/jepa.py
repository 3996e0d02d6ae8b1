"""JEPA: predict the features an EMA copy of the encoder gives to hidden patches, from the visible ones.

What lives here: the objective of ECG-JEPA (Kim; arXiv 2410.08559) for any modality, with departures that a recipe can switch
on: masks of exact size per sample, several masks per target pass and averaged target layers (data2vec 2.0, arXiv
2212.07525), masks over single tokens with a predictor over the whole grid, VICReg or SIGReg terms beside the averaged copy
or instead of it, distillation of visible tokens (DMJD). Masks are drawn in ``masking.py``, losses are in ``losses.py``, terms
against collapse in ``regularizers.py``; the EMA update itself is the training loop's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.augment.base import Pipeline
from biossl.batch import Batch, Encoded, Tokens
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import pool_tokens
from biossl.models.predictors import GridPredictor, LeadPredictor, PredictorConfig
from biossl.models.transformer import TransformerEncoder, channel_rows, shared_rows, take_tokens
from biossl.objectives.averaged import check_noise, noisy_tokens
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.equivariance import EquivarianceConfig, build_equivariance, with_equivariance
from biossl.objectives.losses import l1, normalise_target, smooth_l1
from biossl.objectives.masking import DrawnMask, MaskConfig, draw_masks, mask_prior, require_mask
from biossl.objectives.regularizers import Regularizer, RegularizerConfig
from biossl.objectives.views import with_penalty
from biossl.schedules import linear_ramp

_VISIBLE_BETA = 2.0  # of the smooth L1 on visible tokens, as in DMJD


@dataclass
class JEPAConfig:
    """Settings of :class:`JEPA`; the defaults are those of ECG-JEPA except that the target encoder is in evaluation mode.

    Attributes
    ----------
    predictor : PredictorConfig
    loss : {"smooth_l1", "l1"}
        The paper states L1, its code uses smooth L1 with ``beta`` 1.
    beta : float
    target : {"ema", "self"}
        Whose features are predicted: those of an averaged copy, or the encoder's own without gradient. ``self`` saves the
        copy and needs a ``regularizer``: without one nothing but the predictor speaks against collapse.
    ema_start, ema_end : float
        Momentum of the target encoder, linear over all steps.
    target_train_mode : bool
        True: drop-path stays active in the target encoder, as in the published code; the targets are then noisy.
    teacher_noise : float
        Noise on the tokens that the target encoder sees in training, see :func:`~biossl.objectives.averaged.noisy_tokens`; 0 = off.
    target_layers : int
        0: the target is the encoder's output. K: the mean of the last K blocks' outputs, each layer-normalised.
    n_masks : int
        Masks per target pass; more than 1 needs masks of one size.
    visible_weight : float
        Weight of a smooth L1 (beta 2) between visible tokens, through one linear layer, and their own targets (after the
        visible-token distillation of DMJD, which has 1); 0 = off.
    regularizer : RegularizerConfig
        VICReg, SIGReg or KoLeo terms on the visible tokens' features.
    equivariance : EquivarianceConfig or None
        Its teacher is the target encoder.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    loss: Literal["smooth_l1", "l1"] = "smooth_l1"
    beta: float = 1.0
    target: Literal["ema", "self"] = "ema"
    ema_start: float = 0.996
    ema_end: float = 1.0
    target_train_mode: bool = False
    teacher_noise: float = 0.0
    target_layers: int = 0
    n_masks: int = 1
    visible_weight: float = 0.0
    regularizer: RegularizerConfig = field(default_factory=RegularizerConfig)
    equivariance: EquivarianceConfig | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.ema_start <= self.ema_end <= 1.0:
            raise ValueError(f"ema_start and ema_end must satisfy 0 <= start <= end <= 1, not {self.ema_start}, {self.ema_end}")
        if self.beta <= 0 or self.n_masks < 1 or self.target_layers < 0 or self.visible_weight < 0:
            raise ValueError("beta must be above 0, n_masks at least 1, target_layers and visible_weight at least 0")
        check_noise(self.teacher_noise)
        if self.target == "self" and self.regularizer.name == "none":
            raise ValueError("target 'self' has nothing against collapse; add regularizer: {name: vicreg}, or take target: ema")


class JEPA(Objective):
    """Student encoder, target encoder and predictor.

    Parameters
    ----------
    encoder : TransformerEncoder
        The student; freshly initialised or loaded.
    config : JEPAConfig
    mask : MaskConfig
        Any family of :mod:`biossl.objectives.masking`; those that hide tokens of single channels need ``predictor.kind: grid``.
    steps : int
        Optimiser steps of the whole run, for the momentum.
    augment : Pipeline, optional
        One augmented view serves student and target.

    Raises
    ------
    RequestError
        No mask or one that does not fit, more target layers than blocks, a predictor that cannot serve the mask.
    """

    def __init__(
        self,
        encoder: TransformerEncoder,
        config: JEPAConfig,
        *,
        mask: MaskConfig | None,
        steps: int,
        augment: Pipeline | None = None,
    ) -> None:
        super().__init__()
        self.mask = require_mask(mask, encoder, objective="jepa", n_masks=config.n_masks)
        if config.target_layers > encoder.config.depth:
            raise RequestError(
                f"objective.target_layers: {config.target_layers}, but the encoder has {encoder.config.depth} blocks; take fewer"
            )
        if self.mask.over == "token" and config.predictor.kind == "lead":
            raise RequestError(
                "objective.predictor.kind: lead predicts times that all channels hide, this mask hides tokens of single "
                "channels; take kind: grid"
            )
        self.config, self.steps, self.augment = config, steps, augment
        self.encoder: TransformerEncoder = encoder
        self.target = copy.deepcopy(encoder).requires_grad_(False) if config.target == "ema" else None
        self.predictor: LeadPredictor | GridPredictor
        if config.predictor.kind == "lead":
            self.predictor = LeadPredictor(encoder.dim, encoder.grid[1], config.predictor)
        else:
            self.predictor = GridPredictor(encoder.dim, encoder.grid, config.predictor)
        self.visible = nn.Linear(encoder.dim, encoder.dim) if config.visible_weight > 0 else None
        self.regularizer = Regularizer(encoder.dim, config.regularizer) if config.regularizer.name != "none" else None
        self.equivariance = build_equivariance(encoder, config.equivariance)
        pooled = config.regularizer.name != "none" and config.regularizer.of == "pooled"
        self.needs = SamplePlan(in_batch=pooled or config.equivariance is not None)
        self.train()

    def train(self, mode: bool = True) -> JEPA:
        """Training mode; the target encoder follows only when ``target_train_mode`` says so."""
        super().train(mode)
        if self.target is not None:
            self.target.train(mode and self.config.target_train_mode)
        return self

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``watch``: ``embedding`` (B, D) the target encoder's mean-pooled features, ``target`` and ``prediction`` (n, D) of
        the hidden, observed tokens.
        """
        if self.augment is not None:
            batch = self.augment(batch, keys)
        tokens = self.encoder.tokenize(batch)
        if tokens.grid is None:
            raise ValueError("JEPA needs tokens on a (C, P) grid")
        full, prior = self._teach(batch, keys)
        mask = draw_masks(self.mask, keys, tokens.grid, self.config.n_masks, prior=prior)
        goals = self._target(full)
        masked, visible = shared_rows(mask.masked_tokens()), shared_rows(mask.visible_tokens())
        target = take_tokens(goals, masked)  # (R, M, D), R = B or n_masks * B
        context = self.encoder.encode(tokens, keep=mask.keep())
        prediction = self._predict(context, mask, tokens)
        weight = None if tokens.complete else take_tokens(tokens.observed, masked)
        if self.config.loss == "smooth_l1":
            loss = smooth_l1(prediction, target, beta=self.config.beta, weight=weight)
        else:
            loss = l1(prediction, target, weight=weight)
        terms = {"prediction": loss.detach()}
        if self.visible is not None:
            seen = None if tokens.complete else context.observed
            own = smooth_l1(self.visible(context.x), take_tokens(goals, visible), beta=_VISIBLE_BETA, weight=seen)
            terms["visible"] = own.detach()
            loss = loss + self.config.visible_weight * own
        if self.regularizer is not None:
            spread = self.regularizer(context, keys)
            terms |= {name: value.detach() for name, value in spread.items()}
            loss = loss + self.regularizer.weighted(spread)
        count = slice(None) if weight is None else weight.expand(target.shape[:2]).flatten()
        watch = {
            "embedding": pool_tokens(full).float(),
            "target": target.flatten(0, 1)[count],
            "prediction": prediction.detach().flatten(0, 1)[count].float(),
        }
        outcome = with_equivariance(
            Outcome(loss, terms, watch), self.equivariance, self.encoder, batch, keys, teacher=self.target
        )  # fmt: skip
        return with_penalty(outcome, self.augment)

    @torch.no_grad()
    def _teach(self, batch: Batch, keys: Keys) -> tuple[Encoded, Tensor | None]:
        """All tokens through the target encoder (the encoder itself where there is no copy), and the mask's prior."""
        net = self.encoder if self.target is None else self.target
        was = net.training
        net.train(self.training and self.config.target_train_mode)
        try:
            prior = mask_prior(self.mask, batch, net)
            tokens = noisy_tokens(net.tokenize(batch), keys, self.config.teacher_noise if self.training else 0.0)
            return net.encode(tokens, layers=range(-self.config.target_layers, 0)), prior
        finally:
            net.train(was)

    def _target(self, full: Encoded) -> Tensor:
        """(B, N, D) float32: layer-normalised output, or mean of layer-normalised block outputs, normalised again."""
        if not full.hidden:
            return normalise_target(full.x)
        return normalise_target(torch.stack([normalise_target(h) for h in full.hidden]).mean(dim=0))

    def _predict(self, context: Encoded, mask: DrawnMask, tokens: Tokens) -> Tensor:
        """(R, M, D): predicted features of the hidden tokens, lead-major."""
        observed = None if tokens.complete else context.observed
        if isinstance(self.predictor, LeadPredictor):
            return self.predictor(context.x, mask.visible, mask.masked, observed=observed).flatten(1, 2)
        channel = channel_rows(tokens, self.encoder)
        return self.predictor(context.x, mask.visible_tokens(), mask.masked_tokens(), observed=observed, channel=channel)

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The encoder and its target; none where the encoder is its own target."""
        return [] if self.target is None else [(self.encoder, self.target)]

    def ema_momentum(self, step: int) -> float:
        """Linear from ``ema_start`` at step 0 to ``ema_end`` at the run's end."""
        return linear_ramp(step, total=self.steps, start=self.config.ema_start, end=self.config.ema_end)
