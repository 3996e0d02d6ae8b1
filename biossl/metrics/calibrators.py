"""Calibration fitted on validation probabilities, then frozen: temperature or isotonic.

What lives here: :class:`Calibration`, which a locked model carries as plain numbers. It never sees test labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from biossl.errors import DataError, RequestError
from biossl.metrics import checks
from biossl.metrics.arrays import Array, columns
from biossl.metrics.recalibration import EDGE

Kind = Literal["binary", "multiclass", "multilabel"]
Method = Literal["temperature", "isotonic"]
_RANGE = (-8.0, 12.0)  # log temperatures searched


@dataclass(frozen=True)
class Calibration:
    """Frozen calibration of probabilities.

    Temperature (Guo et al. 2017, arXiv 1706.04599): log-probabilities are divided by T, which keeps the order of a row's classes; one
    T, multilabel one a class. Isotonic (Zadrozny and Elkan 2002): a rising step-wise linear curve a class; of several classes the
    rows are brought back to a sum of 1, all-zero rows to equal shares, as scikit-learn does.

    Attributes
    ----------
    kind, method : str
    classes : tuple of str
        Names, one a column of the probabilities; of ``binary`` the one looked for.
    curves : tuple of tuple of tuple of float
        Temperature: ``((T,),)``, multilabel one a class. Isotonic: for each class the probabilities and what they become.

    Examples
    --------
    >>> c = Calibration.fit([0, 0, 1, 1, 0, 1], [[0.1], [0.9], [0.9], [0.9], [0.1], [0.1]], "binary", "temperature", ["af"])
    >>> bool(c.apply([[0.9]])[0, 0] < 0.9)
    True
    """

    kind: Kind
    method: Method
    classes: tuple[str, ...]
    curves: tuple[tuple[tuple[float, ...], ...], ...]

    @classmethod
    def fit(cls, y: ArrayLike, p: ArrayLike, kind: Kind, method: Method, classes: Sequence[str]) -> Calibration:
        """Fit on validation rows.

        Parameters
        ----------
        y : array
            Binary: 0/1/NaN (n,) or (n, 1). Multiclass: class numbers (n,). Multilabel: 0/1/NaN (n, K).
        p : array, shape (n, K)
            Probabilities of the same rows; binary (n,) or (n, 1). Log-probabilities are taken no further than 1e-6 from 0 and 1.
        kind : str
            ``binary``, ``multiclass`` or ``multilabel``.
        method : str
            ``temperature`` or ``isotonic``.
        classes : sequence of str

        Raises
        ------
        DataError
            One class only in validation (multilabel: of one label; isotonic: a class without a row), classes that the probabilities
            separate completely (temperature has no optimum), NaN, numbers that are no probabilities.
        RequestError
            An unknown kind or method, shapes that do not fit.
        """
        if kind not in get_args(Kind) or method not in get_args(Method):
            known = f"{', '.join(get_args(Kind))}; methods: {', '.join(get_args(Method))}"
            raise RequestError(f"calibration of kind '{kind}' by '{method}': kinds are {known}")
        names = tuple(str(c) for c in classes)
        t, q = _shaped(y, p, kind, names)
        curves: list[tuple[tuple[float, ...], ...]] = []
        if kind == "multiclass":
            rows = ~np.isnan(t)
            found = np.unique(t[rows]).astype(int)
            if len(found) < 2:
                raise DataError(f"validation has {_only(found, names)}: calibration needs two classes; add validation subjects")
            if method == "temperature":
                return cls(kind, method, names, (((_temperature(t[rows], q[rows]),),),))
            for k, name in enumerate(names):
                if k not in found:
                    raise DataError(f"validation has no row of class {name}: isotonic needs every class; use temperature")
                curves.append(_isotonic(t[rows] == k, q[rows, k]))
            return cls(kind, method, names, tuple(curves))
        for k, name in enumerate(names):
            some = t[~np.isnan(t[:, k]), k]
            if len(np.unique(some)) < 2:
                what = "no known label" if not len(some) else f"only {'positive' if some[0] else 'negative'} rows"
                raise DataError(f"validation has {what} of class {name}: calibration needs both; add validation subjects")
        for k in range(len(names)):
            rows = ~np.isnan(t[:, k])
            some, shown = t[rows, k], q[rows, k]
            if method == "isotonic":
                curves.append(_isotonic(some == 1, shown))
            else:
                curves.append(((_temperature(some, np.stack([1 - shown, shown], axis=1)),),))
        return cls(kind, method, names, tuple(curves))

    def apply(self, p: ArrayLike) -> Array:
        """Calibrated probabilities (n, K) of new rows (n, K); binary also (n,), which stays (n,).

        Raises
        ------
        DataError, RequestError
            As in :meth:`fit`: NaN, numbers that are no probabilities, another number of classes.
        """
        given = np.asarray(p, float)
        q = columns(given)
        _check_probabilities(q, np.ones(len(q), bool), self.kind, self.classes)
        if self.method == "isotonic":
            out = np.stack([np.interp(q[:, k], np.array(x), np.array(v)) for k, (x, v) in enumerate(self.curves)], axis=1)
            if self.kind == "multiclass":
                total = out.sum(1, keepdims=True)
                out = np.where(total > 0, out / np.where(total > 0, total, 1), 1 / out.shape[1])
        elif self.kind == "multiclass":
            out = _cooled(q, self.curves[0][0][0])
        else:
            both = [_cooled(np.stack([1 - q[:, k], q[:, k]], axis=1), curve[0][0]) for k, curve in enumerate(self.curves)]
            out = np.stack([b[:, 1] for b in both], axis=1)
        return out.reshape(given.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON or YAML."""
        return {
            "kind": self.kind,
            "method": self.method,
            "classes": list(self.classes),
            "curves": [[list(part) for part in curve] for curve in self.curves],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Back from :meth:`to_dict`.

        Raises
        ------
        DataError
            Something is missing or not of this form.
        """
        try:
            curves = tuple(tuple(tuple(float(v) for v in part) for part in curve) for curve in values["curves"])
            out = cls(values["kind"], values["method"], tuple(values["classes"]), curves)
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"calibration: {e!r}: not what a locked model stores; fit it again") from e
        n_curves = 1 if (out.kind, out.method) == ("multiclass", "temperature") else len(out.classes)
        n_parts = 1 if out.method == "temperature" else 2
        if out.kind not in get_args(Kind) or out.method not in get_args(Method) or len(curves) != n_curves:
            raise DataError(
                f"calibration '{out.kind}' by '{out.method}' with {len(curves)} curves: not what a locked model stores"
            )
        if any(len(c) != n_parts or not c[0] or len(c[0]) != len(c[-1]) for c in curves):
            raise DataError("calibration: a curve is cut off: not what a locked model stores; fit it again")
        return out


def _shaped(y: ArrayLike, p: ArrayLike, kind: Kind, names: tuple[str, ...]) -> tuple[Array, Array]:
    t, q = np.asarray(y, float), np.asarray(p, float)
    checks.same_length(t, probabilities=q)
    q = columns(q)
    if kind != "multiclass":
        t = columns(t)
        if t.shape[1] != len(names):
            raise RequestError(f"{t.shape[1]} columns of labels but {len(names)} classes: give one name a column")
        checks.zero_one(t)
        for k in range(min(t.shape[1], q.shape[1])):
            _check_probabilities(q[:, [k]], ~np.isnan(t[:, k]), kind, names[:1])
    else:
        if t.ndim != 1:
            raise RequestError(f"labels of shape {t.shape}: several classes need class numbers (n,)")
        checks.class_numbers(t)
        if np.nanmax(t, initial=-1) >= len(names):
            raise DataError(f"class number {int(np.nanmax(t))} but {len(names)} classes: name every class")
        _check_probabilities(q, ~np.isnan(t), kind, names)
    if q.shape[1] != len(names):
        raise RequestError(f"{q.shape[1]} columns of probabilities but {len(names)} classes: give one column a class")
    return t, q


def _check_probabilities(q: Array, known: Array, kind: Kind, names: tuple[str, ...]) -> None:
    if q.shape[1] != len(names):
        raise RequestError(f"{q.shape[1]} columns of probabilities but {len(names)} classes: give one column a class")
    checks.no_nan(q, known, "probability")
    checks.probabilities(q, known, sums=kind == "multiclass")


def _only(found: Array, names: tuple[str, ...]) -> str:
    return f"only class {names[int(found[0])]}" if len(found) else "no known label"


def _cooled(q: Array, temperature: float) -> Array:
    z = np.log(np.maximum(q, EDGE)) / temperature
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def _temperature(t: Array, q: Array) -> float:
    z = np.log(np.maximum(q, EDGE))
    right = np.arange(len(t)), t.astype(int)
    # the loss is convex in 1 / T: it falls for ever when every right class leads, and from 0 on rises when none is favoured
    if (z[right] >= z.max(axis=1)).all():
        raise DataError(
            "the probabilities separate the validation classes completely: no temperature fits; add validation subjects"
        )
    if (z[right] - z.mean(axis=1)).mean() <= 0:
        raise DataError("the probabilities say nothing about the validation labels: no temperature mends that; look at the model")

    def loss(log_t: float) -> float:
        s = z / np.exp(log_t)
        top = s.max(axis=1)
        return float((top + np.log(np.exp(s - top[:, None]).sum(axis=1)) - s[right]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-10}).x))


def _isotonic(positive: Array, q: Array) -> tuple[tuple[float, ...], ...]:
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(q, positive.astype(float))
    return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())
