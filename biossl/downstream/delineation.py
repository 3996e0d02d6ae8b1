"""Scores of a locked dense model's waves or episodes, with intervals over subjects: of one model, or of folds and seeds together.

What lives here: :func:`judge` for one model, and :func:`event_figures`, plain values for ``results.json`` from counts that were added over
recordings, channels and folds (``event_counts.py``). Of several seeds a value is the mean over them, and an interval draws subjects and
averages the seeds inside each draw. Beside a model of the waves of an ECG stands NeuroKit2's delineation of the same leads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.downstream.dense import DenseTask
from biossl.downstream.event_counts import NEUROKIT, WAVE, Counted, count_events
from biossl.downstream.model import Model
from biossl.errors import DataError
from biossl.metrics.arrays import ratio
from biossl.metrics.boundaries import SIDES, STATISTICS, WINDOW_S
from biossl.metrics.episodes import STATISTICS as OF_EPISODES
from biossl.metrics.events import each_record, mean_of_records
from biossl.metrics.over_seeds import SeedScores, seed_counts, seed_counts_difference, subject_means

Array = NDArray[Any]
METRICS = {True: "boundary_f1", False: "duration_f1"}  # the score that decides: of waves, of episodes


def judge(
    model: Model, corpus: Corpus, task: DenseTask, rows: Array, *, adapt: bool, baselines: bool, seed: int
) -> tuple[dict[str, Any], pd.DataFrame, list[str]]:
    """Scores of a dense model on rows.

    Parameters
    ----------
    model, corpus, task, rows, adapt
        As in :func:`~biossl.downstream.event_counts.count_events`.
    baselines : bool
        Put NeuroKit2 beside a model of P, QRS or T.
    seed : int
        Of resamples.

    Returns
    -------
    dict
        Of :func:`event_figures`, ``counts``, and empty what results of windows have besides.
    DataFrame
        Of :class:`~biossl.downstream.event_counts.Counted`.
    list of str
        Notes.

    Raises
    ------
    DataError
        Model and label differ in classes or in being of channels; nothing can be judged.
    """
    counted = count_events(model, corpus, task, rows, adapt=adapt, rival=baselines)
    out = event_figures([counted], corpus, task, seed=seed)
    # what results of windows have besides, so that every reader finds its keys
    out |= {
        "groups": {},
        "per_class": [],
        "absent": [],
        "confusion": None,
        "calibration": None,
        "thresholds": [],
        "coverage": [],
        "unfamiliar": None,
    }
    out["counts"] = event_counts(counted, corpus, task, rows)
    return out, counted.table, counted.notes


def event_counts(counted: Counted, corpus: Corpus, task: DenseTask, rows: Array) -> dict[str, Any]:
    """Judged windows, records and subjects, and of waves annotated onsets of each class."""
    index = corpus.index.iloc[rows]
    out: dict[str, Any] = {"windows": len(rows), "records": index["record"].nunique(), "subjects": index["subject"].nunique()}
    if task.event_kind == WAVE:
        out["classes"] = {c: int(counted.counts[counted.keys["label"] == c, 0].sum()) for c in task.events}
    return out


def event_figures(
    several: Sequence[Counted], corpus: Corpus, task: DenseTask, *, seed: int, seeds: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Scores of counts.

    Parameters
    ----------
    several : sequence of Counted
        Of the same rows, one a seed of the training; NeuroKit2 is taken from the first.
    corpus : Corpus
    task : DenseTask
    seed : int
        Of resamples.
    seeds : bool
        Say what each seed gives: ``min``, ``max`` and ``seeds`` beside each value, and ``subject_means``.

    Returns
    -------
    dict
        ``metric``, ``scores``, ``per_subject``, ``rivals``, and of waves ``waves`` and ``per_channel``, of others ``episodes``.

    Raises
    ------
    DataError
        Nothing was counted, or not the same under every seed.
    """
    keys = several[0].keys
    if not len(keys):
        raise DataError(f"{corpus.path}: no channel has an annotated '{task.label}' in the judged windows")
    if any(not c.keys.equals(keys) for c in several):
        raise DataError(f"{corpus.path}: other recordings or channels are judged under one seed than under another")
    wave, classes = task.event_kind == WAVE, task.events
    tables = [_added(c.counts, keys, "subject", classes) for c in several]
    people = sorted(set(keys["subject"]))
    say, spread = (SeedScores.to_dict, _spread) if seeds else (_mean, _alone)
    name, macro = METRICS[wave], _macro_of(wave)
    out: dict[str, Any] = {"metric": name, "scores": {name: say(seed_counts(_flat(tables), people, macro, seed=seed))}}
    own = _each_subject(tables, macro)
    if seeds:
        out["subject_means"] = {name: subject_means(own, seed=seed).to_dict()}
    out["per_subject"] = [
        {"subject": who, name: spread(own[:, k])} | _subject([t[k] for t in tables], classes, wave, spread)
        for k, who in enumerate(people)
    ]
    out["rivals"] = []
    if not wave:
        out["episodes"] = _of_episodes(several, classes, say, seed)
        return out
    out |= {"tolerance_ms": 1e3 * WINDOW_S, "judged": task.judged, "waves": _of_waves(tables, people, classes, say, seed)}
    channels = sorted(set(keys["channel"]), key=[*task.channels, ""].index)
    lines = np.stack([_added(c.counts, keys, "channel", classes, order=channels) for c in several])
    out["per_channel"] = [
        {"channel": channel, "class": name} | _summary(lines[:, k, i], spread)
        for i, name in enumerate(classes) for k, channel in enumerate(channels)
    ]  # fmt: skip
    if several[0].rival is not None:
        other = [_added(several[0].rival, keys, "subject", classes)]
        entry = {
            "model": NEUROKIT, "score": _mean(seed_counts(_flat(other), people, macro, seed=seed)),
            "minus": seed_counts_difference(_flat(tables), _flat(other), people, macro, seed=seed).to_dict(),
            "waves": _of_waves(other, people, classes, _mean, seed),
        }  # fmt: skip
        if seeds:
            theirs = _each_subject(other, macro)
            gap = subject_means(own.mean(axis=0) - theirs.mean(axis=0), seed=seed)
            entry["subject_means"] = {name: {"score": _mean(subject_means(theirs, seed=seed)), "minus": _mean(gap)}}
        out["rivals"].append(entry)
    return out


