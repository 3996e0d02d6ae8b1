"""Splits: by subject always, the same for the same seed, and refused when somebody would be in two parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus_factory import SyntheticLoader, make_corpus, synthetic_card, synthetic_tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.corpus import Corpus, add_split, make_split
from biossl.corpus.card import Split
from biossl.corpus.convert import convert_tasks
from biossl.corpus.dealing import dealt as deal
from biossl.corpus.dealing import sizes
from biossl.corpus.splits import default_split, load_split, n_folds, with_fold
from biossl.errors import DataError, RequestError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpora") / "c", n_subjects=40, windows_per_subject=2, n_channels=1, n_samples=20)


def by_subject(corpus: Corpus, part: pd.Series) -> pd.Series:
    parts = part.groupby(corpus.index["subject"]).unique()
    assert (parts.map(len) == 1).all(), "a subject in two parts"
    return parts.map(lambda p: p[0])


@settings(max_examples=200, deadline=None)
@given(n=st.integers(3, 200), shares=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5, 0.0), (0.98, 0.01, 0.01), (0.2,) * 5]))
def test_sizes_add_up_and_every_stretch_is_shared_out(n: int, shares: tuple[float, ...]) -> None:
    if n < sum(s > 0 for s in shares):
        return
    size = sizes(n, list(shares))
    dealt = np.array(deal(n, list(shares)))
    assert sum(size) == n and [int((dealt == k).sum()) for k in range(len(shares))] == size
    assert all((s > 0) == (z > 0) for s, z in zip(shares, size, strict=True))
    for k in range(len(shares)):  # the first m positions hold m * share of part k, give or take two
        running = np.cumsum(dealt == k) - np.arange(1, n + 1) * size[k] / n
        assert np.abs(running).max() <= 2


def test_fractions_of_subjects(corpus: Corpus) -> None:
    report = make_split(corpus, "a", seed=3)
    assert {k: v["subjects"] for k, v in report["counts"].items()} == {"train": 28, "val": 6, "test": 6}
    part = by_subject(corpus, corpus.split("a"))
    assert part.value_counts().to_dict() == {"train": 28, "val": 6, "test": 6}
    assert corpus.split("a").index.equals(corpus.index.index)


def test_the_seed_decides(corpus: Corpus) -> None:
    one, same, other = (make_split(corpus, f"s{i}", seed=s)["hash"] for i, s in enumerate((5, 5, 6)))
    assert one == same != other


def test_strata_are_spread(corpus: Corpus) -> None:
    make_split(corpus, "st", stratify="group", fractions=(0.5, 0.25, 0.25))
    group = corpus.index.drop_duplicates("subject").set_index("subject")["group"]
    table = pd.crosstab(by_subject(corpus, corpus.split("st")), group)
    assert table.to_numpy().max() - 5 <= 5 and (abs(table["slow"] - table["fast"]) <= 1).all()
    make_split(corpus, "st2", stratify="findings", folds=4)
    assert n_folds(corpus, "st2") == 4
    with pytest.raises(RequestError, match="a number cannot be spread"):
        make_split(corpus, "st3", stratify="age")


def test_folds_take_turns(corpus: Corpus) -> None:
    make_split(corpus, "cv", folds=4)
    tests = []
    for fold in range(4):
        part = by_subject(corpus, load_split(corpus, "cv", fold))
        assert part.value_counts().to_dict() == {"train": 20, "val": 10, "test": 10}
        tests.append(set(part.index[part == "test"]))
        assert corpus.split(f"cv:{fold}").equals(load_split(corpus, "cv", fold))
    assert len(set().union(*tests)) == 40
    for text in ("cv:4", "cv:x"):
        with pytest.raises(RequestError):
            corpus.split(text)


def test_as_many_folds_as_subjects_leave_one_subject_out(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=5, windows_per_subject=2)
    make_split(made, "loso", folds=5)
    left = []
    for fold in range(5):
        part = by_subject(made, made.split(f"loso:{fold}"))
        assert sorted(part) == ["test", "train", "train", "train", "val"]
        left += part.index[part == "test"].tolist()
    assert sorted(left) == sorted(set(made.index["subject"]))


def test_folds_over_time_are_blocks_of_consecutive_days(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=8, windows_per_subject=2)
    make_split(made, "late", by="time", folds=4)
    first = made.index.groupby("subject")["day"].min()
    edges = []
    for fold in range(4):
        part = by_subject(made, made.split(f"late:{fold}"))
        days = first[part.index[part == "test"]]
        assert len(days) == 2
        edges.append((days.min(), days.max()))
    assert all(a[1] < b[0] for a, b in zip(edges, edges[1:], strict=False))


def test_time_puts_the_latest_in_test(corpus: Corpus) -> None:
    make_split(corpus, "t", by="time")
    first = corpus.index.groupby("subject")["day"].min()
    part = by_subject(corpus, corpus.split("t"))
    assert first[part == "train"].max() <= first[part == "val"].min() <= first[part == "test"].min()


def test_site_makes_a_fold_a_site(corpus: Corpus) -> None:
    report = make_split(corpus, "site", by="site")
    assert report["notes"][:2] == ["fold 0: site a", "fold 1: site b"]
    part = corpus.split("site:1")
    assert set(corpus.index["site"][part == "test"]) == {"b"} and set(corpus.index["site"][part == "train"]) == {"a"}


def test_official_is_the_cards(corpus: Corpus) -> None:
    assert corpus.split().tolist() == corpus.index["split"].tolist() == corpus.index["fold"].tolist()
    assert corpus.split_names()[0] == "official"


def test_no_split_and_wrong_name(tmp_path: Path, corpus: Corpus) -> None:
    bare = make_corpus(tmp_path / "c", n_subjects=2, n_channels=1, splits={})
    with pytest.raises(DataError, match="no split 'official'; it has none; make one with `biossl split"):
        bare.split()
    make_split(corpus, "mine")
    with pytest.raises(DataError, match="did you mean 'mine'"):
        corpus.split("mina")
    for name in ("official", "../x", ""):
        with pytest.raises(RequestError):
            make_split(corpus, name)
    with pytest.raises(RequestError, match="--overwrite"):
        make_split(corpus, "mine")
    make_split(corpus, "mine", overwrite=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fractions": (0.5, 0.5, 0.5)}, {"fractions": (1.2, -0.1, -0.1)}, {"folds": 1}, {"folds": 41}, {"by": "site", "folds": 2},
        {"by": "time", "stratify": "group"}, {"stratify": "grup"},
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(corpus: Corpus, wrong: dict) -> None:
    with pytest.raises((RequestError, DataError)):
        make_split(corpus, "wrong", **wrong)
    assert "wrong" not in corpus.split_names()


def test_too_few_subjects(tmp_path: Path) -> None:
    two = make_corpus(tmp_path / "c", n_subjects=2, n_channels=1)
    with pytest.raises(DataError, match="2 subjects cannot fill 3 parts"):
        make_split(two, "a")


def test_a_split_changed_by_hand_is_refused(corpus: Corpus) -> None:
    make_split(corpus, "hand")
    file = corpus.path / "splits" / "hand.parquet"
    frame, meta = pd.read_parquet(file), __import__("pyarrow.parquet").parquet.read_schema(file).metadata
    frame.loc[0, "part"] = "test" if frame.loc[0, "part"] != "test" else "train"
    from biossl.atomic import write_parquet

    write_parquet(file, frame, {k.decode(): v.decode() for k, v in meta.items()})
    with pytest.raises(DataError, match="hand.parquet: its content differs from its hash"):
        corpus.split("hand")


def test_a_table_made_elsewhere(corpus: Corpus, tmp_path: Path) -> None:
    csv = tmp_path / "s.csv"
    csv.write_text("subject,part\n" + "".join(f"s{i:03d},{'train' if i < 30 else 'test'}\n" for i in range(39)) + "zz,train\n")
    report = add_split(corpus, csv, name="theirs")
    assert (report["matched"], report["unmatched"]) == (39, 1)
    assert by_subject(corpus, corpus.split("theirs")).value_counts().to_dict() == {"train": 30, "test": 9, "": 1}
    csv.write_text("record,part\nr000,train\nr001,test\n")
    add_split(corpus, csv, name="theirs2", key="record")
    assert (corpus.split("theirs2") != "").sum() == 4


def test_a_table_that_shares_subjects_is_refused_with_their_number(tmp_path: Path) -> None:
    tasks = synthetic_tasks(6)
    tasks = [type(t)(**(vars(t) | {"subject": f"s{i // 2}"})) for i, t in enumerate(tasks)]  # two records each
    card = synthetic_card(n_channels=1, same_person=[["s0", "s9"]])
    convert_tasks(card, tasks, tmp_path / "c", view="main", load=SyntheticLoader(), n_jobs=1)
    made = Corpus.open(tmp_path / "c")
    csv = tmp_path / "s.csv"
    csv.write_text("record,part\nr000,train\nr001,test\nr002,train\nr003,train\nr004,train\nr005,val\n")
    with pytest.raises(DataError, match="2 of 3 subjects are in more than one part") as caught:
        add_split(made, csv, name="x", key="record")
    assert caught.value.exit_code == 4 and made.split_names() == ["official"]
    csv.write_text("subject,part\ns0,train\ns9,test\ns1,train\n")  # one person under two names
    with pytest.raises(DataError, match="1 of 2 subjects"):
        add_split(made, csv, name="x")
    csv.write_text("subject,part\ns0,learn\n")
    with pytest.raises(RequestError, match="part 'learn' is not known"):
        add_split(made, csv, name="x")


def test_the_default_is_official_else_the_only_one_else_refused(tmp_path: Path, corpus: Corpus) -> None:
    assert default_split(corpus) == ("official", "")
    bare = make_corpus(tmp_path / "c", n_subjects=6, n_channels=1, windows_per_subject=1, splits={})
    assert default_split(bare) == (None, "")
    make_split(bare, "mine")
    assert default_split(bare) == ("mine", "c: split 'mine' is used, the only one")
    make_split(bare, "cv", folds=3)
    with pytest.raises(RequestError, match=r"several splits \(cv, mine\) and none is official; choose one with --splits NAME"):
        default_split(bare)
    (bare.path / "splits" / "mine.parquet").unlink()
    assert default_split(bare) == ("cv", "c: split 'cv' is used, the only one")
    assert with_fold(bare, "cv") == ("cv:0", "split cv: fold 0 of 3; --splits cv:1 is another")


def test_official_parts_by_subject_know_aliases(tmp_path: Path) -> None:
    split = Split("subject", {"train": ["s001", "s00X"], "test": ["s002"]})
    made = make_corpus(
        tmp_path / "c", n_subjects=4, n_channels=1, splits={"paper": split}, same_person=[["s003", "s00X"]], windows_per_subject=1
    )  # fmt: skip
    assert made.split().tolist() == ["", "train", "test", "train"]
    assert made.split_names() == ["official", "paper"] and made.split("paper").tolist() == made.split().tolist()
