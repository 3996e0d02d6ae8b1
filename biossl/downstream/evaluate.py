"""A locked model on rows it has never seen: scores with intervals, beside simple models, with nothing refitted.

What lives here: :func:`evaluate`: which rows, the seen-subjects rule, the ledger, the result as plain values in ``results.json`` and
``predictions.parquet``. Predictions and decisions are ``predictions.py``'s, windows judged together ``units.py``'s, simple models
``rivals.py``'s, other locked models ``beside.py``'s, degraded input ``stress.py``'s, scores ``metrics``'.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import __version__, metrics
from biossl.atomic import write_parquet, write_text
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.corpus.labels import confounds
from biossl.corpus.splits import chosen_split
from biossl.corpus.within import groups, is_within_subject, refuse_within_subject
from biossl.downstream.absent import absent_classes, trained_classes
from biossl.downstream.beside import judge_others, open_others, seen_by
from biossl.downstream.closer import closer_look
from biossl.downstream.delineation import judge
from biossl.downstream.dense import DenseTask
from biossl.downstream.foldrun import is_folds
from biossl.downstream.model import Model, Task, load_model, make_task, read_rows
from biossl.downstream.predictions import KEYS, calibrated, columns
from biossl.downstream.rivals import rivals
from biossl.downstream.stress import stress_test
from biossl.downstream.units import gather, pooled
from biossl.errors import DataError, RequestError
from biossl.judging import Rows, as_asked, scored
from biossl.ledger import commit, record_opening
from biossl.metrics import Metric
from biossl.probe import count_rows
from biossl.probe_text import FEW
from biossl.protocol import Target

Array = NDArray[Any]
FORMAT = 1
FEW_SUBJECTS = 3  # below this nothing can be said about other people


def evaluate(
    run: str | Path,
    corpus: str | Path | Corpus,
    *,
    label: str | None = None,
    event: str | None = None,
    split: str | None = None,
    part: str = "test",
    per: str = "window",
    by: Sequence[str] = (),
    beside: Sequence[str | Path] = (),
    baselines: bool = True,
    stress: bool = False,
    allow_seen: bool = False,
    adapt: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Judge a locked model.

    Parameters
    ----------
    run : path
        Run or model folder of `biossl finetune`, or a folder of its folds or seeds, whose models are judged together.
    corpus : path or Corpus
        The model's own, or another site's.
    label : str, optional
        Default the label the model was trained for. Its classes are matched by name.
    event : str, optional
        Of a survival model the binary label of the event; default the one it was trained with.
    split : str, optional
        Default the official one, or the only one; without any, all rows are judged.
    part : str
        Part of the split that is judged; ``all`` for every row.
    per : {"window", "recording", "subject"}
        What is judged: single windows, or the mean prediction of all labelled windows of a recording or subject.
    by : sequence of str
        Columns of the index (site, device, age, ...) whose groups are scored apart; numbers are cut into thirds.
    beside : sequence of path
        Other locked models of the label, which stand beside it on the same rows.
    baselines : bool
        Fit simple models on the rows the model was trained on, where that corpus is still there.
    stress : bool
        Judge again with channels lost, lower rates and noise (:func:`~biossl.downstream.stress.stress_test`).
    allow_seen : bool
        Go on when encoder or model have seen judged subjects; the result says so.
    adapt : bool
        Accept a corpus with other channels (a subset) or filters than the model's.
    seed : int
        Of resamples and simple models.
    out : path, optional
        Folder; default ``RUN/evaluations/CORPUS-LABEL-SPLIT-PART``, with ``-per-recording`` or ``-per-subject``.
    overwrite : bool

    Returns
    -------
    dict
        Plain values, also in ``results.json``; beside it ``predictions.parquet``, one row a judged window (or recording, or
        subject), or of a dense model one a detected and an annotated event (see :mod:`~biossl.downstream.delineation`).

    Raises
    ------
    DataError
        Label and model do not fit, nothing labelled to judge, subjects that were seen.
    RequestError
        ``out`` exists, no such part or covariate, something of windows asked of a model of dense labels.

    Examples
    --------
    >>> evaluate("runs/hapt-6", "corpora/hapt")["scores"]["macro_f1"]  # doctest: +SKIP
    """
    if is_folds(run):
        from biossl.downstream.evaluate_folds import evaluate_folds, require_plain

        require_plain(run, event=event, per=per, by=by, beside=beside, stress=stress)
        return evaluate_folds(
            run, corpus, label=label, split=split, part=part, baselines=baselines, allow_seen=allow_seen, adapt=adapt, seed=seed, out=out,
            overwrite=overwrite,
        )  # fmt: skip
    model = load_model(run)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    windows_only = {"--per": per != "window", "--by": bool(by), "--beside": bool(beside), "--stress": stress}
    if model.kind == "dense" and any(windows_only.values()):
        asked = ", ".join(k for k, v in windows_only.items() if v)
        raise RequestError(f"{asked}: of windows, and {run} is a model of samples, which is judged by its events; leave it out")
    match = require_match(model.encoder.spec, corpus.spec, adapt=adapt)
    label = label or model.about["label"]
    task, notes = _task(model, corpus, label, _event(run, model, event))
    compared = open_others(beside, model, corpus, adapt=adapt)
    split, where, rows, more = _rows(corpus, task, split, part)
    _check_covariates(corpus, by)
    folder = Path(out) if out is not None else _folder(Path(run), corpus, label, split, part, per)
    if (folder / "results.json").exists() and not overwrite:
        raise RequestError(f"{folder / 'results.json'}: exists; give another --out or add --overwrite")
    notes += [*more, *match.notes, *model.lock.notes]
    subject = corpus.index["subject"].to_numpy().astype(str)
    within = is_within_subject(corpus, split)
    if model.kind == "dense":
        refuse_within_subject(corpus, split, "a model of samples")
    if within and per == "subject":
        raise RequestError(
            f"--per subject: split '{split}' is within-subject, so a person has no one part; take window or recording"
        )
    known = seen_by(model, corpus, rows, split)
    total = len(np.unique(subject[rows]))
    if known and not allow_seen:
        raise DataError(
            f"{run}: model or encoder have seen {known} of the {total} subjects they would be judged on; take part 'test' of a split whose "
            "subjects were left out, or add --allow-seen"
        )
    if known:
        notes.append(f"model or encoder have seen {known} of the {total} judged subjects (--allow-seen): optimistic")
    facts = _facts(run, model, corpus, label, split, part, seed) | {
        "within_subject": within,
        "seen": {"subjects": known, "of": total},
    }
    if model.kind == "dense":
        judged, table, said = judge(model, corpus, cast(DenseTask, task), rows, adapt=adapt, baselines=baselines, seed=seed)
        return _written(facts | judged, corpus, folder, table, [*notes, *said])
    prediction, features = read_rows(model, corpus, rows, adapt=adapt)
    blank = ~np.isfinite(features).all(axis=1)
    if blank.any():
        notes.append(f"{int(blank.sum())} of {len(rows)} labelled windows hold no observed sample and are left out")
        rows, prediction, features = rows[~blank], prediction[~blank], features[~blank]
    if not len(rows):
        raise DataError(f"{corpus.path}: nothing was observed in any window of {where}; nothing can be judged")
    target = _target(task, rows)
    units, kept, y, said = gather(per, subject[rows], corpus.index["record"].to_numpy().astype(str)[rows], target.y)
    notes += said
    rows, prediction, features, target = rows[kept], prediction[kept], features[kept], replace(target, y=y)
    firsts = rows[units.first]
    people = groups(corpus, split)[firsts]
    p = units.pool(calibrated(model, prediction))
    table = pooled(model, units, p, columns(model, prediction, features))
    result: dict[str, Any] = facts | {
        "kind": target.kind, "classes": list(target.classes), "metric": target.metric, "per": per,
        "counts": count_rows(corpus, Rows(firsts, target, people, np.full(len(firsts), part)), np.arange(len(firsts))),
        "blank": int(blank.sum()),
    }  # fmt: skip
    result["counts"] |= {"windows": len(rows), "records": int(corpus.index["record"].iloc[rows].nunique()), "units": len(units)}
    result["scores"] = _scores(target, p, people, seed)
    result |= closer_look(model, target, p, table, people, seed)
    result["absent"], more = absent_classes([trained_classes(model, corpus)], result)
    notes += more
    result["groups"] = {
        name: _groups(target, p, people, name, units.shared(corpus.index[name].to_numpy(dtype=object)[rows]), seed) for name in by
    }
    locked, more = judge_others(
        compared, model, corpus, rows, units, target, p, people, split=split, adapt=adapt, allow_seen=allow_seen, seed=seed
    )
    simple, said = rivals(model, corpus, rows, units, target, p, people, Path(run), seed=seed) if baselines else ([], [])
    result["rivals"] = simple + locked
    notes += [*said, *more]
    if stress:
        result["stress"] = stress_test(model, corpus, rows, units, target, p, table, people, adapt=adapt, seed=seed)
    names = {"window": KEYS, "recording": ("subject", "record"), "subject": ("subject",)}[units.per]
    keys = corpus.index.iloc[firsts][[k for k in names if k in corpus.index]].reset_index(drop=True)
    return _written(result, corpus, folder, pd.concat([keys, _truth(target), table], axis=1), notes)


