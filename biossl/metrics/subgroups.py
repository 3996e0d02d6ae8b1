"""For whom it works less well: a score in every group of a covariate, and each group's gap to the rest.

What lives here: cutting a covariate into groups and judging them on the same resampled subjects. A group below the minimum is named
and not scored; rows without the covariate are a group of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array
from biossl.metrics.intervals import N_RESAMPLES, Interval, draw, interval
from biossl.metrics.metric import Metric, as_metric
from biossl.metrics.scores import resampler, why_not

MISSING = "missing"
MIN_SUBJECTS = 10


@dataclass(frozen=True)
class Subgroup:
    """One group: labelled rows and subjects, its score, and score minus that of all other rows.

    ``score`` and ``gap`` are None with a ``reason`` when the group is below the minimum or is everybody.
    """

    name: str
    n_rows: int
    n_subjects: int
    score: Interval | None
    gap: Interval | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; None where nothing was scored."""
        score, gap = (None if v is None else v.to_dict() for v in (self.score, self.gap))
        out = {"name": self.name, "n_rows": self.n_rows, "n_subjects": self.n_subjects, "score": score, "gap": gap}
        return out | ({"reason": self.reason} if self.reason else {})


def cut(values: ArrayLike, *, edges: Sequence[float] = (), quantiles: int = 0) -> tuple[Array, list[str]]:
    """Group number of each row and the groups' names; rows without a value are in the last group, ``missing``.

    Parameters
    ----------
    values : array, shape (n,)
        A covariate. Without edges and quantiles every distinct value is a group (None, NaN and empty text are missing).
    edges : sequence of float
        Inner edges of numbers: a group holds values from its lower edge on and below its upper one.
    quantiles : int
        That many groups of about equally many rows instead; equal values stay together, so there may be fewer.

    Raises
    ------
    RequestError
        Edges that do not rise, edges and quantiles both, fewer than two quantiles, numbers asked for and text given.

    Examples
    --------
    >>> [v if isinstance(v, list) else v.tolist() for v in cut([30, 70, None, 50], edges=[50, 65])]
    [[0, 2, 3, 1], ['< 50', '50 to < 65', '>= 65', 'missing']]
    """
    table = pd.Series(list(np.asarray(values, dtype=object)), dtype=object)
    empty = table.isna().to_numpy(bool) | (table.astype(str).str.strip() == "").to_numpy(bool)
    if len(edges) and quantiles:
        raise RequestError("edges and quantiles are two ways to cut; give one")
    groups = np.zeros(len(table), np.int64)
    if not len(edges) and not quantiles:
        shown = [f"{v:g}" if isinstance(v, (float, np.floating)) else str(v) for v in table]
        names = sorted({s for s, gone in zip(shown, empty, strict=True) if not gone})
        groups[:] = [len(names) if gone else names.index(s) for s, gone in zip(shown, empty, strict=True)]
        return groups, names + [MISSING] * bool(empty.any())
    numbers = pd.to_numeric(table.where(~empty), errors="coerce").to_numpy(float)
    if (np.isnan(numbers) & ~empty).any():
        raise RequestError(f"'{table[np.isnan(numbers) & ~empty].iloc[0]}' is no number: edges and quantiles cut numbers only")
    inner = np.asarray(edges, float)
    if quantiles:
        if quantiles < 2:
            raise RequestError(f"{quantiles} quantile groups: give 2 or more")
        known = numbers[~empty]
        inner = np.unique(np.quantile(known, np.arange(1, quantiles) / quantiles, method="higher")) if len(known) else inner
        inner = inner[inner > known.min()] if len(known) else inner
    elif (np.diff(inner) <= 0).any() or not np.isfinite(inner).all():
        raise RequestError(f"edges {list(edges)}: give rising numbers")
    names = [f"{a:g} to < {b:g}" for a, b in zip(inner[:-1], inner[1:], strict=True)]
    names = [f"< {inner[0]:g}", *names, f">= {inner[-1]:g}"] if len(inner) else ["all values"]
    groups = np.where(empty, len(names), np.searchsorted(inner, np.where(empty, 0, numbers), side="right"))
    return groups, names + [MISSING] * bool(empty.any())


