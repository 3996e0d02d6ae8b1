"""Recipes: read, override, build, check. Import :func:`load_recipe` and :class:`Recipe` from here."""

from biossl.recipe.load import find_recipe, load_recipe, recipe_from_dict
from biossl.recipe.schema import Part, Recipe

__all__ = ["Part", "Recipe", "find_recipe", "load_recipe", "recipe_from_dict"]
