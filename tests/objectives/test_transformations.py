"""Transformation prediction: a slow float64 loop over windows and tasks, the draws, the labels, two processes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.distributed as dist
from objective_toys import RUINOUS, reading, rhythms, train
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.augment.base import Augmentation, Pipeline
from biossl.augment.warp import time_warp
from biossl.batch import Batch
from biossl.config import build
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.masking import RandomMask
from biossl.objectives.transformations import TASKS, Transformations, TransformationsConfig
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPECS = {
    "ecg": InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3),
    "eeg": InputSpec("eeg", 50.0, 100, tuple("ABCDE"), ("eeg",) * 5, ("uV",) * 5),
    "imu": InputSpec("imu", 50.0, 100, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s")),
}
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2)
KEYS = Keys(seed=3, step=5, position=torch.arange(6))


def make(modality="imu", *, encoder=SMALL, augment=None, **config):
    torch.manual_seed(0)
    net = TransformerEncoder(SPECS[modality], encoder)
    model = Transformations(net, TransformationsConfig(**config), steps=100, augment=augment)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def windows(modality="imu", n=6, observed=None):
    spec = SPECS[modality]
    x = torch.randn(n, len(spec.ch_names), spec.n_samples, generator=torch.Generator().manual_seed(1))
    x = x if observed is None else torch.where(observed, x, 0.0)
    return Batch(x, spec.ch_names, spec.sfreq, observed=observed)


def slow_transform(model, row, keys, *, sequence=True):
    """One window (C, T) as lists, task by task; the random numbers are those of the draws."""
    tasks, T = model.config.tasks, row.shape[1]
    happened = [bool(u < 0.5) for u in keys.uniform((len(tasks),), 5_000_000)[0]]
    out = [[float(v) for v in channel] for channel in row]
    plain = out
    for task, yes in zip(tasks, happened, strict=True):
        draw = 5_000_000 + 1_000 * (1 + TASKS.index(task))
        if not yes:
            continue
        x = out if sequence else plain
        if task == "reverse":
            out = [channel[::-1] for channel in x]
        elif task == "permute":
            u = keys.uniform((4,), draw)[0].tolist()
            order = sorted(range(4), key=lambda i: u[i])
            if order == [0, 1, 2, 3]:
                order = [3, 0, 1, 2]
            cuts = sorted(keys.uniform((3,), draw + 1)[0].tolist())
            shortest = round(model.config.min_segment_s * 50)
            cuts = [0, *(int(c * (T + 1 - 4 * shortest)) + (i + 1) * shortest for i, c in enumerate(cuts)), T]
            assert min(b - a for a, b in zip(cuts, cuts[1:], strict=False)) >= shortest
            out = [[v for i in order for v in channel[cuts[i] : cuts[i + 1]]] for channel in x]
        elif task == "time_warp":
            sd = model.config.warp_sd
            speeds = [1 + sd * math.sqrt(2) * float(torch.erfinv(2 * u - 1)) for u in keys.uniform((6,), draw)[0]]
            warped, _ = time_warp(torch.tensor(x, dtype=torch.float64)[None], torch.tensor([speeds], dtype=torch.float64))
            out = warped[0].tolist()
        elif task == "scale":
            factor = 1 + model.config.scale_range * (2 * float(keys.uniform((), draw)[0]) - 1)
            out = [[factor * v for v in channel] for channel in x]
        else:
            out = [[-v for v in channel] for channel in x]
    return torch.tensor(out, dtype=torch.float64), happened


def slow_loss(model, batch, keys, *, negate=False, **kw):
    """Mean over windows and tasks of -log of the probability given to what happened, with gradient."""
    total, n = 0.0, 0
    for b in range(len(batch)):
        own = Keys(keys.seed, keys.step, keys.position[b : b + 1])
        row, happened = slow_transform(model, batch.x[b], own, **kw)
        x = Batch(row[None], batch.channels, batch.sfreq)
        z = model.encoder.encode(model.encoder.tokenize(x)).x[0]
        z = sum(z) / len(z)
        for k, yes in enumerate(happened):
            score = (model.head.weight[k] * z).sum() + model.head.bias[k]
            p = 1 / (1 + torch.exp(-score))
            total = total - torch.log(p if yes != negate else 1 - p)
            n += 1
    return total / n


@pytest.mark.parametrize(
    ("modality", "config"),
    [
        ("ecg", {"tasks": ["reverse", "permute", "time_warp", "flip"]}),
        ("eeg", {"tasks": ["permute", "scale"], "scale_range": 0.3}),
        ("imu", {}),
    ],
)
def test_loss_and_gradients_equal_a_slow_loop_over_windows_and_tasks(modality, config):
    model = make(modality, **config).double()
    batch = windows(modality)
    batch = dataclasses.replace(batch, x=batch.x.double())
    slow_loss(model, batch, KEYS).backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loss = model.step(batch, step=5, keys=KEYS).loss
    loss.backward()
    reference = slow_loss(model, batch, KEYS)
    assert float(loss.detach()) == pytest.approx(float(reference.detach()), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, want[name], rtol=1e-4, atol=1e-7, msg=name)
        assert bool(p.grad.abs().max() > 0), name  # every trainable parameter learns
    # the reference can tell: labels turned round, tasks that do not follow each other, another step's draws
    for other in (
        slow_loss(model, batch, KEYS, negate=True),
        slow_loss(model, batch, KEYS, sequence=False),
        slow_loss(model, batch, Keys(3, 6, KEYS.position)),
    ):
        assert abs(float(other.detach()) - float(loss.detach())) > 1e-3


class Taught(Augmentation):
    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        return batch

    def penalty(self) -> Tensor:
        return torch.tensor(0.25)


def test_a_window_of_which_nothing_was_observed_counts_for_nothing():
    observed = torch.ones(6, 2, 100, dtype=torch.bool)
    observed[4] = False
    keep = torch.tensor([0, 1, 2, 3, 5])
    holed, without = make(), make()
    out = holed.step(windows(observed=observed), step=5, keys=KEYS)
    fewer = without.step(dataclasses.replace(windows(), x=windows().x[keep]), step=5, keys=Keys(3, 5, keep))
    out.loss.backward()
    fewer.loss.backward()
    assert bool(out.loss.isfinite())
    torch.testing.assert_close(out.loss, fewer.loss)
    torch.testing.assert_close(out.terms, fewer.terms)
    for (name, a), b in zip(holed.named_parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)
    nothing = windows(observed=torch.zeros(6, 2, 100, dtype=torch.bool))
    assert float(make().step(nothing, step=5, keys=KEYS).loss.detach()) == 0.0


def test_the_penalty_of_learned_augmentations_is_added():
    plain = make().step(windows(), step=5, keys=KEYS)
    out = make(augment=Pipeline([Taught()])).step(windows(), step=5, keys=KEYS)
    torch.testing.assert_close(out.loss, plain.loss + 0.25)
    assert float(out.terms["penalty"]) == 0.25


def test_labels_are_fair_coins_that_depend_on_seed_step_and_position_alone():
    model = make()
    many = Keys(3, 5, torch.arange(4000))
    batch = windows(n=4000)
    out, truth = model.transform(batch, many)
    assert truth.shape == (4000, 3) and (truth.double().mean(dim=0) - 0.5).abs().max() < 0.03
    assert abs(float(torch.corrcoef(truth.T.double()).triu(1).abs().max())) < 0.05
    part = slice(1000, 1007)
    again, same = model.transform(dataclasses.replace(batch, x=batch.x[part]), Keys(3, 5, many.position[part]))
    assert torch.equal(same, truth[part]) and torch.equal(again.x, out.x[part])
    untouched = ~truth.any(dim=1)
    assert torch.equal(out.x[untouched], batch.x[untouched])
    changed = (out.x != batch.x).flatten(1).any(dim=1)
    assert torch.equal(changed, ~untouched)  # no label contradicts its window, permutations that do nothing included


def test_gaps_move_with_their_samples_and_stay_unseen():
    observed = torch.ones(6, 2, 100, dtype=torch.bool)
    observed[:, :, :30] = False
    model = make(tasks=["reverse"])
    out, truth = model.transform(windows(observed=observed), KEYS)
    assert 0 < truth.sum() < 6 and out.observed is not None
    for b, yes in enumerate(truth[:, 0].tolist()):
        assert torch.equal(out.observed[b], observed[b].flip(1) if yes else observed[b])
        assert not out.x[b][~out.observed[b]].any()


def test_terms_and_watch_are_detached_and_accuracy_is_the_share_told_right():
    model = make()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([9.0, -9.0, 9.0]))
    out = model.step(windows(), step=5, keys=KEYS)
    _, truth = model.transform(windows(), KEYS)
    share = truth.double().mean(dim=0)
    got = [float(out.terms[f"accuracy_{t}"]) for t in ("reverse", "permute", "time_warp")]
    assert got == pytest.approx([float(share[0]), 1 - float(share[1]), float(share[2])])
    assert out.watch["embedding"].shape == (6, 16)
    assert not any(v.requires_grad for v in (*out.terms.values(), *out.watch.values()))


class Shift(Augmentation):
    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        return dataclasses.replace(batch, x=batch.x + 1)


def test_a_short_run_learns_to_tell_and_a_planted_collapse_is_seen():
    spec = SPECS["imu"]
    torch.manual_seed(1)
    encoder = TransformerEncoder(spec, dataclasses.replace(SMALL, init="fan_in"))
    model = Transformations(encoder, TransformationsConfig(tasks=["reverse", "permute"]), steps=100)
    start = reading(model, spec)
    train(model, spec, steps=100, lr=3e-3, n=32)
    batch, keys = rhythms(spec, 256, 9998), Keys(1, 0, torch.arange(256))
    assert float(model.step(batch, step=0, keys=keys).terms["accuracy_reverse"]) > 0.8  # a saw-tooth rises slowly, falls at once
    assert alarm(reading(model, spec), start_std=start["std"]) == ""
    train(model, spec, steps=40, weight_decay=RUINOUS)
    assert alarm(reading(model, spec), start_std=start["std"]) != ""


def test_the_nuisance_comes_after_the_tasks_and_has_no_label():
    model = make(tasks=["flip"], augment=Pipeline([Shift()]))
    plain, seen = make(tasks=["flip"]), []
    tokenize = model.encoder.tokenize
    model.encoder.tokenize = lambda batch: seen.append(batch.x) or tokenize(batch)
    model.step(windows(), step=5, keys=KEYS)
    assert torch.equal(seen[0], plain.transform(windows(), KEYS)[0].x + 1)  # not -(x + 1)


def test_the_recipe_asks_the_loader_for_moving_windows():
    assert make(sampler="motion").needs.sampler == "motion" and make().needs.sampler == "uniform"


def _gradient(number: int, modality: str) -> list[list[float]]:
    model = make(modality).double()
    batch, rows = windows(modality), slice(3 * number, 3 * number + 3)
    model.step(
        dataclasses.replace(batch, x=batch.x[rows].double()), step=5, keys=Keys(3, 5, KEYS.position[rows], rank=number)
    ).loss.backward()
    flat: Tensor = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    dist.all_reduce(flat)
    return [(flat / 2).tolist()]


@needs_two_processes
def test_two_processes_have_the_gradient_of_one(tmp_path):
    model = make("ecg").double()
    batch = windows("ecg")
    model.step(dataclasses.replace(batch, x=batch.x.double()), step=5, keys=KEYS).loss.backward()
    want = torch.cat([p.grad.flatten() for p in model.parameters()])
    for got in run_in_two(_gradient, "ecg", store=tmp_path / "store"):
        torch.testing.assert_close(torch.tensor(got[0], dtype=torch.float64), want)


@pytest.mark.parametrize(
    ("config", "encoder", "mask", "text"),
    [
        ({}, SMALL, RandomMask(), "key 'mask': objective transformations hides nothing"),
        ({"min_segment_s": 0.6}, SMALL, None, "objective.min_segment_s: 4 segments of 0.6 s do not fit into a window of 2 s"),
        ({"tasks": ["scale"]}, dataclasses.replace(SMALL, normalise="window"), None, "objective.tasks: with model.normalise"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(config, encoder, mask, text):
    net = TransformerEncoder(SPECS["imu"], encoder)
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        Transformations(net, TransformationsConfig(**config), mask=mask, steps=1)
    assert text in str(error.value)


@pytest.mark.parametrize("raw", [{"tasks": []}, {"tasks": ["flip", "flip"]}, {"segments": 1}, {"scale_range": 0}, {"warp_sd": 0}])
def test_settings_without_meaning_name_their_key(raw):
    with pytest.raises(RequestError, match=f"r.yaml: 'objective': .*{next(iter(raw))}"):
        build(TransformationsConfig, raw, where="r.yaml", prefix="objective.")
