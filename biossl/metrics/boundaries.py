"""Onsets and offsets of waves (P, QRS, T): found within 150 ms, and how far off, in ms.

What lives here: counts of one lead and their statistics. Rules, those of the LUDB comparisons in ``docs/metrics.md``:

- boundaries are paired one to one within 150 ms (ANSI/AAMI EC57's window), onsets with onsets and offsets with offsets;
- extra detections are judged only between the lead's first and last annotated boundary, since nothing is annotated outside;
- a wave whose annotation lacks this boundary is not judged for it: a detected wave over its peak is no false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError, RequestError
from biossl.metrics.arrays import Array, ratio
from biossl.metrics.events import STATISTICS as OF_EVENTS
from biossl.metrics.events import intervals_of, match_events
from biossl.metrics.intervals import N_RESAMPLES, Interval, Statistic, counts_bootstrap

WINDOW_S = 0.15
SIDES = ("onset", "offset")


def boundary_counts(reference: ArrayLike, detected: ArrayLike, span: tuple[float, float], *, window_s: float = WINDOW_S) -> Array:
    """Counts of one kind of wave in one lead, for its onsets and offsets.

    Parameters
    ----------
    reference : array, shape (n, 3)
        Onset, peak, offset of each annotated wave in seconds; onset or offset NaN where the annotation lacks it.
    detected : array, shape (m, 2)
        Onset and offset of each detected wave.
    span : tuple of float
        The lead's first and last annotated boundary, of all kinds of waves: see :func:`annotated_span`.
    window_s : float
        Largest distance of a pair.

    Returns
    -------
    ndarray, shape (2, 6)
        For onset and offset: annotated, found, detected and judged, true, sum of errors and of their squares in ms and ms^2
        (detected minus annotated). Add them over leads and records.

    Raises
    ------
    DataError
        A detected wave that ends before it starts, or an annotated one without a peak.

    Examples
    --------
    >>> boundary_counts([[1.0, 1.05, 1.1]], [[1.01, 1.09]], (0.5, 2.0))[:, 4].round().tolist()
    [10.0, -10.0]
    """
    waves = np.asarray(reference, float)
    waves = waves.reshape(-1, 3) if waves.size == 0 else waves
    if waves.ndim != 2 or waves.shape[1] != 3:
        raise RequestError(
            f"reference waves have shape {waves.shape}: give onset, peak and offset (n, 3), NaN where one is missing"
        )
    if not np.isfinite(waves[:, 1]).all():
        raise DataError("an annotated wave has no peak: leave the wave out")
    found = intervals_of(detected, "detected")
    out = np.zeros((2, 6))
    for side in (0, 1):
        true = waves[:, 2 * side]
        known = np.isfinite(true)
        rows, columns = match_events(true[known], found[:, side], window_s)
        error = 1e3 * (found[columns, side] - true[known][rows])
        extra = np.ones(len(found), bool)
        extra[columns] = False
        peaks = waves[~known, 1]
        over = ((found[:, :1] <= peaks) & (found[:, 1:] >= peaks)).any(axis=1)
        within = (found[:, side] >= span[0]) & (found[:, side] <= span[1])
        n_extra = int((extra & ~over & within).sum())
        out[side] = known.sum(), len(rows), len(rows) + n_extra, len(rows), error.sum(), (error**2).sum()
    return out


def annotated_span(*waves: ArrayLike) -> tuple[float, float]:
    """First and last annotated boundary of a lead over all its kinds of waves (each (n, 3), NaN where one is missing).

    Raises
    ------
    DataError
        No boundary at all: the lead cannot be judged.

    Examples
    --------
    >>> annotated_span([[1.0, 1.05, 1.1]], [[0.8, 0.85, float("nan")]])
    (0.8, 1.1)
    """
    edges = np.concatenate([np.asarray(w, float).reshape(-1, 3)[:, [0, 2]].reshape(-1) for w in waves])
    edges = edges[np.isfinite(edges)]
    if not len(edges):
        raise DataError("the lead has no annotated boundary: leave it out of the scores")
    return float(edges.min()), float(edges.max())


def mean_error(counts: Array) -> Array:
    """Mean of detected minus annotated time, ms."""
    return ratio(counts[:, 4], counts[:, 1])


def sd_error(counts: Array) -> Array:
    """Standard deviation of the errors, ms, over n - 1; NaN with fewer than two pairs."""
    n = counts[:, 1]
    square = counts[:, 5] - ratio(counts[:, 4] ** 2, n)
    return np.sqrt(np.maximum(ratio(np.where(n > 1, square, np.nan), n - 1), 0))


STATISTICS: dict[str, Statistic] = {k: OF_EVENTS[k] for k in ("sensitivity", "ppv", "f1")} | {
    "mean_ms": mean_error,
    "sd_ms": sd_error,
}


def score_boundaries(
    counts: Sequence[Array], subjects: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Sensitivity, positive predictive value, F1, mean and sd of the error of onsets and offsets, pooled, with intervals.

    Parameters
    ----------
    counts : sequence of ndarray, each (2, 6)
        Of :func:`boundary_counts`, one a lead or record.
    subjects : array, shape (n_counts,)
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    dict
        ``{"onset": {"f1": Interval, ...}, "offset": {...}}``.

    Examples
    --------
    >>> one = boundary_counts([[1.0, 1.05, 1.1]], [[1.01, 1.09]], (0.5, 2.0))
    >>> score_boundaries([one], ["a"])["onset"]["f1"].value
    1.0
    """
    table = np.array(counts, float).reshape(-1, 2, 6)
    return {
        side: {k: counts_bootstrap(table[:, i], subjects, f, n=n, seed=seed) for k, f in STATISTICS.items()}
        for i, side in enumerate(SIDES)
    }
