"""Events are paired one to one, as many as possible; counts, alarms per day and intervals follow from the pairs."""

import itertools
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from biossl.errors import DataError, RequestError
from biossl.metrics import counts_difference
from biossl.metrics.events import (
    EventCounts,
    count_events,
    count_overlaps,
    f1,
    false_alarms_per_day,
    match_events,
    match_overlaps,
    score_events,
    sensitivity,
)

times = st.lists(st.integers(0, 60), max_size=9).map(lambda v: np.array(v, float) / 20)


@settings(max_examples=150, deadline=None)
@given(times, times)
def test_the_pairs_are_the_most_there_can_be_and_the_nearest_of_those(reference, detected):
    rows, columns = match_events(reference, detected, 0.15)
    assert len(set(rows.tolist())) == len(rows) and len(set(columns.tolist())) == len(columns)
    apart = np.abs(reference[rows] - detected[columns])
    assert (apart <= 0.15 + 1e-9).all()
    distance = np.abs(reference[:, None] - detected[None])
    best = linear_sum_assignment(np.where(distance <= 0.15 + 1e-9, distance - 100, 0.0))
    taken = [(i, j) for i, j in zip(*best, strict=True) if distance[i, j] <= 0.15 + 1e-9]
    assert len(rows) == len(taken)
    assert apart.sum() == pytest.approx(sum(distance[i, j] for i, j in taken), abs=1e-9)


def test_the_nearest_pair_first_would_lose_one():
    """1.10 is nearest to 1.12, but then 1.00 and 1.25 stay alone."""
    rows, columns = match_events([1.00, 1.12], [1.10, 1.25], 0.15)
    assert list(zip(rows, columns, strict=True)) == [(0, 0), (1, 1)]


def test_the_window_holds_its_edge_late_in_a_record():
    """54 samples at 360 Hz are 150 ms also after a day, where the difference of the two times rounds above 0.15."""
    late = 86_400.0 + 0.1
    assert len(match_events([late], [late + 54 / 360], 0.15)[0]) == 1
    assert len(match_events([late], [late + 55 / 360], 0.15)[0]) == 0


def test_one_detection_cannot_find_two_events_and_a_double_detection_is_one_false_alarm():
    found = count_events([1.0, 1.1, 5.0], [1.05, 5.0, 5.05], 0.15, 3600.0)
    assert found == EventCounts(3, 2, 3, 2, 3600.0)
    assert false_alarms_per_day(np.array([astuple(found)]))[0] == pytest.approx(24.0)


def test_f1_of_counts():
    rows = np.array([[4, 3, 6, 3, 1], [4, 0, 0, 0, 1], [0, 0, 2, 0, 1]], float)
    assert f1(rows)[:2] == pytest.approx([2 * 3 / (4 + 6), 0]) and np.isnan(f1(rows)[2])


def test_events_that_last_are_paired_by_overlap_one_to_one():
    falls = [[0, 2], [10, 12], [20, 22]]
    found = [[1, 11], [19, 21.5], [21.6, 23], [40, 41]]
    rows, columns = match_overlaps(falls, found)
    assert sorted(columns.tolist()) == [0, 1] and 2 in rows  # [1, 11] reaches into two falls and finds one
    assert count_overlaps(falls, found, 60.0) == EventCounts(3, 2, 4, 2, 60.0)
    assert count_overlaps(falls, found, 60.0, min_iou=0.4).n_found == 1  # [19, 21.5] shares 1.5 s of 3 with [20, 22]
    assert count_overlaps([[0, 1]], [[1, 2]], 60.0).n_found == 0  # touching is not sharing
    assert count_overlaps([[1, 1]], [[0, 2]], 60.0).n_found == 1  # a moment inside
    assert count_overlaps([], [[0, 2]], 60.0) == EventCounts(0, 0, 1, 0, 60.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=4),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=4),
)
def test_no_other_pairing_by_overlap_has_more_pairs(a, b):
    first, second = ([[s, s + d] for s, d in v] for v in (a, b))
    got = len(match_overlaps(first, second)[0])
    meets = [(i, j) for i, x in enumerate(first) for j, y in enumerate(second) if min(x[1], y[1]) > max(x[0], y[0])]
    most = 0
    for k in range(len(meets), 0, -1):
        some = itertools.combinations(meets, k) if k <= 4 else ()
        if any(len({i for i, _ in c}) == k == len({j for _, j in c}) for c in some):
            most = k
            break
    assert got == most


def test_gross_adds_events_and_average_is_over_records_that_have_any():
    counts = [EventCounts(90, 90, 100, 90, 3600.0), EventCounts(10, 0, 0, 0, 3600.0), EventCounts(0, 0, 5, 0, 3600.0)]
    found = score_events(counts, ["a", "b", "c"])
    assert found["sensitivity"]["gross"].value == pytest.approx(0.9)
    assert found["sensitivity"]["average"].value == pytest.approx(0.5)  # the third record has no event
    assert found["ppv"]["gross"].value == pytest.approx(90 / 105)
    assert found["false_alarms_per_day"]["gross"].value == pytest.approx(15 * 8)
    assert found["sensitivity"]["gross"].n_subjects == 3 and found["sensitivity"]["gross"].low == 0


def test_detectors_are_compared_on_the_same_resampled_subjects():
    hard = np.linspace(0.1, 0.9, 12)
    a = [[100, 100 * h, 100, 100 * h, 60] for h in hard]
    b = [[100, 100 * h - 5, 100, 100 * h - 5, 60] for h in hard]
    diff = counts_difference(a, b, np.arange(12), sensitivity)
    assert (diff.value, diff.low, diff.high) == pytest.approx((0.05, 0.05, 0.05))


def test_what_events_refuse():
    with pytest.raises(DataError, match="no number"):
        match_events([1.0, np.nan], [1.0], 0.15)
    with pytest.raises(RequestError, match="tolerance"):
        match_events([1.0], [1.0], -1)
    with pytest.raises(DataError, match="ends before it starts"):
        match_overlaps([[2, 1]], [[0, 1]])
    with pytest.raises(RequestError, match="start and end"):
        match_overlaps([1, 2, 3], [[0, 1]])
    with pytest.raises(DataError, match="watched"):
        count_events([1.0], [1.0], 0.15, 0.0)
    nothing = score_events([EventCounts(0, 0, 0, 0, 60.0)] * 3, list("abc"))["sensitivity"]["gross"]
    assert np.isnan(nothing.value) and "divides by" in nothing.reason
