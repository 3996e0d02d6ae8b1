"""The cohort flow of a fine-tuned run: from the files that were found to the people it was judged on, and who fell out where and why.

What lives here: counting by the corpus folder, its split and ``results.json``; the figure, its text for those who do not see it, and
the same as table rows. A count that is stored nowhere is said to be unknown, never guessed.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.corpus.labels import Labels
from biossl.errors import BiosslError
from biossl.probe_text import split_name
from biossl.report import html
from biossl.report.figures import COLOURS, STYLE, svg
from biossl.report.study import Judged, Study, count

Array = NDArray[Any]
_WHY = {
    "unobserved": "too little of it was observed", "short": "shorter than a window", "outside": "outside every recorded stretch",
    "no_windows": "no window could be cut",
}  # fmt: skip
_WINDOWS_OF = ("unobserved",)  # reasons that count windows; the others count stretches or marks


@dataclass(frozen=True)
class Box:
    """One step: how many are left (None = stored nowhere), and who fell out on the way to it."""

    name: str
    recordings: int | None = None
    windows: int | None = None
    subjects: int | None = None
    out: tuple[str, ...] = ()

    def counts(self) -> list[str]:
        """``61 recordings``, ``10,929 windows``, ``30 subjects``."""
        named = (("recording", self.recordings), ("window", self.windows), ("subject", self.subjects))
        return [f"{what}s not known" if n is None else _many(n, what) for what, n in named]


@dataclass(frozen=True)
class Flow:
    """A trunk of boxes, and the parts it ends in, each a short column of boxes."""

    title: str
    trunk: list[Box]
    arms: list[list[Box]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def flows(study: Study) -> list[Flow]:
    """The flow of the corpus that was trained on, then those of every other label, split or corpus the model was judged by.

    Parameters
    ----------
    study : Study
    """
    about = study.model.about
    own = (about["seen"]["corpora"][-1]["hash"], study.label, about["split"])
    groups: dict[tuple[str, str, str | None], list[Judged]] = {own: []}
    for judged in study.judged:
        r = judged.result
        groups.setdefault((r["corpus"]["hash"], r["label"], r["split"]), []).append(judged)
    out = []
    for key, some in groups.items():
        corpus = study.trained if key == own else some[0].corpus
        out.append(_flow(study, corpus, key[1], key[2], some, trained=key == own, digest=key[0]))
    return out


def rows(flow: Flow) -> list[list[str]]:
    """Header and one row a box: step, recordings, windows, subjects, who fell out on the way and why."""
    out = [["step", "recordings", "windows", "subjects", "left on the way here"]]
    for box in [*flow.trunk, *(b for arm in flow.arms for b in arm)]:
        numbers = ["not known" if n is None else f"{n:,}" for n in (box.recordings, box.windows, box.subjects)]
        out.append([box.name, *numbers, "; ".join(box.out) or "-"])
    return out


def section(study: Study) -> str:
    """Inner HTML: a figure and its table for each flow."""
    out = ""
    for flow in flows(study):
        out += html.figures([(figure(flow), f"{flow.title}. Beside each arrow: who fell out, and why.")])
        out += html.notes([study.say(n) for n in flow.notes]) + html.details("The same as a table", html.table(rows(flow)))
    return out


# ---------------------------------------------------------------------------------------------- counting


def _flow(
    study: Study, corpus: Corpus | None, label: str, split: str | None, judged: list[Judged], *, trained: bool, digest: str
) -> Flow:
    name = corpus.card.title or corpus.card.name if corpus else judged[0].result["corpus"]["name"] if judged else digest[:12]
    title = f"{name}: {label}, {split_name(split)}"
    notes: list[str] = []
    if corpus is None:
        notes.append(f"corpus {digest[:12]} is not at hand or has changed: what came before its parts is not known")
        trunk = [Box("found"), Box("readable"), Box("quality passed"), Box("labelled")]
        return Flow(title, trunk, _arms_without(study, judged, trained), tuple(notes))
    labels, why = _labels(corpus, label)
    notes += [why] if why else []
    parts, why = _parts(corpus, split)
    notes += [why] if why else []
    trunk = [*_converted(corpus), _labelled(corpus, labels)]
    if split is not None:
        trunk.append(_in_split(corpus, labels, parts))
    return Flow(title, trunk, _arms(study, corpus, labels, parts, judged, trained), tuple(notes))


def _labels(corpus: Corpus, label: str) -> tuple[Labels | None, str]:
    try:
        return corpus.labels(label), ""
    except BiosslError:
        return None, f"label '{label}' is not (any more) one of this corpus: how many windows have it is not known"


def _parts(corpus: Corpus, split: str | None) -> tuple[Array | None, str]:
    if split is None:
        return np.full(len(corpus), "all"), ""
    try:
        return corpus.split(split).to_numpy().astype(str), ""
    except BiosslError:
        return None, f"{split_name(split)} is no longer in this corpus: its parts are not known"


def _converted(corpus: Corpus) -> list[Box]:
    """Found, readable, quality passed."""
    f = corpus.funnel
    cut = {k: n for k, n in f["windows_dropped"].items() if k in _WINDOWS_OF}
    failed = [f"{_many(n, 'recording')}: {_why(why)}" for why, n in f["quarantined"].items() if n and why != "no_windows"]
    silent = f["records_read"] - f["records_with_windows"]
    dropped = [f"{_many(n, 'window')}: {_why(why)}" for why, n in cut.items() if n]
    dropped += [
        f"{_many(n, 'stretch or mark', 'stretches or marks')}: {_why(w)}"
        for w, n in f["windows_dropped"].items()
        if n and w not in cut
    ]
    dropped += [f"{_many(silent, 'recording')}: {_why('no_windows')}"] if silent else []
    return [
        Box("found", f["files_found"]),
        Box("readable", f["records_read"], f["windows"] + sum(cut.values()), None if silent else f["subjects"], tuple(failed)),
        Box("quality passed", f["records_with_windows"], f["windows"], f["subjects"], tuple(dropped)),
    ]


def _labelled(corpus: Corpus, labels: Labels | None) -> Box:
    if labels is None:
        return Box("labelled")
    every, known = count(corpus, np.ones(len(corpus), bool)), count(corpus, labels.known)
    return Box("labelled", *known, out=_lost(every, known, "label unknown"))


def _in_split(corpus: Corpus, labels: Labels | None, parts: Array | None) -> Box:
    name = "in a part of the split"
    if labels is None or parts is None:
        return Box(name)
    known, inside = count(corpus, labels.known), count(corpus, labels.known & (parts != ""))
    return Box(name, *inside, out=_lost(known, inside, "in no part of the split"))


def _arms(
    study: Study, corpus: Corpus, labels: Labels | None, parts: Array | None, judged: list[Judged], trained: bool
) -> list[list[Box]]:
    if parts is None or labels is None:
        return _arms_without(study, judged, trained)
    arms = []
    known = labels.known
    names = [p for p in ("train", "val", "test", "all") if (parts == p).any()]
    for part in names:
        inside = count(corpus, known & (parts == part))
        arm = [Box("all (no split)" if part == "all" else f"part {part}", *inside)]
        if trained and part == "train":
            arm.append(_trained_on(study, inside))
        if trained and part == "val" and (study.model.about["inner"] or {}).get("by") == "val":
            arm.append(Box("chosen by", *inside))
        arm += [_judged(j, corpus, labels, parts) for j in judged if _part(j) == part]
        arms.append(arm)
    # an evaluation of every row of a corpus that has a split
    return arms + [[_judged(j, corpus, labels, parts)] for j in judged if _part(j) == "all" and "all" not in names]


def _arms_without(study: Study, judged: list[Judged], trained: bool) -> list[list[Box]]:
    """What the model's folder and ``results.json`` alone know."""
    about = study.model.about
    arms = [[Box("part train"), _trained_on(study, None)]] if trained else []
    for j in judged:
        c = j.result["counts"]
        arms.append([Box(f"part {j.result['part']}"), Box("judged", c["records"], c["windows"], c["subjects"], _blank(j.result))])
    by_val = trained and (about["inner"] or {}).get("by") == "val"
    return arms + ([[Box("part val, chosen by")]] if by_val else [])


