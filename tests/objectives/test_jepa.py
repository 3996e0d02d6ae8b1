"""JEPA against a slow float64 loop over samples, masks and tokens; gradients, momentum, modes."""

import copy
import dataclasses

import pytest
import torch

from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.predictors import PredictorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.jepa import JEPA, JEPAConfig
from biossl.objectives.masking import MultiBlockMask, RandomMask, draw_masks
from biossl.objectives.regularizers import RegularizerConfig
from biossl.signal import InputSpec

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


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    spec = SPECS["ecg"]
    whole = make(spec, n_masks=2)
    halves = copy.deepcopy(whole)
    batch = windows(spec)
    whole.step(batch, step=5, keys=KEYS).loss.backward()
    for lo in (0, 2):
        piece = Batch(batch.x[lo : lo + 2], batch.channels, batch.sfreq)
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
    ],
)
def test_settings_that_do_not_fit_are_refused(mask, config, text):
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        JEPA(TransformerEncoder(SPECS["ecg"], SMALL), JEPAConfig(predictor=PREDICTOR, **config), mask=mask, steps=10)
    assert text in str(error.value)
