"""Labels of samples from events: every sample has the class a slow reading of the events gives it; decoding keeps its promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from corpus_factory import synthetic_tasks
from dense_toys import COLUMNS, LABEL, PlantedWaves, wave_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.cli import main
from biossl.corpus import Corpus
from biossl.corpus.card_check import check_card
from biossl.corpus.convert import convert_tasks
from biossl.downstream.decoding import decode, fit_decoder, follow, joined, macro_f1, stitch
from biossl.downstream.dense import class_counts, make_dense, reference_of
from biossl.downstream.finetune import scarce_rows
from biossl.downstream.lock import Decoder
from biossl.downstream.model import make_task
from biossl.errors import DataError, RequestError


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return wave_corpus(tmp_path_factory.mktemp("dense") / "ecg", n_subjects=6)


def with_events(corpus: Corpus, rows: list[list[Any]], **label: Any) -> Corpus:
    """The same corpus, opened anew, with other events (of the first record) and another label."""
    other = Corpus.open(corpus.path)
    record, subject = other.index[["record", "subject"]].iloc[0]
    columns = [*COLUMNS, "missing"][: len(rows[0])]
    other.__dict__["events"] = pd.DataFrame(rows, columns=columns).assign(record=record, subject=subject)
    other.card.labels["waves"] = replace(LABEL, **label)
    return other


def slowly(corpus: Corpus, row: int, channel: str) -> list[float]:
    """Class of each sample, read off the events one by one at the sample's middle."""
    index, spec, out = corpus.index.iloc[row], corpus.spec, []
    events = corpus.events
    mine = events[(events["record"] == index["record"]) & (events["kind"] == "wave") & (events["channel"] == channel)]
    spans = list(zip(mine["onset_s"], mine["onset_s"] + mine["duration_s"], mine["label"], strict=True))
    first, last = min(a for a, *_ in spans), max(b for _, b, _ in spans)
    for i in range(spec.n_samples):
        t = index["start_s"] + (i + 0.5) / spec.sfreq
        hit = [{"p": 1.0, "N": 2.0, "t": 3.0}[label] for a, b, label in spans if a <= t < b]
        out.append(hit[0] if hit else 0.0 if first <= t < last else np.nan)
    return out


def test_every_sample_has_the_class_of_the_event_over_it(waves: Corpus) -> None:
    task = make_task(waves, "waves")
    assert task.kind == "dense" and task.classes == ("none", "P", "QRS", "T") and task.values.shape == (12, 2, 400)
    assert task.values.codes.dtype == np.int8
    for row, channel in ((0, 0), (1, 1), (5, 0)):
        np.testing.assert_array_equal(task.values[[row]][0, channel], slowly(waves, row, ("I", "II")[channel]))
    assert task.known.all() and np.isnan(task.values[[0]]).any()  # before the first outlined beat nothing is judged
    np.testing.assert_array_equal(
        class_counts(task, np.arange(12)), [int((task.values[np.arange(12)] == k).sum()) for k in range(4)]
    )


def test_what_nobody_outlined_is_unknown(waves: Corpus) -> None:
    rows = [
        [0.5, 0.1, "p", "I", "wave", ""],
        [1.0, 0.0, "N", "I", "wave", ""],
        [1.2, 0.3, "t", "I", "wave", ""],
        [2.0, 0.5, "u", "I", "wave", ""],
    ]
    task = make_dense(with_events(waves, rows), "waves")
    line, other = task.values[[0]][0]
    assert np.isnan(other).all()  # a lead without an event
    assert np.isnan(line[60:120]).all()  # between the neighbours of a wave without bounds
    assert (line[50:60] == 1).all() and (line[120:150] == 3).all() and (line[150:200] == 0).all()
    assert np.isnan(line[200:]).all() and np.isnan(line[:50]).all()  # a label of no class; before the first boundary
    whole = make_dense(with_events(waves, rows, judged="whole"), "waves").values[[0]][0]
    assert (whole[0, :50] == 0).all() and (whole[1] == 0).all() and np.isnan(whole[0, 200:250]).all()
    np.testing.assert_allclose(
        reference_of(task.marks, "I", 2), [[np.nan, 1.0, np.nan]]
    )  # not judged, and no false alarm over its peak


