"""Small array steps that several scores share.

What lives here: the type of an array, yes/no columns, hard decisions, and means over what is defined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def column(values: ArrayLike) -> Array:
    """(n, 1) as (n,); anything else unchanged."""
    out = np.asarray(values, float)
    return out[:, 0] if out.ndim == 2 and out.shape[1] == 1 else out


def columns(values: ArrayLike) -> Array:
    """(n,) as (n, 1); (n, K) unchanged."""
    out = np.asarray(values, float)
    return out[:, None] if out.ndim == 1 else out


def hard(prediction: ArrayLike) -> Array:
    """Class numbers: those given, or of class scores (n, K) the largest."""
    p = np.asarray(prediction)
    return (p.argmax(axis=1) if p.ndim == 2 else p).astype(np.int64)


def mean_where(each: Array, valid: Array) -> Array:
    """Mean of each row over its valid entries; NaN without one."""
    count = valid.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.where(valid, each, 0.0).sum(1) / count, np.nan)


def ratio(a: Array, b: Array) -> Array:
    """``a / b``; NaN where ``b`` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)
