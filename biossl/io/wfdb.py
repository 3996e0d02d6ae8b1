"""WFDB records (PhysioNet): header, signals in every storage format, multi-segment records, annotations.

What lives here: everything between a ``.hea`` and Recordings. The samples are decoded by the wfdb package; here the
header is held against the files *before* anything is allocated, each signal's checksum is compared (wfdb computes but
does not compare it), gain 0 is not replaced by 200, and signals of different rates stay apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biossl.errors import RecordError
from biossl.io.common import Calibration, calibrate, meta, reader, recoverable
from biossl.io.wfdb_annotations import read_annotations
from biossl.quality import Finding
from biossl.signal import Annotation, Recording

_INVALID = {"80": -128, "508": -128, "310": -512, "311": -512, "212": -2048, "24": -(2**23), "524": -(2**23), "32": -(2**31)}
_INVALID |= dict.fromkeys(("16", "61", "160", "516"), -(2**15))  # format 8 stores differences: no invalid value
_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
_FLAC = ("508", "516", "524")
_GAIN_FIELD = re.compile(r"^\s*\S+\s+\S+\s+(?P<gain>[-+]?[0-9.]+(?:[eE][-+]?\d+)?)")
_MAX_SAMPLES = 2**40
_GAINS = (1e-12, 1e15)  # counts per unit; beyond, a digit was lost or doubled


@dataclass(frozen=True)
class _Run:
    """One stretch of time of a record: digital samples per signal (None = not recorded) and how to read them."""

    start: int  # frames from the start of the record
    length: int  # frames
    signals: list[np.ndarray | None]
    gains: list[float]
    baselines: list[int]
    invalid: list[int | None]


@reader
def read_wfdb(
    path: str | Path,
    annotations: Sequence[str] = (),
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> list[Recording]:
    """Read a WFDB record.

    Parameters
    ----------
    path : path
        The header, the record without suffix, or one of its signal files.
    annotations : sequence of str
        Extensions to read (``atr``; LUDB one per lead: ``i`` ... ``v6``).
    modality, channel_map, units
        See :func:`biossl.io.common.calibrate`. ``units: {X: "1"}`` accepts a channel whose gain is 0 as uncalibrated.

    Returns
    -------
    list of Recording
        One per contiguous stretch and sampling rate; NaN where a sample is invalid or its signal is not recorded.
        ``lsb`` and ``baseline`` are set, so ``value = count * lsb + baseline`` is exact. Header comments are in
        ``meta["comments"]``.

    Raises
    ------
    RecordError
        ``missing``, ``empty``, ``truncated``, ``lying_header``, ``bad_checksum``, ``zero_gain``, ``unknown_unit``,
        ``wrong_format``, ``unreadable``.

    Examples
    --------
    >>> read_wfdb("mitdb/114.hea", annotations=["atr"])[0].ch_names  # doctest: +SKIP
    ('V5', 'MLII')
    """
    stem = record_stem(Path(path))
    head = _header(stem)
    findings: list[Finding] = []
    runs, names, file_units, spf, zero_gain = (
        _segments(stem, head, findings) if getattr(head, "n_seg", None) else _single(stem, head)
    )
    for i in zero_gain:
        if "1" not in ((units or {}).get(names[i]), _own_unit(units, names[i], modality, channel_map)):
            raise RecordError(
                "zero_gain",
                f"channel {names[i]!r} has gain 0 (uncalibrated); accept it in the card with units: {{{names[i]}: '1'}}",
            )
        file_units[i] = "1"
    cal = calibrate(names, file_units, modality=modality, channel_map=channel_map, units=units)
    rate = float(head.fs)
    marks = tuple(
        a for extension in annotations for a in read_annotations(stem, extension, rate, runs[-1].start + runs[-1].length)
    )
    facts = meta("wfdb", names, findings + cal.findings, comments=_comments(head.comments))
    start = head.base_datetime.isoformat() if getattr(head, "base_datetime", None) else None
    out = []
    for run in runs:
        for n in sorted(set(spf), reverse=True):
            rows = [i for i, k in enumerate(spf) if k == n]
            out.append(_recording(run, rows, n, rate, cal, stem.name, start, marks, facts))
    return out


def record_stem(path: Path) -> Path:
    """The record's path without suffix, from its header, a signal file or the stem itself.

    Raises
    ------
    RecordError
        ``missing`` when there is no header.
    """
    for stem in (path.with_suffix("") if path.suffix == ".hea" else path, path.with_suffix("")):
        if Path(f"{stem}.hea").is_file():
            return stem
    folder = path.parent
    if path.is_file() and folder.is_dir():  # a signal file of another name (100_3chan.d0): the header that lists it
        for header in sorted(folder.glob("*.hea")):
            if re.search(rf"^{re.escape(path.name)}\s", header.read_text(encoding="latin-1"), re.MULTILINE):
                return header.with_suffix("")
    raise RecordError("missing", "no such WFDB record (no .hea file); check the path")


def _header(stem: Path) -> Any:
    """The parsed header; the record line must say how long the record is or the files must."""
    import wfdb

    text = Path(f"{stem}.hea").read_bytes()
    if not text.strip():
        raise RecordError("empty", "the header file is empty; copy the record again")
    try:
        head = wfdb.rdheader(str(stem))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise RecordError("wrong_format", f"not a WFDB header ({error}); check the file") from None
    if not head.fs or head.fs <= 0:
        raise RecordError("lying_header", f"sampling frequency {head.fs}; mend the header")
    if getattr(head, "n_seg", None):
        return head
    lines = [x for x in text.decode("latin-1").splitlines() if x.strip() and not x.lstrip().startswith("#")]
    if not head.n_sig or len(lines) - 1 != head.n_sig:
        raise RecordError("lying_header", f"the header states {head.n_sig} signals and describes {len(lines) - 1}; mend it")
    gains = [_GAIN_FIELD.match(line) for line in lines[1:]]
    head.zero_gain = [i for i, gain in enumerate(gains) if gain is None or float(gain["gain"]) == 0]
    for i, gain in enumerate(head.adc_gain):
        if i not in head.zero_gain and not _GAINS[0] <= abs(gain) <= _GAINS[1]:
            raise RecordError("lying_header", f"signal {head.sig_name[i]!r} has gain {gain:g}; mend the header")
    return head


def _single(stem: Path, head: Any) -> tuple[list[_Run], list[str], list[str], list[int], list[int]]:
    run = _read_segment(stem, head, 0)
    names = [name if name else f"ch{i + 1}" for i, name in enumerate(head.sig_name)]
    return [run], names, list(head.units), list(head.samps_per_frame), head.zero_gain


def _read_segment(stem: Path, head: Any, start: int) -> _Run:
    """Samples of a single-segment record after its header was held against its files."""
    import wfdb

    length = _check_files(stem, head)
    if length == 0:
        raise RecordError("empty", f"{stem.name} holds no sample")
    same_rate = all(n == 1 for n in head.samps_per_frame)
    record = wfdb.rdrecord(str(stem), physical=False, smooth_frames=same_rate, m2s=False, ignore_skew=True, return_res=32)
    counts = list(record.d_signal.T) if same_rate else list(record.e_d_signal)
    for name, stated, x in zip(head.sig_name, head.checksum, counts, strict=True):
        if stated is not None and (int(x.sum(dtype=np.int64)) - stated) % 65536:
            raise RecordError(
                "bad_checksum",
                f"signal {name!r} of {stem.name}: the samples do not match the header's checksum; copy the record again",
            )
    signals: list[np.ndarray | None] = []
    invalid: list[int | None] = []
    for x, fmt, skew, n in zip(counts, head.fmt, head.skew, head.samps_per_frame, strict=True):
        code = _INVALID.get(fmt)
        if skew:  # this signal lags: its first `skew` frames belong before the record
            filler = code if code is not None else int(np.iinfo(np.int32).min)
            x = np.concatenate([x[skew * n :], np.full(min(skew * n, x.size), filler, dtype=x.dtype)])
            code = filler
        signals.append(x)
        invalid.append(code)
    gains = [1.0 if i in head.zero_gain else float(g) for i, g in enumerate(head.adc_gain)]
    return _Run(start, length, signals, gains, [int(b) for b in head.baseline], invalid)


def _check_files(stem: Path, head: Any) -> int:
    """Length in frames; the header's claim is held against the size of each signal file first."""
    length = head.sig_len
    if length is not None and not 0 <= length < _MAX_SAMPLES:
        raise RecordError("lying_header", f"the header states {length} samples; mend it")
    by_file: dict[str, list[int]] = {}
    for i, name in enumerate(head.file_name):
        by_file.setdefault(name, []).append(i)
    if "~" in by_file:
        raise RecordError("no_signal", "the layout of a multi-segment record holds no samples; read the record's own header")
    for name, rows in by_file.items():
        path = stem.parent / name
        if name != Path(name).name or not path.is_file():
            raise RecordError("missing", f"signal file {name} is not beside the header; copy it there")
        size = path.stat().st_size
        fmt = head.fmt[rows[0]]
        if fmt not in _BITS and fmt not in _FLAC:
            raise RecordError("wrong_format", f"WFDB storage format {fmt} is not known; mend the header")
        if size == 0:
            raise RecordError("empty", f"signal file {name} is empty; copy it again")
        if length is None or fmt in _FLAC:
            continue  # compressed: the frame count is checked by the decoder
        per_frame = sum(head.samps_per_frame[i] for i in rows)
        need = (head.byte_offset[rows[0]] or 0) + int(length * per_frame * _BITS[fmt] / 8)
        if size < need:
            kind = "lying_header" if need > 2 * size else "truncated"
            raise RecordError(
                kind, f"the header states {length} samples ({need} bytes in {name}), the file has {size}; copy it again"
            )
    if length is None:
        length = _length_of(stem, head, by_file)
    return int(length)


