"""JEPA against a slow float64 loop over samples, masks and tokens; gradients, momentum, modes."""

import copy
import dataclasses

import pytest
import torch
from objective_toys import RUINOUS, assert_two_processes_have_the_gradients_of_one, reading, train
from two_processes import needs_two_processes

from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.masks.priors import Prior
from biossl.models.heads import ProjectorConfig
from biossl.models.predictors import GridPredictor, PredictorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.jepa import JEPA, JEPAConfig
from biossl.objectives.masking import (
    ChannelMask,
    DisjointMask,
    MultiBlockMask,
    RandomMask,
    SpanMask,
    STDMMask,
    TubeMask,
    draw_masks,
)
from biossl.objectives.regularizers import RegularizerConfig
from biossl.signal import InputSpec
from biossl.training.monitors import alarm

SPECS = {
    "ecg": InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3),
    "eeg": InputSpec("eeg", 50.0, 100, tuple("ABCDE"), ("eeg",) * 5, ("uV",) * 5),
    "imu": InputSpec("imu", 50.0, 100, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s")),
}
SMALL = EncoderConfig(dim=16, depth=3, heads=2, patch_s=0.2, registers=1)
PREDICTOR = PredictorConfig(dim=8, depth=2, heads=2)
KEYS = Keys(seed=3, step=5, position=torch.arange(4))


def make(spec, *, encoder=SMALL, mask=None, **config):
    torch.manual_seed(0)
    net = TransformerEncoder(spec, encoder)
    with torch.no_grad():
        for p in net.parameters():  # attention and norms must matter for the test to see them
            p.add_(0.3 * torch.randn_like(p))
    return JEPA(net, JEPAConfig(predictor=PREDICTOR, **config), mask=mask or RandomMask(0.5), steps=100)


def windows(spec, n=4):
    x = torch.randn(n, len(spec.ch_names), spec.n_samples, generator=torch.Generator().manual_seed(1))
    return Batch(x, spec.ch_names, spec.sfreq)


def part(batch, i):
    observed = None if batch.observed is None else batch.observed[i : i + 1]
    return Batch(batch.x[i : i + 1], batch.channels, batch.sfreq, observed=observed)


def plain_norm(v):
    v = [float(a) for a in v]
    mean = sum(v) / len(v)
    var = sum((a - mean) ** 2 for a in v) / len(v)
    return [(a - mean) / (var + 1e-5) ** 0.5 for a in v]


def slow_loss(model, batch, keys, *, normalise=True):
    """One sample, mask, channel and token at a time, in float64."""
    cfg = model.config
    P = model.encoder.grid[1]
    total, n = 0.0, 0
    batch = dataclasses.replace(batch, x=batch.x.double())
    for b in range(len(batch)):
        one = part(batch, b)
        with torch.no_grad():
            full = model.target.encode(model.target.tokenize(one), layers=tuple(range(-cfg.target_layers, 0)))
            tokens = model.encoder.tokenize(one)
        own = Keys(keys.seed, keys.step, keys.position[b : b + 1])
        for m in range(cfg.n_masks):
            mask = model.mask.draw(own, (1, P), m)
            with torch.no_grad():
                context = model.encoder.encode(tokens, keep=TimeKeep(mask.visible))
                out = model.predictor(context.x, mask.visible, mask.masked)
            for c in range(tokens.grid[0]):
                for j, t in enumerate(mask.masked[0].tolist()):
                    token = c * P + t
                    if cfg.target_layers:
                        layers = [plain_norm(h[0, token]) for h in full.hidden]
                        goal = [sum(a) / len(a) for a in zip(*layers, strict=True)]
                    else:
                        goal = full.x[0, token].tolist()
                    goal = plain_norm(goal) if normalise else goal
                    for p, g in zip(out[0, c, j].tolist(), goal, strict=True):
                        d = abs(p - g)
                        total += d if cfg.loss == "l1" else (0.5 * d * d if d < 1 else d - 0.5)
                        n += 1
    return total / n


