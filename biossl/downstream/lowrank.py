"""Which matrix of an encoder deserves which rank, and batch-norm statistics of labelled and unlabelled windows together.

What lives here: the one-shot rank allocation and the joint statistics of CE-SSL (arXiv 2406.14377). The adapters themselves are
``models/lowrank.py``. After the paper: where all layers are narrower than the rank, the budget counts what they can hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from biossl.models.lowrank import Adapter


def importance(adapters: Mapping[str, Adapter], losses: Iterable[Tensor], how: Literal["taylor", "fisher"]) -> dict[str, float]:
    """How much each adapted matrix matters to a loss, from one pass over the labelled windows.

    With B = 0 the gradient of B alone is not 0, and G = dL/dB A stands for that of W. ``taylor``: mean over batches of the mean
    over entries of (W G)^2; ``fisher``: of G^2.

    Parameters
    ----------
    adapters : mapping of str to Adapter
        Fresh (:func:`~biossl.models.lowrank.add_adapters`), all active.
    losses : iterable of Tensor
        The loss of each batch with its graph; taken one at a time.
    how : {"taylor", "fisher"}

    Returns
    -------
    dict of str to float
    """
    total, n = dict.fromkeys(adapters, 0.0), 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, [a.up for a in adapters.values()])
        n += 1
        for (name, adapter), gradient in zip(adapters.items(), gradients, strict=True):
            g = gradient.double() @ adapter.down.detach().double()
            w = adapter.weight.detach().double().flatten(1) if how == "taylor" else 1.0
            total[name] += float((w * g).square().mean())
    return {name: value / max(n, 1) for name, value in total.items()}


def total_rank(n: int, rank: int, low_share: float) -> int:
    """Budget of CE-SSL's allocation: the floor(n low_share) least important of n matrices have ``2 (rank // 4)``, the others ``rank``.

    Examples
    --------
    >>> total_rank(35, 16, 0.6)
    392
    """
    low = int(n * low_share + 1e-9)
    return low * low_rank(rank) + (n - low) * rank


def low_rank(rank: int) -> int:
    """Rank of a matrix that matters little: 8 for 16, 2 for 4."""
    return 2 * (rank // 4)


def allocate_ranks(importance: Mapping[str, float], *, rank: int, budget: int) -> dict[str, int]:
    """A rank for each matrix, in all no more than the budget: the most important have ``rank``, the others :func:`low_rank` of it.

    Parameters
    ----------
    importance : mapping of str to float
    rank : int
    budget : int
        Sum of all ranks; of equal importance the later one in the network is served first.

    Raises
    ------
    ValueError
        The budget does not give all of them the lower rank.

    Examples
    --------
    >>> allocate_ranks({"a": 0.1, "b": 3.0, "c": 0.2}, rank=4, budget=8)
    {'a': 2, 'b': 4, 'c': 2}
    """
    low, n = low_rank(rank), len(importance)
    if budget < n * low:
        raise ValueError(f"a total rank of {budget} does not give {n} matrices {low} each; take at least {n * low}")
    high = n if rank == low else min(n, (budget - n * low) // (rank - low))
    names = list(importance)
    ascending = sorted(names, key=lambda name: (importance[name], names.index(name)))
    chosen = set(ascending[n - high :])
    return {name: rank if name in chosen else low for name in names}


def joint_statistics(stem: nn.Module, labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """A stem's output for the labelled windows, its batch norms having seen both halves (CE-SSL's light semi-supervision).

    Running averages move by both halves, and in training the labelled half is normalised by both. The unlabelled half's output is
    thrown away. A stem without batch norm does not meet it.

    Parameters
    ----------
    stem : nn.Module
        The part of the encoder that holds the batch norms.
    labelled, unlabelled : Tensor, (B, ...) and (U, ...)

    Returns
    -------
    Tensor, (B, ...)
    """
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in stem.modules()):
        return stem(labelled)
    return stem(torch.cat([labelled, unlabelled]))[: len(labelled)]
