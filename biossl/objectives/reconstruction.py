"""Masked reconstruction: the encoder sees some tokens, a light decoder says what the hidden samples were.

What lives here: :class:`Reconstructor`, the part that other objectives compose (decoder, target, loss), and the objective
made of nothing else: after MAE (arXiv 2111.06377) and, with per-channel masks and decoder, ST-MEM (arXiv 2402.09450).
Targets are in ``targets.py``, decoders in ``biossl.models.decoders``, masks in ``masking.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.augment.base import Pipeline
from biossl.batch import Batch, Encoded
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.decoders import Decoder, DecoderConfig
from biossl.models.encoder import pool_tokens
from biossl.models.tokenizers import amplitude
from biossl.models.transformer import TransformerEncoder, channel_rows, shared_rows, take_tokens
from biossl.objectives.base import Objective, Outcome
from biossl.objectives.masking import DrawnMask, MaskConfig, draw_masks, mask_prior, require_mask
from biossl.objectives.targets import TargetConfig, patch_targets, token_values
from biossl.objectives.views import with_penalty

LossKind = Literal["mse", "l1", "smooth_l1"]


@dataclass
class ReconstructorConfig(TargetConfig):
    """Settings of a :class:`Reconstructor`: those of its target, and

    Attributes
    ----------
    loss : {"mse", "l1", "smooth_l1"}
    beta : float
        Where ``smooth_l1`` turns from quadratic to linear, in units of the target.
    decoder : DecoderConfig
    """

    loss: LossKind = "mse"
    beta: float = 1.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, not {self.beta:g}")


@dataclass
class ReconstructionConfig(ReconstructorConfig):
    """Settings of :class:`Reconstruction`: those of its reconstructor, and

    Attributes
    ----------
    n_masks : int
        Masks per window; more than 1 needs masks of one size.
    target_of : {"view", "clean"}
        Where a recipe augments: the augmented window is predicted from its own visible part, or the window as it was
        recorded is (then no augmentation may move samples in time).
    """

    n_masks: int = 1
    target_of: Literal["view", "clean"] = "view"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_masks < 1:
            raise ValueError(f"n_masks must be at least 1, not {self.n_masks}")


def reconstruction_loss(
    prediction: Tensor, target: Tensor, exist: Tensor | None = None, *, loss: LossKind = "mse", beta: float = 1.0
) -> Tensor:
    """Mean over rows of the mean loss of a row's values that exist.

    Every row (window and mask) counts the same however much of it was observed, so neither world size nor accumulation
    changes the gradient. A row without any value adds 0.

    Parameters
    ----------
    prediction, target : Tensor, (R, M, V)
    exist : Tensor, bool, (R, M, V), or None
        None = all.
    loss : {"mse", "l1", "smooth_l1"}
    beta : float
        Of ``smooth_l1``: ``0.5 d^2 / beta`` where ``|d| < beta``, else ``|d| - 0.5 beta``.

    Returns
    -------
    Tensor
        Scalar, float32 whatever the precision around it.

    Examples
    --------
    >>> float(reconstruction_loss(torch.full((2, 1, 3), 2.0), torch.zeros(2, 1, 3)))
    4.0
    """
    prediction, target = (t if t.dtype == torch.float64 else t.float() for t in (prediction, target))
    if loss == "smooth_l1":
        values = F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)
    else:
        values = (F.mse_loss if loss == "mse" else F.l1_loss)(prediction, target, reduction="none")
    if exist is None:
        return values.mean()
    weight = exist.to(values.dtype).flatten(1)
    return ((values.flatten(1) * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)).mean()


def require_still(augment: Pipeline | None, *, where: str) -> None:
    """RequestError when samples as recorded are to be predicted from a view in which they lie elsewhere in time."""
    if augment is not None and augment.breaking("timing"):
        raise RequestError(
            f"{where} predicts the samples as they were recorded, and an augmentation moves them in time (it breaks timing); remove it"
        )


class Reconstructor(nn.Module):
    """Decoder, target and loss of masked reconstruction, for an encoder that is given.

    Parameters
    ----------
    encoder : TransformerEncoder
        Read for its width, grid, patches and scale; not kept.
    config : ReconstructorConfig

    Raises
    ------
    RequestError
        A derivative scale that does not fit a patch, a decoder that cannot be built.

    Examples
    --------
    >>> from biossl.models.transformer import EncoderConfig
    >>> from biossl.objectives.masking import RandomMask
    >>> from biossl.signal import InputSpec
    >>> spec = InputSpec("ecg", 50.0, 100, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
    >>> encoder = TransformerEncoder(spec, EncoderConfig(dim=16, depth=1, heads=2))
    >>> part = Reconstructor(encoder, ReconstructorConfig(decoder=DecoderConfig(dim=8, depth=1, heads=2)))
    >>> batch = Batch(torch.randn(3, 2, 100), spec.ch_names, spec.sfreq)
    >>> mask = draw_masks(RandomMask(0.5), Keys(0, 0, torch.arange(3)), encoder.grid, 1)
    >>> context = encoder.encode(encoder.tokenize(batch), keep=mask.keep())
    >>> prediction, (target, exist) = part(context, mask), part.target(batch, mask)
    >>> prediction.shape == target.shape == (3, 2 * 5, 10)
    True
    >>> part.loss(prediction, target, exist).shape
    torch.Size([])
    """

    def __init__(self, encoder: TransformerEncoder, config: ReconstructorConfig) -> None:
        super().__init__()
        spec, patch = encoder.spec, encoder.tokenizer.patch
        if config.target == "derivative" and max(config.scales) >= patch:
            raise RequestError(f"objective.scales: {max(config.scales)} must be below the {patch} samples of a patch")
        self.config, self.spec, self.patch = config, spec, patch
        self.joint = encoder.config.tokenizer == "joint"
        n_values = config.n_values(patch) * (len(spec.ch_names) if self.joint else 1)
        self.decoder = Decoder(encoder.dim, encoder.grid, n_values, config.decoder)
        floor = amplitude(spec, "none", {})
        fixed = encoder.config.normalise == "fixed"
        scale = amplitude(spec, "fixed", encoder.config.scale) if fixed else torch.ones_like(floor)
        self.scale: Tensor
        self.floor: Tensor
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("floor", floor, persistent=False)

    def forward(self, context: Encoded, mask: DrawnMask, *, channel: Tensor | None = None) -> Tensor:
        """Predicted values of the hidden tokens.

        Parameters
        ----------
        context : Encoded
            Of the tokens that ``mask`` leaves visible.
        mask : DrawnMask
            R = B or n_masks * B rows.
        channel : Tensor, optional
            :func:`~biossl.models.transformer.channel_rows` of the tokens; None = all channels of the encoder.

        Returns
        -------
        Tensor, (R, M, V)
            M hidden tokens; V values of all channels of a joint token, channel by channel.
        """
        visible, masked = mask.visible_tokens(), mask.masked_tokens()
        return self.decoder(context.x, visible, masked, observed=context.observed, channel=channel)

    def target(self, batch: Batch, mask: DrawnMask) -> tuple[Tensor, Tensor | None]:
        """What the hidden tokens of a batch were, without gradient.

        Returns
        -------
        values : Tensor, float32, (R, M, V)
        exist : Tensor, bool, (R, M, V), or None
            Values that may count; None = all.
        """
        x, observed, scale, floor = batch.x, batch.observed, self.scale, self.floor
        if batch.channels != self.spec.ch_names:
            rows = [i for i, name in enumerate(self.spec.ch_names) if name in batch.channels]
            order = [batch.channels.index(self.spec.ch_names[r]) for r in rows]
            x, scale, floor = x[:, order], scale[rows], floor[rows]
            observed = None if observed is None else observed[:, order]
        values, exist = patch_targets(x, observed, self.patch, self.config, scale=scale, floor=floor)
        masked = shared_rows(mask.masked_tokens())

        def hidden(of: Tensor) -> Tensor:
            return take_tokens(token_values(of, joint=self.joint), masked)

        return hidden(values), None if exist is None else hidden(exist)

    def loss(self, prediction: Tensor, target: Tensor, exist: Tensor | None = None) -> Tensor:
        """:func:`reconstruction_loss` with the settings of this part."""
        return reconstruction_loss(prediction, target, exist, loss=self.config.loss, beta=self.config.beta)


class Reconstruction(Objective):
    """Encoder and reconstructor, nothing else.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : ReconstructionConfig
    mask : MaskConfig
        Any. ST-MEM hides patches of each channel on its own; where channels depend on each other, hiding times of all
        channels at once keeps the answer from being given away.
    steps : int
        Not used: nothing here depends on the run's length.
    augment : Pipeline, optional

    Raises
    ------
    RequestError
        No mask, one that does not fit the windows, a target that does not fit the encoder's patches, an augmentation that moves
        samples away from a clean target.
    """

    def __init__(
        self,
        encoder: TransformerEncoder,
        config: ReconstructionConfig,
        *,
        mask: MaskConfig | None,
        steps: int,
        augment: Pipeline | None = None,
    ) -> None:
        super().__init__()
        if config.target_of == "clean":
            require_still(augment, where="objective.target_of: clean")
        self.config, self.augment = config, augment
        self.mask = require_mask(mask, encoder, objective="reconstruction", n_masks=config.n_masks)
        self.encoder: TransformerEncoder = encoder
        self.reconstructor = Reconstructor(encoder, config)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``terms``: ``reconstruction``, and ``explained``, the share of the targets' variance in the batch that the
        prediction explains (0 or less: no better than their mean). ``watch``: ``embedding`` (R, D) pooled visible features,
        ``target`` and ``prediction`` (n, V) in units of the targets' standard deviation, so that the monitors' bounds mean
        the same whatever is predicted.
        """
        view = batch if self.augment is None else self.augment(batch, keys)
        tokens = self.encoder.tokenize(view)
        assert tokens.grid is not None
        prior = mask_prior(self.mask, view, self.encoder)
        mask = draw_masks(self.mask, keys, tokens.grid, self.config.n_masks, prior=prior)
        context = self.encoder.encode(tokens, keep=mask.keep())
        prediction = self.reconstructor(context, mask, channel=channel_rows(tokens, self.encoder))
        target, exist = self.reconstructor.target(view if self.config.target_of == "view" else batch, mask)
        loss = self.reconstructor.loss(prediction, target, exist)
        terms = {"reconstruction": loss.detach(), "explained": explained(prediction, target, exist)}
        watch = {"embedding": pool_tokens(context).detach().float(), **watched(prediction, target, exist)}
        return with_penalty(Outcome(loss, terms, watch), self.augment)


@torch.no_grad()
def explained(prediction: Tensor, target: Tensor, exist: Tensor | None) -> Tensor:
    """1 - squared error / variance of the targets that exist: 1 perfect, 0 as good as their mean, scalar float32."""
    error, mean = _mean((prediction.float() - target.float()).square(), exist), _mean(target.float(), exist)
    return 1.0 - error / _mean((target.float() - mean).square(), exist).clamp_min(1e-12)


@torch.no_grad()
def watched(prediction: Tensor, target: Tensor, exist: Tensor | None) -> dict[str, Tensor]:
    """``target`` and ``prediction`` (n, V) of tokens all of whose values exist, over the targets' standard deviation.

    Nothing where there are fewer than two such tokens: they have no variance.
    """
    prediction, target = prediction.float().flatten(0, 1), target.float().flatten(0, 1)
    if exist is not None:
        whole = exist.flatten(0, 1).all(dim=1)
        prediction, target = prediction[whole], target[whole]
        if len(target) < 2:
            return {}
    spread = target.var(dim=0).mean().sqrt().clamp_min(1e-6)
    return {"target": target / spread, "prediction": prediction / spread}


def _mean(values: Tensor, exist: Tensor | None) -> Tensor:
    return values.mean() if exist is None else (values * exist).sum() / exist.sum().clamp_min(1)
