"""Waves of one stretch of a recording against the annotated ones: counts of boundaries, channel by channel.

What lives here: :func:`count_waves`, for the model's waves and NeuroKit2's, and the table of waves with the error of every matched
boundary. Rules of pairs are ``metrics/boundaries.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.baselines import neurokit_waves
from biossl.corpus import Corpus
from biossl.downstream.decoding import Stretch
from biossl.downstream.dense import DenseTask, reference_of
from biossl.errors import DataError
from biossl.metrics.boundaries import SIDES, WINDOW_S, annotated_span, boundary_counts
from biossl.metrics.events import match_events

Array = NDArray[Any]
COLUMNS = (
    "record", "channel", "label", "source", "onset_s", "duration_s", "probability", "onset_error_ms", "offset_error_ms",
    "missing",
)  # fmt: skip


@dataclass
class StretchWaves:
    """What was counted in a stretch.

    ``lines`` (channel, class, counts (12,), NeuroKit2's or None), ``table`` of waves, ``broken`` channels in which NeuroKit2 found nothing,
    ``empty`` ones without an annotated boundary.
    """

    lines: list[tuple[str, str, Array, Array | None]] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    broken: int = 0
    empty: int = 0


def count_waves(task: DenseTask, stretch: Stretch, found: pd.DataFrame, marks: pd.DataFrame, x: Array | None) -> StretchWaves:
    """Counts of every channel and class of a stretch, and its waves.

    Parameters
    ----------
    task : DenseTask
    stretch : Stretch
    found : DataFrame
        The model's events (:func:`~biossl.downstream.events.events_of`).
    marks : DataFrame
        The label's events of the record.
    x : ndarray, (C, T), or None
        The signal of the stretch, for NeuroKit2.
    """
    out = StretchWaves()
    tables: list[pd.DataFrame] = []
    found = found.assign(source="model")
    for c, channel in enumerate(task.channels or ("",)):
        reference = {k: reference_of(marks, channel, task.classes.index(k)) for k in task.events}
        reference = {k: v[_inside(v, stretch)] for k, v in reference.items()}
        if task.judged == "annotated":
            try:
                span = annotated_span(*reference.values())
            except DataError:
                out.empty += 1
                continue
        else:
            span = (stretch.start_s, stretch.end_s)
        other: dict[str, Array] | None = None
        if x is not None:
            try:
                other = neurokit_waves(x[c], stretch.sfreq)
            except ValueError:
                other, out.broken = {}, out.broken + 1
        mine = found[found["channel"] == channel]
        for name in task.events:
            waves = mine[mine["label"] == name]
            bounds = np.stack([waves["onset_s"], waves["onset_s"] + waves["duration_s"]], axis=1)
            rival = None
            if other is not None:
                rival = boundary_counts(reference[name], other.get(name, np.zeros((0, 2))) + stretch.start_s, span).reshape(-1)
            counts = boundary_counts(reference[name], bounds, span)
            out.lines.append((channel, name, counts.reshape(-1), rival))
            tables += _wave_rows(stretch.record, channel, name, reference[name], waves, bounds)
    if tables:
        table = pd.concat(tables, ignore_index=True)
        out.table = table[[*COLUMNS, *(k for k in ("unfamiliar",) if k in table)]]
    return out


def _inside(waves: Array, stretch: Stretch) -> Array:
    """Waves whose annotated parts lie in the stretch."""
    low, high = np.nanmin(waves, axis=1, initial=np.inf), np.nanmax(waves, axis=1, initial=-np.inf)
    return (low >= stretch.start_s - 1e-9) & (high <= stretch.end_s + 1e-9)


def _wave_rows(
    record: str, channel: str, name: str, reference: Array, waves: pd.DataFrame, bounds: Array
) -> list[pd.DataFrame]:  # fmt: skip
    """Detected and annotated waves of a class, each with the error of its matched boundaries (detected minus annotated, ms)."""
    own = waves.assign(onset_error_ms=np.nan, offset_error_ms=np.nan, missing="")
    known = np.isfinite(reference)
    start, end = (np.where(known[:, side], reference[:, side], reference[:, 1]) for side in (0, 2))
    missing = np.select([known[:, 0] & ~known[:, 2], ~known[:, 0] & known[:, 2], ~known[:, 0]], ["offset", "onset", "both"], "")
    true = pd.DataFrame({
        "record": record, "channel": channel, "label": name, "source": "reference", "onset_s": start, "duration_s": end - start,
        "probability": np.nan, "onset_error_ms": np.nan, "offset_error_ms": np.nan, "missing": missing,
    })  # fmt: skip
    for side, word in enumerate(SIDES):
        there = np.flatnonzero(np.isfinite(reference[:, 2 * side]))
        i, j = match_events(reference[there, 2 * side], bounds[:, side], WINDOW_S)
        error = 1e3 * (bounds[j, side] - reference[there[i], 2 * side])
        own.iloc[j, own.columns.get_loc(f"{word}_error_ms")] = error
        true.iloc[there[i], true.columns.get_loc(f"{word}_error_ms")] = error
    return [v for v in (own, true) if len(v)]


def signal_of(corpus: Corpus, stretch: Stretch, names: Sequence[str]) -> Array:
    """What was recorded in a stretch (C, T), NaN where nothing was observed."""
    columns = [corpus.spec.ch_names.index(n) for n in names]
    out = np.full((len(names), stretch.p.shape[-1]), np.nan, np.float32)
    for row, (start, _) in zip(stretch.rows, stretch.windows, strict=True):
        i = round((start - stretch.start_s) * stretch.sfreq)
        out[:, i : i + corpus.spec.n_samples] = corpus.signal([row])[0, columns]
    return out
