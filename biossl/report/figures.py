"""Figures of the report as inline SVG: curves, differences with intervals, maps of embeddings.

What lives here: numbers to SVG text by matplotlib, nothing from disk. Colours are Okabe and Ito's, which people with any
common colour blindness tell apart; lines differ in dash and points in shape as well. Sizes suit a phone's width.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

Array = NDArray[Any]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#888888"
STYLE: Any = {
    "font.size": 10, "svg.fonttype": "none", "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip
_WIDTH = 5.0


def curves(step: Array, lines: dict[str, Array], *, title: str, ylabel: str, alt: str, zero: bool = False) -> str:
    """Values over optimiser steps; a value that was not measured at a step is left out.

    Parameters
    ----------
    step : ndarray, shape (n,)
    lines : dict
        Name -> values (n,), NaN where not measured.
    zero : bool
        The axis begins at 0.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        for i, (name, values) in enumerate(lines.items()):
            known = np.isfinite(values)
            few = known.sum() < 25
            axes.plot(
                step[known], values[known], DASHES[i % 4], color=COLOURS[i % 8], label=name, marker=MARKS[i % 8] if few else "",
                markersize=4,
            )  # fmt: skip
        axes.set(title=title, xlabel="optimiser step", ylabel=ylabel)
        if zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend()
        return svg(figure, alt, title)


def differences(rows: Sequence[tuple[str, float, float | None, float | None]], *, title: str, xlabel: str, alt: str) -> str:
    """Values with intervals, one row each, beside a line at 0."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 1.1 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=1)
        for i, (_, value, low, high) in enumerate(rows):
            clear = low is not None and high is not None and (low > 0 or high < 0)
            colour = COLOURS[0] if clear else GREY
            if low is not None and high is not None:
                axes.plot([low, high], [i, i], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(
                [value],
                [i],
                MARKS[0] if clear else MARKS[1],
                color=colour,
                markersize=7,
                markerfacecolor=colour if clear else "white",
            )
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set(title=title, xlabel=xlabel)
        return svg(figure, alt, title)


def scatter(xy: Array, group: Array, names: Sequence[str], *, title: str, alt: str) -> str:
    """A map of points (n, 2) by group number (n,), -1 = unknown; points are an image inside the SVG, axes have no unit."""
    with matplotlib.rc_context(STYLE):
        rows = -(-(len(names) + 1) // 3)
        figure = Figure(figsize=(_WIDTH, 4.0 + 0.2 * rows), layout="constrained")
        axes = figure.subplots()
        unknown = group < 0
        if unknown.any():
            axes.plot(*xy[unknown].T, ".", color="#bbbbbb", markersize=4, label="unknown", rasterized=True)
        for k, name in enumerate(names):
            some = xy[group == k]
            axes.plot(
                *some.T, MARKS[(k + k // 8) % 8], color=COLOURS[k % 8], markersize=4, alpha=0.7, markeredgewidth=0,
                label=short(name), rasterized=True,
            )  # fmt: skip
        axes.set(title=title, xticks=[], yticks=[])
        axes.grid(visible=False)
        if names:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, markerscale=1.6)
        return svg(figure, alt, title, dpi=130)


def reliability(lines: dict[str, Sequence[dict[str, Any]]], *, alt: str) -> str:
    """Observed frequency over predicted probability.

    Parameters
    ----------
    lines : dict
        Name -> bins with ``mean_probability``, ``frequency``, ``low`` and ``high``.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=GREY, label="as predicted")
        for i, (name, bins) in enumerate(lines.items()):
            x, y = ([b[key] for b in bins] for key in ("mean_probability", "frequency"))
            axes.plot(x, y, DASHES[i % 4], marker=MARKS[i % 8], color=COLOURS[i % 8], label=short(name), markersize=5)
            for b in bins:
                axes.plot([b["mean_probability"]] * 2, [b["low"], b["high"]], color=COLOURS[i % 8], linewidth=1)
        axes.set(title="Calibration", xlabel="predicted probability", ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
        return svg(figure, alt, f"reliability {alt}")


def spread(values: Sequence[float], *, ylabel: str, alt: str) -> str:
    """One dot a subject, in rising order, with the median."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(values) + 1), values, "o", color=COLOURS[0], markersize=5)
        axes.axhline(float(np.median(values)), color=GREY, linestyle="--")
        axes.set(title="Single subjects", xlabel="subjects, from worst to best", ylabel=ylabel)
        if ylabel == "absolute error":
            axes.set_xlabel("subjects, from best to worst")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg(figure, alt, f"spread {alt}")


def short(name: str) -> str:
    """A class name that fits a legend."""
    text = name.replace("_", " ").lower() if name.isupper() and len(name) > 5 else name
    return text if len(text) <= 18 else text[:17] + "\u2026"


def svg(figure: Figure, alt: str, salt: str, dpi: int = 100) -> str:
    """Inline SVG that scales with the page and is read out as ``alt``; equal input gives equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=dpi, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'\sd="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+|\s*\n\s*", r"\1", d[0]).replace(" L ", "L"), text
    )  # 1/100 pt is enough
    text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
    # ids are hashes salted by the title; the figure's own (figure_1, axes_1 ...) would repeat on the page and serve nothing
    text = re.sub(r'\sid="[a-zA-Z]+\d*_\d+"', "", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt, quote=True)}"', 1)
