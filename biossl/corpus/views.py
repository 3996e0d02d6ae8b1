"""From recordings to the windows of a view.

What lives here: :func:`view_spec` (what one window is) and :func:`cut` with its result :class:`Cut`: pick channels, filter,
resample on the continuous run, re-reference, cut by policy. Listing files is ``discover.py``'s business, reading
``load.py``'s, storing ``convert.py``'s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biossl.channels import derive
from biossl.corpus.card import Card, View
from biossl.corpus.card_check import channel_type, parse_channel
from biossl.corpus.discover import RecordTask, discover
from biossl.corpus.load import load_record
from biossl.errors import RecordError, RequestError
from biossl.preprocess.eeg import average_reference
from biossl.preprocess.filters import filter_signal, resample
from biossl.signal import CANONICAL_UNIT, Annotation, FilterSpec, InputSpec, Recording, unit_factor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EVENT_COLUMNS", "Cut", "RecordTask", "cut", "discover", "load_record", "view_spec"]

EVENT_COLUMNS = ("onset_s", "duration_s", "label", "channel", "kind", "source", "missing")
RATE_TOLERANCE = 1e-3  # a file's rate may differ from the card's by this share


@dataclass
class Cut:
    """The windows of one record.

    Attributes
    ----------
    data : ndarray, float32, (n, C, T)
        Canonical units, NaN = not observed, channels in the order of the view's InputSpec. n may be 0.
    start_s : ndarray, float64, (n,)
        Seconds from the start of the file to the window's first sample (may be below 0 for ``around_events``).
    segment : ndarray, int32, (n,)
        Contiguity id within the record: windows of one id come from one gap-free run.
    event : ndarray, int64, (n,)
        Row of ``events`` the window belongs to (``inside_labels``, ``around_events``), else -1.
    quality : ndarray, float32, (n,)
        Share of the samples that are observed and not part of a flat channel, 0 to 1.
    events : DataFrame
        All marks of the record: ``onset_s``, ``duration_s``, ``label``, ``channel``, ``kind``, ``source``.
    sha256 : list of str, length n
        Of the source samples under the window before filtering and resampling (chosen channels, float32, little
        endian); ``""`` when they are constant or not observed, since a flat line identifies nobody.
    lsb, baseline : ndarray, float64, (C,), or None
        Of the source, where samples are still its whole counts (only picked, never filtered, resampled or derived).
    dropped : dict of str to int
        Windows left out, by reason: ``unobserved`` (over ``max_missing``), ``short`` (runs or intervals shorter than a
        window), ``outside`` (events that lie in no run).
    covariates : dict of str to str
        As in the task, plus header covariates.
    record : str
    subject : str or None
    sfreq : float
        Hz of ``data``.
    record_sha256 : str
        SHA-256 of all samples of the record as read, whatever the view takes of them; '' when nothing varies.
    """

    data: np.ndarray
    start_s: np.ndarray
    segment: np.ndarray
    event: np.ndarray
    quality: np.ndarray
    events: pd.DataFrame
    sha256: list[str]
    lsb: np.ndarray | None
    baseline: np.ndarray | None
    dropped: dict[str, int]
    covariates: dict[str, str]
    record: str
    subject: str | None
    sfreq: float
    record_sha256: str = ""


def view_spec(card: Card, view: str) -> InputSpec:
    """What one window of a view is.

    Examples
    --------
    >>> view_spec(load_card("hapt"), "activity").n_samples  # doctest: +SKIP
    128
    """
    if view not in card.views:
        raise RequestError(f"card {card.name}: no view '{view}'; it has {', '.join(card.views)}")
    v = card.views[view]
    names, types, units = [], [], []
    for text in v.channels:
        name, options = parse_channel(text)
        kind = channel_type(card, options[0])
        stated = card.units.get(options[0], card.units.get(kind, CANONICAL_UNIT[kind]))
        names.append(name)
        types.append(kind)
        units.append(unit_factor(stated, kind)[0])
    return InputSpec(
        modality=card.modality, sfreq=v.sfreq, n_samples=round(v.window_s * v.sfreq), ch_names=tuple(names),
        ch_types=tuple(types), units=tuple(units), filter=v.filter.spec(), reference=v.reference,
    )  # fmt: skip


def cut(card: Card, view: str, recordings: Sequence[Recording]) -> Cut:
    """Windows of one record.

    Parameters
    ----------
    card : Card
    view : str
    recordings : sequence of Recording
        All of one record, from :func:`load_record`.

    Returns
    -------
    Cut

    Raises
    ------
    RecordError
        ``missing_channel``, ``rate`` (the file's rate is not among ``native_sfreq``), ``unknown_unit`` (its unit is not
        the view's), ``all_nan``.

    Examples
    --------
    >>> cut(card, "beats", load_record(card, task)).data.shape  # doctest: +SKIP
    (2274, 2, 500)
    """
    spec, v = view_spec(card, view), card.views[view]
    marks = recordings[0].annotations
    picked = [_pick(r, v, spec) for r in _group(recordings, v, spec)]
    picked.sort(key=lambda r: r.offset_s)
    for r in picked:
        _check_rate(card, r)
    if all(np.isnan(r.data).all() for r in picked):
        raise RecordError("all_nan", f"{recordings[0].record}: no sample of {', '.join(spec.ch_names)} was observed")
    used = _used_events(marks, v)
    dropped: Counter[str] = Counter()
    if v.policy == "around_events":
        dropped["outside"] = sum(not any(_holds(r, marks[i].onset_s) for r in picked) for i in used)
    parts = [_cut_run(r, k, spec, v, marks, used, dropped) for k, r in enumerate(picked)]
    as_recorded = spec.filter == FilterSpec(bridge_s=spec.filter.bridge_s, order=spec.filter.order)
    counts = as_recorded and v.reference == "as_recorded" and all(r.sfreq == spec.sfreq for r in picked)
    lsb, baseline = _source_counts(picked) if counts else (None, None)
    order = np.concatenate([p.event for p in parts])
    order = np.argsort(order, kind="stable") if v.policy != "sliding" else np.arange(order.size)
    sha = [s for p in parts for s in p.sha256]
    return Cut(
        data=np.concatenate([p.data for p in parts])[order], start_s=np.concatenate([p.start_s for p in parts])[order],
        segment=np.repeat(np.arange(len(parts), dtype=np.int32), [len(p.data) for p in parts])[order],
        event=np.concatenate([p.event for p in parts])[order], quality=np.concatenate([p.quality for p in parts])[order],
        events=_frame(marks), sha256=[sha[i] for i in order], lsb=lsb, baseline=baseline,
        dropped={k: n for k, n in dropped.items() if n}, covariates=dict(recordings[0].meta.get("covariates", {})),
        record=recordings[0].record, subject=recordings[0].subject, sfreq=spec.sfreq, record_sha256=_record_digest(recordings),
    )  # fmt: skip


def _frame(marks: Sequence[Annotation]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([[getattr(a, c) for c in EVENT_COLUMNS] for a in marks], columns=list(EVENT_COLUMNS))
    return frame.astype({"onset_s": "float64", "duration_s": "float64"})


def _group(recordings: Sequence[Recording], view: View, spec: InputSpec) -> list[Recording]:
    """The recordings of the rate group that has the view's channels."""
    rates = sorted({r.sfreq for r in recordings}, reverse=True)
    wanted = {o for text in view.channels for o in parse_channel(text)[1]}
    held = {rate: max(len(wanted.intersection(r.ch_names)) for r in recordings if r.sfreq == rate) for rate in rates}
    best = max(rates, key=lambda rate: held[rate])
    others = [f"{rate:g} Hz" for rate in rates if rate != best and held[rate]]
    if others and not view.optional_channels:
        raise RecordError(
            "rate",
            f"{recordings[0].record}: channels of the view lie at {best:g} Hz and {', '.join(others)}; make a view for each rate",
        )
    return [r for r in recordings if r.sfreq == best]


def _pick(recording: Recording, view: View, spec: InputSpec) -> Recording:
    """The view's channels in order, under its names, derived or unobserved as the view allows."""
    sources, absent = [], []
    for text in view.channels:
        name, options = parse_channel(text)
        there = next((o for o in options if o in recording.ch_names), None)
        if there is None and view.optional_channels and not _derivable(recording, options[0]):
            absent.append(name)
        sources.append(there or options[0])
    names = [s for s, n in zip(sources, spec.ch_names, strict=True) if n not in absent]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise RecordError("missing_channel", f"{recording.record}: channel {twice} would have to serve twice in this view")
    if not names:
        raise RecordError(
            "missing_channel", f"{recording.record}: none of {', '.join(spec.ch_names)}; it has {', '.join(recording.ch_names)}"
        )
    got = derive(recording, names)
    kept = [i for i, n in enumerate(spec.ch_names) if n not in absent]
    for i, unit in zip(kept, got.units, strict=True):
        if unit != spec.units[i]:
            raise RecordError(
                "unknown_unit",
                f"{recording.record}: channel {spec.ch_names[i]} is in {unit!r}, the view says {spec.units[i]!r}; state its unit in the card",
            )
    data = np.full((len(spec.ch_names), got.data.shape[1]), np.nan, np.float32)
    data[kept] = got.data
    lsb, baseline = (None if x is None else _spread(x, kept, len(spec.ch_names)) for x in (got.lsb, got.baseline))
    return Recording(
        data=data, sfreq=got.sfreq, ch_names=spec.ch_names, ch_types=spec.ch_types, units=spec.units, record=got.record,
        offset_s=got.offset_s, lsb=lsb, baseline=baseline, meta={"absent": len(absent)},
    )  # fmt: skip


def _derivable(recording: Recording, name: str) -> bool:
    try:
        derive(recording, [name])
    except RecordError:
        return False
    return True


def _spread(values: np.ndarray, kept: list[int], n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[kept] = values
    return out


def _check_rate(card: Card, r: Recording) -> None:
    if not any(abs(r.sfreq / rate - 1) <= RATE_TOLERANCE for rate in card.native_sfreq):
        rates = ", ".join(f"{x:g}" for x in card.native_sfreq)
        raise RecordError(
            "rate", f"{r.record}: recorded at {r.sfreq:g} Hz, the card says {rates}; add it to native_sfreq if it is right"
        )


def _source_counts(picked: Sequence[Recording]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The source's step and zero when all runs share them."""
    first = picked[0]
    if first.lsb is None:
        return None, None
    for r in picked:
        if r.lsb is None or not np.array_equal(r.lsb, first.lsb, equal_nan=True):
            return None, None
        if not np.array_equal(_zeros(r), _zeros(first), equal_nan=True):
            return None, None
    return first.lsb, first.baseline


def _zeros(r: Recording) -> np.ndarray:
    return np.zeros(len(r.ch_names)) if r.baseline is None else r.baseline


def _used_events(marks: Sequence[Annotation], view: View) -> list[int]:
    if view.policy == "sliding":
        return []
    return [
        i for i, a in enumerate(marks)
        if a.kind == view.event_kind and (not view.event_labels or a.label in view.event_labels)
    ]  # fmt: skip


def _holds(r: Recording, onset_s: float) -> bool:
    return r.offset_s - 1e-9 <= onset_s < r.offset_s + r.duration_s - 1e-9


@dataclass
class _Windows:
    """Windows of one run."""

    data: np.ndarray
    start_s: np.ndarray
    event: np.ndarray
    quality: np.ndarray
    sha256: list[str]


def _cut_run(
    r: Recording, segment: int, spec: InputSpec, view: View, marks: Sequence[Annotation], used: Sequence[int], dropped: Counter[str]
) -> _Windows:  # fmt: skip
    x = filter_signal(r.data, r.sfreq, spec.filter)
    x = resample(x, r.sfreq, spec.sfreq)
    if view.reference == "average":
        x = average_reference(x, spec.ch_types)
    n = spec.n_samples
    starts, events = _starts(x.shape[1], r, spec, view, marks, used, dropped)
    windows = _gather(x, starts, n)
    share = np.isnan(windows).mean(axis=(1, 2)) * len(spec.ch_names) - int(r.meta["absent"])
    missing = share / max(len(spec.ch_names) - int(r.meta["absent"]), 1)
    keep = missing <= view.max_missing + 1e-9
    dropped["unobserved"] += int((~keep).sum())
    windows, starts, events = windows[keep], starts[keep], events[keep]
    return _Windows(
        data=windows, start_s=r.offset_s + starts / spec.sfreq, event=events, quality=_quality(windows),
        sha256=[_digest(r, s / spec.sfreq, spec.window_s) for s in starts],
    )  # fmt: skip


def _starts(
    length: int, r: Recording, spec: InputSpec, view: View, marks: Sequence[Annotation], used: Sequence[int], dropped: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """First samples (of the resampled run) and event rows of the windows, before any is judged."""
    n, stride = spec.n_samples, round(view.stride_s * spec.sfreq)
    if view.policy == "sliding":
        dropped["short"] += length < n
        starts = np.arange(0, length - n + 1, stride)
        return starts, np.full(starts.size, -1, dtype=np.int64)
    if view.policy == "around_events":
        inside = [i for i in used if _holds(r, marks[i].onset_s)]
        times = np.array([marks[i].onset_s for i in inside], dtype=np.float64) - view.event_offset_s - r.offset_s
        return np.rint(times * spec.sfreq).astype(np.int64), np.array(inside, dtype=np.int64)
    out: list[tuple[int, int]] = []
    for i in used:
        a = round((marks[i].onset_s - r.offset_s) * spec.sfreq)
        b = round((marks[i].onset_s + marks[i].duration_s - r.offset_s) * spec.sfreq)
        a, b = max(a, 0), min(b, length)
        if b <= a:
            continue  # lies in another run
        dropped["short"] += b - a < n
        out += [(s, i) for s in range(a, b - n + 1, stride)]
    pairs = np.array(out, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _gather(x: np.ndarray, starts: np.ndarray, n: int) -> np.ndarray:
    """Windows (len(starts), C, n); NaN where a window reaches past the run."""
    if starts.size == 0:
        return np.empty((0, x.shape[0], n), dtype=np.float32)
    left = max(0, -int(starts.min()))
    right = max(0, int(starts.max()) + n - x.shape[1])
    padded = np.pad(x, ((0, 0), (left, right)), constant_values=np.nan) if left or right else x
    view = np.lib.stride_tricks.sliding_window_view(padded, n, axis=1)
    return np.ascontiguousarray(view[:, starts + left].transpose(1, 0, 2), dtype=np.float32)


def _quality(windows: np.ndarray) -> np.ndarray:
    if len(windows) == 0:
        return np.empty(0, dtype=np.float32)
    seen = np.isfinite(windows)
    high = np.where(seen, windows, -np.inf).max(axis=2)
    low = np.where(seen, windows, np.inf).min(axis=2)
    return (seen.mean(axis=2) * (high > low)).mean(axis=1).astype(np.float32)


def _digest(r: Recording, start_s: float, window_s: float) -> str:
    a = max(int(np.floor(start_s * r.sfreq + 1e-6)), 0)
    b = min(int(np.ceil((start_s + window_s) * r.sfreq - 1e-6)), r.data.shape[1])
    source = r.data[:, a:b]
    return hashlib.sha256(_bytes(source)).hexdigest() if _varies(source).any() else ""


def _record_digest(recordings: Sequence[Recording]) -> str:
    """Of every channel that varies, in no order: names, order and choice of channels are the card's and the view's."""
    rows = (row for r in recordings for row in r.data)  # one at a time: a night of EEG has no room for copies
    each = sorted(hashlib.sha256(_bytes(row)).hexdigest() for row in rows if _varies(row[None]).any())
    return hashlib.sha256("".join(each).encode()).hexdigest() if each else ""


def _varies(x: np.ndarray) -> np.ndarray:
    """Which rows are neither flat nor unobserved."""
    seen = np.isfinite(x)
    high = np.where(seen, x, -np.inf).max(axis=1, initial=-np.inf)
    return high > np.where(seen, x, np.inf).min(axis=1, initial=np.inf)


def _bytes(x: np.ndarray) -> bytes:
    """Equal values, equal bytes: one NaN, no -0."""
    return np.ascontiguousarray(np.where(np.isnan(x), np.float32(np.nan), x + np.float32(0)), dtype="<f4").tobytes()
