"""A cross-validated evaluation as rows of text, and its printed form.

What lives here: text only, from the plain values of :func:`biossl.downstream.evaluate_folds.evaluate_folds`.
"""

from __future__ import annotations

from typing import Any

from biossl.downstream.delineation_text import SHOWN, caption_lines, event_tables, subject_event_rows
from biossl.downstream.evaluate_text import rival_rows
from biossl.probe_text import (
    METRIC_NAMES,
    class_rows,
    count_line,
    interval,
    number,
    over_seeds,
    resampled,
    seed_range,
    table,
    verdict,
    warnings,
)  # fmt: skip

Rows = list[list[str]]


def as_text(result: dict[str, Any]) -> str:
    """Several lines for a terminal.

    Parameters
    ----------
    result : dict
        From :func:`biossl.downstream.evaluate_folds.evaluate_folds`.
    """
    lines = [f"{heading(result)}; {model_line(result)}", count_line("judged", result["counts"], result.get("absent", ()))]
    lines += [
        f"seen in training: {result['seen']['subjects']} of the {result['seen']['of']} judged subjects",
        *warnings(result),
        "",
    ]
    lines += table(score_rows(result))
    people = subject_rows(result) if len(result["per_subject"]) <= SHOWN else []
    blocks = [rival_rows(result), subject_rival_rows(result), fold_rows(result), people]
    for rows in [*blocks, class_rows(result) if result["per_class"] else []]:
        lines += ["", *table(rows)] if rows else []
    if result["kind"] == "dense":
        lines += ["", *caption_lines(event_tables(result))[:-1]]
    if "ledger" in result:
        lines += ["", f"test openings of this label so far: {result['ledger']['openings']} ({result['ledger']['file']})"]
    lines += [f"note: {n}" for n in result["notes"]]
    lines.append(f"written: {result['out']}/results.json, predictions.parquet")
    return "\n".join(lines)


def heading(result: dict[str, Any]) -> str:
    """``task (multiclass), eegmat view rest_task, all 5 folds of split cv``."""
    corpus, n = result["corpus"], len(result["folds"])
    where = f"all {n} folds of split {result['split']}" if n else f"split {result['split']}, part {result['part']}"
    where = "no split" if result["split"] is None else where
    return f"{result['label']} ({result['kind']}), {corpus['name']} view {corpus['view']}, {where}"


def model_line(result: dict[str, Any]) -> str:
    """``25 locked models (5 seeds), mode full, nothing refitted``."""
    model, n = result["model"], len(result["seeds"])
    seeds = f"seed {result['seeds'][0]}" if n == 1 else f"{n} seeds"
    return f"{len(model['members'])} locked models ({seeds}), mode {model['mode']}, nothing refitted"


def score_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a metric: pooled over all rows, then as means over subjects."""
    rows = [["metric", over_seeds(result, "value"), "lowest to highest seed"]]
    rows += [[METRIC_NAMES[m], f"{interval(v)}{_reason(v)}", seed_range(v)] for m, v in result["scores"].items()]
    for m, v in result["subject_means"].items():
        rows.append(
            [f"{METRIC_NAMES[m]}, mean over {v['n_subjects']} {resampled(result)}", f"{interval(v)}{_reason(v)}", seed_range(v)]
        )
    return rows


def fold_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a fold; empty without folds."""
    if not result["folds"]:
        return []
    name = result["metric"]
    rows = [["fold", resampled(result), "windows", over_seeds(result, METRIC_NAMES[name]), "lowest to highest seed"]]
    for f in result["folds"]:
        rows.append(
            [str(f["fold"]), str(f["subjects"]), f"{f['windows']:,}", number(f[name]["value"]) + _reason(f), seed_range(f[name])]
        )
    return rows


def subject_rows(result: dict[str, Any], *, names: bool = True) -> Rows:
    """Header and one row a subject, from lowest to highest; empty where subjects have no score of their own."""
    measures = list(result["subject_means"])
    if not measures or not result["per_subject"]:
        return []
    if result["kind"] == "dense":
        return subject_event_rows(result, names=names)
    head = [resampled(result)[:-1], "fold", "windows"]
    for m in measures:
        head += [over_seeds(result, METRIC_NAMES[m]), "lowest to highest seed"]
    rows = [head]
    for k, s in enumerate(sorted(result["per_subject"], key=lambda s: _low_first(s[measures[-1]]["value"]))):
        cells = [s["subject"] if names else str(k + 1), "-" if s["fold"] is None else str(s["fold"]), f"{s['n']:,}"]
        for m in measures:
            cells += [number(s[m]["value"]), seed_range(s[m])]
        rows.append(cells)
    return rows


def subject_rival_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a simple model and score of subjects; empty without any."""
    rows = [["simple model", f"mean over {resampled(result)}", "locked minus simple"]]
    for r in result["rivals"]:
        for m, v in r["subject_means"].items():
            lower = m == "mae"  # a lower error is the better one
            said = "" if lower else verdict(v["minus"])
            rows.append([f"{r['model']}, {METRIC_NAMES[m]}", interval(v["score"]), f"{interval(v['minus'], signed=True)}{said}"])
    return rows if len(rows) > 1 else []


def _low_first(value: float | None) -> float:
    return float("inf") if value is None else value


def _reason(entry: dict[str, Any]) -> str:
    return f" ({entry['reason']})" if entry.get("reason") else ""
