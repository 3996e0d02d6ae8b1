"""From a folder to windows: what is found, whose it is, what a window holds and where it lies."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.config import build
from biossl.corpus.card import Card
from biossl.corpus.card_check import check_card
from biossl.corpus.discover import natural
from biossl.corpus.privacy import private_fault
from biossl.corpus.views import EVENT_COLUMNS, _record_digest, cut, discover, load_record, view_spec
from biossl.errors import RecordError, RequestError
from biossl.signal import Annotation, Recording


def card(view: dict[str, Any] | None = None, **more: Any) -> Card:
    raw: dict[str, Any] = {
        "format": 1, "name": "s", "title": "t", "modality": "imu", "licence": "l", "citation": "c", "version": "1", "obtain": "o",
        "files": [{
            "pattern": r"(?P<record>p(?P<subject>\d+)_(?P<visit>\d+))\.csv", "reader": "table",
            "table": {"sfreq": 50, "label": "what", "channels": {"acc_x": "acc_x", "acc_y": "acc_y"}},
        }],
        "native_sfreq": [50], "units": {"acc": "g"},
        "views": {"v": {"sfreq": 50, "window_s": 2, "stride_s": 1, "channels": ["acc_x", "acc_y"], **(view or {})}},
    } | more  # fmt: skip
    made = build(Card, raw, where="card")
    check_card(made, where="card")
    return made


def card_files() -> dict[str, Any]:
    return {"reader": "table", "table": {"sfreq": 50, "label": "what", "channels": {"acc_x": "acc_x", "acc_y": "acc_y"}}}


def recording(n: int = 500, *, names: tuple[str, ...] = ("acc_x", "acc_y"), **more: Any) -> Recording:
    data = np.random.default_rng(n).standard_normal((len(names), n)).astype(np.float32)
    kind = {"a": "acc", "g": "gyro"}
    types = tuple(kind[x[0]] for x in names)
    units = tuple("g" if t == "acc" else "rad/s" for t in types)
    return Recording(data, 50.0, names, types, units, "r", **more)


def act(onset: float, duration: float, label: str, kind: str = "activity") -> Annotation:
    return Annotation(onset, duration, label, kind=kind, source="test")


# ---------------------------------------------------------------- discover


def table_set(folder: Path, names: tuple[str, ...] = ("p2_1", "p10_1", "p2_2")) -> Path:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        rows = "\n".join(f"{i + k},{-k},{'UP' if k < 150 else 'DOWN'}" for k in range(300))
        (folder / f"{name}.csv").write_text(f"acc_x,acc_y,what\n{rows}\n", encoding="utf-8")
    return folder


def test_tasks_come_in_natural_order_with_subjects_and_groups(tmp_path: Path) -> None:
    tasks = discover(card(), table_set(tmp_path / "a"), "v")
    assert [(t.record, t.subject, t.covariates) for t in tasks] == [
        ("p2_1", "2", {"visit": "1"}), ("p2_2", "2", {"visit": "2"}), ("p10_1", "10", {"visit": "1"}),
    ]  # fmt: skip


def test_a_zip_counts_as_a_folder_and_may_be_the_source(tmp_path: Path) -> None:
    plain = table_set(tmp_path / "plain" / "deep")
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / "x.zip", "w") as z:
        for f in plain.iterdir():
            z.write(f, f"inner/{f.name}")
    want = [load_record(card(), t)[0] for t in discover(card(), tmp_path / "plain", "v")]
    for source in (tmp_path / "packed", tmp_path / "packed" / "x.zip"):
        got = [load_record(card(), t)[0] for t in discover(card(), source, "v")]
        assert [(r.record, r.subject) for r in got] == [(r.record, r.subject) for r in want]
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a.data, b.data)
            assert a.annotations == b.annotations


def test_the_pattern_begins_at_a_name_and_never_inside_one(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    (folder / "xp2_3.csv").write_text("no", encoding="utf-8")
    (folder / ".p2_4.csv").write_text("no", encoding="utf-8")
    assert len(discover(card(), folder, "v")) == 3


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    for source, words in ((tmp_path / "b", "no such folder"), (folder / "p2_1.csv", "is a file; give the folder")):
        with pytest.raises(RequestError, match=words):
            discover(card(), source, "v")
    with pytest.raises(RequestError, match=r"none of its 3 files matches .*'nope/' in the path"):
        discover(card({"files": "nope/"}), folder, "v")
    with pytest.raises(RequestError, match="no view 'w'; it has v"):
        discover(card(), folder, "w")


def test_two_files_of_one_record_are_refused(tmp_path: Path) -> None:
    table_set(tmp_path / "all" / "a")
    table_set(tmp_path / "all" / "b")
    with pytest.raises(RequestError, match="record 'p2_1' comes from a/p2_1.csv and b/p2_1.csv"):
        discover(card(), tmp_path / "all", "v")


def test_metadata_is_joined_as_text_and_aliases_are_one_person(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    (folder / "people.csv").write_text(
        'id,patient,age,sex,note,secret\n2,007.0,300,F,"a\n b",x\n10,8.0,41.0,,,\n', encoding="utf-8"
    )
    table = {
        "file": "people.csv", "key": "id", "on": "subject", "columns": {"age": "age", "sex": "sex", "note": "note"},
        "whole_numbers": ["patient", "age"], "replace": {"age": {"300": "90"}, "sex": {"F": "female"}},
    }  # fmt: skip
    tasks = discover(card(tables=[table], same_person=[["2", "10"]]), folder, "v")
    assert {t.subject for t in tasks} == {"2"}
    assert tasks[0].covariates == {"visit": "1", "age": "90", "sex": "female", "note": "a; b"}
    assert tasks[2].covariates == {"visit": "1", "age": "41", "sex": "", "note": ""}
    by_group = dict(table, key="id", on="visit", subject_column="patient")
    (folder / "people.csv").write_text("id,patient,age,sex,note\n1,007.0,1,,\n", encoding="utf-8")
    tasks = discover(card(tables=[by_group], subjects="table"), folder, "v")
    assert [t.subject for t in tasks] == ["007", None, "007"]  # leading zeros stay; the second visit has no row
    with pytest.raises(RecordError, match="record p2_2 has no subject") as e:
        load_record(card(tables=[by_group], subjects="table"), tasks[1])
    assert e.value.code == "no_subject"


def test_metadata_faults_are_one_line(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    table = {"file": "people.csv", "key": "id", "on": "subject", "columns": {"age": "age"}}
    for text, words in (
        (None, "no people.csv in it"),
        ("id,ages\n1,2\n", "no column 'age'; it has id, ages"),
        ("id,age\n2,1\n2,2\n", "has '2' twice"),
        ("id;age\n2;1\n", "no column 'id'"),
        ("", "not a table"),
    ):
        if text is not None:
            (folder / "people.csv").write_text(text, encoding="utf-8")
        with pytest.raises(RequestError, match=words):
            discover(card(tables=[table]), folder, "v")


def test_a_metadata_table_nearer_the_top_wins_and_two_equally_near_are_refused(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    c = card(tables=[{"file": "people.csv", "key": "id", "on": "subject", "columns": {"age": "age"}}])
    for place, age in (("x/old", "1"), ("x", "2")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "people.csv").write_text(f"id,age\n2,{age}\n", encoding="utf-8")
    assert discover(c, folder, "v")[0].covariates["age"] == "2"
    (folder / "y").mkdir()
    (folder / "y" / "people.csv").write_text("id,age\n2,3\n", encoding="utf-8")
    with pytest.raises(RequestError, match="both x/people.csv and y/people.csv"):
        discover(c, folder, "v")


@given(st.lists(st.text(alphabet="ab/0129_.", max_size=8), max_size=12))
def test_natural_order_is_total(paths: list[str]) -> None:
    assert sorted(paths, key=natural) == sorted(reversed(paths), key=natural) or len(set(map(natural, paths))) < len(set(paths))


# ---------------------------------------------------------------- load


def intervals_card(**spec: Any) -> Card:
    base = {
        "file": "labels.txt",
        "columns": ["visit", "person", "label", "start", "end"],
        "key": {"visit": "visit", "person": "subject"},
    }
    c = card({"policy": "inside_labels", "event_kind": "activity"})
    raw = {"first": 1, "end_inclusive": True} | spec
    from biossl.corpus.card import Intervals

    c.files[0].intervals = Intervals(**base, **raw)  # type: ignore[arg-type]
    c.files[0].table = replace(c.files[0].table, label="")  # type: ignore[type-var]
    return c


def test_interval_rows_are_joined_by_number_and_become_half_open(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "a")
    (folder / "labels.txt").write_text("1 02 A 1 100\n2 2 B 1 300\n01 2 C 102 301\n", encoding="utf-8")
    c = intervals_card()
    tasks = discover(c, folder, "v")
    marks = load_record(c, tasks[0])[0].annotations
    assert [(m.label, m.onset_s, m.duration_s, m.source) for m in marks] == [
        ("A", 0.0, 2.0, "labels.txt"), ("C", 101 / 50, 4.0, "labels.txt"),
    ]  # fmt: skip
    got = cut(c, "v", load_record(c, tasks[0]))
    assert got.event.tolist() == [0, 1, 1]  # 100 samples hold one window of 100, the 199 that exist hold two
    np.testing.assert_allclose(got.start_s, [0, 101 / 50, 151 / 50])


@pytest.mark.parametrize(
    ("row", "words"), [("1 2 A 5", "line 1 has 4 cells"), ("1 2 A x 9", "line 1: start or end"), ("1 2 A 9 3", "ends before")]
)
def test_a_bad_interval_row_names_its_line(tmp_path: Path, row: str, words: str) -> None:
    folder = table_set(tmp_path / "a")
    (folder / "labels.txt").write_text(row + "\n", encoding="utf-8")
    c = intervals_card()
    with pytest.raises(RecordError, match=words):
        load_record(c, discover(c, folder, "v")[0])


def test_marks_are_renamed_and_what_is_left_unmarked_gets_its_label(tmp_path: Path) -> None:
    c = card()
    c.files[0].event_labels = {"UP": "rising"}
    c.files[0].unmarked = {"stage": "none"}
    (r,) = load_record(c, discover(c, table_set(tmp_path / "a"), "v")[0])
    assert [(m.label, m.kind) for m in r.annotations] == [("rising", "activity"), ("none", "stage"), ("DOWN", "activity")]
    whole = next(m for m in r.annotations if m.kind == "stage")
    assert (whole.onset_s, whole.duration_s) == (0.0, 6.0)
    c.files[0].unmarked = {"activity": "none"}
    (r,) = load_record(c, discover(c, tmp_path / "a", "v")[0])
    assert [m.label for m in r.annotations] == ["rising", "DOWN"]  # nothing was left


# ---------------------------------------------------------------- cut


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_sliding_windows_are_the_samples_they_say(n: int, stride_s: float) -> None:
    r = recording(n, offset_s=3.0)
    got = cut(card({"stride_s": stride_s}), "v", [r])
    stride = round(stride_s * 50)
    assert len(got.data) == max(0, (n - 100) // stride + 1) and got.dropped == ({"short": 1} if n < 100 else {})
    for k, start in enumerate(got.start_s):
        a = round((start - 3.0) * 50)
        assert a == k * stride
        np.testing.assert_array_equal(got.data[k], r.data[:, a : a + 100])
        assert got.sha256[k] == hashlib.sha256(np.ascontiguousarray(r.data[:, a : a + 100]).tobytes()).hexdigest()
    assert (got.event == -1).all() and got.data.dtype == np.float32 and got.segment.dtype == np.int32


def test_windows_never_cross_a_gap_and_segments_are_numbered_in_time() -> None:
    early, late = recording(250), recording(300, offset_s=20.0)
    got = cut(card(), "v", [late, early])
    assert got.segment.tolist() == [0] * 4 + [1] * 5
    np.testing.assert_allclose(got.start_s, [0, 1, 2, 3, 20, 21, 22, 23, 24])
    np.testing.assert_array_equal(got.data[4], late.data[:, :100])


def test_inside_labels_restarts_at_each_interval_and_keeps_the_order_of_the_marks() -> None:
    marks = (act(5.0, 4.5, "B"), act(0.5, 3.0, "A"), act(4.0, 1.0, "C"), act(0, 9, "x", kind="note"))
    r = recording(500, annotations=marks)
    got = cut(card({"policy": "inside_labels", "event_kind": "activity"}), "v", [r])
    assert got.event.tolist() == [0, 0, 0, 1, 1] and got.dropped == {"short": 1}
    np.testing.assert_allclose(got.start_s, [5, 6, 7, 0.5, 1.5])
    assert got.events["label"].tolist() == ["B", "A", "C", "x"] and tuple(got.events.columns) == EVENT_COLUMNS
    only = cut(card({"policy": "inside_labels", "event_kind": "activity", "event_labels": ["A"]}), "v", [r])
    assert only.event.tolist() == [1, 1]


def test_around_events_pads_with_not_observed_and_counts_what_it_leaves_out() -> None:
    marks = tuple(act(t, 0, "N") for t in (0.2, 5.0, 9.9, 30.0))
    r = recording(500, annotations=marks)
    view = {"policy": "around_events", "event_kind": "activity", "event_offset_s": 1.0}
    got = cut(card({**view, "max_missing": 0.45}), "v", [r])
    assert got.event.tolist() == [0, 1, 2]
    assert got.dropped["outside"] == 1
    assert np.isnan(got.data[0, :, :40]).all() and np.array_equal(got.data[0, :, 40:], r.data[:, :60])
    np.testing.assert_allclose(got.start_s[:2], [-0.8, 4.0])
    strict = cut(card({**view, "max_missing": 0.0}), "v", [r])
    assert strict.event.tolist() == [1] and strict.dropped == {"outside": 1, "unobserved": 2}
    assert got.quality[0] == pytest.approx(0.6) and got.quality[1] == 1


def test_events_find_their_run_behind_a_gap_and_keep_their_order() -> None:
    early, late = recording(250), recording(300, offset_s=20.0)
    marks = (act(21.0, 3.0, "B"), act(1.0, 2.0, "A"), act(4.0, 18.0, "across"))
    for r in (early, late):
        r.annotations = marks
    inside = cut(card({"policy": "inside_labels", "event_kind": "activity"}), "v", [early, late])
    assert inside.event.tolist() == [0, 0, 1, 2] and inside.segment.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(inside.start_s, [21, 22, 1, 20])
    np.testing.assert_array_equal(inside.data[0], late.data[:, 50:150])
    around = cut(card({"policy": "around_events", "event_kind": "activity", "event_offset_s": 0.5}), "v", [early, late])
    assert around.event.tolist() == [0, 1] and around.dropped == {"unobserved": 1}  # 4.0: half its window lies in the gap
    np.testing.assert_allclose(around.start_s, [20.5, 0.5])
    np.testing.assert_array_equal(around.data[0], late.data[:, 25:125])


def test_unobserved_windows_are_dropped_and_a_flat_channel_costs_quality() -> None:
    r = recording(500)
    r.data[:, 0:60] = np.nan
    r.data[1, 200:] = 0.5
    got = cut(card({"stride_s": 2.0}), "v", [r])
    assert got.dropped == {"unobserved": 1}
    np.testing.assert_allclose(got.quality, [1, 0.5, 0.5, 0.5])
    r.data[:] = 1.0
    assert cut(card(), "v", [r]).sha256 == [""] * 9  # a flat line identifies nobody


def test_the_fingerprint_is_of_the_source_whatever_the_view_does_to_it() -> None:
    r = recording(500)
    plain = cut(card(), "v", [r])
    changed = cut(card({"sfreq": 25, "filter": {"highpass_hz": 0.5}}), "v", [r])
    assert plain.sha256 == changed.sha256 and plain.data.shape[2] == 2 * changed.data.shape[2]
    r.data[0, 420] += 1e-3
    assert [a != b for a, b in zip(cut(card(), "v", [r]).sha256, plain.sha256, strict=True)] == [False] * 7 + [True, True]


def test_filters_and_resampling_see_the_whole_run_not_the_window() -> None:
    """A slow wave at the window's edges is removed as in the middle: the windows overlap without a seam."""
    t = np.arange(3000) / 50
    r = recording(3000)
    r.data[:] = (np.sin(2 * np.pi * 5 * t) + 50 * np.sin(2 * np.pi * 0.05 * t)).astype(np.float32)
    got = cut(card({"sfreq": 25, "filter": {"highpass_hz": 0.5, "order": 4}}), "v", [r])
    np.testing.assert_array_equal(got.data[10, :, 25:], got.data[11, :, :25])
    middle = got.data[25]
    np.testing.assert_allclose(middle[0], np.sin(2 * np.pi * 5 * (25 + np.arange(50) / 25)), atol=0.05)


