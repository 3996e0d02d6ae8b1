"""What an encoder forgot: the old task probed with the weights before and after training went on elsewhere.

What lives here: :func:`forgetting`. Rows and heads are those of ``probe.py``; both encoders meet the same ones, and the
difference has a paired interval by subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from biossl import metrics, protocol
from biossl.checkpoint import find_encoder, load_encoder, require_match
from biossl.corpus import Corpus, seen
from biossl.corpus.splits import default_split
from biossl.corpus.within import refuse_within_subject
from biossl.errors import DataError
from biossl.inference import embed_corpus
from biossl.judging import Rows
from biossl.ledger import record_opening
from biossl.probe import check_rows, labelled_rows


def forgetting(
    before: str | Path,
    after: str | Path,
    corpus: Corpus,
    label: str,
    *,
    split: str | None = None,
    pool: str = "mean",
    seed: int = 0,
) -> dict[str, Any]:
    """Linear probe of an old task with the weights before and after.

    Parameters
    ----------
    before, after : path
        Encoder folders, or runs.
    corpus : Corpus
        Of the old task, with a split.
    label : str
    split : str, optional
        Default :func:`~biossl.corpus.splits.default_split`.
    pool : str
    seed : int
        Of folds and resamples.

    Returns
    -------
    dict
        ``seen`` judged subjects that one of the encoders was trained on (their labels were not), ``part`` judged (``val`` where the split has labelled rows in it, else ``test``, which the ledger then notes),
        ``metric``, ``before``, ``after`` and ``change`` (after minus before), each with value, low and high.

    Raises
    ------
    DataError
        No split, no such label, nothing labelled, an encoder that does not fit the corpus.

    Examples
    --------
    >>> forgetting("runs/old", "runs/new", Corpus.open("corpora/hapt"), "activity6")["change"]  # doctest: +SKIP
    """
    split, part, rows = judged_rows(corpus, label, split)
    train, judged = rows.where("train"), rows.where(part)
    used = np.union1d(train, judged)
    at = {int(row): i for i, row in enumerate(used)}
    a, b = ([at[int(row)] for row in some] for some in (train, judged))
    target, subject = rows.target.take(judged), rows.subject[judged]
    predictions = []
    hashes = []
    known = 0
    for folder in (before, after):
        encoder = load_encoder(find_encoder(folder))
        require_match(encoder.spec, corpus.spec)
        hashes.append(encoder.info["hash"])
        known = max(known, seen(corpus, rows.index[judged], encoder.info["seen"].get("subjects", [])))
        x = embed_corpus(encoder, corpus, rows.index[used], pool=pool, desc=f"old task, {Path(folder).name}")
        fitted = protocol.linear(x[a], rows.target.take(train), rows.subject[train], x[b], seed=seed)
        predictions.append([fitted.prediction])
    metric = target.metric
    scores = [metrics.subject_bootstrap(target.y, p, subject, metric, seed=seed).to_dict() for p in predictions]
    change = metrics.paired_difference(target.y, predictions[1], predictions[0], subject, metric, seed=seed).to_dict()
    result = {
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "hash": corpus.hash}, "label": label, "split": split,
        "part": part, "pool": pool, "metric": metric, "subjects": len(np.unique(subject)), "seen": known, "before": scores[0],
        "after": scores[1], "change": change,
    }  # fmt: skip
    if part == "test":
        entry = {
            "verb": "pretrain --continue", "corpus": corpus.hash, "encoder": hashes[1], "label": label, "split": split,
            "part": part, "pool": pool, "metric": metric, "score": scores[1], "before": {"encoder": hashes[0], "score": scores[0]},
            "seed": seed,
        }  # fmt: skip
        file, times = record_opening([corpus.path, Path(after)], entry)
        result["ledger"] = {"file": str(file), "openings": times}
    return result


def judged_rows(corpus: Corpus, label: str, split: str | None = None) -> tuple[str, str, Rows]:
    """Split and part by which an old task is judged, and its labelled rows; DataError or RequestError where it cannot be.

    Cheap: asked before anything is trained, so that a training is not lost to a corpus that cannot be judged.
    """
    split = split or default_split(corpus)[0]
    if split is None:
        raise DataError(f"{corpus.path}: forgetting is judged on held-out subjects; make a split with `biossl split`")
    refuse_within_subject(corpus, split, "forgetting")
    rows, _ = labelled_rows(corpus, label, split)
    part = "val" if len(rows.where("val")) else "test"
    check_rows(corpus, rows, rows.where("train"), rows.where(part), label, split, part)
    return split, part, rows


def as_line(result: dict[str, Any]) -> str:
    """One line for a terminal."""
    before, after, change = (result[k] for k in ("before", "after", "change"))

    def number(v: Any, sign: str = "") -> str:
        return "-" if v is None else f"{v:{sign}.3f}"

    return (
        f"old task {result['label']} of {result['corpus']['name']} ({result['metric']}, {result['part']}, {result['subjects']} subjects): "
        f"before {number(before['value'])}, after {number(after['value'])}, change {number(change['value'], '+')} "
        f"[{number(change['low'], '+')}, {number(change['high'], '+')}]"
        + (f"; {result['seen']} of them were seen in pretraining" if result["seen"] else "")
    )
