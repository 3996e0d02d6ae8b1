"""Which windows a step takes and which window each is paired with, as pure functions of (seed, step, position).

What lives here: the permutation every order is made of, one class for each way of drawing rows
(:class:`~biossl.objectives.base.SamplePlan`), and the partner of a window. No file is read except, once, by
:func:`motion`. The loader around it is ``data.py``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from biossl.keys import Keys, hash_ints, mix

_PERMUTATION, _OFFSET, _PEOPLE, _PARTNER, _PLACE = 0x0DE5, 0x0FF5, 0x9E09, 0xFA12, 0x97AC  # draw numbers


def permutation(n: int, *, seed: int, corpus: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(n)``, int64, from a counter hash: the same with every version and machine.

    Examples
    --------
    >>> sorted(permutation(5, seed=0, corpus=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    base = hash_ints(seed, _PERMUTATION, corpus, epoch)
    return torch.argsort(mix(mix(torch.arange(n)) ^ base), stable=True).numpy()


class Rows(Protocol):
    """Which training rows of one corpus its ``step``-th batch takes."""

    def rows(self, step: int) -> np.ndarray:
        """int64 (batch_size,), numbers within the training rows, in global order."""


class UniformRows:
    """Every window once an epoch, in an order of its own each epoch; batches follow each other without a gap.

    Parameters
    ----------
    n : int
        Training rows of the corpus.
    batch_size, seed : int
    corpus : int
        Number of the corpus in the run.
    """

    def __init__(self, n: int, *, batch_size: int, seed: int, corpus: int) -> None:
        self.n, self.batch_size, self.seed, self.corpus = n, batch_size, seed, corpus
        self._cached: dict[int, np.ndarray] = {}

    def rows(self, step: int) -> np.ndarray:
        """See :class:`Rows`."""
        place = step * self.batch_size + np.arange(self.batch_size)
        out = np.empty(self.batch_size, np.int64)
        for number in range(int(place[0] // self.n), int(place[-1] // self.n) + 1):
            here = place // self.n == number
            out[here] = self._kept(number)[place[here] % self.n]
        return out

    def epoch(self, number: int) -> np.ndarray:
        """Rows of a whole epoch, int64 (n,)."""
        return permutation(self.n, seed=self.seed, corpus=self.corpus, epoch=number)

    def _kept(self, number: int) -> np.ndarray:
        if number not in self._cached:
            self._cached = {k: v for k, v in self._cached.items() if k == number - 1}
            self._cached[number] = self.epoch(number)
        return self._cached[number]


class WeightedRows(UniformRows):
    """Windows in proportion to a weight: an epoch of n draws holds each within one of n weight / sum times.

    Parameters
    ----------
    weight : ndarray, float64, (n,)
        Not negative, not all 0.
    """

    def __init__(self, weight: np.ndarray, *, batch_size: int, seed: int, corpus: int) -> None:
        super().__init__(len(weight), batch_size=batch_size, seed=seed, corpus=corpus)
        self._share = np.cumsum(weight) / weight.sum()
        self._share[-1:] = 1.0

    def epoch(self, number: int) -> np.ndarray:
        """Systematic draws from a random start, shuffled."""
        start = float(Keys(self.seed, number, torch.full((1,), self.corpus)).uniform((1,), _OFFSET))
        drawn = np.searchsorted(self._share, (np.arange(self.n) + start) / self.n, side="right")
        return drawn[super().epoch(number)]


class SubjectRows:
    """``each`` windows of every one of batch_size / each subjects, subject after subject.

    All subjects are visited once a round, in an order of their own each round; those a round's last batch has no room for
    wait for the next. Each visit takes the next windows of an endless order of the subject's own, so a subject with fewer
    than ``each`` windows gives some of them twice.

    Parameters
    ----------
    subject : ndarray, int64, (n,)
        Code of every training row; at least batch_size / each different ones.
    batch_size, each, seed, corpus : int
    """

    def __init__(self, subject: np.ndarray, *, batch_size: int, each: int, seed: int, corpus: int) -> None:
        self.each, self.seed, self.corpus, self.people = each, seed, corpus, batch_size // each
        order = np.argsort(subject, kind="stable")
        self._rows = np.split(order, np.flatnonzero(np.diff(subject[order])) + 1)
        self._round = len(self._rows) // self.people  # batches a round

    def rows(self, step: int) -> np.ndarray:
        """See :class:`Rows`."""
        visit, number = divmod(step, self._round)
        people = permutation(len(self._rows), seed=hash_ints(self.seed, _PEOPLE), corpus=self.corpus, epoch=visit)
        chosen = people[number * self.people : (number + 1) * self.people]
        return np.concatenate([self._visit(int(person), visit) for person in chosen])

    def _visit(self, person: int, visit: int) -> np.ndarray:
        mine = self._rows[person]
        order = UniformRows(len(mine), batch_size=self.each, seed=hash_ints(self.seed, _PEOPLE, person), corpus=self.corpus)
        return mine[order.rows(visit)]


class StretchRows:
    """Stretches of windows that follow each other in a recording, each around an anchor that is visited once an epoch.

    Parameters
    ----------
    recordings : list of ndarray, int64
        Training rows of each recording in the order of time.
    anchor : ndarray, bool, (n,)
        Rows a stretch may be drawn around; at least one.
    batch_size, length, seed, corpus : int
        ``length`` divides ``batch_size``. The anchor lies anywhere in its stretch, which does not reach over the recording's ends;
        a shorter recording is followed by repeats of its last window.
    """

    def __init__(
        self, recordings: list[np.ndarray], anchor: np.ndarray, *, batch_size: int, length: int, seed: int, corpus: int
    ) -> None:
        self.length, self.seed, self.corpus = length, seed, corpus
        self._rows = np.concatenate(recordings)
        size = np.array([len(r) for r in recordings])
        last = np.cumsum(size)
        self._first, self._end = np.repeat(last - size, size), np.repeat(last, size)
        self._anchors = np.flatnonzero(anchor[self._rows])
        self._order = UniformRows(len(self._anchors), batch_size=batch_size // length, seed=seed, corpus=corpus)

    def rows(self, step: int) -> np.ndarray:
        """See :class:`Rows`."""
        place = self._anchors[self._order.rows(step)]
        drawn = Keys(self.seed, step, torch.arange(len(place))).uniform((1,), _PLACE)[:, 0].numpy()
        first, end = self._first[place], self._end[place]
        start = np.clip(place - (drawn * self.length).astype(np.int64), first, np.maximum(first, end - self.length))
        return self._rows[np.minimum(start[:, None] + np.arange(self.length), end[:, None] - 1)].reshape(-1)


class Partners(Protocol):
    """The second window of every window."""

    def of(self, rows: np.ndarray, *, step: int, position: np.ndarray) -> np.ndarray:
        """Partners, int64 (m,), of training rows (m,) at their positions in the global batch of a step."""


class FixedPartners:
    """The same partner whenever a window is drawn.

    Parameters
    ----------
    partner : ndarray, int64, (n,)
        Of every training row.
    """

    def __init__(self, partner: np.ndarray) -> None:
        self.partner = partner

    def of(self, rows: np.ndarray, *, step: int, position: np.ndarray) -> np.ndarray:
        """See :class:`Partners`."""
        return self.partner[rows]


class SubjectPartners:
    """Any other window of the same subject, uniformly, drawn anew each time; the window itself where it is the only one.

    Parameters
    ----------
    subject : ndarray, int64, (n,)
        Code of every training row.
    seed : int
    """

    def __init__(self, subject: np.ndarray, *, seed: int) -> None:
        self.seed = seed
        self._order = np.argsort(subject, kind="stable")
        _, self._first, self._person, self._count = np.unique(
            subject[self._order], return_index=True, return_inverse=True, return_counts=True
        )
        self._place = np.empty(len(subject), np.int64)  # of each row in the order by subject
        self._place[self._order] = np.arange(len(subject))

    def of(self, rows: np.ndarray, *, step: int, position: np.ndarray) -> np.ndarray:
        """See :class:`Partners`."""
        place = self._place[rows]
        person = self._person[place]
        first, count = self._first[person], self._count[person]
        drawn = Keys(self.seed, step, torch.from_numpy(position)).uniform((1,), _PARTNER)[:, 0].numpy()
        other = np.minimum((drawn * (count - 1)).astype(np.int64), count - 2)
        other += other >= place - first  # all but the window itself
        return self._order[np.where(count > 1, first + other, place)]


def motion(counts: np.ndarray, scale: np.ndarray, unobserved: int) -> np.ndarray:
    """Motion of windows as stored: standard deviation over time of the acceleration, root of the sum over its axes.

    Parameters
    ----------
    counts : ndarray, int16, (n, C, T)
        Acceleration channels alone.
    scale : ndarray, float32, (n, C)
        g per count.
    unobserved : int
        The count that stands for no sample.

    Returns
    -------
    ndarray, float64, (n,)
        In g; gravity is constant and does not count, samples that were not observed are left out.
    """
    seen = counts != unobserved
    x = np.where(seen, counts * scale.astype(np.float64)[:, :, None], 0.0)
    n = np.maximum(seen.sum(axis=2), 1)
    mean = x.sum(axis=2) / n
    variance = np.where(seen, (x - mean[:, :, None]) ** 2, 0.0).sum(axis=2) / n
    return np.sqrt(variance.sum(axis=1))
