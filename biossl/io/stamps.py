"""From rows with time stamps to contiguous runs on a regular grid.

What lives here: splitting at gaps, what uneven stamps mean, resampling to the stated rate, labels per row as intervals.
Arrays in, arrays out; no file is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biossl.errors import RecordError
from biossl.preprocess.filters import filter_signal
from biossl.signal import Annotation, FilterSpec

if TYPE_CHECKING:
    from biossl.io.table import TableSpec

RATE_TOLERANCE = 0.2  # time stamps must give the stated rate to this share
REGULAR = 0.25  # stamps within this share of a sample of the regular grid are that grid
DECIMATES = 1.02  # rows denser than the grid by more than this are low-passed first; below, jitter only looks so


def changes(columns: Sequence[np.ndarray], n: int) -> list[tuple[int, int]]:
    """Half-open runs of rows in which no column changes."""
    edge = np.zeros(max(n - 1, 0), bool)
    for c in columns:
        edge |= c[1:] != c[:-1]
    cuts = [0, *(np.flatnonzero(edge) + 1).tolist(), n]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


@dataclass
class Piece:
    """One contiguous run on its regular grid: (C, T) values, seconds of its first sample, labelled intervals."""

    data: np.ndarray
    start_s: float
    intervals: list[tuple[float, float, str]]  # start, stop (seconds, as start_s), label

    def marks(self, zero: float, kind: str, source: str) -> list[Annotation]:
        """The labelled intervals, with onsets counted from ``zero``."""
        return [Annotation(a - zero, b - a, text, kind=kind, source=source) for a, b, text in self.intervals]


def pieces(data: np.ndarray, times: np.ndarray | None, first: int, labels: np.ndarray | None, spec: TableSpec) -> list[Piece]:
    """Regular runs of rows first .. first + n - 1."""
    n = data.shape[1]
    own = None if labels is None else labels[first : first + n]
    if times is None:
        return [Piece(data, first / spec.sfreq, _intervals(own, (first + np.arange(n + 1)) / spec.sfreq))]
    order = np.argsort(times, kind="stable")
    times, data, own = times[order], data[:, order], None if own is None else own[order]
    out = []
    cuts = [0, *(np.flatnonzero(np.diff(times) > spec.gap_s) + 1).tolist(), n]
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        out.append(_regular(data[:, a:b], times[a:b], None if own is None else own[a:b], spec))
    return out


def _regular(x: np.ndarray, t: np.ndarray, labels: np.ndarray | None, spec: TableSpec) -> Piece:
    """One run on the grid of ``spec.sfreq``; as it is when its stamps are that grid already."""
    n, fs = x.shape[1], spec.sfreq
    if np.abs(t - t[0] - np.arange(n) / fs).max() <= REGULAR / fs:
        return Piece(x, float(t[0]), _intervals(labels, t[0] + np.arange(n + 1) / fs))
    rate = (n - 1) / (t[-1] - t[0]) if t[-1] > t[0] else np.inf
    if n >= fs and abs(rate / fs - 1) > RATE_TOLERANCE:
        raise RecordError("rate", f"its time stamps give {rate:.4g} Hz, the card says {fs:g} Hz; mend sfreq or time_unit_s")
    if spec.stamps == "delivered":
        slope, start = np.polyfit(np.arange(n), t - t[0], 1) if t[-1] > t[0] else (1 / fs, 0.0)  # one burst says no rate
        t = t[0] + start + slope * np.arange(n)
        edges = np.append(t, t[-1] + slope)
    else:
        edges = np.append(t, t[-1] + 1 / fs)
        t, x = _average_equal(t, x)
    inner = (t.size - 1) / (t[-1] - t[0]) if t.size > 1 else 0.0
    if inner > fs * DECIMATES:  # what the slower grid cannot hold is taken out first, which needs even samples
        even = np.linspace(t[0], t[-1], t.size)
        x = x if spec.stamps == "delivered" else _interpolate(x, t, even)
        t, x = even, filter_signal(x, inner, FilterSpec(lowpass_hz=0.45 * fs, order=8, bridge_s=spec.gap_s))
    n_out = int(np.floor((t[-1] - t[0]) * fs + 1e-6)) + 1
    return Piece(_interpolate(x, t, t[0] + np.arange(n_out) / fs), float(t[0]), _intervals(labels, edges))


def _average_equal(t: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted stamps without repeats; the samples of one stamp averaged (NaN when none was observed)."""
    unique, first = np.unique(t, return_index=True)
    if unique.size == t.size:
        return t, x
    seen = np.add.reduceat(np.isfinite(x).astype(np.float64), first, axis=1)
    total = np.add.reduceat(np.where(np.isfinite(x), x, 0.0), first, axis=1)
    return unique, np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _interpolate(x: np.ndarray, t: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Each channel at new times: shape-keeping cubic between observed samples, NaN where a neighbour was not observed."""
    from scipy.interpolate import PchipInterpolator

    out = np.full((x.shape[0], at.size), np.nan)
    for c, row in enumerate(x):
        seen = np.isfinite(row)
        if seen.sum() == 1 or t.size == 1:
            out[c] = row[0] if t.size == 1 else np.nan
            continue
        if not seen.any():
            continue
        out[c] = PchipInterpolator(t[seen], row[seen], extrapolate=False)(np.clip(at, t[0], t[-1]))
        out[c, np.interp(at, t, (~seen).astype(float)) > 0] = np.nan
    return out


def _intervals(labels: np.ndarray | None, edges: np.ndarray) -> list[tuple[float, float, str]]:
    """Runs of equal labels; ``edges`` (n + 1,) are the times of the samples and the end of the last one."""
    if labels is None:
        return []
    return [(float(edges[a]), float(edges[b]), str(labels[a]).strip()) for a, b in changes([labels], len(labels))]
