"""Losses that compare the windows of a batch with each other, as pure functions in float32.

What lives here: NT-Xent, the noise-contrastive loss of CLOCS, VICReg and Barlow Twins. Each gathers the rows of all
processes with the right gradient (:func:`biossl.distributed.all_gather`): every process computes the loss of the whole
batch, and averaging parameter gradients over processes gives those of one process. Each is tested against a slow float64
version. A row that is not ``valid`` (a window in which nothing was observed) is no anchor, no positive, no negative and
part of no statistic.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.distributed import all_gather
from biossl.objectives.losses import full_precision

SameSubject = Literal["negative", "positive", "drop"]


def nt_xent(
    z1: Tensor, z2: Tensor, *, temperature: float, subject: Tensor | None = None, same_subject: SameSubject = "negative",
    valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Normalised temperature-scaled cross-entropy over 2B views (SimCLR, arXiv 2002.05709).

    With s(i, k) = cos(z_i, z_k) / temperature, P(i) the positives and A(i) the other views an anchor i is compared with,

        L = mean_i mean_{p in P(i)} -log( exp s(i, p) / sum_{k in A(i)} exp s(i, k) )

    ``same_subject`` says what a view of another window of the same subject is:

    - ``negative``: like any other: P(i) = the other view of the window, A(i) = all views but i (the published loss).
    - ``positive``: in P(i) (the supervised form of arXiv 2004.11362 with the subject as class).
    - ``drop``: neither: left out of P(i) and A(i).

    A batch of one subject stays finite: ``drop`` gives 0 without gradient, ``positive`` pulls all views together equally.

    Parameters
    ----------
    z1, z2 : Tensor, (B, D)
        Two views of each window on this process; not normalised.
    temperature : float
        Above 0.
    subject : Tensor, int64, (B,), optional
        Needed unless ``same_subject`` is ``negative``.
    same_subject : {"negative", "positive", "drop"}
    valid : Tensor, bool, (B,), optional
        Which windows count; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Raises
    ------
    ValueError
        ``subject`` is missing.

    Examples
    --------
    >>> z = torch.eye(4)
    >>> round(float(nt_xent(z, z, temperature=0.5)), 4)  # log(1 + 6 exp(-2))
    0.5944
    """
    if same_subject != "negative" and subject is None:
        raise ValueError(f"same_subject '{same_subject}' needs the subject of every window")
    with full_precision(z1):
        z = F.normalize(torch.cat([all_gather(z1.float()), all_gather(z2.float())]), dim=1, eps=_EPS)
        n = len(z)
        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        positive = itself.roll(n // 2, dims=1)
        allowed = ~itself
        if same_subject != "negative" and subject is not None:
            code = all_gather(subject).repeat(2)
            same = code[:, None] == code
            if same_subject == "positive":
                positive = same & ~itself
            else:
                allowed = ~same | positive
        use = None if valid is None else all_gather(valid).repeat(2)
        if use is not None:
            positive, allowed = positive & use, allowed & use
        log_p = _log_share(z @ z.T / temperature, allowed)
        each = -torch.where(positive, log_p, 0.0).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
        return each.mean() if use is None else torch.where(use, each, 0.0).sum() / use.sum().clamp_min(1)


def clocs_nce(a: Tensor, b: Tensor, *, temperature: float, subject: Tensor, valid: Tensor | None = None) -> Tensor:
    """Noise-contrastive loss of CLOCS (arXiv 2005.13249): all pairs of one patient attract, in both directions.

    With P = {(i, j): subject i = subject j} and s(i, j) = cos(a_i, b_j) / temperature,

        L = -(1 / |P|) sum_{(i, j) in P} [ log softmax_j s(i, .) + log softmax_i s(., j) ]

    Parameters
    ----------
    a, b : Tensor, (G, B, D)
        G comparisons of two sets of B embeddings (segments, leads), row i of both from the same window or its neighbour;
        the loss is their mean.
    temperature : float
        Above 0; published: 0.1.
    subject : Tensor, int64, (B,)
    valid : Tensor, bool, (G, B), optional
        Rows that count, where both embeddings exist; given on every process or on none.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process. With one subject in the batch all pairs attract equally: finite.

    Examples
    --------
    >>> z = torch.eye(3)[None]
    >>> round(float(clocs_nce(z, z, temperature=1.0, subject=torch.arange(3))), 4)  # 2 log(1 + 2 / e)
    1.1029
    """
    with full_precision(a):
        a, b = (F.normalize(_gather_second(z.float()), dim=-1, eps=_EPS) for z in (a, b))
        code = all_gather(subject)
        pairs = (code[:, None] == code).expand(len(a), -1, -1)
        allowed = torch.ones_like(pairs)
        if valid is not None:
            use = _gather_second(valid)
            allowed = use[:, :, None] & use[:, None, :]
            pairs = pairs & allowed
        logits = a @ b.transpose(1, 2) / temperature
        both = _log_share(logits, allowed) + _log_share(logits.transpose(1, 2), allowed.transpose(1, 2)).transpose(1, 2)
        count = pairs.sum(dim=(1, 2))
        each = -torch.where(pairs, both, 0.0).sum(dim=(1, 2)) / count.clamp_min(1)
        return each.sum() / (count > 0).sum().clamp_min(1)


def vicreg(z1: Tensor, z2: Tensor, *, goal: float = 1.0, eps: float = 1e-4, valid: Tensor | None = None) -> dict[str, Tensor]:
    """The three terms of VICReg (arXiv 2105.04906), not yet weighted.

    Over the n rows of all processes and D features, with cov(z) divided by n - 1:

        invariance = sum (z1 - z2)^2 / (n D)
        variance   = mean over both views of mean_d relu(goal - sqrt(cov(z)_dd + eps))
        covariance = sum over both views of sum_{d != e} cov(z)_de^2 / D

    These are the normalisations of the authors' code, to which the weights 25, 25, 1 belong. The paper's text sums the
    variance term over the views and the invariance term over features; libraries that average the off-diagonal entries
    need about D times the covariance weight.

    Parameters
    ----------
    z1, z2 : Tensor, (B, D)
    goal : float
        Standard deviation each feature should reach.
    eps : float
    valid : Tensor, bool, (B,), optional
        Which rows count; given on every process or on none.

    Returns
    -------
    dict of str to Tensor
        ``invariance``, ``variance``, ``covariance``: scalars in float32, the same on every process.

    Examples
    --------
    >>> {k: round(float(v), 2) for k, v in vicreg(torch.zeros(4, 3), torch.ones(4, 3)).items()}
    {'invariance': 1.0, 'variance': 0.99, 'covariance': 0.0}
    """
    with full_precision(z1):
        z1, z2 = all_gather(z1.float()), all_gather(z2.float())
        use = _weights(z1, None if valid is None else all_gather(valid))
        D = z1.shape[1]
        invariance = ((z1 - z2).square() * use).sum() / (use.sum() * D).clamp_min(1)
        variance = covariance = z1.new_zeros(())
        for z in (z1, z2):
            centred = _centred(z, use)
            cov = centred.T @ centred / (use.sum() - 1).clamp_min(1)
            variance = variance + F.relu(goal - (cov.diagonal() + eps).sqrt()).mean() / 2
            covariance = covariance + (cov.square().sum() - cov.diagonal().square().sum()) / D
        return {"invariance": invariance, "variance": variance, "covariance": covariance}


def barlow_twins(
    z1: Tensor, z2: Tensor, *, lam: float = 5e-3, eps: float = 1e-5, valid: Tensor | None = None
) -> dict[str, Tensor]:
    """The two terms of Barlow Twins (arXiv 2103.03230), the second weighted by ``lam``.

    With C = correlation over the n rows of all processes between the features of view 1 and those of view 2 (biased
    variances, ``eps`` added to them),

        invariance = sum_d (1 - C_dd)^2,    redundancy = lam sum_{d != e} C_de^2

    Parameters
    ----------
    z1, z2 : Tensor, (B, D)
    lam : float
    eps : float
    valid : Tensor, bool, (B,), optional
        Which rows count; given on every process or on none.

    Returns
    -------
    dict of str to Tensor
        ``invariance``, ``redundancy``: scalars in float32, the same on every process. Their sum is the loss.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> {k: round(float(v), 4) for k, v in barlow_twins(z, z.flip(1)).items()}
    {'invariance': 2.0, 'redundancy': 0.01}
    """
    with full_precision(z1):
        z1, z2 = all_gather(z1.float()), all_gather(z2.float())
        use = _weights(z1, None if valid is None else all_gather(valid))
        n = use.sum().clamp_min(1)
        a, b = (_centred(z, use) for z in (z1, z2))
        a, b = (z * (z.square().sum(dim=0) / n + eps).rsqrt() for z in (a, b))
        c = a.T @ b / n
        own = c.diagonal()
        return {"invariance": (1 - own).square().sum(), "redundancy": lam * (c.square().sum() - own.square().sum())}


_EPS = 1e-6  # a zero vector has cosine 0 with all others, and a gradient that is finite


def _log_share(logits: Tensor, allowed: Tensor) -> Tensor:
    """log( exp l_ij / sum_k exp l_ik ) over allowed k; 0 in rows without any."""
    logits = logits.masked_fill(~allowed, -torch.finfo(logits.dtype).max)
    return torch.where(allowed, logits.log_softmax(dim=-1), 0.0)


def _gather_second(z: Tensor) -> Tensor:
    """(G, B, ...) to (G, world * B, ...)."""
    return all_gather(z.transpose(0, 1)).transpose(0, 1)


def _weights(z: Tensor, valid: Tensor | None) -> Tensor:
    """(n, 1) float32: 1 for rows that count."""
    return z.new_ones(len(z), 1) if valid is None else valid.to(z.dtype)[:, None]


def _centred(z: Tensor, use: Tensor) -> Tensor:
    """Rows minus the mean of those that count; 0 for the others."""
    return (z - (z * use).sum(dim=0) / use.sum().clamp_min(1)) * use
