"""Intervals and paired differences over resampled subjects.

What lives here: the resamples (equal seeds give equal resamples, whatever the model), percentile intervals of any score, and the
same for statistics of counts that are added over subjects (events, beats, episodes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, columns
from biossl.metrics.metric import Metric
from biossl.metrics.scores import resampler, subject_codes, why_not

Predictions = ArrayLike | list[Array]
Statistic = Callable[[Array], Array]
N_RESAMPLES = 2_000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % percentile interval over resampled subjects.

    ``n_subjects`` resampled, ``n_resamples`` that could be computed. ``low`` and ``high`` are NaN with fewer than three
    subjects: two people say nothing about a third. ``reason`` says why a number is missing, and is empty otherwise.
    """

    value: float
    low: float
    high: float
    n_subjects: int
    n_resamples: int
    reason: str = ""

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Plain numbers; NaN becomes None, so that strict JSON takes it; ``reason`` only where a number is missing."""
        return {k: None if v != v else v for k, v in asdict(self).items() if k != "reason" or v}


def subject_bootstrap(
    y: ArrayLike, prediction: Predictions, subjects: ArrayLike, metric: str | Metric, *, n: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """A score with its 95 % percentile interval, resampling subjects with all their rows.

    Parameters
    ----------
    y, metric
        As in :func:`biossl.metrics.score`, which also says what is raised.
    prediction : array or list of ndarrays
        As in :func:`biossl.metrics.score`; a list holds the same model under several seeds or draws: the value is then their
        mean, and each resample draws anew which of them count, so the interval covers both.
    subjects : array, shape (n_rows,)
        Whose row it is.
    n : int
        Resamples.
    seed : int
        Of the resamples: equal seeds give equal resamples, whatever the model.

    Examples
    --------
    >>> subject_bootstrap([0, 1] * 3, [0, 1] * 3, list("aabbcc"), "accuracy").low
    1.0
    """
    codes, weights = draw(subjects, n, seed)
    point, values = _repeated(y, prediction, codes, metric, weights)
    return interval(float(point.mean()), _pick(values, seed), weights.shape[1], lambda: why_not(y, metric))


def paired_difference(
    y: ArrayLike,
    a: Predictions,
    b: Predictions,
    subjects: ArrayLike,
    metric: str | Metric,
    *,
    n: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of metric(a) - metric(b) on the same resampled subjects.

    Parameters
    ----------
    a, b : array or list of ndarrays
        Predictions as in :func:`subject_bootstrap`. Two lists of equal length are paired one to one (the same draw of
        labels); otherwise each side is resampled on its own (several seeds of one side).

    Examples
    --------
    >>> paired_difference([0, 1] * 3, [0, 1] * 3, [0, 1] * 3, list("aabbcc"), "accuracy").value
    0.0
    """
    codes, weights = draw(subjects, n, seed)
    point_a, values_a = _repeated(y, a, codes, metric, weights)
    point_b, values_b = _repeated(y, b, codes, metric, weights)
    point = float(point_a.mean() - point_b.mean())
    if len(point_a) == len(point_b):
        values = _pick(values_a - values_b, seed)
    else:
        values = _pick(values_a, seed) - _pick(values_b, seed + 1)
    return interval(point, values, weights.shape[1], lambda: why_not(y, metric))


