"""Noise with a given spectrum, for all simulators.

What lives here: coloured Gaussian noise and transients, vectorised. No physiology.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def coloured(rng: np.random.Generator, shape: tuple[int, ...], sfreq: float, amplitude: Callable[[Array], Array]) -> Array:
    """Gaussian noise of unit standard deviation, float32, whose amplitude spectrum follows a function.

    Parameters
    ----------
    rng : Generator
    shape : tuple of int
        (..., T): independent along all leading axes.
    sfreq : float
        Hz.
    amplitude : callable
        Frequencies in Hz (F,) -> relative amplitudes (F,); the value at 0 Hz is not used (no offset).

    Examples
    --------
    >>> x = coloured(np.random.default_rng(0), (2, 1000), 100.0, lambda f: 1 / f)
    >>> x.shape, bool(abs(x.std() - 1) < 1e-3)
    ((2, 1000), True)
    """
    t = shape[-1]
    freqs = np.fft.rfftfreq(t, 1 / sfreq)
    gain = np.zeros(len(freqs), np.float32)
    gain[1:] = amplitude(freqs[1:])
    spectrum = rng.standard_normal((*shape[:-1], len(freqs), 2), dtype=np.float32)
    x = np.fft.irfft((spectrum[..., 0] + 1j * spectrum[..., 1]) * gain, n=t, axis=-1).astype(np.float32)
    return x / x.std(axis=-1, keepdims=True)


def transients(rng: np.random.Generator, counts: Array, t: int, sfreq: float) -> Array:
    """Sudden shifts that die away within a second or so, unit size, (len(counts), t) float32; ``counts`` events each."""
    x = np.zeros((len(counts), t), np.float32)
    time = np.arange(t) / sfreq
    for row in np.flatnonzero(counts):
        for _ in range(int(counts[row])):
            start, size = rng.uniform(0, t / sfreq), rng.normal(0, 1)
            rise, fall = rng.uniform(0.01, 0.15), rng.uniform(0.2, 1.2)
            after = np.clip(time - start, 0, None)
            x[row] += (size * (1 - np.exp(-after / rise)) * np.exp(-after / fall)).astype(np.float32)
    return x
