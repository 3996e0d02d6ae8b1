"""Tables of samples: CSV and text files, also inside zips, as a TableSpec describes them.

What lives here: :class:`TableSpec` (part of a data card), :func:`read_table`, and the way from jittered time stamps to a
regular grid. A row that cannot be read is an error naming file and line; nothing is dropped or repaired silently.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biossl.errors import RecordError, RequestError
from biossl.io.common import calibrate, meta, reader
from biossl.preprocess.filters import filter_signal
from biossl.signal import Annotation, FilterSpec, Recording

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "nan", "na", "null", "none")  # cells that say "not observed"
RATE_TOLERANCE = 0.2  # time stamps must give the stated rate to this share
REGULAR = 0.25  # stamps within this share of a sample of the regular grid are that grid


@dataclass
class Companion:
    """A second file with further columns, row for row (HAPT: gyroscope beside accelerometer).

    ``replace`` is the part of the first file's path and what stands there in the companion's; ``names`` its columns
    when it has no header.
    """

    replace: list[str]
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.replace) != 2:
            raise ValueError("'replace' needs two texts: the part of the path and what stands there instead")


@dataclass
class TableSpec:
    """How to read one table of samples.

    Attributes
    ----------
    sfreq : float
        Hz of the result. Without time stamps: of the rows. With stamps that jitter: the regular grid made from them.
    separator : str
        One character, or ``whitespace``.
    names : list of str
        Names of the columns of a file without a header line. Empty: the first line names them.
    channels : dict
        Column -> channel name. Empty: every column that has no other duty, under its own name.
    time : str
        Column of time stamps, ``""`` = none.
    time_unit_s : float
        Seconds per unit of the stamps (0.001 for milliseconds).
    stamps : str
        What an uneven stamp means. ``measured``: when the sample was taken; equal stamps are averaged, the rest is
        interpolated. ``delivered``: when the sample arrived; samples of a run are evenly spaced, and a straight line
        through stamps over sample numbers gives their times.
    gap_s : float
        A step between stamps longer than this splits the recording.
    label : str
        Column whose equal neighbours make an interval annotation of kind ``label_kind``.
    runs : list of str
        Columns of which any change starts a new recording.
    line_end : str
        Character every line ends with (``;``).
    companions : list of Companion
    """

    sfreq: float
    separator: str = ","
    names: list[str] = field(default_factory=list)
    channels: dict[str, str] = field(default_factory=dict)
    time: str = ""
    time_unit_s: float = 1.0
    stamps: Literal["measured", "delivered"] = "measured"
    gap_s: float = 1.0
    label: str = ""
    label_kind: str = "activity"
    runs: list[str] = field(default_factory=list)
    line_end: str = ""
    companions: list[Companion] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.sfreq > 0:
            raise ValueError(f"sfreq must be above 0, not {self.sfreq}")
        if self.separator != "whitespace" and len(self.separator) != 1:
            raise ValueError(f"separator {self.separator!r} must be one character or 'whitespace'")
        if not (self.time_unit_s > 0 and self.gap_s > 0):
            raise ValueError("time_unit_s and gap_s must be above 0")


@reader
def read_table(
    path: str | Path,
    spec: TableSpec,
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    record: str | None = None,
) -> list[Recording]:
    """Read a table of samples.

    Parameters
    ----------
    path : path
        A file, or ``archive.zip!inner/name.txt``.
    spec : TableSpec
    modality, channel_map, units
        See :func:`biossl.io.common.calibrate`; a table states no units, so ``units`` gives those of every channel
        (``"1"`` = uncalibrated).
    record : str, optional
        Name; the file's without suffix otherwise.

    Returns
    -------
    list of Recording
        One per contiguous run, in the order of the file; empty cells and ``NaN`` are NaN.

    Raises
    ------
    RecordError
        ``missing``, ``empty``, ``wrong_format`` (separator, column, cell; with the line), ``all_nan``, ``rate``,
        ``length`` (companion), ``unknown_unit``.

    Examples
    --------
    >>> read_table("walk.csv", TableSpec(sfreq=50.0), units={"acc": "g"})  # doctest: +SKIP
    """
    frame, first_line = _frame(str(path), spec, spec.names)
    lines = np.arange(len(frame)) + first_line
    columns = _channel_columns(frame, spec)
    for companion in spec.companions:
        other, other_line = _frame(companion_path(str(path), companion), spec, companion.names)
        if len(other) != len(frame):
            raise RecordError("length", f"has {len(frame)} rows, its companion {len(other)}; they must match row for row")
        twice = set(other.columns) & set(frame.columns)
        if twice:
            raise RecordError("wrong_format", f"column {sorted(twice)[0]!r} is in the companion too; name them apart")
        if not spec.channels:
            columns |= {c: c for c in other.columns}
        for c in (c for c in other.columns if c in columns):
            frame[c] = _numbers(other[c], np.arange(len(other)) + other_line)
    absent = [c for c in [*columns, spec.time, spec.label, *spec.runs] if c and c not in frame.columns]
    if absent:
        raise RecordError(
            "wrong_format",
            f"no column {absent[0]!r}; it has {', '.join(map(repr, frame.columns))} (separator {spec.separator!r})",
        )
    data = np.stack([_numbers(frame[c], lines) for c in columns])
    if np.isnan(data).all():
        raise RecordError("all_nan", "no cell of any channel holds a number; nothing to read")
    originals = list(columns)
    cal = calibrate(
        [columns[c] for c in originals], [""] * len(originals), modality=modality, channel_map=channel_map, units=units
    )
    data *= cal.factors[:, None]
    times = None
    if spec.time:
        stamps = _numbers(frame[spec.time], lines, needed=True)
        times = (stamps - stamps.min()) * spec.time_unit_s  # small numbers keep their precision
    labels = frame[spec.label].to_numpy(dtype=object) if spec.label else None
    name = record or Path(str(path).rsplit("!", 1)[-1]).stem
    pieces: list[_Piece] = []
    for a, b in _changes([frame[c].to_numpy(dtype=object) for c in spec.runs], len(frame)):
        pieces += _pieces(data[:, a:b], None if times is None else times[a:b], a, labels, spec)
    zero = min(p.start_s for p in pieces)
    marks = tuple(m for p in pieces for m in p.marks(zero, spec.label_kind, spec.label))
    facts = meta("table", originals, cal.findings)
    return [
        Recording(
            data=p.data.astype(np.float32), sfreq=spec.sfreq, ch_names=cal.names, ch_types=cal.types, units=cal.units,
            record=name, offset_s=p.start_s - zero, annotations=marks, meta=dict(facts),
        )
        for p in pieces
    ]  # fmt: skip


def companion_path(path: str, companion: Companion) -> str:
    """Path of the companion file; RecordError ``missing`` when the path lacks the part to replace."""
    here, there = companion.replace
    if here not in path:
        raise RecordError("missing", f"its path lacks {here!r}, so the companion file cannot be named; mend the card")
    return there.join(path.rsplit(here, 1))


def read_bytes(path: str) -> bytes:
    """Bytes of a file or of a member of a zip (``archive.zip!inner/name``)."""
    archive, bang, inner = path.partition("!")
    if not bang or Path(path).is_file():
        return Path(path).read_bytes()
    try:
        with zipfile.ZipFile(archive) as z:
            return z.read(inner)
    except KeyError:
        raise RecordError("missing", f"the zip holds no {inner}; copy it there or unpack the zip") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise RecordError("wrong_format", f"{Path(archive).name} cannot be unpacked ({error}); copy it again") from None


def guess_spec(path: str | Path, sfreq: float | None = None) -> TableSpec:
    """A TableSpec for a table nobody described: separator, header and time column from its first lines.

    Parameters
    ----------
    path : path
        As for :func:`read_table`.
    sfreq : float, optional
        Hz, for a table without a time column.

    Raises
    ------
    RecordError
        ``empty``, ``wrong_format`` (not text, no column of numbers), ``needs_card`` (no time column and no ``sfreq``).

    Examples
    --------
    >>> guess_spec("walk.csv").separator  # doctest: +SKIP
    ','
    """
    lines = _text(str(path)).splitlines()[:2000]
    counts = {s: min(len(_split(line, s)) for line in lines[:20]) for s in (",", ";", "\t", "whitespace")}
    separator = max(counts, key=lambda s: counts[s])
    line_end = ";" if separator != ";" and all(line.rstrip().endswith(";") for line in lines[:20]) else ""
    rows = [_split(line.rstrip().removesuffix(line_end), separator) for line in lines]
    header = not any(_is_number(cell) for cell in rows[0])
    names = [cell.strip() for cell in rows[0]] if header else [f"column_{i + 1}" for i in range(len(rows[0]))]
    body = rows[1:] if header else rows
    numeric = [i for i in range(len(names)) if body and all(i < len(r) and _is_number(r[i]) for r in body)]
    time = next((i for i in numeric if re.split(r"[\[( ]", names[i].casefold())[0] in ("time", "timestamp", "t")), None)
    channels = {names[i]: _axis_last(names[i]) for i in numeric if i != time}
    if not channels:
        raise RecordError("wrong_format", "no column of numbers; check that it is a table of samples", str(path))
    own_names = [] if header else names
    if time is None:
        if sfreq is None:
            raise RecordError("needs_card", "a table without a time column does not say its rate; state it", str(path))
        return TableSpec(sfreq=sfreq, separator=separator, names=own_names, channels=channels, line_end=line_end)
    steps = np.diff([float(r[time]) for r in body])
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    unit = 1.0 if step < 0.5 else 1e-3 if step < 5e2 else 1e-6 if step < 5e5 else 1e-9
    rate = sfreq or float(f"{1 / (float(np.mean(steps[steps < 20 * step])) * unit or 1.0):.3g}")
    return TableSpec(
        sfreq=rate, separator=separator, names=own_names, time=names[time], time_unit_s=unit, channels=channels, line_end=line_end
    )


def _axis_last(name: str) -> str:
    """``x_acc`` as ``acc_x``, which the channel vocabulary knows; other names as they are."""
    return re.sub(r"^([xyz])[ _.-]?((?:acc|gyr)[a-z]*)$", r"\2_\1", name, flags=re.IGNORECASE)


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == "whitespace" else line.split(separator)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _text(path: str) -> str:
    raw = read_bytes(path)
    if not raw.strip():
        raise RecordError("empty", "the file is empty; copy it again", path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordError("wrong_format", "is not a text table (not UTF-8); check the card's reader", path) from None
    if "\0" in text:
        raise RecordError("wrong_format", "is not a text table (holds zero bytes); check the card's reader", path)
    return text


def _frame(path: str, spec: TableSpec, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The file as text cells and the line number of its first row."""
    import pandas as pd

    text = _text(path).rstrip()
    if spec.line_end:
        lines = [line.rstrip() for line in text.splitlines()]
        for i, line in enumerate(lines, start=1):
            if not line.endswith(spec.line_end):
                raise RecordError("wrong_format", f"line {i} does not end with {spec.line_end!r}: {line[:60]!r}", path)
        text = "\n".join(line[: -len(spec.line_end)] for line in lines)
    first_line = 1 if names else 2
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=r"\s+" if spec.separator == "whitespace" else spec.separator, header=None if names else 0,
            dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False, skipinitialspace=True,
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        raise RecordError("empty", "the file has no columns; copy it again", path) from None
    except pd.errors.ParserError as error:
        place = str(error).split("C error: ")[-1].strip().rstrip(".")
        raise RecordError("wrong_format", f"a row has too many cells ({place}); check the separator or that line", path) from None
    if names and frame.shape[1] != len(names):
        raise RecordError(
            "wrong_format",
            f"line 1 has {frame.shape[1]} cells, the card names {len(names)} columns; check separator and names", path,
        )  # fmt: skip
    frame.columns = pd.Index([str(c).strip() for c in (names or frame.columns)])
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise RecordError("wrong_format", f"two columns are named {twice!r}; name them apart", path)
    if frame.empty:
        raise RecordError("empty", "the file has a header and no rows; copy it again", path)
    short = frame.iloc[:, -1].isna().to_numpy()
    if short.any():
        at = int(np.flatnonzero(short)[0])
        raise RecordError(
            "wrong_format", f"line {at + first_line} has fewer than {frame.shape[1]} cells; mend or complete that line", path
        )
    return frame, first_line


