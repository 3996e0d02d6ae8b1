"""What one locked dense model finds in rows, counted against the annotated waves or episodes.

What lives here: :class:`Counted`, counts with whose they are and no score yet, so that those of several models can be put together
(:func:`together`); :func:`count_events` makes them. Waves are events of kind ``wave``, judged by their onsets and offsets, each channel alone
(``wave_counts.py``); other events are episodes (``episode_counts.py``). Scores are ``delineation.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.downstream.decoding import stretches
from biossl.downstream.dense import DenseTask
from biossl.downstream.episode_counts import count_stretch
from biossl.downstream.events import decoder_of, events_of, far_windows
from biossl.downstream.model import Model
from biossl.downstream.wave_counts import count_waves, signal_of
from biossl.errors import DataError
from biossl.progress import Progress

Array = NDArray[Any]
WAVE = "wave"
WIDTHS = {True: 12, False: 8}  # counts of a wave's onset and offset, of episodes
NEUROKIT = "NeuroKit2 (dwt)"
_NEUROKIT_WAVES = ("P", "QRS", "T")
_KEYS = ("subject", "record", "channel", "label")


@dataclass(frozen=True)
class Counted:
    """Counts of events, without scores.

    Attributes
    ----------
    keys : DataFrame
        ``subject``, ``record``, ``channel`` ('' = all) and ``label`` of each row of ``counts``: of waves a row a channel of a stretch and
        class, of episodes a row a known span of it and class. They do not depend on the model.
    counts : ndarray, (n, 12) or (n, 8)
        Of waves :func:`~biossl.metrics.boundaries.boundary_counts` of onset, then offset; else the fields of
        :class:`~biossl.metrics.episodes.EpisodeCounts`.
    rival : ndarray, (n, 12), or None
        Counts of NeuroKit2.
    table : DataFrame
        One row a detected and an annotated event (``source`` model or reference), of waves with the error of each matched boundary.
    broken, empty : int
        Channels of recordings in which NeuroKit2 found nothing, and those without an annotated boundary, which are left out.
    """

    keys: pd.DataFrame
    counts: Array
    rival: Array | None
    table: pd.DataFrame
    broken: int
    empty: int

    @property
    def notes(self) -> list[str]:
        """What was left out or failed."""
        out = []
        if self.empty:
            out.append(f"{self.empty} channels of recordings have no annotated boundary and are left out")
        if self.broken:
            out.append(f"{NEUROKIT} found nothing in {self.broken} channels of recordings, which count as missed")
        return out


def has_rival(corpus: Corpus, task: DenseTask) -> bool:
    """Whether NeuroKit2 can stand beside a model: of P, QRS and T of an ECG."""
    return task.event_kind == WAVE and corpus.spec.modality == "ecg" and set(task.events) <= set(_NEUROKIT_WAVES)


def count_events(
    model: Model, corpus: Corpus, task: DenseTask, rows: Array, *, adapt: bool, rival: bool, desc: str | None = "judge"
) -> Counted:
    """Count a model's events in rows.

    Parameters
    ----------
    model : Model
    corpus : Corpus
    task : DenseTask
        Its label there, of the same classes.
    rows : ndarray of int
        Judged windows.
    adapt : bool
    rival : bool
        Count NeuroKit2's waves as well, where it can (:func:`has_rival`).
    desc : str or None
        Of the progress; None shows none.

    Raises
    ------
    DataError
        Model and label differ in classes or in being of channels.
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
    by_record = {str(k): v for k, v in task.marks.groupby("record", sort=False)}
    rival = rival and has_rival(corpus, task)
    keys: list[tuple[str, ...]] = []
    counts: list[Array] = []
    others: list[Array] = []
    tables: list[pd.DataFrame] = []
    broken = empty = 0
    with Progress(len(rows), desc, "windows") if desc else nullcontext() as bar:
        for stretch, features in stretches(model, corpus, rows, per_channel=decoder.per_channel, adapt=adapt):
            who = subject[stretch.rows[0]]
            found = events_of(stretch, model.classes, names, decoder, far_windows(model, features))
            marks = by_record.get(stretch.record, task.marks.iloc[:0])
            if task.event_kind == WAVE:
                waves = count_waves(task, stretch, found, marks, signal_of(corpus, stretch, names) if rival else None)
                lines, table = [line[:3] for line in waves.lines], waves.table
                others += [line[3] for line in waves.lines if line[3] is not None]
                broken, empty = broken + waves.broken, empty + waves.empty
            else:
                lines, table = count_stretch(task, stretch, found, marks)
            keys += [(who, stretch.record, channel, label) for channel, label, _ in lines]
            counts += [line[2] for line in lines]
            table.insert(0, "subject", who)
            tables.append(table)
            if bar is not None:
                bar.update(len(stretch.rows))
    width = WIDTHS[task.event_kind == WAVE]
    return Counted(
        pd.DataFrame(keys, columns=list(_KEYS)), np.array(counts, float).reshape(-1, width),
        np.array(others, float).reshape(-1, width) if rival else None, pd.concat(tables, ignore_index=True), broken, empty,
    )  # fmt: skip


def together(parts: Sequence[Counted]) -> Counted:
    """Counts of several models, each on rows of its own, one after the other."""
    others = [p.rival for p in parts if p.rival is not None]
    return Counted(
        pd.concat([p.keys for p in parts], ignore_index=True), np.concatenate([p.counts for p in parts]),
        np.concatenate(others) if len(others) == len(parts) else None, pd.concat([p.table for p in parts], ignore_index=True),
        sum(p.broken for p in parts), sum(p.empty for p in parts),
    )  # fmt: skip
