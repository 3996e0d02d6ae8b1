"""What a locked model looks at: how much the log-odds of its answer lose when a stretch of some channels is replaced.

What lives here: :func:`occlude` (of any function from signals to numbers), the replacement, which channels go together, and
:func:`audit_occlusion` of a model and windows of a corpus, with the randomisation check. Drawing is ``report/audit_pages.py``.

Occlusion after Zeiler and Fergus (arXiv 1311.2901), for signals. The stretch becomes a straight line between the samples at its two
edges (at an end of the window the value of the one edge): no jump is made, level and drift stay, and nothing is added that could look
like an event. Zeros would be a jump wherever there is an offset or gravity; noise or a piece of the same recording would bring beats
or rhythms of its own and make the map depend on a draw. What a line cannot avoid is that silence itself may mean something to a model.

A map can look like the signal and say nothing of what was learnt (arXiv 1810.03292). So the same map is made with the weights of the
head shuffled, several times; the rank correlation between both should be small.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from biossl.atomic import write_parquet
from biossl.audit.features import free_folder
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.corpus.label_windows import window_text
from biossl.corpus.labels import Labels
from biossl.corpus.splits import chosen_split
from biossl.downstream.model import Model, load_model
from biossl.errors import DataError, RequestError
from biossl.inference import batch_rows, make_batch, pick_device
from biossl.models.group_heads import GroupHead
from biossl.progress import Progress

Array = NDArray[Any]
STRETCHES = 25  # of a window: one is 1/25 of it, the next begins half of that later
SHUFFLES = 3
ALIKE = 0.5  # rank correlation from which on a map is said to follow the signal
KINDS = ("multiclass", "multilabel", "binary")
FILE = "occlusion.parquet"


@dataclass(frozen=True)
class Maps:
    """Maps of some windows.

    Attributes
    ----------
    rows : ndarray of int, (n,)
        Rows of the corpus.
    drop : ndarray, (n, C, P)
        What the log-odds lose when a cell of 1/50 of the window is replaced, mean of the stretches that cover it; NaN for a channel
        that the model does not use.
    truth, answer : list of str
        Label of each window ('' = unknown), and the class whose log-odds these are (``not X``: of a yes/no class denied).
    odds : ndarray, (n,)
        Log-odds of the answer on the whole window.
    groups : dict
        Channels that are replaced together, by name.
    check : dict
        ``mean``, ``low``, ``high`` of the rank correlation with maps of shuffled heads, ``n``.
    about : dict
    """

    rows: Array
    drop: Array
    truth: list[str]
    answer: list[str]
    odds: Array
    groups: dict[str, list[str]]
    check: dict[str, float]
    about: dict[str, Any]


def bridge(x: Array, channels: Sequence[int], start: int, stop: int) -> Array:
    """A window (C, T) with samples ``start`` to ``stop`` of some channels on a straight line between their neighbours.

    A sample that was not observed stays NaN; an edge that was not observed is the next observed sample further out.

    Examples
    --------
    >>> bridge(np.array([[0.0, 9.0, 9.0, 3.0]]), [0], 1, 3).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    out = np.array(x, copy=True)
    at = np.arange(start, stop)
    for c in channels:
        outside = np.isfinite(x[c])
        gap = ~outside[start:stop]
        outside[start:stop] = False
        known = np.flatnonzero(outside)
        if not len(known):
            continue
        line = np.interp(at, known, x[c, known])
        out[c, start:stop] = np.where(gap, x[c, start:stop], line)
    return out


