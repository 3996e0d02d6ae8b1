"""Figures of an evaluation: ROC and precision-recall curves, decision curves, groups, scores by amount of training.

What lives here: plain values and one window's predictions to inline SVG and captions. Curves and net benefit are ``metrics``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from biossl.errors import BiosslError
from biossl.metrics import subject_bootstrap
from biossl.metrics.curves import GRID, Curve, curve
from biossl.metrics.decision import decision_curve
from biossl.metrics.subgroups import MIN_SUBJECTS
from biossl.probe_text import METRIC_NAMES, interval, number, resampled
from biossl.report import figures, html
from biossl.report.judged import YES_NO, Judged

MOST_CURVES = 5  # in one panel
MOST_DECISIONS = 12
AT = tuple(round(0.05 * k, 2) for k in range(1, 20))


def curves(judged: Judged) -> str:
    """ROC and precision-recall curves of every class with areas and intervals; '' for values."""
    if judged.table is None or judged.result["kind"] == "regression":
        return ""
    seed, drawn, left, rows = judged.result["seed"], {}, [], [["class", "share of windows", "AUROC", "AUPRC"]]
    for k in _looked_for(judged):
        y, p = judged.against_others(k)
        name = judged.classes[k]
        try:
            pair = tuple(curve(y, p, judged.groups, what, seed=seed) for what in ("roc", "precision_recall"))  # type: ignore[arg-type]
        except BiosslError as error:
            left.append(f"No curve of {name}: {error}.")
            continue
        areas = [subject_bootstrap(y, p, judged.groups, metric, seed=seed).to_dict() for metric in ("auroc", "auprc")]
        drawn[name] = (*pair, *areas)
        rows.append([name, f"{100 * pair[0].prevalence:.1f} %", *(interval(a) for a in areas)])
    if not drawn:
        return html.notes(left)
    panels = []
    names = list(drawn)
    count = -(-len(names) // MOST_CURVES)
    for some in np.array_split(np.arange(len(names)), count):
        lines = {names[i]: drawn[names[i]] for i in some}
        panels += [_panel(judged, lines, what) for what in ("roc", "precision_recall")]
    return (
        html.figures(panels)
        + html.table(rows, caption="Areas under the curves, each class against all others")
        + html.notes(left)
    )


def operating_point(judged: Judged, name: str) -> dict[str, Any] | None:
    """What the frozen threshold of a class gives on the judged windows: ``sensitivity``, ``specificity`` as intervals, or None."""
    for t in judged.result["thresholds"]:
        if t["class"] == name and "here" in t and all(t["here"][k]["value"] is not None for k in ("sensitivity", "specificity")):
            return {"threshold": t["threshold"], **{k: t["here"][k] for k in ("sensitivity", "specificity")}}
    return None


def _looked_for(judged: Judged) -> list[int]:
    """Every class; of two that exclude each other the second, since the first one's curves are its mirror."""
    n = len(judged.classes)
    return [1] if judged.result["kind"] == "multiclass" and n == 2 else list(range(n))


def _panel(judged: Judged, lines: dict[str, tuple[Any, ...]], what: str) -> tuple[str, str]:
    roc = what == "roc"
    alt, points = [], 0
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.0, 4.5 + 0.2 * len(lines)), layout="constrained")
        axes = figure.subplots()
        if roc:
            axes.plot([0, 1], [0, 1], ":", color=figures.GREY, label="guessing")
        for i, (name, (a, b, auroc, auprc)) in enumerate(lines.items()):
            one: Curve = a if roc else b
            area, colour = (auroc, figures.COLOURS[i]) if roc else (auprc, figures.COLOURS[i])
            kind: dict[str, Any] = {} if roc else {"drawstyle": "steps-pre"}
            axes.plot(one.x, one.y, figures.DASHES[i % 4], color=colour, label=f"{figures.short(name)} {interval(area)}", **kind)
            if np.isfinite(one.low).any():
                axes.fill_between(GRID, one.low, one.high, color=colour, alpha=0.13, linewidth=0, step=None if roc else "pre")
            if not roc:
                axes.axhline(one.prevalence, color=colour, linestyle=(0, (1, 3)), linewidth=1)
            alt.append(
                f"{name}: {'AUROC' if roc else 'AUPRC'} {interval(area)}" + ("" if roc else f", prevalence {one.prevalence:.3f}")
            )
            point = operating_point(judged, name) if roc else None
            if point is not None:
                points += 1
                alt.append(
                    f"its frozen threshold {point['threshold']:.3f} gives sensitivity {number(point['sensitivity']['value'])} and "
                    f"specificity {number(point['specificity']['value'])}"
                )
                _mark(axes, point, colour, i)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set(title="ROC", xlabel="1 - specificity", ylabel="sensitivity") if roc else axes.set(
            title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision (PPV)"
        )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=9)
        picture = figures.svg(
            figure, f"{'ROC' if roc else 'Precision-recall'} curves. {'; '.join(alt)}.", f"{what} {'; '.join(alt)}"
        )
    band = f"Beside each name the area with its 95 % interval; shaded: 95 % of resamples of the {resampled(judged.result)}, point by point."
    if not roc:
        return picture, f"{band} Dotted lines: each class's share of the windows, the precision of guessing."
    if points:
        return picture, f"{band} Large marks: the thresholds frozen in training, as they turn out here, with 95 % intervals."
    decides = "The largest probability decides, so there is no threshold to mark."
    return picture, f"{band} {decides if judged.result['kind'] == 'multiclass' else 'No frozen threshold can be marked.'}"


