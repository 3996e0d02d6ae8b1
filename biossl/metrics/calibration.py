"""How far probabilities can be believed: reliability table, calibration error, Brier score in its parts.

What lives here: descriptions of given probabilities. Intercept and slope are scores (``calibration_intercept``,
``calibration_slope`` of :func:`biossl.metrics.score`); mending probabilities is ``calibrators.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, column

N_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Rows with similar probabilities: how often the class occurred, with Wilson's 95 % interval (rows as independent)."""

    first: float
    last: float
    n: int
    mean_probability: float
    frequency: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers."""
        return asdict(self)


def reliability(y: ArrayLike, p: ArrayLike, *, bins: int = N_BINS) -> list[Bin]:
    """Table of a calibration plot: bins of equal numbers of rows, equal probabilities never in two bins.

    Parameters
    ----------
    y : array, shape (n,) or (n, 1)
        0, 1, NaN unknown.
    p : array, shape (n,) or (n, 1)
        Probability of 1.
    bins : int
        At most; fewer where many probabilities are equal.

    Returns
    -------
    list of Bin
        From the lowest probability on; ``first`` and ``last`` are the smallest and largest probability inside.

    Raises
    ------
    DataError
        Lengths differ, labels other than 0 and 1, NaN, numbers outside 0..1, no labelled row.

    Examples
    --------
    >>> [(b.n, b.frequency) for b in reliability([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], bins=2)]
    [(2, 0.0), (2, 1.0)]
    """
    t, q = _judged(y, p)
    return [_bin(t[rows], q[rows]) for rows in _groups(q, bins)]


def expected_calibration_error(y: ArrayLike, p: ArrayLike, *, bins: int = N_BINS) -> float:
    """Expected calibration error over equal-mass bins: mean distance of mean probability and frequency, weighted by rows.

    Not the equal-width kind of Guo et al. 2017 (arXiv 1706.04599), whose sparse bins are noisy; see Nixon et al. 2019
    (arXiv 1904.01685). Biased upwards on few rows. For several classes give :func:`top_label`'s two columns, or one class's.

    Parameters
    ----------
    y, p, bins
        As in :func:`reliability`.

    Examples
    --------
    >>> round(expected_calibration_error([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], bins=2), 3)
    0.15
    """
    table = reliability(y, p, bins=bins)
    n = sum(b.n for b in table)
    return float(sum(b.n * abs(b.mean_probability - b.frequency) for b in table) / n)


def top_label(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    """Whether the most probable class was right (0/1/NaN), and its probability: the yes/no view of several classes.

    Parameters
    ----------
    y : array, shape (n,)
        Class numbers, NaN unknown.
    p : array, shape (n, K)
        Probabilities; rows sum to 1.

    Examples
    --------
    >>> [v.tolist() for v in top_label([0, 1], [[0.6, 0.4], [0.7, 0.3]])]
    [[1.0, 0.0], [0.6, 0.7]]
    """
    t, q = np.asarray(y, float), np.asarray(p, float)
    checks.same_length(t, probabilities=q)
    if t.ndim != 1 or q.ndim != 2 or q.shape[1] < 2:
        raise RequestError(f"labels {t.shape}, probabilities {q.shape}: give class numbers (n,) and probabilities (n, K)")
    known = ~np.isnan(t)
    checks.class_numbers(t)
    checks.no_nan(q, known, "probability")
    checks.probabilities(q, known, sums=True)
    return np.where(known, q.argmax(1) == t, np.nan), q.max(1)


def brier_parts(y: ArrayLike, p: ArrayLike, *, bins: int = N_BINS) -> dict[str, float]:
    """Brier score and its parts: ``reliability - resolution + uncertainty + within_bins``.

    The first three after Murphy 1973 (J Appl Meteorol 12:595) on the bins of :func:`reliability`; ``within_bins`` (Stephenson et al.
    2008, Weather Forecast 23:752) is what the bins hide, so that the sum is exact.

    Parameters
    ----------
    y, p, bins
        As in :func:`reliability`.

    Returns
    -------
    dict
        ``brier``, ``reliability`` (0 is best), ``resolution`` (high is good), ``uncertainty``, ``within_bins``.

    Examples
    --------
    >>> brier_parts([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5])["uncertainty"]
    0.25
    """
    t, q = _judged(y, p)
    base, rel, res, within = t.mean(), 0.0, 0.0, 0.0
    for rows in _groups(q, bins):
        tb, qb = t[rows], q[rows]
        rel += len(rows) * (qb.mean() - tb.mean()) ** 2
        res += len(rows) * (tb.mean() - base) ** 2
        within += ((qb - qb.mean()) ** 2).sum() - 2 * ((qb - qb.mean()) * (tb - tb.mean())).sum()
    n = len(t)
    return {
        "brier": float(((q - t) ** 2).mean()),
        "reliability": float(rel / n),
        "resolution": float(res / n),
        "uncertainty": float(base * (1 - base)),
        "within_bins": float(within / n),
    }


def _judged(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    t, q = column(y), column(p)
    if t.ndim != 1 or q.ndim != 1:
        raise RequestError(f"labels {t.shape}, probabilities {q.shape}: calibration is judged one class at a time; give a column")
    checks.same_length(t, probabilities=q)
    checks.zero_one(t)
    known = ~np.isnan(t)
    checks.no_nan(q, known, "probability")
    checks.probabilities(q, known)
    if not known.any():
        raise DataError("no row has a known label: calibration cannot be judged")
    return t[known], q[known]


def _groups(q: Array, bins: int) -> Sequence[Array]:
    if bins < 1:
        raise RequestError(f"{bins} bins: give 1 or more")
    order = np.argsort(q, kind="stable")
    wanted = np.round(np.arange(1, bins) * len(q) / bins).astype(int)
    cuts = np.searchsorted(q[order], q[order][wanted[wanted < len(q)]])  # before the first of equal probabilities
    cuts = np.unique(cuts)
    return np.split(order, cuts[(cuts > 0) & (cuts < len(q))])


def _bin(t: Array, q: Array) -> Bin:
    found = stats.binomtest(int(t.sum()), len(t)).proportion_ci(method="wilson")
    return Bin(float(q.min()), float(q.max()), len(t), float(q.mean()), float(t.mean()), float(found.low), float(found.high))