def _channel_columns(frame: pd.DataFrame, spec: TableSpec) -> dict[str, str]:
    if spec.channels:
        return dict(spec.channels)
    busy = {spec.time, spec.label, *spec.runs}
    return {c: c for c in frame.columns if c not in busy}


def _numbers(column: pd.Series, lines: np.ndarray, *, needed: bool = False) -> np.ndarray:
    """float64 values; NaN where the cell says "not observed". RecordError naming the line of the first bad cell."""
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = ~np.isfinite(values)
    if not odd.any():
        return values
    for i in np.flatnonzero(odd):
        cell = column.iloc[i]
        if not isinstance(cell, str):  # a number read from a companion: NaN already judged
            continue
        if needed or cell.strip().casefold() not in MISSING:
            raise RecordError(
                "wrong_format", f"line {lines[i]}, column {column.name!r}: {cell[:40]!r} is not a number; mend that cell"
            )
    return values


def _changes(columns: Sequence[np.ndarray], n: int) -> list[tuple[int, int]]:
    """Half-open runs of rows in which no column changes."""
    edge = np.zeros(max(n - 1, 0), bool)
    for c in columns:
        edge |= c[1:] != c[:-1]
    cuts = [0, *(np.flatnonzero(edge) + 1).tolist(), n]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


