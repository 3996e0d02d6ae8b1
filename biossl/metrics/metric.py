"""Which score is meant: its name and, where the name alone does not say it, a class or an operating point.

What lives here: :class:`Metric` and the lists of names. No numbers are computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from biossl.errors import RequestError

MAIN_METRIC = {
    "binary": "auroc",
    "multiclass": "macro_f1",
    "multilabel": "macro_auroc",
    "regression": "r2",
    "survival": "concordance",
}
METRICS = {  # what a table of results shows; every name a score can have is in NAMES
    "binary": ("auroc", "auprc"),
    "multiclass": ("macro_f1", "accuracy", "balanced_accuracy", "macro_auroc"),
    "multilabel": ("macro_auroc",),
    "regression": ("r2", "mae"),
    "survival": ("concordance",),
}
ONE_CLASS = ("sensitivity", "specificity", "ppv", "f1")
COUNTED = ("accuracy", "balanced_accuracy", "macro_f1", "mean_f1", "kappa", "quadratic_kappa", *ONE_CLASS)
RANKED = ("auprc", "auroc", "macro_auroc", "sensitivity_at_specificity")
PROBABILITY = ("brier", "calibration_intercept", "calibration_slope", "net_benefit")
NAMES = tuple(sorted((*COUNTED, *RANKED, *PROBABILITY, "concordance", "mae", "r2")))
_AT = {"sensitivity_at_specificity": "the specificity", "net_benefit": "the threshold probability"}


@dataclass(frozen=True)
class Metric:
    """A score by name, with the classes or the operating point it is about.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    classes : tuple of int
        ``mean_f1``: the classes averaged over. ``f1``, ``sensitivity``, ``specificity`` and ``ppv``: the one class that
        counts as positive, against all others; without it class 1.
    at : float, optional
        ``sensitivity_at_specificity``: the specificity, in (0, 1]. ``net_benefit``: the threshold probability, in (0, 1).

    Raises
    ------
    RequestError
        The name is not known, or what it needs is missing or too much.

    Examples
    --------
    >>> str(Metric("mean_f1", classes=(0, 1, 2, 3)))
    'mean_f1 of classes 0, 1, 2, 3'
    """

    name: str
    classes: tuple[int, ...] = ()
    at: float | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise RequestError(f"metric '{self.name}' is not known; choose one of {', '.join(NAMES)}")
        if self.name == "mean_f1":
            if not self.classes or len(set(self.classes)) < len(self.classes) or min(self.classes) < 0:
                raise RequestError(f"mean_f1 of classes {self.classes}: name each class number once, e.g. (0, 1, 2, 3)")
        elif self.name in ONE_CLASS:
            if len(self.classes) > 1 or min(self.classes, default=0) < 0:
                raise RequestError(f"{self.name} of classes {self.classes}: name one class number, e.g. (1,)")
        elif self.classes:
            raise RequestError(f"{self.name} is not about single classes; leave `classes` out")
        if self.name in _AT:
            if self.at is None or not 0 < self.at <= 1 or (self.at == 1 and self.name == "net_benefit"):
                raise RequestError(f"{self.name} at {self.at}: give {_AT[self.name]} as a share between 0 and 1, e.g. at=0.9")
        elif self.at is not None:
            raise RequestError(f"{self.name} has no operating point; leave `at` out")

    def __str__(self) -> str:
        about = f" of class {self.classes[0]}" if len(self.classes) == 1 else ""
        if len(self.classes) > 1:
            about = f" of classes {', '.join(map(str, self.classes))}"
        return self.name + about + ("" if self.at is None else f" at {self.at:g}")

    @property
    def positive(self) -> int:
        """The class that counts as positive."""
        return self.classes[0] if self.classes else 1


def as_metric(metric: str | Metric) -> Metric:
    """A name alone as :class:`Metric`."""
    return metric if isinstance(metric, Metric) else Metric(metric)
