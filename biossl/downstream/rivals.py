"""Simple models beside a locked one: fitted on the very rows it was trained on, judged on the same windows.

What lives here: :func:`rivals`: hand features with logistic regression (ridge for values) and with a forest, MiniRocket with ridge,
gravity alone, age and sex; of EEG covariances in their tangent space, of its trials common spatial patterns. They need the corpus the model was trained on; where it has gone, a line says so and nothing is compared.
Other locked models stand beside it by ``beside.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from biossl import csp, metrics, minirocket, protocol
from biossl.baselines import corpus_features, gravity_features
from biossl.corpus import Corpus
from biossl.corpus.within import groups
from biossl.downstream.model import Model, make_task
from biossl.downstream.units import Units
from biossl.errors import BiosslError
from biossl.probe import DEMOGRAPHIC, HAND, age_and_sex
from biossl.protocol import Fitted, Target
from biossl.riemann import covariances, tangent_features

Array = NDArray[Any]
Features = Callable[[Corpus, Array], tuple[Array, list[str]]]
Make = Callable[[Corpus, Array, Corpus, Array, int], tuple[Array, Array] | str]
ROCKET, FOREST, GRAVITY, CSP = "MiniRocket", "hand features, forest", "gravity alone", "CSP + LDA"
TANGENT = "tangent space, linear"
TREES, LEAF = 300, 2  # fixed, not chosen: a forest gains little by tuning
_SAMPLE = 2_000  # training windows the kernels' biases are drawn from


def rivals(
    model: Model, corpus: Corpus, rows: Array, units: Units, target: Target, p: Array, people: Array, run: Path, *, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Scores of simple models and paired differences to the locked model.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        That is judged.
    rows : ndarray of int
        Rows of judged windows.
    units : Units
        What they are judged together as.
    target : Target
        Of the units.
    p : ndarray
        The locked model's predictions of the units.
    people : ndarray of str
        What is resampled: the subject of each unit, or its recording in a within-subject split.
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
    if target.kind == "survival":
        return [], ["no simple models beside it: none of them knows times that were cut off"]
    found, notes = rival_predictions(model, corpus, rows, target.kind, run, seed=seed)
    out = []
    for name, windows in found.items():
        prediction = units.pool(windows)
        score = metrics.subject_bootstrap(target.y, prediction, people, target.metric, seed=seed).to_dict()
        minus = metrics.paired_difference(target.y, p, prediction, people, target.metric, seed=seed).to_dict()
        out.append({"model": name, "score": score, "minus": minus})
    return out, notes


def rival_predictions(
    model: Model, corpus: Corpus, rows: Array, kind: str, run: Path, *, seed: int, features: Features = corpus_features
) -> tuple[dict[str, Array], list[str]]:
    """Predictions of simple models fitted on the rows a model was trained on.

    Parameters
    ----------
    model, corpus, run, seed
        As in :func:`rivals`.
    rows : ndarray of int
        Rows of judged windows.
    kind : str
        Of the target.
    features : function
        Hand features and their names of corpus rows; one that remembers them serves several models.

    Returns
    -------
    dict of str to ndarray
        Name -> predictions of ``rows``.
    list of str
        Why one is absent.
    """
    try:
        own = _trained_on(model, run)
    except (BiosslError, OSError, ValueError, KeyError) as error:
        return {}, [f"no simple models beside it: the corpus it was trained on cannot be read ({str(error)[:80]})"]
    if own is None:
        return {}, ["no simple models beside it: the corpus it was trained on is not where it was, or has changed"]
    at = trained_rows(model, own)
    task = make_task(own, model.about["label"], kind=model.kind if model.kind == "ordinal" else None)
    y = task.values[at].astype(np.float64)
    train = Target(kind, y[:, 0] if kind in ("multiclass", "regression") else y, model.classes)
    subjects = groups(own, model.about["split"])[at]
    trials: Make = _trials if kind == "multiclass" else lambda *_: ""
    out, notes = {}, []
    for make, heads in (
        (partial(_hand, features=features), {HAND: protocol.linear, FOREST: forest}), (_rocket, {ROCKET: minirocket.ridge}),
        (_gravity, {GRAVITY: protocol.linear}), (trials, {CSP: csp.csp_lda}), (_tangent, {TANGENT: protocol.linear}),
        (_demographic, {DEMOGRAPHIC: protocol.linear}),
    ):  # fmt: skip
        pair = make(own, at, corpus, rows, seed)
        if isinstance(pair, str):
            notes += [pair] if pair else []
            continue
        for name, head in heads.items():
            out[name] = head(pair[0], train, subjects, pair[1], seed=seed).prediction
    return out, notes


def _trained_on(model: Model, run: Path) -> Corpus | None:
    """The corpus of the run, if its hash is still the one that was trained on."""
    home = run if (run / "run.json").is_file() else run.parent
    places = json.loads((home / "run.json").read_text(encoding="utf-8"))["corpora_at"]
    corpus = Corpus.open(places[0])
    return corpus if corpus.hash == model.about["seen"]["corpora"][-1]["hash"] else None


def trained_rows(model: Model, corpus: Corpus) -> Array:
    """Rows whose labels the model was trained on."""
    only = model.about["trained"].get("rows")
    if only is not None:
        return np.asarray(only, np.int64)
    task = make_task(corpus, model.about["label"], kind=model.kind if model.kind == "ordinal" else None)
    return np.flatnonzero(task.known & (corpus.split(model.about["split"]).to_numpy().astype(str) == "train"))


def _hand(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int, features: Features) -> tuple[Array, Array] | str:
    if own.spec.ch_names != corpus.spec.ch_names:
        return "hand features: the corpora have other channels, so their features differ; left out"
    (a, names), (b, there) = features(own, at), features(corpus, rows)
    return (a, b) if names == there else "hand features: the corpora give other features; left out"


def forest(x: Array, target: Target, subjects: Array, x_test: Array, *, seed: int = 0) -> Fitted:
    """A random forest (Breiman 2001) with fixed settings; classes count alike in every tree's sample of rows.

    Parameters
    ----------
    x : ndarray, (n, F)
        Training features; NaN as in :func:`biossl.protocol.linear`.
    target : Target
        Of the training rows.
    subjects : ndarray of str, (n,)
        Not looked at: nothing is chosen.
    x_test : ndarray, (m, F)
    seed : int

    Returns
    -------
    Fitted
        Shares of votes (m, K), or values (m,).

    Examples
    --------
    >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> t = Target("multiclass", np.array([0, 0, 1, 1]), ("rest", "task"))
    >>> forest(rows, t, np.array(list("abab")), rows[:1]).prediction.argmax()
    np.int64(0)
    """
    a, b = protocol.standardise(x, x_test)
    if target.kind == "regression":
        model = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_features=1 / 3, n_jobs=-1, random_state=seed)
        return Fitted(model.fit(a, target.y).set_params(n_jobs=1).predict(b), float(TREES), None)

    def votes(rows: Array, y: Array, n_classes: int) -> Array:
        if not len(rows):
            return np.zeros((len(b), n_classes))
        model = RandomForestClassifier(
            TREES, min_samples_leaf=LEAF, class_weight="balanced_subsample", n_jobs=-1, random_state=seed
        ).fit(a[rows], y.astype(np.int64))
        out = np.zeros((len(b), n_classes))
        out[:, model.classes_] = model.set_params(n_jobs=1).predict_proba(b)  # threads would add the trees up in any order
        return out

    if target.kind == "multiclass":
        return Fitted(votes(np.arange(len(a)), target.y, len(target.classes)), float(TREES), None)
    known = [np.flatnonzero(~np.isnan(y)) for y in target.y.T]
    columns = [votes(rows, target.y[rows, k], 2)[:, 1] for k, rows in enumerate(known)]
    return Fitted(np.stack(columns, axis=1), float(TREES), None)


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


def _gravity(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    if own.spec.modality != "imu" or "acc" not in own.spec.ch_types:
        return ""
    if own.spec.ch_names != corpus.spec.ch_names:
        return "gravity alone: the corpora have other channels; left out"

    def features(source: Corpus, index: Array) -> Array:
        return np.concatenate(
            [gravity_features(source.signal(index[i : i + 256]), source.spec) for i in range(0, len(index), 256)]
        )

    return features(own, at), features(corpus, rows)


def _trials(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    """Band-passed windows of EEG that were cut by events; '' where there are none."""
    spec = own.spec
    eeg = [i for i, kind in enumerate(spec.ch_types) if kind == "eeg"]
    if len(eeg) < csp.COMPONENTS or any(c.card.views[c.view].policy == "sliding" for c in (own, corpus)):
        return ""
    if spec.ch_names != corpus.spec.ch_names:
        return f"{CSP}: the corpora have other channels; left out"
    if spec.window_s < csp.SHORTEST_S or spec.sfreq <= 2 * csp.BAND_HZ[1]:
        return f"{CSP}: needs windows of {csp.SHORTEST_S:g} s or more at over {2 * csp.BAND_HZ[1]:g} Hz; left out"

    def trials(source: Corpus, index: Array) -> Array:
        parts = [csp.band_pass(source.signal(index[i : i + 256])[:, eeg], spec.sfreq) for i in range(0, len(index), 256)]
        return np.concatenate(parts)

    return trials(own, at), trials(corpus, rows)


def _tangent(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    """Covariances of EEG channels in the tangent space of the training windows; '' where there are none."""
    eeg = [i for i, kind in enumerate(own.spec.ch_types) if kind == "eeg"]
    if own.spec.modality != "eeg" or len(eeg) < 2:
        return ""
    if own.spec.ch_names != corpus.spec.ch_names:
        return f"{TANGENT}: the corpora have other channels; left out"

    def spread_of(source: Corpus, index: Array) -> Array:
        return np.concatenate([covariances(source.signal(index[i : i + 256])[:, eeg]) for i in range(0, len(index), 256)])

    return tangent_features(spread_of(own, at), spread_of(corpus, rows), seed=seed)


def _demographic(own: Corpus, at: Array, corpus: Corpus, rows: Array, seed: int) -> tuple[Array, Array] | str:
    a, b = age_and_sex(own), age_and_sex(corpus)
    if a is None or b is None or a.shape[1] != b.shape[1]:
        return ""
    return a[at], b[rows]
