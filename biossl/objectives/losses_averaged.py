"""Losses between a network and an averaged copy of it, as pure functions in float32.

What lives here: the contrast of queries with a queue of keys (MoCo), and the distance of predictions from targets (BYOL,
SimSiam). Rows are those of all processes, each of which computes the loss of the whole batch. What comes from the copy has no
gradient. Each is tested against a slow float64 version. A row that is not ``valid`` counts for nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.distributed import all_gather
from biossl.objectives.losses import full_precision

_EPS = 1e-6  # a zero vector has cosine 0 with all others, and a gradient that is finite


def queue_nce(
    query: Tensor, key: Tensor, queue: Tensor, *, temperature: float, allowed: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Noise-contrastive loss of queries against their keys and a queue of other windows' (MoCo, arXiv 1911.05722).

    With s(q, k) = cos(q, k) / temperature and A(i) the entries of the queue that query i is compared with,

        L = mean_i -log( exp s(q_i, k_i) / (exp s(q_i, k_i) + sum_{j in A(i)} exp s(q_i, queue_j)) )

    Parameters
    ----------
    query : Tensor, (B, E)
    key : Tensor, (B, E)
        Row i belongs to query i; no gradient.
    queue : Tensor, (K, E)
        The same on every process.
    temperature : float
        Above 0; published: 0.07, in version 2 0.2.
    allowed : Tensor, bool, (B, K)
        A(i). A query without any adds 0.
    valid : Tensor, bool, (B,), optional
        Which queries count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> q = torch.eye(2)
    >>> round(float(queue_nce(q, q, -q, temperature=1.0, allowed=torch.eye(2, dtype=torch.bool))), 4)  # log(1 + exp(-2))
    0.1269
    """
    with full_precision(query):
        q, k, others = (F.normalize(z.float(), dim=1, eps=_EPS) for z in (query, key.detach(), queue.detach()))
        own = (q * k).sum(dim=1, keepdim=True) / temperature
        rest = (q @ others.T / temperature).masked_fill(~allowed, -torch.finfo(torch.float32).max)
        return mean_of_rows(-torch.cat([own, rest], dim=1).log_softmax(dim=1)[:, 0], valid)


def cosine_distance(p1: Tensor, p2: Tensor, target1: Tensor, target2: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Distance of each view's prediction from the other view's target (BYOL, arXiv 2006.07733).

        L = mean_i [ 2 - 2 cos(p1_i, target2_i) + 2 - 2 cos(p2_i, target1_i) ]

    From 0 to 8. SimSiam (arXiv 2011.10566) states -(cos + cos) / 2, which is L / 4 - 1.

    Parameters
    ----------
    p1, p2 : Tensor, (B, E)
        Predictions from views 1 and 2.
    target1, target2 : Tensor, (B, E)
        Projections of views 1 and 2; no gradient.
    valid : Tensor, bool, (B,), optional
        Which rows count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> z = torch.eye(3)
    >>> float(cosine_distance(z, z, z, -z))
    4.0
    """
    with full_precision(p1):
        p1, p2, t1, t2 = (F.normalize(z.float(), dim=1, eps=_EPS) for z in (p1, p2, target1.detach(), target2.detach()))
        return mean_of_rows(4.0 - 2.0 * (p1 * t2).sum(dim=1) - 2.0 * (p2 * t1).sum(dim=1), valid)


def mean_of_rows(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of ``values`` (B,) over the rows of all processes that count; 0 when none does."""
    values = all_gather(values)
    if valid is None:
        return values.mean()
    use = all_gather(valid)
    return torch.where(use, values, 0.0).sum() / use.sum().clamp_min(1)
