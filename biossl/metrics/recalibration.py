"""Logistic recalibration: the intercept and slope that would mend the probabilities, resampled by subject.

What lives here: the weighted fit of y on a + b logit(p), for many resamples at once.

Slope: b of the fit with both free; below 1 the predictions are too extreme. Intercept: a of the fit with b fixed at 1
("calibration in the large"); above 0 the predictions are too low. Cox 1958 (Biometrika 45:562); Van Calster et al. 2019
(BMC Med 17:230).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biossl.metrics.arrays import Array

EDGE = 1e-6  # a probability of exactly 0 or 1 has no logit; closer to 0 or 1 than this counts as this
_CHUNK = 4_000_000  # numbers held at once
_STEPS, _TOLERANCE, _LONGEST = 60, 1e-11, 4.0


def logit(p: Array) -> Array:
    """log(p / (1 - p)) with p kept :data:`EDGE` away from 0 and 1."""
    p = np.clip(p, EDGE, 1 - EDGE)
    return np.log(p) - np.log1p(-p)


def recalibration(y: Array, p: Array, codes: Array, name: str) -> Callable[[Array], Array]:
    """``calibration_slope`` or ``calibration_intercept`` of yes/no labels (n,) and probabilities (n,).

    NaN with one class only, with one predicted value only (slope), or where the classes are separated so that no fit
    exists.
    """
    known = ~np.isnan(y)
    t, x, code = y[known], logit(p[known]), codes[known]
    slope = name == "calibration_slope"

    def values(weights: Array) -> Array:
        out = np.full(len(weights), np.nan)
        step = max(1, _CHUNK // max(len(t), 1))
        for i in range(0, len(weights), step):
            w = weights[i : i + step][:, code]
            out[i : i + step] = _fit(w, x, t, slope=slope)
        return out

    return values


def _fit(w: Array, x: Array, t: Array, *, slope: bool) -> Array:
    """Newton's method on the weighted log-likelihood, one row of ``w`` a resample."""
    a = np.zeros(len(w))
    b = np.full(len(w), 0.0 if slope else 1.0)
    done = np.zeros(len(w), bool)
    with np.errstate(all="ignore"):
        n, n_positive = w.sum(1), w @ t
        possible = (n_positive > 0) & (n_positive < n)
        for _ in range(_STEPS):
            q = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))
            v = w * q * (1 - q)
            ga, h11 = n_positive - (w * q).sum(1), v.sum(1)
            if slope:
                gb, h12, h22 = (w * (t - q)) @ x, v @ x, v @ (x * x)
                det = h11 * h22 - h12 * h12
                da, db = (h22 * ga - h12 * gb) / det, (h11 * gb - h12 * ga) / det
            else:
                da, db = ga / h11, np.zeros(len(w))
            longest = np.maximum(np.abs(da), np.abs(db))
            shrink = np.minimum(1, _LONGEST / longest)  # far from the optimum a full step may overshoot
            a, b = a + shrink * da, b + shrink * db
            done = possible & (longest < _TOLERANCE * (1 + np.abs(a) + np.abs(b)))
            if (done | ~possible | ~np.isfinite(longest)).all():
                break
    return np.where(done, b if slope else a, np.nan)
