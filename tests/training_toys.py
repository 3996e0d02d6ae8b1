"""A tiny objective and tiny recipes for the tests of the training loop: ``from training_toys import Toy, small_recipe``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.objectives.base import Objective, Outcome
from biossl.recipe import Recipe, load_recipe
from biossl.training.data import Source, make_loader, make_order
from biossl.training.loop import Loop

SMALL = {
    "train.steps": "8", "data.batch_size": "8", "model.dim": "16", "model.depth": "2", "model.heads": "2", "model.drop_path": "0.2",
    "objective.target_layers": "1", "objective.predictor.dim": "16", "objective.predictor.depth": "1",
    "objective.predictor.heads": "2", "train.schedule.warmup_steps": "2", "monitor.every": "4", "monitor.samples": "8",
    "monitor.log_every": "2", "checkpoint.every": "3",
}  # fmt: skip


def small_recipe(**overrides: Any) -> Recipe:
    """The packaged IMU recipe at a size of seconds; ``train__steps=4`` overrides ``train.steps``."""
    return load_recipe("imu/jepa_small", SMALL | {k.replace("__", "."): str(v) for k, v in overrides.items()})


class ToyEncoder(nn.Module):
    """Channel means through a linear layer, with a running mean as buffer."""

    dim = 4

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, self.dim)
        self.drop = nn.Dropout(dropout)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x.mean(dim=2) + x.std(dim=2))
        if self.training:
            self.mean.lerp_(z.detach().float().mean(dim=0), 0.1)
        return self.drop(z)

    def embed(self, batch: Batch) -> Tensor:
        return self.linear(batch.x.std(dim=2))


class Toy(Objective):
    """Predicts what an averaged copy says of the same windows; remembers what it was given."""

    def __init__(self, channels: int = 6, *, dropout: float = 0.0, momentum: float = 0.8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder: ToyEncoder = ToyEncoder(channels, dropout)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self.head = nn.Linear(4, 4)
        self.momentum = momentum
        self.given: list[tuple[int, list[int], Tensor]] = []
        self.source_after: dict[int, dict[str, Tensor]] = {}

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        assert batch.index is not None
        self.given.append((step, batch.index.tolist(), keys.uniform((2,), 1)))
        target = self.target(batch.x).detach() + 1.0
        prediction = self.head(self.encoder(batch.x))
        loss = (prediction - target).square().mean()
        return Outcome(loss, {"mse": loss.detach()}, {"target": target, "prediction": prediction.detach()})

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.encoder, self.target)]

    def ema_momentum(self, step: int) -> float:
        state = {k: v.double().clone() for k, v in self.encoder.state_dict().items()}
        self.source_after.setdefault(step, state)  # the loop asks right after the optimiser moved
        return self.momentum + 0.01 * step


def toy_loop(objective: Objective, recipe: Recipe, sources: list[Source], **kw: Any) -> Loop:
    """A loop over ``sources`` from step 0."""
    order, _ = make_order(
        sources, objective.needs, batch_size=recipe.data.batch_size, accumulate=recipe.train.accumulate, seed=recipe.seed,
        steps=recipe.train.steps,
    )  # fmt: skip

    def loader(rank: int, world: int) -> Any:
        return make_loader(
            sources, order, accumulate=recipe.train.accumulate, start_step=0, steps=recipe.train.steps,
            workers=recipe.data.workers, rank=rank, world=world,
        )  # fmt: skip

    return Loop(objective, recipe, sources=sources, loader=loader, **kw)
