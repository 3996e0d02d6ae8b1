"""Strict YAML to dataclass: unknown keys, wrong types and bad choices are one-line errors with the nearest valid key.

What lives here: reading YAML and a typed walk that fills dataclasses and names the full path of a key that is unknown,
missing or of another type. Only dataclasses of numbers, text, Literal, lists and dicts are built: no callable, class
path or import can be named in a file.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from biossl.errors import RequestError

C = TypeVar("C")


class _Loader(yaml.SafeLoader):
    """YAML in which only true/false are booleans, 1e-3 is a number, dates and 00123 stay text, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; the plain loader would silently keep the last of two equal keys."""
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either this loader or an ordinary one would read as something else."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _regex, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|false|False)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.?)(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"^(?:~|null|)$", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_regex), list(_first))
    _Dumper.add_implicit_resolver(_tag, re.compile(_regex), list(_first))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises
    ------
    RequestError
        Missing, empty, not YAML, not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(
            f"{path}: no such file; check the path, or give the name of a packaged one (`biossl list recipes`, `biossl list cards`)"
        ) from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: not a readable text file ({type(error).__name__}); give a YAML file") from None
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    """A mapping from YAML text; ``where`` names the source in errors."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # a SafeLoader subclass: plain types only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise RequestError(f"{where}{line}: not valid YAML ({getattr(error, 'problem', error)}); mend that line") from None
    if not isinstance(raw, dict):
        raise RequestError(
            f"{where}: expected keys and values, found {type(raw).__name__ if raw is not None else 'an empty file'}"
        )
    return raw


def parse_scalar(text: str) -> Any:
    """The value of one override (``0.6``, ``true``, ``[1, 2]``, ``text``) by the same rules as a file."""
    return yaml.load(text, Loader=_Loader)


def nearest(key: str, valid: typing.Iterable[str]) -> str:
    """``; did you mean 'x'?`` or the list of valid keys."""
    valid = list(valid)
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(valid)}"


def build(cls: type[C], raw: dict[str, Any], *, where: str, prefix: str = "") -> C:
    """An instance of a dataclass from plain values.

    Parameters
    ----------
    cls : dataclass type
    raw : dict
        As read from YAML.
    where : str
        File named in errors.
    prefix : str
        Path of the section inside the file, with its dot (``"mask."``), put before every key in errors.

    Raises
    ------
    RequestError
        One line: ``file: key 'views.a.sfrq' is not known; did you mean 'sfreq'?``. A ``ValueError`` of a dataclass's
        ``__post_init__`` becomes one as well.
    """
    check_keys(cls, raw, where=where, prefix=prefix)
    hints = typing.get_type_hints(cls)
    values = {key: _value(hints[key], value, where, f"{prefix}{key}") for key, value in raw.items()}
    try:
        return cls(**values)
    except ValueError as error:  # a dataclass that looks at its own values
        place = f" '{prefix.rstrip('.')}':" if prefix else ""
        raise RequestError(f"{where}:{place} {error}") from None


def check_keys(cls: Any, raw: dict[str, Any], *, where: str, prefix: str = "") -> None:
    """RequestError naming the first unknown or missing key of one level, without looking at values."""
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in raw:
        if key not in known:
            raise RequestError(f"{where}: key '{prefix}{key}' is not known; {nearest(str(key), known)}")
    for name, f in known.items():
        if name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RequestError(f"{where}: key '{prefix}{name}' is missing; add it")


def _value(hint: Any, value: Any, where: str, path: str) -> Any:
    """``value`` as the type ``hint`` says; RequestError naming the key otherwise. Whole numbers pass as floats."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [h for h in args if h is not type(None)]
        holders = [h for h in options if isinstance(value, _container(h))]
        return _value((holders or options)[0], value, where, path)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in args:
            raise RequestError(f"{where}: key '{path}' cannot be {value!r}; {nearest(str(value), [str(a) for a in args])}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise RequestError(f"{where}: '{path}' must hold keys and values, not {value!r}")
        return build(typing.cast(type, hint), value, where=where, prefix=path + ".")
    container: Any = _container(hint)
    if not isinstance(value, container) or (isinstance(value, bool) and hint is not bool):
        raise RequestError(f"{where}: key '{path}' must be {_KINDS.get(origin or hint, 'another type')}, not {value!r}")
    if origin is list:
        return [_value(args[0], v, where, f"{path}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        return {_value(args[0], k, where, path): _value(args[1], v, where, f"{path}.{k}") for k, v in value.items()}
    return float(value) if hint is float else value


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text (put it in quotes)",
    bool: "true or false",
    list: "a list",
    dict: "keys and values",
}


def _container(hint: Any) -> Any:
    """Python types a hint accepts before its content is looked at."""
    if dataclasses.is_dataclass(hint):
        return dict
    if hint is float:
        return (int, float)
    if typing.get_origin(hint) is typing.Literal:
        return tuple({type(a) for a in typing.get_args(hint)})
    return typing.get_origin(hint) or (object if hint is Any else hint)


def to_plain(value: Any) -> Any:
    """Plain types of a dataclass tree, for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    return value


def dump_yaml(value: Any) -> str:
    """YAML text of plain values or a dataclass, keys in order."""
    return yaml.dump(to_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
