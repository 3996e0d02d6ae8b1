"""Readers: ``read(path) -> list[Recording]``, the format decided by content.

What lives here: the dispatcher. One file a format; each reader takes the facts of a card that its files do not state:
``modality``, ``channel_map`` (source name -> canonical) and ``units`` (channel or channel type -> unit).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from biossl.errors import RecordError

if TYPE_CHECKING:
    from biossl.signal import Recording

_FORMATS = {
    "wfdb": "PhysioNet records (.hea with .dat, .mat or FLAC; all storage formats, multi-segment, annotations)",
    "edf": "EDF, EDF+, BDF, BDF+ (unequal rates kept apart, split at gaps, annotations)",
    "brainvision": "BrainVision .vhdr with .eeg and .vmrk",
    "wav": "WAV audio containers of biosignals (uncalibrated: units come from the card)",
    "table": "CSV, text and zipped tables (columns, rate and units come from the card)",
}
_HEADERS = {".hea": "WFDB", ".edf": "EDF", ".bdf": "BDF", ".vhdr": "BrainVision"}


def formats() -> dict[str, str]:
    """Formats that can be read: name -> one line.

    Examples
    --------
    >>> "edf" in formats()
    True
    """
    return dict(_FORMATS)


def read(path: str | Path, **options: Any) -> list[Recording]:
    """Read any supported file.

    Parameters
    ----------
    path : path
        A file, a WFDB record without suffix, or ``archive.zip!inner/name.txt``.
    **options
        ``annotations`` (WFDB extensions), ``modality``, ``channel_map``, ``units`` and, for a table, ``table`` (a
        :class:`biossl.io.table.TableSpec`). Options that a format has no use for are left aside.

    Returns
    -------
    list of Recording
        One per contiguous stretch and sampling rate.

    Raises
    ------
    RecordError
        With a code; the message names the file, the fault and the remedy.

    Examples
    --------
    >>> read("100.hea", annotations=["atr"])  # doctest: +SKIP
    """
    from biossl.io.detect import detect

    name = "table" if ".zip!" in str(path) else detect(path)
    known = {"annotations", "modality", "channel_map", "units", "table"}
    if unknown := set(options) - known:
        raise TypeError(f"read() has no option {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    shared = {k: options[k] for k in ("modality", "channel_map", "units") if k in options}
    if name == "wfdb":
        from biossl.io.wfdb import read_wfdb

        return read_wfdb(path, options.get("annotations", ()), **shared)
    if name == "edf":
        from biossl.io.edf import read_edf

        return read_edf(path, **shared)
    if name == "brainvision":
        from biossl.io.brainvision import read_brainvision

        return read_brainvision(path, **shared)
    if name == "wav":
        from biossl.io.wav import read_wav

        return read_wav(path, **shared)
    if options.get("table") is None:
        kind = _HEADERS.get(Path(path).suffix.lower())
        if kind is not None:  # the name does not decide what it is, but it says what was expected
            text = f"a text that is no {kind} header; copy it again (or, if it is a table, describe it with a card)"
            raise RecordError("needs_card", text, str(path))
        raise RecordError(
            "needs_card", "a table states neither rate nor units; describe it with `biossl card new FOLDER`", str(path)
        )
    from biossl.io.table import read_table

    return read_table(path, options["table"], **shared)
