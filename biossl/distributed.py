"""Gathering over processes with the right gradient.

What lives here: rank, world size (asked at every call: the process group starts after modules are made) and
:func:`all_gather`. ``torch.distributed.all_gather`` itself has no backward: a loss on its output would train on the
process's own rows alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes; 1 when none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 when none were started."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)  # every process's loss depends on these rows
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def all_gather(x: Tensor) -> Tensor:
    """Rows of all processes, in the order of the ranks, differentiable.

    When every process computes the same loss from the gathered rows and gradients are then averaged over processes (as
    DDP does), parameters receive exactly the gradient of one process with the whole batch.

    Parameters
    ----------
    x : Tensor, (B, ...)
        Of equal shape on every process.

    Returns
    -------
    Tensor, (world * B, ...)
        ``x`` itself when there is one process.
    """
    return x if world_size() == 1 else _AllGather.apply(x)  # type: ignore[no-untyped-call]
