"""Tests of two models on the same rows or the same subjects: DeLong, McNemar, sign flip.

What lives here: DeLong's variance of an AUROC and test of two correlated ones, McNemar's exact test of two sets of decisions,
and the sign-flip test of per-subject differences. The first two take *rows* as independent: where subjects have many rows, the
subject bootstrap (:func:`biossl.metrics.paired_difference`) and the sign-flip test lead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from biossl.errors import DataError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, column

N_FLIPS = 10_000


@dataclass(frozen=True)
class Comparison:
    """A value or difference with its standard error, normal 95 % interval and two-sided p; NaN where there is none.

    ``n`` is what was counted: rows, discordant rows or subjects. ``reason`` says why a number is missing.
    """

    value: float
    se: float
    low: float
    high: float
    p: float
    n: int
    reason: str = ""

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Plain numbers; NaN becomes None; ``reason`` only where a number is missing."""
        return {k: None if v != v else v for k, v in asdict(self).items() if k != "reason" or v}


def delong(y: ArrayLike, scores: ArrayLike) -> Comparison:
    """AUROC with DeLong's standard error (DeLong et al. 1988, Biometrics 44:837; midranks after Sun and Xu 2014).

    Takes rows as independent: where subjects have many rows the interval is too narrow and the subject bootstrap leads.

    Parameters
    ----------
    y : array, shape (n,) or (n, 1)
        0, 1, NaN unknown.
    scores : array, shape (n,) or (n, 1)
        Higher is class 1; ties count one half.

    Returns
    -------
    Comparison
        ``value`` the AUROC, ``p`` against 0.5. With fewer than two rows of a class there is no variance: NaN and a reason.

    Raises
    ------
    DataError
        Lengths differ, labels other than 0 and 1, NaN scores.

    Examples
    --------
    >>> round(delong([1, 1, 0, 0, 0], [0.9, 0.6, 0.5, 0.6, 0.1]).value, 4)
    0.9167
    """
    auroc, cov, n, reason = _delong(y, scores)
    return _normal(float(auroc[0]), float(cov[0, 0]), n, 0.5, reason)


def delong_test(y: ArrayLike, a: ArrayLike, b: ArrayLike) -> Comparison:
    """AUROC(a) - AUROC(b) of two models on the same rows, with DeLong's test of correlated curves (1988).

    Takes rows as independent: where subjects have many rows, the subject bootstrap leads.

    Parameters
    ----------
    y, a, b : array, shape (n,) or (n, 1)
        As in :func:`delong`.

    Returns
    -------
    Comparison
        Equal scores give p = 1. A difference without variance (both curves are straight) has no p.

    Examples
    --------
    >>> delong_test([1, 1, 0, 0], [4, 3, 2, 1], [4, 3, 2, 1]).p
    1.0
    """
    auroc, cov, n, reason = _delong(y, a, b)
    return _normal(float(auroc[0] - auroc[1]), float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]), n, 0.0, reason)


def _delong(y: ArrayLike, *models: ArrayLike) -> tuple[Array, Array, int, str]:
    """AUROCs (k,), their covariance (k, k), the rows judged, and why there is none."""
    t = column(y)
    checks.zero_one(t)
    known = ~np.isnan(t)
    above, below = [], []
    n_pos, n_neg = int((t == 1).sum()), int((t == 0).sum())
    empty = np.full(len(models), np.nan)
    for model in models:
        s = column(model)
        checks.same_length(t, scores=s)
        checks.no_nan(s, known, "score")
        pos, neg = s[t == 1], s[t == 0]
        if not len(pos) or not len(neg):
            continue
        ranks = stats.rankdata(np.concatenate([pos, neg]))
        above.append((ranks[:n_pos] - stats.rankdata(pos)) / n_neg)  # share of negatives below each positive
        below.append(1 - (ranks[n_pos:] - stats.rankdata(neg)) / n_pos)  # share of positives above each negative
    if not above:
        return empty, np.full((len(models),) * 2, np.nan), n_pos + n_neg, f"{n_pos} positive and {n_neg} negative rows: no AUROC"
    auroc = np.array([v.mean() for v in above])
    if n_pos < 2 or n_neg < 2:
        reason = f"{n_pos} positive and {n_neg} negative rows: DeLong's variance needs two of each"
        return auroc, np.full((len(models),) * 2, np.nan), n_pos + n_neg, reason
    cov = np.atleast_2d(np.cov(above)) / n_pos + np.atleast_2d(np.cov(below)) / n_neg
    return auroc, cov, n_pos + n_neg, ""


