"""LeJEPA against a slow float64 version with its gradients; two processes, collapse, and what cannot be meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_toys import RUINOUS, assert_two_processes_have_the_gradients_of_one, reading, train
from torch import Tensor, nn
from two_processes import needs_two_processes

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.heads import BatchNorm, ProjectorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.lejepa import LeJEPA, LeJEPAConfig
from biossl.objectives.masking import ChannelMask, MaskConfig, MultiBlockMask, PartitionMask, RandomMask
from biossl.objectives.regularizers import step_directions
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, registers=1)
KEYS = Keys(seed=3, step=5, position=torch.arange(6))
HEAD = ProjectorConfig(hidden=12, out=6)


def make(*, mask: MaskConfig | None = None, augment: bool = True, **config: Any) -> LeJEPA:
    torch.manual_seed(0)
    net = TransformerEncoder(SPEC, SMALL)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    settings = LeJEPAConfig(**{"directions": 8, "projector": HEAD} | config)
    pipeline = Pipeline([Gain(factor=[0.3, 3.0], per_channel=True).build(SPEC)]) if augment else None
    return LeJEPA(net, settings, mask=mask, steps=10, augment=pipeline)


def windows(n: int = 6, seed: int = 1) -> Batch:
    x = torch.randn(n, 3, 100, generator=torch.Generator().manual_seed(seed))
    return Batch(x, SPEC.ch_names, SPEC.sfreq)


def slow_projector(model: LeJEPA, rows: list[Tensor]) -> list[Tensor]:
    """Row by row, batch norm from the definition."""
    for layer in model.projector:
        if isinstance(layer, BatchNorm):
            mean = sum(rows, torch.zeros_like(rows[0])) / len(rows)
            var = sum(((r - mean) ** 2 for r in rows), torch.zeros_like(mean)) / len(rows)
            rows = [(r - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias for r in rows]
        else:
            rows = [layer(r) for r in rows]
    return rows


def slow_loss(model: LeJEPA, batch: Batch, keys: Keys, *, centre_of_all: bool = False, flat: bool = False) -> Tensor:
    """One view, sample, direction and knot at a time, in float64, differentiable."""
    cfg, B = model.config, len(batch)
    V = cfg.views + cfg.masked_views
    rows = []
    for v in range(V):
        for b in range(B):
            one = Batch(batch.x[b : b + 1], batch.channels, batch.sfreq)
            own = Keys(keys.seed, keys.step, keys.position[b : b + 1])
            if model.augment is not None:
                one = model.augment(one, own, view=v)
            tokens = model.encoder.tokenize(one)
            keep: Any = None
            if v >= cfg.views:
                assert model.mask is not None and tokens.grid is not None
                drawn = model.mask.draw(own, tokens.grid, v - cfg.views)
                keep = TimeKeep(drawn.visible) if model.mask.over == "time" else drawn.visible
            x = model.encoder.encode(tokens, keep=keep).x[0]
            rows.append(sum((x[i] for i in range(1, len(x))), x[0]) / len(x))
    z = slow_projector(model, rows)
    whole = V if centre_of_all else cfg.views
    agreement = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        centre = sum((z[v * B + b] for v in range(1, whole)), z[b]) / whole
        for v in range(V):
            agreement = agreement + ((z[v * B + b] - centre) ** 2).sum() / (V * B * len(centre))
    directions = step_directions(keys, cfg.directions, z[0][None]).double()
    groups = [z] if flat else [z[v * B : (v + 1) * B] for v in range(V)]
    gauss = torch.zeros((), dtype=torch.float64)
    for group in groups:
        for a in directions:
            for k in range(17):
                t = 3.0 * k / 16
                e = torch.exp(torch.tensor(-t * t / 2, dtype=torch.float64))
                real = sum(torch.cos(t * (r @ a)) for r in group) / len(group) - e
                imaginary = sum(torch.sin(t * (r @ a)) for r in group) / len(group)
                weight = 2 * 3.0 / 16 * (0.5 if k in (0, 16) else 1.0)
                gauss = gauss + len(group) * weight * (real**2 + imaginary**2) * e / (len(directions) * len(groups))
    return (1 - cfg.lam) * agreement + cfg.lam * gauss


@pytest.mark.parametrize(
    ("mask", "augment", "config"),
    [
        (None, True, {}),
        (RandomMask(0.5), False, {"views": 1, "masked_views": 3, "lam": 0.3}),
        (ChannelMask(0.5), True, {"views": 2, "masked_views": 2, "projector": ProjectorConfig(hidden=12, out=6, norm="layer")}),
    ],
)
def test_loss_and_gradients_equal_a_slow_float64_version(mask: Any, augment: bool, config: dict[str, Any]) -> None:
    model = make(mask=mask, augment=augment, **config).double()
    reference = copy.deepcopy(model)
    batch = windows()
    batch = Batch(batch.x.double(), batch.channels, batch.sfreq)
    out = model.step(batch, step=5, keys=KEYS)
    want = slow_loss(reference, batch, KEYS)
    assert float(out.loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    with torch.no_grad():  # the reference sees other normalisations, other masks and other directions
        assert abs(float(slow_loss(reference, batch, KEYS, flat=True)) - float(want)) > 1e-4 * float(want)
        assert abs(float(slow_loss(reference, batch, Keys(3, 6, KEYS.position))) - float(want)) > 1e-4 * float(want)
        if model.config.masked_views:
            assert abs(float(slow_loss(reference, batch, KEYS, centre_of_all=True)) - float(want)) > 1e-4 * float(want)
    out.loss.backward()
    want.backward()
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and bool(p.grad.abs().max() > 0), name
        torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=2e-5, msg=name)
    total = (1 - model.config.lam) * out.terms["agreement"] + model.config.lam * out.terms["sigreg"]
    assert float(out.loss.detach()) == pytest.approx(float(total), rel=1e-5)
    assert out.watch["embedding"].shape == (6, 16) and not out.watch["embedding"].requires_grad


def test_a_window_in_which_nothing_was_observed_counts_nowhere() -> None:
    model = make(mask=RandomMask(0.5), views=2, masked_views=1, projector=ProjectorConfig(hidden=12, out=6, norm="layer"))
    batch = windows()
    observed = torch.ones_like(batch.x, dtype=torch.bool)
    observed[5] = False
    x = torch.where(observed, batch.x, 0.0)
    out = model.step(Batch(x, batch.channels, batch.sfreq, observed=observed), step=5, keys=KEYS)
    short = Batch(x[:5], batch.channels, batch.sfreq, observed=observed[:5])
    without = model.step(short, step=5, keys=Keys(3, 5, torch.arange(5)))
    torch.testing.assert_close(out.loss, without.loss, rtol=1e-4, atol=0)
    out.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@needs_two_processes
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    model = make(mask=MultiBlockMask(0.5), views=2, masked_views=1).double()
    batch = Batch(windows().x.double(), SPEC.ch_names, SPEC.sfreq)
    assert_two_processes_have_the_gradients_of_one(model, batch, KEYS, store=tmp_path / "store", rtol=1e-4, atol=1e-6)


def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run() -> None:
    toy = {"mask": RandomMask(0.5), "masked_views": 1, "directions": 64, "lam": 0.05}
    healthy, ruined = make(**toy), make(**toy)  # type: ignore[arg-type]
    start = reading(healthy, SPEC)["std"]
    train(healthy, SPEC, steps=25, lr=3e-3)
    train(ruined, SPEC, steps=25, weight_decay=RUINOUS)
    assert alarm(reading(healthy, SPEC), start_std=start) == ""
    assert alarm(reading(ruined, SPEC), start_std=start) != ""


def test_without_sigreg_agreement_alone_would_be_best_at_a_constant() -> None:
    model = make(mask=RandomMask(0.5), masked_views=1)
    healthy = model.step(windows(), step=0, keys=KEYS).terms
    for layer in model.projector:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
    collapsed = model.step(windows(), step=0, keys=KEYS).terms
    assert float(collapsed["agreement"]) < 1e-6 < float(healthy["agreement"])
    assert float(collapsed["sigreg"]) > float(healthy["sigreg"]) * 0.99 and float(collapsed["sigreg"]) > 0.39 * 6


@pytest.mark.parametrize(
    ("mask", "augment", "config", "text"),
    [
        (None, False, {}, "objective.views: 2 views are the same without augmentations"),
        (RandomMask(0.5), True, {}, "objective.masked_views: 0, but the recipe has a mask"),
        (None, True, {"masked_views": 1}, "key 'mask' is missing; objective lejepa with masked_views needs one"),
        (PartitionMask(2, 2), True, {"masked_views": 3}, "objective.masked_views: 3, but mask.parts is 2"),
    ],
)
def test_views_that_cannot_be_meant_are_one_line(mask: Any, augment: bool, config: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        make(mask=mask, augment=augment, **config)
    assert text in str(error.value)


@pytest.mark.parametrize("config", [{"views": 1}, {"views": 0, "masked_views": 2}, {"lam": 0.0}, {"lam": 1.0}, {"directions": 0}])
def test_settings_outside_their_range_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LeJEPAConfig(**config)
