"""The part of a run's page about its locked model: each evaluation with tables and figures.

What lives here: plain values of ``results.json`` to HTML. No number is made here, and no subject's or record's name is shown.
"""

from __future__ import annotations

from typing import Any

from biossl.downstream.evaluate_text import (
    calibration_lines,
    coverage_rows,
    group_rows,
    heading,
    judged_line,
    rival_rows,
    score_rows,
    threshold_lines,
)
from biossl.probe_text import class_rows
from biossl.report import figures, html, stress


def evaluations(results: list[dict[str, Any]]) -> str:
    """Each evaluation: scores, simple models, classes, calibration, people, what is kept, groups, notes."""
    if not results:
        return html.para("The locked model was not judged: `biossl evaluate RUN CORPUS`, then write this page again.")
    out = html.para(
        "Weights, calibration and thresholds are frozen; nothing was fitted on judged rows. Brackets are 95 % intervals over subjects.",
        "soft",
    )
    return out + "".join(_one(r) for r in results)


def _one(r: dict[str, Any]) -> str:
    out = f"<h3>{html.esc(heading(r))}</h3>"
    out += html.notes(
        [
            judged_line(r),
            f"Mode {r['model']['mode']}, seed {r['model']['seed']}.",
            *(r["model"]["choices"] or []),
        ]
    )
    if r["seen"]["subjects"]:
        out += html.para("Judged subjects had been seen: these figures are optimistic.", "warn")
    out += html.table(score_rows(r))
    out += (
        html.table(rival_rows(r), caption="Beside it: simple models fitted on the same training rows, other locked models")
        if r["rivals"]
        else ""
    )
    out += html.figures(_figures(r))
    out += html.table(class_rows(r), caption="By class") if r["per_class"] else ""
    if r["confusion"]:
        out += html.matrix(
            r["classes"],
            r["confusion"],
            caption=f"Confusion: rows the reference, columns the prediction ({r.get('per', 'window')}s)",
        )
    out += html.notes([*calibration_lines(r), *threshold_lines(r)])
    out += html.table(coverage_rows(r), caption="What is kept by limits and confidences frozen in training")
    out += "".join(html.table(group_rows(r, name), caption=f"By {name}") for name in r["groups"])
    out += stress.section(r) if "stress" in r else ""
    return out + html.notes(r["notes"])


def _figures(r: dict[str, Any]) -> list[tuple[str, str]]:
    """Reliability of the top label or each yes/no class, and the spread over people."""
    out = []
    lines = {name: e["bins"] for name, e in (r["calibration"] or {}).items() if isinstance(e, dict) and e["bins"]}
    if lines:
        picture = figures.reliability(lines, alt=f"Predicted probability against observed frequency of {', '.join(lines)}")
        out.append((picture, "Bins of equal numbers of windows, bars 95 % Wilson intervals that take windows as independent."))
    measure = next((k for k in (r["per_subject"] or [{}])[0] if k not in ("subject", "n")), None)
    if measure is not None:
        values = sorted(e[measure] for e in r["per_subject"] if e[measure] is not None)
        name = {"mae": "absolute error"}.get(measure, measure)
        alt = f"{name} of each of {len(values)} judged subjects, from {values[0]:.3f} to {values[-1]:.3f}"
        out.append(
            (
                figures.spread(values, ylabel=name, alt=alt),
                "Each dot is one judged subject, in rising order; the line is the median.",
            )
        )
    return out
