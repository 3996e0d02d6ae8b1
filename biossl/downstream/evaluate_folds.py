"""The models of a cross-validated fine-tuning judged together: every row by the one model a seed has that was never near its subject.

What lives here: :func:`evaluate_folds`, which :func:`~biossl.downstream.evaluate.evaluate` calls for such a folder: whose rows each model
judges, the pooled predictions, and simple models fitted in the same folds. Figures are ``fold_figures.py``'s. Nothing is fitted for the
locked models.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import __version__
from biossl.atomic import write_parquet, write_text
from biossl.baselines import corpus_features
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.corpus.identity import seen_subjects
from biossl.corpus.labels import confounds
from biossl.corpus.within import groups, is_within_subject
from biossl.downstream.evaluate import FEW_SUBJECTS, FORMAT, _folder, _plain, _rows, _target, _task, _truth
from biossl.downstream.fold_figures import Pooled, fold_figures, rival_figures
from biossl.downstream.foldrun import FoldRun, Member, read_folds, require_same_parts
from biossl.downstream.folds import unlearnt
from biossl.downstream.model import Model, Task, load_model, read_rows
from biossl.downstream.predictions import KEYS, calibrated, columns
from biossl.downstream.rivals import rival_predictions
from biossl.errors import DataError, RequestError
from biossl.judging import Rows
from biossl.ledger import commit, record_opening
from biossl.probe import count_rows
from biossl.progress import track

Array = NDArray[Any]


@dataclass(frozen=True)
class Judged:
    """One member's predictions of its rows: ``p`` calibrated, ``said`` decisions of yes/no classes (else None)."""

    member: Member
    rows: Array
    p: Array
    said: Array | None
    table: pd.DataFrame
    simple: dict[str, Array]


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
        seeds), ``model``. Beside it ``predictions.parquet``, one row a judged window and seed.

    Raises
    ------
    RequestError
        A model is not trained yet, another part or split than the folds', models of dense or survival labels.
    DataError
        The folds were changed since, another corpus, a model that has seen its subjects.

    Examples
    --------
    >>> evaluate_folds("runs/eegmat-cv", "corpora/eegmat")["subject_means"]["balanced_accuracy"]["value"]  # doctest: +SKIP
    """
    held = read_folds(run)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    weights = held.weights()
    _check(held, corpus, split, part)
    first = load_model(held.path / held.members[0].folder)
    if first.kind in ("dense", "survival"):
        raise RequestError(f"{run}: models of {first.kind} labels; evaluate judges classes, yes/no labels and values of windows")
    match = require_match(first.encoder.spec, corpus.spec, adapt=adapt)
    label = label or held.label
    task, notes = _task(first, corpus, label, None)
    name = held.split if split is None and corpus.hash == held.corpus["hash"] else split
    work, name, more = _work(held, corpus, task, name, part)
    within = is_within_subject(corpus, name)
    notes += [*more, *match.notes]
    folder = Path(out) if out is not None else _folder(held.path, corpus, label, name, part, "window")
    if (folder / "results.json").exists() and not overwrite:
        raise RequestError(f"{folder / 'results.json'}: exists; give another --out or add --overwrite")

    # ---- every member on its own rows
    done, facts = [], []
    known: set[str] = set()
    simple = _Simple(corpus, task, seed) if baselines else None
    for member, rows in track(work, len(work), "judge", "models"):
        model = load_model(held.path / member.folder)
        _check_member(held, member, model)
        known |= _guard(held, member, model, corpus, rows, name, allow_seen)
        judged = _judge(held, member, model, corpus, task, rows, adapt, simple)
        done.append(judged)
        trained, lock = model.about["trained"], model.lock.notes
        facts.append({
            "folder": member.folder, "seed": member.seed, "fold": member.fold, "sha256": model.about["weights"]["sha256"],
            "mode": model.about["mode"], **{k: trained[k] for k in ("windows", "subjects", "steps", "taken_at")},
            "inner": model.about["inner"], "choices": model.about["choices"], "notes": list(lock),
        })  # fmt: skip
    total = len(np.unique(corpus.index["subject"].to_numpy().astype(str)[np.concatenate([rows for _, rows in work])]))
    if known:
        notes.append(f"models or encoder have seen {len(known)} of the {total} judged subjects (--allow-seen): optimistic")
    pooled = _pool(held, corpus, task, done, name, seed)
    blank = sum(len(rows) for member, rows in work if member.seed == held.seeds[0]) - len(pooled.rows)
    if blank:
        notes.append(f"{blank} labelled windows hold no observed sample and are left out")
    target, people = pooled.target, pooled.people
    notes += [*_said_by(facts), *(simple.notes if simple else []), *_few(held, total, len(np.unique(people)) if within else None)]
    result: dict[str, Any] = {
        "format": FORMAT, "biossl": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label, "confounds": confounds(corpus, label), "kind": target.kind, "classes": list(target.classes), "metric": target.metric,
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "view": corpus.view, "hash": corpus.hash},
        "model": {
            "folder": str(run), "sha256": weights, "mode": ", ".join(sorted({str(f["mode"]) for f in facts})), "split": held.split,
            "encoder_hash": held.encoder, "members": facts,
        },
        "split": name, "within_subject": within, "part": part, "seed": seed, "seeds": held.seeds, "seen": {"subjects": len(known), "of": total},
        "counts": count_rows(corpus, Rows(pooled.rows, target, people, np.full(len(people), part)), np.arange(len(people))),
    }  # fmt: skip
    result |= fold_figures(pooled)
    result["rivals"] = [rival_figures(pooled, model, predictions) for model, predictions in pooled.simple.items()]
    result["notes"], result["out"] = notes, str(folder)
    if part not in ("train", "val"):
        entry = {
            "verb": "evaluate", "corpus": corpus.hash, "model": weights, "models": {f["folder"]: f["sha256"] for f in facts}, "label": label, "split": name,
            "folds": held.folds, "seeds": held.seeds, "part": part, "metric": target.metric, "score": result["scores"][target.metric],
        }  # fmt: skip
        file, times = record_opening([corpus.path, folder], _plain(entry))
        result["ledger"] = {"file": str(file), "openings": times}
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "predictions.parquet", _table(corpus, task, done))
    result = _plain(result)
    write_text(folder / "results.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


# ---------------------------------------------------------------------------------------------- who judges what


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


def _check(held: FoldRun, corpus: Corpus, split: str | None, part: str) -> None:
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


def _work(
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


def _check_member(held: FoldRun, member: Member, model: Model) -> None:
    """DataError where a folder holds another training than ``folds.json`` says: its held-out people would be others."""
    about = model.about
    start = f"random-{member.seed}" if held.settings.get("scratch") else held.encoder
    for key, wanted in (("label", held.label), ("split", member.split), ("seed", member.seed), ("encoder_hash", start)):
        if about.get(key) != wanted:
            raise DataError(f"{held.path / member.folder}: its model says {key} {about.get(key)}, the folder stands for {wanted}")


def _guard(
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


def _judge(
    held: FoldRun, member: Member, model: Model, corpus: Corpus, task: Task, rows: Array, adapt: bool, simple: _Simple | None
) -> Judged:
    prediction, features = read_rows(model, corpus, rows, adapt=adapt, desc=None)
    seen = np.isfinite(features).all(axis=1)
    rows, prediction, features = rows[seen], prediction[seen], features[seen]
    if not len(rows):
        raise DataError(
            f"{held.path / member.folder}: nothing was observed in any window it would judge; leave the fold's subjects out"
        )
    p = calibrated(model, prediction)
    said = model.lock.decisions(p, model.classes, model.kind) if task.kind == "binary" else None
    beside = simple.predict(held, member, model, rows) if simple else {}
    return Judged(member, rows, p, said, columns(model, prediction, features), beside)


class _Simple:
    """Simple models of each fold: fitted once for equal training rows, whichever seed asks; hand features computed once a row."""

    def __init__(self, corpus: Corpus, task: Task, seed: int) -> None:
        self.corpus, self.kind, self.seed = corpus, "multiclass" if task.kind == "ordinal" else task.kind, seed
        self.notes: list[str] = []
        self._fitted: dict[str, dict[str, Array]] = {}
        self._known: dict[str, dict[int, Array]] = {}
        self._names: list[str] = []

    def predict(self, held: FoldRun, member: Member, model: Model, rows: Array) -> dict[str, Array]:
        """Name -> predictions of the rows."""
        key = json.dumps([member.split, model.about["trained"].get("rows")])
        if key not in self._fitted:
            self._fitted[key], notes = rival_predictions(
                model, self.corpus, rows, self.kind, held.path / member.folder, seed=self.seed, features=self._features
            )
            self.notes += [n for n in notes if n not in self.notes]
        return self._fitted[key]

    def _features(self, corpus: Corpus, rows: Array) -> tuple[Array, list[str]]:
        known = self._known.setdefault(corpus.hash, {})
        new = np.array([r for r in rows if int(r) not in known], np.int64)
        if len(new):
            values, self._names = corpus_features(corpus, new)
            known.update(zip(new.tolist(), values, strict=True))
        return np.stack([known[int(r)] for r in rows]), self._names


def _pool(held: FoldRun, corpus: Corpus, task: Task, done: list[Judged], split: str | None, seed: int) -> Pooled:
    """Rows in the order of the corpus, each once under each seed."""

    def pooled(parts: Sequence[Array], each: list[Judged]) -> Array:
        rows = np.concatenate([j.rows for j in each])
        return np.concatenate(parts)[np.argsort(rows, kind="stable")]

    by_seed = [[j for j in done if j.member.seed == s] for s in held.seeds]
    first = by_seed[0]
    rows = pooled([j.rows for j in first], first)
    for each in by_seed:
        if not np.array_equal(pooled([j.rows for j in each], each), rows) or len(np.unique(rows)) < len(rows):
            raise DataError(
                f"{held.path}: a window would be judged twice, or not under every seed; fine-tune again in another --out"
            )
    fold = pooled([np.full(len(j.rows), -1 if j.member.fold is None else j.member.fold) for j in first], first)
    several = [pooled([j.p for j in each], each) for each in by_seed]
    said = [pooled([j.said for j in each if j.said is not None], each) for each in by_seed] if first[0].said is not None else []
    names = [n for n in first[0].simple if all(n in j.simple for j in done)]
    same = all(a.simple is b.simple for each in by_seed for a, b in zip(first, each, strict=True))  # no seed drew other rows
    simple = {n: [pooled([j.simple[n] for j in each], each) for each in (by_seed[:1] if same else by_seed)] for n in names}
    people = groups(corpus, split)[rows]
    return Pooled(rows, fold, _target(task, rows), people, several, said, simple, seed)


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
    if n_recordings is not None and n_recordings < 15:
        notes.append(f"{n_recordings} judged recordings are few: intervals over so few are not to be trusted")
    if n_subjects < FEW_SUBJECTS:
        notes.append(
            f"{n_subjects} judged subject{'s' if n_subjects > 1 else ''}: nothing can be said about other people from so few"
        )
    elif n_subjects < 15:
        notes.append(f"{n_subjects} judged subjects are few: intervals over so few are wide at best")
    if len(held.seeds) < 5:
        notes.append(f"{len(held.seeds)} seed{'s' if len(held.seeds) > 1 else ''}: a claim needs at least five")
    return notes


def _table(corpus: Corpus, task: Task, done: list[Judged]) -> pd.DataFrame:
    """One row a seed and judged window, seed by seed in the order of the corpus."""
    parts = []
    for j in done:
        keys = corpus.index.iloc[j.rows][[k for k in KEYS if k in corpus.index]].reset_index(drop=True)
        keys["seed"], keys["fold"] = j.member.seed, pd.array([j.member.fold] * len(keys), "Int64")
        keys["_row"] = j.rows
        parts.append(pd.concat([keys, _truth(_target(task, j.rows)), j.table], axis=1))
    table = pd.concat(parts, ignore_index=True)
    order = {s: k for k, s in enumerate(dict.fromkeys(table["seed"]))}
    table["_seed"] = table["seed"].map(order)
    return table.sort_values(["_seed", "_row"], kind="stable").drop(columns=["_seed", "_row"]).reset_index(drop=True)
