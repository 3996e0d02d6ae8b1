"""What all readers share: one error type, channel naming, calibration to canonical units.

What lives here: the ``reader`` decorator (every exception of a reading library becomes one RecordError that names the
file) and :func:`calibrate`. No format is known here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from biossl.channels import name_channels
from biossl.errors import BiosslError, MachineError, RecordError
from biossl.quality import Finding
from biossl.signal import CANONICAL_UNIT, unit_factor

P = ParamSpec("P")
R = TypeVar("R")

_NEEDS_UNIT = ("ecg", "eeg", "eog", "emg", "acc", "gyro")


def reader(function: Callable[P, R]) -> Callable[P, R]:
    """Turn every exception of a reader into one RecordError with a code and the file's path.

    The first positional argument of the reader is the path. ``MachineError`` (out of memory) stays what it is.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        path = str(args[0])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # readers warn where a finding or an error is made here
                result = function(*args, **kwargs)
            if isinstance(result, list):
                if any(np.isinf(r.data).any() for r in result):
                    raise RecordError("infinite", "a sample is infinite; mend the file or the gain in its header", path)
                if not any(np.isfinite(r.data).any() for r in result):
                    raise RecordError("all_nan", "not one sample was observed; check the export", path)
            return result
        except RecordError as error:
            if error.path is not None:
                raise
            raise RecordError(error.code, str(error), path) from None
        except BiosslError:
            raise
        except FileNotFoundError as error:
            name = Path(str(error.filename)).name if error.filename else "a file it names"
            raise RecordError("missing", f"{name} is not there; copy it beside the others", path) from None
        except PermissionError:
            raise RecordError("unreadable", "no permission to read it; change the file's rights", path) from None
        except MemoryError:
            raise MachineError(f"{path}: not enough memory to read it; close other programs or use a larger machine") from None
        except Exception as error:
            fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise RecordError("unreadable", f"cannot be read ({fault[:200]}); check that the file is whole", path) from error

    return wrapped


@dataclass(frozen=True)
class Calibration:
    """Canonical names, types, units of a file's channels and the factor from the file's physical values."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    units: tuple[str, ...]
    factors: np.ndarray
    findings: list[Finding]

    def pick(self, rows: Sequence[int]) -> Calibration:
        """The same for some of the channels."""
        return Calibration(
            tuple(self.names[i] for i in rows), tuple(self.types[i] for i in rows), tuple(self.units[i] for i in rows),
            self.factors[list(rows)], [f for f in self.findings if f.channel in {self.names[i] for i in rows}],
        )  # fmt: skip


def calibrate(
    originals: Sequence[str],
    file_units: Sequence[str],
    *,
    modality: str | None = None,
    channel_map: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> Calibration:
    """Name the channels and find the factor to canonical units.

    Parameters
    ----------
    originals, file_units : sequence of str
        As the file states them.
    modality, channel_map
        See :func:`biossl.channels.name_channels`.
    units : mapping, optional
        Channel name (canonical or the file's) or channel type -> unit. A channel's own entry wins over the file; a
        type's entry is used where the file's unit is not known.

    Raises
    ------
    RecordError
        ``unknown_unit`` for an ECG, EEG, EOG, EMG, acceleration or rotation channel.
    """
    names, types, repeated = name_channels(originals, modality, channel_map)
    findings = [Finding("repeated_name", n, 1.0, f"{n}: the file has this channel name more than once") for n in repeated]
    out_units, factors = [], []
    given = units or {}
    for name, original, kind, unit in zip(names, originals, types, file_units, strict=True):
        own = given.get(name, given.get(original.strip()))
        try:
            text, factor = unit_factor(own if own is not None else unit, kind)
        except RecordError:
            if own is None and kind in given:
                text, factor = unit_factor(given[kind], kind)
            elif kind in _NEEDS_UNIT:
                shown = f"'{own if own is not None else unit}'" if (own or unit).strip() else "no unit"
                raise RecordError(
                    "unknown_unit",
                    f"channel {original.strip()!r} ({kind}) has {shown}, which is not known; state it in the card: "
                    f"units: {{{name}: {CANONICAL_UNIT[kind]}}} (or '1' for uncalibrated)",
                ) from None
            else:
                text, factor = "1", 1.0
        out_units.append(text)
        factors.append(factor)
    return Calibration(names, types, tuple(out_units), np.array(factors, dtype=np.float64), findings)


def recoverable(counts: Sequence[np.ndarray], zeros: Sequence[float]) -> bool:
    """Can whole counts be got back from float32 values? Their distance from ``zeros`` must leave room in 24 bits."""
    spans = [(int(c.min()) - z, int(c.max()) - z) for c, z in zip(counts, zeros, strict=True) if c.size]
    return all(max(-low, high) < 2**22 for low, high in spans)


def meta(fmt: str, originals: Sequence[str], findings: list[Finding], **more: Any) -> dict[str, Any]:
    """The allow-listed facts every reader states."""
    return {"format": fmt, "ch_names_original": [o.strip() for o in originals], "findings": findings, **more}