def subgroups(
    y: ArrayLike,
    prediction: ArrayLike,
    subjects: ArrayLike,
    metric: str | Metric,
    covariate: ArrayLike,
    *,
    edges: Sequence[float] = (),
    quantiles: int = 0,
    min_subjects: int = MIN_SUBJECTS,
    n: int = N_RESAMPLES,
    seed: int = 0,
) -> list[Subgroup]:
    """Score of every group of a covariate, and its gap to the rest on the same resampled subjects.

    All subjects are resampled together, so a group's size varies as it would in another sample. Intervals are not corrected for the
    number of groups: many groups will show one gap by chance.

    Parameters
    ----------
    y, prediction, metric
        As in :func:`biossl.metrics.score`, which also says what is raised.
    subjects, covariate : array, shape (n,)
        A covariate may change within a subject (e.g. rhythm, device); the subject then counts in several groups.
    edges, quantiles
        As in :func:`cut`.
    min_subjects : int
        Groups with fewer labelled subjects are named and not scored; at least 3.
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    list of Subgroup
        In the order of :func:`cut`, ``missing`` last. The gap is the group's score minus that of all other rows.

    Examples
    --------
    >>> who = subgroups([1] * 6, [1, 1, 1, 1, 0, 0], list("abcdef"), "accuracy", list("mmmfff"), min_subjects=3)
    >>> [(g.name, round(g.score.value, 2), round(g.gap.value, 2)) for g in who]
    [('f', 0.33, -0.67), ('m', 1.0, 0.67)]
    """
    if min_subjects < checks.MIN_SUBJECTS:
        raise RequestError(f"min_subjects {min_subjects}: give {checks.MIN_SUBJECTS} or more; fewer have no interval")
    labels, said = np.asarray(y, float), np.asarray(prediction)
    group, names = cut(covariate, edges=edges, quantiles=quantiles)
    checks.same_length(labels, predictions=said, covariates=group)
    codes, weights = draw(subjects, n, seed)
    checks.same_length(labels, subjects=codes)
    n_all = weights.shape[1]
    resampler(labels, said, codes, metric, n_all)  # refuses bad input anywhere, also in a group that is not scored
    known = checks.known_rows(labels, as_metric(metric))
    if not known.any():
        raise DataError("no row has a known label: no group can be judged")
    out = []
    for k, name in enumerate(names):
        rows, rest = (np.flatnonzero(known & here) for here in (group == k, group != k))
        n_rows, n_subjects = len(rows), len(np.unique(codes[rows]))
        if n_subjects < min_subjects:
            reason = f"{n_subjects} subject{'' if n_subjects == 1 else 's'} with a label: not scored below {min_subjects}"
            out.append(Subgroup(name, n_rows, n_subjects, None, None, reason))
            continue
        point, values = _judged(labels, said, codes, metric, rows, weights)
        score = interval(point, values, n_subjects, lambda rows=rows: why_not(labels[rows], metric))  # type: ignore[misc]
        n_rest = len(np.unique(codes[rest]))
        if n_rest < min_subjects:
            reason = f"the rest has {n_rest} subjects with a label: no gap below {min_subjects}"
            out.append(Subgroup(name, n_rows, n_subjects, score, None, reason))
            continue
        point_rest, values_rest = _judged(labels, said, codes, metric, rest, weights)
        both = labels[rows] if np.isnan(point) else labels[rest]
        why = f"{'the group' if np.isnan(point) else 'the rest'}: {why_not(both, metric)}"
        gap = interval(point - point_rest, values - values_rest, n_all, lambda why=why: why)  # type: ignore[misc]
        out.append(Subgroup(name, n_rows, n_subjects, score, gap))
    return out


def _judged(y: Array, p: Array, codes: Array, metric: str | Metric, rows: Array, weights: Array) -> tuple[float, Array]:
    values = resampler(y[rows], p[rows], codes[rows], metric, weights.shape[1])
    return float(values(np.ones((1, weights.shape[1])))[0]), values(weights)