def test_whole_counts_pass_only_where_samples_still_are_counts() -> None:
    r = recording(500, lsb=np.array([0.1, 0.2]), baseline=np.array([0.0, 1.0]))
    got = cut(card({"channels": ["acc_y", "acc_x"]}), "v", [r])
    np.testing.assert_array_equal(got.lsb, [0.2, 0.1])
    np.testing.assert_array_equal(got.baseline, [1.0, 0.0])
    for view in ({"sfreq": 25}, {"filter": {"highpass_hz": 1.0}}):
        assert cut(card(view), "v", [r]).lsb is None
    other = recording(400, lsb=np.array([0.1, 0.3]), baseline=np.array([0.0, 1.0]), offset_s=20.0)
    assert cut(card(), "v", [r, other]).lsb is None


def test_alternatives_and_optional_channels() -> None:
    view = {"channels": ["acc_x", "side=gyro_x|gyro_y"], "optional_channels": True}
    c = card(view, units={"acc": "g", "gyro": "rad/s"})
    spec = view_spec(c, "v")
    assert spec.ch_names == ("acc_x", "side") and spec.ch_types == ("acc", "gyro") and spec.units == ("g", "rad/s")
    r = recording(names=("gyro_y", "acc_x", "gyro_x"))
    np.testing.assert_array_equal(cut(c, "v", [r]).data[0], r.data[[1, 2], :100])
    r = recording(names=("gyro_y", "acc_x"))
    np.testing.assert_array_equal(cut(c, "v", [r]).data[0], r.data[[1, 0], :100])
    r = recording(names=("gyro_y",))
    got = cut(c, "v", [r])
    assert np.isnan(got.data[:, 0]).all() and np.array_equal(got.data[0, 1], r.data[0, :100]) and got.quality[0] == 0.5
    with pytest.raises(RecordError) as e:
        cut(c, "v", [recording(names=("acc_y",))])
    assert e.value.code == "missing_channel"
    with pytest.raises(RecordError) as e:
        cut(card(), "v", [recording(names=("acc_x",))])
    assert e.value.code == "missing_channel"