@dataclass
class _Piece:
    """One contiguous run on its regular grid: (C, T) values, seconds of its first sample, labelled intervals."""

    data: np.ndarray
    start_s: float
    intervals: list[tuple[float, float, str]]  # start, stop (seconds, as start_s), label

    def marks(self, zero: float, kind: str, source: str) -> list[Annotation]:
        return [Annotation(a - zero, b - a, text, kind=kind, source=source) for a, b, text in self.intervals]


def _pieces(data: np.ndarray, times: np.ndarray | None, first: int, labels: np.ndarray | None, spec: TableSpec) -> list[_Piece]:
    """Regular runs of rows first .. first + n - 1."""
    n = data.shape[1]
    own = None if labels is None else labels[first : first + n]
    if times is None:
        return [_Piece(data, first / spec.sfreq, _intervals(own, (first + np.arange(n + 1)) / spec.sfreq))]
    order = np.argsort(times, kind="stable")
    times, data, own = times[order], data[:, order], None if own is None else own[order]
    out = []
    cuts = [0, *(np.flatnonzero(np.diff(times) > spec.gap_s) + 1).tolist(), n]
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        out.append(_regular(data[:, a:b], times[a:b], None if own is None else own[a:b], spec))
    return out


def _regular(x: np.ndarray, t: np.ndarray, labels: np.ndarray | None, spec: TableSpec) -> _Piece:
    """One run on the grid of ``spec.sfreq``; as it is when its stamps are that grid already."""
    n, fs = x.shape[1], spec.sfreq
    if np.abs(t - t[0] - np.arange(n) / fs).max() <= REGULAR / fs:
        return _Piece(x, float(t[0]), _intervals(labels, t[0] + np.arange(n + 1) / fs))
    rate = (n - 1) / (t[-1] - t[0]) if t[-1] > t[0] else np.inf
    if n >= fs and abs(rate / fs - 1) > RATE_TOLERANCE:
        raise RecordError("rate", f"its time stamps give {rate:.4g} Hz, the card says {fs:g} Hz; mend sfreq or time_unit_s")
    if spec.stamps == "delivered":
        slope, start = np.polyfit(np.arange(n), t - t[0], 1)
        even_t = t[0] + start + slope * np.arange(n)
        edges = np.append(even_t, even_t[-1] + slope)
    else:
        edges = np.append(t, t[-1] + 1 / fs)
        t, x = _average_equal(t, x)
        even_t = np.linspace(t[0], t[-1], t.size)
        x = _interpolate(x, t, even_t)
    if even_t.size > 1:
        inner = (even_t.size - 1) / (even_t[-1] - even_t[0])
        if inner > fs:  # fewer samples come out than went in: what the new grid cannot hold is taken out first
            x = filter_signal(x, inner, FilterSpec(lowpass_hz=0.45 * fs, order=8, bridge_s=spec.gap_s))
    n_out = int(np.floor((even_t[-1] - even_t[0]) * fs + 1e-6)) + 1
    return _Piece(_interpolate(x, even_t, even_t[0] + np.arange(n_out) / fs), float(even_t[0]), _intervals(labels, edges))


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


def _intervals(labels: np.ndarray | None, edges: Any) -> list[tuple[float, float, str]]:
    """Runs of equal labels; ``edges`` (n + 1,) are the times of the samples and the end of the last one."""
    if labels is None:
        return []
    return [(float(edges[a]), float(edges[b]), str(labels[a]).strip()) for a, b in _changes([labels], len(labels))]


def check_spec(spec: TableSpec, where: str) -> None:
    """RequestError when columns of a spec contradict each other; ``where`` is put before the message."""
    if not spec.names:
        return
    known = [*spec.names, *(n for c in spec.companions for n in c.names)]
    for column in [*spec.channels, spec.time, spec.label, *spec.runs]:
        if column and column not in known:
            raise RequestError(f"{where}: column '{column}' is not among names ({', '.join(known)}); add or mend it")
