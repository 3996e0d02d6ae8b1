"""Labels of windows: derived from the card at load, or joined from a CSV at any time. Signals are never reconverted.

What lives here: :class:`Labels`, deriving, :func:`add_labels`. Unknown is NaN everywhere, never negative.
"""

from __future__ import annotations

import ast
import csv as csvlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biossl.config import nearest as nearest_key
from biossl.corpus.card import Label
from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.index import Corpus

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MISSING = {"", "nan", "none", "null", "na", "n/a"}


@dataclass(frozen=True)
class Labels:
    """One target for every row of a corpus.

    Attributes
    ----------
    name : str
    kind : str
        ``multiclass``, ``multilabel`` or ``regression``.
    classes : tuple of str
        Empty for regression.
    values : ndarray, float32, (n_index, n_classes or 1)
        Multilabel 0/1 per class; multiclass the class number; regression the value. NaN = unknown.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Rows with at least one known value, bool (n_index,)."""
        return ~np.isnan(self.values).all(axis=1)

    def counts(self) -> dict[str, int]:
        """Windows per class (positives), unknown left out."""
        if self.kind == "multilabel":
            return {c: int((self.values[:, k] == 1).sum()) for k, c in enumerate(self.classes)}
        return {c: int((self.values[:, 0] == k).sum()) for k, c in enumerate(self.classes)}


def label_names(corpus: Corpus) -> list[str]:
    """Names of the card's labels and of the added ones, sorted within each."""
    added = sorted(p.stem for p in (corpus.path / "labels").glob("*.parquet"))
    return [*corpus.card.labels, *(name for name in added if name not in corpus.card.labels)]


def load_labels(corpus: Corpus, name: str) -> Labels:
    """A label for every row of the corpus.

    Raises
    ------
    DataError
        No such label (names the nearest), or the view has no windows it could apply to.
    """
    if name in corpus.card.labels:
        label = corpus.card.labels[name]
        by_source = {"event": _from_event, "overlap": _from_overlap, "covariate": _from_covariate}
        return by_source[label.source](corpus, name, label)
    file = corpus.path / "labels" / f"{name}.parquet"
    if NAME.fullmatch(name) and file.is_file():
        return _from_file(corpus, name, file)
    names = label_names(corpus)
    help_ = nearest_key(name, names) if names else "it has none; add one with `biossl label`"
    raise DataError(f"{corpus.path}: no label '{name}'; {help_}")


# ---------------------------------------------------------------------- from the card


