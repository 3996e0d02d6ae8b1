"""Scores and their intervals: scikit-learn's definitions where it has them, resampled by subject.

What lives here: scores as functions of per-row numbers that are summed per subject, so that 2,000 resamples of the
*subjects* cost little; percentile intervals and paired differences on the same resamples. One file a concept; the names
below need numpy alone, the other files are imported by name:

- ``events``, ``beats``, ``episodes``, ``boundaries``: detected events against a reference, after AAMI EC57 where it applies;
- ``paired``: DeLong, McNemar, sign-flip test;
- ``calibration``, ``calibrators``, ``operating``, ``decision``: reliability, frozen calibration and thresholds, net benefit;
- ``curves``: ROC and precision-recall curves with a band;
- ``subgroups``: for whom it works less well.

No models, no files.

Conventions (the same for a score, its interval and a paired difference):

- The classes of macro F1 and balanced accuracy are those that occur in the reference labels of the rows judged; a class
  that is only ever predicted lowers the others' precision but has no F1 of its own.
- In a resample a class without a reference row (AUROC: without a positive or without a negative) is skipped, for both
  sides of a paired difference alike. A resample in which nothing can be computed is left out and counted; of macro F1,
  balanced accuracy and kappa also one that holds a single class, where the mean over classes would be a figure of another
  kind, and of a mean over *named* classes one that lacks a named class.
- Unknown labels (NaN) are skipped, in multi-label scores class by class. A prediction that is NaN where the label is known
  is an error.
"""

from biossl.metrics.checks import MIN_SUBJECTS, remarks
from biossl.metrics.intervals import (
    N_RESAMPLES,
    Interval,
    Predictions,
    counts_bootstrap,
    counts_difference,
    paired_difference,
    subject_bootstrap,
)
from biossl.metrics.metric import MAIN_METRIC, METRICS, NAMES, Metric
from biossl.metrics.scores import confusion, per_class, per_subject, resampler, score, why_not

__all__ = [
    "MAIN_METRIC",
    "METRICS",
    "MIN_SUBJECTS",
    "NAMES",
    "N_RESAMPLES",
    "Interval",
    "Metric",
    "Predictions",
    "confusion",
    "counts_bootstrap",
    "counts_difference",
    "paired_difference",
    "per_class",
    "per_subject",
    "remarks",
    "resampler",
    "score",
    "subject_bootstrap",
    "why_not",
]