def _trained_on(study: Study, inside: tuple[int, int, int] | None) -> Box:
    """Labelled training rows that were used: all, or a draw of scarce labels."""
    trained = study.model.about["trained"]
    records = None
    if trained["rows"] is not None and study.trained is not None:
        records = count(study.trained, np.asarray(trained["rows"], np.int64))[0]
    elif inside is not None and inside[1] == trained["windows"]:
        records = inside[0]
    lost = inside[1] - trained["windows"] if inside is not None else 0
    why = "label left out on purpose (scarce labels)" if trained["rows"] is not None else "label cannot be learnt from"
    out = (f"{_many(lost, 'window')}: {why}",) if lost else ()
    return Box("trained on", records, trained["windows"], trained["subjects"], out)


def _part(judged: Judged) -> str:
    r = judged.result
    return "all" if r["split"] is None else str(r["part"])


def _judged(judged: Judged, corpus: Corpus, labels: Labels, parts: Array) -> Box:
    """Judged rows, and what of the labelled part is not among them."""
    r = judged.result
    c = (r["counts"]["records"], r["counts"]["windows"], r["counts"]["subjects"])
    inside = labels.known & (np.ones(len(parts), bool) if _part(judged) == "all" else parts == r["part"])
    strange = np.zeros(len(parts), bool)
    if labels.kind == "multiclass":
        codes = [k for k, name in enumerate(labels.classes) if name not in r["classes"]]
        strange = inside & np.isin(labels.values[:, 0], codes)
    before, known = count(corpus, inside), count(corpus, inside & ~strange)
    per = r.get("per", "window")
    why = "no observed sample" + ("" if per == "window" else f", or in a {per} whose windows differ in label")
    out = _lost(before, known, "of a class the model does not know") + _lost(known, c, why)
    return Box("judged" if _part(judged) in parts else "judged, all rows", *c, out=out)


