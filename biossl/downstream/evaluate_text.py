"""The tables of an evaluation as rows of text, and its printed form.

What lives here: text only, from the plain values of :func:`biossl.downstream.evaluate.evaluate`.
"""

from __future__ import annotations

from typing import Any

from biossl.downstream.delineation_text import dense_lines
from biossl.probe_text import (
    METRIC_NAMES,
    class_rows,
    count_line,
    interval,
    number,
    resampled,
    split_name,
    table,
    verdict,
    warnings,
)

Rows = list[list[str]]


def as_text(result: dict[str, Any]) -> str:
    """Several lines for a terminal.

    Parameters
    ----------
    result : dict
        From :func:`biossl.downstream.evaluate.evaluate`.
    """
    lines = [
        f"{heading(result)}; locked model, mode {result['model']['mode']}, nothing refitted",
        judged_line(result),
    ]
    lines += [
        f"seen in training: {result['seen']['subjects']} of the {result['seen']['of']} judged subjects",
        *warnings(result),
        "",
    ]
    if result["kind"] == "dense":
        return "\n".join([*lines, *dense_lines(result), *_end(result)])
    lines += table(score_rows(result))
    for rows in (rival_rows(result), class_rows(result) if result["per_class"] else []):
        lines += ["", *table(rows)] if rows else []
    lines += ["", *table(stress_rows(result))] if "stress" in result else []
    lines += ["", *calibration_lines(result), *threshold_lines(result)]
    lines += ["", *table(coverage_rows(result))]
    for name in result["groups"]:
        lines += ["", *table(group_rows(result, name))]
    return "\n".join([*lines, "", *_end(result)])


def _end(result: dict[str, Any]) -> list[str]:
    """Openings, notes, where it lies."""
    lines = []
    if "ledger" in result:
        lines += [f"test openings of this label so far: {result['ledger']['openings']} ({result['ledger']['file']})"]
    lines += [f"note: {n}" for n in result["notes"]]
    return [*lines, f"written: {result['out']}/results.json, predictions.parquet"]


def heading(result: dict[str, Any]) -> str:
    """``activity6 (multiclass), hapt view activity, split official, part test``."""
    corpus = result["corpus"]
    where = f"{split_name(result['split'])}, part {result['part']}"
    return f"{result['label']} ({result['kind']}), {corpus['name']} view {corpus['view']}, {where}"


def judged_line(result: dict[str, Any]) -> str:
    """What was judged, with the number of recordings or subjects where windows were pooled."""
    per = result.get("per", "window")
    name = "judged" if per == "window" else f"judged as {result['counts']['units']:,} {per}s"
    return count_line(name, result["counts"], result.get("absent", ()))


def score_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a metric."""
    return [["metric", "value"], *([METRIC_NAMES[m], f"{interval(v)}{_reason(v)}"] for m, v in result["scores"].items())]


def rival_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a simple or other locked model; empty without any."""
    if not result["rivals"]:
        return []
    head = ["beside it", METRIC_NAMES[result["metric"]], "this model minus that"]
    return [
        head,
        *([r["model"], _score(r), f"{interval(r['minus'], signed=True)}{verdict(r['minus'])}"] for r in result["rivals"]),
    ]


def confusion(result: dict[str, Any]) -> tuple[list[str], list[list[int]]]:
    """Classes and rows of the confusion matrix, but for those that nobody has."""
    shown = [k for k, c in enumerate(result["classes"]) if c not in result.get("absent", ())]
    return [result["classes"][k] for k in shown], [[result["confusion"][i][k] for k in shown] for i in shown]


def stress_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a condition of degraded input: score, difference to the clean one, what the model itself notices."""
    rows = [["input", METRIC_NAMES[result["metric"]], "worse minus clean", "unfamiliar", "no decision", "score of the decided"]]
    for e in result["stress"]:
        share = ["-" if e[k] is None else f"{100 * e[k]:.1f} %" for k in ("unfamiliar", "abstain")]
        minus = f"{interval(e['minus'], signed=True)}{verdict(e['minus'])}" if e["minus"] else "-"
        rows.append([e["name"], _score(e), minus, *share, interval(e["kept"]) if e["kept"] else "-"])
    return rows


def calibration_lines(result: dict[str, Any]) -> list[str]:
    """Calibration error of the top label or of each class."""
    entries = [(k, e) for k, e in (result["calibration"] or {}).items() if k not in result.get("absent", ())]
    return [f"calibration error of {name}: {number(e['ece'])}{_reason(e)}" for name, e in entries if isinstance(e, dict)]


def threshold_lines(result: dict[str, Any]) -> list[str]:
    """What each frozen threshold gave in training and gives here."""
    out = []
    for point in result["thresholds"]:
        then = f"sensitivity {number(point['sensitivity'])}, specificity {number(point['specificity'])}"
        here = point.get("here")
        now = f"here {interval(here['sensitivity'])} and {interval(here['specificity'])}" if here else f"here -{_reason(point)}"
        out.append(f"threshold {point['threshold']:.3f} of {point['class']} (in training: {then}): {now}")
    return out


def coverage_rows(result: dict[str, Any]) -> Rows:
    """Header and one row a rule by which windows keep their decision."""
    rows = [[f"{result.get('per', 'window')}s kept", "share", METRIC_NAMES[result["metric"]]]]
    return rows + [[c["kept"], f"{100 * c['share']:.1f} %", _score(c)] for c in result["coverage"]]


def group_rows(result: dict[str, Any], name: str) -> Rows:
    """Header and one row a group of a covariate."""
    rows = [[name, resampled(result), METRIC_NAMES[result["metric"]], "minus the rest"]]
    for g in result["groups"][name]:
        rows.append([g["name"], str(g["n_subjects"]), _score(g), interval(g["gap"], signed=True) if g["gap"] else "-"])
    return rows


def _score(entry: dict[str, Any]) -> str:
    return f"{interval(entry['score'])}{_reason(entry['score']) or _reason(entry)}" if entry["score"] else f"-{_reason(entry)}"


def _reason(entry: dict[str, Any]) -> str:
    return f" ({entry['reason']})" if entry.get("reason") else ""