def test_the_bound_that_was_given_is_kept_and_only_the_other_side_is_unknown(waves: Corpus) -> None:
    rows = [
        [0.5, 0.1, "p", "I", "wave", "", ""],
        [0.9, 0.1, "N", "I", "wave", "", "onset"],  # its peak at 0.9
        [1.2, 0.1, "t", "I", "wave", "", "offset"],  # its peak at 1.3
        [1.8, 0.1, "p", "I", "wave", "", ""],
    ]
    task = make_dense(with_events(waves, rows), "waves")
    line = task.values[[0]][0, 0]
    for low, high, code in ((50, 60, 1), (90, 100, 2), (100, 120, 0), (120, 130, 3), (180, 190, 1)):
        assert (line[low:high] == code).all()
    assert np.isnan(line[60:90]).all() and np.isnan(line[130:180]).all()
    np.testing.assert_allclose(reference_of(task.marks, "I", 2), [[np.nan, 0.9, 1.0]])
    np.testing.assert_allclose(reference_of(task.marks, "I", 3), [[1.2, 1.3, np.nan]])
    subject = waves.index["subject"].iloc[:1]
    least = fit_decoder(task, subject).least_s
    assert set(least) == {"P"}  # a half wave says nothing of how long one lasts
    points = [[*r[:1], 0.0, *r[2:6], ""] if r[6] else r for r in rows]
    assert np.isnan(make_dense(with_events(waves, points), "waves").values[[0]][0, 0][90:130]).all()


def test_events_of_two_classes_at_once_are_unknown_and_all_channels_share_one_without(waves: Corpus) -> None:
    rows = [[0.5, 0.5, "p", "I", "wave", ""], [0.8, 0.5, "t", "", "wave", ""]]
    line, other = make_dense(with_events(waves, rows, judged="whole"), "waves").values[[0]][0]
    assert (line[50:80] == 1).all() and np.isnan(line[80:100]).all() and (line[100:130] == 3).all()
    assert (other[80:130] == 3).all() and (other[:80] == 0).all()
    joint = make_dense(with_events(waves, [[0.8, 0.5, "t", "", "wave", ""]], background="", judged="whole"), "waves")
    assert joint.channels == () and joint.classes == ("P", "QRS", "T") and joint.values.shape == (12, 400)
    assert (joint.values[[0]][0, 80:130] == 2).all() and np.isnan(joint.values[[0]][0, :80]).all()


def test_channels_follow_the_order_in_which_an_encoder_reads_them(waves: Corpus) -> None:
    task = make_dense(waves, "waves")
    turned = task.of_channels(("II", "I"))
    np.testing.assert_array_equal(turned.values[[0]][:, ::-1], task.values[[0]])
    assert turned.of_channels(("I",)).values.shape == (12, 1, 400)


def test_intervals_of_a_multiclass_label_sample_by_sample(waves: Corpus) -> None:
    task = make_task(waves, "state", kind="dense")
    assert task.classes == ("rest", "work") and task.values.shape == (12, 400)
    assert (task.values[[0]] == 0).all() and (task.values[[1]] == 1).all()


def test_refusals_are_one_line(waves: Corpus) -> None:
    with pytest.raises(DataError, match="of every sample, and a window has no one class of it"):
        waves.labels("waves")
    for label, kind, text in (("group", "dense", "made of intervals"), ("waves", "ordinal", "of every sample")):
        with pytest.raises((RequestError, DataError), match=text):
            make_task(waves, label, kind=kind)
    with pytest.raises(DataError, match="are moments"):
        make_dense(with_events(waves, [[0.5, 0.0, "p", "I", "wave", ""]]), "waves")
    with pytest.raises(DataError, match="no event of kind 'wave'"):
        make_dense(with_events(waves, [[0.5, 0.1, "x", "I", "wave", ""]]), "waves")
    card = Corpus.open(waves.path).card
    card.subjects, card.labels, card.splits = "record", {"waves": LABEL}, {}
    check_card(card, where="card.yaml")
    for bad, text in (
        ({"source": "event"}, "must be overlap"), ({"background": "P"}, "also in 'map'"),
        ({"background": "", "map": {"P": ["p"]}}, "needs its classes"), ({"kind": "multiclass"}, "are of dense labels"),
        ({"map": {"P": ["p"], "T": ["p"]}}, "stands in two classes"),
    ):  # fmt: skip
        card.labels["waves"] = replace(LABEL, **bad)
        with pytest.raises(RequestError, match=text):
            check_card(card, where="card.yaml")