def _blank(result: dict[str, Any]) -> tuple[str, ...]:
    n = result.get("blank", 0)
    return (f"{_many(n, 'window')}: no observed sample",) if n else ()


def _lost(before: tuple[int, int, int], after: tuple[int, int, int], why: str) -> tuple[str, ...]:
    """``40 windows (all of 2 recordings and 1 subject): why``."""
    recordings, windows, subjects = (a - b for a, b in zip(before, after, strict=True))
    if not windows:
        return ()
    whole = [_many(n, what) for n, what in ((recordings, "recording"), (subjects, "subject")) if n]
    extra = f" (all of {' and '.join(whole)})" if whole else ""
    return (f"{_many(windows, 'window')}{extra}: {why}",)


def _many(n: int, what: str, several: str = "") -> str:
    return f"{n:,} {what if n == 1 else several or what + 's'}"


def _why(code: str) -> str:
    return _WHY.get(code, code.replace("_", " "))


# ---------------------------------------------------------------------------------------------- figure

_LINE = 0.175  # inches
_WIDTH = 5.0
_GREY = "#57606a"


def figure(flow: Flow) -> str:
    """Inline SVG of a flow: the trunk from top to bottom, its parts side by side under it; readable on a phone."""
    arms = len(flow.arms)
    chars = 68 // max(arms, 1) - 5
    trunk = [(b, _wrapped(b.out, 44)) for b in flow.trunk]
    columns = [[(b, _wrapped(b.out, chars)) for b in arm] for arm in flow.arms]
    top = sum(_height(b, wide=True) + (_gap(out) if i else 0) for i, (b, out) in enumerate(trunk))
    below = max((sum(_height(b, wide=False) + _gap(out) for b, out in column) for column in columns), default=0.0)
    with matplotlib.rc_context(STYLE | {"font.size": 9}):
        drawn = Figure(figsize=(_WIDTH, _LINE * (top + below + 0.6)))
        axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, 1), ylim=(top + below + 0.5, -0.1))
        axes.set_axis_off()
        y = 0.0
        for i, (box, out) in enumerate(trunk):
            if i:
                _arrow(axes, 0.27, y, y + _gap(out))
                axes.text(0.31, y + _gap(out) / 2, "\n".join(out), va="center", fontsize=8, color=_GREY)
                y += _gap(out)
            lines = box.counts()
            _box(axes, 0.01, y, 0.54, box.name, [f"{lines[0]}, {lines[2]}", lines[1]], _height(box, wide=True))
            y += _height(box, wide=True)
        for k, column in enumerate(columns):
            width, at = 1 / arms - 0.02, y
            x = k / arms + 0.01
            for box, out in column:
                gap = _gap(out)
                axes.annotate("", (x + 0.03, at + gap), (0.27 if at == y else x + 0.03, at), arrowprops=_ARROW)
                axes.text(x + 0.05, at + gap / 2, "\n".join(out), va="center", fontsize=7.5, color=_GREY)
                at += gap
                _box(axes, x, at, width, box.name, box.counts(), _height(box, wide=False))
                at += _height(box, wide=False)
        return svg(drawn, alt(flow), f"flow {flow.title}")


def alt(flow: Flow) -> str:
    """The figure in words."""
    steps = [f"{row[0]}: {row[1]} recordings, {row[2]} windows, {row[3]} subjects; left: {row[4]}" for row in rows(flow)[1:]]
    return f"Cohort flow of {flow.title}. " + ". ".join(steps) + "."


_ARROW: Any = {"arrowstyle": "-|>", "color": _GREY, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}


def _arrow(axes: Any, x: float, above: float, below: float) -> None:
    axes.annotate("", (x, below), (x, above), arrowprops=_ARROW)


def _box(axes: Any, x: float, y: float, width: float, name: str, lines: list[str], height: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor="#f6f8fa", edgecolor=COLOURS[0], linewidth=1.0))
    axes.text(x + 0.015, y + 0.75, name, va="center", weight="bold")
    for i, line in enumerate(lines):
        axes.text(x + 0.015, y + 1.75 + i, line, va="center")


def _height(box: Box, *, wide: bool) -> float:
    return 3.4 if wide else 4.4


def _gap(out: list[str]) -> float:
    return max(1.3, 0.85 * len(out) + 0.5)


def _wrapped(out: tuple[str, ...], chars: int) -> list[str]:
    return [line for text in out for line in textwrap.wrap(text, chars)]
