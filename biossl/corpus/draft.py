"""A first card for a folder nobody described: what its files say, and what a person still has to.

What lives here: :func:`draft_card` (``biossl card new``). Only a few files are read, and nothing is guessed that decides
what a number means: a unit the files do not state is written as ``UNKNOWN``, which no card with it passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biossl.channels import canonical
from biossl.config import dump_yaml, to_plain
from biossl.corpus.card_check import UNKNOWN
from biossl.corpus.discover import list_files, natural
from biossl.errors import BiosslError, RecordError, RequestError
from biossl.io.table import TableSpec, guess_spec, read_table
from biossl.signal import CANONICAL_UNIT, CH_TYPES, Recording

LOOKED_AT = 5  # files read
_SUFFIXES = {
    ".hea": "wfdb", ".edf": "edf", ".bdf": "edf", ".vhdr": "brainvision", ".csv": "table", ".txt": "table", ".tsv": "table",
}  # fmt: skip
_MODALITY = {"ecg": "ecg", "eeg": "eeg", "acc": "imu", "gyro": "imu"}
_WINDOW_S = {"ecg": 10.0, "eeg": 4.0, "imu": 2.56}
_FEW = 4  # words at one place of a file name that are written out


@dataclass
class _Look:
    """What one file said."""

    recordings: list[Recording]
    spec: TableSpec | None


def draft_card(source: str | Path, *, sfreq: float | None = None, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """YAML text of a first card and the facts it rests on.

    Parameters
    ----------
    source : path
        A folder of recordings.
    sfreq : float, optional
        Hz, for tables without a time column.
    name : str, optional
        The card's name; default the folder's.

    Returns
    -------
    text : str
        Commented YAML, ``public: false``.
    facts : dict
        ``files``, ``read``, ``reader``, ``modality``, ``channels``, ``not_common`` (channel -> in how many of the files
        read), ``rates``, ``unreadable`` (one line each) and ``to_do`` (what a person must fill in).

    Raises
    ------
    RequestError
        No recording in the folder, or none of those looked at can be read.

    Examples
    --------
    >>> text, facts = draft_card("recordings")  # doctest: +SKIP
    """
    root, paths = list_files(source)
    reader, names = _main_format(Path(source), root, paths)
    pattern, subjects = name_pattern(names)
    end = re.compile(rf"(?:^|.*[/!]){pattern}")
    names = [n for n in names if end.fullmatch(n)]
    looks, unreadable = _read_some(root, names, reader, sfreq)
    if not looks:
        raise RequestError(f"{source}: none of the {len(unreadable)} files looked at can be read; the first: {unreadable[0]}")
    recordings = [r for look in looks for r in look.recordings]
    kinds = Counter(t for r in recordings for t in r.ch_types)
    told = next((_MODALITY[k] for k, _ in kinds.most_common() if k in _MODALITY), None)
    modality = told or "ecg"
    channels = _common_channels([look.recordings for look in looks], modality)
    if not channels:
        raise RequestError(
            f"{source}: the files looked at have no channel in common ({', '.join(recordings[0].ch_names)}); give one kind"
        )
    held = Counter(n for look in looks for n in {n for r in look.recordings for n in r.ch_names})
    not_common = {n: held[n] for n in sorted(held, key=natural) if held[n] < len(looks)}
    rates = sorted({r.sfreq for r in recordings if set(channels) & set(r.ch_names)})
    unknown = _unknown_units(recordings, channels)
    spec = looks[0].spec
    to_do = ["title, licence, citation, version, obtain"]
    if told is None:
        to_do.append("modality and the names of the channels (channel_map), which say nothing here")
    if unknown:
        to_do.append("units of " + ", ".join(unknown))
    if subjects == "record":
        to_do.append("subjects: each record is taken for a person until the card says otherwise")
    facts = {
        "files": len(names), "read": len(looks), "reader": reader, "modality": modality, "channels": channels,
        "not_common": not_common, "rates": rates,
        "unreadable": unreadable, "to_do": to_do,
    }  # fmt: skip
    return _text(name or Path(source).resolve().name, facts, pattern, subjects, unknown, spec, recordings), facts


def name_pattern(names: Sequence[str]) -> tuple[str, str]:
    r"""A regular expression for most of the names and where the subject is (``group`` or ``record``).

    Parameters
    ----------
    names : sequence of str
        Paths, forward slashes.

    Examples
    --------
    >>> name_pattern(["a/s01_1.edf", "a/s01_2.edf", "a/s02_1.edf"])
    ('(?P<record>s(?P<subject>\\d{2})_\\d)\\.edf', 'group')
    """
    last = [re.split("[/!]", n)[-1] for n in names]
    if len(set(last)) < len(last):  # the folder tells records apart
        last = ["/".join(re.split("[/!]", n)[-2:]) for n in names]
    shapes: dict[tuple[str, ...], list[list[str]]] = {}
    for name in last:
        stem, dot, suffix = name.rpartition(".")
        words = [*re.findall(r"\d+|[A-Za-z]+|[^\dA-Za-z]", stem)]
        shape = tuple("9" if w.isdecimal() else "a" if w.isalpha() else w for w in words)
        shapes.setdefault((*shape, suffix), []).append(words)
    key, rows = max(shapes.items(), key=lambda item: len(item[1]))
    shape, suffix = key[:-1], key[-1]
    numbers = [i for i, s in enumerate(shape) if s == "9"]
    varying = [i for i in numbers if len({row[i] for row in rows}) > 1]
    folders = "/" in shape
    subject = varying[0] if len(varying) > 1 and len({row[varying[0]] for row in rows}) < len(rows) else None
    if folders and subject is None and varying and varying[0] < shape.index("/"):
        subject = varying[0]
    out = ""
    for i, sort in enumerate(shape):
        column = sorted({row[i] for row in rows})
        if sort == "9":
            widths = {len(v) for v in column}
            width = widths.pop() if len(widths) == 1 else 0
            text = {0: r"\d+", 1: r"\d"}.get(width, rf"\d{{{width}}}")
            out += f"(?P<subject>{text})" if i == subject else text
        elif sort == "a":
            out += re.escape(column[0]) if len(column) == 1 else f"(?:{'|'.join(column)})" if len(column) <= _FEW else "[A-Za-z]+"
        else:
            out += re.escape(sort)
    return rf"(?P<record>{out})\.{re.escape(suffix)}", "group" if subject is not None else "record"


def _main_format(source: Path, root: Path, paths: Sequence[str]) -> tuple[str, list[str]]:
    """Reader and paths of the most frequent kind of file; signal formats go before tables, which are often metadata."""
    by_suffix: dict[str, list[str]] = {}
    for path in sorted(paths, key=natural):
        suffix = Path(path).suffix.lower()
        if suffix in _SUFFIXES:
            by_suffix.setdefault(suffix, []).append(path)
    if not by_suffix:
        raise RequestError(
            f"{source}: none of its {len(paths)} files ends in {', '.join(_SUFFIXES)}; `biossl list formats` names what can be read"
        )
    best = max(by_suffix, key=lambda s: (_SUFFIXES[s] != "table", len(by_suffix[s]), _size(root, by_suffix[s])))
    return _SUFFIXES[best], by_suffix[best]


def _size(root: Path, names: Sequence[str]) -> int:
    return sum((root / n).stat().st_size for n in names if "!" not in n)


def _read_some(root: Path, names: Sequence[str], reader: str, sfreq: float | None) -> tuple[list[_Look], list[str]]:
    step = max(1, len(names) // LOOKED_AT)
    looks, unreadable = [], []
    for name in list(names[::step])[:LOOKED_AT]:
        path = str(root / name)
        try:
            looks.append(_look(path, reader, sfreq))
        except RecordError as error:
            if error.code == "needs_card":
                raise RequestError(f"{path}: no time column, so the rate is not known; add --sfreq HZ") from None
            unreadable.append(str(error))
        except BiosslError as error:
            unreadable.append(str(error))
    return looks, unreadable


def _look(path: str, reader: str, sfreq: float | None) -> _Look:
    if reader == "table":
        spec = guess_spec(path, sfreq)
        return _Look(read_table(path, spec, units=dict.fromkeys(CH_TYPES, "1")), spec)
    if "!" in path:
        raise RecordError("wrong_format", f"{reader} files are not read inside a zip; unpack it", path)
    from biossl.io import read

    return _Look(read(path), None)


def _common_channels(files: Sequence[Sequence[Recording]], modality: str) -> list[str]:
    """Channels of the modality that every file has, in the first file's order."""
    wanted = [k for k, m in _MODALITY.items() if m == modality]
    held = [{n for r in recordings for n, t in zip(r.ch_names, r.ch_types, strict=True) if t in wanted} for recordings in files]
    ordered = [n for r in files[0] for n, t in zip(r.ch_names, r.ch_types, strict=True) if t in wanted]
    if not ordered:  # nothing known by name: leave the choice to the person
        ordered = [n for r in files[0] for n in r.ch_names]
        held = [{n for r in recordings for n in r.ch_names} for recordings in files]
    return [n for n in dict.fromkeys(ordered) if all(n in h for h in held)]


