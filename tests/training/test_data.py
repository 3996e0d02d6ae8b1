"""The keyed order and the loader: every row once an epoch, the same batches for any workers, micro-batches, processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.batch import Batch
from biossl.corpus import Corpus, make_split
from biossl.errors import DataError, RequestError
from biossl.training.data import MicroBatches, Order, Source, make_loader, make_sources


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("data") / "imu", modality="imu", n_subjects=6, windows_per_subject=4, n_samples=50)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(
        tmp_path_factory.mktemp("data") / "other", modality="imu", n_subjects=3, windows_per_subject=3, n_samples=50, seed=7,
        name="synthetic_other",
    )  # fmt: skip


def order_of(source: Source, **kw: Any) -> Order:
    return Order([len(source.rows)], [1.0], **{"batch_size": 8, "seed": 3, "steps": 10, **kw})


@given(n=st.integers(1, 40), batch=st.integers(1, 17), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_every_row_once_an_epoch(n: int, batch: int, seed: int) -> None:
    steps = 3 * n // batch + 1
    order = Order([n], [1.0], batch_size=batch, seed=seed, steps=steps)
    rows = np.concatenate([order.rows(s)[1] for s in range(steps)])
    for epoch in range(len(rows) // n):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_order_is_a_function_of_the_step_alone() -> None:
    forward = Order([37], [1.0], batch_size=5, seed=1, steps=40)
    all_rows = [forward.rows(s)[1] for s in range(40)]
    backward = Order([37], [1.0], batch_size=5, seed=1, steps=40)
    for s in reversed(range(40)):
        assert np.array_equal(backward.rows(s)[1], all_rows[s])
    assert not np.array_equal(Order([37], [1.0], batch_size=5, seed=2, steps=40).rows(0)[1], all_rows[0])
    assert not np.array_equal(all_rows[0], np.arange(5))


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short = Order([9, 5], [1.0, 2.0], batch_size=4, seed=0, steps=20)
    long = Order([9, 5], [1.0, 2.0], batch_size=4, seed=0, steps=200)
    for s in range(20):
        (k, rows), (k2, rows2) = short.rows(s), long.rows(s)
        assert k == k2 and np.array_equal(rows, rows2)


def test_weights_are_shares_of_steps_and_each_corpus_has_whole_epochs() -> None:
    order = Order([12, 20], [3.0, 1.0], batch_size=4, seed=5, steps=2000)
    drawn = [order.rows(s) for s in range(2000)]
    share = np.mean([k == 0 for k, _ in drawn])
    assert abs(share - 0.75) < 0.04
    for k, n in ((0, 12), (1, 20)):
        rows = np.concatenate([r for j, r in drawn if j == k])
        assert sorted(rows[:n]) == list(range(n)) and sorted(rows[n : 2 * n]) == list(range(n))


def gather(loader: Any, sources: list[Source]) -> list[Batch]:
    return [raw.decode(sources[raw.source]) for raw in loader]


def test_workers_do_not_matter_and_the_last_step_is_exact(corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    order = order_of(sources[0])
    runs = [gather(make_loader(sources, order, accumulate=2, start_step=3, steps=10, workers=w), sources) for w in (0, 2)]
    assert len(runs[0]) == len(runs[1]) == 14  # (10 - 3) steps of two micro-batches
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)  # type: ignore[arg-type]


@pytest.mark.parametrize(("accumulate", "world"), [(2, 1), (1, 2), (2, 2), (4, 2)])
def test_the_global_batch_does_not_depend_on_processes_or_micro_batches(corpus: Corpus, accumulate: int, world: int) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    order = order_of(sources[0])
    whole = MicroBatches(sources, order, accumulate=1)[4]
    parts = [
        MicroBatches(sources, order, accumulate=accumulate, rank=r, world=world)[4 * accumulate + m]
        for m in range(accumulate)
        for r in range(world)
    ]
    assert torch.equal(torch.cat([p.position for p in parts]), whole.position)  # type: ignore[union-attr,arg-type]
    assert torch.equal(torch.cat([p.index for p in parts]), whole.index)  # type: ignore[union-attr]
    assert torch.equal(torch.cat([p.counts for p in parts]), whole.counts)  # type: ignore[union-attr]


def test_a_batch_that_cannot_be_shared_out_is_refused(corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    with pytest.raises(RequestError, match=r"data.batch_size 8 is not divisible by train.accumulate 3"):
        MicroBatches(sources, order_of(sources[0]), accumulate=3)


def test_values_are_those_of_the_corpus_and_gaps_are_known(corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    source = sources[0]
    first = int(source.rows[0])  # the first window of a record has an unobserved tenth
    with_gap, without = (
        source.batch(np.array([first, first + 1])).decode(source),
        source.batch(np.array([first + 1])).decode(source),
    )
    truth = corpus.signal([first, first + 1])
    assert without.observed is None and with_gap.observed is not None
    assert torch.equal(with_gap.observed, torch.from_numpy(~np.isnan(truth)))
    np.testing.assert_allclose(with_gap.x.numpy(), np.nan_to_num(truth), rtol=1e-6, atol=1e-6)
    assert with_gap.channels == corpus.spec.ch_names and with_gap.sfreq == corpus.spec.sfreq
    assert with_gap.index.tolist() == [first, first + 1]  # type: ignore[union-attr]


def test_loader_is_the_same_from_memory_map_and_shards(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=3, windows_per_subject=4, n_samples=50)
    out = []
    for cached in (False, True):
        if cached:
            assert corpus.prepare()
        fresh = Corpus.open(corpus.path)
        if not cached:
            fresh._handles.map = lambda: None  # type: ignore[method-assign]
        sources, _ = make_sources([(fresh, 1.0)])
        out.append(gather(make_loader(sources, order_of(sources[0]), accumulate=1, start_step=0, steps=3, workers=0), sources))
    for a, b in zip(*out, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.start_s, b.start_s)  # type: ignore[arg-type]


def test_only_the_training_part_is_used_unless_there_is_no_split(corpus: Corpus, tmp_path: Path) -> None:
    sources, notes = make_sources([(corpus, 1.0)])
    assert not notes
    assert set(corpus.split().to_numpy()[sources[0].rows]) == {"train"} and 0 < len(sources[0].rows) < len(corpus)
    bare = make_corpus(tmp_path / "bare", modality="imu", n_subjects=2, windows_per_subject=2, n_samples=50, splits={})
    sources, notes = make_sources([(bare, 1.0)])
    assert len(sources[0].rows) == 4 and "no split; all 4 windows" in notes[0]
    with pytest.raises(DataError, match="no split 'mine'"):
        make_sources([(corpus, 1.0)], split="mine")
    make_split(bare, "mine", fractions=(0.5, 0.0, 0.5))
    sources, notes = make_sources([(bare, 1.0)])
    assert set(bare.split("mine").to_numpy()[sources[0].rows]) == {"train"} and len(sources[0].rows) == 2
    assert notes == ["bare: split 'mine' is used, the only one"] and not make_sources([(bare, 1.0)], split="mine")[1]
    make_split(bare, "more", folds=2)
    with pytest.raises(RequestError, match=r"several splits \(mine, more\)"):
        make_sources([(bare, 1.0)])


def test_several_corpora_share_no_subject_codes_and_must_be_of_one_kind(corpus: Corpus, other: Corpus, tmp_path: Path) -> None:
    sources, _ = make_sources([(corpus, 1.0), (other, 2.0)])
    assert not set(sources[0].subject) & set(sources[1].subject)
    assert [s.weight for s in sources] == [1.0, 2.0]
    slow = make_corpus(
        tmp_path / "slow", modality="imu", n_subjects=2, windows_per_subject=2, n_samples=40, name="synthetic_slow"
    )
    with pytest.raises(DataError, match=r"n_samples: 50 here, 40 there"):
        make_sources([(corpus, 1.0), (slow, 1.0)])
    with pytest.raises(RequestError, match="above 0"):
        make_sources([(corpus, 0.0)])


def test_channels_are_picked_by_name_in_order(corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)], channels=["gyro_x", "acc_x"])
    source = sources[0]
    assert source.spec == replace(corpus.spec, ch_names=("gyro_x", "acc_x"), ch_types=("gyro", "acc"), units=("rad/s", "g"))
    row = source.rows[1:2]
    batch = source.batch(row).decode(source)
    np.testing.assert_allclose(batch.x.numpy()[0], corpus.signal(row)[0][[3, 0]], rtol=1e-6, atol=1e-6)
    with pytest.raises(DataError, match="no channel mag_x"):
        make_sources([(corpus, 1.0)], channels=["mag_x"])


def test_a_damaged_shard_is_one_line_even_from_a_worker(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=2, windows_per_subject=2, n_samples=50)
    sources, _ = make_sources([(corpus, 1.0)])
    (corpus.path / "shard-00000.h5").unlink()
    for extra in (corpus.path / "cache").glob("*") if (corpus.path / "cache").exists() else []:
        extra.unlink()
    fresh, _ = make_sources([(Corpus.open(corpus.path), 1.0)])
    loader = make_loader(fresh, order_of(fresh[0], batch_size=2), accumulate=1, start_step=0, steps=1, workers=1)
    (answer,) = list(loader)
    assert isinstance(answer, DataError) and "shard is missing" in str(answer) and "\n" not in str(answer)
    assert sources[0].rows.size
