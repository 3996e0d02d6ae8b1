"""Recordings and subjects instead of windows: pooled predictions, mixed labels, and survival of subjects."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.cli import main
from biossl.corpus import Corpus
from biossl.downstream import evaluate as module
from biossl.downstream import rivals
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.downstream.units import gather
from biossl.errors import DataError, RequestError
from biossl.report import write_ethics, write_report


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("rst")), min_size=1, max_size=30), st.integers(0, 99))
def test_pooling_is_pandas_mean_of_each_recording(keys: list[tuple[str, str]], seed: int) -> None:
    subject, record = (np.array(v) for v in zip(*keys, strict=True))
    p = np.random.default_rng(seed).dirichlet(np.ones(3), len(keys))
    units, kept, y, _ = gather("recording", subject, record, np.zeros(len(keys)))
    wanted = pd.DataFrame(p).groupby([subject, record]).mean().to_numpy()
    assert kept.all() and np.allclose(units.pool(p), wanted) and np.allclose(units.pool(p).sum(1), 1)
    assert units.windows.sum() == len(keys) and len(y) == len(units) == len(set(keys))
    assert list(zip(subject[units.first], record[units.first], strict=True)) == sorted(set(keys))


def test_recordings_of_two_labels_are_left_out_and_counted() -> None:
    record = np.array(list("aabbcc"))
    y = np.array([[1, np.nan], [1, 0], [0, 1], [1, 1], [0, np.nan], [0, np.nan]])
    units, kept, label, notes = gather("recording", np.array(["s"] * 6), record, y)
    assert kept.tolist() == [True, True, False, False, True, True]
    assert np.array_equal(label, [[1, 0], [0, np.nan]], equal_nan=True)  # a known label holds for windows where it is unknown
    assert "1 of 3 recordings hold windows of different labels and are left out (2 windows)" in notes[0]
    assert units.of.tolist() == [0, 0, 1, 1] and record[kept][units.first].tolist() == ["a", "c"]
    with pytest.raises(DataError, match="1 of 1 subjects hold windows of different labels"):
        gather("subject", np.array(["s"] * 6), record, y)
    with pytest.raises(RequestError, match="--per day: choose among window, recording, subject"):
        gather("day", np.array(["s"]), np.array(["a"]), np.zeros(1))


def test_one_sure_and_wrong_window_does_not_overrule_the_others() -> None:
    p = np.array([[0.7, 0.3]] * 9 + [[1e-9, 1 - 1e-9]])
    units, _, _, _ = gather("recording", np.array(["s"] * 10), np.array(["a"] * 10), np.zeros(10))
    assert units.pool(p)[0].argmax() == 0
    assert np.log(p).mean(axis=0).argmax() == 1  # which a product would


def test_what_is_judged_per_subject_are_the_means_of_the_windows(
    locked: Path, corpus: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = evaluate(locked, corpus, split=halves, baselines=False, out=tmp_path / "w")
    monkeypatch.setattr(rivals, "TREES", 30)
    found = evaluate(locked, corpus, split=halves, per="subject", by=["group"], out=tmp_path / "s")
    windows, table = (pd.read_parquet(Path(r["out"]) / "predictions.parquet") for r in (each, found))
    assert len(table) == 5 == found["counts"]["units"] and found["counts"]["windows"] == 20 and "record" not in table
    mean = windows.groupby("subject")[["p_slow", "p_fast"]].mean()
    assert np.allclose(table.set_index("subject")[["p_slow", "p_fast"]].loc[mean.index], mean)
    right = mean.to_numpy().argmax(1) == (windows.groupby("subject")["y"].first() == "fast").to_numpy()
    assert found["scores"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert sum(found["counts"]["classes"].values()) == 5 and sum(map(sum, found["confusion"])) == 5
    assert {g["name"] for g in found["groups"]["group"]} == {"slow", "fast"}
    for rival in found["rivals"]:  # simple models are pooled in the same way
        assert rival["minus"]["value"] == pytest.approx(found["scores"]["macro_f1"]["value"] - rival["score"]["value"])
        assert round(rival["score"]["value"] * 1e9) in {round(v * 1e9) for v in five_decisions(found)}


def five_decisions(found: dict) -> set[float]:
    """Every macro F1 that decisions on the judged subjects can have."""
    from sklearn.metrics import f1_score

    n = found["counts"]["classes"]
    y = [0] * n["slow"] + [1] * n["fast"]
    return {f1_score(y, said, average="macro", zero_division=0) for said in itertools.product((0, 1), repeat=5)}


def test_a_label_that_changes_within_every_recording_has_no_decision_per_recording(
    encoder: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    run = finetune(encoder, corpus, "state", tmp_path / "run", mode="frozen", split=halves, steps=5)
    with pytest.raises(DataError, match="5 of 5 recordings hold windows of different labels.*leave --per recording out"):
        evaluate(run, corpus, split=halves, per="recording", baselines=False, out=tmp_path / "x")
    done = evaluate(run, corpus, split=halves, baselines=False)
    assert done["counts"]["units"] == 20 and Path(done["out"]).name.endswith("-test")


@pytest.fixture(scope="module")
def follow_up(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus with a time and an event of every subject: the hazard of ``fast`` is eight times that of ``slow``."""
    home = tmp_path_factory.mktemp("survival")
    shutil.copytree(corpus.path, home / "imu")
    people = sorted(set(corpus.index["subject"]))
    group = corpus.index.drop_duplicates("subject").set_index("subject")["group"]
    rng = np.random.default_rng(1)
    days = {s: rng.exponential(100.0 / (8.0 if group[s] == "fast" else 1.0)) for s in people}
    for name, value in (("days", lambda s: f"{min(days[s], 150.0):.4f}"), ("died", lambda s: str(int(days[s] < 150.0)))):
        (home / f"{name}.csv").write_text(f"subject,{name}\n" + "".join(f"{s},{value(s)}\n" for s in people))
        assert main(["label", str(home / "imu"), str(home / f"{name}.csv"), "--key", "subject", "--name", name]) == 0
    return Corpus.open(home / "imu")


