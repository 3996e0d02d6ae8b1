"""Pages of the audits: traces of suspect windows beside their neighbours, maps of what a model looks at, the curve of labels.

What lives here: drawing and HTML from results of ``biossl/audit``; no number is made here. Pages hold everything they show; of a corpus
that is not public they show keys, never names.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.atomic import write_bytes, write_text
from biossl.audit.labels import FILE, Suspects
from biossl.audit.occlusion import Maps
from biossl.corpus import Corpus, Labels
from biossl.corpus.label_windows import window_text
from biossl.progress import track
from biossl.report import figures, html, traces
from biossl.signal import Recording

Array = NDArray[Any]
DPI = 75  # an ECG on paper stays readable and its picture small
FAINT = 0.1  # share of the log-odds under which the largest drop is said to carry nothing
PAIRS = "figure img { max-width: 100%; height: auto; display: block; border: 1px solid var(--line); }"


def window_recording(corpus: Corpus, row: int, x: Array) -> Recording:
    """One window (C, T) of a corpus as a recording that can be drawn."""
    spec, entry = corpus.spec, corpus.index.iloc[row]
    return Recording(
        x, spec.sfreq, spec.ch_names, spec.ch_types, spec.units, str(entry["record"]), offset_s=float(entry["start_s"])
    )


def picture(figure: Any, alt: str) -> str:
    """A figure as an image inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=DPI, pil_kwargs={"quality": 70})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.esc(alt)}" loading="lazy" src="data:image/webp;base64,{data}">'


def label_page(corpus: Corpus, found: Suspects, folder: Path) -> Path:
    """``audit.html`` beside the list: every listed window, and two windows of other people that its neighbours stand for.

    Parameters
    ----------
    corpus : Corpus
    found : Suspects
    folder : Path
        Where ``audit.csv`` lies.
    """
    about, labels = found.about, corpus.labels(found.about["label"])
    sections = [("how", "How to use it", _how(about, labels))]
    for i in track(range(len(found.table)), len(found.table), "traces", "windows"):
        entry = found.table.iloc[i]
        wanted = [int(found.rows[i]), *(int(j) for j in found.neighbours[i] if j >= 0)]
        x = corpus.signal(wanted)
        named = f" ({entry['class']})" if "class" in found.table else ""
        shown = []
        for j, (signal, here) in enumerate(zip(x, wanted, strict=True)):
            what = f"labelled {entry['label']}{named}" if j == 0 else f"neighbour {j}: {window_text(labels, here)}"
            alt = f"window {entry['nr']}, {what}"
            image = picture(traces.draw(window_recording(corpus, here, signal), 0.0, corpus.spec.window_s), alt)
            shown.append(f"<figure>{image}<figcaption>{html.esc(what)}</figcaption></figure>")
        told = (
            f"record {entry['record']}, {entry['start_s']:g} s, subject {entry['subject']}: labelled {entry['label']}{named}; "
            f"{entry['disagreement']:.0%} of the {about['k']} nearest windows of other people disagree, most say {entry['neighbours_label']}"
        )
        sections.append(
            (f"w{entry['nr']}", f"Window {entry['nr']}", html.para(told) + f'<div class="figures">{"".join(shown)}</div>')
        )
    lead = html.para(
        f"{about['listed']:,} windows of {about['windows']:,} (part {about['part']}) whose label '{about['label']}' the embeddings contradict."
    )
    return _write(folder / "audit.html", f"Label audit: {about['label']} of {about['corpus']['name']}", sections, lead)


def _how(about: dict[str, Any], labels: Labels) -> str:
    change = "+".join(labels.classes[:2]) + ", - for none" if about["kind"] == "multilabel" else "the class"
    lines = [
        f"Disagreement does not make a label wrong: rare classes and borders between classes are on the list too. {about['suspect']:,} windows "
        "in all have most neighbours against their label.",
        f"In {FILE}, column decision: keep, change (and the right label in column new_label: {change}) or unknown. Rows left empty "
        "change nothing.",
        f"Then: biossl label CORPUS {FILE} --key window --base {about['label']} --name {about['label']}_checked. The old label stays.",
    ]
    return html.notes([*lines, *about["notes"]])


def _write(file: Path, title: str, sections: list[tuple[str, str, str]], lead: str) -> Path:
    page = html.page(title, sections, lead).replace("</style>", f"{PAIRS}\n</style>", 1)
    write_text(file, page)
    return file


