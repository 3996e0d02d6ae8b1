"""What an objective asks of the loader: partners of the same subject only, samplers in proportion, the same on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.batch import Batch
from biossl.errors import DataError
from biossl.objectives.base import SamplePlan
from biossl.training.data import MicroBatches, RawBatch, Source, make_loader, make_order, make_sources
from biossl.training.sampling import StretchRows, SubjectPartners, SubjectRows, WeightedRows, motion


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    path = tmp_path_factory.mktemp("sampling") / "imu"
    corpus = make_corpus(path, modality="imu", n_subjects=6, windows_per_subject=5, n_samples=50, splits={})
    return make_sources([(corpus, 1.0)])[0]


def order_of(sources: list[Source], plan: SamplePlan, **kw: Any) -> Any:
    return make_order(sources, plan, **{"batch_size": 8, "accumulate": 1, "seed": 3, "steps": 10, **kw})[0]


@given(people=st.integers(1, 6), n=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_partners_of_a_subject_are_other_windows_of_it(people: int, n: int, seed: int) -> None:
    subject = np.random.default_rng(seed).integers(0, people, n)
    partners = SubjectPartners(subject, seed=seed)
    rows, position = np.arange(n), np.arange(n)
    drawn = [partners.of(rows, step=s, position=position) for s in range(3)]
    for partner in drawn:
        assert np.array_equal(subject[partner], subject)
        count = np.bincount(subject, minlength=people)[subject]
        assert np.array_equal(partner == rows, count == 1)  # itself only where there is no other
    half = partners.of(rows[n // 2 :], step=0, position=position[n // 2 :])
    assert np.array_equal(half, drawn[0][n // 2 :])  # a function of step and position, whoever asks


def test_every_other_window_of_a_subject_is_as_likely_as_the_next() -> None:
    partners = SubjectPartners(np.array([5, 7, 5, 5, 7, 5]), seed=0)
    drawn = np.concatenate([partners.of(np.array([2]), step=s, position=np.array([4])) for s in range(3000)])
    share = np.bincount(drawn, minlength=6) / 3000
    np.testing.assert_allclose(share, [1 / 3, 0, 0, 1 / 3, 0, 1 / 3], atol=0.03)


@given(n=st.integers(1, 60), batch=st.integers(1, 16), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_an_epoch_holds_windows_in_proportion_to_their_weight(n: int, batch: int, seed: int) -> None:
    weight = np.random.default_rng(seed).gamma(0.5, size=n) + 1e-9
    sampler = WeightedRows(weight, batch_size=batch, seed=seed, corpus=0)
    rows = np.concatenate([sampler.rows(s) for s in range(2 * n // batch + 1)])
    for epoch in range(len(rows) // n):
        count = np.bincount(rows[epoch * n : (epoch + 1) * n], minlength=n)
        assert np.abs(count - n * weight / weight.sum()).max() < 1 + 1e-6
    if n > 12:
        assert not np.array_equal(sampler.epoch(0), sampler.epoch(1))
        assert not np.array_equal(sampler.epoch(0), np.sort(sampler.epoch(0)))


def test_a_window_without_motion_is_never_drawn() -> None:
    sampler = WeightedRows(np.array([0.0, 1.0, 0.0, 2.0, 0.0]), batch_size=5, seed=1, corpus=0)
    assert set(np.concatenate([sampler.rows(s) for s in range(30)])) == {1, 3}


@given(people=st.integers(2, 7), each=st.integers(1, 4), per_batch=st.integers(1, 7), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_batch_holds_so_many_windows_of_so_many_subjects(people: int, each: int, per_batch: int, seed: int) -> None:
    per_batch = min(per_batch, people)
    draw = np.random.default_rng(seed)
    subject = draw.permutation(np.repeat(np.arange(people), draw.integers(each, 9, people)))
    sampler = SubjectRows(subject, batch_size=each * per_batch, each=each, seed=seed, corpus=0)
    visits = np.zeros(people)
    for step in range(3 * people):
        rows = sampler.rows(step)
        who, count = np.unique(subject[rows], return_counts=True)
        assert len(who) == per_batch and set(count) == {each}
        if step < people // per_batch:
            assert len(set(rows)) == len(rows)  # none twice before a subject's own order starts anew
        visits[who] += 1
        if (step + 1) % (people // per_batch) == 0:
            assert visits.max() <= (step + 1) // (people // per_batch)  # at most once a round
    assert np.array_equal(sampler.rows(1), sampler.rows(1))


def gather(loader: Any, sources: list[Source]) -> list[Batch]:
    return [raw.decode(sources[raw.source]) for raw in loader]


@pytest.mark.parametrize("plan", [
    SamplePlan(pairing="adjacent"), SamplePlan(pairing="same_subject", sampler="motion"),
    SamplePlan(pairing="same_subject", sampler="subjects", windows_per_subject=2),
], ids=lambda p: f"{p.pairing}-{p.sampler}")  # fmt: skip
def test_pairs_do_not_depend_on_processes_micro_batches_workers_or_where_a_run_resumes(
    sources: list[Source], plan: SamplePlan
) -> None:
    whole = MicroBatches(sources, order_of(sources, plan), accumulate=1)[4]
    assert isinstance(whole, RawBatch) and whole.pair is not None
    for accumulate, world in ((2, 1), (1, 2), (2, 2)):
        order = order_of(sources, plan, accumulate=accumulate)
        parts = [
            MicroBatches(sources, order, accumulate=accumulate, rank=r, world=world)[4 * accumulate + m]
            for m in range(accumulate)
            for r in range(world)
        ]
        assert torch.equal(torch.cat([p.index for p in parts]), whole.index)  # type: ignore[union-attr]
        assert torch.equal(torch.cat([p.pair.index for p in parts]), whole.pair.index)  # type: ignore[union-attr]
        assert torch.equal(torch.cat([p.pair.counts for p in parts]), whole.pair.counts)  # type: ignore[union-attr]
    runs = [
        gather(make_loader(sources, order_of(sources, plan), accumulate=1, start_step=start, steps=10, workers=workers), sources)
        for start, workers in ((0, 0), (6, 2))
    ]
    for a, b in zip(runs[0][6:], runs[1], strict=True):
        pair_a, pair_b = a.paired["window"], b.paired["window"]
        assert torch.equal(a.x, b.x) and torch.equal(pair_a.x, pair_b.x) and torch.equal(pair_a.index, pair_b.index)


@pytest.mark.parametrize("pairing", ["adjacent", "same_subject"])
def test_a_pair_is_two_windows_of_one_subject_and_adjacent_ones_touch(sources: list[Source], pairing: Any) -> None:
    order, index = order_of(sources, SamplePlan(pairing=pairing)), sources[0].corpus.index
    for batch in gather(make_loader(sources, order, accumulate=1, start_step=0, steps=10, workers=0), sources):
        pair = batch.paired["window"]
        assert isinstance(pair, Batch) and torch.equal(pair.subject, batch.subject)  # type: ignore[arg-type]
        assert not (pair.index == batch.index).any()  # type: ignore[attr-defined]
        truth = sources[0].corpus.signal(pair.index.numpy())  # type: ignore[union-attr]
        np.testing.assert_allclose(pair.x.numpy(), np.nan_to_num(truth), atol=1e-6)
        if pairing == "adjacent":
            assert ((pair.start_s - batch.start_s).abs() == 1.0).all()  # type: ignore[operator]
            assert (index["record"].to_numpy()[pair.index] == index["record"].to_numpy()[batch.index]).all()


def test_partners_are_training_windows(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=6, windows_per_subject=4, n_samples=50)
    sources, _ = make_sources([(corpus, 1.0)])
    part = corpus.split().to_numpy()
    for pairing in ("adjacent", "same_subject"):
        order = order_of(sources, SamplePlan(pairing=pairing))
        for batch in gather(make_loader(sources, order, accumulate=1, start_step=0, steps=10, workers=0), sources):
            assert set(part[batch.paired["window"].index]) == {"train"}


def test_motion_is_the_spread_of_the_acceleration_alone() -> None:
    draw = np.random.default_rng(0)
    counts = draw.integers(-2000, 2000, (3, 3, 40)).astype(np.int16)
    counts[0, 1, 5:9] = -32768
    counts[2] = 700  # at rest: gravity alone
    scale = np.full((3, 3), 0.01, np.float32)
    got = motion(counts, scale, -32768)
    for i in range(3):
        axes = [counts[i, c][counts[i, c] != -32768] * 0.01 for c in range(3)]
        assert got[i] == pytest.approx(np.sqrt(sum(np.var(a) for a in axes)), rel=1e-5)
    assert got[2] == 0.0


def test_the_motion_sampler_prefers_moving_windows_and_refuses_a_corpus_at_rest(sources: list[Source]) -> None:
    plan = SamplePlan(sampler="motion")
    order = order_of(sources, plan, steps=300)
    drawn = np.concatenate([order.rows(s)[1] for s in range(300)])
    counts, scale, _ = sources[0].corpus.read(sources[0].rows)
    weight = motion(counts[:, :3], scale[:, :3], -32768)  # the first three channels are the accelerometer's
    share = np.bincount(drawn, minlength=len(weight)) / len(drawn)
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.004)

    class Rest:
        path = sources[0].corpus.path
        index = sources[0].corpus.index

        def read(self, rows: Any) -> Any:
            return np.zeros((len(rows), 6, 50), np.int16), np.ones((len(rows), 6), np.float32), np.zeros((len(rows), 6))

    still = Source(**{**vars(sources[0]), "corpus": Rest()})
    with pytest.raises(DataError, match="no training window moves"):
        order_of([still], plan)


def test_several_corpora_keep_their_own_orders(sources: list[Source], tmp_path: Path) -> None:
    other = make_corpus(
        tmp_path / "o",
        modality="imu",
        n_subjects=4,
        windows_per_subject=4,
        n_samples=50,
        splits={},
        name="synthetic_other",
        seed=7,
    )
    both, _ = make_sources([(sources[0].corpus, 1.0), (other, 1.0)])
    order = order_of(both, SamplePlan(pairing="same_subject", sampler="subjects", windows_per_subject=4), steps=30)
    seen = set()
    for raw in make_loader(both, order, accumulate=1, start_step=0, steps=30, workers=0):
        batch = raw.decode(both[raw.source])
        seen.add(raw.source)
        assert len(batch.subject.unique()) == 2 and torch.equal(batch.paired["window"].subject, batch.subject)
    assert seen == {0, 1}


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), length=st.integers(2, 6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_stretches_follow_each_other_in_one_recording_around_every_anchor(sizes: list[int], length: int, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(sum(sizes))
    recordings = np.split(rows, np.cumsum(sizes)[:-1])
    anchor = np.zeros(len(rows), bool)
    anchor[rows[:: max(1, len(rows) // 3)]] = True
    sampler = StretchRows(recordings, anchor, batch_size=2 * length, length=length, seed=seed, corpus=0)
    covered = np.zeros(len(rows), bool)
    for step in range(anchor.sum()):
        drawn = sampler.rows(step)
        assert np.array_equal(drawn, sampler.rows(step))
        for stretch in drawn.reshape(2, length):
            run = next(r for r in recordings if stretch[0] in r)
            own = stretch[np.r_[True, stretch[1:] != stretch[:-1]]]  # a short recording ends in repeats
            at = int(np.flatnonzero(run == own[0])[0])
            assert np.array_equal(run[at : at + len(own)], own) and len(own) == min(length, len(run))
            assert anchor[own].any()
        covered[drawn] = True
    assert covered[anchor].all()
