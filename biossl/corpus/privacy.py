"""What a corpus of a set that is not public may keep of a record: an allow-list, applied where the record is read.

What lives here: pure functions on covariates, marks and the card. Keys and day shifts come from ``identity.py``. Text is
kept where the card itself names it; any other text becomes a key that still tells categories apart (two recordings of one
site stay recordings of one site), since a header's free text may name anybody.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from biossl.corpus.card import Card
from biossl.corpus.identity import Pseudonyms, day_number, looks_like_date

_NUMBER = re.compile(r"[+-]?\d{1,5}(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")  # longer ones may be somebody's number
_ANY_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")
_AGE = re.compile(
    r"(?<![A-Za-z])(?i:age|alter|âge|edad)(?![A-Za-z])"  # a word of its own: age, AGE_years, Alter
    r"|(?<![A-Za-z])(?:[Aa]ge|[Aa]lter)(?=[A-Z])|(?<=[a-z])(?:Age|Alter)(?![a-z])"  # AgeAtVisit, patientAge
    r"|(?<![A-Za-z])(?i:age(?:at|in(?!g)|years?|yrs?|months?|weeks?|days?))"  # agedays, AGEYEARS
    r"|(?i:patient|patients|subject|participant|person|donor|proband|lebens|patienten)(?i:age|alter)(?![a-z])"  # patientage
)
_BIRTH = re.compile(
    r"birth(?![ _-]?(?:weight|length|order|mode|type|place|ga(?![a-z])))|geburt(?!s?[ _-]?(?:gewicht|l[aä]nge|ort|modus))"
    r"|naissance|nacimiento|(?:^|[^a-z])(?:dob|born)(?![a-z])",
    re.IGNORECASE,
)
_A_YEAR = {"month": 12.0, "week": 52.1775, "day": 365.2425}  # of what a column of ages counts in, when its name says so
OLDEST = 90  # ages from here on are one group (HIPAA safe harbor, 45 CFR 164.514(b)(2)(i)(C): all over 89)
_NOT_AN_AGE = 130  # such numbers are codes ("unknown", "over 89")
_ALIKE = 5  # ids of one shape from which on the shape tells nothing of a single one
_COMMON = {"male", "female", "other", "unknown", "yes", "no", "true", "false", "left", "right", "none"}


def private_covariates(
    values: Mapping[str, str], card: Card, names: Pseudonyms, subject_key: str, raw: list[str]
) -> dict[str, str]:
    """Covariates as they are stored.

    Parameters
    ----------
    values : mapping of str to str
        As the card's groups, tables and headers give them.
    card : Card
    names : Pseudonyms
    subject_key : str
        Stored name of the subject; decides the shift of dates.
    raw : list of str
        The subject's and record's own names: a cell that holds one becomes empty.

    Returns
    -------
    dict
        Ages above 89 as 90; dates as shifted day numbers, those of birth and those in a doubtful order empty; numbers of up to five digits, words of up to three
        letters and what the card names as they are; other text as a key.

    Examples
    --------
    >>> card = load_card("ptbxl")  # doctest: +SKIP
    >>> private_covariates({"age": "61", "note": "seen by Dr X"}, card, names, key, [])  # doctest: +SKIP
    {'age': '61', 'note': 'k3f0c7d21a9be'}
    """
    return {column: _cell(column, text.strip(), card, names, subject_key, raw) for column, text in values.items()}


def age_limit(column: str, card: Card) -> float | None:
    """What 90 years are in a column of ages; None for any other column."""
    named = [name for name, label in card.labels.items() if label.source == "covariate" and label.column == column]
    if not any(_AGE.search(name) for name in (column, *named)):
        return None
    return OLDEST * next((n for unit, n in _A_YEAR.items() if unit in column.casefold()), 1.0)


def is_birth(column: str) -> bool:
    """Does a column hold a day of birth, by its name? It gives an exact age, so it is left out."""
    return _BIRTH.search(column) is not None


def _cell(column: str, text: str, card: Card, names: Pseudonyms, subject_key: str, raw: list[str]) -> str:
    if not text or is_birth(column):
        return ""
    limit = age_limit(column, card)
    if limit is not None and _ANY_NUMBER.fullmatch(text) and limit <= float(text) <= limit / OLDEST * _NOT_AN_AGE:
        return f"{limit:.0f}"
    labels = [label for label in card.labels.values() if label.source == "covariate" and label.column == column]
    named = {code for label in labels for codes in label.map.values() for code in codes}
    named |= {v for s in card.splits.values() if s.column == column for values in s.parts.values() for v in values}
    if text in named:
        return text
    parse = {label.parse for label in labels}
    if "scp" in parse:
        return _named_scp(text, named)
    if "codes" in parse:
        return ",".join(code for code in re.split(r"[,;\s]+", text) if code in named)
    if any(name in text for name in raw):
        return ""
    number = _ANY_NUMBER if any(label.kind == "regression" for label in labels) else _NUMBER
    if number.fullmatch(text):
        return text
    day = day_number(text)
    if day is not None:
        return f"{names.day(day, subject_key):.0f}"
    if looks_like_date(text):
        return ""
    if (len(text) <= 3 and text.isalpha()) or text.lower() in _COMMON:
        return text
    return names.value(column, text)


def _named_scp(text: str, named: set[str]) -> str:
    try:
        codes = {str(k): float(v) for k, v in ast.literal_eval(text).items() if str(k) in named}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        return ""
    return repr(codes)


def private_events(events: dict[str, list[Any]], card: Card, view: str) -> dict[str, list[Any]]:
    """Marks as they are stored: labels the card names, ``other`` in place of any other text; no source."""
    known = set(card.views[view].event_labels)
    known |= {text for files in card.files for text in files.event_labels.values()}
    known |= {text for label in card.labels.values() for texts in label.map.values() for text in texts}
    n = len(events["label"])
    return {**events, "label": [t if t in known else "other" for t in events["label"]], "source": [""] * n}


_FAULTS = {
    "all_nan": "not one sample of the view's channels was observed; check the electrodes of this recording, or the export",
    "bad_checksum": "its samples differ from the checksum in its header; copy it again from the recorder",
    "crashed": "its reader was killed by this file; try `biossl inspect` on it, then export it again",
    "empty": "it holds nothing (0 bytes, or a header without samples); copy it again from the recorder",
    "infinite": "a sample is infinite; mend the file, or the gain in its header",
    "length": "it and its companion file have different numbers of rows; export both again",
    "lying_header": "its header contradicts its samples or itself; `biossl inspect` says where, then export it again",
    "missing": "a file that belongs to it is not there; copy it beside the others",
    "missing_channel": (
        "a channel of the view is not in it; map its name in the card's `channel_map`, or set `optional_channels: true` "
        "in the view"
    ),
    "needs_card": "it is a text, not what its suffix promises; copy it again, or give tables an entry of their own in the card",
    "no_signal": "it holds marks but no signal; leave it out of the card's pattern",
    "no_subject": "the card's table has no row that says whose it is; add the row",
    "rate": "it was recorded at a rate that is not in the card's `native_sfreq`; add the rate if it is right",
    "too_large": "it does not fit in memory; split the file, or run with --jobs 1",
    "truncated": "it ends earlier than its header says; copy it again from the recorder",
    "unreadable": "its reader failed; check that the file is whole and may be read, and try `biossl inspect` on it",
    "wrong_format": "it is not of the format or columns the card says; mend the card's entry for it, or leave it out of its pattern",
    "zip_in_zip": "a zip inside a zip; unpack the outer one",
    "zero_gain": "its header states a gain of 0, so its counts have no unit; mend the header",
}
_UNITS = {"ecg": "{ecg: mV}", "eeg": "{eeg: uV}", "imu": "{acc: g, gyro: rad/s}"}


def private_fault(code: str, modality: str) -> str:
    """What is wrong with a file and what to do, from its code alone: a reader's message may hold names.

    Examples
    --------
    >>> private_fault("empty", "ecg")
    'it holds nothing (0 bytes, or a header without samples); copy it again from the recorder'
    """
    if code == "unknown_unit":
        units = _UNITS[modality]
        return f"it states no unit that is known; add what the device measures to the card, e.g. `units: {units}`"
    return _FAULTS.get(code, "it cannot be used; `biossl inspect` says more")


def id_shape(ids: Iterable[str]) -> str:
    """What ids look like, without any of them: digits are 9, letters A or a; '' unless five or more look the same.

    Examples
    --------
    >>> id_shape(["P001", "P002", "P003", "P004", "P117"])
    'A999'
    """
    shapes = Counter(re.sub(r"[^\W\d_]", lambda m: "A" if m[0].isupper() else "a", re.sub(r"\d", "9", text)) for text in set(ids))
    shape, count = max(shapes.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return shape if count >= _ALIKE else ""


def private_card(card: Card, names: Pseudonyms) -> Card:
    """The card as it is stored: aliases gone (they have been resolved), names in splits keyed."""
    splits = {}
    for name, split in card.splits.items():
        key = {"subject": names.subject, "record": names.record}.get(split.by)
        parts = {p: [key(v, card) for v in values] for p, values in split.parts.items()} if key else split.parts
        splits[name] = replace(split, parts=parts)
    return replace(card, same_person=[], splits=splits)
