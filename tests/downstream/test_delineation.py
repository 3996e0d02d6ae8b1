"""Waves from end to end: learnt, locked, judged, written as events; the figures are those of the written waves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense_toys import wave_corpus
from sklearn.metrics import confusion_matrix

from biossl.augment.montage import LeadReversal
from biossl.baselines import neurokit_waves
from biossl.checkpoint import save_encoder
from biossl.cli import main
from biossl.corpus import Corpus
from biossl.downstream.decoding import macro_f1, sample_confusion
from biossl.downstream.delineation_text import dense_lines
from biossl.downstream.evaluate import evaluate
from biossl.downstream.evaluate_text import as_text
from biossl.downstream.finetune import finetune
from biossl.downstream.model import load_model, make_task, predict_rows
from biossl.downstream.predictions import predict
from biossl.errors import DataError, RequestError
from biossl.metrics.boundaries import annotated_span, boundary_counts
from biossl.metrics.episodes import count_episodes
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.recipe.schema import Part
from biossl.report.run_page import write_report


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Twelve subjects, 8 s each: 8 train, 2 val, 2 test."""
    return wave_corpus(tmp_path_factory.mktemp("waves") / "ecg")


@pytest.fixture(scope="module")
def encoder(waves: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    config = EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.1, attention="full", init="fan_in")
    return save_encoder(TransformerEncoder(waves.spec, config), tmp_path_factory.mktemp("waves") / "encoder")