def test_rate_unit_and_emptiness_are_refused() -> None:
    r = recording()
    r.sfreq = 100.0
    with pytest.raises(RecordError, match="recorded at 100 Hz, the card says 50") as e:
        cut(card(), "v", [r])
    assert e.value.code == "rate"
    r = recording()
    r.units = ("1", "1")
    with pytest.raises(RecordError, match="is in '1', the view says 'g'"):
        cut(card(), "v", [r])
    r = recording()
    r.data[:] = np.nan
    with pytest.raises(RecordError) as e:
        cut(card(), "v", [r])
    assert e.value.code == "all_nan"
    mixed = [recording(names=("acc_x",)), replace(recording(names=("acc_y",)), sfreq=25.0)]
    with pytest.raises(RecordError, match="lie at 50 Hz and 25 Hz"):
        cut(card(), "v", mixed)


def test_other_rate_groups_are_left_aside() -> None:
    slow = Recording(np.zeros((1, 10), np.float32), 1.0, ("SpO2",), ("spo2",), ("%",), "r")
    assert len(cut(card(), "v", [slow, recording()]).data) == 9


def eeg(names: list[str], **view: Any) -> Card:
    return card(
        {"channels": names, **view}, modality="eeg", units={},
        files=[{"pattern": r"(?P<subject>\d+)\.edf", "reader": "edf"}],
    )  # fmt: skip


