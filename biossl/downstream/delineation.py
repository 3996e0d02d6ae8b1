"""A locked dense model judged on people it has never seen: boundaries of waves, or episodes, with intervals over subjects.

What lives here: :func:`judge`, plain values for ``results.json`` and the table of waves. Waves (events of kind ``wave``) are judged by
their onsets and offsets, each channel alone (``metrics/boundaries.py``: one to one within 150 ms, and where the label says so only
between a channel's first and last annotated boundary); other events as episodes (``metrics/episodes.py``). Beside a model of the waves
of an ECG stands NeuroKit2's delineation of the same leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.baselines import neurokit_waves
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.downstream.decoding import Stretch, joined, stretches
from biossl.downstream.dense import DenseTask, of_channel, reference_of
from biossl.downstream.events import decoder_of, events_of, far_windows
from biossl.downstream.model import Model
from biossl.errors import DataError
from biossl.metrics.arrays import ratio
from biossl.metrics.boundaries import SIDES, STATISTICS, WINDOW_S, annotated_span, boundary_counts, score_boundaries
from biossl.metrics.episodes import EpisodeCounts, count_episodes, score_episodes
from biossl.metrics.events import match_events
from biossl.metrics.intervals import counts_bootstrap, counts_difference
from biossl.progress import Progress

Array = NDArray[Any]
WAVE = "wave"
METRICS = {True: "boundary_f1", False: "duration_f1"}  # the score that decides: of waves, of episodes
NEUROKIT = "NeuroKit2 (dwt)"
_NEUROKIT_WAVES = ("P", "QRS", "T")


@dataclass
class _Line:
    """Counts of one channel of one stretch and class: boundaries (2, 6), and the rival's."""

    subject: str
    record: str
    channel: str
    label: str
    counts: Array
    rival: Array | None = None


def judge(
    model: Model, corpus: Corpus, task: DenseTask, rows: Array, *, adapt: bool, baselines: bool, seed: int
) -> tuple[dict[str, Any], pd.DataFrame, list[str]]:
    """Scores of a dense model on rows.

    Parameters
    ----------
    model : Model
    corpus : Corpus
    task : DenseTask
        Its label there, of the same classes.
    rows : ndarray of int
        Judged windows.
    adapt : bool
    baselines : bool
        Put NeuroKit2 beside a model of P, QRS or T.
    seed : int
        Of resamples.

    Returns
    -------
    dict
        ``metric``, ``scores``, ``counts``, ``per_subject``, ``rivals``, and of waves ``waves`` and ``per_channel``, of others ``episodes``.
    DataFrame
        One row a detected and an annotated event (``source`` model or reference), of waves with the error of each matched boundary.
    list of str
        Notes.

    Raises
    ------
    DataError
        Model and label differ in classes or in being of channels; nothing can be judged.
    """
    decoder = decoder_of(model)
    if task.classes != model.classes or bool(task.channels) != decoder.per_channel:
        raise DataError(
            f"{corpus.path}: label '{task.label}' has classes {', '.join(task.classes)}, the model {', '.join(model.classes)}"
            f"{'' if bool(task.channels) == decoder.per_channel else ', and one of them is of single channels'}; they must be the same"
        )
    names = tuple(corpus.spec.ch_names[i] for i in require_match(model.encoder.spec, corpus.spec, adapt=adapt).rows)
    task = task.of_channels(names)
    subject = corpus.index["subject"].astype(str).to_numpy()
    wave = task.event_kind == WAVE
    by_record = {str(k): v for k, v in task.marks.groupby("record", sort=False)}
    use_rival = baselines and wave and corpus.spec.modality == "ecg" and set(task.events) <= set(_NEUROKIT_WAVES)
    notes: list[str] = []
    lines: list[_Line] = []
    episodes: list[tuple[str, str, EpisodeCounts]] = []
    tables: list[pd.DataFrame] = []
    broken = left_out = 0
    with Progress(len(rows), "judge", "windows") as bar:
        for stretch, features in stretches(model, corpus, rows, per_channel=decoder.per_channel, adapt=adapt):
            who = subject[stretch.rows[0]]
            found = events_of(stretch, model.classes, names, decoder, far_windows(model, features))
            marks = by_record.get(stretch.record, task.marks.iloc[:0])
            if wave:
                x = _signal(corpus, stretch, names) if use_rival else None
                more, table, failed, empty = _waves(task, stretch, who, found, marks, x)
                lines += more
                broken, left_out = broken + failed, left_out + empty
            else:
                more_episodes, table = _episodes(task, stretch, found, marks)
                episodes += [(who, name, counts) for name, counts in more_episodes]
            table.insert(0, "subject", who)
            tables.append(table)
            bar.update(len(stretch.rows))
    if not (lines or episodes):
        raise DataError(f"{corpus.path}: no channel has an annotated '{task.label}' in the judged windows")
    if left_out:
        notes.append(f"{left_out} channels of recordings have no annotated boundary and are left out")
    if broken:
        notes.append(f"{NEUROKIT} found nothing in {broken} channels of recordings, which count as missed")
    out = _of_waves(task, lines, seed, use_rival) if wave else _of_episodes(episodes, task.events, seed)
    # what results of windows have besides, so that every reader finds its keys
    out |= {
        "groups": {},
        "per_class": [],
        "confusion": None,
        "calibration": None,
        "thresholds": [],
        "coverage": [],
        "unfamiliar": None,
    }
    out["counts"] = {
        "windows": len(rows), "records": int(corpus.index["record"].iloc[rows].nunique()), "subjects": len(np.unique(subject[rows])),
    }  # fmt: skip
    if wave:
        out["counts"]["classes"] = {
            c: int(sum(v.counts[0, 0] for v in lines if v.label == c)) for c in task.events
        }  # fmt: skip
    return out, pd.concat(tables, ignore_index=True), notes


