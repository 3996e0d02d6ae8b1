"""Sentences and tables on a fine-tuned run that more than one written report needs: data, fields, outcome, what is locked, software.

What lives here: text from a :class:`~biossl.report.study.Study`, one function a subject. What biossl cannot know is not said here; the
reports ask the authors for it with :func:`wanted`. Who the people were is ``people.py``'s.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.corpus.identity import SECRET_FILE
from biossl.corpus.index import EVENT_COLUMNS, INDEX_COLUMNS
from biossl.corpus.privacy import is_birth
from biossl.corpus.quarantine import PRIVATE_PATHS
from biossl.downstream.ood import K
from biossl.metrics.operating import OperatingPoint
from biossl.probe_text import number
from biossl.report.study import Study

Array = NDArray[Any]
Rows = list[list[str]]
WANTED = "TO BE FILLED BY THE AUTHORS: "
_KEY = re.compile(r"k[0-9a-f]{12}")


def wanted(what: str) -> str:
    """A gap only the authors can fill.

    Examples
    --------
    >>> wanted("who funded the study")
    'TO BE FILLED BY THE AUTHORS: who funded the study'
    """
    return WANTED + what


def corpora(study: Study) -> list[tuple[Corpus | None, str]]:
    """Each corpus behind the model once, and what it was for; None = not at hand."""
    out: list[tuple[Corpus | None, str]] = [(study.trained, "development")]
    for judged in study.judged:
        if judged.corpus is None:
            out.append((None, "evaluation"))
        elif study.trained is not None and judged.corpus.hash == study.trained.hash:
            out[0] = (study.trained, "development and evaluation")
        elif judged.corpus.hash not in [c.hash for c, _ in out if c is not None]:
            out.append((judged.corpus, "evaluation"))
    return out


# ---------------------------------------------------------------------------------------------- data


def sources(study: Study) -> list[str]:
    """Where the data come from; of a set that is not public neither how to get it nor what its card says of files."""
    out = []
    for corpus, use in corpora(study):
        if corpus is None:
            out.append(f"{use}: a corpus that is not at hand or has changed; its card cannot be read")
            continue
        c = corpus.card
        line = f"{use}: {c.title or c.name}, version {c.version}, {c.modality.upper()}, licence {c.licence}"
        line += f"; {c.citation}; obtained from {c.obtain}" if c.public else "; the set is not public"
        out.append(study.say(line) if not c.public else line)
    before = study.model.about["seen"]["corpora"][:-1]
    if before:
        total = sum(int(c["windows"]) for c in before if isinstance(c, dict) and "windows" in c)
        out.append(
            f"the encoder was pretrained before on {len(before)} {'corpus' if len(before) == 1 else 'corpora'} ({total:,} windows)"
        )
    return out


def preparation(corpus: Corpus) -> list[str]:
    """How recordings became windows."""
    spec, view = corpus.spec, corpus.card.views[corpus.view]
    cuts = {
        "sliding": f"every {view.stride_s:g} s of each stretch without a gap", "inside_labels": f"every {view.stride_s:g} s inside marked intervals",
        "around_events": f"around each mark of kind {view.event_kind}",
    }  # fmt: skip
    f = spec.filter
    filters = [f"{n} {v:g} Hz" for n, v in (("high-pass", f.highpass_hz), ("low-pass", f.lowpass_hz), ("notch", f.notch_hz)) if v]
    out = [
        f"View {corpus.view}: windows of {spec.window_s:g} s at {spec.sfreq:g} Hz, cut {cuts[view.policy]}, {channels(corpus)}",
        f"filters: {', '.join(filters) + f', Butterworth of order {f.order}, forwards and backwards' if filters else 'none'}; reference {spec.reference}",
        f"windows of which more than {view.max_missing:.0%} of the samples were not observed are left out; other gaps stay marked as not observed",
    ]
    return out


def channels(corpus: Corpus) -> str:
    """``3 channels (acc_x acc_y acc_z) in g``."""
    s = corpus.spec
    return f"{len(s.ch_names)} channels ({' '.join(s.ch_names)}) in {', '.join(sorted(set(s.units)))}"


def days(corpus: Corpus) -> str:
    """First and last day of a public set as it is stored; '' where there is none, or the set is not public."""
    if not corpus.card.public or "day" not in corpus.index:
        return ""
    day = corpus.index["day"].to_numpy(float)
    day = day[np.isfinite(day)]
    if not len(day):
        return ""
    first, last = (np.datetime64(int(d), "D") for d in (day.min(), day.max()))
    return f"recordings are dated {first} to {last} in the published set (published dates are often shifted)"


def fields(corpus: Corpus) -> Rows:
    """Header and one row for fields that are kept alike: what they are and how they are kept."""
    public = corpus.card.public
    out = [["fields", "what they are", "how they are kept"]]
    for name, what in (("subject", "one key a person"), ("record", "one key a recording"), ("day", "day of the recording")):
        if name in corpus.index and corpus.index[name].notna().any():
            out.append([name, what, "as published" if public else _kept(corpus, name)])
    alike: dict[str, list[str]] = {}
    for name in corpus.index.columns:
        if name not in (*INDEX_COLUMNS, "day"):
            alike.setdefault("as published" if public else _kept(corpus, name), []).append(str(name))
    out += [[", ".join(names), "from the card's tables, headers or file pattern", how] for how, names in alike.items()]
    made = [n for n in INDEX_COLUMNS if n in corpus.index and n not in ("subject", "record")]
    out.append([", ".join(made), "place, time, length, usable share, official part, mark, hashes of samples", "made by biossl"])
    return [
        *out,
        [
            ", ".join(EVENT_COLUMNS),
            "marks in the recordings, a table of their own",
            "as above" if public else "as above; unnamed marks as 'other'",
        ],
    ]


def _kept(corpus: Corpus, name: str) -> str:
    """How a field of a set that is not public is kept, by its name and what is stored."""
    if name in ("subject", "record"):
        return "keyed hash (HMAC-SHA-256)"
    if name == "day":
        return "whole days, shifted by one secret amount a person"
    values = [str(v) for v in corpus.index[name].unique() if str(v) not in ("", "None", "nan")]
    if not values:
        return "dropped (day of birth)" if is_birth(name) else "dropped, or empty from the start"
    if all(_KEY.fullmatch(v) for v in values):
        return "keyed hash; equal texts stay equal"
    if any(_KEY.fullmatch(v) for v in values):
        return "numbers (dates as shifted days), words the card names and short words; other text as keyed hash"
    return "numbers (dates as shifted days), words the card names and short words"


def privacy(corpus: Corpus) -> list[str]:
    """What the conversion kept and dropped, and what it did to identities."""
    kept = "Of tables and headers only what the card lists was read, of the signal only the view's channels; the rest of the files was left behind."
    return [kept, *_identities(corpus)]


def _identities(corpus: Corpus) -> list[str]:
    if corpus.card.public:
        return ["The set is public: names of subjects and recordings are those of the published set, nothing was changed."]
    lines = [
        f"Subjects and recordings are stored as keyed hashes (HMAC-SHA-256) only. The key {_key_place(corpus)}; it is written into no model, "
        "table or report.",
        "Dates are whole days, moved by one secret amount a person: order and distance within a person stay, the calendar does not. "
        "Days of birth and dates in a doubtful order are dropped.",
        "Ages above 89 are stored as 90. Numbers of up to five digits, words of up to three letters and what the card names are kept; "
        "other text becomes a keyed hash; a cell that holds the person's own number is emptied. Marks the card does not name are stored as 'other'.",
        "Paths and file names are in none of the corpus' shards, tables and reports.",
    ]
    if (corpus.path / PRIVATE_PATHS).is_file():
        lines.append(
            f"One file beside the key ({PRIVATE_PATHS}) says which files could not be used, for whoever has to mend them; it does not travel."
        )
    said = [f for f in corpus.findings if "date of birth" in f or "ages above 89" in f]
    return lines + [f"Said by the conversion: {f}." for f in said]


def _key_place(corpus: Corpus) -> str:
    try:
        mode = (corpus.path / SECRET_FILE).stat().st_mode & 0o777
    except OSError:
        return "is not in this copy of the corpus"
    return (
        "lies beside the corpus, readable by its owner alone"
        if not mode & 0o077
        else f"lies beside the corpus WITH MODE {mode:o}: make it 600"
    )


# ---------------------------------------------------------------------------------------------- outcome and output


def outcome(study: Study) -> str:
    """The label, its kind and where it comes from."""
    model = study.model
    text = f"{study.label}: {model.kind}" + (f", classes {', '.join(model.classes)}" if model.classes else "")
    if study.trained is None:
        return text + "; where it comes from is not known (the corpus is not at hand)"
    label = study.trained.card.labels.get(study.label)
    if label is None:
        return text + "; joined to the recordings from a table of the authors' (`biossl label`)"
    kinds = {
        "event": "the mark each window was cut at",
        "overlap": "the mark that covers most of the window",
        "covariate": f"column {label.column}",
    }
    text += f"; read from {kinds[label.source]}" + (f" of kind {label.event_kind}" if label.event_kind else "")
    text += f" by the card's map of {len(label.map)} classes" if label.map else ""
    return text + (f"; {label.description.strip().rstrip('.')}" if label.description and study.trained.card.public else "")


def output(study: Study) -> str:
    """What the model says of a window."""
    model = study.model
    if model.kind in ("multiclass", "ordinal"):
        return f"a probability of each of {len(model.classes)} classes that sum to 1, and the likeliest as decision"
    if model.kind in ("binary", "multilabel"):
        return "a probability of each class by itself, and yes or no by the class's threshold"
    return {"regression": "a value", "survival": "a log hazard (larger = earlier event)"}.get(
        model.kind, "a probability of each class at every sample"
    )


def calibration(study: Study) -> str:
    """How probabilities were calibrated."""
    found = study.model.lock.calibration
    if found is None:
        return "Probabilities are not calibrated."
    values = ", ".join(f"{float(curve[0][0]):.3f}" for curve in found.curves) if found.method == "temperature" else ""
    held = f" of {held_out(study)}"
    return f"Probabilities are calibrated by {found.method}{f' ({values})' if values else ''}, fitted on predictions{held}, then frozen."


def held_out(study: Study) -> str:
    """Who calibration, thresholds and cut-offs were fitted on."""
    by = (study.model.about["inner"] or {}).get("by")
    return {"val": "part val", "train": "training people held out in turn (grouped folds)"}.get(str(by), "nobody held out")


_RULES = {
    "youden": "the largest sensitivity + specificity - 1", "f1": "the largest F1", "sensitivity": "a sensitivity of at least",
    "specificity": "a specificity of at least",
}  # fmt: skip


def thresholds(study: Study) -> list[str]:
    """Every frozen threshold, by what rule and on whom it was chosen, and what it gave there."""
    model = study.model
    if model.kind not in ("binary", "multilabel"):
        return [
            "No threshold: the decision is the likeliest class."
            if model.classes
            else "No threshold: the model says a value, not a class."
        ]
    return [_threshold(study, name, model.lock.points.get(name)) for name in model.classes]


def _threshold(study: Study, name: str, point: OperatingPoint | None) -> str:
    if point is None:
        return f"{name}: yes from probability .5 on (held-out people allowed no choice)."
    target = "" if point.target is None else f" {point.target:g}"
    return (
        f"{name}: yes from probability {point.threshold:.3f} on, chosen for {_RULES[point.rule]}{target} on {held_out(study)} "
        f"({point.n_positive:,} positive and {point.n_negative:,} negative windows); there sensitivity {number(point.sensitivity)}, "
        f"specificity {number(point.specificity)}, which flatters."
    )


def cutoffs(study: Study) -> str:
    """Frozen cut-offs of confidence; '' without any."""
    found = study.model.lock.cutoffs
    if not found:
        return ""
    return f"Cut-offs of confidence above which a share of held-out windows lay: {', '.join(f'{at:.3f} ({share:.0%})' for share, at in found.items())}."


def familiar(study: Study) -> list[str]:
    """When the model gives no decision."""
    known = study.model.lock.familiar
    out = ["A window in which no sample was observed gets no decision."]
    if known is None:
        return [*out, "Windows unlike those of training are not flagged: no limit could be fitted."]
    return [
        f"A window counts as unfamiliar when its mean-pooled features lie further than {known.limits['mahalanobis']:.3g} from the nearest class "
        f"mean (Mahalanobis) or further than {known.limits['knn']:.3g} from the {min(K, len(known.memory))}th nearest of {len(known.memory):,} remembered "
        f"training windows (of unit length). Each limit is the distance that {known.share:.0%} of the windows of held-out training people stay below.",
        "An unfamiliar window gets no decision (the model abstains); its probabilities and distances are in the table all the same.",
        *out,
    ]


def abstained(result: dict[str, Any]) -> str:
    """How often that was so in an evaluation; '' where nothing was flagged."""
    far = result["unfamiliar"]
    if far is None:
        return ""
    return f"{far['windows']:,} of {result['counts']['windows']:,} judged windows ({far['share']:.1%}) were unfamiliar."


def opened(study: Study) -> str:
    """How often test parts were opened."""
    own = sum(e.get("model") == study.sha256 for e in study.openings)
    told = max((r.result["ledger"]["openings"] for r in study.judged if "ledger" in r.result), default=0)
    times = "once" if len(study.openings) == 1 else f"{len(study.openings)} times"
    text = f"Test parts of these corpora were opened {times} by any model, {own} of them by this one."
    if told > len(study.openings):
        text = f"The ledger is not (wholly) at hand; the last evaluation was opening {told} of this label. " + text.replace(
            "were opened", "were, as far as seen, opened"
        )
    return text


def intended(study: Study, *names: str) -> str:
    """What the model's card (``README.md`` of the model or run folder) says under one of these headings; '' = nothing."""
    for file in (study.path / "model" / "README.md", study.path / "README.md"):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for heading, body in re.findall(r"(?ms)^#+[ \t]*([^\n]+?)[ \t]*$\n(.*?)(?=^#|\Z)", text):
            if heading.casefold().replace("-", " ") in names and body.strip():
                return study.say(" ".join(body.split()))
    return ""


