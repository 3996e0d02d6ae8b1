"""One job: a model under one seed in one fold, from its features to predictions on disk.

What lives here: how each kind of model comes to features or predictions, and the two files a finished job leaves,
``jobs/NAME.npz`` (predictions) and, written last, ``jobs/NAME.json`` (its plan and its other figures). A job whose file
names the same plan is not done again. No score of a judged row is computed here.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import minirocket, protocol
from biossl.atomic import write_bytes, write_text
from biossl.baselines import corpus_features
from biossl.checkpoint import load_encoder
from biossl.compare import scratch
from biossl.compare.corrupt import Corruption, Seen
from biossl.compare.identity import effective_rank, identity
from biossl.compare.mixtures import Sources
from biossl.compare.plan import ALL, Fold, Setting, draw, pairs
from biossl.corpus import Corpus
from biossl.inference import embed_corpus
from biossl.judging import Rows, in_threads
from biossl.models.encoder import Encoder
from biossl.probe import HAND, RANDOM
from biossl.recipe.schema import Recipe
from biossl.recipe.tables import build_encoder
from biossl.training import pretrain

Array = NDArray[Any]
ROCKET, SCRATCH = "MiniRocket", "from scratch"
ROCKET_SAMPLE = 1024  # training windows its biases may come from
SEEDLESS = (HAND,)
HEADS = {ROCKET: "ridge", SCRATCH: "network"}  # every other model: linear, and kNN with all labels


@dataclass(frozen=True)
class Common:
    """What all jobs of a comparison share."""

    rows: Rows
    folds: list[Fold]
    settings: list[Setting]
    corruptions: list[Corruption]
    seeds: list[int]
    n_draws: int
    pool: str
    identity: tuple[str, ...]
    out: Path
    template: Recipe  # its model and data sections are everyone's

    def seen(self, fold: Fold, how: Corruption | None = None) -> Seen:
        """The fold's corpus with everyone's channels."""
        return Seen(fold.corpus, self.template.data.channels, how)


@dataclass(frozen=True)
class Job:
    """``model`` as in the table; ``plan`` what decides the result.

    ``recipe`` with its budget and seed and the ``sources`` it is trained on; None and nothing for the others.
    """

    model: str
    place: int  # of the seed in the list
    seed: int
    fold: Fold
    recipe: Recipe | None = None
    sources: Sources = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name without suffix."""
        digest = hashlib.sha256(json.dumps(self.plan, sort_keys=True).encode()).hexdigest()[:8]
        return f"{slug(self.model)}-seed{self.seed}-fold{self.fold.number}-{digest}"


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def make_jobs(common: Common, recipes: list[list[Recipe]], sources: list[list[Sources]], corpus: Corpus, label: str) -> list[Job]:
    """All jobs, seed by seed, so that one seed's table is whole first.

    Parameters
    ----------
    recipes : list of list
        For each seed, the recipes with seed and budget.
    sources : list of list
        For each fold, what each of the recipes is trained on.
    """
    out = []
    for place, seed in enumerate(common.seeds):
        for fold, each in zip(common.folds, sources, strict=True):
            jobs = [Job(r.name, place, seed, fold, r, some) for r, some in zip(recipes[place], each, strict=True)]
            jobs += [Job(m, place, seed, fold) for m in (RANDOM, ROCKET, SCRATCH, *((HAND,) if place == 0 else ()))]
            out += [dataclasses.replace(job, plan=_plan(common, job, corpus, label)) for job in jobs]
    return out


def _plan(common: Common, job: Job, corpus: Corpus, label: str) -> dict[str, Any]:
    """Plain values that decide what a job computes."""

    def digest(a: Array) -> str:
        return hashlib.sha256(np.ascontiguousarray(a).astype("<i8").tobytes()).hexdigest()[:16]

    rows, fold = common.rows, job.fold
    plan: dict[str, Any] = {
        "model": job.model, "corpus": corpus.hash, "label": label, "seed": job.seed, "place": job.place,
        "seeds": len(common.seeds), "draws": common.n_draws, "settings": [s.key for s in common.settings],
        "corruptions": [c.key for c in common.corruptions], "split": fold.split,
        "channels": list(common.template.data.channels), "train": digest(rows.index[fold.train]),
        "judged": digest(rows.index[fold.judged]),
        "target": hashlib.sha256(np.ascontiguousarray(rows.target.y, "<f8").tobytes()).hexdigest()[:16],
    }  # fmt: skip
    if job.model not in (HAND, ROCKET):
        plan |= {"pool": common.pool, "backbone": common.template.model.to_dict()}
    if job.model not in (ROCKET, SCRATCH):
        plan["identity"] = list(common.identity)
    if job.recipe is not None:
        plan["recipe"] = job.recipe.to_dict()
        plan["pretrained_on"] = [
            [c.hash, weight, digest(np.flatnonzero(c.split(fold.split).to_numpy() == "train"))] for c, weight in job.sources
        ]
    return plan