def _unknown_units(recordings: Sequence[Recording], channels: Sequence[str]) -> list[str]:
    """Channels of which no file states the unit."""
    stated = {n: u for r in recordings for n, u in zip(r.ch_names, r.units, strict=True)}
    return [n for n in channels if stated[n] == "1"]


def _text(
    name: str, facts: dict[str, Any], pattern: str, subjects: str, unknown: list[str], spec: TableSpec | None,
    recordings: Sequence[Recording],
) -> str:  # fmt: skip
    modality, rates = facts["modality"], facts["rates"]
    rate = rates[0]
    window = round(_WINDOW_S[modality] * rate) / rate
    name = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-") or "my_recordings"
    minutes = sorted(r.duration_s / 60 for r in recordings)
    units = {}
    for n in facts["channels"]:
        kind = canonical(n, modality)[1]
        if n in unknown:
            units[kind if kind != "other" else n] = UNKNOWN
    files: dict[str, Any] = {"pattern": pattern, "reader": facts["reader"]}
    if spec is not None:
        defaults = to_plain(TableSpec(sfreq=spec.sfreq))
        table = {k: v for k, v in to_plain(spec).items() if k == "sfreq" or v != defaults[k]}
        if table.get("channels"):  # a column that a file lacks would make that file unreadable
            table["channels"] = {c: n for c, n in table["channels"].items() if n not in facts["not_common"]}
        files["table"] = table
    view = {
        "sfreq": rate, "window_s": window, "stride_s": window, "channels": facts["channels"],
    }  # fmt: skip
    unit_lines = (
        [
            "# The files state no unit. Write what the device measures, e.g. "
            + ", ".join(
                f"{k}: {CANONICAL_UNIT[k]}" for k in ("ecg", "eeg", "acc", "gyro") if k in units or not set(units) & set(CH_TYPES)
            )
            + "; '1' = uncalibrated.",
            dump_yaml({"units": units}).rstrip(),
        ]
        if units
        else []
    )
    left_out = [
        f"# CHECK the channels: {n} is in {k} of the {facts['read']} files read, so the view leaves it out"
        for n, k in facts["not_common"].items()
    ]
    if left_out:
        own = " and its files get an entry of their own under files" if spec is not None else ""
        left_out.append(f"# (with 'optional_channels: true' a view may name it{own}: unobserved where a file has none)")
    lines = [
        f"# Draft from {facts['read']} of {facts['files']} {facts['reader']} files, {minutes[0]:.1f} to {minutes[-1]:.1f} minutes "
        f"a run, {', '.join(f'{r:g}' for r in rates)} Hz.",
        "# Mend every line marked CHECK, then: biossl check THIS_FILE, biossl convert THIS_FILE FOLDER CORPUS --view windows",
        dump_yaml({"format": 1, "name": name}).rstrip(),
        "title: CHECK what the recordings are",
        dump_yaml({"modality": modality}).rstrip(),
        "licence: CHECK who may use them for what",
        "citation: CHECK how to cite them",
        'version: "1"',
        "obtain: CHECK where they come from",
        "# false: subjects become keyed hashes and dates day offsets; nothing of the hospital's names leaves the corpus folder",
        "public: false",
        "# CHECK the pattern: named groups record, subject, visit, placement and any covariate, on the end of the path",
        dump_yaml({"files": [files]}).rstrip(),
        "# Hz; a file of another rate is quarantined",
        dump_yaml({"native_sfreq": rates}).rstrip(),
        *unit_lines,
        "# CHECK: group = the pattern's group, record = every record is another person, table = a column of a metadata table"
        + (" (the number that repeats in the names was taken for the subject)" if subjects == "group" else ""),
        dump_yaml({"subjects": subjects}).rstrip(),
        "# Metadata by record or subject; only the columns named here are kept (source column: covariate):",
        "# tables:",
        "#   - {file: patients.csv, key: id, on: subject, columns: {age: age, sex: sex}}",
        "# CHECK: what one window is; `biossl list cards --copy ptbxl .` gives a card with filters, labels and splits to look at",
        *left_out,
        dump_yaml({"views": {"windows": view}}).rstrip(),
    ]
    return "\n".join(lines) + "\n"
