"""What makes a data card contradict itself, one line a fault.

What lives here: :func:`check_card` and the small facts about a card that more than one room asks for. Types and unknown
keys were judged before, by ``biossl.config``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from biossl.augment.depends import DEPENDENCES
from biossl.channels import canonical
from biossl.config import nearest
from biossl.corpus.card import Card, Files, Label, View
from biossl.errors import RecordError, RequestError
from biossl.io.table import check_spec
from biossl.signal import CH_TYPES, unit_factor

UNKNOWN = "UNKNOWN"  # what a draft writes where a person has to
CHECK = "CHECK"  # first word of a value or comment of a draft that a person has not looked at yet
_OPEN = re.compile(rf"^\s*(?:#|[\w-]+:)\s*['\"]?{CHECK}\b")
NOT_COVARIATES = ("record", "subject")
_WFDB_KINDS = ("beat", "rhythm", "wave", "note")


def check_card(card: Card, *, where: str) -> None:
    """Raise a RequestError for the first contradiction.

    Parameters
    ----------
    card : Card
    where : str
        File named in the error.
    """
    if card.format != 1:
        raise RequestError(f"{where}: key 'format' is {card.format}; this biossl reads format 1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", card.name):
        raise RequestError(f"{where}: key 'name' {card.name!r} must be lower-case letters, digits, '_' or '-'")
    if not card.files or not card.views or not card.native_sfreq:
        empty = next(k for k in ("files", "views", "native_sfreq") if not getattr(card, k))
        raise RequestError(f"{where}: '{empty}' is empty; add at least one entry")
    for i, files in enumerate(card.files):
        _check_files(card, files, f"{where}: 'files[{i}]")
    for i, table in enumerate(card.tables):
        known = {"record", "subject", "path", *(g for f in card.files for g in groups(f))}
        if table.on not in known:
            raise RequestError(f"{where}: key 'tables[{i}].on' cannot be {table.on!r}; {nearest(table.on, sorted(known))}")
        try:
            format_key("1", table.key_format)
        except (ValueError, IndexError, KeyError):
            raise RequestError(
                f"{where}: key 'tables[{i}].key_format' {table.key_format!r} is not like '{{}}' or '{{:05d}}'"
            ) from None
    if card.subjects == "table" and not any(t.subject_column for t in card.tables):
        raise RequestError(f"{where}: 'subjects: table' needs a table with 'subject_column'; add it")
    for key, unit in card.units.items():
        if unit == UNKNOWN:
            raise RequestError(f"{where}: key 'units.{key}' is still to be filled in; write mV, uV, g, m/s2, rad/s ... or '1'")
        kind = key if key in CH_TYPES else channel_type(card, card.channel_map.get(key, key))
        try:
            unit_factor(unit, kind)
        except RecordError:
            raise RequestError(
                f"{where}: key 'units.{key}' {unit!r} is no unit of {kind} channels; write e.g. mV, uV, g or '1'"
            ) from None
    for name, view in card.views.items():
        _check_view(card, view, f"{where}: 'views.{name}")
    for name, label in card.labels.items():
        _check_label(card, label, f"{where}: 'labels.{name}")
    _check_splits(card, where)


def unfinished(name_or_path: str | Path) -> str:
    """What of a drafted card nobody has looked at, in one line; '' for a packaged card or a finished one."""
    path = Path(name_or_path)
    if not path.is_file():
        return ""
    lines = [n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1) if _OPEN.match(line)]
    if not lines:
        return ""
    places = "1 place is" if len(lines) == 1 else f"{len(lines)} places are"
    return f"{path}: {places} still marked {CHECK}, the first in line {lines[0]}; look at each and remove the word"


def groups(files: Files) -> tuple[str, ...]:
    """Named groups of a files entry's pattern."""
    return tuple(re.compile(files.pattern).groupindex)


def covariate_names(card: Card) -> list[str]:
    """Every covariate a record of this card can have, in a fixed order: groups, constants, tables, header."""
    names: dict[str, None] = {}
    for files in card.files:
        names |= dict.fromkeys([g for g in groups(files) if g not in NOT_COVARIATES])
        names |= dict.fromkeys(files.covariates)
    for table in card.tables:
        names |= dict.fromkeys(table.columns.values())
    return list(names | dict.fromkeys(card.header_covariates))


