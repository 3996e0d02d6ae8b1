"""Schedules as pure functions of the optimiser step, so that a resumed run needs no state.

What lives here: learning rates (warm-up + cosine, constant + cool-down, infinite) and the linear and the cosine
ramp used for EMA momentum and weight decay; and for each learning rate a small dataclass that a recipe names. Steps are 0-based. No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


def linear_ramp(step: int, *, total: int, start: float, end: float) -> float:
    """From ``start`` at step 0 to ``end`` at step ``total``, and ``end`` from there on.

    Examples
    --------
    >>> linear_ramp(5, total=10, start=0.996, end=1.0)
    0.998
    """
    share = 1.0 if total <= 0 else min(max(step / total, 0.0), 1.0)
    return start * (1.0 - share) + end * share


def cosine_ramp(step: int, *, total: int, start: float, end: float) -> float:
    """Half a cosine from ``start`` at step 0 to ``end`` at step ``total``, and ``end`` from there on.

    The weight-decay ramp of DINO (arXiv 2104.14294): slow at both ends.

    Examples
    --------
    >>> round(cosine_ramp(5, total=10, start=0.04, end=0.4), 6)
    0.22
    """
    return _cosine(1.0 if total <= 0 else step / total, start, end)


def _cosine(share: float, start: float, end: float) -> float:
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def warmup_cosine(
    step: int,
    *,
    peak: float,
    total: int,
    warmup_steps: int,
    start_lr: float = 1e-6,
    floor_lr: float = 1e-6,
    from_start: bool = False,
) -> float:
    """Linear warm-up from ``start_lr``, then half a cosine to ``floor_lr`` at step ``total``.

    Parameters
    ----------
    step : int
        Optimiser step, 0-based.
    peak : float
        Where the warm-up ends, at step ``warmup_steps``.
    total, warmup_steps : int
    start_lr, floor_lr : float
    from_start : bool
        The cosine is counted from step 0 and merely hidden by the warm-up, as in timm and so in ECG-JEPA's code; it then
        never quite reaches ``peak``. False: it begins at ``peak`` when the warm-up ends.

    Examples
    --------
    >>> warmup_cosine(0, peak=1e-3, total=100, warmup_steps=10)
    1e-06
    """
    if step < warmup_steps:
        return linear_ramp(step, total=warmup_steps, start=start_lr, end=peak)
    hidden = 0 if from_start else warmup_steps
    return _cosine((step - hidden) / max(total - hidden, 1), peak, floor_lr)


def constant_cooldown(
    step: int, *, peak: float, total: int, warmup_steps: int, cooldown_steps: int, start_lr: float = 1e-6, floor_lr: float = 1e-6
) -> float:
    """Linear warm-up, constant ``peak``, linear cool-down to ``floor_lr`` over the last ``cooldown_steps`` (V-JEPA 2).

    Examples
    --------
    >>> constant_cooldown(50, peak=1e-3, total=100, warmup_steps=10, cooldown_steps=20)
    0.001
    """
    if step < warmup_steps:
        return linear_ramp(step, total=warmup_steps, start=start_lr, end=peak)
    return linear_ramp(step - (total - cooldown_steps), total=cooldown_steps, start=peak, end=floor_lr)


def infinite(
    step: int,
    *,
    peak: float,
    total: int,
    warmup_steps: int,
    cooldown_steps: int,
    constant_lr: float,
    anneal_steps: int,
    start_lr: float = 1e-6,
    floor_lr: float = 1e-6,
) -> float:
    """Warm-up, cosine cool-down to ``constant_lr``, constant, exponential anneal over the last ``anneal_steps``.

    For archives that keep growing: go on later from the checkpoint before the anneal (arXiv 2503.02844). With
    ``anneal_steps=0`` the rate stays constant for as long as data come.

    Examples
    --------
    >>> infinite(60, peak=1e-3, total=100, warmup_steps=10, cooldown_steps=20, constant_lr=4e-4, anneal_steps=20)
    0.0004
    """
    if step < warmup_steps:
        return linear_ramp(step, total=warmup_steps, start=start_lr, end=peak)
    left = step - (total - anneal_steps)
    if anneal_steps > 0 and left > 0:
        return constant_lr * (floor_lr / constant_lr) ** min(left / anneal_steps, 1.0)
    if step - warmup_steps >= cooldown_steps:
        return constant_lr
    return _cosine((step - warmup_steps) / max(cooldown_steps, 1), peak, constant_lr)


def _check(schedule: WarmupCosine | ConstantCooldown | Infinite) -> None:
    """ValueError for a phase or a rate below 0."""
    for name, value in vars(schedule).items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, not {value:g}")


@dataclass
class WarmupCosine:
    """See :func:`warmup_cosine`."""

    warmup_steps: int
    start_lr: float = 1e-6
    floor_lr: float = 1e-6
    from_start: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def least_steps(self) -> int:
        """Steps that hold all phases one after the other."""
        return self.warmup_steps

    def released_from(self, total: int) -> int | None:
        """None: the rate falls throughout, so there is no point to go on from."""
        return None

    def value(self, step: int, *, peak: float, total: int) -> float:
        """Learning rate at ``step``."""
        return warmup_cosine(
            step,
            peak=peak,
            total=total,
            warmup_steps=self.warmup_steps,
            start_lr=self.start_lr,
            floor_lr=self.floor_lr,
            from_start=self.from_start,
        )


@dataclass
class ConstantCooldown:
    """See :func:`constant_cooldown`."""

    warmup_steps: int
    cooldown_steps: int
    start_lr: float = 1e-6
    floor_lr: float = 1e-6

    def __post_init__(self) -> None:
        _check(self)

    def least_steps(self) -> int:
        """Steps that hold all phases one after the other."""
        return self.warmup_steps + self.cooldown_steps

    def value(self, step: int, *, peak: float, total: int) -> float:
        """Learning rate at ``step``."""
        return constant_cooldown(
            step,
            peak=peak,
            total=total,
            warmup_steps=self.warmup_steps,
            cooldown_steps=self.cooldown_steps,
            start_lr=self.start_lr,
            floor_lr=self.floor_lr,
        )

    def released_from(self, total: int) -> int | None:
        """Finished steps after which the rate only falls, for release: from there a run can be gone on with.

        None where the run is too short for its phases, so that the rate never was constant.
        """
        return max(total - self.cooldown_steps, 1) if total >= self.least_steps() else None

    def from_constant(self) -> ConstantCooldown:
        """The schedule of a run that goes on: no warm-up."""
        return replace(self, warmup_steps=0)


@dataclass
class Infinite:
    """See :func:`infinite`."""

    warmup_steps: int
    cooldown_steps: int
    constant_lr: float
    anneal_steps: int = 0
    start_lr: float = 1e-6
    floor_lr: float = 1e-6

    def __post_init__(self) -> None:
        _check(self)
        if self.constant_lr <= 0 or self.floor_lr <= 0:
            raise ValueError(
                f"constant_lr and floor_lr must be above 0, not {self.constant_lr:g} and {self.floor_lr:g}: the anneal divides by them"
            )

    def least_steps(self) -> int:
        """Steps that hold all phases one after the other."""
        return self.warmup_steps + self.cooldown_steps + self.anneal_steps

    def value(self, step: int, *, peak: float, total: int) -> float:
        """Learning rate at ``step``."""
        return infinite(
            step,
            peak=peak,
            total=total,
            warmup_steps=self.warmup_steps,
            cooldown_steps=self.cooldown_steps,
            constant_lr=self.constant_lr,
            anneal_steps=self.anneal_steps,
            start_lr=self.start_lr,
            floor_lr=self.floor_lr,
        )

    def released_from(self, total: int) -> int | None:
        """Finished steps after which the rate only falls, for release: from there a run can be gone on with.

        None where the run is too short for its phases, so that the rate never was constant.
        """
        return max(total - self.anneal_steps, 1) if total >= self.least_steps() else None

    def from_constant(self) -> Infinite:
        """The schedule of a run that goes on: neither warm-up nor cool-down, ``constant_lr`` from the first step."""
        return replace(self, warmup_steps=0, cooldown_steps=0)
