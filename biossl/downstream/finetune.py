"""Fine-tuning an encoder for a label: what is trained, how long, and the locked model that is left.

What lives here: :func:`finetune`. Everything that is chosen is chosen inside the training part or by the part ``val``; the part
``test`` is not read. Steps are the one loop's, the folder of a model is ``model.py``'s.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from biossl import protocol
from biossl.augment.base import build_pipeline
from biossl.augment.depends import breaking
from biossl.checkpoint import load_encoder, require_match
from biossl.compare.scratch import n_steps
from biossl.corpus import Corpus, guard_split, subject_keys
from biossl.corpus.splits import default_split, with_fold
from biossl.downstream.lock import Lock, fit_lock
from biossl.downstream.lowrank import allocate_ranks, importance, total_rank
from biossl.downstream.model import Model, Task, make_task, predict_rows, save_model, score
from biossl.downstream.ood import MEMORY_ROWS
from biossl.errors import DataError, RequestError
from biossl.inference import embed_corpus, make_batch
from biossl.keys import hash_ints
from biossl.models.lowrank import LowRankConfig, adapters_of, n_trained
from biossl.models.task_heads import PooledHead, pool_observed
from biossl.models.transformer import TransformerEncoder
from biossl.objectives.losses_supervised import class_weights, positive_weights
from biossl.objectives.supervised import Mode, Supervised, SupervisedConfig, n_outputs
from biossl.probe import labelled_rows
from biossl.recipe import Recipe
from biossl.recipe.limits import check_limits
from biossl.recipe.load import augment_parts
from biossl.recipe.plan import refuse_breaking
from biossl.recipe.schema import Checkpoint, Data, Monitor, Optimizer, Part, Train
from biossl.recipe.tables import config_class
from biossl.schedules import WarmupCosine
from biossl.training.data import make_order, make_sources
from biossl.training.run import run_objective
from biossl.training.state import RunFolder, note

Array = NDArray[Any]
Weights = Literal["none", "sqrt", "balanced"]
CHOICES = 5  # checkpoints a training may be taken from, evenly spaced, the last one its end
FIT_ROWS = 2048  # training windows that features are standardised by and ranks are allocated by
TRUST = 0.95  # share of pseudo-labels that must be right on held-out training subjects
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
FEW_SUBJECTS, FEW_WINDOWS = 3, 200  # below either the encoder is left as it is
SOME_SUBJECTS, SOME_WINDOWS = 8, 1000  # below either it is tuned with few parameters
_HEAD = 0x4EAD  # draw number of the head's first weights


@dataclass(frozen=True)
class _Setting:
    """Learning rate, weight decay and the factor of the rate from block to block."""

    lr: float
    weight_decay: float
    layer_decay: float = 1.0


SETTINGS: dict[str, _Setting] = {
    "frozen": _Setting(3e-3, 0.05),
    "lowrank": _Setting(1e-3, 0.01),  # CE-SSL's rate
    "full": _Setting(1e-3, 0.05, 0.75),
}


@dataclass(frozen=True)
class _Case:
    """What every training of one call shares."""

    encoder: TransformerEncoder
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


def finetune(
    encoder: str | Path, corpus: Corpus, label: str | Task, out: str | Path, *, mode: Literal["auto", "frozen", "lowrank", "full"] = "auto",
    head: str | Part = "linear", split: str | None = None, kind: str | None = None, event: str | None = None,
    rows: Sequence[int] | Array | None = None, class_weight: Weights = "none", augment: str | list[Part] = "", self_training: bool = False,
    lowrank: LowRankConfig | None = None, steps: int | None = None, batch_size: int = 64, lr: float | None = None, seed: int = 0,
    adapt: bool = False, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Fine-tune an encoder for a label of a corpus, and lock the result.

    Parameters
    ----------
    encoder : path
        Encoder folder, or a run that holds one.
    corpus : Corpus
    label : str or Task
        A label of the corpus; a :class:`~biossl.downstream.model.Task` for targets it has no label of (``dense``).
    out : path
        Run folder; a call that was stopped goes on in it. The model is in ``out/model``.
    mode : {"auto", "frozen", "lowrank", "full"}
        What of the encoder is trained (:func:`choose_mode`).
    head : str or Part
        Name in the table ``head``, or a part with its settings.
    split : str, optional
        Its part ``train`` is trained on; default ``official`` or the only one.
    kind, event : str, optional
        See :func:`~biossl.downstream.model.make_task`.
    rows : sequence of int, optional
        Rows of the index whose label may be used in training; default all of the training part.
    class_weight : {"none", "sqrt", "balanced"}
    augment : str or list of Part
        A policy's name, or a list; one that destroys what the label depends on is refused.
    self_training : bool
        Fit a second time, on pseudo-labels of the unlabelled training windows as well (a baseline; pseudo-labels after Lee 2013).
        Windows count above the least confidence at which 95 % of the held-out training predictions are right.
    lowrank : LowRankConfig, optional
    steps : int, optional
        Default 20 passes, at least 200 and at most 3,000 steps.
    batch_size : int
    lr : float, optional
        Default by mode.
    seed : int
    adapt : bool
        Accept a subset of the encoder's channels and other filters.
    overwrite : bool

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    RequestError
        An unknown head, an augmentation that breaks the label, a folder that holds something else.
    DataError
        Encoder and corpus do not fit, nothing labelled to train on, one class only, subjects in two parts.

    Examples
    --------
    >>> finetune("runs/hapt", Corpus.open("corpora/hapt"), "activity6", "runs/hapt-6")  # doctest: +SKIP
    """
    loaded = load_encoder(encoder)
    require_match(loaded.spec, corpus.spec, adapt=adapt)
    task = label if isinstance(label, Task) else make_task(corpus, label, kind=kind, event=event)
    name, notes = _split(corpus, split)
    part = corpus.split(name).to_numpy().astype(str)
    train = np.flatnonzero(task.known & (part == "train"))
    if rows is not None:
        train = np.intersect1d(train, np.asarray(rows, np.int64))
    val = np.flatnonzero(task.known & (part == "val"))
    subjects = corpus.index["subject"].to_numpy().astype(str)
    _check(corpus, task, train, name)
    chosen, why = choose_mode(len(np.unique(subjects[train])), len(train)) if mode == "auto" else (mode, "asked for")
    if self_training and task.kind not in ("multiclass", "binary"):
        raise RequestError(f"self-training needs classes to be sure of; '{task.label}' is {task.kind}; leave it out")
    case = _Case(
        encoder=loaded, corpus=corpus, split=name, task=task, head=_head(head, task), mode=chosen, lowrank=lowrank or LowRankConfig(),
        class_weight=class_weight, augment=_augment(augment, task), batch_size=batch_size,
        steps=n_steps(len(train)) if steps is None else steps, lr=lr, seed=seed, adapt=adapt,
    )  # fmt: skip
    run = Path(out)
    if (run / "model").exists() and not overwrite:
        raise RequestError(f"{run / 'model'}: exists; give another --out or --overwrite")
    if overwrite:
        for old in ("model", "choice", "second"):
            shutil.rmtree(run / old, ignore_errors=True)
    lines = [f"mode {chosen}: {why}", *notes]
    note(lines[0])
    objective = _train(case, train, run, overwrite=overwrite)

    # ---- how long: by the part val, or by held-out subjects of the training part
    at, held, chose, text = _choose(case, objective, train, val, subjects, run)
    lines.append(text)
    model = _model(objective, run, at)
    if self_training:
        more, text = _pseudo(case, model, train, np.flatnonzero(part == "train"), held)
        lines.append(text)
        if more is not None:
            second = replace(case, task=more, steps=n_steps(int(more.known.sum())) if steps is None else steps)
            both = np.flatnonzero(more.known)
            objective = _train(second, both, run / "second", overwrite=overwrite)
            model = _model(objective, run / "second", _at_share(run / "second", at / case.steps))
    for line in lines[1:]:
        note(line)
    used = np.union1d(train, val) if chose == "val" else train
    used = np.flatnonzero(part == "train") if self_training else used
    before = loaded.info["seen"]
    about = {
        "label": task.label, "mode": chosen, "split": name, "seed": seed, "choices": lines,
        "trained": {
            "windows": len(train), "subjects": len(np.unique(subjects[train])), "steps": case.steps, "taken_at": at,
            "rows": None if rows is None else train.tolist(),
        },
        "inner": None if held is None else {"by": chose, "score": held[2]},
        "seen": {
            "subjects": " ".join(sorted(set(before.get("subjects", [])) | subject_keys(corpus, used))),
            "corpora": [*before.get("corpora", []), {"name": corpus.path.resolve().name, "hash": corpus.hash, "windows": len(used)}],
        },
        "encoder_hash": loaded.info["hash"],
    }  # fmt: skip
    model.lock = _lock(case, model, np.union1d(train, val) if chose == "val" else train, subjects, held)
    for line in model.lock.notes:
        note(line)
    save_model(model, run / "model", head=case.head, about=about)
    for spent in (run / "choice", *(p for f in (run, run / "second") for p in sorted((f / "checkpoints").glob("step-*"))[:-1])):
        shutil.rmtree(spent, ignore_errors=True)
    return run


