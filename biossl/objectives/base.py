"""The contract between an objective and the training loop.

What lives here: SamplePlan, Outcome and the Objective base class. Nothing in ``training/`` asks which method runs;
nothing here knows about files, corpora or Lightning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.keys import Keys


@dataclass(frozen=True)
class SamplePlan:
    """What an objective asks of the loader.

    Attributes
    ----------
    pairing : {"none", "adjacent", "same_subject"}
        A second window for every window, in ``batch.paired["window"]`` (a Batch of the same order): the next one of the same
        recording without a gap (the one before at a recording's end; itself where a recording has one window), or any other
        one of the same subject.
    sampler : {"uniform", "motion", "subjects", "stretches"}
        How rows are drawn: every window once an epoch; with probability in proportion to its motion (standard deviation of
        the acceleration); ``windows_per_subject`` windows of each of batch_size / windows_per_subject subjects;
        batch_size / ``stretch`` stretches of windows that follow each other in a recording, around labelled ones.
    windows_per_subject : int
        For ``subjects``; divides the batch size.
    stretch : int
        For ``stretches``: windows of each; divides the batch size. A shorter recording ends in repeats of its last window.
    in_batch : bool
        The loss compares the windows of a batch with each other: it needs two of them, a corpus holds at least a batch, and
        micro-batches are not the same as one batch.
    several_subjects : bool
        The loss means nothing for windows of one subject.
    queue : int
        Earlier windows that the loss compares those of a batch with: at least a batch, at most the training windows. 0 = none.
    """

    pairing: Literal["none", "adjacent", "same_subject"] = "none"
    sampler: Literal["uniform", "motion", "subjects", "stretches"] = "uniform"
    windows_per_subject: int = 1
    stretch: int = 1
    in_batch: bool = False
    several_subjects: bool = False
    queue: int = 0


@dataclass
class Outcome:
    """One step's result.

    ``loss`` scalar with gradient; ``terms`` detached scalars to log; ``watch`` a subset of ``embedding`` (B, D),
    ``target`` (n, D), ``prediction`` (n, D), detached, for the collapse monitors.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    watch: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """A pretraining objective: owns its encoder and helpers, computes one step.

    Subclasses set ``needs`` (in the class, or in ``__init__`` where settings decide it) and implement :meth:`step`. The
    encoder is ``self.encoder``. Built by ``cls(encoder, config, mask=MaskConfig | None, augment=Pipeline | None, steps=int)``.
    """

    needs: SamplePlan = SamplePlan()
    encoder: nn.Module

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        """Loss of one micro-batch.

        Parameters
        ----------
        batch : Batch
        step : int
            Optimiser step (0-based): schedules are pure functions of it.
        keys : Keys
            All randomness.
        """
        raise NotImplementedError  # every subclass

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """AdamW groups: no decay on biases and other 1-D parameters; frozen parameters left out.

        Learned augmentations (``self.augment``) come last, in groups with a learning rate of their own (``lr_scale``).
        """
        augment = getattr(self, "augment", None)
        own = augment.own_groups() if isinstance(augment, Pipeline) else []
        apart = {id(p) for group in own for p in group["params"]}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        decay, plain = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
        return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}, *own]

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(source, target) modules of equal layout, updated by the loop after each optimiser step."""
        return []

    def ema_momentum(self, step: int) -> float:
        """Momentum m of ``target <- m target + (1 - m) source`` after optimiser step ``step`` (0-based)."""
        return 1.0

    def after_step(self) -> None:
        """Called by the loop once per optimiser step, last of all: for buffers that all micro-batches of a step move together."""

    def export(self) -> nn.Module:
        """The encoder to save."""
        return self.encoder
