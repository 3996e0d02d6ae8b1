"""Compare models on the same rows: fit heads, score them, take differences, look closer at the first.

What lives here: from features (several seeds a model) to plain values ready for JSON. Which rows and which models is
``probe.py``'s business, the heads are ``protocol.py``, the scores ``metrics.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics, protocol
from biossl.progress import track
from biossl.protocol import Target

Array = NDArray[Any]
CLOSE_LOOK = 200  # subjects listed one by one at most
PRETRAINED = "pretrained"


@dataclass(frozen=True)
class Rows:
    """The labelled rows of a corpus that take part, all arrays aligned.

    ``index`` row of the corpus, ``target``, ``subject``, ``part`` (``''`` = in no part of the split).
    """

    index: Array
    target: Target
    subject: Array
    part: Array

    def where(self, part: str) -> Array:
        """Positions of a part."""
        return np.flatnonzero(self.part == part)


@dataclass(frozen=True)
class Model:
    """One thing compared: its features, several times for several seeds, aligned to :class:`Rows`."""

    name: str
    features: list[Array]


def held_out(models: list[Model], rows: Rows, draws: list[Array], judged: Array, seed: int) -> dict[str, Any]:
    """Heads trained on the draws, judged on the held-out rows."""
    jobs = []
    for model in models:
        for head in protocol.HEADS:
            n = max(len(draws), len(model.features))
            jobs += [(model.name, head, model.features[i % len(model.features)], draws[i % len(draws)]) for i in range(n)]

    def fit(job: tuple[str, str, Array, Array]) -> protocol.Fitted:
        _, head, x, train = job
        return protocol.HEADS[head](x[train], rows.target.take(train), rows.subject[train], x[judged], seed=seed)

    done = in_threads(fit, jobs, "heads")
    table: dict[tuple[str, str], list[protocol.Fitted]] = {}
    for (name, head, _, _), fitted in zip(jobs, done, strict=True):
        table.setdefault((name, head), []).append(fitted)
    return _summary(table, rows.target.take(judged), rows.subject[judged], seed)


def cross_validate(models: list[Model], rows: Rows, used: Array, seed: int) -> dict[str, Any]:
    """Linear heads judged on out-of-fold predictions of all rows used."""
    target, subject = rows.target.take(used), rows.subject[used]
    jobs = [(model.name, x[used]) for model in models for x in model.features]

    def fit(job: tuple[str, Array]) -> protocol.Fitted:
        return protocol.Fitted(protocol.out_of_fold(protocol.linear, job[1], target, subject, seed=seed), float("nan"), None)

    done = in_threads(fit, jobs, "cross-validation")
    table: dict[tuple[str, str], list[protocol.Fitted]] = {}
    for (name, _), fitted in zip(jobs, done, strict=True):
        table.setdefault((name, "linear"), []).append(fitted)
    return _summary(table, target, subject, seed)


def in_threads(function: Any, jobs: list[Any], desc: str) -> list[Any]:
    """Heads side by side in threads (BLAS lets go of the interpreter), one BLAS thread each."""
    import warnings

    from joblib import Parallel, delayed
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties on separable rows; the folds judge them
        warnings.filterwarnings("ignore", message="The least populated class")  # rare classes are judged all the same
        work = Parallel(n_jobs=-1, prefer="threads", return_as="generator")(delayed(function)(j) for j in jobs)
        return list(track(work, len(jobs), desc, "fits"))


def _summary(table: dict[tuple[str, str], list[protocol.Fitted]], target: Target, subject: Array, seed: int) -> dict[str, Any]:
    """Scores with intervals, paired differences to the pretrained encoder, and a closer look at it."""
    out: dict[str, Any] = {"models": [], "paired": []}
    for (name, head), fits in table.items():
        predictions = [f.prediction for f in fits]
        settings = [f.setting for f in fits]
        entry: dict[str, Any] = {"model": name, "head": head, "n": len(fits), "scores": {}}
        if np.isfinite(settings).all():
            entry["setting"] = settings if len(set(settings)) > 1 else settings[0]
            inner = [f.inner for f in fits if f.inner is not None]
            entry["inner"] = float(np.mean(inner)) if inner else None
        for metric in scored(target):
            y, some = as_asked(target, predictions, metric)
            interval = metrics.subject_bootstrap(y, some, subject, metric, seed=seed).to_dict()
            each = [metrics.score(y, p, metric) for p in some]
            entry["scores"][metric] = interval | ({"min": _plain(min(each)), "max": _plain(max(each))} if len(each) > 1 else {})
        out["models"].append(entry)
        if name != PRETRAINED:
            mine = [f.prediction for f in table[(PRETRAINED, head)]]
            difference = metrics.paired_difference(target.y, mine, predictions, subject, target.metric, seed=seed)
            out["paired"].append({"minus": name, "head": head, "metric": target.metric} | difference.to_dict())
    best = table[(PRETRAINED, "linear")][0].prediction
    out["per_class"] = metrics.per_class(target.y, best, target.classes, target.kind)
    if target.kind == "multiclass":
        out["confusion"] = metrics.confusion(target.y, best, len(target.classes)).tolist()
    out["per_subject"] = _per_subject(target, best, subject)
    return out


def scored(target: Target) -> tuple[str, ...]:
    """Metrics of a target's table: of two classes AUROC and AUPRC of the second instead of macro AUROC, which is the same AUROC."""
    named = metrics.METRICS[target.kind]
    if target.kind == "multiclass" and len(target.classes) == 2:
        return (*(m for m in named if m != "macro_auroc"), *metrics.METRICS["binary"])
    return named


def as_asked(target: Target, predictions: list[Array], metric: str) -> tuple[Array, list[Array]]:
    """Reference and predictions in the form a metric takes: of two classes, AUROC and AUPRC look at the second one's scores."""
    if target.kind == "multiclass" and metric in metrics.METRICS["binary"]:
        return target.y[:, None], [p[:, 1:2] for p in predictions]
    return target.y, predictions


def _per_subject(target: Target, prediction: Array, subject: Array) -> dict[str, Any]:
    """Spread over subjects of a score that one subject can have: accuracy, absolute error; none for multi-label."""
    metric = {"multiclass": "accuracy", "regression": "mae"}.get(target.kind)
    if metric is None:
        return {}
    names = np.unique(subject)
    each = []
    for name in names:
        some = np.flatnonzero(subject == name)
        each.append({"subject": str(name), "n": len(some), metric: metrics.score(target.y[some], prediction[some], metric)})
    values = np.array([e[metric] for e in each], float)
    quartiles = np.percentile(values, [0, 25, 50, 75, 100]).tolist()
    return {"metric": metric, "quartiles": quartiles, "each": each if len(each) <= CLOSE_LOOK else []}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