def _facts(run: str | Path, model: Model, corpus: Corpus, label: str, split: str | None, part: str, seed: int) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "format": FORMAT, "biossl": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label, "confounds": confounds(corpus, label), "kind": model.kind, "classes": list(model.classes),
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "view": corpus.view, "hash": corpus.hash},
        "model": {"folder": str(run), "sha256": model.about["weights"]["sha256"]} | {
            k: model.about.get(k) for k in ("mode", "split", "seed", "choices", "trained", "encoder_hash")
        },
        "split": split, "part": part, "seed": seed,
    }  # fmt: skip


def _written(result: dict[str, Any], corpus: Corpus, folder: Path, table: pd.DataFrame, notes: list[str]) -> dict[str, Any]:
    """The result with its last notes, counted in the ledger and on disk."""
    total, split, part = result["seen"]["of"], result["split"], result["part"]
    if total < FEW_SUBJECTS:
        notes.append(f"{total} judged subject{'s' if total > 1 else ''}: nothing can be said about other people from so few")
    elif total < FEW:
        notes.append(f"{total} judged subjects are few: intervals over so few are wide at best")
    if result["within_subject"] and result["counts"]["records"] < FEW:
        notes.append(f"{result['counts']['records']} judged recordings are few: intervals over so few are not to be trusted")
    result |= {"notes": notes, "out": str(folder)}
    if split is None or part not in ("train", "val"):
        entry = {
            "verb": "evaluate", "corpus": corpus.hash, "model": result["model"]["sha256"], "label": result["label"], "split": split,
            "part": part, "metric": result["metric"], "score": result["scores"][result["metric"]],
        }  # fmt: skip
        file, times = record_opening([corpus.path, folder], entry)
        result["ledger"] = {"file": str(file), "openings": times}
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "predictions.parquet", table)
    write_text(folder / "results.json", json.dumps(_plain(result), indent=1, allow_nan=False) + "\n")
    return result


