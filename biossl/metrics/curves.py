"""ROC and precision-recall curves of one class with a band over resampled subjects.

What lives here: the curve as scikit-learn draws it, and the pointwise 95 % band of the same curve in resamples of the subjects.
Areas under them are scores (``metrics.subject_bootstrap`` with ``auroc`` or ``auprc``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, column
from biossl.metrics.intervals import draw

What = Literal["roc", "precision_recall"]
GRID = np.linspace(0.0, 1.0, 101)
_CHUNK = 4_000_000  # numbers held at once


@dataclass(frozen=True)
class Curve:
    """One class's curve and its band.

    Attributes
    ----------
    x, y : ndarray, shape (k,)
        ``roc``: 1 - specificity and sensitivity, from (0, 0) on. ``precision_recall``: recall and precision, from the highest
        threshold on. A point a distinct score.
    low, high : ndarray, shape (101,)
        Of y at :data:`GRID`; NaN with fewer than three subjects.
    prevalence : float
        Share of the class among rows with a known label: the precision of guessing.
    """

    x: Array
    y: Array
    low: Array
    high: Array
    prevalence: float


def curve(y: ArrayLike, scores: ArrayLike, subjects: ArrayLike, what: What, *, n: int = 500, seed: int = 0) -> Curve:
    """Curve of one class over all thresholds (a score of at least the threshold is positive).

    Between two points a ROC curve is a straight line; precision at a recall is that of the highest threshold which reaches it, as
    in the average precision.

    Parameters
    ----------
    y, scores : array, shape (n,) or (n, 1)
        0/1/NaN, and the score of 1; ties enter together.
    subjects : array, shape (n,)
    what : {'roc', 'precision_recall'}
    n, seed
        Resamples of the subjects, and their seed. Resamples of one class are left out.

    Raises
    ------
    DataError
        One class only, NaN scores.
    RequestError
        Another curve.

    Examples
    --------
    >>> curve([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], list("abcd"), "roc").y.tolist()
    [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    if what not in get_args(What):
        raise RequestError(f"curve '{what}' is not known; choose one of {', '.join(get_args(What))}")
    t, s = column(y), column(scores)
    checks.same_length(t, scores=s)
    checks.zero_one(t)
    known = ~np.isnan(t)
    checks.no_nan(s, known, "score")
    positive = t[known] > 0.5
    if positive.all() or not positive.any():
        shown = "none" if not len(positive) else "only 1" if positive.all() else "only 0"
        raise DataError(f"a curve needs rows of both classes; the known labels are {shown}")
    codes, weights = draw(np.asarray(subjects)[known], n, seed)
    order = np.argsort(-s[known], kind="stable")
    positive, codes = positive[order], codes[order]
    starts = np.flatnonzero(np.r_[True, np.diff(s[known][order]) != 0])
    found, wrong = _cumulative(np.ones((1, weights.shape[1])), codes, positive, starts)
    x, value = _points(found[0], wrong[0], what)
    low = high = np.full(len(GRID), np.nan)
    if weights.shape[1] >= checks.MIN_SUBJECTS:
        rows = []
        step = max(1, _CHUNK // len(codes))
        for i in range(0, n, step):
            for f, w in zip(*_cumulative(weights[i : i + step], codes, positive, starts), strict=True):
                if f[-1] > 0 and w[-1] > 0:
                    rows.append(_at_grid(*_points(f, w, what), what))
        if rows:
            low, high = np.percentile(np.stack(rows), [2.5, 97.5], axis=0)
    return Curve(x, value, low, high, float(positive.mean()))


def _cumulative(weights: Array, codes: Array, positive: Array, starts: Array) -> tuple[Array, Array]:
    """Weight of positives and of negatives at or above each distinct score, (R, groups) each."""
    w = weights[:, codes]
    return tuple(np.cumsum(np.add.reduceat(w * some, starts, axis=1), axis=1) for some in (positive, ~positive))  # type: ignore[return-value]


def _points(found: Array, wrong: Array, what: What) -> tuple[Array, Array]:
    if what == "roc":
        return np.r_[0.0, wrong / wrong[-1]], np.r_[0.0, found / found[-1]]
    some = found + wrong > 0  # the highest scores may be of people who are not in the resample
    return found[some] / found[-1], found[some] / (found + wrong)[some]


def _at_grid(x: Array, y: Array, what: What) -> Array:
    if what == "roc":
        return np.interp(GRID, x, y)  # over a vertical piece the upper end
    return y[np.minimum(np.searchsorted(x, GRID - 1e-12), len(y) - 1)]