def test_check_counts_seconds_of_every_class(waves: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(waves.path), "--label", "waves"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith(("all", "part"))]
    seconds = {line[1]: float(line[5]) for line in lines[1:]}
    events = waves.events[waves.events["kind"] == "wave"]
    for name, source in (("P", "p"), ("QRS", "N"), ("T", "t")):
        assert seconds[name] == pytest.approx(events[events["label"] == source]["duration_s"].sum(), rel=1e-5)
    assert sum(seconds.values()) == pytest.approx(12 * 2 * 4.0)


def test_scarce_labels_are_drawn_by_window_or_subject(waves: Corpus) -> None:
    train = np.flatnonzero(waves.split("official") == "train")
    few = scarce_rows(waves, "waves", n_subjects=2)
    assert few is not None and set(few) < set(train) and waves.index["subject"].iloc[few].nunique() == 2
    half = scarce_rows(waves, "waves", fraction=0.5)
    assert half is not None and len(half) == len(train) // 2 and set(half) < set(train)


# ---------------------------------------------------------------------------------------------- decoding


def probabilities(codes: list[int], k: int) -> np.ndarray:
    """(1, K, T): .8 for the class named, NaN for -1."""
    p = np.full((1, k, len(codes)), 0.2 / (k - 1))
    for i, c in enumerate(codes):
        p[0, :, i] = np.nan if c < 0 else p[0, :, i]
        p[0, max(c, 0), i] = np.nan if c < 0 else 0.8
    return p


def test_holes_are_filled_short_runs_dropped_and_nothing_joined_over_a_gap() -> None:
    rule = Decoder("none", True, {"P": 2.0, "T": 3.0}, {"P": 2.0, "T": 2.0})
    codes = [1, 1, 1, 0, 1, 1, 0, 0, 2, 2, 0, 1, 1, -1, 1, 1, 0, 2, 2, 1, 2, 2]
    found = decode(probabilities(codes, 3), ("none", "P", "T"), 1.0, rule)
    assert [(name, a, b) for _, name, a, b, _ in found] == [("P", 0, 6), ("P", 11, 13), ("P", 14, 16), ("T", 17, 22)]
    assert found[0][4] == pytest.approx((5 * 0.8 + 0.1) / 6) and found[1][4] == pytest.approx(0.8)


def test_without_a_background_a_short_run_joins_its_neighbour() -> None:
    rule = Decoder("", False, {"a": 2.0, "b": 2.0}, {"a": 2.0, "b": 2.0})
    found = decode(probabilities([0, 0, 0, 1, 0, 0, 1, 1, 1, 0], 2), ("a", "b"), 1.0, rule)
    assert [(name, a, b) for _, name, a, b, _ in found] == [("a", 0, 6), ("b", 6, 10)]


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=60), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_decoded_events_keep_the_rule_whatever_the_samples(codes: list[int], least: int, bridge: int) -> None:
    rule = Decoder("none", True, {"P": float(least), "T": 2.0}, {"P": float(bridge), "T": 1.0})
    found = decode(probabilities(codes, 3), ("none", "P", "T"), 1.0, rule)
    ends = [0]
    for _, name, a, b, p in found:
        assert b - a >= rule.least_s[name] and a >= ends[-1] and 0 <= p <= 1
        assert -1 not in codes[a:b]
        ends.append(b)
    for first, second in zip(found[:-1], found[1:], strict=True):
        if first[1] == second[1] and -1 not in codes[first[3] : second[2]]:
            assert second[2] - first[3] >= rule.bridge_s[first[1]]
    if not least and not bridge:  # of P nothing is changed but what lies in holes of T
        assert sum(b - a for _, n, a, b, _ in found if n == "P") <= codes.count(1)