def _length_of(stem: Path, head: Any, by_file: dict[str, list[int]]) -> int:
    """Frames, from the size of an uncompressed signal file, for headers that leave the length out."""
    name, rows = next(iter(by_file.items()))
    if head.fmt[rows[0]] in _FLAC:
        raise RecordError("lying_header", "the header of a compressed record must state the number of samples")
    size = (stem.parent / name).stat().st_size - (head.byte_offset[rows[0]] or 0)
    return int(size * 8 / _BITS[head.fmt[rows[0]]] / sum(head.samps_per_frame[i] for i in rows))


def _segments(stem: Path, head: Any, findings: list[Finding]) -> tuple[list[_Run], list[str], list[str], list[int], list[int]]:
    """Runs of a multi-segment record: segments that touch are one run, gaps and absent files end it."""
    layout = None
    pieces: list[tuple[int, int, str]] = []
    position = 0
    for name, length in zip(head.seg_name, head.seg_len, strict=True):
        if length == 0:
            layout = _header(stem.parent / name)
        elif name != "~":
            pieces.append((position, length, name))
        position += length
    if head.sig_len is not None and position != head.sig_len:
        raise RecordError("lying_header", f"segments add up to {position} samples, the header states {head.sig_len}; mend it")
    absent = [name for _, _, name in pieces if not (stem.parent / f"{name}.hea").is_file()]
    if len(absent) == len(pieces):
        raise RecordError("missing", f"none of its {len(pieces)} segments is there; copy them beside the header")
    if absent:
        share = sum(n for _, n, name in pieces if name in absent) / max(position, 1)
        text = f"{len(absent)} of {len(pieces)} segments are not there ({', '.join(absent[:3])} ...)"
        findings.append(Finding("missing_segment", "", share, text))
    there = [(s, n, name, _header(stem.parent / name)) for s, n, name in pieces if name not in absent]
    first = layout if layout is not None else there[0][3]
    names, file_units = list(first.sig_name), list(first.units)
    frame: dict[str, int] = {}
    for _, length, name, segment in there:
        if segment.fs != head.fs or (segment.sig_len is not None and segment.sig_len != length):
            raise RecordError("lying_header", f"segment {name} has another rate or length than the record states; mend it")
        for signal, unit, n in zip(segment.sig_name, segment.units, segment.samps_per_frame, strict=True):
            if signal not in names:
                names.append(signal)
                file_units.append(unit)
            if frame.setdefault(signal, n) != n or file_units[names.index(signal)] != unit:
                raise RecordError("lying_header", f"signal {signal!r} changes its unit or samples per frame in segment {name}")
    zero = sorted({names.index(segment.sig_name[i]) for *_, segment in there for i in segment.zero_gain})
    parts = [_ordered(_read_segment(stem.parent / name, segment, s), segment, names) for s, _, name, segment in there]
    spf = [frame.get(name, 1) for name in names]
    return _join(parts, spf), names, file_units, spf, zero


