"""The part of a run's page about its locked model: each evaluation with tables and figures.

What lives here: the order of an evaluation's tables and figures. Tables are plain values of ``results.json``; the figures of
single windows come from ``judged_figures.py``, ``judged_map.py`` and ``worst.py``. No subject's name is shown, and no record's but that of a
drawn error (its key, where the set is not public).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biossl.corpus import Corpus
from biossl.downstream.delineation_text import dense_rows, subject_event_rows
from biossl.downstream.evaluate_text import (
    calibration_lines,
    confusion,
    coverage_rows,
    group_rows,
    heading,
    judged_line,
    rival_rows,
    score_rows,
    threshold_lines,
)
from biossl.downstream.model import Model, load_model, read_rows
from biossl.errors import BiosslError, DataError
from biossl.probe_text import METRIC_NAMES, all_resampled, class_rows, resampled, warnings
from biossl.report import figures, html, judged_figures, stress
from biossl.report.judged import Judged, open_judged
from biossl.report.judged_map import SCRIPT, judged_map
from biossl.report.worst import worst_cases

_MOST_BYTES = 2_300_000  # of evaluations, so that the whole page stays under 3 MB


def evaluations(
    results: list[dict[str, Any]], run: Path, corpora: Sequence[Corpus] = (), amounts: Sequence[dict[str, Any]] = ()
) -> str:
    """Each evaluation: scores, simple models, curves, classes, calibration, people, what is kept, groups, errors, map, notes.

    Parameters
    ----------
    results : list of dict
        ``results.json`` of the locked model's evaluations; ``out`` is the folder each lies in.
    run : Path
        The run, for the model's features.
    corpora : sequence of Corpus
        Already open.
    amounts : sequence of dict
        Results of any model in the run's evaluations, for scores by amount of training.
    """
    scarce = "".join(judged_figures.scarcity(*case) for case in _amounts(amounts))
    if not results:
        return html.para("The locked model was not judged: `biossl evaluate RUN CORPUS`, then write this page again.")
    out = html.para(
        "Weights, calibration and thresholds are frozen; nothing was fitted on judged rows. Brackets are 95 % intervals over "
        f"{all_resampled(results)}.",
        "soft",
    )
    model, lost = _model(run)
    for r in results:
        judged = open_judged(r, r["out"], corpora)
        out += _one(r, judged)
        if r["kind"] == "dense":  # no windows to draw or map
            out += html.notes(r["notes"])
            continue
        for title, drawn in (("Errors", worst_cases(judged)), ("Map of the judged windows", _map(judged, model, lost))):
            if len(out) + len(drawn) > _MOST_BYTES:
                drawn = html.para(f"{title}: left out, so that the page stays under 3 MB.")
            out += f"<h4>{title}</h4>{drawn}" if drawn else ""
        out += html.notes(r["notes"])
    if 'class="cases"' in out or "map-data" in out:
        out = html.para("This page shows signals of single people: treat it like the recordings themselves.", "warn") + out
    return out + scarce + (f"<script>{SCRIPT}</script>" if "map-data" in out else "")


def _model(run: Path) -> tuple[Model | None, str]:
    try:
        return load_model(run), ""
    except BiosslError as error:
        return None, str(error)


def _map(judged: Judged, model: Model | None, lost: str) -> str:
    corpus = judged.corpus
    if corpus is None:
        return ""
    try:
        if model is None:
            raise DataError(lost)
        return judged_map(judged, lambda rows: read_rows(model, corpus, rows, adapt=True, desc="map")[1])
    except BiosslError as error:
        return html.para(f"No map of the judged windows: {error}")


def _amounts(results: Sequence[dict[str, Any]]) -> list[tuple[list[dict[str, Any]], str, str]]:
    """Evaluations on the same windows, by label: rows of :func:`judged_figures.scarcity`, title, name of the score."""
    cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for r in results:
        trained = r["model"].get("trained") or {}
        score = r["scores"][r["metric"]]
        row = {k: trained.get(k) for k in ("subjects", "windows")} | {
            "score": score["value"],
            "low": score["low"],
            "high": score["high"],
        }
        key = (r["label"], r["corpus"]["hash"], str(r["split"]), r["part"], r.get("per", "window"), r["metric"])
        cases.setdefault(key, []).append(row)
    return [(rows, f"{key[0]}, judged on the same windows", METRIC_NAMES[key[-1]]) for key, rows in cases.items()]


def _one(r: dict[str, Any], judged: Judged) -> str:
    out = f"<h3>{html.esc(heading(r))}</h3>"
    out += html.notes(
        [
            judged_line(r),
            f"Mode {r['model']['mode']}, seed {r['model']['seed']}.",
            *(r["model"]["choices"] or []),
        ]
    )
    out += "".join(html.para(line, "warn") for line in warnings(r))
    if r["seen"]["subjects"]:
        out += html.para("Judged subjects had been seen: these figures are optimistic.", "warn")
    if r["kind"] == "dense":
        out += "".join(html.table(rows, caption=caption) for caption, rows in dense_rows(r))
        return out + html.details("Single subjects as a table", html.table(subject_event_rows(r, names=False)))
    out += html.table(score_rows(r))
    out += (
        html.table(rival_rows(r), caption="Beside it: simple models fitted on the same training rows, other locked models")
        if r["rivals"]
        else ""
    )
    out += judged_figures.curves(judged)
    out += html.figures(_figures(r))
    out += html.table(class_rows(r), caption="By class") if r["per_class"] else ""
    if r["confusion"]:
        out += html.matrix(
            *confusion(r),
            caption=f"Confusion: rows the reference, columns the prediction ({r.get('per', 'window')}s)",
        )
    out += html.notes([*calibration_lines(r), *threshold_lines(r)])
    out += judged_figures.decisions(judged)
    out += html.table(coverage_rows(r), caption="What is kept by limits and confidences frozen in training")
    out += "".join(html.table(group_rows(r, name), caption=f"By {name}") for name in r["groups"])
    out += stress.section(r) if "stress" in r else ""
    return out + judged_figures.groups(r)


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
        alt = f"{name} of each of {len(values)} judged {resampled(r)}, from {values[0]:.3f} to {values[-1]:.3f}"
        out.append(
            (
                figures.spread(values, ylabel=name, alt=alt),
                f"Each dot is one judged {resampled(r)[:-1]}, in rising order; the line is the median.",
            )
        )
    return out
