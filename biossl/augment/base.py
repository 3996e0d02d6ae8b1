"""The contract of an augmentation, and the pipeline that applies a list of them.

What lives here: the Augmentation base class, the base of its settings, and :class:`Pipeline`. What each augmentation does to
tensors is in ``functional.py``, ``warp.py``, ``spectral.py`` and ``spatial.py`` (pure functions, no randomness); settings and
draws are in ``amplitude.py``, ``timing.py``, ``frequency.py``, ``style.py``, ``contacts.py``, ``montage.py`` and
``orientation.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from biossl.augment.depends import DEPENDENCES, NamedPart, breaking
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.signal import CANONICAL_UNIT, CH_TYPES, InputSpec

__all__ = ["DEPENDENCES", "Applied", "AugmentConfig", "Augmentation", "Pipeline", "Settings", "breaking", "build_pipeline"]

_FIRST_DRAW = 1_000_000  # draw numbers of augmentations, away from those of masks
_VIEW_DRAWS, _PART_DRAWS = 100_000, 1_000


class Augmentation(nn.Module):
    """One transformation of a batch of windows.

    Subclasses implement :meth:`forward`, a pure function of (batch, keys, draw) in evaluation and training alike unless they
    hold learned parameters. All but ``batch_style`` change a sample whatever the others of the batch are. Unobserved samples
    stay 0 and unobserved, unless the augmentation says otherwise.

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
    remedy: ClassVar[str]

    @property
    def breaks(self) -> frozenset[str]:
        """Keys of :data:`DEPENDENCES` it destroys with these settings."""

    def build(self, spec: InputSpec) -> Augmentation:
        """The augmentation for windows of this spec; RequestError where it has no meaning for them."""


@dataclass(kw_only=True)
class Settings:
    """Base of the settings of an augmentation that holds nothing to learn.

    Subclasses say what they destroy (:meth:`_breaks`), what they mean for a spec (:meth:`_tables`), and draw their parameters
    and change the batch (:meth:`_change`).

    Attributes
    ----------
    p : float
        Probability that a sample is changed, drawn for each sample.
    """

    p: float = 1.0
    modalities: ClassVar[tuple[str, ...]] = ("ecg", "eeg", "imu")
    units: ClassVar[str] = "1"
    remedy: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is {self.p:g}; it is a probability, from 0 to 1")

    @property
    def breaks(self) -> frozenset[str]:
        """Keys of :data:`DEPENDENCES` it destroys with these settings; nothing where ``p`` is 0."""
        return frozenset(self._breaks() if self.p > 0 else ())

    def _breaks(self) -> set[str]:
        """What is destroyed in a sample that is changed."""
        return set()

    def _tables(self, spec: InputSpec) -> dict[str, Tensor]:
        """What channel names, units and rate fix once; RequestError where it has no meaning for them."""
        return {}

    def _change(self, batch: Batch, keys: Keys, draw: int, tables: dict[str, Tensor]) -> Batch:
        """Every sample changed. Unobserved samples need not be 0 in what comes back."""
        raise NotImplementedError  # every subclass

    def build(self, spec: InputSpec) -> Augmentation:
        """The augmentation for windows of this spec."""
        require_modality(self, spec)
        return Applied(self, self._tables(spec))


