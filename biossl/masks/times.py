"""Masks over time patches as index tensors: which are hidden, which stay visible.

What lives here: batched draws from :class:`biossl.keys.Keys`, so a sample's mask is a function of (seed, step, global
position, draw) and neither world size nor accumulation changes it. All channels share the time mask: dependent leads
(III = II - I) cannot give the answer away. Two kinds:

- as published in ECG-JEPA (arXiv 2410.08559): one mask a step for the whole batch, its size varies from step to step;
- exact count: one mask a sample, every sample hides exactly ``count`` patches (static shapes). Drawn on a circle, every
  patch is hidden equally often; cutting all masks of a batch to the shortest, as I-JEPA does, would favour the left.

Masks of single tokens are in ``tokens.py``, what may make a patch likelier to be hidden in ``priors.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from biossl.keys import Keys

_FIRST_DRAW = 7_000_000  # draw numbers of masks, away from those of augmentations
_DRAWS = 8  # numbers reserved per mask
_ORDER, _SIZE = 5, 6  # uses that all masks of a sample, of a step share


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
    share = float(shared.shared((1,), draw_number(draw, 0)))
    count = int(n_patches * (ratio[0] + (ratio[1] - ratio[0]) * share))
    count = min(max(1, count), n_patches - 1)
    order = shared.shared((n_patches,), draw_number(draw, 1)).argsort()
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
    u = shared.shared((2, blocks), draw_number(draw, 0))
    n = (n_patches * (length[0] + (length[1] - length[0]) * u[0])).long().clamp(1, n_patches - 1)
    start = (u[1] * (n_patches - n)).long()
    patch = torch.arange(n_patches)
    hidden = ((patch >= start[:, None]) & (patch < (start + n)[:, None])).any(dim=0)
    return _shared_mask(hidden, keys)


def random_times_exact(keys: Keys, n_patches: int, count: int, *, prior: Tensor | None = None, draw: int = 0) -> Mask:
    """One random mask a sample, each hiding exactly ``count`` patches.

    Parameters
    ----------
    keys : Keys
    n_patches, count : int
        P and M; 1 <= M <= P - 1.
    prior : Tensor, (B, P), optional
        Weights, not negative: patches are drawn one after the other without replacement, each time in proportion to the
        weights that are left (Gumbel top-k). A patch of weight 0 is hidden only when no other is left.
    draw : int
        Number of the mask within the step.
    """
    check_count(n_patches, count)
    return top_mask(weighted_order(keys.uniform((n_patches,), draw_number(draw, 0)), prior), count)


def multi_block_exact(
    keys: Keys,
    n_patches: int,
    count: int,
    *,
    blocks: int = 4,
    length: tuple[float, float] = (0.175, 0.225),
    circular: bool = True,
    prior: Tensor | None = None,
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
    prior : Tensor, (B, P), optional
        Weights, not negative: the middle of a span is drawn in proportion to them instead of uniformly.
    draw : int
        Number of the mask within the step.
    """
    check_count(n_patches, count)
    u = keys.uniform((2, blocks), draw_number(draw, 0))  # (B, 2, blocks)
    n = (n_patches * (length[0] + (length[1] - length[0]) * u[:, 0])).long().clamp(1, n_patches)
    places = torch.full_like(n, n_patches) if circular else n_patches - n + 1
    if prior is None:
        start = (u[:, 1] * places).long()
    else:
        start = weighted_place(u[:, 1], prior) - n // 2
        start = start % n_patches if circular else torch.minimum(start.clamp_min(0), places - 1)
    patch = torch.arange(n_patches, device=u.device)
    offset = patch - start[:, :, None]  # (B, blocks, P)
    if circular:
        offset = offset % n_patches
    hidden = ((offset >= 0) & (offset < n[:, :, None])).any(dim=1)
    # Depth inside a span minus distance from the nearest one; the highest `count` are the trimmed or extended spans.
    # The uniform part decides between equal edges.
    depth = _distance(~hidden, circular) - _distance(hidden, circular)
    return top_mask(depth + keys.uniform((n_patches,), draw_number(draw, 1)), count)


