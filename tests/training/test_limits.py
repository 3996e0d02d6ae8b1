"""Numbers that mean nothing are refused before anything is read or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_factory import make_corpus
from training_toys import small_recipe

from biossl.errors import DataError, MachineError, RequestError
from biossl.recipe import Recipe, load_recipe
from biossl.recipe.check import check_pair
from biossl.recipe.limits import remarks
from biossl.training import pretrain


@pytest.mark.parametrize(
    "key, value",
    [
        ("data.batch_size", "0"), ("data.workers", "-1"), ("train.steps", "0"), ("train.steps", "-5"), ("train.accumulate", "0"),
        ("train.optimizer.lr", "-1"), ("train.optimizer.lr", "0"), ("train.optimizer.betas", "[2, 3]"),
        ("train.optimizer.betas", "[0.9]"), ("train.optimizer.layer_decay", "0"), ("train.optimizer.layer_decay", "1.1"),
        ("train.clip_norm", "-1"), ("checkpoint.every", "0"), ("checkpoint.keep", "0"),
        ("monitor.every", "-1"), ("seed", "-1"),
    ],
)  # fmt: skip
def test_a_number_without_meaning_names_its_key_and_leaves_no_folder(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(RequestError, match=f"key '{key}' must be"):
        pretrain(small_recipe(**{key.replace(".", "__"): value}), [], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_size_of_the_model_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=5, n_samples=64)
    with pytest.raises(RequestError, match="heads at least 1"):
        pretrain(small_recipe(model__heads=0), [(corpus, 1.0)], tmp_path / "run")

    def full(self: Recipe, spec: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 192000000000000 bytes")

    monkeypatch.setattr(Recipe, "build", full)
    with pytest.raises(MachineError, match="does not fit in memory"):
        pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"finished": true}'])
def test_a_run_file_of_another_shape_is_damaged(tmp_path: Path, content: str) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=5, n_samples=64)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(json.loads(content)))
    with pytest.raises(DataError, match="run.json: damaged"):
        pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")


def test_a_warm_up_longer_than_the_run_is_told_with_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", windows_per_subject=2, n_samples=64)
    recipe = small_recipe(train__steps=2, train__schedule__warmup_steps=24)
    text = "train.steps 2 ends before the warm-up (train.schedule.warmup_steps 24)"
    assert text in remarks(recipe)[0] and remarks(small_recipe()) == []
    assert any(text in f.text and f.kind == "note" for f in check_pair(recipe, corpus))
    pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert capsys.readouterr().err.count(text) == 1


def test_a_run_too_short_for_the_phases_of_its_schedule_is_told() -> None:
    """The rate would jump from the warm-up into the anneal, and nothing could be gone on with."""
    schedule = "{name: infinite, warmup_steps: 5, cooldown_steps: 5, constant_lr: 1.0e-4, anneal_steps: 5}"
    recipe = load_recipe("imu/jepa_small", {"train.schedule": schedule, "train.steps": "14"})
    assert "train.steps 14 is too short for the phases of the schedule, 15 steps in all" in remarks(recipe)[0]
    assert remarks(load_recipe("imu/jepa_small", {"train.schedule": schedule, "train.steps": "15"})) == []


def test_an_augmentation_that_breaks_the_label_the_run_is_watched_by_is_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", windows_per_subject=5, n_samples=64, labels=True)
    corpus.card.labels["state"].depends.append("posture")
    recipe = small_recipe(monitor__probe__label="state", augment="[{name: sign_flip}]")
    with pytest.raises(RequestError, match=r"sign_flip breaks posture .*\(label 'state'\)"):
        pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()
