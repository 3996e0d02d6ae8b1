"""What a score may be computed from, said before it is computed.

What lives here: the refusals (lengths, NaN scores, labels and probabilities that are none) and :func:`remarks`, the
lines a report prints beside a number. Nothing is repaired here: a row without a label is left out and counted, anything
else that is wrong is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError, RequestError
from biossl.metrics.arrays import Array, columns
from biossl.metrics.metric import COUNTED, PROBABILITY, RANKED, Metric

MIN_SUBJECTS = 3  # below that resampled subjects say nothing about another one
_SUM = 1e-3  # how far float16 or rounded CSV probabilities may be from a sum of 1


def same_length(y: Array, **others: Array) -> None:
    """Refuse arrays that do not have one entry for each reference label."""
    for name, values in others.items():
        if len(values) != len(y):
            raise DataError(f"{len(y)} reference labels but {len(values)} {name}: give one of each for every row, NaN if unknown")


def known_rows(y: Array, metric: Metric) -> Array:
    """Which rows are judged: one known label is enough, survival needs time and event."""
    known = ~np.isnan(columns(y))
    return np.asarray(known.all(axis=1) if metric.name == "concordance" else known.any(axis=1))


def class_numbers(y: Array) -> None:
    """Refuse reference labels that are no class numbers (NaN is unknown)."""
    known = y[~np.isnan(y)]
    if ((known < 0) | (known != np.floor(known)) | np.isinf(known)).any():
        bad = known[(known < 0) | (known != np.floor(known))][0]
        raise DataError(f"reference label {bad:g} is no class number: use 0, 1, 2, ... and NaN for unknown")


def zero_one(y: Array) -> None:
    """Refuse reference labels other than 0, 1 and NaN."""
    wrong = ~(np.isnan(y) | (y == 0) | (y == 1))
    if wrong.any():
        raise DataError(f"reference label {y[wrong][0]:g} in a yes/no label: use 0, 1 and NaN for unknown")


def no_nan(prediction: Array, known: Array, what: str = "prediction") -> None:
    """Refuse NaN where a label is known: a model that fails on some rows may not be judged on the others alone."""
    rows = columns(prediction)
    lost = int((np.isnan(rows).any(axis=1) & known).sum())
    if lost:
        raise DataError(f"the {what} is NaN in {lost} of {int(known.sum())} rows with a label: give a number or drop the rows")


def finite(prediction: Array, known: Array, what: str = "prediction") -> None:
    """Refuse NaN and infinite numbers where a label is known."""
    no_nan(prediction, known, what)
    lost = int((np.isinf(prediction) & known).sum())
    if lost:
        raise DataError(
            f"the {what} is infinite in {lost} of {int(known.sum())} rows with a label: give a number or drop the rows"
        )


def probabilities(p: Array, known: Array, *, sums: bool = False) -> None:
    """Refuse numbers outside 0..1, and with ``sums`` rows (n, K) that do not sum to 1."""
    shown = p[known]
    if shown.size and (shown.min() < 0 or shown.max() > 1):
        bad = shown.min() if shown.min() < 0 else shown.max()
        raise DataError(f"{bad:.4g} is no probability: give numbers from 0 to 1 (a sigmoid or softmax of the scores)")
    if sums and shown.size:
        total = shown.sum(axis=1)
        worst = total[np.abs(total - 1).argmax()]
        if abs(worst - 1) > _SUM:
            raise DataError(f"class probabilities of a row sum to {worst:.4g}: they must sum to 1 over all classes")


def decisions(p: Array, known: Array) -> None:
    """Refuse numbers that are no class numbers, where a decision is judged."""
    shown = p[known]
    if ((shown < 0) | (shown != np.floor(shown))).any():
        raise RequestError("decisions are judged here, not scores: give class numbers, e.g. scores >= threshold")


def remarks(
    y: ArrayLike, subjects: ArrayLike, metric: Metric | str, *, classes: Sequence[str] = (), interval: bool = True
) -> list[str]:
    """Lines a report prints beside a score: rows without a label, classes that are missing, too few subjects.

    Parameters
    ----------
    y : array, shape (n,) or (n, K)
        Reference as in :func:`biossl.metrics.score`.
    subjects : array, shape (n,)
    metric : str or Metric
    classes : sequence of str
        Names by class number; without them the numbers are used.
    interval : bool
        Whether an interval is wanted.

    Examples
    --------
    >>> remarks([0, 1, float("nan"), 1], list("abcd"), "accuracy")
    ['1 of 4 rows has no known label and is not judged (1 of 4 subjects has none at all)']
    """
    metric = metric if isinstance(metric, Metric) else Metric(metric)
    labels = np.asarray(y, float)
    names = np.asarray(subjects).astype(str)
    same_length(labels, subjects=names)
    table = columns(labels)
    known = known_rows(labels, metric)
    out = []
    lost = int((~known).sum())
    if lost:
        gone = len(np.unique(names)) - len(np.unique(names[known]))
        verb, verb_subject = ("has", "has") if lost == 1 else ("have", "has" if gone == 1 else "have")
        text = f"{lost} of {len(known)} rows {verb} no known label and {'is' if lost == 1 else 'are'} not judged"
        out.append(text + (f" ({gone} of {len(np.unique(names))} subjects {verb_subject} none at all)" if gone else ""))
    if metric.name in (*COUNTED, *RANKED, *PROBABILITY):
        if table.shape[1] == 1:
            found = set(table[known, 0].astype(int).tolist())
            wanted = range(len(classes)) if len(classes) else metric.classes
            missing = [classes[k] if len(classes) else str(k) for k in wanted if k not in found]
            if missing:
                out.append(f"no reference row of class {', '.join(missing)}: nothing can be said about it")
        else:
            for k in range(table.shape[1]):
                column = table[~np.isnan(table[:, k]), k]
                if len(np.unique(column)) < 2:
                    name = classes[k] if len(classes) else str(k)
                    out.append(f"class {name} has no {'negative' if (column == 1).any() else 'positive'} row: not judged")
    n_subjects = len(np.unique(names[known]))
    if interval and n_subjects < MIN_SUBJECTS:
        out.append(too_few(n_subjects))
    return out


def too_few(n_subjects: int) -> str:
    """Why there is no interval."""
    return f"{n_subjects} subject{'' if n_subjects == 1 else 's'}: an interval needs at least {MIN_SUBJECTS}"
