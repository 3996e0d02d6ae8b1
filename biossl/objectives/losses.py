"""Losses and target normalisations as pure functions, computed in float32 whatever the precision around them.

What lives here: functions of tensors that return a scalar or a tensor. No modules, no state. Each is tested against a slow
float64 version. Those over the rows of a batch take the rows of all processes: averaging parameter gradients over processes
gives those of one process. Losses that compare windows with each other are in ``losses_contrastive.py``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.distributed import all_gather


def _weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over rows of the mean over a row's tokens that count (``values`` (R, M, D), ``weight`` (R, M) or broadcast to it).

    Every row counts the same however many of its tokens do, so neither world size nor accumulation changes the gradient. A
    row without any adds 0.
    """
    if weight is None:
        return values.mean()
    weight = weight.to(values.dtype).expand(values.shape[:-1])
    n = weight.sum(dim=1) * values.shape[-1]
    return ((values * weight[..., None]).sum(dim=(1, 2)) / n.clamp_min(1.0)).mean()


def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Mean Huber-like loss: ``0.5 d^2 / beta`` where ``|d| < beta``, else ``|d| - 0.5 beta``.

    Parameters
    ----------
    prediction, target : Tensor, (R, M, D)
    beta : float
        Where the loss turns from quadratic to linear; positive.
    weight : Tensor, (R, M), optional
        Which tokens count (bool or non-negative). The mean is over each row's, then over rows; a row without any adds 0.

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> float(smooth_l1(torch.tensor([[[2.0]]]), torch.tensor([[[0.0]]])))
    1.5
    """
    difference = (prediction.float() - target.float()).abs()
    values = torch.where(difference < beta, 0.5 * difference.square() / beta, difference - 0.5 * beta)
    return _weighted_mean(values, weight)


def l1(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, scalar float32; shapes and ``weight`` as in :func:`smooth_l1`."""
    return _weighted_mean((prediction.float() - target.float()).abs(), weight)


def variance_hinge(x: Tensor, *, goal: float = 1.0, eps: float = 1e-4, weight: Tensor | None = None) -> Tensor:
    """VICReg's variance term: mean over features of ``relu(goal - sqrt(var + eps))`` (arXiv 2105.04906).

    The variance is the unbiased one over the rows of all processes (divided by n - 1); the mean over features is neither
    halved nor summed.

    Parameters
    ----------
    x : Tensor, (n, D)
        n >= 2 rows.
    goal : float
        Standard deviation every feature should reach.
    eps : float
        Keeps the root's gradient finite at collapse.
    weight : Tensor, (n,), optional
        Which rows count (bool or non-negative); their number may differ between processes.

    Returns
    -------
    Tensor
        Scalar float32, 0 when every feature varies enough, ``goal - sqrt(eps)`` at full collapse.

    Examples
    --------
    >>> round(float(variance_hinge(torch.zeros(4, 3))), 3)
    0.99
    """
    centred, n = _centred_rows(x, weight)
    variance = all_gather(centred.square().sum(dim=0)[None]).sum(dim=0) / (n - 1).clamp_min(1)
    return F.relu(goal - (variance + eps).sqrt()).mean()


