"""How many windows, records and subjects a label's classes have, and which part of a split lacks one.

What lives here: counting for people, before anything is trained. The labels themselves are ``labels.py``, the parts
``splits.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.corpus.labels import Labels
from biossl.errors import DataError

if TYPE_CHECKING:
    from biossl.corpus.index import Corpus

UNKNOWN = "unknown"  # the row of windows without a known value
_FOLDS = 5  # suggested at most
_SHOWN = 5  # classes written out of one label


def tally(corpus: Corpus, labels: Labels, rows: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Windows, records and subjects of every class, and of the windows whose label is unknown.

    Parameters
    ----------
    corpus : Corpus
    labels : Labels
        Of that corpus.
    rows : ndarray of bool, shape (n_index,), optional
        Which windows count; default all.

    Returns
    -------
    list of dict
        ``class``, ``windows``, ``records``, ``subjects``, in the order of the classes; then ``unknown``. Multi-label: the
        windows in which the class is present (``negative`` = windows in which it is known to be absent), so classes
        overlap. Regression: one class ``known``, with ``low``, ``median`` and ``high`` of the values.

    Examples
    --------
    >>> tally(corpus, corpus.labels("sex"))  # doctest: +SKIP
    [{'class': 'male', 'windows': 40, 'records': 4, 'subjects': 4}, ...]
    """
    rows = np.ones(len(labels.values), bool) if rows is None else rows
    record, subject = (corpus.index[k].to_numpy() for k in ("record", "subject"))

    def count(name: str, mask: np.ndarray) -> dict[str, Any]:
        some = rows & mask
        return {
            "class": name, "windows": int(some.sum()), "records": len(set(record[some])), "subjects": len(set(subject[some])),
        }  # fmt: skip

    out = []
    if labels.kind == "regression":
        entry = count("known", labels.known)
        values = labels.values[rows & labels.known, 0]
        if len(values):
            entry |= dict(zip(("low", "median", "high"), np.quantile(values, [0, 0.5, 1]).tolist(), strict=True))
        out.append(entry)
    elif labels.kind == "multilabel":
        for k, name in enumerate(labels.classes):
            out.append(
                count(name, labels.values[:, k] == 1) | {"negative": int((rows & (labels.values[:, k] == 0)).sum())}
            )  # fmt: skip
    else:
        out += [count(name, labels.values[:, 0] == k) for k, name in enumerate(labels.classes)]
    return [*out, count(UNKNOWN, ~labels.known)]


