"""One supervised training: which recipe, objective and rows it has, and the model any of its checkpoints stands for.

What lives here: :class:`Case`, what every training of one fine-tuning shares, and :func:`train_rows`. What is chosen between
trainings is ``choices.py``'s.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from biossl import protocol
from biossl.augment.base import build_pipeline
from biossl.checkpoint import require_match
from biossl.corpus import Corpus, subject_keys
from biossl.corpus.neighbours import recordings, rows_of_recordings
from biossl.downstream.dense import class_counts, stored
from biossl.downstream.lowrank import allocate_ranks, importance, total_rank
from biossl.downstream.model import Model, Task, require_sliding
from biossl.errors import DataError, RequestError
from biossl.inference import make_batch, pick_device
from biossl.keys import hash_ints
from biossl.models.encoder import Encoder
from biossl.models.group_heads import GroupHead
from biossl.models.lowrank import LowRankConfig, adapters_of, n_trained
from biossl.models.task_heads import PooledHead, pool_observed
from biossl.objectives.losses_supervised import class_weights, positive_weights
from biossl.objectives.supervised import Mode, Supervised, SupervisedConfig, n_outputs
from biossl.progress import Progress
from biossl.recipe import Recipe
from biossl.recipe.limits import check_limits
from biossl.recipe.plan import refuse_breaking
from biossl.recipe.schema import Checkpoint, Data, Monitor, Optimizer, Part, Train
from biossl.schedules import WarmupCosine
from biossl.training.data import make_order, make_sources
from biossl.training.run import run_objective
from biossl.training.sampling import StretchRows
from biossl.training.state import RunFolder, note

Array = NDArray[Any]
Weights = Literal["none", "sqrt", "balanced"]
CHOICES = 5  # checkpoints a training may be taken from, evenly spaced, the last one its end
FIT_ROWS = 2048  # training windows that features are standardised by and ranks are allocated by
_HEAD = 0x4EAD  # draw number of the head's first weights


@dataclass(frozen=True)
class Setting:
    """Learning rate, weight decay and the factor of the rate from block to block."""

    lr: float
    weight_decay: float
    layer_decay: float = 1.0


SETTINGS: dict[str, Setting] = {
    "frozen": Setting(3e-3, 0.05),
    "lowrank": Setting(1e-3, 0.01),  # CE-SSL's rate
    "full": Setting(1e-3, 0.05, 0.75),
}
SCRATCH = Setting(1e-3, 0.05)  # random weights: the blocks near the signal have as much to learn as the others


@dataclass(frozen=True)
class Case:
    """What every training of one call shares."""

    encoder: Encoder
    corpus: Corpus
    split: str
    task: Task
    head: Part
    mode: Mode
    lowrank: LowRankConfig
    class_weight: Weights
    augment: list[Part]
    batch_size: int
    steps: int
    lr: float | None
    seed: int
    adapt: bool
    scratch: bool = False


def check_learnable(corpus: Corpus, task: Task, train: Array, split: str) -> None:
    """DataError where nothing can be learnt."""
    where = f"{corpus.path}: label '{task.label}'"
    if not len(train):
        raise DataError(f"{where}: no labelled window in part 'train' of split '{split}'; add labels, or take another split")
    if task.kind == "dense":
        if (class_counts(task, train) > 0).sum() < 2:
            raise DataError(f"{where}: every labelled training sample is of one class; two are needed")
        return
    y = task.values[train]
    if task.kind in ("multiclass", "ordinal") and len(np.unique(y[~np.isnan(y)])) < 2:
        raise DataError(f"{where}: every labelled training window is of one class; two are needed")
    if task.kind in ("multilabel", "binary") and not any(len(np.unique(c[~np.isnan(c)])) > 1 for c in y.T):
        raise DataError(f"{where}: no class has both positives and negatives in training; add labels")
    if task.kind == "regression" and np.ptp(y) == 0:
        raise DataError(f"{where}: every training value is {y[0, 0]:g}; there is nothing to predict")
    if task.kind == "survival" and not (y[:, 1] == 1).any():
        raise DataError(f"{where}: no event in training; there is nothing to predict")


def learnable(corpus: Corpus, task: Task, train: Array) -> bool:
    """Whether something can be learnt from rows (:func:`check_learnable`)."""
    try:
        check_learnable(corpus, task, train, "")
    except DataError:
        return False
    return True


def _recipe(case: Case, config: SupervisedConfig, n_rows: int) -> Recipe:
    setting, spec = SCRATCH if case.scratch else SETTINGS[case.mode], case.encoder.spec
    names = [c for c in spec.ch_names if c in case.corpus.spec.ch_names]
    recipe = Recipe(
        name=f"finetune_{case.task.label}", modality=cast(Any, spec.modality), seed=case.seed,
        data=Data(batch_size=_batch_size(case, n_rows), channels=names),
        model=Part(case.encoder.architecture, case.encoder.config), objective=Part("supervised", config), augment=case.augment,
        train=Train(
            steps=case.steps, clip_norm=1.0, schedule=Part("warmup_cosine", WarmupCosine(case.steps // 10)),
            optimizer=Optimizer(
                lr=setting.lr if case.lr is None else case.lr, weight_decay=setting.weight_decay, layer_decay=setting.layer_decay
            ),
        ),
        monitor=Monitor(every=0), checkpoint=Checkpoint(every=-(-case.steps // CHOICES), keep=CHOICES + 1),
    )  # fmt: skip
    check_limits(recipe)
    return recipe


def _batch_size(case: Case, n_rows: int) -> int:
    """Not more windows than there are; of a head over several windows whole stretches."""
    windows = getattr(case.head.config, "windows", None)
    return min(case.batch_size, n_rows) if windows is None else max(case.batch_size // windows, 1) * windows


def _config(case: Case, rows: Array) -> SupervisedConfig:
    """Settings that the training rows decide: weights of classes, scale of values."""
    task = case.task
    config = SupervisedConfig(task.label, task.kind, list(task.classes), mode=case.mode, lowrank=case.lowrank)
    if task.kind == "dense":
        if case.class_weight != "none":
            config.weights = class_weights(torch.from_numpy(class_counts(task, rows)), case.class_weight).tolist()
        return config
    y = task.values[rows].astype(np.float64)
    if task.kind == "regression":
        config.scale = [float(y.mean()), float(y.std()) or 1.0]
    elif case.class_weight != "none":
        if task.kind in ("multilabel", "binary"):
            positives, negatives = torch.from_numpy((y == 1).sum(0)), torch.from_numpy((y == 0).sum(0))
            config.weights = positive_weights(positives, negatives, case.class_weight).tolist()
        elif task.kind == "multiclass":
            counts = np.bincount(y[~np.isnan(y)].astype(np.int64), minlength=len(task.classes))
            config.weights = class_weights(torch.from_numpy(counts), case.class_weight).tolist()
        else:
            raise RequestError(f"--class-weight {case.class_weight}: label '{task.label}' is {task.kind}; set it to none")
    return config


def build_objective(case: Case, rows: Array) -> Supervised:
    """Encoder, fresh head and adapters as they stand before the first step: a pure function of case and rows."""
    encoder = copy.deepcopy(case.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(case.seed, _HEAD))
        head = case.head.config.build(encoder, n_outputs(case.task.kind, len(case.task.classes)))
    some = rows[protocol.spread(len(rows), FIT_ROWS, case.seed)]
    batches = [some[i : i + 64] for i in range(0, len(some), 64)]
    if isinstance(head, (PooledHead, GroupHead)):
        with torch.no_grad():
            encoder.eval()
            features = [pool_observed(encoder.encode(encoder.tokenize(batch_of(case, b))), head.pool) for b in batches]
        head.norm.fit(torch.cat([f[seen] for f, seen in features]))
    config = _config(case, rows)
    if case.mode == "lowrank":
        trial = Supervised(copy.deepcopy(encoder), copy.deepcopy(head), config, seed=case.seed)
        adapters = adapters_of(trial.encoder)
        read = _stretches(case, rows, head, len(batches)) if isinstance(head, GroupHead) else (batch_of(case, b) for b in batches)
        found = importance(adapters, (trial.loss(b) for b in read), case.lowrank.importance)
        budget = total_rank(len(adapters), case.lowrank.rank, case.lowrank.low_share)
        config.ranks = allocate_ranks(found, rank=case.lowrank.rank, budget=budget)
    pipeline = build_pipeline(case.augment, _spec(case)) if case.augment else None
    return Supervised(encoder, head, config, augment=pipeline, seed=case.seed)


def _spec(case: Case) -> Any:
    names = [c for c in case.encoder.spec.ch_names if c in case.corpus.spec.ch_names]
    return make_sources([(case.corpus, 1.0)], channels=names, split=case.split)[0][0].spec


def _stretches(case: Case, rows: Array, head: GroupHead, n: int) -> Iterator[Any]:
    """``n`` batches of stretches around labelled rows, as training draws them."""
    taken, values = _context(case, rows)
    order = StretchRows(
        recordings(case.corpus.index, taken), np.isin(taken, rows), batch_size=_batch_size(case, len(rows)), length=head.windows,
        seed=case.seed, corpus=0,
    )  # fmt: skip
    start = case.corpus.index["start_s"].to_numpy(np.float64)
    for step in range(n):
        some = taken[order.rows(step)]
        yield replace(
            batch_of(case, some), labels={case.task.label: torch.from_numpy(values[some])}, index=torch.from_numpy(some),
            start_s=torch.from_numpy(start[some]),
        )  # fmt: skip


def batch_of(case: Case, rows: Array) -> Any:
    """Windows of rows with their label, as they are."""
    match = require_match(case.encoder.spec, case.corpus.spec, adapt=case.adapt)
    names = [case.corpus.spec.ch_names[i] for i in match.rows]
    batch = make_batch(case.corpus.signal(rows)[:, list(match.rows)], names, case.corpus.spec.sfreq, torch.device("cpu"))
    return replace(batch, labels={case.task.label: torch.from_numpy(case.task.values[rows])})


@torch.no_grad()
def _pooled(case: Case, encoder: Encoder, rows: Array, pool: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features of rows and which of them hold anything: read once, in an order of their own, so that a resumed run has the same."""
    device = pick_device()
    encoder.to(device).eval()
    parts = []
    with Progress(len(rows), "features", "windows") as bar:
        for at in range(0, len(rows), 64):
            batch = batch_of(case, rows[at : at + 64]).to(device)
            parts.append(pool_observed(encoder.encode(encoder.tokenize(batch)), pool))
            bar.update(len(batch))
    return torch.cat([f.cpu() for f, _ in parts]), torch.cat([s.cpu() for _, s in parts])


