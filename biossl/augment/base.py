"""The contract of an augmentation, and the pipeline that applies a list of them.

What lives here: the Augmentation base class, the vocabulary of what a label can depend on, and :class:`Pipeline`. What
each augmentation does is in ``functional.py`` (pure functions), its settings in the file of its modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.signal import InputSpec

# What a label can depend on. An augmentation names those it destroys (``breaks``), a label of a card those it needs.
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

_FIRST_DRAW = 1_000_000  # draw numbers of augmentations, away from those of masks
_VIEW_DRAWS, _PART_DRAWS = 100_000, 1_000


class Augmentation(nn.Module):
    """One transformation of a batch of windows.

    Subclasses implement :meth:`forward`, a pure function of (batch, keys, draw) in evaluation and training alike unless they
    hold learned parameters. Unobserved samples stay 0 and unobserved, unless the augmentation says otherwise.

    Attributes
    ----------
    modalities : tuple of str
        For which it is meant.
    units : str
        In what its settings are given.
    breaks : frozenset of str
        Keys of :data:`DEPENDENCES` it destroys; all others are kept.
    """

    modalities: ClassVar[tuple[str, ...]] = ("ecg", "eeg", "imu")
    units: ClassVar[str] = "1"
    breaks: frozenset[str] = frozenset()

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        """The transformed batch; ``draw`` .. ``draw + 999`` are its own draw numbers of ``keys``."""
        raise NotImplementedError  # every subclass

    def penalty(self) -> Tensor | None:
        """A term for the loss, where learned parameters need one."""
        return None


class AugmentConfig(Protocol):
    """Settings of one augmentation: a dataclass of a recipe's ``augment`` list."""

    modalities: ClassVar[tuple[str, ...]]
    units: ClassVar[str]

    @property
    def breaks(self) -> frozenset[str]:
        """Keys of :data:`DEPENDENCES` it destroys with these settings."""

    def build(self, spec: InputSpec) -> Augmentation:
        """The augmentation for windows of this spec; RequestError where it has no meaning for them."""


class Pipeline(nn.Module):
    """Augmentations applied in order.

    Parameters
    ----------
    parts : sequence of Augmentation

    Examples
    --------
    >>> import torch
    >>> batch = Batch(torch.zeros(2, 1, 8), ("I",), 4.0)
    >>> Pipeline([])(batch, Keys(0, 0, torch.arange(2)), view=1) is batch
    True
    """

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, batch: Batch, keys: Keys, view: int = 0) -> Batch:
        """View number ``view`` of a batch: views of one step differ, the same view is always the same."""
        for i, part in enumerate(self.parts):
            batch = part(batch, keys, _FIRST_DRAW + view * _VIEW_DRAWS + i * _PART_DRAWS)
        return batch

    def penalty(self) -> Tensor | None:
        """Sum of the parts' penalties; None when there is none."""
        terms = [t for part in self.parts if isinstance(part, Augmentation) and (t := part.penalty()) is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def own_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of parts with a learning rate of their own: ``params`` and ``lr_scale`` (times the run's)."""
        return [
            {"params": list(part.parameters()), "lr_scale": float(getattr(part, "lr_scale", 1.0)), "weight_decay": 0.0}
            for part in self.parts
            if any(p.requires_grad for p in part.parameters())
        ]
