"""From a folder to tasks: which files of a source are records of a view, who they belong to, what is known of them.

What lives here: listing (folders and zips), matching the card's pattern, joining metadata tables. No signal is read. Files
that no pattern matches are ``stray.py``'s business.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from biossl.corpus.card import Card, MetadataTable
from biossl.corpus.card_check import NOT_COVARIATES, covariate_names, format_key
from biossl.errors import RecordError, RequestError
from biossl.io.table import ZIP_FAULTS, read_bytes

_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # line breaks and bytes that are not UTF-8: no table can hold them


@dataclass(frozen=True)
class RecordTask:
    """One record to be read: plain text only, so it crosses process borders.

    Attributes
    ----------
    record : str
        Name, unique among the tasks of a view.
    subject : str or None
        After same-person aliases. None when the card's table has no row for it: ``load_record`` then raises.
    source : str
        The folder given by the user (of a zip given: the folder it is in).
    path : str
        File relative to ``source``, forward slashes; inside a zip ``archive.zip!inner/name.txt``.
    file : int
        Number of the entry of ``card.files`` that matched.
    groups : dict of str to str
        Named groups of the pattern.
    covariates : dict of str to str
        Groups, constants of the files entry and metadata columns; ``""`` = unknown. Header covariates are filled when
        the record is loaded. Every task of a card has the same keys.
    intervals : str
        Path of the files entry's table of intervals, like ``path``.
    """

    record: str
    subject: str | None
    source: str
    path: str
    file: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    covariates: dict[str, str] = field(default_factory=dict)
    intervals: str = ""

    @property
    def full_path(self) -> str:
        """Path a reader takes."""
        return str(Path(self.source) / self.path)


def discover(card: Card, source: str | Path, view: str) -> list[RecordTask]:
    """The records of a view in a source, in natural order of their paths.

    Parameters
    ----------
    card : Card
    source : path
        A folder (searched with its subfolders and the zips in them) or one zip.
    view : str
        Name of one of the card's views.

    Raises
    ------
    RequestError
        The source or a metadata table is not there, no file matches, two files are one record.

    Examples
    --------
    >>> discover(load_card("mitdb"), "mitdb", "beats")[0].record  # doctest: +SKIP
    '100'
    """
    tasks, _, closed = survey(card, source, view)
    if closed:
        raise RequestError(f"{source}: {closed_note(card, closed)}")
    return tasks


def survey(card: Card, source: str | Path, view: str) -> tuple[list[RecordTask], list[str], list[str]]:
    """As :func:`discover`, the paths of files that look like recordings but match no pattern of the card, and folders that could not be opened.

    Examples
    --------
    >>> tasks, stray, closed = survey(load_card("mitdb"), "mitdb", "beats")  # doctest: +SKIP
    """
    from biossl.corpus.stray import stray_files

    if view not in card.views:
        raise RequestError(f"card {card.name}: no view '{view}'; it has {', '.join(card.views)}")
    closed: list[str] = []
    root, paths = list_files(source, closed)
    patterns = [on_the_end(f.pattern) for f in card.files]
    only = re.compile(card.views[view].files)
    tables = [_Table(t, root, paths, card.public) for t in card.tables]
    intervals = [find_file(f.intervals.file, root, paths, card.public) if f.intervals else "" for f in card.files]
    names = covariate_names(card)
    tasks: dict[str, RecordTask] = {}
    matched: dict[str, int] = {}
    for path in sorted(paths, key=natural):
        for i, pattern in enumerate(patterns):
            match = pattern.fullmatch(path)
            if match:
                matched.setdefault(path, i)
            if not match or not only.search(path):
                continue
            if _ODD.search(path):
                shown = repr(path) if card.public else "a file"
                raise RequestError(f"{source}: the name of {shown} is not plain text in UTF-8; rename it")
            task = _task(card, root, path, i, match.groupdict(), tables, names, intervals[i])
            if task.record in tasks:
                both = f"record {task.record!r} comes from {tasks[task.record].path} and {path}"
                raise RequestError(
                    f"{source}: {both if card.public else 'two files are one record'}; "
                    f"remove one or widen the group 'record' of the card's pattern"
                )
            tasks[task.record] = task
            break
    if not tasks:
        looked = " or ".join(repr(f.pattern) for f in card.files)
        more = f" with {card.views[view].files!r} in the path" if card.views[view].files else ""
        raise RequestError(
            f"{source}: none of its {len(paths)} files matches {looked}{more} (card {card.name}, view {view}); "
            "check that the source is this data set"
        )
    for path in paths:
        if path.lower().endswith(".zip"):  # it could not be opened: what it holds is missing, which is to be said
            tasks.setdefault(path, RecordTask(path, None, str(root), path, covariates=dict.fromkeys(names, "")))
    return list(tasks.values()), stray_files(card, root, sorted(paths, key=natural), matched), closed


def closed_note(card: Card, closed: list[str]) -> str:
    """What is said of folders that could not be opened; without their names where the card is not public."""
    count = "1 folder" if len(closed) == 1 else f"{len(closed):,} folders"
    which = f" ({', '.join(closed[:5])}{' ...' if len(closed) > 5 else ''})" if card.public else ""
    return f"{count} could not be opened{which}, so recordings may be missing; change the rights, or leave such folders out"


def on_the_end(pattern: str) -> re.Pattern[str]:
    """A card's pattern, for ``fullmatch`` of a path below the source: it begins at the start of a folder or file name."""
    return re.compile(rf"(?:^|.*[/!])(?:{pattern})")


