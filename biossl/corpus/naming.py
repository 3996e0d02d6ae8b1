"""Regular expressions for the names of files, found from the names: every one of them is matched, or it is not used.

What lives here: :func:`find_naming` for the kinds of files of one folder, :func:`name_pattern` for one kind. No file is
opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from biossl.corpus.discover import on_the_end

_LETTERS = r"[^\W\d_]"
_WORDS = re.compile(rf"\d+|{_LETTERS}+|[\W_]")
_SUBJECT = re.compile(r"\(\?P<subject>[^)]*\)")
_ID = re.compile(rf"({_LETTERS}*)(\d+)")


@dataclass(frozen=True)
class Naming:
    """A pattern and where the subject is: its group of that name, or every record is taken for a person."""

    pattern: str
    subjects: Literal["group", "record"]


def name_pattern(names: Sequence[str]) -> tuple[str, str]:
    r"""A regular expression that matches every name and where the subject is (``group`` or ``record``).

    Letters right before a subject's number are part of its name: ``P001`` stays ``P001``.

    Parameters
    ----------
    names : sequence of str
        Paths with one suffix, forward slashes.

    Examples
    --------
    >>> name_pattern(["a/s01_1.edf", "a/s01_2.edf", "a/s02_1.edf"])
    ('(?P<record>(?P<subject>s\\d{2})_\\d)\\.edf', 'group')
    >>> name_pattern(["Ana.edf", "b 7.edf"])
    ('(?P<record>.+)\\.edf', 'record')
    """
    (naming,) = find_naming([names])
    return naming.pattern, naming.subjects


def find_naming(kinds: Sequence[Sequence[str]]) -> list[Naming]:
    """A naming for each kind of file of one folder: all with a group ``subject`` or none, and no record named twice."""
    bodies = [_body(names) for names in kinds]
    found = next((m[0] for body in bodies if (m := _SUBJECT.search(body))), None)
    if found is not None:  # one person's files of several kinds begin alike
        in_front = rf"{found}(?!\d)[^/!]*"
        bodies = [
            in_front if not _SUBJECT.search(body) and _good(in_front, names) else body
            for body, names in zip(bodies, kinds, strict=True)
        ]
    stems = [[_record(body, names, name) for name in names] for body, names in zip(bodies, kinds, strict=True)]
    every = [stem for some in stems for stem in some]
    shared = len(set(every)) < len(every)  # a.edf and a.csv
    grouped = shared or found is not None
    out = []
    for i, (body, names) in enumerate(zip(bodies, kinds, strict=True)):
        inner = f"(?P<subject>{body})" if grouped and not _SUBJECT.search(body) else body
        end = _suffix(names)
        out.append(
            Naming(
                rf"(?P<record>{inner}{end})" if shared and i else rf"(?P<record>{inner}){end}", "group" if grouped else "record"
            )
        )
    return out


def _record(body: str, names: Sequence[str], name: str) -> str:
    match = on_the_end(rf"(?P<record>{body}){_suffix(names)}").fullmatch(name)
    assert match is not None  # kept by _body
    return match["record"]


def _suffix(names: Sequence[str]) -> str:
    found = sorted({n.rpartition(".")[2] for n in names})
    return rf"\.{re.escape(found[0])}" if len(found) == 1 else rf"\.(?i:{re.escape(found[0].lower())})"


def _body(names: Sequence[str]) -> str:
    """The pattern without its suffix: of one shape, or with a subject in front, or anything."""
    last = [re.split("[/!]", n)[-1] for n in names]
    if len(set(last)) < len(last):  # the folder tells records apart
        last = ["/".join(re.split("[/!]", n)[-2:]) for n in names]
    stems = [n.rpartition(".")[0] for n in last]
    for body in (_one_shape(stems), _id_in_front(stems)):
        if body is not None and _good(body, names):
            return body
    return ".+"


def _good(body: str, names: Sequence[str]) -> bool:
    """Is every name matched, and no record twice?"""
    pattern = on_the_end(rf"(?P<record>{body}){_suffix(names)}")
    records = [m["record"] for m in map(pattern.fullmatch, names) if m]
    return len(records) == len(set(records)) == len(names)


def _one_shape(stems: Sequence[str]) -> str | None:
    """Numbers, words and marks at the same places of all names; None when they differ in that."""
    rows = [_WORDS.findall(stem) for stem in stems]
    shapes = {tuple("9" if w.isdecimal() else "a" if w.isalpha() else w for w in row) for row in rows}
    if len(shapes) > 1:
        return None
    (shape,) = shapes
    numbers = [i for i, s in enumerate(shape) if s == "9"]
    before = {i: i > 0 and shape[i - 1] == "a" for i in numbers}  # letters that belong to the number
    ids = {i: [(row[i - 1] if before[i] else "") + row[i] for row in rows] for i in numbers}
    varying = [i for i in numbers if len(set(ids[i])) > 1]
    subject = varying[0] if varying and len(set(ids[varying[0]])) < len(rows) else None
    if subject is None and "/" in shape and varying and varying[0] < shape.index("/"):
        subject = varying[0]
    out = ""
    for i, sort in enumerate(shape):
        column = sorted({row[i] for row in rows})
        opened = i + 1 == subject and before[i + 1]
        if opened or (i == subject and not before[i]):
            out += "(?P<subject>"
        out += _digits(column) if sort == "9" else _letters(column) if sort == "a" else re.escape(sort)
        out += ")" if i == subject else ""
    return out


def _id_in_front(stems: Sequence[str]) -> str | None:
    """A subject's id before anything else, where ids repeat: ``P005_rest``, ``P005 walk 2``."""
    found = [_ID.match(stem) for stem in stems]
    heads = [m for m in found if m]
    if len(heads) < len(stems) or not 1 < len({m[0] for m in heads}) < len(stems):
        return None
    letters, digits = (sorted({m[k] for m in heads}) for k in (1, 2))
    return f"(?P<subject>{_letters(letters) if letters != [''] else ''}{_digits(digits)})(?!\\d)[^/!]*"


def _digits(column: Sequence[str]) -> str:
    widths = {len(v) for v in column}
    width = widths.pop() if len(widths) == 1 else 0
    return {0: r"\d+", 1: r"\d"}.get(width, rf"\d{{{width}}}")


def _letters(column: Sequence[str]) -> str:
    """One word as it is; several as letters, since they may be names of people."""
    if len(column) == 1:
        return re.escape(column[0])
    some = "+" if all(column) else "*"
    return ("[A-Za-z]" if "".join(column).isascii() else _LETTERS) + some
