"""Labels of windows: derived from the card at load, or added from a CSV at any time. Signals are never reconverted.

What lives here: :class:`Labels`, deriving, reading. Joining a CSV is ``label_csv.py``. Unknown is NaN everywhere, never negative.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.config import nearest as nearest_key
from biossl.corpus.card import Label
from biossl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.index import Corpus

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MISSING = {"", "nan", "none", "null", "na", "n/a"}
BINARY = ("0", "1")  # classes of a binary label: the second is what is looked for


@dataclass(frozen=True)
class Labels:
    """One target for every row of a corpus.

    Attributes
    ----------
    name : str
    kind : str
        ``multiclass``, ``multilabel``, ``regression``, or ``binary``: an added column of 0 and 1, of which 1 is what is
        looked for.
    classes : tuple of str
        Empty for regression.
    values : ndarray, float32, (n_index, n_classes or 1)
        Multilabel 0/1 per class; multiclass and binary the class number; regression the value. NaN = unknown.
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


def confounds(corpus: Corpus, name: str) -> str:
    """What the card says differs between the classes besides the label; '' = nothing, or a label that was added."""
    label = corpus.card.labels.get(name)
    return label.confounds if label is not None else ""


def is_dense(corpus: Corpus, name: str) -> bool:
    """Whether a label is one of samples, which :func:`load_labels` has no windows' classes of."""
    return name in corpus.card.labels and corpus.card.labels[name].kind == "dense"


def load_labels(corpus: Corpus, name: str) -> Labels:
    """A label for every row of the corpus.

    Raises
    ------
    DataError
        No such label (names the nearest), the view has no windows it could apply to, or it is of samples (``dense``).
    """
    if name in corpus.card.labels:
        label = corpus.card.labels[name]
        if is_dense(corpus, name):
            raise DataError(
                f"{corpus.path}: label '{name}' is of every sample, and a window has no one class of it; learn it with `biossl finetune`"
            )
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
    """The window's own event; of windows that were not cut by events, the interval that covers them (:func:`_from_overlap`)."""
    view = corpus.card.views[corpus.view]
    if view.policy == "sliding":
        events = corpus.events
        some = events["kind"] == label.event_kind if label.event_kind else np.ones(len(events), bool)
        if (events.loc[some, "duration_s"] > 0).any():
            return _from_overlap(corpus, name, label)
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
    """Multiclass: the class that covers more than half the window (``label.cover``). Multilabel: every one that touches it."""
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
            if best is not None and per_class[best] > window * label.cover - (1e-6 if label.cover > 0.5 else 0.0):
                values[row, 0] = best
    return Labels(name, label.kind, classes, values)


def _from_covariate(corpus: Corpus, name: str, label: Label) -> Labels:
    index = corpus.index
    if label.column not in index.columns:
        raise DataError(
            f"{corpus.path}: label '{name}' needs covariate '{label.column}', which the corpus lacks; "
            "was the card's metadata table beside the recordings?"
        )
    labels = _from_text(name, label, index[label.column].tolist())
    if label.last_s:
        labels.values[~_late(corpus, label.last_s)] = np.nan
    endless = np.flatnonzero(np.isinf(labels.values).any(axis=1))
    if len(endless):
        raise DataError(
            f"{corpus.path}: label '{name}' is {index[label.column].iloc[endless[0]]} in record {index['record'].iloc[endless[0]]}; "
            "say what that means in the card ('replace' of its table; \"\" = unknown), then convert again with --overwrite"
        )
    return labels


def _late(corpus: Corpus, last_s: float) -> np.ndarray:
    """Rows that lie wholly in the last seconds of their recording, counted back from the end of its last window with signal."""
    index = corpus.index
    start = index["start_s"].to_numpy(np.float64)
    end = index["record"].map((index["start_s"] + corpus.spec.window_s)[index["sha256"] != ""].groupby(index["record"]).max())
    early = end.to_numpy(np.float64) - last_s - 0.5 / corpus.spec.sfreq  # NaN where a recording has no signal: none is late
    return np.asarray((start >= early) & (start + corpus.spec.window_s <= end.to_numpy(np.float64) + 0.5 / corpus.spec.sfreq))


def _from_text(name: str, label: Label, cells: list[Any]) -> Labels:
    text = ["" if absent(c) else _plain(c) for c in cells]
    if label.kind == "regression":
        return Labels(name, label.kind, (), np.array([as_number(t) for t in text], np.float32)[:, None])
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


def absent(cell: Any) -> bool:
    """Whether a cell says nothing: empty, NaN, ``none``, ``n/a`` and the like."""
    return cell is None or (isinstance(cell, float) and np.isnan(cell)) or str(cell).strip().lower() in _MISSING


def _plain(cell: Any) -> str:
    """Text of a cell; 1.0 of a number column is the label ``1``."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def as_number(text: str) -> float:
    """The number a text is, NaN when it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _parse_value(text: str, threshold: float) -> tuple[list[str], list[str]]:
    return ([text] if text else []), []


def split_codes(text: str) -> list[str]:
    """Codes separated by commas, semicolons or spaces."""
    return [c for c in re.split(r"[,;\s]+", text) if c]


def _parse_codes(text: str, threshold: float) -> tuple[list[str], list[str]]:
    return split_codes(text), []


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


# ---------------------------------------------------------------------- added from a CSV


def _from_file(corpus: Corpus, name: str, file: Path) -> Labels:
    """Added labels are kept per record or subject and spread over the windows at load."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        frame = table.to_pandas()
        kind, key = meta["kind"], meta["key"]
        if key == "window":
            return _from_windows(corpus, name, kind, tuple(json.loads(meta["classes"])), frame)
        lookup = dict(zip(frame[key].tolist(), frame["value"].tolist(), strict=True))
        classes = json.loads(meta["classes"])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file}: damaged ({str(error).splitlines()[0][:60]}); add the label again with `biossl label ... --overwrite`"
        ) from None
    cells = [lookup.get(k) for k in corpus.index[key].tolist()]
    label = Label(
        kind="multiclass" if kind == "binary" else kind,  # type: ignore[arg-type]
        source="covariate",
        parse="codes" if kind == "multilabel" else "value",
        map={c: [c] for c in classes},
    )
    return replace(_from_text(name, label, cells), kind=kind)


def _from_windows(corpus: Corpus, name: str, kind: str, classes: tuple[str, ...], frame: pd.DataFrame) -> Labels:
    """A label kept window by window (``label_windows.py``); a window that is not in it is unknown."""
    import pandas as pd

    columns = [f"value_{k}" for k in range(len(classes) if kind == "multilabel" else 1)]
    stored = frame.set_index(["record", "start_s"])[columns]
    values = stored.reindex(pd.MultiIndex.from_frame(corpus.index[["record", "start_s"]]))
    return Labels(name, kind, classes, values.to_numpy(np.float32))