@pytest.mark.parametrize(
    ("modality", "encoder", "mask", "config"),
    [
        ("ecg", SMALL, RandomMask([0.4, 0.6]), {}),
        ("ecg", SMALL, MultiBlockMask(ratio=None), {"loss": "l1"}),
        ("eeg", dataclasses.replace(SMALL, attention="full"), MultiBlockMask(0.5), {"n_masks": 3, "target_layers": 2}),
        ("imu", dataclasses.replace(SMALL, tokenizer="joint", registers=0), RandomMask(0.5), {"n_masks": 2, "target_layers": 3}),
    ],
)
def test_the_loss_equals_a_slow_loop_over_tokens(modality, encoder, mask, config):
    model = make(SPECS[modality], encoder=encoder, mask=mask, **config).double()
    for p in model.target.parameters():  # a target that differs from the student, as after some steps
        p.mul_(1.1)
    batch = windows(SPECS[modality])
    got = model.step(dataclasses.replace(batch, x=batch.x.double()), step=5, keys=KEYS)
    want = slow_loss(model, batch, KEYS)
    assert float(got.loss.detach()) == pytest.approx(want, rel=1e-5)
    assert abs(want - slow_loss(model, batch, KEYS, normalise=False)) > 1e-3 * want  # the reference sees a target not normalised
    assert abs(want - slow_loss(model, batch, Keys(3, 6, KEYS.position))) > 1e-4 * want  # and another step's masks


