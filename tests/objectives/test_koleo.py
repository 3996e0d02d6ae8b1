"""KoLeo against an explicit float64 loop, in the objectives that take it: gradients, gaps, two processes, collapse, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from objective_toys import assert_two_processes_have_the_gradients_of_one, reading, train
from torch import Tensor
from two_processes import needs_two_processes

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.heads import ProjectorConfig
from biossl.models.predictors import PredictorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.base import Objective
from biossl.objectives.jepa import JEPA, JEPAConfig
from biossl.objectives.losses import koleo
from biossl.objectives.masking import RandomMask
from biossl.objectives.redundancy import BarlowTwinsConfig, RedundancyReduction, VICRegConfig
from biossl.objectives.regularizers import RegularizerConfig
from biossl.objectives.simclr import SimCLR, SimCLRConfig
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPEC = InputSpec("imu", 50.0, 100, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s"))
KEYS = Keys(seed=3, step=5, position=torch.arange(6))
KOLEO = RegularizerConfig("koleo", of="pooled", weight=0.1)
HEAD = ProjectorConfig(hidden=16, out=8)


def make(name: str, regularizer: RegularizerConfig = KOLEO) -> Objective:
    torch.manual_seed(0)
    encoder = TransformerEncoder(
        SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, tokenizer="joint", init="fan_in", position="once")
    )
    augment = Pipeline([Gain(factor=[0.5, 2.0], per_channel=True).build(SPEC)])
    if name == "simclr":
        return SimCLR(encoder, SimCLRConfig(projector=HEAD, regularizer=regularizer), augment=augment)
    if name == "vicreg":
        return RedundancyReduction(encoder, VICRegConfig(projector=HEAD, regularizer=regularizer), augment=augment)
    if name == "barlow_twins":
        return RedundancyReduction(encoder, BarlowTwinsConfig(projector=HEAD, regularizer=regularizer), augment=augment)
    config = JEPAConfig(predictor=PredictorConfig(dim=8, depth=1, heads=2), n_masks=2, regularizer=regularizer)
    return JEPA(encoder, config, mask=RandomMask(0.5), steps=25)


NAMES = ("simclr", "vicreg", "barlow_twins", "jepa")


def rows(n: int = 7, d: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def slow(z: Tensor, use: list[bool] | None = None, mutant: str = "") -> Tensor:
    keep = [i for i in range(len(z)) if use is None or use[i]]
    u = {i: z[i] if mutant == "not_normalised" else z[i] / z[i].square().sum().sqrt() for i in keep}
    total = z.new_zeros(())
    for i in keep:
        distances = [(u[i] - u[j]).square().sum().sqrt() for j in keep if j != i]
        nearest = max(distances) if mutant == "farthest" else min(distances)
        total = total - (nearest + 1e-3).log()
    return total / (len(z) if mutant == "over_all" else len(keep))


@pytest.mark.parametrize("use", [None, [True, True, False, True, False, True, True]])
def test_value_and_gradient_equal_the_loop_and_a_wrong_one_would_be_seen(use: list[bool] | None) -> None:
    z, y = rows().requires_grad_(), rows().requires_grad_()
    got, want = koleo(z, weight=None if use is None else torch.tensor(use)), slow(y, use)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    got.backward()
    want.backward()
    torch.testing.assert_close(z.grad, y.grad, rtol=1e-3, atol=1e-5)
    for mutant in ("not_normalised", "farthest", *(["over_all"] if use else [])):
        assert abs(float(want.detach()) - float(slow(rows(), use, mutant))) > 1e-2


def test_rows_that_do_not_count_are_not_read_and_one_row_alone_is_nothing() -> None:
    use = torch.tensor([True, True, False, True, False, True, True])
    spoilt = torch.where(use[:, None], rows(), float("nan")).requires_grad_()
    got = koleo(spoilt, weight=use)
    got.backward()
    torch.testing.assert_close(got.detach(), koleo(rows()[use]))
    assert spoilt.grad is not None and bool(spoilt.grad.isfinite().all())
    for n in (0, 1):
        assert float(koleo(rows(), weight=torch.arange(7) < n)) == 0.0


def test_equal_rows_have_a_finite_gradient_and_nearly_equal_ones_are_pushed_apart() -> None:
    z = torch.ones(5, 4, requires_grad=True)
    loss = koleo(z)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(6.91, abs=0.01) and bool(z.grad.isfinite().all())  # type: ignore[union-attr]
    near = (torch.ones(5, 4) + 1e-3 * rows(5).float()).requires_grad_()
    koleo(near).backward()
    assert near.grad is not None and bool(near.grad.isfinite().all())
    assert float(koleo((near - 1e-3 * near.grad / near.grad.norm()).detach())) < float(koleo(near.detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(koleo(rows().float()), koleo(rows().float())) and koleo(rows().bfloat16()).dtype == torch.float32


def windows(n: int = 6) -> Batch:
    x = torch.randn(n, 2, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x, SPEC.ch_names, SPEC.sfreq, subject=torch.arange(n))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_added_with_its_weight_to_the_loss_of_every_objective(name: str) -> None:
    with_it = make(name).double().step(windows(), step=5, keys=KEYS)
    twice = make(name, RegularizerConfig("koleo", of="pooled", weight=0.2)).double().step(windows(), step=5, keys=KEYS)
    without = make(name, RegularizerConfig()).double().step(windows(), step=5, keys=KEYS)
    assert set(with_it.terms) - set(without.terms) == {"koleo"} and not with_it.terms["koleo"].requires_grad
    term = float(with_it.terms["koleo"])
    assert float(with_it.loss.detach() - without.loss.detach()) == pytest.approx(0.1 * term, rel=1e-3)
    assert float(twice.loss.detach() - without.loss.detach()) == pytest.approx(0.2 * term, rel=1e-3)
    if name != "jepa":
        assert term == pytest.approx(float(koleo(with_it.watch["embedding"])), rel=1e-4)  # of the first view


@pytest.mark.parametrize("name", NAMES)
def test_a_window_in_which_nothing_was_observed_counts_nowhere(name: str) -> None:
    model, batch = make(name).double(), windows()
    seen = torch.ones_like(batch.x, dtype=torch.bool)
    seen[4] = False
    holed = Batch(batch.x * seen, SPEC.ch_names, SPEC.sfreq, observed=seen, subject=batch.subject)
    keep = [0, 1, 2, 3, 5]
    fewer = Batch(batch.x[keep], SPEC.ch_names, SPEC.sfreq, subject=torch.tensor(keep))
    a, b = model.step(holed, step=5, keys=KEYS), model.step(fewer, step=5, keys=Keys(3, 5, torch.tensor(keep)))
    torch.testing.assert_close(a.terms["koleo"], b.terms["koleo"], rtol=1e-5, atol=1e-6)
    a.loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@needs_two_processes
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_gradients_of_one(name: str, tmp_path: Path) -> None:
    strong = RegularizerConfig("koleo", of="pooled", weight=5.0)
    model = make(name, strong).double()
    assert_two_processes_have_the_gradients_of_one(model, windows(), KEYS, store=tmp_path / "store", scaled=True)


@pytest.mark.parametrize("name", ["simclr", "jepa"])
def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run(name: str) -> None:
    healthy, ruined = make(name), make(name)
    start = reading(healthy, SPEC)["std"]
    train(healthy, SPEC, steps=25, lr=3e-3)
    ruined.encoder.norm.weight.detach().zero_()  # type: ignore[operator, union-attr]  # all tokens of all windows become the same
    assert alarm(reading(healthy, SPEC), start_std=start) == ""
    assert alarm(reading(ruined, SPEC), start_std=start) != ""


def test_what_cannot_be_meant_is_one_line() -> None:
    with pytest.raises(ValueError, match="^koleo compares windows; set of: pooled$"):
        RegularizerConfig("koleo")
    with pytest.raises(ValueError, match="weight must be above 0, .* not 0,"):
        RegularizerConfig("koleo", of="pooled", weight=0.0)
    with pytest.raises(ValueError, match="vicreg has the terms of the loss itself"):
        VICRegConfig(regularizer=RegularizerConfig("vicreg", of="pooled"))
    tokens: Any = RegularizerConfig("vicreg", of="tokens")
    for name in ("simclr", "barlow_twins"):
        with pytest.raises(
            RequestError, match=f"^objective.regularizer.of: tokens, but {name} compares windows; set of: pooled$"
        ):
            make(name, tokens)
    assert make("jepa").needs.in_batch
