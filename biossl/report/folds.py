"""The page of a fine-tuning that was done once a fold or a seed: its pooled evaluations, people, folds and seeds.

What lives here: gathering from such a folder, its sections and their one figure. No number is made here, and no subject's or record's
name is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from biossl.atomic import write_text
from biossl.corpus import Corpus
from biossl.downstream.delineation_text import event_tables
from biossl.downstream.evaluate_text import confusion, rival_rows
from biossl.downstream.foldrun import FoldRun, read_folds
from biossl.downstream.folds_text import fold_rows, heading, model_line, score_rows, subject_rival_rows, subject_rows
from biossl.errors import BiosslError, DataError
from biossl.probe_text import METRIC_NAMES, all_resampled, class_rows, count_line, interval, number, resampled, warnings
from biossl.report import figures, html, sections
from biossl.report.study import all_openings

Entries = Sequence[tuple[str, float, float, float]]  # name, mean over seeds, lowest and highest seed


def write_folds_report(path: Path, file: Path) -> dict[str, Any]:
    """Write the page of a folder with ``folds.json``; the return value is that of :func:`~biossl.report.run_page.write_report`."""
    held = read_folds(path)
    results, notes = _evaluations(held)
    corpora, said = _corpora(held)
    notes += said
    parts = [
        ("cohort", "Who is in it", sections.cohort(corpora, {})),
        ("judged", "What the models are worth together", judged(results)),
        ("trainings", "The trainings", _trainings(held, results)),
        ("provenance", "Provenance", _provenance(held, corpora, results)),
        ("limits", "Limits", html.notes([*_limits(held, results), *notes])),
    ]
    write_text(file, html.page(f"Run {path.resolve().name}", parts, _lead(held, results)))
    return {"out": str(file), "markdown": None, "probes": 0, "notes": notes}


def judged(results: list[dict[str, Any]]) -> str:
    """Each evaluation: pooled scores, simple models, people, folds, classes, notes."""
    if not results:
        return html.para("It was not judged yet: `biossl evaluate RUN CORPUS`, then write this page again.")
    what = all_resampled(results)
    one = "recording" if what == "recordings" else "subject"
    text = (
        f"Every window is judged by a model that was trained without its {one}, once a seed. Brackets are 95 % intervals over all "
        f"{what}, of the mean over seeds; the range is that of single seeds. Nothing was fitted on judged rows."
    )
    return html.para(text, "soft") + "".join(_one(r) for r in results)


def _one(r: dict[str, Any]) -> str:
    out = f"<h3>{html.esc(heading(r))}</h3>"
    out += html.notes([count_line("judged", r["counts"], r.get("absent", ())), model_line(r)])
    out += "".join(html.para(line, "warn") for line in warnings(r))
    if r["seen"]["subjects"]:
        out += html.para("Judged subjects had been seen: these figures are optimistic.", "warn")
    out += html.table(score_rows(r), strong=[0])
    dense = r["kind"] == "dense"
    beside = "Beside it, the same waves" if dense else "Simple models fitted on the same training rows of each fold"
    out += html.table(rival_rows(r), caption=beside) if r["rivals"] else ""
    means = subject_rival_rows(r)
    out += html.table(means, caption=f"Simple models, each {resampled(r)[:-1]} counted once") if means else ""
    out += html.figures(_figures(r))
    folds, people = fold_rows(r), subject_rows(r, names=False)
    out += html.table(folds, caption="By fold") if folds else ""
    out += html.details(f"Single {resampled(r)} as a table", html.table(people)) if people else ""
    out += "".join(html.table(rows, caption=caption) for caption, rows in event_tables(r)) if dense else ""
    out += html.table(class_rows(r), caption="By class, mean over seeds") if r["per_class"] else ""
    if r["confusion"]:
        caption = "Confusion: rows the reference, columns the prediction (windows, summed over seeds)"
        out += html.matrix(*confusion(r), caption=caption)
    return out + html.notes(r["notes"])


def _figures(r: dict[str, Any]) -> list[tuple[str, str]]:
    """Single subjects, and folds beside seeds."""
    out = []
    measure = list(r["subject_means"])[-1] if r["subject_means"] else None
    people = [s[measure] for s in r["per_subject"] if s[measure]["value"] is not None] if measure else []
    if measure and people:
        people.sort(key=lambda s: s["value"])
        name = METRIC_NAMES[measure]
        entries = [("", s["value"], s["min"], s["max"]) for s in people]
        alt = f"{name} of each of {len(people)} {resampled(r)}, mean over seeds, from {number(people[0]['value'])} to {number(people[-1]['value'])}"
        middle = float(np.median([s["value"] for s in people]))
        picture = ranges(
            entries, middle, title=f"Single {resampled(r)}", ylabel=name, xlabel=f"{resampled(r)}, in rising order", alt=alt
        )
        out.append(
            (
                picture,
                f"Each dot is one {resampled(r)[:-1]}: the mean over seeds, the bar from the lowest to the highest seed; the line is the median.",
            )
        )
    name, known = r["metric"], [f for f in r["folds"] if f[r["metric"]]["value"] is not None]
    entries = [(f"fold {f['fold']}", *(f[name][k] for k in ("value", "min", "max"))) for f in known]
    seeds = [
        (f"seed {s}", v["value"]) for s, v in zip(r["seeds"], r["scores"][name]["seeds"], strict=True) if v["value"] is not None
    ]
    if len(seeds) > 1:
        entries += [(who, v, v, v) for who, v in seeds]
    if len(entries) > 1 and r["scores"][name]["value"] is not None:
        alt = f"{METRIC_NAMES[name]}. " + "; ".join(f"{who}: {number(v)}" for who, v, _, _ in entries)
        picture = ranges(
            entries, r["scores"][name]["value"], title="Folds and seeds", ylabel=METRIC_NAMES[name], xlabel="", alt=alt
        )
        text = "Folds: mean over seeds, bar from the lowest to the highest seed. Seeds and line: all folds pooled."
        out.append(
            (
                picture,
                text
                + f" Folds differ because their {'people' if resampled(r) == 'subjects' else 'recordings'} do; seeds say what chance in training does.",
            )
        )
    return out


def ranges(entries: Entries, line: float, *, title: str, ylabel: str, xlabel: str, alt: str) -> str:
    """A dot and a bar from low to high for each entry, beside a dashed line; names below where there are any."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.subplots()
        for k, (_, value, low, high) in enumerate(entries, start=1):
            axes.plot([k, k], [low, high], color=figures.COLOURS[5], linewidth=2.5, solid_capstyle="butt")
            axes.plot([k], [value], "o", color=figures.COLOURS[0], markersize=5)
        axes.axhline(line, color=figures.GREY, linestyle="--")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if any(name for name, *_ in entries):
            axes.set_xticks(range(1, len(entries) + 1), [e[0] for e in entries], rotation=60 if len(entries) > 5 else 0)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figures.svg(figure, alt, f"{title} {alt}")


