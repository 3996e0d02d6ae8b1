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

from biossl.objectives.losses_moments import cpc_nce

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
