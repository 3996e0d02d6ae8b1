"""What more labels would buy: the score of a frozen encoder over the number of labelled subjects and windows, and what follows.

What lives here: :func:`learning_curve` (grouped folds inside part ``train``; ``val`` and ``test`` stay closed), the fit of an
inverse power law, the sentence. Heads and draws are ``protocol.py``'s, scores ``metrics``'; the figure is ``report/audit_pages.py``.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl import metrics, protocol
from biossl.atomic import write_text
from biossl.audit.features import features, free_folder, open_source, seen_note
from biossl.corpus import Corpus
from biossl.corpus.splits import chosen_split
from biossl.corpus.within import refuse_within_subject
from biossl.errors import DataError
from biossl.judging import Rows, in_threads
from biossl.metrics.intervals import draw
from biossl.probe import check_rows, count_rows, labelled_rows

Array = NDArray[Any]
N_DRAWS = 3  # partings into folds; every fold draws its subjects or windows anew, so 15 draws a point
N_RESAMPLES = 200  # of subjects and draws, each with its own fit
LEAST_SUBJECTS = 5
LEAST_POINTS = 4  # three numbers are fitted
STEPS = (1, 2, 5)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the labelled windows of all training subjects of a fold
SLOWEST, FASTEST = 0.05, 3.0  # exponents beyond which a curve does not tell how it goes on
FAILED = 0.2  # share of resamples without a fit from which on nothing is said
FILE = "learning_curve.json"


def learning_curve(
    source: str | Path,
    corpus: str | Path | Corpus,
    label: str,
    *,
    split: str | None = None,
    adapt: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of the linear head over labelled subjects and windows, on held-out subjects of part ``train``.

    Parameters
    ----------
    source : path
        Encoder folder or run; it stays frozen.
    corpus : path or Corpus
    label : str
    split : str, optional
        Default the official one, or the only one; without any, all windows.
    adapt : bool
        Accept a corpus with other channels (a subset) or filters than the encoder's.
    seed : int
        Of folds, draws, resamples.

    Returns
    -------
    dict
        ``rows``: ``axis`` (``subjects``: 1, 2, 5, ... all of a fold's; ``windows``: shares of all their windows), ``subjects``,
        ``windows``, ``score`` (mean over draws) and its 95 % interval ``low``, ``high`` over judged subjects and draws. ``fit``:
        :func:`fit_power` of the axis of subjects; ``doubling`` and ``sentence``: what twice the subjects would bring.

    Raises
    ------
    DataError
        Fewer than five labelled training subjects, one class, nothing labelled.

    Examples
    --------
    >>> print(learning_curve("runs/hapt", "corpora/hapt", "activity6")["sentence"])  # doctest: +SKIP
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    used = open_source(source)
    split, notes = chosen_split(corpus, split)
    refuse_within_subject(corpus, split, "a learning curve over subjects")
    rows, said_rows = labelled_rows(corpus, label, split)
    inside = rows.where("train") if split is not None else np.arange(len(rows.index))
    if not len(inside):
        raise DataError(f"{corpus.path}: no labelled window in part 'train' of split '{split}'; take another with --splits")
    rows = Rows(rows.index[inside], rows.target.take(inside), rows.subject[inside], rows.part[inside])
    check_rows(corpus, rows, np.arange(len(inside)), np.arange(len(inside)), label, None, "train")
    people = len(np.unique(rows.subject))
    if people < LEAST_SUBJECTS:
        raise DataError(
            f"{corpus.path}: {people} labelled training subjects; a curve over subjects needs {LEAST_SUBJECTS}: add labels, or a split with more"
        )
    notes += said_rows if split is None else []
    x, said_match = features(used, corpus, rows.index, adapt=adapt)
    notes += said_match
    notes += seen_note(used, corpus, rows.index, "the level is optimistic for new people, the rise is what is to be read")
    if used.tuned:
        notes.append("the encoder was fine-tuned with labels of these subjects; take the pretrained one for an honest curve")
    curve = _measure(x, rows, seed)
    # a head of one subject has no folds to choose its setting by: that point is shown, and is another head than the others
    fitted = [c for c in curve["subjects"] if c["subjects"] > 1]
    n = np.array([c["subjects"] for c in fitted], float)
    fit = fit_power(n, np.array([c["score"] for c in fitted]), np.stack([c["values"] for c in fitted], axis=1))
    doubling = double(fit, people)
    keys = ("axis", "subjects", "windows", "score", "low", "high")
    return {
        "label": label, "kind": rows.target.kind, "metric": rows.target.metric, "split": split, "seed": seed, "draws": N_DRAWS,
        "corpus": {"name": corpus.card.name, "hash": corpus.hash}, "encoder": used.hash,
        "counts": count_rows(corpus, rows, np.arange(len(rows.index))),
        "rows": [{k: _plain(c[k]) for k in keys} for axis in ("subjects", "windows") for c in curve[axis]],
        "fit": fit.to_dict(n, people), "doubling": doubling, "sentence": sentence(fit, doubling, people, int(n[-1])), "notes": notes,
    }  # fmt: skip


def write_curve(result: dict[str, Any], out: str | Path, *, overwrite: bool = False) -> Path:
    """``out/learning_curve.json``."""
    folder = free_folder(out, FILE, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return folder / FILE


# ---------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True)
class PowerFit:
    """``score(n) = a - b n^-c`` and its resamples.

    Attributes
    ----------
    a, b, c : float
        NaN without a fit.
    each : ndarray, (R, 3)
        a, b, c of the resamples that could be fitted.
    refused : str
        Why nothing is said beyond the data; empty when something can be.
    """

    a: float
    b: float
    c: float
    each: Array
    refused: str

    def at(self, n: Array | float) -> Array:
        """Fitted score."""
        return self.a - self.b * np.asarray(n, float) ** -self.c

    def band(self, n: Array) -> tuple[Array, Array]:
        """95 % band of the resampled curves at n."""
        some = self.each[:, :1] - self.each[:, 1:2] * np.asarray(n, float)[None] ** -self.each[:, 2:]
        low, high = np.percentile(some, [2.5, 97.5], axis=0)
        return low, high

    def to_dict(self, n: Array, people: int) -> dict[str, Any]:
        """Plain values, with the band between the first point and twice the subjects."""
        if self.refused:
            return {"a": None, "b": None, "c": None, "refused": self.refused, "curve": []}
        grid = np.geomspace(n[0], 2 * people, 40)
        low, high = self.band(grid)
        curve = [
            {"subjects": float(g), "score": float(s), "low": float(lo), "high": float(hi)}
            for g, s, lo, hi in zip(grid, self.at(grid), low, high, strict=True)
        ]
        return {"a": self.a, "b": self.b, "c": self.c, "refused": "", "curve": curve}


def fit_power(n: Array, score: Array, resamples: Array) -> PowerFit:
    """Least squares of an inverse power law (as of learning curves in arXiv 1712.00409), with a fit of every resample.

    Parameters
    ----------
    n : ndarray, (P,)
        Ascending, at least 1.
    score : ndarray, (P,)
    resamples : ndarray, (R, P)
        The same scores of resampled subjects and draws; their spread also weighs the points.

    Returns
    -------
    PowerFit
        Refused with fewer than four points, where the score does not rise, or where the exponent is not determined: at the limit
        of what is searched (.05 to 3), in the fit itself or in over a fifth of the resamples; where the curve misses a point by more
        than its standard deviation over resamples.

    Examples
    --------
    >>> n = np.array([1.0, 2, 5, 10, 20])
    >>> fit = fit_power(n, 0.9 - 0.4 * n**-0.7, np.stack([0.9 - 0.4 * n**-0.7] * 3))
    >>> round(fit.a, 3), round(fit.b, 3), round(fit.c, 3), fit.refused
    (0.9, 0.4, 0.7, '')
    """
    none = np.full((0, 3), np.nan)

    def refuse(why: str) -> PowerFit:
        return PowerFit(np.nan, np.nan, np.nan, none, why)

    known = np.isfinite(score)
    n, score, resamples = n[known], score[known], resamples[:, known]
    if len(n) < LEAST_POINTS:
        return refuse(f"{len(n)} points are too few for a curve of three numbers")
    if not score[-1] > score[0]:
        return refuse("the score does not rise with the number of subjects")
    spread = np.nanstd(resamples, axis=0)
    weight = np.maximum(spread, max(float(np.nanmedian(spread)), 1e-6))  # a point that happens not to move is not believed more
    best = _one(n, score, weight)
    if best is None:
        return refuse("no curve of this form fits the points")
    if not SLOWEST * 1.05 < best[2] < FASTEST * 0.95:
        how = "flat from the second point on" if best[2] > 1 else "without a level in sight"
        return refuse(f"the curve is {how}: the points do not determine how it goes on")
    missed = np.abs(best[0] - best[1] * n ** -best[2] - score) > weight
    if missed.any():
        return refuse(f"a curve of this form misses the point of {n[missed][0]:g} subjects by more than its spread")
    each = [_one(n, r, weight, best) for r in resamples if np.isfinite(r).all()]
    good = [e for e in each if e is not None and SLOWEST * 1.05 < e[2] < FASTEST * 0.95]
    if len(good) < (1 - FAILED) * len(resamples):
        return refuse(f"{len(resamples) - len(good)} of {len(resamples)} resamples do not determine the curve")
    return PowerFit(float(best[0]), float(best[1]), float(best[2]), np.stack(good), "")


def _one(n: Array, score: Array, weight: Array, start: Array | None = None) -> Array | None:
    from scipy.optimize import curve_fit

    first = start if start is not None else np.array([min(score.max() + 0.02, 0.999), max(float(np.ptp(score)), 0.01), 0.5])
    limits = ([-np.inf, 0.0, SLOWEST], [1.0, np.inf, FASTEST])  # every main metric ends at 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the covariance, which the resamples replace
        try:
            found, _ = curve_fit(lambda m, a, b, c: a - b * m**-c, n, score, first, sigma=weight, bounds=limits, max_nfev=300)
        except (RuntimeError, ValueError):
            return None
    return np.asarray(found)


def double(fit: PowerFit, people: int) -> dict[str, float] | None:
    """What twice the labelled subjects would bring: ``gain``, ``low``, ``high``; None where that cannot be said."""
    if fit.refused:
        return None
    each = fit.each[:, 1] * (float(people) ** -fit.each[:, 2] - (2.0 * people) ** -fit.each[:, 2])
    low, high = np.percentile(each, [2.5, 97.5])
    gain = float(fit.at(2 * people) - fit.at(people))
    return {"from": people, "to": 2 * people, "gain": gain, "low": float(low), "high": float(high)}


def sentence(fit: PowerFit, doubling: dict[str, float] | None, people: int, most: int) -> str:
    """What the curve says, in words."""
    if doubling is None:
        return f"what more than {people} labelled subjects would bring cannot be said: {fit.refused}"
    g, low, high = (_signed(doubling[k]) for k in ("gain", "low", "high"))
    return (
        f"doubling the labelled subjects from {people} to {2 * people} would be expected to bring {g} [{low}, {high}]; "
        f"beyond {most} subjects, the most a head was trained on here, this is extrapolation"
    )


# ---------------------------------------------------------------------------------------------- the points


def sizes(most: int) -> list[int]:
    """1, 2, 5, 10, ... below ``most``, and ``most``.

    Examples
    --------
    >>> sizes(17)
    [1, 2, 5, 10, 17]
    """
    out = [s * 10**e for e in range(7) for s in STEPS if s * 10**e < most]
    return [*out, most]


def _measure(x: Array, rows: Rows, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Points of both axes: each draw parts the subjects into folds anew and judges everybody by heads that never saw them."""
    target, subject = rows.target, rows.subject
    folds = [protocol.grouped_folds(target, subject, protocol.FOLDS, seed + d) for d in range(N_DRAWS)]
    most = min(len(np.unique(subject[train])) for some in folds for train, _ in some)
    points: list[tuple[str, float]] = [*(("subjects", float(s)) for s in sizes(most)), *(("windows", s) for s in SHARES[:-1])]
    jobs: list[tuple[int, int, Array, Array]] = []
    for p, (axis, size) in enumerate(points):
        for d, some in enumerate(folds):
            for f, (train, test) in enumerate(some):
                # each fold draws anew: one lucky subject is not behind every judged one
                chance = seed + 1000 * d + f
                if axis == "subjects":
                    part = protocol.draw_subjects(subject[train], int(size), 1, chance)[0]
                else:
                    part = protocol.draw_windows(target.take(train), size, 1, chance)[0]
                part = train[part]
                jobs.append((p, d, part[protocol.spread(len(part), protocol.CROSS_ROWS, seed)], test))

    def fit(job: tuple[int, int, Array, Array]) -> Array:
        _, _, train, test = job
        return protocol.linear(x[train], target.take(train), subject[train], x[test], seed=seed).prediction

    shape = (len(x),) if target.kind == "regression" else (len(x), len(target.classes))
    prediction = np.full((len(points), N_DRAWS, *shape), np.nan, np.float32)
    used: list[list[tuple[int, int]]] = [[] for _ in points]
    for (p, d, train, test), found in zip(jobs, in_threads(fit, jobs, "learning curve"), strict=True):
        prediction[p, d, test] = found
        used[p].append((len(np.unique(subject[train])), len(train)))
    codes, weights = draw(subject, N_RESAMPLES, seed)
    chosen = np.random.default_rng([seed, 1]).integers(0, N_DRAWS, (N_RESAMPLES, N_DRAWS))
    out: dict[str, list[dict[str, Any]]] = {"subjects": [], "windows": []}
    ones = np.ones((1, weights.shape[1]))
    for p, (axis, _) in enumerate(points):
        scores = [metrics.resampler(target.y, prediction[p, d], codes, target.metric, weights.shape[1]) for d in range(N_DRAWS)]
        each = np.stack([s(weights) for s in scores], axis=1)
        values = np.take_along_axis(each, chosen, axis=1).mean(axis=1)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
        out[axis].append({
            "axis": axis, "subjects": round(float(np.mean([s for s, _ in used[p]]))), "windows": round(float(np.mean([w for _, w in used[p]]))),
            "score": float(np.mean([s(ones)[0] for s in scores])), "low": float(low), "high": float(high), "values": values,
        })  # fmt: skip
    out["windows"].append(out["subjects"][-1] | {"axis": "windows"})
    return out


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)
