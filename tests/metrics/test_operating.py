"""A threshold is chosen on validation alone and judged elsewhere unchanged; net benefit and its differences."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from biossl import metrics
from biossl.errors import DataError, RequestError
from biossl.metrics.decision import decision_curve, net_benefit_difference
from biossl.metrics.operating import OperatingPoint


def site(seed, n=200, shift=0.0):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, rng.integers(0, 2, n - 2)].astype(float)
    s = np.clip(rng.normal(0.35 + 0.3 * y + shift, 0.2), 0, 1).round(2)
    return y, s, rng.integers(0, 20, n)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.6, 0.8, 0.95, 1.0]))
def test_each_rule_chooses_what_a_search_over_every_threshold_chooses(seed, target):
    y, s, _ = site(seed, n=60)
    every = []
    for t in np.unique(s)[::-1]:  # from the highest on: ties go to the higher threshold
        said = s >= t
        every.append((t, recall_score(y, said), recall_score(1 - y, ~said), f1_score(y, said)))
    by = {
        "sensitivity": max((r for r in every if r[1] >= target - 1e-12), key=lambda r: r[0]),
        "f1": max(every, key=lambda r: r[3]),
        "youden": max(every, key=lambda r: round(r[1] + r[2], 12)),
    }
    exact = [r for r in every if r[2] >= target - 1e-12 and r[1] > 0]
    if exact:
        by["specificity"] = max(exact, key=lambda r: r[1])
    for rule, (_, se, sp, f1) in by.items():
        got = OperatingPoint.choose(y, s, rule, target=target if rule in ("sensitivity", "specificity") else None)
        if rule == "f1":
            assert f1_score(y, got.apply(s)) == pytest.approx(f1, abs=1e-12)
        elif rule == "youden":
            assert got.sensitivity + got.specificity == pytest.approx(se + sp, abs=1e-12)
            assert got.threshold == by[rule][0]
        else:
            assert (got.sensitivity, got.specificity) == pytest.approx((se, sp), abs=1e-12)
        assert got.sensitivity == pytest.approx(recall_score(y, got.apply(s)), abs=1e-12)
        assert got.specificity == pytest.approx(recall_score(1 - y, 1 - got.apply(s)), abs=1e-12)


def test_a_frozen_threshold_shows_what_a_shift_at_another_site_costs():
    y, s, _ = site(0, n=2000)
    point = OperatingPoint.choose(y, s, "specificity", target=0.9)
    there = site(1, n=2000, shift=0.1)
    found = point.realised(*there)
    assert found["specificity"].high < 0.9 < point.specificity + 1e-9
    assert found["sensitivity"].value == pytest.approx(recall_score(there[0], there[1] >= point.threshold))
    shuffled = point.realised(np.random.default_rng(2).permutation(there[0]), *there[1:])
    assert shuffled["sensitivity"].value != found["sensitivity"].value  # the labels change the result, not the threshold


def test_an_operating_point_travels_as_json():
    point = OperatingPoint.choose(*site(3)[:2], "youden")
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict(), allow_nan=False))) == point
    for broken in ({}, point.to_dict() | {"threshold": None}, point.to_dict() | {"rule": "luck"}, point.to_dict() | {"more": 1}):
        with pytest.raises(DataError, match="locked model stores"):
            OperatingPoint.from_dict(broken)


def test_too_few_subjects_or_no_positive_at_the_other_site_is_said():
    point = OperatingPoint.choose(*site(3)[:2], "f1")
    found = point.realised([0, 0, 0, np.nan], [0.1, 0.2, 0.9, 0.3], list("abcd"))
    assert np.isnan(found["sensitivity"].value) and "no reference row of class 1" in found["sensitivity"].reason
    two = point.realised([0, 1], [0.1, 0.9], ["a", "b"])["specificity"]
    assert two.value == 1 and np.isnan(two.low) and "2 subjects" in two.reason


def test_all_of_a_few_found_is_no_certainty():
    """Resampling six patients who were all found gives 1 each time; the exact binomial interval of 6 of 6 begins at .541."""
    point = OperatingPoint.choose(*site(3)[:2], "f1")
    y, high = np.array([1] * 6 + [0] * 6), point.threshold + 0.1
    found = point.realised(y, np.full(12, high), [f"s{k}" for k in range(12)])
    assert (found["sensitivity"].low, found["sensitivity"].high) == pytest.approx((0.5407, 1.0), abs=1e-4)
    assert (found["specificity"].low, found["specificity"].high) == pytest.approx((0.0, 0.4593), abs=1e-4)
    twice = point.realised(np.repeat(y, 2), np.full(24, high), np.repeat([f"s{k}" for k in range(12)], 2))
    assert twice["sensitivity"].low == found["sensitivity"].low  # a second window of a patient is no second patient


def test_what_choosing_refuses():
    with pytest.raises(DataError, match="0 positive and 2 negative"):
        OperatingPoint.choose([0, 0], [0.1, 0.2], "f1")
    with pytest.raises(DataError, match="no threshold has specificity 1"):
        OperatingPoint.choose([0, 1], [0.9, 0.2], "specificity", target=1.0)
    with pytest.raises(RequestError, match="target=0.9"):
        OperatingPoint.choose([0, 1], [0.1, 0.2], "sensitivity")
    with pytest.raises(RequestError, match="leave it out"):
        OperatingPoint.choose([0, 1], [0.1, 0.2], "f1", target=0.9)
    with pytest.raises(RequestError, match="not known"):
        OperatingPoint.choose([0, 1], [0.1, 0.2], "luck")
    for bad, says in ((np.nan, "NaN"), (np.inf, "infinite")):
        with pytest.raises(DataError, match=says):
            OperatingPoint.choose([0, 1], [0.1, bad], "f1")


def test_the_decision_curve_of_a_perfect_and_a_useless_model():
    y, _, subjects = site(4)
    for row in decision_curve(y, y, subjects, [0.1, 0.5], n=50):
        t, prevalence = row["threshold"], y.mean()
        assert row["model"].value == pytest.approx(prevalence)
        assert row["all"].value == pytest.approx(prevalence - (1 - prevalence) * t / (1 - t))
        assert row["model_minus_best_default"].value == pytest.approx(prevalence - max(row["all"].value, 0))
    for row in decision_curve(y, np.full(200, 0.3), subjects, [0.2, 0.4], n=50):
        best = row["model_minus_best_default"]
        assert row["model"].value == (row["all"].value if row["threshold"] <= 0.3 else 0)
        assert best.value == pytest.approx(row["model"].value - max(row["all"].value, 0))


def test_the_difference_of_net_benefits_is_paired():
    y, s, subjects = site(5)
    worse = np.random.default_rng(0).permutation(s)
    diff = net_benefit_difference(y, s, worse, subjects, 0.4, n=500)
    at = metrics.Metric("net_benefit", at=0.4)
    assert diff.value == pytest.approx(metrics.score(y, s, at) - metrics.score(y, worse, at))
    assert diff.low > 0
    same = net_benefit_difference(y, s, s, subjects, 0.4, n=50)
    assert (same.low, same.high) == (0, 0)


def test_a_decision_curve_refuses_one_class_and_impossible_thresholds():
    with pytest.raises(DataError, match="only 1"):
        decision_curve([1, 1], [0.2, 0.3], ["a", "b"], [0.5])
    with pytest.raises(RequestError, match="threshold probability"):
        decision_curve([0, 1], [0.2, 0.3], ["a", "b"], [1.0])
    with pytest.raises(DataError, match="no probability"):
        decision_curve([0, 1], [-2, 3.0], ["a", "b"], [0.5])
