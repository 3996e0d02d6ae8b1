"""Fine-tuning end to end: choices inside training, the locked model, every kind of label, kill and resume, self-training."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_toys import forks
from safetensors.torch import load_file

from biossl.cli import main
from biossl.corpus import Corpus
from biossl.downstream import choices
from biossl.downstream import finetune as module
from biossl.downstream.finetune import choose_mode, finetune
from biossl.downstream.model import Task, load_model, make_task, predict_rows, score
from biossl.errors import DataError, RequestError
from biossl.models.task_heads import AttentionHeadConfig, DenseHeadConfig
from biossl.recipe.schema import Part
from biossl.training.loop import Loop


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(v, right[k]) for k, v in left.items())


@pytest.fixture(scope="module")
def tuned(encoder: Path, corpus: Corpus, halves: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(encoder, corpus, "group", tmp_path_factory.mktemp("tuned") / "run", mode="full", split=halves, steps=40)


def test_the_locked_model_has_learnt_and_says_how_it_came_to_be(tuned: Path, corpus: Corpus, halves: str) -> None:
    model = load_model(tuned)
    p, part = predict_rows(model, corpus, np.arange(96)), corpus.split(halves).to_numpy()
    right = p.argmax(1) == (corpus.index["group"] == "fast").to_numpy()
    assert p.shape == (96, 2) and np.allclose(p.sum(1), 1)
    assert right[part == "train"].mean() > 0.85 and right[part == "test"].mean() > 0.6
    about = model.about
    assert (about["kind"], about["classes"], about["pool"], about["mode"]) == (
        "multiclass",
        ["slow", "fast"],
        "mean+std+max",
        "full",
    )
    assert about["choices"][0] == "mode full: asked for" and "part val (20 windows)" in about["choices"][1]
    seen = set(about["seen"]["subjects"].split())
    assert "s:before" in seen  # what the encoder had seen
    names = {s for s in seen if s.startswith("s:")}
    assert len(names) == 1 + 19  # 14 it was trained on, five it was chosen by, nobody of test
    assert about["seen"]["corpora"][-1]["windows"] == 76
    assert about["inner"]["by"] == "val" and about["trained"]["taken_at"] <= 40


def test_test_labels_and_windows_change_nothing(tuned: Path, encoder: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    task = make_task(corpus, "group")
    values = task.values.copy()
    test = np.flatnonzero(corpus.split(halves) == "test")
    values[test] = 1 - values[test]
    again = finetune(encoder, corpus, replace(task, values=values), tmp_path / "run", mode="full", split=halves, steps=40)
    assert same(again, tuned)
    values[0] = 1 - values[0]  # a training label does
    other = finetune(encoder, corpus, replace(task, values=values), tmp_path / "other", mode="full", split=halves, steps=40)
    assert not same(other, tuned)


def test_where_no_fold_holds_two_classes_the_last_weights_are_taken_and_a_line_says_so(
    encoder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    """One subject of each class and a part val of one class: whoever is held out, what is left is of one class."""
    group, part = corpus.index["group"].to_numpy(), corpus.split("official").to_numpy()
    first = [np.flatnonzero((part == "train") & (group == g))[:4] for g in ("slow", "fast")]
    assert len(set(corpus.index["subject"].iloc[np.concatenate(first)])) == 2
    run = finetune(encoder, corpus, "group", tmp_path / "run", split="official", rows=np.concatenate(first), steps=5)
    about = load_model(run).about
    assert about["trained"]["taken_at"] == 5 and about["inner"] is None
    assert "too few labelled subjects of each class to hold some out" in about["choices"][-1]


@forks
def test_killed_and_gone_on_with_to_the_same_model(
    tuned: Path, encoder: Path, corpus: Corpus, halves: str, tmp_path: Path
) -> None:
    def child() -> None:
        usual = Loop.optimizer_step

        def dying(self: Loop, *args: Any, **kwargs: Any) -> Any:
            if self.trainer.global_step == 21:
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(self, *args, **kwargs)

        Loop.optimizer_step = dying  # type: ignore[method-assign]
        finetune(encoder, Corpus.open(corpus.path), "group", tmp_path / "run", mode="full", split=halves, steps=40)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "run" / "model").exists()
    assert same(finetune(encoder, corpus, "group", tmp_path / "run", mode="full", split=halves, steps=40), tuned)


@forks
def test_lowrank_killed_while_it_chooses_goes_on_to_the_same_model(encoder: Path, corpus: Corpus, tmp_path: Path) -> None:
    kw: dict[str, Any] = {"mode": "lowrank", "steps": 10}

    def child() -> None:
        def dying(*_: Any, **__: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        choices.score = dying  # type: ignore[assignment]
        finetune(encoder, Corpus.open(corpus.path), "group", tmp_path / "run", **kw)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL and (tmp_path / "run" / "run.json").is_file()
    a = finetune(encoder, corpus, "group", tmp_path / "run", **kw)
    b = finetune(encoder, corpus, "group", tmp_path / "other", **kw)
    assert same(a, b)
    about = load_model(a).about
    # its part val holds one class only: a score there says nothing, so held-out training subjects decide
    assert "3 grouped folds of the training subjects (part val holds one class only)" in about["choices"][1]
    assert about["seen"]["corpora"][-1]["windows"] == 64 and not (a / "choice").exists()
    plain = {k for k in weights(a) if k.startswith("encoder.")}
    assert plain == {f"encoder.{k}" for k in load_file(encoder / "weights.safetensors")}  # merged: no adapter is left


KINDS: dict[str, Any] = {
    "multilabel": lambda c: make_task(c, "findings"),
    "regression": lambda c: make_task(c, "age"),
    "ordinal": lambda c: make_task(c, "group", kind="ordinal"),
    "binary": lambda c: replace(make_task(c, "group"), kind="binary", classes=("fast",)),
    "survival": lambda c: Task(
        "time", "survival", (), np.stack([make_task(c, "age").values[:, 0], make_task(c, "group").values[:, 0]], axis=1)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_label_trains_and_predicts(kind: str, encoder: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    task = KINDS[kind](corpus)
    weight = "sqrt" if kind in ("multilabel", "binary") else "none"
    run = finetune(encoder, corpus, task, tmp_path / "run", mode="frozen", split=halves, steps=10, class_weight=weight)
    rows = np.arange(0, len(corpus), 5)
    p = predict_rows(load_model(run), corpus, rows)
    assert p.shape == {"multilabel": (20, 2), "ordinal": (20, 2), "binary": (20, 1)}.get(kind, (20,))
    assert np.isfinite(p).all() and np.isfinite(score(task, rows, p)) and p.std() > 0
    if kind == "regression":  # in the label's own units
        assert 40 < p.mean() < 64
    elif kind != "survival":
        assert (p >= 0).all() and (p <= 1).all()
    unchanged = load_file(encoder / "weights.safetensors")
    assert all(torch.equal(v, unchanged[k[8:]]) for k, v in weights(run).items() if k.startswith("encoder."))


def test_dense_labels_of_a_task_that_is_given(encoder: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    values = np.repeat(make_task(corpus, "group").values, 128, axis=1)
    values[:, 40:] = np.nan  # half annotated
    task = Task("waves", "dense", ("slow", "fast"), values)
    head = Part("dense", DenseHeadConfig("joint", hidden=8, kernel=5))
    run = finetune(encoder, corpus, task, tmp_path / "run", mode="full", split=halves, steps=20, head=head)
    p = predict_rows(load_model(run), corpus, np.arange(4))
    assert p.shape == (4, 2, 128) and np.allclose(p.sum(1), 1)
    with pytest.raises(RequestError, match="heads dense and unet are for dense labels"):
        finetune(encoder, corpus, task, tmp_path / "x", split=halves, head="linear")
    with pytest.raises(RequestError, match="breaks timing"):
        finetune(encoder, corpus, task, tmp_path / "x", split=halves, head=head, augment="imu_strong")


def test_self_training_adds_unlabelled_training_windows_and_no_others(
    encoder: Path, corpus: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "TRUST", 0.6)
    given: list[np.ndarray] = []
    usual = module.train_rows

    def watched(case: Any, rows: np.ndarray, run: Path, **kw: Any) -> Any:
        given.append(rows)
        return usual(case, rows, run, **kw)

    monkeypatch.setattr(module, "train_rows", watched)
    some = np.flatnonzero(corpus.split(halves) == "train")[::2]
    run = finetune(encoder, corpus, "group", tmp_path / "run", mode="full", split=halves, rows=some, self_training=True, steps=40)
    line = load_model(run).about["choices"][-1]
    assert line.startswith("self-training: ") and "of 28 unlabelled training windows at confidence" in line
    n = int(line.split()[1])
    assert n > 0 and len(given) == 2 and (given[0] == some).all() and len(given[1]) == len(some) + n
    assert set(given[1]) <= set(np.flatnonzero(corpus.split(halves) == "train"))


def test_the_rank_of_adapters_is_given_on_the_command_line(
    encoder: Path, corpus: Corpus, halves: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["finetune", str(encoder), str(corpus.path), "--label", "group", "--splits", halves, "--steps", "5", "--overwrite"]

    def trained(*more: str) -> int:
        assert main([*base, "--out", str(tmp_path / "run"), *more]) == 0
        return int(re.findall(r"([\d,]+) of [\d,]+ parameters are trained", capsys.readouterr().err)[0].replace(",", ""))

    assert trained("--mode", "lowrank", "--rank", "4") < trained("--mode", "lowrank")
    assert main([*base, "--mode", "full", "--rank", "4"]) == 2 and "belongs to --mode lowrank" in capsys.readouterr().err
    assert main([*base, "--rank", "2"]) == 2 and "rank must be at least 4" in capsys.readouterr().err


def test_refusals_are_one_line(encoder: Path, tuned: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    task = make_task(corpus, "group")

    def refused(error: Any, text: str, label: Any = "group", **kw: Any) -> None:
        with pytest.raises(error, match=text):
            finetune(encoder, corpus, label, tmp_path / "refused", **{"split": halves, **kw})
        assert not (tmp_path / "refused").exists()

    refused(DataError, "no labelled window in part 'train'", replace(task, values=np.full_like(task.values, np.nan)))
    refused(DataError, "of one class; two are needed", replace(task, values=np.zeros_like(task.values)))
    refused(DataError, "there is nothing to predict", Task("v", "regression", (), np.ones_like(task.values)))
    refused(DataError, "no event in training", Task("t", "survival", (), np.repeat([[1.0, 0.0]], 96, 0).astype(np.float32)))
    refused(RequestError, "head 'lineal' is not known", head="lineal")
    refused(RequestError, "does not divide", head=Part("attention", AttentionHeadConfig(heads=3)))
    refused(RequestError, "self-training needs classes", "age", self_training=True)
    refused(RequestError, "cannot be taken as ordinal", "age", kind="ordinal")
    with pytest.raises(RequestError, match="model: exists"):
        finetune(encoder, corpus, "group", tuned, split=halves)
    broken = replace(corpus.card.labels["group"], depends=["posture"])
    other = Corpus.open(corpus.path)
    other.card.labels["group"] = broken
    with pytest.raises(RequestError, match=r"rotation breaks posture"):
        finetune(encoder, other, "group", tmp_path / "refused", split=halves, augment="imu_strong")


def test_a_damaged_model_is_not_loaded(tuned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tuned / "model", tmp_path / "model")
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(DataError, match="the bytes differ"):
        load_model(folder)
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(text.replace("name: linear", "name: attention"))
    with pytest.raises(DataError, match="damaged"):
        load_model(folder)


def test_mode_auto_goes_by_subjects_and_windows() -> None:
    assert [choose_mode(*n)[0] for n in ((2, 5000), (20, 100), (5, 5000), (20, 500), (8, 1000))] == [
        "frozen", "frozen", "lowrank", "lowrank", "full"
    ]  # fmt: skip
    assert choose_mode(20, 100)[1] == "100 labelled windows (under 200) are few: the encoder is left as it is"
