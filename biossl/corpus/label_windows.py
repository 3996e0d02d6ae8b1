"""Correct single windows: a new label that starts from an old one. Nothing is converted again, and the old label stays.

What lives here: :func:`correct_labels` (``biossl label --key window``) and the text of one window's label, as ``biossl audit labels``
writes it and people fill it in. How a stored label is spread over windows is ``labels.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.config import nearest
from biossl.corpus.label_csv import free_name, read_cells, require_columns, require_rows
from biossl.corpus.labels import Labels, as_number, load_labels
from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    from biossl.corpus.index import Corpus

DECISIONS = ("keep", "change", "unknown")
NEW = "new_label"  # the label's column, unless one is named like the new label
NONE = "-"  # multi-label: none of the classes, which an empty cell cannot say


def correct_labels(corpus: Corpus, csv: str | Path, *, name: str, base: str, overwrite: bool = False) -> dict[str, Any]:
    """Store ``labels/NAME.parquet``: label ``base`` with single windows changed.

    Parameters
    ----------
    corpus : Corpus
    csv : path
        Columns ``record``, ``start_s`` (seconds, within half a sample) and the label: ``name``, else ``new_label``. Optional
        ``decision``: ``change`` (also when empty and the label is filled), ``keep``, ``unknown`` (nobody can say; the window becomes
        unknown). Rows with neither are passed over. Of several yes/no classes the label names those that are present, joined by
        ``+``, ``-`` for none; a class that was unknown and is not named stays unknown.
    name, base : str
        The new label, and the one it starts from.
    overwrite : bool

    Returns
    -------
    dict
        ``filled``, ``changed``, ``kept``, ``made_unknown``, ``unmatched`` rows; ``windows``, ``classes``, ``counts`` of the new label.

    Raises
    ------
    RequestError
        File or column absent, name taken or not a name.
    DataError
        A cell that cannot be a label, decision or time, two different decisions for one window, no row filled or none matched.

    Examples
    --------
    >>> correct_labels(corpus, "audit/audit.csv", name="group_checked", base="group")  # doctest: +SKIP
    """
    import pandas as pd

    from biossl.atomic import write_parquet

    free_name(corpus, name, overwrite)
    if name == base:
        raise RequestError(f"--name {name}: that is the label it starts from; give the corrected one a name of its own")
    old, path = load_labels(corpus, base), Path(csv)
    filled = _filled(path, name)
    find = _Finder(corpus)
    values = old.values.copy()
    changes: dict[int, tuple[int, np.ndarray]] = {}
    counts = {"filled": len(filled), "changed": 0, "kept": 0, "made_unknown": 0, "unmatched": 0}
    for line, cells, decision, text in filled:
        place = f"{path} line {line}"
        row = find(cells["record"].strip(), cells["start_s"], place)
        if row is None:
            counts["unmatched"] += 1
            continue
        new = parse_window(old, row, text, place) if text else old.values[row]
        if decision == "unknown":
            new = np.full_like(old.values[row], np.nan)
        same = np.array_equal(new, old.values[row], equal_nan=True)
        if decision == "keep" and not same:
            raise DataError(f"{place}: decision 'keep' beside another label; write 'change', or empty the cell")
        if row in changes and not np.array_equal(changes[row][1], new, equal_nan=True):
            raise DataError(f"{path}: lines {changes[row][0]} and {line} say different things of one window; keep one of them")
        if row in changes:
            continue
        changes[row] = (line, new)
        counts["kept" if same else "made_unknown" if decision == "unknown" else "changed"] += 1
        values[row] = new
    if not changes:
        known = f"such as '{corpus.index['record'].iloc[0]}'" if corpus.card.public else "as `biossl audit labels` writes them"
        raise DataError(
            f"{path}: none of its {len(filled)} filled rows is a window of the corpus; records are compared as text ({known}), "
            "start_s within half a sample"
        )
    frame = corpus.index[["record", "start_s"]].reset_index(drop=True)
    table = pd.concat([frame, pd.DataFrame(values, columns=[f"value_{k}" for k in range(values.shape[1])])], axis=1)
    write_parquet(
        corpus.path / "labels" / f"{name}.parquet", table,
        {"kind": old.kind, "key": "window", "classes": json.dumps(list(old.classes)), "base": base},
    )  # fmt: skip
    made = load_labels(corpus, name)
    return {
        "name": name, "base": base, "kind": made.kind, "classes": list(made.classes), **counts, "windows": int(made.known.sum()),
        "counts": made.counts(),
    }  # fmt: skip


def window_text(labels: Labels, row: int) -> str:
    """A window's label as a cell; empty = unknown.

    Examples
    --------
    >>> labels = Labels("l", "multilabel", ("a", "b"), np.array([[1, 1], [0, 0], [np.nan, np.nan]], np.float32))
    >>> [window_text(labels, i) for i in range(3)]
    ['a+b', '-', '']
    """
    value = labels.values[row]
    if np.isnan(value).all():
        return ""
    if labels.kind == "multilabel":
        return "+".join(c for c, v in zip(labels.classes, value, strict=True) if v == 1) or NONE
    return f"{value[0]:.9g}" if labels.kind == "regression" else labels.classes[int(value[0])]


def parse_window(labels: Labels, row: int, text: str, place: str) -> np.ndarray:
    """Values, float32 (k,), that a cell says of a window; DataError with the nearest class when it cannot be read."""
    if labels.kind == "regression":
        value = as_number(text)
        if not np.isfinite(value):
            raise DataError(f"{place}: '{text[:20]}' is not a finite number; mend the cell")
        return np.array([value], np.float32)
    number = {c: k for k, c in enumerate(labels.classes)}
    names = [c.strip() for c in text.split("+")] if labels.kind == "multilabel" and text not in number else [text]
    if labels.kind == "multilabel" and names == [NONE]:
        names = []
    strange = [c for c in names if c not in number]
    if strange:
        raise DataError(
            f"{place}: '{strange[0][:20]}' is no class of label '{labels.name}'; {nearest(strange[0], labels.classes)}"
        )
    if labels.kind != "multilabel":
        return np.array([number[names[0]]], np.float32)
    out = np.where(np.isnan(labels.values[row]), np.nan, 0.0).astype(np.float32)
    out[[number[c] for c in names]] = 1.0
    return out


def _filled(path: Path, name: str) -> list[tuple[int, dict[str, str], str, str]]:
    """Line, cells, decision and label of every row in which somebody decided."""
    columns, rows = read_cells(path)
    label = name if name in columns else NEW
    require_columns(path, columns, {"record": "", "start_s": "", label: f" (nor '{name}')" if label == NEW else ""})
    require_rows(path, rows, "give one row a window")
    out = []
    for line, cells in rows:
        decision, text = cells.get("decision", "").strip().lower(), cells[label].strip()
        if decision not in ("", *DECISIONS):
            raise DataError(f"{path} line {line}: decision '{decision[:20]}'; write {', '.join(DECISIONS)}, or nothing")
        if decision == "change" and not text:
            raise DataError(f"{path} line {line}: decision 'change' without a label; fill column '{label}'")
        if decision == "unknown" and text:
            raise DataError(f"{path} line {line}: decision 'unknown' beside a label; empty one of the two cells")
        if decision or text:
            out.append((line, cells, decision, text))
    if not out:
        raise DataError(f"{path}: no row is filled; write {', '.join(DECISIONS)} in column 'decision', or a label in '{label}'")
    return out


class _Finder:
    """The row of a record and a time."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.starts = corpus.index["start_s"].to_numpy(np.float64)
        self.rows = corpus.index.groupby("record", sort=False).indices

    def __call__(self, record: str, start: str, place: str) -> int | None:
        seconds = as_number(start)
        if not np.isfinite(seconds):
            raise DataError(f"{place}: start_s '{start[:20]}' is not a number; write seconds with a point")
        rows = self.rows.get(record)
        if rows is None:  # an audit writes the corpus' own names; a hospital's list holds the hospital's
            from biossl.corpus.identity import Pseudonyms

            rows = self.rows.get(Pseudonyms.of(self.corpus).record(record, self.corpus.card))
        if rows is None:
            return None
        near = rows[np.abs(self.starts[rows] - seconds) <= 0.5 / self.corpus.spec.sfreq]
        if len(near) > 1:
            raise DataError(f"{place}: {len(near)} windows of the record begin there; they cannot be told apart")
        return int(near[0]) if len(near) else None
