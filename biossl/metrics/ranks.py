"""Scores of an order: AUROC, average precision, sensitivity at a fixed specificity, resampled by subject.

What lives here: each sorts the rows once and returns a function from subject weights (R, S) to scores (R,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biossl.metrics.arrays import Array, mean_where

_CHUNK = 4_000_000  # numbers held at once while ranks are resampled
_FEW_SUBJECTS = 500  # up to here the pairs of every two subjects are counted once


def auroc(y: Array, s: Array, codes: Array, n_subjects: int) -> Callable[[Array], Array]:
    """Macro AUROC from ranks sorted once per class; ties count half, as in scikit-learn."""
    if y.ndim == 1:  # multiclass: each class against the rest
        known = ~np.isnan(y)
        target = np.full(s.shape, np.nan)
        target[known] = y[known, None] == np.arange(s.shape[1])
        y = target
    each = _auroc_by_subject if n_subjects <= _FEW_SUBJECTS else _auroc_by_row
    parts = []
    for k in range(y.shape[1]):
        rows = np.flatnonzero(~np.isnan(y[:, k]))
        rows = rows[np.argsort(s[rows, k], kind="stable")]
        positive = y[rows, k] > 0.5
        if positive.any() and not positive.all():
            group = np.cumsum(np.r_[False, np.diff(s[rows, k]) != 0])  # equal scores share a number
            parts.append(each(codes[rows], positive, group, n_subjects))

    def values(weights: Array) -> Array:
        out = np.stack([part(weights) for part in parts] or [np.full(len(weights), np.nan)], axis=1)
        return mean_where(out, np.isfinite(out))

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


def average_precision(y: Array, s: Array, codes: Array) -> Callable[[Array], Array]:
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


def sensitivity_at(y: Array, s: Array, codes: Array, specificity: float) -> Callable[[Array], Array]:
    """Largest sensitivity of any threshold (score >= threshold is positive) whose specificity is at least the given one.

    The threshold is sought anew in every resample: it describes the ROC curve, not a threshold that was fixed before
    (for that see :mod:`biossl.metrics.operating`). 0 where only a threshold above every score is specific enough.
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
            found = np.cumsum(np.add.reduceat(w * positive, starts, axis=1), axis=1)
            wrong = np.cumsum(np.add.reduceat(w * ~positive, starts, axis=1), axis=1)
            n_pos, n_neg = found[:, -1:], wrong[:, -1:]
            allowed = wrong <= (1 - specificity) * n_neg + 1e-9  # counts are whole: the slack is for rounding only
            best = np.where(allowed, found, 0.0).max(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[i : i + step] = np.where(n_neg[:, 0] > 0, best / n_pos[:, 0], np.nan)
        return out

    return values
