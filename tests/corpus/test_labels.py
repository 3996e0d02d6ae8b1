"""Labels: derived at load, joined by text ids, and never negative because something is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus_factory import SyntheticLoader, make_corpus, synthetic_card, synthetic_tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.cli import main
from biossl.corpus import Corpus, add_labels, add_split
from biossl.corpus.card import Label
from biossl.corpus.convert import convert_tasks
from biossl.corpus.labels import _from_text
from biossl.errors import DataError, RequestError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpora") / "c", n_channels=2)


def column(corpus: Corpus, name: str) -> dict[str, list[float]]:
    """Values of the first window of each record."""
    first = ~corpus.index["record"].duplicated().to_numpy()
    values = corpus.labels(name).values[first]
    return dict(zip(corpus.index["record"][first], values.tolist(), strict=True))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------- from the card


def test_shapes_and_kinds(corpus: Corpus) -> None:
    for name, kind, width in (("group", "multiclass", 1), ("findings", "multilabel", 2), ("age", "regression", 1)):
        labels = corpus.labels(name)
        assert labels.kind == kind and labels.values.shape == (48, width) and labels.values.dtype == np.float32
    assert corpus.labels("group").classes == ("slow", "fast") and corpus.labels("age").classes == ()
    assert corpus.label_names() == ["group", "findings", "age", "state"]


def test_a_record_with_codes_is_negative_for_the_others_and_one_without_is_unknown(corpus: Corpus) -> None:
    got = column(corpus, "findings")
    assert got["r000"] == [1, 0] and got["r001"] == [0, 1] and got["r002"] == [1, 1]
    assert np.isnan(got["r003"]).all()
    assert corpus.labels("findings").known.sum() == 40
    assert corpus.labels("findings").counts() == {"A": 24, "B": 24}


def test_the_last_seconds_of_each_recording(tmp_path: Path) -> None:
    """Eight windows of 2 s: those in the last 5 s are two; padding at the end is not counted back from."""
    made = make_corpus(tmp_path / "c", n_channels=1)
    made.card.labels["late"] = replace(made.card.labels["group"], last_s=5)
    whole = made.labels("group").values[:, 0]
    start = made.index["start_s"].to_numpy()
    values = made.labels("late").values[:, 0]
    assert set(start[~np.isnan(values)]) == {12.0, 14.0} and (values[start >= 12] == whole[start >= 12]).all()
    padded = (made.index["record"] == "r001") & (start >= 14)
    lost = made.index["record"] == "r002"
    made.index = made.index.assign(sha256=made.index["sha256"].mask(padded | lost, ""))
    known = ~np.isnan(made.labels("late").values[:, 0])
    assert set(start[known & (made.index["record"] == "r001")]) == {10.0, 12.0}
    assert not known[lost].any() and known.sum() == 10


@pytest.mark.parametrize(
    ("cell", "threshold", "expected"),
    [
        ("{'NORM': 100.0, 'SR': 0.0}", 0, [1, 0]),
        ("{'IMI': 35.0, 'NORM': 80.0}", 50, [1, np.nan]),  # mentioned but doubtful: neither yes nor no
        ("{'SR': 0.0}", 0, [np.nan, np.nan]),  # nothing is said about these classes
        ("{}", 0, [np.nan, np.nan]),
        ("", 0, [np.nan, np.nan]),
        ("{'IMI': 0.0}", 0, [0, 1]),
    ],
)  # fmt: skip
def test_scp_codes_with_likelihoods(cell: str, threshold: float, expected: list[float]) -> None:
    label = Label(
        "multilabel", "covariate", {"NORM": ["NORM"], "MI": ["IMI", "AMI"]}, column="c", parse="scp", threshold=threshold
    )
    np.testing.assert_array_equal(_from_text("x", label, [cell]).values, [np.float32(expected)])


def test_scp_text_is_never_run() -> None:
    label = Label("multilabel", "covariate", {"A": ["A"]}, parse="scp")
    with pytest.raises(DataError, match="not a dictionary"):
        _from_text("x", label, ["__import__('os').system('true')"])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("m", 0), ("F", np.nan), ("f", 1), ("", np.nan), (None, np.nan), (float("nan"), np.nan), ("other", np.nan)],
)
def test_a_value_in_no_list_is_unknown(cell: object, expected: float) -> None:
    label = Label("multiclass", "covariate", {"male": ["m"], "female": ["f"]})
    np.testing.assert_array_equal(_from_text("x", label, [cell]).values, [[np.float32(expected)]])


def test_two_classes_at_once_are_no_class() -> None:
    label = Label("multiclass", "covariate", {"a": ["a"], "b": ["b"]}, parse="codes")
    assert np.isnan(_from_text("x", label, ["a,b"]).values).all()


def test_numbers(corpus: Corpus) -> None:
    assert column(corpus, "age") == {f"r{i:03d}": [40.0 + i] for i in range(6)}
    values = _from_text("x", Label("regression", "covariate"), ["1.5", "", "about 3", None]).values[:, 0]
    np.testing.assert_array_equal(values, np.float32([1.5, np.nan, np.nan, np.nan]))


@pytest.mark.parametrize("cover", [0.5, 0.8])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 12), window=st.floats(0.5, 3.0))
def test_overlap_agrees_with_a_count_of_milliseconds(cover: float, seed: int, n: int, window: float) -> None:
    """Slow and obviously right: which label lies under more than that share of the window's milliseconds."""
    from biossl.corpus.labels import _from_overlap

    rng = np.random.default_rng(seed)
    onset = np.sort(rng.integers(0, 20_000, n)) / 1000
    gap = np.diff(np.append(onset, 20.0))
    duration = np.floor(gap * rng.uniform(0, 1, n) * 1000) / 1000
    names = rng.choice(["a", "b", "c"], n)  # c is in no class
    start = np.arange(0, 20 - window, 0.7)

    class Fake:
        events = pd.DataFrame(
            {"record": ["r"] * n, "onset_s": onset, "duration_s": duration, "label": names, "kind": ["k"] * n}
        )  # fmt: skip
        index = pd.DataFrame({"record": ["r"] * len(start), "start_s": start})
        spec = type("S", (), {"window_s": window})

    label = Label("multiclass", "overlap", {"A": ["a"], "B": ["b"]}, event_kind="k", cover=cover)
    got = _from_overlap(Fake(), "x", label).values[:, 0]  # type: ignore[arg-type]
    for k, s in enumerate(start):
        t = s + (np.arange(2000) + 0.5) * window / 2000
        share = [
            np.mean(sum((t >= o) & (t < o + d) for o, d, m in zip(onset, duration, names, strict=True) if m == c) > 0)
            for c in "ab"
        ]
        if min(abs(x - cover) for x in share) < 2e-3:
            continue  # too near for a count
        expected = np.nan if max(share) < cover else float(np.argmax(share))
        np.testing.assert_equal(float(got[k]), expected)


