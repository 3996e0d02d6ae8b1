"""Beats, rhythm episodes and wave boundaries against hand-worked tables."""

import numpy as np
import pytest

from biossl.errors import DataError, RequestError
from biossl.metrics.beats import LEARNING_S, STATISTICS, beat_table, score_beats
from biossl.metrics.boundaries import annotated_span, boundary_counts, score_boundaries, sd_error
from biossl.metrics.episodes import EpisodeCounts, count_episodes, score_episodes


def test_a_beat_table_counts_pairs_misses_and_extra_beats():
    table = beat_table([1, 2, 3, 4, 5], "NSVFQ", [1.1, 2.0, 3.2, 4.0, 5.0, 6.0], "NVVVNN")
    expect = np.zeros((6, 6), int)
    expect[0, 0] = expect[1, 2] = expect[3, 2] = expect[4, 0] = 1
    expect[2, 5] = 1  # 200 ms off: missed
    expect[5, 2] = expect[5, 0] = 1  # and its detection is extra, as is the one at 6 s
    assert (table == expect).all()


def test_statistics_of_a_hand_worked_table():
    """EC57: fusion and unknown beats called V (unknown called S) are neither right nor wrong."""
    table = np.array([
        [900, 10, 20, 2, 1, 5],
        [15, 60, 4, 0, 0, 1],
        [8, 3, 80, 5, 0, 4],
        [2, 1, 7, 3, 0, 0],
        [1, 6, 9, 0, 2, 0],
        [12, 3, 2, 0, 0, 0],
    ])  # fmt: skip
    got = {k: f(table.reshape(1, -1).astype(float))[0] for k, f in STATISTICS.items()}
    hit = table[:5, :5].sum()
    assert got == pytest.approx({
        "qrs_sensitivity": hit / (hit + 10),
        "qrs_ppv": hit / (hit + 17),
        "veb_sensitivity": 80 / 100,
        "veb_ppv": 80 / (80 + 20 + 4 + 2),
        "sveb_sensitivity": 60 / 80,
        "sveb_ppv": 60 / (60 + 10 + 3 + 1 + 3),
    })  # fmt: skip


def test_learning_time_and_flutter_are_not_judged_and_their_border_costs_nothing():
    reference, classes = [299.95, 300.05, 400.0, 500.0], "NNVN"
    detected, said = [300.02, 300.1, 402.0, 500.0], "NNVN"
    table = beat_table(reference, classes, detected, said, start_s=LEARNING_S, excluded=[[395.0, 405.0]])
    assert table.sum() == 2 and table[0, 0] == 2  # the pair of 299.95 and 300.02 lies before, both beats in flutter are out
    assert beat_table(reference, classes, detected, said).sum() == 5


def test_beats_gross_and_average():
    many = beat_table(np.arange(1, 101.0), "V" * 100, np.arange(1, 101.0), "V" * 90 + "N" * 10)
    few = beat_table(np.arange(1, 11.0), "V" * 10, np.arange(1, 11.0), "N" * 10)
    none = beat_table([1.0], "N", [1.0], "N")
    found = score_beats([many, few, none], ["a", "b", "c"], n=200)
    assert found["veb_sensitivity"]["gross"].value == pytest.approx(90 / 110)
    assert found["veb_sensitivity"]["average"].value == pytest.approx(0.45)


def test_beats_refuse_other_classes_and_lengths():
    with pytest.raises(DataError, match="'A' is none of N, S, V, F, Q"):
        beat_table([1.0], "A", [1.0], "N")
    with pytest.raises(DataError, match="2 detected beats but 1 classes"):
        beat_table([1.0], "N", [1.0, 2.0], "N")


