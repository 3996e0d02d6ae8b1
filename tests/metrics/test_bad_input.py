"""Bad input is a line or a reason, never a number that looks like a result."""

import subprocess
import sys

import numpy as np
import pytest

from biossl import metrics
from biossl.errors import DataError, RequestError
from biossl.metrics import Metric

NAN = float("nan")
DECIDED = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "sensitivity", "specificity", "ppv", "f1")
SCORED = ("auroc", "auprc", "macro_auroc", "brier", "calibration_slope", "calibration_intercept")


def every():
    for name in (*DECIDED, *SCORED, "r2", "mae"):
        yield Metric(name)
    yield from (Metric("mean_f1", classes=(0, 1)), Metric("sensitivity_at_specificity", at=0.9), Metric("net_benefit", at=0.3))


def test_every_name_is_tried_here():
    assert {m.name for m in every()} | {"concordance"} == set(metrics.NAMES)


@pytest.mark.parametrize("metric", every(), ids=str)
def test_nan_predictions_are_refused_where_a_label_is_known_and_only_there(metric):
    y, p = np.array([0, 1, 0, 1, NAN]), np.array([0, 1, 1, 0, 1.0])
    with pytest.raises(DataError, match="NaN in 1 of 4 rows with a label"):
        metrics.score(y, np.array([0, NAN, 1, 0, 1]), metric)
    p[4] = NAN
    assert metrics.score(y, p, metric) == pytest.approx(metrics.score(y[:4], p[:4], metric), nan_ok=True)


@pytest.mark.parametrize("metric", every(), ids=str)
def test_labels_or_subjects_for_half_the_rows_are_refused(metric):
    with pytest.raises(DataError, match="4 predictions"):
        metrics.score([0, 1], [0, 1, 0, 1], metric)
    with pytest.raises(DataError, match="2 subjects"):
        metrics.subject_bootstrap([0, 1, 0, 1], [0, 1, 0, 1], ["a", "b"], metric, n=5)


@pytest.mark.parametrize("metric", every(), ids=str)
def test_no_known_label_is_a_reason(metric):
    found = metrics.subject_bootstrap([NAN] * 4, [0, 1, 0, 1], list("abcd"), metric, n=20)
    assert np.isnan([found.value, found.low, found.high]).all() and found.reason == "no row has a known label"
    assert found.to_dict()["value"] is None and found.to_dict()["reason"]


@pytest.mark.parametrize(
    "metric",
    ["auroc", "auprc", "macro_auroc", "kappa", "calibration_slope", Metric("sensitivity_at_specificity", at=0.9), "specificity"],
    ids=str,
)
def test_one_class_only_is_a_reason(metric):
    found = metrics.subject_bootstrap([1, 1, 1, 1], [0, 1, 0, 1], list("abcd"), metric, n=20)
    assert np.isnan(found.value) and "one class only" in found.reason


def test_a_class_missing_from_the_reference_is_a_reason_not_a_mean_of_the_others():
    found = metrics.subject_bootstrap([0, 1, 2, 0], [0, 1, 2, 0], list("abcd"), Metric("mean_f1", classes=(0, 1, 2, 3)), n=20)
    assert np.isnan(found.value) and found.reason == "no reference row of class 3"
    assert metrics.remarks([0, 1, 2, 0], list("abcd"), "macro_f1", classes=["N", "S", "V", "F"]) == [
        "no reference row of class F: nothing can be said about it"
    ]


def test_a_class_that_was_never_predicted_has_no_predictive_value():
    found = metrics.subject_bootstrap([0, 1, 0, 1], [0, 0, 0, 0], list("abcd"), "ppv", n=20)
    assert np.isnan(found.value) and found.reason == "class 1 was never predicted"


@pytest.mark.parametrize("n_subjects", [1, 2])
def test_fewer_than_three_subjects_have_a_value_and_no_interval(n_subjects):
    subjects = np.arange(12) % n_subjects
    found = metrics.subject_bootstrap([0, 1] * 6, [0, 1] * 6, subjects, "accuracy")
    assert found.value == 1 and np.isnan([found.low, found.high]).all()
    assert f"{n_subjects} subject" in found.reason and "at least 3" in found.reason
    assert np.isfinite(metrics.subject_bootstrap([0, 1] * 6, [0, 1] * 6, np.arange(12) % 3, "accuracy").low)


@pytest.mark.parametrize("name", ["brier", "calibration_slope", "calibration_intercept"])
@pytest.mark.parametrize("bad", [-0.1, 1.5, np.inf])
def test_numbers_that_are_no_probabilities_are_refused(name, bad):
    with pytest.raises(DataError, match="is no probability"):
        metrics.score([0, 1, 0], [0.1, bad, 0.4], name)


def test_class_probabilities_must_sum_to_one():
    with pytest.raises(DataError, match=r"sum to 1\.2"):
        metrics.score([0, 1], [[0.5, 0.5], [0.6, 0.6]], "brier")
    assert metrics.score([0, NAN], [[0.5, 0.5], [0.6, 0.6]], "brier") == pytest.approx(0.5)  # a row that is not judged


@pytest.mark.parametrize(
    ("y", "p", "metric", "error", "says"),
    [
        ([0, 1], [0.2, 0.7], "accuracy", RequestError, "decisions are judged"),
        ([0, -1], [0, 1], "accuracy", DataError, "-1 is no class number"),
        ([0, 0.5], [0, 1], "kappa", DataError, "0.5 is no class number"),
        ([0, 2], [0.2, 0.7], "auroc", DataError, "2 in a yes/no label"),
        ([0, 3], [[0.2, 0.8], [0.5, 0.5]], "macro_auroc", DataError, "class 3 but scores of 2"),
        ([[0, 1], [1, 0]], [[0.2], [0.4]], "macro_auroc", DataError, "2 classes, predictions 1"),
        ([[0, 1], [1, 0]], [[0.2, 0.1], [0.4, 0.3]], "auroc", RequestError, "one column"),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]], "kappa", RequestError, "take one column"),
        ([1.0, 2.0], [1.0, np.inf], "mae", DataError, "infinite in 1 of 2"),
    ],
)
def test_labels_and_predictions_that_do_not_fit_are_refused(y, p, metric, error, says):
    with pytest.raises(error, match=says):
        metrics.score(y, p, metric)


def test_remarks_count_rows_and_subjects_without_a_label():
    y = [0, 1, NAN, NAN, NAN, 1]
    lines = metrics.remarks(y, list("aabbcc"), "accuracy", classes=["rest", "task"])
    assert lines == [
        "3 of 6 rows have no known label and are not judged (1 of 3 subjects has none at all)",
        "2 subjects: an interval needs at least 3",
    ]
    several = metrics.remarks([[0, 1], [1, 1], [1, NAN]], list("abc"), "macro_auroc", classes=["af", "block"])
    assert several == ["class block has no negative row: not judged"]
    assert metrics.remarks([0, 1, 1], list("abc"), "auroc") == []


def test_metrics_are_light_to_import():
    code = "import sys, biossl.metrics; print([m for m in ('torch', 'sklearn', 'scipy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
