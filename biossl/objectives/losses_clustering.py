"""Losses over assignments of windows to prototypes, as pure functions in float32.

What lives here: the two ways to make targets of scores, by a centre and a low temperature (DINO) or by balancing the batch
(Sinkhorn-Knopp, SwAV), and the cross-entropy in which one view's target teaches the other. Rows are those of all processes,
each of which computes the loss of the whole batch. Targets have no gradient. Each is tested against a slow float64 version. A row
that is not ``valid`` counts for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biossl.distributed import all_gather, rank
from biossl.objectives.losses_averaged import mean_of_rows


def swapped_cross_entropy(
    target1: Tensor, target2: Tensor, scores1: Tensor, scores2: Tensor, *, temperature: float, valid: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each view's assignment under the target of the other (DINO, arXiv 2104.14294; SwAV, arXiv 2006.09882).

    With p(s) = softmax(s / temperature),

        L = mean_i 1/2 [ -sum_k target1_ik log p(scores2_i)_k - sum_k target2_ik log p(scores1_i)_k ]

    Parameters
    ----------
    target1, target2 : Tensor, (B, K)
        Distributions over prototypes, from views 1 and 2; no gradient.
    scores1, scores2 : Tensor, (B, K)
    temperature : float
        Above 0; published: 0.1.
    valid : Tensor, bool, (B,), optional
        Which rows count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> even = torch.full((3, 4), 0.25)
    >>> round(float(swapped_cross_entropy(even, even, even, even, temperature=0.1)), 4)  # log 4
    1.3863
    """
    log1, log2 = ((scores.float() / temperature).log_softmax(dim=1) for scores in (scores1, scores2))
    t1, t2 = target1.detach().float(), target2.detach().float()
    return mean_of_rows(-0.5 * ((t1 * log2).sum(dim=1) + (t2 * log1).sum(dim=1)), valid)


@torch.no_grad()
def centred_targets(scores: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """Targets of DINO: softmax((scores - centre) / temperature), (B, K) float32.

    The centre keeps one prototype from taking all windows, a temperature below the student's keeps all from being alike.

    Parameters
    ----------
    scores : Tensor, (B, K)
        Of the teacher.
    centre : Tensor, (K,)
        Moving mean of the teacher's scores.
    temperature : float
    """
    return ((scores.float() - centre) / temperature).softmax(dim=1)


@torch.no_grad()
def sinkhorn(scores: Tensor, *, eps: float = 0.05, iterations: int = 3, valid: Tensor | None = None) -> Tensor:
    """Codes of SwAV (arXiv 2006.09882): assignments near the scores under which all prototypes are used equally.

    From Q = exp(scores / eps) over the n rows of all processes, ``iterations`` times: divide each prototype's column by its sum, then
    each row by its sum. Done on logarithms.

    Parameters
    ----------
    scores : Tensor, (B, K)
    eps : float
        Above 0. Small: hard codes; large: all rows alike.
    iterations : int
        At least 1.
    valid : Tensor, bool, (B,), optional
        Which rows are shared out; given on every process or on none.

    Returns
    -------
    Tensor, (B, K) float32
        Of the rows of this process. A row sums to 1, one that does not count to 0.

    Examples
    --------
    >>> sinkhorn(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), eps=0.1).argmax(dim=1)
    tensor([1, 0])
    """
    B = len(scores)
    log_q = all_gather(scores.float()) / eps
    out = None if valid is None else ~all_gather(valid)[:, None]
    for _ in range(iterations):
        shared = log_q if out is None else log_q.masked_fill(out, -torch.inf)
        total = shared.logsumexp(dim=0)
        log_q = log_q - torch.where(total.isfinite(), total, 0.0)  # no row counts: nothing to balance
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    q = log_q.exp() if out is None else log_q.exp().masked_fill(out, 0.0)
    return q[rank() * B : (rank() + 1) * B]
