"""Within-subject splits: recordings dealt out and marked, let through by the guard only then, and what counts as seen under them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from within_toys import make_recordings

from biossl.atomic import write_parquet
from biossl.audit.labels import _rows as audited_rows
from biossl.cli import main
from biossl.compare.plan import make_folds
from biossl.corpus import Corpus, add_split, guard_split, make_split, seen, subject_keys
from biossl.corpus.splits import default_split, read_split, with_fold
from biossl.corpus.within import WARNING, groups, is_within_subject
from biossl.downstream.finetune import scarce_rows
from biossl.errors import DataError, RequestError
from biossl.forgetting import judged_rows


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three people of four recordings, one of one; two windows a recording."""
    return make_recordings(tmp_path / "c")


def records(corpus: Corpus, rows: np.ndarray) -> set[str]:
    return set(corpus.index["record"].to_numpy()[rows])


def test_each_recording_of_each_person_is_judged_in_one_fold(corpus: Corpus) -> None:
    report = make_split(corpus, "runs", by="recording", folds=4)
    assert report["within_subject"] and WARNING in report["notes"]
    assert "1 of 4 subjects have fewer than 4 recordings and are in no part" in report["notes"]
    assert {k: (v["subjects"], v["recordings"]) for k, v in report["counts"].items()} == dict.fromkeys("0123", (3, 3))
    tests = []
    for fold in range(4):
        part = corpus.split(f"runs:{fold}")
        here = corpus.index.assign(part=part)
        assert (here.groupby("record")["part"].nunique() == 1).all()
        held = here[here["part"] == "test"]
        assert sorted(held["subject"].unique()) == ["a", "b", "c"] and held["record"].nunique() == 3
        assert (here[here["part"] == "train"].groupby("subject")["record"].nunique() == 2).all()
        tests.append(set(held["record"]))
    assert len(set().union(*tests)) == 12
    assert (corpus.split("runs")[corpus.index["subject"] == "d"] == "").all()


def test_fractions_are_of_each_persons_recordings(corpus: Corpus) -> None:
    make_split(corpus, "parts", by="recording", fractions=(0.5, 0.25, 0.25))
    table = corpus.index.assign(part=corpus.split("parts")).drop_duplicates("record")
    for _, mine in table[table["part"] != ""].groupby("subject"):
        assert mine["part"].value_counts().to_dict() == {"train": 2, "val": 1, "test": 1}


def test_the_seed_decides_and_strata_are_spread(corpus: Corpus) -> None:
    one, same, other = (make_split(corpus, f"s{i}", by="recording", folds=2, seed=s)["hash"] for i, s in enumerate((1, 1, 2)))
    assert one == same != other
    make_split(corpus, "even", by="recording", folds=2, stratify="group")
    table = corpus.index.assign(part=corpus.split("even")).drop_duplicates("record")
    for _, mine in table[table["part"] != ""].groupby("subject"):  # two slow and two fast recordings each
        assert mine[mine["part"] == "test"]["group"].nunique() == 2


def test_too_many_folds_name_what_is_there(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="needs 5 recordings of a person and nobody has more than 4"):
        make_split(corpus, "runs", by="recording", folds=5)
    with pytest.raises(RequestError, match="choose 2 or more"):
        make_split(corpus, "runs", by="recording", folds=1)