def occlude(score: Callable[[Array], Array], x: Array, groups: Sequence[Sequence[int]], *, batch: int = 64) -> Array:
    """Occlusion map of one window.

    Parameters
    ----------
    score : callable
        Windows (m, C, T) to numbers (m,) or (m, R).
    x : ndarray, (C, T)
    groups : list of lists of int
        Channels that are replaced together.
    batch : int
        Windows a call of ``score``.

    Returns
    -------
    ndarray, (G, P) or (G, P, R)
        What the score loses; P cells of equal length, a half of a stretch each.

    Examples
    --------
    >>> x = np.zeros((2, 100)); x[1, 40:44] = 5.0
    >>> found = occlude(lambda w: w[:, 1, 41], x, [[0], [1]])
    >>> [int(i) for i in np.unravel_index(found.argmax(), found.shape)]
    [1, 20]
    """
    edges = np.unique(np.round(np.linspace(0, x.shape[1], min(2 * STRETCHES, x.shape[1]) + 1)).astype(int))
    cells = len(edges) - 1
    spans = [(i, min(i + 2, cells)) for i in range(max(cells - 1, 1))]
    jobs = [(g, span) for g in range(len(groups)) for span in spans]
    parts = []
    for i in range(0, len(jobs), batch):
        some = [bridge(x, groups[g], int(edges[a]), int(edges[b])) for g, (a, b) in jobs[i : i + batch]]
        parts.append(np.asarray(score(np.stack(some)), np.float64))
    lost = np.asarray(score(x[None]), np.float64)[0] - np.concatenate(parts)
    total = np.zeros((len(groups), cells, *lost.shape[1:]))
    count = np.zeros(cells)
    for a, b in spans:
        count[a:b] += 1
    for (g, (a, b)), value in zip(jobs, lost, strict=True):
        total[g, a:b] += value
    return total / count.reshape(-1, *[1] * (total.ndim - 2))


def channel_groups(names: Sequence[str], types: Sequence[str]) -> dict[str, list[int]]:
    """Channels that carry the same thing and are replaced together.

    Up to three electrodes each for itself; otherwise limb leads (any two give the other four), V1-V2, V3-V4, V5-V6, and EEG by region
    (the letters of its name); axes of one sensor always together, since its posture shows in all of them.

    Examples
    --------
    >>> channel_groups(["I", "II", "V1", "V2", "V3"], ["ecg"] * 5)
    {'limb': [0, 1], 'V1-V2': [2, 3], 'V3-V4': [4]}
    >>> channel_groups(["acc_x", "acc_y", "acc_z"], ["acc"] * 3)
    {'acc': [0, 1, 2]}
    """
    out: dict[str, list[int]] = {}
    for i, (name, kind) in enumerate(zip(names, types, strict=True)):
        few = sum(t == kind for t in types) <= 3
        if kind in ("acc", "gyro"):
            key = re.sub(r"_?[xyz]$", "", name)
        elif few:
            key = name
        elif kind == "ecg":
            number = re.fullmatch(r"V([1-6])", name)
            low = (int(number[1]) - 1) // 2 * 2 + 1 if number else 0
            key = f"V{low}-V{low + 1}" if number else "limb" if name in ("I", "II", "III", "aVR", "aVL", "aVF") else name
        else:
            key = (re.match(r"[A-Za-z]+?(?=z?\d*$)", name) or [name])[0] if kind == "eeg" else name
        out.setdefault(key, []).append(i)
    return out


