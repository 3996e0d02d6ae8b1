"""The plan of a conversion: what it is, and where shards end, from the list of files and their sizes, never from content.

What lives here: pure functions of the card, the tasks and the sizes of files. Running the plan is ``convert.py``'s.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biossl import __version__
from biossl.config import dump_yaml
from biossl.corpus.card import Card, View
from biossl.io.table import ZIP_FAULTS
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.corpus.identity import Pseudonyms
    from biossl.corpus.views import RecordTask

_SHARD_BYTES = 64 * 2**20  # of source files in one shard, at most; then memory is bounded whatever a record's length
_SHARD_RECORDS = 4096
_SHARDS_WANTED = 32  # enough for many cores and for a progress bar, where the set is small


def growth(view: View) -> float:
    """How many times a sample is stored: windows may overlap."""
    return max(1.0, view.window_s / view.stride_s) if view.policy != "around_events" and view.stride_s > 0 else 1.0


def source_bytes(tasks: Sequence[RecordTask]) -> list[int]:
    """Bytes of each record's files: all of one folder that share the name without suffix."""
    folders: dict[str, dict[str, int]] = {}
    out = []
    for task in tasks:
        outer, _, inner = task.path.partition("!")
        place = Path(task.source) / outer if Path(task.source).is_dir() else Path(task.source)
        if inner or place.suffix == ".zip":
            key, name = str(place), inner or outer
        else:
            key, name = str(place.parent), place.name
        if key not in folders:
            folders[key] = _listing(Path(key))
        out.append(folders[key].get(name.partition(".")[0] if Path(key).is_dir() else name, 0))
    return out


def _listing(place: Path) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    try:
        if place.is_dir():
            for item in os.scandir(place):
                sizes[item.name.partition(".")[0]] += item.stat().st_size if item.is_file() else 0
        elif place.is_file():
            with zipfile.ZipFile(place) as archive:
                sizes.update({i.filename: i.file_size for i in archive.infolist()})
    except (*ZIP_FAULTS, OSError):
        pass  # the reader says what is wrong
    return sizes


def make_plan(
    card: Card, view: str, spec: InputSpec, tasks: Sequence[RecordTask], sizes: list[int], scale: float, names: Pseudonyms
) -> dict[str, Any]:
    """What this conversion is, and where shards end: from the list of files and their sizes, never from content."""
    digest = hashlib.sha256(names.secret or b"")  # keyed, so that file names cannot be tried out against it
    for task, size in zip(tasks, sizes, strict=True):
        digest.update(f"{task.record}\x1f{task.subject}\x1f{task.path}\x1f{size}\x1e".encode())
    budget = min(_SHARD_BYTES, max(2**20, sum(sizes) * scale / _SHARDS_WANTED))
    stops, filled, start = [], 0.0, 0
    for i, size in enumerate(sizes):
        if i > start and (filled + size * scale > budget or i - start >= _SHARD_RECORDS):
            stops.append(i)
            filled, start = 0.0, i
        filled += size * scale
    stops.append(len(tasks))
    return {
        "format": 1,
        "biossl": __version__,
        "card": hashlib.sha256(dump_yaml(card).encode() + (names.secret or b"")).hexdigest(),
        "view": view,
        "spec": spec.to_dict(),
        "tasks": digest.hexdigest(),
        "stops": stops,
        "secret": names.id(),
    }