def scarce_rows(
    corpus: Corpus,
    label: str,
    *,
    split: str | None = None,
    fraction: float | None = None,
    n_subjects: int | None = None,
    seed: int = 0,
) -> Array | None:
    """Rows of one draw of scarce labels of the training part; None = all.

    Raises
    ------
    RequestError
        Both axes, a share outside (0, 1], more subjects than there are.
    """
    if fraction is None and n_subjects is None:
        return None
    if fraction is not None and n_subjects is not None:
        raise RequestError("--labels-fraction and --n-subjects are two axes; give one of them")
    rows, _ = labelled_rows(corpus, label, _split(corpus, split)[0])
    train = rows.where("train")
    if fraction is not None:
        return rows.index[train[protocol.draw_windows(rows.target.take(train), fraction, 1, seed)[0]]]
    return rows.index[train[protocol.draw_subjects(rows.subject[train], n_subjects or 0, 1, seed)[0]]]


def choose_mode(n_subjects: int, n_windows: int) -> tuple[Mode, str]:
    """What of the encoder is trained, by how much is labelled, and why in one line.

    Examples
    --------
    >>> choose_mode(2, 700)
    ('frozen', '2 labelled subjects (under 3) would be learnt by heart: the encoder is left as it is')
    """
    amount = f"{n_subjects} labelled subjects, {n_windows} windows"
    if n_subjects < FEW_SUBJECTS:
        return (
            "frozen",
            f"{n_subjects} labelled subjects (under {FEW_SUBJECTS}) would be learnt by heart: the encoder is left as it is",
        )
    if n_windows < FEW_WINDOWS:
        return "frozen", f"{n_windows} labelled windows (under {FEW_WINDOWS}) are few: the encoder is left as it is"
    if n_subjects < SOME_SUBJECTS or n_windows < SOME_WINDOWS:
        return "lowrank", f"{amount} (under {SOME_SUBJECTS} or {SOME_WINDOWS}): few parameters are tuned"
    return "full", f"{amount} (at least {SOME_SUBJECTS} and {SOME_WINDOWS}): all weights, the slower the nearer to the signal"


