"""Single windows of a label are corrected: a new label that starts from the old one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import make_corpus

from biossl.cli import main
from biossl.corpus import Corpus, correct_labels
from biossl.corpus.label_windows import window_text
from biossl.errors import DataError, RequestError

HEAD = "record,start_s,label,decision,new_label\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("windows") / "c", n_subjects=4, windows_per_subject=3, n_channels=1)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_only_what_was_decided_changes_and_the_old_label_stays(corpus: Corpus, tmp_path: Path) -> None:
    old = corpus.labels("group").values.copy()
    csv = write(
        tmp_path / "a.csv",
        HEAD + "r000,0.0,slow,change,fast\nr000,2.0,slow,,fast\nr000,4.0,slow,,\nr001,0.0,fast,keep,\nr001,2.004,fast,unknown,\n"
        "r009,0.0,slow,change,fast\nr001,3.0,fast,change,slow\n",
    )
    shards = [(p, p.stat().st_mtime_ns) for p in corpus.path.glob("*.h5")]
    report = correct_labels(corpus, csv, name="checked", base="group")
    assert {k: report[k] for k in ("filled", "changed", "kept", "made_unknown", "unmatched")} == {
        "filled": 6, "changed": 2, "kept": 1, "made_unknown": 1, "unmatched": 2,
    }  # fmt: skip
    want = old.copy()
    want[[0, 1]], want[4] = 1, np.nan
    made = Corpus.open(corpus.path).labels("checked")
    np.testing.assert_array_equal(made.values, want)
    assert made.kind == "multiclass" and made.classes == ("slow", "fast")
    np.testing.assert_array_equal(corpus.labels("group").values, old)
    assert shards == [(p, p.stat().st_mtime_ns) for p in corpus.path.glob("*.h5")]


def test_several_classes_are_named_and_an_unknown_one_stays_unknown(tmp_path: Path) -> None:
    c = make_corpus(tmp_path / "c", n_subjects=4, windows_per_subject=1, n_channels=1)
    csv = write(tmp_path / "a.csv", HEAD + "r000,0,A,,A+B\nr001,0,B,,-\nr003,0,,,A\n")
    assert correct_labels(c, csv, name="checked", base="findings")["changed"] == 3
    made = c.labels("checked")
    np.testing.assert_array_equal(made.values, [[1, 1], [0, 0], [1, 1], [1, np.nan]])
    assert [window_text(made, i) for i in range(4)] == ["A+B", "-", "A+B", "A"]


def test_a_number_and_a_binary_label(tmp_path: Path) -> None:
    c = make_corpus(tmp_path / "c", n_subjects=2, windows_per_subject=2, n_channels=1)
    write(tmp_path / "y.csv", "record,ill\nr000,0\nr001,1\n")
    assert main(["label", str(c.path), str(tmp_path / "y.csv"), "--key", "record", "--name", "ill"]) == 0
    csv = write(tmp_path / "a.csv", "record,start_s,ill_2\nr001,2,0\n")  # a column named like the label, no decisions
    assert correct_labels(c, csv, name="ill_2", base="ill")["kind"] == "binary"
    np.testing.assert_array_equal(c.labels("ill_2").values[:, 0], [0, 0, 1, 0])
    correct_labels(c, write(tmp_path / "b.csv", HEAD + "r000,0,40,,41.5\n"), name="age_2", base="age")
    np.testing.assert_array_equal(c.labels("age_2").values[:, 0], [41.5, 40, 41, 41])


def test_a_private_corpus_takes_its_own_keys_and_the_hospitals_names(tmp_path: Path) -> None:
    c = make_corpus(tmp_path / "c", n_subjects=2, windows_per_subject=2, n_channels=1, public=False)
    key = c.index["record"][c.labels("group").values[:, 0] == 1].iloc[0]
    assert key not in ("r000", "r001")
    csv = write(tmp_path / "a.csv", HEAD + f"{key},0.0,fast,,slow\nr001,2.0,fast,,slow\n")
    assert correct_labels(c, csv, name="checked", base="group")["changed"] == 2
    assert (c.labels("checked").values == 0).all()
    with pytest.raises(DataError) as error:
        correct_labels(c, write(tmp_path / "b.csv", HEAD + "Miller,0,,,slow\n"), name="other", base="group")
    assert "Miller" not in str(error.value) and key not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("r000,0,slow,,fest\n", r"line 2: 'fest' is no class of label 'group'; did you mean 'fast'\?"),
        ("r000,0,slow,change,\n", "line 2: decision 'change' without a label"),
        ("r000,0,slow,maybe,fast\n", "line 2: decision 'maybe'; write keep, change, unknown"),
        ("r000,0,slow,keep,fast\n", "line 2: decision 'keep' beside another label"),
        ("r000,0,slow,unknown,fast\n", "line 2: decision 'unknown' beside a label"),
        ("r000,soon,slow,,fast\n", "line 2: start_s 'soon' is not a number"),
        ("r000,0,slow,,fast\nr000,0.001,slow,keep,\n", "lines 2 and 3 say different things"),
        ("r000,0,slow,,\n", "no row is filled"),
        ("7,0,slow,,fast\n", "none of its 1 filled rows is a window"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_taken_is_named_and_nothing_is_written(
    corpus: Corpus, tmp_path: Path, rows: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        correct_labels(corpus, write(tmp_path / "a.csv", HEAD + rows), name="never", base="group")
    assert "never" not in corpus.label_names()


def test_the_request_is_checked_before_anything_is_read(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = str(write(tmp_path / "a.csv", HEAD + "r000,0,slow,,fast\n"))
    for words, told in (
        (["--key", "window", "--name", "x"], "go together"),
        (["--key", "record", "--name", "x", "--base", "group"], "go together"),
        (["--key", "window", "--name", "x", "--base", "group", "--kind", "binary"], "leave out --nearest"),
        (["--key", "window", "--name", "group", "--base", "group"], "the card has a label of that name"),
    ):
        assert main(["label", str(corpus.path), csv, *words]) == 2
        assert re.search(told, capsys.readouterr().err)
    with pytest.raises(RequestError, match=r"no column 'start_s'"):
        correct_labels(corpus, write(tmp_path / "b.csv", "record,new_label\nr000,fast\n"), name="x", base="group")
    assert main(["label", str(corpus.path), csv, "--key", "window", "--name", "spoken", "--base", "group"]) == 0
    assert "1 rows filled: 1 windows changed" in capsys.readouterr().out
