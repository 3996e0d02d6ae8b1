"""Losses against slow float64 versions that a reader can check by eye."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.objectives.losses import decorrelation, l1, normalise_target, sigreg, smooth_l1, unit_directions, variance_hinge


def slow_smooth_l1(prediction, target, beta, weight):
    rows = []
    for r in range(prediction.shape[0]):
        total, n = 0.0, 0
        for i in range(prediction.shape[1]):
            if not weight[r, i]:
                continue
            for j in range(prediction.shape[2]):
                d = abs(float(prediction[r, i, j]) - float(target[r, i, j]))
                total += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
                n += 1
        rows.append(total / max(n, 1))
    return sum(rows) / len(rows)


def slow_hinge(x, goal, eps, ddof=1):
    out = 0.0
    for j in range(x.shape[1]):
        out += max(0.0, goal - math.sqrt(np.var(x[:, j].astype(np.float64), ddof=ddof) + eps))
    return out / x.shape[1]


def draw(seed, n=7, d=5):
    g = np.random.default_rng(seed)
    return g.normal(size=(n, d)) * 2, g.normal(size=(n, d)), g.random(n) < 0.6


def draw_rows(seed, rows=3, n=7):
    """Predictions, targets (R, M, D) and weights (R, M); in half of the cases nothing of one row counts."""
    p, t, w = (a.reshape(rows, n, *a.shape[1:]) for a in draw(seed, rows * n))
    w[seed % rows] &= seed % 2 == 0
    return p, t, w


@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.0]))
@settings(max_examples=30, deadline=None)
def test_smooth_l1_equals_the_slow_version(seed, beta):
    p, t, w = draw_rows(seed)
    got = smooth_l1(torch.tensor(p), torch.tensor(t), beta=beta, weight=torch.tensor(w))
    assert float(got) == pytest.approx(slow_smooth_l1(p, t, beta, w), abs=1e-5)


def test_smooth_l1_without_weight_counts_every_token_and_a_wrong_beta_is_seen():
    p, t, _ = draw_rows(1)
    whole = slow_smooth_l1(p, t, 1.0, np.ones(p.shape[:2], bool))
    assert float(smooth_l1(torch.tensor(p), torch.tensor(t))) == pytest.approx(whole, abs=1e-5)
    assert abs(whole - slow_smooth_l1(p, t, 0.5, np.ones(p.shape[:2], bool))) > 1e-2  # the reference tells betas apart


def test_l1_is_the_mean_over_rows_of_the_mean_absolute_difference_of_their_weighted_tokens():
    p, t, w = draw_rows(2)
    want = np.mean([np.abs(p - t)[r][w[r]].mean() for r in range(len(p))])
    assert float(l1(torch.tensor(p), torch.tensor(t), weight=torch.tensor(w))) == pytest.approx(want, abs=1e-6)
    assert abs(want - np.abs(p - t)[w].mean()) > 1e-4  # the mean over all tokens would be seen
    one = l1(torch.tensor(p), torch.tensor(t), weight=torch.tensor(w[:1]))  # one row of weights for all
    want = np.mean([np.abs(p - t)[r][w[0]].mean() for r in range(len(p))])
    assert float(one) == pytest.approx(want, abs=1e-6)
    assert float(l1(torch.tensor(p), torch.tensor(t))) == pytest.approx(np.abs(p - t).mean(), abs=1e-6)


def test_no_weighted_token_gives_zero_and_a_finite_gradient():
    p = torch.randn(2, 3, 4, requires_grad=True)
    loss = smooth_l1(p, torch.zeros(2, 3, 4), weight=torch.zeros(2, 3, dtype=torch.bool))
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


def slow_sigreg(z, directions, *, knots=17, limit=3.0, factor_n=True):
    """One direction, knot and row at a time."""
    n, total = len(z), 0.0
    for a in directions:
        values, statistic = [sum(float(x) * float(y) for x, y in zip(row, a, strict=True)) for row in z], 0.0
        for k in range(knots):
            t = limit * k / (knots - 1)
            real = sum(math.cos(t * v) for v in values) / n - math.exp(-t * t / 2)
            imaginary = sum(math.sin(t * v) for v in values) / n
            weight = limit / (knots - 1) * (0.5 if k in (0, knots - 1) else 1.0)
            statistic += 2 * weight * (real**2 + imaginary**2) * math.exp(-t * t / 2)
        total += statistic * (n if factor_n else 1)
    return total / len(directions)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_sigreg_equals_the_slow_version(seed):
    z = np.random.default_rng(seed).normal(size=(7, 4)) * 1.5 + 0.3
    directions = unit_directions(5, 4, seed)
    want = slow_sigreg(z, directions.double().numpy())
    assert float(sigreg(torch.tensor(z), directions)) == pytest.approx(want, rel=1e-4)
    assert abs(want - slow_sigreg(z, directions.double().numpy(), limit=2.0)) > 1e-3 * want  # other knots would be seen
    assert abs(want - slow_sigreg(z, directions.double().numpy(), factor_n=False)) > 0.5 * want


@pytest.mark.parametrize("n", [32, 256, 1024])
def test_sigreg_is_106_on_gaussian_rows_whatever_their_number_and_040_n_on_constants(n):
    g = torch.Generator().manual_seed(n)
    values = [float(sigreg(torch.randn(n, 16, generator=g), unit_directions(256, 16, i))) for i in range(30)]
    assert sum(values) / len(values) == pytest.approx(1.06, abs=0.06)
    assert math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3)) == pytest.approx(1.06, abs=0.001)
    assert float(sigreg(torch.zeros(n, 16), unit_directions(256, 16, 0))) / n == pytest.approx(0.40, abs=0.005)
    assert float(sigreg(3 * torch.randn(n, 16, generator=g), unit_directions(256, 16, 0))) > 3  # too wide is seen as well


def test_sigreg_pulls_rows_apart_that_have_collapsed_and_stays_finite():
    z = (0.01 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = sigreg(z, unit_directions(128, 8, 0))
    loss.backward()
    assert torch.isfinite(z.grad).all()
    assert float(sigreg((z - z.grad).detach(), unit_directions(128, 8, 0))) < float(loss.detach())
    half = sigreg(z.detach().bfloat16(), unit_directions(128, 8, 0))
    assert half.dtype == torch.float32


def test_directions_are_unit_vectors_that_the_seed_alone_decides():
    a = unit_directions(200, 6, 5)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(200))
    torch.manual_seed(9)
    assert torch.equal(a, unit_directions(200, 6, 5)) and not torch.equal(a, unit_directions(200, 6, 6))
    assert a.mean(dim=0).abs().max() < 0.15


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_decorrelation_equals_the_slow_version(seed):
    x, _, _ = draw(seed, 8, 4)
    centred = x - x.mean(axis=0)
    want = sum(
        (sum(centred[i, a] * centred[i, b] for i in range(8)) / 7) ** 2 for a in range(4) for b in range(4) if a != b
    ) / 4  # fmt: skip
    assert float(decorrelation(torch.tensor(x))) == pytest.approx(want, rel=1e-4)
    assert abs(want - want * (7 / 8) ** 2) > 1e-3 * want


@pytest.mark.parametrize(
    "loss", [variance_hinge, decorrelation, lambda z, weight=None: sigreg(z, unit_directions(9, 5, 0), weight=weight)]
)
def test_rows_without_weight_do_not_count_even_when_they_are_not_numbers(loss):
    x, _, use = draw(3, 12, 5)
    x = torch.tensor(0.2 * x)
    use = torch.tensor(use)
    want = loss(x[use])
    spoilt = torch.where(use[:, None], x, float("nan")).requires_grad_()
    got = loss(spoilt, weight=use)
    got.backward()
    torch.testing.assert_close(got.detach(), want, rtol=1e-5, atol=1e-6)
    assert torch.isfinite(spoilt.grad).all() and not torch.allclose(want, loss(x))
