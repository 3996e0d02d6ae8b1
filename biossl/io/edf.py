"""EDF, EDF+, BDF and BDF+: per-signal rates and units, annotations, split at gaps.

What lives here: the header, the data records and the time-stamped annotation lists (TAL) of the European Data Format.
They are read directly because the usual readers lose what matters here (measured): MNE brings all channels to the
highest rate, MNE and edfio close the gaps of EDF+D, and unknown units pass as volts. The header is held against the
file's size before anything is allocated.

Formats: Kemp et al. 1992 (doi:10.1016/0013-4694(92)90009-7), Kemp and Olivan 2003 (doi:10.1016/S1388-2457(03)00123-8).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biossl.errors import RecordError
from biossl.io.common import Calibration, calibrate, meta, reader, recoverable
from biossl.quality import Finding
from biossl.signal import Annotation, Recording

EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14([^\x00]*)\x14\x00")
_MAX_SFREQ = 1e6  # Hz; no biosignal is sampled faster, so the duration of a data record is wrong
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()


@dataclass(frozen=True)
class _Header:
    width: int  # bytes per sample
    offset: int  # bytes before the first data record
    n_records: int
    record_s: float
    start: str | None
    discontinuous: bool
    labels: list[str]
    dimensions: list[str]
    gains: np.ndarray  # physical value of one count
    offsets: np.ndarray  # physical value of count 0
    prefilters: list[str]
    per_record: list[int]  # samples

    @property
    def tal(self) -> list[int]:
        """Signals that hold annotations."""
        return [i for i, label in enumerate(self.labels) if label in ("EDF Annotations", "BDF Annotations")]


@reader
def read_edf(
    path: str | Path,
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> list[Recording]:
    """Read an EDF, EDF+, BDF or BDF+ file.

    Parameters
    ----------
    path : path
    modality, channel_map, units
        See :func:`biossl.io.common.calibrate`.

    Returns
    -------
    list of Recording
        One per contiguous stretch and sampling rate, by time, then rate (highest first). Annotation onsets and
        ``offset_s`` count from the first sample of the file.

    Raises
    ------
    RecordError
        ``missing``, ``empty``, ``wrong_format``, ``truncated``, ``lying_header``, ``zero_gain``, ``unknown_unit``,
        ``gap`` (EDF+D without time stamps), ``no_signal`` (annotations only, e.g. a hypnogram).

    Examples
    --------
    >>> [r.sfreq for r in read_edf("psg.edf")]  # doctest: +SKIP
    [100.0, 1.0]
    """
    path = Path(path)
    head, zero_gain = _header(path)
    raw = np.memmap(path, dtype=np.uint8, mode="r", offset=head.offset).reshape(head.n_records, -1)
    onsets, notes = _annotations(raw, head)
    origin = onsets[0] if onsets else 0.0
    marks = tuple(Annotation(t - origin, d, text, kind=_kind(text), source="edf+") for t, d, text in notes)
    rows = [i for i in range(len(head.labels)) if i not in head.tal]
    if not rows:
        raise RecordError("no_signal", f"{len(marks)} annotations and no signal; give it as labels of its recording")
    names = [head.labels[i] for i in rows]
    dimensions = [head.dimensions[i] for i in rows]
    for k, i in enumerate(rows):
        if i in zero_gain:
            if "1" not in ((units or {}).get(names[k]), (units or {}).get((channel_map or {}).get(names[k], names[k]))):
                text = f"channel {names[k]!r} has equal physical limits (gain 0); accept it with units: {{{names[k]}: '1'}}"
                raise RecordError("zero_gain", text)
            dimensions[k] = "1"
    cal = calibrate(names, dimensions, modality=modality, channel_map=channel_map, units=units)
    findings = list(cal.findings)
    stretches = _stretches(head, onsets, findings)
    start = _shifted(head.start, origin)
    out = []
    for first, last, offset_s in stretches:
        for n in sorted({head.per_record[i] for i in rows}, reverse=True):
            group = [k for k, i in enumerate(rows) if head.per_record[i] == n]
            counts = [_counts(raw, head, rows[k], first, last) for k in group]
            facts = meta(
                "bdf" if head.width == 3 else "edf", [names[k] for k in group], findings,
                prefilter=[head.prefilters[rows[k]] for k in group],
            )  # fmt: skip
            gains = head.gains[[rows[k] for k in group]]
            offsets = head.offsets[[rows[k] for k in group]]
            out.append(
                _recording(
                    counts, gains, offsets, cal.pick(group), path.stem, n / head.record_s, offset_s - origin, start, marks, facts
                )
            )
    return out


def _recording(
    counts: list[np.ndarray], gains: np.ndarray, offsets: np.ndarray, cal: Calibration, record: str, sfreq: float,
    offset_s: float, start: str | None, marks: tuple[Annotation, ...], facts: dict[str, object],
) -> Recording:  # fmt: skip
    lsb, baseline = np.abs(gains) * cal.factors, offsets * cal.factors  # a reversed range is counts of the other sign
    data = np.empty((len(counts), counts[0].size), dtype=np.float32)
    for k, x in enumerate(counts):
        data[k] = (x * gains[k] + offsets[k]) * cal.factors[k]
    whole = recoverable(counts, -offsets / gains)
    return Recording(
        data=data, sfreq=sfreq, ch_names=cal.names, ch_types=cal.types, units=cal.units, record=record, offset_s=offset_s,
        start=start, annotations=marks, lsb=lsb if whole else None, baseline=baseline if whole else None, meta=facts,
    )  # fmt: skip


def _header(path: Path) -> tuple[_Header, list[int]]:
    """Parse and check; also the signals whose gain is 0."""
    size = path.stat().st_size
    if size == 0:
        raise RecordError("empty", "the file is empty; copy it again")
    with open(path, "rb") as f:
        fixed = f.read(256)
        if fixed[:8] not in (EDF_MAGIC, BDF_MAGIC):
            raise RecordError("wrong_format", "not an EDF or BDF file; check the path")
        if len(fixed) < 256:
            raise RecordError("truncated", f"the file ends inside its header ({size} bytes); copy it again")
        n_signals = int(_number(fixed[252:256], "number of signals"))
        offset = int(_number(fixed[184:192], "header size"))
        if not 0 < n_signals <= 10_000 or offset != 256 * (n_signals + 1):
            raise RecordError("lying_header", f"{n_signals} signals and a header of {offset} bytes do not agree; mend the header")
        if size < offset:
            raise RecordError("truncated", f"the file ends inside its header ({size} of {offset} bytes); copy it again")
        rest = f.read(offset - 256)
    fields, at = [], 0
    for width in (16, 80, 8, 8, 8, 8, 8, 80, 8):
        fields.append([rest[at + i * width : at + (i + 1) * width] for i in range(n_signals)])
        at += width * n_signals
    labels, _, dimensions, p_min, p_max, d_min, d_max, prefilters, samples = fields
    texts = [_text(x) for x in labels]
    per_record = [int(_number(x, f"samples per record of {name!r}")) for x, name in zip(samples, texts, strict=True)]
    width = 3 if fixed[:1] == b"\xff" else 2
    record_bytes = sum(per_record) * width
    n_records = int(_number(fixed[236:244], "number of data records"))
    record_s = _number(fixed[244:252], "duration of a data record")
    if min(per_record) < 0 or record_bytes == 0 or record_s < 0 or n_records < -1:
        raise RecordError("lying_header", "a negative or zero count in the header; mend it")
    if n_records == -1:  # the recorder was stopped before it wrote the count
        n_records = (size - offset) // record_bytes
    _check_size(size, offset, n_records, record_bytes)
    has_signal = any(name not in ("EDF Annotations", "BDF Annotations") for name in texts)
    if has_signal and record_s == 0:
        raise RecordError("lying_header", "data records of 0 s that hold signals; mend the header")
    if has_signal and max(per_record) / record_s > _MAX_SFREQ:
        raise RecordError("lying_header", f"{max(per_record)} samples in a data record of {record_s:g} s; mend the header")
    if n_records == 0:
        raise RecordError("empty", "the file holds a header and no data; copy it again")
    gains, offsets, zero = np.ones(n_signals), np.zeros(n_signals), []
    for i, name in enumerate(texts):
        low, high = _number(p_min[i], f"physical minimum of {name!r}"), _number(p_max[i], f"physical maximum of {name!r}")
        d_low, d_high = _number(d_min[i], f"digital minimum of {name!r}"), _number(d_max[i], f"digital maximum of {name!r}")
        if d_low >= d_high:
            raise RecordError("lying_header", f"channel {name!r}: digital limits {d_low:g} to {d_high:g}; mend the header")
        if low == high:
            zero.append(i)
            continue
        gains[i] = (high - low) / (d_high - d_low)
        offsets[i] = low - d_low * gains[i]
    head = _Header(
        width, offset, n_records, record_s, _start(fixed), fixed[192:197] in (b"EDF+D", b"BDF+D"), texts,
        [_text(x) for x in dimensions], gains, offsets, [_text(x) for x in prefilters], per_record,
    )  # fmt: skip
    return head, zero


def _check_size(size: int, offset: int, n_records: int, record_bytes: int) -> None:
    need = offset + n_records * record_bytes
    if size < need:
        code = "lying_header" if need > 2 * size else "truncated"
        text = f"the header states {n_records} data records ({need} bytes), the file has {size} bytes; copy it again"
        raise RecordError(code, text)
    if size > need:
        text = f"{size - need} bytes more than the header states (line ends converted in transfer?); copy it again as binary"
        raise RecordError("lying_header", text)


def _text(field: bytes) -> str:
    return field.decode("latin-1").strip(" \x00")


def _number(field: bytes, what: str) -> float:
    try:
        value = float(field.decode("ascii").strip(" \x00"))
    except (ValueError, UnicodeDecodeError):
        raise RecordError("lying_header", f"{what} is {_text(field)!r}, not a number; mend the header") from None
    if not np.isfinite(value):
        raise RecordError("lying_header", f"{what} is {value}; mend the header")
    return value


def _start(fixed: bytes) -> str | None:
    """ISO start time; the four-digit year of EDF+ wins over the two-digit one (85-99 -> 19xx)."""
    when = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)(\d\d)\.(\d\d)\.(\d\d)", fixed[168:184].decode("latin-1"))
    if not when:
        return None
    day, month, year, hour, minute, second = (int(g) for g in when.groups())
    year += 1900 if year >= 85 else 2000
    full = re.match(rb"Startdate (\d\d)-([A-Za-z]{3})-(\d{4})", fixed[88:168])
    if full and full[2].decode().upper() in _MONTHS:
        day, month, year = int(full[1]), _MONTHS.index(full[2].decode().upper()) + 1, int(full[3])
    try:
        return datetime.datetime(year, month, day, hour, minute, second).isoformat()
    except ValueError:
        return None


def _shifted(start: str | None, seconds: float) -> str | None:
    """Start plus the first record's sub-second onset."""
    if start is None or seconds == 0:
        return start
    return (datetime.datetime.fromisoformat(start) + datetime.timedelta(seconds=seconds)).isoformat()


