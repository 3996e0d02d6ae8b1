"""Every score by name: of all rows, of each subject, and as a function of how often a subject is drawn.

What lives here: :func:`score`, :func:`per_subject`, the per-class table, the confusion matrix, and :func:`resampler`, which
checks the input and hands it to the file that computes the score. All scores, intervals and paired differences go through
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, column, columns, hard
from biossl.metrics.counted import counted, net_benefit
from biossl.metrics.metric import COUNTED, Metric, as_metric
from biossl.metrics.moments import brier, errors
from biossl.metrics.ranks import auroc, average_precision, sensitivity_at
from biossl.metrics.recalibration import recalibration
from biossl.metrics.survival import concordance

_SUBJECTS_AT_ONCE = 500


def score(y: ArrayLike, prediction: ArrayLike, metric: str | Metric) -> float:
    """One score of all rows.

    Parameters
    ----------
    y : array
        Multiclass: class numbers (n,), NaN unknown. Yes/no: 0/1/NaN (n,) or (n, 1). ``macro_auroc`` and ``brier``: class
        numbers (n,) or 0/1/NaN (n, K). Regression: values (n,). ``concordance``: time and event (n, 2), event 1 seen and
        0 censored.
    prediction : array
        Decisions (accuracy, F1, kappa, sensitivity, ...): class numbers (n,), or class scores (n, K) of which the largest
        counts. Ranks (AUROC, AUPRC, sensitivity at a specificity): scores (n,), (n, 1) or (n, K). ``brier``, calibration and
        ``net_benefit``: probabilities, for several classes (n, K) with rows that sum to 1. Regression: values (n,).
        ``concordance``: risks (n,), higher is earlier.
    metric : str or Metric
        ``macro_f1``, ``accuracy``, ``balanced_accuracy``, ``f1``, ``mean_f1``, ``kappa``, ``quadratic_kappa``, ``sensitivity``,
        ``specificity``, ``ppv``, ``macro_auroc``, ``auroc``, ``auprc`` (average precision), ``sensitivity_at_specificity``,
        ``brier``, ``calibration_slope``, ``calibration_intercept``, ``net_benefit``, ``concordance``, ``r2`` or ``mae``; as
        :class:`Metric` where it needs a class or an operating point.

    Returns
    -------
    float
        NaN when it cannot be computed; :func:`why_not` says why.

    Raises
    ------
    DataError
        Lengths differ, a judged prediction is NaN, a probability is none.
    RequestError
        The metric is not known or does not fit the labels.

    Examples
    --------
    >>> score([0, 0, 1, 1], [0, 1, 1, 1], "accuracy")
    0.75
    """
    return float(resampler(y, prediction, np.zeros(len(np.asarray(y)), np.int64), metric, 1)(np.ones((1, 1)))[0])


def per_subject(y: ArrayLike, prediction: ArrayLike, subjects: ArrayLike, metric: str | Metric) -> tuple[Array, Array]:
    """The score of each subject's own rows.

    Parameters
    ----------
    y, prediction, metric
        As in :func:`score`.
    subjects : array, shape (n,)

    Returns
    -------
    names : ndarray of str, shape (S,)
        Sorted.
    values : ndarray, shape (S,)
        NaN where one subject's rows do not allow the score.

    Examples
    --------
    >>> per_subject([0, 1, 0, 1], [0, 1, 1, 1], list("aabb"), "accuracy")[1].tolist()
    [1.0, 0.5]
    """
    names, codes = subject_codes(subjects)
    values = resampler(y, prediction, codes, metric, len(names))
    parts = []
    for first in range(0, len(names), _SUBJECTS_AT_ONCE):
        alone = np.zeros((min(_SUBJECTS_AT_ONCE, len(names) - first), len(names)))
        alone[np.arange(len(alone)), first + np.arange(len(alone))] = 1
        parts.append(values(alone))
    return names, np.concatenate(parts) if parts else np.zeros(0)


def subject_codes(subjects: ArrayLike) -> tuple[Array, Array]:
    """Sorted names of the subjects and the number of each row's subject."""
    names, codes = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    return names, codes


