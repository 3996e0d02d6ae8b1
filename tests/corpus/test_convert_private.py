"""Conversion of a set that is not public: names, dates and paths stay where they are, and its holder finds them again."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from convert_toys import quarantine, run
from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks
from wfdb_folder import card_facts, write_record

from biossl.config import build
from biossl.corpus import Corpus, convert
from biossl.corpus.card import Card
from biossl.corpus.convert import convert_tasks
from biossl.corpus.discover import discover, find_file
from biossl.errors import DataError, RequestError

CANARIES = ("Zebrowski", "zebrowski", "19370412", "12-04-1937", "12/04/1937", "1937-04-12", "MRN778812", "Ward Q7")


def test_no_name_id_date_or_path_of_a_private_set_leaves_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    src = tmp_path / "Ward Q7 Zebrowski"
    comments = (
        "Age: 82",
        "Name: Zebrowski, Ada",
        "Seen: 12/04/1937",
        "Day: 1937-04-12",
        "Note: MRN778812 of Zebrowski",
        "Sex: F",
    )
    for k in range(3):
        # a visit every 10 days; the record's name holds the patient's number
        when = f"07:3{k}:00 {12 + k}/04/1937"
        write_record(src / "MRN778812", f"zebrowski_MRN778812_{k}", seed=k, comments=comments, when=when)
    write_record(src / "MRN778813", "zebrowski_MRN778813_0", seed=9, comments=comments, when="07:30:00 12/04/1937")
    (src / "MRN778813" / "zebrowski_MRN778813_1.hea").write_text("zebrowski_MRN778813_1 1 nonsense 12/04/1937 Zebrowski\n")
    (src / "MRN778813" / "zebrowski_MRN778813_2.hea").write_bytes((src / "MRN778813" / "zebrowski_MRN778813_0.hea").read_bytes())
    facts = card_facts(
        public=False,
        files=[{"pattern": r"(?P<subject>MRN\d+)/(?P<record>zebrowski_.*)\.hea", "reader": "wfdb"}],
        header_covariates={"age": "Age", "seen": "Seen", "day_seen": "Day", "note": "Note", "sex": "Sex"},
        same_person=[["MRN778812", "MRN778814"]],
        splits={"official": {"by": "subject", "parts": {"train": ["MRN778812"], "test": ["MRN778813"]}}},
    )
    result = convert(build(Card, facts, where="card"), src, tmp_path / "c", view="main", n_jobs=2)
    corpus = Corpus.open(tmp_path / "c")
    corpus.read([0])
    corpus.verify()
    assert result["funnel"]["subjects"] == 2 and result["funnel"]["quarantined"] == {"lying_header": 1}
    assert any("identical samples" in text for text in result["findings"]), "a header that names another record's file"
    # what is useful stays
    first = corpus.index.drop_duplicates("record")
    assert set(first["age"]) == {"82"} and set(first["sex"]) == {"F"} and set(first["seen"]) == {""}
    assert set(first[first["split"] == "train"]["note"]) == {""}, "holds the patient's own number"
    assert re.fullmatch("k[0-9a-f]{12}", first[first["split"] == "test"]["note"].iloc[0]), "holds another patient's"
    assert corpus.split().value_counts().to_dict() == {"train": 15, "test": 10}
    patient = first[first["split"] == "train"].sort_values("day")
    assert np.diff(patient["day"]).tolist() == [1, 1] and patient["day"].iloc[0] == float(patient["day_seen"].iloc[0])
    assert (first["day"] % 1 == 0).all() and first["day"].max() < -11950
    # and the rest is nowhere
    seen = "".join(capfd.readouterr()) + json.dumps(result).replace(str(tmp_path), "")
    for file in sorted((tmp_path / "c").rglob("*")):
        seen += file.name
        if file.suffix == ".parquet":
            seen += pd.read_parquet(file).to_csv() + str(__import__("pyarrow.parquet").parquet.read_schema(file).metadata)
        elif file.suffix == ".h5":
            with h5py.File(file) as f:
                seen += str(dict(f.attrs)) + str(list(f))
            seen += file.read_bytes().decode("latin-1")
        elif file.is_file() and file.name not in ("secret.key", "card.yaml", "private_paths.csv"):
            seen += file.read_bytes().decode("latin-1")
    stored = (tmp_path / "c" / "card.yaml").read_text()
    assert "MRN778" not in stored and "same_person: []" in stored
    assert result["private_paths"] == str(tmp_path / "c" / "private_paths.csv")
    assert (tmp_path / "c" / "private_paths.csv").stat().st_mode & 0o777 == 0o600
    assert [c for c in (*CANARIES, "MRN778813") if c in seen] == []


def test_a_private_key_leads_its_holder_to_the_file_and_the_line_says_what_to_do(tmp_path: Path, source: Path) -> None:
    (source / "b1.hea").write_bytes(b"")
    (source / "c1.dat").write_bytes((source / "c1.dat").read_bytes()[:-100])
    card = build(Card, card_facts(public=False), where="card")
    result = convert(card, source, tmp_path / "c", view="main", n_jobs=1)
    with open(result["private_paths"]) as f:
        paths = {row["record"]: row["path"] for row in csv.DictReader(f)}
    lines = {paths[line["record"]]: line for line in quarantine(tmp_path / "c")}
    assert set(lines) == {"b1.hea", "c1.hea"}, "and no name of a file that is well"
    assert lines["b1.hea"]["code"] == "empty" and "0 bytes" in lines["b1.hea"]["message"]
    assert all(line["message"].endswith("copy it again from the recorder") for line in lines.values())
    for k, name in enumerate(("b1", "c1")):
        write_record(source, name, seed=k + 5)
    result = convert(card, source, tmp_path / "c", view="main", n_jobs=1, overwrite=True)
    assert result["private_paths"] == "" and not (tmp_path / "c" / "private_paths.csv").exists()


def test_the_holder_is_led_there_too_when_nothing_could_be_converted(tmp_path: Path, source: Path) -> None:
    for file in source.glob("*.hea"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="which files: .*private_paths.csv"):
        convert(build(Card, card_facts(public=False), where="card"), source, tmp_path / "c", view="main", n_jobs=1)
    assert (tmp_path / "c" / "private_paths.csv").read_text().count(".hea") == 4


def test_marks_of_a_private_set_keep_only_what_the_card_names(tmp_path: Path) -> None:
    class Named(SyntheticLoader):
        def __call__(self, card: Any, view: str, task: Any) -> Any:
            cut, start = super().__call__(card, view, task)
            cut.events.loc[1, "label"] = "Ada Zebrowski woke"
            return cut, start

    run(tmp_path / "c", Named(2), facts={"public": False})
    assert set(Corpus.open(tmp_path / "c").events["label"]) == {"rest", "other"}


def test_ages_above_89_of_a_private_set_are_one_group_and_a_note_says_so(tmp_path: Path) -> None:
    tasks = synthetic_tasks(4)
    for task, age in zip(tasks, ("89", "90", "97", "300"), strict=True):
        task.covariates["age"] = age
    for public, expected in ((False, ["89", "90", "90", "300"]), (True, ["89", "90", "97", "300"])):
        result = convert_tasks(
            synthetic_card(public=public), tasks, tmp_path / str(public), view="main", load=SyntheticLoader(2), n_jobs=1
        )
        index = Corpus.open(tmp_path / str(public)).index
        assert index["age"][::2].tolist() == expected
        said = [f for f in result["findings"] if f.startswith("age: 4 windows hold 90, which stands for ages above 89")]
        assert len(said) == (not public)


def test_a_column_emptied_as_a_date_of_birth_is_a_finding(tmp_path: Path) -> None:
    for public in (False, True):
        tasks = synthetic_tasks(2)
        for task in tasks:
            task.covariates.update({"born_on": "1950-04-03", "birth_weight": "3400"})
        result = convert_tasks(
            synthetic_card(public=public), tasks, tmp_path / str(public), view="main", load=SyntheticLoader(2), n_jobs=1
        )
        index = Corpus.open(tmp_path / str(public)).index
        assert set(index["birth_weight"]) == {"3400"} and set(index["born_on"]) == ({"1950-04-03"} if public else {""})
        said = [f for f in result["findings"] if "date of birth" in f]
        assert said == ([] if public else ["born_on: left out as a date of birth, by its name (the set is not public)"])


@pytest.mark.parametrize("public", [True, False])
def test_a_folder_that_cannot_be_opened_is_a_finding_not_the_end(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, public: bool
) -> None:
    (source / "Zebrowski").mkdir()
    scan = os.scandir

    def closed(folder: Any) -> Any:  # the rights of root's own folders stop nobody who runs this as root
        if str(folder).endswith("Zebrowski"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", closed)
    card = build(Card, card_facts(public=public), where="card")
    result = convert(card, source, tmp_path / "c", view="main", n_jobs=1)
    (said,) = [f for f in result["findings"] if "could not be opened" in f]
    assert said.startswith("1 folder could not be opened") and ("Zebrowski" in said) == public
    assert result["funnel"]["windows"] > 0
    with pytest.raises(RequestError, match="could not be opened") as e:
        discover(card, source, "main")
    assert ("Zebrowski" in str(e.value)) == public


def test_two_tables_equally_near_name_no_folder_of_a_private_set(tmp_path: Path) -> None:
    paths = ["Zebrowski/t.csv", "Mueller/t.csv"]
    with pytest.raises(RequestError, match="Zebrowski"):
        find_file("t.csv", tmp_path, paths, True)
    with pytest.raises(RequestError, match="2 files could be the card's t.csv") as e:
        find_file("t.csv", tmp_path, paths, False)
    assert "Zebrowski" not in str(e.value)
