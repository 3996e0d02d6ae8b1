"""The part of an evaluation's page about degraded input: one figure and the table.

What lives here: plain values of ``results.json["stress"]`` to HTML. No number is made here.
"""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from biossl.downstream.evaluate_text import stress_rows
from biossl.probe_text import METRIC_NAMES, resampled
from biossl.report import html
from biossl.report.figures import COLOURS, GREY, STYLE, svg

PANELS = {"noise": "signal to noise, dB", "channels": "channels left"}


def section(r: dict[str, Any]) -> str:
    """Figure and table of one evaluation.

    Parameters
    ----------
    r : dict
        Of :func:`biossl.downstream.evaluate.evaluate` with ``stress=True``.
    """
    out = html.para(
        "Degraded input: the same rows with channels lost, from a slower device, or noisy; weights, thresholds and limits as they were."
    )
    picture = _picture(r)
    note = f"Bars are 95 % intervals over {resampled(r)}; the dashed line is the input as it is; squares are what the model decides nothing on."
    out += html.figures([(picture, note)]) if picture else ""
    return out + html.table(stress_rows(r), caption="Degraded input")


def _picture(r: dict[str, Any]) -> str:
    """Score, and share without a decision, against SNR and number of channels; '' where neither varies."""
    found = {kind: [e for e in r["stress"] if e["kind"] == kind and e["score"] and _known(e)] for kind in PANELS}
    panels = {kind: entries for kind, entries in found.items() if len({e["at"] for e in entries}) > 1}
    if not panels:
        return ""
    clean = r["stress"][0]["score"]["value"]
    name = METRIC_NAMES[r["metric"]]
    words = [f"{e['name']}: {e['score']['value']:.3f}" for entries in panels.values() for e in entries]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 2.7 * len(panels)), layout="constrained")
        for axes, (kind, entries) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
            for e in entries:
                if e["score"]["low"] is not None:
                    axes.plot([e["at"]] * 2, [e["score"]["low"], e["score"]["high"]], color=COLOURS[0], linewidth=1)
            at = [e["at"] for e in entries]
            line = "-" if len(set(at)) == len(at) else ""
            axes.plot(at, [e["score"]["value"] for e in entries], f"o{line}", color=COLOURS[0], markersize=5, label=name)
            axes.plot(
                at, [e["abstain"] for e in entries], f"s{line}", color=COLOURS[1], markersize=4, label="share without a decision"
            )
            if clean is not None:
                axes.axhline(clean, color=GREY, linestyle="--")
            axes.invert_xaxis()
            axes.set(xlabel=PANELS[kind], xticks=sorted(set(at)))
            axes.legend(fontsize=8)
        return svg(figure, f"{name} under degraded input; {'; '.join(words)}", "stress")


def _known(entry: dict[str, Any]) -> bool:
    return entry["score"]["value"] is not None and entry["at"] is not None
