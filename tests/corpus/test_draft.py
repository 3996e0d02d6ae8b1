"""Drafts: no file of a folder vanishes, and what is still to be done is marked where it is to be done."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from edfio import Edf, EdfSignal
from hypothesis import given, settings
from hypothesis import strategies as st
from wfdb_folder import card_facts, write_record

from biossl.cli import main
from biossl.config import dump_yaml, load_yaml
from biossl.corpus.card import load_card
from biossl.corpus.discover import on_the_end, survey
from biossl.corpus.draft import draft_card
from biossl.corpus.load import load_record
from biossl.corpus.naming import find_naming
from biossl.errors import RequestError

ODD = "P005_Émile_Lefèvre 20240310"


def write_edf(path: Path, labels: tuple[str, ...] = ("I", "II", "V1"), unit: str = "mV") -> None:
    rng = np.random.default_rng(len(path.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [EdfSignal(rng.normal(0, 0.5, 3000), 100, label=n, physical_dimension=unit, physical_range=(-5, 5)) for n in labels]
    Edf(signals).write(path)


def write_table(path: Path, columns: tuple[str, ...] = ("I", "II")) -> None:
    rng = np.random.default_rng(1)
    rows = [f"{i / 100:.2f}," + ",".join(f"{v:.3f}" for v in rng.normal(0, 0.5, len(columns))) for i in range(3000)]
    path.write_text("\n".join([",".join(("time", *columns)), *rows]) + "\n")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Eight EDF (one oddly named, one empty), two WFDB, one table of samples, a table of patients."""
    folder = tmp_path / "mixed"
    for name in ("P001_visit1", "P001_visit2", "P002_visit1", "P002_visit2", "P003_visit1", "P004_visit1", ODD):
        write_edf(folder / f"{name}.edf")
    (folder / "P006_visit1.edf").write_bytes(b"")
    for k in (7, 8):
        write_record(folder, f"P00{k}", seed=k, n=3000)
    write_table(folder / "P009_export.csv")
    (folder / "patients.csv").write_text("id,age\nP001,50\nP002,61\n")
    return folder


