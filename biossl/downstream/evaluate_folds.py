"""The models of a cross-validated fine-tuning judged together: every row by the one model a seed has that was never near its subject.

What lives here: :func:`evaluate_folds`, which :func:`~biossl.downstream.evaluate.evaluate` calls for such a folder. Who judges what is
``fold_work.py``'s, predictions of windows ``fold_windows.py``'s, waves and episodes ``fold_events.py``'s.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from biossl import __version__
from biossl.atomic import write_parquet, write_text
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.corpus.labels import confounds
from biossl.corpus.within import groups, is_within_subject
from biossl.downstream.dense import DenseTask
from biossl.downstream.evaluate import FEW_SUBJECTS, FORMAT, _folder, _plain, _task
from biossl.downstream.fold_events import EventFolds
from biossl.downstream.fold_windows import WindowFolds
from biossl.downstream.fold_work import check_folds, check_member, rows_of_members, seen_by_member
from biossl.downstream.foldrun import FoldRun, read_folds
from biossl.downstream.model import load_model
from biossl.errors import RequestError
from biossl.ledger import commit, record_opening
from biossl.probe_text import FEW
from biossl.progress import track


def evaluate_folds(
    run: str | Path,
    corpus: str | Path | Corpus,
    *,
    label: str | None = None,
    split: str | None = None,
    part: str = "test",
    baselines: bool = True,
    allow_seen: bool = False,
    adapt: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Judge a folder of :func:`~biossl.downstream.folds.finetune_folds`.

    Parameters
    ----------
    run : path
    corpus : path or Corpus
        Of models a fold the corpus they were trained on; of models a seed any.
    split, part
        Of models a seed, as in ``evaluate``; of models a fold the folds say which rows are judged.
    label, baselines, allow_seen, adapt, seed, out, overwrite
        As in :func:`~biossl.downstream.evaluate.evaluate`.

    Returns
    -------
    dict
        Plain values, also in ``results.json``: ``scores`` (mean over seeds with its interval over subjects, ``min`` and ``max`` over
        seeds, each seed's own), ``subject_means``, ``per_subject``, ``folds``, ``rivals``, ``per_class``, ``confusion`` (summed over
        seeds), ``model``; of waves and episodes those of :func:`~biossl.downstream.delineation.event_figures` as well. Beside it
        ``predictions.parquet``, one row a judged window (or event) and seed.

    Raises
    ------
    RequestError
        A model is not trained yet, another part or split than the folds', models of survival labels.
    DataError
        The folds were changed since, another corpus, a model that has seen its subjects.

    Examples
    --------
    >>> evaluate_folds("runs/eegmat-cv", "corpora/eegmat")["subject_means"]["balanced_accuracy"]["value"]  # doctest: +SKIP
    """
    held = read_folds(run)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    weights = held.weights()
    check_folds(held, corpus, split, part)
    first = load_model(held.path / held.members[0].folder)
    if first.kind == "survival":
        raise RequestError(
            f"{run}: models of survival labels; evaluate takes one of them, e.g. {held.path / held.members[0].folder}"
        )
    match = require_match(first.encoder.spec, corpus.spec, adapt=adapt)
    label = label or held.label
    task, notes = _task(first, corpus, label, None)
    name = held.split if split is None and corpus.hash == held.corpus["hash"] else split
    work, name, more = rows_of_members(held, corpus, task, name, part)
    within = is_within_subject(corpus, name)
    notes += [*more, *match.notes]
    folder = Path(out) if out is not None else _folder(held.path, corpus, label, name, part, "window")
    if (folder / "results.json").exists() and not overwrite:
        raise RequestError(f"{folder / 'results.json'}: exists; give another --out or add --overwrite")

    # ---- every member on its own rows
    settings: dict[str, Any] = {"adapt": adapt, "baselines": baselines, "seed": seed}
    pool = (
        EventFolds(held, corpus, cast(DenseTask, task), **settings)
        if task.kind == "dense"
        else WindowFolds(held, corpus, task, name, **settings)
    )
    facts = []
    known: set[str] = set()
    for member, rows in track(work, len(work), "judge", "models"):
        model = load_model(held.path / member.folder)
        check_member(held, member, model)
        known |= seen_by_member(held, member, model, corpus, rows, name, allow_seen)
        pool.add(member, model, rows)
        trained, lock = model.about["trained"], model.lock.notes
        facts.append({
            "folder": member.folder, "seed": member.seed, "fold": member.fold, "sha256": model.about["weights"]["sha256"],
            "mode": model.about["mode"], **{k: trained[k] for k in ("windows", "subjects", "steps", "taken_at")},
            "inner": model.about["inner"], "choices": model.about["choices"], "notes": list(lock),
        })  # fmt: skip
    every = np.concatenate([rows for _, rows in work])
    total = len(np.unique(corpus.index["subject"].to_numpy().astype(str)[every]))
    if known:
        notes.append(f"models or encoder have seen {len(known)} of the {total} judged subjects (--allow-seen): optimistic")
    figures = pool.figures()
    notes += [*pool.notes, *_said_by(facts), *_few(held, total, len(np.unique(groups(corpus, name)[every])) if within else None)]
    result: dict[str, Any] = {
        "format": FORMAT, "biossl": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label, "confounds": confounds(corpus, label),
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "view": corpus.view, "hash": corpus.hash},
        "model": {
            "folder": str(run), "sha256": weights, "mode": ", ".join(sorted({str(f["mode"]) for f in facts})), "split": held.split,
            "encoder_hash": held.encoder, "members": facts,
        },
        "split": name, "within_subject": within, "part": part, "seed": seed, "seeds": held.seeds, "seen": {"subjects": len(known), "of": total},
    }  # fmt: skip
    result |= figures
    result["notes"], result["out"] = notes, str(folder)
    if part not in ("train", "val"):
        entry = {
            "verb": "evaluate", "corpus": corpus.hash, "model": weights, "models": {f["folder"]: f["sha256"] for f in facts}, "label": label, "split": name,
            "folds": held.folds, "seeds": held.seeds, "part": part, "metric": figures["metric"], "score": figures["scores"][figures["metric"]],
        }  # fmt: skip
        file, times = record_opening([corpus.path, folder], _plain(entry))
        result["ledger"] = {"file": str(file), "openings": times}
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "predictions.parquet", pool.table())
    result = _plain(result)
    write_text(folder / "results.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def require_plain(
    run: str | Path, *, event: str | None, per: str, by: Sequence[str], beside: Sequence[str | Path], stress: bool
) -> None:
    """RequestError for what :func:`~biossl.downstream.evaluate.evaluate` can ask of one model alone."""
    asked = {"--event": event is not None, "--per": per != "window", "--by": by, "--beside": beside, "--stress": stress}
    for option in [name for name, given in asked.items() if given]:
        held = read_folds(run)
        raise RequestError(
            f"{option}: is for one model, {run} holds several; take one, e.g. {held.path / held.members[0].folder}"
        )


def _said_by(facts: list[dict[str, Any]]) -> list[str]:
    """Notes of the models, each once with who says it."""
    by: dict[str, list[str]] = {}
    for fact in facts:
        for line in fact["notes"]:
            by.setdefault(line, []).append(fact["folder"])
    return [
        line if len(who) == len(facts) else f"{who[0]}{f' and {len(who) - 1} more' if who[1:] else ''}: {line}"
        for line, who in by.items()
    ]


def _few(held: FoldRun, n_subjects: int, n_recordings: int | None) -> list[str]:
    """``n_recordings`` of a within-subject split."""
    notes = []
    if n_recordings is not None and n_recordings < FEW:
        notes.append(f"{n_recordings} judged recordings are few: intervals over so few are not to be trusted")
    if n_subjects < FEW_SUBJECTS:
        notes.append(
            f"{n_subjects} judged subject{'s' if n_subjects > 1 else ''}: nothing can be said about other people from so few"
        )
    elif n_subjects < FEW:
        notes.append(f"{n_subjects} judged subjects are few: intervals over so few are wide at best")
    if len(held.seeds) < 5:
        notes.append(f"{len(held.seeds)} seed{'s' if len(held.seeds) > 1 else ''}: a claim needs at least five")
    return notes
