"""From the predictions of all jobs to scores with intervals, paired differences and rows of the CSV.

What lives here: joining folds, seeds and draws, and the comparisons that are made. Intervals and differences are
``metrics.py``'s: subjects are resampled with all their rows, and in each resample seeds and draws anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics
from biossl.compare.corrupt import Corruption
from biossl.compare.jobs import HEADS, ROCKET, SCRATCH, SEEDLESS, Common, Job, predictions
from biossl.compare.plan import ALL, Setting, pairs
from biossl.probe import HAND, RANDOM
from biossl.progress import track

Array = NDArray[Any]
Table = dict[tuple[str, str, str], list[Array]]  # (model, head, setting or setting|corruption) -> one array a seed and draw


def gather(common: Common, jobs: Sequence[Job]) -> tuple[Table, dict[tuple[str, int, int], dict[str, Array]]]:
    """Predictions of all judged rows, folds joined: a list over seeds and draws, in the order of :func:`plan.pairs`.

    Returns
    -------
    table : dict
        Arrays are aligned to :func:`judged`.
    each : dict
        (model, seed, fold) -> as the job wrote it.
    """
    each = {(j.model, j.seed, j.fold.number): predictions(j, common) for j in track(jobs, len(jobs), "read", "jobs")}
    table: Table = {}
    for model in dict.fromkeys(j.model for j in jobs):
        first = next(j for j in jobs if j.model == model)
        for key in each[model, first.seed, first.fold.number]:
            head, _, setting = key.partition("|")
            n = 1 if _parts(common, setting)[0] == ALL else common.n_draws
            order: list[tuple[int, int]] = []  # (seed, place within that seed's job)
            if model in SEEDLESS:  # its one job has every draw; alone where all labels are used, otherwise paired like the others
                order = [(first.seed, d) for _, d in pairs(n, common.seeds)] if n > 1 else [(first.seed, 0)]
            else:
                used = [0] * len(common.seeds)
                for place, _ in pairs(n, common.seeds):
                    order.append((common.seeds[place], used[place]))
                    used[place] += 1
            table[model, head, setting] = [
                np.concatenate([each[model, seed, fold.number][key][i].astype(np.float64) for fold in common.folds])
                for seed, i in order
            ]
    return table, each


def judged(common: Common) -> Array:
    """Positions in ``Rows`` of everything that is judged, fold after fold."""
    return np.concatenate([f.judged for f in common.folds])


def score_rows(common: Common, table: Table) -> list[dict[str, Any]]:
    """One entry a model, head and setting: every metric with its interval over subjects, seeds and draws."""
    at = judged(common)
    target, subject = common.rows.target.take(at), common.rows.subject[at]
    out = []
    for (model, head, key), several in track(table.items(), len(table), "intervals", "rows"):
        setting, how = _parts(common, key)
        entry: dict[str, Any] = {"model": model, "head": head, **_place(setting, how), "n": len(several), "scores": {}}
        wanted = metrics.METRICS[target.kind] if setting == ALL and how is None else (target.metric,)
        for metric in wanted:
            interval = metrics.subject_bootstrap(target.y, several, subject, metric).to_dict()
            values = [metrics.score(target.y, p, metric) for p in several]
            entry["scores"][metric] = interval | {"min": _plain(min(values)), "max": _plain(max(values))}
        out.append(entry)
    return out


def paired_rows(common: Common, table: Table, recipes: Sequence[str], scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences in the main metric: every recipe minus each baseline, the best recipe minus the others.

    The best recipe of a setting is the one with the highest linear score there; it was picked on the rows it is judged on.
    """
    at = judged(common)
    target, subject = common.rows.target.take(at), common.rows.subject[at]
    wanted: list[tuple[str, str, str, str, str]] = []
    for key in dict.fromkeys(k for m, h, k in table if h == "linear"):
        have = {
            m: v["scores"][target.metric]["value"]
            for v in scores
            for m in [v["model"]]
            if v["head"] == "linear" and v["key"] == key
        }
        ranked = sorted((r for r in recipes if have.get(r) is not None), key=lambda r: -have[r])
        for recipe in recipes:
            wanted += [(recipe, "linear", other, HEADS.get(other, "linear"), key) for other in (RANDOM, SCRATCH, ROCKET, HAND)]
        wanted += [(ranked[0], "linear", other, "linear", key) for other in ranked[1:]]
    wanted += [(recipe, "kNN", RANDOM, "kNN", ALL.key) for recipe in recipes]
    out = []
    for a, head, b, other_head, key in track(wanted, len(wanted), "differences", "pairs"):
        setting, how = _parts(common, key)
        difference = metrics.paired_difference(target.y, table[a, head, key], table[b, other_head, key], subject, target.metric)
        heads = {"model": a, "head": head, "minus": b, "minus_head": other_head}
        out.append({**heads, **_place(setting, how), "metric": target.metric, **difference.to_dict()})
    return out


def fold_rows(common: Common, each: dict[tuple[str, int, int], dict[str, Array]]) -> list[dict[str, Any]]:
    """One row a model, seed, fold, head and setting: the mean over the draws that fell to it, and their number."""
    out = []
    for (model, seed, number), arrays in each.items():
        fold = next(f for f in common.folds if f.number == number)
        target = common.rows.target.take(fold.judged)
        for key, several in arrays.items():
            head, _, rest = key.partition("|")
            setting, how = _parts(common, rest)
            values = [metrics.score(target.y, p.astype(np.float64), target.metric) for p in several]
            known = [v for v in values if not np.isnan(v)]
            out.append({
                "model": model, "seed": None if model in SEEDLESS else seed, "fold": number, "head": head, **_place(setting, how),
                "metric": target.metric, "value": float(np.mean(known)) if known else None, "draws": len(values),
            })  # fmt: skip
    return out


def model_rows(common: Common, jobs: Sequence[Job], done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a model: rank, identity and cost, means over its seeds and folds."""
    out = []
    for model in dict.fromkeys(j.model for j in jobs):
        found = [done[j.name] for j in jobs if j.model == model]
        entry: dict[str, Any] = {"model": model, "jobs": len(found), "features": found[0].get("features")}
        entry["rankme"] = _mean([f.get("rankme") for f in found])
        entry["identity"] = {
            kind: {
                "balanced_accuracy": _mean([f["identity"][kind]["balanced_accuracy"] for f in found]),
                "chance": _mean([f["identity"][kind]["chance"] for f in found]),
            }
            for kind in (common.identity if "identity" in found[0] else ())
        }
        entry["train_s"] = _mean([f.get("wall_s") for f in found])
        entry["features_s"] = _mean([f.get("features_s") for f in found])
        entry["parameters"] = found[0].get("parameters")
        entry["alarms"] = [line for f in found for line in f.get("alarms") or []]
        out.append(entry)
    return out


def _parts(common: Common, key: str) -> tuple[Setting, Corruption | None]:
    name, _, worse = key.partition("|")
    setting = next(s for s in common.settings if s.key == name)
    return setting, next((c for c in common.corruptions if c.key == worse), None)


def _place(setting: Setting, how: Corruption | None) -> dict[str, Any]:
    key = setting.key + (f"|{how.key}" if how else "")
    return {
        "key": key, "axis": how.kind if how else setting.axis, "amount": how.amount if how else setting.amount,
        "text": how.text if how else setting.text,
    }  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
