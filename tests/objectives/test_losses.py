"""Losses against slow float64 versions that a reader can check by eye."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.objectives.losses import l1, normalise_target, smooth_l1, variance_hinge


def slow_smooth_l1(prediction, target, beta, weight):
    total, n = 0.0, 0
    for i in range(prediction.shape[0]):
        if not weight[i]:
            continue
        for j in range(prediction.shape[1]):
            d = abs(float(prediction[i, j]) - float(target[i, j]))
            total += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
            n += 1
    return total / max(n, 1)


def slow_hinge(x, goal, eps, ddof=1):
    out = 0.0
    for j in range(x.shape[1]):
        out += max(0.0, goal - math.sqrt(np.var(x[:, j].astype(np.float64), ddof=ddof) + eps))
    return out / x.shape[1]


def draw(seed, n=7, d=5):
    g = np.random.default_rng(seed)
    return g.normal(size=(n, d)) * 2, g.normal(size=(n, d)), g.random(n) < 0.6


@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.0]))
@settings(max_examples=30, deadline=None)
def test_smooth_l1_equals_the_slow_version(seed, beta):
    p, t, w = draw(seed)
    got = smooth_l1(torch.tensor(p), torch.tensor(t), beta=beta, weight=torch.tensor(w))
    assert float(got) == pytest.approx(slow_smooth_l1(p, t, beta, w), abs=1e-5)


def test_smooth_l1_without_weight_counts_every_token_and_a_wrong_beta_is_seen():
    p, t, _ = draw(1)
    whole = slow_smooth_l1(p, t, 1.0, np.ones(len(p), bool))
    assert float(smooth_l1(torch.tensor(p), torch.tensor(t))) == pytest.approx(whole, abs=1e-5)
    assert abs(whole - slow_smooth_l1(p, t, 0.5, np.ones(len(p), bool))) > 1e-2  # the reference tells betas apart


def test_l1_is_the_mean_absolute_difference_over_weighted_tokens():
    p, t, w = draw(2)
    assert float(l1(torch.tensor(p), torch.tensor(t), weight=torch.tensor(w))) == pytest.approx(np.abs(p - t)[w].mean(), abs=1e-6)
    assert float(l1(torch.tensor(p), torch.tensor(t))) == pytest.approx(np.abs(p - t).mean(), abs=1e-6)


def test_no_weighted_token_gives_zero_and_a_finite_gradient():
    p = torch.randn(3, 4, requires_grad=True)
    loss = smooth_l1(p, torch.zeros(3, 4), weight=torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0 and torch.isfinite(p.grad).all()


def test_losses_are_float32_under_half_precision_inputs():
    p, t = torch.full((2, 3), 300.0, dtype=torch.bfloat16), torch.zeros(2, 3, dtype=torch.bfloat16)
    assert smooth_l1(p, t).dtype == torch.float32 and float(smooth_l1(p, t)) == 299.5
    assert normalise_target(p).dtype == torch.float32 and variance_hinge(p).dtype == torch.float32


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_variance_hinge_equals_the_slow_version(seed):
    x = np.random.default_rng(seed).normal(size=(9, 6)) * np.linspace(0.1, 2, 6)
    assert float(variance_hinge(torch.tensor(x))) == pytest.approx(slow_hinge(x, 1.0, 1e-4), abs=1e-5)
    assert abs(slow_hinge(x, 1.0, 1e-4) - slow_hinge(x, 1.0, 1e-4, ddof=0)) > 1e-4  # n instead of n - 1 would be seen


def test_variance_hinge_pushes_a_collapsed_embedding_apart():
    x = torch.full((8, 4), 0.5) + 1e-3 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    before = variance_hinge(x)
    before.backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
    assert variance_hinge((x - 0.1 * x.grad / x.grad.norm()).detach()) < before
    assert float(variance_hinge(torch.zeros(5, 3))) == pytest.approx(1.0 - 1e-2, abs=1e-6)


def test_normalised_targets_have_mean_zero_and_biased_variance_one_per_token():
    x = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1)) * 5 + 3
    slow = np.empty(x.shape)
    for index in np.ndindex(*x.shape[:-1]):
        row = x[index].double().numpy()
        slow[index] = (row - row.mean()) / np.sqrt(((row - row.mean()) ** 2).mean() + 1e-5)
    np.testing.assert_allclose(normalise_target(x).numpy(), slow, atol=1e-5)
