"""How a table of frozen features is judged: a linear and a nearest-neighbour head, chosen inside the training subjects.

What lives here: the heads and the grouped folds that choose their one setting, and the draws of scarce labels. The
grids are fixed (:data:`C_GRID`, :data:`ALPHA_GRID`, :data:`K_GRID`): the inverse penalty C of logistic regression, the
penalty of ridge, the number of neighbours. The setting is chosen by the main metric of out-of-fold predictions of
grouped folds (no subject on both sides) of the training rows, ties to the stronger penalty; test rows are never looked
at. No encoder and no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from biossl import metrics
from biossl.errors import DataError, RequestError

Array = NDArray[Any]
C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
ALPHA_GRID = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
K_GRID = (1, 3, 5, 10, 20, 50)
DEFAULT_C, DEFAULT_ALPHA, DEFAULT_K = 1e-2, 1e3, 10  # where one subject leaves nothing to choose by
FOLDS = 5  # of a cross-validation that is reported
CHOICE_FOLDS = 3  # of the inner one that chooses a setting
CHOICE_ROWS = 4_000  # rows it uses at most, drawn evenly: the choice among six settings needs no more
CROSS_ROWS = 20_000  # rows a fold of a reported cross-validation trains on at most
MEMORY_ROWS = 20_000  # rows a nearest-neighbour head remembers at most
MAX_ITER = 500


@dataclass(frozen=True)
class Target:
    """What is predicted.

    ``kind`` is ``multiclass`` (``y`` class numbers (n,)), ``multilabel`` (0/1/NaN (n, K)), ``binary`` (0/1 (n, 1), the
    class looked for) or ``regression`` ((n,)).
    """

    kind: str
    y: Array
    classes: tuple[str, ...]

    def take(self, rows: Array) -> Target:
        """The same target for some rows."""
        return Target(self.kind, self.y[rows], self.classes)

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return metrics.MAIN_METRIC[self.kind]


@dataclass(frozen=True)
class Fitted:
    """Predictions of a head for the test rows: scores (n, K), or values (n,) for regression.

    ``setting`` is what was chosen, ``inner`` the out-of-fold main metric it was chosen by (None: nothing to choose by).
    """

    prediction: Array
    setting: float
    inner: float | None


def grouped_folds(target: Target, subjects: Array, n_folds: int, seed: int) -> list[tuple[Array, Array]]:
    """Folds in which no subject is on both sides, classes spread evenly where that is possible.

    Parameters
    ----------
    target : Target
    subjects : ndarray of str, shape (n,)
    n_folds : int
        At most; as many as there are subjects otherwise.

    Returns
    -------
    list of (train rows, test rows)
        Empty with fewer than two subjects.
    """
    n_folds = min(n_folds, len(np.unique(subjects)))
    if n_folds < 2:
        return []
    dummy = np.zeros((len(subjects), 1))
    y = target.y.reshape(len(subjects)) if target.kind in ("multiclass", "binary") else np.zeros(0)
    if len(y) and np.unique(y, return_counts=True)[1].max() >= n_folds:  # else scikit-learn has nothing to spread
        return list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(dummy, y, subjects))
    return list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(dummy, groups=subjects))


def linear(x: Array, target: Target, subjects: Array, x_test: Array, *, seed: int = 0) -> Fitted:
    """Linear head: imputation, standardisation, logistic regression (one per class if multi-label) or ridge.

    Parameters
    ----------
    x : ndarray, shape (n, F)
        Training features; NaN is replaced by the median and marked by an indicator column.
    target : Target
        Of the training rows.
    subjects : ndarray of str, shape (n,)
    x_test : ndarray, shape (m, F)
    """
    grid, default = (ALPHA_GRID, DEFAULT_ALPHA) if target.kind == "regression" else (C_GRID, DEFAULT_C)

    def predict(a: Array, t: Target, b: Array, settings: tuple[float, ...]) -> list[Array]:
        a, b = standardise(a, b)
        if t.kind == "regression":
            return _ridge(a, t.y, b, settings)
        if t.kind == "multiclass":
            return logistic(a, t.y, b, settings, len(t.classes))
        parts = []
        for k in range(len(t.classes)):
            known = ~np.isnan(t.y[:, k])
            parts.append([s[:, 1] for s in logistic(a[known], t.y[known, k], b, settings, 2)])
        return [np.stack(columns, axis=1) for columns in zip(*parts, strict=True)]

    strongest_first = tuple(sorted(grid, reverse=target.kind == "regression"))
    return choose(predict, strongest_first, default, x, target, subjects, x_test, seed)


def nearest(x: Array, target: Target, subjects: Array, x_test: Array, *, seed: int = 0) -> Fitted:
    """Nearest-neighbour head: cosine similarity of standardised features, the mean of k neighbours' labels."""

    def predict(a: Array, t: Target, b: Array, settings: tuple[float, ...]) -> list[Array]:
        keep = spread(len(a), MEMORY_ROWS, seed)
        a, b = standardise(a[keep], b)
        a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b))
        y = t.y[keep]
        if t.kind == "multiclass":
            y = np.eye(len(t.classes))[y.astype(np.int64)]
        # on unit vectors the Euclidean order is the cosine order, and scikit-learn's fast path serves it
        found = NearestNeighbors(n_neighbors=min(int(max(settings)), len(a)), algorithm="brute").fit(a)
        votes = y[found.kneighbors(b, return_distance=False)]
        out = []
        for k in settings:
            some = votes[:, : int(k)]
            seen = ~np.isnan(some)
            out.append(np.where(seen, some, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))
        return out

    return choose(predict, tuple(float(k) for k in reversed(K_GRID)), DEFAULT_K, x, target, subjects, x_test, seed)


