"""Losses between moments of windows against explicit float64 loops: values, gradients, gaps, two processes, mutants."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.objectives.losses_moments import cpc_nce, equivariance_nce, hierarchical_contrast

NEGATIVES = ("both", "same_sequence", "other_windows")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def same_with_gradient(fast: Any, slow: Any, *inputs: Tensor) -> None:
    here = [z.clone().requires_grad_() for z in inputs]
    there = [z.clone().requires_grad_() for z in inputs]
    a, b = fast(*here), slow(*there)
    torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
    a.backward()
    b.backward()
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-5)


def slow_cpc(p: Tensor, z: Tensor, t: float, negatives: str, valid: Tensor | None = None, mutant: str = "") -> Tensor:
    B, K, _ = p.shape
    pairs = [(b, k) for b in range(B) for k in range(K) if valid is None or valid[b, k]]
    losses = []
    for b, k in pairs:
        total = p.new_zeros(())
        for c, m in pairs:
            own = (c, m) == (b, k)
            wanted = {"both": True, "same_sequence": c == b, "other_windows": c != b or own}[negatives]
            if mutant == "same_step_only" and m != k:
                wanted = False
            if mutant == "no_positive_below" and own:
                wanted = False
            if wanted:
                total = total + (cos(p[b, k], z[c, m]) / t).exp()
        losses.append(total.log() - cos(p[b, k], z[b, k]) / t)
    return sum(losses) / len(losses)  # type: ignore[return-value]


VALID = torch.tensor([[True, True, False], [True, True, True], [False, False, False], [True, False, True]])


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_cpc_equals_the_double_loop(negatives: Any, valid: Tensor | None) -> None:
    fast = partial(cpc_nce, temperature=0.3, negatives=negatives, valid=valid)
    same_with_gradient(fast, lambda a, b: slow_cpc(a, b, 0.3, negatives, valid), draw(1, 4, 3, 5), draw(2, 4, 3, 5))


def test_a_wrong_cpc_would_be_seen() -> None:
    p, z = draw(1, 4, 3, 5), draw(2, 4, 3, 5)
    right = float(cpc_nce(p, z, temperature=0.3))
    for mutant in ("same_step_only", "no_positive_below"):
        assert abs(right - float(slow_cpc(p, z, 0.3, "both", mutant=mutant))) > 1e-2
    values = {round(float(cpc_nce(p, z, temperature=0.3, negatives=n)), 2) for n in NEGATIVES}  # type: ignore[arg-type]
    assert len(values) == 3  # three losses


def slow_hierarchy(z1: Tensor, z2: Tensor, alpha: float, valid: Tensor | None = None, mutant: str = "") -> Tensor:
    """Windows, times, views and scales one at a time."""
    here = {(v, i, t): z[i, t] for v, z in enumerate((z1, z2)) for i in range(len(z1)) for t in range(z1.shape[1])}
    if valid is not None:
        here = {k: z for k, z in here.items() if valid[k[1], k[2]]}
    L, total, scales = z1.shape[1], z1.new_zeros(()), 0
    while L >= 1:
        for weight, fixed in ((alpha, 2), (1 - alpha, 1)):
            if fixed == 1 and L == 1:
                continue
            losses = []
            for k, z in here.items():
                if mutant == "one_view" and k[0]:
                    continue
                positive = here[1 - k[0], k[1], k[2]]
                others = [y for j, y in here.items() if j != k and j[fixed] == k[fixed]]
                if mutant == "across_views_only":
                    others = [y for j, y in here.items() if j[0] != k[0] and j[fixed] == k[fixed]]
                losses.append(torch.stack([z @ y for y in others]).exp().sum().log() - z @ positive)
            total = total + weight * torch.stack(losses).mean()
        scales, L = scales + 1, L // 2
        pooled: dict[Any, Tensor] = {}
        for (v, i, t), z in here.items():
            key = (v, i, t // 2)
            if t // 2 < L:
                pooled[key] = torch.maximum(pooled[key], z) if key in pooled else z
                if mutant == "mean_pool" and (v, i, t ^ 1) in here:
                    pooled[key] = (z + here[v, i, t ^ 1]) / 2
        here = pooled
    return total / scales


TIMES = torch.tensor([[1, 1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1], [0] * 7, [1, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize("valid", [None, TIMES])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_the_hierarchy_equals_the_slow_loops(alpha: float, valid: Tensor | None) -> None:
    z1 = 0.7 * draw(1, 4, 7, 5)
    z2 = z1 + 0.3 * draw(2, 4, 7, 5)
    same_with_gradient(
        lambda a, b: torch.stack(list(hierarchical_contrast(a, b, alpha=alpha, valid=valid).values())).sum(),
        lambda a, b: slow_hierarchy(a, b, alpha, valid), z1, z2,
    )  # fmt: skip


def test_a_wrong_hierarchy_would_be_seen() -> None:
    z1 = 0.7 * draw(1, 4, 7, 5)
    z2 = z1 + 0.3 * draw(2, 4, 7, 5)
    right = sum(float(t) for t in hierarchical_contrast(z1, z2).values())
    for mutant in ("one_view", "across_views_only", "mean_pool"):
        assert abs(right - float(slow_hierarchy(z1, z2, 0.5, mutant=mutant))) > 1e-3, mutant
    terms = hierarchical_contrast(z1[:, :1], z2[:, :1])
    assert float(terms["temporal"]) == 0.0 < float(terms["instance"])  # one time is told from no other
    nothing = hierarchical_contrast(z1, z2, valid=torch.zeros_like(TIMES))
    assert all(float(t) == 0.0 for t in nothing.values())


def slow_equivariance(p: Tensor, t: Tensor, temperature: float, valid: Tensor | None = None, mutant: str = "") -> Tensor:
    B, N, _ = p.shape
    tokens = [(b, i) for b in range(B) for i in range(N) if valid is None or valid[b, i]]
    losses = []
    for b, i in tokens:
        own = cos(p[b, i], t[b, i]) / temperature
        below = own.exp()
        for c, j in tokens:
            if c != b or (mutant == "own_window_too" and j != i):
                below = below + (cos(p[b, i], t[c, j]) / temperature).exp() * (mutant != "same_place" or j == i)
        losses.append(below.log() - own)
    return sum(losses) / len(losses)  # type: ignore[return-value]


@pytest.mark.parametrize("valid", [None, VALID])
def test_equivariance_equals_the_double_loop_and_a_wrong_one_would_be_seen(valid: Tensor | None) -> None:
    p, t = draw(1, 4, 3, 5), draw(2, 4, 3, 5)
    fast = partial(equivariance_nce, temperature=0.4, valid=valid)
    same_with_gradient(fast, lambda a, b: slow_equivariance(a, b, 0.4, valid), p, t)
    for mutant in ("own_window_too", "same_place"):
        assert abs(float(fast(p, t)) - float(slow_equivariance(p, t, 0.4, valid, mutant))) > 1e-2
    assert float(equivariance_nce(p[:1], t[:1], temperature=0.4)) == pytest.approx(0.0, abs=1e-6)  # one window: nothing to tell


def test_what_does_not_count_has_no_gradient_and_nothing_at_all_is_zero() -> None:
    p, z = (draw(s, 4, 3, 5).requires_grad_() for s in (1, 2))
    cpc_nce(p, z, temperature=0.3, valid=VALID).backward()
    for x in (p, z):
        assert x.grad is not None and bool((x.grad[~VALID] == 0).all()) and bool((x.grad[VALID] != 0).any())
    nothing = cpc_nce(p, z, temperature=0.3, valid=torch.zeros_like(VALID))
    nothing.backward()
    assert float(nothing.detach()) == 0.0 and bool(z.grad.isfinite().all())  # type: ignore[union-attr]


def test_a_collapsed_embedding_has_a_finite_gradient() -> None:
    for value in (0.0, 1.0):
        z = torch.full((4, 3, 5), value, requires_grad=True)
        loss = cpc_nce(z, z, temperature=0.1)
        loss.backward()
        assert loss.isfinite() and z.grad is not None and z.grad.isfinite().all()


def test_losses_are_float32_inside_autocast() -> None:
    p, z = draw(1, 4, 3, 8).float(), draw(2, 4, 3, 8).float()
    plain = cpc_nce(p, z, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cpc_nce(p, z, temperature=0.1), plain) and plain.dtype == torch.float32
    assert cpc_nce(p.bfloat16(), z.bfloat16(), temperature=0.1).dtype == torch.float32


def whole(p: Tensor, z: Tensor, valid: Tensor) -> Tensor:
    """Every loss of this file over the batch of all processes, as one number."""
    losses = [cpc_nce(p, z, temperature=0.2, negatives=n, valid=valid) for n in NEGATIVES]  # type: ignore[arg-type]
    losses += [equivariance_nce(p, z, temperature=0.4, valid=valid), equivariance_nce(p, z, temperature=0.4)]
    losses += hierarchical_contrast(p, z, valid=valid).values()
    losses += hierarchical_contrast(p, z, alpha=0.3).values()
    return sum(losses) + cpc_nce(p, z, temperature=0.5)  # type: ignore[return-value]


def _gradient(number: int, x: Tensor, weight: Tensor) -> tuple[float, list[list[float]]]:
    w = weight.clone().requires_grad_()
    p, z = ((half @ w).chunk(2)[number] for half in x)
    loss = whole(p, z, VALID.chunk(2)[number])
    loss.backward()
    assert w.grad is not None
    dist.all_reduce(w.grad)  # what DDP does: the mean over processes
    return float(loss.detach()), (w.grad / 2).tolist()


@needs_two_processes
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    x, weight = draw(1, 2, 4, 3, 6).float(), draw(2, 6, 4).float()
    w = weight.clone().requires_grad_()
    loss = whole(x[0] @ w, x[1] @ w, VALID)
    loss.backward()
    for value, grad in run_in_two(_gradient, x, weight, store=tmp_path / "store"):
        assert value == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(torch.tensor(grad), w.grad, rtol=1e-4, atol=1e-5)
