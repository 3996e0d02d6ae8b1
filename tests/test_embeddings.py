"""The table of embeddings: keys join, labels and hashes are there, a killed command goes on, no half file is ever named."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from probe_factory import make_run

from biossl import embeddings, inference
from biossl.checkpoint import load_encoder, save_encoder
from biossl.embeddings import embed_to_parquet
from biossl.errors import DataError, RequestError
from biossl.inference import embed_corpus
from biossl.models.transformer import TransformerEncoder


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
    assert frame["subject"].isna().all() and len(result["unreadable"]) == 1 and "file-0003: " in result["unreadable"][0]
    embed_to_parquet(folder, files[:2], out, per="recording", overwrite=True)
    assert pd.read_parquet(out)["n_windows"].tolist() == [2, 2]


def write_ecg(folder, name, fs=100, leads=("I", "II"), seconds=9):
    import wfdb

    folder.mkdir(exist_ok=True)
    n = len(leads)
    wfdb.wrsamp(
        name, fs=fs, units=["mV"] * n, sig_name=list(leads), p_signal=np.random.default_rng(0).normal(size=(seconds * fs, n)),
        fmt=["16"] * n, write_dir=str(folder),
    )  # fmt: skip
    return folder / f"{name}.hea"


def test_no_file_name_reaches_the_table_or_the_result_unless_asked_for(run, tmp_path):
    folder, _ = run
    files = [
        tmp_path / "broken_MUELLER.edf", write_ecg(tmp_path / "a", "MUELLER_HANS_1950"),
        write_ecg(tmp_path / "MUELLER", "MUELLER_short", seconds=1), write_ecg(tmp_path / "a", "MUELLER_one", leads=("II",)),
        write_ecg(tmp_path / "a", "MUELLER_leads", leads=("V5",)), write_ecg(tmp_path / "a", "renamed_MUELLER"),
    ]  # fmt: skip
    files[0].write_bytes(b"0")
    files[5].with_suffix(".dat").unlink()
    out = tmp_path / "e.parquet"
    screen: list[str] = []
    result = embed_to_parquet(folder, files, out, adapt=True, tell=screen.append)
    assert pd.read_parquet(out)["record"].unique().tolist() == ["file-0002", "file-0004"]  # the second and fourth given
    assert "MUELLER" not in str(result) and "adapted file-0004: channels I" in result["notes"][-1]
    assert [line.split(":")[0] for line in result["unreadable"]] == ["file-0001", "file-0003", "file-0005", "file-0006"]
    assert "file-0003: no window of 4 s" in result["unreadable"][1] and "a channel of the encoder" in result["unreadable"][2]
    assert len(screen) == 4 and all("MUELLER" in line for line in screen)  # who typed the names may read them
    assert b"MUELLER" not in out.read_bytes() and "MUELLER" not in str(pq.read_schema(out).metadata)
    result = embed_to_parquet(folder, files, out, keep_names=True, overwrite=True, adapt=True)
    assert pd.read_parquet(out)["record"].unique().tolist() == ["MUELLER_HANS_1950", "MUELLER_one"]
    assert all("MUELLER" in line for line in [*result["unreadable"], result["notes"][-1]])


def test_a_file_without_one_of_the_channels_is_embedded_as_such_a_corpus_is(run, tmp_path):
    folder, _ = run
    file, out = write_ecg(tmp_path / "PATIENT", "one_lead", leads=("II",)), tmp_path / "e.parquet"
    with pytest.raises(DataError, match="one_lead"):
        embed_to_parquet(folder, [file], out)
    result = embed_to_parquet(folder, [file], out, adapt=True)
    assert "channels I are unobserved" in result["notes"][-1]
    assert "PATIENT" not in str(pq.read_schema(out).metadata)
    encoder = load_encoder(folder)
    x = inference.windows_of_file(file, encoder.spec, adapt=True).data[:, 1:]
    expect = inference.embed_windows(encoder, x, ["II"], 100.0)
    np.testing.assert_allclose(np.stack(pd.read_parquet(out)["embedding"]), expect, atol=1e-6)
    joint = TransformerEncoder(encoder.spec, replace(encoder.config, tokenizer="joint"))
    with pytest.raises(DataError, match="channels I are missing; an encoder with a joint tokenizer"):
        embed_to_parquet(save_encoder(joint, tmp_path / "joint"), [file], out, adapt=True, overwrite=True)


CARD = """
format: 1
name: columns
title: Columns
modality: ecg
licence: none
citation: none
version: "1"
obtain: made here
public: false
files:
  - pattern: '(?P<record>[^/]+)\\.csv'
    reader: table
    table: {sfreq: 100, names: [lead1, lead2]}
