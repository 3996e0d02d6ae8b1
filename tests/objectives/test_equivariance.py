"""Soft equivariance: what a transformation does to samples it does to tokens; slow float64 version, gaps, two processes, refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_toys import assert_gaps_never_count, assert_two_processes_have_the_gradients_of_one, reading, train
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
from biossl.objectives.equivariance import Equivariance, EquivarianceConfig
from biossl.objectives.jepa import JEPA, JEPAConfig
from biossl.objectives.masking import RandomMask
from biossl.objectives.redundancy import RedundancyReduction, VICRegConfig
from biossl.objectives.simclr import SimCLR, SimCLRConfig
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

IMU = InputSpec(
    "imu", 50.0, 100, ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"), ("acc",) * 3 + ("gyro",) * 3,
    ("g",) * 3 + ("rad/s",) * 3,
)  # fmt: skip
EEG = InputSpec("eeg", 50.0, 100, ("C3", "Cz", "EOG", "C4"), ("eeg", "eeg", "eog", "eeg"), ("uV",) * 4)
SMALL = EncoderConfig(dim=16, depth=3, heads=2, patch_s=0.2, registers=1, init="fan_in", position="once")
KEYS = Keys(seed=3, step=5, position=torch.arange(8))
HEAD = ProjectorConfig(hidden=8, out=6, norm="layer")


def settings(**more: Any) -> EquivarianceConfig:
    return EquivarianceConfig(**{"layer": 1, "share": 1.0, "projector": HEAD} | more)


def encoder(spec: InputSpec = IMU, **config: Any) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(spec, replace(SMALL, **config))


def windows(spec: InputSpec = IMU, n: int = 8) -> Batch:
    x = torch.randn(n, len(spec.ch_names), 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x, spec.ch_names, spec.sfreq, subject=torch.arange(n))


def slow_move(x: Tensor, spec: InputSpec, config: EquivarianceConfig, position: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """One window (C, T) transformed sample by sample; for each token, channel-major, which token (c, p) it was."""
    own = Keys(KEYS.seed, KEYS.step, torch.tensor([position]))
    draw, C = 6_200_000, len(x)
    where = [[(c, p) for p in range(10)] for c in range(C)]
    if "shift" in config.transforms:
        r = 1 + int(float(own.uniform((1,), draw)) * 9)
        x = torch.stack([torch.stack([row[(t - 10 * r) % 100] for t in range(100)]) for row in x])
        where = [[row[(p - r) % 10] for p in range(10)] for row in where]
    if "reverse" in config.transforms and float(own.uniform((1,), draw + 1)) < 0.5:
        x = torch.stack([torch.stack([row[99 - t] for t in range(100)]) for row in x])
        where = [row[::-1] for row in where]
    if "leads" in config.transforms:
        lots = own.uniform((C,), draw + 2)[0].tolist()
        order = list(range(C))
        for kind in set(spec.ch_types):
            places = [c for c in range(C) if spec.ch_types[c] == kind]
            for place, source in zip(places, sorted(places, key=lambda c: lots[c]), strict=True):
                order[place] = source
        x, where = x[order], [where[c] for c in order]
    for _ in range(int(float(own.uniform((1,), draw + 3)) * 3) if "turn" in config.transforms else 0):
        order = [3 * (c // 3) + (c % 3 + 1) % 3 for c in range(C)]  # x becomes y, y z, z x: a third of a turn
        x, where = x[order], [where[c] for c in order]
    return x, [token for row in where for token in row]


def slow_term(part: Equivariance, net: TransformerEncoder, batch: Batch, *, still: bool = False, teacher: Any = None) -> Tensor:
    config, spec = part.config, net.spec
    predictions, targets = [], []
    for b in range(len(batch)):
        moved, where = slow_move(batch.x[b], spec, config, b)
        tokens = net.tokenize(Batch(moved[None], batch.channels, batch.sfreq))
        student = net.encode(tokens, layers=(config.layer,)).hidden[0][0]
        with torch.no_grad():
            plain = Batch(batch.x[b : b + 1], batch.channels, batch.sfreq)
            t = teacher or net
            whole = t.encode(t.tokenize(plain), layers=(config.layer,)).hidden[0][0]
            joint = net.config.tokenizer == "joint"
            came = range(len(whole)) if still else [p if joint else 10 * c + p for c, p in where[: len(whole)]]
            targets.append([part.projector(whole[i][None])[0] for i in came])
        predictions.append([part.projector(token[None])[0] for token in student])
    losses = []
    for b, row in enumerate(predictions):
        others = torch.stack([y / y.norm() for c, t in enumerate(targets) if c != b for y in t])
        for i, p in enumerate(row):
            own, y = targets[b][i], p / p.norm()
            score = (own / own.norm()) @ y / config.temperature
            losses.append(torch.cat([others @ y / config.temperature, score[None]]).logsumexp(0) - score)
    return torch.stack(losses).mean()


CASES = [
    (IMU, "channel", ["shift"]),
    (IMU, "joint", ["shift"]),
    (IMU, "channel", ["turn"]),
    (EEG, "channel", ["shift", "reverse"]),
    (EEG, "channel", ["leads"]),
    (EEG, "joint", ["reverse"]),
]


@pytest.mark.parametrize(("spec", "tokenizer", "transforms"), CASES)
def test_term_and_gradients_equal_a_slow_float64_version(spec: InputSpec, tokenizer: Any, transforms: Any) -> None:
    net = encoder(spec, tokenizer=tokenizer).double()
    part = Equivariance(net, settings(transforms=transforms)).double()
    slow_net, slow_part = copy.deepcopy(net), copy.deepcopy(part)
    batch = windows(spec, 3)
    keys = Keys(3, 5, torch.arange(3))
    got, want = part(net, batch, keys), slow_term(slow_part, slow_net, batch)
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    with torch.no_grad():  # targets that stay where they were would be seen
        assert abs(float(slow_term(slow_part, slow_net, batch, still=True)) - float(want)) > 1e-4
    got.backward()
    want.backward()
    for fast, slow in ((net, slow_net), (part, slow_part)):
        for (name, p), q in zip(fast.named_parameters(), slow.parameters(), strict=True):
            if q.grad is not None:
                assert p.grad is not None
                torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=2e-5, msg=name)


def test_the_teacher_of_jepa_is_its_target_and_has_no_gradient() -> None:
    model = make("jepa").double()
    assert isinstance(model, JEPA) and model.target is not None and model.equivariance is not None
    with torch.no_grad():
        for p in model.target.parameters():
            p.add_(0.2 * torch.randn_like(p, generator=None))
    term = model.step(windows(), step=5, keys=KEYS).terms["equivariance"]
    want = slow_term(model.equivariance, model.encoder, windows(), teacher=model.target)
    assert float(term) == pytest.approx(float(want.detach()), rel=1e-5)
    assert all(p.grad is None for p in model.target.parameters())


def make(name: str, config: EquivarianceConfig | None = None) -> Objective:
    net = encoder()
    config = config or settings()
    augment = Pipeline([Gain(factor=[0.5, 2.0], per_channel=True).build(IMU)])
    head = ProjectorConfig(hidden=16, out=8)
    if name == "simclr":
        return SimCLR(net, SimCLRConfig(projector=head, equivariance=config), augment=augment)
    if name == "vicreg":
        return RedundancyReduction(net, VICRegConfig(projector=head, equivariance=config), augment=augment)
    jepa = JEPAConfig(predictor=PredictorConfig(dim=8, depth=1, heads=2), equivariance=config)
    return JEPA(net, jepa, mask=RandomMask(0.5), steps=25)


NAMES = ("simclr", "vicreg", "jepa")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_added_with_its_weight_to_the_loss_of_every_objective(name: str) -> None:
    one, three = (make(name, settings(weight=w)).double().step(windows(), step=5, keys=KEYS) for w in (1.0, 3.0))
    term = float(one.terms["equivariance"])
    assert float(three.loss.detach() - one.loss.detach()) == pytest.approx(2 * term, rel=1e-4)
    assert not one.terms["equivariance"].requires_grad and make(name).needs.in_batch


def test_a_share_of_the_batch_enters_evenly_spaced_and_at_least_two_windows() -> None:
    net = encoder().double()
    part = Equivariance(net, settings(share=0.25)).double()
    x = windows().x
    for rows, keys in (([0, 4], KEYS), ([0, 1], Keys(3, 5, torch.arange(2)))):
        some = Batch(x[rows], IMU.ch_names, IMU.sfreq)
        whole = Batch(x if len(keys.position) == 8 else x[:2], IMU.ch_names, IMU.sfreq)
        everything = Equivariance(net, settings()).double()
        everything.load_state_dict(part.state_dict())
        want = everything(net, some, Keys(3, 5, keys.position[rows]))
        torch.testing.assert_close(part(net, whole, keys), want)


def test_channels_go_by_name() -> None:
    net = encoder(EEG).double()
    part = Equivariance(net, settings(transforms=["shift", "leads"])).double()
    batch, turned = windows(EEG, 3), [3, 0, 2, 1]
    other = Batch(batch.x[:, turned], tuple(EEG.ch_names[c] for c in turned), EEG.sfreq)
    keys = Keys(3, 5, torch.arange(3))
    torch.testing.assert_close(part(net, batch, keys), part(net, other, keys))


def test_gaps_never_count() -> None:
    net, batch = encoder().double(), windows()
    part = Equivariance(net, settings(transforms=["shift", "turn"])).double()
    seen = torch.ones_like(batch.x, dtype=torch.bool)
    seen[4] = False
    seen[1, :, 30:65] = False
    seen[2, 1] = False
    assert_gaps_never_count(lambda batch, keys: part(net, batch, keys), net, batch, KEYS, seen)


@needs_two_processes
@pytest.mark.parametrize("name", ["simclr", "jepa"])
def test_two_processes_have_the_gradients_of_one(name: str, tmp_path: Path) -> None:
    model = make(name, settings(weight=5.0, share=0.5)).double()
    assert_two_processes_have_the_gradients_of_one(model, windows(), KEYS, store=tmp_path / "store", scaled=True)


def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run() -> None:
    healthy, ruined = (make("simclr", settings(share=0.125)) for _ in range(2))
    start = reading(healthy, IMU)["std"]
    train(healthy, IMU, steps=10, lr=3e-3)
    ruined.encoder.norm.weight.detach().zero_()  # type: ignore[operator, union-attr]  # all tokens of all windows become the same
    assert alarm(reading(healthy, IMU), start_std=start) == ""
    assert alarm(reading(ruined, IMU), start_std=start) != ""


ECG = InputSpec("ecg", 50.0, 100, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)


@pytest.mark.parametrize(
    ("spec", "config", "model", "text"),
    [
        (IMU, {"layer": 2}, {}, "layer: 2, but it must be before the last of 3 blocks; take at most 1"),
        (ECG, {"transforms": ["reverse"]}, {}, "transforms: reverse is for eeg, not for ecg"),
        (EEG, {"transforms": ["leads"]}, {"tokenizer": "joint"}, "leads moves no token of a joint tokenizer; take shift"),
        (IMU, {"transforms": ["turn"]}, {"tokenizer": "joint"}, "turn moves no token of a joint tokenizer"),
        (ECG, {"transforms": ["turn"]}, {}, "turn needs the x, y and z axes of every sensor"),
        (replace(ECG, ch_types=("ecg", "resp")), {"transforms": ["leads"]}, {}, "leads needs two channels of one type"),
        (IMU, {}, {"patch_s": 2.0}, "shift moves nothing in a window of one patch"),
    ],
)
def test_what_has_no_meaning_is_one_line(spec: InputSpec, config: Any, model: Any, text: str) -> None:
    with pytest.raises(RequestError, match="^objective.equivariance[^\n]*$") as error:
        Equivariance(encoder(spec, **model), settings(**config))
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"transforms": []}, "transforms must name each once"),
        ({"transforms": ["shift", "shift"]}, "transforms must name each once"),
        ({"temperature": 0.0}, "temperature and weight must be above 0, not 0"),
        ({"weight": 0.0}, "temperature and weight must be above 0"),
        ({"share": 0.0}, "share must be above 0"),
        ({"layer": -1}, "layer at least 0"),
        ({"projector": ProjectorConfig()}, "batch would mix tokens"),
    ],
)
def test_settings_without_meaning_are_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        settings(**config)