def slow_concordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    right = pairs = 0.0
    for i, j in itertools.permutations(range(len(time)), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs += 1
            right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs


def test_survival_is_judged_by_concordance_of_subjects(
    encoder: Path, follow_up: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finetune(encoder, follow_up, "days", tmp_path / "run", event="died", mode="full", split=halves, steps=40)
    found = evaluate(run, follow_up, part="all", split=halves, per="subject", allow_seen=True, out=tmp_path / "a")
    assert found["kind"] == "survival" and found["metric"] == "concordance" and found["calibration"] is None
    assert any("none of them knows times that were cut off" in n for n in found["notes"])
    table = pd.read_parquet(tmp_path / "a" / "predictions.parquet")
    wanted = slow_concordance(*(table[c].to_numpy() for c in ("y_time", "y_event", "log_hazard")))
    value = found["scores"]["concordance"]
    assert value["value"] == pytest.approx(wanted, abs=1e-9) and value["low"] < value["value"] < value["high"]
    assert value["value"] > 0.6  # the rhythm gives the hazard away
    json.loads((tmp_path / "a" / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c))

    shutil.copytree(tmp_path / "a", run / "evaluations" / "a")
    write_report(run)
    write_ethics(run, tmp_path / "ethics.html")
    assert "judged as 24 subjects: 96 windows" in (tmp_path / "ethics.html").read_text() + (run / "report.md").read_text()
    page = (run / "report.html").read_text()
    assert "judged as 24 subjects: 96 windows" in page and f"{value['value']:.3f}" in page

    # the planted log hazard itself, plus what windows of one subject differ by: pooling takes it away again
    time, real = follow_up.labels("days").values[:, 0], module.read_rows
    noise = np.tile([3.0, -3.0, 2.0, -2.0], len(time) // 4)

    def planted(model, corpus, rows, **kw):
        return -time[rows] + 100 * noise[rows], real(model, corpus, rows, **kw)[1]

    monkeypatch.setattr(module, "read_rows", planted)
    kw = {"part": "all", "split": halves, "allow_seen": True, "baselines": False}
    exact = evaluate(run, follow_up, per="subject", out=tmp_path / "b", **kw)["scores"]["concordance"]
    assert (exact["value"], exact["low"], exact["high"]) == (1.0, 1.0, 1.0)
    event = follow_up.labels("died").values[:, 0]
    assert slow_concordance(time, event, -time + 100 * noise) < 0.9


def test_a_survival_model_needs_its_event_and_others_have_none(
    locked: Path, encoder: Path, corpus: Corpus, follow_up: Corpus, halves: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="--event died: .* is a model of multiclass labels"):
        evaluate(locked, corpus, split=halves, event="died", out=tmp_path / "x")
    from biossl.downstream.model import make_task

    task = make_task(follow_up, "days", event="died")
    run = finetune(encoder, follow_up, task, tmp_path / "run", mode="frozen", split=halves, steps=5)
    with pytest.raises(RequestError, match="name it with --event"):
        evaluate(run, follow_up, split=halves, out=tmp_path / "x")
    assert evaluate(run, follow_up, split=halves, event="died", out=tmp_path / "y")["kind"] == "survival"