def test_only_the_mark_lets_a_person_into_two_parts(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    make_split(corpus, "people", folds=2)
    guard_split([corpus], "runs:1")
    assert is_within_subject(corpus, "runs:1") and is_within_subject(corpus, "runs")
    assert not any(is_within_subject(corpus, name) for name in ("people:0", "people", "official", None))
    file = corpus.path / "splits" / "runs.parquet"
    frame, meta = read_split(file)
    write_parquet(corpus.path / "splits" / "bare.parquet", frame, {k: meta[k] for k in ("key", "hash")})
    with pytest.raises(DataError, match="3 subjects are in more than one part"):
        guard_split([corpus], "bare")


def test_a_person_whom_an_ordinary_split_holds_stays_in_one_part(tmp_path: Path) -> None:
    first, second = (make_recordings(tmp_path / name, (3, 3)) for name in "xy")
    make_split(first, "runs", by="recording", folds=3)
    make_split(second, "people", folds=2)
    with pytest.raises(DataError, match="2 subjects are in more than one part"):
        guard_split([first, second], ["runs:0", "people:0"])


def test_one_recording_in_two_views_is_not_parted(tmp_path: Path) -> None:
    first, second = (make_recordings(tmp_path / name, (3, 3)) for name in "xy")
    for corpus, seed in ((first, 0), (second, 1)):
        make_split(corpus, "runs", by="recording", folds=3, seed=seed)
    assert not first.split("runs").equals(second.split("runs"))
    with pytest.raises(DataError, match="recordings are in more than one part .*--by recording"):
        guard_split([first, second], "runs")


def given(corpus: Corpus, lines: str, **kw: object) -> dict[str, object]:
    file = corpus.path.parent / "given.csv"
    file.write_text("record,part\n" + lines)
    return add_split(corpus, file, name="given", key="record", overwrite=True, **kw)  # type: ignore[arg-type]


SESSIONS = "r000,train\nr001,train\nr002,test\nr004,train\nr005,test\n"


def test_a_split_made_elsewhere_has_to_say_that_it_is_within_subject(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="2 of 2 subjects are in more than one part"):
        given(corpus, SESSIONS)
    report = given(corpus, SESSIONS, within_subject=True)
    assert report["within_subject"] and is_within_subject(corpus, "given") and WARNING in report["notes"]  # type: ignore[operator]
    guard_split([corpus], "given")
    for lines, said in (
        ("r000,train\nr000,test\nr001,train\n", "1 of 2 recordings are in more than one part"),
        ("r000,train\nr001,train\nr004,test\n", "nobody is in two parts, so it is a split by subject"),
        (SESSIONS + "r008,test\n", "1 of 3 subjects are judged and have no recording in train"),
    ):
        with pytest.raises(DataError, match=said):
            given(corpus, lines, within_subject=True)
    with pytest.raises(RequestError, match="give --key record"):
        add_split(corpus, corpus.path.parent / "given.csv", name="other", key="subject", within_subject=True)


def test_intervals_are_by_recording_only_there(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    make_split(corpus, "people", folds=2)
    assert (groups(corpus, "runs:2") == corpus.index["record"]).all()
    assert all((groups(corpus, name) == corpus.index["subject"]).all() for name in ("people:1", "people", None))


def test_a_person_known_by_other_recordings_is_not_seen_under_the_split(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    part = corpus.split("runs:0").to_numpy()
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    marks = subject_keys(corpus, train)
    assert seen(corpus, test, marks) == 3  # by name, as under any other split
    assert seen(corpus, test, marks, split="runs:0") == 0
    assert seen(corpus, train, marks, split="runs:0") == 3
    one = subject_keys(corpus, np.append(train, test[0]))
    assert seen(corpus, test, one, split="runs:0") == 1
    window = marks | {m for m in one if m.startswith("w:")}
    assert seen(corpus, test, window, split="runs:0") == 1  # also by a window of it


def test_where_recordings_cannot_be_told_apart_the_name_counts(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    part = corpus.split("runs").to_numpy()
    marks, test = subject_keys(corpus, np.flatnonzero(part == "train")), np.flatnonzero(part == "test")
    names = {m for m in marks if not m.startswith("r:")}
    assert seen(corpus, test, names, split="runs") == 3
    corpus.index = corpus.index.drop(columns="record_sha256")
    assert seen(corpus, test, marks, split="runs") == 3


def test_too_many_recordings_to_remember_count_by_name(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    part = corpus.split("runs").to_numpy()
    marks, test = subject_keys(corpus, np.flatnonzero(part == "train")), np.flatnonzero(part == "test")
    monkeypatch.setattr("biossl.corpus.identity.RECORDING_SAMPLE", 6)
    assert seen(corpus, test, marks, split="runs") == 3


def test_what_speaks_of_new_people_refuses_it(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    for ask in (
        lambda: audited_rows(corpus, "state", "runs", None), lambda: make_folds(corpus, "state", split="runs", folds=None, within=None),
        lambda: judged_rows(corpus, "state", "runs"), lambda: scarce_rows(corpus, "state", split="runs", n_subjects=1),
    ):  # fmt: skip
        with pytest.raises(DataError, match="split 'runs.*' is within-subject, and .* speaks of new people"):
            ask()
    assert len(make_folds(corpus, "state", split=None, folds=3, within=None)[1]) == 3  # of people, whatever split is there


def test_every_verb_that_asks_which_split_is_meant_is_told(corpus: Corpus) -> None:
    make_split(corpus, "runs", by="recording", folds=4)
    assert with_fold(corpus, default_split(corpus)[0] or "")[1].endswith(WARNING)
    assert with_fold(corpus, "runs:2") == ("runs:2", WARNING)


def test_the_verb_makes_it_and_check_says_so(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(corpus.path), "--name", "runs", "--by", "recording", "--folds", "4"]) == 0
    assert WARNING in capsys.readouterr().err
    assert pq.read_table(corpus.path / "splits" / "runs.parquet").schema.metadata[b"within_subject"] == b"true"
    assert main(["check", str(corpus.path)]) == 0
    assert f"split 'runs' is {WARNING}" in capsys.readouterr().out
