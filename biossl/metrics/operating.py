"""A threshold chosen on validation, frozen, and what it turns out to be elsewhere.

What lives here: :class:`OperatingPoint`. A score of at least the threshold is positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, column
from biossl.metrics.intervals import N_RESAMPLES, Interval, subject_bootstrap

Rule = Literal["sensitivity", "specificity", "f1", "youden"]
_WITH_TARGET = ("sensitivity", "specificity")


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with the rule it was chosen by and what it gave on validation.

    Attributes
    ----------
    rule : str
        ``sensitivity`` or ``specificity`` (at least ``target``), ``f1`` (largest), ``youden`` (largest sensitivity + specificity - 1;
        Youden 1950).
    target : float or None
    threshold : float
        A score seen on validation; a score of at least this is positive.
    sensitivity, specificity : float
        On the validation rows it was chosen by: flattering, see :meth:`realised` for other rows.
    n_positive, n_negative : int
        Validation rows.

    Examples
    --------
    >>> OperatingPoint.choose([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], "sensitivity", target=0.9).threshold
    0.3
    """

    rule: Rule
    target: float | None
    threshold: float
    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int

    @classmethod
    def choose(cls, y: ArrayLike, scores: ArrayLike, rule: Rule, *, target: float | None = None) -> OperatingPoint:
        """Choose on validation rows; of equally good thresholds the highest.

        Parameters
        ----------
        y : array, shape (n,) or (n, 1)
            0, 1, NaN unknown.
        scores : array, shape (n,) or (n, 1)
        rule : str
            ``sensitivity``: the highest threshold with at least the target. ``specificity``: of the thresholds with at least the
            target the most sensitive. ``f1``, ``youden``: the best.
        target : float
            In (0, 1]; only for the first two.

        Raises
        ------
        DataError
            One class only in validation, NaN scores, or a specificity that no threshold reaches with a single detection.
        RequestError
            Unknown rule, or a target missing or too much.
        """
        if rule not in get_args(Rule):
            raise RequestError(f"threshold rule '{rule}' is not known; choose one of {', '.join(get_args(Rule))}")
        if rule in _WITH_TARGET and (target is None or not 0 < target <= 1):
            raise RequestError(f"rule '{rule}' with target {target}: give a share above 0 and up to 1, e.g. target=0.9")
        if rule not in _WITH_TARGET and target is not None:
            raise RequestError(f"rule '{rule}' has no target; leave it out")
        t, s = _checked(y, scores)
        known = ~np.isnan(t)
        n_pos, n_neg = int((t == 1).sum()), int((t == 0).sum())
        if not n_pos or not n_neg:
            raise DataError(f"validation has {n_pos} positive and {n_neg} negative rows: a threshold needs both; add subjects")
        wrong, found, thresholds = roc_curve(t[known], s[known], drop_intermediate=False)
        wrong, found, thresholds = wrong[1:], found[1:], thresholds[1:]  # the first threshold calls nothing positive
        if rule == "sensitivity":
            best = int(np.flatnonzero(found >= float(target or 0) - 1e-12)[0])
        elif rule == "specificity":
            allowed = np.flatnonzero((1 - wrong >= float(target or 0) - 1e-12) & (found > 0))
            if not len(allowed):
                raise DataError(f"no threshold has specificity {target:g} and finds anything in validation; lower the target")
            best = int(allowed[_first_best(found[allowed])])
        elif rule == "f1":
            said = found * n_pos + wrong * n_neg
            best = _first_best(2 * found * n_pos / (n_pos + said))
        else:
            best = _first_best(found - wrong)
        return cls(rule, target, float(thresholds[best]), float(found[best]), float(1 - wrong[best]), n_pos, n_neg)

    def apply(self, scores: ArrayLike) -> Array:
        """Decisions 0/1 of new scores.

        Raises
        ------
        DataError
            NaN scores.
        """
        s = np.asarray(scores, float)
        checks.no_nan(s.reshape(-1), np.ones(s.size, bool), "score")
        return (s >= self.threshold).astype(np.int64)

    def realised(
        self, y: ArrayLike, scores: ArrayLike, subjects: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0
    ) -> dict[str, Interval]:
        """What the frozen threshold gives at another site: sensitivity, specificity and positive predictive value.

        Parameters
        ----------
        y, scores
            As in :meth:`choose`, of the other site's rows.
        subjects : array, shape (n,)
        n, seed
            As in :func:`biossl.metrics.subject_bootstrap`.

        Returns
        -------
        dict of Interval
            A value without rows to compute it from is NaN with a reason. Where all or none were found every resample says the same; the
            other end is then that of the exact binomial interval with one trial a subject (Clopper and Pearson 1934).
        """
        t, s = _checked(y, scores)
        said = np.where(np.isnan(t), 0, s >= self.threshold)
        of = {"sensitivity": t == 1, "specificity": t == 0, "ppv": (said == 1) & ~np.isnan(t)}
        return {
            name: _not_certain(subject_bootstrap(t, said, subjects, name, n=n, seed=seed), np.asarray(subjects)[rows])
            for name, rows in of.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Back from :meth:`to_dict`.

        Raises
        ------
        DataError
            Something is missing, too much or no number.
        """
        try:
            out = cls(**values)
            numbers = (float(out.threshold), float(out.sensitivity), float(out.specificity))
        except (TypeError, ValueError) as e:
            raise DataError(f"operating point: {e}: not what a locked model stores; choose it again") from e
        if out.rule not in get_args(Rule) or not np.isfinite(numbers).all():
            raise DataError(f"operating point '{out.rule}' at {out.threshold}: not what a locked model stores; choose it again")
        return out


def _not_certain(found: Interval, subjects: Array) -> Interval:
    """A share of 0 or 1 with an interval that is not a point; ``subjects`` of the rows it is a share of."""
    if found.low != found.high or found.value not in (0.0, 1.0):  # NaN too
        return found
    trials = len(np.unique(subjects))
    exact = binomtest(trials if found.value else 0, trials).proportion_ci(0.95, method="exact")
    return replace(found, low=float(exact.low), high=float(exact.high))


def _first_best(values: Array) -> int:
    """The first of the largest; shares that are equal may differ by rounding."""
    return int(np.flatnonzero(values >= values.max() - 1e-12)[0])


def _checked(y: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    t, s = column(y), column(scores)
    if t.ndim != 1 or s.ndim != 1:
        raise RequestError(f"labels {t.shape}, scores {s.shape}: a threshold is of one class; give a column of each")
    checks.same_length(t, scores=s)
    checks.zero_one(t)
    checks.finite(s, ~np.isnan(t), "score")
    return t, s