# ---------------------------------------------------------------------------------------------- waves


def _waves(
    task: DenseTask, stretch: Stretch, who: str, found: pd.DataFrame, marks: pd.DataFrame, x: Array | None
) -> tuple[list[_Line], pd.DataFrame, int, int]:
    """Counts of every channel and class of a stretch; its waves; leads NeuroKit2 failed in; channels without a boundary."""
    lines: list[_Line] = []
    tables: list[pd.DataFrame] = []
    broken = empty = 0
    found = found.assign(source="model")
    for c, channel in enumerate(task.channels or ("",)):
        reference = {k: reference_of(marks, channel, task.classes.index(k)) for k in task.events}
        reference = {k: v[_inside(v, stretch)] for k, v in reference.items()}
        if task.judged == "annotated":
            try:
                span = annotated_span(*reference.values())
            except DataError:
                empty += 1
                continue
        else:
            span = (stretch.start_s, stretch.end_s)
        other: dict[str, Array] | None = None
        if x is not None:
            try:
                other = neurokit_waves(x[c], stretch.sfreq)
            except ValueError:
                other, broken = {}, broken + 1
        mine = found[found["channel"] == channel]
        for name in task.events:
            waves = mine[mine["label"] == name]
            bounds = np.stack([waves["onset_s"], waves["onset_s"] + waves["duration_s"]], axis=1)
            rival = None
            if other is not None:
                rival = boundary_counts(reference[name], other.get(name, np.zeros((0, 2))) + stretch.start_s, span)
            counts = boundary_counts(reference[name], bounds, span)
            lines.append(_Line(who, stretch.record, channel, name, counts, rival))
            tables += _wave_rows(stretch.record, channel, name, reference[name], waves, bounds)
    columns = [
        "record",
        "channel",
        "label",
        "source",
        "onset_s",
        "duration_s",
        "probability",
        "onset_error_ms",
        "offset_error_ms",
    ]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return lines, table[[*columns, *(k for k in ("unfamiliar",) if k in table)]], broken, empty


def _inside(waves: Array, stretch: Stretch) -> Array:
    """Waves whose annotated parts lie in the stretch."""
    low, high = np.nanmin(waves, axis=1, initial=np.inf), np.nanmax(waves, axis=1, initial=-np.inf)
    return (low >= stretch.start_s - 1e-9) & (high <= stretch.end_s + 1e-9)


def _wave_rows(
    record: str, channel: str, name: str, reference: Array, waves: pd.DataFrame, bounds: Array
) -> list[pd.DataFrame]:  # fmt: skip
    """Detected and annotated waves of a class, each with the error of its matched boundaries (detected minus annotated, ms)."""
    own = waves.assign(onset_error_ms=np.nan, offset_error_ms=np.nan)
    true = pd.DataFrame({
        "record": record, "channel": channel, "label": name, "source": "reference",
        "onset_s": np.where(np.isfinite(reference[:, 0]), reference[:, 0], reference[:, 1]),
        "duration_s": np.nan_to_num(reference[:, 2] - reference[:, 0]), "probability": np.nan, "onset_error_ms": np.nan,
        "offset_error_ms": np.nan,
    })  # fmt: skip
    for side, word in enumerate(SIDES):
        there = np.flatnonzero(np.isfinite(reference[:, 2 * side]))
        i, j = match_events(reference[there, 2 * side], bounds[:, side], WINDOW_S)
        error = 1e3 * (bounds[j, side] - reference[there[i], 2 * side])
        own.iloc[j, own.columns.get_loc(f"{word}_error_ms")] = error
        true.iloc[there[i], true.columns.get_loc(f"{word}_error_ms")] = error
    return [v for v in (own, true) if len(v)]


