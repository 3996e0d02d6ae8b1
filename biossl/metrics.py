"""Scores and their intervals: thin over scikit-learn's definitions, resampled by subject.

What lives here: macro F1, accuracy, balanced accuracy, macro AUROC, AUROC and AUPRC, R2 and MAE, each as a function of per-row numbers
that are summed per subject, so that 2,000 resamples of the *subjects* cost little; percentile intervals and paired
differences on the same resamples. No models, no files.

Conventions (the same for a score, its interval and a paired difference):

- The classes of macro F1 and balanced accuracy are those that occur in the reference labels of the rows judged; a class
  that is only ever predicted lowers the others' precision but has no F1 of its own.
- In a resample a class without a reference row (AUROC: without a positive or without a negative) is skipped, for both
  sides of a paired difference alike. A resample in which nothing can be computed is left out and counted; of macro F1 and
  balanced accuracy also one that holds a single class, where the mean over classes would be a figure of another kind.
- Unknown labels (NaN) are skipped, in multi-label scores class by class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biossl.errors import DataError, RequestError

Array = NDArray[Any]
Predictions = ArrayLike | list[Array]
MAIN_METRIC = {"binary": "auroc", "multiclass": "macro_f1", "multilabel": "macro_auroc", "regression": "r2"}
METRICS = {
    "binary": ("auroc", "auprc"),
    "multiclass": ("macro_f1", "accuracy", "balanced_accuracy", "macro_auroc"),
    "multilabel": ("macro_auroc",),
    "regression": ("r2", "mae"),
}
N_RESAMPLES = 2_000
_CHUNK = 4_000_000  # numbers held at once while ranks are resampled
_FEW_SUBJECTS = 500  # up to here the pairs of every two subjects are counted once


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % percentile interval over resampled subjects.

    ``n_subjects`` resampled, ``n_resamples`` that could be computed. ``low`` and ``high`` are NaN with fewer than two
    subjects: one person says nothing about another.
    """

    value: float
    low: float
    high: float
    n_subjects: int
    n_resamples: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain numbers; NaN becomes None, so that strict JSON takes it."""
        return {k: None if v != v else v for k, v in asdict(self).items()}


def score(y: ArrayLike, prediction: ArrayLike, metric: str) -> float:
    """One score of all rows.

    Parameters
    ----------
    y : array
        Multiclass: class numbers (n,), NaN unknown. ``macro_auroc``: class numbers (n,) or 0/1/NaN (n, K).
        ``auroc`` and ``auprc``: 0/1/NaN (n, 1). Regression: values (n,), NaN unknown.
    prediction : array
        Class numbers (n,) or class scores (n, K), of which the largest counts; for ``macro_auroc`` scores (n, K), for
        ``auroc`` and ``auprc`` (n, 1); for regression values (n,).
    metric : str
        ``macro_f1``, ``accuracy``, ``balanced_accuracy``, ``macro_auroc``, ``auroc``, ``auprc`` (average precision),
        ``r2`` or ``mae``.

    Returns
    -------
    float
        NaN when it cannot be computed (no class has positives and negatives; constant reference for R2).

    Examples
    --------
    >>> score([0, 0, 1, 1], [0, 1, 1, 1], "accuracy")
    0.75
    """
    return float(_resampler(y, prediction, np.zeros(len(np.asarray(y)), np.int64), metric)(np.ones((1, 1)))[0])


def subject_bootstrap(
    y: ArrayLike, prediction: Predictions, subjects: ArrayLike, metric: str, *, n: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """A score with its 95 % percentile interval, resampling subjects with all their rows.

    Parameters
    ----------
    y, metric
        As in :func:`score`.
    prediction : array or list of ndarrays
        As in :func:`score`; a list holds the same model under several seeds or draws: the value is then their mean, and
        each resample draws anew which of them count, so the interval covers both.
    subjects : array, shape (n_rows,)
        Whose row it is.
    n : int
        Resamples.
    seed : int
        Of the resamples: equal seeds give equal resamples, whatever the model.

    Examples
    --------
    >>> subject_bootstrap([0, 1, 0, 1], [0, 1, 0, 1], ["a", "a", "b", "b"], "accuracy").low
    1.0
    """
    codes, weights = _draw(subjects, n, seed)
    point, values = _repeated(y, prediction, codes, metric, weights)
    return _interval(float(point.mean()), _pick(values, seed), weights.shape[1])


def paired_difference(
    y: ArrayLike, a: Predictions, b: Predictions, subjects: ArrayLike, metric: str, *, n: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of metric(a) - metric(b) on the same resampled subjects.

    Parameters
    ----------
    a, b : array or list of ndarrays
        Predictions as in :func:`subject_bootstrap`. Two lists of equal length are paired one to one (the same draw of
        labels); otherwise each side is resampled on its own (several seeds of one side).

    Examples
    --------
    >>> paired_difference([0, 1] * 3, [0, 1] * 3, [0, 1] * 3, list("aabbcc"), "accuracy").value
    0.0
    """
    codes, weights = _draw(subjects, n, seed)
    point_a, values_a = _repeated(y, a, codes, metric, weights)
    point_b, values_b = _repeated(y, b, codes, metric, weights)
    point = float(point_a.mean() - point_b.mean())
    if len(point_a) == len(point_b):
        values = _pick(values_a - values_b, seed)
    else:
        values = _pick(values_a, seed) - _pick(values_b, seed + 1)
    return _interval(point, values, weights.shape[1])


