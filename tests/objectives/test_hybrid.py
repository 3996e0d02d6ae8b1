"""The hybrid of reconstruction and contrast: slow float64 loops, where gradients go, gaps, processes, learned augmentations."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.distributed as dist
from objective_toys import RUINOUS, reading, train
from torch import Tensor, nn
from two_processes import needs_two_processes, run_in_two

from biossl.augment.base import Augmentation, Pipeline
from biossl.batch import Batch
from biossl.config import build
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.models.decoders import DecoderConfig
from biossl.models.heads import ProjectorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.hybrid import Hybrid, HybridConfig
from biossl.objectives.masking import RandomMask, STDMMask
from biossl.recipe import load_recipe
from biossl.recipe.check import check_recipe
from biossl.recipe.schema import Monitor
from biossl.signal import InputSpec
from biossl.training.monitors import alarm, stop_if_collapsed

SPECS = {
    "ecg": InputSpec("ecg", 50.0, 100, ("I", "II", "V1", "V2", "V3"), ("ecg",) * 5, ("mV",) * 5),
    "eeg": InputSpec("eeg", 50.0, 100, ("Fz", "Cz", "Pz"), ("eeg",) * 3, ("uV",) * 3),
    "imu": InputSpec("imu", 50.0, 100, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s")),
}
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, registers=1)
JOINT = dataclasses.replace(SMALL, tokenizer="joint", attention="full")
DECODER = DecoderConfig(dim=8, depth=1, heads=2)
PROJECTOR = ProjectorConfig(hidden=12, out=6)
KEYS = Keys(seed=3, step=5, position=torch.arange(4))
CORE = {"target": "patch", "temperature": 0.1}
NEURONET = {"target": "tokens", "temperature": 0.05, "reconstruction": 2.0, "pool": "register"}


class Gain(Augmentation):
    """A keyed gain, a learned one a channel, and a penalty on it."""

    lr_scale = 0.3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.8, 1.2, channels))
        self.still = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        u = keys.uniform((1, 1), draw).to(batch.x.dtype)
        return dataclasses.replace(batch, x=batch.x * (0.5 + u) * self.gain[:, None])

    def penalty(self) -> Tensor:
        return 0.1 * self.gain.square().sum()


def make(modality, *, encoder=SMALL, mask=None, learned=False, **config):
    torch.manual_seed(0)
    net = TransformerEncoder(SPECS[modality], encoder)
    augment = Pipeline([Gain(len(SPECS[modality].ch_names))]) if learned else None
    settings = HybridConfig(decoder=DECODER, projector=PROJECTOR, **config)
    model = Hybrid(net, settings, mask=mask or RandomMask(0.6), steps=100, augment=augment)
    with torch.no_grad():
        for name, p in model.named_parameters():  # attention, norms and heads must matter for the test to see them
            if not name.startswith("augment."):
                p.add_(0.3 * torch.randn_like(p))
    return model


def windows(modality, n=4, observed=None, dtype=torch.float32):
    spec = SPECS[modality]
    x = torch.randn(n, len(spec.ch_names), spec.n_samples, generator=torch.Generator().manual_seed(1)).to(dtype)
    x = x if observed is None else torch.where(observed, x, 0.0)
    return Batch(x, spec.ch_names, spec.sfreq, observed=observed)


def patch_values(x, token, model):
    """Normalised samples of one token of a window (C, T), floats."""
    P, n = model.encoder.grid[1], model.encoder.tokenizer.patch
    joint = model.encoder.config.tokenizer == "joint"
    out = []
    for c in range(len(x)) if joint else [token // P]:
        cut = [float(v) for v in x[c, token % P * n : (token % P + 1) * n]]
        mean = sum(cut) / n
        sd = (sum((v - mean) ** 2 for v in cut) / n) ** 0.5
        out += [(v - mean) / max(sd, 0.01) for v in cut]
    return torch.tensor(out, dtype=torch.float64)


def slow_parts(model, batch, keys, *, one_mask=False, detach=None, temperature=None):
    """Reconstruction and contrast of one window, view and token at a time in float64, with gradient."""
    cfg, B = model.config, len(batch)
    P, grid = model.encoder.grid[1], model.encoder.grid
    detach = cfg.stop_gradient if detach is None else detach
    rows, errors = [[], []], []
    for view in range(2):
        for b in range(B):
            own = Keys(keys.seed, keys.step, keys.position[b : b + 1])
            one = Batch(batch.x[b : b + 1], batch.channels, batch.sfreq)
            seen = one if model.augment is None else model.augment(one, own, view=view)
            tokens = model.encoder.tokenize(seen)
            drawn = model.mask.draw(own, grid, 0 if one_mask else view)
            masked, visible = drawn.masked[0].tolist(), drawn.visible[0].tolist()
            if model.mask.over == "time":
                masked = [c * P + t for c in range(grid[0]) for t in masked]
                visible = [c * P + t for c in range(grid[0]) for t in visible]
            context = model.encoder.encode(tokens, keep=torch.tensor(visible)[None])
            decoder = model.decoder if cfg.target == "tokens" else model.decoder.decoder
            out = decoder(context.x, torch.tensor([visible]), torch.tensor([masked]))[0]
            error = 0.0
            for j, token in enumerate(masked):
                if cfg.target == "tokens":
                    goal = tokens.x[0, token].detach() if detach else tokens.x[0, token]
                else:
                    goal = patch_values(one.x[0], token, model)
                error = error + ((out[j] - goal) ** 2).sum() / len(goal)
            errors.append(error / len(masked))
            rows[view].append(context.registers[0, 0] if cfg.pool == "register" else sum(context.x[0]) / len(visible))
    z = []
    first, norm, _, last = model.projector
    for view in range(2):
        h = [first.weight @ row for row in rows[view]]
        mean = sum(h) / B
        var = sum((v - mean) ** 2 for v in h) / B
        h = [((v - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias).clamp_min(0) for v in h]
        z += [last.weight @ v + last.bias for v in h]
    z = [v / v.square().sum().sqrt() for v in z]
    tau, contrast = temperature or cfg.temperature, 0.0
    for i in range(2 * B):
        others = sum(torch.exp(z[i] @ z[k] / tau) for k in range(2 * B) if k != i)
        contrast = contrast - torch.log(torch.exp(z[i] @ z[(i + B) % (2 * B)] / tau) / others)
    return sum(errors) / (2 * B), contrast / (2 * B)


def slow_loss(model, batch, keys, **kw):
    reconstruction, contrast = slow_parts(model, batch, keys, **kw)
    loss = model.config.reconstruction * reconstruction + model.config.contrast * contrast
    return loss if model.augment is None else loss + model.augment.penalty()


CASES = {
    "core_ecg": ("ecg", {"mask": STDMMask(), "learned": True, **CORE}),
    "core_joint": ("imu", {"encoder": JOINT, "learned": True, "contrast": 0.5, **CORE}),
    "neuronet": ("eeg", NEURONET),
    "neuronet_published": ("eeg", {"stop_gradient": False, **NEURONET}),
    "neuronet_joint": ("imu", {"encoder": JOINT, **NEURONET, "pool": "mean"}),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_a_slow_loop(name):
    modality, kw = CASES[name]
    model = make(modality, **kw).double()
    batch = windows(modality, dtype=torch.float64)
    want = slow_loss(model, batch, KEYS)
    want.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    out = model.step(batch, step=5, keys=KEYS)
    out.loss.backward()
    assert float(out.loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    largest = max(float(g.abs().max()) for g in grads.values())  # the contrast is float32: its rounding is of that size
    for n, p in model.named_parameters():
        if p.requires_grad and not (n == "encoder.registers" and p.grad is None):
            torch.testing.assert_close(p.grad, grads[n], rtol=1e-3, atol=2e-5 * largest, msg=n)
    mutants = [{"one_mask": True}, {"temperature": 2 * model.config.temperature}]
    for mutant in mutants:  # the reference can tell
        other = slow_loss(model, batch, KEYS, **mutant)
        assert abs(float((other - want).detach())) > 1e-3 * float(want.detach()), mutant
    assert abs(float((slow_loss(model, batch, Keys(3, 6, KEYS.position)) - want).detach())) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_every_trainable_parameter_has_a_gradient_and_is_in_one_group(name):
    modality, kw = CASES[name]
    model = make(modality, **kw)
    model.step(windows(modality), step=0, keys=KEYS).loss.backward()
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trainable.items() if p.grad is None or not bool(p.grad.abs().max() > 0)] == []
    grouped = [p for g in model.param_groups(0.05) for p in g["params"]]
    assert len(grouped) == len(trainable) and {id(p) for p in grouped} == {id(p) for p in trainable.values()}


def test_learned_augmentations_have_a_group_of_their_own():
    model = make("ecg", learned=True)
    *_, own = model.param_groups(0.05)
    (part,) = model.augment.parts
    assert [id(p) for p in own["params"]] == [id(part.gain)] and (own["lr_scale"], own["weight_decay"]) == (0.3, 0.0)
    out = model.step(windows("ecg"), step=0, keys=KEYS)
    assert float(out.terms["penalty"]) == pytest.approx(float(part.penalty().detach()))


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_keeps_the_reconstruction_out_of_its_targets(stop):
    model = make("eeg", **{**NEURONET, "stop_gradient": stop})
    given = []
    take = model.encoder.tokenize

    def tokenize(batch):
        tokens = take(batch)
        hidden = dataclasses.replace(tokens, x=tokens.x.detach().requires_grad_())
        given.append(hidden.x)
        return hidden

    model.encoder.tokenize = tokenize
    model.encoder.encode = lambda tokens, **kw: TransformerEncoder.encode(
        model.encoder, dataclasses.replace(tokens, x=tokens.x.detach()), **kw
    )
    loss = model.step(windows("eeg"), step=0, keys=KEYS).loss  # the one way left from loss to tokens is by the targets
    loss.backward()
    assert (given[0].grad is None) == stop
    if not stop:
        assert bool(given[0].grad.abs().max() > 0)


def test_without_stop_gradient_the_tokenizer_makes_its_output_small():
    """What the published form can do when the contrast does not hold against it, and the default cannot."""
    spread = {}
    for stop in (True, False):
        model = make("eeg", **{**NEURONET, "stop_gradient": stop, "contrast": 1e-6, "pool": "mean"})
        batch = windows("eeg", 16)
        keys = Keys(0, 0, torch.arange(16))
        optimizer = torch.optim.AdamW(model.param_groups(0.0), lr=1e-2)
        for _ in range(40):
            model.step(batch, step=0, keys=keys).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        spread[stop] = float(model.encoder.tokenize(batch).x.detach().flatten(0, 1).var(dim=0).mean())
    assert spread[False] < 0.3 * spread[True]


def fresh(name):
    """Weights as a run begins with."""
    modality, kw = CASES[name]
    torch.manual_seed(1)
    settings = HybridConfig(decoder=DECODER, projector=PROJECTOR, **{k: v for k, v in kw.items() if k in NEURONET | CORE})
    encoder = TransformerEncoder(SPECS[modality], dataclasses.replace(SMALL, init="fan_in"))
    return Hybrid(encoder, settings, mask=kw.get("mask", RandomMask(0.6)), steps=100), SPECS[modality]


@pytest.mark.parametrize("name", ["core_ecg", "neuronet"])
def test_a_planted_collapse_is_seen_and_a_healthy_run_is_not_blamed(name):
    model, spec = fresh(name)
    start = reading(model, spec)
    train(model, spec, steps=40, lr=3e-3)
    healthy = reading(model, spec)
    assert alarm(healthy, start_std=start["std"]) == ""
    stop_if_collapsed(healthy, Monitor(), 1000)

    train(model, spec, steps=40, weight_decay=RUINOUS)
    ruined = reading(model, spec)
    assert alarm(ruined, start_std=start["std"]) != ""
    with pytest.raises(DataError, match="collapsed"):
        stop_if_collapsed(ruined, Monitor(), 1000)


def test_what_is_watched_is_detached_and_has_the_stated_shapes():
    for name, values, hidden in (("core_ecg", 10, 2 * 4 * (50 - 4 * 5)), ("neuronet", 16, 2 * 4 * 3 * 6)):
        modality, kw = CASES[name]
        out = make(modality, **kw).step(windows(modality), step=0, keys=KEYS)
        assert out.watch["embedding"].shape == (8, 16)
        assert out.watch["target"].shape == out.watch["prediction"].shape == (hidden, values)
        assert not any(v.requires_grad for v in (*out.watch.values(), *out.terms.values()))
        total = out.terms["reconstruction"] * kw.get("reconstruction", 1.0) + out.terms["contrast"] + out.terms.get("penalty", 0)
        assert float(out.loss.detach()) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("name", ["core_ecg", "neuronet"])
def test_what_was_not_observed_changes_nothing_and_a_dead_window_is_no_negative(name):
    modality, kw = CASES[name]
    model = make(modality, **{**kw, "pool": "mean"})
    C = len(SPECS[modality].ch_names)
    observed = torch.ones(4, C, 100, dtype=torch.bool)
    observed[0, 1] = False  # a lead that fell off
    observed[1, :, 60:] = False
    batch = windows(modality, observed=observed)
    loss = model.step(batch, step=5, keys=KEYS).loss
    noise = dataclasses.replace(batch, x=torch.where(observed, batch.x, 7.0))
    torch.testing.assert_close(model.step(noise, step=5, keys=KEYS).loss, loss)
    observed = observed.clone()
    observed[3] = False
    dead = windows(modality, observed=observed)
    out = model.step(dead, step=5, keys=KEYS)
    out.loss.backward()
    assert bool(out.loss.isfinite()) and all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_batch_with_some_of_the_channels_is_served_by_name():
    for name in ("core_ecg", "neuronet"):
        modality, kw = CASES[name]
        model = make(modality, **{**kw, "learned": False})
        full = windows(modality)
        some = Batch(full.x[:, [2, 0, 1]], tuple(full.channels[i] for i in (2, 0, 1)), full.sfreq)
        again = Batch(full.x[:, :3], full.channels[:3], full.sfreq)
        a, b = (model.step(x, step=5, keys=KEYS).loss for x in (some, again))
        torch.testing.assert_close(a, b)


def _gradient(number: int, name: str) -> list[list[float]]:
    modality, kw = CASES[name]
    model = make(modality, **kw).double()
    rows = slice(2 * number, 2 * number + 2)
    batch = windows(modality, dtype=torch.float64)
    keys = Keys(3, 5, KEYS.position[rows], rank=number)
    model.step(dataclasses.replace(batch, x=batch.x[rows]), step=5, keys=keys).loss.backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    dist.all_reduce(flat)
    return [(flat / 2).tolist()]


@needs_two_processes
@pytest.mark.parametrize("name", ["core_ecg", "neuronet_published"])
def test_two_processes_have_the_gradient_of_one(name, tmp_path):
    modality, kw = CASES[name]
    model = make(modality, **kw).double()
    model.step(windows(modality, dtype=torch.float64), step=5, keys=KEYS).loss.backward()
    want = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for got in run_in_two(_gradient, name, store=tmp_path / "store"):
        torch.testing.assert_close(torch.tensor(got[0], dtype=torch.float64), want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["core_ecg", "neuronet"])
def test_bfloat16_autocast_keeps_the_loss_in_float32_and_near(name):
    modality, kw = CASES[name]
    model = make(modality, **kw)
    exact = model.step(windows(modality), step=5, keys=KEYS).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.step(windows(modality), step=5, keys=KEYS).loss
    assert rough.dtype == torch.float32 and float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.1)


@pytest.mark.parametrize(
    ("encoder", "mask", "config", "text"),
    [
        (SMALL, None, {}, "key 'mask' is missing; objective hybrid"),
        (SMALL, RandomMask([0.5, 0.6]), {}, "mask: objective hybrid draws two masks of one size"),
        (dataclasses.replace(SMALL, registers=0), RandomMask(), {"pool": "register"}, "objective.pool: 'register' needs"),
        (JOINT, STDMMask(), {}, "mask:"),
        (SMALL, RandomMask(), {"decoder": DecoderConfig(dim=9)}, "decoder.dim"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(encoder, mask, config, text):
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        Hybrid(TransformerEncoder(SPECS["ecg"], encoder), HybridConfig(**config), mask=mask, steps=1)
    assert text in str(error.value)


@pytest.mark.parametrize("raw", [{"temperature": 0}, {"contrast": 0}, {"reconstruction": -1}])
def test_settings_without_meaning_name_their_key(raw):
    with pytest.raises(RequestError, match=f"r.yaml: 'objective': .*{next(iter(raw))}"):
        build(HybridConfig, raw, where="r.yaml", prefix="objective.")


@pytest.mark.parametrize("modality", ["ecg", "eeg", "imu"])
def test_small_recipes_have_the_backbone_of_the_others(modality):
    backbone = load_recipe(f"{modality}/jepa_small").model
    assert all(load_recipe(f"{modality}/{name}_small").model == backbone for name in ("core", "neuronet", "transforms"))


def test_the_published_constants():
    neuronet, core = load_recipe("eeg/neuronet"), load_recipe("ecg/core_ecg")
    a, b = neuronet.objective.config, core.objective.config
    assert (a.target, a.stop_gradient, a.temperature, a.pool, neuronet.mask.config.ratio) == (
        "tokens",
        False,
        0.05,
        "register",
        0.8,
    )
    assert (a.reconstruction, a.contrast, a.decoder.dim, a.decoder.depth) == (2.0, 1.0, 256, 3)
    assert neuronet.train.optimizer.lr == pytest.approx(2e-5 * neuronet.data.batch_size / 256)
    assert check_recipe(neuronet)["parameters"] == pytest.approx(33e6, rel=0.03)  # as stated for NeuroNet-B
    assert (core.mask.config.lead, core.mask.config.time, b.target, b.temperature) == (0.2, 0.5, "patch", 0.1)
    assert [part.name for part in core.augment] == ["fda"] and core.train.optimizer.lr == 1.5e-4
    assert core.train.steps == 100 * 800_000 // core.data.batch_size == 10 * core.train.schedule.config.warmup_steps
