"""Randomness that is a pure function of (seed, step, position, draw), so nothing random is ever saved.

What lives here: a counter hash (splitmix64) in int64 torch arithmetic. Masks and scalar augmentation parameters
come from :meth:`Keys.uniform`, so that world size, accumulation and loader workers do not matter. Bulk noise and
dropout use generators re-seeded from :meth:`Keys.fold`. No global random state is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_M1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_M2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(z: Tensor, n: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> n) & ((1 << (64 - n)) - 1)


def mix(z: Tensor) -> Tensor:
    """splitmix64 finaliser on int64 (wraps, as C does)."""
    z = z + _GOLDEN
    z = (z ^ _shift(z, 30)) * _M1
    z = (z ^ _shift(z, 27)) * _M2
    return z ^ _shift(z, 31)


def hash_ints(*values: int) -> int:
    """One non-negative 63-bit integer from several integers.

    Examples
    --------
    >>> hash_ints(0, 1) != hash_ints(1, 0)
    True
    """
    z = torch.zeros((), dtype=torch.int64, device="cpu")  # named, for a default device may be meta
    for v in values:
        z = mix(z ^ torch.tensor(((v + 2**63) % 2**64) - 2**63, dtype=torch.int64, device="cpu"))
    return int(z) & (2**63 - 1)


@dataclass(frozen=True)
class Keys:
    """Keys of one batch.

    Attributes
    ----------
    seed, step : int
        Run seed and optimiser step.
    position : Tensor, int64, shape (B,)
        Global position of each sample in the step (0 .. global batch - 1), whatever the rank or micro-batch.
    micro, rank : int
        Micro-batch within the step and process rank: only for bulk noise.
    """

    seed: int
    step: int
    position: Tensor
    micro: int = 0
    rank: int = 0

    def uniform(self, shape: tuple[int, ...], draw: int) -> Tensor:
        """Uniform numbers in [0, 1) that differ per sample, float64, shape (B, *shape).

        ``draw`` numbers the use: two uses with different ``draw`` are independent.
        """
        n = 1
        for s in shape:
            n *= s
        base = hash_ints(self.seed, self.step, draw)
        z = mix(self.position.to(torch.int64) ^ base)[:, None]
        z = mix(z ^ mix(torch.arange(n, device=self.position.device)[None, :] + 1))
        return (_shift(z, 11).to(torch.float64) * 2.0**-53).reshape(len(self.position), *shape)

    def shared(self, shape: tuple[int, ...], draw: int) -> Tensor:
        """Uniform numbers in [0, 1) shared by the whole step, float64, shape ``shape``."""
        one = Keys(self.seed, self.step, torch.full((1,), -1, dtype=torch.int64, device=self.position.device))
        return one.uniform(shape, draw)[0]

    def fold(self, draw: int = 0) -> int:
        """Seed for a bulk generator of this micro-batch on this rank."""
        return hash_ints(self.seed, self.step, self.micro, self.rank, draw)
