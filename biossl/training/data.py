"""Batches of whole windows in an order that is a pure function of (seed, step): nothing to save, nothing to lose.

What lives here: which rows a step uses, the loader that gathers them as int16 counts, and the scaling to physical values
on the device. Not here: augmentation, masks, anything a method decides.

Step ``s`` of a run takes positions ``s * batch_size ... (s + 1) * batch_size - 1`` of an endless row order: epoch after
epoch, each a permutation of all training rows made from (seed, corpus, epoch). Position ``p`` of a step goes to
micro-batch ``p // micro_size`` in the order (micro, rank), so the global batch is the same for every number of workers,
micro-batches and processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from biossl.batch import Batch
from biossl.corpus import Corpus
from biossl.corpus.neighbours import neighbours, recordings
from biossl.corpus.splits import default_split
from biossl.errors import BiosslError, DataError, RequestError
from biossl.keys import Keys
from biossl.objectives.base import SamplePlan
from biossl.recipe.plan import check_plan
from biossl.signal import InputSpec
from biossl.training.sampling import (
    FixedPartners,
    Partners,
    Rows,
    StretchRows,
    SubjectPartners,
    SubjectRows,
    UniformRows,
    WeightedRows,
    motion,
)

UNOBSERVED = -32768
_CORPUS = 0xC0B5  # draw number of the choice of corpus
_BLOCK = 1024  # windows read at a time


class Order:
    """Which rows of which corpus each step takes, and with which windows they are paired.

    Parameters
    ----------
    sizes : sequence of int
        Training rows of each corpus.
    weights : sequence of float
        Shares of steps; one step takes its whole batch from one corpus.
    batch_size : int
        Windows per optimiser step, over all micro-batches and processes.
    seed, steps : int
    samplers : sequence of Rows, optional
        How each corpus is drawn from; default every window once an epoch.
    partners : sequence of Partners, optional
        The second window of every window, by corpus; default none.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], *, batch_size: int, seed: int, steps: int,
        samplers: Sequence[Rows] | None = None, partners: Sequence[Partners] | None = None,
    ) -> None:  # fmt: skip
        self.batch_size, self.partners = batch_size, partners
        share = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))[:-1]
        draw = Keys(seed, 0, torch.arange(steps)).uniform((1,), _CORPUS)[:, 0].numpy()
        self._corpus = np.searchsorted(share, draw, side="right")
        # how many earlier steps took the same corpus: its own step number, from which its rows follow
        self._own_step = np.zeros(steps, np.int64)
        for k in range(len(sizes)):
            mine = self._corpus == k
            self._own_step[mine] = np.arange(mine.sum())
        self.samplers = samplers or [UniformRows(n, batch_size=batch_size, seed=seed, corpus=k) for k, n in enumerate(sizes)]

    def rows(self, step: int) -> tuple[int, np.ndarray]:
        """Number of the corpus and, within its training rows, int64 (batch_size,) in global order."""
        k = int(self._corpus[step])
        return k, self.samplers[k].rows(int(self._own_step[step]))


@dataclass
class Source:
    """One corpus as the loader sees it.

    ``rows`` int64 index rows used for training; ``columns`` channels in the order of ``spec``, or None = all as stored;
    ``subject`` int64 code and ``start_s`` float64 of every index row; ``spec`` what the windows are; ``labels`` name -> float32
    (n_index, ...) of every index row, NaN = unknown, for objectives that learn from them.
    """

    corpus: Corpus
    rows: np.ndarray
    weight: float
    columns: list[int] | None
    subject: np.ndarray
    start_s: np.ndarray
    spec: InputSpec
    positions: Tensor | None
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    _places: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def places(self, device: torch.device) -> Tensor | None:
        """Positions of the channels on a device, copied there once."""
        if self.positions is None:
            return None
        if device not in self._places:
            self._places[device] = self.positions.to(device)
        return self._places[device]

    def batch(self, rows: np.ndarray, **place: Any) -> RawBatch:
        """The windows of index rows as stored, with what a :class:`RawBatch` needs besides in ``place``."""
        counts, scale, offset = self.corpus.read(rows)
        if self.columns is not None:
            counts, scale, offset = counts[:, self.columns], scale[:, self.columns], offset[:, self.columns]
        return RawBatch(
            counts=torch.from_numpy(np.ascontiguousarray(counts)),
            scale=torch.from_numpy(np.ascontiguousarray(scale, np.float32)),
            offset=torch.from_numpy(np.ascontiguousarray(offset, np.float32)),
            gaps=bool((counts == UNOBSERVED).any()),  # asked here, so that the device need not be
            index=torch.from_numpy(np.asarray(rows, np.int64)),
            subject=torch.from_numpy(self.subject[rows]),
            start_s=torch.from_numpy(self.start_s[rows]),
            labels={name: torch.from_numpy(values[rows]) for name, values in self.labels.items()},
            **place,
        )