def visible_spans(keys: Keys, n_patches: int, count: int, *, least: int, circular: bool = True, draw: int = 0) -> Mask:
    """One mask a sample, hiding exactly ``count`` patches, whose visible patches come in spans of at least ``least``.

    After Weimann and Conrad (arXiv 2410.13867): with K visible patches there are K // least spans; what is over is shared
    among them at random, and so are the hidden patches among the gaps (spans without a gap between them make a longer one).

    Parameters
    ----------
    keys : Keys
    n_patches, count : int
        P and M; 1 <= M <= P - least.
    least : int
        Shortest visible span, patches.
    circular : bool
        Turned by a random number of patches, so that every patch is hidden equally often; a span may then go on at the
        window's beginning. False: spans stay whole, and the ends of the window are seen less often than its middle.
    draw : int
        Number of the mask within the step.
    """
    check_count(n_patches, count)
    K = n_patches - count
    if K < least:
        raise ValueError(f"{K} visible patches cannot hold a span of {least}")
    J = K // least
    u = keys.uniform((2 * J + 1,), draw_number(draw, 0))
    length = least + _shares(u[:, : J - 1], K - J * least)  # (B, J)
    gap = _shares(u[:, J - 1 : 2 * J - 1] if not circular else u[:, J - 1 : 2 * J - 2], count)  # J + 1 gaps, or J
    end = (length + gap[:, :J]).cumsum(dim=1)  # of span j when every span follows its gap
    patch = torch.arange(n_patches, device=u.device)
    inside = (patch >= (end - length)[:, :, None]) & (patch < end[:, :, None])
    visible = inside.any(dim=1)
    if circular:
        visible = turn(visible, u[:, -1])
    return top_mask((~visible).to(torch.float64), count)


def disjoint_times(keys: Keys, n_patches: int, count: int, *, draw: int = 0) -> Mask:
    """Random masks of exactly ``count`` patches whose visible parts overlap as little as the count allows.

    After DMJD: every sample has one random order of its patches; mask 0 sees the first P - count of them, mask 1 the next,
    and so on round the circle. So the numbers of masks that see any two patches differ by at most 1, and no patch is seen
    twice before all were seen.

    Parameters
    ----------
    keys : Keys
    n_patches, count : int
        P and M; 1 <= M <= P - 1.
    draw : int
        Number of the mask within the step.
    """
    check_count(n_patches, count)
    K = n_patches - count
    order = keys.uniform((n_patches,), draw_number(0, _ORDER)).argsort(dim=1)
    return _mask_of(order.roll(-draw * K, dims=1), K)


