"""Simple models beside a locked one: fitted on the very rows it was trained on, judged on the same windows.

What lives here: :func:`rivals`: hand features with logistic regression (ridge for values), MiniRocket with ridge, age and sex. They
need the corpus the model was trained on; where it has gone, a line says so and nothing is compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics, minirocket, protocol
from biossl.baselines import corpus_features
from biossl.corpus import Corpus
from biossl.downstream.model import Model, make_task
from biossl.errors import BiosslError
from biossl.probe import DEMOGRAPHIC, HAND, age_and_sex
from biossl.protocol import Target

Array = NDArray[Any]
ROCKET = "MiniRocket"
_SAMPLE = 2_000  # training windows the kernels' biases are drawn from


def rivals(
    model: Model, corpus: Corpus, rows: Array, target: Target, p: Array, run: Path, *, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Scores of simple models and paired differences to the locked model.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        That is judged.
    rows : ndarray of int
        Judged rows.
    target : Target
        Of them.
    p : ndarray
        The locked model's predictions of them.
    run : Path
        Its run folder, which names the corpus it was trained on.
    seed : int

    Returns
    -------
    list of dict
        ``model``, ``score``, ``minus`` (locked minus simple, paired).
    list of str
        Why one is absent.
    """
    try:
        own = _trained_on(model, run)
    except (BiosslError, OSError, ValueError, KeyError) as error:
        return [], [f"no simple models beside it: the corpus it was trained on cannot be read ({str(error)[:80]})"]
    if own is None:
        return [], ["no simple models beside it: the corpus it was trained on is not where it was, or has changed"]
    at = _rows(model, own)
    task = make_task(own, model.about["label"], kind=model.kind if model.kind == "ordinal" else None)
    y = task.values[at].astype(np.float64)
    train = Target(target.kind, y[:, 0] if target.kind in ("multiclass", "regression") else y, model.classes)
    subjects = own.index["subject"].to_numpy().astype(str)[at]
    people = corpus.index["subject"].to_numpy().astype(str)[rows]
    out, notes = [], []
    for name, make, head in (
        (HAND, _hand, protocol.linear), (ROCKET, _rocket, minirocket.ridge), (DEMOGRAPHIC, _demographic, protocol.linear),
    ):  # fmt: skip
        pair = make(own, at, corpus, rows, seed)
        if isinstance(pair, str):
            notes += [pair] if pair else []
            continue
        found = head(pair[0], train, subjects, pair[1], seed=seed).prediction
        score = metrics.subject_bootstrap(target.y, found, people, target.metric, seed=seed).to_dict()
        minus = metrics.paired_difference(target.y, p, found, people, target.metric, seed=seed).to_dict()
        entry = {"model": name, "score": score, "minus": minus}
        out.append(entry)
    return out, notes


def _trained_on(model: Model, run: Path) -> Corpus | None:
    """The corpus of the run, if its hash is still the one that was trained on."""
    home = run if (run / "run.json").is_file() else run.parent
    places = json.loads((home / "run.json").read_text(encoding="utf-8"))["corpora_at"]
    corpus = Corpus.open(places[0])
    return corpus if corpus.hash == model.about["seen"]["corpora"][-1]["hash"] else None


def _rows(model: Model, corpus: Corpus) -> Array:
    """Rows whose labels the model was trained on."""
    only = model.about["trained"].get("rows")
    if only is not None:
        return np.asarray(only, np.int64)
    task = make_task(corpus, model.about["label"], kind=model.kind if model.kind == "ordinal" else None)
    return np.flatnonzero(task.known & (corpus.split(model.about["split"]).to_numpy().astype(str) == "train"))


def _hand(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    if own.spec.ch_names != corpus.spec.ch_names:
        return "hand features: the corpora have other channels, so their features differ; left out"
    (a, names), (b, there) = corpus_features(own, at), corpus_features(corpus, rows)
    return (a, b) if names == there else "hand features: the corpora give other features; left out"


def _rocket(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    if own.spec.ch_names != corpus.spec.ch_names:
        return "MiniRocket: the corpora have other channels; left out"
    some = np.sort(np.random.default_rng(seed).permutation(at)[:_SAMPLE])
    rocket = minirocket.fit(own.signal(some), seed=seed, n_features=minirocket.features_for(len(at) + len(rows)))

    def features(source: Corpus, index: Array) -> Array:
        return np.concatenate(
            [minirocket.transform(rocket, source.signal(index[i : i + 256])) for i in range(0, len(index), 256)]
        )

    return features(own, at), features(corpus, rows)


def _demographic(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    a, b = age_and_sex(own), age_and_sex(corpus)
    if a is None or b is None or a.shape[1] != b.shape[1]:
        return ""
    return a[at], b[rows]
