"""``report.md``: a fine-tuned run after the items of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378).

What lives here: the items in the order and with the numbers of the published checklist, each filled with what the run's files, its
corpora and evaluations say. What only the authors can know is asked for in one marked line; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from biossl.downstream.evaluate_text import (
    calibration_lines,
    coverage_rows,
    heading,
    judged_line,
    rival_rows,
    score_rows,
    threshold_lines,
)
from biossl.metrics.intervals import N_RESAMPLES
from biossl.metrics.subgroups import MIN_SUBJECTS
from biossl.models.group_heads import GroupHead
from biossl.probe_text import METRIC_NAMES, all_resampled, class_rows, interval, number, resampled, split_name, verdict, warnings
from biossl.report import flow, known, people
from biossl.report.known import Rows, wanted
from biossl.report.study import Study, opening_rows

NOT_JUDGED = "The locked model was not evaluated: `biossl evaluate RUN CORPUS`, then write this report again."
Block = str | Rows


@dataclass(frozen=True)
class Item:
    """One item of the checklist: its number, name, and lines of text or tables."""

    number: str
    name: str
    blocks: Sequence[Block]


def report(study: Study) -> str:
    """The whole document in Markdown.

    Parameters
    ----------
    study : Study

    Examples
    --------
    >>> report(study).splitlines()[0]  # doctest: +SKIP
    '# A model for activity6'
    """
    gaps = 0
    out = [f"# A model for {_plain(study.label)}", ""]
    body: list[str] = []
    for section, items in sections(study).items():
        body += [f"## {section}", ""]
        for item in items:
            body += [f"### {item.number} {item.name}", ""]
            for block in item.blocks:
                gaps += isinstance(block, str) and known.WANTED in block
                body += _table(block) if isinstance(block, list) else [_plain(block)]
                body.append("")
    lead = "After the items of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), filled by biossl from the run's own files. "
    out += [lead + f"{gaps} places are for the authors: search for `{known.WANTED.strip()}`.", ""]
    results = [j.result for j in study.judged]
    out.append(f"A research report, no statement of clinical use. Brackets are 95 % intervals over {all_resampled(results)}.")
    for line in dict.fromkeys(w for r in results for w in warnings(r)):
        out += ["", _plain(f"**{line}**")]
    return "\n".join([*out, "", *body])


def sections(study: Study) -> dict[str, list[Item]]:
    """Section of the checklist -> its items."""
    return {
        "Title and abstract": _title(study), "Introduction": _introduction(study), "Methods": _methods(study) + _analysis(study),
        "Open science": _open_science(study), "Patient and public involvement": [Item("19", "Patient and public involvement", [
            wanted("how patients and the public took part in design, conduct, reporting or dissemination, or that they did not")])],
        "Results": _results(study), "Discussion": _discussion(study),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- title to objectives


def _title(study: Study) -> list[Item]:
    kind = "development and evaluation" if study.judged else "development (not evaluated)"
    modality = study.model.encoder.spec.modality.upper()
    main = [_main(study, j.result) for j in study.judged] or [NOT_JUDGED]
    return [
        Item("1", "Title", [
            f"Study: {kind} of a prediction model by machine learning; outcome {study.label}; input {modality} windows.",
            wanted("a title that names development or evaluation, the target population and the outcome"),
        ]),
        Item("2", "Abstract", [*main, wanted("the abstract, after the TRIPOD+AI list for abstracts")]),
    ]  # fmt: skip


def _main(study: Study, r: dict[str, Any]) -> str:
    text = f"{heading(r)}: {METRIC_NAMES[r['metric']]} {interval(r['scores'][r['metric']])}, {judged_line(r)}"
    beside = [f"minus {x['model']} {interval(x['minus'], signed=True)}{verdict(x['minus'])}" for x in r["rivals"]]
    seen = (
        f"; {r['seen']['subjects']} of the {r['seen']['of']} judged subjects had been seen: optimistic"
        if r["seen"]["subjects"]
        else ""
    )
    return "; ".join([text, *beside]) + seen + "."


def _introduction(study: Study) -> list[Item]:
    use = known.intended(study, "intended use")
    goal = f"To develop a model of {study.label} and lock it" + (", and to judge it unchanged:" if study.judged else ".")
    return [
        Item("3a", "Background: healthcare context", [wanted("diagnostic or prognostic, the rationale, and existing models")]),
        Item("3b", "Background: target population and intended use", [
            f"From the model's card: {use}" if use else wanted("target population, place in the care pathway, intended users"),
        ]),
        Item("3c", "Background: health inequalities", [wanted("known inequalities between sociodemographic groups")]),
        Item("4", "Objectives", [
            " ".join([goal, *(heading(j.result) + "." for j in study.judged)]), wanted("the objectives as the protocol states them"),
        ]),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- methods


def _methods(study: Study) -> list[Item]:
    about, sets = study.model.about, [c for c, _ in known.corpora(study) if c is not None]
    dates = [f"{c.card.title or c.card.name}: {text}" for c in sets if (text := known.days(c))]
    prepared = [line for c in sets for line in known.preparation(c)] or [
        "The corpora are not at hand: how they were prepared is not known."
    ]
    spec = study.model.encoder.spec
    normalise = study.model.encoder.config.normalise
    sites = [(c, n) for c in sets for n in c.index.columns if n.casefold() in ("site", "centre", "center", "hospital")]
    where = [f"{c.card.title or c.card.name}: column {n} has {c.index[n].nunique():,} values" for c, n in sites]
    unknown = [row for f in flow.flows(study) for row in flow.rows(f)[1:] if "label unknown" in row[4]]
    return [
        Item("5a", "Data: sources", [*_list(known.sources(study)), wanted("why these sources, and how representative they are")]),
        Item("5b", "Data: dates", [*_list(dates), wanted("start and end of accrual, and of follow-up where there is one")]),
        Item("6a", "Participants: setting", [*_list(where), wanted("setting (primary care, hospital, home), number and place of centres")]),
        Item("6b", "Participants: eligibility", [
            "By biossl: a recording that can be read, a window of which enough was observed, a known label (counts in item 20a).",
            wanted("clinical criteria of inclusion and exclusion"),
        ]),
        Item("6c", "Participants: treatments", [wanted("treatments received and how they were handled, if relevant")]),
        Item("7", "Data preparation", [*_list(prepared), *_list(line for c in sets for line in known.privacy(c))]),
        Item("8a", "Outcome: definition", [known.outcome(study), wanted("how and when it was assessed, the time horizon, whether alike in all groups")]),
        Item("8b", "Outcome: assessors", [wanted("who assessed it, with what qualification, where judgement was needed")]),
        Item("8c", "Outcome: blinding", [wanted("whether assessors knew the predictors")]),
        Item("9a", "Predictors: choice", ["All samples of the signal's channels"
            + (", and when its windows were recorded" if isinstance(study.model.head, GroupHead) else "") + "; no other predictor enters the model.", wanted("why these channels")]),
        Item("9b", "Predictors: definition", [
            f"{spec.modality.upper()}: channels {' '.join(spec.ch_names)} in {', '.join(sorted(set(spec.units)))}, {spec.sfreq:g} Hz, windows of "
            f"{spec.n_samples} samples ({spec.window_s:g} s).",
            wanted("device, placement, when they were measured"),
        ]),
        Item("9c", "Predictors: assessors", ["Samples of a signal need no one's judgement.", wanted("who placed the sensors, if that matters")]),
        Item("10", "Sample size", [
            f"All labelled windows that the split and the draw of labels allow: trained on {about['trained']['windows']:,} windows of "
            f"{about['trained']['subjects']:,} subjects. No calculation of sample size was made by biossl.",
            wanted("how the size was arrived at, for development and evaluation, and whether it suffices"),
        ]),
        Item("11", "Missing data", [
            "Samples that were not observed are stored as such; windows with too many of them, and those without any observed sample, are "
            "left out. A window with an unknown label is left out, never taken as negative. Subjects without a covariate are a group of their own.",
            *([f"Label unknown: {'; '.join(r[4] for r in unknown)}."] if unknown else []),
            wanted("why values are missing"),
        ]),
        Item("12a", "Analytical methods: how the data were used", [_used(study)]),
        Item("12b", "Analytical methods: handling of predictors", [
            f"The signal as prepared under item 7, amplitudes normalised: {normalise}; features are learnt, none is chosen by hand.",
        ]),
    ]  # fmt: skip


def _used(study: Study) -> str:
    about = study.model.about
    by = (about["inner"] or {}).get("by")
    chosen = {
        "val": "part val chose how long to train and gave calibration and limits",
        "train": f"grouped folds of the training {'recordings' if about.get('within_subject') else 'subjects'} did so",
    }
    text = f"Trained on part train of {split_name(about['split'])}{people.apart(study)}; {chosen.get(str(by), 'nobody was held out to choose by')}."
    for what in ("subjects", "recordings"):
        where = [heading(j.result) for j in study.judged if j.result["seen"]["subjects"] == 0 and resampled(j.result) == what]
        text += f" Judged, with nothing fitted, on unseen {what}: {'; '.join(where)}." if where else ""
    return text


def _analysis(study: Study) -> list[Item]:
    model, about = study.model, study.model.about
    config, head = model.encoder.config, about["head"]
    recipe = study.facts.get("plan", {}).get("recipe", {})
    optimizer = recipe.get("train", {}).get("optimizer", {})
    rate = f", AdamW with learning rate {optimizer['lr']:g} and weight decay {optimizer['weight_decay']:g}" if optimizer else ""
    weights = recipe.get("objective", {}).get("weights") or []
    metrics = sorted({METRIC_NAMES[m] for j in study.judged for m in j.result["scores"]})
    over = all_resampled(j.result for j in study.judged)
    groups = sorted({n for j in study.judged for n in j.result["groups"]})
    rivals = sorted({r["model"] for j in study.judged for r in j.result["rivals"] if "run" not in r})
    inner = about["inner"] or {}
    context = ", which reads a window together with others of its recording" if isinstance(model.head, GroupHead) else ""
    return [
        Item("12c", "Analytical methods: model, building, tuning", [
            f"{config.describe()}; head {head['name']}{context}; fine-tuned in mode {about['mode']} for {about['trained']['steps']:,} steps{rate}; weights after step "
            f"{about['trained']['taken_at']:,} were taken. Seed {about['seed']}. The resolved recipe is in the run folder.",
            *_list(study.say(c) for c in about["choices"]),
            *([f"Score by which it was chosen ({known.held_out(study)}): {number(inner['score'])}."] if inner.get("score") is not None else []),
            known.calibration(study),
        ]),
        Item("12d", "Analytical methods: heterogeneity", [
            f"Intervals resample {over} with all their windows; scores of single {over}, of groups of covariates "
            f"({', '.join(groups) or 'none asked for'}) and of each corpus stand apart.",
        ]),
        Item("12e", "Analytical methods: measures of performance", [
            f"{', '.join(metrics)}, each with a 95 % percentile interval over {N_RESAMPLES:,} resamples of {over}; calibration error"
            f"{'; decision curve' if model.kind == 'binary' else ''}; paired differences to simple models fitted on the same training rows ({', '.join(rivals) or 'none'})." if study.judged else NOT_JUDGED,
            wanted("which measure decides, as fixed before the evaluation"),
        ]),
        Item("12f", "Analytical methods: updating", ["None: weights, calibration and thresholds are locked; `biossl evaluate` fits nothing."]),
        Item("12g", "Analytical methods: how predictions are made", [
            f"`biossl predict RUN CORPUS_OR_FILES OUT.parquet`: of each window {known.output(study)}.",
        ]),
        Item("13", "Class imbalance", [
            "How classes were weighted is not recorded." if not recipe else f"Loss weighted by class: {', '.join(f'{w:.3g}' for w in weights)}."
            if weights else "Classes were neither weighted nor resampled in the loss.",
            *([known.calibration(study)] if weights else []),
        ]),
        Item("14", "Fairness", [
            f"Scored apart by {', '.join(groups)} (item 23a); a group under {MIN_SUBJECTS} {over} is named and not scored." if groups
            else "No group was scored apart: `biossl evaluate RUN CORPUS --by sex age`.",
            wanted("which groups matter and why, and what was done about differences"),
        ]),
        Item("15", "Model output", [f"For each window {known.output(study)}.", *_list(known.thresholds(study)), *([known.cutoffs(study)] if known.cutoffs(study) else [])]),
        Item("16", "Training versus evaluation", _differences(study)),
        Item("17", "Ethical approval", [wanted("the board, its decision and number, and consent or its waiver")]),
    ]  # fmt: skip


def _differences(study: Study) -> list[Block]:
    if not study.judged:
        return [NOT_JUDGED]
    out: list[Block] = []
    for j in study.judged:
        same = study.trained is not None and j.corpus is not None and j.corpus.hash == study.trained.hash
        if same:
            text = "the same set, view and label, other " + (
                "recordings of the same people" if j.result.get("within_subject") else "subjects"
            )
        elif j.corpus is None or study.trained is None:
            text = "another corpus, or one that is not at hand: its differences are not known"
        else:
            a, b = study.trained, j.corpus
            changed = [f"{what} {x} and {y}" for what, x, y in (
                ("set", a.card.title or a.card.name, b.card.title or b.card.name), ("view", a.view, b.view),
                ("rate in Hz", f"{a.spec.sfreq:g}", f"{b.spec.sfreq:g}"), ("label", study.label, j.result["label"]),
                ("channels", " ".join(a.spec.ch_names), " ".join(b.spec.ch_names)), ("filters", str(a.spec.filter), str(b.spec.filter)),
            ) if x != y]  # fmt: skip
            text = "training and evaluation differ: " + "; ".join(changed)
        seen = j.result["seen"]
        out.append(
            f"{heading(j.result)}: {text}; {seen['subjects']} of the {seen['of']} judged subjects had been seen by encoder or model."
        )
    return [*out, wanted("differences in setting, eligibility, outcome and predictors")]


def _open_science(study: Study) -> list[Item]:
    versions = ", ".join(f"{k} {v}" for k, v in study.facts.get("versions", {}).items()) or "not recorded"
    commits = sorted({j.result["commit"] for j in study.judged if j.result["commit"]})
    shared = [
        f"{c.card.title or c.card.name}: {c.card.obtain} (licence {c.card.licence})"
        for c, _ in known.corpora(study)
        if c is not None and c.card.public
    ]
    closed = any(c is None or not c.card.public for c, _ in known.corpora(study))
    return [
        Item("18a", "Funding", [wanted("sources of funding and the role of funders")]),
        Item("18b", "Conflicts of interest", [wanted("conflicts and financial disclosures of all authors")]),
        Item("18c", "Protocol", [wanted("where the protocol is, or that none was written")]),
        Item("18d", "Registration", [wanted("registry and number, or that the study was not registered")]),
        Item("18e", "Data sharing", [*_list(shared), *([wanted("whether and how the data that are not public can be had")] if closed or not shared else [])]),
        Item("18f", "Code sharing", [
            f"biossl (Apache-2.0), trained with {versions}" + (f"; evaluated at commit {', '.join(commits)}" if commits else "") + ".",
            wanted("where recipe, model and scripts of the analysis are shared"),
        ]),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- results


def _results(study: Study) -> list[Item]:
    drawn: list[Block] = []
    for f in flow.flows(study):
        drawn += [
            f"{f.title}. What was lost is named beside the step it was lost before.",
            flow.rows(f),
            *_list(study.say(n) for n in f.notes),
        ]
    who, counted = people.characteristics(study), people.classes(study)
    gone: list[Block] = ["Not known: the corpora are not at hand."]
    model = study.model
    return [
        Item("20a", "Participants: flow", drawn),
        Item("20b", "Participants: characteristics", [who] if who else gone),
        Item("20c", "Participants: development and evaluation compared", [
            "Columns of the table under item 20b." if who and study.judged else NOT_JUDGED if not study.judged else gone[0],
        ]),
        Item("21", "Model development: participants and outcome events", [counted] if counted else gone),
        Item("22", "Model specification", [
            f"Weights of {model.about['weights']['parameters']:,} parameters, SHA-256 {study.sha256}; architecture, input, head, calibration, "
            "thresholds and limits are in `model.yaml` beside them. Its encoder before fine-tuning: "
            f"{str(model.about['encoder_hash'])[:16]}.",
            wanted("how others can get the model, or why not"),
        ]),
        Item("23a", "Model performance", _performance(study)),
        Item("23b", "Model performance: heterogeneity", _heterogeneity(study)),
        Item("24", "Model updating", ["None was made."]),
    ]  # fmt: skip


def _performance(study: Study) -> list[Block]:
    out: list[Block] = []
    for j in study.judged:
        r = j.result
        out += [heading(r), judged_line(r), score_rows(r)]
        out += [rival_rows(r)] if r["rivals"] else ["No simple model stands beside it."]
        out += [class_rows(r)] if r["per_class"] else []
        out += [*_list([*calibration_lines(r), *threshold_lines(r)]), coverage_rows(r)]
        out += [people.group_table(j, name) for name in r["groups"]]
        far = known.abstained(r)
        out += [far] if far else []
    opened = [known.opened(study), opening_rows(study.openings)] if study.openings else [known.opened(study)]
    return [*(out or [NOT_JUDGED]), *opened]


def _heterogeneity(study: Study) -> list[Block]:
    out: list[Block] = []
    for j in study.judged:
        spread = j.result["per_subject"] or []
        measure = next((k for k in (spread[0] if spread else {}) if k not in ("subject", "n")), None)
        values = sorted(e[measure] for e in spread if e[measure] is not None) if measure else []
        if values:
            name = "absolute error" if measure == "mae" else str(measure)
            middle = (
                values[len(values) // 2] if len(values) % 2 else (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2
            )
            out.append(
                f"{heading(j.result)}: {name} of {len(values)} single {resampled(j.result)} from {number(values[0])} to {number(values[-1])}, median {number(middle)}."
            )
    return out or [NOT_JUDGED]


# ---------------------------------------------------------------------------------------------- discussion


def _discussion(study: Study) -> list[Item]:
    notes = sorted(
        {study.say(n) for j in study.judged for n in j.result["notes"]} | {study.say(n) for n in study.model.lock.notes}
    )
    scope = known.intended(study, "out of scope", "out of scope use")
    return [
        Item("25", "Interpretation", [*([_main(study, j.result) for j in study.judged] or [NOT_JUDGED]), wanted("what the results mean, fairness included")]),
        Item("26", "Limitations", [
            "Nothing here is validated for diagnosis or care. Intervals say nothing of other hospitals, devices or populations. One training "
            f"with one seed ({study.model.about['seed']}): another may give another figure.",
            *_list(notes), known.opened(study), wanted("representativeness, sample size, overfitting, missing data, and what they bias"),
        ]),
        Item("27a", "Usability: poor or missing input", known.familiar(study)),
        Item("27b", "Usability: users", [
            *([f"Out of scope, from the model's card: {scope}"] if scope else []),
            wanted("whether users handle input or output, and what expertise they need"),
        ]),
        Item("27c", "Usability: next steps", [wanted("next research, and where the model may be applied and generalise")]),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- Markdown


def _list(lines: Any) -> list[Block]:
    """One bulleted block; nothing of nothing."""
    found = [str(line) for line in lines]
    return ["\n".join(f"- {line}" for line in found)] if found else []


def _plain(text: str) -> str:
    """Nothing a Markdown page would run as HTML."""
    return text.replace("<", "&lt;")


def _table(rows: Rows) -> list[str]:
    """A pipe table; the first row is its header."""
    cells = [[_plain(" ".join(str(c).split())).replace("|", "\\|") for c in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "| " + " | ".join("---" for _ in cells[0]) + " |", *lines[1:]]
