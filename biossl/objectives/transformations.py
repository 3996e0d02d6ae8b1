"""Transformation prediction: say which transformations a window went through.

What lives here: the multi-task objective of HARNet (arXiv 2206.02909) for accelerometers, and its relative for ECG (Sarkar
and Etemad, arXiv 1910.07497). The transformations themselves are pure functions of ``biossl.augment``; here it is only
decided which window gets which, and from what the encoder has to tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.augment.base import Pipeline, blend
from biossl.augment.functional import between, gain, normal
from biossl.augment.warp import permute_segments, time_reverse, time_warp
from biossl.batch import Batch
from biossl.distributed import all_gather
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import Encoder
from biossl.objectives.base import Objective, Outcome, SamplePlan
from biossl.objectives.masking import MaskConfig
from biossl.objectives.views import features, require_no_mask, with_penalty

Task = Literal["reverse", "permute", "time_warp", "scale", "flip"]
TASKS: tuple[Task, ...] = ("reverse", "permute", "time_warp", "scale", "flip")

_FIRST_DRAW = 5_000_000  # draw numbers of this objective, away from those of augmentations and masks
_TASK_DRAWS = 1_000


@dataclass
class TransformationsConfig:
    """Settings of :class:`Transformations`; the defaults are HARNet's, in seconds instead of samples at 30 Hz.

    Attributes
    ----------
    tasks : list
        Of ``reverse``, ``permute``, ``time_warp``, ``scale``, ``flip``; applied in this order, each with probability 0.5.
    segments : int
        Pieces of a permutation.
    min_segment_s : float
        Shortest piece, s.
    warp_knots : int
        Inner knots of the curve of speeds.
    warp_sd : float
        Standard deviation of the speeds around 1.
    scale_range : float
        A scaled window is multiplied by a factor uniform in 1 +- ``scale_range``.
    sampler : {"uniform", "motion"}
        ``motion``: windows with more motion are drawn more often; needs acceleration.
    """

    tasks: list[Task] = field(default_factory=lambda: list(TASKS[:3]))
    segments: int = 4
    min_segment_s: float = 0.33
    warp_knots: int = 4
    warp_sd: float = 0.2
    scale_range: float = 0.5
    sampler: Literal["uniform", "motion"] = "uniform"

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must name each transformation once, of {', '.join(TASKS)}, not {self.tasks}")
        if self.segments < 2 or self.warp_knots < 1 or self.min_segment_s <= 0 or self.warp_sd <= 0:
            raise ValueError("segments must be at least 2, warp_knots at least 1, min_segment_s and warp_sd above 0")
        if not 0.0 < self.scale_range < 1.0:
            raise ValueError(f"scale_range must be between 0 and 1, not {self.scale_range:g}")


class Transformations(Objective):
    """Encoder and one linear head a task on its mean-pooled features.

    Parameters
    ----------
    encoder : Encoder
    config : TransformationsConfig
    mask : None
        Nothing is masked.
    steps : int
        Not used: nothing is scheduled.
    augment : Pipeline, optional
        Applied after the tasks to every window, without a label: what the encoder should learn to ignore.

    Raises
    ------
    RequestError
        A mask, a ``scale`` task behind an encoder that normalises each window, segments longer than the window.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: TransformationsConfig,
        *,
        mask: MaskConfig | None = None,
        steps: int,
        augment: Pipeline | None = None,
    ) -> None:
        super().__init__()
        spec = encoder.spec
        require_no_mask(mask, objective="transformations")
        if "scale" in config.tasks and encoder.config.normalise == "window":
            raise RequestError(
                "objective.tasks: with model.normalise 'window' no scaling can be seen; leave out 'scale' or normalise 'fixed'"
            )
        self.min_segment = max(1, round(config.min_segment_s * spec.sfreq))
        if "permute" in config.tasks and config.segments * self.min_segment > spec.n_samples:
            raise RequestError(
                f"objective.min_segment_s: {config.segments} segments of {config.min_segment_s:g} s do not fit into a window of "
                f"{spec.window_s:g} s; take at most {spec.window_s / config.segments:g}"
            )
        self.config, self.augment = config, augment
        self.needs = SamplePlan(sampler=config.sampler)
        self.encoder: Encoder = encoder
        self.head = nn.Linear(encoder.dim, len(config.tasks))

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch; see :class:`~biossl.objectives.base.Objective`.

        A window of which nothing was observed counts for nothing. ``terms``: ``accuracy_<task>``, share of the others told
        right; ``penalty`` of learned augmentations. ``watch``: ``embedding`` (B, D).
        """
        batch, truth = self.transform(batch, keys)
        if self.augment is not None:
            batch = self.augment(batch, keys)
        z, valid = features(self.encoder, batch)
        scores = self.head(z)
        scores = scores if scores.dtype == torch.float64 else scores.float()
        use = scores.new_ones(len(scores)) if valid is None else valid.to(scores.dtype)
        each = F.binary_cross_entropy_with_logits(scores, truth.to(scores.dtype), reduction="none").mean(dim=1)
        total = all_gather(torch.stack([(each * use).sum(), use.sum()])[None]).sum(dim=0)  # processes may have unequal numbers
        right = ((scores.detach() > 0) == truth).to(use) * use[:, None]
        share = right.sum(dim=0) / use.sum().clamp_min(1.0)
        terms = {f"accuracy_{task}": share[k] for k, task in enumerate(self.config.tasks)}
        outcome = Outcome(total[0] / total[1].clamp_min(1.0), terms, {"embedding": z.detach().float()})
        return with_penalty(outcome, self.augment)

    @torch.no_grad()
    def transform(self, batch: Batch, keys: Keys) -> tuple[Batch, Tensor]:
        """The transformed windows and which task was done to which, bool (B, K)."""
        truth = keys.uniform((len(self.config.tasks),), _FIRST_DRAW) < 0.5
        for k, task in enumerate(self.config.tasks):
            changed = self.transformed(task, batch, keys, _FIRST_DRAW + (1 + TASKS.index(task)) * _TASK_DRAWS)
            batch = blend(batch, changed, truth[:, k])
        return batch, truth

    def transformed(self, task: Task, batch: Batch, keys: Keys, draw: int) -> Batch:
        """Every window after one task; ``draw`` .. ``draw + 1`` are its draw numbers."""
        x, seen, config = batch.x, batch.observed, self.config
        if task == "reverse":  # the label is the time axis, so rotation rates are not negated as in a movement run backwards
            x, seen = time_reverse(x, seen)
        elif task == "permute":
            S, T = config.segments, x.shape[2]
            order = keys.uniform((S,), draw).argsort(dim=1)
            nothing = (order == torch.arange(S, device=x.device)).all(dim=1, keepdim=True)
            order = torch.where(nothing, order.roll(1, dims=1), order)  # the label must not contradict the window
            free = keys.uniform((S - 1,), draw + 1).sort(dim=1).values * (T + 1 - S * self.min_segment)
            inner = free.long() + self.min_segment * torch.arange(1, S, device=x.device)
            bound = torch.cat([torch.zeros_like(inner[:, :1]), inner, torch.full_like(inner[:, :1], T)], dim=1)
            x, seen = permute_segments(x, order, seen, bound=bound)
        elif task == "time_warp":
            speeds = 1 + config.warp_sd * normal(keys.uniform((config.warp_knots + 2,), draw))  # the two ends besides
            x, seen = time_warp(x, speeds, seen)
        elif task == "scale":
            x = gain(x, between(keys.uniform((), draw), 1 - config.scale_range, 1 + config.scale_range))
        else:
            x = -x
        return replace(batch, x=x, observed=seen)