def decorrelation(x: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """VICReg's covariance term of one view: sum of the squared off-diagonal covariances over D (arXiv 2105.04906).

    Parameters
    ----------
    x : Tensor, (n, D)
    weight : Tensor, (n,), optional
        Which rows count, as in :func:`variance_hinge`.

    Returns
    -------
    Tensor
        Scalar float32; covariances over the rows of all processes, divided by n - 1.

    Examples
    --------
    >>> float(decorrelation(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])))
    4.0
    """
    with full_precision(x):
        centred, n = _centred_rows(x, weight)
        cov = all_gather((centred.T @ centred)[None]).sum(dim=0) / (n - 1).clamp_min(1)
        return (cov.square().sum() - cov.diagonal().square().sum()) / x.shape[1]


def sigreg(z: Tensor, directions: Tensor, *, weight: Tensor | None = None, knots: int = 17, limit: float = 3.0) -> Tensor:
    """Sketched isotropic Gaussian regularisation (LeJEPA, arXiv 2511.08544): how far rows are from a standard normal.

    For every direction a the Epps-Pulley statistic of the n rows of all processes, times n:

        N T = n * int_-3^3 | mean_i exp(i t a.z_i) - exp(-t^2 / 2) |^2 exp(-t^2 / 2) dt

    by the trapezoidal rule over ``knots`` points of [0, 3] (the integrand is even: doubled), then the mean over directions.
    About 1.06 = sqrt(2 pi) (1 - 1 / sqrt 3) on standard normal rows whatever n is, 0.40 n when all rows are 0. The factor n
    is part of the published statistic: with it the weight of this term depends on the batch size.

    Parameters
    ----------
    z : Tensor, (n, D)
    directions : Tensor, (S, D)
        Unit vectors, the same on every process: :func:`unit_directions`.
    weight : Tensor, (n,), optional
        Which rows count, as in :func:`variance_hinge`.
    knots : int
    limit : float

    Returns
    -------
    Tensor
        Scalar float32, the same on every process.

    Examples
    --------
    >>> round(float(sigreg(torch.zeros(100, 3), torch.eye(3))), 1)
    40.2
    """
    with full_precision(z):
        z = z.float()
        use = z.new_ones(len(z)) if weight is None else weight.to(z.dtype)
        z = torch.where(use[:, None] > 0, z, 0.0)
        t = torch.linspace(0.0, limit, knots, device=z.device)
        angle = (z @ directions.to(z).T)[..., None] * t  # (n, S, knots)
        real, imaginary = (torch.einsum("n,nsk->sk", use, part) for part in (angle.cos(), angle.sin()))
        n = all_gather(use.sum()[None]).sum()
        real, imaginary = all_gather(torch.stack([real, imaginary])[None]).sum(dim=0) / n.clamp_min(1)
        gauss = torch.exp(-0.5 * t.square())
        step = torch.full_like(t, 2.0 * limit / (knots - 1))
        step[0] = step[-1] = limit / (knots - 1)
        distance = (real - gauss).square() + imaginary.square()
        return n * (distance * gauss * step).sum(dim=1).mean()


def koleo(z: Tensor, *, weight: Tensor | None = None, eps: float = 1e-3) -> Tensor:
    """Kozachenko-Leonenko entropy as a loss: rows, on the unit sphere, away from their nearest one (arXiv 1806.03198).

    With u the n rows of all processes, normalised to length 1,

        L = -(1 / n) sum_i log( min_{j != i} |u_i - u_j| + eps )

    Parameters
    ----------
    z : Tensor, (n, D)
        Not normalised.
    weight : Tensor, (n,), optional
        Which rows count, as in :func:`variance_hinge`.
    eps : float
        Keeps the gradient of two nearly equal rows finite; published: 1e-8.

    Returns
    -------
    Tensor
        Scalar float32, the same on every process. -0.69 at best (two opposite rows), 6.91 when all rows are equal; 0 where
        fewer than two rows count.

    Examples
    --------
    >>> round(float(koleo(torch.eye(3))), 4)  # -log(sqrt 2)
    -0.3473
    """
    with full_precision(z):
        here = torch.ones(len(z), dtype=torch.bool, device=z.device) if weight is None else weight > 0
        u, use = all_gather(F.normalize(torch.where(here[:, None], z.float(), 0.0), dim=1)), all_gather(here)
        itself = torch.eye(len(u), dtype=torch.bool, device=u.device)
        with torch.no_grad():
            near = (u @ u.T).masked_fill(itself | ~use, -2.0).argmax(dim=1)
        square = (u - u[near]).square().sum(dim=1)
        apart = square > 0  # the root of 0 has no gradient
        distance = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
        use = use & (use.sum() > 1)
        return -torch.where(use, (distance + eps).log(), 0.0).sum() / use.sum().clamp_min(1)


def unit_directions(count: int, dim: int, seed: int) -> Tensor:
    """(count, dim) float32 random unit vectors on the CPU, a function of the seed alone: the same on every process."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, device="cpu"), dim=1)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast: products of matrices in it would be in half precision. A tensor without memory has none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def _centred_rows(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows minus the mean over all processes of those that count, 0 for the others; and how many count in all."""
    x = x.float()
    use = x.new_ones(len(x), 1) if weight is None else weight.to(x.dtype)[:, None]
    x = torch.where(use > 0, x, 0.0)
    total = all_gather(torch.cat([(x * use).sum(dim=0), use.sum()[None]])[None]).sum(dim=0)
    n = total[-1]
    return (x - total[:-1] / n.clamp_min(1)) * use, n


def normalise_target(x: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Layer norm over features without affine parameters: (..., D) float32, mean 0 and (biased) variance 1 per token."""
    x = x.float()
    return F.layer_norm(x, x.shape[-1:], eps=eps)
