"""Exponential moving averages of modules, updated once per optimiser step.

What lives here: the pairing of tensors of two modules and the update. When it happens is the loop's business, how fast
the objective's (:meth:`biossl.objectives.base.Objective.ema_momentum`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Keeps target modules at the moving average of their sources, parameters and buffers.

    Floating-point tensors follow ``target <- m * target + (1 - m) * source``; whole-number buffers (counters) are
    copied.

    Parameters
    ----------
    pairs : list of (nn.Module, nn.Module)
        (source, target) of equal layout.

    Raises
    ------
    ValueError
        The layouts differ.

    Examples
    --------
    >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> with torch.no_grad(): _ = (a.weight.fill_(1.0), b.weight.fill_(0.0))
    >>> Ema([(a, b)]).update(0.75)
    >>> b.weight.item()
    0.25
    """

    def __init__(self, pairs: list[tuple[nn.Module, nn.Module]]) -> None:
        self._pairs = pairs
        self._sources: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        for source, target in pairs:
            ours, theirs = _tensors(source), _tensors(target)
            if [(k, v.shape) for k, v in ours.items()] != [(k, v.shape) for k, v in theirs.items()]:
                raise ValueError("source and target of an EMA pair differ in layout")
            for name, tensor in ours.items():
                if tensor.is_floating_point():
                    self._sources.append(tensor)
                    self._targets.append(theirs[name])
                else:
                    self._copied.append((tensor, theirs[name]))

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """One update; ``momentum`` 1 leaves the targets as they are."""
        if self._targets:
            torch._foreach_lerp_(self._targets, self._sources, 1.0 - momentum)
        for source, target in self._copied:
            target.copy_(source)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
