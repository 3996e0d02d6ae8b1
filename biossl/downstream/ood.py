"""Whether a window looks like those a model was trained on: distances in the space of its pooled features.

What lives here: :class:`Familiar`, fitted once on training windows and frozen with the model. Two distances stand side by side:
Mahalanobis to the nearest class mean with one shared covariance (Lee et al., arXiv 1807.03888, after: without input noise), and
the distance to the k-th nearest training window of unit length (Sun et al., arXiv 2204.06507). A flag is a distance above a
threshold taken from subjects the distances were not fitted on. No encoder and no labels of test windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from biossl.errors import DataError, RequestError
from biossl.protocol import spread

Array = NDArray[Any]
K = 10  # neighbour whose distance counts
MEMORY_ROWS = 5_000  # training windows that are remembered
SHARE = 0.95  # of held-out windows of the training population that pass


@dataclass(frozen=True)
class Familiar:
    """What is known of the training windows.

    Attributes
    ----------
    mean, scale : ndarray, (F,)
        Of the training features; distances are taken after standardising.
    centres : ndarray, (K, F)
        Class means, standardised; one row where there are no classes.
    precision : ndarray, (F, F)
        Inverse of the shared covariance around the class means, shrunk after Ledoit and Wolf.
    memory : ndarray, (M, F)
        Remembered windows, standardised and of unit length.
    limits : dict
        Largest distance that passes, for ``mahalanobis`` and ``knn``.
    share : float
        Share of held-out windows below each limit when it was set.
    """

    mean: Array
    scale: Array
    centres: Array
    precision: Array
    memory: Array
    limits: dict[str, float]
    share: float

    def distances(self, features: ArrayLike) -> dict[str, Array]:
        """Both distances of windows.

        Parameters
        ----------
        features : ndarray, (n, F)
            A window with a feature that is not finite is infinitely far.

        Returns
        -------
        dict of ndarray, (n,)
            ``mahalanobis`` and ``knn``.
        """
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise DataError(
                f"{features.shape[-1]} features a window, the model's distances know {len(self.mean)}; take its own encoder"
            )
        finite = np.isfinite(features).all(axis=1)
        out = {name: np.full(len(features), np.inf) for name in ("mahalanobis", "knn")}
        if not finite.any():
            return out
        z = (features[finite] - self.mean) / self.scale
        root = np.linalg.cholesky(self.precision)  # distances under the precision are Euclidean ones after it
        out["mahalanobis"][finite] = cdist(z @ root, self.centres @ root).min(axis=1)
        k = min(K, len(self.memory))
        near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(self.memory)
        out["knn"][finite] = near.kneighbors(_unit(z))[0][:, -1]
        return out

    def unfamiliar(self, features: ArrayLike) -> Array:
        """Windows that either distance calls far, bool (n,)."""
        distances = self.distances(features)
        return np.any([distances[name] > self.limits[name] for name in self.limits], axis=0)

    def to_arrays(self) -> dict[str, Array]:
        """Plain arrays for a weights file; :meth:`from_arrays` takes them back."""
        limits = np.array([self.limits["mahalanobis"], self.limits["knn"], self.share])
        return {
            "mean": self.mean, "scale": self.scale, "centres": self.centres, "precision": self.precision, "memory": self.memory,
            "limits": limits,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array]) -> Familiar:
        """The object whose :meth:`to_arrays` these are."""
        mahalanobis, knn, share = (float(v) for v in arrays["limits"])
        mean, scale, centres, precision, memory = (
            np.asarray(arrays[n], np.float64) for n in ("mean", "scale", "centres", "precision", "memory")
        )
        return cls(mean, scale, centres, precision, memory, {"mahalanobis": mahalanobis, "knn": knn}, share)


def fit_familiar(
    features: ArrayLike, subjects: ArrayLike, *, classes: ArrayLike | None = None, share: float = SHARE, seed: int = 0
) -> Familiar:
    """Learn the distances on training windows, and their limits on training subjects held out in turn.

    Parameters
    ----------
    features : ndarray, (n, F)
        Pooled features of training windows, all finite.
    subjects : ndarray of str, (n,)
    classes : ndarray of int, (n,), optional
        Class of each window; negative = unknown, left out of the class means.
    share : float
        Of the held-out windows that pass each limit.
    seed : int
        Of the folds and of what is remembered.

    Returns
    -------
    Familiar

    Raises
    ------
    DataError
        Fewer than two subjects (a limit set on the people it was fitted on flags everyone else), or features that are not finite.
    RequestError
        ``share`` is no share.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> known = fit_familiar(rng.normal(size=(60, 3)), np.repeat(list("abc"), 20))
    >>> known.unfamiliar([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0]]).tolist()
    [False, True]
    """
    x, names = np.asarray(features, np.float64), np.asarray(subjects).astype(str)
    y = np.zeros(len(x), np.int64) if classes is None else np.asarray(classes, np.int64)
    if not 0 < share < 1:
        raise RequestError(f"share {share:g}: give a share between 0 and 1, e.g. {SHARE:g}")
    if not np.isfinite(x).all():
        raise DataError("features of training windows are not finite; leave windows in which nothing was observed out")
    people = np.unique(names)
    if len(people) < 2:
        raise DataError("one training subject: what is unfamiliar cannot be told from another person; add subjects")
    folds = np.random.default_rng(seed).permutation(len(people)) % min(5, len(people))
    held: dict[str, list[Array]] = {"mahalanobis": [], "knn": []}
    for fold in np.unique(folds):
        out = np.isin(names, people[folds == fold])
        known = _fit(x[~out], y[~out], {}, share, seed)
        for name, distance in known.distances(x[out]).items():
            held[name].append(distance)
    limits = {name: float(np.quantile(np.concatenate(each), share)) for name, each in held.items()}
    return _fit(x, y, limits, share, seed)


def _fit(x: Array, y: Array, limits: dict[str, float], share: float, seed: int) -> Familiar:
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (x - mean) / scale
    known = np.unique(y[y >= 0])
    centres = np.stack([z[y == k].mean(axis=0) for k in known]) if len(known) else np.zeros((1, x.shape[1]))
    some = np.flatnonzero(y >= 0) if len(known) else np.arange(len(z))
    around = z[some] - (centres[np.searchsorted(known, y[some])] if len(known) else centres[0])
    precision = LedoitWolf(assume_centered=True).fit(around).precision_
    return Familiar(mean, scale, centres, precision, _unit(z[spread(len(z), MEMORY_ROWS, seed)]), limits, share)


def _unit(z: Array) -> Array:
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
