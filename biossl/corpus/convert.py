"""Recordings to a corpus: a list of shard-sized tasks, each done once, whatever kills the run.

What lives here: planning, running and ending a conversion. A task makes one shard and its side file in memory and
writes them whole, so a second run goes on where the first was killed and ends with the same bytes. One bad file costs
one line in ``quarantine.csv``, never the run.

Order of events in the folder: ``plan.json`` first; ``shard-*.h5`` and ``shard-*.json``; the tables; ``spec.json`` last,
after which the plan and the side files go. A folder with ``plan.json`` and no ``spec.json`` is unfinished.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool  # loky's TerminatedWorkerError is one
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl import __version__, atomic
from biossl.config import dump_yaml, nearest
from biossl.corpus.card import Card, View
from biossl.corpus.quarantine import NAMED, PRIVATE_PATHS, stray_note, write_private_paths, write_quarantine
from biossl.corpus.shardjob import Job, load_windows, make_shard
from biossl.corpus.shardplan import growth, make_plan, source_bytes
from biossl.errors import DataError, RequestError
from biossl.progress import Progress
from biossl.signal import InputSpec

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.identity import Pseudonyms
    from biossl.corpus.views import RecordTask

_OWN = ("card.yaml", "spec.json", "plan.json", "index.parquet", "events.parquet", "quarantine.csv", PRIVATE_PATHS)


def convert(
    card: Card | str | Path,
    source: str | Path,
    out: str | Path,
    *,
    view: str,
    partial: bool = False,
    n_jobs: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Cut the recordings of a card into the windows of one of its views and store them.

    Parameters
    ----------
    card : Card, path or name of a packaged card
    source : path
        Folder (or zip) with the recordings, laid out as the card says.
    out : path
        The corpus folder. An unfinished conversion of the same files goes on.
    view : str
        Name of a view of the card.
    partial : bool
        True: fewer records or subjects than the card expects are allowed.
    n_jobs : int, optional
        Processes; default one a core. Inside ``joblib.parallel_config`` another engine takes the tasks.
    overwrite : bool
        Replace a corpus that is there. Labels and splits added to a corpus of the same card stay.

    Returns
    -------
    dict
        ``path``, ``hash``, ``funnel``, ``findings``, ``window_s``; ``unmatched``, how many files look like recordings and
        match no pattern (``unmatched_files``: the first of them, of a public card only); ``private_paths``, the file that
        names what quarantine and findings speak of, of a card that is not public ('' = there was nothing to name).

    Raises
    ------
    RequestError
        Unknown view, folder in use or inside the source, absent source.
    DataError
        Fewer records than the card expects, or nothing could be converted.
    MachineError
        Disk full or not writable.

    Examples
    --------
    >>> convert("ptbxl", "data/ptbxl", "corpora/ptbxl", view="resting", partial=True)  # doctest: +SKIP
    """
    from biossl.corpus.card import load_card
    from biossl.corpus.discover import closed_note, survey

    card = card if isinstance(card, Card) else load_card(card)
    _view(card, view)
    _keep_apart(Path(source), Path(out))
    _check_folder(Path(out), overwrite)
    tasks, stray, closed = survey(card, Path(source), view)
    return convert_tasks(
        card, tasks, out, view=view, load=load_windows, partial=partial, n_jobs=n_jobs, overwrite=overwrite, stray=stray,
        notes=[closed_note(card, closed)] if closed else [],
    )  # fmt: skip


def convert_tasks(
    card: Card,
    tasks: Sequence[RecordTask],
    out: str | Path,
    *,
    view: str,
    load: Callable[..., Any],
    partial: bool = False,
    n_jobs: int | None = None,
    overwrite: bool = False,
    stray: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """As :func:`convert`, from a list of tasks and ``load(card, view, task) -> (Cut, start)`` (picklable).

    ``stray`` are the paths of files that match no pattern, ``notes`` findings on the source.
    """
    from biossl.corpus.identity import Pseudonyms
    from biossl.corpus.views import view_spec

    if n_jobs is not None and n_jobs < 1:
        raise RequestError(f"--jobs {n_jobs}: give 1 or more")
    out = Path(out)
    _view(card, view)
    found = [*notes, *_compare_expected(card, tasks, partial), *stray_note(card, stray)]
    spec = view_spec(card, view)
    sizes = source_bytes(tasks)
    scale = growth(card.views[view])
    atomic.require_free(out, int(0.6 * scale * sum(sizes)) + 2**24)
    _check_folder(out, overwrite)
    with atomic.folder_lock(out):
        _check_folder(out, overwrite)  # again: another process may just have ended
        names = Pseudonyms(None) if card.public else Pseudonyms.make(out)
        plan = make_plan(card, view, spec, tasks, sizes, scale, names)
        if overwrite:
            _clear(out, card.name)
        _begin(out, plan)
        stops = plan["stops"]
        jobs = [
            Job(out, number, card, view, spec, tuple(tasks[start:stop]), names)
            for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True))
        ]
        _run(jobs, load, n_jobs)
        return _finish(out, card, view, spec, jobs, names, found, stray)


