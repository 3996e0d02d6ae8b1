"""A first card for a folder nobody described: what its files say, and what a person still has to.

What lives here: :func:`draft_card` (``biossl card new``): one ``files`` entry for every kind of file that can be read, and a
line for every file left out. Only a few files are read, and nothing is guessed that decides what a number means: a unit the
files do not state is written as ``UNKNOWN``, which no card with it passes. Naming patterns are ``naming.py``'s business, the
text ``draft_text.py``'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from biossl.corpus.discover import list_files, natural
from biossl.corpus.draft_text import draft_text
from biossl.corpus.naming import Naming, find_naming
from biossl.corpus.stray import READERS, has_time, heads, row_shape, segments, suffix
from biossl.errors import BiosslError, RecordError, RequestError
from biossl.io.table import TableSpec, guess_spec, read_table
from biossl.signal import CH_TYPES, Recording

LOOKED_AT = 5  # files read of each kind
_MODALITY = {"ecg": "ecg", "eeg": "eeg", "acc": "imu", "gyro": "imu"}
_NO_UNIT = dict.fromkeys(CH_TYPES, "1")  # what a file does not state is asked of a person, not a reason to stop
_NAMED = 5  # empty files named


@dataclass
class Kind:
    """The files of one suffix: an entry of the card, or ``left_out`` says why not."""

    suffix: str
    names: list[str]
    empty: list[str]
    read: list[list[Recording]] = field(default_factory=list)
    specs: list[TableSpec] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    naming: Naming | None = None
    channels: list[str] = field(default_factory=list)  # of the modality, in all of its files
    left_out: str = ""

    @property
    def reader(self) -> str:
        """Reader of the suffix."""
        return READERS[self.suffix]

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of ``files``."""
        assert self.naming is not None
        out: dict[str, Any] = {"pattern": self.naming.pattern, "reader": self.reader}
        if self.specs:
            shared = set.intersection(*(set(s.channels) for s in self.specs))  # a column that a file lacks would cost that file
            spec = self.specs[0]
            out["table"] = replace(spec, channels={c: n for c, n in spec.channels.items() if c in shared})
        return out


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
        ``files`` (how many the patterns match), ``formats`` (suffix -> files), ``read``, ``modality``, ``channels``,
        ``not_common`` (channel -> in how many of the files read, of channels the view leaves out), ``partly`` (likewise, of
        channels it has), ``rates``, ``unreadable``, ``left_out`` (one line each) and ``to_do`` (what a person must fill in:
        one line for each ``CHECK`` of the text, the empty texts together).

    Raises
    ------
    RequestError
        No recording in the folder, or none of those looked at can be read.

    Examples
    --------
    >>> text, facts = draft_card("recordings")  # doctest: +SKIP
    """
    root, paths = list_files(source)
    kinds = _kinds(Path(source), root, paths, sfreq)
    for kind in kinds:
        _read_some(kind, root, sfreq)
    readable = [k for k in kinds if k.read]
    if not readable:
        lines = [line for k in kinds for line in k.unreadable]
        raise RequestError(f"{source}: none of the {len(lines)} files looked at can be read; the first: {lines[0]}")
    told = {k.suffix: _modality(k) for k in readable}
    main = max(readable, key=lambda k: (told[k.suffix] is not None, k.reader != "table", len(k.names)))
    modality = told[main.suffix] or "ecg"
    for kind in readable:
        kind.channels = _common_channels(kind.read, modality)
    if not main.channels:
        raise RequestError(
            f"{source}: the files looked at have no channel in common ({', '.join(main.read[0][0].ch_names)}); give one kind"
        )
    for kind in kinds:
        if not kind.read and not kind.left_out:
            kind.left_out = "none of those looked at can be read"
        elif kind.read and not set(kind.channels) & set(main.channels):
            have = ", ".join(dict.fromkeys(n for files in kind.read for r in files for n in r.ch_names))
            kind.left_out = f"they have none of the channels of the {main.suffix} files but {have}; give them a card of their own"
    kept = [main, *(k for k in kinds if k is not main and not k.left_out)]
    namings = find_naming([k.names for k in kept])
    for kind, naming in zip(kept, namings, strict=True):
        kind.naming = naming
    files = [recordings for k in kept for recordings in k.read]
    held = Counter(n for recordings in files for n in {n for r in recordings for n in r.ch_names})
    partly = {n: held[n] for n in sorted(held, key=natural) if held[n] < len(files)}
    recordings = [r for some in files for r in some if set(main.channels) & set(r.ch_names)]
    facts = {
        "files": sum(len(k.names) for k in kept), "formats": {k.suffix: len(k.names) for k in kept}, "read": len(files),
        "modality": modality, "channels": main.channels,
        "not_common": {n: k for n, k in partly.items() if n not in main.channels},
        "partly": {n: k for n, k in partly.items() if n in main.channels},
        "rates": sorted({r.sfreq for r in recordings}),
        "unreadable": [line for k in kinds for line in k.unreadable],
        "left_out": [f"{len(k.names)} {k.suffix}: {k.left_out}" for k in kinds if k.left_out],
    }  # fmt: skip
    text, facts["to_do"] = draft_text(
        name or Path(source).resolve().name, facts, [k.entry for k in kept],
        rate=min(r.sfreq for some in main.read for r in some if set(main.channels) & set(r.ch_names)),
        by_subject=namings[0].subjects == "group", unknown=_unknown_units(recordings, main.channels),
        nameless=told[main.suffix] is None, minutes=[r.duration_s / 60 for r in recordings],
    )  # fmt: skip
    return text, facts


def _kinds(source: Path, root: Path, paths: Sequence[str], sfreq: float | None) -> list[Kind]:
    """Files by suffix, the most frequent first; of tables those that hold samples."""
    by_suffix: dict[str, list[str]] = {}
    for path in sorted(paths, key=natural):
        if suffix(path) in READERS:
            by_suffix.setdefault(suffix(path), []).append(path)
    if not by_suffix:
        raise RequestError(
            f"{source}: none of its {len(paths)} files ends in {', '.join(READERS)}; `biossl list formats` names what can be read"
        )
    out = []
    for ending, names in sorted(by_suffix.items(), key=lambda item: -len(item[1])):
        empty = [n for n in names if "!" not in n and (root / n).is_file() and (root / n).stat().st_size == 0]
        if READERS[ending] == "wfdb":
            parts = segments(root, names)
            names = [n for n in names if n not in parts]
        if READERS[ending] == "table":
            names, others = _samples(root, names, empty, sfreq)
            if others:
                note = "no column called time, so not taken for samples (if they are: --sfreq HZ)"
                out.append(Kind(ending, others, [], left_out="other columns than most of them" if sfreq else note))
        if names:
            out.append(Kind(ending, names, empty, [], [], [_empty(root, empty)] if empty else []))
    if not any(not k.left_out for k in out):
        first = out[0].names[0]
        raise RequestError(f"{root / first}: no time column, so the rate is not known; add --sfreq HZ")
    return out


def _samples(root: Path, names: list[str], empty: list[str], sfreq: float | None) -> tuple[list[str], list[str]]:
    """Tables that look like samples, with the empty ones (nobody can tell), and the others."""
    lines = heads(root, [n for n in names if n not in empty])
    if sfreq is None:
        good = {n for n, text in lines.items() if has_time(text)}
    else:  # those with the most common kind of row
        shapes = {n: row_shape(text) for n, text in lines.items()}
        usual = Counter(shape for shape in shapes.values() if shape).most_common(1)
        good = {n for n in shapes if usual and shapes[n] == usual[0][0]}
    if not good:
        return [], names
    return [n for n in names if n in good or n in empty], [n for n in names if n not in good and n not in empty]


def _empty(root: Path, empty: list[str]) -> str:
    more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
    files = "1 file has" if len(empty) == 1 else f"{len(empty)} files have"
    return f"{files} 0 bytes: {', '.join(str(root / n) for n in empty[:_NAMED])}{more}; copy again from the recorder"


def _read_some(kind: Kind, root: Path, sfreq: float | None) -> None:
    names = [] if kind.left_out else [n for n in kind.names if n not in kind.empty]
    for name in names[:: max(1, len(names) // LOOKED_AT)][:LOOKED_AT]:
        path = str(root / name)
        try:
            if kind.reader == "table":
                spec = guess_spec(path, sfreq)
                kind.read.append(read_table(path, spec, units=_NO_UNIT))
                kind.specs.append(spec)
            elif "!" in path:
                raise RecordError("wrong_format", f"{kind.reader} files are not read inside a zip; unpack it", path)
            else:
                from biossl.io import read

                kind.read.append(read(path, units=_NO_UNIT))
        except BiosslError as error:
            kind.unreadable.append(str(error))


def _modality(kind: Kind) -> str | None:
    types = Counter(t for recordings in kind.read for r in recordings for t in r.ch_types)
    return next((_MODALITY[t] for t, _ in types.most_common() if t in _MODALITY), None)


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
    """Channels of which some file states no unit."""
    bare = {n for r in recordings for n, u in zip(r.ch_names, r.units, strict=True) if u == "1"}
    return [n for n in channels if n in bare]
