"""What is decided on: single windows, or all judged windows of a recording or subject together.

What lives here: which windows belong together, how predictions of windows become one, and the table of such predictions. Nothing
is fitted: calibration and thresholds are those that were frozen on windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.downstream.lock import KINDS, confidence
from biossl.downstream.model import Model
from biossl.downstream.predictions import said
from biossl.errors import DataError, RequestError

Array = NDArray[Any]
Per = Literal["window", "recording", "subject"]
NAMED = 3  # units that are named in a note at most


@dataclass(frozen=True)
class Units:
    """Windows that are judged together.

    Attributes
    ----------
    per : str
    of : ndarray of int, (n,)
        Number of each window's unit.
    first : ndarray of int, (m,)
        A window of each unit.
    """

    per: Per
    of: Array
    first: Array

    def __len__(self) -> int:
        return len(self.first)

    @property
    def windows(self) -> Array:
        """(m,) how many windows each unit has."""
        return np.bincount(self.of, minlength=len(self))

    def pool(self, values: Array) -> Array:
        """Mean over the windows of each unit, (n, ...) to (m, ...).

        Of probabilities, and not of their logarithms: one window that is wrong and sure, as a spoiled one often is, then moves the
        decision by its share, where a product would let it overrule all others.
        """
        if self.per == "window":
            return values
        total = np.zeros((len(self), *values.shape[1:]))
        np.add.at(total, self.of, values)
        return total / self.windows.reshape(-1, *[1] * (values.ndim - 1))

    def shared(self, values: Array) -> Array:
        """(m,) the value all windows of a unit have, None where they differ."""
        if self.per == "window":
            return values
        same = np.ones(len(self), bool)
        text: Array = np.asarray(values.astype(str))
        np.logical_and.at(same, self.of, text == text[self.first][self.of])
        out = values[self.first].astype(object)
        out[~same] = None
        return out


def gather(per: str, subject: Array, record: Array, y: Array) -> tuple[Units, Array, Array, list[str]]:
    """Put labelled windows together.

    Parameters
    ----------
    per : str
        ``window``, ``recording`` or ``subject``.
    subject, record : ndarray of str, (n,)
        Of the windows.
    y : ndarray, (n,) or (n, K)
        Labels; NaN = unknown.

    Returns
    -------
    units : Units
        Of the windows that are kept.
    kept : ndarray of bool, (n,)
        Windows of units whose known labels agree.
    y : ndarray, (m,) or (m, K)
        Labels of the units.
    notes : list of str

    Raises
    ------
    RequestError
        Another ``per``.
    DataError
        No unit has one label.

    Examples
    --------
    >>> units, kept, y, _ = gather("recording", np.array(["s"] * 3), np.array(["a", "a", "b"]), np.array([1.0, 1.0, 0.0]))
    >>> y.tolist(), units.windows.tolist()
    ([1.0, 0.0], [2, 1])
    """
    if per not in get_args(Per):
        raise RequestError(f"--per {per}: choose among {', '.join(get_args(Per))}")
    n = len(subject)
    if per == "window":
        return Units("window", np.arange(n), np.arange(n)), np.ones(n, bool), y, []
    keys = [f"{s}\0{r}" if per == "recording" else s for s, r in zip(subject, record, strict=True)]
    _, of = np.unique(np.asarray(keys), return_inverse=True)
    m, columns = int(of.max()) + 1, y.reshape(n, -1)
    low, high = np.full((m, columns.shape[1]), np.inf), np.full((m, columns.shape[1]), -np.inf)
    np.fmin.at(low, of, columns)
    np.fmax.at(high, of, columns)
    mixed: Array = np.asarray((low < high).any(axis=1))
    kept = ~mixed[of]
    notes = []
    if mixed.any():
        line = f"{int(mixed.sum())} of {m} {per}s hold windows of different labels"
        if mixed.all():
            raise DataError(f"{line}: there is no one decision to judge; leave --per {per} out")
        notes.append(
            f"{line} and are left out ({int((~kept).sum())} windows); without --per {per} they are judged window by window"
        )
    _, first, number = np.unique(of[kept], return_index=True, return_inverse=True)
    label = np.where(np.isfinite(low), low, np.nan)[~mixed]
    units = Units(per, number, first)  # type: ignore[arg-type]
    notes.append(
        f"{len(units)} {per}s, of {int(units.windows.min())} to {int(units.windows.max())} labelled windows each: the mean of their "
        "predictions is judged; calibration and thresholds were frozen on single windows"
    )
    return units, kept, label if y.ndim == 2 else label[:, 0], notes


def pooled(model: Model, units: Units, p: Array, table: pd.DataFrame) -> pd.DataFrame:
    """Columns of :func:`~biossl.downstream.predictions.columns` for units.

    Parameters
    ----------
    model : Model
    units : Units
    p : ndarray, (m, K) or (m,)
        Pooled predictions.
    table : DataFrame
        Of the windows.

    Returns
    -------
    DataFrame
        Decision and confidence of the pooled probabilities; ``unfamiliar_share`` of the windows; ``unfamiliar`` and ``abstain``
        where that holds for more than half of them; distances are means; ``windows``.
    """
    if units.per == "window":
        return table
    out: dict[str, Any] = {}
    decided = None
    if model.kind in (*KINDS, "ordinal"):
        out |= {f"p_{name}": p[:, k] for k, name in enumerate(model.classes)}
        out["confidence"] = confidence(p, model.kind)
        decided = np.array(said(model.lock.decisions(p, model.classes, model.kind), model.classes, model.kind), object)
    else:
        out["log_hazard" if model.kind == "survival" else "value"] = p
    for name in ("mahalanobis", "knn"):
        if name in table:
            out[name] = units.pool(table[name].to_numpy(np.float64))
    if "unfamiliar" in table:
        out["unfamiliar_share"] = units.pool(table["unfamiliar"].to_numpy(np.float64))
        out["unfamiliar"] = out["unfamiliar_share"] > 0.5
    abstain = units.pool(table["abstain"].to_numpy(np.float64)) > 0.5
    out["abstain"] = abstain
    if decided is not None:
        decided[abstain] = None
        out["decision"] = decided
    return pd.DataFrame(out | {"windows": units.windows})
