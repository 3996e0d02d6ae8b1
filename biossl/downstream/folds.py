"""Fine-tuning once a fold and once a seed, as one protocol: cross-validation, leave-one-subject-out, leave-one-site-out.

What lives here: :func:`finetune_folds`. Each training is one whole call of :func:`~biossl.downstream.finetune.finetune` in a folder of its
own, so everything is chosen anew inside the rows that the fold may use. State is those folders: the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biossl.checkpoint import load_encoder
from biossl.config import to_plain
from biossl.corpus import Corpus, guard_split
from biossl.corpus.splits import default_split, n_folds, with_fold
from biossl.corpus.within import WARNING, is_within_subject
from biossl.downstream.absent import unlearnt
from biossl.downstream.finetune import finetune, scarce_rows
from biossl.downstream.fitting import check_learnable
from biossl.downstream.foldrun import FILE, FoldRun, Member, is_folds, make_members, parts_hash, read_folds
from biossl.downstream.model import Task, make_task
from biossl.errors import RequestError
from biossl.recipe.schema import Part
from biossl.training.state import note

_TASK = ("kind", "event")  # settings of `finetune` that say what the label is


def finetune_folds(
    encoder: str | Path, corpus: Corpus, label: str | Task, out: str | Path, *, split: str | None = None, folds: bool = False,
    seeds: Sequence[int] | None = None, seed: int = 0, fraction: float | None = None, n_subjects: int | None = None,
    overwrite: bool = False, **settings: Any,
) -> Path:  # fmt: skip
    """Fine-tune in every fold of a split, under every seed, or both.

    Parameters
    ----------
    encoder, corpus, label
        As in :func:`~biossl.downstream.finetune.finetune`. The encoder is the same in all: a seed decides the first weights of the
        head, the order of windows and draws, nothing of the encoder.
    out : path
        ``out/seed-S/fold-K`` are run folders; a level that was not asked for is left out. Finished ones are kept, one that was
        stopped goes on, and seeds may be added later.
    split : str, optional
        Default ``official`` or the only one.
    folds : bool
        Every fold of the split: it is part ``test`` of its own training, which never reads it, and the next fold is part ``val``.
    seeds : sequence of int, optional
        Default ``seed`` alone.
    seed : int
    fraction, n_subjects
        Scarce labels, drawn anew in each fold and by each seed: :func:`~biossl.downstream.finetune.scarce_rows`.
    overwrite : bool
        Remove the trainings that are in ``out``.
    **settings
        Of :func:`~biossl.downstream.finetune.finetune`.

    Returns
    -------
    Path
        ``out``. It is an estimate, not a model: :func:`~biossl.downstream.evaluate.evaluate` judges all its models together.

    Raises
    ------
    RequestError
        A split without folds, one fold named and all asked for, equal seeds, other trainings in ``out``.
    DataError
        As ``finetune``, before anything is trained.

    Examples
    --------
    >>> finetune_folds("runs/eeg", Corpus.open("corpora/eegmat"), "task", "runs/cv", split="cv", folds=True, seeds=range(5))  # doctest: +SKIP
    """
    loaded = load_encoder(encoder)
    task = label if isinstance(label, Task) else make_task(corpus, label, **{k: settings.get(k) for k in _TASK})
    name, numbers = _which(corpus, split, folds)
    _check_seeds(seeds, folds)
    wanted = [seed] if seeds is None else list(seeds)
    members = make_members(name, numbers, wanted, by_seed=seeds is not None)
    plain = {k: v.to_dict() if isinstance(v, Part) else to_plain(v) for k, v in sorted(settings.items())}
    if isinstance(plain.get("augment"), list):
        plain["augment"] = [a.to_dict() for a in settings["augment"]]
    shared = {
        "labels": hashlib.sha256(np.ascontiguousarray(task.values, "<f4").tobytes()).hexdigest()[:16],
        "fraction": fraction,
        "n_subjects": n_subjects,
        **plain,
    }
    asked = FoldRun(
        Path(out), task.label, task.kind, {"name": corpus.path.resolve().name, "hash": corpus.hash}, name, parts_hash(corpus, members),
        loaded.info["hash"], members, json.loads(json.dumps(shared)),
    )  # fmt: skip
    _check_folds(corpus, task, members)
    if is_within_subject(corpus, name):
        note(f"note: {WARNING}")
    _begin(asked, overwrite)
    left = [m for m in members if not asked.trained(m)]
    if len(left) < len(members):
        note(f"finetune: {len(members) - len(left)} of {len(members)} trainings are done already")
    began = time.monotonic()
    for k, member in enumerate(left):
        note(f"finetune: {_text(member)}, {len(members) - len(left) + k + 1} of {len(members)}{_time_left(began, k, len(left))}")
        rows = None
        if fraction is not None or n_subjects is not None:
            rows = scarce_rows(corpus, task.label, split=member.split, fraction=fraction, n_subjects=n_subjects, seed=member.seed)
        finetune(encoder, corpus, label, asked.path / member.folder, split=member.split, seed=member.seed, rows=rows, **settings)
    return asked.path


def _which(corpus: Corpus, split: str | None, folds: bool) -> tuple[str, list[int]]:
    """Name of the split and the numbers of its folds, none where they are not asked for."""
    name = split if split is not None else default_split(corpus)[0]
    if name is None:
        raise RequestError(f"{corpus.path}: it has no split; make one with `biossl split {corpus.path} --name cv --folds 5`")
    corpus.split(name)  # one that is not there is told by its name
    if not folds:
        name, said = with_fold(corpus, name)
        if said:
            note(said)
        return name, []
    if name not in corpus.split_names():
        raise RequestError(
            f"--splits {name}: names one fold; give --splits {name.rpartition(':')[0]} for all, or leave --fold out"
        )
    count = n_folds(corpus, name)
    if not count:
        raise RequestError(
            f"--fold all: split '{name}' of {corpus.path} has no folds; make one with `biossl split {corpus.path} --name cv --folds 5`"
        )
    return name, list(range(count))


def _check_seeds(seeds: Sequence[int] | None, folds: bool) -> None:
    if seeds is None and not folds:
        raise RequestError("one training: give --fold all or --seeds, or call finetune")
    if seeds is not None and (not len(seeds) or len(set(seeds)) != len(seeds) or min(seeds) < 0):
        raise RequestError(f"--seeds {' '.join(map(str, seeds))}: give different numbers, 0 or more")


def _check_folds(corpus: Corpus, task: Task, members: Sequence[Member]) -> None:
    """What would end a later training is said before the first; classes that a fold cannot learn are named."""
    for split, fold in dict.fromkeys((m.split, m.fold) for m in members):
        guard_split([corpus], [split])
        train = np.flatnonzero(task.known & (corpus.split(split).to_numpy().astype(str) == "train"))
        check_learnable(corpus, task, train, split)
        for line in unlearnt(task, train):
            note(f"note: {'' if fold is None else f'fold {fold}: '}{line}")


def _begin(asked: FoldRun, overwrite: bool) -> None:
    """Write what the folder is; RequestError where it is something else already."""
    run = asked.path
    if is_folds(run):
        there = read_folds(run)
        if overwrite:
            for member in there.members:
                shutil.rmtree(run / member.folder, ignore_errors=True)
        else:
            _require_same(there, asked)
    elif (run / "run.json").exists() or (run / "model").exists():
        raise RequestError(f"{run}: a run of its own, not of folds or seeds; give another --out")
    asked.write()


def _require_same(there: FoldRun, asked: FoldRun) -> None:
    old, new = there.to_dict(), asked.to_dict()
    for key in ("members", "seeds"):
        old.pop(key), new.pop(key)
    old_settings, new_settings = old.pop("settings"), new.pop("settings")
    differ = [k for k in new if old.get(k) != new[k]]
    differ += [k for k in sorted({*old_settings, *new_settings}) if old_settings.get(k) != new_settings.get(k)]
    if not differ and not set(there.members) <= set(asked.members):
        differ = ["seeds"]
    if differ:
        raise RequestError(
            f"{there.path / FILE}: trainings of another request ('{differ[0]}' differs); give another --out, or --overwrite"
        )


def _text(member: Member) -> str:
    return f"seed {member.seed}" + ("" if member.fold is None else f", fold {member.fold}")


def _time_left(began: float, done: int, n: int) -> str:
    if not done:
        return ""
    seconds = (time.monotonic() - began) / done * (n - done)
    return f" (about {seconds / 60:.0f} min left)" if seconds > 90 else f" (about {seconds:.0f} s left)"
