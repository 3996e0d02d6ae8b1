"""Other locked models beside the one that is judged: from scratch, of another hospital, of another seed, on the very same rows.

What lives here: which models may stand there, and their scores with paired differences, as rows of the table of simple models.
Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics
from biossl.checkpoint import require_match
from biossl.corpus import Corpus, seen
from biossl.downstream.model import Model, load_model, read_rows
from biossl.downstream.predictions import calibrated
from biossl.downstream.units import Units
from biossl.errors import DataError, RequestError
from biossl.protocol import Target

Array = NDArray[Any]


@dataclass(frozen=True)
class Other:
    """A locked model that stands beside: what it is called in the table, where it lies."""

    name: str
    run: str
    model: Model


def seen_by(model: Model, corpus: Corpus, rows: Array, split: str | None) -> int:
    """How many subjects of the rows a model or its encoder have seen; in a within-subject split by their judged recordings."""
    found = model.about["seen"]["subjects"]
    return seen(corpus, rows, found.split() if isinstance(found, str) else list(found), split=split)


def open_others(runs: Sequence[str | Path], model: Model, corpus: Corpus, *, adapt: bool = False) -> list[Other]:
    """Load models of the same label.

    Parameters
    ----------
    runs : sequence of path
        Run or model folders of `biossl finetune`.
    model : Model
        That is judged.
    corpus : Corpus
        That it is judged on.
    adapt : bool
        Accept a corpus with other channels or filters than a model's.

    Raises
    ------
    RequestError
        Not a model folder, or a model of another label.
    DataError
        The corpus does not fit it, or it does not know a class.
    """
    out = []
    for run in runs:
        other = load_model(run)
        mine, theirs = ((m.about.get("label"), m.kind) for m in (model, other))
        if mine != theirs:
            raise RequestError(
                f"--beside {run}: a model of '{theirs[0]}' ({theirs[1]}); the judged one is of '{mine[0]}' ({mine[1]}), give one of that"
            )
        absent = [c for c in model.classes if c not in other.classes] if model.kind != "binary" else []
        if absent:
            raise DataError(
                f"--beside {run}: it does not know class {', '.join(absent)}, so the two are not comparable; leave it out"
            )
        try:
            require_match(other.encoder.spec, corpus.spec, adapt=adapt)
        except DataError as error:
            raise DataError(f"--beside {run}: {error}") from None
        out.append(Other(f"{run} (from scratch)" if other.about.get("scratch") else str(run), str(run), other))
    return out


def judge_others(
    others: Sequence[Other], model: Model, corpus: Corpus, rows: Array, units: Units, target: Target, p: Array, people: Array, *,
    split: str | None, adapt: bool, allow_seen: bool, seed: int,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Scores of other locked models and paired differences to the judged one.

    Parameters
    ----------
    others : sequence of Other
    model : Model
        That is judged.
    corpus : Corpus
    rows : ndarray of int, (n,)
        Rows of judged windows.
    units : Units
        What they are judged together as.
    target : Target
        Of the units.
    p : ndarray, (m, K) or (m,)
        The judged model's predictions of the units.
    people : ndarray of str, (m,)
        What is resampled: subjects, or recordings of a within-subject split.
    split : str or None
        That is judged.
    adapt, allow_seen : bool
        As in :func:`~biossl.downstream.evaluate.evaluate`.
    seed : int
        Of resamples.

    Returns
    -------
    list of dict
        ``model``, ``run``, ``sha256``, ``seen``, ``score``, ``minus`` (judged minus other, paired).
    list of str
        Notes.

    Raises
    ------
    DataError
        One of them has seen judged subjects.
    """
    out, notes = [], []
    total = int(corpus.index["subject"].iloc[rows].nunique())
    for other in others:
        known = seen_by(other.model, corpus, rows, split)
        if known and not allow_seen:
            raise DataError(
                f"--beside {other.run}: it has seen {known} of the {total} judged subjects, so it would look better than it is; leave it out, "
                "or add --allow-seen"
            )
        if known:
            notes.append(f"{other.run} has seen {known} of the {total} judged subjects (--allow-seen): its row is optimistic")
        prediction, features = read_rows(other.model, corpus, rows, adapt=adapt, desc="beside")
        blank = int((~np.isfinite(features).all(axis=1)).sum())
        if blank:
            notes.append(f"{other.run} sees no sample of {blank} of the judged windows, and is judged on them all the same")
        q = calibrated(other.model, prediction)
        if model.kind in ("multiclass", "multilabel", "ordinal"):
            q = q[:, [other.model.classes.index(c) for c in model.classes]]
            strange = 1.0 - q.sum(axis=1, keepdims=True)
            if model.kind != "multilabel" and (strange > 1e-6).any():  # what it gave to classes the judged model does not know
                q = q / np.maximum(q.sum(axis=1, keepdims=True), 1e-12)
        q = units.pool(q)
        score = metrics.subject_bootstrap(target.y, q, people, target.metric, seed=seed).to_dict()
        minus = metrics.paired_difference(target.y, p, q, people, target.metric, seed=seed).to_dict()
        row = {"model": other.name, "run": other.run, "sha256": other.model.about["weights"]["sha256"], "seen": known}
        out.append(row | {"score": score, "minus": minus})
    return out, notes
