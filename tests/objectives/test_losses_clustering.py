"""Losses over prototypes against explicit float64 loops; balance of the codes; two processes; wrong versions are seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.objectives.losses_clustering import centred_targets, sinkhorn, swapped_cross_entropy

VALID = [True, True, False, True, False, True]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(n: int, valid: list[bool] | None) -> list[int]:
    return [i for i in range(n) if valid is None or valid[i]]


def as_tensor(valid: list[bool] | None) -> Tensor | None:
    return None if valid is None else torch.tensor(valid)


def slow_softmax(values: list[Tensor]) -> list[Tensor]:
    total = sum(v.exp() for v in values)
    return [v.exp() / total for v in values]


def slow_swap(
    t1: Tensor, t2: Tensor, s1: Tensor, s2: Tensor, T: float, valid: list[bool] | None = None, mutant: str = ""
) -> Tensor:
    rows, total = rows_of(len(s1), valid), s1.new_zeros(())
    for i in rows:
        for target, scores in ((t1, s1), (t2, s2)) if mutant == "own_view" else ((t1, s2), (t2, s1)):
            p = slow_softmax([v / T for v in scores[i]])
            if mutant == "turned":
                total = total - sum(p[k] * target[i, k].log() for k in range(len(p))) / 2
            else:
                total = total - sum(target[i, k].detach() * p[k].log() for k in range(len(p))) / 2
    return total if mutant == "sum" else total / len(rows)


def slow_codes(scores: Tensor, eps: float, iterations: int, valid: list[bool] | None = None, mutant: str = "") -> Tensor:
    rows, K = rows_of(len(scores), None if mutant == "all_rows" else valid), scores.shape[1]
    q = {(i, k): math.exp(float(scores[i, k].detach()) / eps) for i in rows for k in range(K)}

    def by_prototype() -> None:
        for k in range(K):
            total = sum(q[i, k] for i in rows)
            for i in rows:
                q[i, k] /= total

    def by_row() -> None:
        for i in rows:
            total = sum(q[i, k] for k in range(K))
            for k in range(K):
                q[i, k] /= total

    for _ in range(iterations):
        for part in (by_row, by_prototype) if mutant == "rows_first" else (by_prototype, by_row):
            part()
    out = torch.zeros(len(scores), K, dtype=torch.float64)
    for (i, k), value in q.items():
        out[i, k] = value if valid is None or valid[i] else 0.0
    return out


@pytest.mark.parametrize("valid", [None, VALID])
def test_swapped_cross_entropy_equals_the_loop_and_a_wrong_one_would_be_seen(valid: list[bool] | None) -> None:
    t1, t2 = (draw(seed, 6, 4).softmax(dim=1).requires_grad_() for seed in (1, 2))
    here, there = ([draw(seed, 6, 4).requires_grad_() for seed in (3, 4)] for _ in range(2))
    fast = swapped_cross_entropy(t1, t2, *here, temperature=0.3, valid=as_tensor(valid))
    slow = slow_swap(t1, t2, *there, 0.3, valid)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-5)
    fast.backward()
    assert t1.grad is None and t2.grad is None
    slow.backward()
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    for mutant in ("own_view", "turned", "sum"):
        assert abs(float(fast.detach()) - float(slow_swap(t1, t2, *there, 0.3, valid, mutant).detach())) > 1e-2, mutant


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize("eps", [0.05, 0.5])
def test_codes_equal_the_loop_and_wrong_ones_would_be_seen(eps: float, valid: list[bool] | None) -> None:
    scores = draw(5, 6, 3).tanh()
    codes = sinkhorn(scores.requires_grad_(), eps=eps, iterations=3, valid=as_tensor(valid))
    assert codes.dtype == torch.float32 and not codes.requires_grad
    torch.testing.assert_close(codes.double(), slow_codes(scores, eps, 3, valid), rtol=1e-4, atol=1e-6)
    mutants = [slow_codes(scores, eps, 1, valid), slow_codes(scores, eps, 3, valid, "rows_first"),
               slow_codes(scores, 2 * eps, 3, valid)]  # fmt: skip
    mutants += [] if valid is None else [slow_codes(scores, eps, 3, valid, "all_rows")]
    for number, wrong in enumerate(mutants):
        assert (codes.double() - wrong).abs().max() > 1e-3, number


def test_codes_use_every_prototype_alike_even_where_scores_say_one() -> None:
    scores = torch.cat([torch.full((32, 1), 0.9), 0.3 * torch.rand(32, 3, generator=torch.Generator().manual_seed(1))], dim=1)
    codes = sinkhorn(scores, eps=0.05, iterations=30)
    assert bool((scores.argmax(dim=1) == 0).all())
    torch.testing.assert_close(codes.sum(dim=0), torch.full((4,), 8.0), rtol=0.05, atol=0)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(32))


@given(n=st.integers(1, 9), K=st.integers(2, 12), seed=st.integers(0, 999), eps=st.sampled_from([0.005, 0.05, 1.0]))
@settings(max_examples=40, deadline=None)
def test_any_batch_gives_distributions(n: int, K: int, seed: int, eps: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(n, generator=generator) < 0.7
    codes = sinkhorn(2 * torch.rand(n, K, generator=generator) - 1, eps=eps, valid=valid)
    assert codes.isfinite().all() and bool((codes >= 0).all())
    torch.testing.assert_close(codes.sum(dim=1), valid.float())


def test_targets_are_centred_then_sharpened() -> None:
    scores, centre = draw(1, 5, 4), draw(2, 4)
    got = centred_targets(scores, centre, temperature=0.1)
    wanted = torch.stack([torch.stack(slow_softmax([(s - c) / 0.1 for s, c in zip(row, centre, strict=True)])) for row in scores])
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-6)
    for wrong in ((scores + centre) / 0.1, scores / 0.1 - centre):  # the centre has the scores' sign and unit
        assert (got.double() - wrong.softmax(dim=1)).abs().max() > 1e-2


def test_nothing_observed_anywhere_is_zero_not_nan() -> None:
    scores, none = torch.randn(3, 4, requires_grad=True), torch.zeros(3, dtype=torch.bool)
    codes = sinkhorn(scores, valid=none)
    loss = swapped_cross_entropy(codes, codes, scores, scores, temperature=0.1, valid=none)
    loss.backward()
    assert float(loss.detach()) == 0.0 and float(codes.abs().max()) == 0.0
    assert scores.grad is not None and scores.grad.isfinite().all()


def whole(s1: Tensor, s2: Tensor, valid: Tensor) -> Tensor:
    """Every loss of this file over the batch of all processes, as one number."""
    codes = [sinkhorn(s.tanh(), eps=0.1, valid=valid) for s in (s1, s2)]
    targets = [centred_targets(s, torch.arange(4.0), temperature=0.5) for s in (s1, s2)]
    loss = swapped_cross_entropy(*codes, s1, s2, temperature=0.2, valid=valid)
    return loss + swapped_cross_entropy(*targets, s1, s2, temperature=0.7, valid=valid)


def _gradient(number: int, x: Tensor, weight: Tensor) -> tuple[float, list[list[float]]]:
    w = weight.clone().requires_grad_()
    loss = whole(*((half @ w).chunk(2)[number] for half in x), torch.tensor(VALID).chunk(2)[number])
    loss.backward()
    assert w.grad is not None
    dist.all_reduce(w.grad)  # what DDP does: the mean over processes
    return float(loss.detach()), (w.grad / 2).tolist()


@needs_two_processes
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    x, weight = draw(1, 2, 6, 5).float(), draw(2, 5, 4).float()
    w = weight.clone().requires_grad_()
    loss = whole(x[0] @ w, x[1] @ w, torch.tensor(VALID))
    loss.backward()
    for value, grad in run_in_two(_gradient, x, weight, store=tmp_path / "store"):
        assert value == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(torch.tensor(grad), w.grad, rtol=1e-4, atol=1e-5)