def _classes(label: Label, found: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Classes in the card's order and source label -> class; without a map every source label is its own class."""
    if label.map:
        names = tuple(label.map)
        return names, {source: k for k, key in enumerate(names) for source in label.map[key]}
    names = tuple(sorted({f for f in found if f.strip().lower() not in _MISSING}))
    return names, {n: k for k, n in enumerate(names)}


def _from_event(corpus: Corpus, name: str, label: Label) -> Labels:
    view = corpus.card.views[corpus.view]
    if view.policy == "sliding" or (label.event_kind and view.event_kind != label.event_kind):
        fit = [v for v, w in corpus.card.views.items() if w.policy != "sliding" and w.event_kind == label.event_kind]
        raise DataError(
            f"{corpus.path}: label '{name}' belongs to windows cut at {label.event_kind or 'events'}, and view "
            f"'{corpus.view}' is not cut so; convert with --view {fit[0] if fit else 'one that is'}"
        )
    events = corpus.index["event"].astype(str).tolist()
    classes, number = _classes(label, events)
    values = np.array([number.get(e, np.nan) for e in events], np.float32)[:, None]
    if label.kind == "multilabel":
        values = _one_hot(values[:, 0], len(classes))
    return Labels(name, label.kind, classes, values)


def _one_hot(number: np.ndarray, n: int) -> np.ndarray:
    out = np.full((len(number), n), np.nan, np.float32)
    known = ~np.isnan(number)
    out[known] = np.eye(n, dtype=np.float32)[number[known].astype(int)]
    return out


def _from_overlap(corpus: Corpus, name: str, label: Label) -> Labels:
    """Multiclass: the source label that covers more than half the window. Multilabel: every one that touches it."""
    index, events = corpus.index, corpus.events
    events = events[events["kind"] == label.event_kind] if label.event_kind else events
    classes, number = _classes(label, sorted(set(events["label"].astype(str))))
    window = corpus.spec.window_s
    values = np.full((len(index), len(classes) if label.kind == "multilabel" else 1), np.nan, np.float32)
    start = index["start_s"].to_numpy(np.float64)
    by_record = index.groupby("record", sort=False).indices
    for record, marks in events.groupby("record", sort=False):
        rows = by_record.get(record)
        if rows is None:
            continue
        onset = marks["onset_s"].to_numpy(np.float64)
        end = onset + marks["duration_s"].to_numpy(np.float64)
        text = marks["label"].astype(str).to_numpy()
        order = np.argsort(onset, kind="stable")
        onset, end, text = onset[order], end[order], text[order]
        latest = np.maximum.accumulate(end)  # events may nest, so ends alone are not sorted
        for row in rows:
            low, high = start[row], start[row] + window
            some = slice(int(np.searchsorted(latest, low, "left")), int(np.searchsorted(onset, high, "left")))
            cover = np.minimum(end[some], high) - np.maximum(onset[some], low)
            if label.kind == "multilabel":
                touched = {number[t] for t, c in zip(text[some], cover, strict=True) if c >= 0 and t in number}
                values[row] = [float(k in touched) for k in range(len(classes))]
                continue
            total: dict[str, float] = {}
            for t, c in zip(text[some], cover, strict=True):
                total[t] = total.get(t, 0.0) + max(float(c), 0.0)
            per_class: dict[float, float] = {}
            for t, c in total.items():
                if t in number:
                    per_class[number[t]] = per_class.get(number[t], 0.0) + c
            best = max(per_class, key=per_class.__getitem__, default=None)
            if best is not None and per_class[best] > window / 2:
                values[row, 0] = best
    return Labels(name, label.kind, classes, values)


def _from_covariate(corpus: Corpus, name: str, label: Label) -> Labels:
    index = corpus.index
    if label.column not in index.columns:
        raise DataError(
            f"{corpus.path}: label '{name}' needs covariate '{label.column}', which the corpus lacks; "
            "was the card's metadata table beside the recordings?"
        )
    return _from_text(name, label, index[label.column].tolist())


def _from_text(name: str, label: Label, cells: list[Any]) -> Labels:
    text = ["" if _absent(c) else _plain(c) for c in cells]
    if label.kind == "regression":
        return Labels(name, label.kind, (), np.array([_number(t) for t in text], np.float32)[:, None])
    parse = _PARSE[label.parse]
    distinct = {t: parse(t, label.threshold) for t in set(text)}
    classes, number = _classes(label, [code for codes, _ in distinct.values() for code in codes])
    width = len(classes) if label.kind == "multilabel" else 1
    multi = label.kind == "multilabel"
    encoded = {t: _encode(codes, doubtful, number, width, multi) for t, (codes, doubtful) in distinct.items()}
    values = np.array([encoded[t] for t in text], np.float32).reshape(len(text), width)
    return Labels(name, label.kind, classes, values)


def _encode(codes: list[str], doubtful: list[str], number: dict[str, int], width: int, multi: bool) -> np.ndarray:
    """One record's values; a record of which no code is known is unknown, not negative."""
    sure = {number[c] for c in codes if c in number}
    unsure = {number[c] for c in doubtful if c in number} - sure
    out = np.full(width, np.nan, np.float32)
    if not multi:
        if len(sure) == 1:
            out[0] = sure.pop()
        return out
    if sure:
        out[:] = 0
        out[sorted(unsure)] = np.nan
        out[sorted(sure)] = 1
    return out


def _absent(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell)) or str(cell).strip().lower() in _MISSING