@pytest.fixture(scope="module")
def run(encoder: Path, waves: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("waves") / "run"
    words = ["--mode", "full", "--steps", "60", "--batch-size", "8", "--lr", "0.01", "--out", str(out)]
    assert main(["finetune", str(encoder), str(waves.path), "--label", "waves", *words]) == 0
    return out


@pytest.fixture(scope="module")
def result(run: Path, waves: Corpus) -> dict[str, Any]:
    return evaluate(run, waves)


def test_it_is_chosen_by_the_samples_of_held_out_subjects(run: Path, waves: Corpus) -> None:
    model = load_model(run)
    assert model.kind == "dense" and model.about["inner"]["by"] == "val" and model.lock.decoder is not None
    task, rows = make_task(waves, "waves"), np.flatnonzero(waves.split("official") == "val")
    table = sample_confusion(model, waves, task, rows)
    said, true = predict_rows(model, waves, rows).argmax(axis=2), task.values[rows]
    known = ~np.isnan(true) & np.isfinite(waves.signal(rows))
    np.testing.assert_array_equal(table, confusion_matrix(true[known], said[known], labels=range(4)))
    assert model.about["inner"]["score"] == pytest.approx(macro_f1(table)) and macro_f1(table) > 0.8


def test_figures_are_those_of_the_written_waves(result: dict[str, Any], waves: Corpus) -> None:
    table = pd.read_parquet(Path(result["out"]) / "predictions.parquet")
    total = {name: np.zeros((2, 6)) for name in ("P", "QRS", "T")}
    for _, line in table.groupby(["record", "channel"]):
        bounds = {
            k: np.stack([v["onset_s"], v["onset_s"] + v["duration_s"]], axis=1) for k, v in line.groupby(["source", "label"])
        }
        true = {n: np.insert(bounds[("reference", n)], 1, bounds[("reference", n)].mean(axis=1), axis=1) for n in total}
        for name in total:
            found = bounds.get(("model", name), np.zeros((0, 2)))
            total[name] += boundary_counts(true[name], found, annotated_span(*true.values()))
    for name, counts in total.items():
        for side in (0, 1):
            found = result["waves"][name][("onset", "offset")[side]]
            assert found["sensitivity"]["value"] == pytest.approx(counts[side, 1] / counts[side, 0], abs=1e-9)
            assert found["ppv"]["value"] == pytest.approx(counts[side, 1] / counts[side, 2], abs=1e-9)
            assert found["mean_ms"]["value"] == pytest.approx(counts[side, 4] / counts[side, 1], abs=1e-6)
    errors = table[(table["source"] == "model") & (table["label"] == "QRS")]["onset_error_ms"].dropna()
    assert errors.std() == pytest.approx(result["waves"]["QRS"]["onset"]["sd_ms"]["value"], abs=1e-6)
    assert result["waves"]["QRS"]["onset"]["f1"]["value"] > 0.9 and result["scores"]["boundary_f1"]["value"] > 0.9
    assert result["counts"]["classes"] == {n: int(v[0, 0]) for n, v in total.items()}
    assert len(result["per_channel"]) == 6 and {e["subject"] for e in result["per_subject"]} == set(table["subject"])


def test_a_simple_delineation_stands_beside_it_and_all_is_printed(result: dict[str, Any], run: Path) -> None:
    rival = result["rivals"][0]
    gap = result["scores"]["boundary_f1"]["value"] - rival["score"]["value"]
    assert rival["model"].startswith("NeuroKit2") and rival["minus"]["value"] == pytest.approx(gap, abs=1e-9)
    text = as_text(result)
    for word in (
        "within 150 ms",
        "By channel",
        "locked minus simple",
        "test openings of this label so far: 1",
        "2 judged subjects",
    ):
        assert word in text
    stored = json.loads((Path(result["out"]) / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert dense_lines(stored) == dense_lines(result)
    write_report(run, run / "page.html")
    page = (run / "page.html").read_text()
    assert "each channel alone" in page and "NeuroKit2" in page


def test_refusals(run: Path, waves: Corpus, tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(DataError, match="have seen 2 of the 2 subjects"):
        evaluate(run, waves, part="val", out=tmp_path / "v")
    with pytest.raises(RequestError, match="--by: of windows, and .* is a model of samples"):
        evaluate(run, waves, by=["site"], out=tmp_path / "v")
    with pytest.raises(DataError, match="they must be the same"):
        evaluate(run, waves, label="state", out=tmp_path / "v")
    with pytest.raises(RequestError, match="heads dense and unet are for dense labels"):
        finetune(encoder, waves, "waves", tmp_path / "x", head="linear")
    swap = [Part("lead_reversal", LeadReversal(swaps=["V1-V2"]))]
    for label, kind in (("waves", None), ("state", "dense")):
        breaks = "breaks laterality" if label == "waves" else "here: I, II"  # of no single channel: the leads are looked at later
        with pytest.raises(RequestError, match=breaks):
            finetune(encoder, waves, label, tmp_path / "x", kind=kind, augment=swap)


def test_predict_writes_events_of_a_corpus(run: Path, waves: Corpus, result: dict[str, Any], tmp_path: Path) -> None:
    said = predict(run, waves.path, tmp_path / "events.parquet")
    table = pd.read_parquet(tmp_path / "events.parquet")
    assert said["rows"] == len(table) and said["decisions"] == table["label"].value_counts().to_dict()
    assert {"subject", "record", "channel", "label", "onset_s", "duration_s", "probability", "unfamiliar"} <= set(table)
    judged = pd.read_parquet(Path(result["out"]) / "predictions.parquet")
    keys = ["record", "channel", "label", "onset_s", "duration_s", "probability"]
    ours = judged[judged["source"] == "model"].sort_values(keys, ignore_index=True)
    test = table[table["record"].isin(set(judged["record"]))].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(test[keys], ours[keys], check_dtype=False)
    crossing = (table["onset_s"] < 4) & (table["onset_s"] + table["duration_s"] > 4)
    assert crossing.any()  # windows side by side: a wave may lie over their border


def test_intervals_are_judged_as_episodes(encoder: Path, waves: Corpus, tmp_path: Path) -> None:
    run = finetune(encoder, waves, "state", tmp_path / "run", kind="dense", mode="frozen", steps=5, batch_size=8)
    found = evaluate(run, waves)
    table = pd.read_parquet(Path(found["out"]) / "predictions.parquet")
    counts = []
    for _, each in table[table["label"] == "work"].groupby("record"):
        spans = {k: np.stack([v["onset_s"], v["onset_s"] + v["duration_s"]], axis=1) for k, v in each.groupby("source")}
        counts.append(count_episodes(spans["reference"], spans.get("model", []), 8.0))
    value = sum(c.shared_s for c in counts) / sum(c.reference_s for c in counts)
    assert found["episodes"]["work"]["duration_sensitivity"]["gross"]["value"] == pytest.approx(value, abs=1e-9)
    assert "false_alarms_per_day" in found["episodes"]["rest"] and "episode sensitivity" in as_text(found)


def test_neurokit_finds_the_beats_of_a_simulated_lead() -> None:
    import neurokit2 as nk

    x = nk.ecg_simulate(duration=8, sampling_rate=250, heart_rate=70, noise=0, random_state=1)
    beats = nk.ecg_peaks(nk.ecg_clean(x, sampling_rate=250), sampling_rate=250)[1]["ECG_R_Peaks"] / 250
    found = neurokit_waves(x, 250.0)["QRS"]
    inside = [((found[:, 0] <= b) & (found[:, 1] >= b)).any() for b in beats[1:-1]]
    assert np.mean(inside) > 0.8
    with pytest.raises(ValueError, match="nothing was observed"):
        neurokit_waves(np.full(100, np.nan), 250.0)
