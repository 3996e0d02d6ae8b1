"""CPC against a slow float64 version with its gradients; stretches, gaps, two processes, collapse, what cannot be meant."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_toys import (
    RUINOUS,
    assert_gaps_never_count,
    assert_two_processes_have_the_gradients_of_one,
    reading,
    rhythms,
    train,
)
from torch import Tensor
from two_processes import needs_two_processes

from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.cpc import CPC, CPCConfig
from biossl.objectives.masking import RandomMask
from biossl.objectives.stretches import stretch
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, registers=1, init="fan_in", position="once")
HEAD = ProjectorConfig(hidden=12, out=6)
KEYS = Keys(seed=3, step=5, position=torch.arange(6))


def make(*, encoder: EncoderConfig = SMALL, **config: Any) -> CPC:
    torch.manual_seed(0)
    return CPC(TransformerEncoder(SPEC, encoder), CPCConfig(**{"ahead": 3, "past": 2, "projector": HEAD} | config))


def windows(n: int = 6) -> Batch:
    x = torch.randn(n, 3, 100, generator=torch.Generator().manual_seed(1))
    return Batch(x.double(), SPEC.ch_names, SPEC.sfreq)


def slow_loss(model: CPC, batch: Batch, keys: Keys, *, late: int = 0, placed: bool = False) -> Tensor:
    """One window, moment and pair at a time; ``late`` and ``placed`` are mistakes: moments too late, moments with their place."""
    K, t = model.config.ahead, model.config.temperature
    contexts, frames = [], []
    for b in range(len(batch)):
        one = Batch(batch.x[b : b + 1], batch.channels, batch.sfreq)
        tokens = model.encoder.tokenize(one)
        n, (start,) = model._past(tokens, Keys(keys.seed, keys.step, keys.position[b : b + 1]))
        assert model.config.past <= n and int(start) + n + K <= 10
        past = TimeKeep(torch.arange(int(start), int(start) + n)[None])
        contexts.append(model.encoder.encode(tokens, keep=past).x.mean(dim=1)[0])
        for k in range(K):
            at = int(start) + n + k + late
            first = Batch(one.x.roll(-10 * at, dims=2), one.channels, one.sfreq)  # the moment as first patch of a window
            first, keep = (one, at) if placed else (first, 0)
            frame = model.encoder.encode(model.encoder.tokenize(first), keep=TimeKeep(torch.tensor([[keep]])))
            frames.append(frame.x.mean(dim=1)[0])
    projected, ahead = model.projector(torch.stack(frames)), model.predictor(torch.stack(contexts))
    predictions, moments = {}, {}
    for b in range(len(batch)):
        for k in range(K):
            p, z = ahead[b, 6 * k : 6 * k + 6], projected[b * K + k]
            predictions[b, k], moments[b, k] = p / p.norm(), z / z.norm()
    losses = []
    for (b, k), p in predictions.items():
        below = torch.zeros(())
        for (a, m), z in moments.items():
            same = {"both": True, "same_sequence": a == b, "other_windows": a != b or m == k}[model.config.negatives]
            below = below + ((p @ z) / t).exp() * same
        losses.append(below.log() - p @ moments[b, k] / t)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("encoder", "config"),
    [
        (SMALL, {}),
        (dataclasses.replace(SMALL, attention="full"), {"negatives": "same_sequence", "temperature": 0.3}),
        (
            dataclasses.replace(SMALL, tokenizer="joint", registers=0, position="every_block"),
            {"negatives": "other_windows", "ahead": 2},
        ),
    ],
)
def test_loss_and_gradients_equal_a_slow_float64_version(encoder: EncoderConfig, config: dict[str, Any]) -> None:
    model = make(encoder=encoder, **config).double()
    reference = copy.deepcopy(model)
    batch = windows()
    out = model.step(batch, step=5, keys=KEYS)
    want = slow_loss(reference, batch, KEYS)
    assert float(out.loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    with torch.no_grad():  # the reference sees a moment too late, moments that know their place, and another step's cuts
        wrong = [slow_loss(reference, batch, KEYS, late=-1), slow_loss(reference, batch, KEYS, placed=True)]
        wrong.append(slow_loss(reference, batch, Keys(3, 6, KEYS.position)))
        assert min(abs(float(w) - float(want)) for w in wrong) > 1e-4 * float(want)
    out.loss.backward()
    want.backward()
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and bool(p.grad.abs().max() > 0), name
        torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=2e-5, msg=name)
    assert out.watch["embedding"].shape == (6, 16) and not out.watch["embedding"].requires_grad
    torch.testing.assert_close(out.watch["prediction"].square().mean(dim=1), torch.ones(6 * model.config.ahead))


def test_the_context_sees_nothing_of_what_follows() -> None:
    model, batch = make().double(), windows()
    n, start = model._past(model.encoder.tokenize(batch), KEYS)
    changed = batch.x.clone()
    for b in range(6):
        changed[b, :, 10 * (int(start[b]) + n) :] += 3.0
    a, b_ = (model.step(Batch(x, SPEC.ch_names, SPEC.sfreq), step=5, keys=KEYS) for x in (batch.x, changed))
    assert torch.equal(a.watch["embedding"], b_.watch["embedding"]) and not torch.equal(a.loss, b_.loss)


def test_pasts_of_a_run_have_every_length_and_reach_both_ends() -> None:
    model, tokens = make(), make().encoder.tokenize(Batch(windows().x.float(), SPEC.ch_names, SPEC.sfreq))
    cuts = [model._past(tokens, Keys(0, step, torch.arange(6))) for step in range(200)]
    assert {n for n, _ in cuts} == set(range(2, 8))
    assert {int(s) for _, start in cuts for s in start} == set(range(6))


def test_a_stretch_is_a_window_that_begins_there() -> None:
    net = make().encoder.double()
    x = windows().x
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.2
    for observed in (None, seen):
        batch = Batch(x if observed is None else x * seen, SPEC.ch_names, SPEC.sfreq, observed=observed)
        start = torch.tensor([0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1])  # two stretches of each window
        piece = stretch(net.tokenize(batch), start, 4)
        got = net.encode(piece)
        for row, first in enumerate(start.tolist()):
            turned = (None if t is None else t[row % 6 : row % 6 + 1].roll(-10 * first, dims=2) for t in (batch.x, observed))
            one = net.tokenize(Batch(*(t for t in [next(turned)]), SPEC.ch_names, SPEC.sfreq, observed=next(turned)))  # type: ignore[misc]
            want = net.encode(one, keep=TimeKeep(torch.arange(4)[None]))
            torch.testing.assert_close(got.x[row], want.x[0])
            assert torch.equal(got.observed[row], want.observed[0])
        assert piece.grid == (3, 4) and piece.channel.tolist()[11] == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="on a \\(C, P\\) grid"):
        stretch(dataclasses.replace(piece, grid=None), start, 2)


def test_a_batch_without_all_channels_is_served_by_name() -> None:
    model, x = make().double(), windows().x
    losses = [
        model.step(Batch(x[:, rows], tuple(SPEC.ch_names[r] for r in rows), SPEC.sfreq), step=5, keys=KEYS).loss
        for rows in ([0, 2], [2, 0])
    ]
    torch.testing.assert_close(*losses)


def test_gaps_never_count() -> None:
    model, batch = make().double(), windows()
    seen = torch.ones_like(batch.x, dtype=torch.bool)
    seen[4] = False
    seen[1, :, 35:60] = False
    assert_gaps_never_count(lambda batch, keys: model.step(batch, step=5, keys=keys).loss, model, batch, KEYS, seen)


@needs_two_processes
@pytest.mark.parametrize("negatives", ["both", "same_sequence"])
def test_two_processes_have_the_gradients_of_one(negatives: str, tmp_path: Path) -> None:
    model = make(negatives=negatives).double()
    assert_two_processes_have_the_gradients_of_one(model, windows(), KEYS, store=tmp_path / "store")


def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run() -> None:
    healthy, ruined = (make(projector=ProjectorConfig(hidden=32, out=16)) for _ in range(2))
    start = reading(healthy, SPEC)["std"]
    train(healthy, SPEC, steps=25, lr=3e-3)
    train(ruined, SPEC, steps=25, weight_decay=RUINOUS)
    after = reading(healthy, SPEC)
    assert alarm(after, start_std=start) == "" and after["prediction_variance"] > 0.05
    bad = reading(ruined, SPEC)
    assert alarm(bad, start_std=start) != "" and bad["prediction_variance"] < 0.01


def test_it_learns_to_tell_the_next_moments() -> None:
    model, batch, keys = make(), rhythms(SPEC, 12, 0), Keys(0, 0, torch.arange(12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.step(batch, step=0, keys=keys).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * math.log(12 * 3)  # guessing among all moments


@pytest.mark.parametrize(
    ("config", "mask", "text"),
    [
        ({"ahead": 9}, None, "objective.ahead: 9 patches after a past of 2 do not fit into a window of 10"),
        ({"past": 8}, None, "objective.ahead: 3 patches after a past of 8 do not fit"),
        ({}, RandomMask(0.5), "cpc hides nothing; leave the section out"),
    ],
)
def test_what_does_not_fit_is_one_line(config: dict[str, Any], mask: Any, text: str) -> None:
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        CPC(TransformerEncoder(SPEC, SMALL), CPCConfig(**{"ahead": 3, "past": 2} | config), mask=mask)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0"),
        ({"ahead": 0}, "at least 1 patch"),
        ({"past": 0}, "at least 1 patch"),
        ({"ahead": 1, "negatives": "same_sequence"}, "no other moment to tell apart"),
    ],
)
def test_settings_without_meaning_are_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CPCConfig(**config)


def test_windows_are_compared_unless_negatives_and_norm_are_of_one_sequence() -> None:
    layer = ProjectorConfig(hidden=12, out=6, norm="layer")
    assert make(projector=layer).needs.in_batch and make(negatives="same_sequence").needs.in_batch
    assert not make(negatives="same_sequence", projector=layer).needs.in_batch
