"""Everything behind the verbs with a convolutional encoder: probe, fine-tuning in each mode, dense labels, the locked model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from biossl.checkpoint import load_encoder, save_encoder
from biossl.compare.scratch import train_and_predict
from biossl.config import dump_yaml, load_yaml
from biossl.corpus import Corpus
from biossl.downstream import finetune as module
from biossl.downstream.decoding import macro_f1, sample_confusion
from biossl.downstream.finetune import finetune
from biossl.downstream.model import Task, load_model, make_task, predict_rows, score
from biossl.errors import RequestError
from biossl.inference import embed_corpus
from biossl.models.convnets import ConvConfig, ConvEncoder
from biossl.models.dense_heads import UNetHeadConfig
from biossl.models.task_heads import DenseHeadConfig
from biossl.probe import probe
from biossl.protocol import Target
from biossl.recipe.schema import Part
from biossl.training.run import _load_init

CONFIG = ConvConfig(widths=[8, 16], kernel=5, tokenizer="joint")


@pytest.fixture(scope="module")
def conv(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    return save_encoder(ConvEncoder(corpus.spec, CONFIG), tmp_path_factory.mktemp("conv") / "encoder", seen={"subjects": {"s:b"}})


def test_whole_and_frozen_learn_and_come_back(conv: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    before = load_file(conv / "weights.safetensors")
    for mode in ("full", "frozen"):
        run = finetune(conv, corpus, "group", tmp_path / mode, mode=mode, split=halves, steps=40, lr=1e-2)  # type: ignore[arg-type]
        model = load_model(run)
        assert isinstance(model.encoder, ConvEncoder) and model.encoder.config == CONFIG
        val = np.flatnonzero(corpus.split(halves) == "val")
        assert score(make_task(corpus, "group"), val, predict_rows(model, corpus, val)) > 0.65
        moved = [k for k, v in before.items() if not torch.equal(model.encoder.state_dict()[k], v)]
        assert len(moved) == (len(before) if mode == "full" else 0)
    recipe = load_yaml(tmp_path / "full" / "recipe.yaml")
    assert recipe["model"]["name"] == "convnet" and recipe["train"]["optimizer"]["layer_decay"] == 0.75


def test_lowrank_is_refused_and_auto_takes_the_whole(
    conv: Path, corpus: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="--mode lowrank: this encoder, a convnet, has no linear layer") as caught:
        finetune(conv, corpus, "group", tmp_path / "x", mode="lowrank", split=halves)
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()
    monkeypatch.setattr(module, "FEW_WINDOWS", 10)
    run = finetune(conv, corpus, "group", tmp_path / "auto", split=halves, steps=5)
    about = load_model(run).about
    assert about["mode"] == "full" and about["choices"][0].endswith(
        "few parameters are tuned, but a convnet has no linear layer to adapt: all weights are tuned"
    )


@pytest.mark.parametrize(
    "head", [Part("unet", UNetHeadConfig(hidden=8, kernel=5)), Part("dense", DenseHeadConfig("joint", 8, 5))]
)
def test_labels_of_every_sample(head: Part, conv: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    signal = corpus.signal(np.arange(len(corpus)))[:, 0]
    values = (signal > np.nanmedian(signal)).astype(np.float32)
    values[:, 100:] = np.nan  # the rest was not annotated
    task = Task("high", "dense", ("low", "high"), values)
    run = finetune(conv, corpus, task, tmp_path / "run", mode="full", split=halves, steps=25, head=head, lr=1e-2)
    val = np.flatnonzero(corpus.split(halves) == "val")
    p = predict_rows(load_model(run), corpus, val)
    assert p.shape == (len(val), 2, 128) and np.allclose(p.sum(1), 1)
    assert macro_f1(sample_confusion(load_model(run), corpus, task, val)) > 0.8
    again = predict_rows(load_model(run), corpus, val)
    assert np.array_equal(p, again)


def test_a_unet_is_refused_for_other_labels_and_encoders(
    conv: Path, encoder: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="--head unet: label 'group' is multiclass"):
        finetune(conv, corpus, "group", tmp_path / "x", split=halves, head="unet")
    values = np.repeat(make_task(corpus, "group").values, 128, axis=1)
    with pytest.raises(RequestError, match="this encoder is a transformer; take --head dense"):
        finetune(encoder, corpus, Task("w", "dense", ("a", "b"), values), tmp_path / "x", split=halves, head="unet", mode="full")
    assert not (tmp_path / "x").exists()


def test_a_model_folder_that_names_no_architecture_holds_a_transformer(
    encoder: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    run = finetune(encoder, corpus, "group", tmp_path / "run", mode="frozen", split=halves, steps=5)
    about = load_yaml(run / "model" / "model.yaml")
    assert about["encoder"].pop("architecture") == "transformer"
    rows = np.arange(4)
    p = predict_rows(load_model(run), corpus, rows)
    (run / "model" / "model.yaml").write_text(dump_yaml(about))
    assert np.array_equal(predict_rows(load_model(run), corpus, rows), p)
    folder = load_yaml(encoder / "encoder.yaml")
    assert folder.pop("architecture") == "transformer"
    for file in encoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "encoder.yaml").write_text(dump_yaml(folder))
    assert load_encoder(tmp_path).architecture == "transformer"


def test_probe_stages_one_at_a_time(conv: Path, corpus: Corpus, halves: str) -> None:
    found = probe(conv, corpus, "group", split=halves, part="val", layers=[0], out=None, baselines=False)
    assert len(found["layers"]) == 1 and found["layers"][0]["layer"] == 0
    with pytest.raises(RequestError, match="8, 16 wide.*take one at a time"):
        probe(conv, corpus, "group", split=halves, part="val", layers="all", out=None)
    stage = embed_corpus(load_encoder(conv), corpus, np.arange(3), layers=[0], pool="mean+max")
    assert stage.shape == (3, 1, 16)


def test_the_same_network_trains_from_scratch(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biossl.compare.scratch.LEAST_STEPS", 30)
    monkeypatch.setattr("biossl.compare.scratch.MOST_STEPS", 30)
    monkeypatch.setattr("biossl.compare.scratch.LR", 1e-2)
    task = make_task(corpus, "group")
    rows = np.flatnonzero(corpus.split("official") == "train")
    target = Target("multiclass", task.values[rows, 0].astype(np.float64), task.classes)
    torch.manual_seed(0)
    p, _, _ = train_and_predict(ConvEncoder(corpus.spec, CONFIG), corpus, rows, target, rows, pool="mean+max", seed=0)
    assert (p.argmax(1) == target.y).mean() > 0.8


def test_a_run_does_not_begin_from_another_architecture(conv: Path, encoder: Path, corpus: Corpus) -> None:
    from biossl.objectives.base import Objective

    class Holder(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = ConvEncoder(corpus.spec, CONFIG)

    held = Holder()
    assert _load_init(held, conv)["seen"]["subjects"] == ["s:b"]
    with pytest.raises(
        RequestError, match="another architecture than the recipe's .*model.name: transformer there, convnet in the"
    ):
        _load_init(held, encoder)
    held.encoder = ConvEncoder(corpus.spec, replace(CONFIG, widths=[8, 24]))
    with pytest.raises(RequestError, match=r"model.widths: \[8, 16\] there, \[8, 24\] in the recipe"):
        _load_init(held, conv)
