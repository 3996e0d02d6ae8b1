"""One task of a conversion: some records to one shard and its side file. Runs in a worker process, and only there.

What lives here: loading, quantising and writing the records of a job. Names of a set that is not public do not leave this
process: what may be kept is ``privacy.py``'s business. Planning and ending a conversion is ``convert.py``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl import atomic
from biossl.corpus.card import Card
from biossl.corpus.identity import Pseudonyms, day_number
from biossl.corpus.privacy import private_covariates, private_events, private_fault
from biossl.corpus.splits import official_name, official_parts
from biossl.errors import MachineError, RecordError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.corpus.shards import Counts
    from biossl.corpus.views import Cut, RecordTask

NO_WINDOWS = "no_windows"
EVENT_FIELDS = ("onset_s", "duration_s", "label", "channel", "kind", "source")


@dataclass(frozen=True)
class Job:
    """One shard to be made. ``alone``: every record in a child of its own, since one of them kills its reader."""

    out: Path
    number: int
    card: Card
    view: str
    spec: InputSpec
    tasks: tuple[RecordTask, ...]
    names: Pseudonyms
    alone: bool = False

    @property
    def file(self) -> Path:
        """The shard."""
        return self.out / f"shard-{self.number:05d}.h5"

    @property
    def side_file(self) -> Path:
        """Rows, events, quarantine of the shard, and its SHA-256."""
        return self.out / f"shard-{self.number:05d}.json"

    def done(self) -> bool:
        """True when an earlier run made it whole."""
        try:
            wanted = json.loads(self.side_file.read_text(encoding="utf-8"))["sha256"]
            with open(self.file, "rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest() == wanted
        except (OSError, ValueError, KeyError):
            return False


def load_windows(card: Card, view: str, task: RecordTask) -> tuple[Cut, str | None]:
    """Windows of one record and the start of its file (ISO 8601) or None."""
    from biossl.corpus.views import cut, load_record

    recordings = load_record(card, task)
    return cut(card, view, recordings), next((r.start for r in recordings if r.start), None)


def make_shard(job: Job, load: Callable[..., Any]) -> int:
    """Make the shard of a job; returns how many records it looked at."""
    from biossl.corpus.shards import quantise, shard_bytes

    parts: list[Counts] = []
    side: dict[str, Any] = {"sha256": "", "exact": 0, "records": [], "quarantine": [], "findings": []}
    reader = _Reader(load, job.alone)
    with warnings.catch_warnings():
        if not job.card.public:
            warnings.simplefilter("ignore")  # readers name files in their warnings
        for task in job.tasks:
            try:
                found, start = reader(job.card, job.view, task)
                q = quantise(found.data, found.lsb, found.baseline)
                side["records"].append(_block(job, task, found, start))
            except RecordError as error:
                side["quarantine"].append(_line(job, task, error.code, str(error)))
                continue
            parts.append(q)
            if len(q.counts) == 0 and found.dropped and set(found.dropped) - {"outside"}:
                why = ", ".join(f"{n} {reason}" for reason, n in sorted(found.dropped.items()) if n)
                if why:
                    side["quarantine"].append(_line(job, task, NO_WINDOWS, f"no window could be cut ({why})"))
            side["findings"] += _findings(job, task, q)
            side["exact"] += 0 if q.exact is None else len(q.exact)
    reader.close()
    spec = job.spec
    data = shard_bytes(
        parts, len(spec.ch_names), spec.n_samples,
        {
            "biossl_card": job.card.name, "biossl_card_version": job.card.version, "biossl_view": job.view,
            "sfreq": spec.sfreq, "ch_names": " ".join(spec.ch_names), "units": " ".join(spec.units),
            "value": "(signal + offset) * scale; -32768 = not observed",
        },
    )  # fmt: skip
    side["sha256"] = hashlib.sha256(data).hexdigest()
    atomic.write_bytes(job.file, data)
    atomic.write_text(job.side_file, json.dumps(side, ensure_ascii=False) + "\n")
    return len(job.tasks)


class _Reader:
    """``load``, with whatever goes wrong inside made one :class:`RecordError`; ``alone`` runs it in a child that may die."""

    def __init__(self, load: Callable[..., Any], alone: bool) -> None:
        self.load, self.alone = load, alone
        self.pool: Any = None

    def __call__(self, *args: Any) -> tuple[Cut, str | None]:
        try:
            return self._in_child(*args) if self.alone else self.load(*args)
        except (RecordError, MachineError):
            raise
        except BrokenProcessPool:
            self.pool = None
            raise RecordError("crashed", "its reader was killed by this file; look at it with `biossl inspect`") from None
        except MemoryError:
            raise RecordError("too_large", "does not fit in memory; split the file, or run with --jobs 1") from None
        except Exception as error:  # readers raise anything on damaged files
            text = f"{type(error).__name__}: {error}"
            raise RecordError("unreadable", f"{text[:160]}; look at it with `biossl inspect`") from error

    def _in_child(self, *args: Any) -> tuple[Cut, str | None]:
        from joblib.externals.loky import ProcessPoolExecutor

        if self.pool is None:
            self.pool = ProcessPoolExecutor(1)
        return self.pool.submit(self.load, *args).result()

    def close(self) -> None:
        """End the child."""
        if self.pool is not None:
            self.pool.shutdown()


def _line(job: Job, task: RecordTask, code: str, message: str) -> list[str]:
    if job.names.secret is None:
        root = task.source.rstrip("/\\")
        return [task.record, code, message.replace(root + "/", "").replace(root, "")]
    told = message if code == NO_WINDOWS else private_fault(code, job.card.modality)  # a reader's own words may hold names
    return [job.names.record(task.record, job.card), code, told]


def _findings(job: Job, task: RecordTask, q: Counts) -> list[str]:
    record = job.names.record(task.record, job.card)
    if q.exact is not None:
        return [f"{record}: int16 would clip {q.clipped} samples (over 0.01 %), so its windows are kept as float32 besides"]
    if q.clipped:
        return [f"{record}: {q.clipped} samples beyond 8 times the 99.99 % range were limited to it"]
    return []


def _block(job: Job, task: RecordTask, cut: Cut, start: str | None) -> dict[str, Any]:
    """What the index and events need of a record, in the names it is stored under."""
    card, names, n = job.card, job.names, len(cut.data)
    assert cut.subject is not None
    if cut.data.shape[1:] != (len(job.spec.ch_names), job.spec.n_samples):
        raise RecordError("wrong_shape", f"windows of {cut.data.shape[1:]} do not fit the view; report this as a fault")
    key = names.subject(cut.subject, card)
    covariates = {k: str(v) for k, v in cut.covariates.items()}
    splits = official_parts(card, [cut.subject], [cut.record], {k: [v] for k, v in covariates.items()})
    day = day_number(start) if start else day_number(covariates.get("date", ""))
    if names.secret is not None:
        raw = [t for t in (cut.subject, cut.record, task.subject or "", task.record) if len(t) > 2]
        covariates = private_covariates(covariates, card, names, key, raw)
    block = {
        "record": names.record(cut.record, card), "subject": key, "n": n, "n_samples": job.spec.n_samples,
        "day": None if day is None else names.day(day, key),
        "split": splits[official_name(card)][0] if splits else "",
        "splits": {name: part[0] for name, part in splits.items()},
        "covariates": covariates, "dropped": {k: int(v) for k, v in sorted(cut.dropped.items())},
        "start_s": np.asarray(cut.start_s, np.float64).tolist(), "segment": np.asarray(cut.segment).tolist(),
        "event": np.asarray(cut.event).tolist(), "quality": np.asarray(cut.quality, np.float64).round(6).tolist(),
        "sha256": list(cut.sha256), "record_sha256": cut.record_sha256, "events": _events(job, cut),
    }  # fmt: skip
    return block


def _events(job: Job, cut: Cut) -> dict[str, list[Any]]:
    events: dict[str, list[Any]] = {}
    for name in EVENT_FIELDS:
        number = name in ("onset_s", "duration_s")
        events[name] = [float(v) if number else str(v) for v in cut.events[name].tolist()]
    if "missing" in cut.events:
        events["missing"] = [str(v) for v in cut.events["missing"].tolist()]
    return events if job.names.secret is None else private_events(events, job.card, job.view)
