"""TS2Vec against a slow float64 version with its gradients; crops, gaps, two processes, collapse, what cannot be meant."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_toys import assert_gaps_never_count, assert_two_processes_have_the_gradients_of_one, reading, rhythms, train
from torch import Tensor
from two_processes import needs_two_processes

from biossl.batch import Batch, Tokens
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.masking import RandomMask
from biossl.objectives.ts2vec import TS2Vec, TS2VecConfig
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, registers=1, init="fan_in", position="once")
KEYS = Keys(seed=3, step=5, position=torch.arange(6))


def make(*, encoder: EncoderConfig = SMALL, **config: Any) -> TS2Vec:
    torch.manual_seed(0)
    return TS2Vec(TransformerEncoder(SPEC, encoder), TS2VecConfig(**config))


def windows(n: int = 6) -> Batch:
    x = torch.randn(n, 3, 100, generator=torch.Generator().manual_seed(1))
    return Batch(x.double(), SPEC.ch_names, SPEC.sfreq)


def slow_loss(model: TS2Vec, batch: Batch, keys: Keys, *, late: int = 0, unmasked: bool = False) -> Tensor:
    """Each crop of each window as a short window by itself; ``late`` and ``unmasked`` are mistakes."""
    alpha, D = model.config.alpha, model.encoder.dim
    here: dict[Any, Tensor] = {}
    for b in range(len(batch)):
        one, own = Batch(batch.x[b : b + 1], batch.channels, batch.sfreq), Keys(keys.seed, keys.step, keys.position[b : b + 1])
        tokens = model.encoder.tokenize(one)
        overlap, crops = model._crops(tokens, own)
        for v, ((start,), n, first) in enumerate(crops):
            begin = int(start) + (late if v else 0)
            assert 0 <= begin and begin + n <= 10 and first + overlap <= n
            grid = tokens.grid_view()[0][:, begin : begin + n].clone()  # (C, n, D)
            hidden = own.uniform((n,), 6_100_003 + v)[0] < model.config.masked
            if not unmasked:
                grid[:, hidden] = 0.0
            C = len(grid)
            numbers = torch.arange(C).repeat_interleave(n)[None] if C > 1 else torch.full((1, n), -1)
            seen = torch.ones(1, C * n, dtype=torch.bool)
            crop = Tokens(grid.reshape(1, C * n, D), torch.zeros(1, C * n), numbers, seen, grid=(C, n), complete=True)
            x = model.encoder.encode(crop).x.view(C, n, D).mean(dim=0) / D**0.25
            here |= {(v, b, t): x[first + t] for t in range(overlap)}
    L, total, scales = overlap, torch.zeros((), dtype=torch.float64), 0
    while L >= 1:
        for weight, fixed in ((alpha, 2), (1 - alpha, 1)):
            if fixed == 1 and L == 1:
                continue
            losses = [
                torch.stack([z @ y for j, y in here.items() if j != k and j[fixed] == k[fixed]]).logsumexp(0)
                - z @ here[1 - k[0], k[1], k[2]]
                for k, z in here.items()
            ]
            total = total + weight * torch.stack(losses).mean()
        scales, L = scales + 1, L // 2
        here = {(v, i, t): torch.maximum(here[v, i, 2 * t], here[v, i, 2 * t + 1]) for v, i, t in here if t < L}
    return total / scales


@pytest.mark.parametrize(
    ("encoder", "config"),
    [
        (SMALL, {}),
        (dataclasses.replace(SMALL, attention="full", registers=0), {"overlap": 6, "alpha": 0.8}),
        (dataclasses.replace(SMALL, tokenizer="joint", position="every_block"), {"overlap": 2, "masked": 0.2}),
    ],
)
def test_loss_and_gradients_equal_a_slow_float64_version(encoder: EncoderConfig, config: dict[str, Any]) -> None:
    model = make(encoder=encoder, **config).double()
    reference, batch = copy.deepcopy(model), windows()
    keys = next(k for k in (Keys(3, s, KEYS.position) for s in range(500)) if crops_differ(model, k))
    out, want = model.step(batch, step=5, keys=keys), slow_loss(reference, batch, keys)
    assert float(out.loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    with torch.no_grad():  # the reference sees a crop one patch off, no masking, and another step's crops
        wrong = [slow_loss(reference, batch, keys, late=-1), slow_loss(reference, batch, keys, unmasked=True)]
        wrong.append(slow_loss(reference, batch, Keys(4, keys.step, KEYS.position)))
        assert min(abs(float(w) - float(want)) for w in wrong) > 1e-4 * float(want)
    out.loss.backward()
    want.backward()
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and bool(p.grad.abs().max() > 0), name
        torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=2e-5, msg=name)
    assert float(out.loss.detach()) == pytest.approx(float(sum(out.terms.values())), rel=1e-6)
    assert out.watch["embedding"].shape == (6, 16) and not out.watch["embedding"].requires_grad


def crops_differ(model: TS2Vec, keys: Keys) -> bool:
    """Both crops have patches of their own, and the second can begin one earlier."""
    _, ((_, _, before), (start, _, _)) = model._crops(model.encoder.tokenize(windows()), keys)
    return before > 0 and bool((start > 0).all())


def test_crops_of_a_run_overlap_and_reach_everywhere() -> None:
    model = make(overlap=3)
    tokens = model.encoder.tokenize(Batch(windows().x.float(), SPEC.ch_names, SPEC.sfreq))
    lengths, ends = set(), set()
    for step in range(300):
        overlap, ((a, n, first), (b, m, second)) = model._crops(tokens, Keys(0, step, torch.arange(6)))
        assert torch.equal(a + first, b + second) and first + overlap == n and second == 0 and m >= overlap >= 3
        assert bool((a >= 0).all()) and bool((b + m <= 10).all())
        lengths.add(overlap)
        ends |= {int(a.min()), int((b + m).max())}
    assert lengths == set(range(3, 11)) and {0, 10} <= ends


def test_gaps_never_count() -> None:
    model, batch = make().double(), windows()
    seen = torch.ones_like(batch.x, dtype=torch.bool)
    seen[4] = False
    seen[1, :, 35:60] = False
    seen[2, 1] = False
    assert_gaps_never_count(lambda batch, keys: model.step(batch, step=5, keys=keys).loss, model, batch, KEYS, seen)


@needs_two_processes
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    model = make().double()
    assert_two_processes_have_the_gradients_of_one(model, windows(), KEYS, store=tmp_path / "store")


def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run() -> None:
    healthy, ruined = make(), make()
    start = reading(healthy, SPEC)["std"]
    train(healthy, SPEC, steps=25, lr=3e-3)
    ruined.encoder.norm.weight.detach().zero_()  # all tokens of all windows become the same
    after, bad = reading(healthy, SPEC), reading(ruined, SPEC)
    assert alarm(after, start_std=start) == "" and after["prediction_variance"] > 0.05
    assert alarm(bad, start_std=start) != "" and bad["prediction_variance"] < 1e-4


def test_it_learns_to_tell_moments() -> None:
    model, batch = make(masked=0.2), rhythms(SPEC, 12, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss = model.step(batch, step=0, keys=Keys(0, step % 4, torch.arange(12))).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


@pytest.mark.parametrize(
    ("config", "mask", "text"),
    [
        ({"overlap": 11}, None, "objective.overlap: 11 patches, but a window has 10; take fewer"),
        ({}, RandomMask(0.5), "ts2vec hides patches by objective.masked; leave the section out"),
    ],
)
def test_what_does_not_fit_is_one_line(config: dict[str, Any], mask: Any, text: str) -> None:
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        TS2Vec(TransformerEncoder(SPEC, SMALL), TS2VecConfig(**config), mask=mask)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"overlap": 0}, "overlap must be at least 2 patches, not 0"),
        ({"overlap": 1}, "overlap must be at least 2 patches, not 1"),
        ({"masked": 1.0}, "masked must be from 0 to below 1"),
        ({"alpha": 1.5}, "alpha from 0 to 1"),
    ],
)
def test_settings_without_meaning_are_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TS2VecConfig(**config)


def test_windows_are_compared_unless_times_alone_are() -> None:
    assert make().needs.in_batch and not make(alpha=0.0).needs.in_batch