def _ordered(run: _Run, segment: Any, names: list[str]) -> _Run:
    """The segment's signals in the record's order; None where it lacks one."""
    where = {name: i for i, name in enumerate(segment.sig_name)}
    rows = [where.get(name) for name in names]
    return _Run(
        run.start,
        run.length,
        [None if i is None else run.signals[i] for i in rows],
        [0.0 if i is None else run.gains[i] for i in rows],
        [0 if i is None else run.baselines[i] for i in rows],
        [None if i is None else run.invalid[i] for i in rows],
    )


def _join(parts: list[_Run], spf: list[int]) -> list[_Run]:
    """Concatenate parts that touch; where gains differ the signal becomes float (``gains`` 0 marks that)."""
    groups: list[list[_Run]] = []
    for part in parts:
        if groups and groups[-1][-1].start + groups[-1][-1].length == part.start:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [group[0] if len(group) == 1 else _concatenate(group, spf) for group in groups]


def _concatenate(group: list[_Run], spf: list[int]) -> _Run:
    signals: list[np.ndarray | None] = []
    gains, baselines, invalid = [], [], []
    for c, n in enumerate(spf):
        have = [p for p in group if p.signals[c] is not None]
        scales = {(p.gains[c], p.baselines[c], p.invalid[c]) for p in have}
        whole = len(scales) == 1 and len(have) == len(group)
        if whole:
            signals.append(np.concatenate([p.signals[c] for p in group if p.signals[c] is not None]))
            gain, base, bad = scales.pop()
            gains.append(gain)
            baselines.append(base)
            invalid.append(bad)
        else:
            pieces = [_physical(p, c) if p.signals[c] is not None else np.full(p.length * n, np.nan) for p in group]
            signals.append(np.concatenate(pieces) if have else None)
            gains.append(0.0)
            baselines.append(0)
            invalid.append(None)
    return _Run(group[0].start, sum(p.length for p in group), signals, gains, baselines, invalid)