def test_episodes_and_their_seconds():
    """Reference 0-60, 100-160; detected 30-50 and 50-90 (one episode), 200-210: 30 of 120 s, one of two episodes each way."""
    got = count_episodes([[0, 60], [100, 160]], [[50, 90], [30, 50], [200, 210]], 3600.0)
    assert got == EpisodeCounts(2, 1, 2, 1, 3600.0, 120.0, 70.0, 30.0)
    found = score_episodes([got] * 3, list("abc"), n=50)
    values = {k: v["gross"].value for k, v in found.items()}
    assert values == pytest.approx({
        "episode_sensitivity": 0.5,
        "episode_ppv": 0.5,
        "duration_sensitivity": 0.25,
        "duration_ppv": 3 / 7,
        "false_alarms_per_day": 24.0,
    })  # fmt: skip


def test_one_long_detection_finds_every_episode_but_pays_in_seconds():
    got = count_episodes([[0, 10], [50, 60]], [[0, 100]], 100.0)
    assert (got.n_found, got.n_true, got.shared_s, got.detected_s) == (2, 1, 20.0, 100.0)


def test_episodes_are_cut_to_the_time_judged():
    got = count_episodes([[0, 400]], [[0, 299], [350, 900]], 600.0, start_s=LEARNING_S)
    assert got == EpisodeCounts(1, 1, 1, 1, 300.0, 100.0, 250.0, 50.0)
    with pytest.raises(DataError, match="lower start_s"):
        count_episodes([], [], 200.0, start_s=LEARNING_S)


def waves(*onsets):
    return [[t, t + 0.05, t + 0.1] for t in onsets]


def test_boundaries_are_found_within_150_ms_and_their_errors_are_in_ms():
    reference = waves(1.0, 2.0, 3.0)
    detected = [[1.01, 1.1], [2.03, 2.1], [3.2, 3.3]]
    counts = boundary_counts(reference, detected, (0.9, 4.0))
    assert counts[0].tolist() == pytest.approx([3, 2, 3, 2, 40, 1000])
    found = score_boundaries([counts] * 3, list("abc"), n=20)["onset"]
    assert found["mean_ms"].value == pytest.approx(20)
    assert found["sd_ms"].value == pytest.approx(np.std([10, 30] * 3, ddof=1))
    assert found["f1"].value == pytest.approx(2 * 2 / 6)
    assert np.isnan(sd_error(np.array([[1, 1, 1, 1, 5.0, 25.0]]))[0])


def test_waves_outside_the_annotated_part_are_no_false_alarms():
    span = annotated_span(waves(1.0, 2.0), [[0.8, 0.85, np.nan]])
    assert span == (0.8, 2.1)
    counts = boundary_counts(waves(1.0, 2.0), [[0.2, 0.3], [1.0, 1.1], [1.5, 1.6], [2.0, 2.12], [5.0, 5.1]], span)
    assert counts[:, :4].tolist() == [
        [2, 2, 3, 2],
        [2, 2, 3, 2],
    ]  # 1.5 s is false; 2.12 lies past the last boundary and is paired


def test_a_boundary_that_the_annotation_lacks_is_not_judged():
    reference = [[1.0, 1.05, 1.1], [np.nan, 2.05, 2.1], [3.0, 3.05, 3.1]]
    counts = boundary_counts(reference, [[1.0, 1.1], [2.0, 2.1], [2.5, 2.6], [3.0, 3.1]], (1.0, 3.1))
    assert counts[:, :4].tolist() == [[2, 2, 3, 2], [3, 3, 4, 3]]  # 2.5 s is false; the onset at 2.0 s is not judged


def test_what_boundaries_refuse():
    with pytest.raises(RequestError, match="onset, peak and offset"):
        boundary_counts([[1.0, 1.1]], [[1.0, 1.1]], (0, 2))
    with pytest.raises(DataError, match="no peak"):
        boundary_counts([[1.0, np.nan, 1.1]], [[1.0, 1.1]], (0, 2))
    with pytest.raises(DataError, match="no annotated boundary"):
        annotated_span([[np.nan, 1.0, np.nan]])