# ---------------------------------------------------------------------------------------------- state on disk


def load(job: Job, common: Common) -> dict[str, Any] | None:
    """What a finished job left, or None when it is still to do."""
    file = common.out / "jobs" / f"{job.name}.json"
    try:
        done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return done if done.get("plan") == json.loads(json.dumps(job.plan)) else None


def predictions(job: Job, common: Common) -> dict[str, Array]:
    """``head|setting`` -> (n, m, ...) of a finished job, n in the order of its pairs."""
    with np.load(common.out / "jobs" / f"{job.name}.npz", allow_pickle=False) as table:
        return {key: table[key] for key in table.files}


def do(job: Job, common: Common) -> dict[str, Any]:
    """Run one job and write its files."""
    begun = time.monotonic()
    arrays, figures = _scratch(job, common) if job.model == SCRATCH else _frozen(job, common)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{k: v.astype(np.float32) for k, v in arrays.items()})  # type: ignore[arg-type]
    folder = common.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{job.name}.npz", buffer.getvalue())
    figures = {"plan": job.plan, **figures, "job_s": round(time.monotonic() - begun, 2)}
    write_text(folder / f"{job.name}.json", json.dumps(figures, indent=1, allow_nan=False) + "\n")
    done = load(job, common)
    assert done is not None
    return done


# ---------------------------------------------------------------------------------------------- models


def mine(job: Job, common: Common, setting: Setting) -> list[Array]:
    """Training rows of the fits that fall to this job: with several seeds each takes its share of the draws."""
    draws = draw(common.rows, job.fold, setting, common.n_draws)
    if job.model in SEEDLESS:
        return draws
    return [draws[d] for place, d in pairs(len(draws), common.seeds) if place == job.place]


def encoder_of(job: Job, common: Common) -> tuple[Encoder, dict[str, Any]]:
    """The pretrained encoder (trained now, gone on with, or found finished), or one with random weights."""
    if job.recipe is None:
        return build_encoder(dataclasses.replace(common.template, seed=job.seed), common.seen(job.fold).spec).eval(), {}
    # a run is known by what it was trained on: a fold of the same number and name may hold out others
    decides = [job.recipe.hash, job.fold.split, job.plan["pretrained_on"]]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]
    run = common.out / "runs" / f"{slug(job.model)}-seed{job.seed}-fold{job.fold.number}-{digest}"
    facts = _facts(run)
    if not facts.get("finished"):
        pretrain(job.recipe, job.sources, run, split=job.fold.split)
        facts = _facts(run)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # the finished encoder stays; hundreds of runs would fill a disk
    kept = {key: facts.get(key) for key in ("wall_s", "alarms", "numbers", "parameters")}
    return load_encoder(run / "encoder"), {"run": str(run.relative_to(common.out)), **kept}