@dataclass
class RawBatch:
    """One micro-batch as stored: ``counts`` int16 (B, C, T), ``scale`` and ``offset`` float32 (B, C), and where it belongs.

    Where a corpus keeps float32 copies of windows that int16 clips, training sees the clipped counts.
    ``position`` int64 (B,) is the place of each window in the global batch of optimiser step ``step``; ``pair`` holds the
    second window of each, where the objective asked for one.
    """

    counts: Tensor
    scale: Tensor
    offset: Tensor
    gaps: bool
    index: Tensor
    subject: Tensor
    start_s: Tensor
    source: int = 0
    step: int = 0
    micro: int = 0
    position: Tensor | None = None
    pair: RawBatch | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)

    def _each(self, method: str, *args: Any, **kwargs: Any) -> RawBatch:
        moved = {
            f.name: getattr(value, method)(*args, **kwargs)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor | RawBatch)
        }
        labels = {name: getattr(value, method)(*args, **kwargs) for name, value in self.labels.items()}
        return replace(self, **moved, labels=labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RawBatch:
        """All tensors on ``device``."""
        return self._each("to", device, non_blocking=non_blocking)

    def pin_memory(self) -> RawBatch:
        """All tensors in pinned memory (called by the loader)."""
        return self._each("pin_memory")

    def decode(self, source: Source) -> Batch:
        """Physical values, on whichever device the counts are: value = (counts + offset) * scale, 0 where unobserved."""
        x = (self.counts.to(torch.float32) + self.offset[:, :, None]) * self.scale[:, :, None]
        observed = None
        if self.gaps:
            observed = self.counts != UNOBSERVED
            x = torch.where(observed, x, 0.0)
        return Batch(
            x=x,
            channels=source.spec.ch_names,
            sfreq=source.spec.sfreq,
            observed=observed,
            positions=source.places(x.device),
            start_s=self.start_s,
            subject=self.subject,
            index=self.index,
            labels=self.labels,
            paired={} if self.pair is None else {"window": self.pair.decode(source)},
        )


class MicroBatches(Dataset[Any]):
    """Whole micro-batches of one process by their running number ``step * accumulate + micro``."""

    def __init__(self, sources: list[Source], order: Order, *, accumulate: int, rank: int = 0, world: int = 1) -> None:
        if order.batch_size % (accumulate * world):
            raise RequestError(
                f"data.batch_size {order.batch_size} is not divisible by train.accumulate {accumulate} x {world} processes; change one"
            )
        self.sources, self.order, self.accumulate, self.rank, self.world = sources, order, accumulate, rank, world
        self.size = order.batch_size // (accumulate * world)

    def __getitem__(self, number: int) -> RawBatch | BiosslError:
        """The micro-batch, or the error itself, so that its one line survives a worker process."""
        step, micro = divmod(number, self.accumulate)
        k, rows = self.order.rows(step)
        first = (micro * self.world + self.rank) * self.size
        position = np.arange(first, first + self.size)
        source, mine, pair = self.sources[k], rows[position], None
        try:
            if self.order.partners is not None:
                pair = source.batch(source.rows[self.order.partners[k].of(mine, step=step, position=position)])
            return source.batch(
                source.rows[mine], source=k, step=step, micro=micro, position=torch.from_numpy(position), pair=pair
            )
        except BiosslError as error:
            return error


class _Numbers(Sampler[int]):
    """``start ... stop - 1``; without a length, for a resumed trainer must not count batches against one."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


def _ignore_interrupt(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the trainer still needs its last batches
        signal.signal(number, signal.SIG_IGN)


def make_loader(
    sources: list[Source],
    order: Order,
    *,
    accumulate: int,
    start_step: int,
    steps: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Any]:
    """Loader of the micro-batches of steps ``start_step ... steps - 1`` of one process.

    Parameters
    ----------
    sources : list of Source
    order : Order
    accumulate : int
        Micro-batches per optimiser step.
    start_step, steps : int
        First step, and the step at which the run ends.
    workers : int
        Loader processes; the batches do not depend on it.
    rank, world : int
    """
    data = MicroBatches(sources, order, accumulate=accumulate, rank=rank, world=world)
    return DataLoader(
        data,
        batch_size=None,  # an item is a whole micro-batch
        sampler=_Numbers(start_step * accumulate, steps * accumulate),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader's own seed is then not drawn from the global state
        worker_init_fn=_ignore_interrupt,
    )


def make_order(
    sources: Sequence[Source], plan: SamplePlan, *, batch_size: int, accumulate: int, seed: int, steps: int
) -> tuple[Order, list[str]]:
    """The order in which an objective wants its windows.

    Parameters
    ----------
    sources : sequence of Source
    plan : SamplePlan
        ``objective.needs``.
    batch_size, accumulate, seed, steps : int
        Of the recipe.

    Returns
    -------
    Order, list of str
        And notes for a person.

    Raises
    ------
    RequestError
        A corpus cannot give what the plan asks for; see :func:`~biossl.recipe.plan.check_plan`.
    DataError
        Sampler ``motion`` and no training window of a corpus moves.
    """
    samplers: list[Rows] = []
    partners: list[Partners] = []
    notes: list[str] = []
    total = sum(len(s.rows) for s in sources)
    for k, source in enumerate(sources):
        notes += check_plan(
            plan, source.corpus, source.rows, source.spec, batch_size=batch_size, accumulate=accumulate, total=total
        )
        subject = source.subject[source.rows]
        if plan.sampler == "motion":
            samplers.append(WeightedRows(_motion(source), batch_size=batch_size, seed=seed, corpus=k))
        elif plan.sampler == "subjects":
            each = plan.windows_per_subject
            samplers.append(SubjectRows(subject, batch_size=batch_size, each=each, seed=seed, corpus=k))
        elif plan.sampler == "stretches":
            runs = recordings(source.corpus.index, source.rows)
            anchor = _labelled(source)
            samplers.append(StretchRows(runs, anchor, batch_size=batch_size, length=plan.stretch, seed=seed, corpus=k))
        else:
            samplers.append(UniformRows(len(source.rows), batch_size=batch_size, seed=seed, corpus=k))
        if plan.pairing == "adjacent":
            partners.append(FixedPartners(neighbours(source.corpus.index, source.rows, sfreq=source.spec.sfreq)))
        elif plan.pairing == "same_subject":
            partners.append(SubjectPartners(subject, seed=seed))
    order = Order(
        [len(s.rows) for s in sources], [s.weight for s in sources], batch_size=batch_size, seed=seed, steps=steps,
        samplers=samplers, partners=partners or None,
    )  # fmt: skip
    return order, notes


def _labelled(source: Source) -> np.ndarray:
    """Training rows of which anything is known, bool (n,); all where there is no label."""
    known = [~np.isnan(values[source.rows].reshape(len(source.rows), -1)).all(axis=1) for values in source.labels.values()]
    return np.any(known, axis=0) if known else np.ones(len(source.rows), bool)


def _motion(source: Source) -> np.ndarray:
    """:func:`~biossl.training.sampling.motion` of every training row; the corpus is read once, in blocks."""
    axes = [i for i, kind in enumerate(source.spec.ch_types) if kind == "acc"]
    columns = axes if source.columns is None else [source.columns[i] for i in axes]
    out = []
    for start in range(0, len(source.rows), _BLOCK):
        counts, scale, _ = source.corpus.read(source.rows[start : start + _BLOCK])
        out.append(motion(counts[:, columns], scale[:, columns], UNOBSERVED))
    weight = np.concatenate(out)
    if not weight.sum() > 0:
        raise DataError(f"{source.corpus.path.name}: no training window moves; take another objective.sampler than motion")
    return weight


def make_sources(
    corpora: Sequence[tuple[Corpus, float]], *, channels: Sequence[str] = (), split: str | None = None
) -> tuple[list[Source], list[str]]:
    """The training part of a weighted list of corpora.

    Parameters
    ----------
    corpora : sequence of (Corpus, weight)
    channels : sequence of str
        Names in order; empty = all of the first corpus.
    split : str, optional
        Name of the split whose part ``train`` is used. Default: :func:`~biossl.corpus.splits.default_split`; a corpus
        without any split is used whole, which one of the returned notes says.

    Returns
    -------
    list of Source, list of str
        The sources and notes for a person.

    Raises
    ------
    RequestError
        A weight that is not positive; a corpus with several splits, none of them ``official``, and none named.
    DataError
        No such split, a channel is missing, no row in the part ``train``, corpora of different rate, length or units.
    """
    sources: list[Source] = []
    notes: list[str] = []
    known: dict[tuple[int, str], int] = {}
    for number, (corpus, weight) in enumerate(corpora):
        name = corpus.path.name
        if not weight > 0:
            raise RequestError(f"{name}={weight}: a weight must be above 0; leave the corpus out instead")
        rows, note = _training_rows(corpus, split)
        notes += [note] if note else []
        wanted = tuple(channels) or (sources[0].spec.ch_names if sources else corpus.spec.ch_names)
        spec, columns = _pick(corpus, wanted)
        for line in sources[0].spec.differences(spec) if sources else []:
            raise DataError(f"{name}: {line} ({corpora[0][0].path.name}); corpora of one run must have windows of one kind")
        places = None if corpus.positions is None else torch.as_tensor(np.asarray(corpus.positions, np.float32))
        # the same person may have windows in many shards; a code is one per person and corpus
        codes = np.array([known.setdefault((number, s), len(known)) for s in corpus.index["subject"].astype(str)], np.int64)
        sources.append(
            Source(
                corpus=corpus,
                rows=rows,
                weight=float(weight),
                columns=columns,
                subject=codes,
                start_s=corpus.index["start_s"].to_numpy(np.float64),
                spec=spec,
                positions=places if places is None or columns is None else places[columns],
            )
        )
    return sources, notes


def _training_rows(corpus: Corpus, split: str | None) -> tuple[np.ndarray, str]:
    name = corpus.path.name
    chosen, note = (split, "") if split is not None else default_split(corpus)
    if chosen is None:
        n = len(corpus.index)
        return np.arange(n), f"{name}: no split; all {n} windows are trained on, and a probe on this corpus will say so"
    rows = np.flatnonzero(corpus.split(chosen).to_numpy() == "train")
    if len(rows) == 0:
        raise DataError(f"{name}: split '{chosen}' has no window in its part 'train'; make another with `biossl split`")
    return rows, note


def _pick(corpus: Corpus, wanted: tuple[str, ...]) -> tuple[InputSpec, list[int] | None]:
    spec = corpus.spec
    if wanted == spec.ch_names:
        return spec, None
    missing = [c for c in wanted if c not in spec.ch_names]
    if missing:
        raise DataError(f"{corpus.path.name}: no channel {', '.join(missing)}; it has {' '.join(spec.ch_names)}")
    columns = [spec.ch_names.index(c) for c in wanted]
    types, units = tuple(spec.ch_types[i] for i in columns), tuple(spec.units[i] for i in columns)
    return replace(spec, ch_names=wanted, ch_types=types, units=units), columns
