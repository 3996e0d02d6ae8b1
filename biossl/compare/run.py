"""The comparison from request to result: plan, jobs one after the other, one table.

What lives here: :func:`compare`. State is the run folders and the job files under ``out``; the same command again goes on
where it stopped, and does nothing twice.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from biossl import __version__
from biossl.atomic import write_text
from biossl.compare import table
from biossl.compare.corrupt import corruptions
from biossl.compare.cost import Cost, measure, steps_for
from biossl.compare.identity import check_identity
from biossl.compare.jobs import Common, Job, do, load, make_jobs, slug
from biossl.compare.mixtures import Mixture, Sources, check_mixtures
from biossl.compare.plan import ALL, N_DRAWS, agree, for_budget, make_folds, make_settings, own_steps
from biossl.corpus import Corpus
from biossl.corpus.splits import default_split
from biossl.errors import DataError, RequestError
from biossl.ledger import FILE, commit, openings, record_opening
from biossl.models.encoder import pool_parts
from biossl.probe import count_rows
from biossl.recipe.limits import check_limits
from biossl.recipe.plan import refuse_breaking
from biossl.recipe.schema import Recipe

FORMAT = 1


def compare(
    recipes: Sequence[Recipe],
    corpus: str | Path | Corpus,
    label: str,
    *,
    out: str | Path,
    split: str | None = None,
    folds: int | None = None,
    within: str | None = None,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    flops: float | None = None,
    seconds: float | None = None,
    fractions: Sequence[float] | None = None,
    n_subjects: Sequence[int] | None = None,
    draws: int = N_DRAWS,
    pool: str = "mean+std+max",
    identity: Sequence[str] = ("subject",),
    corrupt: Sequence[str] = (),
    model_from: Recipe | None = None,
    pretrain_on: Sequence[Sequence[tuple[Corpus, float]]] = (),
    n_jobs: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Pretrain and judge recipes that differ in nothing but the method.

    Parameters
    ----------
    recipes : sequence of Recipe
        Their ``model`` and ``data`` sections must agree; ``data.batch_size`` only where the budget is in steps.
    corpus : path or Corpus
    label : str
        What heads predict; never seen in pretraining.
    out : path
        Folder of the comparison. Finished runs and jobs in it that fit the request are used again.
    split : str, optional
        Default ``official`` or the only one; pretraining and heads use part ``train``, part ``test`` is judged. All folds of
        a split that was made with folds.
    folds : int, optional
        Grouped folds over the subjects instead; everything is pretrained anew in each.
    within : str, optional
        With ``folds``: subjects of this part of the split only (``train``: nothing of the test part is opened).
    seeds : sequence of int
        Of initial weights and training.
    steps, flops, seconds : optional
        Budget of one pretraining; default the recipes' own steps, where they agree. ``seconds`` depends on the machine.
    fractions : sequence of float, optional
        Shares of labelled windows, default 0.01, 0.1; all labels always.
    n_subjects : sequence of int, optional
        Numbers of labelled subjects, default 1, 2, 5 where there are more.
    draws : int
        Of each scarce setting; shared out over the seeds.
    pool : str
    identity : sequence of str
        ``subject`` and columns of the index such as ``site`` or ``device``.
    corrupt : sequence of str
        Also judge on corrupted test windows: ``lead_off``, ``burst``, ``gap``.
    model_from : Recipe, optional
        Its backbone replaces that of every recipe.
    pretrain_on : sequence of sequence of (Corpus, weight), optional
        What is pretrained on in place of the judged corpus; of several mixtures each is a row of every recipe. See
        :class:`~biossl.compare.mixtures.Mixture` for whose windows are used.
    n_jobs : int
        Jobs side by side, each in a process of its own with its share of the cores.
    overwrite : bool
        Replace the table of another comparison in ``out``.

    Returns
    -------
    dict
        Plain values, also in ``out/compare.json``; rows a seed and fold in ``out/compare.csv``.

    Raises
    ------
    RequestError
        Recipes that differ in backbone or data, options that do not go together, another comparison in ``out``.
    DataError
        Label or split cannot be used, a training is not finite.

    Examples
    --------
    >>> recipes = [load_recipe("imu/jepa_small"), load_recipe("imu/mae_small")]        # doctest: +SKIP
    >>> compare(recipes, "corpora/hapt", "activity6", out="compared", folds=5, within="train")  # doctest: +SKIP
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    folder = Path(out)
    recipes = agree(recipes, model_from, own_batch=flops is not None or seconds is not None)
    for recipe in recipes:
        check_limits(recipe)
    if recipes[0].modality != corpus.spec.modality:
        raise RequestError(
            f"{recipes[0].source or recipes[0].name}: for {recipes[0].modality}, the signals of {corpus.path} are {corpus.spec.modality}; "
            f"take recipes of {corpus.spec.modality}/ (`biossl list recipes`)"
        )
    pool_parts(pool)
    _check(seeds, draws, steps, flops, seconds, n_jobs)
    mixtures = [Mixture(tuple(m)) for m in pretrain_on] or [Mixture()]
    check_mixtures(mixtures, corpus, recipes[0].data.channels)
    if len(mixtures) > 1:
        recipes = [dataclasses.replace(r, name=f"{r.name} on {m.text}") for r in recipes for m in mixtures]
    refuse_breaking(recipes, corpus, label)
    check_identity(corpus, tuple(identity))
    worse = corruptions(tuple(corrupt), len(recipes[0].data.channels or corpus.spec.ch_names))
    rows, parts, notes = make_folds(corpus, label, split=split, folds=folds, within=within)
    settings = make_settings(rows, parts, fractions, n_subjects)
    kind, amount = _budget(recipes, steps, flops, seconds)
    request = {
        "recipes": {r.name: r.hash for r in recipes}, "corpus": corpus.hash, "label": label, "folds": [f.split for f in parts],
        "seeds": list(seeds), "budget": {"kind": kind, "amount": amount}, "settings": [s.key for s in settings], "draws": draws,
        "pool": pool, "identity": list(identity), "corrupt": list(corrupt),
        "pretrained_on": [[[c.hash, w] for c, w in m.corpora] for m in mixtures],
    }  # fmt: skip
    finished = _finished(folder, request, overwrite)
    if finished is not None:
        return finished
    every = [[m.sources(fold) for m in mixtures] * (len(recipes) // len(mixtures)) for fold in parts]
    costs = {
        r.name: _cost(folder, r, some, parts[0].split, timed=kind == "seconds") for r, some in zip(recipes, every[0], strict=True)
    }
    budgeted = [for_budget(r, steps_for(r, costs[r.name], kind, amount), r.seed) for r in recipes]
    common = Common(rows, parts, settings, worse, list(seeds), draws, pool, tuple(identity), folder, budgeted[0])
    jobs = make_jobs(common, [[dataclasses.replace(r, seed=s) for r in budgeted] for s in seeds], every, corpus, label)
    done = _work(jobs, common, n_jobs)
    result: dict[str, Any] = {
        "format": FORMAT, "biossl": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "request": request,
        "label": label, "kind": rows.target.kind, "classes": list(rows.target.classes), "metric": rows.target.metric,
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "view": corpus.view, "hash": corpus.hash},
        "folds": [
            {"split": f.split, "train": count_rows(corpus, rows, f.train), "judged": count_rows(corpus, rows, f.judged)}
            for f in parts
        ],
        "within": within, "seeds": list(seeds), "draws": draws, "pool": pool,
        "budget": {"kind": kind, "amount": amount, "machine_dependent": kind == "seconds"},
        "recipes": [_recipe_row(r, costs[r.name]) for r in budgeted], "pretrained_on": [m.text for m in mixtures],
    }  # fmt: skip
    arrays, each = table.gather(common, jobs)
    result["models"] = table.model_rows(common, jobs, done)
    result["scores"] = table.score_rows(common, arrays)
    result["paired"] = table.paired_rows(common, arrays, [r.name for r in budgeted], result["scores"])
    result["rows"] = table.fold_rows(common, each)
    result["notes"] = [*notes, *_notes(result, common)]
    _opened(result, common, corpus, split if split is not None else default_split(corpus)[0], within, done)
    result["out"] = str(folder)
    _write(folder, result)
    return result


def _check(seeds: Sequence[int], draws: int, steps: int | None, flops: float | None, seconds: float | None, n_jobs: int) -> None:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise RequestError(f"--seeds {' '.join(map(str, seeds))}: give different numbers, 0 or more")
    if draws < 1:
        raise RequestError(f"--draws {draws}: give 1 or more")
    given = [name for name, v in (("--steps", steps), ("--flops", flops), ("--seconds", seconds)) if v is not None]
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)}: one budget at a time; give one of them")
    for name, value in (("steps", steps), ("flops", flops), ("seconds", seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise RequestError(f"--{name} {value:g}: give a number above 0")
    if n_jobs < 1:
        raise RequestError(f"--jobs {n_jobs}: give 1 or more")
    if n_jobs > 1 and seconds is not None:
        raise RequestError(f"--jobs {n_jobs}: --seconds times one pretraining that has the machine to itself; give one of them")


def _budget(recipes: Sequence[Recipe], steps: int | None, flops: float | None, seconds: float | None) -> tuple[str, float]:
    for kind, value in (("steps", steps), ("flops", flops), ("seconds", seconds)):
        if value is not None:
            return kind, value
    return "steps", own_steps(recipes)


def _finished(folder: Path, request: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The result of the same request, if it is there; RequestError for that of another."""
    file = folder / "compare.json"
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: not a folder; give another --out")
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        there = found["request"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file}: damaged; remove it and give the same command again") from None
    if there == json.loads(json.dumps(request)):
        return found
    if overwrite:
        return None
    key = next(k for k in request if there.get(k) != json.loads(json.dumps(request[k])))
    raise RequestError(
        f"{file}: the table of another comparison ('{key}' differs); give another --out, or --overwrite (its runs that fit are used)"
    )