def test_overlap_of_a_corpus(corpus: Corpus) -> None:
    assert corpus.labels("state").values[:8, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


class EventLoader(SyntheticLoader):
    def __call__(self, card: object, view: str, task: object) -> tuple[object, str | None]:  # type: ignore[override]
        cut, start = super().__call__(card, view, task)  # type: ignore[arg-type]
        cut.event = np.array([0, 1] * 4)
        return cut, start


def test_the_windows_own_event(tmp_path: Path) -> None:
    labels = {"own": Label("multiclass", "event", {"work": ["work"]}, event_kind="state")}
    card = synthetic_card(n_channels=2, labels=labels)
    card.views["main"].policy, card.views["main"].event_kind = "inside_labels", "state"
    convert_tasks(card, synthetic_tasks(1), tmp_path / "c", view="main", load=EventLoader(), n_jobs=1)
    made = Corpus.open(tmp_path / "c")
    assert made.index["event"].tolist() == ["rest", "work"] * 4
    np.testing.assert_array_equal(made.labels("own").values[:, 0], np.float32([np.nan, 0] * 4))


def test_an_event_label_needs_a_view_cut_at_events(tmp_path: Path) -> None:
    made = make_corpus(
        tmp_path / "c", n_subjects=1, n_channels=2, labels=False
    )  # fmt: skip
    made.card.labels["own"] = Label("multiclass", "event", {"a": ["a"]}, event_kind="beat")
    with pytest.raises(DataError, match="view 'main' is not cut so"):
        made.labels("own")


def test_a_label_that_does_not_exist_names_the_nearest(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no label 'grup'; did you mean 'group'") as caught:
        corpus.labels("grup")
    assert caught.value.exit_code == 4
    with pytest.raises(DataError, match="no label"):
        corpus.labels("../../etc/passwd")


# ---------------------------------------------------------------------- from a CSV


def test_join_by_record_reports_what_matched(corpus: Corpus, tmp_path: Path) -> None:
    csv = write(tmp_path / "l.csv", "record,ef\nr000,1\nr001,0\nr002,\nr999,1\n")
    report = add_labels(corpus, csv, key="record", name="by_record")
    assert {k: report[k] for k in ("kind", "classes", "ids", "matched", "unmatched", "records_without", "windows")} == {
        "kind": "binary", "classes": ["0", "1"], "ids": 3, "matched": 2, "unmatched": 1, "records_without": 4, "windows": 16,
    }  # fmt: skip
    got = column(corpus, "by_record")
    assert got["r000"] == [1] and got["r001"] == [0] and np.isnan(got["r002"] + got["r003"]).all()
    assert "by_record" in Corpus.open(corpus.path).label_names()


def test_join_by_subject_never_touches_the_shards(corpus: Corpus, tmp_path: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in corpus.path.glob("*.*")}
    add_labels(corpus, write(tmp_path / "l.csv", "subject;value\ns001;3,5\n"), key="subject", name="codes", kind="multilabel")
    assert {p.name: p.stat().st_mtime_ns for p in corpus.path.glob("*.*")} == before
    assert corpus.labels("codes").classes == ("3", "5")
    np.testing.assert_array_equal(corpus.labels("codes").values[8:16], np.ones((8, 2)))


def test_many_numbers_are_a_regression(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=12, windows_per_subject=1, n_channels=1)
    csv = write(tmp_path / "l.csv", "record,v\n" + "".join(f"r{i:03d},{i / 7}\n" for i in range(12)))
    assert add_labels(made, csv, key="record", name="v")["kind"] == "regression"
    np.testing.assert_allclose(made.labels("v").values[:, 0], np.arange(12) / 7, rtol=1e-6)


def test_ids_are_text(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'007' is not '7'"):
        add_labels(corpus, write(tmp_path / "l.csv", "record,v\n0,1\n1,0\n"), key="record", name="v")


def test_two_values_for_one_id_are_refused_and_twice_the_same_is_not(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 record ids have two different values \(lines 2 and 3\); .*choose by date"):
        add_labels(corpus, write(tmp_path / "l.csv", "record,v\nr000,1\nr000,0\n"), key="record", name="v")
    assert (
        add_labels(corpus, write(tmp_path / "l.csv", "record,v\nr000,1\nr000,1\nr001,0\n"), key="record", name="twice")["matched"]
        == 2
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,v\nr000,1\n", "no column 'record'; it has id, v"),
        ("record,a,b\nr000,1,2\n", "no column 'v'"),
        ("record,v\n", "no rows"),
        ("record,v\nr000,1,2\n", "line 2: more cells"),
        ("", "no column 'record'"),
    ],
)
def test_a_table_that_cannot_be_used(corpus: Corpus, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        add_labels(corpus, write(tmp_path / "l.csv", text), key="record", name="v")
    assert "l.csv" in str(caught.value)


def test_names_that_are_taken_or_not_names(corpus: Corpus, tmp_path: Path) -> None:
    csv = write(tmp_path / "l.csv", "record,v\nr000,1\nr001,0\n")
    with pytest.raises(RequestError, match="the card has a label"):
        add_labels(corpus, csv, key="record", name="group")
    with pytest.raises(RequestError, match="letters, digits"):
        add_labels(corpus, csv, key="record", name="../x")
    add_labels(corpus, csv, key="record", name="mine")
    with pytest.raises(RequestError, match="--overwrite"):
        add_labels(corpus, csv, key="record", name="mine")
    add_labels(corpus, csv, key="record", name="mine", overwrite=True)
    with pytest.raises(RequestError, match="no such file"):
        add_labels(corpus, tmp_path / "none.csv", key="record", name="w")


def test_a_word_is_no_number(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="l.csv line 3: 'high' is not a number"):
        add_labels(corpus, write(tmp_path / "l.csv", "record,v\nr000,1\nr001,high\n"), key="record", name="v", kind="regression")


def test_nearest_date_within(corpus: Corpus, tmp_path: Path) -> None:
    """Recording of subject i is on 2020-01-(i + 1)."""
    csv = write(
        tmp_path / "l.csv",
        "subject,date,ef\n"
        "s000,2019-12-20,60\ns000,2020-01-03,30\n"  # 12 and 2 days: the second
        "s001,2020-03-01,55\n"  # too far
        "s002,2020-01-02,40\ns002,2020-01-04,45\n"  # a day before, a day after: unknown
        "s003,4.1.2020,50\n"  # the same day, written otherwise
        "s004,,20\n",
    )
    with pytest.raises(DataError, match="line 8: '' is not a date"):
        add_labels(corpus, csv, key="subject", name="ef", nearest="date", within="30d", kind="regression")
    write(csv, csv.read_text().replace("s004,,20\n", "s004,2020-01-05 10:00,\n"))
    report = add_labels(corpus, csv, key="subject", name="ef", nearest="date", within="30d", kind="regression")
    assert (report["records_labelled"], report["records_too_far"], report["records_tied"]) == (2, 1, 1)
    got = column(corpus, "ef")
    assert got["r000"] == [30] and got["r003"] == [50]
    assert np.isnan(got["r001"] + got["r002"] + got["r004"] + got["r005"]).all()


def test_dates_in_a_doubtful_order_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    csv = write(tmp_path / "l.csv", "subject,date,v\ns000,03/01/2020,1\n")
    with pytest.raises(DataError, match="03/01/2020' is not a date; write dates as YYYY-MM-DD"):
        add_labels(corpus, csv, key="subject", name="d", nearest="date")
    with pytest.raises(RequestError, match="--within 'soon'"):
        add_labels(corpus, csv, key="subject", name="d", nearest="date", within="soon")
    with pytest.raises(RequestError, match="--within needs --nearest"):
        add_labels(corpus, csv, key="subject", name="d", within="3d")


def test_labels_of_a_private_corpus_are_joined_by_the_sites_own_ids(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=3, n_channels=1, public=False)
    csv = write(tmp_path / "l.csv", "subject,date,v\ns000,2020-01-02,1\ns001,2020-02-02,0\ns002,2020-06-01,1\n")
    report = add_labels(made, csv, key="subject", name="v", nearest="date", within="40d")
    assert report["records_labelled"] == 2 and report["records_too_far"] == 1
    assert (
        not pd.read_parquet(made.path / "labels" / "v.parquet")
        .astype(str)
        .apply(lambda c: c.str.contains("[rs]00"))
        .any(axis=None)
    )
    assert made.labels("v").counts() == {"0": 8, "1": 8}
    (made.path / "secret.key").unlink()
    with pytest.raises(RequestError, match="secret.key"):
        add_labels(made, csv, key="subject", name="w", nearest="date")


# ---------------------------------------------------------------------- kinds, and what can be no label


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["0", "1", "1"], "binary", ["0", "1"]),
        (["0.0", "1.0", "1"], "binary", ["0", "1"]),  # as a table with empty cells is exported
        (["1", "2", "2"], "multiclass", ["1", "2"]),  # nothing says which of the two is looked for
        (["0", "1", "2"], "multiclass", ["0", "1", "2"]),
        (["no", "yes", "no"], "multiclass", ["no", "yes"]),
        (["inf", "ant", "ant"], "multiclass", ["inf", "ant"]),  # a word, here: inferior and anterior
    ],
)
def test_the_kind_follows_from_the_values(
    corpus: Corpus, tmp_path: Path, values: list[str], kind: str, classes: list[str]
) -> None:
    csv = write(tmp_path / "l.csv", "record,v\n" + "".join(f"r{i:03d},{v}\n" for i, v in enumerate(values)))
    report = add_labels(corpus, csv, key="record", name="kind", overwrite=True)
    labels = corpus.labels("kind")
    assert (report["kind"], report["classes"]) == (labels.kind, list(labels.classes)) == (kind, classes)
    found = [classes[int(v[0])] for v in list(column(corpus, "kind").values())[:3]]
    assert found == [v.removesuffix(".0") for v in values] and sum(report["counts"].values()) == 24


@pytest.mark.parametrize("word", ["inf", "-inf", "Infinity", "1e999"])
def test_an_infinite_number_is_refused_with_its_line(corpus: Corpus, tmp_path: Path, word: str) -> None:
    csv = write(tmp_path / "l.csv", f"record,v\nr000,1\n\nr001,{word}\nr002,0\n")
    for kind in (None, "regression"):
        with pytest.raises(DataError, match=f"l.csv line 4: '{word}' is not a finite number; leave the cell empty"):
            add_labels(corpus, csv, key="record", name="v", kind=kind)  # type: ignore[arg-type]
    assert "v" not in corpus.label_names()


def test_an_infinite_covariate_names_its_record(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=2, n_channels=1, windows_per_subject=1)
    made.index["age"] = ["40", "inf"]
    with pytest.raises(DataError, match="label 'age' is inf in record r001; say what that means in the card"):
        made.labels("age")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("r000,1\nr001,1\n", None, "every record that matches has '1' in column 'v', and two values are needed; add rows"),
        ("r000,1\nr001,1\nr999,0\n", None, "its other values are of records that are not in the corpus: check their ids"),
        ("r000,61.5\nr001,61.5\n", "regression", "has '61.5'"),
        ("r000,a\nr001,a\n", "multilabel", "has 'a'"),
        ("r000,2\nr001,0\n", "binary", "line 2: '2' is neither 0 nor 1"),
    ],
)
def test_a_column_of_one_value_is_no_label(corpus: Corpus, tmp_path: Path, text: str, kind: str | None, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        add_labels(corpus, write(tmp_path / "l.csv", "record,v\n" + text), key="record", name="one", kind=kind)  # type: ignore[arg-type]
    assert "one" not in corpus.label_names() and "\n" not in str(caught.value)


# ---------------------------------------------------------------------- remedies of --nearest


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "s000,2020-06-01,1\ns001,2021-01-01,0\n",
            r"2 without a row within 30 days \(the nearest is 152 days away\); widen --within",
        ),
        ("s000,2020-01-01,1\ns000,2020-01-01,0\n", "1 with two different values equally near; keep one row a day"),
        ("s000,2020-01-01,1\ns001,,0\n", "line 3: '' is not a date"),
    ],
)
def test_a_join_by_date_that_gives_nothing_says_why(corpus: Corpus, tmp_path: Path, rows: str, words: str) -> None:
    csv = write(tmp_path / "l.csv", "subject,date,v\n" + rows)
    with pytest.raises(DataError, match=words):
        add_labels(corpus, csv, key="subject", name="near", nearest="date", within="30d")