def _signal(corpus: Corpus, stretch: Stretch, names: Sequence[str]) -> Array:
    """What was recorded in a stretch (C, T), NaN where nothing was observed."""
    columns = [corpus.spec.ch_names.index(n) for n in names]
    out = np.full((len(names), stretch.p.shape[-1]), np.nan, np.float32)
    for row, (start, _) in zip(stretch.rows, stretch.windows, strict=True):
        i = round((start - stretch.start_s) * stretch.sfreq)
        out[:, i : i + corpus.spec.n_samples] = corpus.signal([row])[0, columns]
    return out


def _macro(table: Array) -> Array:
    """Mean over classes and sides of F1; counts (R, K * 2 * 6)."""
    parts = table.reshape(len(table), -1, 6)
    each = np.stack([STATISTICS["f1"](parts[:, i]) for i in range(parts.shape[1])], axis=1)
    there = np.isfinite(each)
    return ratio(np.where(there, each, 0.0).sum(axis=1), there.sum(axis=1))


def _by_record(lines: Sequence[_Line], classes: Sequence[str], rival: bool) -> tuple[Array, Array]:
    """Counts added over the channels of each record (n_records, K * 2 * 6), and whose they are."""
    table: dict[tuple[str, str], Array] = {}
    for v in lines:
        row = table.setdefault((v.subject, v.record), np.zeros((len(classes), 2, 6)))
        row[classes.index(v.label)] += cast(Array, v.rival) if rival else v.counts
    return np.array([v.reshape(-1) for v in table.values()]), np.array([s for s, _ in table])


def _summary(counts: Array) -> dict[str, Any]:
    """Statistics of added counts (2, 6) as plain numbers, without intervals."""
    out: dict[str, Any] = {}
    for i, side in enumerate(SIDES):
        out[side] = {"n": int(counts[i, 0])} | {k: float(f(counts[None, i])[0]) for k, f in STATISTICS.items()}
    return out


def _of_waves(task: DenseTask, lines: list[_Line], seed: int, use_rival: bool) -> dict[str, Any]:
    classes = task.events
    subjects = [v.subject for v in lines]
    table, people = _by_record(lines, classes, False)
    out: dict[str, Any] = {"metric": METRICS[True], "tolerance_ms": 1e3 * WINDOW_S, "judged": task.judged}
    out["scores"] = {METRICS[True]: counts_bootstrap(table, people, _macro, seed=seed).to_dict()}

    def pooled(rival: bool) -> dict[str, Any]:
        found = {}
        for name in classes:
            some = [k for k, v in enumerate(lines) if v.label == name]
            counts = [cast(Array, lines[k].rival) if rival else lines[k].counts for k in some]
            scores = score_boundaries(counts, [subjects[k] for k in some], seed=seed)
            found[name] = {side: {k: v.to_dict() for k, v in each.items()} for side, each in scores.items()}
        return found

    out["waves"] = pooled(False)
    out["per_channel"] = [
        {"channel": channel, "class": name} | _summary(_added(lines, name, channel=channel))
        for name in classes for channel in task.channels or ("",)
    ]  # fmt: skip
    out["per_subject"] = [
        {"subject": who, METRICS[True]: _number(_macro(table[people == who].sum(axis=0, keepdims=True)))}
        | {name: _f1(_added(lines, name, subject=who)) for name in classes}
        for who in sorted(set(subjects))
    ]
    out["rivals"] = []
    if use_rival:
        other, _ = _by_record(lines, classes, True)
        out["rivals"].append({
            "model": NEUROKIT, "score": counts_bootstrap(other, people, _macro, seed=seed).to_dict(),
            "minus": counts_difference(table, other, people, _macro, seed=seed).to_dict(), "waves": pooled(True),
        })  # fmt: skip
    return out


def _added(lines: Sequence[_Line], name: str, *, channel: str | None = None, subject: str | None = None) -> Array:
    some = [v.counts for v in lines if v.label == name and channel in (None, v.channel) and subject in (None, v.subject)]
    return np.sum(some, axis=0) if some else np.zeros((2, 6))


def _f1(counts: Array) -> float | None:
    """Of onsets and offsets together; None where the subject has no such wave."""
    return _number(STATISTICS["f1"](counts.sum(axis=0, keepdims=True)))


