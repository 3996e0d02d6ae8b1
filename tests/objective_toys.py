"""For tests of objectives: a minute's training in seconds, healthy or ruined, what the monitors read, two processes, gaps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from two_processes import run_in_two

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.objectives.base import Objective
from biossl.signal import InputSpec
from biossl.training.monitors import Variances, embedding_std, rankme

RUINOUS = 30.0  # weight decay that takes a third of every matrix with every step at a learning rate of 0.01


def rhythms(spec: InputSpec, n: int, number: int) -> Batch:
    """Windows with a rhythm of their own each: rate, asymmetry and size differ, noise on top."""
    g = torch.Generator().manual_seed(number)
    time = torch.arange(spec.n_samples) / spec.sfreq
    rate, start = 1 + 3 * torch.rand(n, 1, 1, generator=g), torch.rand(n, 1, 1, generator=g)
    size = 0.5 + torch.rand(n, len(spec.ch_names), 1, generator=g)
    saw = (rate * time + start) % 1.0  # rises slowly, falls at once: backwards is different
    return Batch(size * (saw - 0.5 + 0.1 * torch.randn(n, 1, spec.n_samples, generator=g)), spec.ch_names, spec.sfreq)


def train(model: Objective, spec: InputSpec, *, steps: int, weight_decay: float = 0.0, lr: float = 1e-2, n: int = 16) -> None:
    """Steps on windows that are new every time."""
    optimizer = torch.optim.AdamW(
        [{k: g[k] for k in ("params", "weight_decay")} for g in model.param_groups(weight_decay)], lr=lr
    )
    for step in range(steps):
        optimizer.zero_grad()
        model.step(rhythms(spec, n, step), step=step, keys=Keys(0, step, torch.arange(n))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def reading(model: Objective, spec: InputSpec) -> dict[str, float]:
    """What the monitors read of a model on windows it has not seen."""
    batch = rhythms(spec, 64, 9999)
    z = model.encoder.embed(batch)  # type: ignore[operator]
    variances = Variances()
    variances.add(model.step(batch, step=0, keys=Keys(1, 0, torch.arange(64))).watch)
    return {"std": embedding_std(z), "rankme_centred": rankme(z, centred=True), **variances.take()}


def _gradients(number: int, model: Objective, batch: Batch, keys: Keys) -> dict[str, list[float]]:
    n = len(batch) // 2
    mine = slice(n * number, n * number + n)
    observed, subject = (None if t is None else t[mine] for t in (batch.observed, batch.subject))
    part = Batch(batch.x[mine], batch.channels, batch.sfreq, observed=observed, subject=subject)
    model.step(part, step=5, keys=Keys(keys.seed, keys.step, keys.position[mine], rank=number)).loss.backward()
    out = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)
            out[name] = (p.grad / 2).flatten().tolist()
    return out


def assert_two_processes_have_the_gradients_of_one(
    model: Objective, batch: Batch, keys: Keys, *, store: Path, rtol: float = 1e-3, atol: float = 1e-5, scaled: bool = False
) -> None:
    """A step on the halves of a batch gives every trained weight the gradient of the whole; ``scaled``: atol is of the largest."""
    one = copy.deepcopy(model)
    one.step(batch, step=5, keys=keys).loss.backward()
    want = {name: p.grad.flatten().double() for name, p in one.named_parameters() if p.grad is not None}
    assert want.keys() == {name for name, p in one.named_parameters() if p.requires_grad}
    for grads in run_in_two(_gradients, model, batch, keys, store=store):
        assert grads.keys() == want.keys()
        for name, gradient in want.items():
            size = max(1.0, float(gradient.abs().max())) if scaled else 1.0
            got = torch.tensor(grads[name], dtype=torch.float64)
            torch.testing.assert_close(got, gradient, rtol=rtol, atol=atol * size, msg=lambda m, name=name: f"{name}: {m}")


def assert_gaps_never_count(
    loss_of: Callable[[Batch, Keys], Tensor], trained: nn.Module, batch: Batch, keys: Keys, seen: Tensor
) -> None:
    """A window without a signal is as if it were not there; what a file held in a gap is not read; gradients are finite.

    ``seen`` (B, C, T) is False throughout in some windows and in parts of others.
    """
    keep = seen.flatten(1).any(dim=1).nonzero().flatten()
    assert 2 <= len(keep) < len(batch) and not bool(seen[keep].all())
    holed = Batch(batch.x * seen, batch.channels, batch.sfreq, observed=seen)
    loss = loss_of(holed, keys)
    fewer = Batch(holed.x[keep], batch.channels, batch.sfreq, observed=seen[keep])
    without = loss_of(fewer, Keys(keys.seed, keys.step, keys.position[keep]))
    torch.testing.assert_close(loss, without, rtol=1e-5, atol=0)
    filled = Batch(torch.where(seen, batch.x, 7.0), batch.channels, batch.sfreq, observed=seen)
    torch.testing.assert_close(loss_of(filled, keys), loss, rtol=1e-6, atol=0)
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in trained.parameters() if p.grad is not None)