# ---------------------------------------------------------------------------------------------- the request


def _split(corpus: Corpus, split: str | None) -> tuple[str, list[str]]:
    name = split if split is not None else default_split(corpus)[0]
    if name is None:
        raise RequestError(f"{corpus.path}: it has no split, so nobody would be left to judge; make one with `biossl split`")
    name, said = with_fold(corpus, name)
    guard_split([corpus], [name])
    return name, [said] if said else []


def _check(corpus: Corpus, task: Task, train: Array, split: str) -> None:
    """DataError where nothing can be learnt."""
    where = f"{corpus.path}: label '{task.label}'"
    if not len(train):
        raise DataError(f"{where}: no labelled window in part 'train' of split '{split}'; add labels, or take another split")
    y = task.values[train]
    if task.kind in ("multiclass", "ordinal", "dense") and len(np.unique(y[~np.isnan(y)])) < 2:
        raise DataError(f"{where}: every labelled training window is of one class; two are needed")
    if task.kind in ("multilabel", "binary") and not any(len(np.unique(c[~np.isnan(c)])) > 1 for c in y.T):
        raise DataError(f"{where}: no class has both positives and negatives in training; add labels")
    if task.kind == "regression" and np.ptp(y) == 0:
        raise DataError(f"{where}: every training value is {y[0, 0]:g}; there is nothing to predict")
    if task.kind == "survival" and not (y[:, 1] == 1).any():
        raise DataError(f"{where}: no event in training; there is nothing to predict")


