"""Numbers of a recipe that have the right type and no meaning: a negative learning rate, a batch of 0 windows.

What lives here: :func:`check_limits`, which ``pretrain`` and ``check`` ask before anything is read or written. Whether the parts of a
recipe fit each other and a corpus is ``biossl.recipe.check``.
"""

from __future__ import annotations

from biossl.errors import RequestError
from biossl.recipe.schema import Recipe

_AT_LEAST = {
    "data.batch_size": 1, "data.workers": 0, "train.steps": 1, "train.accumulate": 1, "train.optimizer.weight_decay": 0,
    "train.optimizer.weight_decay_end": 0, "monitor.every": 0, "monitor.samples": 1, "monitor.log_every": 1,
    "monitor.stop_after": 0, "monitor.probe.every": 1, "monitor.probe.samples": 1, "checkpoint.every": 1, "checkpoint.keep": 1,
    "seed": 0,
}  # fmt: skip
_ABOVE_0 = ("train.optimizer.lr", "train.optimizer.eps", "train.clip_norm")


def check_limits(recipe: Recipe) -> None:
    """RequestError naming the first key whose number cannot be meant.

    Parameters
    ----------
    recipe : Recipe

    Examples
    --------
    >>> from biossl.recipe import load_recipe
    >>> check_limits(load_recipe("imu/jepa_small", {"train.optimizer.lr": "-1"}))
    Traceback (most recent call last):
    ...
    biossl.errors.RequestError: imu/jepa_small: key 'train.optimizer.lr' must be above 0, not -1
    """
    where = recipe.source or recipe.name
    for key, least in _AT_LEAST.items():
        value = _at(recipe, key)
        if value is not None and value < least:
            raise RequestError(f"{where}: key '{key}' must be at least {least}, not {value:g}")
    for key in _ABOVE_0:
        value = _at(recipe, key)
        if value is not None and value <= 0:
            raise RequestError(f"{where}: key '{key}' must be above 0, not {value:g}")
    if not 0 < recipe.train.optimizer.layer_decay <= 1:
        raise RequestError(
            f"{where}: key 'train.optimizer.layer_decay' must be above 0 and at most 1 (1 = off), "
            f"not {recipe.train.optimizer.layer_decay:g}"
        )
    betas = recipe.train.optimizer.betas
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise RequestError(f"{where}: key 'train.optimizer.betas' must be two numbers from 0 to below 1, not {betas}")


def remarks(recipe: Recipe) -> list[str]:
    """What is allowed and rarely meant, one line each with what to set; ``pretrain`` and ``check`` print them.

    Examples
    --------
    >>> from biossl.recipe import load_recipe
    >>> remarks(load_recipe("imu/jepa_small", {"train.steps": "10"}))[0][:62]
    'train.steps 10 ends before the warm-up (train.schedule.warmup_'
    """
    steps, schedule = recipe.train.steps, recipe.train.schedule.config
    warmup, least = schedule.warmup_steps, schedule.least_steps()
    if warmup < steps < least:
        return [
            f"train.steps {steps} is too short for the phases of the schedule, {least} steps in all, so the learning rate jumps and there "
            f"is no checkpoint to go on from; train for more steps, or shorten train.schedule's phases"
        ]
    if warmup < steps:
        return []
    return [
        f"train.steps {steps} ends before the warm-up (train.schedule.warmup_steps {warmup}), so the learning rate never reaches "
        f"{recipe.train.optimizer.lr:g}; set --train.schedule.warmup_steps {steps // 10}, or train for more steps"
    ]


def _at(recipe: Recipe, key: str) -> float | None:
    """The value of a dotted key; None where it is off."""
    value: object = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value  # type: ignore[return-value]
