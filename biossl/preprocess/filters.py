"""Zero-phase filters and polyphase resampling of continuous signals with gaps.

What lives here: :func:`filter_signal` and :func:`resample`, pure functions on (C, T) arrays where NaN means "not
observed". A gap is never filtered across unless it is short enough to be bridged, and NaN comes out wherever NaN went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy import signal as sps

from biossl.errors import RequestError
from biossl.signal import FilterSpec

NOTCH_Q = 30.0
_HALF_LENGTH = 10  # anti-alias filter: this many samples of the slower rate on each side
_MAX_DENOMINATOR = 100_000  # rates agree to 1e-5 at worst, exactly for all rates met in practice


def filter_signal(x: np.ndarray, sfreq: float, spec: FilterSpec) -> np.ndarray:
    """Zero-phase high-pass, low-pass and notch.

    Butterworth sections of ``spec.order`` (forward and backward, so the attenuation is that of twice the order) and a
    notch with Q = 30. Gaps up to ``spec.bridge_s`` are bridged by a straight line for filtering only; longer gaps split
    the signal into runs filtered on their own; runs shorter than the filter's settling time become NaN. A low-pass or
    notch at or above Nyquist has nothing to remove and is skipped.

    Parameters
    ----------
    x : ndarray, float, shape (C, T)
        NaN = not observed.
    sfreq : float
        Hz.
    spec : FilterSpec

    Returns
    -------
    ndarray, shape (C, T), dtype of ``x``
        NaN wherever ``x`` is NaN.

    Raises
    ------
    RequestError
        High-pass at or above Nyquist or above the low-pass.

    Examples
    --------
    >>> filter_signal(np.ones((2, 1000)), 100.0, FilterSpec(highpass_hz=0.5)).shape
    (2, 1000)
    """
    sos = design(sfreq, spec)
    if sos.size == 0:
        return x.copy()
    settle = settling_samples(sos)
    out = np.full(x.shape, np.nan, dtype=x.dtype)
    for rows, mask in _by_mask(x):
        for a, b in _runs(mask, round(spec.bridge_s * sfreq)):
            if b - a < settle:
                continue
            piece = _bridge(x[rows, a:b].astype(np.float64), mask[a:b])
            y = sps.sosfiltfilt(sos, piece, axis=1, padtype="odd", padlen=min(b - a - 1, settle))
            out[rows, a:b] = np.where(mask[a:b], y, np.nan)
    return out


@lru_cache(maxsize=32)
def design(sfreq: float, spec: FilterSpec) -> np.ndarray:
    """Second-order sections (n, 6) of a FilterSpec at a rate; empty when nothing is to be done."""
    nyquist = sfreq / 2
    if spec.highpass_hz is not None and spec.highpass_hz >= min(nyquist, spec.lowpass_hz or nyquist):
        raise RequestError(
            f"filter: highpass_hz {spec.highpass_hz:g} is not below the low-pass and Nyquist ({nyquist:g} Hz); lower it"
        )
    parts = []
    if spec.highpass_hz:
        parts.append(sps.butter(spec.order, spec.highpass_hz, "highpass", fs=sfreq, output="sos"))
    if spec.lowpass_hz and spec.lowpass_hz < nyquist:
        parts.append(sps.butter(spec.order, spec.lowpass_hz, "lowpass", fs=sfreq, output="sos"))
    if spec.notch_hz and spec.notch_hz < nyquist:
        parts.append(sps.tf2sos(*sps.iirnotch(spec.notch_hz, NOTCH_Q, fs=sfreq)))
    return np.concatenate(parts) if parts else np.empty((0, 6))


def settling_samples(sos: np.ndarray) -> int:
    """Samples until the slowest pole has decayed to 10 % (1 % after the forward and backward pass)."""
    radius = max(float(np.abs(np.roots(section[3:])).max()) for section in sos)
    return max(int(np.ceil(np.log(0.1) / np.log(radius))), 1) if 0 < radius < 1 else 1


def resample(x: np.ndarray, sfreq_in: float, sfreq_out: float) -> np.ndarray:
    """Anti-aliased polyphase resampling by the exact ratio of the rates.

    Runs between gaps are resampled on their own, continued past their ends by odd reflection, so neither an edge nor a
    gap rings. An output sample is NaN when an input sample beside its instant is.

    Parameters
    ----------
    x : ndarray, float, shape (C, T)
        NaN = not observed.
    sfreq_in, sfreq_out : float
        Hz.

    Returns
    -------
    ndarray, shape (C, round(T * sfreq_out / sfreq_in)), dtype of ``x``
        Sample k lies at k / sfreq_out.

    Examples
    --------
    >>> resample(np.zeros((1, 1000)), 500.0, 100.0).shape
    (1, 200)
    """
    ratio = (Fraction(str(float(sfreq_out))) / Fraction(str(float(sfreq_in)))).limit_denominator(_MAX_DENOMINATOR)
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return x.copy()
    n_in = x.shape[1]
    n_out = (2 * n_in * up + down) // (2 * down)
    out = np.full((x.shape[0], n_out), np.nan, dtype=x.dtype)
    taps = _taps(up, down)
    for rows, mask in _by_mask(x):
        for a, b in _runs(mask, 0):
            first = -(-a * up // down)
            last = n_out if b == n_in else min((b - 1) * up // down + 1, n_out)
            if last > first:
                out[rows, first:last] = _resample_run(x[rows, a:b].astype(np.float64), a, first, last, up, down, taps)
    return out


def _resample_run(run: np.ndarray, start: int, first: int, last: int, up: int, down: int, taps: np.ndarray) -> np.ndarray:
    """Output samples first..last-1 of a run without gaps that begins at input sample ``start``."""
    half = (taps.size - 1) // 2
    edge = half // up + 2
    padded = (
        np.pad(run, ((0, 0), (edge, edge)), mode="reflect", reflect_type="odd")
        if run.shape[1] > 1
        else np.repeat(run, 2 * edge + 1, axis=1)
    )
    # on the grid of the upsampled signal the wanted instants lie at `at`, `at + down`, ...; leading zeros of the filter
    # shift them onto the instants that upfirdn computes (multiples of `down`)
    at = edge * up + first * down - start * up + half
    zeros = -at % down
    y = sps.upfirdn(np.concatenate([np.zeros(zeros), taps]), padded, up, down, axis=1)
    begin = (at + zeros) // down
    return y[:, begin : begin + last - first]


@lru_cache(maxsize=8)
def _taps(up: int, down: int) -> np.ndarray:
    slow = max(up, down)
    return sps.firwin(2 * _HALF_LENGTH * slow + 1, 1 / slow, window=("kaiser", 5.0)) * up


def _by_mask(x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of channels observed at the same samples: (rows, mask (T,))."""
    masks = np.isfinite(x)
    groups: dict[bytes, list[int]] = {}
    for i, mask in enumerate(masks):
        groups.setdefault(np.packbits(mask).tobytes(), []).append(i)
    for rows in groups.values():
        yield np.array(rows), masks[rows[0]]


def _runs(mask: np.ndarray, bridge: int) -> list[tuple[int, int]]:
    """Half-open runs of observed samples, those less than ``bridge`` + 1 missing samples apart taken as one."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    out: list[tuple[int, int]] = []
    for a, b in zip(starts.tolist(), stops.tolist(), strict=True):
        if out and a - out[-1][1] <= bridge:
            out[-1] = (out[-1][0], b)
        else:
            out.append((a, b))
    return out


def _bridge(piece: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Straight lines across the gaps inside a run."""
    if mask.all():
        return piece
    at = np.arange(mask.size)
    return np.stack([np.interp(at, at[mask], row[mask]) for row in piece])