# ---------------------------------------------------------------------- before


def _view(card: Card, view: str) -> View:
    if view not in card.views:
        raise RequestError(f"--view '{view}': card {card.name} has {', '.join(card.views)}; {nearest(view, card.views)}")
    return card.views[view]


def _compare_expected(card: Card, tasks: Sequence[RecordTask], partial: bool) -> list[str]:
    records = {t.record for t in tasks if not t.path.lower().endswith(".zip")}  # a zip that cannot be opened is none
    found = {"records": len(records), "subjects": len({t.subject for t in tasks if t.subject is not None})}
    notes = []
    for what, count in found.items():
        expected = card.expected.get(what, count)
        if count < expected and not partial:
            raise DataError(
                f"card {card.name}: {count:,} of {expected:,} {what} are there; complete the copy, "
                "or add --partial to convert what is there"
            )
        if count != expected:
            notes.append(f"{count:,} {what} found, the card expects {expected:,}")
    return notes


def _keep_apart(source: Path, out: Path) -> None:
    """A corpus among the originals would be found as a source again, and cleared files would be missed."""
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        where = "is the folder of the recordings" if out.resolve() == source.resolve() else f"lies inside the source {source}"
        raise RequestError(f"{out}: {where}; give the corpus a new folder of its own, e.g. corpora/{out.resolve().name}")