def test_the_rule_is_that_of_training_subjects_alone(waves: Corpus) -> None:
    task = make_dense(waves, "waves")
    people = sorted(set(waves.index["subject"]))
    events = waves.events[(waves.events["kind"] == "wave") & waves.events["subject"].isin(people[:4])]
    rule = fit_decoder(task, people[:4])
    for name, source in (("P", "p"), ("QRS", "N"), ("T", "t")):
        own = events[events["label"] == source]
        assert rule.least_s[name] == pytest.approx(np.quantile(own["duration_s"], 0.01) / 2)
        gaps = [
            g["onset_s"].to_numpy()[1:] - (g["onset_s"] + g["duration_s"]).to_numpy()[:-1]
            for _, g in own.sort_values("onset_s").groupby(["record", "channel"])
        ]
        assert rule.bridge_s[name] == pytest.approx(min(rule.least_s[name], np.quantile(np.concatenate(gaps), 0.01) / 2))
    marks = task.marks.copy()
    marks.loc[~marks["subject"].isin(people[:4]), "end_s"] += 0.04
    assert fit_decoder(replace(task, marks=marks), people[:4]) == rule
    assert Decoder.from_dict(rule.to_dict()) == rule


def test_windows_are_put_side_by_side_averaged_where_they_overlap_and_parted_at_gaps() -> None:
    keys = pd.DataFrame({"record": list("aaaabb"), "segment": [0, 0, 0, 1, 0, 0], "start_s": [2.0, 0.0, 9.0, 4.0, 0.0, 1.0]})
    assert [g.tolist() for g in follow(keys, 2.0, 10.0)] == [[1, 0], [2], [3], [4, 5]]
    p = np.zeros((2, 1, 2, 20), np.float32)
    p[0], p[1] = 0.2, 0.6
    p[1, :, :, 15:] = np.nan
    out = stitch("b", np.array([0.0, 1.0]), p, 10.0, np.array([4, 5]))
    np.testing.assert_allclose(out.p[0, 0], [0.2] * 10 + [0.4] * 10 + [0.6] * 5 + [np.nan] * 5, rtol=1e-6)
    assert (out.start_s, out.end_s) == (0.0, 3.0)


def test_joined_spans_and_macro_f1() -> None:
    assert joined(np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 1.5], [4.0, 5.0]])).tolist() == [[0.0, 2.0], [3.0, 5.0]]
    from sklearn.metrics import f1_score

    y, said = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 3, 0])
    table = np.zeros((4, 4), int)
    np.add.at(table, (y, said), 1)
    assert macro_f1(table) == pytest.approx(f1_score(y, said, average="macro", labels=[0, 1, 2]))


class TornWaves(PlantedWaves):
    """T waves lack their offset."""

    def __call__(self, card: Any, view: str, task: Any) -> Any:
        cut, start = super().__call__(card, view, task)
        cut.events["missing"] = np.where(cut.events["label"] == "t", "offset", "")
        return cut, start


def test_a_corpus_keeps_which_bound_is_missing_and_has_no_such_column_without_any(waves: Corpus, tmp_path: Path) -> None:
    assert "missing" not in waves.events
    convert_tasks(waves.card, synthetic_tasks(2), tmp_path / "torn", view="main", load=TornWaves(2, 0), n_jobs=1)
    torn = Corpus.open(tmp_path / "torn")
    assert torn.events.groupby("label")["missing"].unique().map(list).to_dict()["t"] == ["offset"]
    assert (torn.events["missing"][torn.events["label"] != "t"] == "").all()
    marks = make_dense(torn, "waves").marks
    assert np.isnan(reference_of(marks[marks["record"] == marks["record"].iloc[0]], "I", 3)[:, 2]).all()
