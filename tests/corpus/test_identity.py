"""Identity: the leak guard finds every way in which somebody can be in two parts, and names that must not leave do not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import SyntheticLoader, make_corpus, synthetic_card, synthetic_tasks
from hypothesis import given
from hypothesis import strategies as st

from biossl.corpus import Corpus, add_split, guard_split, seen, subject_keys
from biossl.corpus.convert import convert_tasks
from biossl.corpus.identity import Pseudonyms, canonical_subject, day_number, looks_like_date, secret_is_private
from biossl.errors import DataError


def corpus_of(path: Path, subjects: list[str], numbers: list[int], folds: list[str], **facts: object) -> Corpus:
    """One record a subject; equal ``numbers`` are equal samples."""
    tasks = synthetic_tasks(len(subjects))
    tasks = [
        type(t)(**(vars(t) | {
            "subject": s, "groups": {"number": str(n)}, "covariates": {**t.covariates, "fold": f, "group": "slow"},
        }))
        for t, s, n, f in zip(tasks, subjects, numbers, folds, strict=True)
    ]  # fmt: skip
    card = synthetic_card(n_channels=1, **facts)
    convert_tasks(card, tasks, path, view="main", load=SyntheticLoader(2), n_jobs=1)
    return Corpus.open(path)


def test_a_good_split_passes(tmp_path: Path) -> None:
    guard_split([make_corpus(tmp_path / "c", n_channels=1)])


def test_a_subject_in_two_parts(tmp_path: Path) -> None:
    made = corpus_of(tmp_path / "c", ["a", "a", "b", "b"], [0, 1, 2, 3], ["train", "test", "train", "train"])
    with pytest.raises(DataError, match="1 subject is in more than one part \\(test and train\\).*biossl split") as caught:
        guard_split([made])
    assert caught.value.exit_code == 4


def test_one_person_under_two_names(tmp_path: Path) -> None:
    """MIT-BIH 201 and 202."""
    made = corpus_of(tmp_path / "c", ["201", "202"], [0, 1], ["train", "test"], same_person=[["201", "202"]])
    with pytest.raises(DataError, match="1 subject is"):
        guard_split([made])
    guard_split([corpus_of(tmp_path / "d", ["201", "202"], [0, 1], ["train", "test"])])


def test_spaces_and_unicode_forms_are_one_name(tmp_path: Path) -> None:
    made = corpus_of(tmp_path / "c", ["José", " Jose\u0301 "], [0, 1], ["train", "test"])
    with pytest.raises(DataError, match="1 subject is"):
        guard_split([made])


def test_the_same_samples_under_two_names(tmp_path: Path) -> None:
    made = corpus_of(tmp_path / "c", ["a", "b", "c"], [5, 5, 6], ["train", "test", "test"])
    assert any("identical samples: 2 windows" in f for f in made.findings)
    with pytest.raises(DataError, match="2 windows with identical samples"):
        guard_split([made])


def test_flat_windows_do_not_count_as_the_same(tmp_path: Path) -> None:
    class Flat(SyntheticLoader):
        def __call__(self, *args: object) -> tuple[object, str | None]:  # type: ignore[override]
            cut, start = super().__call__(*args)  # type: ignore[arg-type]
            cut.data[:] = 0
            cut.sha256 = [""] * len(cut.data)  # as `cut` marks them
            return cut, start

    convert_tasks(synthetic_card(n_channels=1), synthetic_tasks(), tmp_path / "c", view="main", load=Flat(2), n_jobs=1)
    made = Corpus.open(tmp_path / "c")
    guard_split([made])
    assert not any(k.startswith("w:") for k in subject_keys(made, range(len(made))))


def test_a_subject_in_train_of_one_corpus_and_test_of_another(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["a", "b"], [0, 1], ["train", "train"])
    two = corpus_of(tmp_path / "d", ["a", "c"], [2, 3], ["test", "test"])
    guard_split([one])
    guard_split([two])
    with pytest.raises(DataError, match="1 subject is"):
        guard_split([one, two])


def test_a_subject_in_train_of_one_split_and_test_of_another_corpus_split(tmp_path: Path) -> None:
    a = corpus_of(tmp_path / "a", ["x", "y"], [0, 1], ["train", "test"])
    b = corpus_of(tmp_path / "b", ["x", "z"], [2, 3], ["", ""], splits={})
    (tmp_path / "p.csv").write_text("subject,part\nx,test\nz,train\n")
    add_split(b, tmp_path / "p.csv", name="mine")
    with pytest.raises(DataError, match="split 'official', 'mine': 1 subject is in more than one part"):
        guard_split([a, b], ["official", "mine"])
    (tmp_path / "p.csv").write_text("subject,part\nx,train\nz,test\n")
    add_split(b, tmp_path / "p.csv", name="mine", overwrite=True)
    guard_split([a, b], ["official", "mine"])


def test_equal_names_in_two_data_sets_are_two_people(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["1"], [0], ["train"], name="x")
    two = corpus_of(tmp_path / "d", ["1"], [1], ["test"], name="y")
    guard_split([one, two])
    assert seen(two, [0], subject_keys(one, [0])) == 0


def test_cards_that_overlap(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["1"], [0], ["train"], name="ptbxl")
    two = corpus_of(tmp_path / "d", ["2"], [1], ["test"], name="cinc", overlaps=["ptbxl"])
    with pytest.raises(DataError, match="cards 'cinc' and 'ptbxl' share recordings"):
        guard_split([one, two])
    same_part = corpus_of(tmp_path / "e", ["2"], [1], ["train"], name="cinc", overlaps=["ptbxl"])
    guard_split([one, same_part])


def test_an_encoder_remembers_whom_it_saw(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_channels=1)
    keys = subject_keys(made, range(0, 20))  # subjects 0, 1 and half of 2
    assert not any("s00" in k for k in keys)
    assert seen(made, range(48), keys) == 3
    assert seen(made, range(24, 48), keys) == 0
    assert seen(made, range(20, 24), keys) == 1, "other windows of a subject that was seen"
    assert seen(make_corpus(tmp_path / "d", n_channels=1), range(48), sorted(keys)) == 3


def test_an_encoder_remembers_windows_under_other_names(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["a", "b"], [5, 6], ["train", "train"], name="x")
    two = corpus_of(tmp_path / "d", ["p", "q"], [5, 7], ["test", "test"], name="y")
    assert seen(two, range(4), subject_keys(one, range(4))) == 1


def test_what_cannot_be_told_apart_counts_as_seen(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["1"], [0], ["train"], name="ptbxl")
    two = corpus_of(tmp_path / "d", ["2", "3"], [1, 2], ["test", "test"], name="cinc", overlaps=["ptbxl"])
    assert seen(two, range(4), subject_keys(one, [0])) == 2
    assert seen(one, range(2), subject_keys(two, [0])) == 1, "whichever card says so"
    told = {"overlaps": ["ptbxl"], "overlap_where": {"ptbxl": {"fold": ["val"]}}}
    some = corpus_of(tmp_path / "g", ["2", "3"], [1, 2], ["test", "val"], name="cinc", **told)
    assert seen(some, range(4), subject_keys(one, [0])) == 1, "those alone that the card says are shared"
    other = corpus_of(tmp_path / "h", ["9"], [9], ["train"], name="other", overlaps=["cinc"])
    assert seen(some, range(4), subject_keys(other, [0])) == 2, "another card says all may be"
    both = subject_keys(one, [0]) | subject_keys(other, [0])
    assert seen(some, range(4), both) == 2, "also of an encoder that a card with a known overlap was trained with"
    some.index["fold"] = ["val", "val", "", ""]
    assert seen(some, range(4), subject_keys(one, [0])) == 2, "a recording of which it is not known may be shared"
    a = make_corpus(tmp_path / "e", n_channels=1, n_subjects=6, public=False)
    b = make_corpus(tmp_path / "f", n_channels=1, n_subjects=6, public=False, seed=1)  # another secret
    assert seen(b, range(48), subject_keys(a, range(8))) == 6
    with pytest.raises(DataError, match="different secrets.*secret.key"):
        guard_split([a, b])


def test_two_views_of_a_private_set_under_one_secret_are_compared(tmp_path: Path) -> None:
    a = make_corpus(tmp_path / "a", n_channels=1, n_subjects=2, public=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "secret.key").write_bytes((tmp_path / "a" / "secret.key").read_bytes())
    b = make_corpus(tmp_path / "b", n_channels=1, n_subjects=3, public=False, seed=1)
    guard_split([a, b])
    assert seen(b, range(24), subject_keys(a, range(16))) == 2


# ---------------------------------------------------------------------- keys and days


@pytest.mark.skipif(os.name == "nt", reason="no permission bits")
def test_the_secret_is_the_owners_alone_and_never_committed(tmp_path: Path) -> None:
    names = Pseudonyms.make(tmp_path)
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600 and secret_is_private(tmp_path)
    assert "*" in (tmp_path / ".gitignore").read_text().split()
    assert Pseudonyms.make(tmp_path) == names and len(names.secret or b"") == 32


def test_keys_differ_by_secret_kind_and_name(tmp_path: Path) -> None:
    card = synthetic_card(same_person=[["a", "b"]])
    one, two = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    keys = [one.subject("a", card), two.subject("a", card), one.record("a", card), one.subject("c", card)]
    assert len(set(keys)) == 4 and one.subject("b", card) == keys[0] == one.subject(" a", card)
    assert Pseudonyms(None).subject("b", card) == "a" == canonical_subject("b", card)


@given(st.floats(-30000, 30000), st.floats(-30000, 30000), st.text(max_size=5))
def test_days_keep_their_order_and_distance_within_a_patient(a: float, b: float, key: str) -> None:
    names = Pseudonyms(b"s" * 32)
    assert names.day(a, key) - names.day(b, key) == np.floor(a) - np.floor(b)
    assert names.day(a, key) <= a


def test_patients_are_shifted_differently() -> None:
    names = Pseudonyms(b"s" * 32)
    assert len({names.day(0, str(i)) for i in range(50)}) > 45


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("1970-01-01", 0.0), ("1970-01-02T12:00:00", 1.5), ("1970-01-02 12:00:00.250", 1.5), ("2020-03-01T00:00:00+01:00", 18322.0),
        ("20200301", 18322.0), ("1.3.2020", 18322.0), ("03/01/2020", None), ("2020-13-01", None), ("sinus", None), ("", None),
    ],
)  # fmt: skip
def test_dates(text: str, day: float | None) -> None:
    assert day_number(text) == day


@pytest.mark.parametrize("text", ["03/01/2020", "1-2-85", "born 03.04.1956", "12 Mar 1999", "2020-01-01"])
def test_anything_like_a_date_is_noticed(text: str) -> None:
    assert looks_like_date(text)


@pytest.mark.parametrize("text", ["", "57", "sinus rhythm", "0.5", "I-II-III", "426783006,111975006"])
def test_what_is_no_date(text: str) -> None:
    assert not looks_like_date(text)


def test_a_subject_is_known_again_in_another_view_of_a_renamed_card(tmp_path: Path) -> None:
    """Other windows, another name of the card: the recordings show that it is one data set."""
    trained = corpus_of(tmp_path / "c", ["a", "b", "c"], [0, 1, 2], ["train"] * 3, name="mine")
    keys = subject_keys(trained, range(0, 2))  # subject a alone
    again = corpus_of(tmp_path / "d", ["a", "b", "a"], [0, 1, 7], ["test"] * 3, name="ours", n_samples=100)
    assert not set(trained.index["sha256"]) & set(again.index["sha256"])
    assert seen(again, range(6), keys) == 1
    assert seen(again, range(2, 4), keys) == 0, "of one data set, but not trained on"
    assert seen(again, range(4, 6), keys) == 1, "another recording of a subject it was trained on"
    stranger = corpus_of(tmp_path / "e", ["a", "b"], [8, 9], ["test"] * 2, name="theirs", n_samples=100)
    assert seen(stranger, range(4), keys) == 0, "an equal name in another data set is another person"


def test_two_names_of_one_data_set_are_guarded_as_one(tmp_path: Path) -> None:
    one = corpus_of(tmp_path / "c", ["a", "b"], [0, 1], ["train", "train"], name="mine")
    two = corpus_of(tmp_path / "d", ["b", "a"], [1, 5], ["train", "test"], name="ours", n_samples=100)
    with pytest.raises(DataError, match="1 subject is in more than one part"):
        guard_split([one, two])
    named = corpus_of(tmp_path / "e", ["p", "q"], [5, 1], ["train", "test"], name="theirs", n_samples=100)
    with pytest.raises(DataError, match="1 recordings with identical samples"):
        guard_split([one, named])


def test_a_corpus_from_before_recordings_were_hashed_is_still_guarded_by_name(tmp_path: Path) -> None:
    made = corpus_of(tmp_path / "c", ["a", "b"], [0, 1], ["train", "test"])
    made.index.drop(columns="record_sha256", inplace=True)
    keys = subject_keys(made, range(2))
    assert not any(k.startswith("r:") for k in keys)
    assert seen(made, range(4), keys) == 1
    guard_split([made])