def spread_of_seeds(several: Sequence[Counted], task: DenseTask) -> dict[str, Any]:
    """The main score without an interval: mean over seeds, ``min`` and ``max``; one entry a seed, of the same rows."""
    macro = _macro_of(task.event_kind == WAVE)
    tables = [_added(c.counts, c.keys, "subject", task.events) for c in several]
    return _spread(np.array([macro(t.sum(axis=0).reshape(1, -1))[0] for t in tables]))


# ---------------------------------------------------------------------------------------------- sums


def _added(counts: Array, keys: pd.DataFrame, by: str, classes: Sequence[str], *, order: Sequence[str] | None = None) -> Array:
    """Counts added by subject (sorted) or channel and by class, (n, K, W)."""
    order = sorted(set(keys[by])) if order is None else order
    row, column = (
        keys[k].map({v: i for i, v in enumerate(names)}).to_numpy(np.int64) for k, names in ((by, order), ("label", classes))
    )
    out = np.zeros((len(order), len(classes), counts.shape[1]))
    np.add.at(out, (row, column), counts)
    return out


def _flat(tables: Sequence[Array]) -> list[Array]:
    return [t.reshape(len(t), -1) for t in tables]


def _each_subject(tables: Sequence[Array], macro: Callable[[Array], Array]) -> Array:
    """(n_seeds, n_subjects)."""
    return np.stack([macro(t) for t in _flat(tables)])


