"""What stands beside a locked model: a forest, gravity alone, the same network from scratch, other locked models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from corpus_factory import make_corpus

from biossl import protocol
from biossl.baselines import gravity_features
from biossl.checkpoint import load_encoder, save_encoder
from biossl.cli import main
from biossl.corpus import Corpus
from biossl.corpus.card import View
from biossl.downstream import finetune as module
from biossl.downstream import rivals
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.downstream.model import load_model
from biossl.downstream.rivals import forest
from biossl.errors import DataError, RequestError
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.probe import random_encoder
from biossl.protocol import Target
from biossl.signal import InputSpec


def chess(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two features whose signs agree or not: no line parts the classes."""
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(float)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "TREES", 30)


@pytest.fixture(scope="module")
def scratch(encoder: Path, corpus: Corpus, halves: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(encoder, corpus, "group", tmp_path_factory.mktemp("scratch") / "run", scratch=True, split=halves, steps=20)


def test_the_forest_finds_what_no_line_parts() -> None:
    (x, y), (a, b) = chess(300, 0), chess(200, 1)
    people = np.repeat(np.arange(30), 10).astype(str)
    target = Target("multiclass", y, ("no", "yes", "never"))
    found = forest(x, target, people, a, seed=0).prediction
    assert (found.argmax(1) == b).mean() > 0.9 and np.allclose(found.sum(1), 1) and (found[:, 2] == 0).all()
    assert (protocol.linear(x, target, people, a).prediction.argmax(1) == b).mean() < 0.7
    assert np.array_equal(found, forest(x, target, people, a, seed=0).prediction)


def test_the_forest_takes_values_unknown_labels_and_missing_features() -> None:
    x, y = chess(200, 2)
    people = np.repeat(np.arange(20), 10).astype(str)
    x[::7, 0] = np.nan
    two = np.stack([y, np.where(np.arange(200) < 100, 1 - y, np.nan)], axis=1)
    found = forest(x, Target("multilabel", two, ("a", "b")), people, x, seed=0).prediction
    whole = np.isfinite(x[:, 0])
    assert found.shape == (200, 2) and np.corrcoef(found[whole].T)[0, 1] < -0.8
    values = forest(x, Target("regression", 3 + 2 * y, ()), people, x, seed=0).prediction
    assert values.shape == (200,) and np.corrcoef(values[whole], y[whole])[0, 1] > 0.8 and 3 <= values.min() < values.max() <= 5


def test_gravity_is_how_the_sensor_lies_and_not_how_it_moves() -> None:
    names = ("gyro_x", "acc_x", "acc_y", "acc_z")
    spec = InputSpec("imu", 50.0, 100, names, ("gyro", "acc", "acc", "acc"), ("rad/s", "g", "g", "g"))
    lying = np.array([0.0, 0.6, 0.0, 0.8])
    shaking = np.sin(2 * np.pi * np.arange(100) / 10) * np.array([5.0, 1.0, 2.0, 0.5])[:, None]
    still, moving = np.repeat(lying[:, None], 100, 1), lying[:, None] + shaking
    a, b = gravity_features(np.stack([still, moving]), spec)
    assert np.allclose(a, [0.6, 0, 0.8, 1.0, *np.arccos([0.6, 0, 0.8])], atol=1e-6) and np.allclose(a, b, atol=1e-6)
    assert np.isnan(gravity_features(np.full((1, 4, 100), np.nan), spec)).all()


@pytest.mark.parametrize(("policy", "beside"), [("around_events", True), ("sliding", False)])
def test_spatial_patterns_stand_beside_models_of_eeg_trials_alone(policy: Any, beside: bool, tmp_path: Path) -> None:
    channels = ["C3", "C4", "Cz", "P3", "P4", "Pz"]
    view = View(sfreq=100, window_s=2, stride_s=2, channels=channels, policy=policy, event_kind="state")
    made = make_corpus(
        tmp_path / "c", modality="eeg", n_subjects=12, windows_per_subject=3, n_samples=200, n_channels=6, views={"main": view}
    )
    network = TransformerEncoder(
        made.spec, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.5, tokenizer="joint", attention="full")
    )
    start = save_encoder(network, tmp_path / "encoder", seen={"subjects": {"s:before"}})
    for label in ("group", "findings"):
        run = finetune(start, made, label, tmp_path / label, mode="frozen", steps=2, split="official")
        model, rows = load_model(run), np.arange(4)
        found, _ = rivals.rival_predictions(model, made, rows, model.kind, run, seed=0)
        assert (rivals.CSP in found) is (beside and label == "group")
        assert found[rivals.TANGENT].shape == (4, len(model.classes))  # covariances are of every kind of EEG window and label
    fewer = {"main": replace(view, channels=channels[:5])}
    other = make_corpus(tmp_path / "d", modality="eeg", n_samples=200, n_channels=5, views=fewer)
    assert rivals._trials(made, rows, other, rows, 0) == (
        "CSP + LDA: the corpora have other channels; left out" if beside else ""
    )
    assert rivals._tangent(made, rows, other, rows, 0) == "tangent space, linear: the corpora have other channels; left out"