def audit_occlusion(
    run: str | Path,
    corpus: str | Path | Corpus,
    label: str,
    *,
    split: str | None = None,
    rows: Sequence[int] | None = None,
    record: str | None = None,
    n: int = 6,
    adapt: bool = False,
    seed: int = 0,
) -> Maps:
    """Occlusion maps of a locked model.

    Parameters
    ----------
    run : path
        Run or model folder of `biossl finetune`.
    corpus : path or Corpus
    label : str
        What the windows are labelled by, shown beside the model's answer.
    split : str, optional
        Default the official one, or the only one.
    rows : sequence of int, optional
        Rows of the corpus.
    record : str, optional
        The first ``n`` windows of a record.
    n : int
        Without both: that many windows of part ``val`` (else ``train``, else of all), one of each class by turns, of different
        people where possible.
    adapt : bool
        Accept a corpus with other channels (a subset) or filters than the model's.
    seed : int
        Of the choice of windows and of the shuffled heads.

    Raises
    ------
    RequestError
        Not a model of classes; no such row or record; both given.
    DataError
        No labelled window, or none of them observed.

    Examples
    --------
    >>> audit_occlusion("runs/hapt-6", "corpora/hapt", "activity6").check  # doctest: +SKIP
    """
    if rows is not None and record is not None:
        raise RequestError("--rows and --record name windows in two ways; give one of them")
    if n < 1:
        raise RequestError(f"--n {n}: give 1 or more")
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    model = load_model(run)
    if model.kind not in KINDS:
        raise RequestError(f"{run}: a model of {model.kind} labels; occlusion explains answers that are classes or yes/no")
    if isinstance(model.head, GroupHead):
        raise RequestError(f"{run}: its head reads several windows at once; occlusion explains answers of single windows")
    match = require_match(model.encoder.spec, corpus.spec, adapt=adapt)
    labels = corpus.labels(label)
    split, _ = chosen_split(corpus, split)
    chosen, notes = _windows(corpus, labels, split, rows, record, n, seed)
    model.to(pick_device())
    columns = list(match.rows)
    names = [corpus.spec.ch_names[i] for i in columns]
    groups = channel_groups(names, [corpus.spec.ch_types[i] for i in columns])
    heads = [model.head, *(_shuffled(model, seed + i) for i in range(SHUFFLES))]
    drop: list[Array] = []
    found: list[tuple[int, str, float]] = []
    rho: list[float] = []
    with Progress(len(chosen), "occlusion", "windows") as bar:
        for row in chosen:
            x = corpus.signal([row])[0][columns]
            if not np.isfinite(x).any():
                notes.append(f"nothing was observed in row {row}: left out")
                continue
            explain = _Answer(model, heads, names, corpus.spec.sfreq, x)
            maps = occlude(explain, x, list(groups.values()), batch=batch_rows(model.encoder))
            full = np.full((len(corpus.spec.ch_names), maps.shape[1]), np.nan)
            for g, members in enumerate(groups.values()):
                full[[columns[i] for i in members]] = maps[g, :, 0]
            drop.append(full)
            found.append((int(row), explain.name, explain.odds))
            rho += [_rank_correlation(maps[..., 0], maps[..., r]) for r in range(1, len(heads))]
            bar.update()
    if not found:
        raise DataError(f"{corpus.path}: nothing was observed in the chosen windows; choose others with --rows")
    check = _check(rho)
    notes += match.notes
    if not check["mean"] < ALIKE:
        notes.append(
            "maps of shuffled heads are much alike: these maps show the signal more than what was learnt, do not read them"
        )
    return Maps(
        rows=np.array([row for row, _, _ in found]), drop=np.stack(drop), truth=[window_text(labels, row) for row, _, _ in found],
        answer=[name for _, name, _ in found], odds=np.array([odds for _, _, odds in found]),
        groups={k: [names[i] for i in v] for k, v in groups.items()}, check=check,
        about={
            "label": label, "model": model.about["weights"]["sha256"], "corpus": {"name": corpus.card.name, "hash": corpus.hash},
            "stretch_s": corpus.spec.window_s / STRETCHES, "notes": notes,
        },
    )  # fmt: skip