def list_files(source: str | Path, closed: list[str] | None = None) -> tuple[Path, list[str]]:
    """All files below a source, those inside zips as ``archive.zip!inner/name``, and the folder they are relative to.

    Parameters
    ----------
    source : path
    closed : list of str, optional
        Takes the folders below the source that cannot be opened; without it the first of them is an error.

    Raises
    ------
    RequestError
        No such source, a file that is no zip, or a folder that cannot be opened.
    """
    root = Path(source)
    if not root.exists():
        raise RequestError(f"{source}: no such folder; check the path of the recordings")
    if root.is_file():
        if not zipfile.is_zipfile(root):
            raise RequestError(f"{source}: is a file; give the folder that holds the recordings, or a zip")
        return root.parent, _members(root, root.name)
    out: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        folder = Path(error.filename)
        if closed is not None and folder != root:
            closed.append(folder.relative_to(root).as_posix())
            return
        raise RequestError(
            f"{error.filename}: {error.strerror}, so what it holds is not known; change its rights or leave it out"
        )

    for folder, inner, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link back into the tree
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        for name in files:
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if name.startswith("."):
                continue
            out += _members(path, relative) if name.lower().endswith(".zip") else [relative]
    return root, out


def _members(path: Path, relative: str) -> list[str]:
    try:
        with zipfile.ZipFile(path) as z:
            return [f"{relative}!{i.filename}" for i in z.infolist() if not i.is_dir()]
    except (*ZIP_FAULTS, OSError):
        return [relative]


def find_file(tail: str, root: Path, paths: Iterable[str], public: bool) -> str:
    """The path nearest the top that ends with ``tail``; RequestError when there is none, or two equally near.

    Of a set that is not ``public`` the error names neither: a folder may be called as its patient.
    """
    end = re.compile(rf"(?:^|.*[/!]){re.escape(tail)}")
    found = sorted((p for p in paths if end.fullmatch(p)), key=lambda p: (len(re.split("[/!]", p)), p))
    if not found:
        raise RequestError(f"{root}: no {tail} in it, which the card needs; copy it beside the recordings")
    if len(found) > 1 and len(re.split("[/!]", found[0])) == len(re.split("[/!]", found[1])):  # none lies nearer the top
        both = f"both {found[0]} and {found[1]}" if public else f"{len(found)} files"
        raise RequestError(f"{root}: {both} could be the card's {tail}; give a narrower source")
    return found[0]


