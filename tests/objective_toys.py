"""A minute's training in seconds, healthy or ruined, and what the monitors read: for tests of objectives."""

from __future__ import annotations

import torch

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