def _check_folder(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise RequestError(f"{out}: is a file; give a folder for the corpus")
    if (out / "spec.json").exists() or (out / "plan.json").exists():
        if (out / "spec.json").exists() and not overwrite:
            _tidy(out)
            raise RequestError(f"{out}: holds a finished corpus; choose another folder or add --overwrite")
        return
    foreign = [p.name for p in sorted(out.iterdir()) if p.name not in (*_OWN, "secret.key", "labels", "splits", "cache")]
    foreign = [n for n in foreign if not n.startswith((".", "shard-"))]
    if foreign:
        raise RequestError(f"{out}: holds other files ({foreign[0]}); choose an empty or new folder")


def _tidy(out: Path) -> None:
    """The last step of a conversion, done again where it was killed right before: what only an unfinished one needs goes."""
    for item in [out / "plan.json", *out.glob("shard-*.json")]:
        with suppress(OSError):
            item.unlink()


def _clear(out: Path, card_name: str) -> None:
    """Remove a corpus; spec.json first, so that a kill in between leaves no corpus that looks finished."""
    same = False
    try:
        same = json.loads((out / "spec.json").read_text())["card"]["name"] == card_name
    except (OSError, ValueError, KeyError):
        pass
    for name in ("spec.json", "plan.json"):
        (out / name).unlink(missing_ok=True)
    for item in [*out.glob("shard-*"), *(out / n for n in _OWN)]:
        item.unlink(missing_ok=True)
    for folder in ["cache"] if same else ["cache", "labels", "splits"]:
        shutil.rmtree(out / folder, ignore_errors=True)


def _begin(out: Path, plan: dict[str, Any]) -> None:
    file = out / "plan.json"
    atomic.remove_partials(out)
    if not file.exists():
        for item in out.glob("shard-*"):
            item.unlink()
        atomic.write_text(file, json.dumps(plan, indent=1) + "\n")
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        there = {}
    if there != plan:
        differs = [k for k in plan if there.get(k) != plan[k]]
        what = {"card": "card", "view": "view", "tasks": "list of files", "biossl": "version of biossl", "spec": "view"}
        named = ", ".join(sorted({what[k] for k in differs if k in what})) or "plan"
        raise RequestError(f"{out}: holds an unfinished conversion with another {named}; add --overwrite or choose a new folder")


# ---------------------------------------------------------------------- the work


def _run(jobs: list[Job], load: Callable[..., Any], n_jobs: int | None) -> None:
    import joblib

    n_jobs = joblib.cpu_count() if n_jobs is None else n_jobs
    with Progress(sum(len(j.tasks) for j in jobs), "convert", "records") as bar:
        todo = []
        for job in jobs:
            if job.done():
                bar.update(len(job.tasks))
            else:
                todo.append(job)
        try:
            for count in _each(todo, load, min(n_jobs, max(1, len(todo)))):
                bar.update(count)
        except BrokenProcessPool:
            # a file that kills its reader: one child beside this process, so that it costs one record
            for job in [job for job in todo if not job.done()]:
                bar.update(make_shard(replace(job, alone=True), load))


def _each(jobs: list[Job], load: Callable[..., Any], n_jobs: int) -> Iterator[int]:
    import joblib

    if n_jobs == 1:
        yield from (make_shard(job, load) for job in jobs)
        return
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    yield from parallel(joblib.delayed(make_shard)(job, load) for job in jobs)


# ---------------------------------------------------------------------- after


@dataclass
class _Gathered:
    index: pd.DataFrame
    events: pd.DataFrame
    quarantine: list[list[str]]
    shards: list[dict[str, Any]]
    funnel: dict[str, Any]
    findings: list[str]
    splits: dict[str, dict[str, str]]


def _finish(
    out: Path, card: Card, view: str, spec: InputSpec, jobs: list[Job], names: Pseudonyms, notes: list[str], stray: Sequence[str]
) -> dict[str, Any]:
    import pandas as pd

    from biossl.corpus.index import CORPUS_FORMAT, INDEX_COLUMNS, corpus_hash
    from biossl.corpus.privacy import age_limit, id_shape, is_birth, private_card
    from biossl.corpus.splits import official_name, write_record_split

    got = _gather(jobs)
    write_quarantine(out, got.quarantine)
    paths = write_private_paths(out, _keyed(jobs, card, names), [*got.findings, *(q[0] for q in got.quarantine)], stray)
    if not len(got.index):
        first = f"; first: {got.quarantine[0][2]}" if got.quarantine else ""
        reasons = ", ".join(f"{n} {code}" for code, n in got.funnel["quarantined"].items())
        for item in [*out.glob("shard-*"), out / "plan.json"]:  # so that a second run reads mended files again
            item.unlink(missing_ok=True)
        raise DataError(
            f"{out}: nothing could be converted, {got.funnel['files_found']} records gave no window "
            f"({reasons or json.dumps(got.funnel['windows_dropped'])}){first}; see {out / 'quarantine.csv'}"
            + (f" (which files: {paths})" if paths else "")
        )
    stored = card if names.secret is None else private_card(card, names)
    for column in got.index.columns if names.secret is not None else ():
        limit = age_limit(column, card)
        oldest = 0 if limit is None else int((got.index[column] == f"{limit:.0f}").sum())
        if oldest:
            notes.append(f"{column}: {oldest:,} windows hold {limit:.0f}, which stands for ages above 89 (the set is not public)")
    covariates = [c for c in got.index.columns if c not in INDEX_COLUMNS] if names.secret is not None else []
    notes += [f"{c}: left out as a date of birth, by its name (the set is not public)" for c in covariates if is_birth(c)]
    facts: dict[str, Any] = {
        "format": CORPUS_FORMAT,
        "input": spec.to_dict(),
        "view": view,
        "card": {"name": card.name, "version": card.version, "public": card.public, "secret_id": names.id()},
        "official_split": official_name(card) if (got.index["split"] != "").any() else "",
        "shards": got.shards,
        "funnel": got.funnel,
        "findings": notes + got.findings,
        "versions": {"biossl": __version__, "numpy": np.__version__, "pandas": pd.__version__},
    }
    if names.secret is not None:  # what a person is told whose table of labels matches nothing
        tasks = [task for job in jobs for task in job.tasks]
        facts["id_shapes"] = {"record": id_shape(t.record for t in tasks), "subject": id_shape(t.subject or "" for t in tasks)}
    facts["hash"] = corpus_hash(facts, got.index)
    atomic.write_text(out / "card.yaml", dump_yaml(stored))
    atomic.write_parquet(out / "events.parquet", got.events)
    for name, parts in got.splits.items():
        if any(parts.values()):
            write_record_split(out / "splits" / f"{name}.parquet", parts)
    atomic.write_parquet(out / "index.parquet", got.index)
    atomic.write_text(out / "spec.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _tidy(out)
    return {
        "path": str(out),
        "hash": facts["hash"],
        "funnel": got.funnel,
        "findings": facts["findings"],
        "window_s": spec.window_s,
        "unmatched": len(stray),
        "unmatched_files": list(stray[:NAMED]) if card.public else [],
        "private_paths": str(paths or ""),
    }


def _keyed(jobs: list[Job], card: Card, names: Pseudonyms) -> list[tuple[str, str]] | None:
    """Stored name and path of every record; None for a public set, whose names are no secret."""
    return None if names.secret is None else [(names.record(t.record, card), t.path) for job in jobs for t in job.tasks]


def _gather(jobs: list[Job]) -> _Gathered:
    import pandas as pd

    from biossl.corpus.index import EVENT_COLUMNS, INDEX_COLUMNS

    columns: dict[str, list[Any]] = {name: [] for name in (*INDEX_COLUMNS, "day")}
    events: dict[str, list[Any]] = {name: [] for name in (*EVENT_COLUMNS, "missing")}
    covariates: list[tuple[int, dict[str, str]]] = []
    shards, quarantine, findings = [], [], []
    splits: dict[str, dict[str, str]] = {}
    dropped: Counter[str] = Counter()
    owner: dict[str, dict[str, str]] = {}  # window hash -> record -> subject
    n_read = n_with = 0
    for job in jobs:
        side = json.loads(job.side_file.read_text(encoding="utf-8"))
        row = 0
        for block in side["records"]:
            n = block["n"]
            n_read, n_with = n_read + 1, n_with + (n > 0)
            dropped.update(block["dropped"])
            count = len(block["events"]["onset_s"])
            events["subject"] += [block["subject"]] * count
            events["record"] += [block["record"]] * count
            for name, values in ({"missing": [""] * count} | block["events"]).items():
                events[name] += values
            columns["shard"] += [job.number] * n
            columns["row"] += range(row, row + n)
            columns["event"] += [block["events"]["label"][e] if e >= 0 else "" for e in block["event"]]
            for name in ("subject", "record", "record_sha256", "day", "n_samples", "split"):
                columns[name] += [block[name]] * n
            for name in ("start_s", "segment", "quality", "sha256"):
                columns[name] += block[name]
            covariates.append((n, block["covariates"]))
            for name, part in block["splits"].items():
                splits.setdefault(name, {})[block["record"]] = part
            for sha in block["sha256"]:
                if sha:
                    owner.setdefault(sha, {})[block["record"]] = block["subject"]
            row += n
        shards.append({"file": job.file.name, "rows": row, "sha256": side["sha256"], "exact": side["exact"]})
        quarantine += side["quarantine"]
        findings += side["findings"]
    names = sorted({key for _, values in covariates for key in values} - set(columns))
    for name in names:
        columns[name] = [v for n, values in covariates for v in [values.get(name, "")] * n]
    kinds: dict[str, Any] = {
        "shard": "int32", "row": "int32", "segment": "int32", "n_samples": "int32", "start_s": "float64",
        "quality": "float32", "day": "float64",
    }  # fmt: skip
    index = pd.DataFrame({k: pd.Series(v, dtype=kinds.get(k, "object")) for k, v in columns.items()})
    if not any(events["missing"]):
        del events["missing"]
    table = pd.DataFrame(
        {k: pd.Series(v, dtype="float64" if k in ("onset_s", "duration_s") else "object") for k, v in events.items()}
    )
    funnel = {
        "files_found": sum(len(job.tasks) for job in jobs),
        "quarantined": dict(sorted(Counter(q[1] for q in quarantine).items())),
        "records_read": n_read,
        "records_with_windows": n_with,
        "windows_dropped": dict(sorted((k, v) for k, v in dropped.items() if v)),
        "windows": len(index),
        "subjects": int(index["subject"].nunique()),
    }
    return _Gathered(index, table, quarantine, shards, funnel, findings + _duplicates(owner), splits)


def _duplicates(owner: dict[str, dict[str, str]]) -> list[str]:
    """Findings on identical source samples in two records."""
    same = [records for records in owner.values() if len(records) > 1]
    if not same:
        return []
    pairs = sorted({tuple(sorted(records)[:2]) for records in same})
    people = sum(len(set(records.values())) > 1 for records in same)
    return [
        f"identical samples: {len(same)} windows are in more than one record, {people} of them under different subjects "
        f"(first: {pairs[0][0]} and {pairs[0][1]}); the leak guard refuses splits that part them"
    ]
