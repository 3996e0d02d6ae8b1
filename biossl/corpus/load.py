"""From a task to recordings: the card's reader, with subject, covariates and marks filled in.

What lives here: :func:`load_record` and :func:`read_as`. The readers know formats, the card knows the data set; here they meet.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from biossl.corpus.card import Card, Files, Intervals
from biossl.corpus.discover import RecordTask
from biossl.errors import RecordError
from biossl.io.table import read_bytes
from biossl.signal import Annotation, Recording


def load_record(card: Card, task: RecordTask) -> list[Recording]:
    """The recordings of one record.

    Parameters
    ----------
    card : Card
    task : RecordTask

    Returns
    -------
    list of Recording
        As the reader gives them (one per contiguous run and rate), with ``record`` and ``subject`` of the task,
        all marks, and the covariates in ``meta["covariates"]``.

    Raises
    ------
    RecordError
        Of the reader; ``wrong_format`` for a zip that cannot be opened; ``zip_in_zip``; ``no_subject`` when the card's table does not say whose it is.

    Examples
    --------
    >>> card = load_card("mitdb")                                           # doctest: +SKIP
    >>> load_record(card, discover(card, "mitdb", "beats")[0])[0].subject   # doctest: +SKIP
    '100'
    """
    if task.path.lower().endswith(".zip"):
        if "!" in task.path:
            raise RecordError("zip_in_zip", "a zip inside a zip; unpack the outer one", task.path)
        raise RecordError("wrong_format", "is not a whole zip, so its recordings are missing; copy it again", task.path)
    if task.subject is None:
        raise RecordError("no_subject", f"record {task.record} has no subject in the card's table; add its row", task.path)
    files = card.files[task.file]
    recordings = read_as(card, files, task.full_path, record=task.record)
    if not recordings:
        raise RecordError("empty", "holds no samples", task.path)
    comments = {str(k).casefold(): str(v) for k, v in recordings[0].meta.get("comments", {}).items()}
    covariates = dict(task.covariates)
    for name, key in card.header_covariates.items():
        covariates[name] = comments.get(key.casefold(), "").strip()
    marks = tuple(_renamed(a, files) for a in recordings[0].annotations)
    if files.intervals is not None:
        marks += _intervals(files.intervals, task, recordings[0].sfreq)
    if files.unmarked:
        end_s = max(r.offset_s + r.duration_s for r in recordings)
        rest = [a for kind, label in files.unmarked.items() for a in _between(marks, kind, label, end_s)]
        marks = tuple(sorted([*marks, *rest], key=lambda a: a.onset_s))
    for r in recordings:
        r.record, r.subject, r.annotations = task.record, task.subject, marks
        r.meta = {**r.meta, "covariates": covariates}
    return recordings


def read_as(card: Card, files: Files, path: str | Path, *, record: str | None = None) -> list[Recording]:
    """A file as an entry of a card reads it, whatever its content looks like.

    Parameters
    ----------
    card : Card
    files : Files
        One of ``card.files``.
    path : path
        The file; inside a zip ``archive.zip!inner/name.txt``.
    record : str, optional
        Name of a table's record; default its file name.

    Raises
    ------
    RecordError
        Of the reader; ``wrong_format`` for a file inside a zip whose reader knows none.

    Examples
    --------
    >>> read_as(card, card.files[0], "mitdb/100.hea")[0].sfreq  # doctest: +SKIP
    360.0
    """
    if files.reader == "table":
        from biossl.io.table import read_table

        assert files.table is not None  # kept by check_card
        return read_table(
            path, files.table, modality=card.modality, channel_map=card.channel_map, units=card.units, record=record
        )
    if "!" in str(path) and not Path(path).exists():
        raise RecordError("wrong_format", f"{files.reader} files are not read inside a zip; unpack it", str(path))
    if files.reader == "wfdb":
        from biossl.io.wfdb import read_wfdb

        return read_wfdb(path, files.annotations, modality=card.modality, channel_map=card.channel_map, units=card.units)
    if files.reader == "edf":
        from biossl.io.edf import read_edf

        return read_edf(path, modality=card.modality, channel_map=card.channel_map, units=card.units)
    if files.reader == "wav":
        from biossl.io.wav import read_wav

        return read_wav(path, modality=card.modality, channel_map=card.channel_map, units=card.units)
    from biossl.io.brainvision import read_brainvision

    return read_brainvision(path, modality=card.modality, channel_map=card.channel_map, units=card.units)


def _renamed(mark: Annotation, files: Files) -> Annotation:
    kind = files.kind if files.kind and mark.kind == "note" else mark.kind
    return dataclasses.replace(mark, kind=kind, label=files.event_labels.get(mark.label, mark.label))


def _between(marks: Sequence[Annotation], kind: str, label: str, end_s: float) -> list[Annotation]:
    """What the intervals of a kind leave of 0 .. end_s, as intervals with ``label``."""
    out, at = [], 0.0
    spans = sorted((a.onset_s, a.onset_s + a.duration_s) for a in marks if a.kind == kind)
    for start, stop in [*spans, (end_s, end_s)]:
        if start > at:
            out.append(Annotation(at, start - at, label, kind=kind, source="unmarked"))
        at = max(at, stop)
    return out


def _intervals(spec: Intervals, task: RecordTask, sfreq: float) -> tuple[Annotation, ...]:
    """The rows of the interval file that belong to this record, in the file's order."""
    path = Path(task.source) / task.intervals
    archive = Path(str(path).partition("!")[0])
    rows = _interval_rows(str(path), os.stat(archive).st_mtime_ns, tuple(spec.columns))
    at = {c: i for i, c in enumerate(spec.columns)}
    out = []
    for number, row in rows:
        if any(not _same(row[at[c]], task.groups.get(g, "")) for c, g in spec.key.items()):
            continue
        try:
            start, stop = int(row[at[spec.start]]) - spec.first, int(row[at[spec.end]]) - spec.first + spec.end_inclusive
        except ValueError:
            raise RecordError("wrong_format", f"line {number}: start or end is not a sample number; mend it", str(path)) from None
        if not 0 <= start < stop:
            raise RecordError("wrong_format", f"line {number}: the interval ends before it begins; mend it", str(path))
        out.append(
            Annotation(start / sfreq, (stop - start) / sfreq, row[at[spec.label]], kind=spec.kind, source=Path(spec.file).name)
        )
    return tuple(out)


@lru_cache(maxsize=8)
def _interval_rows(path: str, changed: int, columns: tuple[str, ...]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Lines of an interval file with their numbers; read once a process (``changed`` is its time stamp)."""
    rows = []
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig").splitlines(), start=1):
        cells = tuple(line.split())
        if not cells:
            continue
        if len(cells) != len(columns):
            raise RecordError("wrong_format", f"line {number} has {len(cells)} cells, the card names {len(columns)}", path)
        rows.append((number, cells))
    return tuple(rows)


def _same(cell: str, group: str) -> bool:
    """Equal as text, or as whole numbers (``1`` and ``01``)."""
    return cell == group or (cell.isdecimal() and group.isdecimal() and int(cell) == int(group))