def test_average_reference_is_over_the_observed_eeg_channels() -> None:
    data = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    data[2, 50:100] = np.nan
    r = Recording(data, 50.0, ("C3", "Cz", "C4"), ("eeg",) * 3, ("uV",) * 3, "r")
    c = eeg(["C3", "Cz", "C4"], reference="average")
    assert view_spec(c, "v").reference == "average"
    got = np.concatenate(list(cut(eeg(["C3", "Cz", "C4"], reference="average", stride_s=2.0), "v", [r]).data), axis=1)
    np.testing.assert_allclose(got, data - np.nanmean(data, axis=0), atol=1e-6)


def test_derived_leads_are_cut_like_recorded_ones() -> None:
    c = card(
        {"channels": ["I", "III", "aVF"]}, modality="ecg", units={},
        files=[{"pattern": r"(?P<subject>\d+)\.hea", "reader": "wfdb"}],
    )  # fmt: skip
    data = np.random.default_rng(0).standard_normal((2, 200)).astype(np.float32)
    r = Recording(data, 50.0, ("I", "II"), ("ecg",) * 2, ("mV",) * 2, "r", lsb=np.ones(2))
    got = cut(c, "v", [r])
    np.testing.assert_allclose(got.data[0], np.stack([data[0], data[1] - data[0], data[1] - data[0] / 2])[:, :100], atol=1e-6)
    assert got.lsb is None


