"""What a file or folder holds, with findings: the work behind ``biossl inspect``.

What lives here: :func:`contents` lists a folder, :func:`inspect_item` reads and sums up, :func:`paragraph` is the text. Nothing is written and
nothing is repaired; a file that cannot be read is a line with its code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biossl.corpus.discover import list_files
from biossl.errors import RecordError
from biossl.io import read
from biossl.io.detect import detect
from biossl.io.wfdb_annotations import annotation_files
from biossl.quality import recording_findings

if TYPE_CHECKING:
    from biossl.corpus.card import Card
    from biossl.corpus.views import RecordTask
    from biossl.signal import Recording

_RECORDING_SUFFIXES = (".hea", ".edf", ".bdf", ".vhdr", ".rec")
_PARTS = (".dat", ".mat", ".vmrk", ".eeg", ".xyz", ".d0")  # belong to a header beside them


def load(item: Path | RecordTask, card: Card | None = None) -> list[Recording]:
    """Read a file with all annotations beside it; a card adds what the file does not state.

    Raises
    ------
    RecordError
        See :func:`biossl.io.read`.
    """
    options: dict[str, Any] = {}
    if card is not None:
        from biossl.corpus.load import load_record

        if not isinstance(item, Path):
            return load_record(card, item)
        options = {"modality": card.modality, "channel_map": card.channel_map, "units": card.units}
        entry = next((f for f in card.files if re.fullmatch(rf".*/(?:{f.pattern})", item.resolve().as_posix())), None)
        options["table"] = entry.table if entry is not None else None
    assert isinstance(item, Path)
    if detect(item) == "wfdb":
        options["annotations"] = annotation_files(item)
    return read(item, **options)


def contents(folder: Path, card: Card | None = None) -> tuple[Sequence[Path | RecordTask], int]:
    """What of a folder is to be read, one entry a recording; and how many other files there are.

    With a card these are the records of its first view (zips included), without one the files that hold recordings.
    """
    if card is None:
        return recording_files(folder)
    from biossl.corpus.discover import discover

    return discover(card, folder, next(iter(card.views))), 0


def summary(recording: Recording) -> dict[str, Any]:
    """Facts of one recording as plain values.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    dict
        ``record format sfreq duration_s offset_s start channels annotations findings``; comments and other free text
        of the header are left out.
    """
    end = recording.offset_s + recording.duration_s
    inside = [a for a in recording.annotations if recording.offset_s <= a.onset_s < end]
    kinds = sorted({a.kind for a in inside})
    return {
        "record": recording.record,
        "format": recording.meta.get("format", ""),
        "sfreq": recording.sfreq,
        "duration_s": recording.duration_s,
        "offset_s": recording.offset_s,
        "start": recording.start,
        "channels": [
            {"name": n, "type": t, "unit": u, "original": o}
            for n, t, u, o in zip(
                recording.ch_names,
                recording.ch_types,
                recording.units,
                recording.meta.get("ch_names_original", recording.ch_names),
                strict=True,
            )
        ],
        "annotations": {k: dict(Counter(a.label for a in inside if a.kind == k).most_common()) for k in kinds},
        "findings": [asdict(f) for f in recording_findings(recording)],
    }


def inspect_item(item: Path | RecordTask, card: Card | None = None) -> dict[str, Any]:
    """``{"path", "recordings": [summary, ...]}`` of one file; RecordError when it cannot be read."""
    return {"path": place(item), "recordings": [summary(r) for r in load(item, card)]}


def place(item: Path | RecordTask) -> str:
    """Path as shown."""
    return str(item) if isinstance(item, Path) else item.full_path


def recording_files(folder: Path) -> tuple[list[Path], int]:
    """Files of a folder to be read, one a recording, sorted; and how many others there are.

    Signal files, segments of multi-segment records and marker files belong to a header and are not listed on their
    own. Text files and documents are counted as others.
    """
    listed = {folder / path if (folder / path).exists() else folder / path.partition("!")[0] for path in list_files(folder)[1]}
    files = sorted(listed)  # a link to nothing among them: its recording was not copied
    here = set(files)
    parts = set(_belonging(files))
    found, others = [], 0
    for path in files:
        if path in parts or (path.suffix.lower() in _PARTS and any(path.with_suffix(s) in here for s in (".hea", ".vhdr"))):
            continue
        try:
            kind = detect(path) if path.suffix.lower() not in _RECORDING_SUFFIXES else "recording"
        except RecordError:
            kind = "other"
        if kind in ("table", "other", "wfdb"):  # a WFDB record is listed by its header
            others += path.with_suffix(".hea") not in here
        else:
            found.append(path)
    return found, others


def _belonging(files: list[Path]) -> Iterator[Path]:
    """Segment headers that a multi-segment header lists, and annotation files."""
    for path in files:
        if path.suffix != ".hea":
            continue
        try:
            text = path.read_bytes()[: 1 << 20].decode("latin-1")
        except OSError:
            continue  # a line of its own when it is read
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if lines and re.match(r"\s*\S+/\d+\s", lines[0]):
            for line in lines[1:]:
                yield path.parent / f"{line.split()[0]}.hea"  # whatever stands there; the reader refuses other folders


def paragraph(result: dict[str, Any]) -> str:
    """Text form of one file's result."""
    lines = [result["path"]]
    for r in result["recordings"]:
        at = f" from {r['offset_s']:.6g} s" if r["offset_s"] else ""
        lines.append(f"  {r['format']}: {_duration(r['duration_s'])}{at} at {r['sfreq']:g} Hz, {len(r['channels'])} channels")
        by_type: dict[tuple[str, str], list[str]] = {}
        for c in r["channels"]:
            by_type.setdefault((c["type"], c["unit"]), []).append(c["name"])
        for (kind, unit), names in by_type.items():
            lines.append(f"    {kind} [{unit}]: {' '.join(names)}")
        for kind, labels in r["annotations"].items():
            most = ", ".join(f"{label} {n}" for label, n in list(labels.items())[:8])
            more = f", {len(labels) - 8} more labels" if len(labels) > 8 else ""
            lines.append(f"    {kind}: {sum(labels.values())} ({most}{more})")
        for f in _merged(r["findings"]):
            lines.append(f"    ! {f}")
    return "\n".join(lines)


def _merged(findings: list[dict[str, Any]], limit: int = 3) -> list[str]:
    """Messages; a code that many channels share is said once, with their names."""
    by_code: dict[str, list[dict[str, Any]]] = {}
    for f in findings:
        by_code.setdefault(f["code"], []).append(f)
    out = []
    for code, group in by_code.items():
        if len(group) <= limit:
            out += [f"{code}: {f['message']}" for f in group]
        else:
            names = " ".join(f["channel"] for f in group)
            out.append(f"{code}: {len(group)} channels ({names}); e.g. {group[0]['message']}")
    return out


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.4g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
