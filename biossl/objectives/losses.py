"""Losses and target normalisations as pure functions, computed in float32 whatever the precision around them.

What lives here: functions of tensors that return a scalar or a tensor. No modules, no state, no randomness. Each is
tested against a slow float64 version.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over all entries, or over those of tokens with weight (``values`` (..., D), ``weight`` (...))."""
    if weight is None:
        return values.mean()
    weight = weight.to(values.dtype)[..., None]
    return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp_min(1.0)


def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Mean Huber-like loss: ``0.5 d^2 / beta`` where ``|d| < beta``, else ``|d| - 0.5 beta``.

    Parameters
    ----------
    prediction, target : Tensor, (..., D)
    beta : float
        Where the loss turns from quadratic to linear; positive.
    weight : Tensor, (...), optional
        Which tokens count (bool or non-negative).

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> float(smooth_l1(torch.tensor([[2.0]]), torch.tensor([[0.0]])))
    1.5
    """
    difference = (prediction.float() - target.float()).abs()
    values = torch.where(difference < beta, 0.5 * difference.square() / beta, difference - 0.5 * beta)
    return _weighted_mean(values, weight)


def l1(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, scalar float32; ``weight`` (...) says which tokens of (..., D) count."""
    return _weighted_mean((prediction.float() - target.float()).abs(), weight)


def variance_hinge(x: Tensor, *, goal: float = 1.0, eps: float = 1e-4) -> Tensor:
    """VICReg's variance term: mean over features of ``relu(goal - sqrt(var + eps))`` (arXiv 2105.04906).

    The variance is the unbiased one over rows (divided by n - 1); the mean over features is neither halved nor summed.

    Parameters
    ----------
    x : Tensor, (n, D)
        n >= 2 rows.
    goal : float
        Standard deviation every feature should reach.
    eps : float
        Keeps the root's gradient finite at collapse.

    Returns
    -------
    Tensor
        Scalar float32, 0 when every feature varies enough, ``goal - sqrt(eps)`` at full collapse.

    Examples
    --------
    >>> round(float(variance_hinge(torch.zeros(4, 3))), 3)
    0.99
    """
    spread = (x.float().var(dim=0) + eps).sqrt()
    return F.relu(goal - spread).mean()


def normalise_target(x: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Layer norm over features without affine parameters: (..., D) float32, mean 0 and (biased) variance 1 per token."""
    x = x.float()
    return F.layer_norm(x, x.shape[-1:], eps=eps)
