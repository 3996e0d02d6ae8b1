"""Detected events against reference events: one-to-one matching, counts per record, false alarms per 24 h.

What lives here: events that are moments (:func:`match_events`, :func:`count_events`) and events that last
(:func:`match_overlaps`, :func:`count_overlaps`: falls, movements, seizures), and the statistics of their counts with intervals over
subjects. Beats with classes, rhythm episodes and wave boundaries have files of their own, which build on this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from biossl.errors import DataError, RequestError
from biossl.metrics.arrays import Array, ratio
from biossl.metrics.intervals import N_RESAMPLES, Interval, Statistic, counts_bootstrap

_SLACK = 1e-9  # seconds: 54 samples at 360 Hz are 0.15 s, whatever the rounding of two large times
DAY_S = 86_400.0


@dataclass(frozen=True)
class EventCounts:
    """What was found in one record.

    ``n_found`` of ``n_reference`` events were detected, ``n_true`` of ``n_detected`` detections are events; in one-to-one matching
    both are the pairs. ``seconds`` were watched.
    """

    n_reference: int
    n_found: int
    n_detected: int
    n_true: int
    seconds: float


def match_events(reference: ArrayLike, detected: ArrayLike, tolerance_s: float) -> tuple[Array, Array]:
    """Pair reference and detected moments one to one, at most ``tolerance_s`` apart.

    Both lists are sorted and cut where neighbours are further apart than the tolerance; inside each piece an alignment in time order
    (dynamic programming) takes the most pairs, and of those the least total distance. Taking the nearest pair first would lose
    pairs; crossing pairs are never better. n x m steps for a piece of n and m events, usually 1 x 1.

    Parameters
    ----------
    reference, detected : array, shape (n,), (m,)
        Seconds, in any order.
    tolerance_s : float
        Inclusive.

    Returns
    -------
    rows_reference, rows_detected : ndarray of int, shape (k,)
        Positions of the pairs, in time order.

    Raises
    ------
    DataError
        A time is NaN or infinite.
    RequestError
        A negative tolerance.

    Examples
    --------
    >>> [v.tolist() for v in match_events([1.0, 1.2], [1.1, 0.9, 5.0], 0.15)]
    [[0, 1], [1, 0]]
    """
    ref, det = _times(reference, "reference"), _times(detected, "detected")
    if not tolerance_s >= 0:
        raise RequestError(f"tolerance {tolerance_s:g} s: give seconds, 0 or more, e.g. 0.15")
    limit = tolerance_s + _SLACK
    order_r, order_d = np.argsort(ref, kind="stable"), np.argsort(det, kind="stable")
    r, d = ref[order_r], det[order_d]
    together = np.sort(np.concatenate([r, d]))
    cuts = together[1:][np.diff(together) > limit]  # first moment of every piece but the first
    ends_r = np.concatenate([[0], np.searchsorted(r, cuts), [len(r)]])
    ends_d = np.concatenate([[0], np.searchsorted(d, cuts), [len(d)]])
    pairs: list[tuple[int, int]] = []
    for r0, r1, d0, d1 in zip(ends_r[:-1], ends_r[1:], ends_d[:-1], ends_d[1:], strict=True):
        if r1 - r0 == 1 and d1 - d0 == 1:
            pairs.append((r0, d0))
        elif r1 > r0 and d1 > d0:
            pairs += [(r0 + i, d0 + j) for i, j in _align(r[r0:r1], d[d0:d1], limit)]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return order_r[rows[:, 0]], order_d[rows[:, 1]]


def _align(r: Array, d: Array, limit: float) -> list[tuple[int, int]]:
    one = 1 + limit * (min(len(r), len(d)) + 1)  # a pair outweighs every distance there can be
    best = np.zeros((len(r) + 1, len(d) + 1))
    for i in range(len(r)):
        apart = np.abs(d - r[i])
        taken = np.where(apart <= limit, best[i, :-1] + one - apart, 0.0)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    pairs = []
    i, j = len(r), len(d)
    while i and j:
        if best[i, j] == best[i, j - 1]:
            j -= 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def count_events(reference: ArrayLike, detected: ArrayLike, tolerance_s: float, seconds: float) -> EventCounts:
    """Counts of one record's moments.

    Parameters
    ----------
    reference, detected, tolerance_s
        As in :func:`match_events`.
    seconds : float
        Time watched, for false alarms per 24 h.

    Examples
    --------
    >>> count_events([1.0, 2.0], [1.1, 5.0, 9.0], 0.15, 60.0)
    EventCounts(n_reference=2, n_found=1, n_detected=3, n_true=1, seconds=60.0)
    """
    n = len(match_events(reference, detected, tolerance_s)[0])
    return EventCounts(np.size(reference), n, np.size(detected), n, watched(seconds))


def match_overlaps(reference: ArrayLike, detected: ArrayLike, min_iou: float = 0.0) -> tuple[Array, Array]:
    """Pair lasting events one to one by overlap: the most pairs, and of those the largest summed overlap.

    Overlap is intersection over union; a pair must share some time and at least ``min_iou``. An event without duration overlaps one
    that it lies in, with overlap 0, so it pairs at ``min_iou`` 0 only. One long detection over several events finds one of them.

    Parameters
    ----------
    reference, detected : array, shape (n, 2), (m, 2)
        Start and end in seconds.
    min_iou : float
        From 0 (any shared time) to 1.

    Returns
    -------
    rows_reference, rows_detected : ndarray of int, shape (k,)

    Raises
    ------
    DataError
        An end before its start, or a time that is NaN.
    RequestError
        ``min_iou`` outside 0..1.

    Examples
    --------
    >>> [v.tolist() for v in match_overlaps([[0, 4], [6, 8]], [[3, 9]])]
    [[1], [0]]
    """
    ref, det = intervals_of(reference, "reference"), intervals_of(detected, "detected")
    if not 0 <= min_iou <= 1:
        raise RequestError(f"min_iou {min_iou:g}: give a share from 0 to 1")
    shared = np.minimum(ref[:, None, 1], det[None, :, 1]) - np.maximum(ref[:, None, 0], det[None, :, 0])
    length_r, length_d = np.diff(ref)[:, 0][:, None], np.diff(det)[:, 0][None]
    union = length_r + length_d - np.maximum(shared, 0)
    iou = np.maximum(shared, 0) / np.where(union > 0, union, 1)
    meets = (shared > 0) | ((shared == 0) & ((length_r == 0) | (length_d == 0)))
    allowed = meets & (iou >= min_iou - 1e-12)
    # a pair outweighs every summed overlap there can be
    rows, columns = linear_sum_assignment(np.where(allowed, min(iou.shape, default=0) + 1 + iou, 0.0), maximize=True)
    keep = allowed[rows, columns]
    return rows[keep], columns[keep]


def count_overlaps(reference: ArrayLike, detected: ArrayLike, seconds: float, *, min_iou: float = 0.0) -> EventCounts:
    """Counts of one record's lasting events, e.g. falls or movements.

    Parameters
    ----------
    reference, detected, min_iou
        As in :func:`match_overlaps`.
    seconds : float
        Time watched.

    Examples
    --------
    >>> count_overlaps([[0, 4], [6, 8]], [[3, 9]], 60.0).n_found
    1
    """
    n = len(match_overlaps(reference, detected, min_iou)[0])
    return EventCounts(len(np.asarray(reference)), n, len(np.asarray(detected)), n, watched(seconds))


def sensitivity(counts: Array) -> Array:
    """Found share of the reference events; counts (R, K) in the order of :class:`EventCounts`."""
    return ratio(counts[:, 1], counts[:, 0])


def ppv(counts: Array) -> Array:
    """True share of the detections (positive predictive value)."""
    return ratio(counts[:, 3], counts[:, 2])


def f1(counts: Array) -> Array:
    """Harmonic mean of sensitivity and positive predictive value; 0 when nothing was found, NaN without a reference event."""
    se, pp = sensitivity(counts), ppv(counts)
    mean = ratio(2 * se * pp, se + pp)
    return np.where(counts[:, 0] > 0, np.where(counts[:, 1] > 0, mean, 0.0), np.nan)


def false_alarms_per_day(counts: Array) -> Array:
    """Detections that are no event, per 24 h watched."""
    return ratio((counts[:, 2] - counts[:, 3]) * DAY_S, counts[:, 4])


STATISTICS: dict[str, Statistic] = {
    "sensitivity": sensitivity,
    "ppv": ppv,
    "f1": f1,
    "false_alarms_per_day": false_alarms_per_day,
}


def score_events(
    counts: Sequence[EventCounts], subjects: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Gross and average statistics of many records with intervals over subjects.

    Parameters
    ----------
    counts : sequence of EventCounts
        One a record.
    subjects : array, shape (n_records,)
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    dict
        ``{"sensitivity": {"gross": Interval, "average": Interval}, ...}``. Gross: events added over records. Average: mean over the
        records in which the statistic is defined.

    Examples
    --------
    >>> both = score_events([EventCounts(4, 4, 4, 4, 60), EventCounts(1, 0, 0, 0, 60)], ["a", "b"])["sensitivity"]
    >>> both["gross"].value, both["average"].value
    (0.8, 0.5)
    """
    return gross_and_average(np.array([astuple(c) for c in counts], float).reshape(-1, 5), subjects, STATISTICS, n=n, seed=seed)


