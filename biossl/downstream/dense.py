"""Labels of every sample, made at load from a corpus' events: waves of a lead, episodes of a rhythm, activities.

What lives here: :class:`DenseTask` with its classes kept one byte a sample (:class:`Codes`), :func:`make_dense`, and counts of it.
What a sample's class is when nobody said so: ``background`` where the label names one, else unknown. From probabilities back to
events is ``decoding.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.corpus.card import Label
from biossl.downstream.model import Task
from biossl.errors import DataError, RequestError

Array = NDArray[Any]
UNKNOWN, EMPTY = -1, -2  # not judged; in no event (only while codes are made)
_BLOCK = 64


class Codes:
    """Class numbers of samples, int8 (n, T) or (n, C, T), -1 unknown; taking rows gives float32 with NaN, as losses want it.

    Examples
    --------
    >>> Codes(np.array([[0, 1, -1]], np.int8))[[0]].tolist()
    [[0.0, 1.0, nan]]
    """

    def __init__(self, codes: Array) -> None:
        self.codes = codes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return self.codes.shape

    @property
    def ndim(self) -> int:
        """2, or 3 with channels."""
        return self.codes.ndim

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Array:
        some = self.codes[rows].astype(np.float32)
        some[some < 0] = np.nan
        return some


@dataclass(frozen=True)
class DenseTask(Task):
    """A dense label of a corpus.

    Attributes
    ----------
    channels : tuple of str
        Of the second axis of ``values``; empty = one class for all channels together.
    background : str
        Class of samples in no event; '' = there is none.
    event_kind, judged : str
        Of the card's label.
    marks : DataFrame
        The events it is made of (:func:`label_marks`).
    """

    channels: tuple[str, ...]
    background: str
    event_kind: str
    judged: str
    marks: pd.DataFrame

    @property
    def known(self) -> Array:
        """Rows with any known sample, bool (n_index,)."""
        codes = cast(Codes, self.values).codes
        return np.asarray((codes >= 0).reshape(len(codes), -1).any(axis=1))

    @property
    def events(self) -> tuple[str, ...]:
        """Classes that are events: all but the background."""
        return tuple(c for c in self.classes if c != self.background)

    def of_channels(self, names: tuple[str, ...]) -> DenseTask:
        """The same label with its channels in another order, or some of them; one for all channels stays as it is."""
        if not self.channels or names == self.channels:
            return self
        codes = cast(Codes, self.values).codes[:, [self.channels.index(n) for n in names]]
        return replace(self, values=cast(Any, Codes(codes)), channels=names)


def make_dense(corpus: Corpus, label: str) -> DenseTask:
    """The dense task of a label: ``kind: dense``, or ``multiclass`` of intervals taken sample by sample.

    Parameters
    ----------
    corpus : Corpus
    label : str
        Of the card, with ``source: overlap``. Channels have classes of their own where events name a channel; an event without one is
        of all. Samples in events of two classes, in an event whose label is in no class, and up to the neighbour on the side where nobody
        gave a wave's bound (both sides of an event without duration) are unknown.

    Raises
    ------
    RequestError
        The label is no label of intervals.
    DataError
        The corpus has no event of it, or only moments.

    Examples
    --------
    >>> make_dense(corpus, "waves").values[[0]].shape  # doctest: +SKIP
    (1, 12, 5000)
    """
    where = f"{corpus.path}: label '{label}'"
    how = corpus.card.labels.get(label)
    if how is None or how.source != "overlap" or how.kind not in ("dense", "multiclass"):
        what = "is not of the card" if how is None else f"is {how.kind} of {how.source}"
        raise RequestError(f"{where} {what}; a label of samples is made of intervals (kind dense or multiclass, source overlap)")
    marks = label_marks(corpus, how)
    if not (marks["code"] >= 0).any():
        raise DataError(f"{where}: no event of kind '{how.event_kind}' has one of its classes; look at events.parquet")
    if not (marks["end_s"] > marks["onset_s"]).any():
        raise DataError(f"{where}: its events are moments; a label of samples needs events that last")
    channels = tuple(corpus.spec.ch_names) if (marks["channel"] != "").any() else ()
    codes = _codes(corpus, how, marks, channels)
    classes = (*((how.background,) if how.background else ()), *how.map)
    return DenseTask(
        label, "dense", classes, cast(Any, Codes(codes)), channels, how.background, how.event_kind, how.judged, marks
    )  # fmt: skip


def label_marks(corpus: Corpus, how: Label) -> pd.DataFrame:
    """Events of a label: ``record``, ``subject``, ``channel`` ('' = all), ``code`` (-1 = in no class), ``onset_s``, ``end_s``, ``missing``, in time order.

    Events of channels that the corpus lacks are left out.
    """
    events = corpus.events
    events = events[events["kind"] == how.event_kind] if how.event_kind else events
    number = {source: k + bool(how.background) for k, name in enumerate(how.map) for source in how.map[name]}
    channel = events["channel"].fillna("").astype(str).to_numpy()
    onset = events["onset_s"].to_numpy(np.float64)
    table = pd.DataFrame({
        "record": events["record"].astype(str).to_numpy(), "subject": events["subject"].astype(str).to_numpy(), "channel": channel,
        "code": [number.get(v, UNKNOWN) for v in events["label"].astype(str)], "onset_s": onset,
        "end_s": onset + events["duration_s"].to_numpy(np.float64),
        "missing": events["missing"].fillna("").astype(str).to_numpy() if "missing" in events else "",
    })  # fmt: skip
    table = table[np.isin(channel, ["", *corpus.spec.ch_names])]
    return table.sort_values(["record", "channel", "onset_s"], kind="stable", ignore_index=True)


def of_channel(marks: pd.DataFrame, channel: str) -> pd.DataFrame:
    """Marks of one channel of a record and of all channels, in time order."""
    some = marks["channel"].isin(["", channel])
    return marks[some].sort_values("onset_s", kind="stable")


def _codes(corpus: Corpus, how: Label, marks: pd.DataFrame, channels: tuple[str, ...]) -> Array:
    """Class numbers of all samples, int8 (n, T) or (n, C, T)."""
    index, sfreq, n = corpus.index, corpus.spec.sfreq, corpus.spec.n_samples
    codes = np.full((len(index), max(len(channels), 1), n), EMPTY, np.int8)
    start = index["start_s"].to_numpy(np.float64)
    groups = {str(record): frame for record, frame in marks.groupby("record", sort=False)}
    for record, rows in index.groupby(index["record"].astype(str), sort=False).indices.items():
        frame = groups.get(str(record))
        for c, channel in enumerate(channels or ("",)):
            mine = None if frame is None else of_channel(frame, channel) if channels else frame
            lines = codes[:, c]
            if mine is None or not len(mine):
                lines[rows] = UNKNOWN if how.judged == "annotated" else EMPTY
                continue
            onset, end, code, missing = (mine[k].to_numpy() for k in ("onset_s", "end_s", "code", "missing"))
            latest = np.maximum.accumulate(end)  # events may nest, so ends alone are not sorted
            for row in rows:
                low, high = start[row], start[row] + n / sfreq
                some = slice(int(np.searchsorted(latest, low, "left")), int(np.searchsorted(onset, high, "right")))
                _fill(lines[row], onset[some] - low, end[some] - low, code[some], sfreq)
                for a, b in _doubtful(onset, end, code, missing, how.judged):
                    i, j = (sample(np.array([v - low]), sfreq, n)[0] for v in (a, b))
                    lines[row, i:j][lines[row, i:j] == EMPTY] = UNKNOWN
    codes[codes == EMPTY] = 0 if how.background else UNKNOWN
    return codes if channels else codes[:, 0]


def _fill(line: Array, onset: Array, end: Array, code: Array, sfreq: float) -> None:
    for a, b, k in zip(sample(onset, sfreq, len(line)), sample(end, sfreq, len(line)), code, strict=True):
        inside = line[a:b]
        inside[:] = np.where((inside == EMPTY) | (inside == k), k, UNKNOWN)


def _doubtful(onset: Array, end: Array, code: Array, missing: Array, judged: str) -> Iterator[tuple[float, float]]:
    """Spans of a channel in which a sample of no event is unknown."""
    lasting = end > onset
    if judged == "annotated":
        first, last = (onset[lasting].min(), end[lasting].max()) if lasting.any() else (np.inf, np.inf)
        yield -np.inf, first
        yield last, np.inf
    point = ~lasting & (code >= 0)
    for at in onset[point | (lasting & (missing == "onset"))]:  # from the end of the wave before
        yield end[lasting & (onset < at)].max(initial=-np.inf), at
    for at in end[point | (lasting & (missing == "offset"))]:  # to the start of the next
        yield at, onset[lasting & (onset >= at)].min(initial=np.inf)


def sample(seconds: Array, sfreq: float, n: int) -> Array:
    """Nearest samples, halves upwards, cut to 0..n."""
    return np.floor(np.clip(np.asarray(seconds) * sfreq, -1.0, n) + 0.5 + 1e-6).clip(0, n).astype(np.int64)


# ---------------------------------------------------------------------------------------------- counts


def class_counts(task: Task, rows: Array) -> Array:
    """Known samples of each class in rows, int64 (K,)."""
    total = np.zeros(len(task.classes), np.int64)
    for i in range(0, len(rows), _BLOCK):
        y = task.values[rows[i : i + _BLOCK]]
        total += np.bincount(y[~np.isnan(y)].astype(np.int64), minlength=len(total))
    return total


def n_events(corpus: Corpus, task: DenseTask, rows: Array) -> int:
    """Events of a class in the recordings of rows, every channel's counted."""
    records = set(corpus.index["record"].astype(str).to_numpy()[rows])
    return int((task.marks["record"].isin(records) & (task.marks["code"] >= 0)).sum())


