"""Reliability, calibration error and Brier parts by hand; calibration learns on validation, travels as plain numbers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from biossl import metrics
from biossl.errors import DataError, RequestError
from biossl.metrics.calibration import brier_parts, expected_calibration_error, reliability, top_label
from biossl.metrics.calibrators import Calibration


def yes_no(seed, n=400, sharp=1.0):
    """Labels drawn from known logits; the model says them times ``sharp``."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return y, 1 / (1 + np.exp(-sharp * z))


def several(seed, n=600, k=3, sharp=1.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, k))
    p = torch.softmax(torch.tensor(z), 1).numpy()
    y = np.array([rng.choice(k, p=row) for row in p]).astype(float)
    return y, torch.softmax(torch.tensor(sharp * z), 1).numpy()


def test_bins_hold_equal_numbers_and_never_part_equal_probabilities():
    y, p = yes_no(0)
    table = reliability(y, p)
    assert [b.n for b in table] == [40] * 10
    assert all(a.last < b.first for a, b in zip(table[:-1], table[1:], strict=True))
    tied = reliability([0, 1, 0, 1, 1, 0], [0.1, 0.5, 0.5, 0.5, 0.5, 0.9], bins=3)
    assert [(b.first, b.last, b.n) for b in tied] == [(0.1, 0.1, 1), (0.5, 0.9, 5)]  # both cuts fall among the four 0.5
    assert len(reliability([0, 1], [0.5, 0.5])) == 1


def test_the_interval_of_a_bin_is_wilsons():
    """7 of 20: Wilson 1927 gives 0.1812 to 0.5671."""
    y = np.r_[np.ones(7), np.zeros(13)]
    b = reliability(y, np.full(20, 0.4), bins=1)[0]
    z = 1.959963984540054
    centre, half = (0.35 + z * z / 40) / (1 + z * z / 20), z / (1 + z * z / 20) * (0.35 * 0.65 / 20 + z * z / 1600) ** 0.5
    assert (b.low, b.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert (b.low, b.high) == pytest.approx((0.1812, 0.5671), abs=1e-4)


def test_calibration_error_by_hand():
    """Two bins of three: means 0.2 and 0.8, frequencies 1/3 and 2/3."""
    y, p = [0, 0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]
    assert expected_calibration_error(y, p, bins=2) == pytest.approx(2 / 15, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 15))
def test_the_parts_of_the_brier_score_add_up(seed, bins):
    y, p = yes_no(seed, n=90)
    part = brier_parts(y, p.round(1), bins=bins)
    total = part["reliability"] - part["resolution"] + part["uncertainty"] + part["within_bins"]
    assert part["brier"] == pytest.approx(total, abs=1e-12)
    assert part["brier"] == pytest.approx(brier_score_loss(y, p.round(1)), abs=1e-12)
    assert min(part["reliability"], part["resolution"]) >= 0


def test_brier_parts_of_a_hand_worked_forecast():
    """0.2 said five times (one event), 0.8 five times (three events): Murphy's parts are 0.02, 0.04 and 0.24."""
    y = [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    part = brier_parts(y, [0.2] * 5 + [0.8] * 5, bins=2)
    assert [part[k] for k in ("reliability", "resolution", "uncertainty", "within_bins")] == pytest.approx([0.02, 0.04, 0.24, 0])


def test_top_label_turns_several_classes_into_yes_and_no():
    y, p = several(1)
    right, sure = top_label(y, p)
    assert right.mean() == pytest.approx(metrics.score(y, p, "accuracy")) and (sure == p.max(1)).all()
    assert expected_calibration_error(right, sure) < 0.08  # drawn from these very probabilities


@pytest.mark.parametrize("sharp", [0.5, 1.0, 3.0])
def test_temperature_is_the_sharpness_that_was_planted(sharp):
    y, p = yes_no(3, n=4000, sharp=sharp)
    c = Calibration.fit(y, p, "binary", "temperature", ["af"])
    assert c.curves[0][0][0] == pytest.approx(sharp, rel=0.1)
    y, p = several(3, n=4000, sharp=sharp)
    c = Calibration.fit(y, p, "multiclass", "temperature", list("abc"))
    assert c.curves[0][0][0] == pytest.approx(sharp, rel=0.1)
    q = c.apply(p)
    assert (q.argmax(1) == p.argmax(1)).all() and q.sum(1) == pytest.approx(1)


def test_temperature_is_the_minimum_of_scikit_learns_log_loss():
    y, p = several(4, sharp=2.0)
    t = Calibration.fit(y, p, "multiclass", "temperature", list("abc")).curves[0][0][0]
    z = np.log(p)

    def loss(t):
        return log_loss(y, torch.softmax(torch.tensor(z / t), 1).numpy())

    assert loss(t) < min(loss(t * 1.001), loss(t / 1.001))


def test_isotonic_is_scikit_learns():
    y, p = yes_no(5, sharp=2.0)
    new = np.linspace(0, 1, 101)
    expect = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, y).predict(new)
    got = Calibration.fit(y, p, "binary", "isotonic", ["af"]).apply(new)
    assert got == pytest.approx(expect, abs=1e-12) and got.shape == (101,)
    y, p = several(5)
    q = Calibration.fit(y, p, "multiclass", "isotonic", list("abc")).apply(p)
    each = np.stack([IsotonicRegression(y_min=0, y_max=1).fit(p[:, k], y == k).predict(p[:, k]) for k in range(3)], axis=1)
    assert q == pytest.approx(each / each.sum(1, keepdims=True), abs=1e-9)