# ---------------------------------------------------------------------------------------------- what is judged


def _event(run: str | Path, model: Model, event: str | None) -> str | None:
    """Of a survival model the label of its event."""
    if model.kind != "survival":
        if event is not None:
            raise RequestError(f"--event {event}: {run} is a model of {model.kind} labels, which have no event; leave it out")
        return None
    event = event or model.about.get("event")
    if event is None:
        raise RequestError(f"{run}: a model of survival that does not say which label is its event; name it with --event")
    return event


def _task(model: Model, corpus: Corpus, label: str, event: str | None) -> tuple[Task, list[str]]:
    """The corpus' label in the model's classes."""
    task = make_task(corpus, label, kind=model.kind if model.kind in ("ordinal", "dense") else None, event=event)
    if task.kind == model.kind == "dense":
        return task, []  # judge compares classes and channels
    if task.kind != model.kind:
        raise DataError(f"{corpus.path}: label '{label}' is {task.kind}, the model predicts {model.kind}; give --label another")
    if model.kind in ("regression", "binary", "survival") or task.classes == model.classes:
        return task, []
    strange = [c for c in task.classes if c not in model.classes]
    if len(strange) == len(task.classes):
        raise DataError(
            f"{corpus.path}: label '{label}' has classes {', '.join(task.classes)}, the model {', '.join(model.classes)}; none is shared"
        )
    notes = []
    if task.kind == "multilabel":
        values = np.full((len(task.values), len(model.classes)), np.nan, np.float32)
        for k, name in enumerate(model.classes):
            if name in task.classes:
                values[:, k] = task.values[:, task.classes.index(name)]
    else:
        code = np.array([model.classes.index(c) if c in model.classes else np.nan for c in task.classes], np.float32)
        number = task.values[:, 0]
        values = np.full_like(task.values, np.nan)
        has = ~np.isnan(number)
        values[has, 0] = code[number[has].astype(int)]
    if strange:
        what = "not judged" if task.kind == "multilabel" else "their windows are left out"
        notes.append(f"unknown to the model and {what}: class {', '.join(repr(c) for c in strange)}")
    absent = [c for c in model.classes if c not in task.classes]
    if absent:
        notes.append(f"classes {', '.join(absent)} of the model are not in this label")
    return replace(task, classes=model.classes, values=values), notes


