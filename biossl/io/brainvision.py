"""BrainVision triples (``.vhdr``, ``.vmrk``, ``.eeg``) through MNE.

What lives here: units as the header states them (MNE passes unknown ones as volts), markers as annotations, a split at
each ``New Segment`` marker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from biossl.errors import RecordError
from biossl.io.common import calibrate, meta, reader, recoverable
from biossl.quality import Finding
from biossl.signal import Annotation, Recording

HEADER_MAGIC = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*Brain ?Vision (?:Data Exchange|V-Amp Data) Header", re.IGNORECASE)
_SAMPLE_BYTES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}


@reader
def read_brainvision(
    path: str | Path,
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> list[Recording]:
    """Read a BrainVision recording.

    Parameters
    ----------
    path : path
        The ``.vhdr`` header (or its ``.eeg`` or ``.vmrk``, with the header beside it).
    modality, channel_map, units
        See :func:`biossl.io.common.calibrate`.

    Returns
    -------
    list of Recording
        One per segment. An empty unit in the header means uV (the format's default).

    Raises
    ------
    RecordError
        ``missing``, ``empty``, ``truncated``, ``wrong_format``, ``unknown_unit``, ``unreadable``.

    Examples
    --------
    >>> read_brainvision("sub-01_eeg.vhdr")[0].units[:2]  # doctest: +SKIP
    ('uV', 'uV')
    """
    import mne

    path = _header_path(Path(path))
    text = path.read_bytes().decode("utf-8", errors="replace")
    fields = dict(re.findall(r"^(DataFile|DataFormat|BinaryFormat|NumberOfChannels)=(.*?)\s*$", text, re.MULTILINE))
    whole_counts = _check_file(path, fields)
    names, file_units = _channels(text)
    raw = mne.io.read_raw_brainvision(path, preload=True, verbose="ERROR")
    if len(raw.ch_names) != len(names):
        raise RecordError("lying_header", f"{len(names)} channels described, {len(raw.ch_names)} stated; mend the header")
    cal = calibrate(names, file_units, modality=modality, channel_map=channel_map, units=units)
    ranges = np.array([ch["range"] for ch in raw.info["chs"]])  # what MNE multiplied a stated unit with
    resolution = np.array([ch["cal"] for ch in raw.info["chs"]])
    values = raw.get_data() / ranges[:, None]
    sfreq = float(raw.info["sfreq"])
    marks, cuts = [], {0}
    for mark in raw.annotations:
        kind, _, label = str(mark["description"]).partition("/")
        if kind == "New Segment":
            cuts.add(round(mark["onset"] * sfreq))
        else:
            what = "trial" if kind == "Stimulus" else "note"
            marks.append(
                Annotation(float(mark["onset"]), float(mark["duration"]), label.strip() or kind, kind=what, source="vmrk")
            )
    findings = list(cal.findings)
    if len(cuts) > 1:
        findings.append(Finding("gap", "", 0.0, f"the recording was paused {len(cuts) - 1} times"))
    when = raw.info["meas_date"]
    lsb = resolution * cal.factors
    whole = whole_counts and recoverable(list(values / resolution[:, None]), [0.0] * len(names))
    edges = [*sorted(cuts), values.shape[1]]
    return [
        Recording(
            data=(values[:, a:b] * cal.factors[:, None]).astype(np.float32), sfreq=sfreq, ch_names=cal.names,
            ch_types=cal.types, units=cal.units, record=path.stem, offset_s=a / sfreq,
            start=when.replace(tzinfo=None).isoformat() if when else None, annotations=tuple(marks),
            lsb=lsb if whole else None, baseline=np.zeros(len(names)) if whole else None,
            meta=meta("brainvision", names, findings),
        )
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if b > a
    ]  # fmt: skip


def _header_path(path: Path) -> Path:
    if not path.is_file():
        raise RecordError("missing", "no such file; check the path")
    if path.suffix.lower() != ".vhdr":
        path = path.with_suffix(".vhdr")
    if not path.is_file():
        raise RecordError("missing", f"header {path.name} is not beside it; copy it there")
    if path.stat().st_size == 0:
        raise RecordError("empty", "the header file is empty; copy it again")
    if not HEADER_MAGIC.match(path.read_bytes()[:200]):
        raise RecordError("wrong_format", "not a BrainVision header; check the file")
    return path


def _check_file(path: Path, fields: Mapping[str, str]) -> bool:
    """Hold the header against the data file; True when its samples are whole counts."""
    name = fields.get("DataFile", "").replace("$b", path.stem)
    data = path.parent / name
    if not name or name != Path(name).name or not data.is_file():
        raise RecordError("missing", f"data file {name or '(none named)'} is not beside the header; copy it there")
    size = data.stat().st_size
    if size == 0:
        raise RecordError("empty", f"data file {name} is empty; copy it again")
    if fields.get("DataFormat", "BINARY") != "BINARY":
        return False
    width = _SAMPLE_BYTES.get(fields.get("BinaryFormat", "INT_16"))
    if width is None:
        raise RecordError("wrong_format", f"binary format {fields['BinaryFormat']} is not known")
    frame = width * int(fields["NumberOfChannels"])
    if frame <= 0 or size % frame:
        text = f"{name} has {size} bytes, not a whole number of samples of {fields['NumberOfChannels']} channels; copy it again"
        raise RecordError("truncated", text)
    return fields.get("BinaryFormat", "INT_16") != "IEEE_FLOAT_32"


def _channels(text: str) -> tuple[list[str], list[str]]:
    """Names and units of ``[Channel Infos]``: ``Ch1=name,reference,resolution,unit``."""
    section = re.search(r"^\[Channel Infos\](.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    lines = re.findall(r"^Ch(\d+)=(.*?)\s*$", section[1] if section else "", re.MULTILINE)
    rows = [line.split(",") for _, line in sorted(lines, key=lambda item: int(item[0]))]
    return [row[0].replace("\\1", ",") for row in rows], [(row[3] if len(row) > 3 else "").strip() or "uV" for row in rows]
