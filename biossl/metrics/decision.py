"""Decision curves: whether acting on the predictions does more good than treating all or none.

What lives here: net benefit by threshold probability, and its difference between two models. Vickers and Elkin 2006 (Med Decis
Making 26:565); the probabilities must be calibrated, since the threshold is read as a probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError
from biossl.metrics.arrays import column
from biossl.metrics.intervals import N_RESAMPLES, Interval, paired_difference, subject_bootstrap
from biossl.metrics.metric import Metric


def decision_curve(
    y: ArrayLike, p: ArrayLike, subjects: ArrayLike, thresholds: Sequence[float], *, n: int = N_RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """Net benefit per row of acting where p >= threshold, of acting on all, and of acting on none (always 0).

    Parameters
    ----------
    y, p : array, shape (n,) or (n, 1)
        0/1/NaN, and probability of 1.
    subjects : array, shape (n,)
    thresholds : sequence of float
        Threshold probabilities in (0, 1): at t a false positive weighs t / (1 - t) of a true one.
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    list of dict
        ``threshold``, ``model`` and ``all`` (Interval), ``none`` 0.0, ``model_minus_best_default`` (Interval of model minus the better
        of all and none by the point values).

    Raises
    ------
    DataError, RequestError
        One class only, NaN, numbers outside 0..1, a threshold outside (0, 1).

    Examples
    --------
    >>> decision_curve([0, 1] * 3, [0.1, 0.9] * 3, list("aabbcc"), [0.5])[0]["model"].value
    0.5
    """
    t, q = column(y), column(p)
    known = t[~np.isnan(t)] if t.ndim == 1 else t
    if t.ndim == 1 and len(np.unique(known)) < 2:
        shown = f"only {known[0]:g}" if len(known) else "none"
        raise DataError(f"a decision curve needs rows of both classes; the known labels are {shown}")
    act = np.ones(len(t))
    out = []
    for threshold in thresholds:
        metric = Metric("net_benefit", at=float(threshold))
        model, every = (subject_bootstrap(t, v, subjects, metric, n=n, seed=seed) for v in (q, act))
        default = act if every.value > 0 else np.zeros(len(t))
        gain = paired_difference(t, q, default, subjects, metric, n=n, seed=seed)
        row = {"threshold": float(threshold), "model": model, "all": every, "none": 0.0, "model_minus_best_default": gain}
        out.append(row)
    return out


def net_benefit_difference(
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    subjects: ArrayLike,
    threshold: float,
    *,
    n: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Net benefit of model a less that of model b at one threshold, on the same resampled subjects.

    Parameters
    ----------
    y, a, b, subjects, n, seed
        As in :func:`decision_curve`.
    threshold : float
        In (0, 1).

    Examples
    --------
    >>> net_benefit_difference([0, 1] * 3, [0.1, 0.9] * 3, [0.1, 0.1] * 3, list("aabbcc"), 0.5).value
    0.5
    """
    return paired_difference(y, column(a), column(b), subjects, Metric("net_benefit", at=threshold), n=n, seed=seed)