def _context(case: Case, rows: Array) -> tuple[Array, Array]:
    """All rows of the recordings of rows, and the label with only rows known."""
    require_sliding(case.corpus)
    values = np.full_like(case.task.values, np.nan)
    values[rows] = case.task.values[rows]
    return rows_of_recordings(case.corpus.index, rows), values


def train_rows(case: Case, rows: Array, run: Path, *, overwrite: bool = False) -> Supervised:
    """Train on rows in a run folder; a training that is there and finished is not done again. Returns what was trained."""
    objective = build_objective(case, rows)
    recipe = _recipe(case, objective.config, len(rows))
    refuse_breaking([recipe], case.corpus, case.task.label)
    names = list(recipe.data.channels)
    sources, _ = make_sources([(case.corpus, 1.0)], channels=names, split=case.split)
    head = objective.head
    taken, values = _context(case, rows) if isinstance(head, GroupHead) else (rows, case.task.values)
    source = replace(sources[0], rows=taken, labels={case.task.label: values})
    plan = {
        "recipe": recipe.to_dict(), "split": case.split, "init": case.encoder.info["hash"], "head": case.head.to_dict(),
        "corpora": [{"name": case.corpus.path.resolve().name, "hash": case.corpus.hash, "weight": 1.0, "windows": len(rows), "split": case.split}],
        "rows": _digest(rows), "labels": _digest(stored(case.task, rows)),
    }  # fmt: skip
    folder = RunFolder(run)
    if not overwrite and folder.facts.is_file():
        saved = folder.saved()
        if saved.get("finished") and saved["plan"] == json.loads(json.dumps(plan)):
            return objective
    if case.mode == "frozen" and not case.augment and isinstance(head, (PooledHead, GroupHead)):
        objective.remember(torch.from_numpy(taken), *_pooled(case, objective.encoder, taken, head.pool))
    order, notes = make_order(
        [source], objective.needs, batch_size=recipe.data.batch_size, accumulate=1, seed=case.seed, steps=recipe.train.steps
    )
    before = case.encoder.info["seen"]
    seen = {"subjects": set(before.get("subjects", [])) | subject_keys(case.corpus, rows), "corpora": before.get("corpora", [])}
    note(f"{n_trained(objective):,} of {sum(p.numel() for p in objective.parameters()):,} parameters are trained")
    run_objective(
        objective, recipe, [source], order, run, plan=plan, seen=seen, notes=notes, verb="finetune", overwrite=overwrite
    )
    return objective


def _digest(values: Array) -> str:
    plain = np.ascontiguousarray(values).astype("<f8" if values.dtype.kind == "f" else "<i8")
    return hashlib.sha256(plain.tobytes()).hexdigest()[:16]


def steps_of(run: Path) -> list[int]:
    """Steps whose checkpoints a training keeps, rising."""
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*[0-9]"))


def at_share(run: Path, share: float) -> int:
    """The checkpoint nearest to a share of a training."""
    steps = steps_of(run)
    return min(steps, key=lambda step: abs(step / steps[-1] - share))


def model_at(objective: Supervised, run: Path, step: int) -> Model:
    """The model a checkpoint of a training stands for; it shares its modules with the objective, whose weights become those."""
    tensors = load_file(run / "checkpoints" / f"step-{step:08d}" / "state" / "objective.safetensors")
    objective.load_state_dict({k.removeprefix("objective."): v for k, v in tensors.items()})
    config, encoder = objective.config, cast(Encoder, objective.export())
    mean, std = config.scale
    return Model(encoder, objective.head, kind=config.kind, classes=tuple(config.classes), scale=(mean, std))
