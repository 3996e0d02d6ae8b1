"""What objectives with an averaged copy of their network have in common: the copy, its momentum, noise in what it sees.

What lives here: :class:`Teacher` and :class:`Averaged`, for objectives that compare projections (``moco.py``, ``byol.py``,
``clustering.py``), and :func:`noisy_tokens`, which ``jepa.py`` uses too. The averaging itself is the training loop's.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from biossl.augment.functional import normal
from biossl.batch import Batch, Tokens
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.objectives.base import Objective
from biossl.objectives.views import pooled
from biossl.schedules import cosine_ramp

_NOISE = 960_000  # draw number of the first view's noise, between those of views and of augmentations


def check_momentum(start: float, end: float) -> None:
    """ValueError unless both are momenta, the second the larger."""
    if not 0.0 <= start <= end <= 1.0:
        raise ValueError(f"ema_start and ema_end must satisfy 0 <= start <= end <= 1, not {start:g} and {end:g}")


def check_noise(level: float) -> None:
    """ValueError unless ``level`` is an amount of noise."""
    if not 0.0 <= level < float("inf"):
        raise ValueError(f"teacher_noise must be at least 0, not {level:g}; it is a share of the size of the tokens")


class Teacher(nn.Module):
    """Averaged copies of an encoder and of the head behind it: no gradient, always in evaluation mode.

    Parameters
    ----------
    encoder : Encoder
    head : nn.Module
        Called as ``head(features, rows that count)``.
    noise : float
        Of :func:`noisy_tokens`, while the objective is in training mode.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, noise: float = 0.0) -> None:
        super().__init__()
        self._sources = (encoder, head)  # in a tuple they are not registered: their weights are the objective's
        self.noise = noise
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Whether there is noise; dropped paths there are never."""
        super().train(False)
        self.noisy = mode
        return self

    @torch.no_grad()
    def features(self, batch: Batch, keys: Keys, *, view: int = 0) -> tuple[Tensor, Tensor | None]:
        """Pooled features (B, D) of view number ``view``, and which windows count; see :func:`~biossl.objectives.views.pooled`."""
        tokens = self.encoder.tokenize(batch)
        if self.noisy:
            tokens = noisy_tokens(tokens, keys, self.noise, view=view)
        return pooled(tokens, self.encoder.encode(tokens))

    @torch.no_grad()
    def project(self, features: Tensor, valid: Tensor | None) -> Any:
        """What the head makes of features (B, D)."""
        return self.head(features, valid)

    def targets(self, views: tuple[Batch, Batch], keys: Keys, valid: Tensor | None) -> tuple[Any, Any]:
        """What the head makes of each view, where ``valid`` windows count."""
        seen = [self.features(view, keys, view=v)[0] for v, view in enumerate(views)]
        first, second = (self.project(h, valid) for h in seen)
        return first, second

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and head that were copied, each with its copy."""
        encoder, head = self._sources
        return [(encoder, self.encoder), (head, self.head)]


class Averaged(Objective):
    """The side of an objective with a :class:`Teacher` that the training loop asks; mixed in beside ``TwoViews``.

    A subclass sets ``config``, whose settings have ``ema_start`` and ``ema_end``, ``steps`` of the run, and ``teacher``, None where
    its settings switch the copy off.
    """

    config: Any
    steps: int
    teacher: Teacher | None

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Encoder and head, and the copies that make the targets; none without a teacher."""
        return [] if self.teacher is None else self.teacher.pairs()

    def ema_momentum(self, step: int) -> float:
        """By a cosine from ``ema_start`` at step 0 to ``ema_end`` at the run's end."""
        return cosine_ramp(step, total=self.steps, start=self.config.ema_start, end=self.config.ema_end)


def noisy_tokens(tokens: Tokens, keys: Keys, level: float, *, view: int = 0) -> Tokens:
    """White Gaussian noise on the embedded patches that a teacher sees (after the noisy teacher of DAGMaN, PMLR 301:679-694).

    Its standard deviation is ``level`` times the root mean square of the window's observed tokens. It is drawn by a counter
    hash of (seed, step, position, view): processes, micro-batches and resuming change nothing.

    Parameters
    ----------
    tokens : Tokens
    keys : Keys
    level : float
        0 = the tokens as they are.
    view : int
        Views of one step have noise of their own.

    Returns
    -------
    Tokens

    Examples
    --------
    >>> from biossl.batch import Tokens
    >>> x, flags = torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    >>> tokens = Tokens(x, torch.zeros(1, 2), torch.zeros(1, 2), flags)
    >>> noisy_tokens(tokens, Keys(0, 0, torch.arange(1)), 0.0) is tokens
    True
    """
    if level == 0.0:
        return tokens
    x, seen = tokens.x.float(), tokens.observed[..., None]
    count = seen.sum(dim=(1, 2), keepdim=True) * x.shape[-1]
    size = (torch.where(seen, x.square(), 0.0).sum(dim=(1, 2), keepdim=True) / count.clamp_min(1)).sqrt()
    noise = normal(keys.uniform(tuple(x.shape[1:]), _NOISE + view)).to(x.dtype)
    return replace(tokens, x=(x + level * size * noise).to(tokens.x.dtype))
