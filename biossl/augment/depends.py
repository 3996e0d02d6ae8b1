"""What a label can depend on, and which augmentations of a recipe destroy it. No torch: cards are read without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

# An augmentation names those it destroys (``breaks``), a label of a card those it needs (``depends``).
DEPENDENCES: dict[str, str] = {
    "amplitude": "absolute size of the signal (hypertrophy voltage, band power, intensity of movement)",
    "polarity": "sign of the signal (axis deviation, spike polarity)",
    "direction": "direction of time (gait phase, sit-to-stand, spike-wave)",
    "order": "order of events inside the window",
    "timing": "when something happens inside the window (beat position, event onset, waves)",
    "rate": "speed of what repeats (heart rate, cadence, peak frequency)",
    "morphology": "shape of single waves (ST segment, QRS width)",
    "spectrum": "share of frequency bands (sleep stage, workload)",
    "channel": "which channel shows it (infarct localisation, focal slowing)",
    "laterality": "left or right side",
    "posture": "direction of gravity",
    "orientation": "direction of movement in the sensor's own axes",
}


class NamedPart(Protocol):
    """A named part of a recipe: ``name``, and ``config`` with ``breaks`` and ``remedy``."""

    name: str
    config: Any


def breaking(parts: Sequence[NamedPart], depends: Iterable[str]) -> list[str]:
    """One line for each augmentation that destroys something a label depends on.

    Parameters
    ----------
    parts : sequence of named parts
        ``recipe.augment``, in order.
    depends : iterable of str
        Keys of :data:`DEPENDENCES`.

    Returns
    -------
    list of str
        ``augment.0 rotation breaks posture (direction of gravity); remove it, or take tilt with max_deg up to 30``.

    Examples
    --------
    >>> breaking([], ["posture"])
    []
    """
    needed = set(depends)
    out = []
    for i, part in enumerate(parts):
        broken = [key for key in DEPENDENCES if key in needed & part.config.breaks]
        if broken:
            what = ", ".join(f"{key} ({DEPENDENCES[key]})" for key in broken)
            out.append(
                f"augment.{i} {part.name} breaks {what}; remove it{', or ' * bool(part.config.remedy)}{part.config.remedy}"
            )
    return out
