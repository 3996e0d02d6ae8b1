"""DeLong equals its O(n^2) definition and a hand-worked example; McNemar and sign flips equal full enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from biossl.errors import DataError
from biossl.metrics.paired import delong, delong_test, mcnemar, sign_flip


def slow(y, *models):
    """DeLong et al. 1988, equations (3) to (6), written out."""
    v10, v01 = [], []
    for s in models:
        pos, neg = s[y == 1], s[y == 0]
        psi = np.array([[1.0 if p > q else 0.5 if p == q else 0.0 for q in neg] for p in pos])
        v10.append(psi.mean(1))
        v01.append(psi.mean(0))
    theta = np.array([v.mean() for v in v10])
    m, n = len(v10[0]), len(v01[0])
    s10 = np.array([[((a - a.mean()) * (b - b.mean())).sum() / (m - 1) for a in v10] for b in v10])
    s01 = np.array([[((a - a.mean()) * (b - b.mean())).sum() / (n - 1) for a in v01] for b in v01])
    return theta, s10 / m + s01 / n


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_delong_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 0, 1, 1, rng.integers(0, 2, 30)]
    a = (rng.normal(size=34) + y).round(1)
    b = (a + rng.normal(size=34)).round(1)
    theta, cov = slow(y, a, b)
    one = delong(y, a)
    assert one.value == pytest.approx(roc_auc_score(y, a), abs=1e-12)
    assert one.se**2 == pytest.approx(cov[0, 0], abs=1e-12)
    two = delong_test(y, a, b)
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    assert two.value == pytest.approx(theta[0] - theta[1], abs=1e-12)
    assert two.se**2 == pytest.approx(variance, abs=1e-12)
    if variance > 1e-12:
        assert two.p == pytest.approx(2 * stats.norm.sf(abs(theta[0] - theta[1]) / variance**0.5), abs=1e-9)


def test_delong_of_a_hand_worked_example():
    """Positives 0.9 and 0.6, negatives 0.5, 0.6, 0.1.

    Above each positive: 1 and (1 + 1/2 + 1)/3 = 5/6, variance 1/72, over 2 positives 1/144. Below each negative: 1, 3/4, 1, variance
    1/48, over 3 negatives 1/144. AUROC 11/12, variance 1/72.
    """
    found = delong([1, 1, 0, 0, 0], [0.9, 0.6, 0.5, 0.6, 0.1])
    assert found.value == pytest.approx(11 / 12, abs=1e-12) and found.se**2 == pytest.approx(1 / 72, abs=1e-12)


def test_delong_says_when_there_is_no_test():
    same = delong_test([1, 1, 0, 0], [4, 3, 2, 1], [8, 6, 4, 2])
    assert (same.value, same.p, same.reason) == (0, 1, "")
    none = delong([1, 1, 0, 0], [4, 3, 2, 1])  # AUROC 1, variance 0
    assert none.value == 1 and np.isnan(none.p) and "separated" in none.reason and none.to_dict()["p"] is None
    assert "no AUROC" in delong([1, 1], [1, 2]).reason and np.isnan(delong([1, 1], [1, 2]).value)
    assert "two of each" in delong([1, 0, 0], [3, 1, 2]).reason
    with pytest.raises(DataError, match="NaN in 1 of 3"):
        delong([1, 0, 0], [3, np.nan, 2])
    with pytest.raises(DataError, match="2 scores"):
        delong([1, 0, 0], [3, 2])


def test_delong_holds_its_level_on_independent_rows():
    """Two models of equal worth: p below 0.1 in about a tenth of 300 draws."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(300):
        y = np.r_[np.ones(40), np.zeros(60)]
        small += delong_test(y, y + rng.normal(size=100), y + rng.normal(size=100)).p < 0.1
    assert 0.06 < small / 300 < 0.15


def test_mcnemar_is_the_exact_binomial_of_the_discordant_rows():
    """Of ten discordant rows, nine favour a: p = 2 (1 + 10) / 2^10."""
    y = np.ones(30)
    a, b = np.r_[np.ones(29), 0], np.r_[np.ones(20), np.zeros(9), 1]
    found = mcnemar(y, a, b)
    assert found.n == 10 and found.p == pytest.approx(22 / 1024, abs=1e-12)
    assert found.value == pytest.approx(8 / 30, abs=1e-12)
    assert mcnemar(y, a, a).p == 1 and mcnemar(y, a, a).n == 0
    y[3] = np.nan
    assert mcnemar(y, a, b).value == pytest.approx(8 / 29)


def test_mcnemar_refuses_scores_and_missing_decisions():
    with pytest.raises(Exception, match="decisions are judged"):
        mcnemar([0, 1], [0.2, 0.8], [0, 1])
    with pytest.raises(DataError, match="2 reference labels but 1 decisions"):
        mcnemar([0, 1], [0, 1], [1])


def test_sign_flip_equals_every_flip_written_out():
    d = np.array([0.3, -0.1, 0.2, 0.25, 0.05, 0.0, 0.4])
    flips = [abs(np.mean(d * np.array(s))) for s in itertools.product([-1, 1], repeat=len(d))]
    expect = np.mean(np.array(flips) >= abs(d.mean()) - 1e-12)
    assert sign_flip(d + 1, np.ones(7)).p == pytest.approx(expect, abs=1e-12)


def test_a_drawn_sign_flip_is_near_the_exact_one_and_never_zero():
    d = np.random.default_rng(2).normal(0.2, 1, 12)
    assert sign_flip(d, 0 * d, n=3000).p == pytest.approx(sign_flip(d, 0 * d).p, abs=0.03)
    assert sign_flip(np.ones(40), np.zeros(40), n=500).p > 0


def test_sign_flip_leaves_out_subjects_without_a_score_and_needs_three():
    found = sign_flip([1, 2, np.nan, 3], [0, 0, 0, 0])
    assert found.n == 3 and found.p == pytest.approx(0.25)
    few = sign_flip([1, 2], [0, 0])
    assert np.isnan(few.p) and "at least 3" in few.reason
