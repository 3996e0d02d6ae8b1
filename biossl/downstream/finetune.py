"""Fine-tuning an encoder for a label: what is trained, how long, and the locked model that is left.

What lives here: :func:`finetune`, the one call, and what may be asked of it. A training is ``fitting.py``'s, what is chosen is
``choices.py``'s (inside the training part or by the part ``val``; ``test`` is not read), the folder of a model is ``model.py``'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from biossl import protocol
from biossl.augment.depends import breaking
from biossl.checkpoint import load_encoder, require_match
from biossl.compare.scratch import n_steps
from biossl.corpus import Corpus, guard_split, subject_keys
from biossl.corpus.labels import is_dense
from biossl.corpus.splits import chosen_split
from biossl.corpus.within import groups, is_within_subject, refuse_within_subject
from biossl.downstream.absent import classes_of, unlearnt
from biossl.downstream.choices import choose_steps, lock_of, pseudo_labels
from biossl.downstream.dense import DenseTask, n_events
from biossl.downstream.fitting import Case, Weights, at_share, check_learnable, model_at, train_rows
from biossl.downstream.model import Task, make_task, save_model
from biossl.errors import RequestError
from biossl.judging import Rows
from biossl.models.encoder import Encoder
from biossl.models.lowrank import LowRankConfig
from biossl.objectives.supervised import Mode
from biossl.probe import labelled_rows, random_encoder
from biossl.recipe.load import augment_parts
from biossl.recipe.schema import Part
from biossl.recipe.tables import config_class
from biossl.training.state import note

Array = NDArray[Any]
FEW_SUBJECTS, FEW_WINDOWS = 3, 200  # below either the encoder is left as it is
DENSE_HEADS = ("dense", "unet")  # of every sample
SOME_SUBJECTS, SOME_WINDOWS = 8, 1000  # below either it is tuned with few parameters


def finetune(
    encoder: str | Path, corpus: Corpus, label: str | Task, out: str | Path, *, mode: Literal["auto", "frozen", "lowrank", "full"] = "auto",
    head: str | Part | None = None, split: str | None = None, kind: str | None = None, event: str | None = None,
    rows: Sequence[int] | Array | None = None, class_weight: Weights = "none", augment: str | list[Part] = "", self_training: bool = False,
    lowrank: LowRankConfig | None = None, steps: int | None = None, batch_size: int = 64, lr: float | None = None, seed: int = 0,
    adapt: bool = False, scratch: bool = False, overwrite: bool = False,
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
    head : str or Part, optional
        Name in the table ``head``, or a part with its settings; default ``linear``, for dense labels ``dense``.
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
    scratch : bool
        Train the encoder's architecture from random weights instead of its own (those of the probe's first random-initialised
        encoder of this seed), all of them at one rate: what pretraining has to beat.
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
    if scratch:
        loaded, mode = _from_scratch(loaded, mode, seed), "full"
    require_match(loaded.spec, corpus.spec, adapt=adapt)
    task = label if isinstance(label, Task) else make_task(corpus, label, kind=kind, event=event)
    if isinstance(task, DenseTask):  # in the order in which windows are read
        task = task.of_channels(tuple(c for c in loaded.spec.ch_names if c in corpus.spec.ch_names))
    name, notes = _split(corpus, split)
    part = corpus.split(name).to_numpy().astype(str)
    train = np.flatnonzero(task.known & (part == "train"))
    if rows is not None:
        train = np.intersect1d(train, np.asarray(rows, np.int64))
    val = np.flatnonzero(task.known & (part == "val"))
    people, subjects = corpus.index["subject"].to_numpy().astype(str), groups(corpus, name)
    within = is_within_subject(corpus, name)
    if task.kind == "dense":
        refuse_within_subject(corpus, name, "a model of samples")
    check_learnable(corpus, task, train, name)
    notes += unlearnt(task, train)
    n, what = (len(train), "windows") if not isinstance(task, DenseTask) else (n_events(corpus, task, train), "events")
    chosen, why = (
        choose_mode(len(np.unique(subjects[train])), n, what, "recordings" if within else "subjects")
        if mode == "auto"
        else (mode, "asked for")
    )
    if chosen == "lowrank" and not any(isinstance(m, torch.nn.Linear) for m in loaded.modules()):
        if mode == "lowrank":
            raise RequestError(
                f"--mode lowrank: this encoder, a {loaded.architecture}, has no linear layer to adapt; take full or frozen"
            )
        chosen, why = "full", f"{why}, but a {loaded.architecture} has no linear layer to adapt: all weights are tuned"
    why = f"from scratch, random weights of seed {seed}" if scratch else why
    if self_training and task.kind not in ("multiclass", "binary"):
        raise RequestError(f"self-training needs classes to be sure of; '{task.label}' is {task.kind}; leave it out")
    case = Case(
        encoder=loaded, corpus=corpus, split=name, task=task, head=_head(head, task, loaded), mode=chosen, lowrank=lowrank or LowRankConfig(),
        class_weight=class_weight, augment=_augment(augment, task), batch_size=batch_size,
        steps=n_steps(len(train)) if steps is None else steps, lr=lr, seed=seed, adapt=adapt, scratch=scratch,
    )  # fmt: skip
    run = Path(out)
    if (run / "model").exists() and not overwrite:
        raise RequestError(f"{run / 'model'}: exists; give another --out or --overwrite")
    if overwrite:
        for old in ("model", "choice", "second"):
            shutil.rmtree(run / old, ignore_errors=True)
    lines = [f"mode {chosen}: {why}", *notes]
    note(lines[0])
    objective = train_rows(case, train, run, overwrite=overwrite)

    # ---- how long: by the part val, or by held-out subjects of the training part
    at, held, chose, text = choose_steps(case, objective, train, val, subjects, run)
    lines.append(text)
    model = model_at(objective, run, at)
    if self_training:
        more, text = pseudo_labels(case, model, train, np.flatnonzero(part == "train"), held)
        lines.append(text)
        if more is not None:
            second = replace(case, task=more, steps=n_steps(int(more.known.sum())) if steps is None else steps)
            both = np.flatnonzero(more.known)
            objective = train_rows(second, both, run / "second", overwrite=overwrite)
            model = model_at(objective, run / "second", at_share(run / "second", at / case.steps))
    for line in lines[1:]:
        note(line)
    used = np.union1d(train, val) if chose == "val" else train
    used = np.flatnonzero(part == "train") if self_training else used
    before = loaded.info["seen"]
    about = {
        "label": task.label, "event": event, "mode": chosen, "scratch": scratch, "split": name, "within_subject": within, "seed": seed, "choices": lines,
        "trained": {
            "windows": len(train), "subjects": len(np.unique(people[train])), "steps": case.steps, "taken_at": at,
            "rows": None if rows is None else train.tolist(), "classes": classes_of(task, train),
        },
        "inner": None if held is None else {"by": chose, "score": held[2]},
        "seen": {
            "subjects": " ".join(sorted(set(before.get("subjects", [])) | subject_keys(corpus, used))),
            "corpora": [*before.get("corpora", []), {"name": corpus.path.resolve().name, "hash": corpus.hash, "windows": len(used)}],
        },
        "encoder_hash": loaded.info["hash"],
    }  # fmt: skip
    model.lock = lock_of(case, model, np.union1d(train, val) if chose == "val" else train, subjects, held)
    for line in model.lock.notes:
        note(line)
    save_model(model, run / "model", head=case.head, about=about)
    for spent in (run / "choice", *(p for f in (run, run / "second") for p in sorted((f / "checkpoints").glob("step-*"))[:-1])):
        shutil.rmtree(spent, ignore_errors=True)
    return run


def _from_scratch(loaded: Encoder, mode: str, seed: int) -> Encoder:
    """The same architecture with random weights, which have seen nobody."""
    if mode not in ("auto", "full"):
        raise RequestError(
            f"--scratch trains all weights, and --mode {mode} would leave random ones as they are; leave --mode out"
        )
    twin = random_encoder(loaded, seed)
    twin.info = loaded.info | {"hash": f"random-{seed}", "seen": {}}
    return twin


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

    With both, ``fraction`` of all training windows, drawn among those of ``n_subjects`` subjects.

    Raises
    ------
    RequestError
        A share outside (0, 1] or beyond what the drawn subjects have, more subjects than there are.
    """
    if fraction is None and n_subjects is None:
        return None
    name = _split(corpus, split)[0]
    if n_subjects is not None:
        refuse_within_subject(corpus, name, "--n-subjects")
    if is_dense(corpus, label):  # windows count alike, whatever lies in them
        index = np.flatnonzero(make_task(corpus, label).known)
        subject, part = (v.to_numpy().astype(str)[index] for v in (corpus.index["subject"], corpus.split(name)))
        rows = Rows(index, protocol.Target("dense", np.zeros(len(index)), ()), subject, part)
    else:
        rows, _ = labelled_rows(corpus, label, name)
    train = rows.where("train")
    some = np.arange(len(train))
    if n_subjects is not None:
        some = protocol.draw_subjects(rows.subject[train], n_subjects, 1, seed)[0]
    if fraction is not None:
        share = fraction * len(train) / len(some)
        if share > 1 and n_subjects is not None:
            raise RequestError(
                f"--labels-fraction {fraction:g}: {fraction:.0%} of {len(train)} training windows are more than the {len(some)} of the "
                f"{n_subjects} drawn subjects; take a smaller share"
            )
        some = some[protocol.draw_windows(rows.target.take(train[some]), share, 1, seed)[0]]
    return rows.index[train[np.sort(some)]]


