"""Losses over a batch against explicit float64 loops: values, gradients, every mode, two processes; wrong versions are seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.objectives.losses_contrastive import barlow_twins, clocs_nce, nt_xent, vicreg

MODES = ("negative", "positive", "drop")


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def slow_nt_xent(
    z1: Tensor, z2: Tensor, subject: list[int], t: float, mode: str, valid: list[bool] | None = None, mutant: str = ""
) -> Tensor:
    B = len(z1)
    views = [(i, z) for z in (z1, z2) for i in range(B)]  # (window, view)
    keep = [v for v in range(2 * B) if valid is None or valid[v % B]]
    losses = []
    for a in keep[: len(keep) // 2] if mutant == "one_direction" else keep:
        positives, others = [], []
        for b in keep:
            if b == a and mutant != "self_in_denominator":
                continue
            window, person = a % B == b % B, subject[a % B] == subject[b % B]
            if b != a and (window or (person and mode == "positive")):
                positives.append(b)
            if mode == "drop" and mutant != "nothing_dropped" and person and not window:
                continue
            others.append(b)
        total = sum((cos(views[a][1][a % B], views[b][1][b % B]) / t).exp() for b in others)
        shares = [-(cos(views[a][1][a % B], views[b][1][b % B]) / t) + total.log() for b in positives]  # type: ignore[union-attr]
        losses.append(sum(shares) / len(shares))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def slow_clocs(
    a: Tensor, b: Tensor, subject: list[int], t: float, valid: list[list[bool]] | None = None, mutant: str = ""
) -> Tensor:
    out = []
    for g in range(len(a)):
        rows = [i for i in range(a.shape[1]) if valid is None or valid[g][i]]
        terms = []
        for i in rows:
            for j in rows:
                if subject[i] != subject[j] or (mutant == "own_pair_only" and i != j):
                    continue
                here = cos(a[g, i], b[g, j]) / t
                there = sum((cos(a[g, i], b[g, k]) / t).exp() for k in rows)
                back = sum((cos(a[g, k], b[g, j]) / t).exp() for k in rows)
                terms.append((there / here.exp()).log())
                if mutant != "one_direction":
                    terms[-1] = terms[-1] + (back / here.exp()).log()
        out.append(sum(terms) / len(terms))
    return sum(out) / len(out)  # type: ignore[return-value]


def slow_vicreg(z1: Tensor, z2: Tensor, valid: list[bool] | None = None, mutant: str = "") -> Tensor:
    rows = [i for i in range(len(z1)) if valid is None or valid[i]]
    n, D = len(rows), z1.shape[1]
    invariance = sum(((z1[i] - z2[i]) ** 2).sum() for i in rows) / (n * D)
    variance, covariance = z1.new_zeros(()), z1.new_zeros(())
    for z in (z1, z2):
        mean = [sum(z[i, d] for i in rows) / n for d in range(D)]
        for d in range(D):
            for e in range(D):
                cov = sum((z[i, d] - mean[d]) * (z[i, e] - mean[e]) for i in rows) / (n if mutant == "biased" else n - 1)
                if d == e:
                    variance = variance + torch.relu(1 - (cov + 1e-4).sqrt()) / D / (1 if mutant == "not_halved" else 2)  # type: ignore[union-attr]
                else:
                    covariance = covariance + cov**2 / (D * (D - 1) if mutant == "mean_off_diagonal" else D)
    return torch.stack([invariance, variance, covariance])  # type: ignore[list-item]


def slow_barlow(z1: Tensor, z2: Tensor, lam: float, valid: list[bool] | None = None, mutant: str = "") -> Tensor:
    rows = [i for i in range(len(z1)) if valid is None or valid[i]]
    n, D = len(rows), z1.shape[1]

    def standard(z: Tensor, d: int) -> list[Tensor]:
        mean = sum(z[i, d] for i in rows) / n
        var = sum((z[i, d] - mean) ** 2 for i in rows) / n
        return [(z[i, d] - (0 if mutant == "not_centred" else mean)) / (var + 1e-5) ** 0.5 for i in rows]

    on, off = z1.new_zeros(()), z1.new_zeros(())
    for d in range(D):
        for e in range(D):
            c = sum(p * q for p, q in zip(standard(z1, d), standard(z2 if mutant != "one_view" else z1, e), strict=True)) / n
            if d == e:
                on = on + (1 - c) ** 2
            else:
                off = off + lam * c**2
    return torch.stack([on, off])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(seed: int, n: int, d: int) -> tuple[Tensor, Tensor]:
    z1 = 2 * draw(seed, n, d) + 0.3
    return z1, z1 + 0.5 * draw(seed + 1, n, d)


def same_with_gradient(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    here = [z.clone().requires_grad_() for z in inputs]
    there = [z.clone().requires_grad_() for z in inputs]
    a, b = fast(*here), slow(*there)
    weight = torch.arange(1, a.numel() + 1, dtype=torch.float64).view(a.shape)  # so that no term hides behind another
    torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-5)


def stacked(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values()))


SUBJECT = [0, 0, 1, 2, 2, 2, 3]
VALID = [True, True, False, True, False, True, True]


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_nt_xent_equals_the_double_loop(mode: Any, t: float, valid: list[bool] | None) -> None:
    fast = partial(
        nt_xent,
        temperature=t,
        subject=torch.tensor(SUBJECT),
        same_subject=mode,
        valid=None if valid is None else torch.tensor(valid),
    )
    same_with_gradient(fast, lambda a, b: slow_nt_xent(a, b, SUBJECT, t, mode, valid), *views(3, 7, 5))


@pytest.mark.parametrize(
    ("mode", "mutant"), [("negative", "self_in_denominator"), ("negative", "one_direction"), ("drop", "nothing_dropped")]
)
def test_a_wrong_nt_xent_would_be_seen(mode: Any, mutant: str) -> None:
    z1, z2 = views(3, 7, 5)
    right = float(nt_xent(z1, z2, temperature=0.5, subject=torch.tensor(SUBJECT), same_subject=mode))
    assert abs(right - float(slow_nt_xent(z1, z2, SUBJECT, 0.5, mode, mutant=mutant))) > 1e-3
    values = {m: float(nt_xent(z1, z2, temperature=0.5, subject=torch.tensor(SUBJECT), same_subject=m)) for m in MODES}
    assert len({round(v, 2) for v in values.values()}) == 3  # the modes are three losses


@pytest.mark.parametrize("valid", [None, [VALID, VALID[::-1]]])
def test_clocs_equals_the_double_loop_and_a_wrong_one_would_be_seen(valid: list[list[bool]] | None) -> None:
    a, b = draw(1, 2, 7, 5), draw(2, 2, 7, 5)
    fast = partial(
        clocs_nce, temperature=0.4, subject=torch.tensor(SUBJECT), valid=None if valid is None else torch.tensor(valid)
    )
    same_with_gradient(fast, lambda x, y: slow_clocs(x, y, SUBJECT, 0.4, valid), a, b)
    for mutant in ("one_direction", "own_pair_only"):
        assert abs(float(fast(a, b)) - float(slow_clocs(a, b, SUBJECT, 0.4, valid, mutant))) > 1e-2


@pytest.mark.parametrize("valid", [None, VALID])
def test_vicreg_equals_the_slow_loop_and_a_wrong_one_would_be_seen(valid: list[bool] | None) -> None:
    z1, z2 = (0.3 * z for z in views(5, 7, 4))
    given_valid = None if valid is None else torch.tensor(valid)
    same_with_gradient(lambda a, b: stacked(vicreg(a, b, valid=given_valid)), lambda a, b: slow_vicreg(a, b, valid), z1, z2)
    right = stacked(vicreg(z1, z2, valid=given_valid)).double()
    for mutant in ("biased", "not_halved", "mean_off_diagonal"):
        assert (right - slow_vicreg(z1, z2, valid, mutant)).abs().max() > 1e-3


@pytest.mark.parametrize("valid", [None, VALID])
def test_barlow_twins_equals_the_slow_loop_and_a_wrong_one_would_be_seen(valid: list[bool] | None) -> None:
    z1, z2 = views(6, 7, 4)
    given_valid = None if valid is None else torch.tensor(valid)
    fast = partial(barlow_twins, lam=0.1, valid=given_valid)
    same_with_gradient(lambda a, b: stacked(fast(a, b)), lambda a, b: slow_barlow(a, b, 0.1, valid), z1, z2)
    right = stacked(fast(z1, z2)).double()
    for mutant in ("not_centred", "one_view"):
        assert (right - slow_barlow(z1, z2, 0.1, valid, mutant)).abs().max() > 1e-2


@given(n=st.integers(2, 9), people=st.integers(1, 4), mode=st.sampled_from(MODES), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_any_mix_of_subjects_gives_a_finite_loss_and_gradient(n: int, people: int, mode: Any, seed: int) -> None:
    subject = torch.randint(people, (n,), generator=torch.Generator().manual_seed(seed))
    z = torch.cat([draw(seed, n, 3), draw(seed + 1, n, 3)]).float().requires_grad_()
    loss = nt_xent(*z.chunk(2), temperature=0.05, subject=subject, same_subject=mode)
    loss = loss + clocs_nce(z[None, :n], z[None, n:], temperature=0.05, subject=subject)
    loss.backward()
    assert loss.isfinite() and z.grad is not None and z.grad.isfinite().all()


def test_a_batch_of_one_subject_is_defined() -> None:
    z1, z2 = (z.float().requires_grad_() for z in views(1, 4, 3))
    one = torch.zeros(4, dtype=torch.int64)
    dropped = nt_xent(z1, z2, temperature=0.1, subject=one, same_subject="drop")
    dropped.backward()
    assert float(dropped.detach()) == 0.0 and z1.grad is not None and z1.grad.abs().max() < 1e-6  # nothing to learn from it
    alike = torch.ones(4, 3)
    together = nt_xent(alike, alike, temperature=0.1, subject=one, same_subject="positive")
    assert float(together) == pytest.approx(math.log(7), abs=1e-5)  # all views equally near: its least value


def test_nothing_observed_anywhere_is_zero_not_nan() -> None:
    z, none = torch.randn(3, 4), torch.zeros(3, dtype=torch.bool)
    assert float(nt_xent(z, z, temperature=0.1, valid=none)) == 0.0
    assert float(clocs_nce(z[None], z[None], temperature=0.1, subject=torch.arange(3), valid=none[None])) == 0.0
    assert all(v.isfinite() for terms in (vicreg(z, z, valid=none), barlow_twins(z, z, valid=none)) for v in terms.values())


def test_a_collapsed_embedding_has_a_finite_gradient() -> None:
    for value in (0.0, 1.0):
        z = torch.full((4, 3), value, requires_grad=True)
        loss = nt_xent(z, z, temperature=0.1) + sum(vicreg(z, z).values()) + sum(barlow_twins(z, z).values())
        loss.backward()
        assert loss.isfinite() and z.grad is not None and z.grad.isfinite().all()


def test_losses_are_float32_inside_autocast() -> None:
    z1, z2 = (z.float() for z in views(8, 6, 16))
    run: list[Callable[[], Tensor]] = [
        lambda: nt_xent(z1, z2, temperature=0.1),
        lambda: clocs_nce(z1[None], z2[None], temperature=0.1, subject=torch.arange(6)),
        lambda: stacked(vicreg(z1, z2)),
        lambda: stacked(barlow_twins(z1, z2)),
    ]
    plain = [f() for f in run]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for f, value in zip(run, plain, strict=True):
            assert torch.equal(f(), value) and value.dtype == torch.float32
    assert nt_xent(z1.bfloat16(), z2.bfloat16(), temperature=0.1).dtype == torch.float32


def test_same_subject_needs_subjects() -> None:
    z = torch.randn(3, 4)
    with pytest.raises(ValueError, match="same_subject 'drop' needs the subject"):
        nt_xent(z, z, temperature=0.1, same_subject="drop")


def whole(z1: Tensor, z2: Tensor, subject: Tensor, valid: Tensor) -> Tensor:
    """Every loss of this file over the batch of all processes, as one number."""
    loss = sum(nt_xent(z1, z2, temperature=0.2, subject=subject, same_subject=m, valid=valid) for m in ("positive", "drop"))
    loss = loss + nt_xent(z1, z2, temperature=0.2)
    loss = loss + clocs_nce(
        torch.stack([z1, z2]), torch.stack([z2, z1 * z2]), temperature=0.2, subject=subject, valid=torch.stack([valid, ~valid])
    )
    loss = loss + sum(vicreg(z1, z2, valid=valid).values())
    return loss + sum(barlow_twins(z1, z2, valid=valid).values())


def _gradient(number: int, x: Tensor, weight: Tensor) -> tuple[float, list[list[float]]]:
    w = weight.clone().requires_grad_()
    z1, z2 = ((half @ w).chunk(2)[number] for half in x)
    subject, valid = (torch.tensor(v).chunk(2)[number] for v in ([*SUBJECT, 3], [*VALID, True]))
    loss = whole(z1, z2, subject, valid)
    loss.backward()
    assert w.grad is not None
    dist.all_reduce(w.grad)  # what DDP does: the mean over processes
    return float(loss.detach()), (w.grad / 2).tolist()


@needs_two_processes
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    x, weight = draw(1, 2, 8, 5).float(), draw(2, 5, 4).float()
    w = weight.clone().requires_grad_()
    loss = whole(x[0] @ w, x[1] @ w, torch.tensor([*SUBJECT, 3]), torch.tensor([*VALID, True]))
    loss.backward()
    for value, grad in run_in_two(_gradient, x, weight, store=tmp_path / "store"):
        assert value == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(torch.tensor(grad), w.grad, rtol=1e-4, atol=1e-5)
