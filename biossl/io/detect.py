"""Which reader a file belongs to, by its content.

What lives here: magic bytes and first lines. A suffix never decides; it only leads from a signal file to its header.
"""

from __future__ import annotations

import re
from pathlib import Path

from biossl.errors import RecordError
from biossl.io.brainvision import HEADER_MAGIC
from biossl.io.edf import BDF_MAGIC, EDF_MAGIC
from biossl.io.wfdb import record_stem

_WFDB_LINE = re.compile(rb"[-\w]+(?:/\d+)?[ \t]+\d+(?:[ \t]+[\d.]+\S*)?(?:[ \t]+\d+)?(?:[ \t]+[\d:./ \t]+)?[ \t]*")
_UNREAD = {
    b"MATLAB 5": "a MATLAB file without a WFDB header",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
}


def detect(path: str | Path) -> str:
    """Name of the format of a file: ``wfdb``, ``edf``, ``brainvision``, ``wav`` or ``table``.

    Parameters
    ----------
    path : path
        A file, or a WFDB record without suffix.

    Raises
    ------
    RecordError
        ``missing``, ``empty``, ``wrong_format``.

    Examples
    --------
    >>> detect("S001R06.edf")  # doctest: +SKIP
    'edf'
    """
    path = Path(path)
    try:
        return _detect(path)
    except PermissionError:
        raise RecordError("unreadable", "no permission to read it; change the file's rights", str(path)) from None
    except OSError as error:
        raise RecordError(
            "unreadable", f"cannot be read ({error.strerror}); check the disk or copy it again", str(path)
        ) from None


def _detect(path: Path) -> str:
    if not path.is_file():
        if Path(f"{path}.hea").is_file():
            return "wfdb"
        raise RecordError("missing", "no such file; check the path", str(path))
    with open(path, "rb") as f:
        start = f.read(4096)
    if not start.strip(b"\x00 \r\n\t"):
        raise RecordError("empty", "the file is empty; copy it again", str(path))
    if start[:8] in (EDF_MAGIC, BDF_MAGIC):
        return "edf"
    if HEADER_MAGIC.match(start):
        return "brainvision"
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE" and not _has_wfdb_header(path):
        return "wav"
    if _is_wfdb_header(start) or _has_wfdb_header(path):
        return "wfdb"
    if path.suffix.lower() in (".eeg", ".vmrk") and path.with_suffix(".vhdr").is_file():
        return "brainvision"
    for magic, what in _UNREAD.items():
        if start.startswith(magic):
            raise RecordError("wrong_format", f"{what}; `biossl list formats` names what can be read", str(path))
    if start[:4] == b"PK\x03\x04" or _is_text(start):
        return "table"
    raise RecordError("wrong_format", "not a format biossl reads; `biossl list formats` names them", str(path))


def _is_wfdb_header(start: bytes) -> bool:
    lines = [line.strip() for line in start.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    if not lines or not _WFDB_LINE.fullmatch(lines[0]):
        return False
    # the second line describes a signal (file, format, ...) or a segment (name, length)
    return len(lines) == 1 or bool(re.match(rb"\S+[ \t]+\d+", lines[1]))


def _has_wfdb_header(path: Path) -> bool:
    """Is this a signal file that a header beside it names?"""
    try:
        stem = record_stem(path)
    except RecordError:
        return False
    named = rb"(?m)^\s*" + re.escape(path.name.encode()) + rb"\s"
    return bool(re.search(named, Path(f"{stem}.hea").read_bytes()))


def _is_text(start: bytes) -> bool:
    if b"\x00" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # a character cut by the end of the sample
    return True
