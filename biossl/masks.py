"""Masks over time patches as index tensors: which are hidden, which stay visible.

What lives here: batched draws from :class:`biossl.keys.Keys`, so a sample's mask is a function of (seed, step, global
position, draw) and neither world size nor accumulation changes it. All channels share the time mask: dependent leads
(III = II - I) cannot give the answer away. Two families:

- as published in ECG-JEPA (arXiv 2410.08559): one mask a step for the whole batch, its size varies from step to step;
- exact count: one mask a sample, every sample hides exactly ``count`` patches (static shapes). Drawn on a circle, every
  patch is hidden equally often; cutting all masks of a batch to the shortest, as I-JEPA does, would favour the left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from biossl.keys import Keys

_FIRST_DRAW = 7_000_000  # draw numbers of masks, away from those of augmentations
_DRAWS = 8  # numbers reserved per mask


class Mask(NamedTuple):
    """Sorted time-patch indices, int64: ``masked`` (B, M) and ``visible`` (B, K); M + K = P.

    Masks shared by the step are expanded over B, not copied.
    """

    masked: Tensor
    visible: Tensor


def exact_count(n_patches: int, ratio: float) -> int:
    """Number of patches to hide: ``ratio`` of P, rounded, at least 1 and at most P - 1.

    Examples
    --------
    >>> exact_count(50, 0.55)
    28
    """
    return min(max(1, int(ratio * n_patches + 0.5)), n_patches - 1)


def random_times(keys: Keys, n_patches: int, *, ratio: tuple[float, float] = (0.6, 0.7), draw: int = 0) -> Mask:
    """Random mask as published: one a step, ``int(P * U(ratio))`` patches without replacement.

    Parameters
    ----------
    keys : Keys
    n_patches : int
        P.
    ratio : (float, float)
    draw : int
        Number of the mask within the step (0 .. M - 1).
    """
    shared = _on_cpu(keys)
    share = float(shared.shared((1,), _number(draw, 0)))
    count = int(n_patches * (ratio[0] + (ratio[1] - ratio[0]) * share))
    count = min(max(1, count), n_patches - 1)
    order = shared.shared((n_patches,), _number(draw, 1)).argsort()
    hidden = torch.zeros(n_patches, dtype=torch.bool)
    hidden[order[:count]] = True
    return _shared_mask(hidden, keys)


def multi_block(
    keys: Keys, n_patches: int, *, blocks: int = 4, length: tuple[float, float] = (0.175, 0.225), draw: int = 0
) -> Mask:
    """Multi-block mask as published: one a step, the union of ``blocks`` spans of ``int(P * U(length))`` patches.

    Starts are uniform on 0 .. P - n - 1, so the last patch is never hidden: the published draw, kept as it is.

    Parameters
    ----------
    keys : Keys
    n_patches : int
        P.
    blocks : int
    length : (float, float)
        Share of P.
    draw : int
        Number of the mask within the step.
    """
    shared = _on_cpu(keys)
    u = shared.shared((2, blocks), _number(draw, 0))
    n = (n_patches * (length[0] + (length[1] - length[0]) * u[0])).long().clamp(1, n_patches - 1)
    start = (u[1] * (n_patches - n)).long()
    patch = torch.arange(n_patches)
    hidden = ((patch >= start[:, None]) & (patch < (start + n)[:, None])).any(dim=0)
    return _shared_mask(hidden, keys)


def random_times_exact(keys: Keys, n_patches: int, count: int, *, draw: int = 0) -> Mask:
    """One random mask a sample, each hiding exactly ``count`` patches.

    Parameters
    ----------
    keys : Keys
    n_patches, count : int
        P and M; 1 <= M <= P - 1.
    draw : int
        Number of the mask within the step.
    """
    _check(n_patches, count)
    return _top(keys.uniform((n_patches,), _number(draw, 0)), count)


def multi_block_exact(
    keys: Keys,
    n_patches: int,
    count: int,
    *,
    blocks: int = 4,
    length: tuple[float, float] = (0.175, 0.225),
    circular: bool = True,
    draw: int = 0,
) -> Mask:
    """One multi-block mask a sample, each hiding exactly ``count`` patches.

    The union of ``blocks`` spans is trimmed or extended at span edges until the count is met.

    Parameters
    ----------
    keys : Keys
    n_patches, count : int
        P and M; 1 <= M <= P - 1.
    blocks : int
    length : (float, float)
        Share of P.
    circular : bool
        Spans wrap round the end, so every patch is hidden equally often. False: spans stay inside the window and its
        ends are hidden less often.
    draw : int
        Number of the mask within the step.
    """
    _check(n_patches, count)
    u = keys.uniform((2, blocks), _number(draw, 0))  # (B, 2, blocks)
    n = (n_patches * (length[0] + (length[1] - length[0]) * u[:, 0])).long().clamp(1, n_patches)
    places = torch.full_like(n, n_patches) if circular else n_patches - n + 1
    start = (u[:, 1] * places).long()
    patch = torch.arange(n_patches, device=u.device)
    offset = patch - start[:, :, None]  # (B, blocks, P)
    if circular:
        offset = offset % n_patches
    hidden = ((offset >= 0) & (offset < n[:, :, None])).any(dim=1)
    # Depth inside a span minus distance from the nearest one; the highest `count` are the trimmed or extended spans.
    # The uniform part decides between equal edges.
    depth = _distance(~hidden, circular) - _distance(hidden, circular)
    return _top(depth + keys.uniform((n_patches,), _number(draw, 1)), count)


def _distance(flag: Tensor, circular: bool) -> Tensor:
    """(B, P) bool to float64 distance in patches to the nearest True (0 on it; 2 P where there is none)."""
    P = flag.shape[1]
    wide = flag.repeat(1, 3) if circular else flag
    far = 2 * P

    def from_left(f: Tensor) -> Tensor:
        at = torch.arange(f.shape[1], device=f.device)
        return at - torch.where(f, at, -far).cummax(dim=1).values

    near = torch.minimum(from_left(wide), from_left(wide.flip(1)).flip(1)).clamp_max(far)
    return (near[:, P : 2 * P] if circular else near).to(torch.float64)


def _top(score: Tensor, count: int) -> Mask:
    order = score.argsort(dim=1, descending=True, stable=True)
    return Mask(order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values)


def _shared_mask(hidden: Tensor, keys: Keys) -> Mask:
    B, device = len(keys.position), keys.position.device
    masked, visible = (f.nonzero()[:, 0].to(device, non_blocking=True).expand(B, -1) for f in (hidden, ~hidden))
    return Mask(masked, visible)


def _on_cpu(keys: Keys) -> Keys:
    """Shared draws need a count on the host: made there, so that no device is waited for."""
    return replace(keys, position=torch.zeros(0, dtype=torch.int64))


def _number(draw: int, use: int) -> int:
    return _FIRST_DRAW + _DRAWS * draw + use


def _check(n_patches: int, count: int) -> None:
    if not 1 <= count <= n_patches - 1:
        raise ValueError(f"count must be 1 .. {n_patches - 1}, got {count}")
