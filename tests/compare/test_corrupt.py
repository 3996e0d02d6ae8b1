"""Corruption is a function of the row alone, loses what it says, and grows with its severity."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.compare.corrupt import SEVERITIES, Corruption, Seen, corrupt, corruptions
from biossl.errors import RequestError

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
    how = corruptions(("gap",), 6)[0]
    through = Seen(corpus, how=how)
    rows = np.array([3, 11])
    np.testing.assert_array_equal(through.signal(rows), corrupt(corpus.signal(rows), rows, how))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(through)).signal(rows), through.signal(rows))


def test_a_lead_that_was_off_already_is_not_among_those_that_are_lost():
    x = windows(40, 4)
    x[:, 0] = np.nan
    for share, left in ((0.25, 2), (0.5, 1)):
        off = np.isnan(corrupt(x, np.arange(40), Corruption("lead_off", share))).all(axis=2)
        assert (off.sum(axis=1) == 4 - left).all()
    x[:, 1:3] = np.nan  # the last one stays
    assert not np.isnan(corrupt(x, np.arange(40), Corruption("lead_off", 0.5))[:, 3]).any()


def test_leads_are_lost_among_the_channels_that_the_models_see(corpus):
    names, rows = ("gyro_y", "acc_x"), np.arange(40)
    through = Seen(corpus, names, corruptions(("lead_off",), 2)[0])
    assert through.spec.ch_names == names and through.spec.ch_types == ("gyro", "acc")
    x = through.signal(rows)
    assert (np.isnan(x).all(axis=2).sum(axis=1) == 1).all()
    whole = Seen(corpus, names).signal(rows)
    np.testing.assert_array_equal(whole, corpus.signal(rows)[:, [4, 0]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(through)).signal(rows), x)


def test_a_lead_off_of_one_channel_is_refused():
    with pytest.raises(RequestError, match="--corrupt lead_off: one channel"):
        corruptions(("gap", "lead_off"), 1)
    assert len(corruptions(("gap",), 1)) == 2
