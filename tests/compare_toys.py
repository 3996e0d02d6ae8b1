"""Settings and recipes of a comparison of seconds: ``from compare_toys import SETTINGS, two_recipes``."""

from __future__ import annotations

from typing import Any

from training_toys import small_recipe

from biossl.recipe import Recipe

SETTINGS: dict[str, Any] = {
    "folds": 2, "seeds": [0, 1], "steps": 4, "fractions": [0.25], "n_subjects": [2], "draws": 3, "corrupt": ["gap"],
    "identity": ["subject", "site"],
}  # fmt: skip


def two_recipes() -> list[Recipe]:
    """They differ in name and mask ratio."""
    return [small_recipe(name="first"), small_recipe(name="second", mask__ratio=0.4)]
