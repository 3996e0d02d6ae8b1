"""A closer look at a locked model's predictions: classes, people, calibration, thresholds, what it abstains on.

What lives here: :func:`closer_look`, plain values for ``results.json`` and the page. Nothing is fitted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import metrics
from biossl.downstream.lock import confidence
from biossl.downstream.model import Model
from biossl.errors import BiosslError
from biossl.metrics.calibration import expected_calibration_error, reliability, top_label
from biossl.metrics.decision import decision_curve
from biossl.protocol import Target

Array = NDArray[Any]
CURVE = tuple(round(0.05 * k, 2) for k in range(1, 20))  # threshold probabilities of a decision curve


def closer_look(model: Model, target: Target, p: Array, table: pd.DataFrame, people: Array, seed: int) -> dict[str, Any]:
    """What stands beside the scores.

    Parameters
    ----------
    model : Model
    target : Target
        Of the judged rows.
    p : ndarray, (n, K) calibrated probabilities, or (n,) values
    table : DataFrame
        Of :func:`~biossl.downstream.predictions.columns`.
    people : ndarray of str, (n,)
    seed : int
        Of resamples.

    Returns
    -------
    dict
        ``per_class``, ``confusion``, ``per_subject``, ``calibration``, ``thresholds``, ``decision_curve``, ``coverage``, ``unfamiliar``.
    """
    out: dict[str, Any] = {"per_class": metrics.per_class(target.y, p, target.classes, target.kind), "confusion": None}
    if target.kind == "multiclass":
        out["confusion"] = metrics.confusion(target.y, p, len(target.classes)).tolist()
    out["per_subject"] = _per_subject(target, p, people)
    out["calibration"] = _calibration(target, p)
    out["thresholds"] = _thresholds(model, target, p, people, seed)
    out["decision_curve"] = _decision(target, p, people, seed)
    out["coverage"] = _coverage(model, target, p, table, people, seed)
    out["unfamiliar"] = None
    if "unfamiliar" in table:
        far = table["unfamiliar"].to_numpy(bool)
        promised = 1.0 - model.lock.familiar.share if model.lock.familiar is not None else None
        out["unfamiliar"] = {"windows": int(far.sum()), "share": float(far.mean()), "each_limit_expects": promised}
    return out


def _per_subject(target: Target, p: Array, people: Array) -> list[dict[str, Any]]:
    """Accuracy of every subject (multi-label: of all known yes/no answers at .5); absolute error of values; of survival nothing."""
    if target.kind == "survival":
        return []  # one person's times cannot be put in order
    if target.kind == "regression":
        name, right = "mae", np.abs(target.y - p)
    elif target.kind == "multiclass":
        name, right = "accuracy", np.where(np.isnan(target.y), np.nan, p.argmax(axis=1) == target.y)
    else:
        known = ~np.isnan(target.y)
        agree = np.where(known, (p >= 0.5) == (target.y > 0.5), np.nan)
        name, right = "accuracy", np.nanmean(agree, axis=1)
    each = pd.DataFrame({"subject": people, "v": right}).groupby("subject")["v"].agg(["count", "mean"])
    return [{"subject": str(s), "n": int(r["count"]), name: float(r["mean"])} for s, r in each.iterrows()]


def _calibration(target: Target, p: Array) -> dict[str, Any] | None:
    """Of several classes the top label's; of yes/no classes each one's."""
    if target.kind in ("regression", "survival"):
        return None
    cases = {"top label": top_label(target.y, p)} if target.kind == "multiclass" else {
        name: (target.y[:, k], p[:, k]) for k, name in enumerate(target.classes)
    }  # fmt: skip
    out: dict[str, Any] = {}
    for name, (y, q) in cases.items():
        try:
            bins = [vars(b) if hasattr(b, "__dict__") else b for b in reliability(y, q)]
            out[name] = {"ece": expected_calibration_error(y, q), "bins": bins}
        except BiosslError as error:
            out[name] = {"ece": None, "bins": [], "reason": str(error)}
    try:
        out["brier"] = metrics.score(target.y, p, "brier")
    except BiosslError as error:
        out["brier"], out["reason"] = None, str(error)
    return out


def _thresholds(model: Model, target: Target, p: Array, people: Array, seed: int) -> list[dict[str, Any]]:
    """What the thresholds of held-out training subjects turn out to be here."""
    out = []
    for k, name in enumerate(target.classes):
        point = model.lock.points.get(name)
        if point is None:
            continue
        entry: dict[str, Any] = {"class": name, **point.to_dict()}
        try:
            here = point.realised(target.y[:, k], p[:, k], people, seed=seed)
            entry["here"] = {what: interval.to_dict() for what, interval in here.items()}
        except BiosslError as error:
            entry["reason"] = str(error)
        out.append(entry)
    return out


def _decision(target: Target, p: Array, people: Array, seed: int) -> list[dict[str, Any]] | None:
    """Net benefit of a yes/no label at each threshold probability."""
    if target.kind != "binary":
        return None
    try:
        rows = decision_curve(target.y, p, people, CURVE, n=500, seed=seed)
    except BiosslError:
        return None
    return [{k: v.to_dict() if hasattr(v, "to_dict") else v for k, v in row.items()} for row in rows]


def _coverage(model: Model, target: Target, p: Array, table: pd.DataFrame, people: Array, seed: int) -> list[dict[str, Any]]:
    """The main score of the windows the model keeps a decision on: all, familiar ones, and those above each frozen confidence."""
    kept = {"all": np.ones(len(p), bool), "familiar": ~table["abstain"].to_numpy(bool)}
    if target.kind not in ("regression", "survival"):
        sure = confidence(p, model.kind)
        kept |= {f"confidence {at:.3f} (of {share:.0%} in training)": sure >= at for share, at in model.lock.cutoffs.items()}
    out = []
    for name, some in kept.items():
        entry: dict[str, Any] = {"kept": name, "share": float(some.mean()), "score": None}
        if some.any():
            found = metrics.subject_bootstrap(target.y[some], p[some], people[some], target.metric, seed=seed)
            entry["score"] = found.to_dict()
        else:
            entry["reason"] = "no window is kept"
        out.append(entry)
    return out
