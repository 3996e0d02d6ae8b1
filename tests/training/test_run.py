"""Whole runs: killed anywhere and gone on with to the same bits; damaged, differing, finished and foreign folders."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_factory import make_corpus
from run_toys import assert_log, assert_same, forks, rows, unfinished
from safetensors.torch import load_file
from training_toys import small_recipe

from biossl.atomic import folder_lock
from biossl.checkpoint import load_encoder
from biossl.corpus import Corpus, make_split, subject_keys
from biossl.errors import DataError, RequestError
from biossl.recipe import Recipe, load_recipe
from biossl.training import pretrain, state
from biossl.training.data import make_sources
from biossl.training.loop import Loop


def killed(prepare: Callable[[], None], recipe: Recipe, corpus: Corpus, out: Path) -> None:
    """Run in a child that ``prepare`` arranges to be killed with SIGKILL."""

    def child() -> None:
        prepare()
        pretrain(recipe, [(Corpus.open(corpus.path), 1.0)], out)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, hook: str = "optimizer_step") -> Callable[[], None]:
    """Arrange to die in ``hook`` of a step, before it does anything."""

    def prepare() -> None:
        usual = getattr(Loop, hook)

        def dying(self: Loop, *args: Any, **kwargs: Any) -> Any:
            if self.trainer.global_step == step:
                die()
            return usual(self, *args, **kwargs)

        setattr(Loop, hook, dying)

    return prepare


def at_call(name: str, number: int) -> Callable[[], None]:
    """Arrange to die in the ``number``-th call of a function of ``state.py`` (from 1): inside a checkpoint write."""

    def prepare() -> None:
        usual, count = getattr(state, name), [0]

        def dying(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                die()
            return usual(*args, **kwargs)

        setattr(state, name, dying)

    return prepare


# checkpoints are written after steps 3, 6 and 8; two optimiser files, so save_file is called twice a checkpoint
KILLS = {
    "before the first checkpoint": at_step(1),
    "in mid-epoch": at_step(4),
    "while the second checkpoint is written": at_call("save_file", 4),
    "before `latest` names the second checkpoint": at_call("write_text", 2 + 1),
}
MORE_KILLS = {
    **{f"step {s}": at_step(s) for s in (2, 3, 5, 6, 7)},
    **{f"in training_step of {s}": at_step(s, "training_step") for s in (3, 6)},
    **{f"sync {n}": at_call("_sync", n) for n in (1, 8, 14, 20, 26)},
    **{f"sums {n}": at_call("_sha256", n) for n in (2, 9, 16)},
}


@forks
@pytest.mark.parametrize("kill", KILLS)
def test_killed_and_gone_on_with_to_the_same_bits(kill: str, corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    killed(KILLS[kill], small_recipe(), corpus, tmp_path / "run")
    result = pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    assert (result["resumed_from"] is None) == (kill == "before the first checkpoint")
    assert_same(tmp_path / "run", whole)
    assert_log(tmp_path / "run", whole)
    assert not list((tmp_path / "run").rglob("*.partial*"))


@forks
def test_killed_with_workers_to_the_same_bits(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    recipe = small_recipe(data__workers=2)
    killed(at_step(5), recipe, corpus, tmp_path / "run")
    assert pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")["resumed_from"] == 3
    assert_same(tmp_path / "run", whole)  # which had no workers


@forks
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kill", MORE_KILLS)
def test_killed_anywhere(kill: str, workers: int, corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    recipe = small_recipe(data__workers=workers)
    killed(MORE_KILLS[kill], recipe, corpus, tmp_path / "run")
    pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert_same(tmp_path / "run", whole)
    assert_log(tmp_path / "run", whole)


@forks
@pytest.mark.slow
def test_killed_three_times_with_accumulation_and_two_corpora(corpus: Corpus, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "o", modality="imu", n_subjects=3, windows_per_subject=3, n_samples=64, name="synthetic_other")
    recipe = small_recipe(train__accumulate=2)
    corpora = [(corpus, 1.0), (other, 2.0)]
    pretrain(recipe, corpora, tmp_path / "whole")

    def child(step: int) -> None:
        at_step(step)()
        pretrain(recipe, corpora, tmp_path / "run")

    for step in (2, 4, 7):
        process = multiprocessing.get_context("fork").Process(target=child, args=(step,))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    pretrain(recipe, corpora, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_what_a_run_leaves(corpus: Corpus, whole: Path) -> None:
    assert sorted(p.name for p in whole.iterdir()) == ["checkpoints", "encoder", "log.csv", "recipe.yaml", "run.json"]
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["latest", "step-00000006", "step-00000008"]
    assert load_recipe(whole / "recipe.yaml").to_dict() == small_recipe().to_dict()
    facts = json.loads((whole / "run.json").read_text())
    assert facts["finished"] and facts["plan"]["corpora"][0]["hash"] == corpus.hash and facts["seed"] == 0
    assert {"torch", "lightning", "biossl"} <= set(facts["versions"]) and facts["wall_s"] > 0
    assert facts["numbers"]["loss"] > 0 and facts["seen_subjects"] == 4
    first = rows(whole)[1]
    wanted = "step loss grad_norm lr weight_decay momentum samples_per_s std rankme_centred rankme_uncentred"
    assert set(f"{wanted} target_variance prediction_variance probe".split()) <= set(first)
    assert float(first["samples_per_s"]) > 0 and float(first["momentum"]) > 0.9
    encoder = load_encoder(whole)
    sources, _ = make_sources([(corpus, 1.0)])
    assert set(encoder.info["seen"]["subjects"]) == subject_keys(corpus, sources[0].rows)
    assert encoder.info["seen"]["corpora"][0]["hash"] == corpus.hash
    assert torch.equal(encoder.norm.weight, load_file(whole / "encoder" / "weights.safetensors")["norm.weight"])


def test_a_finished_a_foreign_and_a_differing_run_are_refused(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="exists, a finished run; give another --out or --overwrite"):
        pretrain(small_recipe(), [(corpus, 1.0)], whole)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RequestError, match="no run of `biossl pretrain`"):
            pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "mine"


def test_a_run_folder_has_one_writer(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held while it trains, and given back."""
    refused = []
    save = state.RunCheckpointIO.save_checkpoint

    def try_another(self: state.RunCheckpointIO, *args: Any, **more: Any) -> None:
        with pytest.raises(RequestError, match="another biossl process is writing there"):
            pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
        refused.append(True)
        save(self, *args, **more)

    monkeypatch.setattr(state.RunCheckpointIO, "save_checkpoint", try_another)
    pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    assert refused
    with folder_lock(tmp_path / "run"):
        pass


