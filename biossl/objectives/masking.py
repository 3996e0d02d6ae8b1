"""What every objective does with a mask: check it against the grid, weigh it by a prior, draw M of them.

What lives here: :class:`DrawnMask`, the one form in which an objective sees a mask, whether all channels share the hidden
times or every channel hides its own; the protocol of a mask's settings; :func:`require_mask`, :func:`mask_prior` and
:func:`draw_masks`. The settings themselves, what a recipe's ``mask`` section may say, are in ``mask_times.py`` and
``mask_tokens.py``, and are named here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
from torch import Tensor

from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.masks import Mask
from biossl.masks.priors import Prior, prior_weights, require_prior
from biossl.models.encoder import Encoder
from biossl.models.transformer import shared_rows
from biossl.objectives.mask_times import DisjointMask, MultiBlockMask, PartitionMask, RandomMask, SpanMask
from biossl.objectives.mask_tokens import ChannelMask, SpatialMask, STDMMask, TubeMask
from biossl.signal import InputSpec

__all__ = [
    "ChannelMask",
    "DisjointMask",
    "DrawnMask",
    "MaskConfig",
    "MultiBlockMask",
    "PartitionMask",
    "RandomMask",
    "STDMMask",
    "SpanMask",
    "SpatialMask",
    "TubeMask",
    "draw_masks",
    "mask_prior",
    "require_mask",
    "require_maskable",
]

if TYPE_CHECKING:
    from biossl.models.transformer import TransformerEncoder


@dataclass(frozen=True)
class DrawnMask:
    """Masks of one step on a token grid (C, P), tokens numbered lead-major (channel * P + patch).

    ``over`` "time": ``masked`` (R, M) and ``visible`` (R, K) number time patches that all channels share; "token": they
    number tokens. R = B, or n_masks * B with row m * B + b for mask m of sample b. Sorted int64.
    """

    masked: Tensor
    visible: Tensor
    grid: tuple[int, int]
    over: Literal["time", "token"] = "time"

    def keep(self) -> TimeKeep | Tensor:
        """What :meth:`Encoder.encode` takes as ``keep``: the visible tokens."""
        return TimeKeep(self.visible) if self.over == "time" else self.visible

    def masked_tokens(self) -> Tensor:
        """Token numbers that are hidden, int64, (R, C * M) or (R, M)."""
        return self._tokens(self.masked)

    def visible_tokens(self) -> Tensor:
        """Token numbers that are visible, int64, (R, C * K) or (R, K)."""
        return self._tokens(self.visible)

    def _tokens(self, index: Tensor) -> Tensor:
        if self.over == "token":
            return index
        C, P = self.grid
        times = shared_rows(index)  # a mask of the whole step is one row, expanded: so are its tokens
        tokens = (torch.arange(C, device=index.device)[:, None] * P + times[:, None, :]).flatten(1)
        return tokens.expand(len(index), -1)


class MaskConfig(Protocol):
    """Settings that can draw a mask over a token grid (C, P)."""

    @property
    def over(self) -> Literal["time", "token"]:
        """Whether :meth:`draw` numbers time patches that all channels share, or tokens."""

    @property
    def prior(self) -> Prior | None:
        """What makes a patch likelier to be hidden."""

    @property
    def per_sample(self) -> bool:
        """True: in a step every sample has its own mask of one size; False: one mask a step, of a size of its own."""

    @property
    def most(self) -> int | None:
        """How many masks of one sample there can be; None = any number."""

    def draw(self, keys: Keys, grid: tuple[int, int], number: int, prior: Tensor | None = None) -> Mask:
        """Mask ``number`` of this step; ``prior`` (B, P) or (B, C * P), not negative, makes a patch likelier to be hidden."""

    def require(self, grid: tuple[int, int], spec: InputSpec) -> MaskConfig:
        """The mask to draw from; RequestError in one line when on this grid nothing would be hidden, or nothing seen."""

    def share(self) -> float:
        """Expected share of hidden patches."""


def require_maskable(encoder: Encoder, *, objective: str) -> None:
    """RequestError where an objective hides parts of a window from an encoder that sees whole windows only."""
    if not encoder.maskable:
        raise RequestError(
            f"objective {objective} hides parts of a window, and a {encoder.architecture} sees whole windows only; take model.name: "
            "transformer, or an objective of whole windows, e.g. simclr"
        )


def require_mask(
    mask: MaskConfig | None, encoder: Encoder, *, objective: str, n_masks: int = 1, key: str = "n_masks"
) -> MaskConfig:
    """The mask to draw from, once it is sure that it fits this encoder's windows; asked by an objective when it is built.

    Parameters
    ----------
    mask : MaskConfig or None
    encoder : Encoder
    objective : str
        Named in the error.
    n_masks : int
        Masks of one sample and step.
    key : str
        The objective's setting that says so, named in the error.

    Raises
    ------
    RequestError
        An encoder that takes none; no mask; several masks of varying size, or more than the family has; nothing hidden or nothing seen on this grid; a
        prior without meaning for this signal or at this rate.
    """
    require_maskable(encoder, objective=objective)
    if mask is None:
        raise RequestError(f"key 'mask' is missing; objective {objective} needs one, e.g. mask: {{name: random, ratio: 0.6}}")
    if n_masks > 1 and not mask.per_sample:
        raise RequestError(f"objective.{key}: several masks need one size; give mask.ratio as one number, or {key}: 1")
    if mask.most is not None and n_masks > mask.most:
        raise RequestError(f"objective.{key}: {n_masks}, but mask.parts is {mask.most}; take at most as many")
    if mask.prior is not None:
        require_prior(mask.prior, encoder.spec)
    return mask.require(encoder.grid, encoder.spec)


def mask_prior(mask: MaskConfig, batch: Batch, encoder: Encoder) -> Tensor | None:
    """Weights of a mask's prior for every patch of a batch, float64 (B, C * P) on the encoder's grid; None without a prior.

    Parameters
    ----------
    mask : MaskConfig
    batch : Batch
        As the encoder will see it, after augmentation; as recorded where one prior serves several views.
    encoder : Encoder
        Its grid is used; the prior ``attention`` reads its last block (give the EMA target where there is one).
    """
    if mask.prior is None:
        return None
    return prior_weights(mask.prior, batch, cast("TransformerEncoder", encoder))  # the one that passes require_mask


def draw_masks(config: MaskConfig, keys: Keys, grid: tuple[int, int], n_masks: int, *, prior: Tensor | None = None) -> DrawnMask:
    """M masks of every sample, stacked: row m * B + b is mask m of sample b.

    Raises
    ------
    ValueError
        More than one mask of a family whose size varies: they could not be stacked.
    """
    if n_masks == 1:
        return DrawnMask(*config.draw(keys, grid, 0, prior), grid, config.over)
    if not config.per_sample:
        raise ValueError("several masks per target pass need masks of one size; give mask.ratio as one number")
    drawn = [config.draw(keys, grid, m, prior) for m in range(n_masks)]
    return DrawnMask(torch.cat([d.masked for d in drawn]), torch.cat([d.visible for d in drawn]), grid, config.over)
