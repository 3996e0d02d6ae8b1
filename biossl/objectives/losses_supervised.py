"""Losses of what a label says, as pure functions computed in float32 whatever the precision around them.

What lives here: one function a kind of target: classes, several labels a window, ordered classes, values, survival times, a class for
every sample. Unknown is NaN everywhere (NaN of a class number too) and left out, never taken for a negative. A mean is over what
is known in the batch of all processes, so that averaging parameter gradients over processes gives those of one process; with
accumulation it is that of the micro-batch. No modules, no state; which loss a label has is ``supervised.py``'s.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from biossl.distributed import all_gather, world_size


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Sum of the known values over the number of all known ones of all processes, times the processes; 0 where none is known.

    Gradients are averaged over processes afterwards, which takes that factor away.
    """
    n = all_gather(known.sum()[None].float()).sum().clamp_min(1.0)
    return torch.where(known, values, 0.0).sum() * world_size() / n


def cross_entropy(logits: Tensor, target: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of one class a row, ``w[y] * ((1 - s) * -log p[y] + s * mean_k -log p[k])``, mean over the known rows.

    The weighted mean is divided by the number of rows and not by their weights: with weights that are 1 in the mean over the
    training rows (:func:`class_weights`) a batch of rare classes counts for more, and no batch changes what another weighs.
    Label smoothing as in arXiv 1512.00567.

    Parameters
    ----------
    logits : Tensor, (B, K)
    target : Tensor, (B,)
        Class numbers; NaN = unknown.
    weight : Tensor, (K,), optional
        Of the row's class.
    smoothing : float
        Share s of the target that is spread evenly over all classes, in [0, 1).

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> round(float(cross_entropy(torch.zeros(2, 4), torch.tensor([1.0, float("nan")]))), 4)
    1.3863
    """
    return dense_cross_entropy(logits[..., None], target[..., None], weight=weight, smoothing=smoothing)


def dense_cross_entropy(logits: Tensor, target: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """:func:`cross_entropy` of one class a sample, mean over all known samples of all windows.

    Parameters
    ----------
    logits : Tensor, (..., K, T)
    target : Tensor, (..., T)
        Class numbers; NaN = unknown (not annotated, not observed).
    weight, smoothing
        As in :func:`cross_entropy`.

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> float(dense_cross_entropy(torch.zeros(1, 2, 3), torch.full((1, 3), float("nan"))))
    0.0
    """
    known = target.isfinite()
    y = torch.where(known, target, 0.0).long()
    logp = logits.float().log_softmax(dim=-2)
    each = -logp.gather(-2, y.unsqueeze(-2)).squeeze(-2)
    if smoothing:
        each = (1.0 - smoothing) * each - smoothing * logp.mean(dim=-2)
    if weight is not None:
        each = each * weight.float()[y]
    return _mean(each, known)


def class_weights(counts: Tensor, how: Literal["none", "sqrt", "balanced"]) -> Tensor:
    """Weights of classes, 1 in the mean over the rows that were counted; 0 for a class without any.

    Parameters
    ----------
    counts : Tensor, (K,)
        Training rows of each class.
    how : {"none", "sqrt", "balanced"}
        All alike; in proportion to ``n ** -0.5``; to ``1 / n``, so that every class weighs the same in all.

    Returns
    -------
    Tensor, float32, (K,)

    Examples
    --------
    >>> class_weights(torch.tensor([75.0, 25.0]), "balanced").tolist()
    [0.6666666865348816, 2.0]
    """
    n = counts.double()
    power = {"none": 0.0, "sqrt": -0.5, "balanced": -1.0}[how]
    raw = torch.where(n > 0, n.clamp_min(1.0).pow(power), 0.0)
    return (raw * n.sum() / (raw * n).sum().clamp_min(1e-300)).float()


def positive_weights(positives: Tensor, negatives: Tensor, how: Literal["none", "sqrt", "balanced"]) -> Tensor:
    """Weights of the positives of each label for :func:`binary_cross_entropy`; 1 where a label has no positive or no negative.

    Parameters
    ----------
    positives, negatives : Tensor, (K,)
        Training rows known to be so.
    how : {"none", "sqrt", "balanced"}
        1; the root of negatives over positives; negatives over positives.

    Returns
    -------
    Tensor, float32, (K,)

    Examples
    --------
    >>> positive_weights(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 5.0]), "sqrt").tolist()
    [2.0, 1.0]
    """
    ratio = negatives.double() / positives.double().clamp_min(1.0)
    ratio = torch.where((positives > 0) & (negatives > 0), ratio, 1.0)
    return ratio.pow({"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[how]).float()


def binary_cross_entropy(logits: Tensor, target: Tensor, *, positive: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each label by itself, mean over the known entries.

    Parameters
    ----------
    logits : Tensor, (B, K)
    target : Tensor, (B, K)
        1, 0 or NaN = unknown.
    positive : Tensor, (K,), optional
        Weight of a label's positives; its negatives weigh 1.

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> round(float(binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]))), 4)
    0.6931
    """
    known = target.isfinite()
    y = torch.where(known, target, 0.0).float()
    each = F.binary_cross_entropy_with_logits(
        logits.float(), y, reduction="none", pos_weight=None if positive is None else positive.float()
    )
    return _mean(each, known)