def _lead(held: FoldRun, results: list[dict[str, Any]]) -> str:
    n = sum(held.trained(m) for m in held.members)
    what = f"{len(held.folds)} folds of split {held.split}" if held.folds else f"split {held.split}"
    seeds = f"{len(held.seeds)} seed{'s' if len(held.seeds) > 1 else ''}"
    lines = [f"{held.label}, {what}, {seeds}: {n} of {len(held.members)} models are trained. It is an estimate, not a model."]
    for r in results[:3]:
        main = r["scores"][r["metric"]]
        lines += warnings(r)
        text = f"{heading(r)}: {METRIC_NAMES[r['metric']]} {interval(main)}"
        lines.append(text + (f", seeds from {number(main['min'])} to {number(main['max'])}." if len(r["seeds"]) > 1 else "."))
    return "".join(html.para(line, "lead") for line in lines)


def _trainings(held: FoldRun, results: list[dict[str, Any]]) -> str:
    """What each training chose, as the newest evaluation read it."""
    if not results:
        return html.para(f"{len(held.members)} trainings; what each chose is shown once they are judged.")
    rows = [["seed", "fold", "mode", "trained on", "weights after step", "score it was chosen by"]]
    for m in results[-1]["model"]["members"]:
        inner = m["inner"]
        by = (
            "-"
            if inner is None
            else f"{number(inner['score'])} ({'part val' if inner['by'] == 'val' else f'folds of training {resampled(results[-1])}'})"
        )
        cells = [str(m["seed"]), "-" if m["fold"] is None else str(m["fold"]), m["mode"]]
        rows.append([*cells, f"{m['windows']:,} windows of {m['subjects']} subjects", f"{m['taken_at']:,} of {m['steps']:,}", by])
    return html.table(
        rows, caption=f"Each is one whole fine-tuning; everything was chosen without the {resampled(results[-1])} it is judged on"
    )


def _provenance(held: FoldRun, corpora: list[Corpus], results: list[dict[str, Any]]) -> str:
    rows: dict[str, object] = {"folds (hash of who is where)": held.parts}
    rows |= {k.replace("_", " "): v for k, v in held.settings.items() if v not in (None, "", False, [])}
    rows = {"trained on": f"{held.corpus['name']}, corpus {held.corpus['hash'][:16]}"} | rows
    places = [c.path for c in corpora] + [Path(r["ledger"]["file"]).parent for r in results if "ledger" in r]
    weights = results[-1]["model"]["sha256"] if results else ""
    facts = {} if held.settings.get("scratch") else {"plan": {"init": held.encoder}}
    return html.facts(rows) + sections.provenance(facts, [], corpora, all_openings(places), weights)


def _limits(held: FoldRun, results: list[dict[str, Any]]) -> list[str]:
    lines = [
        "For research. Nothing here is validated for diagnosis or care.",
        f"Intervals resample the judged {all_resampled(results)}; they say nothing of other hospitals, devices or populations.",
    ]
    if held.folds:
        lines.append(
            "The models of the folds were trained on nearly the same data, so folds are not independent; pooled rankings (AUROC) "
            "compare probabilities of different models."
        )
    if len(held.seeds) == 1:
        lines.append("One seed: another may give another figure.")
    return lines


def _evaluations(held: FoldRun) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluations of the weights that are there, oldest first; a note for each other."""
    try:
        weights = held.weights()
    except BiosslError as error:
        return [], [str(error)]
    found, notes = [], []
    for file in sorted((held.path / "evaluations").glob("*/results.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            same = result["model"]["sha256"] == weights
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{file}: damaged; run the command that wrote it again") from None
        if same:
            found.append(result)
        else:
            notes.append(
                f"evaluations/{file.parent.name} judged other weights than those of the models and is left out; evaluate again"
            )
    return sorted(found, key=lambda r: str(r["date"])), notes


def _corpora(held: FoldRun) -> tuple[list[Corpus], list[str]]:
    """The corpus the models were trained on, where it still is."""
    for member in held.members:
        try:
            places = json.loads((held.path / member.folder / "run.json").read_text(encoding="utf-8"))["corpora_at"]
            corpus = Corpus.open(places[0])
        except (BiosslError, OSError, ValueError, KeyError, IndexError):
            continue
        if corpus.hash == held.corpus["hash"]:
            return [corpus], []
    digest = held.corpus["hash"][:12]
    return [], [f"corpus {held.corpus['name']} ({digest}) is not where the trainings found it: its cohort flow is left out"]