class Applied(Augmentation):
    """An augmentation without learned parameters: its settings, and its tables as buffers that are not saved."""

    def __init__(self, config: Settings, tables: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.breaks = config.breaks
        self.names = tuple(tables)
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        """See :class:`Augmentation`; draw numbers from ``draw + 1`` on are those of the settings."""
        new = self.config._change(batch, keys, draw + 1, {name: getattr(self, name) for name in self.names})
        return blend(batch, new, keys.uniform((), draw) < self.config.p)


def blend(old: Batch, new: Batch, chosen: Tensor) -> Batch:
    """``new`` for the chosen samples (B,), ``old`` for the others; 0 wherever not observed."""
    pick = chosen[:, None, None]
    x = torch.where(pick, new.x.to(old.x.dtype), old.x)
    if old.observed is None and new.observed is None:
        return replace(old, x=x)
    was, now = (torch.ones_like(x, dtype=torch.bool) if b.observed is None else b.observed for b in (old, new))
    observed = torch.where(pick, now, was)
    return replace(old, x=torch.where(observed, x, 0.0), observed=observed)


def require_modality(config: AugmentConfig, spec: InputSpec) -> None:
    """RequestError when an augmentation is not for windows of this modality."""
    if spec.modality not in config.modalities:
        raise RequestError(f"it is for {', '.join(config.modalities)}, not for {spec.modality}; remove it")


def check_by_type(values: dict[str, float], key: str) -> None:
    """ValueError unless ``values`` maps channel types to amounts of at least 0 (in the type's canonical unit)."""
    if not values:
        raise ValueError(f"{key} is empty; give an amount for a channel type, e.g. {{ecg: 0.1}} in mV")
    for kind, value in values.items():
        if kind not in CH_TYPES:
            raise ValueError(f"{key} names channel type '{kind}'; known: {', '.join(CH_TYPES)}")
        if not 0 <= value < float("inf"):
            raise ValueError(f"{key}.{kind} is {value:g} {CANONICAL_UNIT[kind]}; it is at least 0")


def amounts(values: dict[str, float], spec: InputSpec, key: str, *, absent: float = 0.0) -> Tensor:
    """(C,) amount of each channel by its type; types that the windows lack are passed over.

    Raises
    ------
    RequestError
        No channel is of any named type, or one is not calibrated, so that an amount in mV or g has no meaning.
    """
    hit = [i for i, kind in enumerate(spec.ch_types) if kind in values]
    if not hit:
        raise RequestError(f"{key}: no channel is of type {', '.join(values)}; here: {', '.join(sorted(set(spec.ch_types)))}")
    for i in hit:
        want = CANONICAL_UNIT[spec.ch_types[i]]
        if spec.units[i] != want:
            raise RequestError(
                f"{key}: channel {spec.ch_names[i]} is in unit '{spec.units[i]}', not {want}; state units in the card, or remove it"
            )
    return torch.tensor([values.get(kind, absent) for kind in spec.ch_types])


def below_nyquist(name: str, hz: float, spec: InputSpec) -> None:
    """RequestError when a frequency is not below half the rate of the windows."""
    if not hz < spec.sfreq / 2:
        raise RequestError(f"{name}: {hz:g} Hz is not below half the rate, {spec.sfreq / 2:g} Hz; lower it")


def ordered(values: Iterable[float], key: str, low: float, high: float) -> tuple[float, float]:
    """A pair [least, most] with low <= least <= most <= high; ValueError otherwise."""
    pair = tuple(values)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"{key} is {list(pair)}; it is [least, most] with {low:g} <= least <= most <= {high:g}")
    return pair[0], pair[1]


class Pipeline(nn.Module):
    """Augmentations applied in order.

    Parameters
    ----------
    parts : sequence of Augmentation
    channels : tuple of str, optional
        Names, in order, of the channels the parts were built for; None = any.

    Raises
    ------
    ValueError
        When called: a batch of other channels, or in another order; tables of the parts go by position.

    Examples
    --------
    >>> import torch
    >>> batch = Batch(torch.zeros(2, 1, 8), ("I",), 4.0)
    >>> Pipeline([])(batch, Keys(0, 0, torch.arange(2)), view=1) is batch
    True
    """

    def __init__(self, parts: Sequence[Augmentation], channels: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.channels = channels

    def forward(self, batch: Batch, keys: Keys, view: int = 0) -> Batch:
        """View number ``view`` of a batch: views of one step differ, the same view is always the same."""
        if self.channels is not None and batch.channels != self.channels:
            raise ValueError(
                f"augment was built for channels {' '.join(self.channels)}, the batch has {' '.join(batch.channels)}; give those, in "
                "that order"
            )
        kind = batch.x.device.type
        # in full precision: a product of rotation matrices in bfloat16 would be off by 1 in 256
        exact = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
        with exact:
            for i, part in enumerate(self.parts):
                batch = part(batch, keys, _FIRST_DRAW + view * _VIEW_DRAWS + i * _PART_DRAWS)
        return batch

    @property
    def idle(self) -> bool:
        """Whether no part can change a window: there is none, or each has probability 0."""
        return not any(part.config.p > 0 if isinstance(part, Applied) else True for part in self.parts)

    def breaking(self, key: str) -> bool:
        """Whether a part destroys what ``key`` of :data:`DEPENDENCES` names."""
        return any(isinstance(part, Augmentation) and key in part.breaks for part in self.parts)

    def penalty(self) -> Tensor | None:
        """Sum of the parts' penalties; None when there is none."""
        terms = [t for part in self.parts if isinstance(part, Augmentation) and (t := part.penalty()) is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def own_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of parts with a learning rate of their own: ``params`` and ``lr_scale`` (times the run's)."""
        return [
            {"params": trained, "lr_scale": float(getattr(part, "lr_scale", 1.0)), "weight_decay": 0.0}
            for part in self.parts
            if (trained := [p for p in part.parameters() if p.requires_grad])
        ]


def build_pipeline(parts: Sequence[NamedPart], spec: InputSpec) -> Pipeline:
    """The augmentations of a recipe for windows of this spec.

    Parameters
    ----------
    parts : sequence of named parts
        ``recipe.augment``.
    spec : InputSpec

    Raises
    ------
    RequestError
        One has no meaning for these windows: its number and name, what is wrong, the remedy.
    """
    built = []
    for i, part in enumerate(parts):
        try:
            built.append(part.config.build(spec))
        except RequestError as error:
            raise RequestError(f"augment.{i} {part.name}: {error}") from None
    return Pipeline(built, spec.ch_names)