def _cost(folder: Path, recipe: Recipe, sources: Sources, split: str, *, timed: bool) -> Cost:
    """Measured once a recipe and corpus, and kept, so that a comparison that goes on buys the same steps."""
    file = folder / "cost" / f"{slug(recipe.name)}-{recipe.hash[:8]}-{sources[0][0].hash[:8]}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        cost = Cost(int(kept["flops"]), float("nan") if kept["seconds"] is None else float(kept["seconds"]))
        if not timed or cost.seconds == cost.seconds:
            return cost
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _say(f"compare: measuring one step of {recipe.name}")
    cost = measure(recipe, sources, split, timed=timed)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"flops": cost.flops, "seconds": cost.seconds if timed else None}) + "\n")
    return cost


def _work(jobs: Sequence[Job], common: Common, n_jobs: int) -> dict[str, dict[str, Any]]:
    """Every job that is still to do, with the time that is left; what all of them left."""
    done = {j.name: found for j in jobs if (found := load(j, common)) is not None}
    left = [j for j in jobs if j.name not in done]
    if done:
        _say(f"compare: {len(done)} of {len(jobs)} jobs are done already")
    spent: dict[str, list[float]] = {}
    if n_jobs > 1 and left:
        from joblib import Parallel, delayed

        # when the command is stopped, the tracker of the workers would speak of semaphores to a person
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
        threads = max(1, torch.get_num_threads() // n_jobs)
        work = (delayed(_alone)(job, common, threads) for job in left)
        ahead = {j.name: j for j in left}
        for name, found, seconds in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(work):
            job = ahead.pop(name)
            done[name] = found
            spent.setdefault(job.model, []).append(seconds)
            time_left = _seconds_left(list(ahead.values()), spent, n_jobs)
            _say(f"compare: {len(done)} of {len(jobs)} jobs done: {_of(job)}, {seconds:.0f} s{time_left}")
        return done
    for number, job in enumerate(left):
        _say(f"compare: job {len(done) + 1} of {len(jobs)}: {_of(job)}{_seconds_left(left[number:], spent)}")
        began = time.monotonic()
        done[job.name] = do(job, common)
        spent.setdefault(job.model, []).append(time.monotonic() - began)
    return done


def _alone(job: Job, common: Common, threads: int) -> tuple[str, dict[str, Any], float]:
    """One job in a process of its own: its name, what it left, seconds. Its progress would run into that of the others."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):
        found = do(job, common)
    return job.name, found, time.monotonic() - began


def _of(job: Job) -> str:
    return f"{job.model}, seed {job.seed}, fold {job.fold.number}"


def _seconds_left(jobs: Sequence[Job], spent: dict[str, list[float]], n_jobs: int = 1) -> str:
    if not spent or not jobs:
        return ""
    mean = {model: sum(s) / len(s) for model, s in spent.items()}
    usual = sum(mean.values()) / len(mean)
    seconds = sum(mean.get(j.model, usual) for j in jobs) / n_jobs
    about = "about" if all(j.model in spent for j in jobs) else "a guess, since some models have not been timed yet:"
    return f" ({about} {seconds / 60:.0f} min left)" if seconds > 90 else f" ({about} {seconds:.0f} s left)"


def _recipe_row(recipe: Recipe, cost: Cost) -> dict[str, Any]:
    steps = recipe.train.steps
    return {
        "name": recipe.name, "source": recipe.source, "hash": recipe.hash, "objective": recipe.objective.name, "steps": steps,
        "windows": steps * recipe.data.batch_size, "flops_per_step": cost.flops, "flops": cost.flops * steps,
        "seconds_per_step": cost.seconds if cost.seconds == cost.seconds else None,
    }  # fmt: skip


def _notes(result: dict[str, Any], common: Common) -> list[str]:
    notes = [f"{m['model']}: collapse alarm, {m['alarms'][0]}" for m in result["models"] if m["alarms"]]
    subjects = len(set(common.rows.subject[table.judged(common)]))
    if subjects < 15:
        notes.append(f"{subjects} judged subjects: intervals over so few are wide at best")
    if len(common.seeds) < 5:
        notes.append(f"{len(common.seeds)} seed{'s' if len(common.seeds) > 1 else ''}: a claim needs at least five")
    if len(common.settings) > 1:
        drawn = "one draw" if common.n_draws == 1 else f"{common.n_draws} draws, shared out over the seeds"
        covered = ["subjects", *(["seeds"] if len(common.seeds) > 1 else []), *(["draws"] if common.n_draws > 1 else [])]
        notes.append(
            f"scarce labels: {drawn}; intervals cover {' and '.join(covered) if len(covered) < 3 else 'subjects, seeds and draws'}"
        )
    notes.append(
        f"{len(result['paired'])} differences are shown and none is corrected for their number: of twenty without a true difference one "
        "excludes 0 by chance"
    )
    if len(result["recipes"]) > 1:
        notes.append("the best recipe of a row was picked on the rows it is judged on: its lead over the others is optimistic")
    if result["budget"]["machine_dependent"]:
        steps = ", ".join(f"{r['name']} {r['steps']}" for r in result["recipes"])
        notes.append(f"the budget in seconds bought steps on this machine at that hour: {steps}")
    if common.corruptions:
        notes.append(
            "corrupted windows: what is lost reaches encoders as not observed, MiniRocket as the mean, hand features as unknown"
        )
    return notes


def _opened(
    result: dict[str, Any], common: Common, corpus: Corpus, split: str | None, within: str | None, done: dict[str, dict[str, Any]]
) -> None:
    """A line in the ledger when rows of a test part were judged; none where these very jobs have theirs already."""
    if within == "train" or split is None:
        return
    main = {s["model"]: s["scores"][result["metric"]] for s in result["scores"] if s["key"] == ALL.key and s["head"] != "kNN"}
    best = max((r["name"] for r in result["recipes"]), key=lambda name: main[name]["value"] or 0.0)
    # a comparison killed before its table was written reads the same job files, times and all, when it goes on
    jobs = hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()[:16]
    for place in (corpus.path, common.out):
        entries = openings(place, result["label"])
        if any(e.get("jobs") == jobs for e in entries):
            result["ledger"] = {"file": str(place / FILE), "openings": len(entries)}
            return
    entry = {
        "verb": "compare", "jobs": jobs, "corpus": corpus.hash, "recipes": result["request"]["recipes"], "label": result["label"],
        "split": split, "part": within or "test", "pool": common.pool, "metric": result["metric"], "score": main[best],
        "models": {name: found["value"] for name, found in main.items()}, "seeds": common.seeds, "folds": len(common.folds),
    }  # fmt: skip
    file, times = record_opening([corpus.path, common.out], entry)
    result["ledger"] = {"file": str(file), "openings": times}


def _write(folder: Path, result: dict[str, Any]) -> None:
    columns = list(result["rows"][0])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["rows"])
    write_text(folder / "compare.csv", text.getvalue())
    write_text(folder / "compare.json", json.dumps(result, indent=1, allow_nan=False) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