# ---------------------------------------------------------------------------------------------- software


def software(study: Study) -> Rows:
    """Header and one row a package: version at training, version here, licence by its metadata."""
    before = {str(k).lower(): str(v) for k, v in study.facts.get("versions", {}).items()}
    out = [["package", "trained with", "here", "licence"]]
    for name in _packages(before):
        try:
            meta = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            out.append([name, before.get(name.lower(), "not recorded"), "not installed", "not known"])
            continue
        out.append([name, before.get(name.lower(), "not recorded"), str(meta["Version"]), _licence(meta)])
    return out


def _packages(recorded: Iterable[str]) -> list[str]:
    try:
        wants = importlib.metadata.requires("biossl") or []
    except importlib.metadata.PackageNotFoundError:
        wants = []
    names = {m[0] for w in wants if "extra ==" not in w and (m := re.match(r"[A-Za-z0-9_.-]+", w))}
    low = {n.lower() for n in names}
    return ["biossl", *sorted(names | {n for n in recorded if n not in low and n != "biossl"}, key=str.lower)]


def _licence(meta: Any) -> str:
    """As the package's metadata say: the expression, a licence named in one line, or the classifier."""
    for text in (meta.get("License-Expression"), meta.get("License")):
        line = (text or "").strip()
        if line and "\n" not in line and len(line) <= 120:
            return line
    classed = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    return ", ".join(classed) or "not stated"
