"""Tables of samples: CSV and text files, also inside zips, as a TableSpec describes them.

What lives here: :class:`TableSpec` (part of a data card), :func:`read_table` and :func:`guess_spec`. How jittered time
stamps become a regular grid is in ``stamps.py``. A row that cannot be read is an error naming file and line; nothing is dropped or repaired silently.
"""

from __future__ import annotations

import csv
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from biossl.errors import RecordError, RequestError
from biossl.io.common import calibrate, meta, reader
from biossl.io.stamps import Piece, changes, pieces
from biossl.signal import Recording

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "nan", "na", "null", "none")  # cells that say "not observed"
# what damaged zips make the standard library raise
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    IndexError,
    struct.error,
)
_MAX_SFREQ = 1e6  # Hz; no biosignal is sampled faster, so such a time column is none
_BOMB_BYTES, _BOMB_RATIO = 2**28, 100  # a zip member that unpacks to more, at more than this, is not a table of samples


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
    runs: list[Piece] = []
    for a, b in changes([frame[c].to_numpy(dtype=object) for c in spec.runs], len(frame)):
        runs += pieces(data[:, a:b], None if times is None else times[a:b], a, labels, spec)
    zero = min(p.start_s for p in runs)
    marks = tuple(m for p in runs for m in p.marks(zero, spec.label_kind, spec.label))
    facts = meta("table", originals, cal.findings)
    return [
        Recording(
            data=p.data.astype(np.float32), sfreq=spec.sfreq, ch_names=cal.names, ch_types=cal.types, units=cal.units,
            record=name, offset_s=p.start_s - zero, annotations=marks, meta=dict(facts),
        )
        for p in runs
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
    if not bang or Path(path).exists():
        if Path(path).exists() and not Path(path).is_file():
            raise RecordError("wrong_format", "is not an ordinary file; give a table", path)
        return Path(path).read_bytes()
    try:
        with zipfile.ZipFile(archive) as z:
            facts = z.getinfo(inner)  # its stated size also limits what is unpacked
            if facts.file_size > max(_BOMB_BYTES, _BOMB_RATIO * facts.compress_size):
                text = f"{inner} would unpack to {facts.file_size / 1e9:.3g} GB from {facts.compress_size / 1e6:.3g} MB; no table does"
                raise RecordError("too_large", f"{text}: leave it out, or unpack it by hand if it is one")
            return z.read(facts)
    except KeyError:
        raise RecordError("missing", f"the zip holds no {inner}; copy it there or unpack the zip") from None
    except FileNotFoundError:
        raise
    except (*ZIP_FAULTS, OSError) as error:  # OSError is what a damaged bzip2 stream gives
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
    stamps = np.array([float(r[time]) for r in body])
    steps = np.diff(stamps[np.isfinite(stamps)])
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    unit = 1.0 if step < 0.5 else 1e-3 if step < 5e2 else 1e-6 if step < 5e5 else 1e-9
    usual = steps[steps < 20 * step]
    seconds = float(np.mean(usual)) * unit if usual.size else 0.0
    rate = sfreq or float(f"{1 / max(seconds, 1e-9):.3g}")
    if sfreq is None and not seconds > 1 / _MAX_SFREQ:
        raise RecordError("needs_card", f"column {names[time]!r} does not count time forward; state the rate", str(path))
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
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordError("wrong_format", "is not a text table (not UTF-8); check the card's reader", path) from None
    if not text.strip():
        raise RecordError("empty", "the file is empty; copy it again", path)
    if "\0" in text:
        raise RecordError("wrong_format", "is not a text table (holds zero bytes); check the card's reader", path)
    return text


def _frame(path: str, spec: TableSpec, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The file as text cells and the line number of its first row."""
    import pandas as pd

    lines = _text(path).rstrip().splitlines()
    if spec.line_end:
        lines = [line.rstrip() for line in lines]
        for i, line in enumerate(lines, start=1):
            if not line.endswith(spec.line_end):
                raise RecordError("wrong_format", f"line {i} does not end with {spec.line_end!r}: {line[:60]!r}", path)
        lines = [line[: -len(spec.line_end)] for line in lines]
    if not names:
        names = [
            cell.strip() for cell in next(csv.reader([lines[0]], delimiter=_character(spec.separator), skipinitialspace=True))
        ]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise RecordError("wrong_format", f"two columns are named {twice!r}; name them apart", path)
        lines, first_line = lines[1:], 2
    else:
        first_line = 1
    if not lines:
        raise RecordError("empty", "the file has a header and no rows; copy it again", path)
    for i, line in enumerate(lines, start=first_line):  # pandas would fill up a short row silently
        n = _n_cells(line, spec.separator)
        if n != len(names):
            raise RecordError(
                "wrong_format",
                f"line {i} has {n} cells, the {'header' if first_line == 2 else 'card'} names {len(names)} columns; "
                f"check the separator {spec.separator!r} or mend that line",
                path,
            )
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)), sep=r"\s+" if spec.separator == "whitespace" else spec.separator, header=None,
        dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False, skipinitialspace=True,
    )  # fmt: skip
    frame.columns = pd.Index(names)
    return frame, first_line


def _character(separator: str) -> str:
    return " " if separator == "whitespace" else separator


def _n_cells(line: str, separator: str) -> int:
    if '"' in line:
        return len(next(csv.reader([line], delimiter=_character(separator), skipinitialspace=True)))
    return len(line.split()) if separator == "whitespace" else line.count(separator) + 1


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


def check_spec(spec: TableSpec, where: str) -> None:
    """RequestError when columns of a spec contradict each other; ``where`` is put before the message."""
    if not spec.names:
        return
    known = [*spec.names, *(n for c in spec.companions for n in c.names)]
    for column in [*spec.channels, spec.time, spec.label, *spec.runs]:
        if column and column not in known:
            raise RequestError(f"{where}: column '{column}' is not among names ({', '.join(known)}); add or mend it")
