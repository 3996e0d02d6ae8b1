"""Losses that compare moments of windows with each other, as pure functions in float32.

What lives here: the noise-contrastive losses of CPC and of soft equivariance, and the hierarchical contrast of TS2Vec. Each
takes the rows of this process and gathers those of the others (:func:`biossl.distributed.all_gather`): every process returns
the loss of the whole batch, and averaging parameter gradients over processes gives those of one process. Each is tested against
a slow float64 version. A moment that is not ``valid`` (nothing was observed in it) is no anchor, no positive and no negative.
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
    0.3408
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


def equivariance_nce(prediction: Tensor, target: Tensor, *, temperature: float, valid: Tensor | None = None) -> Tensor:
    """InfoNCE between tokens of transformed windows and the moved tokens of the windows (SER, arXiv 2603.06693).

    With s(bi, cj) = cos(p_bi, t_cj) / temperature for token i of window b and token j of window c,

        L = mean_bi -log( exp s(bi, bi) / [ exp s(bi, bi) + sum_{c != b} sum_j exp s(bi, cj) ] )

    The other tokens of a window are no negatives: they may well be alike.

    Parameters
    ----------
    prediction, target : Tensor, (B, N, D)
        Of the windows on this process, token i of both meant to be the same; not normalised.
    temperature : float
        Above 0.
    valid : Tensor, bool, (B, N), optional
        Which tokens count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> z = torch.eye(2)[:, None]
    >>> round(float(equivariance_nce(z, z, temperature=0.5)), 4)  # log(1 + exp(-2))
    0.1269
    """
    with full_precision(prediction):
        B, N = prediction.shape[:2]
        p = F.normalize(prediction.float(), dim=-1, eps=_EPS).flatten(0, 1)
        t = F.normalize(all_gather(target.float()), dim=-1, eps=_EPS).flatten(0, 1)
        here = torch.arange(B * N, device=p.device) + rank() * B * N  # the column of each row's own token
        token = torch.arange(len(t), device=p.device)
        allowed = (here[:, None] // N != token // N) | (here[:, None] == token)
        use = torch.ones(B * N, dtype=torch.bool, device=p.device)
        if valid is not None:
            use = valid.flatten()
            allowed = allowed & all_gather(use)
        return info_nce(p @ t.T / temperature, here, allowed, use)


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


def hierarchical_contrast(z1: Tensor, z2: Tensor, *, alpha: float = 0.5, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Instance and temporal contrast of two views over all scales of time (TS2Vec, arXiv 2106.10466), weighted by ``alpha``.

    At scale d, with z_it the token of window i at time t, s plain dot products, both views as anchors, and the other view's
    token of the same window and time as positive:

        instance_d = mean -log softmax over the other windows' tokens at time t, in both views, and the positive
        temporal_d = mean -log softmax over the other times' tokens of window i, in both views, and the positive
        L = (1 / S) sum_d [ alpha instance_d + (1 - alpha) temporal_d ]

    Scale d + 1 is the maximum over two neighbouring times of scale d, a last odd one left out, down to one time; S counts the
    scales. At one time there is no temporal term.

    Parameters
    ----------
    z1, z2 : Tensor, (B, L, D)
        Two views of the same times of the windows on this process.
    alpha : float
        From 0 to 1.
    valid : Tensor, bool, (B, L), optional
        Which times count; given on every process or on none. A time of a larger scale counts where one of its two does.

    Returns
    -------
    dict of str to Tensor
        ``instance``, ``temporal``: weighted scalars in float32, the same on every process. Their sum is the loss.

    Examples
    --------
    >>> z = 3 * torch.eye(2)[:, None]
    >>> round(float(hierarchical_contrast(z, z)["instance"]), 4)  # log(1 + 2 exp(-9)) / 2
    0.0001
    """
    with full_precision(z1):
        z = torch.stack([all_gather(z1.float()), all_gather(z2.float())])
        B, L = z.shape[1:3]
        use = torch.ones(B, L, dtype=torch.bool, device=z.device) if valid is None else all_gather(valid)
        instance, temporal, scales = z.new_zeros(()), z.new_zeros(()), 0
        while True:
            instance = instance + _two_views(z.transpose(1, 2), use.T)
            scales += 1
            if L == 1:
                break
            temporal = temporal + _two_views(z, use)
            L = L // 2
            pairs, there = z[:, :, : 2 * L].unflatten(2, (L, 2)), use[:, : 2 * L].unflatten(1, (L, 2))
            use = there.any(dim=2)
            low = torch.finfo(z.dtype).min
            z = torch.where(use[..., None], pairs.masked_fill(~there[..., None], low).amax(dim=3), 0.0)
        return {"instance": alpha * instance / scales, "temporal": (1 - alpha) * temporal / scales}


def _two_views(z: Tensor, use: Tensor) -> Tensor:
    """Mean over anchors of -log softmax among the 2n tokens of a group but the anchor itself.

    ``z`` (2, G, n, D) two views of G groups of n; ``use`` (G, n). The positive is the same token of the other view.
    """
    n = use.shape[1]
    both = torch.cat([z[0], z[1]], dim=1)  # (G, 2n, D)
    allowed = use.repeat(1, 2)
    itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    logits = both @ both.transpose(1, 2)
    total = logits.masked_fill(itself | ~allowed[:, None], -torch.finfo(z.dtype).max).logsumexp(dim=2)
    own = (z[0] * z[1]).sum(dim=-1).repeat(1, 2)
    return torch.where(allowed, total - own, 0.0).sum() / allowed.sum().clamp_min(1)
