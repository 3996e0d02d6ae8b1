"""Scores that are sums over rows: R2, mean absolute error, Brier score.

What lives here: functions that return one from subject weights (R, S) to scores (R,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biossl.metrics.arrays import Array, mean_where, ratio


def errors(y: Array, p: Array, codes: Array, n_subjects: int, name: str) -> Callable[[Array], Array]:
    """``r2`` or ``mae`` of values (n,); R2 is NaN where the reference does not vary."""
    known = ~np.isnan(y)
    t, e, c = y[known], (y - p)[known], codes[known]
    t = t - (t.mean() if len(t) else 0.0)  # R2 does not depend on the origin; sums of squares lose digits far from it
    n, st, stt, see, sae = (np.bincount(c, weights=v, minlength=n_subjects) for v in (np.ones_like(t), t, t * t, e * e, abs(e)))

    def values(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            count = weights @ n
            if name == "mae":
                return (weights @ sae) / count
            spread = weights @ stt - (weights @ st) ** 2 / count
            return np.where(spread > 1e-12 * (weights @ stt), 1 - (weights @ see) / spread, np.nan)

    return values


def brier(y: Array, p: Array, codes: Array, n_subjects: int) -> Callable[[Array], Array]:
    """Mean squared distance of probability and label (Brier 1950).

    ``y`` class numbers (n,) with ``p`` (n, K): summed over classes, from 0 to 2. ``y`` 0/1/NaN (n, K): the yes/no score,
    from 0 to 1, of each class and the mean over classes.
    """
    if y.ndim == 1:
        known = ~np.isnan(y)
        square = ((p[known] - (y[known, None] == np.arange(p.shape[1]))) ** 2).sum(1)[:, None]
        rows = [np.flatnonzero(known)]
    else:
        square = (p - y) ** 2
        rows = [np.flatnonzero(~np.isnan(y[:, k])) for k in range(y.shape[1])]
        square = np.where(np.isnan(y), 0.0, square)
    total = np.zeros((n_subjects, len(rows)))
    n = np.zeros((n_subjects, len(rows)))
    for k, some in enumerate(rows):
        value = square[:, 0] if y.ndim == 1 else square[some, k]
        total[:, k] = np.bincount(codes[some], weights=value, minlength=n_subjects)
        n[:, k] = np.bincount(codes[some], minlength=n_subjects)

    def values(weights: Array) -> Array:
        each = ratio(weights @ total, weights @ n)
        return mean_where(each, np.isfinite(each))

    return values
