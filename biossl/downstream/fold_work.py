"""Who judges what in a folder of several trainings: every row by the one model a seed has that was never near its subject.

What lives here: the rows of each member, and refusals: another corpus, folds that were made anew, a folder that holds another training,
subjects that a model has seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.corpus.identity import seen_subjects
from biossl.downstream.absent import unlearnt
from biossl.downstream.evaluate import _rows
from biossl.downstream.foldrun import FoldRun, Member, require_same_parts
from biossl.downstream.model import Model, Task
from biossl.errors import DataError, RequestError

Array = NDArray[Any]


def check_folds(held: FoldRun, corpus: Corpus, split: str | None, part: str) -> None:
    """Refuse another corpus or part than that the folds hold out, and folds that were made anew; models a seed judge any."""
    if not held.folds:
        return
    if corpus.hash != held.corpus["hash"]:
        raise DataError(
            f"{held.path}: cross-validated on corpus {held.corpus['name']}, and {corpus.path} is another; no fold was held out there. "
            f"Take one of its models, e.g. {held.path / held.members[0].folder}"
        )
    if split not in (None, held.split) or part != "test":
        raise RequestError(
            f"{held.path}: each fold of split '{held.split}' is judged by the model that did not see it; leave out --splits and --part"
        )
    require_same_parts(held, corpus)


def rows_of_members(
    held: FoldRun, corpus: Corpus, task: Task, split: str | None, part: str
) -> tuple[list[tuple[Member, Array]], str | None, list[str]]:
    """Rows of every member, the split's name, notes."""
    if not held.folds:
        name, _, rows, notes = _rows(corpus, task, split, part)
        return [(m, rows) for m in held.members], name, notes
    notes, work, inside = [], [], np.zeros(len(task.values), bool)
    for member in held.members:
        parts = corpus.split(member.split).to_numpy().astype(str)
        inside |= parts == "test"
        rows = np.flatnonzero(task.known & (parts == "test"))
        if len(rows):
            work.append((member, rows))
        elif member.seed == held.members[0].seed:
            notes.append(f"fold {member.fold}: no window with a known '{task.label}'; nothing can be judged there")
        if member.seed == held.members[0].seed:
            notes += [f"fold {member.fold}: {line}" for line in unlearnt(task, np.flatnonzero(task.known & (parts == "train")))]
    if not work:
        raise DataError(
            f"{corpus.path}: no window with a known '{task.label}' in any fold of '{held.split}'; nothing can be judged"
        )
    for what, n in (
        (f"have no known '{task.label}'", int((inside & ~task.known).sum())), ("are in no fold", int((task.known & ~inside).sum())),
    ):  # fmt: skip
        if n:
            notes.append(f"{n} windows {what} and are left out")
    return work, held.split, notes


def check_member(held: FoldRun, member: Member, model: Model) -> None:
    """DataError where a folder holds another training than ``folds.json`` says: its held-out people would be others."""
    about = model.about
    start = f"random-{member.seed}" if held.settings.get("scratch") else held.encoder
    for key, wanted in (("label", held.label), ("split", member.split), ("seed", member.seed), ("encoder_hash", start)):
        if about.get(key) != wanted:
            raise DataError(f"{held.path / member.folder}: its model says {key} {about.get(key)}, the folder stands for {wanted}")


def seen_by_member(
    held: FoldRun, member: Member, model: Model, corpus: Corpus, rows: Array, split: str | None, allow_seen: bool
) -> set[str]:
    """Subjects the member has seen and would judge (of a within-subject split: in the judged recordings); refused unless they may have been."""
    marks = model.about["seen"]["subjects"]
    known = seen_subjects(corpus, rows, marks.split() if isinstance(marks, str) else list(marks), split=split)
    if known and not allow_seen:
        n = len(np.unique(corpus.index["subject"].to_numpy().astype(str)[rows]))
        raise DataError(
            f"{held.path / member.folder}: model or encoder have seen {len(known)} of the {n} subjects they would be judged on; take an "
            "encoder that was pretrained without them, or add --allow-seen"
        )
    return set(known)