def test_no_gradient_reaches_the_target_and_every_trainable_parameter_has_one():
    model = make(SPECS["ecg"], regularizer=RegularizerConfig("vicreg", weight=0.5, covariance=0.0), n_masks=2, target_layers=2)
    model.step(windows(SPECS["ecg"]), step=0, keys=KEYS).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.target.parameters())
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trainable and not any(n.startswith("target.") for n in trainable)
    silent = [n for n, p in trainable.items() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert silent == []
    grouped = [p for g in model.param_groups(0.05) for p in g["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in trainable.values()} and len(grouped) == len(trainable)


def test_the_target_starts_equal_to_the_student_and_follows_a_linear_momentum():
    model = make(SPECS["ecg"], ema_start=0.99)
    ((source, target),) = model.ema_pairs()
    assert source is model.encoder is model.export() and target is model.target
    for (n, a), (m, b) in zip(source.state_dict().items(), target.state_dict().items(), strict=True):
        assert n == m and torch.equal(a, b) and a.data_ptr() != b.data_ptr()
    assert [model.ema_momentum(s) for s in (0, 50, 100)] == pytest.approx([0.99, 0.995, 1.0])


def test_the_target_is_deterministic_unless_the_recipe_asks_for_the_published_train_mode():
    encoder = dataclasses.replace(SMALL, drop_path=0.5)
    batch = windows(SPECS["ecg"])
    still, noisy = make(SPECS["ecg"], encoder=encoder), make(SPECS["ecg"], encoder=encoder, target_train_mode=True)
    assert not still.target.training and still.encoder.training and noisy.target.training
    targets = [still.step(batch, step=0, keys=KEYS).watch["target"] for _ in range(2)]
    assert torch.equal(*targets)
    targets = [noisy.step(batch, step=0, keys=KEYS).watch["target"] for _ in range(2)]
    assert not torch.equal(*targets)
    noisy.eval()
    assert not noisy.target.training
    assert not still.train().target.training


def test_what_the_monitors_watch_is_detached_and_has_the_stated_shapes():
    model = make(SPECS["ecg"], n_masks=2, regularizer=RegularizerConfig("vicreg", weight=0.1, covariance=0.0))
    out = model.step(windows(SPECS["ecg"]), step=0, keys=KEYS)
    assert out.watch["embedding"].shape == (4, 16)
    assert out.watch["target"].shape == out.watch["prediction"].shape == (2 * 4 * 3 * 5, 16)
    assert not any(v.requires_grad for v in (*out.watch.values(), *out.terms.values()))
    total = out.terms["prediction"] + 0.1 * out.terms["variance"]
    assert float(out.loss.detach()) == pytest.approx(float(total), rel=1e-6)


def test_unobserved_samples_change_nothing_and_unobserved_tokens_are_no_targets():
    spec = SPECS["ecg"]
    model = make(spec)
    observed = torch.ones(4, 3, 100, dtype=torch.bool)
    observed[0, 1] = False  # a lead that fell off
    observed[1, :, 60:] = False
    x = torch.where(observed, windows(spec).x, 0.0)
    batch = Batch(x, spec.ch_names, spec.sfreq, observed=observed)
    out = model.step(batch, step=5, keys=KEYS)
    masks = draw_masks(model.mask, KEYS, (1, 10), 1)
    seen = model.encoder.tokenize(batch).observed.view(4, 3, 10)
    n = sum(int(seen[b, :, masks.masked[b]].sum()) for b in range(4))
    assert out.watch["target"].shape[0] == n < 4 * 3 * 5
    noise = Batch(torch.where(observed, x, 7.0), spec.ch_names, spec.sfreq, observed=observed)
    assert torch.equal(model.step(noise, step=5, keys=KEYS).loss, out.loss)
    complete = model.step(Batch(x, spec.ch_names, spec.sfreq), step=5, keys=KEYS)
    assert not torch.equal(complete.loss, out.loss)


@pytest.mark.parametrize("gaps", [False, True])
def test_micro_batches_give_the_gradient_of_the_whole_batch(gaps):
    spec = SPECS["ecg"]
    whole = make(spec, n_masks=2, visible_weight=0.5)
    halves = copy.deepcopy(whole)
    batch = windows(spec)
    if gaps:  # the second half has far fewer tokens to predict
        observed = torch.ones(4, 3, 100, dtype=torch.bool)
        observed[0, 1, :20] = observed[2, :, 30:] = observed[3, 1:] = False
        batch = dataclasses.replace(batch, x=torch.where(observed, batch.x, 0.0), observed=observed)
    whole.step(batch, step=5, keys=KEYS).loss.backward()
    for lo in (0, 2):
        seen = None if batch.observed is None else batch.observed[lo : lo + 2]
        piece = Batch(batch.x[lo : lo + 2], batch.channels, batch.sfreq, observed=seen)
        (halves.step(piece, step=5, keys=Keys(3, 5, KEYS.position[lo : lo + 2], micro=lo // 2)).loss / 2).backward()
    for (name, a), b in zip(whole.named_parameters(), halves.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_bfloat16_autocast_keeps_the_loss_in_float32_and_near():
    model = make(SPECS["ecg"])
    batch = windows(SPECS["ecg"])
    exact = model.step(batch, step=5, keys=KEYS).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.step(batch, step=5, keys=KEYS).loss
    assert rough.dtype == torch.float32 and float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.03)


def test_a_few_steps_learn():
    model = make(SPECS["ecg"], n_masks=2)
    batch = windows(SPECS["ecg"], 16)
    keys = Keys(0, 0, torch.arange(16))
    optimizer = torch.optim.AdamW(model.param_groups(0.0), lr=3e-3)
    first = None
    for _ in range(30):
        loss = model.step(batch, step=0, keys=keys).loss
        first = first or float(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.7 * first  # same masks, target at rest: the predictor must fit


@pytest.mark.parametrize(
    ("mask", "config", "text"),
    [
        (None, {}, "key 'mask' is missing"),
        (RandomMask([0.5, 0.6]), {"n_masks": 2}, "objective.n_masks"),
        (MultiBlockMask(None), {"n_masks": 2}, "objective.n_masks"),
        (RandomMask(), {"target_layers": 9}, "objective.target_layers: 9, but the encoder has 3 blocks"),
        (ChannelMask(), {}, "objective.predictor.kind: lead predicts times that all channels hide"),
        (SpanMask(0.8, patches=5), {}, "mask.patches: 5, but mask.ratio leaves only 2 of 10 patches visible"),
    ],
)
def test_settings_that_do_not_fit_are_refused(mask, config, text):
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        JEPA(TransformerEncoder(SPECS["ecg"], SMALL), JEPAConfig(predictor=PREDICTOR, **config), mask=mask, steps=10)
    assert text in str(error.value)


SIGREG = RegularizerConfig("sigreg", of="pooled", weight=0.2, directions=32, projector=ProjectorConfig(hidden=8, out=6))
GRID = PredictorConfig(kind="grid", dim=8, depth=2, heads=2)
POOLED = RegularizerConfig("vicreg", of="pooled", projector=ProjectorConfig(hidden=8, out=6, norm="layer"))


def slow_terms(model, batch, keys, *, theta=None, spread=True):
    """One sample and mask at a time, in float64, differentiable: what hidden tokens, visible tokens and the spread add."""
    cfg, B = model.config, len(batch)
    teacher = model.target if model.target is not None else model.encoder
    theta = cfg.visible_weight if theta is None else theta
    total, n, own, n_own, pooled = 0.0, 0, 0.0, 0, []
    for m in range(cfg.n_masks):
        for b in range(B):
            one = part(batch, b)
            drawn = draw_masks(model.mask, Keys(keys.seed, keys.step, keys.position[b : b + 1]), model.encoder.grid, cfg.n_masks)
            masked, visible = drawn.masked_tokens()[m], drawn.visible_tokens()[m]
            with torch.no_grad():
                goal = torch.nn.functional.layer_norm(teacher.encode(teacher.tokenize(one)).x[0], (16,))
            context = model.encoder.encode(model.encoder.tokenize(one), keep=visible).x
            if isinstance(model.predictor, GridPredictor):
                out = model.predictor(context, visible, masked)[0]
            else:
                P = model.encoder.grid[1]
                times = (drawn.visible[m], drawn.masked[m])
                assert torch.equal(masked % P, times[1].repeat(len(masked) // len(times[1])))
                out = model.predictor(context, *times)[0].flatten(0, 1)
            for j, token in enumerate(masked.tolist()):
                d = (out[j] - goal[token]).abs()
                total, n = total + torch.where(d < 1, 0.5 * d * d, d - 0.5).sum(), n + 16
            for j, token in enumerate(visible.tolist()):
                if theta:
                    d = (model.visible(context[0, j]) - goal[token]).abs()
                    own, n_own = own + torch.where(d < 2, 0.25 * d * d, d - 1.0).sum(), n_own + 16
            pooled.append(context[0].mean(dim=0))
    loss = total / n + (theta * own / n_own if theta else 0.0)
    if model.regularizer is not None and spread:
        for m in range(cfg.n_masks):
            z = torch.stack([model.regularizer.projector(p) for p in pooled[m * B : (m + 1) * B]])
            cov = torch.stack([torch.stack([((z[:, i] - z[:, i].mean()) * (z[:, j] - z[:, j].mean())).sum() / (B - 1)
                                            for j in range(6)]) for i in range(6)])  # fmt: skip
            hinge = sum(torch.relu(1 - (cov[i, i] + 1e-4).sqrt()) for i in range(6)) / 6
            off = sum(cov[i, j] ** 2 for i in range(6) for j in range(6) if i != j) / 6
            loss = loss + cfg.regularizer.weight * (hinge + cfg.regularizer.covariance * off) / cfg.n_masks
    return loss


@pytest.mark.parametrize(
    ("mask", "config"),
    [
        (RandomMask(0.6, channelwise=True), {"predictor": GRID, "n_masks": 2}),
        (STDMMask(0.4, 0.5), {"predictor": GRID, "visible_weight": 0.7}),
        (TubeMask(0.4, 0.5), {"predictor": GRID, "target": "self", "regularizer": POOLED, "n_masks": 2}),
        (DisjointMask(0.7), {"visible_weight": 1.0, "n_masks": 3}),
        (RandomMask(0.5), {"regularizer": dataclasses.replace(POOLED, weight=0.3, covariance=0.5)}),
        (SpanMask(0.6, patches=2), {"predictor": GRID}),
    ],
)
def test_loss_and_gradients_equal_a_slow_version_for_every_mask_and_option(mask, config):
    torch.manual_seed(0)
    net = TransformerEncoder(SPECS["ecg"], SMALL)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    model = JEPA(net, JEPAConfig(**{"predictor": PREDICTOR} | config), mask=mask, steps=10).double()
    slow = copy.deepcopy(model)
    batch = windows(SPECS["ecg"])
    batch = dataclasses.replace(batch, x=batch.x.double())
    loss = model.step(batch, step=5, keys=KEYS).loss
    want = slow_terms(slow, batch, KEYS)
    assert float(loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    loss.backward()
    want.backward()
    for (name, p), q in zip(model.named_parameters(), slow.named_parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q[1].grad, rtol=2e-3, atol=2e-6, msg=name)
    with torch.no_grad():  # the reference would see another step's mask, and each term left out
        assert abs(float(slow_terms(slow, batch, Keys(3, 6, KEYS.position))) - float(want)) > 1e-4 * float(want)
        if model.visible is not None:
            assert abs(float(slow_terms(slow, batch, KEYS, theta=0.5)) - float(want)) > 1e-3 * float(want)
        if model.regularizer is not None:
            assert abs(float(slow_terms(slow, batch, KEYS, spread=False)) - float(want)) > 1e-3 * float(want)


def test_its_own_features_as_targets_need_no_copy_and_carry_no_gradient():
    model = make(SPECS["ecg"], encoder=dataclasses.replace(SMALL, drop_path=0.5), target="self", regularizer=POOLED)
    assert model.target is None and model.ema_pairs() == [] and model.needs.in_batch
    batch = windows(SPECS["ecg"])
    still = [model.step(batch, step=0, keys=KEYS).watch["target"] for _ in range(2)]
    assert torch.equal(*still) and model.encoder.training  # drop-path is off for the targets alone
    with pytest.raises(ValueError, match="target 'self' has nothing against collapse"):
        JEPAConfig(target="self")


def test_registers_are_never_masked_predicted_or_pooled():
    spec = SPECS["ecg"]
    batch = windows(spec)
    plain = make(spec, encoder=dataclasses.replace(SMALL, registers=0), n_masks=2)
    model = make(spec, encoder=dataclasses.replace(SMALL, registers=3), n_masks=2)
    out, without = (m.step(batch, step=5, keys=KEYS) for m in (model, plain))
    assert out.watch["target"].shape == without.watch["target"].shape == out.watch["prediction"].shape
    tokens = model.encoder.tokenize(batch)
    context = model.encoder.encode(tokens, keep=draw_masks(model.mask, KEYS, (3, 10), 2).keep())
    assert context.registers.shape == (8, 3, 16) and context.x.shape == (8, 15, 16) and tokens.x.shape == (4, 30, 16)
    full = model.target.encode(model.target.tokenize(batch))
    torch.testing.assert_close(out.watch["embedding"], full.x.mean(dim=1))  # of tokens alone
    out.loss.backward()
    assert float(model.encoder.registers.grad.abs().max()) > 0  # they are used: what tokens read from them has a gradient
    with torch.no_grad():
        model.encoder.registers.mul_(-1.0)
    assert not torch.equal(model.step(batch, step=5, keys=KEYS).loss, out.loss)


def test_a_batch_without_all_channels_is_predicted_by_the_grid_too():
    spec = SPECS["ecg"]
    model = JEPA(TransformerEncoder(spec, SMALL), JEPAConfig(predictor=GRID), mask=RandomMask(0.5, channelwise=True), steps=10)
    x = windows(spec).x
    some = model.step(Batch(x[:, [0, 2]], ("I", "V1"), spec.sfreq), step=5, keys=KEYS)
    turned = model.step(Batch(x[:, [2, 0]], ("V1", "I"), spec.sfreq), step=5, keys=KEYS)
    torch.testing.assert_close(some.loss, turned.loss)
    assert some.watch["target"].shape == (4 * 2 * 5, 16)


def test_a_prior_is_read_from_the_target_encoder_and_moves_the_masks():
    spec = SPECS["ecg"]
    masks = [RandomMask(0.3, prior=Prior("attention", 100.0)), RandomMask(0.3)]
    targets = [make(spec, mask=m).step(windows(spec), step=5, keys=KEYS).watch["target"] for m in masks]
    assert targets[0].shape == targets[1].shape and not torch.equal(*targets)


def test_the_alarm_fires_on_a_planted_collapse_and_is_silent_on_a_healthy_run():
    spec = SPECS["imu"]
    for config in ({}, {"target": "self", "regularizer": POOLED}, {"target": "self", "regularizer": SIGREG}):
        runs = []
        for decay in (0.0, RUINOUS):
            torch.manual_seed(1)
            encoder = TransformerEncoder(spec, dataclasses.replace(SMALL, init="fan_in", position="once"))
            model = JEPA(encoder, JEPAConfig(predictor=PREDICTOR, **config), mask=RandomMask(0.5), steps=25)
            start = reading(model, spec)["std"]
            train(model, spec, steps=25, weight_decay=decay, lr=3e-3 if decay == 0.0 else 1e-2)
            if model.target is not None:
                model.target.load_state_dict(model.encoder.state_dict())
            runs.append(alarm(reading(model, spec), start_std=start))
        assert runs[0] == "" and runs[1] != "", config


@needs_two_processes
@pytest.mark.parametrize("regularizer", ["tokens", "pooled", "sigreg"])
def test_two_processes_have_the_gradients_of_one(tmp_path, regularizer):
    kinds = {"tokens": RegularizerConfig("vicreg", covariance=0.5), "pooled": POOLED, "sigreg": SIGREG}
    model = make(SPECS["imu"], regularizer=kinds[regularizer], n_masks=2, visible_weight=0.5).double()
    batch = dataclasses.replace(windows(SPECS["imu"]), x=windows(SPECS["imu"]).x.double())
    assert_two_processes_have_the_gradients_of_one(model, batch, KEYS, store=tmp_path / "store", atol=1e-6)