def test_the_date_column_is_named_where_it_is_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    csv = write(tmp_path / "l.csv", "subject,date,v\ns000,2020-01-01,1\n")
    with pytest.raises(RequestError, match="no column 'dat' for --nearest; it has subject, date, v"):
        add_labels(corpus, csv, key="subject", name="v", nearest="dat")
    for wrong, what in (("v", "label"), ("subject", "id")):
        with pytest.raises(RequestError, match=f"--nearest {wrong}: that column is the {what}"):
            add_labels(corpus, csv, key="subject", name="v", nearest=wrong)


def test_recordings_without_a_date_are_counted_and_none_with_one_is_refused(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=3, n_channels=1, windows_per_subject=1)
    csv = write(tmp_path / "l.csv", "subject,date,v\ns000,2020-01-01,1\ns001,2020-01-02,0\ns002,2020-01-02,0\n")
    made.index.loc[2, "day"] = np.nan
    assert add_labels(made, csv, key="subject", name="v", nearest="date")["records_undated"] == 1
    made.index["day"] = np.nan
    with pytest.raises(DataError, match="no dates, so --nearest cannot be used; leave it out and keep one row a subject"):
        add_labels(made, csv, key="subject", name="w", nearest="date")
    write(csv, "subject,v\ns000,1\ns000,0\n")
    with pytest.raises(DataError, match="keep one row an id$"):  # no date to choose by
        add_labels(made, csv, key="subject", name="w")


