"""Pure functions on channels: rotation of sensor axes, exchanged electrodes, references, dropout.

What lives here: one linear map a sample (:func:`mix_channels`), the matrices that are put into it, and what follows from
channel names. Matrices of names are made once, when an augmentation is built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from biossl.augment.warp import Pair

_AXIS = re.compile(r"(?P<before>.*?)(?P<kind>acc|gyro)_(?P<axis>[xyz])(?P<after>.*)")


def mix_channels(x: Tensor, weight: Tensor, observed: Tensor | None = None) -> Pair:
    """Every channel a weighted sum of channels; observed where all that count in it are (where it was, if none counts).

    Parameters
    ----------
    x : Tensor, (B, C, T)
    weight : Tensor, (B, C, C)
        ``out[b, i] = sum_j weight[b, i, j] x[b, j]``.
    observed : Tensor, bool, (B, C, T), or None
    """
    out = weight.to(x.dtype) @ x
    if observed is None:
        return out, None
    counts = weight != 0
    alone = ~counts.any(dim=2, keepdim=True) & torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    missing = (counts | alone).to(x.dtype) @ (~observed).to(x.dtype)
    seen = missing == 0
    return torch.where(seen, out, 0.0), seen


def quaternion_matrix(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in the order w, x, y, z, of any length but 0.

    Examples
    --------
    >>> quaternion_matrix(torch.tensor([1.0, 0.0, 0.0, 0.0])).equal(torch.eye(3))
    True
    """
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def tilt_matrix(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) by ``angle`` (...) radians about ``axis`` (..., 3) of any length but 0."""
    unit = axis / axis.norm(dim=-1, keepdim=True)
    half = angle[..., None] / 2
    return quaternion_matrix(torch.cat([half.cos(), half.sin() * unit], dim=-1))


def rotate(x: Tensor, matrix: Tensor, triads: Tensor, observed: Tensor | None = None) -> Pair:
    """Vectors turned: acceleration and rotation rate alike, for a proper rotation leaves axial vectors proper.

    Parameters
    ----------
    x : Tensor, (B, C, T)
    matrix : Tensor, (B, K, 3, 3) or (B, 3, 3)
        One a triad, or one for all.
    triads : Tensor, (K, 3, C)
        1 where a channel is that axis of that triad (:func:`triad_table`).
    observed : Tensor, bool, (B, C, T), or None
    """
    K, _, C = triads.shape
    matrix = (matrix if matrix.ndim == 4 else matrix[:, None]).expand(-1, K, 3, 3).to(x.dtype)
    eye3, triads = torch.eye(3, device=x.device, dtype=x.dtype), triads.to(x.dtype)
    weight = torch.eye(C, device=x.device, dtype=x.dtype) + torch.einsum("kia,bkij,kjc->bac", triads, matrix - eye3, triads)
    return mix_channels(x, weight, observed)


def triad_table(channels: Sequence[str]) -> tuple[Tensor, list[str], list[str], list[str]]:
    """The vectors among IMU channels.

    Parameters
    ----------
    channels : sequence of str, length C
        ``acc_x``, ``gyro_z``; what stands before or after the name of the axis is the sensor's site.

    Returns
    -------
    table : Tensor, (K, 3, C)
        For :func:`rotate`.
    kinds : list of str, length K
        ``acc`` or ``gyro``.
    sites : list of str, length K
    lonely : list of str
        Channels that are an axis of a triad that is not complete.

    Examples
    --------
    >>> triad_table(["acc_x", "acc_y", "acc_z", "gyro_x"])[1:]
    (['acc'], [''], ['gyro_x'])
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for row, name in enumerate(channels):
        match = _AXIS.fullmatch(name)
        if match:
            found.setdefault((match["before"] + match["after"], match["kind"]), {})[match["axis"]] = row
    whole = {key: axes for key, axes in found.items() if len(axes) == 3}
    lonely = [channels[row] for key, axes in found.items() if key not in whole for row in axes.values()]
    rows = [[[float(c == axes[a]) for c in range(len(channels))] for a in "xyz"] for axes in whole.values()]
    table = torch.tensor(rows).reshape(len(whole), 3, len(channels))
    return table, [kind for _, kind in whole], [site for site, _ in whole], lonely


# Leads as weighted sums of electrode potentials (Einthoven, Goldberger); chest leads are against the mean of the three limbs.
_LEADS: dict[str, dict[str, float]] = {
    "I": {"LA": 1, "RA": -1}, "II": {"LL": 1, "RA": -1}, "III": {"LL": 1, "LA": -1},
    "aVR": {"RA": 1, "LA": -0.5, "LL": -0.5}, "aVL": {"LA": 1, "RA": -0.5, "LL": -0.5},
    "aVF": {"LL": 1, "RA": -0.5, "LA": -0.5},
}  # fmt: skip
_CHEST = tuple(f"V{i}" for i in range(1, 7))
_CENTRAL = {"RA": 1 / 3, "LA": 1 / 3, "LL": 1 / 3}
# Potentials as (a, b): a I + b II against RA. The right leg is taken for equal to the left one: no current flows between them.
_POTENTIAL = {"RA": (0.0, 0.0), "LA": (1.0, 0.0), "LL": (0.0, 1.0), "RL": (0.0, 1.0)}
LIMB_SWAPS = ("RA-LA", "RA-LL", "LA-LL", "RA-RL", "LA-RL")
CHEST_SWAPS = tuple(f"V{i}-V{i + 1}" for i in range(1, 6))