@pytest.mark.parametrize("public", [True, False])
def test_a_record_found_twice_names_no_file_of_a_private_set(tmp_path: Path, public: bool) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p4711_1.csv").write_text("acc_x,acc_y\n0,0\n")
    with pytest.raises(RequestError, match="remove one or widen the group") as caught:
        discover(card(public=public), tmp_path, "v")
    assert ("4711" in str(caught.value)) is public


@pytest.mark.parametrize("name", [b"p3_1\xff.csv", b"p3_1\n.csv"])
def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path, name: bytes) -> None:
    folder = table_set(tmp_path / "s")
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("acc_x,acc_y,what\n1,2,UP\n")
    except OSError:
        pytest.skip("this file system takes no such name")
    loose = {"pattern": r"(?P<record>p(?P<subject>\d+)[\s\S]*)\.csv"}
    with pytest.raises(RequestError, match="is not plain text in UTF-8; rename it") as caught:
        discover(card(files=[card_files() | loose]), folder, "v")
    str(caught.value).encode()
    with pytest.raises(RequestError, match="the name of a file is") as caught:
        discover(card(files=[card_files() | loose], public=False), folder, "v")
    assert "p3_1" not in str(caught.value)


def test_a_zip_that_cannot_be_opened_costs_a_line(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "s")
    (folder / "more.zip").write_bytes(b"PK\x03\x04 cut off")
    tasks = discover(card(), folder, "v")
    assert [t.record for t in tasks] == ["p2_1", "p2_2", "p10_1", "more.zip"]
    with pytest.raises(RecordError, match="more.zip: is not a whole zip, so its recordings are missing; copy it again"):
        load_record(card(), tasks[-1])
    with pytest.raises(RequestError, match="none of its"):
        (tmp_path / "t").mkdir()
        (folder / "more.zip").rename(tmp_path / "t" / "more.zip")
        discover(card(), tmp_path / "t", "v")


