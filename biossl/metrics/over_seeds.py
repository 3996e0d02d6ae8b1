"""Scores of one model trained under several seeds: the mean over seeds, its interval over subjects, the spread over seeds.

What lives here: :func:`seed_scores` and :func:`seed_difference`, the same of counted events (:func:`seed_counts`,
:func:`seed_counts_difference`), and :func:`subject_means`. Subjects are resampled and the seeds are averaged inside each resample, so an interval says what other people would change and the spread what other seeds would.
(:func:`biossl.metrics.subject_bootstrap` of a list draws the seeds as well.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from biossl.metrics.arrays import Array
from biossl.metrics.intervals import N_RESAMPLES, NO_COUNT, Interval, Statistic, add_counts, draw, interval
from biossl.metrics.metric import Metric
from biossl.metrics.scores import resampler, why_not


@dataclass(frozen=True)
class SeedScores:
    """``mean`` over the seeds with its interval, and ``each`` seed's own."""

    mean: Interval
    each: tuple[Interval, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values: those of the mean, ``min`` and ``max`` over seeds, and ``seeds``, one entry each."""
        known = [e.value for e in self.each if e.value == e.value]
        spread = {"min": min(known, default=None), "max": max(known, default=None)}
        return self.mean.to_dict() | spread | {"seeds": [e.to_dict() for e in self.each]}


def seed_scores(
    y: ArrayLike, several: Sequence[Array], subjects: ArrayLike, metric: str | Metric, *, n: int = N_RESAMPLES, seed: int = 0
) -> SeedScores:
    """A score averaged over seeds.

    Parameters
    ----------
    y, metric
        As in :func:`biossl.metrics.score`, which also says what is raised.
    several : sequence of ndarrays
        Predictions of the same rows under each seed.
    subjects : array, shape (n_rows,)
    n, seed
        Resamples of the subjects, as in :func:`biossl.metrics.subject_bootstrap`.

    Examples
    --------
    >>> y, p = [0, 1] * 3, np.array([0, 1] * 3)
    >>> seed_scores(y, [p, 1 - p], list("aabbcc"), "accuracy").mean.value
    0.5
    """
    codes, weights = draw(subjects, n, seed)
    points, values = _each(y, several, codes, metric, weights)
    return _over_seeds(points, values, weights.shape[1], lambda: why_not(y, metric))


def seed_difference(
    y: ArrayLike, several: Sequence[Array], other: Sequence[Array], subjects: ArrayLike, metric: str | Metric, *,
    n: int = N_RESAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """Mean over seeds of a score minus that of another model, on the same resampled subjects.

    Parameters
    ----------
    several, other : sequence of ndarrays
        Predictions of the same rows; ``other`` may have one entry alone (a model that no seed changes).
    y, subjects, metric, n, seed
        As in :func:`seed_scores`.

    Examples
    --------
    >>> y, p = [0, 1] * 3, np.array([0, 1] * 3)
    >>> seed_difference(y, [p, 1 - p], [p], list("aabbcc"), "accuracy").value
    -0.5
    """
    codes, weights = draw(subjects, n, seed)
    points, values = _each(y, several, codes, metric, weights)
    points_b, values_b = _each(y, other, codes, metric, weights)
    point = float(points.mean() - points_b.mean())
    return interval(point, values.mean(axis=0) - values_b.mean(axis=0), weights.shape[1], lambda: why_not(y, metric))


def seed_counts(
    several: Sequence[Array], subjects: ArrayLike, statistic: Statistic, *, n: int = N_RESAMPLES, seed: int = 0
) -> SeedScores:
    """A statistic of counts that are added over subjects, averaged over seeds; of one seed that of ``counts_bootstrap``.

    Parameters
    ----------
    several : sequence of ndarrays, each (n_records, K)
        Counts of the same records under each seed.
    subjects : array, shape (n_records,)
    statistic : function
        From sums (R, K) to values (R,), NaN where undefined.
    n, seed
        As in :func:`biossl.metrics.counts_bootstrap`.

    Examples
    --------
    >>> share = lambda c: c[:, 0] / c.sum(axis=1)
    >>> seed_counts([np.array([[9, 1], [8, 2], [7, 3]]), np.array([[5, 5]] * 3)], list("abc"), share).mean.value
    0.65
    """
    codes, weights = draw(subjects, n, seed)
    points, values = _counted(several, codes, statistic, weights)
    return _over_seeds(points, values, weights.shape[1], lambda: NO_COUNT)


def seed_counts_difference(
    several: Sequence[Array],
    other: Sequence[Array],
    subjects: ArrayLike,
    statistic: Statistic,
    *,
    n: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean over seeds of a statistic of counts minus that of another detector, on the same resampled subjects.

    Parameters
    ----------
    several, other : sequence of ndarrays, each (n_records, K)
        Counts of the same records; ``other`` may have one entry alone (a detector that no seed changes).
    subjects, statistic, n, seed
        As in :func:`seed_counts`.

    Examples
    --------
    >>> a, b = np.array([[4], [2], [3]]), np.array([[2], [2], [2]])
    >>> seed_counts_difference([a, b], [b], list("abc"), lambda c: c[:, 0]).value
    1.5
    """
    codes, weights = draw(subjects, n, seed)
    points, values = _counted(several, codes, statistic, weights)
    points_b, values_b = _counted(other, codes, statistic, weights)
    point = float(points.mean() - points_b.mean())
    return interval(point, values.mean(axis=0) - values_b.mean(axis=0), weights.shape[1], lambda: NO_COUNT)


def subject_means(values: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0) -> SeedScores:
    """Mean over subjects of a score that each subject has of its own rows.

    Parameters
    ----------
    values : array, shape (n_seeds, n_subjects)
        Of :func:`biossl.metrics.per_subject` under each seed; a subject with NaN under any seed is left out.

    Examples
    --------
    >>> subject_means([[0.5, 1.0, 0.9], [0.7, 0.8, 0.9]]).mean.value
    0.8
    """
    table = np.atleast_2d(np.asarray(values, float))
    table = table[:, ~np.isnan(table).any(axis=0)]
    if not table.shape[1]:
        empty = Interval(float("nan"), float("nan"), float("nan"), 0, 0, "no subject's own rows allow this score")
        return SeedScores(empty, (empty,) * len(table))
    _, weights = draw(np.arange(table.shape[1]), n, seed)
    resampled, count = table @ weights.T / table.shape[1], table.shape[1]
    each = [interval(float(v.mean()), r, count, lambda: "") for v, r in zip(table, resampled, strict=True)]
    return SeedScores(interval(float(table.mean()), resampled.mean(axis=0), count, lambda: ""), tuple(each))


def _each(y: ArrayLike, several: Sequence[Array], codes: Array, metric: str | Metric, weights: Array) -> tuple[Array, Array]:
    """Score of each seed (k,) and of each in every resample (k, R)."""
    functions = [resampler(y, p, codes, metric, weights.shape[1]) for p in several]
    ones = np.ones((1, weights.shape[1]))
    return np.array([f(ones)[0] for f in functions]), np.stack([f(weights) for f in functions])


def _counted(several: Sequence[Array], codes: Array, statistic: Statistic, weights: Array) -> tuple[Array, Array]:
    """Statistic of each seed (k,) and of each in every resample (k, R)."""
    tables = [add_counts(counts, codes, weights.shape[1]) for counts in several]
    points = np.array([statistic(t.sum(axis=0, keepdims=True))[0] for t in tables], float)
    return points, np.stack([statistic(weights @ t) for t in tables])


def _over_seeds(points: Array, values: Array, count: int, why: Callable[[], str]) -> SeedScores:
    each = [interval(float(point), v, count, why) for point, v in zip(points, values, strict=True)]
    return SeedScores(interval(float(points.mean()), values.mean(axis=0), count, why), tuple(each))
