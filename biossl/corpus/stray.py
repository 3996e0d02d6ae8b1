"""Files of a folder that look like recordings although no pattern of a card matches them: nothing may vanish unsaid.

What lives here: the table of suffixes a recording can have, and the look at the first bytes that tells a table of samples
from a table of patients. No signal is read.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from biossl.corpus.card import Card
from biossl.io.table import ZIP_FAULTS, TableSpec

READERS = {
    ".hea": "wfdb", ".edf": "edf", ".bdf": "edf", ".rec": "edf", ".vhdr": "brainvision", ".wav": "wav", ".csv": "table",
    ".txt": "table", ".tsv": "table",
}  # fmt: skip
_HEAD = 4096  # bytes looked at
_TIME = re.compile(r"(?:time(?:stamp)?|t)(?![a-z])", re.IGNORECASE)


def suffix(path: str) -> str:
    """Suffix of the file itself, small letters: ``all.zip!a/B.CSV`` -> ``.csv``."""
    return Path(re.split("!", path)[-1]).suffix.lower()


def stray_files(card: Card, root: Path, paths: Sequence[str], matched: Mapping[str, int]) -> list[str]:
    """Paths that look like recordings and are neither matched, nor named by the card, nor part of a matched recording.

    Parameters
    ----------
    card : Card
    root : path
    paths : sequence of str
        All files, relative to ``root``.
    matched : mapping of str to int
        Path -> entry of ``card.files`` it matched.
    """
    named = [t.file for t in card.tables] + [f.intervals.file for f in card.files if f.intervals]
    used = {p for p in paths if any(re.search(rf"(?:^|[/!]){re.escape(n)}$", p) for n in named)}
    for path, i in matched.items():
        table = card.files[i].table
        for here, there in (c.replace for c in table.companions) if table is not None else ():
            used.add(there.join(path.rsplit(here, 1)))
    rest = [p for p in paths if suffix(p) in READERS and p not in matched and p not in used]
    headers = {str(Path(p).parent) for p in rest if suffix(p) == ".hea"}
    parts = segments(root, [p for p in matched if suffix(p) == ".hea" and str(Path(p).parent) in headers])
    tables = heads(root, [p for p in rest if READERS[suffix(p)] == "table"])
    specs = [f.table for f in card.files if f.table is not None]
    return [
        p.encode("utf-8", "backslashreplace").decode() for p in rest
        if p not in parts and (p not in tables or has_time(tables[p]) or any(_fits(tables[p], s) for s in specs))
    ]  # fmt: skip


def segments(root: Path, headers: Iterable[str]) -> set[str]:
    """Headers that others among ``headers`` name as their segments (WFDB records of several files)."""
    out: set[str] = set()
    for path, lines in heads(root, headers).items():
        text = [line for line in lines if not line.startswith("#")]
        if text and re.match(r"\S+/\d+\s", text[0]):
            folder = path[: len(path) - len(re.split("[/!]", path)[-1])]
            out |= {f"{folder}{line.split()[0]}.hea" for line in text[1:] if line.split()}
    return out


def heads(root: Path, paths: Iterable[str]) -> dict[str, list[str]]:
    """First lines of each file, also inside zips; none of one that cannot be opened."""
    out: dict[str, list[str]] = {}
    inside: dict[str, list[str]] = {}
    for path in paths:
        out[path] = []
        archive, _, member = path.partition("!")
        if member:
            inside.setdefault(archive, []).append(member)
            continue
        try:
            with open(root / path, "rb") as handle:
                out[path] = _lines(handle.read(_HEAD))
        except OSError:
            continue  # the reader says what is wrong
    for archive, members in inside.items():
        try:
            with zipfile.ZipFile(root / archive) as z:
                for member in members:
                    with z.open(member) as handle:
                        out[f"{archive}!{member}"] = _lines(handle.read(_HEAD))
        except (*ZIP_FAULTS, OSError, KeyError):
            continue
    return out


def _lines(start: bytes) -> list[str]:
    lines = start.decode("utf-8", "replace").lstrip("\ufeff").splitlines()
    whole = lines if len(start) < _HEAD else lines[:-1]
    return [line for line in whole if line.strip()]


def has_time(lines: Sequence[str]) -> bool:
    """Do these first lines head a table of samples: a column called time, with a number below it?"""
    return any(
        _TIME.match(name) and _is_number(cell)
        for separator in (",", ";", "\t", "whitespace")
        for name, cell in _columns(lines, separator).items()
    )


def row_shape(lines: Sequence[str]) -> str:
    """Which cells of the last of these lines are numbers, e.g. ``99a9``; '' when none is."""
    best = ""
    for separator in (",", ";", "\t", "whitespace"):
        cells = _cells(lines[-1], separator, ";" if separator != ";" else "") if lines else []
        shape = "".join("9" if _is_number(cell) else "a" for cell in cells)
        best = shape if "9" in shape and len(shape) > len(best) else best
    return best


def _columns(lines: Sequence[str], separator: str, line_end: str = "") -> dict[str, str]:
    """Name of every column and the cell below it; empty when the two lines do not go together."""
    if len(lines) < 2:
        return {}
    names, cells = (_cells(line, separator, line_end) for line in lines[:2])
    return dict(zip(names, cells, strict=True)) if len(names) == len(cells) > 1 else {}


def _cells(line: str, separator: str, line_end: str = "") -> list[str]:
    split = line.rstrip().removesuffix(line_end).split(None if separator == "whitespace" else separator)
    return [cell.strip().strip('"') for cell in split]


def _fits(lines: Sequence[str], spec: TableSpec) -> bool:
    """Does a table begin as the card says its tables do?"""
    if spec.names:
        return bool(lines) and len(_cells(lines[0], spec.separator, spec.line_end)) == len(spec.names) > 1
    columns = _columns(lines, spec.separator, spec.line_end)
    return bool(spec.channels) and set(spec.channels) <= set(columns)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
