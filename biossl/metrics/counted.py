"""Scores of decisions, from one confusion table a subject.

What lives here: accuracy, balanced accuracy, macro F1, F1 of one class and mean F1 over named classes, kappa (plain and
quadratic), sensitivity, specificity, positive predictive value, net benefit. Every function returns one from subject
weights (R, S) to scores (R,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biossl.metrics.arrays import Array, mean_where, ratio
from biossl.metrics.metric import Metric


def counted(y: Array, p: Array, codes: Array, n_subjects: int, metric: Metric) -> Callable[[Array], Array]:
    """Scores of class numbers ``p`` (n,) against class numbers ``y`` (n,), NaN unknown."""
    known = ~np.isnan(y)
    t, p, code = y[known].astype(np.int64), p[known], codes[known]
    k = int(max(t.max(initial=-1), p.max(initial=-1), metric.positive, *metric.classes)) + 1
    tables = np.bincount((code * k + t) * k + p, minlength=n_subjects * k * k).reshape(n_subjects, k, k)
    hits, true, said = np.einsum("skk->sk", tables), tables.sum(2), tables.sum(1)
    name = metric.name
    if name == "accuracy":
        return lambda w: ratio(w @ hits.sum(1), w @ true.sum(1))
    if name in ("kappa", "quadratic_kappa"):
        return _kappa(tables, quadratic=name == "quadratic_kappa")
    if name in ("macro_f1", "balanced_accuracy"):
        return _mean_over_classes(hits, true, said, f1=name == "macro_f1")
    if name in ("f1", "mean_f1"):
        named = list(metric.classes or (metric.positive,))
        hit, n_true, n_said = hits[:, named], true[:, named], said[:, named]
        # a mean over named classes is that of all of them: a resample that lacks one is left out
        return lambda w: np.where(w @ n_true > 0, ratio(2 * (w @ hit), w @ n_true + w @ n_said), np.nan).mean(axis=1)
    c, total = metric.positive, true.sum(1)
    if name == "sensitivity":
        return lambda w: ratio(w @ hits[:, c], w @ true[:, c])
    if name == "ppv":
        return lambda w: ratio(w @ hits[:, c], w @ said[:, c])
    right_no, no = total - true[:, c] - said[:, c] + hits[:, c], total - true[:, c]
    if name == "specificity":
        return lambda w: ratio(w @ right_no, w @ no)
    raise AssertionError(name)


def _mean_over_classes(hits: Array, true: Array, said: Array, *, f1: bool) -> Callable[[Array], Array]:
    least = min(2, int((true.sum(0) > 0).sum()))  # classes a resample must hold

    def values(weights: Array) -> Array:
        hit, n_true, n_said = weights @ hits, weights @ true, weights @ said
        with np.errstate(invalid="ignore", divide="ignore"):
            each = 2 * hit / (n_true + n_said) if f1 else hit / n_true
        return np.where((n_true > 0).sum(1) >= least, mean_where(each, n_true > 0), np.nan)

    return values


def _kappa(tables: Array, *, quadratic: bool) -> Callable[[Array], Array]:
    """Cohen's kappa 1 - (weighted disagreement seen) / (expected from the margins); NaN with one class in the reference."""
    n_subjects, k, _ = tables.shape
    i = np.arange(k)
    cost = (i[:, None] - i) ** 2.0 if quadratic else (i[:, None] != i).astype(float)
    seen = (tables * cost).sum((1, 2))
    true, said = tables.sum(2), tables.sum(1)

    def values(weights: Array) -> Array:
        n_true, n_said = weights @ true, weights @ said
        expected = ((n_true @ cost) * n_said).sum(1)
        out = 1 - ratio((weights @ seen) * n_true.sum(1), expected)
        return np.where((n_true > 0).sum(1) >= 2, out, np.nan)

    return values


def net_benefit(y: Array, p: Array, codes: Array, n_subjects: int, at: float) -> Callable[[Array], Array]:
    """True positives less false positives weighed by the odds of the threshold, per row (Vickers and Elkin 2006)."""
    known = ~np.isnan(y)
    t, said, code = y[known], p[known] >= at, codes[known]
    gain = np.where(said, np.where(t > 0.5, 1.0, -at / (1 - at)), 0.0)
    total = np.bincount(code, weights=gain, minlength=n_subjects)
    n = np.bincount(code, minlength=n_subjects)
    return lambda w: ratio(w @ total, w @ n)
