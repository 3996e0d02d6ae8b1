"""The optimiser and its scheduled values.

What lives here: fused AdamW over the groups an objective names, and setting learning rate and weight decay from pure
functions of the step. A group may carry ``lr_scale`` (layer-wise decay); its ``weight_decay`` is a factor as well.
"""

from __future__ import annotations

import torch

from biossl.objectives.base import Objective
from biossl.recipe.schema import Train


def make_optimizer(objective: Objective, train: Train) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) of an objective's trainable parameters."""
    groups = objective.param_groups(1.0)
    for group in groups:
        group["decay_scale"] = group.pop("weight_decay")
        group.setdefault("lr_scale", 1.0)
    beta1, beta2 = train.optimizer.betas
    fused = all(p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=0.0, betas=(beta1, beta2), eps=train.optimizer.eps, fused=fused
    )


def set_schedule(optimizer: torch.optim.Optimizer, train: Train, step: int) -> None:
    """Learning rate and weight decay of optimiser step ``step`` (0-based)."""
    lr, decay = train.lr(step), train.weight_decay(step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = decay * group["decay_scale"]