def _repeated(y: ArrayLike, prediction: Predictions, codes: Array, metric: str, weights: Array) -> tuple[Array, Array]:
    """Scores of each seed or draw: of all rows (k,) and of every resample (R, k)."""
    several: list[Any] = prediction if isinstance(prediction, list) and isinstance(prediction[0], np.ndarray) else [prediction]
    functions = [_resampler(y, p, codes, metric) for p in several]
    ones = np.ones((1, weights.shape[1]))
    return np.array([f(ones)[0] for f in functions]), np.stack([f(weights) for f in functions], axis=1)


def _pick(values: Array, seed: int) -> Array:
    """Mean over as many seeds as there are, drawn with replacement for each resample."""
    chosen = np.random.default_rng([seed, 1]).integers(0, values.shape[1], values.shape)
    return np.take_along_axis(values, chosen, axis=1).mean(axis=1)


def per_class(y: ArrayLike, prediction: ArrayLike, classes: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """Rows of a per-class table: count, and F1 with precision and recall (multiclass) or AUROC.

    Values that cannot be computed are None.
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
    """Confusion matrix (K, K): rows the reference, columns the prediction; rows of unknown reference left out."""
    y, p = np.asarray(y, float), _hard(prediction)
    known = ~np.isnan(y)
    flat = y[known].astype(np.int64) * n_classes + p[known]
    return np.bincount(flat, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def _hard(prediction: ArrayLike) -> Array:
    p = np.asarray(prediction)
    return (p.argmax(axis=1) if p.ndim == 2 else p).astype(np.int64)


def _draw(subjects: ArrayLike, n: int, seed: int) -> tuple[Array, Array]:
    """Subject code of each row and how often each subject is in each resample (n, S)."""
    names, codes = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    if not len(names):
        raise DataError("no rows to judge: the chosen part has no row with a known label; choose another part or label")
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return codes, weights.astype(np.float64)


def _interval(point: float, values: Array, n_subjects: int) -> Interval:
    values = values[np.isfinite(values)]
    enough = n_subjects > 1 and len(values)
    low, high = np.percentile(values, [2.5, 97.5]) if enough else (np.nan, np.nan)
    return Interval(point, float(low), float(high), n_subjects, len(values))


def _resampler(y: ArrayLike, prediction: ArrayLike, codes: Array, metric: str) -> Callable[[Array], Array]:
    """A function from subject weights (R, S) to scores (R,): what every score and interval goes through."""
    y = np.asarray(y, float)
    if metric in ("macro_auroc", "auroc"):  # the mean over one class is that class's
        return _auroc(y, np.asarray(prediction, float), codes)
    if metric == "auprc":
        return _average_precision(y[:, 0], np.asarray(prediction, float)[:, 0], codes)
    if metric in ("macro_f1", "accuracy", "balanced_accuracy"):
        return _counted(y, _hard(prediction), codes, metric)
    if metric in ("r2", "mae"):
        return _moments(y, np.asarray(prediction, float), codes, metric)
    raise RequestError(
        f"metric '{metric}' is not known; choose one of {', '.join(sorted({m for v in METRICS.values() for m in v}))}"
    )


def _counted(y: Array, p: Array, codes: Array, metric: str) -> Callable[[Array], Array]:
    known = ~np.isnan(y)
    t, p, codes_known = y[known].astype(np.int64), p[known], codes[known]
    k = int(max(t.max(initial=-1), p.max(initial=-1))) + 1
    n_subjects = int(codes.max(initial=-1)) + 1
    tables = np.bincount((codes_known * k + t) * k + p, minlength=n_subjects * k * k).reshape(n_subjects, k, k)
    hits, true, said = np.einsum("skk->sk", tables), tables.sum(2), tables.sum(1)
    least = min(2, int((true.sum(0) > 0).sum()))  # classes a resample must hold

    def values(weights: Array) -> Array:
        hit, n_true, n_said = weights @ hits, weights @ true, weights @ said
        with np.errstate(invalid="ignore", divide="ignore"):
            if metric == "accuracy":
                return hit.sum(1) / n_true.sum(1)
            each = hit / n_true if metric == "balanced_accuracy" else 2 * hit / (n_true + n_said)
            return np.where((n_true > 0).sum(1) >= least, _mean_where(each, n_true > 0), np.nan)

    return values


def _moments(y: Array, p: Array, codes: Array, metric: str) -> Callable[[Array], Array]:
    known = ~np.isnan(y)
    t, e, c = y[known], (y - p)[known], codes[known]
    t = t - (t.mean() if len(t) else 0.0)  # R2 does not depend on the origin; sums of squares lose digits far from it
    n_subjects = int(codes.max(initial=-1)) + 1
    n, st, stt, see, sae = (np.bincount(c, weights=v, minlength=n_subjects) for v in (np.ones_like(t), t, t * t, e * e, abs(e)))

    def values(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            count = weights @ n
            if metric == "mae":
                return (weights @ sae) / count
            spread = weights @ stt - (weights @ st) ** 2 / count
            return np.where(spread > 1e-12 * count, 1 - (weights @ see) / spread, np.nan)

    return values


def _auroc(y: Array, s: Array, codes: Array) -> Callable[[Array], Array]:
    """Macro AUROC from ranks sorted once per class; ties count half, as in scikit-learn."""
    if y.ndim == 1:  # multiclass: each class against the rest
        known = ~np.isnan(y)
        target = np.full(s.shape, np.nan)
        target[known] = y[known, None] == np.arange(s.shape[1])
        y = target
    each = _auroc_by_subject if codes.max(initial=0) < _FEW_SUBJECTS else _auroc_by_row
    parts = []
    for k in range(y.shape[1]):
        rows = np.flatnonzero(~np.isnan(y[:, k]))
        rows = rows[np.argsort(s[rows, k], kind="stable")]
        positive = y[rows, k] > 0.5
        if positive.any() and not positive.all():
            group = np.cumsum(np.r_[False, np.diff(s[rows, k]) != 0])  # equal scores share a number
            parts.append(each(codes[rows], positive, group, int(codes.max()) + 1))

    def values(weights: Array) -> Array:
        out = np.stack([part(weights) for part in parts] or [np.full(len(weights), np.nan)], axis=1)
        return _mean_where(out, np.isfinite(out))

    return values


def _auroc_by_subject(code: Array, positive: Array, group: Array, n_subjects: int) -> Callable[[Array], Array]:
    """Few subjects: count the ordered pairs of every two subjects once, a resample is then a small product."""
    pairs = np.zeros((n_subjects, n_subjects))
    before = np.zeros(n_subjects)
    step = max(1, _CHUNK // n_subjects)
    for first in range(0, int(group[-1]) + 1, step):
        inside = slice(*np.searchsorted(group, [first, first + step]))
        n_groups = int(group[inside][-1]) - first + 1
        cell = (group[inside] - first) * n_subjects + code[inside]
        size = n_groups * n_subjects
        pos = np.bincount(cell, weights=positive[inside], minlength=size).reshape(n_groups, n_subjects)
        neg = np.bincount(cell, weights=~positive[inside], minlength=size).reshape(n_groups, n_subjects)
        total = before + np.cumsum(neg, axis=0)
        pairs += pos.T @ (total - neg / 2)
        before = total[-1]
    n_pos = np.bincount(code, weights=positive, minlength=n_subjects)
    n_neg = np.bincount(code, weights=~positive, minlength=n_subjects)

    def values(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((weights @ pairs) * weights).sum(1) / ((weights @ n_pos) * (weights @ n_neg))

    return values


def _auroc_by_row(code: Array, positive: Array, group: Array, n_subjects: int) -> Callable[[Array], Array]:
    """Many subjects with few rows each: weigh the sorted rows of a block of resamples."""
    starts = np.flatnonzero(np.r_[True, np.diff(group) != 0])

    def values(weights: Array) -> Array:
        out = np.empty(len(weights))
        step = max(1, _CHUNK // len(code))
        for i in range(0, len(weights), step):
            w = weights[i : i + step][:, code]
            pos = np.add.reduceat(w * positive, starts, axis=1)
            neg = np.add.reduceat(w * ~positive, starts, axis=1)
            below = np.cumsum(neg, axis=1) - neg / 2
            with np.errstate(invalid="ignore", divide="ignore"):
                out[i : i + step] = (pos * below).sum(1) / (pos.sum(1) * neg.sum(1))
        return out

    return values


def _average_precision(y: Array, s: Array, codes: Array) -> Callable[[Array], Array]:
    """Precision at every distinct score, from the highest on, weighted by the share of positives found there.

    Ties count together, as in scikit-learn; NaN without a positive or without a negative.
    """
    known = np.flatnonzero(~np.isnan(y))
    rows = known[np.argsort(-s[known], kind="stable")]
    positive, code = y[rows] > 0.5, codes[rows]
    starts = np.flatnonzero(np.r_[True, np.diff(s[rows]) != 0]) if len(rows) else np.zeros(0, np.int64)

    def values(weights: Array) -> Array:
        out = np.full(len(weights), np.nan)
        if not positive.any() or positive.all():
            return out
        step = max(1, _CHUNK // len(code))
        for i in range(0, len(weights), step):
            w = weights[i : i + step][:, code]
            hit, said = np.add.reduceat(w * positive, starts, axis=1), np.add.reduceat(w, starts, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.cumsum(hit, axis=1) / np.cumsum(said, axis=1)
                found = np.where(hit > 0, hit * precision, 0.0).sum(1) / hit.sum(1)
                out[i : i + step] = np.where(said.sum(1) > hit.sum(1), found, np.nan)
        return out

    return values


def _mean_where(each: Array, valid: Array) -> Array:
    count = valid.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.where(valid, each, 0.0).sum(1) / count, np.nan)