def _mark(axes: Any, point: dict[str, Any], colour: str, i: int) -> None:
    found, right = point["sensitivity"], point["specificity"]
    x, y = 1 - right["value"], found["value"]
    if found["low"] is not None:
        axes.plot([x, x], [found["low"], found["high"]], color=colour, linewidth=1)
    if right["low"] is not None:
        axes.plot([1 - right["high"], 1 - right["low"]], [y, y], color=colour, linewidth=1)
    axes.plot([x], [y], figures.MARKS[i], color=colour, markersize=9, markeredgecolor="black")


# ---------------------------------------------------------------------------------------------- decision curves


def decisions(judged: Judged) -> str:
    """Net benefit of each yes/no class; of several classes each against all others, folded away but for the first."""
    if judged.table is None or judged.result["kind"] == "regression":
        return ""
    counts = {k: int(np.nansum(judged.against_others(k)[0])) for k in _looked_for(judged)}
    some = sorted(sorted(counts, key=lambda k: -counts[k])[:MOST_DECISIONS])
    found, left = [], []
    for k in some:
        name = judged.classes[k]
        y, p = judged.against_others(k)
        try:
            rows = judged.result["decision_curve"] or [
                {key: v.to_dict() if hasattr(v, "to_dict") else v for key, v in row.items()}
                for row in decision_curve(y, p, judged.groups, AT, n=500, seed=judged.result["seed"])
            ]
        except BiosslError as error:
            left.append(f"No decision curve of {name}: {error}.")
            continue
        found.append((name, _benefit(name, rows, float(np.nanmean(y)), judged.result)))
    if len(counts) > len(some):
        left.append(f"Decision curves of the {len(some)} most frequent of {len(counts)} classes.")
    uncalibrated = [n for n in judged.result["notes"] if n.startswith("no calibration")]
    left += [f"Thresholds are read as probabilities, and these are not calibrated ({n})." for n in uncalibrated]
    if len(found) < 2:
        return html.figures([picture for _, picture in found]) + html.notes(left)
    words = "Decision curve of {}" if judged.result["kind"] in YES_NO else "Decision curve of {} against all other classes"
    folds = "".join(
        html.details(words.format(name), html.figures([picture]), opened=i == 0) for i, (name, picture) in enumerate(found)
    )
    return folds + html.notes(left)


def _benefit(name: str, rows: Sequence[dict[str, Any]], prevalence: float, result: dict[str, Any]) -> tuple[str, str]:
    at = [r["threshold"] for r in rows]
    model, every = ([r[key]["value"] for r in rows] for key in ("model", "all"))
    low, high = (np.array([np.nan if r["model"][end] is None else r["model"][end] for r in rows]) for end in ("low", "high"))
    better = [r["threshold"] for r in rows if (r["model_minus_best_default"]["low"] or 0) > 0]
    said = (
        f"better than treating all and none from threshold {better[0]:.2f} to {better[-1]:.2f}"
        if len(better) > 1 and len(better) == round((better[-1] - better[0]) / 0.05) + 1
        else f"better than both at {', '.join(f'{t:.2f}' for t in better)}" if better else "nowhere shown to be better than both"
    )  # fmt: skip
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.0, 3.8), layout="constrained")
        axes = figure.subplots()
        if np.isfinite(low).any():
            axes.fill_between(at, low, high, color=figures.COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(at, model, "-", marker="o", markersize=4, color=figures.COLOURS[0], label="locked model")
        axes.plot(at, every, "--", color=figures.COLOURS[1], label="treat all")
        axes.axhline(0, color="black", linewidth=1, label="treat none")
        top = max(prevalence, float(np.nanmax([*model, *high])))
        axes.set(
            title=f"Decision curve: {figures.short(name)}", xlabel="threshold probability", ylabel="net benefit per window",
            xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top),
        )  # fmt: skip
        axes.legend()
        alt = f"Net benefit of acting on {name} over threshold probabilities {at[0]:g} to {at[-1]:g}: {said}."
        picture = figures.svg(figure, alt, f"decision {alt}")
    what = "" if result["kind"] in YES_NO else " against all other classes"
    return picture, (
        f"{name}{what}: at threshold t one false alarm weighs t / (1 - t) of one found. Shaded: 95 % over {resampled(result)}. By paired "
        f"intervals the model is {said}."
    )


# ---------------------------------------------------------------------------------------------- groups


