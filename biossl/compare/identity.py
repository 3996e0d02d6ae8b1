"""What else features hold: their effective rank, and who, where and with which device was recorded.

What lives here: figures from features of training windows only. An encoder that names the subject from a window it has
not been told about may have learnt the person in place of the state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biossl import metrics, protocol
from biossl.corpus import Corpus
from biossl.errors import RequestError
from biossl.protocol import Target
from biossl.training.monitors import rankme

Array = NDArray[Any]
SUBJECTS, WINDOWS = 50, 40  # at most, and windows of each
BLOCK = 4  # neighbouring windows that stay on one side
PENALTY_C = 0.01
COVARIATE_ROWS = 4000
RANK_ROWS = 4  # times the width


def effective_rank(features: Array, seed: int = 0) -> float:
    """RankMe (centred) of standardised features (n, F), on at most 4 F rows; NaN rows are left out."""
    x = features[np.isfinite(features).all(axis=1)]
    x = x[protocol.spread(len(x), RANK_ROWS * x.shape[1], seed)]
    return rankme(torch.from_numpy(np.ascontiguousarray(x)), centred=True) if len(x) else float("nan")


def check_identity(corpus: Corpus, kinds: tuple[str, ...]) -> None:
    """RequestError for an identity the corpus has no column for."""
    for kind in kinds:
        if kind != "subject" and kind not in corpus.index.columns:
            raise RequestError(f"--identity {kind}: the corpus has no covariate '{kind}'; leave it out, or map it in the card")


def identity(features: Array, corpus: Corpus, index: Array, kind: str, *, seed: int = 0) -> dict[str, Any]:
    """How well a linear probe names the subject, or a covariate such as site or device.

    Parameters
    ----------
    features : ndarray, shape (n, F)
        Of training windows.
    corpus : Corpus
    index : ndarray of int, shape (n,)
        Their rows in the corpus.
    kind : str
        ``subject``: every second block of four neighbouring windows of each subject is held out, at most 50 subjects of 40
        windows. Otherwise a column of the index, judged on held-out subjects.

    Returns
    -------
    dict
        ``balanced_accuracy`` (None where it cannot be computed), ``chance`` (1 / classes), ``classes``, ``windows`` judged.
    """
    subject = corpus.index["subject"].to_numpy().astype(str)[index]
    known = np.isfinite(features).all(axis=1)
    if kind == "subject":
        return _subject(features, corpus, index, subject, np.asarray(known), seed)
    value = corpus.index[kind].astype("string").fillna("").to_numpy().astype(str)[index]
    rows = np.flatnonzero(known & (value != ""))
    rows = rows[protocol.spread(len(rows), COVARIATE_ROWS, seed)]
    names, code = np.unique(value[rows], return_inverse=True)
    target = Target("multiclass", code.astype(float), tuple(names))
    if len(names) < 2 or len(np.unique(subject[rows])) < 2:
        return _figure(None, len(names), len(rows))
    scores = np.full((len(rows), len(names)), np.nan)
    for train, test in protocol.grouped_folds(target, subject[rows], protocol.CHOICE_FOLDS, seed):
        scores[test] = _fit(features[rows[train]], code[train], features[rows[test]], len(names))
    return _figure(metrics.score(target.y, scores, "balanced_accuracy"), len(names), len(rows))


def _subject(features: Array, corpus: Corpus, index: Array, subject: Array, known: Array, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 0x1D])
    record, start = corpus.index["record"].to_numpy().astype(str)[index], corpus.index["start_s"].to_numpy(float)[index]
    names = np.unique(subject[known])
    names = np.sort(rng.permutation(names)[:SUBJECTS])
    train: list[int] = []
    test: list[int] = []
    code = np.full(len(index), -1)
    for k, name in enumerate(names):
        mine = np.flatnonzero(known & (subject == name))
        mine = mine[np.lexsort((start[mine], record[mine]))]
        blocks = [mine[i : i + BLOCK] for i in range(0, len(mine), BLOCK)]
        if len(blocks) < 2:
            continue
        code[mine] = k
        for side, held in ((train, blocks[0::2]), (test, blocks[1::2])):
            some = rng.permutation(len(held))[: WINDOWS // 2 // BLOCK]
            side += [row for i in sorted(some) for row in held[i]]
    present = np.unique(code[train]) if train else np.zeros(0)
    if len(present) < 2:
        return _figure(None, len(present), len(test))
    scores = _fit(features[train], code[train], features[test], len(names))
    return _figure(metrics.score(code[test], scores, "balanced_accuracy"), len(present), len(test))


def _fit(a: Array, y: Array, b: Array, n_classes: int) -> Array:
    a, b = protocol.standardise(a, b)
    return protocol.logistic(a, y, b, (PENALTY_C,), n_classes)[0]


def _figure(value: float | None, n_classes: int, n: int) -> dict[str, Any]:
    value = None if value is None or np.isnan(value) else value
    return {"balanced_accuracy": value, "chance": 1 / n_classes if n_classes else None, "classes": n_classes, "windows": n}
