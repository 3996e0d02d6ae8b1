"""Supervised losses against slow float64 loops, hand-worked examples and one process against two."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.objectives import losses_supervised as L

NAN = float("nan")
SEEDS = st.integers(0, 10_000)


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def classes(seed: int, n: int = 6, k: int = 4, t: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (n, k, t), class numbers with NaN (n, t), class weights (k,)."""
    g = np.random.default_rng(seed)
    y = g.integers(0, k, (n, t)).astype(float)
    y[g.random((n, t)) < 0.3] = NAN
    return 3 * g.normal(size=(n, k, t)), y, g.uniform(0.2, 3, k)


def slow_dense(logits: np.ndarray, y: np.ndarray, w: np.ndarray, s: float) -> float:
    total, n = 0.0, 0
    for i in range(y.shape[0]):
        for t in range(y.shape[1]):
            if math.isnan(y[i, t]):
                continue
            k = int(y[i, t])
            norm = math.log(sum(math.exp(v) for v in logits[i, :, t]))
            minus = [norm - v for v in logits[i, :, t]]
            total += w[k] * ((1 - s) * minus[k] + s * sum(minus) / len(minus))
            n += 1
    return total / max(n, 1)


@given(SEEDS, st.sampled_from([0.0, 0.1]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_cross_entropy_equals_the_slow_version(seed: int, smoothing: float, weighted: bool) -> None:
    logits, y, w = classes(seed)
    weight = torch.tensor(w) if weighted else None
    w = w if weighted else np.ones(4)
    kw: dict[str, Any] = {"weight": weight, "smoothing": smoothing}
    assert float(L.dense_cross_entropy(torch.tensor(logits), torch.tensor(y), **kw)) == pytest.approx(
        slow_dense(logits, y, w, smoothing), abs=1e-5
    )
    assert float(L.cross_entropy(torch.tensor(logits[..., 0]), torch.tensor(y[:, 0]), **kw)) == pytest.approx(
        slow_dense(logits[..., :1], y[:, :1], w, smoothing), abs=1e-5
    )


def test_an_unknown_class_is_not_class_0_and_has_no_gradient() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    some = L.cross_entropy(logits, torch.tensor([1.0, NAN, 0.0]))
    torch.testing.assert_close(some, L.cross_entropy(logits[[0, 2]], torch.tensor([1.0, 0.0])))
    assert not torch.allclose(some, L.cross_entropy(logits, torch.tensor([1.0, 0.0, 0.0])), atol=1e-3)
    some.backward()
    assert logits.grad is not None and bool((logits.grad[1] == 0).all()) and bool((logits.grad[0] != 0).all())


def test_class_weights_are_one_in_the_mean_and_even_out() -> None:
    n = torch.tensor([60.0, 30.0, 10.0, 0.0])
    for how in ("none", "sqrt", "balanced"):
        w = L.class_weights(n, how)
        assert float((w * n).sum() / n.sum()) == pytest.approx(1, abs=1e-6) and float(w[3]) == 0
    balanced, root = L.class_weights(n, "balanced"), L.class_weights(n, "sqrt")
    assert torch.allclose((balanced * n)[:3], torch.full((3,), 100 / 3))
    assert float(root[2] / root[0]) == pytest.approx(math.sqrt(6), abs=1e-5)
    assert L.positive_weights(torch.tensor([2.0, 0.0, 3.0]), torch.tensor([8.0, 9.0, 0.0]), "balanced").tolist() == [4, 1, 1]


def slow_bce(logits: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    each = []
    for i in range(y.shape[0]):
        for k in range(y.shape[1]):
            if y[i, k] == 1:
                each.append(-w[k] * math.log(sigmoid(logits[i, k])))
            elif y[i, k] == 0:
                each.append(-math.log(1 - sigmoid(logits[i, k])))
    return sum(each) / max(len(each), 1)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_multi_label_equals_the_slow_version_and_unknown_is_not_negative(seed: int) -> None:
    g = np.random.default_rng(seed)
    logits, y, w = g.normal(size=(5, 3)) * 2, g.integers(0, 2, (5, 3)).astype(float), g.uniform(0.5, 3, 3)
    y[g.random((5, 3)) < 0.4] = NAN
    y[0, 0] = NAN
    got = L.binary_cross_entropy(torch.tensor(logits), torch.tensor(y), positive=torch.tensor(w))
    assert float(got) == pytest.approx(slow_bce(logits, y, w), abs=1e-5)
    negative = L.binary_cross_entropy(torch.tensor(logits), torch.tensor(np.nan_to_num(y)), positive=torch.tensor(w))
    assert abs(float(got) - float(negative)) > 1e-6  # the planted fault is seen


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_ordinal_equals_the_slow_version(seed: int) -> None:
    g = np.random.default_rng(seed)
    c = np.sort(3 * g.normal(size=(6, 3)), axis=1) + np.arange(3) * 0.01
    y = np.array([0, 1, 2, 3, NAN, float(g.integers(0, 4))])
    each = []
    for i in range(6):
        if math.isnan(y[i]):
            continue
        upto = [0.0, *(sigmoid(v) for v in c[i]), 1.0]
        each.append(-math.log(upto[int(y[i]) + 1] - upto[int(y[i])]))
    assert float(L.ordinal_nll(torch.tensor(c), torch.tensor(y))) == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_ordinal_is_finite_with_a_gradient_far_from_its_class() -> None:
    for y in range(4):
        for shift in (-200.0, 0.0, 200.0):
            c = (torch.tensor([[-1.0, 0.0, 1.0]]) + shift).requires_grad_()
            loss = L.ordinal_nll(c, torch.tensor([float(y)]))
            loss.backward()
            assert bool(loss.isfinite()) and c.grad is not None and bool(c.grad.isfinite().all())


def test_two_ordered_classes_are_a_binary_label() -> None:
    c, y = torch.randn(7, 1), torch.tensor([0.0, 1, 1, 0, 1, 0, NAN])
    torch.testing.assert_close(L.ordinal_nll(c, y), L.binary_cross_entropy(-c, y[:, None]))


@given(SEEDS, st.sampled_from([None, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_regression_equals_the_slow_version(seed: int, delta: float | None) -> None:
    g = np.random.default_rng(seed)
    p, t = 2 * g.normal(size=8), g.normal(size=8)
    t[2] = NAN
    each = []
    for a, b in zip(p, t, strict=True):
        if not math.isnan(b):
            d = abs(a - b)
            each.append(d * d if delta is None or d <= delta else 2 * delta * d - delta * delta)
    got = L.regression(torch.tensor(p), torch.tensor(t), delta=delta)
    assert float(got) == pytest.approx(sum(each) / len(each), abs=1e-5)


def slow_cox(f: np.ndarray, time: np.ndarray, event: np.ndarray, ties: str) -> float:
    total, n = 0.0, 0
    for moment in sorted({t for t, e in zip(time, event, strict=True) if e == 1}):
        dead = [i for i in range(len(f)) if time[i] == moment and event[i] == 1]
        at_risk = sum(math.exp(f[i]) for i in range(len(f)) if time[i] >= moment)
        tied = sum(math.exp(f[i]) for i in dead)
        for number, i in enumerate(dead):
            less = number / len(dead) * tied if ties == "efron" else 0.0
            total += math.log(at_risk - less) - f[i]
            n += 1
    return total / max(n, 1)


@given(SEEDS, st.sampled_from(["efron", "breslow"]))
@settings(max_examples=40, deadline=None)
def test_cox_equals_the_slow_version(seed: int, ties: Any) -> None:
    g = np.random.default_rng(seed)
    f, time, event = 2 * g.normal(size=9), g.integers(1, 5, 9).astype(float), g.integers(0, 2, 9).astype(float)
    y = np.stack([time, event], axis=1)
    expected = slow_cox(f, time, event, ties)
    assert float(L.cox(torch.tensor(f), torch.tensor(y), ties=ties)) == pytest.approx(expected, abs=1e-4)
    more = np.concatenate([y, [[NAN, 1.0], [2.0, NAN]]])  # unknown rows are at nobody's risk
    assert float(L.cox(torch.tensor([*f, 9.0, 9.0]), torch.tensor(more), ties=ties)) == pytest.approx(expected, abs=1e-4)


def test_cox_by_hand() -> None:
    # three at risk, two events at time 1, equal hazards: Breslow 2 log 3, Efron log 3 + log(3 - 1/2 * 2) over two events
    y = torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    assert float(L.cox(torch.zeros(3), y, ties="breslow")) == pytest.approx(math.log(3), abs=1e-6)
    assert float(L.cox(torch.zeros(3), y, ties="efron")) == pytest.approx((math.log(3) + math.log(2)) / 2, abs=1e-6)
    censored_at_the_event = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert float(L.cox(torch.zeros(2), censored_at_the_event)) == pytest.approx(math.log(2), abs=1e-6)


def test_cox_holds_at_huge_hazards_and_without_events() -> None:
    f = torch.tensor([500.0, -500.0, 0.0], requires_grad=True)
    loss = L.cox(f, torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((0 + 500) / 2) and f.grad is not None and bool(f.grad.isfinite().all())
    none = torch.randn(3, requires_grad=True)
    for y in (torch.tensor([[1.0, 0.0]] * 3), torch.full((3, 2), NAN)):
        loss = L.cox(none, y)
        loss.backward()
        assert loss.item() == 0 and none.grad is not None and bool((none.grad == 0).all())


def losses(w: Tensor, x: Tensor, kind: str, rows: slice) -> Tensor:
    """A loss of a linear model on some rows of one batch of 8, in which much is unknown on one side."""
    g = torch.Generator().manual_seed(3)
    y = torch.randint(0, 3, (8,), generator=g).double()
    y[5:7] = NAN
    both = torch.stack([y.clamp_max(1), 1 - y.clamp_max(1)], dim=1)
    z = x[rows] @ w
    if kind == "classes":
        return L.cross_entropy(z, y[rows], weight=torch.tensor([0.5, 1.0, 2.0]), smoothing=0.1)
    if kind == "labels":
        return L.binary_cross_entropy(z[:, :2], both[rows])
    if kind == "values":
        return L.regression(z[:, 0], y[rows], delta=1.0)
    if kind == "ordered":
        return L.ordinal_nll(torch.stack([-1 - z[:, 0], 1 - z[:, 0]], dim=1), y[rows])
    time = torch.tensor([1.0, 2, 2, 3, 1, 4, 2, 5], dtype=torch.float64)
    return L.cox(z[:, 0], torch.stack([time, both[:, 0]], dim=1)[rows])


KINDS = ["classes", "labels", "values", "ordered", "survival"]


def _gradients(number: int, x: Tensor, weight: Tensor) -> list[list[float]]:
    out = []
    for kind in KINDS:
        w = weight.clone().requires_grad_()
        losses(w, x, kind, slice(4 * number, 4 * number + 4)).backward()
        assert w.grad is not None
        dist.all_reduce(w.grad)
        out.append((w.grad / 2).flatten().tolist())
    return out


@needs_two_processes
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    x, weight = torch.randn(8, 5), torch.randn(5, 3)
    two = run_in_two(_gradients, x, weight, store=tmp_path / "store")
    for i, kind in enumerate(KINDS):
        w = weight.clone().requires_grad_()
        losses(w, x, kind, slice(0, 8)).backward()
        assert w.grad is not None and bool((w.grad != 0).any())
        for process in two:
            torch.testing.assert_close(torch.tensor(process[i]).view_as(w), w.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_float32_under_autocast(kind: str) -> None:
    x, w = torch.randn(8, 5), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses(w, x, kind, slice(0, 8)).dtype == torch.float32
