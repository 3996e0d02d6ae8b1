"""Going on with a finished run on other recordings, at the rate it had before its anneal.

What lives here: which checkpoint of a run is gone on from, and putting its weights and optimiser moments into a new run. The
encoder that was released stays as it is; nothing of the old run is changed. Source: infinite learning rates, arXiv 2503.02844.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from biossl.checkpoint import load_encoder
from biossl.errors import DataError, RequestError
from biossl.recipe import Part, Recipe, load_recipe
from biossl.training.state import RunFolder, checkpoint_name, optimizer_moments, verify_checkpoint

if TYPE_CHECKING:
    import torch

    from biossl.training.loop import Loop


@dataclass(frozen=True)
class Past:
    """Where a run is gone on from: the checkpoint before its anneal, and the encoder it holds."""

    run: Path
    checkpoint: Path
    hash: str
    seen: dict[str, Any]

    def start(self, loop: Loop) -> None:
        """Weights of encoder, averaged copies and helpers."""
        loop.load_state_dict(load_file(self.checkpoint / "state" / "objective.safetensors"))

    def moments(self, optimizer: torch.optim.Optimizer) -> None:
        """Moments of the optimiser; rates and decays stay those of the new recipe."""
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": optimizer_moments(self.checkpoint), "param_groups": groups})


def find_past(run: str | Path, recipe: Recipe) -> Past:
    """The checkpoint of a finished run before its rate was lowered for release.

    Parameters
    ----------
    run : path
        Run folder of ``biossl pretrain``.
    recipe : Recipe
        Of the run to come: model, objective and mask must be those of the past run.

    Raises
    ------
    RequestError
        No run, an unfinished one, one whose schedule has no constant phase, a recipe of another model or objective.
    DataError
        The checkpoint is gone or damaged.
    """
    folder = RunFolder(Path(run))
    if not folder.facts.is_file():
        raise RequestError(f"--continue {run}: no run of `biossl pretrain` there (no run.json); name its run folder")
    if not folder.saved().get("finished"):
        raise RequestError(f"--continue {run}: the run is not finished; ask for it again to finish it first")
    before = load_recipe(folder.recipe)
    step = before.train.schedule.config.released_from(before.train.steps)
    if step is None or recipe.train.schedule.config.released_from(recipe.train.steps) is None:
        which = f"the run's schedule is {before.train.schedule.name}, the recipe's {recipe.train.schedule.name}"
        raise RequestError(
            f"--continue {run}: {which}; both must be infinite or constant_cooldown, whose rate is constant before the end; "
            "or begin from the released encoder with --init"
        )
    for name in ("model", "objective", "mask"):
        there, here = (None if p is None else p.to_dict() for p in (getattr(before, name), getattr(recipe, name)))
        if there != here:
            raise RequestError(
                f"--continue {run}: section '{name}' of the recipe differs from the run's ({folder.recipe}); take that recipe"
            )
    checkpoint = folder.checkpoints / checkpoint_name(step)
    if not checkpoint.is_dir():
        raise DataError(f"{checkpoint}: the checkpoint before the anneal is gone; begin from the released encoder with --init")
    verify_checkpoint(checkpoint)
    encoder = load_encoder(checkpoint / "encoder")
    return Past(Path(run), checkpoint, encoder.info["hash"], encoder.info["seen"])


def without_beginning(recipe: Recipe) -> Recipe:
    """The recipe whose rate is constant from its first step on: no second warm-up."""
    schedule = recipe.train.schedule
    return dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, schedule=Part(schedule.name, schedule.config.from_constant()))
    )


def already_done(out: str | Path, past: Past, recipe: Recipe) -> dict[str, Any] | None:
    """What a finished run in ``out`` that went on from ``past`` with this recipe gave; None when there is no such run.

    A run may end and the judging of the old task after it be killed: then only that is left to do.
    """
    folder = RunFolder(Path(out))
    facts = folder.saved() if folder.facts.is_file() else {}
    plan = facts.get("plan", {})
    if not facts.get("finished") or plan.get("init") != past.hash or plan.get("recipe") != without_beginning(recipe).to_dict():
        return None
    kept = {k: facts[k] for k in ("steps", "numbers", "alarms", "parameters", "wall_s")}
    return {"run": str(folder.path), "encoder": str(folder.encoder), "resumed_from": None, **kept}