def _head(head: str | Part, task: Task) -> Part:
    part = Part(head, config_class("head", head, where="--head")()) if isinstance(head, str) else head
    if (part.name == "dense") != (task.kind == "dense"):
        raise RequestError(
            f"--head {part.name}: label '{task.label}' is {task.kind}; head dense is for dense labels, and they need it"
        )
    return Part(part.name, replace(part.config, ordinal=True)) if task.kind == "ordinal" else part


def _augment(augment: str | list[Part], task: Task) -> list[Part]:
    found = augment if isinstance(augment, list) else augment_parts(augment, "--augment") if augment else []
    if task.kind == "dense":
        for line in breaking(found, ("timing", "order", "direction")):
            raise RequestError(f"{line} (label '{task.label}' is of every sample)")
    return found


# ---------------------------------------------------------------------------------------------- one training


def _recipe(case: _Case, config: SupervisedConfig, n_rows: int) -> Recipe:
    setting, spec = SETTINGS[case.mode], case.encoder.spec
    names = [c for c in spec.ch_names if c in case.corpus.spec.ch_names]
    recipe = Recipe(
        name=f"finetune_{case.task.label}", modality=cast(Any, spec.modality), seed=case.seed,
        data=Data(batch_size=min(case.batch_size, n_rows), channels=names),
        model=Part("transformer", case.encoder.config), objective=Part("supervised", config), augment=case.augment,
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


def _config(case: _Case, rows: Array) -> SupervisedConfig:
    """Settings that the training rows decide: weights of classes, scale of values."""
    task, y = case.task, case.task.values[rows].astype(np.float64)
    config = SupervisedConfig(task.label, task.kind, list(task.classes), mode=case.mode, lowrank=case.lowrank)
    if task.kind == "regression":
        config.scale = [float(y.mean()), float(y.std()) or 1.0]
    elif case.class_weight != "none":
        if task.kind in ("multilabel", "binary"):
            positives, negatives = torch.from_numpy((y == 1).sum(0)), torch.from_numpy((y == 0).sum(0))
            config.weights = positive_weights(positives, negatives, case.class_weight).tolist()
        elif task.kind in ("multiclass", "dense"):
            counts = np.bincount(y[~np.isnan(y)].astype(np.int64), minlength=len(task.classes))
            config.weights = class_weights(torch.from_numpy(counts), case.class_weight).tolist()
        else:
            raise RequestError(f"--class-weight {case.class_weight}: label '{task.label}' is {task.kind}; set it to none")
    return config


def _objective(case: _Case, rows: Array) -> Supervised:
    """Encoder, fresh head and adapters as they stand before the first step: a pure function of case and rows."""
    encoder = copy.deepcopy(case.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_ints(case.seed, _HEAD))
        head = case.head.config.build(encoder, n_outputs(case.task.kind, len(case.task.classes)))
    some = rows[protocol.spread(len(rows), FIT_ROWS, case.seed)]
    batches = [some[i : i + 64] for i in range(0, len(some), 64)]
    if isinstance(head, PooledHead):
        with torch.no_grad():
            encoder.eval()
            features = [pool_observed(encoder.encode(encoder.tokenize(_batch(case, b))), head.pool) for b in batches]
        head.norm.fit(torch.cat([f[seen] for f, seen in features]))
    config = _config(case, rows)
    if case.mode == "lowrank":
        trial = Supervised(copy.deepcopy(encoder), copy.deepcopy(head), config, seed=case.seed)
        adapters = adapters_of(trial.encoder)
        found = importance(adapters, (trial.loss(_batch(case, b)) for b in batches), case.lowrank.importance)
        budget = total_rank(len(adapters), case.lowrank.rank, case.lowrank.low_share)
        config.ranks = allocate_ranks(found, rank=case.lowrank.rank, budget=budget)
    pipeline = build_pipeline(case.augment, _spec(case)) if case.augment else None
    return Supervised(encoder, head, config, augment=pipeline, seed=case.seed)


def _spec(case: _Case) -> Any:
    names = [c for c in case.encoder.spec.ch_names if c in case.corpus.spec.ch_names]
    return make_sources([(case.corpus, 1.0)], channels=names, split=case.split)[0][0].spec


def _batch(case: _Case, rows: Array) -> Any:
    """Windows of rows with their label, as they are."""
    match = require_match(case.encoder.spec, case.corpus.spec, adapt=case.adapt)
    names = [case.corpus.spec.ch_names[i] for i in match.rows]
    batch = make_batch(case.corpus.signal(rows)[:, list(match.rows)], names, case.corpus.spec.sfreq, torch.device("cpu"))
    return replace(batch, labels={case.task.label: torch.from_numpy(case.task.values[rows])})


def _train(case: _Case, rows: Array, run: Path, *, overwrite: bool = False) -> Supervised:
    """Train on rows in a run folder; a training that is there and finished is not done again. Returns what was trained."""
    objective = _objective(case, rows)
    recipe = _recipe(case, objective.config, len(rows))
    refuse_breaking([recipe], case.corpus, case.task.label)
    names = list(recipe.data.channels)
    sources, _ = make_sources([(case.corpus, 1.0)], channels=names, split=case.split)
    source = replace(sources[0], rows=rows, labels={case.task.label: case.task.values})
    plan = {
        "recipe": recipe.to_dict(), "split": case.split, "init": case.encoder.info["hash"], "head": case.head.to_dict(),
        "corpora": [{"name": case.corpus.path.resolve().name, "hash": case.corpus.hash, "weight": 1.0, "windows": len(rows), "split": case.split}],
        "rows": _digest(rows), "labels": _digest(case.task.values[rows]),
    }  # fmt: skip
    folder = RunFolder(run)
    if not overwrite and folder.facts.is_file():
        saved = folder.saved()
        if saved.get("finished") and saved["plan"] == json.loads(json.dumps(plan)):
            return objective
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


def _steps(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*[0-9]"))


def _at_share(run: Path, share: float) -> int:
    """The checkpoint nearest to a share of a training."""
    steps = _steps(run)
    return min(steps, key=lambda step: abs(step / steps[-1] - share))


def _model(objective: Supervised, run: Path, step: int) -> Model:
    """The model a checkpoint of a training stands for; it shares its modules with the objective, whose weights become those."""
    tensors = load_file(run / "checkpoints" / f"step-{step:08d}" / "state" / "objective.safetensors")
    objective.load_state_dict({k.removeprefix("objective."): v for k, v in tensors.items()})
    config, encoder = objective.config, cast(TransformerEncoder, objective.export())
    mean, std = config.scale
    return Model(encoder, objective.head, kind=config.kind, classes=tuple(config.classes), scale=(mean, std))


# ---------------------------------------------------------------------------------------------- choices


def _choose(
    case: _Case, objective: Supervised, train: Array, val: Array, subjects: Array, run: Path
) -> tuple[int, tuple[Array, Array, float | None] | None, str, str]:
    """Step to stop at; held-out rows, their predictions and score; by what; one line."""
    task, steps = case.task, _steps(run)
    fits: list[tuple[Supervised, Array, Path]] = []
    few = "" if len(val) else "no labelled part val"
    few = few or _one_sided(task, val)
    if not few:
        by, fits = "val", [(objective, val, run)]
    else:
        by = "train"
        kind = {"ordinal": "multiclass"}.get(task.kind, task.kind)
        y = task.values[train][:, 0] if kind in ("multiclass", "binary", "regression") else task.values[train]
        target = protocol.Target(kind, y.astype(np.float64), task.classes)
        for k, (a, b) in enumerate(protocol.grouped_folds(target, subjects[train], protocol.CHOICE_FOLDS, case.seed)):
            _check(case.corpus, task, train[a], f"inner fold {k}")
            fits.append((_train(case, train[a], run / "choice" / f"fold{k}"), train[b], run / "choice" / f"fold{k}"))
    if not fits:
        return steps[-1], None, by, f"one labelled subject and {few}: nothing to choose by, the last weights are taken"
    rows = np.concatenate([b for _, b, _ in fits])
    found = []
    for step in steps:
        held = np.concatenate(
            [predict_rows(_model(fitted, where, step), case.corpus, b, adapt=case.adapt, desc=None) for fitted, b, where in fits]
        )
        found.append((step, held, score(task, rows, held)))
    known = [f for f in found if np.isfinite(f[2])]
    who = f"part val ({len(rows)} windows)" if by == "val" else f"{len(fits)} grouped folds of the training subjects ({few})"
    if not known:
        return steps[-1], (rows, found[-1][1], None), by, f"no score can be computed on {who}: the last weights are taken"
    step, held, best = max(known, key=lambda f: (f[2], f[0]))  # of equals the later one
    return (
        step,
        (rows, held, float(best)),
        by,
        f"weights after step {step} of {case.steps}: score {best:.4f} on {who}, last {found[-1][2]:.4f}",
    )


def _lock(case: _Case, model: Model, rows: Array, subjects: Array, held: tuple[Array, Array, float | None] | None) -> Lock:
    """Calibration and thresholds by the held-out predictions; what is familiar by the rows that were trained on or chosen by."""
    task = case.task
    some = rows[protocol.spread(len(rows), MEMORY_ROWS, case.seed)]
    features = embed_corpus(model.encoder, case.corpus, some, adapt=case.adapt, desc="familiar")
    seen = np.isfinite(features).all(axis=1)
    numbers = (
        np.nan_to_num(task.values[some][:, 0], nan=-1.0).astype(np.int64) if task.kind in ("multiclass", "ordinal") else None
    )
    y, p = (None, None) if held is None else (task.values[held[0]].astype(np.float64), held[1])
    return fit_lock(
        task.kind, task.classes, y, p, features=features[seen], subjects=subjects[some][seen],
        numbers=None if numbers is None else numbers[seen],
    )  # fmt: skip


def _one_sided(task: Task, rows: Array) -> str:
    """Why nothing can be chosen by these rows; '' when they hold two classes, values or an event."""
    y = task.values[rows]
    columns = list(y.T) if task.kind in ("multilabel", "binary") else [y[:, 1]] if task.kind == "survival" else [y]
    if task.kind == "survival":
        return "" if (columns[0] == 1).any() else "no event in part val"
    if any(len(np.unique(c[~np.isnan(c)])) > 1 for c in columns):
        return ""
    return f"part val holds one {'value' if task.kind == 'regression' else 'class'} only"


def _pseudo(
    case: _Case, model: Model, train: Array, part: Array, held: tuple[Array, Array, float | None] | None
) -> tuple[Task | None, str]:
    """The task with pseudo-labels of the unlabelled training windows, or None and why not."""
    task = case.task
    others = np.setdiff1d(part, train)
    if not len(others):
        return None, "self-training: every training window is labelled, there is nothing to add"
    if held is None:
        return None, "self-training: one labelled subject, so no confidence can be chosen; left out"
    rows, prediction, _ = held
    sure, said = _confidence(prediction)
    right = said == task.values[rows][:, 0]
    trusted = [c for c in CONFIDENCES if (sure >= c).any() and right[sure >= c].mean() >= TRUST]
    if not trusted:
        return None, f"self-training: at no confidence are {TRUST:.0%} of held-out predictions right; left out"
    sure, said = _confidence(predict_rows(model, case.corpus, others, adapt=case.adapt))
    taken = sure >= trusted[0]
    values = np.full_like(task.values, np.nan)
    values[train] = task.values[train]
    values[others[taken], 0] = said[taken]
    text = (
        f"self-training: {int(taken.sum())} of {len(others)} unlabelled training windows at confidence {trusted[0]:g} and above"
    )
    return (replace(task, values=values), text) if taken.any() else (None, text + "; left out")


def _confidence(prediction: Array) -> tuple[Array, Array]:
    """Probability of the likelier answer, and that answer."""
    if prediction.shape[1] == 1:
        prediction = np.concatenate([1 - prediction, prediction], axis=1)
    return prediction.max(axis=1), prediction.argmax(axis=1)
