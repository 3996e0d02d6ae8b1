"""Scores over seeds: against a bootstrap written out row by row, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from biossl import metrics
from biossl.metrics.intervals import draw
from biossl.metrics.over_seeds import seed_counts, seed_counts_difference, seed_difference, seed_scores, subject_means

RNG = np.random.default_rng(0)
WHO = np.repeat(list("abcdefg"), [6, 9, 4, 7, 5, 8, 6])
Y = RNG.permutation(np.arange(len(WHO)) % 2).astype(float)
SCORES = [np.clip(0.3 * Y + RNG.uniform(0, 0.7, len(Y)), 0, 1) for _ in range(3)]
OTHER = np.clip(0.1 * Y + RNG.uniform(0, 0.9, len(Y)), 0, 1)


def slow(several: list[np.ndarray], function, n: int, seed: int) -> list[float]:
    """Mean over seeds in each resample, subjects with all their rows, as often as they were drawn."""
    codes, weights = draw(WHO, n, seed)
    out = []
    for w in weights:
        rows = np.concatenate([np.tile(np.flatnonzero(codes == k), int(times)) for k, times in enumerate(w)]).astype(int)
        out.append(np.mean([function(Y[rows], p[rows]) for p in several]))
    return out


def test_the_mean_over_seeds_is_taken_inside_each_resample_of_subjects() -> None:
    found = seed_scores(Y, SCORES, WHO, "auroc", n=60, seed=4)
    expected = slow(SCORES, roc_auc_score, 60, 4)
    assert found.mean.value == pytest.approx(np.mean([roc_auc_score(Y, p) for p in SCORES]), abs=1e-9)
    assert (found.mean.low, found.mean.high) == pytest.approx(np.percentile(expected, [2.5, 97.5]), abs=1e-9)
    alone = metrics.subject_bootstrap(Y, SCORES[1], WHO, "auroc", n=60, seed=4)
    assert found.each[1] == alone
    plain = found.to_dict()
    assert plain["min"] == min(e.value for e in found.each) and plain["max"] == max(e.value for e in found.each)


def test_a_difference_is_paired_on_the_same_subjects() -> None:
    hard, other = [np.round(p) for p in SCORES], np.round(OTHER)
    found = seed_difference(Y, hard, [other], WHO, "balanced_accuracy", n=60, seed=2)
    a, b = (slow(s, balanced_accuracy_score, 60, 2) for s in (hard, [other]))
    assert found.value == pytest.approx(
        np.mean([balanced_accuracy_score(Y, p) for p in hard]) - balanced_accuracy_score(Y, other), abs=1e-9
    )
    assert (found.low, found.high) == pytest.approx(np.percentile(np.subtract(a, b), [2.5, 97.5]), abs=1e-9)
    assert seed_difference(Y, hard, hard, WHO, "balanced_accuracy", n=60).high == 0


def test_means_over_subjects_leave_out_who_has_no_score() -> None:
    values = np.array([[0.5, np.nan, 0.7, 0.9], [0.7, 0.2, 0.7, 0.3]])
    found = subject_means(values, n=500, seed=1)
    assert found.mean.value == pytest.approx((0.6 + 0.7 + 0.6) / 3) and found.mean.n_subjects == 3
    assert [e.value for e in found.each] == pytest.approx([0.7, 1.7 / 3])
    weights = np.random.default_rng(1).multinomial(3, [1 / 3] * 3, size=500)
    expected = np.percentile(weights @ np.array([0.6, 0.7, 0.6]) / 3, [2.5, 97.5])
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(expected), abs=1e-9)
    empty = subject_means([[np.nan, np.nan]]).to_dict()
    assert empty["value"] is None and empty["reason"] == "no subject's own rows allow this score" and empty["min"] is None


@settings(max_examples=20, deadline=None)
@given(st.permutations([0, 1, 2]), st.integers(0, 5))
def test_the_order_of_seeds_changes_nothing(order: list[int], seed: int) -> None:
    a = seed_scores(Y, SCORES, WHO, "auroc", n=40, seed=seed).mean
    b = seed_scores(Y, [SCORES[k] for k in order], WHO, "auroc", n=40, seed=seed).mean
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


def share(counts: np.ndarray) -> np.ndarray:
    return counts[:, 1] / counts[:, 0]


def test_counts_are_added_over_subjects_and_averaged_over_seeds_inside_each_resample() -> None:
    several = [np.stack([np.full(len(WHO), 9.0), RNG.integers(0, 9, len(WHO))], axis=1) for _ in range(3)]
    other = [np.stack([np.full(len(WHO), 9.0), RNG.integers(0, 9, len(WHO))], axis=1)]
    codes, weights = draw(WHO, 60, 4)
    times = weights[:, codes]
    slow_each = [np.array([(t[:, None] * c).sum(axis=0) for t in times]) for c in (*several, *other)]
    values = [share(c) for c in slow_each]
    found = seed_counts(several, WHO, share, n=60, seed=4)
    assert (found.mean.low, found.mean.high) == pytest.approx(np.percentile(np.mean(values[:3], axis=0), [2.5, 97.5]), abs=1e-9)
    assert found.each[2] == metrics.counts_bootstrap(several[2], WHO, share, n=60, seed=4)
    gap = seed_counts_difference(several, other, WHO, share, n=60, seed=4)
    assert (gap.low, gap.high) == pytest.approx(np.percentile(np.mean(values[:3], axis=0) - values[3], [2.5, 97.5]), abs=1e-9)
    assert gap.value == pytest.approx(found.mean.value - share(other[0].sum(axis=0, keepdims=True))[0], abs=1e-12)