def write_maps(corpus: Corpus, found: Maps, out: str | Path, *, overwrite: bool = False) -> Path:
    """``out/occlusion.parquet``: one row a window, channel and cell: record, start_s, group, channel, time_s (middle), drop."""
    folder = free_folder(out, FILE, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    cells = found.drop.shape[2]
    time = (np.arange(cells) + 0.5) * corpus.spec.window_s / cells
    group = {name: key for key, members in found.groups.items() for name in members}
    parts = []
    for row, drop, answer in zip(found.rows, found.drop, found.answer, strict=True):
        entry = corpus.index.iloc[int(row)]
        for channel, values in zip(corpus.spec.ch_names, drop, strict=True):
            if channel in group:
                parts.append(pd.DataFrame({
                    "record": str(entry["record"]), "start_s": float(entry["start_s"]), "answer": answer, "group": group[channel],
                    "channel": channel, "time_s": time, "drop": values,
                }))  # fmt: skip
    write_parquet(
        folder / FILE, pd.concat(parts, ignore_index=True), {"model": found.about["model"], "label": found.about["label"]}
    )
    return folder / FILE


# ---------------------------------------------------------------------------------------------- one window


class _Answer:
    """Log-odds (m, 1 + shuffles) of what the model says of a whole window, by its own head and by shuffled ones."""

    def __init__(self, model: Model, heads: list[Any], names: list[str], sfreq: float, x: Array) -> None:
        self.model, self.heads, self.names, self.sfreq = model, heads, names, sfreq
        out = self._outputs(x[None])[0][0]
        self.k = int(out.argmax())
        self.sign = 1.0
        self.name = model.classes[self.k]
        if model.kind != "multiclass" and out[self.k] < 0:
            self.sign, self.name = -1.0, f"not {self.name}"
        self.odds = float(self._odds(out[None])[0])

    @torch.no_grad()
    def _outputs(self, x: Array) -> list[Tensor]:
        encoder = self.model.encoder
        batch = make_batch(x, self.names, self.sfreq, encoder.device)
        encoded = encoder.encode(encoder.tokenize(batch), layers=self.model.head.layers)
        return [head(encoded).double().cpu() for head in self.heads]

    def _odds(self, out: Tensor) -> Tensor:
        if self.model.kind != "multiclass":
            return self.sign * out[:, self.k]
        rest = [i for i in range(out.shape[1]) if i != self.k]
        return out[:, self.k] - out[:, rest].logsumexp(dim=1)

    def __call__(self, x: Array) -> Array:
        return torch.stack([self._odds(out) for out in self._outputs(x)], dim=1).numpy()


def _shuffled(model: Model, seed: int) -> Any:
    """The head with the entries of each of its weights in another order: random weights of the same sizes."""
    head = copy.deepcopy(model.head)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in head.parameters():
            order = torch.randperm(weight.numel(), generator=chance).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return head.eval()


def _rank_correlation(a: Array, b: Array) -> float:
    """Spearman's, of absolute values, so that a map and its mirror image count as alike; NaN for a map without differences."""
    from scipy.stats import spearmanr

    a, b = np.abs(a).ravel(), np.abs(b).ravel()
    return float(spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")


def _check(rho: list[float]) -> dict[str, float]:
    known = np.array(rho)[np.isfinite(rho)]
    if not len(known):
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    return {"mean": float(known.mean()), "low": float(known.min()), "high": float(known.max()), "n": len(known)}


# ---------------------------------------------------------------------------------------------- which windows


def _windows(
    corpus: Corpus, labels: Labels, split: str | None, rows: Sequence[int] | None, record: str | None, n: int, seed: int
) -> tuple[Array, list[str]]:
    part = corpus.split(split).to_numpy().astype(str) if split is not None else np.full(len(corpus), "")
    if rows is not None:
        wrong = [r for r in rows if not 0 <= r < len(corpus)]
        if wrong:
            raise RequestError(f"--rows {wrong[0]}: the corpus has rows 0 to {len(corpus) - 1}")
        chosen = np.array(list(dict.fromkeys(rows)), np.int64)
    elif record is not None:
        chosen = np.flatnonzero(corpus.index["record"].to_numpy().astype(str) == record)[:n]
        if not len(chosen):
            raise RequestError(
                f"{corpus.path}: no record of that name; it has {corpus.index['record'].nunique():,}, named in its index.parquet"
            )
    else:
        return _by_turns(corpus, labels, part, n, seed), []
    tested = int((part[chosen] == "test").sum())
    told = f"{tested} of these windows are of part 'test': a model that is changed after looking at them needs another test"
    return chosen, [told] if tested else []


def _by_turns(corpus: Corpus, labels: Labels, part: Array, n: int, seed: int) -> Array:
    """Labelled windows of part val (else train, else of all), classes by turns, people that were not shown yet first."""
    known = labels.known
    if not known.any():
        raise DataError(f"{corpus.path}: label '{labels.name}' is unknown for every window; check the label's source")
    for name in ("val", "train", ""):  # never a test part
        rows = np.flatnonzero(known & (part == name))
        if len(rows):
            break
    else:
        raise DataError(f"{corpus.path}: labelled windows are of part 'test' only; name windows with --rows")
    rows = np.random.default_rng(seed).permutation(rows)
    text = [window_text(labels, int(r)) for r in rows]
    subject = corpus.index["subject"].to_numpy().astype(str)[rows]
    queues = {c: [i for i in range(len(rows)) if text[i] == c] for c in sorted(set(text))}
    out: list[int] = []
    shown: set[str] = set()
    while len(out) < n and any(queues.values()):
        for queue in queues.values():
            if queue and len(out) < n:
                i = next((i for i in queue if subject[i] not in shown), queue[0])
                queue.remove(i)
                shown.add(subject[i])
                out.append(int(rows[i]))
    return np.array(out)
