"""Masked reconstruction against a slow float64 loop over windows, masks and values; what it may see; its alarms."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.augment.base import Augmentation, Pipeline
from biossl.augment.timing import TimeReverse
from biossl.batch import Batch
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.models.decoders import DecoderConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.hybrid import Hybrid, HybridConfig
from biossl.objectives.masking import MaskConfig, MultiBlockMask, RandomMask, draw_masks
from biossl.objectives.reconstruction import Reconstruction, ReconstructionConfig, reconstruction_loss
from biossl.objectives.targets import TargetConfig, patch_targets
from biossl.recipe import load_recipe
from biossl.recipe.check import check_recipe
from biossl.recipe.schema import Monitor
from biossl.recipe.tables import CONFIGS, config_class
from biossl.signal import InputSpec
from biossl.training.monitors import Variances, alarm, embedding_std, rankme, stop_if_collapsed

SPECS = {
    "ecg": InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3),
    "imu": InputSpec("imu", 50.0, 100, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s")),
}
ENCODERS = {
    "ecg": EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, registers=1, normalise="window"),
    "imu": EncoderConfig(
        dim=16, depth=2, heads=2, patch_s=0.2, tokenizer="joint", attention="full", normalise="fixed",
        scale={"acc": 0.3, "gyro": 2.0},
    ),
}  # fmt: skip
KEYS = Keys(seed=3, step=5, position=torch.arange(4))
CHANNELWISE = RandomMask(0.6, channelwise=True)


def make(
    modality: str, *, mask: MaskConfig | None = None, decoder: dict[str, Any] | None = None,
    augment: Sequence[Augmentation] = (), shake: float = 0.3, **config: Any,
) -> Reconstruction:  # fmt: skip
    torch.manual_seed(0)
    settings = ReconstructionConfig(decoder=DecoderConfig(**({"dim": 8, "depth": 2, "heads": 2} | (decoder or {}))), **config)
    model = Reconstruction(
        TransformerEncoder(SPECS[modality], ENCODERS[modality]), settings, mask=mask or RandomMask(0.5), steps=100,
        augment=Pipeline(augment) if augment else None,
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():  # attention and norms must matter for the tests to see them
            p.add_(shake * torch.randn_like(p))
    return model


def windows(modality: str, n: int = 4, *, gaps: bool = False) -> Batch:
    spec, g = SPECS[modality], torch.Generator().manual_seed(1)
    x = torch.randn(n, len(spec.ch_names), spec.n_samples, generator=g)
    if not gaps:
        return Batch(x, spec.ch_names, spec.sfreq)
    observed = torch.rand(x.shape, generator=g) > 0.1
    observed[0, 1] = False  # a channel that fell off
    observed[1, :, 40:] = False
    return Batch(torch.where(observed, x, 0.0), spec.ch_names, spec.sfreq, observed=observed)


def part(batch: Batch, rows: slice) -> Batch:
    observed = None if batch.observed is None else batch.observed[rows]
    return Batch(batch.x[rows], batch.channels, batch.sfreq, observed=observed)


def double(batch: Batch) -> Batch:
    return dataclasses.replace(batch, x=batch.x.double())


def slow_loss(model: Reconstruction, batch: Batch, keys: Keys, **other: Any) -> Tensor:
    """One window, mask, token and value at a time; a scalar with gradient."""
    cfg, rec, encoder = dataclasses.replace(model.config, **other), model.reconstructor, model.encoder
    target_cfg = TargetConfig(cfg.target, cfg.per, cfg.scales)
    rows = []
    for m in range(cfg.n_masks):
        for b in range(len(batch)):
            one = part(batch, slice(b, b + 1))
            own = Keys(keys.seed, keys.step, keys.position[b : b + 1])
            C, P = encoder.grid
            drawn = model.mask.draw(own, (C, P), m)
            hidden = set(drawn.masked[0].tolist())
            if model.mask.over == "time":
                hidden = {c * P + t for c in range(C) for t in hidden}
            visible = [n for n in range(C * P) if n not in hidden]
            context = encoder.encode(encoder.tokenize(one), keep=torch.tensor([visible]))
            # the decoder by hand: a table of tokens, then its blocks over all of them or over each channel
            dec: Any = rec.decoder
            table = [dec.mask_token] * (C * P)
            for k, n in enumerate(visible):
                if bool(context.observed[0, k]):
                    table[n] = dec.embed(context.x[0, k])
            joint = dec.config.scope == "joint"
            table = [z + dec.position[n if joint else n % P] for n, z in enumerate(table)]
            groups = [list(range(C * P))] if joint else [list(range(c * P, (c + 1) * P)) for c in range(C)]
            decoded: dict[int, Tensor] = {}
            for group in groups:
                z = torch.stack([table[n] for n in group])[None]
                for block in dec.blocks:
                    q, k, v = block.attn.qkv(block.norm1(z))[0].chunk(3, dim=1)
                    heads = []
                    for h in range(dec.config.heads):
                        w = dec.config.dim // dec.config.heads
                        s = slice(h * w, (h + 1) * w)
                        heads.append((q[:, s] @ k[:, s].T / w**0.5).softmax(dim=1) @ v[:, s])
                    z = z + block.attn.proj(torch.cat(heads, dim=1))[None]
                    z = z + block.mlp(block.norm2(z))
                decoded |= dict(zip(group, dec.proj(dec.norm(z[0])), strict=True))
            values, exist = patch_targets(one.x, one.observed, rec.patch, target_cfg, scale=rec.scale, floor=rec.floor)
            total, n_values = torch.zeros((), dtype=torch.float64), 0
            for n in sorted(hidden):
                c_of = range(values.shape[1]) if rec.joint else [n // P]
                wanted = [(values[0, c, n % P, i], exist is None or bool(exist[0, c, n % P, i]))
                          for c in c_of for i in range(values.shape[3])]  # fmt: skip
                for said, (want, real) in zip(decoded[n], wanted, strict=True):
                    if not real:
                        continue
                    d = (said - want).abs()
                    if cfg.loss == "mse":
                        total = total + d * d
                    elif cfg.loss == "l1" or float(d.detach()) >= cfg.beta:
                        total = total + d - (0 if cfg.loss == "l1" else 0.5 * cfg.beta)
                    else:
                        total = total + 0.5 * d * d / cfg.beta
                    n_values += 1
            rows.append(total / max(n_values, 1))
    return torch.stack(rows).mean()


def gradients(model: Reconstruction, loss: Tensor) -> dict[str, Tensor]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


CASES = [
    ("ecg", {"target": "recording", "loss": "mse"}, MultiBlockMask(0.5), {}),
    ("ecg", {"target": "patch", "loss": "mse"}, CHANNELWISE, {"scope": "channel"}),
    ("ecg", {"target": "spectrum", "loss": "l1"}, RandomMask(0.5), {"scope": "channel"}),
    ("imu", {"target": "raw", "loss": "smooth_l1", "beta": 0.7, "n_masks": 3}, RandomMask(0.5), {}),
    ("imu", {"target": "derivative", "loss": "l1", "n_masks": 2}, RandomMask(0.7), {}),
    ("imu", {"target": "recording", "per": "recording", "loss": "smooth_l1"}, RandomMask([0.4, 0.6]), {}),
]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("modality", "config", "mask", "decoder"), CASES)
def test_loss_and_gradient_equal_a_slow_loop(
    modality: str, config: dict[str, Any], mask: MaskConfig, decoder: dict[str, Any], gaps: bool
) -> None:
    model = make(modality, mask=mask, decoder=decoder, **config).double()
    batch = double(windows(modality, 2 if config.get("n_masks") else 3, gaps=gaps))
    keys = Keys(3, 5, torch.arange(len(batch)))
    got, want = model.step(batch, step=5, keys=keys).loss, slow_loss(model, batch, keys)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    fast, slow = gradients(model, got), gradients(model, want)
    for name, grad in slow.items():
        torch.testing.assert_close(fast[name], grad, rtol=1e-7, atol=1e-10, msg=name)
    # mutants: another loss, another target and another step's masks are not what is computed
    for other in (
        {"loss": "l1" if config["loss"] == "mse" else "mse"},
        {"target": "patch" if config["target"] == "raw" else "raw"},
    ):
        if other.get("target") and config["target"] in ("spectrum", "derivative"):
            continue  # of another size
        assert abs(slow_loss(model, batch, keys, **other) - want) > 1e-3 * want
    assert abs(slow_loss(model, batch, Keys(3, 6, keys.position)) - want) > 1e-5 * want


def test_the_prediction_depends_on_every_visible_sample_and_on_no_hidden_one() -> None:
    for modality, mask in (("ecg", MultiBlockMask(0.5)), ("ecg", CHANNELWISE), ("imu", RandomMask(0.5))):
        model, batch = make(modality, mask=mask, target="raw"), windows(modality)
        # amplitudes as they are: a window's mean and sd would let hidden samples through to the visible ones
        model.encoder.config = dataclasses.replace(model.encoder.config, normalise="none")
        x = batch.x.clone().requires_grad_()
        tokens = model.encoder.tokenize(dataclasses.replace(batch, x=x))
        drawn = draw_masks(model.mask, KEYS, model.encoder.grid, 1)
        prediction = model.reconstructor(model.encoder.encode(tokens, keep=drawn.keep()), drawn)
        target, _ = model.reconstructor.target(batch, drawn)
        assert prediction.shape == target.shape
        (grad,) = torch.autograd.grad(prediction.square().sum(), x)
        C, P = model.encoder.grid
        hidden = torch.zeros(4, C * P, dtype=torch.bool).scatter(1, drawn.masked_tokens(), True)
        reached = grad.view(4, -1, P, 10).abs().amax(dim=-1).view(4, -1, C, P).amax(dim=1).view(4, C * P) > 0
        if modality == "imu":
            reached = grad.view(4, 2, P, 10).abs().amax(dim=(1, 3)) > 0
        assert torch.equal(reached, ~hidden)
        changed = batch.x.view(4, -1, P, 10).clone()  # visible samples are no target
        seen = ~hidden.view(4, C, P)
        changed[seen.expand(4, changed.shape[1], P)] = 7.0
        again, _ = model.reconstructor.target(dataclasses.replace(batch, x=changed.view(batch.x.shape)), drawn)
        assert torch.equal(again, target)


@pytest.mark.parametrize("modality", ["ecg", "imu"])
def test_samples_that_were_not_observed_change_neither_loss_nor_gradient(modality: str) -> None:
    for target in ("raw", "recording", "patch", "spectrum", "derivative"):
        model, batch = make(modality, target=target, n_masks=2), windows(modality, gaps=True)
        assert batch.observed is not None
        clean = model.step(batch, step=5, keys=KEYS).loss
        noise = dataclasses.replace(batch, x=torch.where(batch.observed, batch.x, 7.0))
        dirty = model.step(noise, step=5, keys=KEYS).loss
        assert torch.equal(clean, dirty) and bool(clean.isfinite())
        a, b = gradients(model, clean), gradients(model, dirty)
        assert all(torch.equal(a[n], b[n]) and bool(a[n].isfinite().all()) for n in a)
        whole = model.step(dataclasses.replace(batch, observed=None), step=5, keys=KEYS).loss
        assert not torch.equal(whole, clean)


def test_every_window_counts_the_same_however_much_of_it_was_observed() -> None:
    prediction, exist = torch.ones(2, 1, 10), torch.ones(2, 1, 10, dtype=torch.bool)
    target = torch.zeros(2, 1, 10)
    target[1] = 3.0
    exist[1, 0, 2:] = False
    assert float(reconstruction_loss(prediction, target, exist)) == pytest.approx((1 + 4) / 2)
    exist[1] = False
    assert float(reconstruction_loss(prediction, target, exist)) == pytest.approx(1 / 2)


@pytest.mark.parametrize("gaps", [False, True])
def test_micro_batches_give_the_gradient_of_the_whole_batch(gaps: bool) -> None:
    whole, batch = make("ecg", mask=CHANNELWISE, n_masks=2), windows("ecg", gaps=gaps)
    halves = copy.deepcopy(whole)
    whole.step(batch, step=5, keys=KEYS).loss.backward()
    for lo in (0, 2):
        rows = slice(lo, lo + 2)
        (halves.step(part(batch, rows), step=5, keys=Keys(3, 5, KEYS.position[rows], micro=lo // 2)).loss / 2).backward()
    for (name, a), b in zip(whole.named_parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def _gradient(number: int, model: Reconstruction, batch: Batch) -> dict[str, list[float]]:
    rows = slice(2 * number, 2 * number + 2)
    model.step(part(batch, rows), step=5, keys=Keys(3, 5, KEYS.position[rows], rank=number)).loss.backward()
    out = {}
    for name, p in model.named_parameters():
        assert p.grad is not None
        dist.all_reduce(p.grad)  # what DDP does: the mean over processes
        out[name] = (p.grad / 2).flatten().tolist()
    return out


@needs_two_processes
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    model, batch = make("ecg", n_masks=2).double(), double(windows("ecg", gaps=True))
    want = gradients(model, model.step(batch, step=5, keys=KEYS).loss)
    for given in run_in_two(_gradient, model, batch, store=tmp_path / "store"):
        for name, grad in want.items():
            torch.testing.assert_close(torch.tensor(given[name], dtype=torch.float64), grad.flatten(), msg=name)


class Double(Augmentation):
    """Twice the amplitude, and every third sample lost."""

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        observed = torch.ones_like(batch.x, dtype=torch.bool)
        observed[..., ::3] = False
        return dataclasses.replace(batch, x=torch.where(observed, 2.0 * batch.x, 0.0), observed=observed)


def test_the_clean_window_is_predicted_from_the_augmented_view_when_the_recipe_says_so() -> None:
    batch = windows("imu")
    clean = make("imu", target="raw", augment=[Double()], target_of="clean")
    view = make("imu", target="raw", augment=[Double()], target_of="view")
    drawn = draw_masks(clean.mask, KEYS, clean.encoder.grid, 1)
    seen = Double()(batch, KEYS, 0)
    prediction = clean.reconstructor(clean.encoder.encode(clean.encoder.tokenize(seen), keep=drawn.keep()), drawn)
    for model, source in ((clean, batch), (view, seen)):
        target, exist = model.reconstructor.target(source, drawn)
        assert (exist is None) == (source is batch)
        torch.testing.assert_close(model.step(batch, step=5, keys=KEYS).loss, model.reconstructor.loss(prediction, target, exist))


def test_samples_as_recorded_are_not_predicted_from_a_view_that_moves_them_in_time() -> None:
    moved = TimeReverse().build(SPECS["imu"])
    assert make("imu", target="raw", augment=[moved]).augment is not None
    with pytest.raises(RequestError, match="objective.target_of: clean predicts the samples as they were recorded.*remove it"):
        make("imu", target="raw", augment=[moved], target_of="clean")
    net, pipeline = TransformerEncoder(SPECS["imu"], ENCODERS["imu"]), Pipeline([moved])
    Hybrid(net, HybridConfig(target="tokens"), mask=RandomMask(0.5), steps=100, augment=pipeline)
    with pytest.raises(RequestError, match="objective.target: raw predicts the samples"):
        Hybrid(net, HybridConfig(target="raw"), mask=RandomMask(0.5), steps=100, augment=pipeline)


def test_channels_in_another_order_or_absent_are_found_by_name() -> None:
    model, batch = make("ecg", target="raw"), windows("ecg")
    turned = Batch(batch.x[:, [2, 0, 1]], ("V1", "I", "II"), batch.sfreq)
    torch.testing.assert_close(model.step(turned, step=5, keys=KEYS).loss, model.step(batch, step=5, keys=KEYS).loss)
    fewer = Batch(batch.x[:, [2, 0]], ("V1", "I"), batch.sfreq)
    ordered = Batch(batch.x[:, [0, 2]], ("I", "V1"), batch.sfreq)
    out = model.step(fewer, step=5, keys=KEYS)
    torch.testing.assert_close(out.loss, model.step(ordered, step=5, keys=KEYS).loss)
    assert out.watch["target"].shape == (4 * 2 * 5, 10)


@pytest.mark.parametrize("scope", ["joint", "channel"])
@pytest.mark.parametrize("name", [n for n in CONFIGS["mask"] if n != "spatial"])  # which needs electrode positions
def test_every_mask_family_fits_both_decoders(name: str, scope: str) -> None:
    settings = {"ratio": 0.5, "patches": 2} if name == "span" else {}  # its own are for windows of many patches
    model = make("ecg", mask=config_class("mask", name, where="test")(**settings), decoder={"scope": scope})
    out = model.step(windows("ecg", gaps=True), step=5, keys=KEYS)
    assert bool(out.loss.isfinite()) and all(bool(g.isfinite().all()) for g in gradients(model, out.loss).values())


def test_absent_channels_shift_no_scale_to_another_channel() -> None:
    net = dataclasses.replace(ENCODERS["imu"], tokenizer="channel")
    model = Reconstruction(
        TransformerEncoder(SPECS["imu"], net), ReconstructionConfig(target="raw"), mask=RandomMask(0.5), steps=1
    )
    batch = windows("imu")
    gyro = Batch(batch.x[:, 1:], ("gyro_x",), batch.sfreq)
    drawn = draw_masks(model.mask, KEYS, (1, 10), 1)
    target, _ = model.reconstructor.target(gyro, drawn)
    assert torch.equal(target[2, 0], gyro.x[2, 0].view(10, 10)[drawn.masked[2, 0]] / 2.0)


def rhythms(n: int, seed: int) -> Batch:
    """Sines of 1.5 to 2.5 Hz; a window's channels lag each other by fixed times, so that the rest tells what is hidden."""
    spec, g = SPECS["ecg"], torch.Generator().manual_seed(seed)
    t = torch.arange(spec.n_samples) / spec.sfreq
    f, phase = 1.5 + torch.rand(n, 1, 1, generator=g), 6.3 * torch.rand(n, 1, 1, generator=g) + torch.arange(3)[:, None]
    return Batch(torch.sin(6.2832 * f * t + phase), spec.ch_names, spec.sfreq)


