"""The named choices a recipe may make: plain tables of ``"module:Class"`` strings, one line a method.

What lives here: the tables, and the two functions that turn a name into its dataclass and a recipe into its objective.
A recipe can name nothing outside these tables, so a shared file runs no foreign code. Adding a method is one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from biossl.config import nearest
from biossl.errors import RequestError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.objectives.base import Objective
    from biossl.recipe.schema import Recipe

# section -> name -> dataclass of its settings
CONFIGS: dict[str, dict[str, str]] = {
    "model": {"transformer": "biossl.models.transformer:EncoderConfig"},
    "mask": {"random": "biossl.objectives.masking:RandomMask", "multi_block": "biossl.objectives.masking:MultiBlockMask"},
    "objective": {"jepa": "biossl.objectives.jepa:JEPAConfig"},
    "schedule": {
        "warmup_cosine": "biossl.schedules:WarmupCosine",
        "constant_cooldown": "biossl.schedules:ConstantCooldown",
        "infinite": "biossl.schedules:Infinite",
    },
}

# name -> class built from (spec, config)
ENCODERS: dict[str, str] = {"transformer": "biossl.models.transformer:TransformerEncoder"}

# name -> class built from (encoder, config, mask=..., steps=...)
OBJECTIVES: dict[str, str] = {"jepa": "biossl.objectives.jepa:JEPA"}

_INIT_DRAW = 0x1417  # keeps the initialisation apart from every other use of the seed


def resolve(target: str) -> Any:
    """The object a ``"module:Class"`` string of these tables names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def config_class(section: str, name: Any, *, where: str) -> Any:
    """Dataclass of a named choice; RequestError with the nearest name when there is none."""
    table = CONFIGS[section]
    if not isinstance(name, str) or name not in table:
        raise RequestError(f"{where}: {section} '{name}' is not known; {nearest(str(name), table)}")
    return resolve(table[name])


def build_encoder(recipe: Recipe, spec: InputSpec) -> Any:
    """The randomly initialised encoder of a recipe: the same weights for the same seed, whatever ran before."""
    import torch

    from biossl.keys import hash_ints

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(recipe.seed, _INIT_DRAW))
        return resolve(ENCODERS[recipe.model.name])(spec, recipe.model.config)


def build_objective(recipe: Recipe, spec: InputSpec) -> Objective:
    """See :meth:`biossl.recipe.schema.Recipe.build`."""
    import torch

    from biossl.keys import hash_ints

    if spec.modality != recipe.modality:
        raise RequestError(
            f"{recipe.source or recipe.name}: the recipe is for {recipe.modality}, the corpus is {spec.modality}; take a recipe of {spec.modality}/"
        )
    encoder = build_encoder(recipe, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(recipe.seed, _INIT_DRAW, 1))
        cls = resolve(OBJECTIVES[recipe.objective.name])
        mask = None if recipe.mask is None else recipe.mask.config
        objective: Objective = cls(encoder, recipe.objective.config, mask=mask, steps=recipe.train.steps)
    return objective
