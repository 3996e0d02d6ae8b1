"""The signal contract: Recording, Annotation, InputSpec and units.

What lives here: what a recording *is* between a reader and the corpus, what an encoder expects, and the table
that turns physical units into the canonical ones. No file access, no torch. Readers fill these, views cut them,
checkpoints carry an InputSpec.

Canonical units: ECG mV; EEG, EOG and EMG uV; acceleration g; rotation rad/s; ``"1"`` = uncalibrated (legal only
when the card says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from biossl.errors import RecordError

CH_TYPES = ("ecg", "eeg", "eog", "emg", "resp", "ppg", "spo2", "acc", "gyro", "other")
MODALITIES = ("ecg", "eeg", "imu")

CANONICAL_UNIT = {
    "ecg": "mV", "eeg": "uV", "eog": "uV", "emg": "uV", "acc": "g", "gyro": "rad/s",
    "resp": "1", "ppg": "1", "spo2": "%", "other": "1",
}  # fmt: skip

STANDARD_GRAVITY = 9.80665  # m/s2 per g

# unit text (exact after stripping and replacing the micro signs) -> (canonical unit, factor)
_VOLT = {"V": 1.0, "mV": 1e-3, "mv": 1e-3, "uV": 1e-6, "uv": 1e-6, "nV": 1e-9, "nv": 1e-9}
_OTHER_UNITS: dict[str, tuple[str, float]] = {
    "g": ("g", 1.0), "mg": ("g", 1e-3), "m/s2": ("g", 1 / STANDARD_GRAVITY), "m/s^2": ("g", 1 / STANDARD_GRAVITY),
    "rad/s": ("rad/s", 1.0), "deg/s": ("rad/s", float(np.pi / 180)), "dps": ("rad/s", float(np.pi / 180)),
    "%": ("%", 1.0), "1": ("1", 1.0),
}  # fmt: skip


def unit_factor(unit: str, ch_type: str) -> tuple[str, float]:
    """Canonical unit for a channel type and the factor that takes values there.

    Parameters
    ----------
    unit : str
        Unit as the file states it (``"uV"``, ``"mv"``, ``"m/s2"`` ...); micro signs are understood.
        ``"MV"`` (mega or milli?) and an empty unit are never guessed.
    ch_type : str
        One of :data:`CH_TYPES`.

    Returns
    -------
    (str, float)
        Canonical unit, factor: ``canonical = value * factor``.

    Raises
    ------
    RecordError
        Code ``unknown_unit`` when the unit is not known or does not fit the channel type.

    Examples
    --------
    >>> unit_factor("mV", "eeg")
    ('uV', 1000.0)
    """
    text = unit.strip().replace("\u00b5", "u").replace("\u03bc", "u")
    want = CANONICAL_UNIT[ch_type]
    if text in _VOLT and want in ("mV", "uV"):
        return want, float(f"{_VOLT[text] / _VOLT[want]:.12g}")
    if text in _OTHER_UNITS and _OTHER_UNITS[text][0] == want:
        return _OTHER_UNITS[text]
    if ch_type in ("resp", "ppg", "spo2", "other") and text:
        return text, 1.0  # auxiliary channels keep their own stated unit
    if text == "1":
        return "1", 1.0
    shown = f"'{unit}'" if text else "empty"
    raise RecordError("unknown_unit", f"unit {shown} of a {ch_type} channel is not known; state it in the card's units")


@dataclass(frozen=True)
class Annotation:
    """One mark on a recording.

    ``onset_s`` is float64 seconds from the start of the *file* (not of the segment), ``duration_s`` seconds (0 = a
    point), ``channel`` the canonical channel name or ``""`` for all, ``kind`` what sort of mark (``beat``, ``rhythm``,
    ``wave``, ``stage``, ``activity``, ``trial``, ``note``), ``source`` who made it (``atr``, ``edf+``, ``labels.txt``).
    ``missing`` is the bound that nobody gave, ``onset`` or ``offset``: the mark then lasts from, or to, its peak ('' = none missing).
    """

    onset_s: float
    duration_s: float
    label: str
    channel: str = ""
    kind: str = "note"
    source: str = ""
    missing: str = ""


@dataclass
class Recording:
    """One contiguous segment of one rate group of one file.

    Attributes
    ----------
    data : ndarray, float32, shape (C, T)
        Canonical units; NaN where nothing was observed.
    sfreq : float
        Sampling frequency, Hz.
    ch_names : tuple of str, length C
        Canonical names (``biossl.channels``); the file's own names are in ``meta["ch_names_original"]``.
    ch_types : tuple of str, length C
        From :data:`CH_TYPES`.
    units : tuple of str, length C
        Canonical units.
    record : str
        The record's name, always text.
    offset_s : float
        Seconds from the start of the file to the first sample.
    start : str or None
        ISO 8601 start of the file, naive or with a zone.
    annotations : tuple of Annotation
        All marks of the file, onsets counted from the start of the file.
    subject : str or None
        Filled by the card alone.
    lsb : ndarray, float64, shape (C,), or None
        One count of the source in canonical units, when samples are whole counts (storage is then lossless).
    baseline : ndarray, float64, shape (C,), or None
        Value in canonical units of count 0 (0 unless the source has an offset).
    meta : dict
        Allow-listed facts only (format, original names, header filters, findings).
    """

    data: np.ndarray
    sfreq: float
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    units: tuple[str, ...]
    record: str
    offset_s: float = 0.0
    start: str | None = None
    annotations: tuple[Annotation, ...] = ()
    subject: str | None = None
    lsb: np.ndarray | None = None
    baseline: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype != np.float32:
            raise TypeError(f"data must be float32 (C, T), got {self.data.dtype} {self.data.shape}")
        n = self.data.shape[0]
        for name in ("ch_names", "ch_types", "units"):
            value = tuple(getattr(self, name))
            setattr(self, name, value)
            if len(value) != n:
                raise ValueError(f"{name} has {len(value)} entries for {n} channels")
        bad = [t for t in self.ch_types if t not in CH_TYPES]
        if bad:
            raise ValueError(f"unknown channel types {bad}; known: {', '.join(CH_TYPES)}")
        if len(set(self.ch_names)) != n:
            raise ValueError(f"channel names are not unique: {self.ch_names}")
        if not (np.isfinite(self.sfreq) and self.sfreq > 0):
            raise ValueError(f"sfreq must be positive, got {self.sfreq}")
        if not isinstance(self.record, str) or (self.subject is not None and not isinstance(self.subject, str)):
            raise TypeError("record and subject are text always")
        for name in ("lsb", "baseline"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (n,):
                raise ValueError(f"{name} must have shape ({n},)")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.data.shape[1] / self.sfreq

    def pick(self, names: tuple[str, ...] | list[str]) -> Recording:
        """The same recording with the named channels in that order; RecordError ``missing_channel`` otherwise."""
        absent = [n for n in names if n not in self.ch_names]
        if absent:
            raise RecordError(
                "missing_channel", f"{self.record}: no channel {', '.join(absent)}; it has {', '.join(self.ch_names)}"
            )
        rows = [self.ch_names.index(n) for n in names]
        return Recording(
            data=np.ascontiguousarray(self.data[rows]), sfreq=self.sfreq, ch_names=tuple(names),
            ch_types=tuple(self.ch_types[i] for i in rows), units=tuple(self.units[i] for i in rows), record=self.record,
            offset_s=self.offset_s, start=self.start, annotations=self.annotations, subject=self.subject,
            lsb=None if self.lsb is None else self.lsb[rows],
            baseline=None if self.baseline is None else self.baseline[rows], meta=self.meta,
        )  # fmt: skip


@dataclass(frozen=True)
class FilterSpec:
    """Filters applied to continuous signals before windows are cut (zero-phase, SciPy).

    ``highpass_hz``, ``lowpass_hz`` (None = off), ``notch_hz`` (None = off), ``order`` of the Butterworth sections,
    ``bridge_s``: gaps up to this many seconds are bridged for filtering only.
    """

    highpass_hz: float | None = None
    lowpass_hz: float | None = None
    notch_hz: float | None = None
    order: int = 4
    bridge_s: float = 0.5


@dataclass(frozen=True)
class InputSpec:
    """What one window is, for a corpus, and what an encoder expects.

    Attributes
    ----------
    modality : str
        ``ecg``, ``eeg`` or ``imu``.
    sfreq : float
        Hz.
    n_samples : int
        Samples per window (T).
    ch_names, ch_types, units : tuple of str
        Canonical, in order.
    filter : FilterSpec
        What was applied before cutting.
    reference : str
        EEG: ``as_recorded`` or ``average``; other modalities ``as_recorded``.
    """

    modality: str
    sfreq: float
    n_samples: int
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    units: tuple[str, ...]
    filter: FilterSpec = FilterSpec()
    reference: str = "as_recorded"

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r}; known: {', '.join(MODALITIES)}")
        if not len(self.ch_names) == len(self.ch_types) == len(self.units):
            raise ValueError("ch_names, ch_types and units differ in length")

    @property
    def window_s(self) -> float:
        """Window length, seconds."""
        return self.n_samples / self.sfreq

    def to_dict(self) -> dict[str, Any]:
        """Plain types only (for JSON and YAML)."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, FilterSpec):
                value = {g.name: getattr(value, g.name) for g in fields(value)}
            out[f.name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> InputSpec:
        """Inverse of :meth:`to_dict`; unknown keys are an error."""
        names = {f.name for f in fields(cls)}
        unknown = set(raw) - names
        if unknown:
            raise ValueError(f"unknown InputSpec keys: {', '.join(sorted(unknown))}")
        kw: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        kw["filter"] = FilterSpec(**kw.get("filter", {}))
        return cls(**kw)

    def differences(self, other: InputSpec) -> list[str]:
        """Readable lines, one a difference: ``sfreq: 250.0 here, 500.0 there``. Empty when they agree."""
        out = []
        for f in fields(self):
            a, b = getattr(self, f.name), getattr(other, f.name)
            same = abs(a - b) < 1e-6 if f.name == "sfreq" else a == b
            if not same:
                out.append(f"{f.name}: {_show(a)} here, {_show(b)} there")
        return out


def _show(value: Any) -> str:
    if is_dataclass(value):  # a filter: only what is set
        return " ".join(f"{f.name}={v}" for f in fields(value) if (v := getattr(value, f.name)) is not None) or "none"
    return " ".join(value) if isinstance(value, tuple) else str(value)
