"""Covariances of EEG windows in a tangent space: the usual baseline of EEG classification (Barachant et al. 2012).

What lives here: :func:`covariances` and :func:`tangent_features`. Estimate, mean and projection are pyRiemann's; which windows are used, and
the linear model behind, are ``rivals.py``'s and ``protocol.py``'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.protocol import spread

Array = NDArray[Any]
MOST_WINDOWS = 2_000  # of which the mean is taken, drawn evenly
_FLOOR = 1e-6  # of a channel's mean variance in training: a flat or missing channel has that much, or no logarithm would exist


def covariances(x: Array) -> Array:
    """Covariance of each window, shrunk (OAS, Chen et al. 2010), so that channels which are sums of each other (average reference) do no harm.

    Parameters
    ----------
    x : ndarray, (n, C, T)
        uV; NaN, which is what was not observed, counts as 0.

    Returns
    -------
    ndarray of float64, (n, C, C)
        uV squared.

    Examples
    --------
    >>> covariances(np.random.default_rng(0).normal(size=(6, 3, 100))).shape
    (6, 3, 3)
    """
    from pyriemann.estimation import Covariances

    return np.asarray(Covariances("oas").transform(np.nan_to_num(x.astype(np.float64))))


def tangent_features(train: Array, test: Array, *, seed: int = 0) -> tuple[Array, Array]:
    """Vectors in the tangent space at the affine-invariant mean of the training windows' covariances.

    Parameters
    ----------
    train, test : ndarray, (n, C, C) and (m, C, C)
        From :func:`covariances`.
    seed : int
        Of the draw of training windows for the mean, where there are more than :data:`MOST_WINDOWS`.

    Returns
    -------
    ndarray of float32, (n, C (C + 1) / 2)
    ndarray of float32, (m, C (C + 1) / 2)

    Examples
    --------
    >>> x = covariances(np.random.default_rng(0).normal(size=(6, 3, 100)))
    >>> [v.shape for v in tangent_features(x[:4], x[4:])]
    [(4, 6), (2, 6)]
    """
    from pyriemann.tangentspace import TangentSpace

    floor = _FLOOR * train.diagonal(axis1=1, axis2=2).mean() * np.eye(train.shape[1])
    space = TangentSpace(metric="riemann").fit(train[spread(len(train), MOST_WINDOWS, seed)] + floor)
    return tuple(np.asarray(space.transform(c + floor), np.float32) for c in (train, test))  # type: ignore[return-value]
