"""MiniRocket equals a slow float64 loop over kernels, and its ridge equals scikit-learn's."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from biossl import minirocket
from biossl.minirocket import KERNELS, THREES, dilations_for, features_for, fit, ridge, transform
from biossl.protocol import Target

N_FEATURES = 252


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 3, 50)).cumsum(axis=2).astype(np.float32)


def slow(rocket, x):
    """Sample by sample: standardise, convolve with zeros beyond the ends, count what is above each bias."""
    mean, std = (s.numpy().astype(float) for s in rocket.scale)
    x = (x.astype(float) - mean[:, None]) / std[:, None]
    out = []
    for window in x:
        row = []
        for d, w, b in zip(rocket.dilations, rocket.weights, rocket.biases, strict=True):
            for k in range(THREES):
                y = []
                for t in range(window.shape[1]):
                    total = 0.0
                    for c in range(window.shape[0]):
                        for j in range(9):
                            at = t + (j - 4) * d
                            total += float(w[k, c, j]) * (window[c, at] if 0 <= at < window.shape[1] else 0.0)
                    y.append(total)
                y = np.array(y)
                if k % 2 and len(y) > 8 * d:
                    y = y[4 * d : len(y) - 4 * d]
                row += [(y > float(bias)).mean() for bias in b[k]]
        out.append(row)
    return np.array(out)


def test_transform_equals_a_slow_loop(windows):
    rocket = fit(windows, seed=0, n_features=N_FEATURES)
    ours, reference = transform(rocket, windows[:2]), slow(rocket, windows[:2])
    assert ours.shape == (2, N_FEATURES) == (2, rocket.n_features)
    # a share moves by one sample where rounding puts a value on the other side of its bias
    assert np.mean(np.abs(ours - reference) < 1e-6) > 0.99 and np.abs(ours - reference).max() < 0.06
    assert np.abs(ours - np.roll(reference, 1, axis=1)).mean() > 0.05  # the comparison can fail


def test_kernels_are_the_84_with_three_twos_on_a_subset_of_channels(windows):
    rocket = fit(windows, seed=1, n_features=N_FEATURES)
    for w in rocket.weights:
        for k, twos in enumerate(combinations(range(9), 3)):
            used = np.flatnonzero(w[k].abs().sum(dim=1).numpy())
            assert len(used) >= 1
            for c in used:
                assert w[k, c].sum() == 0 and np.flatnonzero(w[k, c].numpy() == 2).tolist() == list(twos)
    assert len(KERNELS) == THREES


@settings(max_examples=30, deadline=None)
@given(st.integers(9, 4000), st.integers(1, 119))
def test_every_feature_is_given_to_a_dilation_that_fits(n_samples, per_kernel):
    plan = dilations_for(n_samples, per_kernel)
    assert sum(plan.values()) == per_kernel and min(plan) == 1
    assert all(8 * d <= max(n_samples - 1, 8) and n > 0 for d, n in plan.items())


def test_features_are_fewer_for_many_windows():
    assert features_for(100) == 9996 and features_for(10**9) == 84
    assert 4 * 500_000 * features_for(500_000) <= minirocket.FEATURE_BYTES


def test_equal_seeds_give_equal_features_and_others_do_not(windows):
    a, b, c = (transform(fit(windows, seed=s, n_features=84), windows) for s in (3, 3, 4))
    assert (a == b).all() and (a != c).any()


def test_missing_samples_and_flat_channels_give_finite_features(windows):
    x = windows.copy()
    x[:, 1] = 0.5
    x[0, :, 10:20] = np.nan
    x[1] = np.nan
    assert np.isfinite(transform(fit(x, seed=0, n_features=84), x)).all()


@pytest.mark.parametrize("n_features", [50, 12])  # more features than rows, and fewer
def test_ridge_equals_scikit_learn_s(n_features):
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(30, n_features)), rng.normal(size=(7, n_features))
    y = rng.integers(0, 3, 30).astype(float)
    subject = np.full(30, "a")  # one subject: nothing to choose by
    ours = ridge(x, Target("multiclass", y, ("a", "b", "c")), subject, new).prediction
    mean, std = x.mean(0), x.std(0)
    coded = np.where(y[:, None] == np.arange(3), 1.0, -1.0)
    theirs = Ridge(alpha=minirocket.DEFAULT_ALPHA).fit((x - mean) / std, coded).predict((new - mean) / std)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    target = Target("regression", y * 3 + 1, ())
    theirs = Ridge(alpha=minirocket.DEFAULT_ALPHA).fit((x - mean) / std, y * 3 + 1).predict((new - mean) / std)
    np.testing.assert_allclose(ridge(x, target, subject, new).prediction, theirs, atol=1e-5)


def test_ridge_leaves_out_unknown_classes_one_by_one():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6))
    y = (x[:, :2] > 0).astype(float)
    y[:10, 0] = np.nan
    ours = ridge(x, Target("multilabel", y, ("a", "b")), np.full(40, "s"), x).prediction
    a = (x - x.mean(0)) / x.std(0)
    known = Ridge(alpha=minirocket.DEFAULT_ALPHA, fit_intercept=False)
    part = 2 * y[10:, 0] - 1
    theirs = known.fit(a[10:], part - part.mean()).predict(a) + part.mean()
    np.testing.assert_allclose(ours[:, 0], theirs, atol=1e-5)
