"""Test windows as a worse recording would give them: leads off, bursts of noise, missing spans.

What lives here: :class:`Seen`, a corpus as the models of a comparison meet it: with the channels they are given, corrupted
or not, so that every model meets the same windows.
What is lost is NaN: an encoder gets it as ``observed = False`` (values 0), MiniRocket as the channel's mean, hand features
as a value that cannot be computed. Which channel, which span and which noise are functions of (row, kind) alone; a higher
severity keeps what a lower one has lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.corpus import Corpus
from biossl.errors import RequestError
from biossl.signal import InputSpec

Array = NDArray[Any]
SEVERITIES: dict[str, tuple[float, ...]] = {"lead_off": (0.25, 0.5), "burst": (10.0, 0.0, -10.0), "gap": (0.2, 0.5)}
BURST = 0.25  # of the window


@dataclass(frozen=True)
class Corruption:
    """``kind`` and ``amount``: the share of channels without signal, the SNR of a burst in dB, the share of time missing."""

    kind: str
    amount: float

    @property
    def key(self) -> str:
        """``gap-0.2``."""
        return f"{self.kind}-{self.amount:g}"

    @property
    def text(self) -> str:
        """For a table."""
        if self.kind == "lead_off":
            return f"{100 * self.amount:g} % of channels off"
        return f"burst at {self.amount:g} dB" if self.kind == "burst" else f"{100 * self.amount:g} % of time missing"


def corruptions(kinds: tuple[str, ...], n_channels: int) -> list[Corruption]:
    """Every severity of the kinds named; RequestError for an unknown kind, or a lead off where there is one channel only."""
    unknown = [k for k in kinds if k not in SEVERITIES]
    if unknown:
        raise RequestError(f"--corrupt {unknown[0]}: choose among {', '.join(SEVERITIES)}")
    if "lead_off" in kinds and n_channels < 2:
        raise RequestError("--corrupt lead_off: one channel is used, and nothing is left without it; leave lead_off out")
    return [Corruption(k, a) for k in kinds for a in SEVERITIES[k]]


class Seen(Corpus):
    """A corpus read through the channels of a comparison and, where one is given, a corruption of them.

    ``spec`` and :meth:`signal` know these channels alone; nothing is written.

    Parameters
    ----------
    corpus : Corpus
    channels : sequence of str
        Names in order; empty = all.
    how : Corruption, optional
    """

    def __init__(self, corpus: Corpus, channels: Sequence[str] = (), how: Corruption | None = None) -> None:
        super().__init__(corpus.path, corpus.facts)
        self.index = corpus.index
        self._whole, self._how = corpus, how
        spec: InputSpec = corpus.spec
        names = tuple(channels) or spec.ch_names
        at = [spec.ch_names.index(c) for c in names]
        self._columns = None if names == spec.ch_names else at
        types, units = tuple(spec.ch_types[i] for i in at), tuple(spec.units[i] for i in at)
        self.spec: InputSpec = replace(spec, ch_names=names, ch_types=types, units=units)

    def signal(self, rows: Any) -> Array:
        """As of :class:`Corpus`, of these channels, corrupted."""
        x = self._whole.signal(rows)
        x = x if self._columns is None else x[:, self._columns]
        return x if self._how is None else corrupt(x, np.atleast_1d(np.asarray(rows)), self._how)

    def __reduce__(self) -> tuple[Any, ...]:
        return Seen, (Corpus(self.path, self.facts), self.spec.ch_names, self._how)


def corrupt(x: Array, rows: Array, how: Corruption) -> Array:
    """Corrupted windows.

    Parameters
    ----------
    x : ndarray, float32, shape (n, C, T)
    rows : ndarray of int, shape (n,)
        What the draws are keyed by: the same row is corrupted in the same way, whatever else is asked for.
    how : Corruption
        ``lead_off``: that share of the channels with any signal (at least one, never all) is lost. ``burst``: white noise
        over a quarter of the window in all channels, its power ``amount`` dB below the variance of the channel in the window.
        ``gap``: one span of that share of the window is lost in all channels.

    Returns
    -------
    ndarray, float32, shape (n, C, T)

    Examples
    --------
    >>> lost = corrupt(np.zeros((1, 4, 8), np.float32), np.array([7]), Corruption("lead_off", 0.5))
    >>> int(np.isnan(lost).all(axis=2).sum())
    2
    """
    x = x.copy()
    n, channels, samples = x.shape
    for k, row in enumerate(rows):
        rng = np.random.default_rng([int(row), list(SEVERITIES).index(how.kind)])
        if how.kind == "lead_off":
            seen = np.flatnonzero(np.isfinite(x[k]).any(axis=1))
            lost = min(max(1, round(how.amount * len(seen))), max(len(seen) - 1, 0))
            x[k, rng.permutation(seen)[:lost]] = np.nan
        elif how.kind == "gap":
            length = max(1, round(how.amount * samples))
            # centred on the same place at every severity, round the ends of the window, so a longer gap holds the shorter
            first = int(rng.uniform() * samples)
            at = (np.arange(length) - length // 2 + first) % samples
            x[k, :, at] = np.nan
        else:
            length = max(1, round(BURST * samples))
            first = int(rng.integers(0, samples - length + 1))
            power = np.nanvar(x[k], axis=1, keepdims=True) / 10 ** (how.amount / 10)
            x[k, :, first : first + length] += np.sqrt(power) * rng.normal(size=(channels, length)).astype(np.float32)
    return x
