"""TS2Vec: tokens of the same moment in two overlapping crops agree, at every scale of time.

What lives here: the objective of TS2Vec (Yue et al., arXiv 2106.10466) "after" its source: the transformer of the recipe in
place of dilated convolutions, crops in whole patches. The loss is in ``losses_moments.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch, Encoded, Tokens
from biossl.errors import RequestError
from biossl.keys import Keys, hash_ints
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses_moments import hierarchical_contrast
from biossl.objectives.masking import MaskConfig, require_maskable
from biossl.objectives.stretches import stretch
from biossl.objectives.views import watched, with_penalty

_FIRST_DRAW = 6_100_000  # draw numbers of this objective, away from those of augmentations and masks


@dataclass
class TS2VecConfig:
    """Settings of :class:`TS2Vec`; the defaults are the published ones but for ``overlap``.

    Attributes
    ----------
    overlap : int
        Fewest patches that both crops have; at least 2, for one has no other time. How many there are is drawn anew for
        every step.
    masked : float
        Share of the patches of a crop whose tokens are 0, drawn for each crop and patch, the same for all channels.
    alpha : float
        Weight of the contrast between windows; that between times of a window has 1 - alpha.
    """

    overlap: int = 4
    masked: float = 0.5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.overlap < 2:
            raise ValueError(f"overlap must be at least 2 patches, not {self.overlap}: crops are compared where both are")
        if not 0.0 <= self.masked < 1.0 or not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"masked must be from 0 to below 1 and alpha from 0 to 1, not {self.masked:g} and {self.alpha:g}")


class TS2Vec(Objective):
    """The encoder alone: no projector, no copy.

    Parameters
    ----------
    encoder : TransformerEncoder
    config : TS2VecConfig
    mask : None
        The objective hides patches by its own setting ``masked``.
    augment : Pipeline, optional
        The source argues against any; given, one view serves both crops, so that moments stay the same.
    steps : int
        Of the run; not used.

    Raises
    ------
    RequestError
        A mask; an overlap longer than the window.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: TS2VecConfig, *, augment: Pipeline | None = None,
        mask: MaskConfig | None = None, steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        require_maskable(encoder, objective="ts2vec")
        if mask is not None:
            raise RequestError("key 'mask': objective ts2vec hides patches by objective.masked; leave the section out")
        if config.overlap > encoder.grid[1]:
            raise RequestError(
                f"objective.overlap: {config.overlap} patches, but a window has {encoder.grid[1]}; take fewer, or a view of longer "
                "windows"
            )
        self.config, self.augment = config, augment
        self.encoder: TransformerEncoder = encoder
        self.needs = SamplePlan(in_batch=config.alpha > 0)

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``terms``: ``instance``, ``temporal``, weighted. ``watch``: ``embedding`` (B, D) mean of the first crop's overlap,
        ``prediction`` (n, D) its moments.
        """
        if self.augment is not None:
            batch = self.augment(batch, keys)
        tokens = self.encoder.tokenize(batch)
        overlap, crops = self._crops(tokens, keys)
        moments, there = [], None
        for v, (start, n, first) in enumerate(crops):
            hidden = keys.uniform((n,), _FIRST_DRAW + 3 + v) < self.config.masked
            z, seen = self._moments(stretch(tokens, start, n), hidden)
            moments.append(z[:, first : first + overlap])
            there = None if seen is None else seen[:, first : first + overlap]  # the same in both crops
        terms = hierarchical_contrast(moments[0], moments[1], alpha=self.config.alpha, valid=there)
        loss = terms["instance"] + terms["temporal"]
        z = moments[0]
        count = slice(None) if there is None else there.flatten()
        watch = watched(z.mean(dim=1), z.flatten(0, 1)[count])
        return with_penalty(Outcome(loss, {k: v.detach() for k, v in terms.items()}, watch), self.augment)

    def _crops(self, tokens: Tokens, keys: Keys) -> tuple[int, list[tuple[Tensor, int, int]]]:
        """Patches of the overlap; of each crop its starts (B,), its length, and where the overlap begins in it.

        Lengths are those of the step, places those of each window.
        """
        assert tokens.grid is not None
        P = tokens.grid[1]
        overlap = self.config.overlap + hash_ints(keys.seed, keys.step, _FIRST_DRAW) % (P - self.config.overlap + 1)
        before = hash_ints(keys.seed, keys.step, _FIRST_DRAW + 1) % (P - overlap + 1)  # what the first crop has alone
        after = hash_ints(keys.seed, keys.step, _FIRST_DRAW + 2) % (P - overlap - before + 1)  # and the second
        start = (keys.uniform((), _FIRST_DRAW) * (P - overlap - before - after + 1)).long()
        return overlap, [(start, before + overlap, before), (start + before, overlap + after, 0)]

    def _moments(self, crop: Tokens, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """One vector a time patch (B, n, D): mean of its observed channels; and which have any (B, n), None = all.

        Scaled so that dot products have the size of attention's: a layer-normalised token has length sqrt(D).
        """
        assert crop.grid is not None
        C, n = crop.grid
        masked = replace(crop, x=torch.where(hidden.repeat(1, C)[..., None], 0.0, crop.x))
        encoded: Encoded = self.encoder.encode(masked)
        z = encoded.x.unflatten(1, (C, n)) * self.encoder.dim**-0.25
        if crop.complete:
            return z.mean(dim=1), None
        seen = crop.observed.view(-1, C, n)
        return (z * seen[..., None]).sum(dim=1) / seen.sum(dim=1).clamp_min(1)[..., None], seen.any(dim=1)
