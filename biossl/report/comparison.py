"""A comparison as a printed table, two figures and one page; numbers come from :func:`biossl.compare.compare` alone.

What lives here: text, ``compare.svg`` and ``compare.png`` (score by share of labelled windows and by labelled subjects),
``compare.html``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from biossl.atomic import atomic_file, write_text
from biossl.probe_text import METRIC_NAMES, count_line, interval, number, table, verdict
from biossl.report import figures, html

ALL = "windows-1"
_CLEAN = ("windows", "subjects")


def write(result: dict[str, Any], out: str | Path) -> list[Path]:
    """Write ``compare.svg``, ``compare.png`` and ``compare.html`` into a folder; what was written."""
    out = Path(out)
    svg = figure(result)
    write_text(out / "compare.svg", svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1))
    with atomic_file(out / "compare.png") as part:
        _draw(result).savefig(part, format="png", dpi=150)
    write_text(out / "compare.html", page(result, svg))
    return [out / f"compare.{suffix}" for suffix in ("svg", "png", "html")]


# ---------------------------------------------------------------------------------------------- text


def as_text(result: dict[str, Any]) -> str:
    """Several lines for a terminal."""
    metric = METRIC_NAMES[result["metric"]]
    lines = [lead(result), ""]
    lines += table(score_cells(result)) + [""]
    worse = score_cells(result, clean=False)
    if len(worse[0]) > 3:
        lines += ["all labels, judged on corrupted windows", *table(worse), ""]
    lines += table(model_cells(result)) + [""]
    lines += [f"differences in {metric}, paired over subjects, seeds and draws"]
    lines += table(paired_cells(result)) + [""]
    lines += [f"note: {n}" for n in result["notes"]]
    if "ledger" in result:
        lines.append(f"test openings of this label so far: {result['ledger']['openings']} ({result['ledger']['file']})")
    lines.append(f"written: {result['out']}/compare.json, .csv, .svg, .png, .html")
    return "\n".join(lines)


def lead(result: dict[str, Any]) -> str:
    """One line: what was compared on what."""
    budget, folds = result["budget"], result["folds"]
    if budget["kind"] == "steps":
        size = f"{budget['amount']:g} steps each"
    else:
        size = f"{budget['amount']:g} {'FLOPs' if budget['kind'] == 'flops' else 'seconds on this machine'} each"
    where = folds[0]["split"] if len(folds) == 1 else f"{len(folds)} folds"
    within = f" within part {result['within']}" if result["within"] else ""
    first = (
        count_line("judged", folds[0]["judged"])
        if len(folds) == 1
        else (
            f"judged: {sum(f['judged']['windows'] for f in folds):,} windows of {sum(f['judged']['subjects'] for f in folds):,} subjects"
        )
    )
    seeds = result["seeds"]
    sources = result["pretrained_on"]
    on = (
        f", pretrained on {sources[0]}"
        if len(sources) == 1
        else f", each pretrained on {' and on '.join(sources)}"
        if sources
        else ""
    )
    count = len(result["recipes"]) // max(len(sources), 1)
    return (
        f"{result['label']} ({result['kind']}), {result['corpus']['name']} view {result['corpus']['view']}, {where}{within}; "
        f"{count} recipe{'s' if count > 1 else ''}{on}, {size}, "
        f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}, pool {result['pool']}\n{first}"
    )


def score_cells(result: dict[str, Any], *, clean: bool = True) -> list[list[str]]:
    """Header and one row a model and head: the main metric by setting, or by corruption."""
    metric = result["metric"]
    some = [s for s in result["scores"] if (s["axis"] in _CLEAN) == clean or s["key"] == ALL]
    keys = {s["key"]: s["text"] for s in some}
    found = {(s["model"], s["head"], s["key"]): s["scores"][metric] for s in some}
    rows = [[METRIC_NAMES[metric], "head", *keys.values()]]
    for model, head in dict.fromkeys((s["model"], s["head"]) for s in some):
        if not clean and head == "kNN":
            continue
        rows.append([model, head, *(interval(found[model, head, k]) if (model, head, k) in found else "" for k in keys)])
    return rows


def model_cells(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row a model: rank, who it can name, cost."""
    kinds = list(result["request"]["identity"])
    rows = [["model", "RankMe", *(f"names {k} (chance)" for k in kinds), "steps", "FLOPs", "train s", "features s"]]
    budgets = {r["name"]: r for r in result["recipes"]}
    for m in result["models"]:
        row = [m["model"], "-" if m["rankme"] is None else f"{m['rankme']:.1f} of {m['features']}"]
        for k in kinds:
            found = m["identity"].get(k)
            row.append("-" if not found else f"{number(found['balanced_accuracy'])} ({number(found['chance'])})")
        budget = budgets.get(m["model"])
        row += [f"{budget['steps']:,}", f"{budget['flops']:.2e}"] if budget else ["-", "-"]
        row += ["-" if m[k] is None else f"{m[k]:.1f}" for k in ("train_s", "features_s")]
        rows.append(row)
    return rows


