"""The packet for an ethics board: what a locked model was made of, for whom, when it does not decide, and who has looked how often.

What lives here: :func:`write_ethics` and the order of its about four printed pages. One HTML file that needs nothing else and reads
as plain text from top to bottom; no script, no link, no figure. What only the authors can know is asked for, never guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from biossl.atomic import write_text
from biossl.downstream.evaluate_text import calibration_lines, coverage_rows, heading, judged_line, rival_rows, threshold_lines
from biossl.errors import RequestError
from biossl.metrics.subgroups import MIN_SUBJECTS
from biossl.probe_text import METRIC_NAMES, all_resampled, interval, resampled, warnings
from biossl.report import flow, html, known, people
from biossl.report.known import wanted
from biossl.report.run_page import read_run
from biossl.report.study import Study, opening_rows, read_study

NOT_JUDGED = (
    "Not evaluated: nothing is known of how well this model does on people it has not seen (`biossl evaluate RUN CORPUS`)."
)
OPENINGS = 12  # the last of them are shown here, all of them on the run's page
GROUPS = 16  # lines of subgroups
_CSS = """<style>body { max-width: 52rem; font-size: 14px; } h2 { margin: 1.2rem 0 .4rem; } p { margin: .4rem 0; } li { margin: .1rem 0; }
table { font-size: .85rem; margin: .3rem 0 .5rem; } th, td { padding: .1rem .6rem .1rem 0; } th { white-space: normal; }
nav { display: none; } @page { margin: 16mm; } @media print { body { font-size: 8.5pt; line-height: 1.3; } }</style>"""


def write_ethics(run: str | Path, out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the packet of a fine-tuned run.

    Parameters
    ----------
    run : path
        Run folder of ``biossl finetune``.
    out : path
        ``.html`` file.
    overwrite : bool

    Returns
    -------
    dict
        ``out``, ``to_fill`` (places left to the authors), ``notes``.

    Raises
    ------
    RequestError
        Not a run, a run without a locked model, or the file exists.
    DataError
        A file of the run is damaged.

    Examples
    --------
    >>> write_ethics("runs/hapt-6", "ethics.html")["out"]  # doctest: +SKIP
    'ethics.html'
    """
    path, file = Path(run), Path(out)
    if not (path / "model" / "model.yaml").is_file() or not (path / "run.json").is_file():
        what = "no locked model here" if path.is_dir() else "no such folder"
        raise RequestError(f"{path}: {what}; --ethics is about a model of `biossl finetune`: give its run folder")
    if file.is_dir():
        raise RequestError(f"{file}: a folder; give the name of an .html file")
    if file.exists() and not overwrite:
        raise RequestError(f"{file}: exists; give another --ethics or add --overwrite")
    held = read_run(path)
    study = read_study(path, held.facts, held.corpora, held.evaluations)
    text = packet(study)
    write_text(file, text)
    return {"out": str(file), "to_fill": text.count(known.WANTED), "notes": held.notes}


def packet(study: Study) -> str:
    """The whole page."""
    parts = [
        ("model", "1. The model", _model(study)),
        ("use", "2. Intended use, and what it is not for", _use(study)),
        ("data", "3. The data, and what was kept of them", _data(study)),
        ("people", "4. Whom it was trained on and judged on", _people(study)),
        ("numbers", "5. How well it does, and how its decisions come about", _numbers(study)),
        ("groups", "6. Groups of people", _groups(study)),
        ("unfamiliar", "7. When it does not decide", _unfamiliar(study)),
        ("openings", "8. How often the test was opened", _openings(study)),
        ("software", "9. Software", _software(study)),
    ]
    lead = html.para(
        "For an ethics board. Filled by biossl from the files of the run; what it cannot know is marked "
        + known.WANTED.strip(": ")
        + ".",
        "lead",
    )
    return html.page(f"Locked model for {study.label}", parts, lead).replace("</head>", f"{_CSS}\n</head>", 1)


def _model(study: Study) -> str:
    about, spec = study.model.about, study.model.encoder.spec
    return html.facts({
        "says": f"of each window of {spec.window_s:g} s of {spec.modality.upper()}: {known.output(study)}",
        "outcome": known.outcome(study),
        "made by": f"fine-tuning, mode {about['mode']}, seed {about['seed']}, biossl {about['biossl']}; {about['weights']['parameters']:,} parameters",
        "SHA-256 of the weights": study.sha256,
        "state": "locked: weights, calibration, thresholds and limits do not change in use",
        "responsible": wanted("who answers for the model, and where to write"),
    })  # fmt: skip


