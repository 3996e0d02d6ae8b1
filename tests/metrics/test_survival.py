"""Harrell's concordance equals the definition written as two loops, with its ties and censoring."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl import metrics
from biossl.errors import DataError, RequestError


def slow(time, event, risk):
    right = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs if pairs else np.nan


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_concordance_equals_two_loops(seed, n):
    rng = np.random.default_rng(seed)
    time, event, risk = rng.integers(1, 8, n), rng.integers(0, 2, n), rng.integers(0, 5, n)  # many ties of each kind
    got = metrics.score(np.stack([time, event], axis=1), risk, "concordance")
    assert got == pytest.approx(slow(time, event, risk), abs=1e-12, nan_ok=True)


def test_without_censoring_and_ties_it_is_the_share_of_ordered_pairs():
    """Times 1 2 3 4 with risks 4 2 3 1: one of six pairs (2, 3) is in the wrong order."""
    y = np.array([[1, 1], [2, 1], [3, 1], [4, 1]])
    assert metrics.score(y, [4, 2, 3, 1], "concordance") == pytest.approx(5 / 6, abs=1e-12)


@pytest.mark.parametrize(
    ("y", "expect"),
    [
        ([[2, 1], [2, 0]], 1.0),  # equal times, one censored: it lived longer
        ([[2, 1], [2, 1]], np.nan),  # two events at one time
        ([[1, 0], [2, 1]], np.nan),  # the shorter time is censored
        ([[1, 1], [np.nan, 1]], np.nan),  # unknown time
    ],
)
def test_which_pairs_are_comparable(y, expect):
    assert metrics.score(np.array(y), [2, 1], "concordance") == pytest.approx(expect, nan_ok=True)


def test_what_concordance_refuses():
    with pytest.raises(RequestError, match="time and event"):
        metrics.score([1, 2], [1, 2], "concordance")
    with pytest.raises(DataError, match="below 0"):
        metrics.score([[-1, 1], [2, 1]], [1, 2], "concordance")
    with pytest.raises(DataError, match="risk is NaN in 1 of 2"):
        metrics.score([[1, 1], [2, 1]], [1, np.nan], "concordance")
    none = metrics.subject_bootstrap([[1, 0], [2, 0], [3, 0]], [1, 2, 3], list("abc"), "concordance", n=20)
    assert np.isnan(none.value) and "censored" in none.reason
