"""WFDB annotation files as Annotations: beats, rhythm intervals, wave delineations, notes.

What lives here: what the symbols of an annotation file mean. LUDB writes one file per lead whose extension is the lead;
its ``(``, peak, ``)`` triples become one wave each, a pair with one bracket a wave that lacks a bound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from biossl.channels import ECG_LEADS
from biossl.errors import RecordError
from biossl.signal import Annotation

_WAVES = frozenset("ptuN")
_LEADS = {lead.casefold(): lead for lead in ECG_LEADS}
# WFDB beat symbols (PhysioNet annotation codes)
BEATS = frozenset("N L R B A a J S V r F e j n E / f Q ?".split())


_EXTENSIONS = ("atr", "qrs", "ari", "ecg", "apn", "st", "pwave", "man", "xws")


def annotation_files(path: Path) -> list[str]:
    """Extensions of the annotation files beside a record (any of its files)."""
    return [e for e in (*_EXTENSIONS, *_LEADS) if path.with_suffix(f".{e}").is_file()]


def read_annotations(stem: Path, extension: str, sfreq: float, n_frames: int) -> list[Annotation]:
    """Read one annotation file.

    Parameters
    ----------
    stem : Path
        Record path without suffix.
    extension : str
        ``atr``, ``qrs`` ...; a lead's name (``i`` ... ``v6``) makes it a delineation of that lead.
    sfreq : float
        Frames per second of the record, used unless the file states its own.
    n_frames : int
        Length of the record: the last rhythm lasts until there.

    Returns
    -------
    list of Annotation
        Sorted by onset within a kind.

    Raises
    ------
    RecordError
        ``missing`` without the file, ``unreadable`` when it is damaged.
    """
    import wfdb

    path = Path(f"{stem}.{extension}")
    if not path.is_file():
        raise RecordError("missing", f"annotation file {path.name} is not there; copy it or take it off the card's list")
    try:
        marks = wfdb.rdann(str(stem), extension)
    except Exception as error:
        raise RecordError("unreadable", f"annotation file {path.name}: {type(error).__name__}; copy it again") from None
    rate = float(marks.fs or sfreq)
    if extension.casefold() in _LEADS:
        return _waves(marks, rate, _LEADS[extension.casefold()], extension)
    return _beats_and_rhythms(marks, rate, n_frames / sfreq, extension)


def _beats_and_rhythms(marks: Any, rate: float, end_s: float, source: str) -> list[Annotation]:
    out: list[Annotation] = []
    rhythm: tuple[float, str] | None = None
    notes = marks.aux_note or [""] * len(marks.sample)
    for sample, symbol, note in zip(marks.sample, marks.symbol, notes, strict=True):
        onset = float(sample) / rate
        text = (note or "").strip("\x00 ")
        if text.startswith("("):
            if rhythm:
                out.append(Annotation(rhythm[0], onset - rhythm[0], rhythm[1], kind="rhythm", source=source))
            rhythm = (onset, text[1:])
        elif symbol not in BEATS and text not in ("", "None"):  # CPSC 2021 writes the word None
            out.append(Annotation(onset, 0.0, text, kind="note", source=source))
        if symbol in BEATS:
            out.append(Annotation(onset, 0.0, symbol, kind="beat", source=source))
        elif not text:
            out.append(Annotation(onset, 0.0, symbol, kind="note", source=source))
    if rhythm:
        out.append(Annotation(rhythm[0], max(end_s - rhythm[0], 0.0), rhythm[1], kind="rhythm", source=source))
    return sorted(out, key=lambda a: a.onset_s)


def _waves(marks: Any, rate: float, lead: str, source: str) -> list[Annotation]:
    """Waves of one lead. One with a single bracket lasts from there to its peak; a bracket beside no peak is dropped, a bare peak a point."""
    out: list[Annotation] = []
    symbols, samples = list(marks.symbol), [int(s) for s in marks.sample]
    for i, symbol in enumerate(symbols):
        if symbol not in _WAVES:
            continue
        opened, closed = i > 0 and symbols[i - 1] == "(", symbols[i + 1 : i + 2] == [")"]
        onset, offset = samples[i - 1] if opened else samples[i], samples[i + 1] if closed else samples[i]
        missing = "" if opened == closed else "offset" if opened else "onset"
        out.append(
            Annotation(onset / rate, (offset - onset) / rate, symbol, channel=lead, kind="wave", source=source, missing=missing)
        )
    return out