native_sfreq: [100]
units: {ecg: mV}
channel_map: {lead1: I, lead2: II}
subjects: record
views:
  main: {sfreq: 100, window_s: 4, stride_s: 4, channels: [I, II]}
"""


def test_a_table_is_embedded_as_its_card_reads_it(run, tmp_path):
    folder, _ = run
    (tmp_path / "card.yaml").write_text(CARD)
    x = np.random.default_rng(0).normal(size=(900, 2)).round(4)
    np.savetxt(tmp_path / "p.csv", x, delimiter=",", fmt="%.4f")
    out = tmp_path / "e.parquet"
    with pytest.raises(DataError, match="card"):
        embed_to_parquet(folder, [tmp_path / "p.csv"], out)
    embed_to_parquet(folder, [tmp_path / "p.csv"], out, card=tmp_path / "card.yaml")
    encoder = load_encoder(folder)
    windows = x[:800].reshape(2, 400, 2).transpose(0, 2, 1).astype(np.float32)
    np.testing.assert_allclose(
        np.stack(pd.read_parquet(out)["embedding"]), inference.embed_windows(encoder, windows, ["I", "II"], 100.0), atol=1e-4
    )
    (tmp_path / "p.txt").write_text("0,0\n")
    with pytest.raises(DataError, match="card columns knows no file of this name"):
        embed_to_parquet(folder, [tmp_path / "p.txt"], out, card=tmp_path / "card.yaml", overwrite=True)
    with pytest.raises(RequestError, match="leave out --card and --keep-names"):
        embed_to_parquet(folder, run[1].path, tmp_path / "c.parquet", keep_names=True)


def test_a_card_says_rate_reader_and_modality_of_files(run, tmp_path):
    folder, _ = run
    text = CARD.replace(".csv", ".hea").replace("reader: table\n    table: {sfreq: 100, names: [lead1, lead2]}", "reader: wfdb")
    text = text.replace("channel_map: {lead1: I, lead2: II}\n", "")
    card, out = tmp_path / "card.yaml", tmp_path / "e.parquet"
    card.write_text(text)
    right, wrong = write_ecg(tmp_path / "a", "right"), write_ecg(tmp_path / "a", "wrong", fs=250)
    result = embed_to_parquet(folder, [right, wrong], out, card=card)
    assert pd.read_parquet(out)["record"].unique().tolist() == ["file-0001"]
    assert "file-0002: it was recorded at a rate that is not in the card's `native_sfreq`" in result["unreadable"][0]
    card.write_text(text.replace("reader: wfdb", "reader: edf"))
    with pytest.raises(DataError, match="EDF"):
        embed_to_parquet(folder, [right], out, card=card, overwrite=True)
    eeg = text.replace("modality: ecg", "modality: eeg").replace("{ecg: mV}", "{eeg: uV}").replace("[I, II]", "[Fz, Cz]")
    card.write_text(eeg)
    with pytest.raises(RequestError, match="its signals are eeg, the encoder's ecg"):
        embed_to_parquet(folder, [tmp_path / "not there", right], out, card=card, overwrite=True)
