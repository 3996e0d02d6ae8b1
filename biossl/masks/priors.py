"""What makes a patch likelier to be hidden: relevance of every patch, from the signal itself or from a teacher's attention.

What lives here: one function a prior, (Batch, patch length) to relevances (B, C, P) between 0 and 1, the largest of a
channel 1, and :func:`prior_weights`, which turns them into weights for :mod:`biossl.masks.times` and ``tokens.py``. Spectral
bands are cut in the Fourier domain, a whole batch at once. None of these detects events: energy in a band stands for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.models.attention import Attention
    from biossl.models.transformer import TransformerEncoder

QRS_HZ = (8.0, 25.0)  # where a QRS complex has most of its energy, and P and T waves little
WAVES_HZ = (1.0, 8.0)  # P and T waves
SIGMA_HZ = (11.0, 16.0)  # sleep spindles


@dataclass
class Prior:
    """A prior of a mask.

    Attributes
    ----------
    name : {"qrs", "p_t", "spindle", "motion", "attention"}
        ``qrs``, ``p_t``: ECG, energy of the QRS band; of the band of P and T waves away from it. ``spindle``: EEG, energy of
        the sigma band. ``motion``: acceleration, its standard deviation within the patch. ``attention``: what the target
        encoder's last block attends to (after DAGMaN and attention-guided masking).
    contrast : float
        Weight of the most relevant patch over that of an irrelevant one, at least 1 (= no prior).
    """

    name: Literal["qrs", "p_t", "spindle", "motion", "attention"]
    contrast: float = 5.0

    def __post_init__(self) -> None:
        if self.contrast < 1.0:
            raise ValueError(f"contrast must be at least 1, not {self.contrast:g}")


def require_prior(prior: Prior, spec: InputSpec) -> None:
    """RequestError where a prior has no meaning for such windows."""
    modality, top = _MEANT_FOR.get(prior.name, ("", 0.0))
    if modality and spec.modality != modality:
        raise RequestError(
            f"mask.prior.name: {prior.name} is for {modality}, the windows are {spec.modality}; take another, or attention"
        )
    if spec.sfreq < 2.0 * top:
        raise RequestError(
            f"mask.prior.name: {prior.name} needs signals up to {top:g} Hz, {spec.sfreq:g} Hz ends at {spec.sfreq / 2:g}; "
            "convert with a view of a higher rate, or leave mask.prior out"
        )
    if prior.name == "motion" and not any(t == "acc" for t in spec.ch_types):
        raise RequestError("mask.prior.name: motion needs an acceleration channel, there is none; leave mask.prior out")


def prior_weights(prior: Prior, batch: Batch, encoder: TransformerEncoder) -> Tensor:
    """Weights of all patches of a batch on an encoder's grid, between 1 and ``contrast``.

    Parameters
    ----------
    prior : Prior
    batch : Batch
    encoder : TransformerEncoder
        Its patches, channel order and tokenizer; for ``attention`` its last block.

    Returns
    -------
    Tensor, float64, (B, C * P)
        C = 1 for a joint tokenizer: the mean over channels.
    """
    with torch.no_grad():
        if prior.name == "attention":
            relevance = attention_received(batch, encoder)
        else:
            relevance = _FUNCTIONS[prior.name](batch, encoder.tokenizer.patch)
            if batch.channels != encoder.spec.ch_names:
                order = [batch.channels.index(c) for c in encoder.spec.ch_names if c in batch.channels]
                relevance = relevance[:, order]
            if encoder.config.tokenizer == "joint":
                relevance = _to_one(relevance.mean(dim=1, keepdim=True))
        return 1.0 + (prior.contrast - 1.0) * relevance.flatten(1).double()


def qrs_energy(batch: Batch, patch: int) -> Tensor:
    """Energy between 8 and 25 Hz of every patch over the largest of its channel, (B, C, P)."""
    return _to_one(_band_energy(batch, patch, QRS_HZ))


def p_t_energy(batch: Batch, patch: int) -> Tensor:
    """Energy between 1 and 8 Hz, times what is left of 1 after the QRS energy, over the largest of the channel, (B, C, P)."""
    return _to_one(_band_energy(batch, patch, WAVES_HZ) * (1.0 - qrs_energy(batch, patch)))


def spindle_energy(batch: Batch, patch: int) -> Tensor:
    """Energy between 11 and 16 Hz of every patch over the largest of its channel, (B, C, P)."""
    return _to_one(_band_energy(batch, patch, SIGMA_HZ))


def motion_sd(batch: Batch, patch: int) -> Tensor:
    """Standard deviation of the acceleration within the patch (root of the summed variances of its axes), (B, C, P).

    After the motion nucleus of UniMotion (arXiv 2603.12218); the same for all channels.
    """
    axes = [i for i, name in enumerate(batch.channels) if name.startswith("acc")]
    x = _patches(batch.x[:, axes], patch)
    spread = x.var(dim=-1, correction=0).sum(dim=1).sqrt()  # (B, P)
    return _to_one(spread)[:, None].expand(-1, len(batch.channels), -1)


@torch.no_grad()
def attention_received(batch: Batch, encoder: TransformerEncoder) -> Tensor:
    """How much attention every token gets in an encoder's last block, (B, C, P) over the largest of its channel.

    Mean over heads and over the tokens that look, registers among those that look but not among those looked at. The encoder
    is in evaluation mode meanwhile: its drop-path would draw from the global generator.

    Parameters
    ----------
    batch : Batch
    encoder : TransformerEncoder
        Usually the EMA target.
    """
    last = cast("Attention", encoder.blocks[-1].attn)
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    was = encoder.training
    encoder.eval()
    try:
        tokens = encoder.tokenize(batch)
        encoder.encode(tokens)
    finally:
        hook.remove()
        encoder.train(was)
    (x,) = seen
    B, S, D = x.shape
    R = encoder.config.registers
    q, k, _ = last.qkv(x).float().view(B, S, 3, last.heads, D // last.heads).permute(2, 0, 3, 1, 4)
    logits = (q @ k.transpose(-2, -1)) * (D // last.heads) ** -0.5
    C, P = tokens.grid or encoder.grid
    if encoder.config.attention == "cropa" and C > 1:
        number = torch.arange(S - R, device=x.device)
        same = (number[:, None] // P == number[None] // P) | (number[:, None] % P == number[None] % P)
        logits[:, :, R:, R:] = logits[:, :, R:, R:].masked_fill(~same, float("-inf"))
    logits[..., R:] = logits[..., R:].masked_fill(~tokens.observed[:, None, None, :], float("-inf"))
    weight = torch.nan_to_num(logits.softmax(dim=-1)).mean(dim=(1, 2))[:, R:]
    return _to_one(weight.view(B, C, P))


def _patches(x: Tensor, patch: int) -> Tensor:
    B, C, T = x.shape
    return x.reshape(B, C, T // patch, patch)


def _band_energy(batch: Batch, patch: int, band: tuple[float, float]) -> Tensor:
    """Mean square of the band-passed signal within every patch, (B, C, P); a rectangular window of frequencies."""
    T = batch.x.shape[-1]
    spectrum = torch.fft.rfft(batch.x.float())
    frequency = torch.arange(spectrum.shape[-1], device=batch.x.device) * (batch.sfreq / T)
    inside = (frequency >= band[0]) & (frequency <= band[1])
    return _patches(torch.fft.irfft(spectrum * inside, n=T), patch).square().mean(dim=-1)


def _to_one(value: Tensor) -> Tensor:
    """Over the largest of the last dimension; 0 where all are 0."""
    top = value.amax(dim=-1, keepdim=True)
    return torch.where(top > 0, value / torch.where(top > 0, top, 1.0), 0.0)


_FUNCTIONS: dict[str, Callable[[Batch, int], Tensor]] = {
    "qrs": qrs_energy,
    "p_t": p_t_energy,
    "spindle": spindle_energy,
    "motion": motion_sd,
}
_MEANT_FOR = {"qrs": ("ecg", QRS_HZ[1]), "p_t": ("ecg", QRS_HZ[1]), "spindle": ("eeg", SIGMA_HZ[1]), "motion": ("imu", 0.0)}