def test_another_recipe_or_corpus_is_not_mixed_into_a_run(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    run = unfinished(whole, tmp_path / "run")
    with pytest.raises(RequestError, match=r"recipe.train.optimizer.lr: [0-9.]+ there, 0.002 asked for"):
        pretrain(small_recipe(train__optimizer__lr=0.002), [(corpus, 1.0)], run)
    other = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=5, n_samples=64, seed=9)
    with pytest.raises(RequestError, match=r"corpora\[0\].hash"):
        pretrain(small_recipe(), [(other, 1.0)], run)
    pretrain(small_recipe(train__steps=2), [(corpus, 1.0)], run, overwrite=True)
    assert [r["step"] for r in rows(run)] == ["0", "2"]


def test_the_split_trained_on_is_kept_and_another_one_is_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None was named: the only split there is was taken, and later another is the only one."""
    corpus = make_corpus(tmp_path / "c", modality="imu", windows_per_subject=5, n_samples=64, splits={})
    make_split(corpus, "cv", folds=3)
    pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "whole", split="cv")
    assert "split cv: fold 0 of 3; --splits cv:1 is another" in capsys.readouterr().err
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["plan"]["corpora"][0]["split"] == "cv:0"
    pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "unnamed")
    run = unfinished(tmp_path / "unnamed", tmp_path / "run")
    (corpus.path / "splits" / "cv.parquet").unlink()
    make_split(corpus, "mine", folds=3)
    with pytest.raises(RequestError, match=r"corpora\[0\].split: cv:0 there, mine:0 asked for"):
        pretrain(small_recipe(), [(corpus, 1.0)], run)


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_writes_a_checkpoint_and_the_run_goes_on(
    number: signal.Signals, corpus: Corpus, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    usual = Loop.optimizer_step

    def interrupting(self: Loop, *args: Any, **kwargs: Any) -> None:
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), number)
        usual(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "optimizer_step", interrupting)
        with pytest.raises(KeyboardInterrupt):
            pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    assert "stopped after step 5; its checkpoint is in" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step-00000005\n"
    assert signal.getsignal(number) == before
    assert pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")["resumed_from"] == 5
    assert_same(tmp_path / "run", whole)


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_the_workers_end_the_step(
    number: signal.Signals, corpus: Corpus, tmp_path: Path
) -> None:
    """What Ctrl-C, a queue's cancel and a container's stop do."""
    usual = Loop.optimizer_step

    def interrupting(self: Loop, *args: Any, **kwargs: Any) -> None:
        if self.trainer.global_step == 4:
            subprocess.run(
                ["kill", f"-{int(number)}", "--", f"-{os.getpgrp()}"]
            )  # from outside: a worker obeys its parent quietly
            time.sleep(1.0)  # a worker that dies of it is noticed now
        usual(self, *args, **kwargs)

    def child() -> None:
        os.setpgid(0, 0)
        Loop.optimizer_step = interrupting  # type: ignore[method-assign]
        try:
            pretrain(small_recipe(data__workers=2, train__steps=64), [(Corpus.open(corpus.path), 1.0)], tmp_path / "run")
        except KeyboardInterrupt:
            os._exit(130)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == 130
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step-00000005\n"


def test_init_begins_from_an_encoder_and_remembers_whom_it_has_seen(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "site_b", modality="imu", n_subjects=3, n_samples=64, name="synthetic_b")
    recipe = small_recipe(
        train__steps=1, train__optimizer__lr=1e-12, train__schedule__start_lr=0, train__optimizer__weight_decay=0
    )
    pretrain(recipe, [(other, 1.0)], tmp_path / "run", init=whole / "encoder")
    old, new = load_encoder(whole), load_encoder(tmp_path / "run")
    for k, v in old.state_dict().items():
        assert torch.allclose(v, new.state_dict()[k], atol=1e-6), k
    assert set(old.info["seen"]["subjects"]) < set(new.info["seen"]["subjects"])
    assert [c["name"] for c in new.info["seen"]["corpora"]] == ["imu", "site_b"]
    with pytest.raises(RequestError, match="model.dim: 16 there, 32 in the recipe"):
        pretrain(small_recipe(model__dim=32), [(other, 1.0)], tmp_path / "x", init=whole / "encoder")
    longer = make_corpus(tmp_path / "longer", modality="imu", n_subjects=3, n_samples=128)
    with pytest.raises(DataError, match="n_samples: 64 here, 128 there"):
        pretrain(small_recipe(), [(longer, 1.0)], tmp_path / "x", init=whole / "encoder")
    assert not (tmp_path / "x").exists()


def test_a_split_that_shares_subjects_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    twin = make_corpus(tmp_path / "twin", modality="imu", windows_per_subject=5, n_samples=64, seed=3)
    frame = twin.index.copy()
    frame["split"] = frame["split"].map({"train": "test", "test": "train", "val": "train"})
    twin.__dict__["index"] = frame
    with pytest.raises(DataError, match="subjects"):
        pretrain(small_recipe(), [(corpus, 1.0), (twin, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()