def natural(path: str) -> tuple[tuple[int, int | str, str], ...]:
    """Sort key with numbers as numbers: ``a2`` before ``a10``, ``01`` before ``1`` (any total order will do)."""
    return tuple((0, int(t), t) if t.isdecimal() else (1, t, t) for t in re.split(r"(\d+)", path) if t)


def _task(
    card: Card, root: Path, path: str, number: int, found: dict[str, str | None], tables: list[_Table], names: list[str],
    intervals: str,
) -> RecordTask:  # fmt: skip
    files = card.files[number]
    groups = {k: v or "" for k, v in found.items()}
    record = groups.get("record") or re.sub(r"\.[^./!]*$", "", path)
    known = {"record": record, "path": re.sub(r"\.[^./!]*$", "", re.split("!", path)[-1]), **groups}
    covariates = dict.fromkeys(names, "") | {k: v for k, v in groups.items() if k not in NOT_COVARIATES} | files.covariates
    subject: str | None = {"record": record, "group": groups.get("subject"), "table": None}[card.subjects]
    for table in sorted(tables, key=lambda t: t.on == "subject"):  # a subject's row can only be found once it is known
        row = table.row({**known, "subject": subject or groups.get("subject", "")})
        covariates |= {k: v for k, v in row.items() if k is not None}
        if card.subjects == "table" and table.subject is not None:
            subject = row.get(None) or subject
    for person in card.same_person:
        if subject in person:
            subject = person[0]
    return RecordTask(record, subject or None, str(root), path, number, groups, covariates, intervals)


class _Table:
    """A metadata table read once; rows by key, only the columns the card names (the subject's under None)."""

    def __init__(self, table: MetadataTable, root: Path, paths: list[str], public: bool) -> None:
        import io

        import pandas as pd

        self.on, self.subject = table.on, table.subject_column
        path = find_file(table.file, root, paths, public)
        try:
            frame = pd.read_csv(
                io.BytesIO(read_bytes(str(root / path))),
                sep=table.separator,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
        except (RecordError, ValueError) as error:
            raise RequestError(
                f"{root / path}: not a table with separator {table.separator!r} ({str(error)[:80]}); mend it"
            ) from None
        frame.columns = pd.Index([str(c).strip() for c in frame.columns])
        wanted: dict[str, str | None] = {**table.columns}
        for column in (table.key, *table.columns, *([table.subject_column] if table.subject_column else [])):
            if column not in frame.columns:
                raise RequestError(f"{root / path}: no column {column!r}; it has {', '.join(map(str, frame.columns))}")
        for column in frame.columns:
            cells = frame[column].astype(str).str.strip().str.replace(r"\s*[\r\n]+\s*", "; ", regex=True)
            if column in table.whole_numbers:
                cells = cells.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
            frame[column] = cells.replace(table.replace.get(str(column), {}))
        self.rows: dict[str, dict[str | None, str]] = {}
        for number, cells_of_row in enumerate(frame.to_dict("records"), start=1):
            shown = repr(cells_of_row[table.key]) if public else f"row {number}"  # ids of patients stay here
            try:
                key = format_key(str(cells_of_row[table.key]), table.key_format)
            except ValueError:
                raise RequestError(
                    f"{root / path}: {shown} in column {table.key!r} is not a whole number, as the card says"
                ) from None
            if key in self.rows:
                raise RequestError(
                    f"{root / path}: column {table.key!r} has {repr(key) if public else f'the value of row {number}'} twice; keep one row"
                )
            row: dict[str | None, str] = {str(new): str(cells_of_row[old]) for old, new in wanted.items()}
            if table.subject_column:
                row[None] = str(cells_of_row[table.subject_column])
            self.rows[key] = row

    def row(self, known: dict[str, str]) -> dict[str | None, str]:
        """The row of a record; empty when there is none."""
        key = known.get(self.on, "")
        found = self.rows.get(key)
        if found is None and self.on == "path":  # the source may be a folder above the one the table counts from
            found = next((r for k, r in self.rows.items() if k and key.endswith(f"/{k}")), None)
        return found or {}
