"""Common spatial patterns and linear discriminants: the usual baseline of EEG trials of movement or imagery (Blankertz et al. 2008).

What lives here: :func:`band_pass` and the head :func:`csp_lda`. Patterns are MNE-Python's; which windows are used is ``rivals.py``'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import protocol
from biossl.protocol import Fitted, Target

Array = NDArray[Any]
BAND_HZ = (7.0, 30.0)  # mu and beta rhythms
COMPONENTS = 4
SHORTEST_S = 1.65  # length of the filter (3.3 / 2 Hz of transition)
MOST_TRIALS = 2_000  # trained on, drawn evenly


def band_pass(x: Array, sfreq: float) -> Array:
    """7-30 Hz, linear-phase FIR without delay, of each window by itself.

    Parameters
    ----------
    x : ndarray, (..., C, T)
        NaN, which is what was not observed, counts as 0.
    sfreq : float
        Hz, above 60.

    Returns
    -------
    ndarray of float32, (..., C, T)

    Examples
    --------
    >>> t = np.arange(640) / 160
    >>> bool(abs(band_pass(np.sin(2 * np.pi * 2 * t)[None], 160.0)).max() < 0.1)
    True
    """
    from mne.filter import filter_data

    low, high = BAND_HZ
    return np.asarray(
        filter_data(np.nan_to_num(x.astype(np.float64)), sfreq, low, high, fir_design="firwin", verbose="ERROR"), np.float32
    )


def csp_lda(x: Array, target: Target, subjects: Array, x_test: Array, *, seed: int = 0) -> Fitted:
    """Log power of four common spatial patterns, and a linear discriminant of it; nothing is chosen.

    Parameters
    ----------
    x : ndarray, (n, C, T)
        Band-passed training windows.
    target : Target
        Multiclass. A class that is not in it gets probability 0.
    subjects : ndarray of str, (n,)
        Not looked at.
    x_test : ndarray, (m, C, T)
    seed : int
        Of the draw of training windows, where there are more than :data:`MOST_TRIALS`.

    Returns
    -------
    Fitted
        Probabilities (m, K).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(40, 5, 200)) * np.where(np.arange(40)[:, None] % 2, [1, 2, 1, 1, 1], [1, 1, 1, 2, 1])[..., None]
    >>> t = Target("multiclass", np.arange(40) % 2.0, ("hands", "feet"))
    >>> csp_lda(x[:30], t.take(np.arange(30)), np.full(30, "a"), x[30:]).prediction.argmax(1)
    array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    from mne import use_log_level
    from mne.decoding import CSP
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    some = protocol.spread(len(x), MOST_TRIALS, seed)
    y = target.y[some].astype(np.int64)
    out = np.zeros((len(x_test), len(target.classes)))
    present = np.unique(y)
    if len(present) < 2:
        out[:, present] = 1.0
        return Fitted(out, float(COMPONENTS), None)
    model = make_pipeline(CSP(COMPONENTS, reg=None, log=True, norm_trace=False), LinearDiscriminantAnalysis())
    with use_log_level("ERROR"):
        model.fit(x[some].astype(np.float64), y)
        for i in range(0, len(x_test), 256):
            out[i : i + 256, present] = model.predict_proba(x_test[i : i + 256].astype(np.float64))
    return Fitted(out, float(COMPONENTS), None)
