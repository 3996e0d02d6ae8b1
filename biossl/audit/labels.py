"""Labels that the embeddings contradict: windows whose neighbours of other people carry another label.

What lives here: which windows are looked at, their neighbours, how much they disagree, and the list with at most a share of it from one
recording. The page is ``report/audit_pages.py``; the way back of a filled list is ``corpus/label_windows.py``.

A wrong label is looked for where two views agree: the nearest neighbours (as in arXiv 1911.00068's confident learning, the labels
themselves are the evidence, and no clean set is needed), and, between windows of equal share, a head that never saw the person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import protocol
from biossl.atomic import write_text
from biossl.audit.features import features, free_folder, open_source, seen_note
from biossl.corpus import Corpus
from biossl.corpus.label_windows import window_text
from biossl.corpus.labels import Labels
from biossl.corpus.splits import chosen_split
from biossl.corpus.within import refuse_within_subject
from biossl.errors import DataError, RequestError
from biossl.judging import Rows, in_threads
from biossl.ledger import record_opening
from biossl.probe import labelled_rows
from biossl.progress import track
from biossl.protocol import Target

Array = NDArray[Any]
K = 10  # neighbours that vote
SHARE = 0.1  # of the list from one recording, unless few recordings are suspect
BLOCK = 1_024
FILE = "audit.csv"


@dataclass(frozen=True)
class Suspects:
    """The list.

    Attributes
    ----------
    table : DataFrame
        One row a window, most suspect first; the columns of ``audit.csv``.
    rows : ndarray of int, (m,)
        Rows of the corpus.
    neighbours : ndarray of int, (m, 2)
        Rows of the two nearest windows of other people that carry the neighbours' label; -1 = none.
    about : dict
        Counts, notes, what was used.
    """

    table: pd.DataFrame
    rows: Array
    neighbours: Array
    about: dict[str, Any]


def audit_labels(
    source: str | Path,
    corpus: str | Path | Corpus,
    label: str,
    *,
    split: str | None = None,
    part: str | None = None,
    n: int = 50,
    adapt: bool = False,
    seed: int = 0,
) -> Suspects:
    """Windows whose neighbours disagree most with their label.

    Parameters
    ----------
    source : path
        Encoder folder or a run of `biossl pretrain` or `biossl finetune`.
    corpus : path or Corpus
    label : str
        Of classes, or yes/no; several yes/no classes are looked at one by one.
    split : str, optional
        Default the official one, or the only one; without any, all windows.
    part : str, optional
        Default ``train`` and ``val``: labels of a test part are not looked at while a model is made. ``all`` for every window; a
        test part that is opened is noted in the ledger.
    n : int
        Length of the list at most: only windows of which more than half of the neighbours disagree are on it.
    adapt : bool
        Accept a corpus with other channels (a subset) or filters than the encoder's.
    seed : int
        Of the folds of the head.

    Raises
    ------
    RequestError
        A label of values, no such part, ``n`` below 1.
    DataError
        No labelled window, one class, fewer than three subjects.

    Examples
    --------
    >>> audit_labels("runs/hapt", "corpora/hapt", "activity6").table.head()  # doctest: +SKIP
    """
    if n < 1:
        raise RequestError(f"--n {n}: give 1 or more")
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    labels = corpus.labels(label)
    if labels.kind == "regression":
        raise RequestError(f"{corpus.path}: label '{label}' is a number; neighbours disagree about classes or yes/no labels")
    used = open_source(source)
    rows, notes, tested, split = _rows(corpus, label, split, part)
    z, said = features(used, corpus, rows.index, adapt=adapt)
    notes += said
    blank: Array = np.asarray(~np.isfinite(z).all(axis=1))
    if blank.any():
        notes.append(f"{int(blank.sum())} labelled windows hold no observed sample and are left out")
        z, rows = z[~blank], _take(rows, ~blank)
    if len(np.unique(rows.subject)) < 3:
        raise DataError(
            f"{corpus.path}: label '{label}' is known for fewer than three subjects here; neighbours are of other people"
        )
    if used.tuned:
        what = "with labels, whose errors it may have learnt; a pretrained encoder is the stricter judge"
        notes += seen_note(used, corpus, rows.index, what)
    listed, about = _list(corpus, labels, rows, z, n, seed)
    about |= {
        "label": label, "kind": labels.kind, "encoder": used.hash, "split": split, "part": part or ("train and val" if split else "all"), "k": K, "notes": notes,
        "corpus": {"name": corpus.card.name, "hash": corpus.hash},
    }  # fmt: skip
    if tested:
        entry = {
            "verb": "audit labels",
            "corpus": corpus.hash,
            "encoder": used.hash,
            "label": label,
            "split": split,
            "part": part or "all",
        }
        file, times = record_opening([corpus.path], entry)
        about["ledger"] = {"file": str(file), "openings": times}
        notes.append(
            f"{tested:,} windows of the test part were looked at: opening {times} of this label's test labels, noted in the ledger"
        )
    return Suspects(*listed, about)


def write_list(found: Suspects, out: str | Path, *, overwrite: bool = False) -> Path:
    """``out/audit.csv``; a list that exists, perhaps filled in, is replaced only with ``overwrite``."""
    folder = free_folder(out, FILE, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, found.table.to_csv(index=False, lineterminator="\n"))
    return folder / FILE


def foreign_neighbours(z: Array, known: Array, subjects: Array, k: int = K) -> Array:
    """Nearest rows of other subjects, by cosine of standardised features.

    Parameters
    ----------
    z : ndarray, (n, D)
        Finite.
    known : ndarray of bool, (n,)
        Rows that can be neighbours; of more than ``protocol.MEMORY_ROWS`` that many, drawn evenly.
    subjects : ndarray of str, (n,)
    k : int

    Returns
    -------
    ndarray of int, (n, k)
        Positions, nearest first; -1 where there are fewer.

    Examples
    --------
    >>> foreign_neighbours(np.array([[1.0, 0], [1, 0.1], [-1, 0]]), np.ones(3, bool), np.array(["a", "a", "b"]), 1).ravel().tolist()
    [2, 2, 0]
    """
    spread = z.std(axis=0)
    unit = ((z - z.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    code = np.unique(subjects, return_inverse=True)[1]
    pool = np.flatnonzero(known)
    pool = pool[protocol.spread(len(pool), protocol.MEMORY_ROWS, 0)]
    out = np.full((len(z), k), -1)
    most = min(k, len(pool))
    for i in track(range(0, len(z) if most else 0, BLOCK), -(-len(z) // BLOCK), "neighbours", "blocks"):
        near = unit[i : i + BLOCK] @ unit[pool].T
        near[code[i : i + BLOCK, None] == code[pool]] = -np.inf
        some = np.argpartition(-near, most - 1, axis=1)[:, :most]
        value = np.take_along_axis(near, some, axis=1)
        order = np.argsort(-value, axis=1, kind="stable")
        some, value = (np.take_along_axis(a, order, axis=1) for a in (some, value))
        out[i : i + BLOCK, :most] = np.where(np.isfinite(value), pool[some], -1)
    return out


def disagreement(y: Array, neighbours: Array) -> tuple[Array, Array]:
    """How many neighbours carry another label, and which.

    Parameters
    ----------
    y : ndarray, (n,)
        Class numbers, NaN = unknown.
    neighbours : ndarray of int, (n, k)
        Positions of labelled rows, -1 = none.

    Returns
    -------
    share : ndarray, (n,)
        Of the neighbours; NaN for an unknown label or without a neighbour.
    other : ndarray of int, (n,)
        The most frequent of the other labels (the lower number of equals), -1 = none.

    Examples
    --------
    >>> share, other = disagreement(np.array([0.0, 1, 1, 0]), np.array([[1, 2, 3]]))
    >>> round(float(share[0]), 3), int(other[0])
    (0.667, 1)
    """
    own = y[: len(neighbours)]
    there = neighbours >= 0
    theirs = np.where(there, y[neighbours], np.nan)
    different = there & (theirs != own[:, None])
    count = there.sum(axis=1)
    share = np.where((count > 0) & ~np.isnan(own), different.sum(axis=1) / np.maximum(count, 1), np.nan)
    top = int(np.nanmax(y, initial=0))
    votes = np.stack([(different & (theirs == c)).sum(axis=1) for c in range(top + 1)], axis=1)
    return share, np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def pick(share: Array, gap: Array, records: Array, n: int) -> Array:
    """Positions of at most ``n`` suspects (share above one half), most suspect first, few of one recording.

    At most :data:`SHARE` of the list is of one recording; where fewer recordings are suspect than that fills, equal parts.
    """
    order = np.lexsort((np.arange(len(share)), -gap, -np.nan_to_num(share, nan=-1.0)))
    order = order[np.nan_to_num(share[order], nan=0.0) > 0.5]
    most = max(math.ceil(n * SHARE), math.ceil(n / max(len(np.unique(records[order])), 1)))
    count: dict[Any, int] = {}
    out: list[int] = []
    for i in order:
        if count.get(records[i], 0) < most and len(out) < n:
            count[records[i]] = count.get(records[i], 0) + 1
            out.append(i)
    return np.array(out, np.int64)


# ---------------------------------------------------------------------------------------------- one audit


def _rows(corpus: Corpus, label: str, split: str | None, part: str | None) -> tuple[Rows, list[str], int, str | None]:
    """Labelled rows of the parts, notes, how many of them are test rows, the split."""
    split, notes = chosen_split(corpus, split)
    refuse_within_subject(corpus, split, "an audit of labels")
    rows, said_rows = labelled_rows(corpus, label, split)
    if split is None:
        if part not in (None, "all"):
            raise RequestError(f"--part {part}: the corpus has no split; make one with `biossl split`, or leave it out")
        return rows, [*said_rows, "no split: every labelled window is looked at, and none is left for a test"], 0, None
    wanted = ("train", "val") if part is None else (part,)
    inside = np.isin(rows.part, wanted) if part != "all" else np.ones(len(rows.part), bool)
    if not inside.any():
        parts = ", ".join(sorted(set(rows.part) - {""})) or "none"
        raise RequestError(
            f"--part {part or 'train and val'}: no labelled window of split '{split}' is in it; labelled: {parts}, or all"
        )
    tested = int((rows.part[inside] == "test").sum())
    left = int((rows.part[~inside] == "test").sum())
    if left:
        notes.append(f"{left:,} labelled windows of part 'test' were not looked at (--part all includes them)")
    return _take(rows, inside), notes, tested, split


def _take(rows: Rows, some: Array) -> Rows:
    return Rows(rows.index[some], rows.target.take(some), rows.subject[some], rows.part[some])


def _list(
    corpus: Corpus, labels: Labels, rows: Rows, z: Array, n: int, seed: int
) -> tuple[tuple[pd.DataFrame, Array, Array], dict[str, Any]]:
    """The list of the most suspect windows, each with the class it is suspect for."""
    y = rows.target.y.reshape(len(z), -1)
    if all(len(np.unique(c[~np.isnan(c)])) < 2 for c in y.T):
        raise DataError(f"{corpus.path}: label '{labels.name}' has one class only here; there is nothing to disagree about")
    p = _held_out(z, rows.target, rows.subject, seed)
    at = np.arange(len(z))
    shares, others, gaps, near = [], [], [], []
    for k in range(y.shape[1]):
        around = foreign_neighbours(z, ~np.isnan(y[:, k]), rows.subject)
        share, other = disagreement(y[:, k], around)
        both = p if rows.target.kind == "multiclass" else np.stack([1 - p[:, k], p[:, k]], axis=1)
        own = np.nan_to_num(y[:, k]).astype(int)
        shares.append(share)
        others.append(other)
        gaps.append(np.where(other >= 0, both[at, other] - both[at, own], -1.0))
        near.append(around)
    share, gap = np.stack(shares, axis=1), np.stack(gaps, axis=1)
    # one line a window: the class it is most suspect for
    key = np.nan_to_num(share, nan=-1.0) + 1e-3 * gap
    column = key.argmax(axis=1)
    records = corpus.index["record"].to_numpy().astype(str)[rows.index]
    chosen = pick(share[at, column], gap[at, column], records, n)
    table, neighbours = [], np.full((len(chosen), 2), -1)
    start = corpus.index["start_s"].to_numpy(np.float64)
    for m, i in enumerate(chosen):
        k, row = column[i], rows.index[i]
        other = others[k][i]
        voters = [int(j) for j in near[k][i] if j >= 0 and y[j, k] == other]
        other_person = next((j for j in voters if rows.subject[j] != rows.subject[voters[0]]), voters[-1])
        voters = list(dict.fromkeys([voters[0], other_person]))  # of two people where there are two
        neighbours[m, : len(voters)] = rows.index[voters]
        entry: dict[str, Any] = {
            "nr": m + 1, "record": records[i], "start_s": start[row], "duration_s": corpus.spec.window_s, "subject": rows.subject[i],
        }  # fmt: skip
        if labels.kind == "multilabel":
            entry["class"] = labels.classes[k]
        entry |= {
            "label": window_text(labels, row), "neighbours_label": _said(labels, row, k, other),
            "disagreement": round(float(share[i, k]), 4), "probability_gap": round(float(gap[i, k]), 4), "decision": "", "new_label": "",
        }  # fmt: skip
        table.append(entry)
    names = ["nr", "record", "start_s", "duration_s", "subject", *(["class"] if labels.kind == "multilabel" else [])]
    names += ["label", "neighbours_label", "disagreement", "probability_gap", "decision", "new_label"]
    known = ~np.isnan(share)
    about = {
        "windows": len(z), "subjects": len(np.unique(rows.subject)), "listed": len(chosen),
        "suspect": int((np.nan_to_num(share) > 0.5).any(axis=1).sum()), "mean_disagreement": float(share[known].mean()),
    }  # fmt: skip
    return (pd.DataFrame(table, columns=names), rows.index[chosen], neighbours), about


def _said(labels: Labels, row: int, k: int, other: int) -> str:
    """The window's label as its neighbours would have it: of several yes/no classes with one of them turned."""
    values = labels.values[[row]].copy()
    values[0, k] = other
    return window_text(Labels(labels.name, labels.kind, labels.classes, values), 0)


def _held_out(z: Array, target: Target, subjects: Array, seed: int) -> Array:
    """Class probabilities (n, K) of every row by a linear head that never saw its person."""
    folds = protocol.grouped_folds(target, subjects, protocol.FOLDS, seed)

    def fit(fold: tuple[Array, Array]) -> Array:
        train = fold[0][protocol.spread(len(fold[0]), protocol.CROSS_ROWS, seed)]
        found = protocol.linear(z[train], target.take(train), subjects[train], z[fold[1]], seed=seed)
        return found.prediction

    out = np.zeros((len(z), len(target.classes)))
    for (_, test), p in zip(folds, in_threads(fit, folds, "heads"), strict=True):
        out[test] = p
    return out
