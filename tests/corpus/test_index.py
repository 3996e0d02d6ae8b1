"""The Corpus: what was written is what is read, on every path; damage is noticed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus_factory import SyntheticLoader, make_corpus, synthetic_card, synthetic_tasks

from biossl.corpus import Corpus
from biossl.corpus.convert import convert_tasks
from biossl.errors import DataError, RequestError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of several shards, to be copied by tests that damage it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["biossl.corpus.shardplan"], "_SHARD_RECORDS", 2)
        return make_corpus(tmp_path_factory.mktemp("corpora") / "c", n_channels=3).path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "c", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "c"


def truth() -> np.ndarray:
    card = synthetic_card(n_channels=3)
    return np.concatenate([SyntheticLoader()(card, "main", t)[0].data for t in synthetic_tasks()])


def test_every_window_comes_back_in_index_order(made: Path) -> None:
    corpus = Corpus.open(made)
    assert len(corpus.facts["shards"]) == 3 and len(corpus) == len(corpus.index) == 48
    np.testing.assert_array_equal(corpus.signal(range(48)), truth())
    assert corpus.index["record"].tolist() == [f"r{i:03d}" for i in range(6) for _ in range(8)]
    np.testing.assert_array_equal(corpus.index["start_s"][:8], np.arange(8) * 2.0)


def test_rows_in_any_order_and_twice(made: Path) -> None:
    rows = [40, 3, 3, 17, 0]
    np.testing.assert_array_equal(Corpus.open(made).signal(rows), truth()[rows])


def test_read_states_value_as_counts_plus_offset_times_scale(made: Path) -> None:
    counts, scale, offset = Corpus.open(made).read([0, 47])
    assert counts.dtype == np.int16 and scale.dtype == offset.dtype == np.float32 and scale.shape == (2, 3)
    x = np.where(counts == -32768, np.nan, (counts + offset[..., None]) * scale[..., None])
    np.testing.assert_allclose(x, truth()[[0, 47]], rtol=1e-6)
    assert (counts[0, 0, :20] == -32768).all()


def test_rows_outside_are_refused(made: Path) -> None:
    with pytest.raises(IndexError):
        Corpus.open(made).read([48])
    with pytest.raises(IndexError):
        Corpus.open(made).read([-1])


def test_the_map_and_the_shards_say_the_same(copy: Path) -> None:
    by_shard = Corpus.open(copy)
    by_shard._handles._mapped = True  # as where the folder is read-only
    rows = np.random.default_rng(0).permutation(48)
    a = by_shard.read(rows)
    assert not (copy / "cache").exists()
    b = Corpus.open(copy).read(rows)
    assert (copy / "cache" / "signal.i16.npy").exists()
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_folder_that_cannot_hold_the_map_is_read_from_shards(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from biossl import atomic
    from biossl.errors import MachineError

    def full(*_: object) -> None:
        raise MachineError("full")

    monkeypatch.setattr(atomic, "require_free", full)
    corpus = Corpus.open(copy)
    assert not corpus.prepare()
    np.testing.assert_array_equal(corpus.signal([5]), truth()[[5]])


def test_a_map_of_another_corpus_is_made_anew(copy: Path) -> None:
    Corpus.open(copy).prepare()
    (copy / "cache" / "made_from.txt").write_text("another\n")
    np.save(copy / "cache" / "signal.i16.npy", np.zeros((48, 3, 200), np.int16))
    np.testing.assert_array_equal(Corpus.open(copy).signal([7]), truth()[[7]])


def test_a_truncated_map_is_made_anew(copy: Path) -> None:
    Corpus.open(copy).prepare()
    with open(copy / "cache" / "signal.i16.npy", "rb+") as f:
        f.truncate(1000)
    np.testing.assert_array_equal(Corpus.open(copy).signal([7]), truth()[[7]])


def test_float32_rows_come_back_exactly_and_counts_are_limited(tmp_path: Path) -> None:
    class Spiked(SyntheticLoader):
        def __call__(self, card: object, view: str, task: object) -> tuple[object, str | None]:  # type: ignore[override]
            cut, start = super().__call__(card, view, task)  # type: ignore[arg-type]
            cut.lsb = None
            if task.record == "r001":  # type: ignore[attr-defined]
                cut.data[2, 1, 7] = 1e6
            return cut, start

    card = synthetic_card(n_channels=3)
    result = convert_tasks(card, synthetic_tasks(3), tmp_path / "c", view="main", load=Spiked(), n_jobs=1)
    assert any("r001" in f and "float32" in f for f in result["findings"])
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.signal([10])[0, 1, 7] == np.float32(1e6)
    counts, scale, offset = corpus.read([10])
    assert (counts[0, 1, 7] + offset[0, 1]) * scale[0, 1] < 100
    expected, _ = SyntheticLoader()(card, "main", synthetic_tasks(3)[1])
    np.testing.assert_allclose(corpus.signal([11])[0], expected.data[3], rtol=0)


def test_a_worker_gets_a_copy_without_handles(made: Path) -> None:
    corpus = Corpus.open(made)
    corpus.read([0])
    text = pickle.dumps(corpus)
    assert len(text) < 20_000
    np.testing.assert_array_equal(pickle.loads(text).signal([9]), truth()[[9]])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_handles_are_not_shared_over_a_fork(made: Path) -> None:
    corpus = Corpus.open(made)
    handles = corpus._handles
    pid = os.fork()
    if pid == 0:
        os._exit(0 if corpus._handles is not handles else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_opening_reads_no_shard_and_no_table(copy: Path) -> None:
    for file in [*copy.glob("shard-*"), copy / "index.parquet"]:
        file.unlink()
    assert len(Corpus.open(copy)) == 48


def test_hash_follows_content_not_place(made: Path, tmp_path: Path) -> None:
    one = make_corpus(tmp_path / "x", n_channels=3)  # one shard instead of three
    assert one.hash == Corpus.open(made).hash
    assert make_corpus(tmp_path / "z", n_channels=3, seed=1).hash != one.hash


def test_one_flipped_byte_in_a_shard_is_found(copy: Path) -> None:
    Corpus.open(copy).verify()
    file = copy / "shard-00001.h5"
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 20):
        changed = data.copy()
        changed[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        with pytest.raises(DataError, match="shard-00001.h5: damaged shard.*biossl convert"):
            Corpus.open(copy).verify()


def test_a_changed_index_is_found(copy: Path) -> None:
    frame = pd.read_parquet(copy / "index.parquet")
    frame.loc[3, "subject"] = "s005"
    frame.to_parquet(copy / "index.parquet")
    with pytest.raises(DataError, match="index.parquet"):
        Corpus.open(copy).verify()


@pytest.mark.parametrize("name", ["shard-00002.h5", "index.parquet", "events.parquet"])
def test_a_missing_or_truncated_file_is_named(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])

    def touch() -> object:
        corpus = Corpus.open(copy)
        return corpus.signal([47]), corpus.index, corpus.events

    with pytest.raises(DataError, match=f"{name}: damaged.*biossl convert"):
        touch()
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"{name}: .*missing.*biossl convert"):
        touch()


def test_what_is_no_corpus(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="not a corpus"):
        Corpus.open(tmp_path)
    (copy / "spec.json").write_text("{")
    with pytest.raises(DataError, match="spec.json: damaged"):
        Corpus.open(copy)
    facts = {"format": 99}
    (copy / "spec.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="format 99"):
        Corpus.open(copy)
    (copy / "spec.json").unlink()
    (copy / "plan.json").write_text("{}")
    with pytest.raises(RequestError, match="has not ended"):
        Corpus.open(copy)


def test_a_missing_table_of_events_is_found(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c")
    (corpus.path / "events.parquet").unlink()
    with pytest.raises(DataError, match="events.parquet: missing"):
        Corpus.open(corpus.path).verify()
    (corpus.path / "card.yaml").unlink()
    with pytest.raises(DataError, match="card.yaml: missing; make the corpus again"):
        _ = Corpus.open(corpus.path).card


@pytest.mark.parametrize(
    "change",
    [
        {"card": None}, {"card": "x"}, {"card": {"name": "n"}}, {"view": None}, {"funnel": None}, {"findings": 7}, {"shards": "x"},
        {"shards": [{"file": "../shard-00000.h5", "rows": 48, "sha256": "", "exact": 0}]},
        {"shards": [{"file": "shard-00000.h5", "rows": -48, "sha256": "", "exact": 0}]},
        {"shards": [{"file": "shard-00000.h5", "rows": "48", "sha256": "", "exact": 0}]},
        {"shards": [{"file": "shard-00000.h5", "rows": 48}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_spec_that_no_conversion_writes_is_refused_when_opened(copy: Path, change: dict[str, object]) -> None:
    facts = json.loads((copy / "spec.json").read_text()) | change
    (copy / "spec.json").write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))
    with pytest.raises(DataError, match=r"spec\.json: damaged .*; make the corpus again"):
        Corpus.open(copy)


@pytest.mark.parametrize("change", [{"sfreq": 500.0}, {"n_samples": 10**12}, {"reference": "average"}])
def test_a_spec_that_was_edited_is_noticed_by_whoever_reads_the_index(copy: Path, change: dict[str, object]) -> None:
    facts = json.loads((copy / "spec.json").read_text())
    facts["input"] |= change
    (copy / "spec.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="it or spec.json differs from what was written"):
        Corpus.open(copy).index  # noqa: B018


@pytest.mark.parametrize("what", ["rows", "order", "column", "value"])
def test_an_index_that_was_edited_is_noticed_by_whoever_reads_it(copy: Path, what: str) -> None:
    frame = pd.read_parquet(copy / "index.parquet")
    if what == "value":
        frame.loc[3, "subject"] = "s005"
    changed = {
        "rows": frame[:40], "order": frame[::-1], "column": frame.drop(columns="sha256"), "value": frame,
    }[what]  # fmt: skip
    changed.to_parquet(copy / "index.parquet", index=False)
    with pytest.raises(DataError, match="it or spec.json differs from what was written"):
        Corpus.open(copy).index  # noqa: B018


def test_events_without_a_column_are_refused(copy: Path) -> None:
    pd.read_parquet(copy / "events.parquet").drop(columns="label").to_parquet(copy / "events.parquet")
    with pytest.raises(DataError, match="events.parquet: no column 'label'; make the corpus again"):
        Corpus.open(copy).events  # noqa: B018


@pytest.mark.parametrize(("old", "new"), [("name: synthetic_ecg", "name: other"), ("public: true", "public: false")])
def test_a_card_of_another_set_in_the_corpus_is_refused(copy: Path, old: str, new: str) -> None:
    """By its name subjects are known again, and by ``public`` names are kept in."""
    text = (copy / "card.yaml").read_text()
    assert old in text
    (copy / "card.yaml").write_text(text.replace(old, new))
    with pytest.raises(DataError, match="card.yaml: name, version or public is not the card's that was converted"):
        Corpus.open(copy).card  # noqa: B018