def _physical(run: _Run, c: int) -> np.ndarray:
    """Values in the file's unit, NaN where invalid."""
    counts = run.signals[c]
    assert counts is not None
    if counts.dtype.kind == "f":
        return counts
    value = (counts.astype(np.float64) - run.baselines[c]) / run.gains[c]
    if run.invalid[c] is not None:
        value[counts == run.invalid[c]] = np.nan
    return value


def _recording(
    run: _Run, rows: list[int], n: int, rate: float, cal: Calibration, record: str, start: str | None,
    marks: tuple[Annotation, ...], facts: dict[str, Any],
) -> Recording:  # fmt: skip
    """One rate group of one run."""
    own = cal.pick(rows)
    data = np.full((len(rows), run.length * n), np.nan, dtype=np.float32)
    for k, c in enumerate(rows):
        if run.signals[c] is not None:
            data[k] = _physical(run, c) * own.factors[k]
    lsb = baseline = None
    whole = [run.signals[c] for c in rows if run.gains[c]]
    if len(whole) == len(rows) and recoverable([_valid(run, c) for c in rows], [run.baselines[c] for c in rows]):
        lsb = np.array([own.factors[k] / run.gains[c] for k, c in enumerate(rows)])
        baseline = np.array([-run.baselines[c] * lsb[k] for k, c in enumerate(rows)])
    originals = [facts["ch_names_original"][c] for c in rows]
    return Recording(
        data=data, sfreq=rate * n, ch_names=own.names, ch_types=own.types, units=own.units, record=record,
        offset_s=run.start / rate, start=start, annotations=marks, lsb=lsb, baseline=baseline,
        meta=facts | {"ch_names_original": originals},
    )  # fmt: skip


def _valid(run: _Run, c: int) -> np.ndarray:
    """Counts that are not the invalid code."""
    counts = run.signals[c]
    assert counts is not None
    return counts if run.invalid[c] is None else counts[counts != run.invalid[c]]


def _own_unit(
    units: Mapping[str, str] | None, name: str, modality: str | None, channel_map: Mapping[str, str] | None
) -> str | None:
    from biossl.channels import canonical

    text, kind = canonical((channel_map or {}).get(name, name), modality)
    return (units or {}).get(text, (units or {}).get(kind))


def _comments(lines: Sequence[str]) -> dict[str, str]:
    """``Key: value`` and ``<key>: value <key>: value`` lines as a dict; other lines are numbered ``comment_1`` ..."""
    out: dict[str, str] = {}
    for i, line in enumerate(lines, start=1):
        pairs = re.findall(r"<([^<>]+)>\s*:\s*([^<]*)", line) or re.findall(r"^([^:<>]{1,60}):\s*(.*)$", line)
        for key, value in pairs or [(f"comment_{i}", line)] * bool(line.strip()):
            out[key.strip()] = value.strip()
    return out
