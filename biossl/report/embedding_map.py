"""A map of embeddings: which windows, two projections, and how much the neighbourhoods say.

What lives here: PCA and t-SNE by scikit-learn of up to :data:`MAP_ROWS` windows, and the share of nearest neighbours
with the same label and the same subject beside what chance would give. Drawing is ``figures.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus

Array = NDArray[Any]
MAP_ROWS = 1_000
LEAST = 30  # windows below which shares of neighbours and of variance say nothing
MOST_GROUPS = 12


@dataclass(frozen=True)
class EmbeddingMap:
    """Coordinates (n, 2) of two projections, the group of each point (-1 unknown) and what neighbours share.

    ``part`` says which rows, ``explained`` the share of variance of the two principal axes; ``same_label`` and
    ``same_subject`` are (share, chance), or None where there is nothing to tell apart or under :data:`LEAST` windows.
    """

    label: str
    part: str
    n: int
    n_subjects: int
    pca: Array
    tsne: Array | None
    explained: float
    group: Array
    names: tuple[str, ...]
    same_label: tuple[float, float] | None
    same_subject: tuple[float, float] | None


def embedding_map(corpus: Corpus, label: str | None, split: str | None, embed: Callable[[Array], Array]) -> EmbeddingMap | None:
    """Map of the windows of part val (else test, else all windows), at most :data:`MAP_ROWS`, evenly spaced.

    Parameters
    ----------
    corpus : Corpus
    label : str or None
        Colours; without one, or for a label that is a number, points are in quarters of it or in one colour.
    split : str or None
    embed : callable
        Rows of the index to features (n, D).

    Returns
    -------
    EmbeddingMap or None
        None with fewer than 4 windows.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    rows, part = np.arange(len(corpus)), "all windows"
    if split is not None:
        parts = corpus.split(split).to_numpy().astype(str)
        for name in ("val", "test"):  # subjects the encoder has not seen; test only where there is nothing else
            if (parts == name).sum() >= 4:
                rows, part = np.flatnonzero(parts == name), f"part {name} of split {split}"
                break
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(MAP_ROWS, len(rows))).astype(int))] if len(rows) else rows
    z = embed(rows) if len(rows) >= 4 else np.zeros((0, 2), np.float32)
    known = np.isfinite(z).all(axis=1)
    rows, z = rows[known], z[known]
    if len(rows) < 4:
        return None
    group, names = groups(corpus, label, rows)
    z = StandardScaler().fit_transform(z)
    pca = PCA(min(50, *z.shape), random_state=0)
    axes = pca.fit_transform(z)
    tsne = None
    if len(rows) >= 20:
        perplexity = min(30.0, len(rows) / 4)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(axes)
    _, subject = np.unique(corpus.index["subject"].to_numpy()[rows].astype(str), return_inverse=True)
    return EmbeddingMap(
        label=label or "", part=part, n=len(rows), n_subjects=int(subject.max()) + 1, pca=axes[:, :2], tsne=tsne,
        explained=float(pca.explained_variance_ratio_[:2].sum()), group=group, names=names,
        same_label=_neighbours(z, group) if len(names) > 1 and len(rows) >= LEAST else None,
        same_subject=_neighbours(z, subject) if len(rows) >= LEAST else None,
    )  # fmt: skip


def groups(corpus: Corpus, label: str | None, rows: Array) -> tuple[Array, tuple[str, ...]]:
    """Group of each row: class; for multi-label the first positive class; for a number its quarter."""
    if label is None:
        return np.zeros(len(rows), int), ("window",)
    labels = corpus.labels(label)
    values = labels.values[rows]
    unknown = np.isnan(values).all(axis=1)
    if labels.kind == "regression":
        v = values[:, 0]
        if unknown.all():
            return np.full(len(rows), -1), ()
        edges = np.quantile(v[~unknown], [0.25, 0.5, 0.75])
        names = [f"up to {edges[0]:.3g}", *(f"{a:.3g} to {b:.3g}" for a, b in zip(edges[:-1], edges[1:], strict=True))]
        return np.where(unknown, -1, np.searchsorted(edges, v)), (*names, f"over {edges[-1]:.3g}")
    if labels.kind == "multilabel":
        positive = np.nan_to_num(values) > 0
        group = np.where(positive.any(axis=1), positive.argmax(axis=1), -1)
    else:
        group = np.where(unknown, -1, np.nan_to_num(values[:, 0])).astype(int)
    counts = np.bincount(group[group >= 0], minlength=len(labels.classes))
    kept = [int(k) for k in np.argsort(-counts, kind="stable")[:MOST_GROUPS] if counts[k]]
    number = {k: i for i, k in enumerate(sorted(kept))}
    return np.array([number.get(int(g), -1) for g in group]), tuple(labels.classes[k] for k in sorted(kept))


def _neighbours(z: Array, group: Array) -> tuple[float, float] | None:
    """Share of windows whose nearest neighbour is of the same group, and that share for a random neighbour."""
    from sklearn.neighbors import NearestNeighbors

    some = group >= 0
    z, group = z[some], group[some]
    if len(z) < 4 or len(np.unique(group)) < 2:
        return None
    nearest = NearestNeighbors(n_neighbors=2).fit(z).kneighbors(z, return_distance=False)[:, 1]
    counts = np.bincount(group)
    chance = float((counts * (counts - 1)).sum() / (len(z) * (len(z) - 1)))
    return float((group[nearest] == group).mean()), chance
