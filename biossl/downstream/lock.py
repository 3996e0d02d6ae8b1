"""What is frozen with a model beside its weights: calibration, thresholds, cut-offs of confidence, what is unfamiliar.

What lives here: :class:`Lock` (with :class:`Decoder` of dense labels), fitted on predictions of held-out training subjects (part ``val``, or grouped folds of the training
part), never on a test row, and applied unchanged ever after. Where held-out rows do not allow a part, it is left out and a line
says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.downstream.ood import Familiar
from biossl.errors import BiosslError, DataError
from biossl.metrics.calibrators import Calibration
from biossl.metrics.operating import OperatingPoint

Array = NDArray[Any]
COVERAGES = (0.95, 0.9, 0.8, 0.7, 0.5)  # shares of held-out windows the model keeps its decision on
KINDS = ("multiclass", "binary", "multilabel")  # whose predictions are probabilities that can be calibrated here


@dataclass(frozen=True)
class Decoder:
    """How runs of samples become events, fitted on training events.

    Attributes
    ----------
    background : str
        Class that is no event; '' = every class is one.
    per_channel : bool
        Each channel has events of its own.
    least_s, bridge_s : dict of str to float
        Of each class: shorter runs are none, shorter holes between two runs of it are filled.
    """

    background: str = ""
    per_channel: bool = True
    least_s: dict[str, float] = field(default_factory=dict)
    bridge_s: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "background": self.background, "per_channel": self.per_channel, "least_s": dict(self.least_s),
            "bridge_s": dict(self.bridge_s),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decoder:
        """Back from :meth:`to_dict`; KeyError, TypeError or ValueError where something is missing."""
        least, bridge = ({str(k): float(v) for k, v in values[key].items()} for key in ("least_s", "bridge_s"))
        return cls(str(values["background"]), bool(values["per_channel"]), least, bridge)


@dataclass(frozen=True)
class Lock:
    """Everything that turns probabilities into decisions.

    Attributes
    ----------
    calibration : Calibration or None
    points : dict of str to OperatingPoint
        Of calibrated probabilities, for each class that is looked for (``binary``, ``multilabel``): Youden's threshold.
    cutoffs : dict of float to float
        Of each share of held-out windows the confidence it lies above.
    familiar : Familiar or None
    decoder : Decoder or None
        Of dense labels: how samples become events.
    notes : tuple of str
        What could not be fitted, and why.
    """

    calibration: Calibration | None = None
    points: dict[str, OperatingPoint] = field(default_factory=dict)
    cutoffs: dict[float, float] = field(default_factory=dict)
    familiar: Familiar | None = None
    notes: tuple[str, ...] = ()
    decoder: Decoder | None = None

    def probabilities(self, prediction: Array) -> Array:
        """Calibrated predictions: probabilities (n, K) where there is a calibration, else what came in."""
        return prediction if self.calibration is None else self.calibration.apply(prediction)

    def decisions(self, probabilities: Array, classes: tuple[str, ...], kind: str) -> Array:
        """What is said of every window: class numbers (n,), or 0/1 (n, K) by each class's frozen threshold (.5 without one)."""
        if kind in ("multiclass", "ordinal"):
            return probabilities.argmax(axis=1)
        at = np.array([self.points[c].threshold if c in self.points else 0.5 for c in classes])
        return (probabilities >= at).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is unfamiliar lies in arrays of its own (:meth:`Familiar.to_arrays`)."""
        return {
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "points": {name: point.to_dict() for name, point in self.points.items()},
            "cutoffs": [[share, at] for share, at in self.cutoffs.items()], "notes": list(self.notes),
            "decoder": None if self.decoder is None else self.decoder.to_dict(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], familiar: Familiar | None) -> Lock:
        """Back from :meth:`to_dict`.

        Raises
        ------
        DataError
            Something is missing or of another form.
        """
        try:
            calibration = None if values["calibration"] is None else Calibration.from_dict(values["calibration"])
            points = {str(name): OperatingPoint.from_dict(point) for name, point in values["points"].items()}
            cutoffs = {float(share): float(at) for share, at in values["cutoffs"]}
            decoder = Decoder.from_dict(values["decoder"]) if values.get("decoder") is not None else None
            return cls(calibration, points, cutoffs, familiar, tuple(str(n) for n in values["notes"]), decoder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"key 'lock': damaged ({error}); copy the folder again or fine-tune anew") from None


def _calibration(kind: str, classes: tuple[str, ...], y: Array, held: Array, notes: list[str]) -> Calibration | None:
    """One temperature of several classes, one a yes/no class; a yes/no class that allows none keeps its probabilities."""
    if kind == "multiclass":
        try:
            return Calibration.fit(y[:, 0], held, "multiclass", "temperature", classes)
        except BiosslError as error:
            notes.append(f"no calibration: {error}")
            return None
    curves = []
    for k, name in enumerate(classes):
        try:
            curves.append(Calibration.fit(y[:, k], held[:, k], "binary", "temperature", [name]).curves[0])
        except BiosslError as error:
            notes.append(f"no calibration of {name}: {error}")
            curves.append(((1.0,),))
    if all(curve == ((1.0,),) for curve in curves):
        return None
    return Calibration(kind, "temperature", classes, tuple(curves))  # type: ignore[arg-type]


def confidence(probabilities: Array, kind: str) -> Array:
    """(n,) probability of what is said: the largest of several classes; of yes/no classes the least sure one's."""
    if kind in ("multiclass", "ordinal"):
        return probabilities.max(axis=1)
    return np.maximum(probabilities, 1.0 - probabilities).min(axis=1)


def fit_lock(
    kind: str, classes: tuple[str, ...], y: Array | None, held: Array | None, *, features: Array | None = None,
    subjects: Array | None = None, numbers: Array | None = None,
) -> Lock:  # fmt: skip
    """Fit on held-out predictions.

    Parameters
    ----------
    kind : str
        Of the label.
    classes : tuple of str
    y : ndarray, (n, 1) or (n, K), or None
        Labels of held-out rows; None = nobody was held out.
    held : ndarray, (n, K), or None
        Predictions of models that had not seen their subjects.
    features, subjects : ndarray, (m, F) and (m,), optional
        Of training windows: what is familiar.
    numbers : ndarray of int, (m,), optional
        Their class, negative = unknown.

    Examples
    --------
    >>> fit_lock("regression", (), None, None).notes
    ('no calibration: predictions of a regression are no probabilities',)
    """
    notes: list[str] = []
    calibration, points, cutoffs = None, {}, {}
    if kind == "dense":
        notes.append("no calibration: probabilities of samples are taken as they are")
    elif kind not in KINDS:
        notes.append(f"no calibration: predictions of a {kind} are no probabilities")
    elif y is None or held is None:
        notes.append("no calibration: nobody was held out in training")
    else:
        calibration = _calibration(kind, classes, y, held, notes)
        p = held if calibration is None else calibration.apply(held)
        if kind != "multiclass":
            for k, name in enumerate(classes):
                try:
                    points[name] = OperatingPoint.choose(y[:, k], p[:, k], "youden")
                except BiosslError as error:
                    notes.append(f"threshold of {name} stays at .5: {error}")
        sure = confidence(p, kind)
        cutoffs = {share: float(np.quantile(sure, 1.0 - share)) for share in COVERAGES}
    familiar = None
    if features is not None and subjects is not None:
        from biossl.downstream.ood import fit_familiar

        try:
            familiar = fit_familiar(features, subjects, classes=numbers)
        except DataError as error:
            notes.append(f"no flag of unfamiliar windows: {error}")
    return Lock(calibration, points, cutoffs, familiar, tuple(notes))
