"""Strict YAML to dataclass: unknown keys, wrong types and bad choices are one-line errors with the nearest valid key.

What lives here: reading YAML, a walk that names unknown and missing keys with their full path, and typed filling by
jsonargparse. Only dataclasses of numbers, text, Literal, lists and dicts are built: no ``Callable``, ``Any`` class
paths or imports can be named in a file.
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
    """YAML in which only true/false are booleans, 1e-3 is a number and dates and 00123 stay text."""


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
            f"{path}: no such file; check the path, or copy a packaged one with `biossl list recipes --copy NAME DEST`"
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


def build(cls: type[C], raw: dict[str, Any], *, where: str) -> C:
    """An instance of a dataclass from plain values.

    Parameters
    ----------
    cls : dataclass type
    raw : dict
        As read from YAML.
    where : str
        File (and section) named in errors.

    Raises
    ------
    RequestError
        One line: ``file: key 'views.a.sfrq' is not known; did you mean 'sfreq'?``
    """
    _walk(cls, raw, where, "")
    return typing.cast(C, _instance(cls, raw, where))


def _instance(cls: Any, raw: dict[str, Any], where: str) -> Any:
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise RequestError(f"{where}: {_readable(message)}")

    parser = Parser()
    parser.add_argument("--x", type=cls)
    return parser.instantiate(parser.parse_object({"x": raw})).x


def _readable(message: str) -> str:
    text = " ".join(message.split()).replace('Parser key "x.', 'key "').replace('Parser key "', '"').replace("typing.", "")
    return text.replace("Expected a <class 'float'>", "expected a number").replace(
        "Expected a <class 'int'>", "expected a whole number"
    )


def _walk(cls: Any, raw: Any, where: str, prefix: str) -> None:
    """Name unknown and missing keys with their path before types are looked at."""
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise RequestError(f"{where}: '{prefix.rstrip('.')}' must hold keys and values, not {raw!r}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in raw:
        if key not in known:
            raise RequestError(f"{where}: key '{prefix}{key}' is not known; {nearest(str(key), known)}")
    for name, f in known.items():
        if name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RequestError(f"{where}: key '{prefix}{name}' is missing; add it")
    for key, value in raw.items():
        _descend(hints[key], value, where, f"{prefix}{key}")


def _descend(hint: Any, value: Any, where: str, path: str) -> None:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [h for h in typing.get_args(hint) if dataclasses.is_dataclass(h)]
        if inner and isinstance(value, dict):
            _walk(inner[0], value, where, path + ".")
        return
    args = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        _walk(hint, value, where, path + ".")
    elif typing.get_origin(hint) is list and isinstance(value, list) and dataclasses.is_dataclass(args[0]):
        for i, item in enumerate(value):
            _walk(args[0], item, where, f"{path}[{i}].")
    elif typing.get_origin(hint) is dict and isinstance(value, dict) and dataclasses.is_dataclass(args[1]):
        for name, item in value.items():
            _walk(args[1], item, where, f"{path}.{name}.")


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
    return yaml.safe_dump(to_plain(value), sort_keys=False, allow_unicode=True, width=120)