def partition_times(keys: Keys, n_patches: int, *, parts: int, chunk: int, draw: int = 0) -> Mask:
    """Mask ``draw`` sees part ``draw`` of a random partition of every window into chunks of ``chunk`` patches.

    After S-PCL (arXiv 2603.07113) with contiguous chunks, which cannot be interpolated as single patches can: a sample's
    chunk borders are turned by a random number of patches, the chunks shuffled and cut into ``parts`` visible sets of
    P // parts patches (one chunk in two where they do not fit). Patches left over are seen by no part.

    Parameters
    ----------
    keys : Keys
    n_patches, parts, chunk : int
        P; 2 <= parts <= P; chunk >= 1.
    draw : int
        0 .. parts - 1.
    """
    if not 0 <= draw < parts <= n_patches:
        raise ValueError(f"part {draw} of {parts} of {n_patches} patches")
    n_chunks = -(-n_patches // chunk)
    u = keys.uniform((n_chunks + 1,), draw_number(0, _ORDER))
    start = (u[:, -1:] * n_patches).long()
    offset = (torch.arange(n_patches, device=u.device) - start) % n_patches
    rank = u[:, :-1].argsort(dim=1).argsort(dim=1)  # of every chunk
    order = (rank.gather(1, offset // chunk) * n_patches + offset).argsort(dim=1)
    K = n_patches // parts
    return _mask_of(order.roll(-draw * K, dims=1), K)


def step_share(keys: Keys) -> float:
    """One uniform number of the step, for a size that all its masks share; no device is waited for."""
    return float(_on_cpu(keys).shared((1,), draw_number(0, _SIZE)))


def weighted_order(u: Tensor, prior: Tensor | None) -> Tensor:
    """Scores whose k highest are a weighted sample without replacement (Gumbel top-k); ``u`` (B, n) uniform, ``prior`` (B, n).

    Without weights ``u`` itself. Entries of weight 0 come last, in random order.
    """
    if prior is None:
        return u
    weight = prior.to(torch.float64)
    gumbel = -(-u.clamp_min(1e-300).log()).log()
    return torch.where(weight > 0, weight.clamp_min(1e-300).log() + gumbel, gumbel - 1e9)


def weighted_place(u: Tensor, prior: Tensor) -> Tensor:
    """Indices drawn in proportion to weights; ``u`` (B, k) uniform, ``prior`` (B, n), int64 (B, k). All 0: uniformly."""
    weight = prior.to(torch.float64)
    weight = torch.where(weight.sum(dim=1, keepdim=True) > 0, weight, 1.0)
    total = weight.cumsum(dim=1)
    place = torch.searchsorted(total, u * total[:, -1:], right=True)
    return place.clamp_max(prior.shape[1] - 1)


def turn(flag: Tensor, u: Tensor) -> Tensor:
    """(B, P) turned round the circle by ``floor(u P)`` patches, ``u`` (B,) uniform: a circular shift of any mask."""
    P = flag.shape[1]
    start = (u * P).long()[:, None]
    return flag.gather(1, (torch.arange(P, device=flag.device) - start) % P)


def _shares(u: Tensor, total: int) -> Tensor:
    """``total`` patches cut at random into J + 1 numbers; ``u`` (B, J) uniform, int64 (B, J + 1)."""
    ends = u.new_tensor([0, total], dtype=torch.int64).expand(len(u), 2)
    cuts = (u * (total + 1)).long().sort(dim=1).values
    return torch.cat([ends[:, :1], cuts, ends[:, 1:]], dim=1).diff(dim=1)


def _mask_of(order: Tensor, n_visible: int) -> Mask:
    """The first ``n_visible`` of every row are visible."""
    return Mask(order[:, n_visible:].sort(dim=1).values, order[:, :n_visible].sort(dim=1).values)


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


def top_mask(score: Tensor, count: int) -> Mask:
    """The mask that hides the ``count`` highest scores of every row; ``score`` (B, n)."""
    order = score.argsort(dim=1, descending=True, stable=True)
    return Mask(order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values)


def _shared_mask(hidden: Tensor, keys: Keys) -> Mask:
    B, device = len(keys.position), keys.position.device
    masked, visible = (f.nonzero()[:, 0].to(device, non_blocking=True).expand(B, -1) for f in (hidden, ~hidden))
    return Mask(masked, visible)


def _on_cpu(keys: Keys) -> Keys:
    """Shared draws need a count on the host: made there, so that no device is waited for."""
    return replace(keys, position=torch.zeros(0, dtype=torch.int64))


def draw_number(draw: int, use: int) -> int:
    """Number of one use (0 .. 7) of mask ``draw`` in a step's keys."""
    return _FIRST_DRAW + _DRAWS * draw + use


def check_count(n_patches: int, count: int) -> None:
    """ValueError unless something is hidden and something stays visible."""
    if not 1 <= count <= n_patches - 1:
        raise ValueError(f"count must be 1 .. {n_patches - 1}, got {count}")
