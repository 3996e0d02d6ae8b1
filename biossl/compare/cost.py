"""What one optimiser step of a recipe costs, and the number of steps a budget buys.

What lives here: floating-point operations by counting those of two tiny runs of the real loop, seconds by timing them.
Attention is counted in its plain form (two products), whichever kernel runs. Nothing is kept of the tiny runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from biossl.compare.mixtures import Sources
from biossl.compare.plan import for_budget
from biossl.errors import RequestError
from biossl.recipe.schema import Recipe
from biossl.training import pretrain

TIMED_STEPS = 12
_WARM = 3


@dataclass(frozen=True)
class Cost:
    """Of one optimiser step: ``flops`` (multiply and add count as two), ``seconds`` here (NaN = not timed)."""

    flops: int
    seconds: float


def measure(recipe: Recipe, sources: Sources, split: str, *, timed: bool) -> Cost:
    """Cost of one optimiser step: differences of runs that differ in their number of steps only.

    Parameters
    ----------
    recipe : Recipe
    sources : list of (Corpus, weight)
    split : str
        Its part ``train`` is used.
    timed : bool
        Also take the time; it belongs to this machine at this hour.
    """
    flops = _counted(recipe, sources, split, 2) - _counted(recipe, sources, split, 1)
    seconds = float("nan")
    if timed:
        seconds = (_timed(recipe, sources, split, _WARM + TIMED_STEPS) - _timed(recipe, sources, split, _WARM)) / TIMED_STEPS
        seconds = max(seconds, 1e-6)
    return Cost(int(flops), seconds)


def steps_for(recipe: Recipe, cost: Cost, kind: str, amount: float) -> int:
    """Steps that a budget buys: ``steps`` (N), ``flops`` or ``seconds`` of one run.

    Raises
    ------
    RequestError
        It buys less than one step.

    Examples
    --------
    >>> steps_for(None, Cost(10**9, 0.5), "flops", 1e12), steps_for(None, Cost(10**9, 0.5), "seconds", 60)
    (1000, 120)
    """
    steps = int(amount) if kind == "steps" else int(amount // (cost.flops if kind == "flops" else cost.seconds))
    if steps < 1:
        each = f"{cost.flops:.3g}" if kind == "flops" else f"{cost.seconds:.3g}"
        raise RequestError(f"--{kind} {amount:g}: less than one step of {recipe.name} ({each} {kind}); give more")
    return steps


def _counted(recipe: Recipe, sources: Sources, split: str, steps: int) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        _run(recipe, sources, split, steps)
    return int(counter.get_total_flops())


def _timed(recipe: Recipe, sources: Sources, split: str, steps: int) -> float:
    begun = time.monotonic()
    _run(recipe, sources, split, steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - begun


def _run(recipe: Recipe, sources: Sources, split: str, steps: int) -> None:
    small = for_budget(recipe, steps, recipe.seed)
    monitor = dataclasses.replace(
        small.monitor, every=0, log_every=10**9, probe=dataclasses.replace(small.monitor.probe, label="")
    )
    small = dataclasses.replace(small, monitor=monitor, checkpoint=dataclasses.replace(small.checkpoint, every=10**9))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        pretrain(small, sources, Path(folder) / "run", split=split)