def resampler(
    y: ArrayLike, prediction: ArrayLike, codes: Array, metric: str | Metric, n_subjects: int
) -> Callable[[Array], Array]:
    """A function from subject weights (R, S) to scores (R,): what every score and interval goes through.

    Parameters
    ----------
    y, prediction, metric
        As in :func:`score`, which also says what is raised.
    codes : ndarray of int, shape (n,)
        Number of each row's subject, from 0 to ``n_subjects`` - 1.

    Examples
    --------
    >>> resampler([0, 1], [0, 0], np.array([0, 1]), "accuracy", 2)(np.array([[1.0, 1.0], [2.0, 0.0]])).tolist()
    [0.5, 1.0]
    """
    metric = as_metric(metric)
    name, reference, p = metric.name, np.asarray(y, float), np.asarray(prediction)
    checks.same_length(reference, predictions=p, subjects=codes)
    if name == "concordance":
        return _survival(reference, column(p), codes)
    if name in COUNTED:
        return _decisions(column(reference), p, codes, n_subjects, metric)
    if name in ("macro_auroc", "brier"):
        return _class_scores(reference, np.asarray(p, float), codes, n_subjects, name)
    t, s = column(reference), column(p)
    if t.ndim != 1 or s.ndim != 1:
        raise RequestError(f"{name} judges one column of labels and of predictions; these have shapes {t.shape} and {s.shape}")
    checks.no_nan(s, ~np.isnan(t))
    if name in ("r2", "mae"):
        checks.finite(s, ~np.isnan(t))
        return errors(t, s, codes, n_subjects, name)
    checks.zero_one(t)
    if name == "auroc":
        return auroc(t[:, None], s[:, None], codes, n_subjects)
    if name == "auprc":
        return average_precision(t, s, codes)
    if name == "sensitivity_at_specificity":
        return sensitivity_at(t, s, codes, float(metric.at or 0))
    checks.probabilities(s, ~np.isnan(t))
    if name == "net_benefit":
        return net_benefit(t, s, codes, n_subjects, float(metric.at or 0))
    return recalibration(t, s, codes, name)


def _decisions(t: Array, p: Array, codes: Array, n_subjects: int, metric: Metric) -> Callable[[Array], Array]:
    if t.ndim != 1:
        raise RequestError(f"{metric.name} judges one class number a row; these labels have shape {t.shape}: take one column")
    known = ~np.isnan(t)
    checks.class_numbers(t)
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]
    checks.no_nan(np.asarray(p, float), known)
    if p.ndim == 1:
        checks.decisions(np.asarray(p, float), known)
        p = np.where(known, p, 0)
    return counted(t, hard(p), codes, n_subjects, metric)


def _class_scores(t: Array, p: Array, codes: Array, n_subjects: int, name: str) -> Callable[[Array], Array]:
    if t.ndim == 1 and (p.ndim == 1 or p.shape[1] == 1):
        t, p = t[:, None], columns(p)
    if t.ndim == 2:
        p = columns(p)
        if t.shape != p.shape:
            raise DataError(f"labels have {t.shape[1]} classes, predictions {p.shape[1]}: give one column for each class")
        checks.zero_one(t)
        for k in range(t.shape[1]):
            checks.no_nan(p[:, k], ~np.isnan(t[:, k]))
    else:
        checks.class_numbers(t)
        checks.no_nan(p, ~np.isnan(t))
        if len(t) and np.nanmax(t, initial=-1) >= p.shape[1]:
            raise DataError(
                f"reference class {int(np.nanmax(t))} but scores of {p.shape[1]} classes: give one column for each class"
            )
    if name == "macro_auroc":
        return auroc(t, p, codes, n_subjects)
    known = ~np.isnan(t)
    checks.probabilities(p, known, sums=t.ndim == 1)
    return brier(t, p, codes, n_subjects)


