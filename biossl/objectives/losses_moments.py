"""Losses that compare moments of windows with each other, as pure functions in float32.

What lives here: the noise-contrastive loss of CPC. Each takes the rows of this process and gathers those of the others
(:func:`biossl.distributed.all_gather`): every process returns the loss of the whole batch, and averaging parameter gradients
over processes gives those of one process. Each is tested against a slow float64 version. A moment that is not ``valid``
(nothing was observed in it) is no anchor, no positive and no negative.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.distributed import all_gather, rank
from biossl.objectives.losses import full_precision

Negatives = Literal["both", "same_sequence", "other_windows"]

_EPS = 1e-6  # a zero vector has cosine 0 with all others, and a gradient that is finite


def cpc_nce(
    prediction: Tensor, target: Tensor, *, temperature: float, negatives: Negatives = "both", valid: Tensor | None = None
) -> Tensor:
    """InfoNCE between what was predicted of K future moments and what they were (CPC, arXiv 1807.03748).

    With s(bk, cl) = cos(p_bk, z_cl) / temperature, p_bk the prediction of moment k of window b and z_cl moment l of window c,

        L = mean_bk -log( exp s(bk, bk) / sum_{cl in A(bk)} exp s(bk, cl) )

    A(bk) holds the moment itself and, as negatives,

    - ``same_sequence``: the other K - 1 moments of window b;
    - ``other_windows``: all K moments of every other window;
    - ``both``.

    Parameters
    ----------
    prediction, target : Tensor, (B, K, D)
        Of the windows on this process; not normalised.
    temperature : float
        Above 0.
    negatives : {"both", "same_sequence", "other_windows"}
    valid : Tensor, bool, (B, K), optional
        Which pairs count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> z = torch.eye(4).view(2, 2, 4)
    >>> round(float(cpc_nce(z, z, temperature=0.5)), 4)  # log(1 + 3 exp(-2))
    0.3407
    """
    with full_precision(prediction):
        B, K = prediction.shape[:2]
        p = F.normalize(prediction.float(), dim=-1, eps=_EPS).flatten(0, 1)
        z = F.normalize(all_gather(target.float()), dim=-1, eps=_EPS).flatten(0, 1)
        here = torch.arange(B * K, device=p.device) + rank() * B * K  # the column of each row's own moment
        moment = torch.arange(len(z), device=p.device)
        same, own = (here[:, None] // K) == (moment // K), here[:, None] == moment
        allowed = {"both": torch.ones_like(same), "same_sequence": same, "other_windows": ~same | own}[negatives]
        use = torch.ones(B * K, dtype=torch.bool, device=p.device)
        if valid is not None:
            use = valid.flatten()
            allowed = allowed & all_gather(use)
        return info_nce(p @ z.T / temperature, here, allowed, use)


def info_nce(logits: Tensor, positive: Tensor, allowed: Tensor, use: Tensor) -> Tensor:
    """Mean over the rows of all processes of -log( exp l_ip / sum_{k allowed} exp l_ik ).

    Parameters
    ----------
    logits : Tensor, (n, m)
        Of the anchors of this process with the rows of all.
    positive : Tensor, int64, (n,)
        p: the column of each anchor's positive; allowed wherever the row counts.
    allowed : Tensor, bool, (n, m)
    use : Tensor, bool, (n,)
        Which anchors count; 0 where none does.
    """
    total = logits.masked_fill(~allowed, -torch.finfo(logits.dtype).max).logsumexp(dim=1)
    each = torch.where(use, total - logits.gather(1, positive[:, None])[:, 0], 0.0)
    whole = all_gather(torch.stack([each.sum(), use.sum().to(each.dtype)])[None]).sum(dim=0)
    return whole[0] / whole[1].clamp_min(1.0)