def event_kinds(card: Card) -> set[str]:
    """Kinds of marks the card's files can have."""
    kinds: set[str] = set()
    for files in card.files:
        if files.kind:
            kinds.add(files.kind)
        if files.reader == "wfdb" and files.annotations:
            kinds |= set(_WFDB_KINDS)
        if files.reader in ("edf", "brainvision"):
            kinds |= {"note", "stage"}
        if files.table is not None and files.table.label:
            kinds.add(files.table.label_kind)
        if files.intervals is not None:
            kinds.add(files.intervals.kind)
    return kinds


def parse_channel(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and alternatives of a view's channel: ``"chest=V1|V5"`` -> ``("chest", ("V1", "V5"))``.

    Examples
    --------
    >>> parse_channel("MLII")
    ('MLII', ('MLII',))
    """
    name, equals, rest = text.partition("=")
    options = tuple(o.strip() for o in (rest if equals else name).split("|"))
    return (name.strip() if equals else options[0]), options


def format_key(cell: str, template: str) -> str:
    """A table's cell as the text it is joined by; ``{:05d}`` and the like take whole numbers."""
    whole = re.search(r"\{[^}]*:[^}]*d\}", template)
    return template.format(int(cell) if whole else cell)


def _check_regex(pattern: str, place: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise RequestError(f"{place}' is not a regular expression ({error}); mend it") from None


def _check_files(card: Card, files: Files, place: str) -> None:
    _check_regex(files.pattern, f"{place}.pattern")
    if card.subjects == "group" and "subject" not in groups(files):
        raise RequestError(f"{place}.pattern' has no group (?P<subject>...); add it, or set 'subjects: record' or 'table'")
    if files.reader == "table" and files.table is None:
        raise RequestError(
            f"{place}' has 'reader: table' and no 'table:'; add how to read one, e.g. table: {{sfreq: 100, time: time, "
            "channels: {col_1: II}} (column: channel)"
        )
    if files.table is not None and files.reader != "table":
        raise RequestError(f"{place}.table' is of no use to 'reader: {files.reader}'; write 'reader: table', or remove the block")
    if files.table is not None:
        check_spec(files.table, f"{place}.table'")
    if files.annotations and files.reader != "wfdb":
        raise RequestError(f"{place}.annotations' are WFDB extensions; remove them for reader {files.reader}")
    if files.intervals is not None:
        spec = files.intervals
        for column in (*spec.key, spec.start, spec.end, spec.label):
            if column not in spec.columns:
                raise RequestError(f"{place}.intervals': no column {column!r}; {nearest(column, spec.columns)}")
        for group in spec.key.values():
            if group not in groups(files):
                raise RequestError(f"{place}.intervals.key': the pattern has no group {group!r}; {nearest(group, groups(files))}")


def _check_view(card: Card, view: View, place: str) -> None:
    for key in ("sfreq", "window_s", "stride_s"):
        if not getattr(view, key) > 0:
            raise RequestError(f"{place}.{key}' must be above 0")
    n = view.window_s * view.sfreq
    if abs(n - round(n)) > 1e-6 * n or round(n) < 1:
        raise RequestError(f"{place}.window_s' {view.window_s:g} s at {view.sfreq:g} Hz is {n:g} samples; choose a whole number")
    n = view.stride_s * view.sfreq
    if abs(n - round(n)) > 1e-6 * n or round(n) < 1:
        raise RequestError(f"{place}.stride_s' {view.stride_s:g} s at {view.sfreq:g} Hz is {n:g} samples; choose a whole number")
    if not 0 <= view.max_missing < 1:
        raise RequestError(f"{place}.max_missing' must be at least 0 and below 1")
    _check_regex(view.files, f"{place}.files")
    if not view.channels:
        raise RequestError(f"{place}.channels' is empty; name the channels")
    names = [parse_channel(c)[0] for c in view.channels]
    if len(set(names)) < len(names):
        raise RequestError(f"{place}.channels' names {next(n for n in names if names.count(n) > 1)} twice")
    for text in view.channels:
        for option in parse_channel(text)[1]:
            _check_channel(card, option, f"{place}.channels'")
        if len({channel_type(card, o) for o in parse_channel(text)[1]}) > 1:
            raise RequestError(f"{place}.channels': the alternatives of {text!r} are of different types")
    if view.reference == "average" and not any(channel_type(card, parse_channel(c)[1][0]) == "eeg" for c in view.channels):
        raise RequestError(f"{place}.reference' average needs EEG channels; use as_recorded")
    if view.policy != "sliding":
        _check_kind(card, view.event_kind, f"{place}.event_kind")


def _check_channel(card: Card, name: str, place: str) -> None:
    """Known by the vocabulary, under its canonical name, or named by the card itself."""
    own = {*card.channel_map.values(), *card.units, *(c for f in card.files if f.table for c in f.table.channels.values())}
    text, kind = canonical(name, card.modality)
    if name in own and text == name:
        return
    if kind == "other":
        raise RequestError(f"{place}: channel {name!r} is not known; map it in 'channel_map' or state its unit in 'units'")
    if text != name:
        raise RequestError(f"{place}: channel {name!r} is called {text!r} here; write that")


def channel_type(card: Card, name: str) -> str:
    """Type of a canonical channel name."""
    return canonical(name, card.modality)[1]


def _check_kind(card: Card, kind: str, place: str) -> None:
    kinds = event_kinds(card)
    if kind not in kinds:
        have = nearest(kind, sorted(kinds)) if kinds else "no file of the card has marks"
        raise RequestError(f"{place}' cannot be {kind!r}; {have}")


def _check_label(card: Card, label: Label, place: str) -> None:
    for key in label.depends:
        if key not in DEPENDENCES:
            raise RequestError(f"{place}.depends' cannot hold {key!r}; {nearest(key, DEPENDENCES)}")
    if not 0.5 <= label.cover <= 1.0:
        raise RequestError(f"{place}.cover' must be from .5 (more than half of a window) to 1 (all of it), not {label.cover:g}")
    if label.source in ("event", "overlap"):
        _check_kind(card, label.event_kind, f"{place}.event_kind")
    else:
        known = covariate_names(card)
        if label.column not in known:
            have = nearest(label.column, known) if known else "the card names no covariate"
            raise RequestError(f"{place}.column' cannot be {label.column!r}; {have}")
    if label.last_s < 0 or (label.last_s and label.source != "covariate"):
        raise RequestError(f"{place}.last_s' must be seconds, 0 or more, of a label from a covariate; leave it out")
    if label.kind == "regression":
        if label.map:
            raise RequestError(f"{place}.map' has no use for a regression; remove it")
        return
    if label.kind == "dense":
        if label.source != "overlap":
            raise RequestError(f"{place}.source' of a dense label must be overlap: its classes are those of events that last")
        if label.background in label.map:
            raise RequestError(f"{place}.background' {label.background!r} is also in 'map'; name it otherwise")
    elif label.background or label.judged != "whole":
        raise RequestError(f"{place}': 'background' and 'judged' are of dense labels; remove them, or set kind: dense")
    least = 2 if label.kind == "multiclass" or (label.kind == "dense" and not label.background) else 1
    if len(label.map) < least:
        raise RequestError(f"{place}.map' needs its classes: class -> list of source labels")
    if label.kind in ("multiclass", "dense"):
        twice = _twice(v for values in label.map.values() for v in values)
        if twice:
            raise RequestError(f"{place}.map': source label {twice!r} stands in two classes; keep it in one")


def _check_splits(card: Card, where: str) -> None:
    first = {other: names[0] for names in card.same_person for other in names}
    if len(first) < sum(map(len, card.same_person)):
        raise RequestError(f"{where}: 'same_person' has a name in two groups; join them")
    for name, columns in card.overlap_where.items():
        if name not in card.overlaps:
            raise RequestError(f"{where}: 'overlap_where' names {name!r}, which is not in 'overlaps'; add it there")
        for column in columns:
            if column not in covariate_names(card):
                raise RequestError(
                    f"{where}: 'overlap_where.{name}' cannot be of {column!r}; {nearest(column, covariate_names(card))}"
                )
    for name, split in card.splits.items():
        place = f"{where}: 'splits.{name}"
        if not split.parts:
            raise RequestError(f"{place}.parts' is empty; name the parts")
        if split.by == "covariate" and split.column not in covariate_names(card):
            raise RequestError(f"{place}.column' cannot be {split.column!r}; {nearest(split.column, covariate_names(card))}")
        people = split.by == "subject" or (split.by == "record" and card.subjects == "record")
        seen: dict[str, str] = {}
        for part, values in split.parts.items():
            for value in values:
                person = first.get(value, value) if people else value
                if seen.setdefault(person, part) != part:
                    also = f" (same person as {person})" if person != value else ""
                    raise RequestError(f"{place}': {value!r}{also} is in {seen[person]} and in {part}; keep it in one part")


def _twice(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for v in values:
        if v in seen:
            return v
        seen.add(v)
    return None
