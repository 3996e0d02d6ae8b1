"""The printed form of a probe result: an aligned table with intervals, and what to know before believing it.

What lives here: text only, from the plain values of :func:`biossl.probe.probe`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from biossl.corpus.within import WARNING

FEW = 15  # judged subjects under which intervals by resampling them are not to be trusted
METRIC_NAMES = {
    "macro_f1": "macro F1", "accuracy": "accuracy", "balanced_accuracy": "balanced acc.", "macro_auroc": "macro AUROC",
    "r2": "R2", "mae": "MAE", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC",
    "concordance": "concordance", "boundary_f1": "macro F1 of boundaries", "duration_f1": "macro F1 of seconds",
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
    lines = [f"{what}, {split_name(result['split'])}, judged on {result['part']}, pool {result['pool']}, seed {result['seed']}"]
    lines += [count_line(name, counts) for name, counts in result["counts"].items() if isinstance(counts, dict)]
    lines.append(f"seen in pretraining: {seen['subjects']} of the {seen['of']} judged subjects")
    lines += warnings(result)
    lines += ["", *table(model_rows(result))]
    lines += [positive_line(result)] if positive_line(result) else []
    lines += ["", *paired_lines(result)]
    if "cross_validation" in result:
        cross = result["cross_validation"]
        lines += ["", cross_line(cross), *table(model_rows(result | cross)), "", *paired_lines(result | cross)]
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
        lines += [
            "",
            f"{name} per {resampled(result)[:-1]}: median {middle}, middle half {first} to {third}, range {low} to {high}",
        ]
    if "ledger" in result:
        times = result["ledger"]
        here = f", {times['this_split']} on this split" if "this_split" in times else ""
        lines += ["", f"test openings of this label so far: {times['openings']}{here} ({times['file']})"]
    lines += [f"note: {n}" for n in result["notes"]]
    if result["out"]:
        lines.append(f"written: {result['out']}")
    return "\n".join(lines)


def resampled(result: dict[str, Any]) -> str:
    """What intervals are over and single scores are of: ``subjects``, or ``recordings`` of a within-subject split."""
    return "recordings" if result.get("within_subject") else "subjects"


def all_resampled(results: Iterable[dict[str, Any]]) -> str:
    """The same of several results; ``subjects`` of none."""
    return " or ".join(sorted({resampled(r) for r in results}, reverse=True)) or "subjects"


def split_name(split: str | None) -> str:
    """``no split``, ``split official`` or, of a split with folds, ``split cv fold 0``."""
    if split is None:
        return "no split"
    name, _, fold = split.rpartition(":")
    return f"split {name} fold {fold}" if name else f"split {split}"


def positive_line(result: dict[str, Any]) -> str:
    """Which class AUROC and AUPRC look for; '' when they are not in the table."""
    if "auprc" not in result["models"][0]["scores"]:
        return ""
    return f"AUROC and AUPRC are of class {result['classes'][-1]}"


def cross_line(cross: dict[str, Any]) -> str:
    """Over whom the cross-validation went, and that it flatters an encoder that has seen them."""
    n = cross["counts"]["subjects"]
    seen = f"; {cross['seen']} of them were seen, unlabelled, in pretraining: optimistic" if cross["seen"] else ""
    return f"cross-validation grouped by subject over all {n} subjects{seen}"


def warnings(result: dict[str, Any]) -> list[str]:
    """What has to be known before any figure of a result is read: split, confound, few people, classes that a mean lacks."""
    out = []
    if result.get("within_subject"):
        out.append(f"{WARNING}; intervals resample recordings, not subjects")
    if result.get("confounds"):
        out.append(f"confound of '{result['label']}': {result['confounds']}")
    people = result.get("seen", {}).get("of", FEW)
    if "scores" in result and people < FEW and not result.get("within_subject"):
        what = "1 judged subject says" if people == 1 else f"{people} judged subjects say"
        out.append(f"{what} little about others: do not trust intervals and verdicts (better, worse) over so few")
    rows = result.get("per_class") or []
    lost = [str(r["class"]) for r in rows if "auroc" in r and r["auroc"] is None]
    if lost:
        name = METRIC_NAMES.get(result["metric"], result["metric"])
        out.append(
            f"{name} is of {len(rows) - len(lost)} of {len(rows)} classes: {', '.join(lost)} cannot be judged here, for want of a positive or a "
            "negative row"
        )
    return out


def count_line(name: str, counts: dict[str, Any], absent: Sequence[str] = ()) -> str:
    """``train: 7,415 windows of 21 subjects (1,226 WALKING, ...)``, without the classes that nobody has."""
    text = f"{name}: {counts['windows']:,} windows of {counts['records']:,} records, {counts['subjects']:,} subjects"
    classes = {c: n for c, n in counts.get("classes", {}).items() if c not in absent}
    if "positive" in counts:
        return f"{text} ({counts['positive']:,} positive)"
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
    """``pretrained - random-initialised, linear, macro F1: +0.021 [+0.004, +0.038], better``."""
    marked = " (optimistic)" if _some_seen(result) else ""
    out = []
    for d in result["paired"]:
        name, text = METRIC_NAMES[d["metric"]], verdict(d)
        out.append(f"pretrained - {d['minus']}, {d['head']}, {name}: {interval(d, signed=True)}{text}{text and marked}")
    return out


def _some_seen(result: dict[str, Any]) -> bool:
    """Judged subjects were in pretraining; in a cross-validation beside a split ``seen`` is their number."""
    seen = result["seen"]
    return bool(seen["subjects"] if isinstance(seen, dict) else seen)


def verdict(difference: dict[str, Any]) -> str:
    """Whether an interval, as printed, excludes 0, in words; higher is better for every metric that decides."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return ""
    if round(low, 3) <= 0 <= round(high, 3):  # what is shown as 0.000 is not called better or worse
        return ", no difference shown"
    if round(difference["value"], 3) == 0:
        return ", no difference worth naming"
    return ", better" if low > 0 else ", worse"


def class_rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row a class, but for those that nobody has."""
    measures = [k for k in result["per_class"][0] if k not in ("class", "n")]
    rows = [["class", "judged", *(METRIC_NAMES.get(m, m) for m in measures)]]
    shown = [r for r in result["per_class"] if r["class"] not in result.get("absent", ())]
    return rows + [[r["class"], f"{r['n']:,}", *(number(r[m]) for m in measures)] for r in shown]


def interval(value: dict[str, Any], *, signed: bool = False) -> str:
    """``0.915 [0.880, 0.941]``; the bracket is left out when there is none."""
    text = number(value["value"], signed=signed)
    if value["low"] is None:
        return text
    return f"{text} [{number(value['low'], signed=signed)}, {number(value['high'], signed=signed)}]"


def over_seeds(result: dict[str, Any], what: str) -> str:
    """``what, mean of 5 seeds`` where a result is of several."""
    n = len(result.get("seeds", ()))
    return what if n <= 1 else f"{what}, mean of {n} seeds"


def seed_range(entry: dict[str, Any]) -> str:
    """``0.905 to 0.921``, lowest to highest seed."""
    return "-" if entry["min"] is None else f"{number(entry['min'])} to {number(entry['max'])}"


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, or a dash when it could not be computed."""
    if value is None:
        return "-"
    value = round(value, 3) + 0.0  # no -0.000
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def table(rows: list[list[str]]) -> list[str]:
    """Rows aligned in columns: text to the left, the header underlined."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