def counts_bootstrap(
    counts: ArrayLike, subjects: ArrayLike, statistic: Statistic, *, n: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of a statistic of counts that are added over the resampled subjects' records.

    Parameters
    ----------
    counts : array, shape (n_records, K)
        What was counted in each record.
    subjects : array, shape (n_records,)
        Whose record it is.
    statistic : function
        From sums (R, K) to values (R,), NaN where undefined, e.g. :func:`biossl.metrics.events.sensitivity`.
    n, seed
        As in :func:`subject_bootstrap`.

    Examples
    --------
    >>> counts_bootstrap([[9, 1], [8, 2], [7, 3]], list("abc"), lambda c: c[:, 0] / c.sum(1)).value
    0.8
    """
    codes, weights = draw(subjects, n, seed)
    by_subject = add_counts(counts, codes, weights.shape[1])
    point = float(statistic(by_subject.sum(0, keepdims=True))[0])
    return interval(point, statistic(weights @ by_subject), weights.shape[1], lambda: NO_COUNT)


def counts_difference(
    a: ArrayLike, b: ArrayLike, subjects: ArrayLike, statistic: Statistic, *, n: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of statistic(a) - statistic(b) of two detectors on the same records and resampled subjects.

    Parameters
    ----------
    a, b : array, shape (n_records, K)
    subjects, statistic, n, seed
        As in :func:`counts_bootstrap`.

    Examples
    --------
    >>> counts_difference([[1], [2], [3]], [[1], [2], [3]], list("abc"), lambda c: c[:, 0]).value
    0.0
    """
    codes, weights = draw(subjects, n, seed)
    first, second = (add_counts(c, codes, weights.shape[1]) for c in (a, b))
    point = float((statistic(first.sum(0, keepdims=True)) - statistic(second.sum(0, keepdims=True)))[0])
    values = statistic(weights @ first) - statistic(weights @ second)
    return interval(point, values, weights.shape[1], lambda: NO_COUNT)


NO_COUNT = "nothing was counted that the statistic divides by"


def add_counts(counts: ArrayLike, codes: Array, n_subjects: int) -> Array:
    """Counts (n_records, K) added by subject (S, K); DataError where one is no number."""
    table = columns(counts)
    checks.same_length(table, subjects=codes)
    if not np.isfinite(table).all():
        raise DataError("a count is NaN or infinite: count every record, with 0 where nothing was found")
    out = np.zeros((n_subjects, table.shape[1]))
    np.add.at(out, codes, table)
    return out


def draw(subjects: ArrayLike, n: int, seed: int) -> tuple[Array, Array]:
    """Subject code of each row and how often each subject is in each resample (n, S)."""
    names, codes = subject_codes(subjects)
    if not len(names):
        raise DataError("no rows to judge: the chosen part has no row with a known label; choose another part or label")
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return codes, weights.astype(np.float64)


def interval(point: float, values: Array, n_subjects: int, why: Callable[[], str]) -> Interval:
    """Percentiles of the resamples that could be computed; ``why`` is asked when the point itself could not."""
    values = values[np.isfinite(values)]
    enough = n_subjects >= checks.MIN_SUBJECTS and len(values) > 0
    low, high = np.percentile(values, [2.5, 97.5]) if enough else (np.nan, np.nan)
    reason = ""
    if np.isnan(point):
        reason, low, high = why(), np.nan, np.nan
    elif n_subjects < checks.MIN_SUBJECTS:
        reason = checks.too_few(n_subjects)
    elif not len(values):
        reason = "no resample could be computed"
    return Interval(point, float(low), float(high), n_subjects, len(values), reason)


def _repeated(y: ArrayLike, prediction: Predictions, codes: Array, metric: str | Metric, weights: Array) -> tuple[Array, Array]:
    """Scores of each seed or draw: of all rows (k,) and of every resample (R, k)."""
    several: list[Any] = prediction if isinstance(prediction, list) and isinstance(prediction[0], np.ndarray) else [prediction]
    functions = [resampler(y, p, codes, metric, weights.shape[1]) for p in several]
    ones = np.ones((1, weights.shape[1]))
    return np.array([f(ones)[0] for f in functions]), np.stack([f(weights) for f in functions], axis=1)


def _pick(values: Array, seed: int) -> Array:
    """Mean over as many seeds as there are, drawn with replacement for each resample."""
    chosen = np.random.default_rng([seed, 1]).integers(0, values.shape[1], values.shape)
    return np.take_along_axis(values, chosen, axis=1).mean(axis=1)