def beginner() -> Reconstruction:
    """Small, initialised so that it learns within seconds."""
    torch.manual_seed(0)
    net = EncoderConfig(dim=32, depth=2, heads=2, patch_s=0.2, init="fan_in", position="once", attention="full")
    settings = ReconstructionConfig(decoder=DecoderConfig(dim=32, depth=1, heads=2, init="fan_in"))
    return Reconstruction(TransformerEncoder(SPECS["ecg"], net), settings, mask=RandomMask(0.5), steps=150)


@pytest.fixture(scope="module")
def trained() -> tuple[Reconstruction, Any]:
    """A short training on rhythms, and what its last step on unseen windows gave."""
    model = beginner()
    optimizer = torch.optim.AdamW(model.param_groups(0.0), lr=1e-2)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / 160)
        optimizer.zero_grad()
        model.step(rhythms(16, step), step=step, keys=Keys(0, step, torch.arange(16))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, model.eval().step(rhythms(64, 9999), step=0, keys=Keys(1, 0, torch.arange(64)))


def test_a_short_training_predicts_far_better_than_the_mean(trained: tuple[Reconstruction, Any]) -> None:
    _, out = trained
    assert float(out.loss.detach()) < 0.5 * float(out.watch["target"].square().mean())
    assert float(out.terms["explained"]) > 0.5
    fresh = beginner().step(rhythms(64, 9999), step=0, keys=Keys(1, 0, torch.arange(64)))
    assert float(fresh.terms["explained"]) < 0.1


def reading(model: Reconstruction, batch: Batch, keys: Keys) -> dict[str, float]:
    """What the monitors read of a model."""
    z = model.encoder.embed(batch)
    variances = Variances()
    variances.add(model.step(batch, step=0, keys=keys).watch)
    return {"std": embedding_std(z), "rankme_centred": rankme(z, centred=True), **variances.take()}


def test_alarms_fire_on_planted_collapses_and_are_silent_on_a_healthy_run(trained: tuple[Reconstruction, Any]) -> None:
    model, batch, keys = trained[0], rhythms(64, 9999), Keys(1, 0, torch.arange(64))
    start = embedding_std(beginner().encoder.embed(batch))
    healthy = reading(model, batch, keys)
    assert alarm(healthy, start_std=start) == ""
    stop_if_collapsed(healthy, Monitor(), 1000)

    collapsed = copy.deepcopy(model)  # an encoder that says the same of every window
    with torch.no_grad():
        collapsed.encoder.norm.weight.mul_(1e-6)
        collapsed.encoder.norm.bias.fill_(1.0)
    told = reading(collapsed, batch, keys)
    assert "nearly the same" in alarm(told, start_std=start)
    assert float(collapsed.step(batch, step=0, keys=keys).terms["explained"]) < 0.1

    constant = copy.deepcopy(model)  # a decoder that predicts the mean
    with torch.no_grad():
        constant.reconstructor.decoder.proj.weight.zero_()
    with pytest.raises(DataError, match="prediction variance"):
        stop_if_collapsed(reading(constant, batch, keys), Monitor(), 1000)


def test_what_is_watched_means_the_same_whatever_the_units_of_the_target() -> None:
    batch = windows("imu")
    quiet = dataclasses.replace(batch, x=1e-3 * batch.x)
    for b in (batch, quiet):
        watch = make("imu", target="raw").step(b, step=5, keys=KEYS).watch
        assert float(watch["target"].var(dim=0).mean()) == pytest.approx(1.0, rel=1e-3)
    out = make("ecg", n_masks=2).step(windows("ecg", gaps=True), step=5, keys=KEYS)
    assert out.watch["embedding"].shape == (2 * 4, 16) and out.watch["target"].shape == out.watch["prediction"].shape
    assert not any(v.requires_grad for v in (*out.watch.values(), *out.terms.values()))
    batch = windows("imu")
    holes = torch.arange(batch.x.shape[2]).expand(batch.x.shape) % 10 > 0  # no token is whole: there is no variance to watch
    torn = dataclasses.replace(batch, x=torch.where(holes, batch.x, 0.0), observed=holes)
    assert set(make("imu").step(torn, step=5, keys=KEYS).watch) == {"embedding"}


def test_bfloat16_keeps_the_loss_in_float32_and_near() -> None:
    for target in ("recording", "spectrum"):
        model, batch = make("ecg", target=target), windows("ecg")
        exact = float(model.step(batch, step=5, keys=KEYS).loss.detach())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.step(batch, step=5, keys=KEYS).loss
        assert rough.dtype == torch.float32 and float(rough.detach()) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(
    ("mask", "config", "text"),
    [
        (None, {}, "key 'mask' is missing"),
        (RandomMask([0.5, 0.6]), {"n_masks": 2}, "objective.n_masks"),
        (RandomMask(), {"target": "derivative", "scales": [1, 10]}, "objective.scales: 10 must be below the 10 samples"),
    ],
)
def test_settings_that_do_not_fit_are_refused(mask: MaskConfig | None, config: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        Reconstruction(TransformerEncoder(SPECS["ecg"], ENCODERS["ecg"]), ReconstructionConfig(**config), mask=mask, steps=10)
    assert text in str(error.value)
    for bad in ({"beta": 0.0}, {"n_masks": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ReconstructionConfig(**bad)  # type: ignore[arg-type]


def test_the_published_st_mem_configuration() -> None:
    recipe = load_recipe("ecg/st_mem")
    summary = check_recipe(recipe)
    assert summary["grid"] == [12, 30] and summary["encoder_parameters"] == pytest.approx(85.1e6, rel=5e-3)  # ViT-B: 85-86 M
    model, objective, decoder = recipe.model.config, recipe.objective.config, recipe.objective.config.decoder
    assert recipe.mask is not None
    assert (model.dim, model.depth, model.heads, model.mlp_ratio, model.patch_s) == (768, 12, 12, 4.0, 0.3)
    assert (decoder.scope, decoder.dim, decoder.depth, decoder.heads) == ("channel", 256, 4, 4)
    assert (objective.target, objective.loss, objective.n_masks) == ("patch", "mse", 1)
    assert (recipe.mask.name, recipe.mask.config.ratio, recipe.mask.config.channelwise) == ("random", 0.75, True)
    optimizer = recipe.train.optimizer
    assert optimizer.lr == pytest.approx(1.5e-4 * recipe.data.batch_size / 256)
    assert (optimizer.betas, optimizer.weight_decay) == ([0.9, 0.95], 0.01)


@pytest.mark.parametrize("modality", ["ecg", "eeg", "imu"])
def test_small_recipes_have_the_backbone_of_the_others(modality: str) -> None:
    for name in ("mae_small", "st_mem_small") if modality == "ecg" else ("mae_small",):
        assert load_recipe(f"{modality}/{name}").model == load_recipe(f"{modality}/jepa_small").model