def _use(study: Study) -> str:
    use, scope = known.intended(study, "intended use"), known.intended(study, "out of scope", "out of scope use")
    return html.facts({
        "intended use": use or wanted("for whom, by whom, at what point of care, with what consequence"),
        "not for": scope or wanted("uses, people and devices the model must not be applied to"),
        "always": "A research tool, no medical device. Signals of another kind, rate, unit or device are refused or need their own evaluation.",
    })  # fmt: skip


def _data(study: Study) -> str:
    out = html.notes(known.sources(study))
    for corpus, use in known.corpora(study):
        if corpus is None:
            continue
        name = corpus.card.title or corpus.card.name
        out += html.para(
            f"{name} ({use}): kept as {known.channels(corpus)}, windows of {corpus.spec.window_s:g} s, and these fields."
        )
        out += html.table(known.fields(corpus)) + html.notes(known.privacy(corpus))
    return out + html.para(wanted("legal basis or consent for this use, retention, and who has access"))


def _people(study: Study) -> str:
    out = ""
    for f in flow.flows(study):
        out += html.table(flow.rows(f), caption=f.title) + html.notes([study.say(n) for n in f.notes])
    who = people.characteristics(study)
    return out + (html.table(who, caption="Subjects by what they were for") if who else "")


def _numbers(study: Study) -> str:
    out = ""
    for j in study.judged:
        r = j.result
        rows = [
            ["measure", f"value [95 % interval over {resampled(r)}]"],
            *([METRIC_NAMES[m], interval(v)] for m, v in r["scores"].items()),
        ]
        out += html.para(f"{heading(r)}. {judged_line(r)}.") + html.table(rows)
        out += html.table(rival_rows(r), caption="Beside it on the same rows") if r["rivals"] else ""
        out += "".join(html.para(line, "warn") for line in warnings(r))
        if r["seen"]["subjects"]:
            out += html.para(
                f"{r['seen']['subjects']} of the {r['seen']['of']} judged subjects had been seen: these figures are optimistic.",
                "warn",
            )
        out += html.notes([*calibration_lines(r), *threshold_lines(r), *(study.say(n) for n in r["notes"])])
    out = out or html.para(NOT_JUDGED, "warn")
    return out + html.notes([known.calibration(study), *known.thresholds(study), *([c] if (c := known.cutoffs(study)) else [])])


def _groups(study: Study) -> str:
    if not study.judged:
        return html.para(NOT_JUDGED)
    out, left = "", GROUPS
    for j in study.judged:
        for name in j.result["groups"]:
            rows = people.group_table(j, name)
            out += html.table(rows[: 1 + max(left, 0)], caption=f"{heading(j.result)}, by {name}")
            left -= len(rows) - 1
    if not out:
        return html.para("No group was scored apart: `biossl evaluate RUN CORPUS --by sex age`.", "warn")
    more = f" {-left} more groups stand in results.json." if left < 0 else ""
    return out + html.para(
        f"A group under {MIN_SUBJECTS} {all_resampled(j.result for j in study.judged)} is named and not scored: too few to tell.{more}"
    )


def _unfamiliar(study: Study) -> str:
    lines = known.familiar(study)
    out = html.notes(lines)
    for j in study.judged:
        far = known.abstained(j.result)
        kept = [coverage_rows(j.result)[0], *(row for row in coverage_rows(j.result)[1:] if not row[0].startswith("confidence"))]
        out += html.para(f"{heading(j.result)}: {far}" if far else heading(j.result)) + html.table(kept)
    return out + html.para(wanted("what happens to a person on whom the model gives no decision"))


def _openings(study: Study) -> str:
    out = html.para(known.opened(study) + " The more often a test part is looked at, the less a single figure proves.")
    if not study.openings:
        return out
    rows = [[row[i] for i in (0, 1, 2, 3, 4, 6, 9)] for row in opening_rows(study.openings)]
    left = len(rows) - 1 - OPENINGS
    out += html.table([rows[0], *rows[-OPENINGS:]] if left > 0 else rows)
    return out + (html.para(f"{left} earlier ones stand on the run's page.") if left > 0 else "")


def _software(study: Study) -> str:
    rows = known.software(study)
    return html.table(rows) + html.para(
        "Licences as the packages' own metadata state them. biossl uses no network but in `biossl download`."
    )