def _plain(cell: Any) -> str:
    """Text of a cell; 1.0 of a number column is the label ``1``."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _parse_value(text: str, threshold: float) -> tuple[list[str], list[str]]:
    return ([text] if text else []), []


def _parse_codes(text: str, threshold: float) -> tuple[list[str], list[str]]:
    return [c for c in re.split(r"[,;\s]+", text) if c], []


def _parse_scp(text: str, threshold: float) -> tuple[list[str], list[str]]:
    """A Python dict literal code -> likelihood; codes below the threshold are doubtful: neither yes nor no."""
    try:
        codes = ast.literal_eval(text) if text else {}
        pairs = [(str(k), float(v)) for k, v in codes.items()]
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise DataError(f"'{text[:40]}': not a dictionary of codes and likelihoods; use parse: codes or value") from None
    return [k for k, v in pairs if v >= threshold], [k for k, v in pairs if v < threshold]


_PARSE: dict[str, Callable[[str, float], tuple[list[str], list[str]]]] = {
    "value": _parse_value,
    "codes": _parse_codes,
    "scp": _parse_scp,
}


# ---------------------------------------------------------------------- from a CSV


def _from_file(corpus: Corpus, name: str, file: Path) -> Labels:
    """Added labels are kept per record or subject and spread over the windows at load."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    frame = table.to_pandas()
    kind, key = meta["kind"], meta["key"]
    lookup = dict(zip(frame[key].tolist(), frame["value"].tolist(), strict=True))
    cells = [lookup.get(k) for k in corpus.index[key].tolist()]
    classes = json.loads(meta["classes"])
    label = Label(
        kind=kind,  # type: ignore[arg-type]
        source="covariate",
        parse="codes" if kind == "multilabel" else "value",
        map={c: [c] for c in classes},
    )
    return _from_text(name, label, cells)


