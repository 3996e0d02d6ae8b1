"""Rhythm episodes after ANSI/AAMI EC57, e.g. atrial fibrillation: found episodes and found time.

What lives here: counts of one record and their statistics. An episode is found when any detected episode shares time with it, and a
detected one is true when it shares time with any reference episode; many may share one. Duration statistics are of seconds, so
that one short hit of a long episode does not pass for finding it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError
from biossl.metrics.arrays import Array, ratio
from biossl.metrics.events import STATISTICS as OF_EVENTS
from biossl.metrics.events import gross_and_average, intervals_of, watched
from biossl.metrics.intervals import N_RESAMPLES, Interval, Statistic


@dataclass(frozen=True)
class EpisodeCounts:
    """Episodes and seconds of one record; the first five fields as in :class:`biossl.metrics.events.EventCounts`."""

    n_reference: int
    n_found: int
    n_detected: int
    n_true: int
    seconds: float
    reference_s: float
    detected_s: float
    shared_s: float


def count_episodes(reference: ArrayLike, detected: ArrayLike, end_s: float, *, start_s: float = 0.0) -> EpisodeCounts:
    """Counts of one record.

    Episodes of one list that touch or overlap are one; all are cut to the time judged.

    Parameters
    ----------
    reference, detected : array, shape (n, 2), (m, 2)
        Start and end, seconds from the start of the record.
    end_s : float
        End of the record.
    start_s : float
        Time before it is not judged: 0, or :data:`biossl.metrics.beats.LEARNING_S` for the standard's learning time.

    Raises
    ------
    DataError
        An end before its start, NaN, or no time to judge.

    Examples
    --------
    >>> count_episodes([[0, 60], [100, 120]], [[30, 90]], 200.0).shared_s
    30.0
    """
    if start_s >= end_s:
        raise DataError(f"the record ends at {end_s:g} s, judging starts at {start_s:g} s: nothing is left; lower start_s")
    ref, det = (_merged(intervals_of(v, what), start_s, end_s) for v, what in ((reference, "reference"), (detected, "detected")))
    shared = np.minimum(ref[:, None, 1], det[None, :, 1]) - np.maximum(ref[:, None, 0], det[None, :, 0])
    meets = shared > 0
    return EpisodeCounts(
        n_reference=len(ref),
        n_found=int(meets.any(1).sum()),
        n_detected=len(det),
        n_true=int(meets.any(0).sum()),
        seconds=watched(end_s - start_s),
        reference_s=float(np.diff(ref).sum()),
        detected_s=float(np.diff(det).sum()),
        shared_s=float(np.maximum(shared, 0).sum()),
    )


def _merged(v: Array, start_s: float, end_s: float) -> Array:
    v = np.clip(v, start_s, end_s)
    v = v[v[:, 1] > v[:, 0]]
    out: list[list[float]] = []
    for a, b in v[np.argsort(v[:, 0], kind="stable")]:
        if out and a <= out[-1][1]:
            out[-1][1] = max(out[-1][1], b)
        else:
            out.append([a, b])
    return np.array(out, float).reshape(-1, 2)


STATISTICS: dict[str, Statistic] = {
    "episode_sensitivity": OF_EVENTS["sensitivity"],
    "episode_ppv": OF_EVENTS["ppv"],
    "duration_sensitivity": lambda c: ratio(c[:, 7], c[:, 5]),
    "duration_ppv": lambda c: ratio(c[:, 7], c[:, 6]),
    "false_alarms_per_day": OF_EVENTS["false_alarms_per_day"],
}


def score_episodes(
    counts: Sequence[EpisodeCounts], subjects: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Episode and duration sensitivity and positive predictive value, and false alarms per 24 h.

    Parameters
    ----------
    counts : sequence of EpisodeCounts
        One a record.
    subjects : array, shape (n_records,)
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    dict
        Name to ``{"gross": Interval, "average": Interval}``, as :func:`biossl.metrics.events.score_events`.

    Examples
    --------
    >>> score_episodes([count_episodes([[0, 60]], [[30, 90]], 200.0)], ["a"])["duration_sensitivity"]["gross"].value
    0.5
    """
    table = np.array([astuple(c) for c in counts], float).reshape(-1, 8)
    return gross_and_average(table, subjects, STATISTICS, n=n, seed=seed)
