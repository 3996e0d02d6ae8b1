"""The recipe as dataclasses: what a YAML file of ``recipes/`` means once it is read.

What lives here: every section that belongs to no method (data, train, monitor, checkpoint), and :class:`Recipe`, which
holds them beside the named parts (model, mask, objective, schedule) whose dataclasses live with their methods. Reading
and overriding is in ``load.py``; no file is opened here. A recipe can also be made in Python, for sweeps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from biossl.config import to_plain
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.objectives.base import Objective


@dataclass
class Part:
    """A named choice (``name: jepa``) and the filled dataclass of that choice."""

    name: str
    config: Any

    def to_dict(self) -> dict[str, Any]:
        """``{"name": ..., **fields}``."""
        return {"name": self.name, **to_plain(self.config)}


@dataclass
class Data:
    """What of a corpus is used, and how it is loaded.

    Attributes
    ----------
    batch_size : int
        Windows per optimiser step, over all devices and micro-batches.
    workers : int
        Loader processes per device; 0 = load in the training process.
    channels : list of str
        Canonical names in order; empty = all channels of the corpus.
    sfreq, window_s : float or None
        What the corpus must have, where the recipe is tied to it (Hz, s); None = the corpus decides.
    """

    batch_size: int
    workers: int = 0
    channels: list[str] = field(default_factory=list)
    sfreq: float | None = None
    window_s: float | None = None


@dataclass
class Optimizer:
    """AdamW.

    Attributes
    ----------
    lr : float
        Peak learning rate.
    weight_decay, weight_decay_end : float
        Weight decay; it moves to ``weight_decay_end`` over the run when that is given.
    weight_decay_ramp : {"linear", "cosine"}
        How it moves there.
    betas, eps
        AdamW's own.
    layer_decay : float
        Factor of the learning rate from each encoder block to the one before it; 1 = off
        (:func:`biossl.training.optim.make_optimizer`).
    """

    lr: float
    name: Literal["adamw"] = "adamw"
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    weight_decay_ramp: Literal["linear", "cosine"] = "linear"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    layer_decay: float = 1.0


@dataclass
class Train:
    """The optimisation.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    optimizer : Optimizer
    schedule : Part
        Learning rate; one of :mod:`biossl.schedules`.
    accumulate : int
        Micro-batches per optimiser step; ``data.batch_size`` is divided by it, so the result does not change, except for losses
        that compare the windows of a batch with each other.
    precision : str
        ``fp32`` or ``bf16`` (autocast; losses stay in fp32).
    clip_norm : float or None
        Largest global gradient norm; None = off.
    """

    steps: int
    optimizer: Optimizer
    schedule: Part
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    clip_norm: float | None = None

    def lr(self, step: int) -> float:
        """Learning rate at optimiser step ``step`` (0-based)."""
        return float(self.schedule.config.value(step, peak=self.optimizer.lr, total=self.steps))

    def weight_decay(self, step: int) -> float:
        """Weight decay at optimiser step ``step`` (0-based)."""
        from biossl.schedules import cosine_ramp, linear_ramp

        start, end = self.optimizer.weight_decay, self.optimizer.weight_decay_end
        ramp = linear_ramp if self.optimizer.weight_decay_ramp == "linear" else cosine_ramp
        return ramp(step, total=self.steps, start=start, end=start if end is None else end)


@dataclass
class Probe:
    """Linear probe during pretraining: ``label`` of the corpus (empty = off), every ``every`` steps, on ``samples`` windows."""

    label: str = ""
    every: int = 500
    samples: int = 2000


@dataclass
class Monitor:
    """Collapse monitors: a JEPA's loss is no sign of progress.

    Attributes
    ----------
    every : int
        Steps between two readings; 0 = off.
    samples : int
        Windows per reading; at least four times the encoder's width is used whatever stands here.
    stop_target_variance, stop_prediction_variance : float
        The run stops when a variance over tokens, mean of features, stays below this after ``stop_after`` steps (0 = never).
    stop_after : int
        First step at which the run may be stopped.
    log_every : int
        Steps between two rows of the training log.
    probe : Probe
    """

    every: int = 100
    samples: int = 1024
    stop_target_variance: float = 0.01
    stop_prediction_variance: float = 0.0001
    stop_after: int = 500
    log_every: int = 10
    probe: Probe = field(default_factory=Probe)


@dataclass
class Checkpoint:
    """A checkpoint every ``every`` steps and at the end; the last ``keep`` stay."""

    every: int = 500
    keep: int = 2


@dataclass
class Recipe:
    """Everything that decides a pretraining run, apart from the corpus.

    ``model``, ``mask`` and ``objective`` are named parts (``biossl.recipe.tables``); ``mask`` is None for objectives
    that mask nothing. ``augment`` is a list of named parts, applied in order; a file may name a policy instead, whose list then
    stands here. ``source`` is where it was read, and no part of :meth:`to_dict`.
    """

    name: str
    modality: Literal["ecg", "eeg", "imu"]
    data: Data
    model: Part
    objective: Part
    train: Train
    mask: Part | None = None
    augment: list[Part] = field(default_factory=list)
    monitor: Monitor = field(default_factory=Monitor)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    seed: int = 0
    format: int = 1
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, every default written out; ``load_recipe`` reads it back to an equal recipe."""
        out: dict[str, Any] = {}
        for name in (
            "format",
            "name",
            "modality",
            "seed",
            "data",
            "model",
            "mask",
            "augment",
            "objective",
            "train",
            "monitor",
            "checkpoint",
        ):
            value = getattr(self, name)
            if isinstance(value, Part):
                out[name] = value.to_dict()
            elif name == "augment":
                if value:  # absent where there is none, as in the files
                    out[name] = [part.to_dict() for part in value]
            elif isinstance(value, Train):
                out[name] = {
                    f.name: value.schedule.to_dict() if f.name == "schedule" else to_plain(getattr(value, f.name))
                    for f in dataclasses.fields(value)
                }
            elif value is not None:
                out[name] = to_plain(value)
        return out

    @property
    def hash(self) -> str:
        """16 hex digits that change when anything that decides the run does (the name does not)."""
        facts = {k: v for k, v in self.to_dict().items() if k != "name"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def build(self, spec: InputSpec) -> Objective:
        """The objective with its freshly initialised encoder, a pure function of (recipe, spec).

        Parameters
        ----------
        spec : InputSpec
            Of the corpus, restricted to ``data.channels``.

        Raises
        ------
        RequestError
            The recipe does not fit the spec (patch not a whole number of samples, width not divisible by heads).
        """
        from biossl.recipe.tables import build_objective

        return build_objective(self, spec)
