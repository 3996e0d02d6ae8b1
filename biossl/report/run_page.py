"""One HTML page of a run: who was in it, how training went, what the features are worth, and how far to trust that.

What lives here: gathering from a run folder and its corpora, and the order of the page. Sections come from
``sections.py``, figures from ``figures.py``, markup from ``html.py``. No subject name reaches the page, and of records only the ids of
drawn errors (of a set that is not public: keys).
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.atomic import write_text
from biossl.checkpoint import find_encoder, load_encoder, read_about
from biossl.config import load_yaml, nearest
from biossl.corpus import Corpus
from biossl.corpus.splits import default_split
from biossl.downstream.foldrun import is_folds
from biossl.errors import BiosslError, DataError, RequestError
from biossl.inference import embed_corpus
from biossl.report import flow, html, sections, tripod
from biossl.report.embedding_map import EmbeddingMap, embedding_map
from biossl.report.evaluations import evaluations
from biossl.report.folds import write_folds_report
from biossl.report.judged_figures import scarcity
from biossl.report.study import all_openings, read_study

Array = NDArray[Any]


@dataclass
class Run:
    """What a run folder holds."""

    path: Path
    facts: dict[str, Any]
    recipe: str
    log: dict[str, Array]
    probes: list[dict[str, Any]]
    corpora: list[Corpus]
    notes: list[str]
    evaluations: list[dict[str, Any]]
    locked: bool
    amounts: list[dict[str, Any]]
    learning: dict[str, Any] | None


def write_report(
    run: str | Path, out: str | Path | None = None, *, label: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write the page.

    Parameters
    ----------
    run : path
        Run folder of ``biossl pretrain`` or ``biossl finetune``, also of all its folds or seeds.
    out : path, optional
        Default ``RUN/report.html``.
    label : str, optional
        Colours the map of embeddings; default the first probed label.
    overwrite : bool

    Returns
    -------
    dict
        ``out``, ``markdown`` (``report.md`` after TRIPOD+AI beside the page of a fine-tuned run, else None), ``probes`` (how many
        are shown), ``notes`` (what had to be left out).

    Raises
    ------
    RequestError
        No run there, or the page exists.
    DataError
        A file of the run is damaged.

    Examples
    --------
    >>> write_report("runs/a")["out"]  # doctest: +SKIP
    'runs/a/report.html'
    """
    path = Path(run)
    file = Path(out) if out is not None else path / "report.html"
    several = is_folds(path)
    if not several and not (path / "run.json").is_file():
        what = "not a run (no run.json)" if path.is_dir() else "no such folder"
        raise RequestError(f"{path}: {what}; give the folder that `biossl pretrain` or `biossl finetune` wrote (--out)")
    if file.is_dir():
        raise RequestError(f"{file}: a folder; give the name of an .html file")
    beside = file.with_suffix(".md")
    locked = (path / "model" / "model.yaml").is_file()
    for old in (file, *([beside] if locked else [])):
        if old.exists() and not overwrite:
            raise RequestError(f"{old}: exists; give another --out or add --overwrite")
    if several:
        return write_folds_report(path, file)
    held = read_run(path)
    picture = _map(held, label)
    study = read_study(path, held.facts, held.corpora, held.evaluations) if held.locked else None
    flow_figure = flow.section(study) if study else ""
    entries = study.openings if study else all_openings([*(c.path for c in held.corpora), path / "probes"])
    parts = [
        ("cohort", "Who is in it", flow_figure + sections.cohort(held.corpora, _trained(held.facts), boxes=study is None)),
        (
            "training",
            "Fine-tuning" if held.locked else "Pretraining",
            sections.training(held.facts, held.log, labels=held.locked),
        ),
        *([("locked", "The locked model", _locked(held))] if held.locked else []),
        *(
            [("probes", "What the frozen features are worth", sections.probes(held.probes))]
            if held.probes or not held.locked
            else []
        ),
        ("map", "Map of embeddings", sections.embedding_map(picture)),
        ("recipe", "Recipe", sections.recipe(held.recipe)),
        (
            "provenance",
            "Provenance",
            sections.provenance(held.facts, held.probes, held.corpora, entries, study.sha256 if study else ""),
        ),
        ("limits", "Limits", sections.limits(held.probes, held.notes, held.evaluations)),
    ]
    title = f"Run {path.resolve().name}"
    write_text(file, html.page(title, parts, sections.lead(held.facts, held.probes, held.evaluations if held.locked else None)))
    if study:
        write_text(beside, tripod.report(study))
    return {"out": str(file), "markdown": str(beside) if study else None, "probes": len(held.probes), "notes": held.notes}


