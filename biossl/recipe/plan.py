"""Whether a corpus can give what an objective asks of the loader, found before anything is trained.

What lives here: :func:`check_plan`, and :func:`refuse_breaking` on what a label depends on; ``check``, ``pretrain`` and ``compare``
ask. How windows are drawn is the loader's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from biossl.augment.depends import breaking
from biossl.corpus.neighbours import neighbours
from biossl.errors import RequestError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.corpus import Corpus
    from biossl.objectives.base import SamplePlan
    from biossl.recipe.schema import Recipe

_WORTH_A_NOTE = 0.1  # share of windows without a partner


def breaking_lines(recipe: Recipe, corpus: Corpus, label: str) -> list[str]:
    """One line for every augmentation that destroys what the card says the label depends on."""
    described = corpus.card.labels.get(label)
    return breaking(recipe.augment, described.depends if described is not None else ())


def refuse_breaking(recipes: Sequence[Recipe], corpus: Corpus, label: str) -> None:
    """RequestError for the first of :func:`breaking_lines`."""
    for recipe in recipes:
        for line in breaking_lines(recipe, corpus, label):
            raise RequestError(f"{recipe.source or recipe.name}: {line} (label '{label}')")


def check_plan(
    plan: SamplePlan,
    corpus: Corpus,
    rows: np.ndarray,
    spec: InputSpec,
    *,
    batch_size: int,
    accumulate: int,
    total: int | None = None,
) -> list[str]:
    """Notes on a corpus under a plan.

    Parameters
    ----------
    plan : SamplePlan
        ``objective.needs``.
    corpus : Corpus
    rows : ndarray, int64, (n,)
        Training rows of its index.
    spec : InputSpec
        The windows as the objective sees them.
    batch_size, accumulate : int
    total : int, optional
        Training windows of all corpora of a run, which share a queue; default those of this one.

    Returns
    -------
    list of str

    Raises
    ------
    RequestError
        Fewer windows than a batch where the loss compares windows, a batch of one window or, where subjects are told
        apart, a corpus or a micro-batch of one subject; a queue longer than there are windows, or shorter than a batch; fewer subjects than a
        batch takes; no acceleration for sampler ``motion``; no window with a partner.
    """
    name, notes = corpus.path.name, []
    _, person, count = np.unique(corpus.index["subject"].astype(str).to_numpy()[rows], return_inverse=True, return_counts=True)
    if plan.in_batch:
        if len(rows) < batch_size:
            raise RequestError(
                f"{name}: {len(rows)} training windows, data.batch_size is {batch_size}; this objective compares the windows of "
                f"a batch, and none may be there twice; take {len(rows)} or fewer"
            )
        if batch_size // accumulate < 2:
            raise RequestError(
                f"data.batch_size: {batch_size} in {accumulate} micro-batches is one window each; this objective compares the "
                "windows of a batch; take more"
            )
        if accumulate > 1:
            notes.append(
                f"train.accumulate {accumulate}: this objective compares the windows of a micro-batch, {batch_size // accumulate} "
                f"of {batch_size}, so the result is not that of one batch"
            )
    if plan.several_subjects and len(count) < 2:
        raise RequestError(f"{name}: one subject; this objective tells subjects apart; add a corpus, or take another objective")
    if plan.queue:
        total = len(rows) if total is None else total
        if plan.queue > total:
            raise RequestError(
                f"objective.queue: {plan.queue} keys, but there are {total} training windows, and none may be in the queue twice; "
                f"take {total} or fewer, or add a corpus"
            )
        if plan.queue < batch_size:
            raise RequestError(
                f"objective.queue: {plan.queue} keys do not hold a batch, data.batch_size is {batch_size}; take more, or a smaller batch"
            )
    if plan.sampler == "subjects":
        each = plan.windows_per_subject
        if batch_size % each:
            raise RequestError(
                f"objective.windows_per_subject: {each} does not divide data.batch_size {batch_size}; change one of them"
            )
        if len(count) < batch_size // each:
            raise RequestError(
                f"{name}: {len(count)} subjects, a batch takes {each} windows of each of {batch_size // each}; raise "
                "objective.windows_per_subject or lower data.batch_size"
            )
        if plan.several_subjects and batch_size // accumulate < 2 * each:  # subjects follow each other in a batch
            raise RequestError(
                f"objective.windows_per_subject: {each} of a micro-batch of {batch_size // accumulate} windows is one subject, and this "
                f"objective tells subjects apart; take {max(1, batch_size // accumulate // 2)} or fewer, or a larger data.batch_size"
            )
    if plan.sampler == "stretches":
        if batch_size % plan.stretch:
            raise RequestError(
                f"batch size {batch_size} is no whole number of stretches of {plan.stretch} windows; change one of them"
            )
    if plan.sampler == "motion" and "acc" not in spec.ch_types:
        raise RequestError(f"{name}: no acceleration channel, by which sampler motion draws; set objective.sampler: uniform")
    if plan.pairing == "adjacent":
        if corpus.card.views[corpus.view].policy == "inside_labels":
            notes.append(
                f"{name}: windows of view '{corpus.view}' lie inside labelled intervals, so a window and its neighbour have one "
                "label, and labels enter the pretraining; a view with policy sliding knows none"
            )
        alone = float(np.mean(neighbours(corpus.index, rows, sfreq=spec.sfreq) == np.arange(len(rows))))
        what, remedy = "has no neighbour in its recording", "take objective.pairing: same_subject or a view of shorter windows"
    elif plan.pairing == "same_subject":
        alone = float(np.mean(count[person] == 1))
        what, remedy = "is the only one of its subject", "take an objective without pairing"
    else:
        return notes
    if alone == 1.0:
        raise RequestError(f"{name}: every training window {what}, so none can be paired; {remedy}")
    if alone > _WORTH_A_NOTE:
        notes.append(f"{name}: {100 * alone:.0f} % of the training windows are paired with themselves: each {what}")
    return notes