def test_a_mixed_folder_gets_an_entry_a_format_and_loses_no_file(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card.yaml"
    assert main(["card", "new", str(mixed), "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["formats"] == {".edf": 8, ".hea": 2, ".csv": 1} and facts["files"] == 11
    assert "P006_visit1.edf" in facts["unreadable"][0] and "0 bytes" in facts["unreadable"][0]
    assert facts["left_out"][0].startswith("1 .csv: no column called time")
    assert facts["partly"] == {"V1": facts["read"] - 1}  # in every file but the table
    text = out.read_text(encoding="utf-8")
    assert "Émile" not in text and "Lef" not in text and "0.5 minutes each" in text
    out.write_text(text.replace("UNKNOWN", "mV"), encoding="utf-8")
    card = load_card(out)
    tasks, stray, _ = survey(card, mixed, "windows")
    assert len(tasks) == 11 and stray == []
    assert {t.subject for t in tasks} == {f"P00{k}" for k in range(1, 10)}
    assert main(["convert", str(out), str(mixed), str(tmp_path / "c"), "--view", "windows", "--jobs", "1", "--json"]) == 0
    funnel = json.loads(capsys.readouterr().out)["funnel"]
    assert funnel["quarantined"] == {"empty": 1} and funnel["records_with_windows"] == 10


def test_a_format_with_other_channels_is_named_as_left_out(tmp_path: Path) -> None:
    for k in range(3):
        write_edf(tmp_path / f"e{k}.edf", ("Fz", "Cz"), "uV")
    write_record(tmp_path, "100", seed=1, n=3000)
    text, facts = draft_card(tmp_path)
    assert facts["formats"] == {".edf": 3} and "wfdb" not in text
    assert facts["left_out"] == [
        "1 .hea: they have none of the channels of the .edf files but I, II, V1; give them a card of their own"
    ]


def test_files_without_a_unit_are_drafted_and_the_unit_is_asked_for(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", unit="")
    text, facts = draft_card(tmp_path)
    assert load_yaml_text(text, tmp_path)["units"] == {"ecg": "UNKNOWN"} and any(t.startswith("units: ") for t in facts["to_do"])


def load_yaml_text(text: str, folder: Path) -> dict:
    (folder / "drafted.yaml").write_text(text, encoding="utf-8")
    return load_yaml(folder / "drafted.yaml")


def test_what_is_to_be_done_and_what_is_marked_are_the_same(mixed: Path, tmp_path: Path) -> None:
    for folder in (mixed, tmp_path / "plain", tmp_path / "nameless"):
        if folder != mixed:
            write_edf(folder / "a.edf", ("I", "II") if folder.name == "plain" else ("left", "right"), "mV")
            write_edf(folder / "b.edf", ("I", "V1") if folder.name == "plain" else ("left", "right"), "mV")
        text, facts = draft_card(folder)
        first, *others = facts["to_do"]
        fields = re.findall(r"^(\w+): CHECK\b", text, re.MULTILINE)
        assert first.removesuffix(": fill in").split(", ") == fields == ["title", "licence", "citation", "version", "obtain"]
        assert re.findall(r"^# CHECK the (.*)$", text, re.MULTILINE) == others
        assert ("UNKNOWN" in text) == any(t.startswith("units") for t in others)


def test_a_draft_is_called_unfinished_before_and_after(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.yaml"
    main(["card", "new", str(mixed), "--out", str(card)])
    card.write_text(card.read_text(encoding="utf-8").replace("UNKNOWN", "mV"), encoding="utf-8")
    capsys.readouterr()
    assert main(["check", str(card)]) == 0
    said = capsys.readouterr().out
    assert "not finished" in said and "good" not in said and "licence: not filled in (CHECK" in said
    assert main(["convert", str(card), str(mixed), str(tmp_path / "c"), "--view", "windows", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] and "still marked CHECK" in lines[0] and any("private_paths.csv" in line for line in lines)
    text = re.sub(r"CHECK", "done:", card.read_text(encoding="utf-8"))
    card.write_text(re.sub(r": done:", ":", text), encoding="utf-8")
    assert main(["check", str(card)]) == 0 and "good" in capsys.readouterr().out


def test_the_card_of_the_docs_reads_an_export(tmp_path: Path) -> None:
    block = re.search(
        r"```yaml\n(files:.*?)```", (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    facts = card_facts() | load_yaml_text(block[1], tmp_path)
    facts["views"] = {"main": {"sfreq": 250, "window_s": 2, "stride_s": 2, "channels": ["II", "V1"]}}
    (tmp_path / "card.yaml").write_text(dump_yaml(facts), encoding="utf-8")
    rows = "\n".join(f"{4 * i};{i % 7};{i % 5}" for i in range(1000))
    (tmp_path / "P001_export.csv").write_text(f"t_ms;ecg_lead_ii;ecg_v1\n{rows}\n")
    card = load_card(tmp_path / "card.yaml")
    (task,) = survey(card, tmp_path, "main")[0]
    (recording,) = load_record(card, task)
    assert (task.subject, recording.ch_names, recording.units, recording.sfreq) == ("P001", ("II", "V1"), ("mV", "mV"), 250)


def test_a_wav_recorder_is_drafted_and_read_with_its_card(tmp_path: Path) -> None:
    from scipy.io import wavfile

    for k in (1, 2):
        wavfile.write(tmp_path / f"n{k}.wav", 200, np.arange(2000, dtype=np.int16).reshape(1000, 2))
    text, facts = draft_card(tmp_path)
    assert facts["channels"] == ["ch1", "ch2"] and any("channel_map" in t for t in facts["to_do"])
    text = text.replace("views:\n", "channel_map: {ch1: II, ch2: V1}\nviews:\n").replace("- ch1", "- II").replace("- ch2", "- V1")
    text = re.sub(r"units:\n(?:  ch.*\n)+", "units: {II: '1', V1: '1'}\n", text)
    (tmp_path / "card.yaml").write_text(text, encoding="utf-8")
    card = load_card(tmp_path / "card.yaml")
    (recording,) = load_record(card, survey(card, tmp_path, "windows")[0][0])
    assert recording.ch_names == ("II", "V1") and recording.data.shape == (2, 1000)


def test_tables_that_are_all_of_patients_ask_for_the_rate(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("id,age\n1,2\n3,4\n")
    with pytest.raises(RequestError, match="--sfreq"):
        draft_card(tmp_path)


def test_with_a_rate_the_tables_that_look_alike_are_taken(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"acc_{k}.txt").write_text("0.1 0.2 0.3\n" * 400)
    (tmp_path / "labels.txt").write_text("1 2\n" * 9)
    (tmp_path / "README.txt").write_text("some words here\n" * 9)
    facts = draft_card(tmp_path, sfreq=50)[1]
    assert facts["files"] == 3 and facts["left_out"] == ["2 .txt: other columns than most of them"]


def test_segments_of_a_wfdb_record_are_not_recordings_of_their_own(tmp_path: Path) -> None:
    for name in ("r1_1", "r1_2"):
        write_record(tmp_path, name, n=3000)
    (tmp_path / "r1.hea").write_text("r1/2 3 100 6000\nr1_1 3000\nr1_2 3000\n")
    assert draft_card(tmp_path)[1]["files"] == 1


NAME = st.text(st.sampled_from("aB1 20_-.éß(["), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a/", "b/1/", "z.zip!"]), NAME, st.sampled_from([".edf", ".EDF"])), min_size=1, unique=True
    ),
    st.lists(NAME, max_size=4, unique=True),
)
def test_no_pattern_misses_a_name_or_names_a_record_twice(parts: list[tuple[str, str, str]], tables: list[str]) -> None:
    first = ["".join(p) for p in parts]
    if len({n.lower() for n in first}) < len(first):
        return  # one folder with a.edf and a.EDF
    kinds = [first, *([[f"{t}.csv" for t in tables]] if tables else [])]
    records = []
    namings = find_naming(kinds)
    for naming, names in zip(namings, kinds, strict=True):
        found = [on_the_end(naming.pattern).fullmatch(n) for n in names]
        assert all(found)
        assert ("subject" in re.compile(naming.pattern).groupindex) == (naming.subjects == "group")
        records += [m["record"] for m in found if m]
    assert len(set(records)) == len(records) and len({n.subjects for n in namings}) == 1