def test_a_zip_inside_a_zip_is_called_that(tmp_path: Path) -> None:
    folder = table_set(tmp_path / "s")
    with zipfile.ZipFile(folder / "outer.zip", "w") as z:
        z.writestr("inner.zip", b"PK")
    task = discover(card(), folder, "v")[-1]
    with pytest.raises(RecordError, match=r"outer.zip!inner.zip: a zip inside a zip; unpack the outer one") as caught:
        load_record(card(), task)
    assert "a zip inside a zip; unpack the outer one" in private_fault(caught.value.code, "imu")


def test_the_hash_of_a_long_recording_needs_one_channel_of_memory() -> None:
    r = recording(100_000, names=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"))
    r.data[2] = 0.0  # flat: not part of it
    each = sorted(hashlib.sha256(row.astype("<f4").tobytes()).hexdigest() for k, row in enumerate(r.data) if k != 2)
    tracemalloc.start()
    try:
        got = _record_digest([r])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == hashlib.sha256("".join(each).encode()).hexdigest()
    assert peak < 4 * r.data[0].nbytes < r.data.nbytes


def test_the_hash_of_a_recording_is_the_same_in_every_view() -> None:
    r = recording(500)
    whole = cut(card(), "v", [r]).record_sha256
    assert len(whole) == 64
    assert cut(card({"window_s": 1, "channels": ["acc_y"], "filter": {"highpass_hz": 1}}), "v", [r]).record_sha256 == whole
    turned = replace(r, data=r.data[::-1].copy(), ch_names=r.ch_names[::-1])
    assert cut(card(), "v", [turned]).record_sha256 == whole, "the order of channels is the card's"
    assert cut(card(), "v", [recording(501)]).record_sha256 != whole
    flat = replace(r, data=np.zeros_like(r.data))
    assert cut(card(), "v", [flat]).record_sha256 == "", "two flat recordings are not the same person"