def _macro_of(wave: bool) -> Callable[[Array], Array]:
    """Mean over classes (and sides) of F1, of sums (R, K * W)."""
    width, f1 = (6, STATISTICS["f1"]) if wave else (8, _duration_f1)

    def macro(flat: Array) -> Array:
        parts = flat.reshape(len(flat), -1, width)
        each = np.stack([f1(parts[:, k]) for k in range(parts.shape[1])], axis=1)
        there = np.isfinite(each)
        return ratio(np.where(there, each, 0.0).sum(axis=1), there.sum(axis=1))

    return macro


def _duration_f1(counts: Array) -> Array:
    """2 shared / (annotated + detected) seconds; NaN where nothing is annotated."""
    return np.where(counts[:, 5] > 0, ratio(2 * counts[:, 7], counts[:, 5] + counts[:, 6]), np.nan)


# ---------------------------------------------------------------------------------------------- plain values


def _mean(scores: SeedScores) -> dict[str, Any]:
    return scores.mean.to_dict()


def _alone(values: Array) -> float | None:
    """The one value, None where it is none."""
    return float(values[0]) if np.isfinite(values[0]) else None


def _spread(values: Array) -> dict[str, Any]:
    """Mean over seeds and their range; None where a seed's cannot be computed."""
    if not np.isfinite(values).all():
        return {"value": None, "min": None, "max": None}
    return {"value": float(values.mean()), "min": float(values.min()), "max": float(values.max())}


def _of_waves(
    tables: Sequence[Array], people: Sequence[str], classes: Sequence[str], say: Callable[[SeedScores], dict[str, Any]], seed: int
) -> dict[str, Any]:  # fmt: skip
    """Statistics of every class and side, added over subjects."""
    out: dict[str, Any] = {}
    for k, name in enumerate(classes):
        sides = {side: [t[:, k, 6 * i : 6 * i + 6] for t in tables] for i, side in enumerate(SIDES)}
        out[name] = {
            side: {what: say(seed_counts(each, people, f, seed=seed)) for what, f in STATISTICS.items()}
            for side, each in sides.items()
        }
    return out


def _of_episodes(
    several: Sequence[Counted], classes: Sequence[str], say: Callable[[SeedScores], dict[str, Any]], seed: int
) -> dict[str, Any]:  # fmt: skip
    """Statistics of every class, added over spans and as means over them."""
    out: dict[str, Any] = {}
    for name in classes:
        some = (several[0].keys["label"] == name).to_numpy()
        tables, who = [c.counts[some] for c in several], several[0].keys["subject"][some]
        out[name] = {
            what: {
                "gross": say(seed_counts(tables, who, f, seed=seed)),
                "average": say(seed_counts([each_record(t, f) for t in tables], who, mean_of_records, seed=seed)),
            }
            for what, f in OF_EPISODES.items()
        }
    return out


def _subject(tables: Sequence[Array], classes: Sequence[str], wave: bool, spread: Callable[[Array], Any]) -> dict[str, Any]:
    """F1 of each class of one subject, of waves of onsets and offsets together, and the deviation of their errors; tables (K, W)."""
    several = np.stack(tables)
    if not wave:
        return {name: spread(_duration_f1(several[:, k])) for k, name in enumerate(classes)}
    sides = several.reshape(*several.shape[:2], 2, 6)
    out: dict[str, Any] = {name: spread(STATISTICS["f1"](sides[:, k].sum(axis=1))) for k, name in enumerate(classes)}
    out["sd_ms"] = {
        name: {side: spread(STATISTICS["sd_ms"](sides[:, k, i])) for i, side in enumerate(SIDES)}
        for k, name in enumerate(classes)
    }
    return out


def _summary(several: Array, spread: Callable[[Array], Any]) -> dict[str, Any]:
    """Counts and statistics (seeds, 12) of each side, without intervals: annotated ``n``, ``found``, ``detected`` and judged."""
    out: dict[str, Any] = {}
    for i, side in enumerate(SIDES):
        counts = several[:, 6 * i : 6 * i + 6]
        out[side] = {"n": int(counts[0, 0]), "found": spread(counts[:, 1]), "detected": spread(counts[:, 2])}
        out[side] |= {what: spread(f(counts)) for what, f in STATISTICS.items()}
    return out
