"""The curve of labels: its points are held-out scores, its fit gives planted numbers back, and says nothing where it knows nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import make_corpus

from biossl import metrics, protocol
from biossl.audit import learning
from biossl.audit.learning import PowerFit, double, fit_power, learning_curve, sentence, sizes
from biossl.cli import main
from biossl.corpus import Corpus
from biossl.errors import DataError
from biossl.judging import Rows
from biossl.ledger import openings
from biossl.protocol import Target
from biossl.report.audit_pages import curve_figure

N = np.array([1.0, 2, 5, 10, 20, 50])


def noisy(a: float, b: float, c: float, sd: float, seed: int = 0, n: np.ndarray = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = a - b * n**-c
    return score, score + rng.normal(size=(200, len(n))) * sd


@pytest.fixture(scope="module")
def result(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Corpus]:
    c = make_corpus(
        tmp_path_factory.mktemp("curve") / "c",
        modality="imu",
        n_subjects=18,
        windows_per_subject=3,
        n_samples=128,
        n_channels=3,
        seed=2,
    )
    with pytest.MonkeyPatch.context() as patch:  # enough to see the points
        patch.setattr(learning, "N_DRAWS", 2)
        patch.setattr(learning, "SHARES", (0.02, 0.3, 1.0))
        return learning_curve(encoder, c, "group"), c


def test_rows_of_both_axes_come_from_the_training_part_alone(result: tuple[dict[str, Any], Corpus]) -> None:
    found, c = result
    by = {axis: [r for r in found["rows"] if r["axis"] == axis] for axis in ("subjects", "windows")}
    assert [r["subjects"] for r in by["subjects"]] == [1, 2, 5, 9] or [r["subjects"] for r in by["subjects"]] == [1, 2, 5, 10]
    assert [r["windows"] for r in by["subjects"]] == [3 * r["subjects"] for r in by["subjects"]]
    assert by["windows"][-1] | {"axis": "subjects"} == by["subjects"][-1]
    assert [r["windows"] for r in by["windows"]] == sorted(r["windows"] for r in by["windows"])
    assert found["counts"]["subjects"] == 12 == c.index["subject"][c.split() == "train"].nunique()
    for r in found["rows"]:
        assert r["low"] <= r["score"] + 0.05 and r["high"] >= r["score"] - 0.05 and {"subjects", "windows", "score"} <= set(r)
    assert by["subjects"][-1]["score"] > by["subjects"][0]["score"] + 0.1
    assert not openings(c.path)
    assert "3 points are too few" in found["sentence"]  # of 2, 5 and all subjects


def test_only_rows_of_the_training_part_are_measured(
    result: tuple[dict[str, Any], Corpus], encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, c = result
    given: list[Rows] = []

    def stop(x: np.ndarray, rows: Rows, seed: int) -> Any:
        given.append(rows)
        raise InterruptedError

    monkeypatch.setattr(learning, "_measure", stop)
    with pytest.raises(InterruptedError):
        learning_curve(encoder, c, "group")
    assert sorted(given[0].index) == np.flatnonzero(c.split() == "train").tolist()


def test_the_last_point_is_a_cross_validation_by_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    subject = np.repeat([f"s{i}" for i in range(10)], 6)
    y = np.repeat(np.arange(10) % 2, 6).astype(float)
    x = rng.normal(size=(60, 4)) + y[:, None] * 0.6
    target = Target("multiclass", y, ("a", "b"))
    monkeypatch.setattr(learning, "N_DRAWS", 1)
    monkeypatch.setattr(learning, "SHARES", (1.0,))
    monkeypatch.setattr(learning, "sizes", lambda most: [most])
    points = learning._measure(x, Rows(np.arange(60), target, subject, np.full(60, "train")), seed=3)
    assert points["subjects"][0]["subjects"] == 8 and points["subjects"][0]["windows"] == 48
    want = protocol.out_of_fold(protocol.linear, x, target, subject, seed=3)
    assert points["subjects"][0]["score"] == pytest.approx(metrics.score(y, want, "macro_f1"), abs=1e-9)


def test_a_planted_power_law_is_given_back_with_its_gain() -> None:
    score, resamples = noisy(0.92, 0.5, 0.6, 0.004)
    fit = fit_power(N, score, resamples)
    assert not fit.refused
    assert (fit.a, fit.b, fit.c) == pytest.approx((0.92, 0.5, 0.6), abs=1e-4)
    gain = double(fit, 50)
    true = 0.5 * (50**-0.6 - 100**-0.6)
    assert gain is not None and gain["gain"] == pytest.approx(true, abs=1e-4) and gain["low"] < true < gain["high"]
    low, high = fit.band(N)
    assert ((low < score) & (score < high)).all()
    assert sentence(fit, gain, 50, 40) == (
        f"doubling the labelled subjects from 50 to 100 would be expected to bring +{true:.3f} [+{gain['low']:.3f}, +{gain['high']:.3f}]; "
        "beyond 40 subjects, the most a head was trained on here, this is extrapolation"
    ).replace("+0.", "+.")


@pytest.mark.parametrize(
    ("score", "sd", "words"),
    [
        (0.9 - 0.4 * N[:3] ** -0.5, 0.001, "3 points are too few"),
        (np.full(6, 0.8), 0.01, "does not rise"),
        (0.9 - 0.02 * np.arange(6), 0.01, "does not rise"),
        (0.5 + 0.02 * np.log(N), 0.001, "without a level in sight"),
        (np.array([0.4, 0.8, 0.8, 0.8, 0.8, 0.8001]), 0.001, "flat from the second point on"),
        (0.9 - 0.02 * N**-0.5, 0.05, "resamples do not determine|do not determine"),
        (np.array([0.1, 0.6, 0.62, 0.64, 0.8, 0.82]), 0.004, "misses the point of"),
    ],
)
def test_what_the_points_do_not_determine_is_not_said(score: np.ndarray, sd: float, words: str) -> None:
    n = N[: len(score)]
    resamples = score + np.random.default_rng(1).normal(size=(200, len(n))) * sd
    fit = fit_power(n, score, resamples)
    assert re.search(words, fit.refused) and double(fit, 50) is None
    text = sentence(fit, None, 50, 40)
    assert text.startswith("what more than 50 labelled subjects would bring cannot be said: ")
    assert fit.to_dict(n, 50)["curve"] == []


def test_a_point_that_does_not_move_does_not_bend_the_curve() -> None:
    """Planted: a first point of no spread that lies off the law (a head that says one class). The others still decide."""
    n = np.array([2.0, 5, 10, 20, 32])
    score, resamples = noisy(0.9, 0.5, 0.6, 0.02, n=n)
    score[0] -= 0.01
    resamples[:, 0] = score[0]
    fit = fit_power(n, score, resamples)
    assert fit.refused or abs(float(fit.at(32.0)) - 0.5 * -(32**-0.6) - 0.9) < 0.005


def test_sizes_go_up_to_all() -> None:
    assert sizes(1) == [1] and sizes(10) == [1, 2, 5, 10] and sizes(17) == [1, 2, 5, 10, 17] and sizes(130)[-3:] == [50, 100, 130]


def test_the_verb_writes_strict_json_and_two_figures(
    result: tuple[dict[str, Any], Corpus],
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, c = result
    monkeypatch.setattr("biossl.audit.learning.learning_curve", lambda *a, **k: found)
    words = ["audit", "learning-curve", str(encoder), str(c.path), "--label", "group", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    stored = json.loads((tmp_path / "learning_curve.json").read_text(), parse_constant=lambda t: pytest.fail(t))
    assert json.loads(captured.out)["rows"] == stored["rows"] and found["sentence"] in captured.err
    assert (tmp_path / "learning_curve.svg").read_text().startswith("<svg") and (
        tmp_path / "learning_curve.png"
    ).stat().st_size > 5_000
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--n", "3"]) == 2 and "--n belongs to `biossl audit labels`" in capsys.readouterr().err


def test_a_fit_is_drawn_beyond_the_points(result: tuple[dict[str, Any], Corpus], tmp_path: Path) -> None:
    n = np.array([1.0, 2, 5, 9])
    each = np.tile([0.9, 0.4, 0.7], (20, 1))
    fit = PowerFit(0.9, 0.4, 0.7, each, "")
    drawn = {**result[0], "fit": fit.to_dict(n, 12)}
    assert drawn["fit"]["curve"][-1]["subjects"] == pytest.approx(24)
    svg = curve_figure(drawn, tmp_path)[0].read_text()
    assert svg.count("stroke-dasharray") >= 1 and "xmlns" in svg


def test_four_people_are_too_few(encoder: Path, tmp_path: Path) -> None:
    c = make_corpus(tmp_path / "c", modality="imu", n_subjects=4, windows_per_subject=3, n_samples=128, n_channels=3, splits={})
    with pytest.raises(DataError, match="4 labelled training subjects"):
        learning_curve(encoder, c, "group")