HEADS = {"linear": linear, "kNN": nearest}


def out_of_fold(head: Any, x: Array, target: Target, subjects: Array, *, seed: int = 0) -> Array:
    """Predictions of every row by a head trained without the row's subject (:data:`FOLDS` grouped folds)."""
    out: Array | None = None
    for train, test in grouped_folds(target, subjects, FOLDS, seed):
        train = train[spread(len(train), CROSS_ROWS, seed)]
        prediction = head(x[train], target.take(train), subjects[train], x[test], seed=seed).prediction
        if out is None:
            out = np.full((len(x), *prediction.shape[1:]), np.nan)
        out[test] = prediction
    if out is None:
        raise DataError("one subject only: a cross-validation by subject needs at least two; add subjects")
    return out


def draw_windows(target: Target, fraction: float, n_draws: int, seed: int) -> list[Array]:
    """Rows of ``n_draws`` draws of a fraction of the labelled windows, at least one per class.

    Raises
    ------
    RequestError
        The fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise RequestError(f"--labels-fraction {fraction:g}: give a share above 0 and up to 1, e.g. 0.1")
    n = len(target.y)
    if target.kind in ("multiclass", "binary"):
        groups = [np.flatnonzero(target.y == k) for k in np.unique(target.y)]
    else:
        groups = [np.arange(n)]
    draws = []
    for i in range(n_draws):
        rng = np.random.default_rng([seed, i])
        rows = [rng.permutation(g)[: max(1, round(fraction * len(g)))] for g in groups]
        if target.kind == "multilabel":  # at least one positive and one negative of each class
            for k in range(target.y.shape[1]):
                for value in (0.0, 1.0):
                    some = np.flatnonzero(target.y[:, k] == value)
                    if len(some) and not np.isin(some, np.concatenate(rows)).any():
                        rows.append(rng.permutation(some)[:1])
        draws.append(np.unique(np.concatenate(rows)))
    return draws


def draw_subjects(subjects: Array, n_subjects: int, n_draws: int, seed: int) -> list[Array]:
    """Rows of ``n_draws`` draws of ``n_subjects`` subjects with all their windows.

    Raises
    ------
    RequestError
        Fewer than one subject, or more than there are.
    """
    names = np.unique(subjects)
    if not 1 <= n_subjects <= len(names):
        raise RequestError(
            f"--n-subjects {n_subjects}: the training part has {len(names)} labelled subjects; give 1 to {len(names)}"
        )
    picks = [np.random.default_rng([seed, i]).permutation(names)[:n_subjects] for i in range(n_draws)]
    return [np.flatnonzero(np.isin(subjects, p)) for p in picks]


def choose(
    predict: Any, settings: tuple[float, ...], default: float, x: Array, target: Target, subjects: Array, x_test: Array, seed: int
) -> Fitted:
    """Pick the setting by grouped folds of the training rows, then fit on all of them."""
    some = spread(len(x), CHOICE_ROWS, seed)
    inner, y, names = x[some], target.take(some), subjects[some]
    folds = grouped_folds(y, names, CHOICE_FOLDS, seed)
    chosen, best = default, None
    if folds:
        shape = (len(some),) if target.kind == "regression" else (len(some), len(target.classes))
        held = np.full((len(settings), *shape), np.nan)
        for train, test in folds:
            for i, p in enumerate(predict(inner[train], y.take(train), inner[test], settings)):
                held[i, test] = p
        scores = [metrics.score(y.y, h, target.metric) for h in held]
        if np.isfinite(scores).any():
            i = int(np.nanargmax(scores))  # the first of equals: the strongest penalty, the most neighbours
            chosen, best = settings[i], float(scores[i])
    return Fitted(predict(x, target, x_test, (chosen,))[0], float(chosen), best)


def spread(n: int, limit: int, seed: int) -> Array:
    """At most ``limit`` of ``n`` rows, drawn evenly, in order."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, n]).permutation(n)[:limit])


def standardise(a: Array, b: Array) -> tuple[Array, Array]:
    """``a`` and ``b`` scaled by mean and deviation of ``a``; missing values become its median."""
    pipe = make_pipeline(StandardScaler())
    if np.isnan(a).any() or np.isnan(b).any():
        pipe = make_pipeline(SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler())
    return pipe.fit_transform(a.astype(np.float32)), pipe.transform(b.astype(np.float32))


def logistic(a: Array, y: Array, b: Array, settings: tuple[float, ...], n_classes: int) -> list[Array]:
    """Class probabilities (m, K) for each C; a class that was never seen gets 0."""
    present = np.unique(y).astype(np.int64)
    out = []
    if len(present) < 2:
        constant = np.zeros((len(b), n_classes))
        constant[:, present] = 1.0
        return [constant] * len(settings)
    model = LogisticRegression(max_iter=MAX_ITER, warm_start=True)
    for c in settings:  # from the strongest penalty on: each solution starts the next
        model.set_params(C=c)
        model.fit(a, y)
        scores = np.zeros((len(b), n_classes))
        scores[:, present] = model.predict_proba(b)
        out.append(scores)
    return out


def _ridge(a: Array, y: Array, b: Array, settings: tuple[float, ...]) -> list[Array]:
    return [Ridge(alpha=alpha).fit(a, y).predict(b) for alpha in settings]