def _normal(value: float, variance: float, n: int, null: float, reason: str) -> Comparison:
    if reason:
        return Comparison(value, np.nan, np.nan, np.nan, np.nan, n, reason)
    if variance < 1e-18:  # rounding of a variance that is 0
        same = abs(value - null) < 1e-12
        why = "" if same else "the variance is 0 (the classes are separated completely): no test"
        ends = (value, value) if same else (np.nan, np.nan)
        return Comparison(value, 0.0, *ends, 1.0 if same else np.nan, n, why)
    se = variance**0.5
    half = float(stats.norm.ppf(0.975)) * se
    return Comparison(value, se, value - half, value + half, float(2 * stats.norm.sf(abs(value - null) / se)), n)


def mcnemar(y: ArrayLike, a: ArrayLike, b: ArrayLike) -> Comparison:
    """McNemar's exact test of two sets of decisions on the same rows (McNemar 1947, Psychometrika 12:153).

    Of the rows on which exactly one model is right, the share that is a's is tested against one half (binomial, two-sided).
    Takes rows as independent.

    Parameters
    ----------
    y, a, b : array, shape (n,) or (n, 1)
        Class numbers; NaN in ``y`` is unknown.

    Returns
    -------
    Comparison
        ``value`` accuracy(a) - accuracy(b), ``n`` the discordant rows. Without one p is 1.

    Examples
    --------
    >>> mcnemar([1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]).p
    0.125
    """
    t, first, second = column(y), column(a), column(b)
    checks.same_length(t, decisions=first)
    checks.same_length(t, decisions=second)
    known = ~np.isnan(t)
    checks.class_numbers(t)
    for p in (first, second):
        checks.no_nan(p, known, "decision")
        checks.decisions(p, known)
    n = int(known.sum())
    if not n:
        raise DataError("no row has a known label: two sets of decisions cannot be compared")
    right_a, right_b = (first == t)[known], (second == t)[known]
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    value, discordant = (only_a - only_b) / n, only_a + only_b
    se = (discordant - (only_a - only_b) ** 2 / n) ** 0.5 / n
    half = float(stats.norm.ppf(0.975)) * se
    chance = float(stats.binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return Comparison(value, se, value - half, value + half, chance, discordant)


def sign_flip(a: ArrayLike, b: ArrayLike, *, n: int = N_FLIPS, seed: int = 0) -> Comparison:
    """Paired permutation test of per-subject scores: were the models exchangeable, each difference's sign would be a coin.

    Parameters
    ----------
    a, b : array, shape (S,)
        One score a subject in the same order, e.g. of :func:`biossl.metrics.per_subject`. A subject for whom either score is
        NaN is left out.
    n : int
        Flips drawn; all 2 ** S of them when that is no more. A drawn p counts the data themselves once (Phipson and Smyth
        2010, arXiv 1603.05766), so it is never 0.
    seed : int

    Returns
    -------
    Comparison
        ``value`` the mean difference, ``se`` its standard error over subjects, ``n`` the subjects. No normal interval: use the
        subject bootstrap. Fewer than three subjects: no p, with a reason.

    Examples
    --------
    >>> sign_flip([3, 4, 5, 6], [2, 3, 3, 3]).p
    0.125
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    checks.same_length(first, **{"scores of the other model": second})
    d = (first - second)[~np.isnan(first - second)]
    if len(d) < checks.MIN_SUBJECTS:
        value = float(d.mean()) if len(d) else np.nan
        reason = f"{len(d)} subjects with both scores: the test needs at least {checks.MIN_SUBJECTS}"
        return Comparison(value, np.nan, np.nan, np.nan, np.nan, len(d), reason)
    found = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=n, vectorized=True, rng=np.random.default_rng(seed)
    )
    return Comparison(float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5), np.nan, np.nan, float(found.pvalue), len(d))
