"""Who a fine-tuned model was trained on, chosen by and judged on: rows, classes, characteristics, scores by group.

What lives here: tables for the written reports. Of a set that is not public no small group is named or counted out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.corpus.index import INDEX_COLUMNS
from biossl.corpus.tally import tally
from biossl.downstream.evaluate_text import group_rows
from biossl.errors import BiosslError
from biossl.probe_text import split_name
from biossl.report.study import Judged, Study, count

Array = NDArray[Any]
Rows = list[list[str]]
FEW = 5  # of a set that is not public, fewer people than this are not counted out
_VALUES = 6  # a covariate of more different texts is no group


def parts(study: Study) -> dict[str, tuple[Corpus, Array]]:
    """Labelled rows by what they were for: ``trained on``, ``chosen by``, and each evaluation; only of corpora at hand."""
    about, out = study.model.about, {}
    if study.trained is not None:
        corpus, rows = study.trained, about["trained"]["rows"]
        try:
            known, part = corpus.labels(study.label).known, corpus.split(about["split"]).to_numpy().astype(str)
        except BiosslError:
            known = part = None
        if rows is not None:
            out["trained on"] = (corpus, np.isin(np.arange(len(corpus)), np.asarray(rows, np.int64)))
        elif known is not None and part is not None:
            out["trained on"] = (corpus, known & (part == "train"))
        if known is not None and part is not None and (about["inner"] or {}).get("by") == "val":
            out["chosen by"] = (corpus, known & (part == "val"))
    for judged in study.judged:
        rows = judged_rows(judged)
        if rows is not None and judged.corpus is not None:
            out[judged_name(study, judged)] = (judged.corpus, rows)
    return out


def judged_name(study: Study, judged: Judged) -> str:
    """``judged`` where there is one evaluation, else also on what."""
    r = judged.result
    if len(study.judged) == 1:
        return "judged"
    return f"judged: {r['label']} in {r['corpus']['name']}, {split_name(r['split'])}, {r['part']}"


def judged_rows(judged: Judged) -> Array | None:
    """Labelled rows of the judged part, bool (n_index,); None where they cannot be found again."""
    r, corpus = judged.result, judged.corpus
    if corpus is None:
        return None
    try:
        known = corpus.labels(r["label"]).known
        if r["split"] is None or r["part"] == "all":
            return np.asarray(known)
        return np.asarray(known & (corpus.split(r["split"]).to_numpy().astype(str) == r["part"]))
    except BiosslError:
        return None


def classes(study: Study) -> Rows:
    """Header and one row a class and group of rows: windows, recordings, subjects; empty where no corpus is at hand."""
    out = [["rows", "class", "windows", "recordings", "subjects"]]
    for name, (corpus, rows) in parts(study).items():
        label = next((j.result["label"] for j in study.judged if judged_name(study, j) == name), study.label)
        for entry in tally(corpus, corpus.labels(label), rows):
            if entry["class"] != "unknown":
                out.append([name, entry["class"], *(f"{entry[k]:,}" for k in ("windows", "records", "subjects"))])
    return out if len(out) > 1 else []


def characteristics(study: Study) -> Rows:
    """Header and one row a covariate: who was trained on and judged, by subject; of sets that are not public no small numbers."""
    found = parts(study)
    if not found:
        return []
    out = [["", *found], ["subjects", *(f"{count(corpus, rows)[2]:,}" for corpus, rows in found.values())]]
    names = dict.fromkeys(n for corpus, _ in found.values() for n in corpus.index.columns if n not in (*INDEX_COLUMNS, "day"))
    for name in names:
        cells = [_covariate(corpus, rows, name) for corpus, rows in found.values()]
        if any(cells):
            out.append([name, *(cell or "not stored" for cell in cells)])
    return out


def _covariate(corpus: Corpus, rows: Array, name: str) -> str:
    """Quartiles of numbers, counts of groups; '' for text of many values. A private set's small groups are not told."""
    if name not in corpus.index:
        return ""
    values = corpus.index[rows].groupby("subject")[name].first().replace("", None)
    known = values.dropna().astype(str)
    few = 0 if corpus.card.public else FEW
    numbers = pd.to_numeric(known, errors="coerce")
    counts = known.value_counts().sort_index()
    if len(known) and numbers.notna().all() and (numbers.nunique() > _VALUES or name.casefold() == "age"):
        if len(known) < 2 * few:
            return f"{len(known)} subjects, too few to tell"
        low, middle, high = np.quantile(numbers.to_numpy(float), [0.25, 0.5, 0.75])
        text = f"median {middle:g}, middle half {low:g} to {high:g}"
    elif len(counts) and len(counts) <= _VALUES:
        told = [f"{v}: {n:,}" for v, n in counts.items() if n >= few]
        small = len(counts) - len(told)
        text = ", ".join([*told, *([f"{small} group{'s' if small > 1 else ''} of fewer than {few}"] if small else [])])
    else:
        return ""
    missing = len(values) - len(known)
    return text + (f"; unknown: {f'{missing:,}' if missing >= few else f'fewer than {few}'}" if missing else "")


def apart(study: Study) -> str:
    """Whether subjects stand in one part each, by the corpus itself; '' where it cannot be seen."""
    if study.trained is None:
        return ""
    try:
        part = study.trained.split(study.model.about["split"]).to_numpy().astype(str)
    except BiosslError:
        return ""
    pairs = pd.DataFrame({"subject": study.trained.index["subject"].to_numpy(), "part": part})
    twice = int((pairs[pairs["part"] != ""].groupby("subject")["part"].nunique() > 1).sum())
    return f", {twice:,} subjects standing in more than one part" if twice else ", no subject standing in two parts"


def group_table(judged: Judged, name: str) -> Rows:
    """Scores by group of a covariate; small groups of a set that is not public (or not at hand) are neither named nor counted out."""
    head, *rows = group_rows(judged.result, name)
    if judged.corpus is not None and judged.corpus.card.public:
        return [head, *rows]
    told = [r for r, g in zip(rows, judged.result["groups"][name], strict=True) if g["n_subjects"] >= FEW]
    small = len(rows) - len(told)
    left = [[f"{small} group{'s' if small > 1 else ''}", f"fewer than {FEW} each", "- (not scored)", "-"]] if small else []
    return [head, *told, *left]