def add_labels(
    corpus: Corpus,
    csv: str | Path,
    *,
    key: Literal["record", "subject"],
    name: str,
    nearest: str | None = None,
    within: str | None = None,
    kind: Literal["multiclass", "multilabel", "regression"] | None = None,
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
        Default: ``regression`` for more than 10 different numbers, else ``multiclass``.

    Returns
    -------
    dict
        ``matched``, ``unmatched`` (ids of the CSV), ``windows``, ``classes`` and so on.

    Raises
    ------
    RequestError
        File or column absent, name taken or not a name.
    DataError
        Two different values for one id; no id of the CSV is in the corpus.

    Examples
    --------
    >>> add_labels(corpus, "ef.csv", key="record", name="low_ef")  # doctest: +SKIP
    """
    from biossl.atomic import write_parquet
    from biossl.corpus.identity import Pseudonyms

    _free_name(corpus, name, overwrite)
    if within is not None and nearest is None:
        raise RequestError("--within needs --nearest DATE (the CSV's date column)")
    limit = _days(within) if within is not None else float("inf")
    rows, column = _read_csv(Path(csv), key, name, nearest)
    pseudonyms = Pseudonyms.of(corpus)
    by_id: dict[str, list[tuple[str, str]]] = {}
    for cells in rows:
        # ids are compared in the corpus's own form, so that no raw id goes further than this line
        own = getattr(pseudonyms, key)(cells[key], corpus.card)
        day = cells[nearest] if nearest else ""
        if not _absent(cells[column]):
            by_id.setdefault(own, []).append((cells[column].strip(), day))
    if not by_id:
        raise DataError(f"{csv}: column '{column}' is empty in every row; fill it")
    index = corpus.index
    present = set(index[key])
    matched = [i for i in by_id if i in present]
    if not matched:
        raise DataError(
            f"{csv}: none of its {len(by_id)} {key} ids is in the corpus ({len(present)} {key}s); ids are compared as "
            f"text ('007' is not '7'); check the column and --key"
        )
    stored_key, ties, far = key, 0, 0
    if nearest is None:
        conflict = [i for i in by_id if len({v for v, _ in by_id[i]}) > 1]
        if conflict:
            raise DataError(
                f"{csv}: {len(conflict)} {key} ids have two different values; keep one row an id, "
                "or choose by date with --nearest COLUMN --within 30d"
            )
        values = {i: by_id[i][0][0] for i in matched}
    else:
        values, ties, far = _by_date(corpus, by_id, key, pseudonyms, limit, Path(csv))
        stored_key = "record"
    kind = kind or _guess(list(values.values()))
    classes = _value_classes(kind, list(values.values()), Path(csv))
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
    if nearest is not None:
        report |= {"records_labelled": len(values), "records_too_far": far, "records_tied": ties}
    return report


def _free_name(corpus: Corpus, name: str, overwrite: bool) -> None:
    if not NAME.fullmatch(name):
        raise RequestError(f"--name '{name}': use letters, digits, '_', '-' and '.' only")
    if name in corpus.card.labels:
        raise RequestError(f"--name '{name}': the card has a label of that name; choose another")
    if (corpus.path / "labels" / f"{name}.parquet").exists() and not overwrite:
        raise RequestError(f"{corpus.path}: label '{name}' exists; choose another name or add --overwrite")


def _read_csv(path: Path, key: str, name: str, nearest: str | None) -> tuple[list[dict[str, str]], str]:
    """Rows as text, and which column is the label."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            sample = handle.read(4096)
            handle.seek(0)
            comma = max(",;\t", key=sample.split("\n")[0].count)
            reader = csvlib.DictReader(handle, delimiter=comma, restval="")
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; give a CSV of labels") from None
    except (UnicodeDecodeError, csvlib.Error, IsADirectoryError):
        raise RequestError(f"{path}: not a CSV in UTF-8; export it as 'CSV UTF-8'") from None
    for wanted in [key] + ([nearest] if nearest else []):
        if wanted not in columns:
            raise RequestError(f"{path}: no column '{wanted}'; it has {', '.join(columns) or 'none'}")
    if not rows:
        raise RequestError(f"{path}: no rows; give one row a {key}")
    long = [i for i, r in enumerate(rows) if None in r]
    if long:
        raise RequestError(f"{path} line {long[0] + 2}: more cells than columns; quote text that holds the separator")
    others = [c for c in columns if c not in (key, nearest)]
    if name in others:
        return rows, name
    if len(others) != 1:
        raise RequestError(f"{path}: no column '{name}' among {', '.join(columns)}; name the label's column like --name")
    return rows, others[0]


def _by_date(
    corpus: Corpus, by_id: dict[str, list[tuple[str, str]]], key: str, pseudonyms: Any, limit: float, csv: Path
) -> tuple[dict[str, str], int, int]:
    """Value of the nearest day by record; how many were tied (left unknown) and too far."""
    from biossl.corpus.identity import day_number

    records = corpus.index.drop_duplicates("record")
    if records["day"].isna().all():
        raise DataError(f"{corpus.path}: its recordings have no dates, so --nearest cannot be used; key by record instead")
    values: dict[str, str] = {}
    ties = far = 0
    for record, subject, own, day in zip(records["record"], records["subject"], records[key], records["day"], strict=True):
        options = []
        for value, text in by_id.get(own, []):
            number = day_number(text)
            if number is None:
                raise DataError(f"{csv}: '{text[:20]}' is not a date; write dates as YYYY-MM-DD")
            options.append((abs(np.floor(pseudonyms.day(number, subject)) - np.floor(day)), value))
        if not options or np.isnan(day):
            continue
        best = min(d for d, _ in options)
        nearest_values = {v for d, v in options if d == best}
        if best > limit:
            far += 1
        elif len(nearest_values) > 1:
            ties += 1
        else:
            values[record] = nearest_values.pop()
    if not values:
        raise DataError(f"{csv}: no row lies within {limit:g} days of a recording of its {key}; widen --within")
    return values, ties, far


def _days(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(d|w|h)?\s*", text)
    if not match:
        raise RequestError(f"--within '{text}': write days, e.g. 30d")
    return float(match[1]) * {"d": 1.0, "w": 7.0, "h": 1 / 24, None: 1.0}[match[2]]


def _guess(values: list[str]) -> Literal["multiclass", "regression"]:
    numbers = [_number(v) for v in values]
    return "regression" if not np.isnan(numbers).any() and len(set(numbers)) > 10 else "multiclass"


def _value_classes(kind: str, values: list[str], csv: Path) -> list[str]:
    if kind == "regression":
        bad = next((v for v in values if np.isnan(_number(v))), None)
        if bad is not None:
            raise DataError(f"{csv}: '{bad[:20]}' is not a number; leave the cell empty where the value is unknown")
        return []
    codes = {c for v in values for c in (_parse_codes(v, 0)[0] if kind == "multilabel" else [v])}
    return sorted(codes, key=lambda c: (np.isnan(_number(c)), _number(c) if not np.isnan(_number(c)) else 0.0, c))


def _frame(key: str, values: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    items = sorted(values.items())
    return pd.DataFrame({key: [k for k, _ in items], "value": [v for _, v in items]})