def _annotations(raw: np.ndarray, head: _Header) -> tuple[list[float], list[tuple[float, float, str]]]:
    """Onset of each data record (empty without time stamps) and all annotations (onset, duration, text)."""
    onsets: list[float] = []
    notes: list[tuple[float, float, str]] = []
    for position, signal in enumerate(head.tal):
        begin = sum(head.per_record[:signal]) * head.width
        end = begin + head.per_record[signal] * head.width
        for k, record in enumerate(raw[:, begin:end]):
            found = _TAL.findall(record.tobytes())
            if position == 0:
                if not found or found[0][2] != b"":
                    raise RecordError("lying_header", f"data record {k + 1} has no time stamp in its annotations; copy it again")
                onsets.append(float(found[0][0]))
            for onset, duration, texts in found:
                for text in texts.split(b"\x14"):
                    if text:
                        notes.append((float(onset), float(duration or 0), text.decode("utf-8", errors="replace").strip()))
    return onsets, sorted(notes, key=lambda note: note[0])


def _kind(text: str) -> str:
    if re.match(r"Sleep stage|Movement time", text):
        return "stage"
    return "trial" if re.fullmatch(r"T\d+", text) else "note"


def _stretches(head: _Header, onsets: list[float], findings: list[Finding]) -> list[tuple[int, int, float]]:
    """Contiguous runs of data records: (first, last + 1, onset)."""
    if not onsets:
        if head.discontinuous:
            raise RecordError(
                "gap", "marked discontinuous (EDF+D) without time stamps; its gaps cannot be placed, export it again"
            )
        return [(0, head.n_records, 0.0)]
    tolerance = 0.5 * head.record_s / max(head.per_record[i] for i in range(len(head.labels)) if i not in head.tal)
    at = np.array(onsets)
    jump = np.diff(at) - head.record_s
    if (jump < -tolerance).any():
        k = int(np.flatnonzero(jump < -tolerance)[0]) + 2
        raise RecordError("lying_header", f"data record {k} begins before the one before it ends; export the file again")
    cuts = np.flatnonzero(jump > tolerance) + 1
    if cuts.size:
        lost = float(jump[cuts - 1].sum())
        findings.append(Finding("gap", "", lost / (at[-1] - at[0] + head.record_s), f"{cuts.size} gaps, {lost:g} s in all"))
    edges = [0, *cuts.tolist(), head.n_records]
    return [(a, b, onsets[a]) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _counts(raw: np.ndarray, head: _Header, signal: int, first: int, last: int) -> np.ndarray:
    """Samples of one signal in some data records, int16 or int32."""
    begin = sum(head.per_record[:signal]) * head.width
    block = np.ascontiguousarray(raw[first:last, begin : begin + head.per_record[signal] * head.width])
    if head.width == 2:
        return block.view("<i2").reshape(-1)
    parts = block.reshape(-1, 3).astype(np.int32)
    value = parts[:, 0] | (parts[:, 1] << 8) | (parts[:, 2] << 16)
    return value - ((value & 0x800000) << 1)
