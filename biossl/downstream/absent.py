"""Classes of a label that nobody has: neither who a model was trained on nor who is judged.

What lives here: :func:`classes_of` rows and :func:`absent_classes`, which tables leave out; ``results.json`` keeps every class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.downstream.dense import class_counts
from biossl.downstream.model import Model, Task, make_task
from biossl.downstream.rivals import trained_rows
from biossl.errors import BiosslError

Array = NDArray[Any]


def classes_of(task: Task, rows: Array) -> list[str]:
    """Classes that occur in rows, of yes/no labels those that are ever yes; empty for values and times."""
    if task.kind in ("multiclass", "ordinal", "dense"):
        there = class_counts(task, rows) > 0
    else:
        there = (task.values[rows] == 1).any(axis=0)
    return [c for k, c in enumerate(task.classes) if there[k]]


def absent_classes(trained: Sequence[list[str] | None], figures: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Classes that no model was trained on, no judged row has and no model ever said, and a line that names them.

    Parameters
    ----------
    trained : sequence of (list of str or None)
        Of every judged model what it was trained on (:func:`trained_classes`); with one of which that is unknown no class is absent.
    figures : dict
        ``per_class`` and ``confusion``.
    """
    if any(t is None for t in trained):
        return [], []
    known = {c for t in trained for c in t or ()}
    rows, confusion = figures["per_class"], figures["confusion"]
    said = np.sum(confusion, axis=0) if confusion else np.zeros(len(rows))
    absent = [r["class"] for r, n in zip(rows, said, strict=True) if r["class"] not in known and not r["n"] and not n]
    return absent, [f"nobody in training or judged has {', '.join(absent)}: left out of tables"] if absent else []


def trained_classes(model: Model, corpus: Corpus) -> list[str] | None:
    """Classes a model was trained on; of one that does not say (made before they were kept) None, but where ``corpus`` is its own."""
    known: list[str] | None = model.about["trained"].get("classes")
    if known is not None or corpus.hash != model.about["seen"]["corpora"][-1]["hash"]:
        return known
    try:
        task = make_task(corpus, model.about["label"], kind="ordinal" if model.kind == "ordinal" else None)
        return classes_of(task, trained_rows(model, corpus))
    except BiosslError:
        return None
