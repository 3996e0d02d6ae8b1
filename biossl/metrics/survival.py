"""Harrell's concordance index of a risk score with censored times, resampled by subject.

What lives here: one function, from subject weights (R, S) to concordances (R,). Harrell et al. 1982 (JAMA 247:2543) and
1996 (Stat Med 15:361).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biossl.metrics.arrays import Array, ratio

_CHUNK = 4_000_000  # numbers held at once


def concordance(time: Array, event: Array, risk: Array, codes: Array) -> Callable[[Array], Array]:
    """Share of comparable pairs in which the higher risk has the earlier event.

    A pair is comparable when the shorter time ends in an event, or when both times are equal and exactly one of them
    ends in an event (the censored one is known to have lived longer). Two events at one time are not comparable, nor is
    a pair whose shorter time is censored. Equal risks count one half.

    Parameters
    ----------
    time, event, risk : ndarray, shape (n,)
        ``event`` 1 seen, 0 censored. Rows with NaN time or event are left out.
    codes : ndarray of int, shape (n,)
        Subject of each row.

    Notes
    -----
    Rows enter from the latest time to the earliest into a tree of sums over the ordered risks (Fenwick 1994), all
    resamples side by side, so n rows cost n log n.
    """
    rows = np.flatnonzero(~np.isnan(time) & ~np.isnan(event))
    rows = rows[np.argsort(-time[rows], kind="stable")]
    t, dead, code = time[rows], event[rows] > 0.5, codes[rows]
    _, place = np.unique(risk[rows], return_inverse=True)
    size = int(place.max(initial=-1)) + 1
    above, below = [], []  # tree nodes to add to, and to sum for the places before
    for p in range(size):
        above.append(_up(p + 1, size))
        below.append(_down(p))
    groups = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(t)) + 1) if len(rows) else []

    def some(weights: Array) -> Array:
        n = weights.shape[1]
        tree, exact, total = np.zeros((size + 1, n)), np.zeros((size, n)), np.zeros(n)
        right, pairs = np.zeros(n), np.zeros(n)
        for group in groups:  # at one time the censored enter before an event asks, the events after
            events = group[dead[group]]
            for part in (group[~dead[group]], events):
                if part is events:
                    for i in events:
                        w, p = weights[code[i]], place[i]
                        right += w * (tree[below[p]].sum(0) + exact[p] / 2)
                        pairs += w * total
                for i in part:
                    w, p = weights[code[i]], place[i]
                    tree[above[p]] += w
                    exact[p] += w
                    total += w
        return ratio(right, pairs)

    def values(weights: Array) -> Array:
        step = max(1, _CHUNK // max(size, 1))
        return np.concatenate([some(weights[i : i + step].T.copy()) for i in range(0, len(weights), step)])

    return values


def _up(i: int, size: int) -> list[int]:
    out = []
    while i <= size:
        out.append(i)
        i += i & -i
    return out


def _down(i: int) -> list[int]:
    out = []
    while i > 0:
        out.append(i)
        i -= i & -i
    return out
