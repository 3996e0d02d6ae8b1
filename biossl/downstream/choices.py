"""What is chosen in a fine-tuning, by whom, and what is locked with its model.

What lives here: how long to train, pseudo-labels, calibration and limits: all by the part ``val`` or by held-out subjects of the training
part. The part ``test`` is not read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import protocol
from biossl.corpus.within import is_within_subject
from biossl.downstream.decoding import fit_decoder, macro_f1, sample_confusion
from biossl.downstream.dense import class_counts
from biossl.downstream.fitting import Case, learnable, model_at, steps_of, train_rows
from biossl.downstream.lock import Lock, fit_lock
from biossl.downstream.model import Model, Task, predict_rows, score
from biossl.downstream.ood import MEMORY_ROWS
from biossl.inference import embed_corpus
from biossl.objectives.supervised import Supervised

Array = NDArray[Any]
TRUST = 0.95  # share of pseudo-labels that must be right on held-out training subjects
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def choose_steps(
    case: Case, objective: Supervised, train: Array, val: Array, subjects: Array, run: Path
) -> tuple[int, tuple[Array, Array, float | None] | None, str, str]:
    """Step to stop at; held-out rows, their predictions and score; by what; one line."""
    task, steps = case.task, steps_of(run)
    fits: list[tuple[Supervised, Array, Path]] = []
    lost = 0  # grouped folds in which nothing can be learnt
    few = "" if len(val) else "no labelled part val"
    few = few or _one_sided(task, val)
    if not few:
        by, fits = "val", [(objective, val, run)]
    else:
        by = "train"
        kind = {"ordinal": "multiclass"}.get(task.kind, task.kind)
        if kind == "dense":  # folds by subject alone
            y = np.zeros(len(train))
        else:
            y = task.values[train][:, 0] if kind in ("multiclass", "binary", "regression") else task.values[train]
        target = protocol.Target(kind, y.astype(np.float64), task.classes)
        for k, (a, b) in enumerate(protocol.grouped_folds(target, subjects[train], protocol.CHOICE_FOLDS, case.seed)):
            if not learnable(case.corpus, task, train[a]):
                lost += 1
                continue
            fits.append((train_rows(case, train[a], run / "choice" / f"fold{k}"), train[b], run / "choice" / f"fold{k}"))
    who = "recording" if is_within_subject(case.corpus, case.split) else "subject"
    if not fits:
        why = f"too few labelled {who}s of each class to hold some out" if lost else f"one labelled {who}"
        return steps[-1], None, by, f"{why} and {few}: nothing to choose by, the last weights are taken"
    rows = np.concatenate([b for _, b, _ in fits])
    found = []
    for step in steps:
        if task.kind == "dense":  # predictions of samples are counted batch by batch, never held
            tables = [
                sample_confusion(model_at(fitted, where, step), case.corpus, task, b, adapt=case.adapt)
                for fitted, b, where in fits
            ]
            found.append((step, np.empty(0), macro_f1(np.sum(tables, axis=0))))
            continue
        held = np.concatenate(
            [
                predict_rows(model_at(fitted, where, step), case.corpus, b, adapt=case.adapt, desc=None)
                for fitted, b, where in fits
            ]
        )
        found.append((step, held, score(task, rows, held)))
    known = [f for f in found if np.isfinite(f[2])]
    of = f"{len(fits)} of {len(fits) + lost}" if lost else f"{len(fits)}"
    on = f"part val ({len(rows)} windows)" if by == "val" else f"{of} grouped folds of the training {who}s ({few})"
    if not known:
        return steps[-1], (rows, found[-1][1], None), by, f"no score can be computed on {on}: the last weights are taken"
    step, held, best = max(known, key=lambda f: (f[2], f[0]))  # of equals the later one
    return (
        step,
        (rows, held, float(best)),
        by,
        f"weights after step {step} of {case.steps}: score {best:.4f} on {on}, last {found[-1][2]:.4f}",
    )


def _one_sided(task: Task, rows: Array) -> str:
    """Why nothing can be chosen by these rows; '' when they hold two classes, values or an event."""
    if task.kind == "dense":
        return "" if (class_counts(task, rows) > 0).sum() > 1 else "part val holds one class only"
    y = task.values[rows]
    columns = list(y.T) if task.kind in ("multilabel", "binary") else [y[:, 1]] if task.kind == "survival" else [y]
    if task.kind == "survival":
        return "" if (columns[0] == 1).any() else "no event in part val"
    if any(len(np.unique(c[~np.isnan(c)])) > 1 for c in columns):
        return ""
    return f"part val holds one {'value' if task.kind == 'regression' else 'class'} only"


def lock_of(case: Case, model: Model, rows: Array, subjects: Array, held: tuple[Array, Array, float | None] | None) -> Lock:
    """Calibration and thresholds by the held-out predictions; what is familiar by the rows that were trained on or chosen by."""
    task = case.task
    some = rows[protocol.spread(len(rows), MEMORY_ROWS, case.seed)]
    features = embed_corpus(model.encoder, case.corpus, some, adapt=case.adapt, desc="familiar")
    seen = np.isfinite(features).all(axis=1)
    numbers = (
        np.nan_to_num(task.values[some][:, 0], nan=-1.0).astype(np.int64) if task.kind in ("multiclass", "ordinal") else None
    )
    if task.kind == "dense":
        lock = fit_lock("dense", task.classes, None, None, features=features[seen], subjects=subjects[some][seen])
        return replace(lock, decoder=fit_decoder(task, sorted(set(subjects[rows]))))
    y, p = (None, None) if held is None else (task.values[held[0]].astype(np.float64), held[1])
    return fit_lock(
        task.kind, task.classes, y, p, features=features[seen], subjects=subjects[some][seen],
        numbers=None if numbers is None else numbers[seen],
    )  # fmt: skip


def pseudo_labels(
    case: Case, model: Model, train: Array, part: Array, held: tuple[Array, Array, float | None] | None
) -> tuple[Task | None, str]:
    """The task with pseudo-labels of the unlabelled training windows, or None and why not."""
    task = case.task
    others = np.setdiff1d(part, train)
    if not len(others):
        return None, "self-training: every training window is labelled, there is nothing to add"
    if held is None:
        return None, "self-training: nobody is held out in training, so no confidence can be chosen; left out"
    rows, prediction, _ = held
    sure, said = _surest(prediction)
    right = said == task.values[rows][:, 0]
    trusted = [c for c in CONFIDENCES if (sure >= c).any() and right[sure >= c].mean() >= TRUST]
    if not trusted:
        return None, f"self-training: at no confidence are {TRUST:.0%} of held-out predictions right; left out"
    sure, said = _surest(predict_rows(model, case.corpus, others, adapt=case.adapt))
    taken = sure >= trusted[0]
    values = np.full_like(task.values, np.nan)
    values[train] = task.values[train]
    values[others[taken], 0] = said[taken]
    text = (
        f"self-training: {int(taken.sum())} of {len(others)} unlabelled training windows at confidence {trusted[0]:g} and above"
    )
    return (replace(task, values=values), text) if taken.any() else (None, text + "; left out")


def _surest(prediction: Array) -> tuple[Array, Array]:
    """Probability of the likelier answer, and that answer."""
    if prediction.shape[1] == 1:
        prediction = np.concatenate([1 - prediction, prediction], axis=1)
    return prediction.max(axis=1), prediction.argmax(axis=1)
