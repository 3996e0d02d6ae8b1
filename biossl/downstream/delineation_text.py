"""The tables of an evaluation of waves or episodes as rows of text.

What lives here: text only, from the plain values of :func:`biossl.downstream.delineation.event_figures`, of one model or of folds and seeds.
"""

from __future__ import annotations

from typing import Any

from biossl.probe_text import METRIC_NAMES, interval, number, over_seeds, seed_range, table, verdict

Rows = list[list[str]]
SHOWN = 60  # subjects printed one by one at most; all of them are in results.json
NAMES = {
    "episode_sensitivity": "episode sensitivity",
    "episode_ppv": "episode PPV", "duration_sensitivity": "duration sensitivity", "duration_ppv": "duration PPV",
    "false_alarms_per_day": "false alarms per 24 h",
}  # fmt: skip


def dense_rows(result: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Caption and rows of every table of one model's result, but for single subjects."""
    metric = METRIC_NAMES[result["metric"]]
    out = [("Main score", [["metric", "value"], [metric, interval(result["scores"][result["metric"]])]])]
    for rival in result["rivals"]:
        head = ["simple model", metric, "locked minus simple"]
        score = [rival["model"], interval(rival["score"]), f"{interval(rival['minus'], signed=True)}{verdict(rival['minus'])}"]
        out.append(("Beside it", [head, score]))
    return [*out, *event_tables(result)]


def event_tables(result: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Caption and rows of the tables of waves, also NeuroKit2's and by channel, or of episodes."""
    mean = over_seeds(result, "")
    if "episodes" in result:
        names = [k for k in NAMES if k in next(iter(result["episodes"].values()))]
        rows = [[name, *(interval(each[k]["gross"]) for k in names)] for name, each in result["episodes"].items()]
        return [(f"Episodes, added over recordings{mean}", [["class", *(NAMES[k] for k in names)], *rows])]
    rule = ", between a channel's first and last annotated boundary" if result["judged"] == "annotated" else ""
    caption = f"Boundaries within {result['tolerance_ms']:.0f} ms, one to one, each channel alone{rule}{mean}"
    out = [(caption, wave_rows(result["waves"]))]
    out += [(rival["model"], wave_rows(rival["waves"])) for rival in result["rivals"]]
    if len({e["channel"] for e in result["per_channel"]}) > 1:
        sides = ("onset", "offset")
        head = ["channel", "class", "side", "annotated", "found", "detected", "F1", "mean ms", "sd ms"]
        rows = [
            [e["channel"], e["class"], side, f"{e[side]['n']:,}", *(_count(e[side].get(k)) for k in ("found", "detected")),
             number(_value(e[side]["f1"])), *(_ms(e[side][k]) for k in ("mean_ms", "sd_ms"))]
            for e in result["per_channel"] for side in sides
        ]  # fmt: skip
        out.append((f"By channel{mean}", [head, *rows]))
    return out


def wave_rows(waves: dict[str, Any]) -> Rows:
    """Header and one row a class and side; with the range of F1 where several seeds were trained."""
    several = any(len(each["f1"].get("seeds", ())) > 1 for sides in waves.values() for each in sides.values())
    head = ["wave", "side", "F1", *(["F1, lowest to highest seed"] if several else []), "sensitivity", "PPV", "mean ms", "sd ms"]
    rows = []
    for name, sides in waves.items():
        for side, each in sides.items():
            ranges = [seed_range(each["f1"])] if several else []
            scores = [interval(each["f1"]), *ranges, *(interval(each[k]) for k in ("sensitivity", "ppv"))]
            rows.append([name, side, *scores, *(_ms(each[k]) for k in ("mean_ms", "sd_ms"))])
    return [head, *rows]


def subject_event_rows(result: dict[str, Any], *, names: bool = True) -> Rows:
    """Header and one row a subject, from lowest to highest: F1 of all and of each class, of waves the deviation of onsets and offsets."""
    metric, people = result["metric"], result["per_subject"]
    folds, several = bool(result.get("folds")), len(result.get("seeds", ())) > 1
    classes = [k for k in people[0] if k not in ("subject", "fold", "n", "sd_ms", metric)]
    deviations = [(c, side) for c in people[0].get("sd_ms", {}) for side in ("onset", "offset")]
    head = ["subject", *(["fold"] if folds else []), over_seeds(result, METRIC_NAMES[metric])]
    head += ["lowest to highest seed"] if several else []
    rows = [head + [f"F1 {c}" for c in classes] + [f"{c} {side} sd ms" for c, side in deviations]]
    for k, s in enumerate(sorted(people, key=lambda s: _low_first(_value(s[metric])))):
        cells = [s["subject"] if names else str(k + 1), *([str(s["fold"])] if folds else []), number(_value(s[metric]))]
        cells += [seed_range(s[metric])] if several else []
        rows.append(cells + [number(_value(s[c])) for c in classes] + [_ms(s["sd_ms"][c][side]) for c, side in deviations])
    return rows


def dense_lines(result: dict[str, Any]) -> list[str]:
    """The tables of one model for a terminal."""
    people = subject_event_rows(result)
    return caption_lines([*dense_rows(result), *([("By subject", people)] if len(people) <= SHOWN + 1 else [])])


def caption_lines(tables: list[tuple[str, Rows]]) -> list[str]:
    """Tables with their captions for a terminal."""
    lines = []
    for caption, rows in tables:
        lines += [f"{caption}:", *(f"  {line}" for line in table(rows)), ""]
    return lines


def _value(entry: Any) -> float | None:
    """Of one model the number, of several seeds their mean."""
    return entry["value"] if isinstance(entry, dict) else entry


def _count(entry: Any) -> str:
    value = _value(entry)
    return "-" if value is None else f"{value:,.0f}"


def _ms(entry: Any) -> str:
    value = _value(entry)
    return "-" if value is None else f"{value:.1f}"


def _low_first(value: float | None) -> float:
    return float("inf") if value is None else value
