"""The sections of a run's page: from plain values to inner HTML. Nothing is read from disk here.

What lives here: one function a section. Every number printed comes from the run's files or its corpora.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.downstream.evaluate_text import heading
from biossl.probe_text import (
    METRIC_NAMES,
    all_resampled,
    class_rows,
    count_line,
    cross_line,
    interval,
    model_rows,
    number,
    paired_lines,
    positive_line,
    resampled,
    split_name,
    verdict,
    warnings,
)  # fmt: skip
from biossl.report import figures, html
from biossl.report.embedding_map import LEAST, EmbeddingMap
from biossl.report.study import opening_rows
from biossl.training.monitors import concern

Array = NDArray[Any]
LOGGED = {
    "step": "optimiser steps done",
    "loss": "loss", "lr": "learning rate", "weight_decay": "weight decay (AdamW, per step and unit of learning rate)",
    "momentum": "momentum of the averaged (target) encoder: the share of it that stays at each step",
    "grad_norm": "norm of the gradient before clipping", "samples_per_s": "speed, windows a second",
    "std": "spread of embeddings (std x sqrt(D): 1 = free, 0 = all windows alike)",
    "start_std": "spread of embeddings before the first step", "rankme_centred": "effective rank, centred (dimensions)",
    "rankme_uncentred": "effective rank, uncentred (dimensions)", "target_variance": "variance of targets over tokens",
    "prediction_variance": "variance of predictions over tokens", "probe": "linear probe on held-out training subjects (score)",
    "prediction": "loss term: error of the predicted features", "visible": "loss term: error at visible tokens",
    "reconstruction": "loss term: error of the reconstructed values",
    "explained": "share of the targets' variance explained (1 = all, 0 = no better than their mean)",
    "variance": "loss term: variance hinge (0 = no feature is too flat; no sign of collapse)",
    "covariance": "loss term: covariance of features (0 = none says what another says)",
    "invariance": "loss term: distance of two views", "sigreg": "loss term: distance from a standard normal",
    "agreement": "loss term: distance of the views", "contrast": "loss term: contrastive", "nt_xent": "loss term: contrastive (NT-Xent)",
    "instance": "loss term: contrast between windows", "temporal": "loss term: contrast between times of a window",
    "equivariance": "loss term: tokens of transformed windows against moved tokens",
    "koleo": "loss term: distance to the nearest other window (-log; lower = further apart)",
    "nce": "loss term: contrastive (InfoNCE)", "penalty": "loss term: penalty of the augmentation",
}  # fmt: skip


def lead(facts: dict[str, Any], probes: list[dict[str, Any]], evaluations: list[dict[str, Any]] | None = None) -> str:
    """What came out, in two sentences; ``evaluations`` of a fine-tuned run (None = the run was not fine-tuned)."""
    recipe = facts.get("plan", {}).get("recipe", {})
    state = "finished" if facts.get("finished") else "NOT finished"
    text = f"{recipe.get('name', 'unnamed recipe')}, {state}"
    if "steps" in facts:
        text += f" after {facts['steps']:,} steps"
    lines = [text + "."]
    labels = [p["label"] for p in probes[:3]]
    for p in probes[:3]:
        main = p["models"][0]
        where = (
            f" ({split_name(p['split'])}{'' if p['part'] == 'test' else ', ' + p['part']})"
            if labels.count(p["label"]) > 1
            else ""
        )
        line = f"{p['label']}{where}: {METRIC_NAMES[p['metric']]} {interval(main['scores'][p['metric']])} by a linear head on frozen features"
        beside = [d for d in p["paired"] if d["head"] == "linear"]
        line += "".join(f"; pretrained minus {d['minus']} {interval(d, signed=True)}{verdict(d)}" for d in beside)
        if p["seen"]["subjects"]:
            line += f" (optimistic: {p['seen']['subjects']} of the {p['seen']['of']} judged subjects were seen, unlabelled, in pretraining)"
        lines += [*warnings(p), line + "."]
    for r in [r for r in evaluations or [] if r.get("metric") in r["scores"]][:3]:
        lines += warnings(r)
        line = f"{heading(r)}: {METRIC_NAMES[r['metric']]} {interval(r['scores'][r['metric']])}"
        line += "".join(f"; minus {m['model']} {interval(m['minus'], signed=True)}{verdict(m['minus'])}" for m in r["rivals"])
        lines.append(line + ("; optimistic, judged subjects had been seen." if r["seen"]["subjects"] else "."))
    if evaluations is not None and not evaluations:
        lines.append("The locked model was not judged, so nothing here says what it is worth.")
    if evaluations is None and not probes:
        lines.append("No probe was run, so nothing here says what the features are worth.")
    return "".join(html.para(line, "lead") for line in lines)


def cohort(corpora: list[Corpus], trained: dict[str, str], *, boxes: bool = True) -> str:
    """Flow from files to windows with reasons, and the parts of the split used; other splits are folded away.

    ``trained`` maps the hash of each corpus trained on to the split whose part ``train`` was used, '' = all windows. ``boxes`` is
    False where a flow figure stands above.
    """
    out = ""
    for corpus in corpora:
        f = corpus.funnel
        out += f"<h3>{html.esc(corpus.card.title or corpus.card.name)}: view {html.esc(corpus.view)}</h3>"
        unusable = [f"{n:,} not usable: {why.replace('_', ' ')}" for why, n in f["quarantined"].items()]
        dropped = [f"{n:,} left out: {why.replace('_', ' ')}" for why, n in f["windows_dropped"].items() if n]
        silent = f["records_read"] - f["records_with_windows"]
        spec = corpus.spec
        out += "" if not boxes else html.flow([
            (f"{f['files_found']:,}", "recordings found", unusable),
            (f"{f['records_read']:,}", "recordings read", [f"{silent:,} gave no window"] if silent else []),
            (f"{f['windows']:,}", f"windows of {spec.window_s:g} s, {len(spec.ch_names)} channels, {spec.sfreq:g} Hz", dropped),
            (f"{f['subjects']:,}", "subjects", []),
        ])  # fmt: skip
        used, names = trained.get(corpus.hash), corpus.split_names()
        if used and used.partition(":")[0] not in names:
            out += html.para(f"Pretraining used part train of {split_name(used)}, which is no longer in the corpus.")
        elif used:
            out += _parts(corpus, used, f"{split_name(used).capitalize()}: pretraining used its part train")
        elif used == "":
            out += html.para("Pretraining used all windows of this corpus.")
        others = [n for n in names if used is None or n != used.partition(":")[0]]
        out += html.details(
            f"Other splits: {', '.join(others)}" if used else f"Splits: {', '.join(others)}",
            "".join(_parts(corpus, n, split_name(n).capitalize()) for n in others),
        )
        out += html.notes(corpus.findings[:20])
    return out or html.para("The corpora of this run are not at hand.")


def _parts(corpus: Corpus, name: str, caption: str) -> str:
    rows = [["part", "subjects", "recordings", "windows"]]
    parts = corpus.split(name)
    for part in [p for p in ("train", "val", "test") if (parts == p).any()]:
        some = corpus.index[(parts == part).to_numpy()]
        rows.append([part, *(f"{n:,}" for n in (some["subject"].nunique(), some["record"].nunique(), len(some)))])
    left = int((parts == "").sum())
    return html.table(rows, caption=caption + (f" ({left:,} windows in no part)" if left else ""))


def training(facts: dict[str, Any], log: dict[str, Array], *, labels: bool = False) -> str:
    """Loss, monitors and what to make of them."""
    out = ""
    for alarm in facts.get("alarms", []):
        out += html.para(f"Alarm: {alarm if isinstance(alarm, str) else ', '.join(f'{k} {v}' for k, v in alarm.items())}", "warn")
    low = concern(facts.get("numbers", {})) if facts.get("finished") else ""
    out += html.para(f"Look closer: {low}.", "warn") if low else ""
    if "step" not in log or not len(log["step"]):
        return out + html.para("No training log.")
    step = log["step"]
    drawn = []

    def draw(names: dict[str, str], title: str, ylabel: str, caption: str, zero: bool = False) -> None:
        lines = {text: log[key] for key, text in names.items() if key in log and np.isfinite(log[key]).any()}
        if lines:
            ends = "; ".join(f"{t}: {v[np.isfinite(v)][0]:.3g} to {v[np.isfinite(v)][-1]:.3g}" for t, v in lines.items())
            alt = f"{title} over {int(step[-1]):,} steps. {ends}."
            drawn.append((figures.curves(step, lines, title=title, ylabel=ylabel, alt=alt, zero=zero), caption))

    draw(
        {"loss": "loss"},
        "Loss on labels" if labels else "Pretraining loss",
        "loss",
        "Loss of the training windows; where to stop was chosen on others."
        if labels
        else "In joint-embedding pretraining a falling loss is no proof of progress; read it with the monitors.",
    )
    draw(
        {"std": "standard deviation"}, "Spread of embeddings", "std x sqrt(D)",
        "About 1 when features vary freely, 0 when all windows look alike.", zero=True,
    )  # fmt: skip
    draw(
        {"rankme_centred": "centred", "rankme_uncentred": "uncentred"}, "Effective rank (RankMe)", "dimensions",
        "Both must stay well above 1; they fail in different ways, so both are shown.", zero=True,
    )  # fmt: skip
    draw(
        {"target_variance": "target", "prediction_variance": "prediction"}, "Variance of targets and predictions", "variance",
        f"Falls to 0 in a collapse. {_stopping(facts)}", zero=True,
    )  # fmt: skip
    draw({"probe": "probe"}, "Linear probe during training", "score", "Judged on held-out subjects of the training part only.")
    out += html.figures(drawn)
    numbers = facts.get("numbers", {})
    if numbers:
        rows = [[k, f"{v:.4g}", LOGGED.get(k, _task(k))] for k, v in numbers.items()]
        out += html.table([["last logged", "value", "what it is"], *rows])
    return out


def _task(key: str) -> str:
    return f"share of windows told right, task {key[9:]}" if key.startswith("accuracy_") else ""


def _stopping(facts: dict[str, Any]) -> str:
    """When this run would have stopped by itself, from its recipe."""
    monitor = facts.get("plan", {}).get("recipe", {}).get("monitor", {})
    if "stop_after" not in monitor:
        return ""
    least = {name: monitor[f"stop_{name}_variance"] for name in ("target", "prediction")}
    bounds = " or ".join(f"{name} variance below {value:g}" for name, value in least.items() if value > 0)
    if not bounds:
        return "The recipe has switched off the rule that stops a run then."
    text = f"From step {monitor['stop_after']:,} on the run stops by itself at {bounds}"
    total = facts["plan"]["recipe"].get("train", {}).get("steps")
    short = total is not None and total < monitor["stop_after"]
    return text + (f"; with its {total:,} steps this run was too short for that." if short else ".")


def probes(results: list[dict[str, Any]]) -> str:
    """Each probe: rows, models with intervals, paired differences, classes, subjects, notes."""
    if not results:
        return html.para("No probe was run: `biossl probe RUN CORPUS --label NAME`, then write this page again.")
    out = html.para(
        "Features are frozen; only small heads are trained, their one setting chosen inside the training part. A figure "
        "means something only beside the random-initialised encoder and hand features. Brackets are 95 % intervals over "
        f"{all_resampled(results)}; a paired difference whose interval holds 0 shows nothing.",
        "soft",
    )
    for p in results:
        out += _probe(p)
    return out


def _probe(p: dict[str, Any]) -> str:
    scarce = "" if p["labels_fraction"] is None else f", {p['labels_fraction']:g} of the labels"
    scarce += "" if p["n_subjects"] is None else f", {p['n_subjects']} training subjects"
    how = f"judged on {p['part']} of {split_name(p['split'])}" if p["split"] else "cross-validation grouped by subject"
    out = f"<h3>{html.esc(p['label'])} in {html.esc(p['corpus']['name'])}: {html.esc(how + scarce)}</h3>"
    counts = [count_line(name, c) for name, c in p["counts"].items() if isinstance(c, dict)]
    seen = f"Seen in pretraining: {p['seen']['subjects']} of the {p['seen']['of']} judged subjects."
    out += html.notes([*counts, f"Pooling {p['pool']}, seed {p['seed']}. {seen}"])
    out += "".join(html.para(line, "warn") for line in warnings(p))
    if p["seen"]["subjects"]:
        out += html.para("The encoder had seen judged subjects (without labels): these figures are optimistic.", "warn")
    out += html.table(model_rows(p), strong=[0])
    out += html.para(positive_line(p) + ".", "soft") if positive_line(p) else ""
    out += _differences(p, "Pretrained minus others")
    if "cross_validation" in p:
        cross = p["cross_validation"]
        line = cross_line(cross)
        out += html.table(model_rows(p | cross), caption=line[0].upper() + line[1:], strong=[0])
        out += html.notes(paired_lines(p | cross))
    if p.get("layers"):
        rows = [["block", METRIC_NAMES[p["metric"]], "in training"]]
        rows += [[r["layer"], interval(r), number(r["inner"])] for r in p["layers"]]
        out += html.table(rows, caption="Linear probe of each block; one is chosen by the figure in training, never by the other")
    if p["per_class"]:
        out += html.table(class_rows(p), caption="By class, pretrained encoder, linear head")
    if p.get("confusion"):
        out += html.matrix(
            p["classes"], p["confusion"], caption="Confusion: rows the reference, columns the prediction (windows)"
        )
    spread = p.get("per_subject")
    if spread:
        low, first, middle, third, high = (number(v) for v in spread["quartiles"])
        text = f"{METRIC_NAMES[spread['metric']]} of single {resampled(p)}: median {middle}, middle half {first} to {third}, range {low} to {high}."
        out += html.para(text)
    return out + html.notes(p["notes"])


def _differences(p: dict[str, Any], title: str) -> str:
    known = [d for d in p["paired"] if d["value"] is not None]
    if not known:
        return ""
    rows = [(f"{d['minus']}, {d['head']}", d["value"], d["low"], d["high"]) for d in known]
    name = METRIC_NAMES[p["metric"]]
    svg = figures.differences(rows, title=title, xlabel=f"difference in {name}", alt=f"{title}. " + "; ".join(paired_lines(p)))
    return html.figures([(svg, f"{name}, paired by {resampled(p)[:-1]}, 95 % intervals; filled where the interval excludes 0.")])


def embedding_map(picture: EmbeddingMap | None) -> str:
    """Two maps and what neighbours share."""
    if picture is None:
        return html.para("No map: the corpus is not at hand or has too few windows.")
    what = f" by {picture.label}" if picture.label else ""
    text = f"{picture.n:,} windows of {picture.n_subjects} subject{'s' if picture.n_subjects > 1 else ''}, {picture.part}."
    if picture.n < LEAST:
        text += f" Too few (under {LEAST}) to say what neighbours share."
    if picture.same_label:
        text += f" The nearest neighbour of a window has its {picture.label} in {picture.same_label[0]:.0%} (chance {picture.same_label[1]:.0%})."
    if picture.same_subject:
        text += f" It is of the same subject in {picture.same_subject[0]:.0%} (chance {picture.same_subject[1]:.0%})."
    alt = f"Map of embeddings{what}: {text}"
    names = picture.names if picture.label else ()
    group = picture.group if picture.label else np.full(picture.n, -1)
    title = "Two principal axes" + (f" ({picture.explained:.0%} of variance)" if picture.n >= LEAST else "")
    svgs = [
        (
            figures.scatter(picture.pca, group, names, title=title, alt=alt),
            "PCA: distances mean something, but only these two axes are seen.",
        )
    ]
    if picture.tsne is not None:
        svg = figures.scatter(picture.tsne, group, names, title="t-SNE", alt=f"t-SNE. {alt}")
        svgs.append((svg, "t-SNE: who is near whom; sizes of clusters and distances between them mean nothing."))
    return html.para(text) + html.figures(svgs)


def recipe(text: str) -> str:
    """The resolved recipe."""
    return f"<pre>{html.esc(text)}</pre>" if text else html.para("No recipe in the run folder.")


def provenance(
    facts: dict[str, Any], results: list[dict[str, Any]], corpora: list[Corpus], entries: list[dict[str, Any]], model: str = ""
) -> str:
    """Versions, hashes, seeds, and every opening of a test part; ``model`` is the hash of the locked model, '' = none."""
    plan = facts.get("plan", {})
    rows: dict[str, object] = {}
    for c in plan.get("corpora", []):
        part = f" (part train of {split_name(c['split'])})" if c.get("split") else ""
        rows[f"trained on {c['name']}"] = f"{c['windows']:,} windows{part}, weight {c['weight']:g}, corpus {c['hash'][:16]}"
    for p in results:
        rows["encoder weights"] = p["encoder"]["hash"][:16]
    if plan.get("init"):
        rows["began from weights"] = str(plan["init"])[:16]
    rows |= {
        "locked model (SHA-256)": model,
        "parameters trained": f"{facts['parameters']:,}" if "parameters" in facts else "", "seed": facts.get("seed", ""),
        "wall time": f"{facts['wall_s']:,.0f} s" if "wall_s" in facts else "",
        "numeric path": ", ".join(f"{k} {v}" for k, v in facts.get("numeric_path", {}).items()),
        "versions": ", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items()),
        "licences": "; ".join(sorted({f"{c.card.name}: {c.card.licence}" for c in corpora})),
    }  # fmt: skip
    out = html.facts({k: v for k, v in rows.items() if v != ""})
    if entries:
        own = f", {sum(e.get('model') == model for e in entries)} of them by this model ({model[:12]})" if model else ""
        caption = f"Openings of test parts of these corpora, by any encoder or model: {len(entries)}{own}"
        out += html.table(opening_rows(entries), caption=caption)
    elif model:
        out += html.para("No opening of a test part of these corpora is in a ledger.")
    return out


def limits(results: list[dict[str, Any]], notes: list[str], evaluations: list[dict[str, Any]]) -> str:
    """What this page does not show."""
    lines = [
        "For research. Nothing here is validated for diagnosis or care.",
        f"Intervals resample the judged {all_resampled([*results, *evaluations])}; they say nothing of other hospitals, devices or populations.",
        "One training run with one seed: another seed may give another figure.",
    ]
    few = [p["label"] for p in results if p["seen"]["of"] < 15]
    if few:
        lines.append(f"Few judged subjects ({', '.join(sorted(set(few)))}): read the cross-validation beside the figure.")
    return html.notes([*lines, *notes])