def test_a_row_that_isotonic_gives_to_no_class_gets_equal_shares():
    p = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    c = Calibration.fit([0, 1, 2], p, "multiclass", "isotonic", list("abc"))
    assert c.apply([[0.05, 0.05, 0.9], [0.34, 0.33, 0.33]])[0] == pytest.approx([0, 0, 1])
    low = Calibration("multiclass", "isotonic", ("a", "b"), (((0.6, 0.9), (0.0, 1.0)),) * 2)
    assert low.apply([[0.5, 0.5]])[0] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_each_label_of_several_has_its_own_curve_and_unknown_is_skipped(method):
    a, p = yes_no(6)
    b, q = yes_no(7, sharp=3.0)
    y = np.stack([a, b], axis=1)
    y[:100, 0] = np.nan
    both = Calibration.fit(y, np.stack([p, q], axis=1), "multilabel", method, ["af", "block"])
    one = Calibration.fit(a[100:], p[100:], "binary", method, ["af"])
    assert both.apply(np.stack([p, q], axis=1))[:, 0] == pytest.approx(one.apply(p), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "method"), [(k, m) for k in ("binary", "multiclass", "multilabel") for m in ("temperature", "isotonic")]
)
def test_calibration_travels_as_json(kind, method):
    if kind == "multiclass":
        y, p, names = *several(8), list("abc")
    else:
        y, p = yes_no(8)
        y, p, names = (
            (y, p[:, None], ["a"]) if kind == "binary" else (np.stack([y, 1 - y], 1), np.stack([p, 1 - p], 1), ["a", "b"])
        )
    c = Calibration.fit(y, p, kind, method, names)
    back = Calibration.from_dict(json.loads(json.dumps(c.to_dict(), allow_nan=False)))
    assert back == c and (back.apply(p) == c.apply(p)).all()


def test_calibration_does_not_look_at_the_labels_it_is_applied_to():
    y, p = yes_no(9, sharp=2.0)
    c = Calibration.fit(y[:200], p[:200], "binary", "isotonic", ["a"])
    assert (c.apply(p[200:]) == np.concatenate([c.apply(p[200:300]), c.apply(p[300:])])).all()  # row by row
    assert expected_calibration_error(y[200:], c.apply(p[200:])) < expected_calibration_error(y[200:], p[200:]) + 0.05


@pytest.mark.parametrize(
    ("y", "p", "kind", "method", "names", "says"),
    [
        ([1, 1], [0.4, 0.6], "binary", "temperature", ["af"], "only positive rows of class af"),
        ([np.nan] * 2, [0.4, 0.6], "binary", "isotonic", ["af"], "no known label of class af"),
        ([0, 0], [[0.4, 0.6]] * 2, "multiclass", "temperature", ["a", "b"], "only class a"),
        ([0, 1, 1], [[0.4, 0.4, 0.2]] * 3, "multiclass", "isotonic", ["a", "b", "Q"], "no row of class Q"),
        ([[0, 1], [1, 1]], [[0.4, 0.6]] * 2, "multilabel", "temperature", ["a", "b"], "only positive rows of class b"),
        ([0, 1], [0.1, 0.9], "binary", "temperature", ["af"], "separate the validation classes"),
        ([0, 1], [0.1, np.nan], "binary", "isotonic", ["af"], "NaN in 1 of 2"),
        ([0, 1], [0.1, 1.9], "binary", "isotonic", ["af"], "1.9 is no probability"),
        ([0, 1], [[0.9, 0.9]] * 2, "multiclass", "temperature", ["a", "b"], "sum to 1.8"),
        ([0, 1], [0.1], "binary", "isotonic", ["af"], "2 reference labels but 1 probabilities"),
        ([0, 3], [[0.5, 0.5]] * 2, "multiclass", "temperature", ["a", "b"], "class number 3 but 2 classes"),
    ],
)
def test_what_calibration_refuses(y, p, kind, method, names, says):
    with pytest.raises(DataError, match=says):
        Calibration.fit(y, p, kind, method, names)


def test_calibration_refuses_what_it_was_not_fitted_for():
    y, p = several(8)
    c = Calibration.fit(y, p, "multiclass", "temperature", list("abc"))
    with pytest.raises(RequestError, match="2 columns of probabilities but 3 classes"):
        c.apply([[0.5, 0.5]])
    with pytest.raises(DataError, match="NaN"):
        c.apply([[np.nan, 0.5, 0.5]])
    for broken in ({}, c.to_dict() | {"curves": []}, c.to_dict() | {"method": "platt"}, c.to_dict() | {"curves": [[[]]]}):
        with pytest.raises(DataError, match="locked model stores"):
            Calibration.from_dict(broken)
    with pytest.raises(RequestError, match="temperature, isotonic"):
        Calibration.fit(y, p, "multiclass", "platt", list("abc"))
