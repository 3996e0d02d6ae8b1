"""EEG referencing on arrays with gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def average_reference(x: np.ndarray, ch_types: Sequence[str]) -> np.ndarray:
    """Subtract the mean of the EEG channels from each EEG channel.

    Parameters
    ----------
    x : ndarray, float, shape (C, T)
        NaN = not observed; such samples do not enter the mean.
    ch_types : sequence of str, length C
        Only ``eeg`` channels are used and changed. Bipolar channels have no common reference: choose views without them.

    Returns
    -------
    ndarray, shape (C, T), dtype of ``x``

    Examples
    --------
    >>> average_reference(np.array([[1.0], [3.0], [9.0]]), ["eeg", "eeg", "ecg"]).ravel()
    array([-1.,  1.,  9.])
    """
    rows = [i for i, kind in enumerate(ch_types) if kind == "eeg"]
    out = x.copy()
    if rows:
        part = x[rows].astype(np.float64)
        seen = np.isfinite(part)
        mean = np.where(seen, part, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        out[rows] = part - mean
    return out
