"""Planted wrong labels are found by their neighbours, looked at, and corrected by the list that was filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from corpus_factory import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.audit.labels import Suspects, audit_labels, disagreement, foreign_neighbours, pick, write_list
from biossl.cli import main
from biossl.corpus import Corpus, correct_labels
from biossl.errors import DataError, RequestError
from biossl.ledger import openings

TURNED = {0.0: "fast", 1.0: "slow"}


def turn(corpus: Corpus, rows: Any, name: str, folder: Path) -> None:
    """Label ``name``: ``group`` with the wrong class at rows."""
    value = corpus.labels("group").values[:, 0]
    lines = [f"{corpus.index['record'][i]},{corpus.index['start_s'][i]},{TURNED[float(value[i])]}" for i in rows]
    (folder / f"{name}.csv").write_text("record,start_s,new_label\n" + "\n".join(lines) + "\n")
    correct_labels(corpus, folder / f"{name}.csv", name=name, base="group")


@pytest.fixture(scope="module")
def planted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    inside = np.flatnonzero(np.isin(corpus.split(), ["train", "val"]))
    wrong = np.sort(np.random.default_rng(0).choice(inside, 20, replace=False))
    turn(corpus, wrong, "noisy", tmp_path_factory.mktemp("noisy"))
    return wrong


@pytest.fixture(scope="module")
def found(encoder: Path, corpus: Corpus, planted: np.ndarray) -> Suspects:
    return audit_labels(encoder, corpus, "noisy")


def test_most_planted_errors_are_listed_first(found: Suspects, corpus: Corpus, planted: np.ndarray) -> None:
    assert len(found.table) <= 50 < found.about["windows"] / 6
    assert np.isin(planted, found.rows).sum() >= 16
    assert np.isin(found.rows[:10], planted).sum() >= 8
    assert found.table["disagreement"].is_monotonic_decreasing and (found.table["disagreement"] > 0.5).all()


def test_test_rows_are_neither_listed_nor_neighbours_and_the_ledger_is_silent(found: Suspects, corpus: Corpus) -> None:
    part = corpus.split().to_numpy().astype(str)
    assert set(part[found.rows]) | set(part[found.neighbours[found.neighbours >= 0]]) <= {"train", "val"}
    assert any("of part 'test' were not looked at" in n for n in found.about["notes"]) and not openings(corpus.path, "noisy")


def test_neighbours_are_other_people_who_carry_the_other_label(found: Suspects, corpus: Corpus) -> None:
    subject, labels = corpus.index["subject"].to_numpy(), corpus.labels("noisy")
    for row, two, said in zip(found.rows, found.neighbours, found.table["neighbours_label"], strict=True):
        for other in two[two >= 0]:
            assert subject[other] != subject[row] and labels.classes[int(labels.values[other, 0])] == said


def test_the_filled_list_goes_back_through_label(
    found: Suspects, corpus: Corpus, planted: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_list(found, tmp_path)
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert (table["decision"] == "").all() and (table["new_label"] == "").all()
    was_wrong = np.isin(found.rows, planted)  # somebody looks at the traces and knows
    table["decision"] = np.where(was_wrong, "change", "keep")
    table["new_label"] = np.where(was_wrong, table["neighbours_label"], "")
    table.loc[len(table) - 1, ["decision", "new_label"]] = ""
    table.to_csv(file, index=False)
    words = ["label", str(corpus.path), str(file), "--key", "window", "--base", "noisy", "--name", "mended", "--overwrite"]
    assert main(words) == 0
    assert f"{was_wrong[:-1].sum()} windows changed" in capsys.readouterr().out
    true, noisy, mended = (corpus.labels(n).values[:, 0] for n in ("group", "noisy", "mended"))
    assert (mended != true).sum() == (noisy != true).sum() - was_wrong[:-1].sum()
    with pytest.raises(RequestError, match="somebody's decisions"):
        write_list(found, tmp_path)


def test_a_test_part_that_is_opened_is_told_and_counted(encoder: Path, corpus: Corpus, tmp_path: Path) -> None:
    turn(corpus, [0], "opened", tmp_path)
    every = audit_labels(encoder, corpus, "opened", part="all", n=3)
    assert every.about["windows"] == len(corpus) and len(every.table) <= 3
    assert any("test part were looked at: opening 1" in n for n in every.about["notes"])
    assert [e["verb"] for e in openings(corpus.path, "opened")] == ["audit labels"]


def test_an_encoder_that_was_tuned_with_labels_is_told(tuned: Path, corpus: Corpus, planted: np.ndarray) -> None:
    found = audit_labels(tuned, corpus, "noisy")
    assert np.isin(planted, found.rows).sum() >= 16
    assert any("whose errors it may have learnt" in n for n in found.about["notes"])


def test_yes_or_no_classes_are_looked_at_one_by_one(encoder: Path, corpus: Corpus, tmp_path: Path) -> None:
    """The class of a finding follows the rhythm; one window says so wrongly, half of the records say nothing."""
    subjects = sorted(set(corpus.index["subject"]))
    slow = corpus.index.drop_duplicates("subject").set_index("subject")["group"] == "slow"
    lines = [f"{s},{'calm' if slow[s] else 'calm storm'}" for s in subjects[:20]]
    (tmp_path / "a.csv").write_text("subject,codes\n" + "\n".join(lines) + "\n")
    assert (
        main(["label", str(corpus.path), str(tmp_path / "a.csv"), "--key", "subject", "--name", "codes", "--kind", "multilabel"])
        == 0
    )
    row = int(np.flatnonzero((corpus.index["subject"] == subjects[0]) & (corpus.split() == "train"))[3])
    entry = corpus.index.iloc[row]
    (tmp_path / "b.csv").write_text(f"record,start_s,new_label\n{entry['record']},{entry['start_s']},calm+storm\n")
    correct_labels(corpus, tmp_path / "b.csv", name="codes_wrong", base="codes")
    found = audit_labels(encoder, corpus, "codes_wrong")
    line = found.table[found.rows == row].iloc[0]
    assert (line["class"], line["label"], line["neighbours_label"]) == ("storm", "calm+storm", "calm")
    assert set(found.table["class"]) == {"storm"}


def test_page_and_json_of_a_private_corpus_name_nobody(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    c = make_corpus(
        tmp_path / "p", modality="imu", n_subjects=12, windows_per_subject=6, n_samples=128, n_channels=3, seed=1, public=False
    )
    turn(c, [1, 8, 15, 22], "noisy", tmp_path)
    words = ["audit", "labels", str(encoder), str(c.path), "--label", "noisy", "--n", "2", "--out", str(tmp_path / "a"), "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    about = json.loads(captured.out)
    page = (tmp_path / "a" / "audit.html").read_text()
    assert about["listed"] == 2 and page.count("<img ") == 6 and "--base noisy" in page
    for text in (page, captured.out, captured.err, (tmp_path / "a" / "audit.csv").read_text()):
        assert not re.search(r"\b[rs]0\d\d\b", text)
    assert "http" not in page
    assert main(words[:-1]) == 2 and "--overwrite" in capsys.readouterr().err


def test_what_cannot_be_audited_is_refused(encoder: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="is a number"):
        audit_labels(encoder, corpus, "age")
    with pytest.raises(RequestError, match="--part none: no labelled window"):
        audit_labels(encoder, corpus, "group", part="none")
    with pytest.raises(RequestError, match="--n 0"):
        audit_labels(encoder, corpus, "group", n=0)
    for words, told in ((["--rows", "1"], "--rows belongs to `biossl audit occlusion`"), ([], "no such encoder folder")):
        assert main(["audit", "labels", "nowhere", str(corpus.path), "--label", "group", "--out", "x", *words]) == 2
        assert told in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- equations


def slow_neighbours(z: np.ndarray, known: np.ndarray, subjects: np.ndarray, k: int) -> list[list[int]]:
    u = (z - z.mean(0)) / z.std(0)
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    out = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if known[j] and subjects[j] != subjects[i]]
        others = sorted(others, key=lambda j: -float(u[i] @ u[j]))[:k]
        out.append(others + [-1] * (k - len(others)))
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_neighbours_and_shares_are_those_of_a_loop(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    z, known, subjects = rng.normal(size=(14, 5)), rng.random(14) < 0.7, rng.choice(list("abc"), 14)
    y = np.where(known, rng.integers(0, 3, 14), np.nan)
    near = foreign_neighbours(z, known, subjects, k)
    assert near.tolist() == slow_neighbours(z, known, subjects, k)
    share, other = disagreement(y, near)
    for i in range(14):
        votes = [y[j] for j in near[i] if j >= 0]
        if np.isnan(y[i]) or not votes:
            assert np.isnan(share[i])
            continue
        against = [v for v in votes if v != y[i]]
        assert share[i] == pytest.approx(len(against) / len(votes))
        most = max((against.count(c) for c in range(3)), default=0)
        assert other[i] == (min(c for c in range(3) if against.count(c) == most) if most else -1)


def test_one_bad_recording_does_not_fill_the_list() -> None:
    share = np.r_[np.full(40, 1.0), np.linspace(0.9, 0.6, 30), np.zeros(5)]
    records = np.r_[np.full(40, "bad"), [f"r{i}" for i in range(30)], np.full(5, "fine")]
    chosen = pick(share, np.zeros(75), records, 30)
    assert (records[chosen] == "bad").sum() == 3 and len(chosen) == 30
    assert (share[chosen] > 0.5).all()
    two = pick(share[:70], np.zeros(70), np.r_[np.full(40, "a"), np.full(30, "b")], 30)  # few recordings share it
    assert len(two) == 30


def test_equal_shares_are_ordered_by_the_probability_gap() -> None:
    assert pick(np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.9, 0.5]), np.array(list("abc")), 2).tolist() == [1, 2]


def test_two_people_and_one_class_are_a_clear_line(encoder: Path, tmp_path: Path) -> None:
    c = make_corpus(tmp_path / "c", modality="imu", n_subjects=2, windows_per_subject=4, n_samples=128, n_channels=3, splits={})
    with pytest.raises(DataError, match="fewer than three subjects"):
        audit_labels(encoder, c, "group")
