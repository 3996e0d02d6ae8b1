"""Classes of a label that training or the judged rows lack.

What lives here: :func:`classes_of` rows, :func:`unlearnt` classes, and :func:`absent_classes`, which tables leave out; ``results.json``
keeps every class.
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


def unlearnt(task: Task, train: Array) -> list[str]:
    """A line for the classes of which no window is trained on."""
    learnt = classes_of(task, train)
    return _cannot_know([c for c in task.classes if c not in learnt])


def _cannot_know(classes: list[str]) -> list[str]:
    return [f"no training window of {', '.join(classes)}, which its model cannot know"] if classes else []


def absent_classes(trained: Sequence[list[str] | None], figures: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Classes that no model was trained on, no judged row has and no model ever said, and lines for a reader.

    One line names them, one those that are judged although no model was trained on them, and one says that a single class is judged.

    Parameters
    ----------
    trained : sequence of (list of str or None)
        Of every judged model what it was trained on (:func:`trained_classes`); with one of which that is unknown no class is absent.
    figures : dict
        ``per_class`` and ``confusion``.
    """
    rows, confusion = figures["per_class"], figures["confusion"]
    judged = [r["class"] for r in rows if r["n"]]
    notes = []
    if confusion and len(judged) == 1:
        notes.append(
            f"only class {judged[0]} is judged: macro F1 and balanced accuracy are of it alone, and say nothing of the others"
        )
    if any(t is None for t in trained):
        return [], notes
    known = {c for t in trained for c in t or ()}
    notes += _cannot_know([c for c in judged if c not in known])
    said = np.sum(confusion, axis=0) if confusion else np.zeros(len(rows))
    absent = [r["class"] for r, n in zip(rows, said, strict=True) if r["class"] not in known and not r["n"] and not n]
    return absent, notes + ([f"nobody in training or judged has {', '.join(absent)}: left out of tables"] if absent else [])


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