def stored(task: Task, rows: Array) -> Array:
    """Values of rows as they are kept, for a hash."""
    return task.values.codes[rows] if isinstance(task.values, Codes) else task.values[rows]


def dense_tally(corpus: Corpus, task: DenseTask, some: Array | None = None) -> list[dict[str, Any]]:
    """Windows, records and subjects of every class, seconds of channels, and windows of which nothing is known.

    Parameters
    ----------
    corpus : Corpus
    task : DenseTask
    some : ndarray of bool, (n_index,), optional
        Which windows count; default all.

    Returns
    -------
    list of dict
        ``class``, ``windows``, ``records``, ``subjects``, ``seconds`` (summed over channels; overlapping windows count twice), the last
        one ``unknown``; as :func:`biossl.corpus.tally.tally`.
    """
    some = np.ones(len(corpus.index), bool) if some is None else some
    codes = cast(Codes, task.values).codes.reshape(len(some), -1)
    record, subject = (corpus.index[k].to_numpy() for k in ("record", "subject"))
    out = []
    for k, name in enumerate((*task.classes, "unknown")):
        unknown = k == len(task.classes)
        number = np.array([int((codes[i] < 0 if unknown else codes[i] == k).sum()) if some[i] else 0 for i in range(len(some))])
        rows = some & ~task.known if unknown else number > 0
        out.append({
            "class": name, "windows": int(rows.sum()), "records": len(set(record[rows])), "subjects": len(set(subject[rows])),
            "seconds": float(number.sum() / corpus.spec.sfreq),
        })  # fmt: skip
    return out


def reference_of(marks: pd.DataFrame, channel: str, code: int) -> Array:
    """Onset, peak, offset of a class' events of one channel of a record (n, 3), NaN where nobody gave the bound."""
    mine = of_channel(marks, channel)
    mine = mine[mine["code"] == code]
    onset, end = mine["onset_s"].to_numpy(float), mine["end_s"].to_numpy(float)
    lasting, missing = end > onset, mine["missing"].to_numpy()
    peak = np.select([missing == "onset", missing == "offset"], [onset, end], (onset + end) / 2)
    known = [np.where(lasting & (missing != side), at, np.nan) for side, at in (("onset", onset), ("offset", end))]
    return np.stack([known[0], peak, known[1]], axis=1)