def _rows(corpus: Corpus, task: Task, split: str | None, part: str) -> tuple[str | None, str, Array, list[str]]:
    """Labelled rows of the part; what they are called; notes."""
    split, notes = chosen_split(corpus, split) if split is not None or part != "all" else (None, [])
    inside, where = np.ones(len(corpus.index), bool), "the corpus"
    if part != "all" and split is not None:
        parts = corpus.split(split).to_numpy().astype(str)
        inside, where = parts == part, f"part '{part}' of split '{split}'"
        if not inside.any():
            raise RequestError(f"--part {part}: split '{split}' has {', '.join(sorted(set(parts) - {''}))}; or give --part all")
    elif split is None:
        notes.append("no split: every labelled window of the corpus is judged")
    rows = np.flatnonzero(task.known & inside)
    if not len(rows):
        raise DataError(f"{corpus.path}: no window with a known '{task.label}' in {where}; nothing can be judged")
    unknown = int(inside.sum()) - len(rows)
    if unknown:
        notes.append(f"{unknown} of {int(inside.sum())} windows of {where} have no known '{task.label}' and are left out")
    return split, where, rows, notes


def _target(task: Task, rows: Array) -> Target:
    y = task.values[rows].astype(np.float64)
    kind = "multiclass" if task.kind == "ordinal" else task.kind
    return Target(kind, y[:, 0] if kind in ("multiclass", "regression") else y, task.classes)


def _folder(run: Path, corpus: Corpus, label: str, split: str | None, part: str, per: str) -> Path:
    home = run.parent if (run / "model.yaml").is_file() else run
    together = "" if per == "window" else f"per-{per}"
    name = "-".join(filter(None, (corpus.path.resolve().name, label, (split or "").replace(":", "-"), part, together)))
    return home / "evaluations" / re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _check_covariates(corpus: Corpus, by: Sequence[str]) -> None:
    for name in by:
        if name not in corpus.index:
            own = [
                c
                for c in corpus.index.columns
                if c not in ("shard", "row", "sha256", "start_s", "n_samples", "record", "subject")
            ]
            raise RequestError(f"--by {name}: the index has no such column; it has {', '.join(own)}")


# ---------------------------------------------------------------------------------------------- figures


def _scores(target: Target, p: Array, people: Array, seed: int) -> dict[str, Any]:
    """Every metric of the kind; one that cannot be computed says why instead of a number."""
    out: dict[str, Any] = {}
    for name in scored(target):
        y, some = as_asked(target, [p], name)
        out[name] = metrics.subject_bootstrap(y, some[0], people, name, seed=seed).to_dict()
    return out


def _groups(target: Target, p: Array, people: Array, name: str, values: Array, seed: int) -> list[dict[str, Any]]:
    from biossl.metrics.subgroups import subgroups

    numeric = pd.to_numeric(pd.Series(values), errors="coerce")
    many = name not in ("record", "subject") and numeric.notna().any() and numeric.nunique() > 6  # 105 and 213 are names there
    metric = Metric(target.metric)
    found = subgroups(target.y, p, people, metric, values, quantiles=3 if many else 0, seed=seed)
    return [group.to_dict() for group in found]


def _truth(target: Target) -> pd.DataFrame:
    """Reference columns: ``y`` (class or value), ``y_CLASS`` of yes/no classes, or ``y_time`` and ``y_event``; null = unknown."""
    if target.kind == "survival":
        return pd.DataFrame({"y_time": target.y[:, 0], "y_event": target.y[:, 1]})
    if target.kind == "regression":
        return pd.DataFrame({"y": target.y})
    if target.kind == "multiclass":
        return pd.DataFrame({"y": [None if np.isnan(v) else target.classes[int(v)] for v in target.y]})
    return pd.DataFrame({f"y_{c}": target.y[:, k] for k, c in enumerate(target.classes)})


def _plain(value: Any) -> Any:
    """No NaN in JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
