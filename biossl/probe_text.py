"""The printed form of a probe result: an aligned table with intervals, and what to know before believing it.

What lives here: text only, from the plain values of :func:`biossl.probe.probe`.
"""

from __future__ import annotations

from typing import Any

METRIC_NAMES = {
    "macro_f1": "macro F1", "accuracy": "accuracy", "balanced_accuracy": "balanced acc.", "macro_auroc": "macro AUROC",
    "r2": "R2", "mae": "MAE", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC",
}  # fmt: skip


def as_text(result: dict[str, Any]) -> str:
    """Several lines for a terminal.

    Parameters
    ----------
    result : dict
        From :func:`biossl.probe.probe`.
    """
    seen = result["seen"]
    what = f"{result['label']} ({result['kind']}), {result['corpus']['name']} view {result['corpus']['view']}"
    lines = [
        f"{what}, split {result['split'] or 'none'}, judged on {result['part']}, pool {result['pool']}, seed {result['seed']}"
    ]
    lines += [count_line(name, counts) for name, counts in result["counts"].items() if isinstance(counts, dict)]
    lines.append(f"seen in pretraining: {seen['subjects']} of the {seen['of']} judged subjects")
    lines += ["", *table(model_rows(result)), "", *paired_lines(result)]
    if "cross_validation" in result:
        cross = result["cross_validation"]
        n = cross["counts"]["subjects"]
        lines += [
            "",
            f"cross-validation grouped by subject over all {n} subjects ({cross['seen']} of them seen, unlabelled, in pretraining)",
        ]
        lines += [*table(model_rows(result | cross)), "", *paired_lines(result | cross)]
    if result.get("layers"):
        rows = [["block", METRIC_NAMES[result["metric"]], "in training"]]
        rows += [[str(r["layer"]), interval(r), number(r["inner"])] for r in result["layers"]]
        lines += ["", "linear probe of each block (choose one by the figure in training)", *table(rows)]
    if result["per_class"]:
        lines += ["", *table(class_rows(result))]
    spread = result["per_subject"]
    if spread:
        low, first, middle, third, high = (number(v) for v in spread["quartiles"])
        name = METRIC_NAMES[spread["metric"]]
        lines += ["", f"{name} per subject: median {middle}, middle half {first} to {third}, range {low} to {high}"]
    if "ledger" in result:
        lines += ["", f"test openings of this label so far: {result['ledger']['openings']} ({result['ledger']['file']})"]
    lines += [f"note: {n}" for n in result["notes"]]
    if result["out"]:
        lines.append(f"written: {result['out']}")
    return "\n".join(lines)


def count_line(name: str, counts: dict[str, Any]) -> str:
    """``train: 7,415 windows of 21 subjects (1,226 WALKING, ...)``."""
    text = f"{name}: {counts['windows']:,} windows of {counts['records']:,} records, {counts['subjects']:,} subjects"
    classes = counts.get("classes")
    return text + (f" ({', '.join(f'{c} {n:,}' for c, n in classes.items())})" if classes else "")


def model_rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row a model and head: each metric as value [low, high]."""
    names = list(result["models"][0]["scores"])
    rows = [["model", "head", *(METRIC_NAMES[m] for m in names)]]
    for entry in result["models"]:
        n = f" (mean of {entry['n']})" if entry["n"] > 1 else ""
        rows.append([entry["model"] + n, entry["head"], *(interval(entry["scores"][m]) for m in names)])
    return rows


def paired_lines(result: dict[str, Any]) -> list[str]:
    """``pretrained - random-initialised, linear, macro F1: +0.021 [+0.004, +0.038]``."""
    out = []
    for d in result["paired"]:
        name = METRIC_NAMES[d["metric"]]
        out.append(f"pretrained - {d['minus']}, {d['head']}, {name}: {interval(d, signed=True)}{verdict(d)}")
    return out


def verdict(difference: dict[str, Any]) -> str:
    """Whether an interval excludes 0, in words; higher is better for every metric that decides."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return ""
    return ", better" if low > 0 else ", worse" if high < 0 else ", no difference shown"


def class_rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row a class."""
    measures = [k for k in result["per_class"][0] if k not in ("class", "n")]
    rows = [["class", "judged", *(METRIC_NAMES.get(m, m) for m in measures)]]
    return rows + [[r["class"], f"{r['n']:,}", *(number(r[m]) for m in measures)] for r in result["per_class"]]


def interval(value: dict[str, Any], *, signed: bool = False) -> str:
    """``0.915 [0.880, 0.941]``; the bracket is left out when there is none."""
    text = number(value["value"], signed=signed)
    if value["low"] is None:
        return text
    return f"{text} [{number(value['low'], signed=signed)}, {number(value['high'], signed=signed)}]"


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, or a dash when it could not be computed."""
    return "-" if value is None else f"{value:+.3f}" if signed else f"{value:.3f}"


def table(rows: list[list[str]]) -> list[str]:
    """Rows aligned in columns: text to the left, the header underlined."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
