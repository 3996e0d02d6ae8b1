"""Counts of classes agree with a plain loop, and a part that lacks a class is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import make_corpus

from biossl.corpus import Corpus, add_labels, add_split, make_split
from biossl.corpus.tally import poor_parts, tally


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpora") / "c", n_subjects=12, windows_per_subject=4, n_channels=1, n_samples=20)


@pytest.mark.parametrize("name", ["group", "findings", "state"])
@pytest.mark.parametrize("part", [None, "train", "test"])
def test_counts_agree_with_a_plain_loop(corpus: Corpus, name: str, part: str | None) -> None:
    labels = corpus.labels(name)
    rows = None if part is None else (corpus.split() == part).to_numpy()
    windows: dict[str, int] = {}
    people: dict[str, set[str]] = {}
    for i in range(len(corpus)):
        if rows is not None and not rows[i]:
            continue
        values = labels.values[i]
        if np.isnan(values).all():
            have = ["unknown"]
        elif labels.kind == "multilabel":
            have = [c for c, v in zip(labels.classes, values, strict=True) if v == 1]
        else:
            have = [labels.classes[int(values[0])]]
        for c in have:
            windows[c] = windows.get(c, 0) + 1
            people.setdefault(c, set()).add(corpus.index["subject"][i])
    counted = tally(corpus, labels, rows)
    assert [c["class"] for c in counted] == [*labels.classes, "unknown"]
    assert {c["class"]: c["windows"] for c in counted if c["windows"]} == windows
    assert {c["class"]: c["subjects"] for c in counted if c["windows"]} == {c: len(s) for c, s in people.items()}
    assert all(c["records"] == c["subjects"] for c in counted)  # one record each in this corpus


def test_numbers_are_summed_up_and_negatives_are_not_unknown(corpus: Corpus) -> None:
    known, unknown = tally(corpus, corpus.labels("age"))
    assert (known["low"], known["median"], known["high"]) == (40, 45.5, 51) and unknown["windows"] == 0
    a = tally(corpus, corpus.labels("findings"))[0]
    assert (a["windows"], a["negative"]) == (24, 12)  # and 12 unknown


def by_hand(corpus: Corpus, tmp_path: Path, name: str, parts: dict[int, str]) -> list[str]:
    (tmp_path / "p.csv").write_text("subject,part\n" + "".join(f"s{i:03d},{p}\n" for i, p in parts.items()))
    return add_split(corpus, tmp_path / "p.csv", name=name, overwrite=True)["notes"]


def test_a_part_with_one_class_or_without_one_is_named(corpus: Corpus, tmp_path: Path) -> None:
    """Subject i: group slow, fast by turns; findings A, B, A and B, unknown by turns."""
    thirds = {0: "train", 1: "train", 2: "train", 3: "train", 4: "val", 5: "val", 6: "test", 7: "test", 8: "test"}
    assert by_hand(corpus, tmp_path, "x", thirds) == ["part test: label 'findings' has no window without A"]
    notes = by_hand(
        corpus, tmp_path, "x", {0: "train", 1: "train", 2: "train", 4: "val", 8: "val", 3: "test", 5: "test", 7: "test"}
    )
    assert notes == [
        "part val: label 'group' has only class slow; label 'findings' has no window of B and no window without A",
        "part test: label 'group' has only class fast; label 'findings' has no window of A and no window without B",
    ]
    notes = by_hand(corpus, tmp_path, "x", {0: "train", 1: "train", 2: "train", 3: "test", 7: "test"})
    assert notes == ["part test: label 'group' has only class fast; label 'findings' has no known window"]


def test_a_fold_is_named_too_and_a_good_split_has_no_note(corpus: Corpus) -> None:
    every = make_split(corpus, "each", folds=12)["notes"]
    notes = [n for n in every if re.match(r"fold \d+: label", n)]
    assert len(notes) == 12 and all("label 'group' has only class" in n for n in notes)
    assert [n.split(":")[0] for n in notes] == [f"fold {k}" for k in range(12)]  # in the order of numbers
    assert not [n for n in make_split(corpus, "two", folds=2, stratify="group")["notes"] if "group" in n]


def options(corpus: Corpus, remedy: str) -> dict[str, Any]:
    """What a note tells a person to type, as arguments of ``make_split``."""
    (words,) = re.findall(r"use `([^`]*)`", remedy)
    found: dict[str, Any] = {}
    for option, value in re.findall(r"--(\w+) ([^-]+)", words):
        found[option] = int(value) if option == "folds" else value.strip()
    return found


@pytest.mark.parametrize("n", [4, 5, 6, 7, 9, 12])
@pytest.mark.parametrize("how", [{}, {"folds": 4}, {"by": "time"}, {"fractions": (0.8, 0.0, 0.2)}])
def test_the_remedy_for_a_part_of_one_subject_works(tmp_path: Path, n: int, how: dict[str, Any]) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=n, windows_per_subject=1, n_channels=1, n_samples=20)
    report = make_split(made, "a", **how)
    remedies = [note for note in report["notes"] if "1 subject, which no --seed changes" in note]
    assert bool(remedies) == (1 in [c["subjects"] for c in report["counts"].values()])
    for remedy in remedies:
        assert ("(two folds: train and test, no val)" in remedy) == ("--folds 2`" in remedy)
        mended = make_split(made, "b", by=how.get("by", "subject"), **options(made, remedy))
        assert min(c["subjects"] for c in mended["counts"].values()) >= 2
        for text in re.findall(r"or `--fractions ([^`]*)`", remedy):
            fractions = [float(v) for v in text.split()]
            mended = make_split(made, "c", by=how.get("by", "subject"), fractions=fractions)
            assert min(c["subjects"] for c in mended["counts"].values()) >= 2


def test_three_subjects_are_told_that_no_split_helps(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=3, windows_per_subject=1, n_channels=1, n_samples=20)
    (note,) = [n for n in make_split(made, "a")["notes"] if "1 subject" in n and "label" not in n]
    assert "add subjects" in note and "--folds" not in note


@pytest.mark.parametrize("rare", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("how", [{}, {"stratify": "v"}, {"folds": 5}])
def test_the_remedy_for_a_class_that_a_part_lacks_works(tmp_path: Path, rare: int, how: dict[str, Any]) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=20, windows_per_subject=1, n_channels=1, n_samples=20)
    (tmp_path / "l.csv").write_text("subject,v\n" + "".join(f"s{i:03d},{int(i < rare)}\n" for i in range(20)))
    add_labels(made, tmp_path / "l.csv", key="subject", name="v")

    def lacking(notes: list[str]) -> list[str]:
        return [n for n in notes if re.match(r"(part|fold) \w+: label .*'v' has", n)]

    for seed in range(6):
        notes = make_split(made, "a", seed=seed, overwrite=True, **how)["notes"]
        remedies = [n for n in notes if n.startswith("label 'v'")]
        assert bool(remedies) == bool(lacking(notes))
        for remedy in remedies:
            if rare == 1:
                assert "add subjects" in remedy
            else:
                assert not lacking(make_split(made, "b", seed=seed, overwrite=True, **options(made, remedy))["notes"]), remedy


def test_many_lacking_classes_are_cut_short(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=16, windows_per_subject=1, n_channels=1, n_samples=20)
    (tmp_path / "l.csv").write_text("subject,v\n" + "".join(f"s{i:03d},c{i // 2}\n" for i in range(16)))
    add_labels(made, tmp_path / "l.csv", key="subject", name="v")
    parts = np.array(["test"] + ["train"] * 14 + ["test"])
    (line,) = [n for n in poor_parts(made, parts, ["train", "test"]) if "'v'" in n]
    assert line.startswith("part test: ") and line.endswith("label 'v' has no window of c1, c2, c3, c4, c5 and 1 more")
