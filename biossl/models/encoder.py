"""What every encoder is: the contract between windows and whoever uses their features, and pooling of tokens.

What lives here: :class:`Encoder`, the base of the transformer and the convolutional encoder, with what they share (which channels a
batch has, amplitudes, frozen features), and :func:`pool_tokens`. Code that needs the contract alone names this class; no layer is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from biossl.batch import Batch, Encoded, TimeKeep, Tokens
from biossl.errors import DataError, RequestError
from biossl.models.tokenizers import Normalise, amplitude, normalise
from biossl.signal import InputSpec

POOLS = ("mean", "std", "max")


class EncoderSettings(Protocol):
    """What the settings of every encoder have."""

    @property
    def tokenizer(self) -> Literal["channel", "joint"]:
        """Tokens of each channel, or of all channels together."""

    @property
    def normalise(self) -> Normalise:
        """See :func:`~biossl.models.tokenizers.normalise`."""

    @property
    def scale(self) -> dict[str, float]:
        """Channel type -> divisor, for ``fixed``."""

    def describe(self) -> str:
        """One sentence for the model card."""

    def size(self, spec: InputSpec) -> tuple[int, int, float]:
        """Features of the widest layer, number of blocks, and numbers in the largest layer's output of one window."""


class Encoder(nn.Module):
    """Windows to tokens (:meth:`tokenize`), tokens to features (:meth:`encode`).

    A subclass sets ``grid``, ``patch`` and ``layer_dims``, has ``blocks`` and, after them, ``norm``.

    Parameters
    ----------
    spec : InputSpec
        What one window is: channel names and order, rate, length. Channel subsets and other orders are served by name.
    config : EncoderSettings
    dim : int
        Width D of what comes out.

    Attributes
    ----------
    architecture : str
        Its name in the tables of ``biossl.recipe.tables``.
    maskable : bool
        Any part of the tokens may be encoded alone.
    grid : (int, int)
        Channels and patches (C, P) of what comes out for a whole window.
    patch : int
        Samples from one token that comes out to the next.
    blocks : nn.ModuleList
        In a row; their outputs are ``layers``.
    layer_dims : tuple of int
        Width of each block's output.
    info : dict
        Provenance, filled by ``biossl.checkpoint.load_encoder``.
    """

    architecture: ClassVar[str]
    maskable: ClassVar[bool]
    grid: tuple[int, int]
    patch: int
    blocks: nn.ModuleList
    norm: nn.Module
    layer_dims: tuple[int, ...]

    def __init__(self, spec: InputSpec, config: EncoderSettings, dim: int) -> None:
        super().__init__()
        self.spec, self.config, self.dim = spec, config, dim
        self.info: dict[str, Any] = {}
        # A fixed function of spec and config: recomputed, never stored.
        self.amount: Tensor
        self.register_buffer("amount", amplitude(spec, config.normalise, config.scale), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.amount.device

    def tokenize(self, batch: Batch) -> Tokens:
        """Tokens of a batch, in the order of ``spec.ch_names`` whatever the order of the batch's channels.

        Parameters
        ----------
        batch : Batch
            Canonical units, the rate and window length of ``spec``, channels among ``spec.ch_names``.

        Raises
        ------
        DataError
            Another rate or length, a channel the encoder does not know, a missing channel of a joint tokenizer.
        """
        raise NotImplementedError  # every subclass

    def encode(self, tokens: Tokens, *, keep: TimeKeep | Tensor | None = None, layers: Sequence[int] = ()) -> Encoded:
        """Features of tokens.

        Parameters
        ----------
        tokens : Tokens
            From :meth:`tokenize`.
        keep : TimeKeep, Tensor or None
            Which tokens are seen, where the encoder is ``maskable``; None = all.
        layers : sequence of int
            Blocks whose outputs are wanted in ``hidden`` (0 = first, -1 = last).
        """
        raise NotImplementedError  # every subclass

    @torch.no_grad()
    def embed(self, batch: Batch | Tensor | np.ndarray, pool: str = "mean") -> Tensor:
        """Frozen features: evaluation mode, no gradient.

        Parameters
        ----------
        batch : Batch, or Tensor or ndarray of shape (B, C, T)
            An array has the channels of ``spec`` in order, in canonical units; NaN = not observed.
        pool : str
            See :func:`pool_tokens`.

        Returns
        -------
        Tensor, (B, D * n), on the encoder's device
        """
        if not isinstance(batch, Batch):
            batch = self._batch(batch)
        was_training = self.training
        self.eval()
        try:
            return pool_tokens(self.encode(self.tokenize(batch.to(self.device))), pool)
        finally:
            self.train(was_training)

    def windows(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Windows as a tokenizer takes them.

        Returns
        -------
        Tensor, (B, C, T)
            Normalised, channels in the order of ``spec.ch_names``, 0 where not observed.
        Tensor, bool, (B, C, T), or None
            What was observed; None = all.
        Tensor, int64, (C,) or (1,)
            Which channel each is; one -1 for a joint tokenizer.

        Raises
        ------
        DataError
            As :meth:`tokenize`.
        """
        rows = self._rows(batch)
        x, observed, amount = batch.x, batch.observed, self.amount
        if batch.channels != self.spec.ch_names:
            order = [batch.channels.index(self.spec.ch_names[r]) for r in rows]
            x, amount = x[:, order], amount[list(rows)]
            observed = None if observed is None else observed[:, order]
        x = normalise(x, observed, self.config.normalise, amount)
        if self.config.tokenizer == "joint":
            return x, observed, torch.full((1,), -1, device=x.device)
        if len(rows) == len(self.spec.ch_names):
            return x, observed, torch.arange(len(rows), device=x.device)
        return x, observed, torch.tensor(rows, device=x.device)

    def _batch(self, x: Tensor | np.ndarray) -> Batch:
        x = torch.as_tensor(x)
        if x.ndim != 3 or x.shape[1] != len(self.spec.ch_names):
            raise DataError(
                f"input of shape {tuple(x.shape)}: expected (B, {len(self.spec.ch_names)}, {self.spec.n_samples}) with "
                f"channels {' '.join(self.spec.ch_names)}; give a Batch for other channels"
            )
        x = x.float()
        seen = x.isfinite()
        if bool(seen.all()):
            return Batch(x, self.spec.ch_names, self.spec.sfreq)
        return Batch(torch.where(seen, x, 0.0), self.spec.ch_names, self.spec.sfreq, observed=seen)

    def _rows(self, batch: Batch) -> tuple[int, ...]:
        """Rows of ``spec.ch_names`` the batch holds, ascending."""
        spec = self.spec
        if abs(batch.sfreq - spec.sfreq) > 1e-6 or batch.x.shape[2] != spec.n_samples:
            raise DataError(
                f"windows of {batch.x.shape[2]} samples at {batch.sfreq:g} Hz: the encoder expects {spec.n_samples} at "
                f"{spec.sfreq:g} Hz; convert with a view of that rate and length"
            )
        unknown = [c for c in batch.channels if c not in spec.ch_names]
        if unknown:
            raise DataError(f"channels {' '.join(unknown)}: the encoder knows {' '.join(spec.ch_names)}; leave them out")
        rows = tuple(i for i, c in enumerate(spec.ch_names) if c in batch.channels)
        if self.config.tokenizer == "joint" and len(rows) != len(spec.ch_names):
            absent = [c for c in spec.ch_names if c not in batch.channels]
            raise DataError(
                f"channels {' '.join(absent)} are missing; an encoder with a joint tokenizer needs all of its channels"
            )
        return rows

    def _layer(self, number: int) -> int:
        depth = len(self.blocks)
        if not -depth <= number < depth:
            raise RequestError(f"layer {number}: the encoder has blocks 0 to {depth - 1}")
        return number % depth


def pool_tokens(encoded: Encoded, pool: str = "mean") -> Tensor:
    """One vector per window from its observed tokens; registers are left out.

    Parameters
    ----------
    encoded : Encoded
    pool : str
        ``mean``, ``std`` (population) or ``max``, or several joined by ``+``: ``mean+std+max``.

    Returns
    -------
    Tensor, (B, D * n)
        NaN for a window in which nothing was observed.
    """
    parts = pool_parts(pool)
    x, seen = encoded.x, encoded.observed[..., None]
    n = seen.sum(dim=1)
    mean = torch.where(seen, x, 0.0).sum(dim=1) / n
    out = []
    for part in parts:
        if part == "mean":
            out.append(mean)
        elif part == "std":
            square = torch.where(seen, (x - mean[:, None]).square(), 0.0).sum(dim=1) / n
            out.append(square.clamp_min(1e-12).sqrt())  # the clamp keeps the gradient finite when all tokens agree
        else:
            top = torch.where(seen, x, float("-inf")).amax(dim=1)
            out.append(torch.where(n > 0, top, float("nan")))
    return torch.cat(out, dim=-1)


def pool_parts(pool: str) -> list[str]:
    """Parts of a pooling name; RequestError for an unknown one."""
    parts = pool.split("+")
    unknown = [p for p in parts if p not in POOLS]
    if unknown or len(set(parts)) != len(parts):
        raise RequestError(f"pool '{pool}' is not known; join any of {', '.join(POOLS)} with +, e.g. mean+std+max")
    return parts
