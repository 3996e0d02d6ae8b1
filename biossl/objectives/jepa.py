"""JEPA: predict the features an EMA copy of the encoder gives to hidden patches, from the visible ones.

What lives here: the objective of ECG-JEPA (Kim; arXiv 2410.08559) for any modality, with four departures that a recipe
can switch on: masks of exact size per sample, several masks per target pass and averaged target layers (data2vec 2.0,
arXiv 2212.07525), and a variance hinge on the context tokens (VICReg, arXiv 2105.04906). Masks are drawn in
``masking.py``, losses are in ``losses.py``; the EMA update itself is the training loop's.
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
from biossl.models.predictors import LeadPredictor, PredictorConfig
from biossl.models.transformer import TransformerEncoder, pool_tokens, shared_rows, take_tokens
from biossl.objectives.base import Objective, Outcome
from biossl.objectives.losses import l1, normalise_target, smooth_l1, variance_hinge
from biossl.objectives.masking import MaskConfig, draw_masks
from biossl.schedules import linear_ramp


@dataclass
class JEPAConfig:
    """Settings of :class:`JEPA`; the defaults are those of ECG-JEPA except that the target encoder is in evaluation mode.

    Attributes
    ----------
    predictor : PredictorConfig
    loss : {"smooth_l1", "l1"}
        The paper states L1, its code uses smooth L1 with ``beta`` 1.
    beta : float
    ema_start, ema_end : float
        Momentum of the target encoder, linear over all steps.
    target_train_mode : bool
        True: drop-path stays active in the target encoder, as in the published code; the targets are then noisy.
    target_layers : int
        0: the target is the encoder's output. K: the mean of the last K blocks' outputs, each layer-normalised.
    n_masks : int
        Masks per target pass; more than 1 needs masks of one size.
    variance_hinge : float
        Weight of the hinge on the context tokens' standard deviation; 0 = off.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    loss: Literal["smooth_l1", "l1"] = "smooth_l1"
    beta: float = 1.0
    ema_start: float = 0.996
    ema_end: float = 1.0
    target_train_mode: bool = False
    target_layers: int = 0
    n_masks: int = 1
    variance_hinge: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.ema_start <= self.ema_end <= 1.0:
            raise ValueError(f"ema_start and ema_end must satisfy 0 <= start <= end <= 1, not {self.ema_start}, {self.ema_end}")
        if self.beta <= 0 or self.n_masks < 1 or self.target_layers < 0 or self.variance_hinge < 0:
            raise ValueError("beta must be above 0, n_masks at least 1, target_layers and variance_hinge at least 0")


class JEPA(Objective):
    """Student encoder, EMA target encoder and per-channel predictor.

    Parameters
    ----------
    encoder : TransformerEncoder
        The student; freshly initialised or loaded.
    config : JEPAConfig
    mask : MaskConfig
        :class:`~biossl.objectives.masking.RandomMask` or :class:`~biossl.objectives.masking.MultiBlockMask`.
    steps : int
        Optimiser steps of the whole run, for the momentum.
    augment : Pipeline, optional
        One augmented view serves student and target.

    Raises
    ------
    RequestError
        No mask, several masks of varying size, more target layers than blocks.
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
        if mask is None:
            raise RequestError("key 'mask' is missing; objective jepa needs one (random or multi_block)")
        if config.n_masks > 1 and not mask.per_sample:
            raise RequestError("objective.n_masks: several masks need one size; give mask.ratio as one number, or n_masks: 1")
        if config.target_layers > encoder.config.depth:
            raise RequestError(
                f"objective.target_layers: {config.target_layers}, but the encoder has {encoder.config.depth} blocks; take fewer"
            )
        self.config, self.mask, self.steps, self.augment = config, mask, steps, augment
        self.encoder: TransformerEncoder = encoder
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = LeadPredictor(encoder.dim, encoder.grid[1], config.predictor)
        self.train()

    def train(self, mode: bool = True) -> JEPA:
        """Training mode; the target encoder follows only when ``target_train_mode`` says so."""
        super().train(mode)
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
        C, P = _grid(tokens)
        mask = draw_masks(self.mask, keys, (C, P), self.config.n_masks)
        with torch.no_grad():
            full = self._encode_target(batch)
            target = hidden_tokens(self._target(full), mask.masked, C)  # (R, C * M, D), R = B or n_masks * B
        context = self.encoder.encode(tokens, keep=mask.keep())
        prediction = self.predictor(
            context.x, mask.visible, mask.masked, observed=None if tokens.complete else context.observed
        ).flatten(1, 2)
        weight = None if tokens.complete else hidden_tokens(tokens.observed, mask.masked, C)
        if self.config.loss == "smooth_l1":
            loss = smooth_l1(prediction, target, beta=self.config.beta, weight=weight)
        else:
            loss = l1(prediction, target, weight=weight)
        terms = {"prediction": loss.detach()}
        if self.config.variance_hinge > 0:
            hinge = variance_hinge(context.x.flatten(0, 1) if tokens.complete else context.x[context.observed])
            terms["variance_hinge"] = hinge.detach()
            loss = loss + self.config.variance_hinge * hinge
        seen = slice(None) if weight is None else weight.flatten()
        return Outcome(
            loss=loss,
            terms=terms,
            watch={
                "embedding": pool_tokens(full).float(),
                "target": target.flatten(0, 1)[seen],
                "prediction": prediction.detach().flatten(0, 1)[seen].float(),
            },
        )

    def _encode_target(self, batch: Batch) -> Encoded:
        """All tokens through the target encoder."""
        layers = range(-self.config.target_layers, 0)
        return self.target.encode(self.target.tokenize(batch), layers=layers)

    def _target(self, full: Encoded) -> Tensor:
        """(B, N, D) float32: layer-normalised output, or mean of layer-normalised block outputs, normalised again."""
        if not full.hidden:
            return normalise_target(full.x)
        return normalise_target(torch.stack([normalise_target(h) for h in full.hidden]).mean(dim=0))

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The encoder and its target."""
        return [(self.encoder, self.target)]

    def ema_momentum(self, step: int) -> float:
        """Linear from ``ema_start`` at step 0 to ``ema_end`` at the run's end."""
        return linear_ramp(step, total=self.steps, start=self.config.ema_start, end=self.config.ema_end)


def hidden_tokens(x: Tensor, masked: Tensor, n_channels: int) -> Tensor:
    """Tokens of hidden times, lead-major.

    Parameters
    ----------
    x : Tensor, (B, C * P, ...)
    masked : Tensor, int64, (B, M) or (n_masks * B, M)
        Hidden times; row m * B + b belongs to sample b.
    n_channels : int
        C.

    Returns
    -------
    Tensor, (B, C * M, ...) or (n_masks * B, C * M, ...)
    """
    P = x.shape[1] // n_channels
    times = shared_rows(masked)
    lead = torch.arange(n_channels, device=x.device)[:, None] * P
    return take_tokens(x, (lead + times[:, None, :]).flatten(1))


def _grid(tokens: Tokens) -> tuple[int, int]:
    if tokens.grid is None:
        raise ValueError("JEPA needs tokens on a (C, P) grid")
    return tokens.grid
