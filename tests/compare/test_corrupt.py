"""Corruption is a function of the row alone, loses what it says, and grows with its severity."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.compare.corrupt import SEVERITIES, Corrupted, Corruption, corrupt, corruptions

KINDS = [(k, a) for k in SEVERITIES for a in SEVERITIES[k]]


def windows(n=4, channels=6, samples=64):
    return np.random.default_rng(0).normal(size=(n, channels, samples)).astype(np.float32)


@pytest.mark.parametrize("kind,amount", KINDS)
def test_a_row_is_corrupted_alike_alone_and_among_others(kind, amount):
    x, rows, how = windows(), np.array([5, 9, 2, 7]), Corruption(kind, amount)
    whole = corrupt(x, rows, how)
    np.testing.assert_array_equal(corrupt(x[2:3], rows[2:3], how)[0], whole[2])
    assert not np.array_equal(whole, x, equal_nan=True)
    np.testing.assert_array_equal(x, windows())  # the input stays


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_leads_off_lose_their_share_and_never_all(channels, row):
    for share in SEVERITIES["lead_off"]:
        lost = np.isnan(corrupt(windows(1, channels), np.array([row]), Corruption("lead_off", share))).all(axis=2).sum()
        assert lost == min(max(1, round(share * channels)), channels - 1)


@given(st.integers(0, 10**6))
def test_a_longer_gap_holds_the_shorter_and_both_have_their_length(row):
    short, long = (np.isnan(corrupt(windows(1), np.array([row]), Corruption("gap", a))[0]) for a in (0.2, 0.5))
    assert short.sum(axis=1).tolist() == [13] * 6 and long.sum(axis=1).tolist() == [32] * 6
    assert (long | ~short).all()


def test_a_burst_has_its_power_in_a_quarter_of_the_window():
    x = windows(200, 2, 400) * 3 + 5
    for amount in SEVERITIES["burst"]:
        noise = corrupt(x, np.arange(200), Corruption("burst", amount)) - x
        touched = noise != 0
        assert touched.sum(axis=2).max() <= 100 and touched.sum(axis=2).min() >= 98
        power = (noise.astype(float) ** 2).sum(axis=2) / 100
        assert 10 * np.log10(np.mean(x.var(axis=2) / power)) == pytest.approx(amount, abs=0.3)


def test_a_corrupted_corpus_reads_the_same_windows_corrupted(corpus):
    how = corruptions(("gap",))[0]
    through = Corrupted(corpus, how)
    rows = np.array([3, 11])
    np.testing.assert_array_equal(through.signal(rows), corrupt(corpus.signal(rows), rows, how))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(through)).signal(rows), through.signal(rows))
