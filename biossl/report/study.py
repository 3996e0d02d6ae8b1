"""What is known of a fine-tuned run: its locked model, the corpora behind it, how it was judged, and every opening of a test part.

What lives here: gathering for the written reports (cohort flow, ``report.md``, the packet for an ethics board), and what of a set
that is not public may be printed. Nothing is judged here and no sentence is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biossl.corpus import Corpus
from biossl.downstream.model import Model, load_model
from biossl.errors import BiosslError
from biossl.ledger import openings
from biossl.probe_text import METRIC_NAMES, interval, number

_ABSOLUTE = re.compile(r"(?:(?<![\w.:/])(?:~|\.{1,2})?/|\b[A-Za-z]:\\)[^\s,;:)'\"]+")
PLACE = "(a place on disk)"


@dataclass(frozen=True)
class Judged:
    """One evaluation of the locked model, and the corpus it was made on where that is still at hand."""

    result: dict[str, Any]
    corpus: Corpus | None


@dataclass(frozen=True)
class Study:
    """What is known of a fine-tuned run.

    Attributes
    ----------
    path : Path
        Run folder.
    facts : dict
        ``run.json``.
    model : Model
        With ``about`` and ``lock``.
    trained : Corpus or None
        The corpus it was fine-tuned on; None = not where the run found it, or changed since.
    judged : list of Judged
    openings : list of dict
        Entries of the ledgers of these corpora and of the run, oldest first.
    places : tuple of str
        Paths and folder names that the run's files speak of: nothing of them is printed.
    """

    path: Path
    facts: dict[str, Any]
    model: Model
    trained: Corpus | None
    judged: list[Judged]
    openings: list[dict[str, Any]]
    places: tuple[str, ...]

    @property
    def label(self) -> str:
        """What the model says something about."""
        return str(self.model.about["label"])

    @property
    def sha256(self) -> str:
        """Of the weights file."""
        return str(self.model.about["weights"]["sha256"])

    def say(self, text: str) -> str:
        """A note of the run's files without a place on disk.

        Examples
        --------
        >>> study.say("/data/ward_7/c: no split")  # doctest: +SKIP
        '(a place on disk): no split'
        """
        return without_places(text, self.places)


def without_places(text: str, places: Iterable[str]) -> str:
    """Text in which neither an absolute or relative path nor one of the names ``places`` is left.

    Examples
    --------
    >>> without_places("/data/a b.edf: yes/no, corpora/ward: damaged", ["corpora/ward"])
    '(a place on disk) b.edf: yes/no, (a place on disk): damaged'
    """
    for place in sorted((p for p in places if p), key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(place)}(?![\w-])", PLACE, text)
    return _ABSOLUTE.sub(PLACE, text)


def read_study(path: Path, facts: dict[str, Any], corpora: Sequence[Corpus], evaluations: Sequence[dict[str, Any]]) -> Study:
    """Gather what is known of a fine-tuned run.

    Parameters
    ----------
    path : Path
        Run folder.
    facts : dict
        ``run.json``.
    corpora : sequence of Corpus
        Already opened; those of evaluations are looked for where the evaluation found them.
    evaluations : sequence of dict
        ``results.json`` of each evaluation of the run's model.

    Raises
    ------
    RequestError
        No locked model.
    DataError
        Its folder is damaged.
    """
    model = load_model(path)
    held = {c.hash: c for c in corpora if _whole(c)}
    for result in evaluations:
        if result["corpus"]["hash"] not in held:
            found = _open(Path(result["corpus"]["path"]))
            if found is not None and found.hash == result["corpus"]["hash"]:
                held[found.hash] = found
    trained = held.get(model.about["seen"]["corpora"][-1]["hash"])
    judged = [Judged(r, held.get(r["corpus"]["hash"])) for r in evaluations]
    ledgers = [Path(r["ledger"]["file"]).parent for r in evaluations if "ledger" in r]
    folders = [*(c.path for c in held.values()), path / "probes", *ledgers]
    return Study(path, facts, model, trained, judged, all_openings(folders), _places(path, facts, evaluations, held.values()))


def all_openings(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Entries of the ledgers in folders, each once, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for entry in openings(folder):
            found.setdefault(json.dumps(entry, sort_keys=True), entry)
    return sorted(found.values(), key=lambda e: str(e.get("date")))


def opening_rows(entries: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and one row an opening: when, by what code, which weights, of what, with what score."""
    rows = [["date", "commit", "by", "weights", "label", "split", "part", "pool", "metric", "score"]]
    for e in entries:
        weights = str(e.get("model") or e.get("encoder") or "-")[:12]
        score = e.get("score") or {}
        shown = interval(score) if {"value", "low", "high"} <= set(score) else number(score.get("value"))
        cells = [str(e.get(k) or "-") for k in ("date", "commit", "verb")]
        named = [str(e.get(k) or "-") for k in ("label", "split", "part", "pool")]
        rows.append([*cells, weights, *named, METRIC_NAMES.get(str(e.get("metric")), str(e.get("metric") or "-")), shown])
    return rows


def count(corpus: Corpus, rows: Any) -> tuple[int, int, int]:
    """Recordings, windows, subjects of some rows of the index (bool or numbers)."""
    rows = np.asarray(rows)
    some = corpus.index.iloc[np.flatnonzero(rows) if rows.dtype.kind == "b" else rows]
    return int(some["record"].nunique()), len(some), int(some["subject"].nunique())


def _open(place: Path) -> Corpus | None:
    try:
        corpus = Corpus.open(place)
    except BiosslError:
        return None
    return corpus if _whole(corpus) else None


def _whole(corpus: Corpus) -> bool:
    """Can card and index be read? One that cannot is as good as gone."""
    try:
        return corpus.card is not None and len(corpus.index) >= 0
    except BiosslError:
        return False


def _places(
    path: Path, facts: dict[str, Any], evaluations: Sequence[dict[str, Any]], corpora: Iterable[Corpus]
) -> tuple[str, ...]:
    """Every path that the run's files name, as written and resolved; of corpora that are not public the folder's name as well."""
    found = [str(path), str(path.resolve()), *facts.get("corpora_at", [])]
    for r in evaluations:
        found += [r["corpus"]["path"], r["model"]["folder"], r.get("out", ""), r.get("ledger", {}).get("file", "")]
    for corpus in corpora:
        found += [str(corpus.path), str(corpus.path.resolve())]
        found += [] if corpus.card.public else [corpus.path.resolve().name]
    return tuple(sorted({str(f) for f in found if f and str(f) not in (".", "/")}))