def occlusion_page(corpus: Corpus, found: Maps, folder: Path) -> Path:
    """``occlusion.html``: every window with its map as a band of colours under each trace.

    Parameters
    ----------
    corpus : Corpus
    found : Maps
    folder : Path
    """
    about = found.about
    joint = [f"{name}: {', '.join(members)}" for name, members in found.groups.items() if len(members) > 1]
    how = [
        f"Purple: when this stretch ({about['stretch_s']:.3g} s) is replaced by a straight line, the log-odds of the model's answer fall; orange: "
        "they rise. Each window has its own scale, whose end is printed.",
        f"Replaced together: {'; '.join(joint)}." if joint else "Every channel is replaced for itself.",
        check_line(found),
        "A map shows what this answer hangs on, not what is medically right, and says nothing of stretches that stand in for each other.",
        *about["notes"],
    ]
    sections = [("how", "How to read it", html.notes(how))]
    for i in track(range(len(found.rows)), len(found.rows), "maps", "windows"):
        row, drop = int(found.rows[i]), found.drop[i]
        most = float(np.nanmax(np.abs(drop))) or 1.0
        recording = window_recording(corpus, row, corpus.signal([row])[0])
        answer = f"answer {found.answer[i]} (log-odds {found.odds[i]:+.2f}), labelled {found.truth[i] or 'unknown'}"
        image = picture(
            traces.draw(recording, 0.0, corpus.spec.window_s, band=drop / most), f"window {i + 1} with its map, {answer}"
        )
        cell = np.unravel_index(np.nanargmax(drop), drop.shape)
        told = (
            f"record {recording.record}, {recording.offset_s:g} s: {answer}. Full colour is {most:.3g}; most is lost in {corpus.spec.ch_names[cell[0]]} "
            f"at {(cell[1] + 0.5) * corpus.spec.window_s / drop.shape[1]:.3g} s ({drop[cell]:+.3g})."
        )
        if most < FAINT * abs(found.odds[i]):
            told += " No stretch alone carries this answer."
        sections.append((f"w{i + 1}", f"Window {i + 1}", f"<figure>{image}<figcaption>{html.esc(told)}</figcaption></figure>"))
    lead = html.para(f"What the model of '{about['label']}' looks at in {len(found.rows)} windows.")
    return _write(folder / "occlusion.html", f"Occlusion: {about['label']} of {about['corpus']['name']}", sections, lead)


def check_line(found: Maps) -> str:
    """The randomisation check in words."""
    c = found.check
    if not c["n"]:
        return "Randomisation check: a map without any difference, so there is nothing to compare."
    return (
        f"Randomisation check: rank correlation with maps of shuffled heads {c['mean']:.2f} ({c['low']:.2f} to {c['high']:.2f}, {c['n']} maps); "
        "near 1 a map would show the signal, not what was learnt."
    )


def curve_figure(result: dict[str, Any], folder: Path) -> list[Path]:
    """``learning_curve.svg`` and ``.png``: points with intervals, the fitted curve with its band, dashed beyond the points."""
    import matplotlib

    rows = [r for r in result["rows"] if r["score"] is not None]
    alt = f"{result['metric']} over labelled subjects and windows: {result['sentence']}"
    with matplotlib.rc_context(figures.STYLE):
        figure = figures.Figure(figsize=(9.0, 3.4), layout="constrained")
        for axes, axis in zip(figure.subplots(1, 2, sharey=True), ("subjects", "windows"), strict=True):
            some = [r for r in rows if r["axis"] == axis]
            n, score = ([r[k] for r in some] for k in (axis, "score"))
            for r in some:
                if r["low"] is not None:
                    axes.plot([r[axis]] * 2, [r["low"], r["high"]], color=figures.COLOURS[0], linewidth=1.5)
            axes.plot(n, score, "o", color=figures.COLOURS[0], markersize=6)
            curve = result["fit"]["curve"] if axis == "subjects" else []
            for inside, style in ((True, "-"), (False, "--")):
                part = [c for c in curve if (c["subjects"] <= n[-1]) == inside]
                if part:
                    at = [c["subjects"] for c in part]
                    axes.plot(at, [c["score"] for c in part], style, color=figures.COLOURS[1])
                    shade = 0.2 if inside else 0.1
                    axes.fill_between(
                        at,
                        [c["low"] for c in part],
                        [c["high"] for c in part],
                        color=figures.COLOURS[1],
                        alpha=shade,
                        linewidth=0,
                    )
            axes.set(xscale="log", xlabel=f"labelled {axis}")
            ticks = sorted({*n, *((2 * result["counts"]["subjects"],) if curve else ())})
            axes.set_xticks(ticks, [f"{t:,}" for t in ticks], rotation=45 if axis == "windows" else 0)
            axes.minorticks_off()
        figure.axes[0].set_ylabel(result["metric"].replace("_", " "))
        files = [folder / "learning_curve.svg", folder / "learning_curve.png"]
        text = figures.svg(figure, alt, result["label"])
        write_text(
            files[0], text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) if "xmlns=" not in text[:400] else text
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        write_bytes(files[1], buffer.getvalue())
    return files