def _facts(run: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def _frozen(job: Job, common: Common) -> tuple[dict[str, Array], dict[str, Any]]:
    """Features once, heads on every draw."""
    rows, fold = common.rows, job.fold
    train, judged = rows.index[fold.train], rows.index[fold.judged]
    figures: dict[str, Any] = {}
    began = time.monotonic()
    if job.model == HAND:

        def features(corpus: Corpus, index: Array) -> Array:
            return corpus_features(corpus, index)[0]
    elif job.model == ROCKET:
        features = _rocket(job, common)
    else:
        encoder, figures = encoder_of(job, common)

        def features(corpus: Corpus, index: Array) -> Array:
            return embed_corpus(encoder, corpus, index, pool=common.pool, desc=job.model)

    corpus = common.seen(fold)
    both = features(corpus, np.concatenate([train, judged]))
    x = np.full((len(rows.index), both.shape[1]), np.nan, np.float32)
    x[fold.train], x[fold.judged] = both[: len(train)], both[len(train) :]
    figures["features"] = both.shape[1]
    figures["features_s"] = round(time.monotonic() - began - (figures.get("wall_s") or 0.0), 2)
    if job.model != ROCKET:
        figures["rankme"] = _plain(effective_rank(x[fold.train]))
        figures["identity"] = {kind: identity(x[fold.train], corpus, train, kind) for kind in common.identity}
    worse = [features(common.seen(fold, how), judged) for how in common.corruptions]

    def fit(work: tuple[str, Setting, Array, Array]) -> Array:
        head, _, some, test = work
        function = minirocket.ridge if job.model == ROCKET else protocol.HEADS[head]
        return function(x[some], rows.target.take(some), rows.subject[some], test, seed=job.seed).prediction

    work = []
    for setting in common.settings:
        heads = [HEADS.get(job.model, "linear")] + (["kNN"] if setting == ALL and job.model not in HEADS else [])
        for head in heads:
            # with all labels the head also meets the corrupted windows
            test = np.concatenate([x[fold.judged], *worse]) if setting == ALL and head != "kNN" else x[fold.judged]
            work += [(head, setting, some, test) for some in mine(job, common, setting)]
    found: dict[str, list[Array]] = {}
    for (head, setting, _, _), prediction in zip(work, in_threads(fit, work, f"heads on {job.model}"), strict=True):
        parts = np.split(prediction, len(prediction) // len(judged))
        found.setdefault(f"{head}|{setting.key}", []).append(parts[0])
        for how, part in zip(common.corruptions, parts[1:], strict=False):
            found.setdefault(f"{head}|{setting.key}|{how.key}", []).append(part)
    return {key: np.stack(each) for key, each in found.items()}, figures


def _rocket(job: Job, common: Common) -> Any:
    """The transform fitted on training windows of the fold, with the recipes' channels."""
    corpus, index = common.seen(job.fold), common.rows.index
    train = index[job.fold.train]
    sample = np.sort(np.random.default_rng(job.seed).permutation(train)[:ROCKET_SAMPLE])
    n_features = minirocket.features_for(len(train) + len(job.fold.judged) * (1 + len(common.corruptions)))
    rocket = minirocket.fit(corpus.signal(sample), seed=job.seed, n_features=n_features)

    def features(corpus: Corpus, rows: Array) -> Array:
        from biossl.progress import Progress

        parts = []
        with Progress(len(rows), ROCKET, "windows") as bar:
            for i in range(0, len(rows), 256):
                block = rows[i : i + 256]
                parts.append(minirocket.transform(rocket, corpus.signal(block)))
                bar.update(len(block))
        return np.concatenate(parts)

    return features


def _scratch(job: Job, common: Common) -> tuple[dict[str, Array], dict[str, Any]]:
    """One network a draw."""
    from biossl.progress import Progress

    rows, corpus = common.rows, common.seen(job.fold)
    judged = rows.index[job.fold.judged]
    work = [(setting, some) for setting in common.settings for some in mine(job, common, setting)]
    found: dict[str, list[Array]] = {}
    seconds = float("nan")
    untrained, _ = encoder_of(job, common)
    with Progress(len(work), SCRATCH, "networks") as bar:
        for setting, some in work:
            began = time.monotonic()
            encoder, target = copy.deepcopy(untrained), rows.target.take(some)
            prediction, network, scale = scratch.train_and_predict(
                encoder, corpus, rows.index[some], target, judged, pool=common.pool, seed=job.seed
            )
            found.setdefault(f"network|{setting.key}", []).append(prediction)
            if setting == ALL:
                seconds = time.monotonic() - began
                for how in common.corruptions:
                    worse = scratch.predict(network, common.seen(job.fold, how), judged, rows.target.kind, scale)
                    found.setdefault(f"network|{setting.key}|{how.key}", []).append(worse)
            bar.update()
    return {key: np.stack(each) for key, each in found.items()}, {"wall_s": _plain(seconds)}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