def test_ids_that_match_nothing_show_what_the_corpus_has_unless_it_is_private(tmp_path: Path) -> None:
    for public in (True, False):
        made = make_corpus(tmp_path / str(public), n_subjects=2, n_channels=1, windows_per_subject=1, public=public)
        with pytest.raises(DataError, match="none of its 1 subject ids is in the corpus") as caught:
            add_labels(made, write(tmp_path / "l.csv", "subject,v\n0,1\n"), key="subject", name="v")
        assert ("such as" in str(caught.value)) == public == (made.index["subject"].min() in str(caught.value))


def test_ids_that_match_nothing_show_the_shape_of_a_private_sets_ids_and_none_of_them(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_subjects=6, n_channels=1, windows_per_subject=1, public=False)
    table = write(tmp_path / "l.csv", "subject,v\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))
    parts = write(tmp_path / "p.csv", "subject,part\n" + "".join(f"{i},train\n" for i in range(6)))
    for join in (lambda: add_labels(made, table, key="subject", name="v"), lambda: add_split(made, parts, name="v")):
        with pytest.raises(DataError, match=r"\(6 subjects, whose ids look like 'a999', those of the table like '9'") as caught:
            join()
        assert "s000" not in str(caught.value)
    add_labels(made, write(tmp_path / "m.csv", "subject,v\ns000,1\ns001,0\n"), key="subject", name="v")


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_label_file_is_one_line_and_check_finds_it(damage: str, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", n_channels=1, windows_per_subject=2)
    table = write(tmp_path / "l.csv", "subject,ill\n" + "".join(f"s{i:03d},{i % 2}\n" for i in range(6)))
    add_labels(corpus, table, key="subject", name="ill")
    file = corpus.path / "labels" / "ill.parquet"
    whole = file.read_bytes()
    if damage == "foreign":
        pd.DataFrame({"a": [1]}).to_parquet(file)
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(DataError, match="ill.parquet: damaged .*--overwrite") as caught:
        Corpus.open(corpus.path).labels("ill")
    assert "\n" not in str(caught.value)
    assert main(["check", str(corpus.path)]) == 4
