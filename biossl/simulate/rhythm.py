"""When a simulated heart beats: sinus rhythm with respiration and pressure waves, atrial fibrillation, ectopy.

What lives here: beat times. Times in seconds, vectorised over recordings. No waveforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MIN_RR_S, MAX_RR_S = 0.33, 2.0


@dataclass
class Rhythm:
    """Beats of n recordings, K slots (unused slots lie past the end).

    ``onset_s`` (n, K) QRS onsets; ``rr_s`` (n, K) interval before each beat; ``ectopic`` (n, K) bool, ventricular;
    ``breath`` (n, 2) respiration in Hz and its phase at time 0, radians; ``fibrillating`` (n,) bool.
    """

    onset_s: Array
    rr_s: Array
    ectopic: Array
    breath: Array
    fibrillating: Array


def draw_rhythm(
    rng: np.random.Generator, *, rate_bpm: Array, age: Array, fibrillating: Array, ectopy: Array, duration_s: float
) -> Rhythm:
    """Beat times.

    Parameters
    ----------
    rng : Generator
    rate_bpm, age : ndarray, shape (n,)
        Mean rate, beats per minute; age in years (variability falls with it).
    fibrillating : ndarray of bool, shape (n,)
        Atrial fibrillation: intervals without order.
    ectopy : ndarray, shape (n,)
        Probability that a beat is a ventricular ectopic one, followed by a compensatory pause.
    duration_s : float
    """
    n = len(rate_bpm)
    slots = int(np.ceil(duration_s / MIN_RR_S)) + 3
    breath = np.stack([rng.uniform(0.18, 0.34, n), rng.uniform(0, 2 * np.pi, n)], axis=1)
    young = np.exp(-0.022 * (age - 25))
    rsa = 0.055 * young * np.exp(rng.normal(0, 0.4, n))  # share of RR
    mayer, mayer_phase = 0.025 * young * np.exp(rng.normal(0, 0.4, n)), rng.uniform(0, 2 * np.pi, n)
    wander = rng.normal(0, 0.010, (n, slots)).cumsum(axis=1) * 0.5
    jitter = rng.normal(0, 0.006, (n, slots))
    chaos = np.exp(rng.normal(0, 0.20, (n, slots)))
    extra = rng.random((n, slots)) < ectopy[:, None]
    coupling = rng.uniform(0.52, 0.72, (n, slots))
    mean = 60.0 / rate_bpm
    onset, rr = np.empty((n, slots)), np.empty((n, slots))
    now = -rng.uniform(0.2, 1.0, n) * mean
    pause = np.zeros(n)
    for k in range(slots):
        regular = 1 + rsa * np.sin(2 * np.pi * breath[:, 0] * now + breath[:, 1])
        regular += mayer * np.sin(2 * np.pi * 0.1 * now + mayer_phase) + wander[:, k] + jitter[:, k]
        step = mean * np.where(fibrillating, chaos[:, k], regular)
        early = extra[:, k] & (pause == 0)
        extra[:, k] = early
        step = np.where(early, step * coupling[:, k], step + pause)
        pause = np.where(early, mean * (1 - coupling[:, k]) * 0.9, 0.0)
        step = np.clip(step, MIN_RR_S, MAX_RR_S)
        now = now + step
        onset[:, k], rr[:, k] = now, step
    return Rhythm(onset, rr, extra, breath, fibrillating)