def choose_mode(n_subjects: int, n_windows: int, what: str = "windows", who: str = "subjects") -> tuple[Mode, str]:
    """What of the encoder is trained, by how much is labelled, and why in one line; ``who`` may be recordings of a within-subject split.

    Examples
    --------
    >>> choose_mode(2, 700)
    ('frozen', '2 labelled subjects (under 3) would be learnt by heart: the encoder is left as it is')
    """
    amount = f"{n_subjects} labelled {who}, {n_windows} {what}"
    if n_subjects < FEW_SUBJECTS:
        return (
            "frozen",
            f"{n_subjects} labelled {who} (under {FEW_SUBJECTS}) would be learnt by heart: the encoder is left as it is",
        )
    if n_windows < FEW_WINDOWS:
        return "frozen", f"{n_windows} labelled {what} (under {FEW_WINDOWS}) are few: the encoder is left as it is"
    if n_subjects < SOME_SUBJECTS or n_windows < SOME_WINDOWS:
        return "lowrank", f"{amount} (under {SOME_SUBJECTS} or {SOME_WINDOWS}): few parameters are tuned"
    return "full", f"{amount} (at least {SOME_SUBJECTS} and {SOME_WINDOWS}): all weights, the slower the nearer to the signal"


def _split(corpus: Corpus, split: str | None) -> tuple[str, list[str]]:
    name, notes = chosen_split(corpus, split)
    if name is None:
        raise RequestError(f"{corpus.path}: it has no split, so nobody would be left to judge; make one with `biossl split`")
    guard_split([corpus], [name])
    return name, notes


