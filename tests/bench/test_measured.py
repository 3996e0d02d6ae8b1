"""Benchmarks measure the real code, count its operations right, and say what they measured under the harness's keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_factory import make_corpus
from training_toys import Toy, small_recipe, toy_loop

from biossl import cli
from biossl.bench import ceiling
from biossl.bench.data import simulated_corpus
from biossl.bench.draws import bench_augment, bench_masks
from biossl.bench.frame import summaries, threads
from biossl.bench.paths import bench_convert, bench_embed, bench_load
from biossl.bench.train import TimedLoop, bench_recipe, bench_train
from biossl.errors import MachineError
from biossl.objectives.base import SamplePlan
from biossl.recipe import load_recipe
from biossl.recipe.check import example_spec
from biossl.recipe.tables import CONFIGS
from biossl.training.data import make_order, make_sources
from biossl.training.trainer import fit

CPU = torch.device("cpu")
TINY = {
    "model.dim": "16", "model.depth": "2", "model.heads": "2", "objective.target_layers": "2", "objective.predictor.dim": "16",
    "objective.predictor.depth": "1", "objective.predictor.heads": "2",
}  # fmt: skip
ONCE: dict[str, Any] = {"steps": 1, "warmup": 0}


@pytest.fixture(autouse=True, scope="module")
def small_ceilings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ceiling.LARGE, "cpu", 32)
        patch.setitem(ceiling.COPIED, "cpu", 2**12)
        yield


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """IMU windows of 16 patches of 48 values, width 16, two blocks; 4 masks of 11 patches; a predictor of one block."""
    return bench_train(load_recipe("imu/jepa_small", TINY), batch=4, steps=2, warmup=1, precision="bf16", device=CPU)


def block(tokens: int, dim: int = 16) -> int:
    """Operations of a block: four products of width D, an MLP of 4 D, scores and values."""
    return tokens * (8 * dim**2 + 16 * dim**2) + 4 * tokens**2 * dim


def test_a_training_step_has_the_keys_of_the_harness(trained: dict[str, Any]) -> None:
    assert {"median", "min", "max", "n"} <= trained["seconds_per_step"].keys()
    assert trained["seconds_per_step"]["n"] == 2
    assert trained["samples_per_s"] == pytest.approx(4 / trained["seconds_per_step"]["median"])
    assert trained["peak_memory_bytes"] > 0 and trained["trainable_params"] == 11248
    assert len(trained["loss_first_last"]) == 2 and all(0 < loss < 10 for loss in trained["loss_first_last"])
    assert trained["masked_fraction"]["median"] == 11 / 16


def test_operations_of_a_training_step_are_those_of_a_hand_count(trained: dict[str, Any]) -> None:
    embed, narrow = 2 * 16 * 48 * 16, 2 * 16 * 16
    target = embed + 2 * block(16)  # forward alone
    tokens = 2 * embed  # the signal has no gradient
    context = 3 * 4 * 2 * block(5)
    predictor = 3 * 4 * (5 * narrow + block(16) + 11 * narrow)
    assert trained["flops_per_step"]["median"] == 4 * (target + tokens + context + predictor)
    rate = trained["flops_per_step"]["median"] / trained["seconds_per_step"]["median"]
    assert trained["achieved_gflops"] == pytest.approx(rate / 1e9)
    assert trained["share_of_ceiling"] == pytest.approx(trained["achieved_gflops"] / trained["ceiling_gflops"])


def test_operations_of_an_embedding_are_those_of_a_hand_count() -> None:
    found = bench_embed(load_recipe("imu/jepa_small", TINY), batch=3, **ONCE, device=CPU)
    assert found["flops_per_batch"] == 3 * (2 * 16 * 48 * 16 + 2 * block(16))
    assert found["seconds_per_batch"]["n"] == 1 and found["samples_per_s"] > 0


def test_what_is_timed_is_the_step_of_the_training_loop(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=5, n_samples=64)
    recipe = bench_recipe(small_recipe(train__accumulate=2), batch=8, precision="fp32", steps=8)
    sources, _ = make_sources([(corpus, 1.0)])
    plain, timed = Toy(), Toy()
    fit(toy_loop(plain, recipe, sources), device="cpu")
    loader = toy_loop(timed, recipe, sources).loader
    loop = TimedLoop(timed, recipe, sources=sources, loader=loader, warmup=1, steps=2)
    fit(loop, device="cpu")
    assert sorted(timed.source_after) == [0, 1, 2, 3]  # one before, two timed, one counted
    for step, state in timed.source_after.items():  # the loss holds the averaged copy: its updates were made as well
        assert all(torch.equal(value, plain.source_after[step][name]) for name, value in state.items())
    assert len(loop.times.wall) == len(loop.times.cpu) == 2 and len(loop.losses) == 4 and loop.flops > 0


def test_out_of_memory_is_one_line_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("biossl.bench.train.fit", full)
    with pytest.raises(MachineError, match="^--batch 4: out of memory; take fewer$"):
        bench_train(load_recipe("imu/jepa_small", TINY), batch=4, steps=1, warmup=0, precision="fp32", device=CPU)


@pytest.mark.parametrize(
    "plan",
    [
        SamplePlan(pairing="adjacent"),
        SamplePlan(pairing="same_subject", several_subjects=True),
        SamplePlan(sampler="motion"),
        SamplePlan(sampler="subjects", windows_per_subject=8, several_subjects=True),
        SamplePlan(queue=40, in_batch=True),
    ],
    ids=["adjacent", "same subject", "motion", "subjects", "queue"],
)
def test_the_simulated_corpus_serves_every_plan(plan: SamplePlan, tmp_path: Path) -> None:
    spec = example_spec(load_recipe("imu/jepa_small"))
    corpus = simulated_corpus(tmp_path / "corpus", spec, windows=16, plan=plan)
    assert corpus.spec == spec
    sources, _ = make_sources([(corpus, 1.0)])
    order, notes = make_order(sources, plan, batch_size=16, accumulate=1, seed=0, steps=2)
    assert len(order.rows(1)[1]) == 16 and notes == []


def test_loader_and_conversion_say_their_rates() -> None:
    recipe = load_recipe("imu/jepa_small", TINY)
    loaded = bench_load(recipe, batch=4, steps=2, warmup=1)
    first = loaded["seconds_per_sample"]["first_epoch"]
    assert loaded["samples_per_s_one_process"] == pytest.approx(1 / first["median"]) and first["n"] == 2
    converted = bench_convert(recipe, batch=1, **ONCE)
    assert converted["records"] == 1 and converted["windows"] > 100
    assert converted["records_per_s"] == pytest.approx(1 / converted["seconds_per_record"]["median"])


def test_every_augmentation_and_mask_of_the_tables_is_timed() -> None:
    changed = bench_augment(batch=2, **ONCE, device=CPU)
    assert changed["seconds_per_call"].keys() == CONFIGS["augment"].keys()
    assert changed["shapes"]["fourier_surrogate"] == [2, 12, 2500] and changed["shapes"]["tilt"] == [2, 6, 2500]
    drawn = bench_masks(load_recipe("ecg/jepa"), batch=2, **ONCE, device=CPU)
    assert {*drawn["seconds_per_call"], *drawn["left_out"]} == CONFIGS["mask"].keys() and drawn["grid"] == [8, 50]
    assert {"random", "multi_block", "channel"} <= drawn["seconds_per_call"].keys()
    one_call = drawn["seconds_per_call"]["random"]["median"]
    assert drawn["masks_per_s"]["random"] == pytest.approx(drawn["masks_per_call"]["random"] / one_call)


def test_ceilings_are_of_two_sizes_and_precisions_with_one_thread_and_all() -> None:
    with threads(2):
        found = ceiling.bench_ceiling(load_recipe("imu/jepa_small", TINY), batch=2, **ONCE, device=CPU)
        assert torch.get_num_threads() == 2  # as it was before
    names = {f"{p}_{size}_{t}t" for p in ("fp32", "bf16") for size in ("recipe", "large") for t in (1, 2)}
    assert found["flops_per_s"].keys() == names and found["bytes_per_s"].keys() == {"copy_1t", "copy_2t"}
    assert found["shapes"] == {"recipe": [32, 16, 64], "large": [32, 32, 32]}
    median = found["seconds_per_call"]["fp32_recipe_1t"]["median"]
    assert found["flops_per_s"]["fp32_recipe_1t"] == pytest.approx(2 * 32 * 16 * 64 / median)


def test_json_is_one_object_with_the_machine_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "load", "--recipe", "imu/jepa_small", "--batch", "2", "--steps", "1", "--warmup", "0", "--json"]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bench"] == "load" and "seconds_per_sample.first_epoch" in summaries(result)
    setting = result["setting"]
    assert setting["recipe"] == "imu/jepa_small" and setting["batch"] == 2 and setting["threads"] == torch.get_num_threads()
    assert setting["cpu_model"] and setting["torch"] == torch.__version__ and "precision" not in setting


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--recipe", "ecg/jeppa"], "did you mean 'ecg/jepa'"),
        (["train", "--precision", "fp16"], "invalid choice: 'fp16'"),
        (["train", "--recipe", "ecg/jepa", "--model.dimm", "8"], "dimm"),
        (["masks", "--precision", "bf16"], "--precision says nothing about masks"),
        (["augment", "--model.dim", "8"], "augment takes no recipe"),
        (["embed", "--steps", "0"], "--steps 0: give 1 or more"),
        (["load", "a.json"], "files belong to `biossl bench compare`"),
        (["compare", "a.json"], "two files, A.json and B.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["bench", *words])
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and said in lines[0]
