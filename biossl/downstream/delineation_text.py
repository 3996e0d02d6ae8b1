"""The tables of an evaluation of a dense model as rows of text, and its printed form.

What lives here: text only, from the plain values of :func:`biossl.downstream.delineation.judge`.
"""

from __future__ import annotations

from typing import Any

from biossl.probe_text import METRIC_NAMES, interval, number, table, verdict

Rows = list[list[str]]
NAMES = {
    "episode_sensitivity": "episode sensitivity",
    "episode_ppv": "episode PPV", "duration_sensitivity": "duration sensitivity", "duration_ppv": "duration PPV",
    "false_alarms_per_day": "false alarms per 24 h",
}  # fmt: skip


def dense_rows(result: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Caption and rows of every table of a result."""
    metric = METRIC_NAMES[result["metric"]]
    out = [("Main score", [["metric", "value"], [metric, interval(result["scores"][result["metric"]])]])]
    if "episodes" in result:
        names = [k for k in NAMES if k in next(iter(result["episodes"].values()))]
        rows = [[name, *(interval(each[k]["gross"]) for k in names)] for name, each in result["episodes"].items()]
        return [*out, ("Episodes, added over recordings", [["class", *(NAMES[k] for k in names)], *rows])]
    rule = ", between a channel's first and last annotated boundary" if result["judged"] == "annotated" else ""
    caption = f"Boundaries within {result['tolerance_ms']:.0f} ms, one to one, each channel alone{rule}"
    out.append((caption, wave_rows(result["waves"])))
    for rival in result["rivals"]:
        head = ["simple model", metric, "locked minus simple"]
        score = [rival["model"], interval(rival["score"]), f"{interval(rival['minus'], signed=True)}{verdict(rival['minus'])}"]
        out += [("Beside it", [head, score]), (f"{rival['model']}", wave_rows(rival["waves"]))]
    if len({e["channel"] for e in result["per_channel"]}) > 1:
        head = ["channel", "class", "n", "F1 onset", "F1 offset", "sd onset ms", "sd offset ms"]
        rows = [
            [e["channel"], e["class"], f"{e['onset']['n']:,}", *(number(e[s]["f1"]) for s in ("onset", "offset")),
             *(_ms(e[s]["sd_ms"]) for s in ("onset", "offset"))]
            for e in result["per_channel"]
        ]  # fmt: skip
        out.append(("By channel", [head, *rows]))
    return out


def wave_rows(waves: dict[str, Any]) -> Rows:
    """Header and one row a class and side."""
    head = ["wave", "side", "F1", "sensitivity", "PPV", "mean ms", "sd ms"]
    rows = []
    for name, sides in waves.items():
        for side, each in sides.items():
            scores = [interval(each[k]) for k in ("f1", "sensitivity", "ppv")]
            rows.append([name, side, *scores, *(_ms(each[k]["value"]) for k in ("mean_ms", "sd_ms"))])
    return [head, *rows]


def dense_lines(result: dict[str, Any]) -> list[str]:
    """The tables for a terminal."""
    lines = []
    for caption, rows in dense_rows(result):
        lines += [f"{caption}:", *(f"  {line}" for line in table(rows)), ""]
    return lines


def _ms(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.1f}"
