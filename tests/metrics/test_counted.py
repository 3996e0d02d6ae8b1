"""Scores of decisions and probabilities equal scikit-learn's and torchmetrics' to 1e-9, and resample by subject."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from biossl import metrics
from biossl.errors import RequestError
from biossl.metrics import Metric, intervals
from biossl.metrics.recalibration import logit


def several(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    p = rng.dirichlet(np.ones(k), n) * 0.6
    p[np.arange(n), y] += 0.4
    return y, p, rng.integers(0, 9, n)


def yes_no(seed, n=150):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, rng.integers(0, 2, n - 2)].astype(float)
    s = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0.01, 0.99).round(2)  # rounding makes ties
    return y, s, rng.integers(0, 9, n)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_of_decisions_equal_scikit_learn(seed):
    y, p, _ = several(seed)
    said = p.argmax(1)
    assert metrics.score(y, p, "kappa") == pytest.approx(sk.cohen_kappa_score(y, said), abs=1e-9)
    expect = sk.cohen_kappa_score(y, said, weights="quadratic", labels=range(4))
    assert metrics.score(y, said, "quadratic_kappa") == pytest.approx(expect, abs=1e-9)
    f1 = sk.f1_score(y, said, average=None)
    assert metrics.score(y, said, Metric("f1", classes=(2,))) == pytest.approx(f1[2], abs=1e-9)
    assert metrics.score(y, said, Metric("mean_f1", classes=(0, 1, 3))) == pytest.approx(f1[[0, 1, 3]].mean(), abs=1e-9)
    for c in range(4):
        recall = sk.recall_score(y == c, said == c)
        assert metrics.score(y, said, Metric("sensitivity", classes=(c,))) == pytest.approx(recall, abs=1e-9)
        other = sk.recall_score(y != c, said != c)
        assert metrics.score(y, said, Metric("specificity", classes=(c,))) == pytest.approx(other, abs=1e-9)
        if (said == c).any():
            precision = sk.precision_score(y == c, said == c)
            assert metrics.score(y, said, Metric("ppv", classes=(c,))) == pytest.approx(precision, abs=1e-9)


def test_quadratic_kappa_counts_distance_in_class_numbers_even_where_a_class_between_is_absent():
    y, said = np.array([0, 0, 3, 3, 1, 0]), np.array([0, 1, 3, 0, 1, 0])
    expect = sk.cohen_kappa_score(y, said, weights="quadratic", labels=[0, 1, 2, 3])
    assert metrics.score(y, said, "quadratic_kappa") == pytest.approx(expect, abs=1e-12)
    assert expect != pytest.approx(sk.cohen_kappa_score(y, said, weights="quadratic"))  # which renumbers 3 as 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_sensitivity_at_a_specificity_equals_the_roc_curve_and_torchmetrics(seed, at):
    y, s, _ = yes_no(seed)
    wrong, found, _ = sk.roc_curve(y, s, drop_intermediate=False)
    got = metrics.score(y, s, Metric("sensitivity_at_specificity", at=at))
    assert got == pytest.approx(found[1 - wrong >= at - 1e-12].max(), abs=1e-9)
    theirs, _ = tm.binary_sensitivity_at_specificity(torch.tensor(s), torch.tensor(y).long(), min_specificity=at - 1e-6)
    assert got == pytest.approx(float(theirs), abs=1e-6)  # float32 there


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_brier_scores_equal_scikit_learn(seed):
    y, p, _ = several(seed)
    assert metrics.score(y, p, "brier") == pytest.approx(
        sk.brier_score_loss(y, p, scale_by_half=False, labels=range(4)), abs=1e-9
    )
    t, s, _ = yes_no(seed)
    assert metrics.score(t, s, "brier") == metrics.score(t[:, None], s[:, None], "brier")
    assert metrics.score(t, s, "brier") == pytest.approx(sk.brier_score_loss(t, s), abs=1e-9)
    both = np.stack([t, 1 - t], axis=1)
    both[:7, 1] = np.nan
    expect = (sk.brier_score_loss(t, s) + sk.brier_score_loss(1 - t[7:], s[7:])) / 2
    assert metrics.score(both, np.stack([s, s], axis=1), "brier") == pytest.approx(expect, abs=1e-9)


def test_net_benefit_of_a_hand_worked_table():
    """100 rows, 30 with the outcome; at 0.2 the model calls 25 of them and 20 others: 25/100 - 20/100 * 0.2/0.8 = 0.2."""
    y = np.r_[np.ones(30), np.zeros(70)]
    p = np.r_[np.full(25, 0.3), np.full(5, 0.1), np.full(20, 0.2), np.full(50, 0.1)]
    assert metrics.score(y, p, Metric("net_benefit", at=0.2)) == pytest.approx(0.2, abs=1e-12)
    assert metrics.score(y, np.ones(100), Metric("net_benefit", at=0.2)) == pytest.approx(0.3 - 0.7 / 4, abs=1e-12)
    assert metrics.score(y, np.zeros(100), Metric("net_benefit", at=0.2)) == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_recalibration_is_the_logistic_fit_on_the_logits(seed):
    y, s, _ = yes_no(seed)
    slope, offset = (metrics.score(y, s, f"calibration_{k}") for k in ("slope", "intercept"))
    x = logit(s)[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-6)
    q = 1 / (1 + np.exp(-(offset + x[:, 0])))
    assert q.sum() == pytest.approx(y.sum(), abs=1e-7)  # the score equation of a fit whose slope is 1
    extreme = 1 / (1 + np.exp(-2 * x[:, 0]))
    assert metrics.score(y, extreme, "calibration_slope") == pytest.approx(slope / 2, rel=1e-7)


def test_separated_classes_have_no_recalibration():
    y, p = np.array([0, 0, 1, 1.0]), np.array([0.1, 0.2, 0.8, 0.9])
    assert np.isnan(metrics.score(y, p, "calibration_slope"))
    assert "separate" in metrics.subject_bootstrap(y, p, list("abcd"), "calibration_slope", n=10).reason


RESAMPLED = [
    "kappa",
    "quadratic_kappa",
    "brier",
    Metric("f1", classes=(2,)),
    Metric("mean_f1", classes=(0, 2)),
    Metric("ppv", classes=(1,)),
    Metric("specificity", classes=(0,)),
]
RESAMPLED_YES_NO = [
    "sensitivity_at_specificity",
    "calibration_slope",
    "calibration_intercept",
    "net_benefit",
    "concordance",
]


@pytest.mark.parametrize("metric", RESAMPLED, ids=str)
def test_a_resample_is_the_score_of_its_rows_written_out(metric):
    y, p, subjects = several(3, n=90, k=3)
    y[subjects == 2] = 0
    codes, weights = intervals.draw(subjects, 40, seed=5)
    compare(y, p, codes, weights, metric)


@pytest.mark.parametrize("name", RESAMPLED_YES_NO)
def test_a_resample_of_a_yes_no_score_is_that_of_its_rows_written_out(name, monkeypatch):
    y, s, subjects = yes_no(8, n=80)
    monkeypatch.setattr(metrics.ranks, "_CHUNK", 500)
    monkeypatch.setattr(metrics.survival, "_CHUNK", 500)
    monkeypatch.setattr(metrics.recalibration, "_CHUNK", 500)
    metric = Metric(name, at=0.8 if name.startswith("sens") else 0.4 if name.startswith("net") else None)
    codes, weights = intervals.draw(subjects, 40, seed=5)
    if name == "concordance":
        y = np.stack([np.random.default_rng(1).integers(1, 20, 80), y], axis=1)
    compare(y, s, codes, weights, metric)


def compare(y, p, codes, weights, metric):
    fast = metrics.resampler(y, p, codes, metric, weights.shape[1])(weights)
    assert np.isfinite(fast).sum() > 20
    for value, w in zip(fast, weights, strict=True):
        rows = np.concatenate([np.repeat(np.flatnonzero(codes == c), int(m)) for c, m in enumerate(w)])
        assert value == pytest.approx(metrics.score(y[rows], p[rows], metric), abs=1e-9, nan_ok=True)


def test_a_mean_over_named_classes_leaves_out_resamples_that_lack_one():
    """Only subject d has class 2: about (3/4)^4 of the resamples lack it, and none of them may pass as a mean of two classes."""
    subjects, y = np.repeat(list("abcd"), 4), np.array([0, 1, 0, 1] * 3 + [0, 1, 2, 2])
    some = metrics.subject_bootstrap(y, np.where(y == 2, 0, y), subjects, Metric("mean_f1", classes=(0, 1, 2)))
    assert 0.6 * 2000 < some.n_resamples < 0.75 * 2000
    assert some.high <= 2 / 3  # class 2 is never found


def test_per_subject_scores_are_those_of_each_subjects_rows():
    y, p, subjects = several(1)
    names, values = metrics.per_subject(y, p, subjects, "accuracy")
    assert names.tolist() == sorted(set(subjects.astype(str)))
    for name, value in zip(names, values, strict=True):
        rows = subjects == int(name)
        assert value == pytest.approx(sk.accuracy_score(y[rows], p[rows].argmax(1)), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("f2", {}, "macro_f1"),
        ("mean_f1", {}, "name each class"),
        ("f1", {"classes": (1, 2)}, "one class number"),
        ("kappa", {"classes": (1,)}, "leave `classes` out"),
        ("sensitivity_at_specificity", {}, "at=0.9"),
        ("net_benefit", {"at": 1.0}, "threshold probability"),
        ("auroc", {"at": 0.5}, "leave `at` out"),
    ],
)
def test_a_metric_that_lacks_what_it_needs_is_refused(name, kwargs, says):
    with pytest.raises(RequestError, match=says):
        Metric(name, **kwargs)
