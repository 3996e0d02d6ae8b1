"""Which window of a recording follows which, for objectives that compare neighbours.

What lives here: one function of the index. Which pairs a training step takes is the loader's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def neighbours(index: pd.DataFrame, rows: np.ndarray, *, sfreq: float) -> np.ndarray:
    """The neighbour of each window among the given ones.

    A window's neighbour is the next one of the same subject, record and contiguous segment if it begins before or where
    this one ends; the one before where there is no next; the window itself where there is neither.

    Parameters
    ----------
    index : DataFrame
        ``subject``, ``record``, ``segment``, ``start_s`` (s) and ``n_samples`` of all windows of a corpus.
    rows : ndarray, int64, (n,)
        Rows of the index that may be used, each once.
    sfreq : float
        Hz.

    Returns
    -------
    ndarray, int64, (n,)
        Positions in ``rows``: ``rows[out[i]]`` is the neighbour of ``rows[i]``.

    Examples
    --------
    >>> import pandas as pd
    >>> index = pd.DataFrame({"subject": "s", "record": "r", "segment": 0, "start_s": [0.0, 2.0, 4.0, 9.0], "n_samples": 200})
    >>> neighbours(index, np.arange(4), sfreq=100.0).tolist()
    [1, 2, 1, 3]
    """
    part = index.iloc[rows]
    run = part.groupby(["subject", "record", "segment"], sort=False, observed=True).ngroup().to_numpy()
    start = part["start_s"].to_numpy(np.float64)
    end = start + part["n_samples"].to_numpy(np.float64) / sfreq
    order = np.lexsort((start, run))
    linked = (run[order[1:]] == run[order[:-1]]) & (start[order[1:]] <= end[order[:-1]] + 0.5 / sfreq)
    out = np.arange(len(rows))
    out[order[1:][linked]] = order[:-1][linked]
    out[order[:-1][linked]] = order[1:][linked]  # last, so that the next window wins over the one before
    return out


def recordings(index: pd.DataFrame, rows: np.ndarray) -> list[np.ndarray]:
    """The given windows of each recording in the order of time.

    Parameters
    ----------
    index : DataFrame
        ``subject``, ``record`` and ``start_s`` of all windows of a corpus.
    rows : ndarray, int64, (n,)

    Returns
    -------
    list of ndarray, int64
        Positions in ``rows``; together each once.

    Examples
    --------
    >>> import pandas as pd
    >>> index = pd.DataFrame({"subject": "s", "record": ["r", "q", "r"], "start_s": [4.0, 0.0, 2.0]})
    >>> [a.tolist() for a in recordings(index, np.arange(3))]
    [[2, 0], [1]]
    """
    part = index.iloc[rows]
    code = part.groupby(["subject", "record"], sort=False, observed=True).ngroup().to_numpy()
    order = np.lexsort((part["start_s"].to_numpy(np.float64), code))
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(rows) else []


def rows_of_recordings(index: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """All rows, int64, rising, of the recordings that any of the given rows is of.

    Examples
    --------
    >>> import pandas as pd
    >>> rows_of_recordings(pd.DataFrame({"subject": "s", "record": ["r", "q", "r"]}), np.array([2])).tolist()
    [0, 2]
    """
    code = index.groupby(["subject", "record"], sort=False, observed=True).ngroup().to_numpy()
    return np.flatnonzero(np.isin(code, code[rows]))
