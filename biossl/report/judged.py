"""An evaluation with what its figures need: predictions of single windows, and the corpus they are of where it still is.

What lives here: reading ``predictions.parquet`` beside ``results.json``, references and probabilities as arrays, the corpus rows of
the judged windows. Nothing is fitted and nothing drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.errors import BiosslError

Array = NDArray[Any]
YES_NO = ("binary", "multilabel")
KINDS = ("multiclass", "regression", *YES_NO)
_KEYS = ("subject", "record", "segment", "start_s")


@dataclass(frozen=True)
class Judged:
    """One evaluation.

    Attributes
    ----------
    result : dict
        ``results.json``.
    table : DataFrame or None
        ``predictions.parquet``; None where it is not there, or not of one row a window.
    corpus : Corpus or None
        With the hash that was judged; None where it is no longer there.
    rows : ndarray of int, or None
        Row of the corpus of each row of the table.
    """

    result: dict[str, Any]
    table: pd.DataFrame | None
    corpus: Corpus | None
    rows: Array | None

    @property
    def classes(self) -> list[str]:
        """Names, empty for values."""
        return list(self.result["classes"])

    @property
    def people(self) -> Array:
        """Subject of each row of the table, str (n,)."""
        assert self.table is not None
        return self.table["subject"].astype(str).to_numpy()

    @property
    def groups(self) -> Array:
        """What intervals resample, of each row of the table, str (n,): its subject, or its recording in a within-subject split."""
        assert self.table is not None
        return self.table["record"].astype(str).to_numpy() if self.result.get("within_subject") else self.people

    @cached_property
    def probabilities(self) -> Array:
        """Calibrated, (n, K); of a regression values (n,)."""
        assert self.table is not None
        if self.result["kind"] == "regression":
            return self.table["value"].to_numpy(float)
        return self.table[[f"p_{c}" for c in self.classes]].to_numpy(float)

    @cached_property
    def reference(self) -> Array:
        """Class number (n,), 0/1/NaN (n, K), or value (n,); NaN unknown."""
        assert self.table is not None
        if self.result["kind"] in YES_NO:
            return self.table[[f"y_{c}" for c in self.classes]].to_numpy(float)
        if self.result["kind"] == "regression":
            return self.table["y"].to_numpy(float)
        number = {c: k for k, c in enumerate(self.classes)}
        return np.array([number.get(v, np.nan) for v in self.table["y"]], float)

    def against_others(self, k: int) -> tuple[Array, Array]:
        """0/1/NaN and probability of class ``k``, (n,) each: of several classes it against all others."""
        y = self.reference
        if self.result["kind"] in YES_NO:
            return y[:, k], self.probabilities[:, k]
        return np.where(np.isnan(y), np.nan, y == k), self.probabilities[:, k]

    @cached_property
    def thresholds(self) -> Array:
        """Frozen threshold of each yes/no class (K,), .5 where none was chosen."""
        points = {t["class"]: t["threshold"] for t in self.result["thresholds"]}
        return np.array([points.get(c, 0.5) for c in self.classes])

    @cached_property
    def abstained(self) -> Array:
        """Windows without a decision, bool (n,)."""
        assert self.table is not None
        return self.table["abstain"].to_numpy(bool)


def open_judged(result: dict[str, Any], folder: str | Path, corpora: Sequence[Corpus] = ()) -> Judged:
    """Read what lies beside a result.

    Parameters
    ----------
    result : dict
        ``results.json``.
    folder : path
        Where it lies.
    corpora : sequence of Corpus
        Already open; the one that was judged is looked for here, then where it was.

    Examples
    --------
    >>> open_judged({"corpus": {"path": "gone", "hash": ""}, "kind": "dense"}, "gone").table is None
    True
    """
    table = _table(Path(folder) / "predictions.parquet") if result["kind"] in KINDS else None
    corpus = next((c for c in corpora if c.hash == result["corpus"]["hash"]), None)
    if corpus is None:
        try:
            found = Corpus.open(result["corpus"]["path"])
            corpus = found if found.hash == result["corpus"]["hash"] else None
        except BiosslError:
            corpus = None
    pooled = result.get("per", "window") != "window"  # rows of the table are then recordings or subjects
    rows = None if corpus is None or table is None or pooled else _rows(corpus, table)
    return Judged(result, table, corpus if rows is not None else None, rows)


def _table(file: Path) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        return None


def _rows(corpus: Corpus, table: pd.DataFrame) -> Array | None:
    """Rows by their keys; equal keys (two events at one moment) in their order; None where one is not found."""

    def keyed(frame: pd.DataFrame) -> pd.DataFrame:
        some = frame[list(_KEYS)].reset_index(drop=True).astype({"subject": str, "record": str})
        return some.assign(twin=some.groupby(list(_KEYS)).cumcount())

    index = keyed(corpus.index)
    found = keyed(table).merge(index.assign(at=np.arange(len(index))), how="left", on=[*_KEYS, "twin"])["at"]
    return None if found.isna().any() else found.to_numpy(int)
