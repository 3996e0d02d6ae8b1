"""From probabilities of samples to events: windows joined to stretches, runs of a class, what is too short to be one.

What lives here: reading a dense model over rows (:func:`dense_blocks`, :func:`stretches`), the confusion of samples it is chosen by,
:func:`fit_decoder` (frozen in the lock) and :func:`decode`. Windows of a recording that follow each other are put side by side, and where
they overlap their probabilities are averaged; no event passes over a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.downstream.dense import DenseTask
from biossl.downstream.lock import Decoder
from biossl.downstream.model import Model, Task
from biossl.errors import DataError
from biossl.inference import batch_rows, make_batch, pick_device
from biossl.metrics.arrays import ratio

Array = NDArray[Any]
RARE = 0.01  # quantile of the training events' durations and pauses
PART = 0.5  # share of it below which a run is no event, and a hole in one no pause
SAMPLES_AT_ONCE = 1_000_000  # channel samples of one batch
WINDOWS_AT_ONCE = 64  # of the stretches that are held at once, unless one is longer


def fit_decoder(task: Task, subjects: Sequence[str]) -> Decoder:
    """A decoder from the events of training subjects: half of what 1 % of a class' events last less than.

    A hole counts as one where it is also shorter than half of what 1 % of the pauses between two events of the class last less than.

    Parameters
    ----------
    task : Task
        Of kind dense; one that was given without events leaves all runs as they are.
    subjects : sequence of str
        Whose events are looked at.
    """
    if not isinstance(task, DenseTask):
        return Decoder("", task.values.ndim == 3)
    marks = task.marks[task.marks["subject"].isin(set(subjects)) & (task.marks["code"] >= 0)]
    least: dict[str, float] = {}
    bridge: dict[str, float] = {}
    for name in task.events:
        own = marks[(marks["code"] == task.classes.index(name)) & (marks["end_s"] > marks["onset_s"]) & (marks["missing"] == "")]
        lasting, pauses = [], []
        for _, line in own.groupby(["record", "channel"], sort=False):
            both = joined(line[["onset_s", "end_s"]].to_numpy())
            lasting.append(both[:, 1] - both[:, 0])
            pauses.append(both[1:, 0] - both[:-1, 1])
        if lasting:
            least[name] = bridge[name] = PART * float(np.quantile(np.concatenate(lasting), RARE))
            if len(rest := np.concatenate(pauses)):
                bridge[name] = min(bridge[name], PART * float(np.quantile(rest, RARE)))
    return Decoder(task.background, bool(task.channels), least, bridge)


def joined(spans: Array) -> Array:
    """Spans (n, 2) sorted, those that touch or overlap made one.

    Examples
    --------
    >>> joined(np.array([[2.0, 3.0], [0.0, 1.0], [1.0, 1.5]])).tolist()
    [[0.0, 1.5], [2.0, 3.0]]
    """
    out: list[list[float]] = []
    for a, b in spans[np.argsort(spans[:, 0], kind="stable")]:
        if out and a <= out[-1][1] + 1e-9:
            out[-1][1] = max(out[-1][1], b)
        else:
            out.append([a, b])
    return np.array(out, float).reshape(-1, 2)


# ---------------------------------------------------------------------------------------------- reading


def dense_blocks(
    model: Model, corpus: Corpus, rows: Array, *, per_channel: bool, adapt: bool = False
) -> Iterator[tuple[Array, Array, Array]]:
    """Rows, probabilities float32 (b, C or 1, K, T) and features (b, D), batch by batch.

    Probabilities are NaN where nothing was observed, and those of a label of all channels the mean over the observed ones.

    Raises
    ------
    DataError
        The corpus does not fit the encoder; the head says one thing of all channels, the label is of each.
    """
    match = require_match(model.encoder.spec, corpus.spec, adapt=adapt)
    names, columns = [corpus.spec.ch_names[i] for i in match.rows], list(match.rows)
    model.to(pick_device())
    size = dense_rows(model, len(columns), corpus.spec.n_samples)
    for i in range(0, len(rows), size):
        some = rows[i : i + size]
        x = corpus.signal(some)[:, columns]
        p, features = read_dense(model, x, names, corpus.spec.sfreq, per_channel=per_channel)
        yield some, p, features


def dense_rows(model: Model, channels: int, samples: int) -> int:
    """Windows of one batch."""
    return int(min(batch_rows(model.encoder), max(1, SAMPLES_AT_ONCE // (channels * samples))))


def read_dense(
    model: Model, x: Array, names: Sequence[str], sfreq: float, *, per_channel: bool
) -> tuple[Array, Array]:  # fmt: skip
    """Probabilities and features of windows (b, C, T) in memory, as :func:`dense_blocks`."""
    prediction, features = model.read([make_batch(x, names, sfreq, model.encoder.device)])
    p = prediction.astype(np.float32)
    seen: Array = np.asarray(np.isfinite(x))
    if p.ndim == 3:
        if per_channel:
            raise DataError("the head says one thing of all channels, the label is of each; fine-tune with head.per: channel")
        p = p[:, None]
    elif not per_channel:
        weight = seen[:, :, None].astype(np.float32)
        p = ((p * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0))[:, None]
    observed = np.asarray(seen if per_channel else seen.any(axis=1, keepdims=True))
    return np.where(observed[:, :, None], p, np.nan).astype(np.float32), features


def sample_confusion(model: Model, corpus: Corpus, task: Task, rows: Array, *, adapt: bool = False) -> Array:
    """Known and observed samples by true and likeliest class, int64 (K, K)."""
    k = len(task.classes)
    total = np.zeros((k, k), np.int64)
    for some, p, _ in dense_blocks(model, corpus, rows, per_channel=task.values.ndim == 3, adapt=adapt):
        y = task.values[some].reshape(len(some), -1, p.shape[-1])
        known = ~np.isnan(y) & np.isfinite(p[:, :, 0])
        total += np.bincount(
            y[known].astype(np.int64) * k + np.nan_to_num(p).argmax(axis=2)[known], minlength=k * k
        ).reshape(k, k)  # fmt: skip
    return total


def macro_f1(confusion: Array) -> float:
    """Mean F1 of the classes that occur in the reference (rows); NaN without any.

    Examples
    --------
    >>> round(macro_f1(np.array([[8, 2], [0, 10]])), 3)
    0.899
    """
    there = confusion.sum(axis=1) > 0
    each = ratio(2.0 * np.diag(confusion), confusion.sum(axis=1) + confusion.sum(axis=0))
    return float(each[there].mean()) if there.any() else float("nan")


# ---------------------------------------------------------------------------------------------- stretches


@dataclass
class Stretch:
    """A stretch of a recording without a gap.

    ``p`` float32 (C, K, T) probabilities, NaN where nothing was observed; ``start_s`` its first sample, ``end_s`` its end;
    ``windows`` float64 (n, 2) and ``rows`` int64 (n,) of its windows.
    """

    record: str
    start_s: float
    sfreq: float
    p: Array
    windows: Array
    rows: Array

    @property
    def end_s(self) -> float:
        """Seconds in the record."""
        return self.start_s + self.p.shape[-1] / self.sfreq


def follow(keys: pd.DataFrame, window_s: float, sfreq: float) -> list[Array]:
    """Positions of windows that follow each other without a gap in one segment of one record, in time order.

    Parameters
    ----------
    keys : DataFrame
        ``record``, ``segment``, ``start_s``.
    window_s, sfreq : float
    """
    out: list[Array] = []
    frame = keys.reset_index(drop=True)
    for at in frame.groupby(["record", "segment"], sort=False).indices.values():
        start = frame["start_s"].to_numpy(np.float64)[at]
        at, start = at[np.argsort(start, kind="stable")], np.sort(start)
        out += np.split(at, np.flatnonzero(np.diff(start) > window_s + 0.5 / sfreq) + 1)
    return out


def stitch(record: str, start_s: Array, p: Array, sfreq: float, rows: Array) -> Stretch:
    """Windows (n, C, K, T) in time order as one stretch; what several windows say of a sample is averaged."""
    T = p.shape[-1]
    first = np.rint((start_s - start_s[0]) * sfreq).astype(int)
    total = np.zeros((*p.shape[1:3], first[-1] + T), np.float32)
    count = np.zeros_like(total[:, :1])
    for window, i in zip(p, first, strict=True):
        seen = np.isfinite(window[:, :1])
        total[..., i : i + T] += np.where(seen, window, 0.0)
        count[..., i : i + T] += seen
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    windows = np.stack([start_s, start_s + T / sfreq], axis=1)
    return Stretch(record, float(start_s[0]), sfreq, mean.astype(np.float32), windows, rows)


def stretches(
    model: Model, corpus: Corpus, rows: Array, *, per_channel: bool, adapt: bool = False
) -> Iterator[tuple[Stretch, Array]]:
    """Every stretch of corpus rows, with the features (n, D) of its windows."""
    index = corpus.index.iloc[rows]
    groups = follow(index[["record", "segment", "start_s"]], corpus.spec.window_s, corpus.spec.sfreq)
    record, start = index["record"].astype(str).to_numpy(), index["start_s"].to_numpy(np.float64)
    while groups:
        held = [groups.pop(0)]
        while groups and sum(map(len, held)) + len(groups[0]) <= WINDOWS_AT_ONCE:
            held.append(groups.pop(0))
        blocks = list(dense_blocks(model, corpus, rows[np.concatenate(held)], per_channel=per_channel, adapt=adapt))
        p, features = (np.concatenate([b[k] for b in blocks]) for k in (1, 2))
        at = 0
        for group in held:
            mine = slice(at, at + len(group))
            at += len(group)
            yield stitch(record[group[0]], start[group], p[mine], corpus.spec.sfreq, rows[group]), features[mine]


# ---------------------------------------------------------------------------------------------- events


def decode(p: Array, classes: Sequence[str], sfreq: float, decoder: Decoder) -> list[tuple[int, str, int, int, float]]:
    """Events of a stretch.

    Each sample takes its likeliest class. Then, the shortest first, a hole in a class (a run of the background, or a run that is too short, between
    two runs of that class) is filled, and any other run that is too short becomes background, or where there is none joins the run
    before it.

    Parameters
    ----------
    p : ndarray, (C, K, T)
        Probabilities, NaN where nothing was observed; nothing is joined over that.
    classes : sequence of str, length K
    sfreq : float
        Hz.
    decoder : Decoder

    Returns
    -------
    list of (channel, class, first sample, sample after the last, mean probability)
        By channel, then time.

    Examples
    --------
    >>> p = np.array([[[0.9, 0.2, 0.4, 0.9], [0.1, 0.8, 0.6, 0.1]]])
    >>> decode(p, ("none", "P"), 1.0, Decoder("none"))
    [(0, 'P', 1, 3, 0.7)]
    """
    background = classes.index(decoder.background) if decoder.background else -1
    least, bridge = (np.array([d.get(c, 0.0) for c in classes]) * sfreq for d in (decoder.least_s, decoder.bridge_s))
    out: list[tuple[int, str, int, int, float]] = []
    for c, line in enumerate(p):
        seen = np.isfinite(line).all(axis=0)
        code = np.where(seen, np.nan_to_num(line).argmax(axis=0), -1)
        edges, code = _runs(code)
        while True:
            edges, code, changed = _mend(edges, code, least, bridge, background)
            if not changed:
                break
        for k, a, b in zip(code, edges[:-1], edges[1:], strict=True):
            if k >= 0 and k != background:
                out.append((c, classes[k], int(a), int(b), float(line[k, a:b].mean(dtype=np.float64))))
    return out


def _runs(code: Array) -> tuple[Array, Array]:
    """Edges (n + 1,) and classes (n,) of runs of equal codes."""
    cut = np.flatnonzero(np.diff(code)) + 1
    edges = np.concatenate([[0], cut, [len(code)]])
    return edges, code[edges[:-1]]


def _mend(edges: Array, code: Array, least: Array, bridge: Array, background: int) -> tuple[Array, Array, bool]:
    """One pass: of the runs that are too short, those no longer than their too short neighbours are given another class."""
    length = np.diff(edges).astype(float)
    before, after = np.concatenate([[-1], code[:-1]]), np.concatenate([code[1:], [-1]])
    hole = (before == after) & (before >= 0)
    need = np.where(code >= 0, least[code], 0.0)
    need = np.where(code == background, np.where(hole, bridge[before], 0.0), need) if background >= 0 else need
    need[code < 0] = 0.0
    short = length < need
    if background < 0:  # without a class for it a run between unobserved samples keeps its own
        short &= (before >= 0) | (after >= 0)
    rank = np.where(short, length, np.inf)
    left, right = np.concatenate([[np.inf], rank[:-1]]), np.concatenate([rank[1:], [np.inf]])
    now = short & (rank < left) & (rank <= right)  # of equals the first
    if not now.any():
        return edges, code, False
    fill = hole & (length < np.where(code == background, np.inf, bridge[np.maximum(before, 0)]))
    other = np.where(before >= 0, before, after) if background < 0 else np.full_like(code, background)
    code = np.where(now, np.where(fill, before, other), code)
    keep = np.concatenate([[True], np.diff(code) != 0])
    return np.concatenate([edges[:-1][keep], edges[-1:]]), code[keep], True