def groups(result: dict[str, Any]) -> str:
    """A forest plot a covariate, and the groups that are not scored by name."""
    out = ""
    for covariate, found in result["groups"].items():
        drawn = [g for g in found if g["score"] is not None and g["score"]["value"] is not None]
        out += html.figures([_forest(result, covariate, drawn)]) if drawn else ""
        left = [g for g in found if g not in drawn]
        lines = [f"{covariate} {g['name']}, not drawn: {g.get('reason') or g['score'].get('reason', 'no score')}." for g in left]
        lines.append(f"A group of {covariate} is scored from {MIN_SUBJECTS} {resampled(result)} with a label on.")
        out += html.notes(lines)
    return out


def _forest(result: dict[str, Any], covariate: str, rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    metric = METRIC_NAMES[result["metric"]]
    whole = result["scores"][result["metric"]]
    alt = [
        f"{g['name']} ({g['n_subjects']} {resampled(result)}) {interval(g['score'])}"
        + (f", minus the rest {interval(g['gap'], signed=True)}" if _known(g["gap"]) else "")
        for g in rows
    ]
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.0, 1.5 + 0.42 * len(rows)), layout="constrained")
        gaps = any(_known(g["gap"]) for g in rows)
        left, *more = figure.subplots(1, 1 + gaps, sharey=True, squeeze=False)[0]
        if whole["value"] is not None:
            left.axvline(whole["value"], color=figures.GREY, linestyle="--", linewidth=1)
            if whole["low"] is not None:
                left.axvspan(whole["low"], whole["high"], color=figures.GREY, alpha=0.12, linewidth=0)
        for right in more:
            right.axvline(0, color="black", linewidth=1)
        for i, g in enumerate(rows):
            _bar(left, g["score"], i, figures.COLOURS[0], True)
            for right in more:
                if _known(g["gap"]):
                    clear = g["gap"]["low"] is not None and (g["gap"]["low"] > 0 or g["gap"]["high"] < 0)
                    _bar(right, g["gap"], i, figures.COLOURS[1] if clear else figures.GREY, clear)
                else:
                    right.text(0, i, " no gap", va="center", fontsize=8)
        left.set_yticks(range(len(rows)), [f"{figures.short(g['name'])}\nn = {g['n_subjects']}" for g in rows], fontsize=9)
        left.set_ylim(len(rows) - 0.5, -0.5)
        for axes, name in zip((left, *more), (metric, "minus the rest"), strict=False):
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.set_xlabel(name)
        figure.suptitle(f"By {covariate}", fontsize=12)
        picture = figures.svg(figure, f"{metric} by {covariate}: {'; '.join(alt)}.", f"forest {covariate} {alt}")
    return picture, (
        f"n = {resampled(result)}; bars are 95 % intervals over {resampled(result)}, not corrected for the number of groups. Dashed: everybody ({interval(whole)}). "
        + ("Right: a filled mark where the interval of the gap excludes 0." if gaps else "No gaps: the rest is too few.")
    )


def _known(value: dict[str, Any] | None) -> bool:
    return value is not None and value["value"] is not None


def _bar(axes: Any, value: dict[str, Any], row: int, colour: str, filled: bool) -> None:
    if value["low"] is not None:
        axes.plot([value["low"], value["high"]], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
    axes.plot(
        [value["value"]], [row], "o" if filled else "s", color=colour, markersize=7, markerfacecolor=colour if filled else "white"
    )


# ---------------------------------------------------------------------------------------------- amounts


def scarcity(rows: Sequence[dict[str, Any]], title: str, metric: str) -> str:
    """Scores by amount of training; '' with fewer than two amounts.

    Parameters
    ----------
    rows : sequence of dict
        ``subjects``, ``windows`` (either may be missing), ``score``, ``low`` and ``high`` (may be None).
    """
    known = [r for r in rows if r.get("score") is not None]
    axis = next((a for a in ("subjects", "windows") if len({r[a] for r in known if r.get(a)}) > 1), None)
    if axis is None:
        return ""
    known = sorted((r for r in known if r.get(axis)), key=lambda r: (r[axis], r["score"]))
    ticks = sorted({r[axis] for r in known})
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.0, 3.6), layout="constrained")
        axes = figure.subplots()
        for r in known:
            if r.get("low") is not None and r.get("high") is not None:
                axes.plot([r[axis]] * 2, [r["low"], r["high"]], color=figures.COLOURS[0], linewidth=1.2)
        middle = [float(np.mean([r["score"] for r in known if r[axis] == t])) for t in ticks]
        axes.plot(ticks, middle, "-", color=figures.COLOURS[0], linewidth=1.2)
        axes.plot([r[axis] for r in known], [r["score"] for r in known], "o", color=figures.COLOURS[0])
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
        axes.minorticks_off()
        axes.set(title="Score by amount of training", xlabel=f"labelled training {axis}", ylabel=metric)
        said = "; ".join(
            f"{r[axis]:,} {axis}: {interval({'low': None, 'high': None} | r | {'value': r['score']})}" for r in known
        )
        picture = figures.svg(figure, f"{metric} by labelled training {axis}, {title}. {said}.", f"scarcity {title} {said}")
    return html.figures([(picture, f"{title}: one dot a model, bars 95 % intervals, the line joins means.")])
