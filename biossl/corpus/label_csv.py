"""Join a CSV of labels to a corpus, at any time: ids are text, and what cannot be a label is refused with its line.

What lives here: :func:`add_labels` (``biossl label``) and the reading of such tables. How a stored label is spread over
windows is ``labels.py``.
"""

from __future__ import annotations

import csv as csvlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from biossl.corpus.labels import BINARY, NAME, absent, as_number, load_labels, split_codes
from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.index import Corpus


class _Entry(NamedTuple):
    """One cell of the CSV: the value, the text of the date column, the line it stands on."""

    value: str
    day: str
    line: int


def add_labels(
    corpus: Corpus,
    csv: str | Path,
    *,
    key: Literal["record", "subject"],
    name: str,
    nearest: str | None = None,
    within: str | None = None,
    kind: Literal["binary", "multiclass", "multilabel", "regression"] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Join a CSV of labels to a corpus and store them as ``labels/NAME.parquet``.

    Parameters
    ----------
    corpus : Corpus
    csv : path
        A column named like ``key`` holds ids, which are text (``007`` is not ``7``). The label is the column ``name``,
        or the only other one. An empty cell is unknown.
    key : str
        ``record`` or ``subject``. For a corpus that is not public the CSV keeps the hospital's own ids; they are
        keyed with the folder's secret before anything is compared or written.
    nearest : str, optional
        Date column: of a subject's rows the one nearest to the recording's day counts.
    within : str, optional
        Largest distance for ``nearest``, e.g. ``30d``.
    kind : str, optional
        Default: ``binary`` for 0 and 1, ``regression`` for more than 10 different numbers, else ``multiclass``.

    Returns
    -------
    dict
        ``matched``, ``unmatched`` (ids of the CSV), ``windows``, ``classes`` and so on.

    Raises
    ------
    RequestError
        File or column absent, name taken or not a name.
    DataError
        Two different values for one id; no id of the CSV is in the corpus; one class only; a number that is infinite.

    Examples
    --------
    >>> add_labels(corpus, "ef.csv", key="record", name="low_ef")  # doctest: +SKIP
    """
    from biossl.atomic import write_parquet
    from biossl.corpus.identity import Pseudonyms

    free_name(corpus, name, overwrite)
    if within is not None and nearest is None:
        raise RequestError("--within needs --nearest DATE (the CSV's date column)")
    limit = _days(within) if within is not None else float("inf")
    rows, column = read_csv(Path(csv), key, name, nearest)
    pseudonyms = Pseudonyms.of(corpus)
    known = [(line, cells) for line, cells in rows if not absent(cells[column])]
    if not known:
        raise DataError(f"{csv}: column '{column}' is empty in every row; fill it")
    numeric = not any(np.isnan(as_number(cells[column])) for _, cells in known)
    kind = kind or _guess([cells[column] for _, cells in known])
    by_id: dict[str, list[_Entry]] = {}
    for line, cells in known:
        # ids are compared in the corpus's own form, so that no raw id goes further than this line
        own = getattr(pseudonyms, key)(cells[key], corpus.card)
        value = _checked_value(cells[column].strip(), kind, numeric, f"{csv} line {line}")
        by_id.setdefault(own, []).append(_Entry(value, cells[nearest] if nearest else "", line))
    index = corpus.index
    present = set(index[key])
    matched = [i for i in by_id if i in present]
    if not matched:
        raise no_match(corpus, csv, key, [cells[key] for _, cells in known])
    stored_key: str = key
    counts: dict[str, int] = {}
    if nearest is None:
        conflict = [i for i in by_id if len({e.value for e in by_id[i]}) > 1]
        if conflict:
            first = by_id[conflict[0]]
            line = next(e.line for e in first if e.value != first[0].value)
            dated = ", or choose by date with --nearest DATE_COLUMN --within 30d" if index["day"].notna().any() else ""
            raise DataError(
                f"{csv}: {len(conflict)} {key} ids have two different values (lines {first[0].line} and {line}); "
                f"keep one row an id{dated}"
            )
        values = {i: by_id[i][0].value for i in matched}
    else:
        values, counts = _by_date(corpus, by_id, key, pseudonyms, limit, Path(csv))
        stored_key = "record"
    _require_two(kind, set(values.values()), {e.value for entries in by_id.values() for e in entries}, column, key, csv)
    classes = _value_classes(kind, list(values.values()))
    frame = _frame(stored_key, values)
    write_parquet(
        corpus.path / "labels" / f"{name}.parquet", frame, {"kind": kind, "key": stored_key, "classes": json.dumps(classes)}
    )
    labels = load_labels(corpus, name)
    report: dict[str, Any] = {
        "name": name, "kind": kind, "classes": list(classes), "ids": len(by_id), "matched": len(matched),
        "unmatched": len(by_id) - len(matched), f"{key}s_without": len(present) - len(matched),
        "windows": int(labels.known.sum()), "counts": labels.counts(),
    }  # fmt: skip
    return report | counts


def no_match(corpus: Corpus, csv: str | Path, key: str, ids: Sequence[str]) -> DataError:
    """The error of a table of which no id is in the corpus: what ids look like there, and in the table."""
    from biossl.corpus.privacy import id_shape

    present = set(corpus.index[key])
    theirs = corpus.facts.get("id_shapes", {}).get(key, "")
    own = id_shape(ids)
    told = f", such as '{min(present)}'" if corpus.card.public else f", whose ids look like '{theirs}'" if theirs else ""
    if theirs and own and not corpus.card.public:
        told += f", those of the table like '{own}' (A = letter, 9 = digit)"
    return DataError(
        f"{csv}: none of its {len(set(ids))} {key} ids is in the corpus ({len(present)} {key}s{told}); "
        "ids are compared as text ('007' is not '7'); check the column and --key"
    )


def free_name(corpus: Corpus, name: str, overwrite: bool) -> None:
    """RequestError when a label cannot be called so: not a name, the card's, or one that exists."""
    if not NAME.fullmatch(name):
        raise RequestError(f"--name '{name}': use letters, digits, '_', '-' and '.' only")
    if name in corpus.card.labels:
        raise RequestError(f"--name '{name}': the card has a label of that name; choose another")
    if (corpus.path / "labels" / f"{name}.parquet").exists() and not overwrite:
        raise RequestError(f"{corpus.path}: label '{name}' exists; choose another name or add --overwrite")


def read_csv(path: Path, key: str, name: str, nearest: str | None) -> tuple[list[tuple[int, dict[str, str]]], str]:
    """Line and cells of every row, as text, and which column is the label."""
    columns, rows = read_cells(path)
    require_columns(path, columns, {key: ""} | ({nearest: " for --nearest"} if nearest else {}))
    if nearest in (key, name):
        raise RequestError(f"--nearest {nearest}: that column is the {'id' if nearest == key else 'label'}; name the date column")
    require_rows(path, rows, f"give one row a {key}")
    others = [c for c in columns if c not in (key, nearest)]
    if name in others:
        return rows, name
    if len(others) != 1:
        raise RequestError(f"{path}: no column '{name}' among {', '.join(columns)}; name the label's column like --name")
    return rows, others[0]


def read_cells(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a CSV (comma, semicolon or tab), and line and cells of every row, as text."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            sample = handle.read(4096)
            handle.seek(0)
            comma = max(",;\t", key=sample.split("\n")[0].count)
            reader = csvlib.DictReader(handle, delimiter=comma, restval="")
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            return columns, [(reader.line_num, cells) for cells in reader]
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; give a CSV of labels") from None
    except (UnicodeDecodeError, csvlib.Error, IsADirectoryError):
        raise RequestError(f"{path}: not a CSV in UTF-8; export it as 'CSV UTF-8'") from None


def require_columns(path: Path, columns: Sequence[str], wanted: dict[str, str]) -> None:
    """RequestError when a column is missing; the text beside its name says what it is for."""
    for name, option in wanted.items():
        if name not in columns:
            raise RequestError(f"{path}: no column '{name}'{option}; it has {', '.join(columns) or 'none'}")


def require_rows(path: Path, rows: list[tuple[int, dict[str, str]]], remedy: str) -> None:
    """RequestError when a table has no rows, or one with more cells than columns."""
    if not rows:
        raise RequestError(f"{path}: no rows; {remedy}")
    long = [line for line, cells in rows if None in cells]
    if long:
        raise RequestError(f"{path} line {long[0]}: more cells than columns; quote text that holds the separator")


def _by_date(
    corpus: Corpus, by_id: dict[str, list[_Entry]], key: str, pseudonyms: Any, limit: float, csv: Path
) -> tuple[dict[str, str], dict[str, int]]:
    """Value of the nearest day by record; how many records were labelled, too far, tied (unknown) or without a date."""
    from biossl.corpus.identity import day_number

    records = corpus.index.drop_duplicates("record")
    if records["day"].isna().all():
        raise DataError(
            f"{corpus.path}: its recordings have no dates, so --nearest cannot be used; leave it out and keep one row a {key}"
        )
    values: dict[str, str] = {}
    ties = undated = 0
    too_far: list[float] = []
    for record, subject, own, day in zip(records["record"], records["subject"], records[key], records["day"], strict=True):
        options = []
        for value, text, line in by_id.get(own, []):
            theirs = day_number(text)
            if theirs is None:
                raise DataError(f"{csv} line {line}: '{text[:20]}' is not a date; write dates as YYYY-MM-DD")
            options.append((abs(np.floor(pseudonyms.day(theirs, subject)) - np.floor(day)), value))
        if not options:
            continue
        if np.isnan(day):
            undated += 1
            continue
        best = min(d for d, _ in options)
        nearest_values = {v for d, v in options if d == best}
        if best > limit:
            too_far.append(float(best))
        elif len(nearest_values) > 1:
            ties += 1
        else:
            values[record] = nearest_values.pop()
    if not values:
        reasons, remedies = [], []
        if too_far:
            reasons.append(f"{len(too_far)} without a row within {limit:g} days (the nearest is {min(too_far):g} days away)")
            remedies.append("widen --within")
        if ties:
            reasons.append(f"{ties} with two different values equally near")
            remedies.append("keep one row a day")
        if undated:
            reasons.append(f"{undated} without a date")
            remedies.append(f"leave out --nearest and keep one row a {key}")
        raise DataError(f"{csv}: no recording gets a value: {', '.join(reasons)}; {', or '.join(remedies)}")
    counts = {"labelled": len(values), "too_far": len(too_far), "tied": ties, "undated": undated}
    return values, {f"records_{k}": n for k, n in counts.items()}


def _days(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(d|w|h)?\s*", text)
    if not match:
        raise RequestError(f"--within '{text}': write days, e.g. 30d")
    return float(match[1]) * {"d": 1.0, "w": 7.0, "h": 1 / 24, None: 1.0}[match[2]]


def _guess(values: list[str]) -> Literal["binary", "multiclass", "regression"]:
    numbers = {as_number(v) for v in values}
    if numbers == {0.0, 1.0}:
        return "binary"
    return "regression" if not any(map(np.isnan, numbers)) and len(numbers) > 10 else "multiclass"


def _checked_value(text: str, kind: str, numeric: bool, place: str) -> str:
    """A cell as it is stored; DataError when its kind cannot hold it. ``numeric``: the whole column is numbers."""
    value = as_number(text)
    if kind == "regression" and np.isnan(value):
        raise DataError(f"{place}: '{text[:20]}' is not a number; leave the cell empty where the value is unknown")
    if np.isinf(value) and (numeric or kind == "regression"):
        raise DataError(f"{place}: '{text[:20]}' is not a finite number; leave the cell empty where the value is unknown")
    if kind == "binary":
        if value not in (0, 1):
            raise DataError(f"{place}: '{text[:20]}' is neither 0 nor 1; mend the cell, or choose another --kind")
        return str(int(value))
    return text


def _require_two(kind: str, values: set[str], everywhere: set[str], column: str, key: str, csv: str | Path) -> None:
    """DataError when all values joined are one: nothing can be learned or judged from it."""
    found, known = ({c for v in s for c in _split_value(v, kind)} for s in (values, everywhere))
    if len(found) > 1:
        return
    remedy = (
        f"its other values are of {key}s that are not in the corpus: check their ids"
        if len(known) > 1
        else f"add rows of the others (a {key} without a row is unknown, never negative)"
    )
    raise DataError(
        f"{csv}: every {key} that matches has '{min(found)[:20]}' in column '{column}', and two values are needed; {remedy}"
    )


def _split_value(value: str, kind: str) -> list[str]:
    return split_codes(value) if kind == "multilabel" else [value]


def _value_classes(kind: str, values: list[str]) -> list[str]:
    if kind == "regression":
        return []
    if kind == "binary":
        return list(BINARY)
    codes = {c for v in values for c in _split_value(v, kind)}
    return sorted(codes, key=lambda c: (np.isnan(as_number(c)), as_number(c) if not np.isnan(as_number(c)) else 0.0, c))


def _frame(key: str, values: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    items = sorted(values.items())
    return pd.DataFrame({key: [k for k, _ in items], "value": [v for _, v in items]})
