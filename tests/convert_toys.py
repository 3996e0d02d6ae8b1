"""What the tests of conversion share: broken loaders, small shards."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks

from biossl.corpus.card import Card
from biossl.corpus.convert import convert_tasks
from biossl.errors import RecordError

TABLES = ("index.parquet", "events.parquet", "card.yaml", "spec.json", "quarantine.csv")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of everything a corpus holds."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and "cache" not in p.parts]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def small_shards(monkeypatch: pytest.MonkeyPatch, n: int = 2) -> None:
    monkeypatch.setattr(sys.modules["biossl.corpus.shardplan"], "_SHARD_RECORDS", n)


class Bad(SyntheticLoader):
    """Records in ``how`` fail in their own way."""

    def __init__(self, how: dict[str, str]) -> None:
        super().__init__(4)
        self.how = how

    def __call__(self, card: Card, view: str, task: Any) -> Any:
        way = self.how.get(task.record)
        if way == "record error":
            raise RecordError("truncated", "ends early; copy it again", f"{task.source}/{task.path}")
        if way == "any error":
            raise IndexError("list index out of range")
        if way == "crash":
            os._exit(11)
        cut, start = super().__call__(card, view, task)
        if way == "short":
            cut.data, cut.dropped = cut.data[:0], {"short": 1}
            cut.start_s, cut.segment, cut.event, cut.quality = (a[:0] for a in (cut.start_s, cut.segment, cut.event, cut.quality))
            cut.sha256 = []
        return cut, start


def run(out: Path, load: Any = None, n: int = 6, **kw: Any) -> dict[str, Any]:
    facts = kw.pop("facts", {})
    return convert_tasks(
        synthetic_card(n_channels=2, **facts), synthetic_tasks(n), out, view="main", load=load or SyntheticLoader(4),
        **({"n_jobs": 1} | kw),
    )  # fmt: skip


def quarantine(folder: Path) -> list[dict[str, str]]:
    with open(folder / "quarantine.csv") as f:
        return list(csv.DictReader(f))