def electrode_matrix(channels: Sequence[str], *, average: Sequence[bool]) -> Tensor:
    """How noise at single electrodes reaches the channels.

    Parameters
    ----------
    channels : sequence of str, length C
        Limb and chest leads come from RA, LA, LL and the chest; a pair (``C4-M1``) is a difference; any other channel has an
        electrode of its own.
    average : sequence of bool, length C
        Channels that were referenced to their common average.

    Returns
    -------
    Tensor, (C, E)
        So noise obeys Einthoven's equation, as that of a real contact does.

    Examples
    --------
    >>> electrode_matrix(["I", "II", "III"], average=[False] * 3)
    tensor([[-1.,  1.,  0.],
            [-1.,  0.,  1.],
            [ 0., -1.,  1.]])
    """
    sums = []
    for name in channels:
        if name in _LEADS:
            sums.append(_LEADS[name])
        elif name in _CHEST:
            sums.append({name: 1.0} | {limb: -share for limb, share in _CENTRAL.items()})
        else:
            plus, _, minus = name.partition("-")
            sums.append({plus: 1.0, minus: -1.0} if minus else {name: 1.0})
    electrodes = list(dict.fromkeys(e for e in ("RA", "LA", "LL") if any(e in s for s in sums)))
    electrodes += [e for e in dict.fromkeys(e for s in sums for e in s) if e not in electrodes]
    matrix = torch.tensor([[s.get(e, 0.0) for e in electrodes] for s in sums])
    together = torch.tensor([[float(a and b) for b in average] for a in average])
    return matrix - together @ matrix / max(1, sum(average))


def reversal_matrix(channels: Sequence[str], swap: str) -> Tensor:
    """What the leads become when two electrodes are exchanged.

    Parameters
    ----------
    channels : sequence of str, length C
        For an exchange of limbs at least two limb leads.
    swap : str
        One of ``LIMB_SWAPS`` or ``CHEST_SWAPS``. RL is taken to have the potential of LL, so RA-RL leaves lead II flat.

    Returns
    -------
    Tensor, (C, C)

    Raises
    ------
    ValueError
        An unknown swap, or leads that do not determine the result.

    Examples
    --------
    >>> reversal_matrix(["I", "II"], "RA-LA")
    tensor([[-1.,  0.],
            [-1.,  1.]])
    """
    if swap not in LIMB_SWAPS + CHEST_SWAPS:
        raise ValueError(f"'{swap}' is no swap; known: {', '.join(LIMB_SWAPS + CHEST_SWAPS)}")
    first, second = swap.split("-")
    rows = [[float(i == j) for j in range(len(channels))] for i in range(len(channels))]
    if swap in CHEST_SWAPS:
        if first not in channels or second not in channels:
            raise ValueError(f"swap {swap} needs both leads")
        a, b = channels.index(first), channels.index(second)
        rows[a], rows[b] = rows[b], rows[a]
        return torch.tensor(rows)
    if sum(name in _LEADS for name in channels) < 2:
        raise ValueError(f"swap {swap} needs at least two limb leads")
    after = _POTENTIAL | {first: _POTENTIAL[second], second: _POTENTIAL[first]}
    for i, name in enumerate(channels):
        if name in _LEADS:
            rows[i] = _from_limbs(_combine(_LEADS[name], after), channels)
        elif name in _CHEST:
            was, now = _combine(_CENTRAL, _POTENTIAL), _combine(_CENTRAL, after)
            moved = _from_limbs((was[0] - now[0], was[1] - now[1]), channels)
            rows[i] = [own + more for own, more in zip(rows[i], moved, strict=True)]
    return torch.tensor(rows)


def _combine(weights: dict[str, float], potential: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """A weighted sum of potentials, as (a, b) of a I + b II."""
    return (
        sum(w * potential[e][0] for e, w in weights.items()),
        sum(w * potential[e][1] for e, w in weights.items()),
    )


def _from_limbs(target: tuple[float, float], channels: Sequence[str]) -> list[float]:
    """Weights over channels that give a I + b II: one lead where one does, else the first two limb leads."""
    out = [0.0] * len(channels)
    there = {i: _combine(_LEADS[name], _POTENTIAL) for i, name in enumerate(channels) if name in _LEADS}
    a, b = target
    if abs(a) + abs(b) < 1e-9:
        return out
    for i, (c, d) in there.items():
        if abs(a * d - b * c) < 1e-9:
            out[i] = (a * c + b * d) / (c * c + d * d)
            return out
    (i, (c, d)), (j, (e, f)) = list(there.items())[:2]
    det = c * f - d * e
    out[i], out[j] = (a * f - b * e) / det, (b * c - a * d) / det
    return out


def mirrored_name(name: str) -> str:
    """The EEG channel on the other side: odd numbers are left, even right; ``z`` stays.

    Examples
    --------
    >>> mirrored_name("C3"), mirrored_name("F8-P10"), mirrored_name("Cz")
    ('C4', 'F7-P9', 'Cz')
    """

    def end(text: str) -> str:
        match = re.fullmatch(r"(\D+)(\d+)", text)
        if not match:
            return text
        number = int(match[2])
        return f"{match[1]}{number + 1 if number % 2 else number - 1}"

    return "-".join(end(text) for text in name.split("-"))