def ordinal_nll(cumulative: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of ordered classes by their cumulative logits, ``P(y <= k) = sigmoid(c_k)``, mean over known rows.

    The proportional-odds model (McCullagh 1980, J. R. Stat. Soc. B 42, 109-142) has ``c_k = threshold_k - score`` with ascending
    thresholds; the head sees to their order (:class:`~biossl.models.task_heads.Ordinal`).

    Parameters
    ----------
    cumulative : Tensor, (B, K - 1)
        Ascending along the second dimension.
    target : Tensor, (B,)
        Class numbers 0 to K - 1; NaN = unknown.

    Returns
    -------
    Tensor
        Scalar float32.

    Examples
    --------
    >>> round(float(ordinal_nll(torch.tensor([[-1.0, 1.0]]), torch.tensor([1.0]))), 4)  # -log(sigmoid(1) - sigmoid(-1))
    0.7719
    """
    known = target.isfinite()
    y = torch.where(known, target, 0.0).long()
    c = cumulative.float()
    below = c.gather(1, (y - 1).clamp_min(0)[:, None])[:, 0]
    upto = c.gather(1, y.clamp_max(c.shape[1] - 1)[:, None])[:, 0]
    first, last = y == 0, y == c.shape[1]
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of numbers that are almost equal
    width = torch.where(first | last, 1.0, (upto - below).clamp_min(1e-6))
    middle = torch.log(-torch.expm1(-width))
    logp = torch.where(last, 0.0, F.logsigmoid(upto)) + torch.where(first, 0.0, F.logsigmoid(-below))
    return _mean(-logp - torch.where(first | last, 0.0, middle), known)


def regression(prediction: Tensor, target: Tensor, *, delta: float | None = None) -> Tensor:
    """Squared error, or Huber's (1964, Ann. Math. Stat. 35, 73-101) times two: ``d^2`` up to ``delta``, ``2 delta |d| - delta^2`` beyond.

    Parameters
    ----------
    prediction : Tensor, (B, ...)
    target : Tensor, (B, ...)
        Standardised, so that ``delta`` is in standard deviations of the training rows; NaN = unknown.
    delta : float, optional
        None = squared error throughout.

    Returns
    -------
    Tensor
        Scalar float32, mean over the known values.

    Examples
    --------
    >>> float(regression(torch.tensor([3.0]), torch.tensor([0.0]))), float(regression(torch.tensor([3.0]), torch.tensor([0.0]), delta=1.0))
    (9.0, 5.0)
    """
    known = target.isfinite()
    d = (prediction.float() - torch.where(known, target, 0.0).float()).abs()
    each = d.square() if delta is None else torch.where(d <= delta, d.square(), 2.0 * delta * d - delta**2)
    return _mean(each, known)


def cox(risk: Tensor, target: Tensor, *, ties: Literal["efron", "breslow"] = "efron") -> Tensor:
    """Negative log partial likelihood of Cox's model (1972, J. R. Stat. Soc. B 34, 187-220) over the events of a batch.

    Whoever is still watched at the time of an event is at risk; who was censored at that very time too. Of events at one time,
    Breslow (1974, Biometrics 30, 89-99) takes the sum over all at risk for each; Efron (1977, J. Am. Stat. Assoc. 72, 557-565)
    takes away l / d of those who have the event from the l-th of d (l from 0). The rows of all processes are one batch.

    Parameters
    ----------
    risk : Tensor, (B,)
        Log hazards.
    target : Tensor, (B, 2)
        Time, and 1 = event at that time or 0 = censored then. A row with NaN in either is left out.
    ties : {"efron", "breslow"}

    Returns
    -------
    Tensor
        Scalar float32: mean over the events, 0 where there are none.

    Examples
    --------
    >>> target = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    >>> round(float(cox(torch.zeros(2), target)), 4)  # one event, two at risk
    0.6931
    """
    f, y = all_gather(risk.float()), all_gather(target.double())  # times keep their ties
    known = y.isfinite().all(dim=1)
    time, event = y[:, 0], known & (y[:, 1] == 1)
    weight = (known[None, :] & (time[None, :] >= time[:, None])).float()  # (of the event, of those at risk)
    if ties == "efron":
        together = event[None, :] & (time[None, :] == time[:, None])
        earlier = torch.ones_like(together).tril(-1)  # the l-th of those together, in the order of the rows
        share = (together & earlier).sum(dim=1) / together.sum(dim=1).clamp_min(1)
        weight = weight - share[:, None] * together
    weight = torch.where(event[:, None], weight, 1.0)  # a row without an event has nobody at risk: no logarithm of nothing
    each = (torch.where(known, f, 0.0)[None, :] + weight.log()).logsumexp(dim=1) - f
    return torch.where(event, each, 0.0).sum() / event.sum().clamp_min(1)
