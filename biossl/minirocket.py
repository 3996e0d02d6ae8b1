"""MiniRocket: fixed kernels, shares of positive values, ridge; the floor that costs a minute and is hard to beat.

What lives here: the transform and its head, after Dempster, Schmidt and Webb (arXiv 2012.08791). 84 kernels of length 9
with six weights of -1 and three of 2, exponential dilations, biases from quantiles of the outputs of training windows,
and as features the share of samples above each bias. Several channels are summed over a random subset a kernel and
dilation. Only torch, numpy and the choice of the penalty by grouped folds of ``protocol.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biossl import protocol
from biossl.protocol import Fitted, Target

Array = NDArray[Any]
LENGTH, THREES = 9, 84
KERNELS = np.array(list(combinations(range(LENGTH), 3)))  # where the weight is 2, (84, 3)
N_FEATURES = 9996  # 119 a kernel
MAX_DILATIONS = 12
FEATURE_BYTES = 1 << 30  # fewer features where the table of all windows would be larger
GOLDEN = (5**0.5 + 1) / 2
ALPHAS = (1e5, 1e4, 1e3, 1e2, 1e1)  # strongest first
DEFAULT_ALPHA = 1e3
_AT_ONCE = 30_000_000  # numbers of a block of outputs


@dataclass(frozen=True)
class Rocket:
    """A fitted transform.

    ``dilations`` (n,), ``weights`` (84, C, 9) a dilation (0 for channels a kernel does not see), ``biases`` (84, k) a
    dilation, ``scale`` mean and standard deviation (C,) that windows are standardised by.
    """

    dilations: tuple[int, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    scale: tuple[Tensor, Tensor]

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return sum(b.numel() for b in self.biases)


def features_for(n_windows: int) -> int:
    """How many features keep the table of ``n_windows`` within :data:`FEATURE_BYTES`, at most :data:`N_FEATURES`.

    Examples
    --------
    >>> features_for(5000), features_for(200_000)
    (9996, 1260)
    """
    most = FEATURE_BYTES // (4 * max(n_windows, 1))
    return max(THREES, min(N_FEATURES, most // THREES * THREES))


def dilations_for(n_samples: int, per_kernel: int) -> dict[int, int]:
    """Dilation -> features of each kernel at it: exponentially spaced, so that a kernel spans the window at most.

    Examples
    --------
    >>> dilations_for(128, 119)
    {1: 30, 2: 30, 6: 30, 15: 29}
    """
    longest = np.log2(max((n_samples - 1) / (LENGTH - 1), 1.0))
    n = min(MAX_DILATIONS, per_kernel, max(1, int(longest) + 1))
    found = sorted({int(2**e) for e in np.linspace(0, longest, n)})
    share, rest = divmod(per_kernel, len(found))
    return {d: share + (i < rest) for i, d in enumerate(found)}


def fit(x: Array, *, seed: int, n_features: int = N_FEATURES) -> Rocket:
    """Choose channels and biases.

    Parameters
    ----------
    x : ndarray, float32, shape (n, C, T)
        Training windows; NaN = not observed, taken as the channel's mean.
    seed : int
    n_features : int
        A multiple of 84.

    Returns
    -------
    Rocket

    Examples
    --------
    >>> rocket = fit(np.random.default_rng(0).normal(size=(4, 2, 64)), seed=0, n_features=840)
    >>> transform(rocket, np.zeros((3, 2, 64))).shape
    (3, 840)
    """
    rng = np.random.default_rng(seed)
    n, channels, samples = x.shape
    mean = np.nan_to_num(np.nanmean(x, axis=(0, 2), dtype=np.float64))
    std = np.nanstd(x, axis=(0, 2), dtype=np.float64)
    scale = (torch.tensor(mean, dtype=torch.float32), torch.tensor(np.where(std > 0, std, 1.0), dtype=torch.float32))
    plan = dilations_for(samples, n_features // THREES)
    weights, biases = [], []
    quantile = (np.arange(1, n_features + 1) * GOLDEN) % 1.0  # low discrepancy: evenly spread however many are taken
    taken = 0
    for dilation, each in plan.items():
        w = torch.zeros(THREES, channels, LENGTH)
        for k, twos in enumerate(KERNELS):
            size = int(2 ** rng.uniform(0, np.log2(min(channels, LENGTH) + 1)))
            mine = rng.permutation(channels)[:size]
            w[k, mine] = -1.0
            for position in twos:
                w[k, mine, position] = 2.0
        example = torch.from_numpy(x[rng.integers(0, n, THREES)].astype(np.float32))
        # kernel k takes its biases from the output of its own example
        out = _outputs(_standard(example, scale), w, dilation).diagonal(dim1=0, dim2=1).T  # (84, T)
        q = torch.from_numpy(quantile[taken : taken + THREES * each].reshape(THREES, each).astype(np.float32))
        taken += THREES * each
        biases.append(torch.stack([torch.quantile(o, p) for o, p in zip(_inner(out, dilation), q, strict=True)]))
        weights.append(w)
    return Rocket(tuple(plan), tuple(weights), tuple(biases), scale)


@torch.no_grad()
def transform(rocket: Rocket, x: Array) -> Array:
    """Shares of samples above each bias.

    Parameters
    ----------
    rocket : Rocket
    x : ndarray, float32, shape (n, C, T)

    Returns
    -------
    ndarray, float32, shape (n, n_features), in [0, 1]
    """
    n, _, samples = x.shape
    block = max(1, _AT_ONCE // (THREES * samples))
    out = np.empty((n, rocket.n_features), np.float32)
    for i in range(0, n, block):
        windows = _standard(torch.from_numpy(np.ascontiguousarray(x[i : i + block], np.float32)), rocket.scale)
        parts = []
        for d, w, b in zip(rocket.dilations, rocket.weights, rocket.biases, strict=True):
            y = _outputs(windows, w, d)
            halves = _halves(y, d)
            share = torch.empty(len(y), *b.shape)
            for j in range(b.shape[1]):
                for k, part in enumerate(halves):
                    share[:, k::2, j] = (part > b[k::2, j, None]).float().mean(dim=2)
            parts.append(share.flatten(1))
        out[i : i + block] = torch.cat(parts, dim=1).numpy()
    return out


def _standard(x: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    mean, std = (s[:, None] for s in scale)
    return torch.nan_to_num((x - mean) / std, nan=0.0)


def _outputs(x: Tensor, w: Tensor, dilation: int) -> Tensor:
    """(n, C, T) to (n, 84, T), zeros beyond the ends."""
    return torch.nn.functional.conv1d(x, w, padding=(LENGTH // 2) * dilation, dilation=dilation)


def _halves(y: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Kernels of even number with padding, those of odd number only where the kernel lies inside the window."""
    edge = (LENGTH // 2) * dilation
    return y[:, 0::2], y[:, 1::2, edge : y.shape[2] - edge] if y.shape[2] > 2 * edge else y[:, 1::2]


def _inner(y: Tensor, dilation: int) -> list[Tensor]:
    """Outputs (84, T) of one example a kernel, cut as in :func:`_halves`."""
    even, odd = _halves(y[None], dilation)
    return [(even if k % 2 == 0 else odd)[0, k // 2] for k in range(THREES)]


def ridge(x: Array, target: Target, subjects: Array, x_test: Array, *, seed: int = 0) -> Fitted:
    """One-vs-rest ridge for many features, the penalty chosen by grouped folds.

    Parameters
    ----------
    x : ndarray, shape (n, F)
    target : Target
    subjects : ndarray of str, shape (n,)
    x_test : ndarray, shape (m, F)

    Returns
    -------
    Fitted
        Class scores (m, K), larger = likelier, no probabilities; values (m,) for regression.
    """

    def predict(a: Array, t: Target, b: Array, settings: tuple[float, ...]) -> list[Array]:
        y = _coded(t)
        mean, std = a.mean(axis=0), a.std(axis=0)
        std = np.where(std > 1e-6, std, 1.0)
        a, b = (a - mean) / std, (b - mean) / std
        known = ~np.isnan(y)
        centre = np.array([c[k].mean() if k.any() else 0.0 for c, k in zip(y.T, known.T, strict=True)])
        scores = _solve(a, b, y - centre, known, settings)
        return [(s + centre)[:, 0] if t.kind == "regression" else s + centre for s in scores]

    return protocol.choose(predict, ALPHAS, DEFAULT_ALPHA, np.asarray(x, np.float32), target, subjects, x_test, seed)


def _solve(a: Array, b: Array, y: Array, known: Array, alphas: tuple[float, ...]) -> list[Array]:
    """Predictions (m, K) for each penalty, by rows or by features, whichever are fewer.

    Rows whose label is unknown take no part in their column.
    """
    from scipy.linalg import cho_factor, cho_solve

    out = [np.zeros((len(b), y.shape[1])) for _ in alphas]
    for pattern in np.unique(known, axis=1).T:
        columns = np.flatnonzero((known == pattern[:, None]).all(axis=0))
        rows = np.flatnonzero(pattern)
        if not len(rows):
            continue
        some, target = a[rows], y[np.ix_(rows, columns)]
        by_rows = len(rows) <= a.shape[1]
        gram = (some @ some.T if by_rows else some.T @ some).astype(np.float64)
        left = b @ some.T if by_rows else b
        right = target if by_rows else some.T @ target
        for score, alpha in zip(out, alphas, strict=True):
            score[:, columns] = left @ cho_solve(cho_factor(gram + alpha * np.eye(len(gram)), overwrite_a=True), right)
    return out


def _coded(target: Target) -> Array:
    """Columns of -1 and 1 for classes, the values as one column for regression."""
    if target.kind == "regression":
        return target.y[:, None].astype(np.float64)
    if target.kind == "multiclass":
        return np.where(target.y[:, None] == np.arange(len(target.classes)), 1.0, -1.0)
    return 2.0 * target.y - 1.0