def poor_parts(corpus: Corpus, parts: np.ndarray, names: Sequence[str], *, word: str = "part") -> list[str]:
    """One line for every part that has one class only of a label, or lacks a class that another part has.

    Parameters
    ----------
    corpus : Corpus
    parts : ndarray of str, shape (n_index,)
        Part of every window.
    names : sequence of str
        The parts to look at, in order.
    word : str
        What a part is called: ``part`` or ``fold``.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for label in corpus.label_names():
        try:
            labels = corpus.labels(label)
        except DataError:
            continue  # of other windows than this view's
        for name, text in _poor(labels, parts, names):
            found[name].append(f"'{label}' has {text}")
    return [f"{word} {name}: label " + "; label ".join(texts) for name, texts in found.items() if texts]


def remedies(corpus: Corpus, parts: np.ndarray, names: Sequence[str], *, by: str, folds: int | None) -> list[str]:
    """What can mend a split of which a part has one subject only, or lacks a class of a label: one line each, that works.

    Parameters
    ----------
    corpus : Corpus
    parts, names
        As for :func:`poor_parts`.
    by : str
        ``subject`` or ``time``, which cannot be stratified.
    folds : int or None
        Of the split.
    """
    subject = corpus.index["subject"].to_numpy()
    inside = [parts == name for name in names]
    people = [len(set(subject[mask])) for mask in inside]
    n = sum(people)
    out = []
    most = min(_FOLDS, n // 2)  # folds of two subjects at least
    if 1 in people:
        single = ", ".join(name for name, count in zip(names, people, strict=True) if count == 1)
        what = f"{'fold' if folds else 'part'} {single}: 1 subject, which no --seed changes"
        if n < 4:
            out.append(f"{what}; with {n} subjects every split has such a part: add subjects (`probe` cross-validates over all)")
        elif folds:
            out.append(f"{what}; use `--folds {most}`{_two(most)}")
        else:
            other = f", or `--fractions {_two_each(n, names)}`" if n >= 2 * len(names) else ""
            out.append(f"{what}; use `--folds {most}`{_two(most)}{other}")
    if by != "subject":
        return out
    for label in corpus.label_names():
        try:
            labels = corpus.labels(label)
        except DataError:
            continue  # of other windows than this view's
        holders = _holders(labels, subject)
        lacking = [c for c, who in holders.items() if who and any(not who & set(subject[mask]) for mask in inside)]
        if not lacking:
            continue
        rarest = min(lacking, key=lambda c: len(holders[c]))
        m = len(holders[rarest])
        if m == 1:
            out.append(
                f"label '{label}': class {rarest} is of 1 subject, so no split by subject has it in two parts; add subjects"
            )
        else:
            k = min(_FOLDS, m)
            out.append(f"label '{label}': class {rarest} is of {m} subjects; use `--folds {k} --stratify {label}`{_two(k)}")
    return out


def _two(folds: int) -> str:
    """What two folds lack, said where they are advised."""
    return " (two folds: train and test, no val)" if folds == 2 else ""


def _two_each(n: int, names: Sequence[str]) -> str:
    """Fractions that give val and test two of n subjects (or none, where they had none) and train the rest."""
    val, test = (math.ceil(200 / n) if part in names else 0 for part in ("val", "test"))
    return " ".join(f"{percent / 100:g}" for percent in (100 - val - test, val, test))


def _holders(labels: Labels, subject: np.ndarray) -> dict[str, set[str]]:
    """Class -> subjects with a window of it; empty for numbers."""
    if labels.kind == "regression":
        return {}
    column = labels.values if labels.kind == "multilabel" else labels.values[:, [0] * len(labels.classes)]
    target = np.ones(len(labels.classes)) if labels.kind == "multilabel" else np.arange(len(labels.classes))
    return {c: set(subject[column[:, k] == target[k]]) for k, c in enumerate(labels.classes)}


def _poor(labels: Labels, parts: np.ndarray, names: Sequence[str]) -> list[tuple[str, str]]:
    """Part and what it lacks of one label."""
    values = labels.values
    inside = [parts == name for name in names]
    with_known = [bool((labels.known & mask).any()) for mask in inside]
    if not any(with_known):
        return []
    if labels.kind == "multilabel":
        present = np.array([[(values[m, k] == 1).any() for k in range(len(labels.classes))] for m in inside])
        absent = np.array([[(values[m, k] == 0).any() for k in range(len(labels.classes))] for m in inside])
    elif labels.kind == "regression":
        present = absent = np.zeros((len(names), 0), bool)
    else:
        present = np.array([[(values[m, 0] == k).any() for k in range(len(labels.classes))] for m in inside])
        absent = np.ones_like(present)
    out = []
    for i, name in enumerate(names):
        lacking = [c for k, c in enumerate(labels.classes) if present[:, k].any() and not present[i, k]]
        full = [c for k, c in enumerate(labels.classes) if present[i, k] and not absent[i, k]]
        own = [c for k, c in enumerate(labels.classes) if present[i, k]]
        if not with_known[i]:
            out.append((name, "no known window"))
        elif labels.kind in ("multiclass", "binary") and len(own) == 1:
            out.append((name, f"only class {own[0]}"))
        else:
            texts = [f"no window of {_few(lacking)}"] if lacking else []
            texts += [f"no window without {_few(full)}"] if full else []
            if texts:
                out.append((name, " and ".join(texts)))
    return out


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