def _survival(reference: Array, risk: Array, codes: Array) -> Callable[[Array], Array]:
    if reference.ndim != 2 or reference.shape[1] != 2:
        raise RequestError(f"concordance needs time and event (n, 2); these labels have shape {reference.shape}")
    time, event = reference.T
    checks.zero_one(event)
    known = ~np.isnan(time) & ~np.isnan(event)
    if (time[known] < 0).any():
        raise DataError(f"time {time[known].min():g} is below 0: times count from each subject's start")
    checks.no_nan(risk, known, "risk")
    return concordance(time, event, risk, codes)


def why_not(y: ArrayLike, metric: str | Metric) -> str:
    """Why a score of these labels is NaN, in one line.

    Examples
    --------
    >>> why_not([1, 1], "auroc")
    'one class only in the judged rows (all 1): nothing to tell apart'
    """
    metric, t = as_metric(metric), column(y)
    known = t[~np.isnan(t).any(axis=1)] if metric.name == "concordance" and t.ndim == 2 else t[~np.isnan(t)]
    if not len(known):
        return "no row has a known label"
    if metric.name == "concordance":
        return "no two rows are comparable: every shorter time is censored"
    if metric.name == "r2":
        return "the reference does not vary"
    if metric.name == "ppv":
        return f"class {metric.positive} was never predicted"
    if metric.name in ("f1", "mean_f1", "sensitivity"):
        missing = [str(k) for k in (metric.classes or (metric.positive,)) if k not in known]
        return f"no reference row of class {', '.join(missing)}"
    if t.ndim == 1 and len(np.unique(known)) == 1:
        return f"one class only in the judged rows (all {known[0]:g}): nothing to tell apart"
    if metric.name in ("calibration_slope", "calibration_intercept"):
        return "no logistic fit: the predictions are all equal or separate the classes completely"
    return "no class has both positive and negative rows"


def per_class(y: ArrayLike, prediction: ArrayLike, classes: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """Rows of a per-class table: count, and F1 with precision and recall (multiclass) or AUROC.

    Values that cannot be computed are None.

    Parameters
    ----------
    y, prediction
        As in :func:`score`.
    classes : sequence of str
        Names by class number.
    kind : str
        ``multiclass``, ``multilabel`` or ``binary``.

    Examples
    --------
    >>> per_class([0, 1, 1], [0, 1, 0], ["rest", "task"], "multiclass")[1]["recall"]
    0.5
    """
    y = np.asarray(y, float)
    out: list[dict[str, Any]] = []
    if kind == "multiclass":
        table = confusion(y, prediction, len(classes))
        hit, true, said = np.diag(table), table.sum(1), table.sum(0)
        for k, name in enumerate(classes):
            row = {"class": name, "n": int(true[k])}
            row["f1"] = float(2 * hit[k] / (true[k] + said[k])) if true[k] else None
            row["precision"] = float(hit[k] / said[k]) if said[k] else None
            row["recall"] = float(hit[k] / true[k]) if true[k] else None
            out.append(row)
    elif kind in ("multilabel", "binary"):
        s = np.asarray(prediction, float)
        for k, name in enumerate(classes):
            auc = score(y[:, k : k + 1], s[:, k : k + 1], "macro_auroc")
            out.append({"class": name, "n": int(np.nansum(y[:, k])), "auroc": None if np.isnan(auc) else auc})
    return out


def confusion(y: ArrayLike, prediction: ArrayLike, n_classes: int) -> Array:
    """Confusion matrix (K, K): rows the reference, columns the prediction; rows of unknown reference left out.

    Raises
    ------
    DataError
        Lengths differ, or a judged prediction is NaN.

    Examples
    --------
    >>> confusion([0, 1, 1], [0, 1, 0], 2).tolist()
    [[1, 0], [1, 1]]
    """
    y, p = np.asarray(y, float), np.asarray(prediction)
    checks.same_length(y, predictions=p)
    known = ~np.isnan(y)
    checks.no_nan(np.asarray(p, float), known)
    flat = y[known].astype(np.int64) * n_classes + hard(p[known])
    return np.bincount(flat, minlength=n_classes * n_classes).reshape(n_classes, n_classes)
