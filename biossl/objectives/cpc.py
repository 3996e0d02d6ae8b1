"""CPC: from the past of a window, tell its next moments apart from other moments.

What lives here: contrastive predictive coding (van den Oord et al., arXiv 1807.03748) "after" its source on the encoder of the
recipe: the context is that encoder's own pooled feature of the past, which it sees and nothing else. Why not a recurrent
network over patches stands in ``docs/methods/moments.md``. The loss is in ``losses_moments.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from biossl.augment.base import Pipeline
from biossl.batch import Batch, TimeKeep, Tokens
from biossl.errors import RequestError
from biossl.keys import Keys, hash_ints
from biossl.models.heads import Projector, ProjectorConfig
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.losses_moments import Negatives, cpc_nce
from biossl.objectives.masking import MaskConfig, require_maskable
from biossl.objectives.stretches import stretch
from biossl.objectives.views import both, check_temperature, pooled, require_no_mask, watched, with_penalty

_FIRST_DRAW = 6_000_000  # draw numbers of this objective, away from those of augmentations and masks


@dataclass
class CPCConfig:
    """Settings of :class:`CPC`.

    Attributes
    ----------
    ahead : int
        K: how many patches after the past are told apart; published for speech: 12 of 10 ms.
    past : int
        Fewest patches of a past; how many there are is drawn anew for every step, from this to all but ``ahead``.
    negatives : {"both", "same_sequence", "other_windows"}
        From what a moment is told apart: other times of its window, other windows (other subjects among them), or both, so
        that neither who it is nor when it is solves the task.
    temperature : float
    projector : ProjectorConfig
        Of the moments; the map from the past has the same layers, and K times the outputs.
    """

    ahead: int = 4
    past: int = 4
    negatives: Negatives = "both"
    temperature: float = 0.1
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.ahead < 1 or self.past < 1:
            raise ValueError(f"ahead and past must be at least 1 patch, not {self.ahead} and {self.past}")
        if self.negatives == "same_sequence" and self.ahead < 2:
            raise ValueError("with ahead 1 a sequence has no other moment to tell apart; raise ahead, or take negatives: both")


class CPC(Objective):
    """Encoder, a projector g for moments, and one q for pasts, with a last linear map W_k for each step ahead.

    With c_b the mean of the encoder's tokens of the past of window b, encoded without what follows, and m_bk the mean of those
    of the k-th patch after it, encoded by itself as if it were the first of a window:

        L = InfoNCE(W_k q(c_b), g(m_bk))      (:func:`biossl.objectives.losses_moments.cpc_nce`)

    Parameters
    ----------
    encoder : TransformerEncoder
    config : CPCConfig
    mask : None
        None is used.
    augment : Pipeline, optional
        The source needs none; given, one view serves past and future.
    steps : int
        Of the run; not used.

    Raises
    ------
    RequestError
        A mask; a window too short for the past and the steps ahead.
    """

    def __init__(
        self, encoder: TransformerEncoder, config: CPCConfig, *, augment: Pipeline | None = None, mask: MaskConfig | None = None,
        steps: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        require_maskable(encoder, objective="cpc")
        require_no_mask(mask, objective="cpc")
        P = encoder.grid[1]
        if config.ahead + config.past > P:
            raise RequestError(
                f"objective.ahead: {config.ahead} patches after a past of {config.past} do not fit into a window of {P}; take fewer, "
                "a smaller model.patch_s or a view of longer windows"
            )
        self.config, self.augment = config, augment
        self.encoder: TransformerEncoder = encoder
        head = config.projector
        self.projector = head.build(encoder.dim)
        self.predictor = Projector(encoder.dim, head.hidden, config.ahead * head.out, layers=head.layers, norm=head.norm)
        self.needs = SamplePlan(in_batch=config.negatives != "same_sequence" or head.norm == "batch")

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        ``watch``: ``embedding`` (B, D) the pasts, ``prediction`` (n, E) the projected moments.
        """
        if self.augment is not None:
            batch = self.augment(batch, keys)
        tokens = self.encoder.tokenize(batch)
        B, K = len(batch), self.config.ahead
        n, start = self._past(tokens, keys)
        past = start[:, None] + torch.arange(n, device=start.device)
        context, there = pooled(tokens, self.encoder.encode(tokens, keep=TimeKeep(past)))
        after = start + n + torch.arange(K, device=start.device)[:, None]  # (K, B)
        frames = stretch(tokens, after.flatten(), 1)
        moments, exist = pooled(frames, self.encoder.encode(frames))
        z = self.projector(moments, exist).view(K, B, -1).transpose(0, 1)
        valid = both(None if there is None else there[:, None], None if exist is None else exist.view(K, B).T)
        prediction = self.predictor(context, there).view(B, K, -1)
        loss = cpc_nce(prediction, z, temperature=self.config.temperature, negatives=self.config.negatives, valid=valid)
        seen = slice(None) if valid is None else valid.flatten()
        return with_penalty(Outcome(loss, {"nce": loss.detach()}, watched(context, z.flatten(0, 1)[seen])), self.augment)

    def _past(self, tokens: Tokens, keys: Keys) -> tuple[int, Tensor]:
        """How many patches the pasts of this step have, and where each begins (B,)."""
        assert tokens.grid is not None
        least, most = self.config.past, tokens.grid[1] - self.config.ahead
        n = least + hash_ints(keys.seed, keys.step, _FIRST_DRAW) % (most - least + 1)
        return n, (keys.uniform((), _FIRST_DRAW + 1) * (most - n + 1)).long()