def gross_and_average(
    table: Array, subjects: ArrayLike, statistics: dict[str, Statistic], *, n: int = N_RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Gross and average statistics of a table of counts (n_records, K), as in :func:`score_events`.

    Examples
    --------
    >>> gross_and_average(np.array([[4.0, 4.0], [1.0, 0.0]]), ["a", "b"], {"se": sensitivity})["se"]["gross"].value
    0.8
    """
    out = {}
    for name, statistic in statistics.items():
        out[name] = {
            "gross": counts_bootstrap(table, subjects, statistic, n=n, seed=seed),
            "average": counts_bootstrap(each_record(table, statistic), subjects, mean_of_records, n=n, seed=seed),
        }
    return out


def each_record(table: Array, statistic: Statistic) -> Array:
    """A statistic of every record of a table (n_records, K) and whether it has one, (n_records, 2), for :func:`mean_of_records`."""
    each = statistic(table)
    defined = np.isfinite(each)
    return np.stack([np.where(defined, each, 0.0), defined], axis=1)


def mean_of_records(columns: Array) -> Array:
    """Mean over the records that have the statistic, from sums (R, 2) of :func:`each_record`."""
    return ratio(columns[:, 0], columns[:, 1])


def inside(times: Array, start_s: float, excluded: ArrayLike) -> Array:
    """Which moments are judged: not before ``start_s`` and in none of the excluded intervals (k, 2), ends included."""
    out = times >= start_s - _SLACK
    for a, b in intervals_of(excluded, "excluded"):
        out &= ~((times >= a - _SLACK) & (times <= b + _SLACK))
    return out


def intervals_of(values: ArrayLike, what: str) -> Array:
    """Start and end (n, 2) in seconds, checked."""
    out = np.asarray(values, float)
    out = out.reshape(-1, 2) if out.size == 0 else out
    if out.ndim != 2 or out.shape[1] != 2:
        raise RequestError(f"{what} events have shape {out.shape}: give start and end (n, 2) in seconds")
    if not np.isfinite(out).all() or (out[:, 1] < out[:, 0]).any():
        raise DataError(f"a {what} event ends before it starts or has a time that is no number: mend the annotation")
    return out


def watched(seconds: float) -> float:
    """Time watched, checked."""
    if not 0 < seconds < float("inf"):
        raise DataError(f"{seconds:g} s watched: false alarms per 24 h need the time that was watched, above 0")
    return float(seconds)


def _times(values: ArrayLike, what: str) -> Array:
    out = np.asarray(values, float).reshape(-1)
    if not np.isfinite(out).all():
        raise DataError(f"a {what} event has a time that is no number: leave the event out or mend it")
    return out
