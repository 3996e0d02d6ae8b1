"""Findings: what is wrong with a signal, as codes a table can count and sentences a person can read.

What lives here: pure numpy checks of one recording or window. Nothing is repaired or dropped here; views decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biossl.channels import limb_residuals
from biossl.signal import Recording

FLAT_S = 1.0  # a longer run of one value is lead-off, a disconnected electrode or idle sleep mode
FLAT_SAMPLES = 10  # a slow channel (1 Hz) may repeat a value
CLIP_SHARE = 1e-3  # more samples than this at the extreme value: the amplifier's rail
LIMB_RESIDUAL = 0.1  # limb leads that disagree more than this are a finding even when no single fault explains it
MAINS_RATIO = 0.5  # share of the power between 1 and 100 Hz within 1 Hz of the mains
# plausible standard deviation per channel type, in the canonical unit
_PLAUSIBLE = {"ecg": (0.005, 5.0), "eeg": (0.5, 500.0), "eog": (0.5, 2000.0), "emg": (0.05, 5000.0)}
_GRAVITY = (0.8, 1.25)  # median |acc| of a day or a walk, g


@dataclass(frozen=True)
class Finding:
    """One thing noticed.

    ``code`` is stable (``missing``, ``flat``, ``clipped``, ``amplitude``, ``mains``, ``gravity``, ``limb_leads``,
    ``repeated_name`` ...), ``channel`` its name (``""`` = the whole recording), ``share`` of the samples concerned (or
    the ratio measured), ``message`` a sentence.
    """

    code: str
    channel: str
    share: float
    message: str


def findings(
    x: np.ndarray, sfreq: float, ch_types: Sequence[str], units: Sequence[str], ch_names: Sequence[str] | None = None
) -> list[Finding]:
    """Check each channel.

    Parameters
    ----------
    x : ndarray, shape (C, T)
        Canonical units; NaN = not observed.
    sfreq : float
        Hz.
    ch_types, units : sequence of str, length C
    ch_names : sequence of str, length C, optional
        Used in the findings; channel numbers otherwise.

    Returns
    -------
    list of Finding
        Empty when nothing was noticed.

    Examples
    --------
    >>> [f.code for f in findings(np.zeros((1, 500)), 250.0, ["ecg"], ["mV"])]
    ['flat']
    """
    out: list[Finding] = []
    names = list(ch_names) if ch_names is not None else [str(i) for i in range(len(ch_types))]
    for name, kind, unit, row in zip(names, ch_types, units, np.asarray(x, dtype=np.float64), strict=True):
        out += _channel(name, kind, unit, row, sfreq)
    return out + _gravity(x, ch_types, units)


def recording_findings(recording: Recording) -> list[Finding]:
    """:func:`findings` of a Recording, what its reader noticed, and the limb-lead equations."""
    out = list(recording.meta.get("findings", []))
    out += findings(recording.data, recording.sfreq, recording.ch_types, recording.units, recording.ch_names)
    limb = limb_residuals(recording)
    if limb["suspects"] or limb["worst"] > LIMB_RESIDUAL:
        why = f"likely {'; or '.join(limb['suspects'][:2])}" if limb["suspects"] else "no single fault explains it"
        text = f"limb leads break Einthoven and Goldberger by {100 * limb['worst']:.0f} %: {why}"
        out.append(Finding("limb_leads", "", limb["worst"], text))
    return out


def _channel(name: str, kind: str, unit: str, row: np.ndarray, sfreq: float) -> list[Finding]:
    seen = np.isfinite(row)
    missing = 1.0 - seen.mean() if row.size else 1.0
    if missing == 1.0:
        return [Finding("missing", name, 1.0, f"{name}: no sample was observed")]
    out = []
    if missing > 0:
        out.append(Finding("missing", name, missing, f"{name}: {_percent(missing)} of the samples are missing"))
    flat = _flat_share(row, sfreq)
    if flat > 0:
        out.append(Finding("flat", name, flat, f"{name}: {_percent(flat)} lies in flat runs longer than {FLAT_S:g} s"))
    good = row[seen]
    if kind == "other" or flat > 0.99:
        return out
    clipped = _clipped_share(good)
    if clipped > CLIP_SHARE:
        out.append(Finding("clipped", name, clipped, f"{name}: {_percent(clipped)} of the samples sit at the extreme value"))
    if kind in _PLAUSIBLE and unit != "1":
        low, high = _PLAUSIBLE[kind]
        lo, hi = np.percentile(good, [2.5, 97.5])  # a trimmed spread: one artefact is not a wrong unit
        spread = float(good[(good >= lo) & (good <= hi)].std())
        if not low <= spread <= high:
            text = f"{name}: spread {spread:.3g} {unit} is implausible for {kind} ({low:g} to {high:g}); check the unit"
            out.append(Finding("amplitude", name, spread, text))
        for mains in (50.0, 60.0):
            ratio = mains_ratio(row, sfreq, mains)
            if ratio > MAINS_RATIO:
                text = f"{name}: {_percent(ratio)} of the power between 1 and 100 Hz is {mains:.0f} Hz mains"
                out.append(Finding("mains", name, ratio, text))
    return out


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def _flat_share(row: np.ndarray, sfreq: float) -> float:
    """Share of all samples in runs of one unchanging value longer than FLAT_S."""
    if row.size < 2:
        return 0.0
    edges = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1], [True]]))  # NaN differs from itself: no run
    lengths = np.diff(edges)
    return float(lengths[lengths > max(FLAT_S * sfreq, FLAT_SAMPLES)].sum() / row.size)


def _clipped_share(good: np.ndarray) -> float:
    """Share of samples in runs of two or more at the largest or smallest value (a rail holds; a peak does not)."""
    lo, hi = good.min(), good.max()
    if lo == hi:
        return 0.0
    share = 0.0
    for rail in (lo, hi):
        at = good == rail
        held = at & (np.concatenate([[False], at[:-1]]) | np.concatenate([at[1:], [False]]))
        share += float(held.mean())
    return share


def mains_ratio(row: np.ndarray, sfreq: float, mains_hz: float) -> float:
    """Power within 1 Hz of the mains over the power from 1 to 100 Hz (0 when Nyquist is below, or data too short).

    Parameters
    ----------
    row : ndarray, shape (T,)
        NaN counts as the mean.
    sfreq, mains_hz : float
        Hz.
    """
    if sfreq / 2 <= mains_hz + 1 or row.size < 2 * sfreq:
        return 0.0
    row = row[: int(60 * sfreq)]  # a minute suffices
    seen = np.isfinite(row)
    if not seen.any():
        return 0.0
    clean = np.where(seen, row - row[seen].mean(), 0.0) * np.hanning(row.size)
    power = np.abs(np.fft.rfft(clean)) ** 2
    hz = np.fft.rfftfreq(row.size, 1 / sfreq)
    total = power[(hz >= 1) & (hz <= 100)].sum()
    return float(power[np.abs(hz - mains_hz) <= 1].sum() / total) if total > 0 else 0.0


def _gravity(x: np.ndarray, ch_types: Sequence[str], units: Sequence[str]) -> list[Finding]:
    rows = [i for i, (t, u) in enumerate(zip(ch_types, units, strict=True)) if t == "acc" and u == "g"]
    if len(rows) != 3:
        return []
    magnitude = np.sqrt((np.asarray(x[rows], dtype=np.float64) ** 2).sum(axis=0))
    magnitude = magnitude[np.isfinite(magnitude)]
    if magnitude.size == 0:
        return []
    median = float(np.median(magnitude))
    if _GRAVITY[0] <= median <= _GRAVITY[1]:
        return []
    hint = "gravity was removed" if median < 0.3 else "check the unit"
    return [Finding("gravity", "", median, f"median |acc| is {median:.3g} g, not near 1 g: {hint}")]