def test_windows_too_short_for_the_filter_of_spatial_patterns_say_so(tmp_path: Path) -> None:
    view = View(sfreq=100, window_s=1, stride_s=1, channels=["C3", "C4", "Cz", "P3"], policy="around_events", event_kind="state")
    made = make_corpus(tmp_path / "c", modality="eeg", n_channels=4, n_samples=100, views={"main": view})
    assert rivals._trials(made, np.arange(2), made, np.arange(2), 0) == (
        "CSP + LDA: needs windows of 1.65 s or more at over 60 Hz; left out"
    )


def test_from_scratch_is_the_same_architecture_with_the_probes_random_weights(encoder: Path, scratch: Path) -> None:
    start = module._from_scratch(load_encoder(encoder), "auto", 4)
    twin, own = random_encoder(load_encoder(encoder), 4).state_dict(), load_encoder(encoder).state_dict()
    assert all(torch.equal(v, twin[k]) for k, v in start.state_dict().items())
    assert any(not torch.equal(v, twin[k]) for k, v in own.items())
    about = load_model(scratch).about
    assert about["scratch"] and about["mode"] == "full" and "random weights of seed 0" in about["choices"][0]
    assert "s:before" not in about["seen"]["subjects"].split()  # what the pretrained weights had seen, these have not
    with pytest.raises(RequestError, match="--mode frozen would leave random ones as they are"):
        module._from_scratch(load_encoder(encoder), "frozen", 0)


def test_from_scratch_no_block_learns_slower(encoder: Path, corpus: Corpus, halves: str, scratch: Path) -> None:
    recipe = (scratch / "recipe.yaml").read_text()
    assert "layer_decay: 1.0" in recipe


def test_another_locked_model_stands_beside_on_the_same_rows(
    locked: Path, scratch: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    found = evaluate(locked, corpus, split=halves, baselines=False, beside=[scratch, locked], out=tmp_path / "a")
    alone = evaluate(scratch, corpus, split=halves, baselines=False, out=tmp_path / "b")
    first, itself = found["rivals"]
    assert first["model"] == f"{scratch} (from scratch)" and first["sha256"] == alone["model"]["sha256"]
    assert first["score"] == alone["scores"]["macro_f1"]
    assert first["minus"]["value"] == pytest.approx(found["scores"]["macro_f1"]["value"] - first["score"]["value"], abs=1e-12)
    assert (itself["minus"]["low"], itself["minus"]["value"], itself["minus"]["high"]) == (0, 0, 0)


def test_a_model_that_has_seen_the_judged_or_is_of_another_label_is_refused(
    locked: Path, encoder: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    seer = finetune(encoder, corpus, "group", tmp_path / "seer", mode="frozen", split="official", steps=5)
    overlap = set(corpus.index["subject"][corpus.split("official") == "train"])
    overlap &= set(corpus.index["subject"][corpus.split(halves) == "test"])
    judged: dict[str, Any] = {"split": halves, "baselines": False, "out": tmp_path / "x"}
    with pytest.raises(DataError, match=rf"--beside .*seer: it has seen {len(overlap)} of the 5 judged subjects"):
        evaluate(locked, corpus, beside=[seer], **judged)
    flagged = evaluate(locked, corpus, beside=[seer], allow_seen=True, **judged)
    assert any("seer has seen" in n and "optimistic" in n for n in flagged["notes"])
    other = finetune(encoder, corpus, "findings", tmp_path / "other", mode="frozen", split=halves, steps=5)
    with pytest.raises(
        RequestError, match=r"--beside .*other: a model of 'findings' \(multilabel\); the judged one is of 'group'"
    ):
        evaluate(locked, corpus, beside=[other], **judged | {"overwrite": True})


def test_the_verbs_put_several_models_beside(
    locked: Path, scratch: Path, corpus: Corpus, halves: str, tmp_path: Path, capsys: Any
) -> None:
    done = main(
        ["evaluate", str(locked), str(corpus.path), "--splits", halves, "--no-baselines", "--beside", str(scratch), "--beside",
         str(locked), "--per", "subject", "--out", str(tmp_path / "a")]
    )  # fmt: skip
    text = capsys.readouterr().out
    assert (
        done == 0
        and text.count("from scratch") == 1
        and "this model minus that" in text
        and "judged as 5 subjects: 20 windows" in text
    )
    assert len(pd.read_parquet(tmp_path / "a" / "predictions.parquet")) == 5
