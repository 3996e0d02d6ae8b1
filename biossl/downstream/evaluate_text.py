"""The printed form of an evaluation. What lives here: text only, from the plain values of :func:`biossl.downstream.evaluate.evaluate`."""

from __future__ import annotations

from typing import Any

from biossl.probe_text import METRIC_NAMES, class_rows, interval, number, split_name, table, verdict


def as_text(result: dict[str, Any]) -> str:
    """Several lines for a terminal.

    Parameters
    ----------
    result : dict
        From :func:`biossl.downstream.evaluate.evaluate`.
    """
    counts, model, metric = result["counts"], result["model"], result["metric"]
    classes = counts.get("classes")
    lines = [
        f"{result['label']} ({result['kind']}), {result['corpus']['name']} view {result['corpus']['view']}, "
        f"{split_name(result['split'])}, part {result['part']}; locked model, mode {model['mode']}, nothing refitted",
        f"judged: {counts['windows']:,} windows of {counts['records']:,} records, {counts['subjects']:,} subjects"
        + (f" ({', '.join(f'{c} {n:,}' for c, n in classes.items())})" if classes else ""),
        f"seen in training: {result['seen']['subjects']} of the {result['seen']['of']} judged subjects", "",
    ]  # fmt: skip
    rows = [
        ["metric", "value"],
        *([METRIC_NAMES[m], f"{interval(v)}{_reason(v)}"] for m, v in result["scores"].items()),
    ]
    lines += table(rows)
    if result["rivals"]:
        head = ["simple model", METRIC_NAMES[metric], "locked minus simple"]
        rows = [
            [r["model"], _score(r), f"{interval(r['minus'], signed=True)}{verdict(r['minus'])}" if r["minus"] else "-"]
            for r in result["rivals"]
        ]
        lines += ["", *table([head, *rows])]
    if result["per_class"]:
        lines += ["", *table(class_rows(result))]
    calibration = result["calibration"] or {}
    for name, entry in calibration.items():
        if isinstance(entry, dict):
            lines.append(f"calibration error of {name}: {number(entry['ece'])}{_reason(entry)}")
    for point in result["thresholds"]:
        here = point.get("here")
        if here:
            lines.append(
                f"threshold {point['threshold']:.3f} of {point['class']} (in training: sensitivity {number(point['sensitivity'])}, specificity "
                f"{number(point['specificity'])}): here {interval(here['sensitivity'])} and {interval(here['specificity'])}"
            )
    if result["coverage"]:
        rows = [
            ["windows kept", "share", METRIC_NAMES[metric]],
            *([c["kept"], f"{100 * c['share']:.1f} %", _score(c)] for c in result["coverage"]),
        ]
        lines += ["", *table(rows)]
    for name, groups in result["groups"].items():
        rows = [[name, "subjects", METRIC_NAMES[metric], "minus the rest"]]
        rows += [
            [g["name"], str(g["n_subjects"]), _score(g), interval(g["gap"], signed=True) if g["gap"] else "-"] for g in groups
        ]
        lines += ["", *table(rows)]
    if "ledger" in result:
        lines += ["", f"test openings of this label so far: {result['ledger']['openings']} ({result['ledger']['file']})"]
    lines += [f"note: {n}" for n in result["notes"]]
    lines.append(f"written: {result['out']}/results.json, predictions.parquet")
    return "\n".join(lines)


def _score(entry: dict[str, Any]) -> str:
    return f"{interval(entry['score'])}{_reason(entry['score'])}" if entry["score"] else f"-{_reason(entry)}"


def _reason(entry: dict[str, Any]) -> str:
    return f" ({entry['reason']})" if entry.get("reason") else ""
