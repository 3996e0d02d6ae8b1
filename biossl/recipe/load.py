"""Reading a recipe: YAML and overrides in, a :class:`Recipe` out, every fault one line with key and remedy.

What lives here: finding the file, applying ``--mask.ratio 0.6`` style overrides, and the two passes (read each ``name``,
look up its dataclass in ``tables.py``, fill exactly that one). Whether the recipe fits a corpus is ``check.py``.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biossl.config import build, check_keys, load_yaml, nearest, parse_scalar
from biossl.errors import RequestError
from biossl.recipe.schema import Part, Recipe
from biossl.recipe.tables import POLICIES, config_class, resolve
from biossl.resources import resource_root, resources

FORMAT = 1


def load_recipe(path_or_name: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """A recipe from a file or from the packaged ones.

    Parameters
    ----------
    path_or_name : str or Path
        A YAML file, or the name of a packaged recipe (``ecg/jepa_small``).
    overrides : mapping of str to str, optional
        Key path -> text of the value, by the rules of the file: ``{"mask.ratio": "0.6", "train.steps": "100"}``.
        Leading dashes are allowed.

    Returns
    -------
    Recipe

    Raises
    ------
    RequestError
        No such file, unknown key or name (with the nearest valid one), wrong type, another ``format``.

    Examples
    --------
    >>> load_recipe("imu/jepa_small", {"train.steps": "10"}).train.steps
    10
    """
    path = find_recipe(path_or_name)
    raw = load_yaml(path)
    where = str(path_or_name)
    for key, text in (overrides or {}).items():
        _override(raw, key.lstrip("-"), text, where)
    return recipe_from_dict(raw, where=where)


def recipe_from_dict(raw: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values (a saved ``recipe.yaml``, :meth:`Recipe.to_dict`); ``where`` is named in errors."""
    raw = copy.deepcopy(raw)
    if raw.get("format") != FORMAT:
        found = f"format {raw['format']}" if "format" in raw else "no 'format'"
        raise RequestError(f"{where}: {found}; this version reads recipes with 'format: {FORMAT}'")
    if "source" in raw:
        raise RequestError(f"{where}: key 'source' is not known; remove it")
    recipe: Recipe = _fill(Recipe, raw, where, "")
    recipe.source = where
    return recipe


def find_recipe(path_or_name: str | Path) -> Path:
    """The file meant by a path or a packaged name; RequestError naming the nearest packaged recipe otherwise."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("./").removeprefix("recipes/").removesuffix(".yaml")
    known = [r.removesuffix(".yaml") for r in resources("recipes")]
    if name in known:
        return resource_root("recipes") / f"{name}.yaml"  # also where a folder happens to have that name
    if path.is_dir():
        raise RequestError(f"{path}: a folder, not a recipe; give a YAML file or a name of `biossl list recipes`")
    raise RequestError(f"{path_or_name}: no such file and no packaged recipe; {nearest(name, known)} (`biossl list recipes`)")


def _fill(cls: Any, raw: dict[str, Any], where: str, prefix: str) -> Any:
    """Fill a dataclass; fields of type Part (or holding one) are read by their ``name`` first."""
    hints = typing.get_type_hints(cls)
    check_keys(cls, raw, where=where, prefix=prefix)
    parts = {name: value for name, value in raw.items() if _has_part(hints[name]) and value is not None}
    filled: dict[str, Any] = {}
    for name, value in parts.items():
        if name == "augment":
            filled[name] = augment_parts(value, where)
            continue
        if not isinstance(value, dict):
            raise RequestError(f"{where}: '{prefix}{name}' must hold keys and values, not {value!r}")
        if dataclasses.is_dataclass(hints[name]) and hints[name] is not Part:
            filled[name] = _fill(hints[name], value, where, f"{prefix}{name}.")
            continue
        if "name" not in value:
            raise RequestError(f"{where}: key '{prefix}{name}.name' is missing; say which {name}")
        choice = value.pop("name")
        config = config_class(name, choice, where=where)
        filled[name] = Part(choice, build(config, value, where=where, prefix=f"{prefix}{name}."))
    plain = [f for f in dataclasses.fields(cls) if f.name in raw and f.name not in parts]
    holder = dataclasses.make_dataclass(cls.__name__, [(f.name, hints[f.name]) for f in plain])
    rest = build(holder, {f.name: raw[f.name] for f in plain}, where=where, prefix=prefix) if plain else None
    return cls(**filled, **{f.name: getattr(rest, f.name) for f in plain})


def augment_parts(value: Any, where: str) -> list[Part]:
    """The list of named augmentations; a policy's name stands for its list."""
    if isinstance(value, str):
        policies = resolve(POLICIES)
        if value not in policies:
            raise RequestError(f"{where}: augment '{value}' is no policy; {nearest(value, policies)}")
        value = policies[value]
    if not isinstance(value, list):
        raise RequestError(f"{where}: 'augment' must be a list of `- {{name: ..., ...}}` or the name of a policy, not {value!r}")
    out = []
    for i, item in enumerate(value):
        if not isinstance(item, dict) or "name" not in item:
            raise RequestError(f"{where}: 'augment.{i}' must hold keys and values with a name, not {item!r}")
        settings = {k: v for k, v in item.items() if k != "name"}
        config = config_class("augment", item["name"], where=where)
        out.append(Part(item["name"], build(config, settings, where=where, prefix=f"augment.{i}.")))
    return out


def _has_part(hint: Any) -> bool:
    if hint is Part or Part in typing.get_args(hint):
        return True
    return dataclasses.is_dataclass(hint) and any(_has_part(h) for h in typing.get_type_hints(hint).values())


def _override(raw: dict[str, Any], key: str, text: str, where: str) -> None:
    """Put the value of ``--key text`` into the raw mapping; unknown keys are found when it is filled."""
    *sections, last = key.split(".")
    place: Any = raw
    for i, section in enumerate(sections):
        if isinstance(place, list):
            place = _item(place, section, where, key)
            continue
        inside = place.setdefault(section, {})
        if inside is None:
            inside = place[section] = {}
        if not isinstance(inside, dict | list):
            raise RequestError(f"{where}: --{key}: '{'.'.join(sections[: i + 1])}' holds a value, not keys; give it whole")
        place = inside
    if isinstance(place, list):
        raise RequestError(
            f"{where}: --{key}: '{'.'.join(sections)}' is a list; name a key of one item, e.g. --{sections[0]}.0.p"
        )
    place[last] = parse_scalar(text) if isinstance(text, str) else text


def _item(items: list[Any], number: str, where: str, key: str) -> Any:
    if not number.isdigit() or int(number) >= len(items):
        raise RequestError(f"{where}: --{key}: '{number}' must be a number from 0 to {len(items) - 1}")
    return items[int(number)]
