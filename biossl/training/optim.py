"""The optimiser and its scheduled values.

What lives here: fused AdamW over the groups an objective names, layer-wise decay of the learning rate, and setting
learning rate and weight decay from pure functions of the step. A group may carry ``lr_scale``; its ``weight_decay`` is a
factor as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from biossl.errors import RequestError
from biossl.objectives.base import Objective
from biossl.recipe.schema import Train


def make_optimizer(objective: Objective, train: Train) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) of an objective's trainable parameters.

    With ``train.optimizer.layer_decay`` d below 1 the encoder learns the slower the nearer to the signal (as in BEiT and
    MAE fine-tuning, arXiv 2106.08254, 2111.06377): block i of L (from 0) has the learning rate times d^(L - i), what comes
    before the blocks d^(L + 1), what comes after them and everything outside the encoder 1.

    Raises
    ------
    RequestError
        ``layer_decay`` for an encoder without blocks.
    """
    groups = objective.param_groups(1.0)
    if train.optimizer.layer_decay != 1.0:
        scales = layer_scales(objective.encoder, train.optimizer.layer_decay)
        groups = [part for group in groups for part in _by_scale(group, scales)]
    for group in groups:
        group["decay_scale"] = group.pop("weight_decay")
        group.setdefault("lr_scale", 1.0)
    beta1, beta2 = train.optimizer.betas
    fused = all(p.device.type in ("cpu", "cuda") for g in groups for p in g["params"])
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=0.0, betas=(beta1, beta2), eps=train.optimizer.eps, fused=fused
    )


def layer_scales(encoder: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Factor of the learning rate of every parameter of an encoder; see :func:`make_optimizer`.

    Parameters
    ----------
    encoder : nn.Module
        With ``blocks`` (nn.ModuleList) and, after them, ``norm``.
    decay : float
        Factor from one block to the one before it.
    """
    blocks = getattr(encoder, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise RequestError("train.optimizer.layer_decay: this encoder has no blocks in a row; set it to 1")
    depth = len(blocks)
    out = {p: decay ** (depth + 1) for p in encoder.parameters()}
    for i, block in enumerate(blocks):
        out |= {p: decay ** (depth - i) for p in block.parameters()}
    after = getattr(encoder, "norm", None)
    if isinstance(after, nn.Module):
        out |= dict.fromkeys(after.parameters(), 1.0)
    return out


def _by_scale(group: dict[str, Any], scales: dict[nn.Parameter, float]) -> list[dict[str, Any]]:
    """A group cut by the factor of its parameters, in ascending order of it."""
    parts: dict[float, list[nn.Parameter]] = {}
    for p in group["params"]:
        parts.setdefault(scales.get(p, 1.0), []).append(p)
    own = group.get("lr_scale", 1.0)
    return [{**group, "params": params, "lr_scale": own * scale} for scale, params in sorted(parts.items())]


def set_schedule(optimizer: torch.optim.Optimizer, train: Train, step: int) -> None:
    """Learning rate and weight decay of optimiser step ``step`` (0-based)."""
    lr, decay = train.lr(step), train.weight_decay(step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = decay * group["decay_scale"]
