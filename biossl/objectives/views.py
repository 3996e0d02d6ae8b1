"""What the objectives that compare two views of a window have in common: making the views, pooling them, watching them.

What lives here: plain functions, and :class:`TwoViews`, the base of SimCLR, VICReg, Barlow Twins, MoCo, BYOL, DINO and SwAV, which
puts them together. The losses are in ``losses_contrastive.py``, ``losses_averaged.py`` and ``losses_clustering.py``; which window
is the partner of which is the loader's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch, Encoded, Tokens
from biossl.distributed import world_size
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import Encoder, pool_tokens
from biossl.objectives.base import Objective, Outcome
from biossl.objectives.masking import MaskConfig

Pairing = Literal["none", "adjacent", "same_subject"]

_PAIRED = 950_000  # draw number, between those of masks and of augmentations


def check_pairing(pairing: Pairing, share: float) -> None:
    """ValueError unless ``share`` is a share above 0 that has something to act on."""
    if not 0.0 < share <= 1.0:
        raise ValueError(f"pairing_share must be above 0 and at most 1, not {share:g}")
    if share < 1.0 and pairing == "none":
        raise ValueError("pairing_share has a meaning with pairing adjacent or same_subject only; leave it out")


def check_temperature(value: float) -> None:
    """ValueError unless ``value`` can divide a cosine."""
    if not value > 0:
        raise ValueError(f"temperature must be above 0, not {value:g}; 0.05 to 0.5 is usual")


def require_no_mask(mask: MaskConfig | None, *, objective: str) -> None:
    """RequestError when a recipe gives a mask that would not be used."""
    if mask is not None:
        raise RequestError(f"key 'mask': objective {objective} hides nothing; leave the section out")


def two_views(batch: Batch, keys: Keys, augment: Pipeline | None, *, pairing: Pairing, share: float = 1.0) -> tuple[Batch, Batch]:
    """Two views of every window: of itself, or the second of its partner.

    Parameters
    ----------
    batch : Batch
        With ``paired["window"]`` unless ``pairing`` is ``none``.
    keys : Keys
    augment : Pipeline or None
        View 0 and view 1 of it; None = the windows as they are.
    pairing : {"none", "adjacent", "same_subject"}
    share : float
        Probability that a window's second view is made of its partner.

    Returns
    -------
    Batch, Batch
        In the order of ``batch``.
    """
    second = batch if pairing == "none" else _partner(batch, keys, share)
    if augment is None:
        return batch, second
    return augment(batch, keys, view=0), augment(second, keys, view=1)


def _partner(batch: Batch, keys: Keys, share: float) -> Batch:
    pair: Batch = batch.paired["window"]
    if share == 1.0:
        return pair
    take = keys.uniform((1, 1), _PAIRED) < share
    observed = None
    if batch.observed is not None or pair.observed is not None:
        here, there = (torch.ones_like(b.x, dtype=torch.bool) if b.observed is None else b.observed for b in (batch, pair))
        observed = torch.where(take, there, here)
    return replace(batch, x=torch.where(take, pair.x, batch.x), observed=observed, paired={})


def pooled(tokens: Tokens, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
    """Mean of the observed tokens of every window, and which windows have any.

    Parameters
    ----------
    tokens : Tokens
        What was encoded.
    encoded : Encoded

    Returns
    -------
    Tensor, (B, D)
        Finite: a window of which nothing was observed is pooled over all of its tokens.
    Tensor, bool, (B,), or None
        Which windows count; None = all, known without asking the device.
    """
    if tokens.complete:
        B = len(encoded.x)
        # all processes must take part in the gathering of a loss, whether their own windows are complete or not
        valid = None if world_size() == 1 else torch.ones(B, dtype=torch.bool, device=encoded.x.device)
        return pool_tokens(encoded), valid
    valid = encoded.observed.any(dim=1)
    return pool_tokens(replace(encoded, observed=encoded.observed | ~valid[:, None])), valid


def features(encoder: Encoder, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """:func:`pooled` features (B, D) of a batch, and which windows count."""
    tokens = encoder.tokenize(batch)
    return pooled(tokens, encoder.encode(tokens))


def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Rows that count in both; None = all."""
    return b if a is None else a if b is None else a & b


def watched(features: Tensor, z: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
    """``watch`` of an Outcome: features (B, D), and projections (B, E) of length sqrt(E), whose variance is about 1 when healthy.

    ``target`` (B, E): what the projections are compared with, where that comes from another network.
    """
    named = {"prediction": z} if target is None else {"prediction": z, "target": target}
    scaled = {k: F.normalize(v.detach().float(), dim=-1) * v.shape[-1] ** 0.5 for k, v in named.items()}
    return {"embedding": features.detach().float(), **scaled}


def with_penalty(outcome: Outcome, augment: Pipeline | None) -> Outcome:
    """The penalty of learned augmentations on top of the loss."""
    penalty = None if augment is None else augment.penalty()
    if penalty is not None:
        outcome.loss = outcome.loss + penalty
        outcome.terms["penalty"] = penalty.detach()
    return outcome


class TwoViewsConfig(Protocol):
    """What the settings of a :class:`TwoViews` objective have beside its own; each class states them, in its own order."""

    name: ClassVar[str]
    pairing: Pairing
    pairing_share: float


C = TypeVar("C", bound=TwoViewsConfig)


class TwoViews(Objective, Generic[C]):
    """An objective that compares two views of every window of a batch, its encoder behind both.

    The one level between :class:`~biossl.objectives.base.Objective` and an objective. It holds what all of them have: encoder,
    settings, augmentations, the length of the run, the checks below, and the way from a batch to views and to their features. A
    subclass makes what stands behind the encoder in :meth:`_build` and computes its loss in ``step``.

    Parameters
    ----------
    encoder : Encoder
    config : TwoViewsConfig
        The subclass's own.
    augment : Pipeline or None
        Views 0 and 1 of it.
    mask : None
        None is used.
    steps : int
        Of the run, for what changes over it.

    Raises
    ------
    RequestError
        A mask; neither augmentations nor pairing.
    """

    def __init__(
        self, encoder: Encoder, config: C, *, augment: Pipeline | None, mask: MaskConfig | None = None, steps: int = 1
    ) -> None:
        super().__init__()
        require_no_mask(mask, objective=config.name)
        if (augment is None or augment.idle) and config.pairing == "none":
            raise RequestError(
                f"objective {config.name}: without augmentations and without pairing both views are the same window; give augment: "
                "a policy or a list, or objective.pairing: adjacent"
            )
        self.config, self.augment, self.steps = config, augment, steps
        self.encoder: Encoder = encoder
        self._build(encoder, config)

    def _build(self, encoder: Encoder, config: C) -> None:
        """Make the networks behind the encoder and set ``needs``; called once, last of all."""
        raise NotImplementedError  # every subclass

    def views(self, batch: Batch, keys: Keys) -> tuple[Batch, Batch]:
        """:func:`two_views` of a batch as the settings say."""
        return two_views(batch, keys, self.augment, pairing=self.config.pairing, share=self.config.pairing_share)

    def features(self, views: tuple[Batch, Batch]) -> tuple[Tensor, Tensor, Tensor | None]:
        """:func:`pooled` features (B, D) of each view, and which windows count in both."""
        (h1, valid1), (h2, valid2) = (features(self.encoder, view) for view in views)
        return h1, h2, both(valid1, valid2)
