"""Models of folds and seeds on labels of windows: their predictions put together, with simple models fitted in the same folds.

What lives here: :class:`WindowFolds`. Whose rows a model judges is ``fold_work.py``'s, figures are ``fold_figures.py``'s. Nothing is fitted
for the locked models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.baselines import corpus_features
from biossl.corpus import Corpus
from biossl.corpus.within import groups
from biossl.downstream.absent import absent_classes, trained_classes
from biossl.downstream.evaluate import _target, _truth
from biossl.downstream.fold_figures import Pooled, fold_figures, rival_figures
from biossl.downstream.foldrun import FoldRun, Member
from biossl.downstream.model import Model, Task, read_rows
from biossl.downstream.predictions import KEYS, calibrated, columns
from biossl.downstream.rivals import rival_predictions
from biossl.errors import DataError
from biossl.judging import Rows
from biossl.probe import count_rows

Array = NDArray[Any]


@dataclass(frozen=True)
class Judged:
    """One member's predictions of its rows: ``p`` calibrated, ``said`` decisions of yes/no classes (else None)."""

    member: Member
    rows: Array
    p: Array
    said: Array | None
    table: pd.DataFrame
    simple: dict[str, Array]


class WindowFolds:
    """Judges member after member (:meth:`add`), then all together (:meth:`figures`).

    Parameters
    ----------
    held : FoldRun
    corpus : Corpus
    task : Task
    split : str or None
        Of the judged rows: whether intervals are over subjects or, within them, recordings.
    adapt, baselines : bool
    seed : int
        Of resamples and simple models.
    """

    def __init__(
        self, held: FoldRun, corpus: Corpus, task: Task, split: str | None, *, adapt: bool, baselines: bool, seed: int
    ) -> None:
        self.held, self.corpus, self.task, self.split, self.adapt, self.seed = held, corpus, task, split, adapt, seed
        self.simple = _Simple(corpus, task, seed) if baselines else None
        self.done: list[Judged] = []
        self.trained: list[list[str] | None] = []
        self.notes: list[str] = []
        self._blank = 0

    def add(self, member: Member, model: Model, rows: Array) -> None:
        """Predictions of a member's rows; those without an observed sample are left out."""
        judged = _judge(self.held, member, model, self.corpus, self.task, rows, self.adapt, self.simple)
        self.done.append(judged)
        self.trained.append(trained_classes(model, self.corpus))
        blank = len(rows) - len(judged.rows)
        self._blank += blank if member.seed == self.held.seeds[0] else 0

    def figures(self) -> dict[str, Any]:
        """What ``results.json`` says of them; lines for its reader are then in ``notes``."""
        pooled = _pool(self.held, self.corpus, self.task, self.done, self.split, self.seed)
        if self._blank:
            self.notes.append(f"{self._blank} labelled windows hold no observed sample and are left out")
        self.notes += self.simple.notes if self.simple else []
        target, people = pooled.target, pooled.people
        rows = Rows(pooled.rows, target, people, np.full(len(people), "test"))
        out: dict[str, Any] = {"kind": target.kind, "classes": list(target.classes), "metric": target.metric}
        out["counts"] = count_rows(self.corpus, rows, np.arange(len(people)))
        out |= fold_figures(pooled)
        out["absent"], more = absent_classes(self.trained, out)
        self.notes += more
        out["rivals"] = [rival_figures(pooled, model, predictions) for model, predictions in pooled.simple.items()]
        return out

    def table(self) -> pd.DataFrame:
        """Rows of ``predictions.parquet``: one a judged window and seed."""
        return _table(self.corpus, self.task, self.done)


def _judge(
    held: FoldRun, member: Member, model: Model, corpus: Corpus, task: Task, rows: Array, adapt: bool, simple: _Simple | None
) -> Judged:
    prediction, features = read_rows(model, corpus, rows, adapt=adapt, desc=None)
    seen = np.isfinite(features).all(axis=1)
    rows, prediction, features = rows[seen], prediction[seen], features[seen]
    if not len(rows):
        raise DataError(
            f"{held.path / member.folder}: nothing was observed in any window it would judge; leave the fold's subjects out"
        )
    p = calibrated(model, prediction)
    said = model.lock.decisions(p, model.classes, model.kind) if task.kind == "binary" else None
    beside = simple.predict(held, member, model, rows) if simple else {}
    return Judged(member, rows, p, said, columns(model, prediction, features), beside)