def paired_cells(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row a pair: the difference in every setting."""
    some = [d for d in result["paired"] if d["axis"] in _CLEAN or "|" in d["key"]]
    keys = {d["key"]: d["text"] for d in some}
    found = {(d["model"], d["head"], d["minus"], d["key"]): d for d in some}
    rows = [["first", "head", "minus", *keys.values()]]
    for model, head, minus in dict.fromkeys((d["model"], d["head"], d["minus"]) for d in some):
        cells = []
        for key in keys:
            d = found.get((model, head, minus, key))
            cells.append("" if d is None else interval(d, signed=True) + _mark(d))
        rows.append([model, head, minus, *cells])
    return rows


def _mark(difference: dict[str, Any]) -> str:
    text = verdict(difference)
    return " *" if text in (", better", ", worse") else ""


# ---------------------------------------------------------------------------------------------- figure


def figure(result: dict[str, Any]) -> str:
    """Inline SVG: one panel by share of labelled windows, one by labelled subjects."""
    alt = f"{METRIC_NAMES[result['metric']]} of every model by labelled windows and by labelled subjects"
    return figures.svg(_draw(result), alt, f"compare-{result['label']}")


def _draw(result: dict[str, Any]) -> Figure:
    metric = result["metric"]
    models = list(dict.fromkeys(s["model"] for s in result["scores"]))
    everyone = result["folds"][0]["train"]["subjects"]
    with matplotlib.rc_context(figures.STYLE):
        picture = Figure(figsize=(9.0, 4.6), layout="constrained")
        axes = picture.subplots(1, 2, sharey=True)
        for panel, axis in zip(axes, _CLEAN, strict=True):
            for i, model in enumerate(models):
                points = _points(result, model, axis, everyone)
                if not points:
                    continue
                shift = 1 + 0.03 * (i - (len(models) - 1) / 2)  # side by side, so that intervals stay readable
                at = [x * shift for x, *_ in points]
                value = [v for _, v, _, _ in points]
                panel.plot(
                    at, value, figures.DASHES[i // 8 % 4], marker=figures.MARKS[i % 8], color=figures.COLOURS[i % 8], label=model,
                    markersize=5,
                )  # fmt: skip
                for x, (_, _, low, high) in zip(at, points, strict=True):
                    if low is not None and high is not None:
                        panel.plot([x, x], [low, high], color=figures.COLOURS[i % 8], linewidth=1)
            panel.set_xscale("log")
            ticks = sorted({x for m in models for x, *_ in _points(result, m, axis, everyone)})
            panel.set_xticks(ticks, [f"{100 * t:g} %" if axis == "windows" else f"{t:g}" for t in ticks])
            panel.minorticks_off()
            panel.set_xlabel(
                "labelled training windows" if axis == "windows" else f"labelled training subjects (all: {everyone})"
            )
        axes[0].set_ylabel(METRIC_NAMES[metric])
        picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return picture


def _points(
    result: dict[str, Any], model: str, axis: str, everyone: int
) -> list[tuple[float, float, float | None, float | None]]:
    """(amount, value, low, high) by amount; all labels are the last point of both axes."""
    out = []
    for s in result["scores"]:
        if s["model"] != model or s["head"] == "kNN" or s["axis"] not in _CLEAN:
            continue
        if s["axis"] == axis or s["key"] == ALL:
            value = s["scores"][result["metric"]]
            amount = float(everyone) if axis == "subjects" and s["key"] == ALL else s["amount"]
            if value["value"] is not None:
                out.append((amount, value["value"], value["low"], value["high"]))
    return sorted(out)


# ---------------------------------------------------------------------------------------------- page


def page(result: dict[str, Any], svg: str) -> str:
    """The page: figure, tables, what to know before believing them."""
    caption = (
        "Dots are means over seeds and draws, bars 95 % intervals over subjects, seeds and draws; every model meets the same "
        "labelled rows. One head a model: linear (MiniRocket: ridge; from scratch: the network's own); kNN stands in the table."
    )
    sections: list[tuple[str, str, str]] = [
        ("figure", "Scores by labels", f"<figure>{svg}<figcaption>{html.esc(caption)}</figcaption></figure>"),
        ("scores", "Scores", html.table(score_cells(result), strong=_strong(result))),
    ]
    worse = score_cells(result, clean=False)
    if len(worse[0]) > 3:
        sections.append(("corrupted", "Judged on corrupted windows", html.table(worse)))
    sections += [
        ("paired", "Paired differences", html.para("* = the 95 % interval excludes 0.") + html.table(paired_cells(result))),
        ("models", "What features hold, and cost", html.table(model_cells(result))),
        ("notes", "Before believing it", html.notes(_lines(result))),
    ]
    title = f"Comparison: {result['label']} on {result['corpus']['name']}"
    return html.page(title, sections, "".join(html.para(line, "lead") for line in lead(result).splitlines()))


def _strong(result: dict[str, Any]) -> Sequence[int]:
    names = {r["name"] for r in result["recipes"]}
    return [i for i, row in enumerate(score_cells(result)[1:]) if row[0] in names]


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [*result["notes"], f"biossl {result['biossl']} {result['commit']}, {result['date']}"]
    lines += [f"{r['name']}: recipe {r['hash']}, {r['source']}" for r in result["recipes"]]
    if "ledger" in result:
        lines.append(f"test openings of this label so far: {result['ledger']['openings']}")
    return lines