def _head(head: str | Part | None, task: Task, encoder: Encoder) -> Part:
    dense = task.kind == "dense"
    each = dense and task.values.ndim == 3
    name = head.name if isinstance(head, Part) else head or ("dense" if dense else "linear")
    part = head if isinstance(head, Part) else Part(name, config_class("head", name, where="--head")())
    if not isinstance(head, Part) and hasattr(part.config, "per"):
        part.config.per = "channel" if each else "joint"
    if (name in DENSE_HEADS) != dense:
        raise RequestError(
            f"--head {name}: label '{task.label}' is {task.kind}; heads {' and '.join(DENSE_HEADS)} are for dense labels, and they need "
            "one of them"
        )
    if each and (encoder.config.tokenizer == "joint" or getattr(part.config, "per", "channel") == "joint"):
        raise RequestError(
            f"--head {name}: label '{task.label}' is of each channel; take an encoder whose tokens are of channels, and head.per: channel"
        )
    return Part(name, replace(part.config, ordinal=True)) if task.kind == "ordinal" else part


def _augment(augment: str | list[Part], task: Task) -> list[Part]:
    found = augment if isinstance(augment, list) else augment_parts(augment, "--augment") if augment else []
    if task.kind == "dense":
        sides = ("laterality",) if task.values.ndim == 3 else ()  # leads that are exchanged would have each other's labels
        for line in breaking(found, ("timing", "order", "direction", *sides)):
            raise RequestError(f"{line} (label '{task.label}' is of every sample)")
    return found
