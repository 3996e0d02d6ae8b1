"""Episodes of one stretch of a recording against the annotated ones: counts of episodes and seconds.

What lives here: :func:`count_stretch`. How episodes are counted is ``metrics/episodes.py``'s; judged are the spans in which every sample has
a class.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.downstream.decoding import Stretch, joined
from biossl.downstream.dense import DenseTask, of_channel
from biossl.metrics.episodes import count_episodes

Array = NDArray[Any]


def count_stretch(
    task: DenseTask, stretch: Stretch, found: pd.DataFrame, marks: pd.DataFrame
) -> tuple[list[tuple[str, str, Array]], pd.DataFrame]:
    """Counts of each class over every known span of each channel of a stretch, and its events.

    Parameters
    ----------
    task, stretch, found, marks
        As in :func:`~biossl.downstream.wave_counts.count_waves`.

    Returns
    -------
    list of (channel, class, counts (8,))
        Fields of :class:`~biossl.metrics.episodes.EpisodeCounts`.
    DataFrame
        Detected and annotated events (``source`` model or reference).
    """
    out: list[tuple[str, str, Array]] = []
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
                counts = count_episodes(true, bounds, high, start_s=low)
                out.append((channel, name, np.array(astuple(counts), float)))
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
