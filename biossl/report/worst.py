"""The windows a locked model is most sure of and wrong about, drawn as clinicians read them.

What lives here: which windows these are, and their pictures (``traces.py``) with reference, prediction and probability. A record's id is
shown where the set is public; of one that is not, its key.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np

from biossl.report import figures, html, traces
from biossl.report.judged import Judged
from biossl.signal import Recording

MOST = 6
_LONGEST_S = 12.0  # drawn of a longer window
_WORDS = {"ecg": "ECG at 25 mm/s and 10 mm/mV, pulse 1 mV", "eeg": "EEG, negative up", "imu": "Inertial sensors"}


@dataclass(frozen=True)
class Case:
    """A wrong window: its row of the table, how wrong (probability of what was wrongly said, or absolute error), and both in words."""

    row: int
    wrong: float
    truth: str
    said: str


def worst(judged: Judged) -> list[Case]:
    """At most :data:`MOST` wrong windows, most wrong first; one a subject where so many subjects have one, else the next ones of the same subjects.

    Several classes: the probability of the wrong class that was said. Yes/no classes: of answers on the wrong side of the frozen threshold the
    probability that was not given to the truth. Values: absolute error. Windows the model abstains on are no errors.

    Parameters
    ----------
    judged : Judged
        With a table.

    Returns
    -------
    list of Case
    """
    found = sorted(_wrong(judged), key=lambda c: (-c.wrong, c.row))
    people = judged.people
    first: list[Case] = []
    rest: list[Case] = []
    seen: set[str] = set()
    for case in found:
        (rest if people[case.row] in seen else first).append(case)
        seen.add(people[case.row])
    return sorted((first + rest)[:MOST], key=lambda c: (-c.wrong, c.row))


def _wrong(judged: Judged) -> list[Case]:
    y, p, decided = judged.reference, judged.probabilities, ~judged.abstained
    names, kind = judged.classes, judged.result["kind"]
    if kind == "regression":
        error = np.abs(y - p)
        return [Case(int(i), float(error[i]), f"{y[i]:.4g}", f"{p[i]:.4g}") for i in np.flatnonzero(decided & np.isfinite(error))]
    if kind == "multiclass":
        said = p.argmax(axis=1)
        rows = np.flatnonzero(decided & ~np.isnan(y) & (said != y))
        return [
            Case(int(i), float(p[i, said[i]]), names[int(y[i])], f"{names[said[i]]} (probability {p[i, said[i]]:.3f})")
            for i in rows
        ]
    yes = p >= judged.thresholds
    off = np.where(~np.isnan(y) & (yes != (y > 0.5)) & decided[:, None], np.abs(y - p), -1.0)
    out = []
    for i in np.flatnonzero((off >= 0).any(axis=1)):
        k = int(off[i].argmax())
        words = (f"{names[k]}: yes", f"{names[k]}: no")
        truth, answer = words if y[i, k] > 0.5 else words[::-1]
        out.append(Case(int(i), float(off[i, k]), truth, f"{answer} (probability of yes {p[i, k]:.3f})"))
    return out


def worst_cases(judged: Judged) -> str:
    """The pictures with their captions."""
    if judged.table is None:
        return ""
    if judged.corpus is None or judged.rows is None:
        return html.para("Worst cases: the judged corpus is no longer where it was, so no signal can be drawn.")
    cases = worst(judged)
    if not cases:
        return html.para("Worst cases: no judged window with a decision is wrong.")
    corpus, table, drawn = judged.corpus, judged.table, []
    key = "record" if corpus.card.public else "key"
    for case, window in zip(cases, corpus.signal(judged.rows[[c.row for c in cases]]), strict=True):
        record, start = str(table["record"].iloc[case.row]), float(table["start_s"].iloc[case.row])
        spec = corpus.spec
        recording = Recording(window, spec.sfreq, spec.ch_names, spec.ch_types, spec.units, record, offset_s=start)
        words = f"True {case.truth}, predicted {case.said}; {key} {record}, from {start:.4g} s"
        drawn.append((_picture(recording, f"{_WORDS[spec.modality]}. {words}"), words))
    what = "largest errors" if judged.result["kind"] == "regression" else "most confident errors"
    said = f"Worst cases: the {len(cases)} {what} first" if len(cases) > 1 else f"Worst cases: one of the {what}"
    one = len({judged.people[c.row] for c in cases}) == len(cases)
    said += ", one a subject." if one else "; so few subjects have one that some are shown more than once."
    withheld = int(judged.abstained.sum())
    said += f" Windows without a decision (abstained: {withheld:,}) are not among them." if withheld else ""
    if spec.window_s > _LONGEST_S:
        said += f" Of each window of {spec.window_s:g} s the first {_LONGEST_S:g} s are drawn."
    said += f" {_WORDS[spec.modality]}; a wide picture scrolls sideways."
    inner = "".join(
        f'<figure><div class="wide" tabindex="0" role="group" aria-label="trace {i + 1}">{picture}</div>'
        f"<figcaption>{html.esc(words)}</figcaption></figure>"
        for i, (picture, words) in enumerate(drawn)
    )
    return html.para(said) + f'<div class="cases">{inner}</div>'


def _picture(recording: Recording, alt: str) -> str:
    """SVG at its own size, so that a millimetre of paper is one."""
    figure = traces.draw(recording, 0.0, _LONGEST_S)
    with matplotlib.rc_context({"path.simplify_threshold": 0.3, "svg.fonttype": "none", "font.family": "sans-serif"}):
        picture = figures.svg(figure, alt, alt)
    return picture.replace("<svg", f'<svg style="width:{25.4 * figure.get_size_inches()[0]:.1f}mm"', 1)
