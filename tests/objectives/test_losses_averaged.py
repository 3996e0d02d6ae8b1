"""Losses between a network and its averaged copy against explicit float64 loops; two processes; wrong versions are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.objectives.losses_averaged import cosine_distance, queue_nce

VALID = [True, True, False, True, False, True]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def rows_of(n: int, valid: list[bool] | None) -> list[int]:
    return [i for i in range(n) if valid is None or valid[i]]


def as_tensor(valid: list[bool] | None) -> Tensor | None:
    return None if valid is None else torch.tensor(valid)


def slow_queue(
    q: Tensor, k: Tensor, queue: Tensor, allowed: Tensor, t: float, valid: list[bool] | None = None, mutant: str = ""
) -> Tensor:
    losses = []
    for i in rows_of(len(q), valid):
        own = cos(q[i], k[i].detach()) / t
        others = [cos(q[i], queue[j]) / t for j in range(len(queue)) if bool(allowed[i, j]) or mutant == "all_of_the_queue"]
        if mutant == "others_of_the_batch":
            others += [cos(q[i], k[j].detach()) / t for j in rows_of(len(q), valid) if j != i]
        total = sum(o.exp() for o in others) + (0.0 if mutant == "key_not_in_denominator" else own.exp())
        losses.append(torch.as_tensor(total).log() - own)
    return sum(losses) / len(losses)  # type: ignore[return-value]


def slow_distance(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor, valid: list[bool] | None = None, mutant: str = "") -> Tensor:
    rows, total = rows_of(len(p1), valid), p1.new_zeros(())
    if mutant == "own_view":
        t1, t2 = t2, t1
    for i in rows:
        for p, t in ((p1, t2), (p2, t1)):
            if mutant == "not_normalised":
                total = total + ((p[i] - t[i].detach()) ** 2).sum()
            else:
                total = total + 2 - 2 * cos(p[i], t[i].detach())
    return total / (1 if mutant == "sum" else len(rows))


def same_with_gradient(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    here = [z.clone().requires_grad_() for z in inputs]
    there = [z.clone().requires_grad_() for z in inputs]
    a, b = fast(*here), slow(*there)
    assert a.dtype == torch.float32
    torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
    a.backward()
    b.backward()
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_queue_nce_equals_the_loop_and_a_wrong_one_would_be_seen(t: float, valid: list[bool] | None) -> None:
    q, k, queue, allowed = draw(1, 6, 5), draw(2, 6, 5), draw(3, 9, 5), mask(4, 6, 9)

    def fast(q: Tensor) -> Tensor:
        return queue_nce(q, k, queue, temperature=t, allowed=allowed, valid=as_tensor(valid))

    same_with_gradient(fast, lambda q: slow_queue(q, k, queue, allowed, t, valid), q)
    for mutant in ("all_of_the_queue", "others_of_the_batch", "key_not_in_denominator"):
        assert abs(float(fast(q)) - float(slow_queue(q, k, queue, allowed, t, valid, mutant))) > 1e-3, mutant


@pytest.mark.parametrize("valid", [None, VALID])
def test_cosine_distance_equals_the_loop_and_a_wrong_one_would_be_seen(valid: list[bool] | None) -> None:
    p1, p2, t1, t2 = (draw(seed, 6, 5) for seed in range(4))

    def fast(p1: Tensor, p2: Tensor) -> Tensor:
        return cosine_distance(p1, p2, t1, t2, valid=as_tensor(valid))

    same_with_gradient(fast, lambda p1, p2: slow_distance(p1, p2, t1, t2, valid), p1, p2)
    for mutant in ("own_view", "not_normalised", "sum"):
        assert abs(float(fast(p1, p2)) - float(slow_distance(p1, p2, t1, t2, valid, mutant))) > 1e-2, mutant
    assert float(cosine_distance(p1, p2, p2, p1)) == pytest.approx(0.0, abs=1e-5)


def test_no_gradient_reaches_keys_queue_or_targets() -> None:
    q, k, queue = (z.requires_grad_() for z in (draw(1, 6, 5), draw(2, 6, 5), draw(3, 9, 5)))
    loss = queue_nce(q, k, queue, temperature=0.2, allowed=mask(4, 6, 9)) + cosine_distance(q, q * 2, k, k)
    loss.backward()
    assert q.grad is not None and k.grad is None and queue.grad is None


def test_a_query_that_is_compared_with_nothing_adds_nothing() -> None:
    q = draw(1, 2, 4).requires_grad_()
    loss = queue_nce(q, draw(2, 2, 4), draw(3, 5, 4), temperature=0.1, allowed=torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0 and q.grad is not None and q.grad.abs().max() < 1e-6


def every(z1: Tensor, z2: Tensor, valid: Tensor, allowed: Tensor) -> list[Tensor]:
    """Every loss of this file, of two networks' outputs (B, 4)."""
    return [
        queue_nce(z1, z2, draw(3, 9, 4), temperature=0.2, allowed=allowed, valid=valid),
        cosine_distance(z1, z2, z2 * z1, z1, valid=valid),
    ]


def test_nothing_observed_anywhere_is_zero_not_nan_and_a_collapse_has_a_finite_gradient() -> None:
    none, some = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    z = torch.randn(4, 4, requires_grad=True)
    assert [float(loss.detach()) for loss in every(z, z, none, mask(1, 4, 9))] == [0.0] * len(every(z, z, none, mask(1, 4, 9)))
    for value in (0.0, 1.0):
        same = torch.full((4, 4), value, requires_grad=True)
        loss = torch.stack(every(same, same, some, mask(1, 4, 9))).sum()
        loss.backward()
        assert loss.isfinite() and same.grad is not None and same.grad.isfinite().all()


def test_losses_are_float32_inside_autocast() -> None:
    z1, z2, some, allowed = draw(1, 4, 4).float(), draw(2, 4, 4).float(), torch.ones(4, dtype=torch.bool), mask(1, 4, 9)
    plain = every(z1, z2, some, allowed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(every(z1, z2, some, allowed), plain, strict=True))
    assert all(loss.dtype == torch.float32 for loss in every(z1.bfloat16(), z2.bfloat16(), some, allowed))


def _gradient(number: int, x: Tensor, weight: Tensor, valid: Tensor, allowed: Tensor) -> tuple[list[float], list[list[float]]]:
    w = weight.clone().requires_grad_()
    z1, z2 = ((half @ w).chunk(2)[number] for half in x)
    losses = torch.stack(every(z1, z2, valid.chunk(2)[number], allowed.chunk(2)[number]))
    (losses * torch.arange(1, len(losses) + 1)).sum().backward()
    assert w.grad is not None
    dist.all_reduce(w.grad)  # what DDP does: the mean over processes
    return losses.tolist(), (w.grad / 2).tolist()


@needs_two_processes
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    x, weight, valid = draw(1, 2, 6, 5).float(), draw(2, 5, 4).float(), torch.tensor(VALID)
    w, allowed = weight.clone().requires_grad_(), mask(5, 6, 9)
    losses = torch.stack(every(x[0] @ w, x[1] @ w, valid, allowed))
    (losses * torch.arange(1, len(losses) + 1)).sum().backward()
    answers: list[Any] = run_in_two(_gradient, x, weight, valid, allowed, store=tmp_path / "store")
    for values, grad in answers:
        torch.testing.assert_close(torch.tensor(values), losses.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.tensor(grad), w.grad, rtol=1e-4, atol=1e-5)
