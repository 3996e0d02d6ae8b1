"""The loop: averages exact under accumulation, schedules by step, bad numbers stopped and named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from corpus_factory import make_corpus
from torch import Tensor
from training_toys import Toy, small_recipe, toy_loop

from biossl.batch import Batch
from biossl.errors import DataError
from biossl.keys import Keys
from biossl.objectives.base import Outcome
from biossl.training.data import Order, Source, make_sources
from biossl.training.log import TrainLog
from biossl.training.trainer import fit


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    path = tmp_path_factory.mktemp("loop") / "imu"
    return make_sources([(make_corpus(path, modality="imu", windows_per_subject=4, n_samples=40), 1.0)])[0]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_ema_is_exact_and_once_per_optimiser_step(sources: list[Source], accumulate: int) -> None:
    recipe = small_recipe(train__accumulate=accumulate, train__steps=6)
    toy = Toy()
    expected = {k: v.double().clone() for k, v in toy.target.state_dict().items()}
    fit(toy_loop(toy, recipe, sources), device="cpu")
    assert len(toy.given) == 6 * accumulate and sorted(toy.source_after) == list(range(6))
    for step in range(6):
        m = toy.momentum + 0.01 * step
        expected = {k: m * v + (1 - m) * toy.source_after[step][k] for k, v in expected.items()}
    moved = False
    for k, v in toy.target.state_dict().items():  # `mean` is a buffer
        assert torch.allclose(v.double(), expected[k], atol=1e-6), k
        moved |= not torch.equal(v, Toy().target.state_dict()[k])
    assert moved


@pytest.mark.parametrize("accumulate", [1, 4])
def test_what_follows_a_step_is_called_once_after_optimiser_and_averages(sources: list[Source], accumulate: int) -> None:
    seen: list[tuple[int, bool]] = []

    class Spy(Toy):
        def after_step(self) -> None:
            last = self.source_after[len(seen)]
            here = {k: v.double() for k, v in self.encoder.state_dict().items()}
            moved = not torch.equal(self.target.linear.weight, target)
            seen.append((len(self.given), moved and all(torch.equal(here[k], v) for k, v in last.items())))
            target.copy_(self.target.linear.weight)

    target = Toy().target.linear.weight.clone()
    fit(toy_loop(Spy(), small_recipe(train__accumulate=accumulate, train__steps=3), sources), device="cpu")
    assert seen == [(accumulate * n, True) for n in (1, 2, 3)]


def test_micro_batches_give_the_same_rows_keys_and_weights(sources: list[Source]) -> None:
    runs = []
    for accumulate in (1, 4):
        toy = Toy(momentum=0.5)
        fit(toy_loop(toy, small_recipe(train__accumulate=accumulate, train__steps=4), sources), device="cpu")
        rows = [r for _, given, _ in toy.given for r in given]
        draws = torch.cat([d for _, _, d in toy.given])
        runs.append((rows, draws, {k: v for k, v in toy.state_dict().items() if "mean" not in k}))
    (rows, draws, weights), (rows4, draws4, weights4) = runs
    assert rows == rows4 and torch.equal(draws, draws4)
    for k, v in weights.items():
        assert torch.allclose(v, weights4[k], atol=1e-5), k


def test_learning_rate_decay_and_momentum_are_those_of_the_step(sources: list[Source], tmp_path: Path) -> None:
    recipe = small_recipe(train__steps=5, train__optimizer__weight_decay_end=0.5)
    seen: list[tuple[float, float, float]] = []

    class Spy(Toy):
        def ema_momentum(self, step: int) -> float:
            groups = loop.optimizers().param_groups  # type: ignore[union-attr]
            if step not in self.source_after:
                seen.append((groups[0]["lr"], groups[0]["weight_decay"], groups[1]["weight_decay"]))
            return super().ema_momentum(step)

    loop = toy_loop(Spy(), recipe, sources, log=TrainLog(tmp_path / "log.csv"))
    fit(loop, device="cpu")
    assert seen == [(recipe.train.lr(s), recipe.train.weight_decay(s), 0.0) for s in range(5)]


def test_the_trainer_says_nothing(sources: list[Source], capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(toy_loop(Toy(), small_recipe(train__steps=1), sources), device="cpu")
    out, err = capfd.readouterr()
    assert out == "" and err == "" and [str(w.message) for w in caught] == []


class Broken(Toy):
    """Loss or gradient not finite at step 3, micro-batch 1."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        outcome = super().step(batch, step=step, keys=keys)
        if step == 3 and keys.micro == 1:
            zero = self.head.weight.sum() * 0.0
            outcome.loss = outcome.loss + (float("nan") * zero if self.what == "loss" else zero.abs().sqrt())
        return outcome


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_names_its_batch_and_moves_no_weight(sources: list[Source], what: str) -> None:
    recipe = small_recipe(train__accumulate=2)
    toy = Broken(what)
    order = Order([len(sources[0].rows)], [1.0], batch_size=8, seed=0, steps=8)
    rows = sources[0].rows[order.rows(3)[1][4:]]
    with pytest.raises(DataError, match=rf"step 3: {what} is not finite; batch: corpus imu, rows {rows[0]}, {rows[1]}") as caught:
        fit(toy_loop(toy, recipe, sources), device="cpu")
    text = str(caught.value)
    assert "\n" not in text and "record r0" in text and "largest amplitude" in text and "no checkpoint was written yet" in text
    assert all(bool(p.isfinite().all()) for p in toy.parameters()) and 3 not in toy.source_after


class Collapsing(Toy):
    """Its targets stop depending on the input."""

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        outcome = super().step(batch, step=step, keys=keys)
        if step >= 4:
            outcome.watch["target"] = torch.ones(8, 4)
        return outcome


def test_a_collapsed_run_stops_with_its_last_row_logged(sources: list[Source], tmp_path: Path) -> None:
    recipe = small_recipe(monitor__stop_after=6, train__steps=20)
    with pytest.raises(DataError, match="step 8: collapsed, target variance 0"):
        fit(toy_loop(Collapsing(), recipe, sources, log=TrainLog(tmp_path / "log.csv")), device="cpu")
    assert (tmp_path / "log.csv").read_text().splitlines()[-1].startswith("8,")


class Noisy(Toy):
    """Draws from the global generator, as dropout does."""

    drawn: list[Tensor]

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        self.drawn = [*getattr(self, "drawn", []), torch.rand(3)]
        return super().step(batch, step=step, keys=keys)


def test_dropout_is_a_function_of_seed_step_and_micro_batch(sources: list[Source]) -> None:
    runs = []
    for mess in (1, 99):
        torch.manual_seed(mess)
        noisy = Noisy(dropout=0.5)
        fit(toy_loop(noisy, small_recipe(train__accumulate=2, train__steps=3), sources), device="cpu")
        runs.append(torch.stack(noisy.drawn))
    assert torch.equal(*runs)
    assert len({tuple(r.tolist()) for r in runs[0]}) == 6  # no two micro-batches alike


def test_bf16_trains(sources: list[Source]) -> None:
    toy = Toy()
    fit(toy_loop(toy, small_recipe(train__precision="bf16", train__steps=2), sources), device="cpu")
    assert toy.head.weight.dtype == torch.float32 and len(toy.source_after) == 2


def test_loop_file_stays_short() -> None:
    import biossl.training.loop as module

    assert module.__file__ is not None and os.path.exists(module.__file__)
    assert len(Path(module.__file__).read_text().splitlines()) < 200