def read_run(path: Path) -> Run:
    """Read a run folder and open its corpora where they still are."""
    facts = _json(path / "run.json")
    notes: list[str] = []
    probes = []
    weights = _weights(path)
    for file in sorted((path / "probes").glob("*.json")):
        probe = _json(file)
        if probe.get("encoder", {}).get("hash") == weights:
            probes.append(probe)
        else:
            notes.append(f"probes/{file.name} judged other weights than the run's encoder and is left out; probe again")
    plan = facts.get("plan", {}).get("corpora", [])
    places = [Path(p) for p in facts.get("corpora_at", [])] + [Path(p["corpus"]["path"]) for p in probes]
    wanted = {c["hash"]: c["name"] for c in plan} | {p["corpus"]["hash"]: p["corpus"]["name"] for p in probes}
    corpora: dict[str, Corpus] = {}
    for place in places:
        try:
            corpus = Corpus.open(place)
        except BiosslError:
            continue
        if corpus.hash in wanted:
            corpora.setdefault(corpus.hash, corpus)
    for digest, name in wanted.items():
        if digest not in corpora:
            notes.append(f"corpus {name} ({digest[:12]}) is not where the run found it: its cohort flow and map are left out")
    locked = (path / "model" / "model.yaml").is_file()
    judged, amounts = [], []
    for file in sorted((path / "evaluations").glob("*/results.json")):
        result = _json(file) | {"out": str(file.parent)}  # the run may have been moved
        amounts.append(result)
        if result.get("model", {}).get("sha256") == _locked_weights(path):
            judged.append(result)
        else:
            notes.append(
                f"evaluations/{file.parent.name} judged other weights than the run's model and is left out; evaluate again"
            )
    if not probes and not locked:
        notes.append("no probe was run: `biossl probe RUN CORPUS --label NAME` writes what this page then shows")
    recipe = path / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8") if recipe.is_file() else ""
    learning = _json(path / "learning_curve.json") if (path / "learning_curve.json").is_file() else None
    return Run(
        path, facts, text, read_log(path / "log.csv"), probes, list(corpora.values()), notes, judged, locked, amounts, learning
    )  # fmt: skip


def _locked(run: Run) -> str:
    out = evaluations(run.evaluations, run.path, run.corpora, run.amounts)
    if run.learning is None:
        return out
    try:
        return out + scarcity(
            run.learning["rows"], str(run.learning.get("label", "learning curve")), str(run.learning.get("metric", "score"))
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run.path / 'learning_curve.json'}: damaged ({error}); run the command that wrote it again") from None


def _trained(facts: dict[str, Any]) -> dict[str, str]:
    """Hash of each corpus trained on -> the split whose part ``train`` was used ('' = all windows), where the run says it."""
    return {c["hash"]: c["split"] for c in facts.get("plan", {}).get("corpora", []) if "split" in c}


def _weights(path: Path) -> str:
    """Hash of the run's encoder, '' when it has none yet."""
    try:
        return str(read_about(find_encoder(path))["weights"]["sha256"])
    except BiosslError:
        return ""


def _locked_weights(path: Path) -> str:
    """Hash of the run's locked model, '' when it has none."""
    try:
        return str(load_yaml(path / "model" / "model.yaml")["weights"]["sha256"])
    except (BiosslError, KeyError, TypeError):
        return ""


def read_log(file: Path) -> dict[str, Array]:
    """Columns of ``log.csv`` as numbers, NaN where a cell is empty; empty when there is no log."""
    try:
        with open(file, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
    except OSError:
        return {}
    if not rows:
        return {}
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in rows[0] if name}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{file}: damaged; run the command that wrote it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: damaged; run the command that wrote it again")
    return value


def _split_trained(run: Run, corpus: Corpus) -> str | None:
    trained = _trained(run.facts)
    if corpus.hash in trained:
        return trained[corpus.hash] or None
    try:
        return default_split(corpus)[0]
    except RequestError:  # several, and nothing says which
        return None


def _map(run: Run, label: str | None) -> EmbeddingMap | None:
    """Embeddings of up to a thousand windows: of the first probed corpus, else the first trained on."""
    if not run.corpora:
        return None
    corpora = {c.hash: c for c in run.corpora}
    name: str | None = label
    shown = [p for p in run.probes if p["corpus"]["hash"] in corpora and label in (None, p["label"])]
    corpus = corpora[shown[0]["corpus"]["hash"]] if shown else run.corpora[0]
    if name is None and shown:
        name = shown[0]["label"]
    if name is not None and name not in corpus.label_names():
        raise DataError(f"{corpus.path}: no label '{name}'; {nearest(name, corpus.label_names() or ['none'])}")
    split = shown[0]["split"] if shown else _split_trained(run, corpus)
    if split is not None and split.partition(":")[0] not in corpus.split_names():
        run.notes.append(f"split {split} is no longer in corpus {corpus.path.name}: the map shows all windows")
        split = None
    try:
        encoder = load_encoder(run.path, spec=corpus.spec, adapt=True)
    except BiosslError as error:
        run.notes.append(f"no map of embeddings: {error}")
        return None
    return embedding_map(corpus, name, split, lambda rows: embed_corpus(encoder, corpus, rows, adapt=True, desc="map"))
