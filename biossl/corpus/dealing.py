"""Shares of a list: how many of each part, and who stands where so that every stretch of the list is shared out alike.

What lives here: pure arithmetic, and the strata by which a list is ordered before it is dealt. Splits are ``splits.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    from biossl.corpus.index import Corpus


def checked(fractions: Sequence[float], n: int) -> list[float]:
    """Three shares that add up to 1; RequestError where they do not, DataError where ``n`` cannot fill the parts."""
    shares = [float(f) for f in fractions]
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise RequestError(f"--fractions {list(fractions)}: give three numbers for train, val, test that add up to 1")
    wanted = sum(s > 0 for s in shares)
    if n < wanted:
        raise DataError(f"{n} subjects cannot fill {wanted} parts; use --folds, or fewer parts")
    return shares


def sizes(n: int, shares: list[float]) -> list[int]:
    """Whole numbers nearest to the shares, none empty that should not be."""
    ideal = np.array(shares) * n
    size = np.floor(ideal).astype(int)
    for k in np.argsort(-(ideal - size), kind="stable")[: n - size.sum()]:
        size[k] += 1
    for k, share in enumerate(shares):
        if share > 0 and size[k] == 0:
            size[int(np.argmax(size))] -= 1
            size[k] = 1
    return size.tolist()


def in_blocks(n: int, shares: list[float]) -> list[int]:
    """Part of each position, parts one after the other."""
    return [k for k, size in enumerate(sizes(n, shares)) for _ in range(size)]


def dealt(n: int, shares: list[float]) -> list[int]:
    """Part of each position so that every stretch of the list is shared out in about the same proportion."""
    size = np.array(sizes(n, shares), float)
    given = np.zeros(len(shares))
    out = []
    for i in range(n):
        lag = np.where(given < size, size / n * (i + 1) - given, -np.inf)
        k = int(np.argmax(lag))
        given[k] += 1
        out.append(k)
    return out


def strata(corpus: Corpus, column: str, names: list[str], stratify: str) -> dict[str, int]:
    """Number of the class that decides where each subject or recording stands, -1 = unknown."""
    labels = corpus.labels(stratify)
    if labels.kind == "regression":
        raise RequestError(f"--stratify {stratify}: a number cannot be spread by class; choose a label with classes")
    values, of_row = labels.values, corpus.index[column].to_numpy()
    classed = labels.kind in ("multiclass", "binary")
    if classed:
        values = np.stack([np.where(np.isnan(values[:, 0]), np.nan, values[:, 0] == k) for k in range(len(labels.classes))], 1)
    positive = np.nan_to_num(values)
    rarity = np.argsort(np.argsort(positive.sum(0), kind="stable"))  # the rarest class decides where a subject stands
    stratum = {}
    for name in names:
        count = positive[of_row == name].sum(0)
        if classed:
            stratum[name] = int(count.argmax()) if count.any() else -1
        else:
            held = np.flatnonzero(count)
            stratum[name] = int(held[np.argmin(rarity[held])]) if len(held) else -1
    return stratum