class _Simple:
    """Simple models of each fold: fitted once for equal training rows, whichever seed asks; hand features computed once a row."""

    def __init__(self, corpus: Corpus, task: Task, seed: int) -> None:
        self.corpus, self.kind, self.seed = corpus, "multiclass" if task.kind == "ordinal" else task.kind, seed
        self.notes: list[str] = []
        self._fitted: dict[str, dict[str, Array]] = {}
        self._known: dict[str, dict[int, Array]] = {}
        self._names: list[str] = []

    def predict(self, held: FoldRun, member: Member, model: Model, rows: Array) -> dict[str, Array]:
        """Name -> predictions of the rows."""
        key = json.dumps([member.split, model.about["trained"].get("rows")])
        if key not in self._fitted:
            self._fitted[key], notes = rival_predictions(
                model, self.corpus, rows, self.kind, held.path / member.folder, seed=self.seed, features=self._features
            )
            self.notes += [n for n in notes if n not in self.notes]
        return self._fitted[key]

    def _features(self, corpus: Corpus, rows: Array) -> tuple[Array, list[str]]:
        known = self._known.setdefault(corpus.hash, {})
        new = np.array([r for r in rows if int(r) not in known], np.int64)
        if len(new):
            values, self._names = corpus_features(corpus, new)
            known.update(zip(new.tolist(), values, strict=True))
        return np.stack([known[int(r)] for r in rows]), self._names


def _pool(held: FoldRun, corpus: Corpus, task: Task, done: list[Judged], split: str | None, seed: int) -> Pooled:
    """Rows in the order of the corpus, each once under each seed."""

    def pooled(parts: Sequence[Array], each: list[Judged]) -> Array:
        rows = np.concatenate([j.rows for j in each])
        return np.concatenate(parts)[np.argsort(rows, kind="stable")]

    by_seed = [[j for j in done if j.member.seed == s] for s in held.seeds]
    first = by_seed[0]
    rows = pooled([j.rows for j in first], first)
    for each in by_seed:
        if not np.array_equal(pooled([j.rows for j in each], each), rows) or len(np.unique(rows)) < len(rows):
            raise DataError(
                f"{held.path}: a window would be judged twice, or not under every seed; fine-tune again in another --out"
            )
    fold = pooled([np.full(len(j.rows), -1 if j.member.fold is None else j.member.fold) for j in first], first)
    several = [pooled([j.p for j in each], each) for each in by_seed]
    said = [pooled([j.said for j in each if j.said is not None], each) for each in by_seed] if first[0].said is not None else []
    names = [n for n in first[0].simple if all(n in j.simple for j in done)]
    same = all(a.simple is b.simple for each in by_seed for a, b in zip(first, each, strict=True))  # no seed drew other rows
    simple = {n: [pooled([j.simple[n] for j in each], each) for each in (by_seed[:1] if same else by_seed)] for n in names}
    people = groups(corpus, split)[rows]
    return Pooled(rows, fold, _target(task, rows), people, several, said, simple, seed)


def _table(corpus: Corpus, task: Task, done: list[Judged]) -> pd.DataFrame:
    """One row a seed and judged window, seed by seed in the order of the corpus."""
    parts = []
    for j in done:
        keys = corpus.index.iloc[j.rows][[k for k in KEYS if k in corpus.index]].reset_index(drop=True)
        keys["seed"], keys["fold"] = j.member.seed, pd.array([j.member.fold] * len(keys), "Int64")
        keys["_row"] = j.rows
        parts.append(pd.concat([keys, _truth(_target(task, j.rows)), j.table], axis=1))
    table = pd.concat(parts, ignore_index=True)
    order = {s: k for k, s in enumerate(dict.fromkeys(table["seed"]))}
    table["_seed"] = table["seed"].map(order)
    return table.sort_values(["_seed", "_row"], kind="stable").drop(columns=["_seed", "_row"]).reset_index(drop=True)