def _number(values: Array) -> float | None:
    """The one value, None where it is none."""
    return float(values[0]) if np.isfinite(values[0]) else None


# ---------------------------------------------------------------------------------------------- episodes


def _episodes(
    task: DenseTask, stretch: Stretch, found: pd.DataFrame, marks: pd.DataFrame
) -> tuple[list[tuple[str, EpisodeCounts]], pd.DataFrame]:
    """Counts of each class over every known span of each channel of a stretch, and the events."""
    out: list[tuple[str, EpisodeCounts]] = []
    tables = [found.assign(source="model")]
    for channel in task.channels or ("",):
        mine = of_channel(marks, channel) if task.channels else marks
        mine = mine[(mine["end_s"] > stretch.start_s) & (mine["onset_s"] < stretch.end_s)]
        for low, high in _known_spans(task, stretch, mine):
            for code, name in enumerate(task.classes):
                if name == task.background:
                    continue
                true = joined(mine[mine["code"] == code][["onset_s", "end_s"]].to_numpy(float))
                said = found[(found["channel"] == channel) & (found["label"] == name)]
                bounds = np.stack([said["onset_s"], said["onset_s"] + said["duration_s"]], axis=1)
                out.append((name, count_episodes(true, bounds, high, start_s=low)))
        true = mine[mine["code"] >= 0]
        tables.append(pd.DataFrame({
            "record": stretch.record, "channel": channel, "label": [task.classes[k] for k in true["code"]],
            "onset_s": true["onset_s"].to_numpy(), "duration_s": (true["end_s"] - true["onset_s"]).to_numpy(), "source": "reference",
        }))  # fmt: skip
    return out, pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def _known_spans(task: DenseTask, stretch: Stretch, marks: pd.DataFrame) -> Array:
    """Spans of a stretch in which every sample has a class, (n, 2): with a background all but events of no class."""
    whole = np.array([[stretch.start_s, stretch.end_s]])
    if task.background:
        out, at = [], stretch.start_s
        for a, b in joined(marks[marks["code"] < 0][["onset_s", "end_s"]].to_numpy(float)):
            out.append((at, a))
            at = max(at, b)
        return np.array([(a, b) for a, b in [*out, (at, stretch.end_s)] if b > a]).reshape(-1, 2)
    known = joined(marks[marks["code"] >= 0][["onset_s", "end_s"]].to_numpy(float))
    known = np.clip(known, whole[0, 0], whole[0, 1])
    return known[known[:, 1] > known[:, 0]]


def _of_episodes(found: list[tuple[str, str, EpisodeCounts]], classes: Sequence[str], seed: int) -> dict[str, Any]:
    out: dict[str, Any] = {"metric": METRICS[False], "episodes": {}, "rivals": []}
    for name in classes:
        some = [(who, counts) for who, label, counts in found if label == name]
        scores = score_episodes([c for _, c in some], [w for w, _ in some], seed=seed)
        out["episodes"][name] = {k: {how: v.to_dict() for how, v in each.items()} for k, each in scores.items()}
    people = [who for who, *_ in found]
    table = np.zeros((len(found), len(classes), 8))
    for k, (_, name, counts) in enumerate(found):
        table[k, classes.index(name)] = astuple(counts)
    flat = table.reshape(len(table), -1)
    out["scores"] = {METRICS[False]: counts_bootstrap(flat, people, _macro_duration, seed=seed).to_dict()}
    out["per_subject"] = []
    for who in sorted(set(people)):
        mine = table[np.array(people) == who].sum(axis=0)
        each = {METRICS[False]: _macro_duration(mine.reshape(1, -1))}
        each |= {name: _duration_f1(mine[k : k + 1]) for k, name in enumerate(classes)}
        out["per_subject"].append({"subject": who} | {k: _number(v) for k, v in each.items()})
    return out


def _duration_f1(counts: Array) -> Array:
    """2 shared / (annotated + detected) seconds; NaN where nothing is annotated."""
    return np.where(counts[:, 5] > 0, ratio(2 * counts[:, 7], counts[:, 5] + counts[:, 6]), np.nan)


def _macro_duration(flat: Array) -> Array:
    """Mean over classes of the F1 of seconds."""
    parts = flat.reshape(len(flat), -1, 8)
    each = np.stack([_duration_f1(parts[:, k]) for k in range(parts.shape[1])], axis=1)
    there = np.isfinite(each)
    return ratio(np.where(there, each, 0.0).sum(axis=1), there.sum(axis=1))
