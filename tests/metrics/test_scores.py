"""Scores equal scikit-learn's to 1e-9; intervals resample subjects, not rows; differences are paired."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from biossl import metrics
from biossl.errors import DataError, RequestError
from biossl.metrics import intervals, ranks


def problem(seed, n=300, k=4):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    scores = rng.normal(size=(n, k)).round(1)  # rounding makes ties
    scores[np.arange(n), y] += 0.7
    return y, scores / np.abs(scores).sum(1, keepdims=True), rng.integers(0, 12, n)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_classification_scores_equal_scikit_learn(seed):
    y, s, _ = problem(seed)
    p = s.argmax(1)
    assert metrics.score(y, s, "macro_f1") == pytest.approx(sk.f1_score(y, p, average="macro"), abs=1e-9)
    assert metrics.score(y, p, "accuracy") == pytest.approx(sk.accuracy_score(y, p), abs=1e-9)
    assert metrics.score(y, p, "balanced_accuracy") == pytest.approx(sk.balanced_accuracy_score(y, p), abs=1e-9)
    one_hot = np.eye(4)[y]
    assert metrics.score(one_hot, s, "macro_auroc") == pytest.approx(sk.roc_auc_score(one_hot, s, average="macro"), abs=1e-9)
    assert metrics.score(y, s, "macro_auroc") == metrics.score(one_hot, s, "macro_auroc")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1e6, 1e6))
def test_regression_scores_equal_scikit_learn(seed, origin):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=200) * 3 + origin
    p = y + rng.normal(size=200)
    assert metrics.score(y, p, "r2") == pytest.approx(sk.r2_score(y, p), abs=1e-8)
    assert metrics.score(y, p, "mae") == pytest.approx(sk.mean_absolute_error(y, p), abs=1e-9)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_r2_does_not_depend_on_the_unit(unit):
    y, p = unit * np.array([1.0, 2.0, 4.0]), unit * np.array([1.0, 2.0, 3.0])
    assert metrics.score(y, p, "r2") == pytest.approx(sk.r2_score(y, p), abs=1e-9)
    assert np.isnan(metrics.score(np.full(3, 0.1 * unit), p, "r2"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_binary_label_is_scored_as_scikit_learn_does(seed):
    rng = np.random.default_rng(seed)
    y = (rng.random((80, 1)) < 0.2).astype(float)
    s = (rng.normal(size=(80, 1)) + y).round(1)  # rounding makes ties
    if not 0 < y.sum() < 80:
        return
    assert metrics.score(y, s, "auprc") == pytest.approx(sk.average_precision_score(y[:, 0], s[:, 0]), abs=1e-9)
    assert metrics.score(y, s, "auroc") == pytest.approx(sk.roc_auc_score(y[:, 0], s[:, 0]), abs=1e-9)
    y[:5] = np.nan
    known = ~np.isnan(y[:, 0])
    if 0 < np.nansum(y) < known.sum():
        assert metrics.score(y, s, "auprc") == pytest.approx(sk.average_precision_score(y[known, 0], s[known, 0]), abs=1e-9)


def test_average_precision_of_a_resample_is_that_of_its_rows_written_out(monkeypatch):
    rng = np.random.default_rng(4)
    y, subjects = (rng.random((60, 1)) < 0.3).astype(float), rng.integers(0, 6, 60)
    y[subjects == 2] = 0  # resamples without a positive may come up
    y[(subjects != 2) & (subjects != 4)] = 0
    s = rng.normal(size=(60, 1)).round(1)
    codes, weights = intervals.draw(subjects, 60, seed=5)
    monkeypatch.setattr(ranks, "_CHUNK", 500)
    fast = metrics.resampler(y, s, codes, "auprc", weights.shape[1])(weights)
    assert np.isnan(fast).any() and np.isfinite(fast).any()
    for value, w in zip(fast, weights, strict=True):
        rows = np.concatenate([np.repeat(np.flatnonzero(codes == c), int(m)) for c, m in enumerate(w)])
        if 0 < y[rows].sum() < len(rows):
            assert value == pytest.approx(sk.average_precision_score(y[rows, 0], s[rows, 0]), abs=1e-9)
        else:
            assert np.isnan(value)


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_has_neither_auroc_nor_auprc(only):
    y, s = np.full((4, 1), only), np.arange(4.0)[:, None]
    assert np.isnan(metrics.score(y, s, "auprc")) and np.isnan(metrics.score(y, s, "auroc"))


def test_a_class_only_ever_predicted_has_no_f1_of_its_own():
    y, p = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert metrics.score(y, p, "macro_f1") == pytest.approx(sk.f1_score(y, p, labels=[0, 1], average="macro"))


def test_unknown_labels_are_skipped_class_by_class():
    y = np.array([[0, 1], [1, 0], [np.nan, 1], [0, np.nan], [1, 0.0]])
    s = np.random.default_rng(0).normal(size=y.shape)
    expect = []
    for k in (0, 1):
        known = ~np.isnan(y[:, k])
        expect.append(sk.roc_auc_score(y[known, k], s[known, k]))
    assert metrics.score(y, s, "macro_auroc") == pytest.approx(np.mean(expect), abs=1e-12)
    y2 = np.array([0, 1, np.nan, 1.0])
    assert metrics.score(y2, np.array([0, 1, 0, 0]), "accuracy") == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "macro_auroc", "accuracy"])
def test_resamples_equal_a_slow_loop_over_repeated_rows(metric):
    """Each resample's value is the score of the resampled subjects' rows, written out."""
    y, s, subjects = problem(3, n=120, k=3)
    y[subjects == 2] = 0  # subject 2 has one class only, so classes vanish from some resamples
    codes, weights = intervals.draw(subjects, 60, seed=5)
    fast = metrics.resampler(y, s, codes, metric, weights.shape[1])(weights)
    for value, w in zip(fast, weights, strict=True):
        rows = np.concatenate([np.repeat(np.flatnonzero(codes == c), int(m)) for c, m in enumerate(w)])
        assert value == pytest.approx(metrics.score(y[rows], s[rows], metric), abs=1e-9)


@pytest.mark.parametrize("chunk", [50, 4_000_000])
def test_both_ways_of_resampling_ranks_agree(monkeypatch, chunk):
    y, s, subjects = problem(11)
    monkeypatch.setattr(ranks, "_CHUNK", chunk)
    by_subject = metrics.subject_bootstrap(y, s, subjects, "macro_auroc", n=50)
    monkeypatch.setattr(ranks, "_FEW_SUBJECTS", 0)
    by_row = metrics.subject_bootstrap(y, s, subjects, "macro_auroc", n=50)
    assert by_subject.value == pytest.approx(by_row.value, abs=1e-12)
    assert (by_subject.low, by_subject.high) == pytest.approx((by_row.low, by_row.high), abs=1e-12)


def test_the_interval_is_of_subjects_not_of_rows():
    """Ten subjects, each all right or all wrong: rows would give +-0.03, subjects give the honest +-0.3."""
    subjects = np.repeat(np.arange(10), 100)
    y = np.zeros(1000)
    p = (subjects >= 6).astype(int)
    by_subject = metrics.subject_bootstrap(y, p, subjects, "accuracy")
    by_row = metrics.subject_bootstrap(y, p, np.arange(1000), "accuracy")
    assert by_subject.value == pytest.approx(0.6)
    assert by_subject.high - by_subject.low > 8 * (by_row.high - by_row.low)
    assert by_subject.n_subjects == 10 and by_subject.n_resamples == 2000


def test_paired_difference_is_narrower_than_two_intervals_and_zero_for_equal_models():
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(30), 20)
    hard = rng.random(30)[subjects]  # subjects differ much; model a beats b by a little on each
    y = np.ones(600)
    a, b = (rng.random(600) > hard * 0.9).astype(int), (rng.random(600) > hard).astype(int)
    same = metrics.paired_difference(y, a, a, subjects, "accuracy")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    paired = metrics.paired_difference(y, a, b, subjects, "accuracy")
    one, two = (metrics.subject_bootstrap(y, p, subjects, "accuracy") for p in (a, b))
    assert paired.value == pytest.approx(one.value - two.value)
    assert paired.high - paired.low < (one.high - one.low) + (two.high - two.low)


def test_paired_difference_to_several_seeds_uses_their_mean_and_their_spread():
    subjects = np.repeat(np.arange(20), 10)
    y = np.ones(200)
    a = np.ones(200, int)
    seeds = [np.tile([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], 20), np.tile([1] * 9 + [0], 20)]
    diff = metrics.paired_difference(y, a, seeds, subjects, "accuracy")
    assert diff.value == pytest.approx(1 - (0.5 + 0.9) / 2)
    assert diff.low == pytest.approx(0.1) and diff.high == pytest.approx(0.5)


def test_intervals_repeat_with_the_seed():
    y, s, subjects = problem(0)
    first, again = (metrics.subject_bootstrap(y, s, subjects, "macro_f1", seed=4) for _ in range(2))
    assert first == again != metrics.subject_bootstrap(y, s, subjects, "macro_f1", seed=5)


def test_one_subject_has_no_interval_and_json_takes_it():
    one = metrics.subject_bootstrap([0, 1], [0, 1], ["a", "a"], "accuracy")
    assert np.isnan(one.low) and one.to_dict()["low"] is None


def test_per_class_rows_and_confusion_equal_scikit_learn():
    y, s, _ = problem(9)
    assert (metrics.confusion(y, s, 4) == sk.confusion_matrix(y, s.argmax(1))).all()
    rows = metrics.per_class(y, s, ["a", "b", "c", "d"], "multiclass")
    assert [r["f1"] for r in rows] == pytest.approx(list(sk.f1_score(y, s.argmax(1), average=None)))
    assert metrics.per_class(y, s, ["a", "b", "c", "d", "never"], "multiclass")[4]["f1"] is None


def test_no_rows_and_unknown_metric_are_one_line():
    with pytest.raises(DataError, match="no rows to judge"):
        metrics.subject_bootstrap([], [], [], "accuracy")
    with pytest.raises(RequestError, match="macro_f1"):
        metrics.score([0], [0], "f2")
