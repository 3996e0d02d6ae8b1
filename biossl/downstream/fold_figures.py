"""Figures of models that were trained once a fold and a seed: over seeds, over subjects, over folds, and beside simple models.

What lives here: from pooled predictions (:class:`Pooled`) to plain values. Whose rows a model judges is ``evaluate_folds.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics
from biossl.judging import as_asked, scored
from biossl.metrics.over_seeds import seed_difference, seed_scores, subject_means
from biossl.protocol import Target

Array = NDArray[Any]
OF_SUBJECTS = {
    "multiclass": ("accuracy", "balanced_accuracy"),
    "binary": ("accuracy", "balanced_accuracy"),
    "regression": ("mae",),
}


@dataclass(frozen=True)
class Pooled:
    """All rows in the order of the corpus, each judged once under each seed."""

    rows: Array
    fold: Array
    target: Target
    people: Array  # subjects, or recordings of a within-subject split
    several: list[Array]  # a seed each
    said: list[Array]
    simple: dict[str, list[Array]]
    seed: int


def fold_figures(pooled: Pooled) -> dict[str, Any]:
    """Scores over seeds, over subjects and over folds."""
    target, people = pooled.target, pooled.people
    out: dict[str, Any] = {"scores": {}}
    for name in scored(target):
        y, some = as_asked(target, pooled.several, name)
        out["scores"][name] = seed_scores(y, some, people, name, seed=pooled.seed).to_dict()
    each = {name: _each_subject(target, people, pooled.said or pooled.several, name) for name in OF_SUBJECTS.get(target.kind, ())}
    out["subject_means"] = {name: subject_means(v, seed=pooled.seed).to_dict() for name, v in each.items()}
    out["per_subject"] = []
    for k, who in enumerate(np.unique(people)):
        mine = people == who
        row: dict[str, Any] = {"subject": str(who), "fold": _number(pooled.fold[mine][0]), "n": int(mine.sum())}
        out["per_subject"].append(row | {name: _spread(v[:, k]) for name, v in each.items()})
    out["folds"] = []
    for number in np.unique(pooled.fold[pooled.fold >= 0]):
        here = np.flatnonzero(pooled.fold == number)
        values = np.array([metrics.score(target.y[here], p[here], target.metric) for p in pooled.several])
        entry = {
            "fold": int(number),
            "subjects": len(np.unique(people[here])),
            "windows": len(here),
            target.metric: _spread(values),
        }
        if not np.isfinite(values).any():
            entry["reason"] = metrics.why_not(target.y[here], target.metric)
        out["folds"].append(entry)
    out["per_class"] = _mean_rows([metrics.per_class(target.y, p, target.classes, target.kind) for p in pooled.several])
    out["confusion"] = None
    if target.kind == "multiclass":
        out["confusion"] = np.sum([metrics.confusion(target.y, p, len(target.classes)) for p in pooled.several], axis=0).tolist()
    return out


def _each_subject(target: Target, people: Array, several: Sequence[Array], name: str) -> Array:
    """(n_seeds, n_subjects), subjects sorted."""
    y = target.y[:, 0] if target.kind == "binary" else target.y
    return np.stack([metrics.per_subject(y, p, people, name)[1] for p in several])


def rival_figures(pooled: Pooled, name: str, simple: list[Array]) -> dict[str, Any]:
    """A simple model's score, and what the locked models have more, over all rows and as means over subjects."""
    target, people, seed = pooled.target, pooled.people, pooled.seed
    entry: dict[str, Any] = {
        "model": name, "score": seed_scores(target.y, simple, people, target.metric, seed=seed).to_dict(),
        "minus": seed_difference(target.y, pooled.several, simple, people, target.metric, seed=seed).to_dict(), "subject_means": {},
    }  # fmt: skip
    for measure in OF_SUBJECTS.get(target.kind, ()) if target.kind != "binary" else ():  # a yes/no rival has no frozen threshold
        mine, theirs = (_each_subject(target, people, p, measure) for p in (pooled.several, simple))
        gap = subject_means(mine.mean(axis=0) - theirs.mean(axis=0), seed=seed).mean
        entry["subject_means"][measure] = {
            "score": subject_means(theirs, seed=seed).mean.to_dict(), "minus": gap.to_dict(),
        }  # fmt: skip
    return entry


def _spread(values: Array) -> dict[str, Any]:
    """Mean over the seeds and their range; None where a seed's cannot be computed."""
    if not np.isfinite(values).all():
        return {"value": None, "min": None, "max": None}
    return {"value": float(values.mean()), "min": float(values.min()), "max": float(values.max())}


def _mean_rows(several: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of per-class tables with their numbers averaged over seeds."""
    out = []
    for rows in zip(*several, strict=True):
        mean: dict[str, Any] = {}
        for key, value in rows[0].items():
            values = [row[key] for row in rows]
            if isinstance(value, str) or key == "n":
                mean[key] = value
            else:
                mean[key] = None if any(v is None for v in values) else float(np.mean(values))
        out.append(mean)
    return out


def _number(fold: Any) -> int | None:
    return None if fold < 0 else int(fold)
