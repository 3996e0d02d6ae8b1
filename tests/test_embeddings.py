"""The table of embeddings: keys join, labels and hashes are there, a killed command goes on, no half file is ever named."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from probe_factory import make_run

from biossl import embeddings
from biossl.checkpoint import load_encoder
from biossl.embeddings import embed_to_parquet
from biossl.errors import DataError, RequestError
from biossl.inference import embed_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("embeddings"), n_subjects=6)


def test_window_rows_carry_keys_labels_hashes_and_the_features(run, tmp_path):
    folder, corpus = run
    result = embed_to_parquet(folder, corpus.path, tmp_path / "e.parquet", pool="mean+max")
    frame = pd.read_parquet(tmp_path / "e.parquet")
    assert len(frame) == result["rows"] == len(corpus) and result["dim"] == 32
    for key in ("subject", "record", "start_s", "segment", "quality"):
        assert frame[key].tolist() == corpus.index[key].tolist()
    expect = embed_corpus(load_encoder(folder), corpus, pool="mean+max")
    np.testing.assert_allclose(np.stack(frame["embedding"]), expect, atol=1e-6)
    assert set(frame["label_group"]) == {"slow", "fast"} and frame["label_age"][0] == 40.0
    assert frame.loc[frame["record"] == "r003", "label_findings_A"].isna().all()  # no code: unknown, not negative
    schema = pq.read_schema(tmp_path / "e.parquet")
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float>[32]"
    facts = json.loads(schema.metadata[b"biossl"])
    assert facts["encoder"] == load_encoder(folder).info["hash"] and facts["corpus"] == corpus.hash
    assert facts["pool"] == "mean+max" and facts["spec"]["sfreq"] == 100.0


@pytest.mark.parametrize("per, key", [("recording", "record"), ("subject", "subject")])
def test_recordings_and_subjects_are_means_of_their_windows(run, tmp_path, per, key, monkeypatch):
    folder, corpus = run
    monkeypatch.setattr(embeddings, "PART_ROWS", 5)  # parts that cut through recordings
    embed_to_parquet(folder, corpus.path, tmp_path / "e.parquet", per=per, wide=True)
    frame = pd.read_parquet(tmp_path / "e.parquet").set_index(key)
    windows = embed_corpus(load_encoder(folder), corpus)
    for name, rows in corpus.index.groupby(key).indices.items():
        mean = frame.loc[name, [f"e{i:04d}" for i in range(16)]].to_numpy(dtype=float)
        np.testing.assert_allclose(mean, windows[rows].mean(0), atol=1e-5)
        assert frame.loc[name, "n_windows"] == len(rows)
    assert set(frame["label_group"]) == {"slow", "fast"}
    assert frame["label_state"].isna().all()  # rest in one half, work in the other: the recording has neither


def test_a_killed_command_goes_on_and_leaves_nothing_behind(run, tmp_path, monkeypatch):
    folder, corpus = run
    monkeypatch.setattr(embeddings, "PART_ROWS", 6)
    out = tmp_path / "e.parquet"
    real, done = embeddings.embed_rows, []

    def until_third(*args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args[2][0])
        return real(*args, **kwargs)

    monkeypatch.setattr(embeddings, "embed_rows", until_third)
    with pytest.raises(KeyboardInterrupt):
        embed_to_parquet(folder, corpus.path, out)
    assert not out.exists()

    def rest(*args, **kwargs):
        done.append(args[2][0])
        return real(*args, **kwargs)

    monkeypatch.setattr(embeddings, "embed_rows", rest)
    embed_to_parquet(folder, corpus.path, out)
    assert done == [0, 6, 12, 18]  # nothing twice
    assert [p.name for p in tmp_path.iterdir()] == ["e.parquet"]
    monkeypatch.setattr(embeddings, "embed_rows", real)
    whole = tmp_path / "whole.parquet"
    embed_to_parquet(folder, corpus.path, whole)
    assert out.read_bytes() == whole.read_bytes()


def test_parts_of_another_pooling_are_not_taken(run, tmp_path):
    folder, corpus = run
    out = tmp_path / "e.parquet"
    embed_to_parquet(folder, corpus.path, out)
    embed_to_parquet(folder, corpus.path, out, pool="max", overwrite=True)
    np.testing.assert_allclose(
        np.stack(pd.read_parquet(out)["embedding"]), embed_corpus(load_encoder(folder), corpus, pool="max"), atol=1e-6
    )


def test_faults_are_one_line(run, tmp_path):
    folder, corpus = run
    (tmp_path / "old.parquet").write_text("kept")
    with pytest.raises(RequestError, match="old.parquet: exists"):
        embed_to_parquet(folder, corpus.path, tmp_path / "old.parquet")
    assert (tmp_path / "old.parquet").read_text() == "kept"
    with pytest.raises(RequestError, match="--per day"):
        embed_to_parquet(folder, corpus.path, tmp_path / "e.parquet", per="day")
    with pytest.raises(RequestError, match="pool 'sum'"):
        embed_to_parquet(folder, corpus.path, tmp_path / "e.parquet", pool="sum")
    (tmp_path / "bad.edf").write_bytes(b"0")
    with pytest.raises(DataError, match="bad.edf"):
        embed_to_parquet(folder, [tmp_path / "bad.edf"], tmp_path / "e.parquet")
    with pytest.raises(RequestError, match="convert them with a card"):
        embed_to_parquet(folder, [tmp_path / "bad.edf"], tmp_path / "e.parquet", per="subject")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.edf", "old.parquet"]


def test_files_are_cut_into_windows_and_a_bad_one_costs_a_line(run, tmp_path):
    """Two WFDB files of one name in two folders, one of them of another rate, and one that is no recording."""
    import wfdb

    folder, corpus = run
    rng = np.random.default_rng(0)
    for name, fs in (("a", 100), ("b", 200)):
        (tmp_path / name).mkdir()
        wfdb.wrsamp(
            "r1", fs=fs, units=["mV", "mV"], sig_name=["I", "II"], p_signal=rng.normal(size=(9 * fs, 2)), fmt=["16", "16"],
            write_dir=str(tmp_path / name),
        )  # fmt: skip
    (tmp_path / "c.hea").write_text("nonsense")
    out = tmp_path / "e.parquet"
    files = [tmp_path / "a" / "r1.hea", tmp_path / "b" / "r1.hea", tmp_path / "c.hea"]
    result = embed_to_parquet(folder, files, out)
    frame = pd.read_parquet(out)
    assert len(frame) == 4 and frame["start_s"].tolist() == [0.0, 4.0, 0.0, 4.0] and frame["record"].nunique() == 2
    assert frame["subject"].isna().all() and len(result["unreadable"]) == 1 and "c.hea" in result["unreadable"][0]
    embed_to_parquet(folder, files[:2], out, per="recording", overwrite=True)
    assert pd.read_parquet(out)["n_windows"].tolist() == [2, 2]
