"""Models of folds and seeds on labels of samples: counts of their waves or episodes put together.

What lives here: :class:`EventFolds`. Every recording is counted by the models that held its subject out; counts are added over folds for
each seed, and scored together (``delineation.py``). NeuroKit2 is counted once: no seed changes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.downstream.delineation import event_counts, event_figures, spread_of_seeds
from biossl.downstream.dense import DenseTask
from biossl.downstream.event_counts import Counted, count_events, together
from biossl.downstream.foldrun import FoldRun, Member
from biossl.downstream.model import Model

Array = NDArray[Any]


class EventFolds:
    """Counts member after member (:meth:`add`), then scores all together (:meth:`figures`).

    Parameters
    ----------
    held : FoldRun
    corpus : Corpus
    task : DenseTask
    adapt, baselines : bool
    seed : int
        Of resamples.
    """

    def __init__(self, held: FoldRun, corpus: Corpus, task: DenseTask, *, adapt: bool, baselines: bool, seed: int) -> None:
        self.held, self.corpus, self.task, self.adapt, self.baselines, self.seed = held, corpus, task, adapt, baselines, seed
        self.done: list[tuple[Member, Array, Counted]] = []
        self.notes: list[str] = []

    def add(self, member: Member, model: Model, rows: Array) -> None:
        """Counts of a member's rows."""
        rival = self.baselines and member.seed == self.held.seeds[0]
        counted = count_events(model, self.corpus, self.task, rows, adapt=self.adapt, rival=rival, desc=None)
        self.done.append((member, rows, counted))

    def figures(self) -> dict[str, Any]:
        """What ``results.json`` says of them; lines for its reader are then in ``notes``."""
        several = [together([c for m, _, c in self.done if m.seed == s]) for s in self.held.seeds]
        out = event_figures(several, self.corpus, self.task, seed=self.seed, seeds=True)
        self.notes += several[0].notes
        first = [(m, rows, c) for m, rows, c in self.done if m.seed == self.held.seeds[0]]
        subject = self.corpus.index["subject"].astype(str).to_numpy()
        for row in out["per_subject"]:
            mine = {m.fold: int((subject[rows] == row["subject"]).sum()) for m, rows, _ in first}
            row["fold"], row["n"] = next(fold for fold, n in mine.items() if n), sum(mine.values())
        out["folds"] = []
        for member, rows, counted in first:
            if member.fold is None:
                continue
            here = [c for m, _, c in self.done if m.fold == member.fold]
            entry = {"fold": member.fold, "subjects": counted.keys["subject"].nunique(), "windows": len(rows)}
            out["folds"].append(entry | {out["metric"]: spread_of_seeds(here, self.task)})
        counts = event_counts(several[0], self.corpus, self.task, np.concatenate([rows for _, rows, _ in first]))
        return out | {
            "kind": "dense",
            "classes": list(self.task.classes),
            "counts": counts,
            "per_class": [],
            "absent": [],
            "confusion": None,
        }

    def table(self) -> pd.DataFrame:
        """Rows of ``predictions.parquet``: one a seed and detected or annotated event, seed by seed."""
        parts = []
        for member, _, counted in self.done:
            parts.append(counted.table.assign(seed=member.seed, fold=pd.array([member.fold] * len(counted.table), "Int64")))
        return pd.concat(parts, ignore_index=True)
