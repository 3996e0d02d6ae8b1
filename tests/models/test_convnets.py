"""The convolutional encoder: what channels, gaps, batches and seeds do to its output, and what they must not do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from biossl.batch import Batch, TimeKeep
from biossl.checkpoint import load_encoder, save_encoder
from biossl.config import dump_yaml, load_yaml
from biossl.errors import BiosslError, DataError, RequestError
from biossl.keys import Keys
from biossl.models.convnets import ConvConfig, ConvEncoder, TimeConv, TimeNorm, along_time
from biossl.models.encoder import pool_tokens
from biossl.recipe import load_recipe
from biossl.recipe.check import check_recipe
from biossl.recipe.tables import ENCODERS, resolve
from biossl.signal import InputSpec
from biossl.training.optim import layer_scales

NAMES = ("I", "II", "V1")
C, T = 3, 90  # three stages of 8 samples a token: the last of 12 tokens has two
SPEC = InputSpec("ecg", 50.0, T, NAMES, ("ecg",) * C, ("mV",) * C)
CONFIG = ConvConfig(widths=[8, 16, 24], kernel=5, normalise="window")


def make(seed: int = 0, **changes: Any) -> ConvEncoder:
    torch.manual_seed(seed)
    return ConvEncoder(SPEC, replace(CONFIG, **changes)).double().eval()


def batch(n: int = 4, names: tuple[str, ...] = NAMES, observed: Tensor | None = None) -> Batch:
    x = torch.randn(n, C, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x[:, [NAMES.index(c) for c in names]], names, 50.0, observed=observed)


def run(encoder: ConvEncoder, windows: Batch, **how: Any) -> Any:
    return encoder.encode(encoder.tokenize(windows), **how)


def test_a_window_becomes_tokens_of_the_last_stride() -> None:
    out = run(make(), batch(), layers=(0, -1))
    assert out.grid == make().grid == (C, 12) and out.x.shape == (4, 36, 24) and out.registers.shape == (4, 0, 24)
    assert [h.shape[1:] for h in out.hidden] == [(C * 45, 8), (C * 12, 24)] and make().layer_dims == (8, 16, 24)
    assert out.observed.expand(4, 36).all() and [o.shape[1] for o in out.hidden_observed] == [135, 36]
    joint = run(make(tokenizer="joint"), batch())
    assert joint.grid == (1, 12) and joint.x.shape == (4, 12, 24)
    tokens = make(tokenizer="joint").tokenize(batch())
    assert tokens.grid == (1, T) and set(tokens.channel.flatten().tolist()) == {-1}
    assert make().tokenize(batch()).time_s[0, T : T + 3].tolist() == pytest.approx([0.0, 0.02, 0.04])


@pytest.mark.parametrize("stem_stride", [1, 2, 3])
@pytest.mark.parametrize("n_samples", [64, 65, 71, 125])
def test_the_grid_that_is_promised_is_the_grid_that_comes(stem_stride: int, n_samples: int) -> None:
    spec = replace(SPEC, n_samples=n_samples)
    encoder = ConvEncoder(spec, replace(CONFIG, stem_stride=stem_stride)).eval()
    x = torch.randn(2, C, n_samples)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[..., 3] = False
    out = run(encoder, Batch(x, NAMES, 50.0, observed=seen), layers=(0, 1, 2))
    assert out.grid == encoder.grid and out.x.shape[1] == out.observed.shape[1] == C * encoder.grid[1]
    assert [h.shape[1] for h in out.hidden] == [o.shape[1] for o in out.hidden_observed]


def test_a_shortcut_only_block_averages_the_samples_that_become_one() -> None:
    """With the branch's last convolution 0 a block is the mean of two samples, through its shortcut, whatever their size."""
    block: Any = make().blocks[0][0]
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 8, 1, 7, dtype=torch.float64)
    wanted = torch.stack([x[..., :2].mean(-1), x[..., 2:4].mean(-1), x[..., 4:6].mean(-1), x[..., 6]], dim=-1)
    torch.testing.assert_close(block(x), wanted)
    torch.testing.assert_close(block(100 * x), 100 * wanted)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("wanted", [True, False], ids=["with", "without the input's gradient"])
def test_convolution_and_norm_are_torchs_own_along_time(kernel: int, stride: int, contiguous: bool, wanted: bool) -> None:
    """Values and every gradient, whichever way the features lie in memory; torch's CPU kernels fail on some of them (see the code)."""
    torch.manual_seed(0)
    conv, norm = TimeConv(24, 40, kernel, stride=stride, padding=kernel // 2), TimeNorm(24)
    for T in (2, 23, 76):
        x = torch.randn(3, T, 24, requires_grad=wanted)
        image = along_time(x)
        here = conv(norm(image.contiguous() if contiguous else image)).squeeze(2)
        there = torch.nn.functional.conv1d(
            torch.nn.functional.group_norm(x.transpose(1, 2).contiguous(), 8, norm.weight, norm.bias),
            conv.weight, conv.bias, stride=stride, padding=kernel // 2,
        )  # fmt: skip
        torch.testing.assert_close(here, there)
        slope = torch.randn_like(there)
        of = [*conv.parameters(), *norm.parameters(), *([x] if wanted else [])]
        for a, b in zip(torch.autograd.grad(here, of, slope), torch.autograd.grad(there, of, slope), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokenizer", ["channel", "joint"])
def test_windows_do_not_know_of_each_other(tokenizer: str) -> None:
    encoder, order = make(tokenizer=tokenizer), [2, 0, 3, 1]
    whole = run(encoder, batch()).x
    for mode in (True, False):  # training too: the norm has no batch in it
        encoder.train(mode)
        windows = batch()
        torch.testing.assert_close(run(encoder, replace(windows, x=windows.x[order])).x, whole[order], rtol=0, atol=1e-12)
        torch.testing.assert_close(run(encoder, replace(windows, x=windows.x[1:2])).x, whole[1:2], rtol=0, atol=1e-12)


def test_channels_are_taken_by_name_in_any_order_and_number() -> None:
    encoder = make()
    whole = run(encoder, batch()).x.view(4, C, 12, 24)
    some = run(encoder, batch(names=("V1", "I")))
    assert some.grid == (2, 12)
    torch.testing.assert_close(some.x.view(4, 2, 12, 24), whole[:, [0, 2]], rtol=0, atol=1e-12)
    assert encoder.tokenize(batch(names=("V1", "I"))).channel[0, [0, -1]].tolist() == [0, 2]
    joint = make(tokenizer="joint")
    torch.testing.assert_close(run(joint, batch(names=("V1", "I", "II"))).x, run(joint, batch()).x, rtol=0, atol=1e-12)
    with pytest.raises(DataError, match="channels II are missing"):
        joint.tokenize(batch(names=("V1", "I")))


@pytest.mark.parametrize(("tokenizer", "how"), itertools.product(["channel", "joint"], ["none", "window", "fixed"]))
def test_what_was_not_observed_changes_nothing(tokenizer: str, how: str) -> None:
    encoder = make(tokenizer=tokenizer, normalise=how, scale={"ecg": 0.5})
    seen = torch.ones(4, C, T, dtype=torch.bool)
    seen[0, 1, 13:42], seen[1] = False, False
    windows = batch(observed=seen)
    out = run(encoder, windows)
    other = run(encoder, replace(windows, x=torch.where(seen, windows.x, 1e6)))
    assert torch.equal(out.x, other.x) and torch.equal(out.observed, other.observed)
    grid = out.observed.view(4, -1, 12)
    assert not grid[1].any() and grid[2:].all()
    if tokenizer == "channel":
        assert grid[0, 1].tolist() == [True] * 2 + [False] * 3 + [True] * 7 and grid[0, [0, 2]].all()
    else:  # other channels were there
        assert grid[0].all()
    array = torch.where(seen, windows.x, float("nan")).numpy()
    found = encoder.float().embed(array)
    assert torch.isfinite(found[[0, 2, 3]]).all() and found[1].isnan().all()


def test_features_without_a_gap_do_not_depend_on_the_mask_being_given() -> None:
    encoder = make()
    given = run(encoder, batch(observed=torch.ones(4, C, T, dtype=torch.bool)))
    torch.testing.assert_close(given.x, run(encoder, batch()).x, rtol=0, atol=1e-12)
    torch.testing.assert_close(pool_tokens(given), pool_tokens(run(encoder, batch())), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokenizer", ["channel", "joint"])
def test_a_gradient_reaches_every_parameter(tokenizer: str) -> None:
    encoder = make(tokenizer=tokenizer, blocks=2).train()
    (run(encoder, batch()).x * torch.randn(24, dtype=torch.float64)).square().sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert not still


def test_weights_are_a_function_of_the_seed() -> None:
    a, b, other = make(1).state_dict(), make(1).state_dict(), make(2).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a["stem.weight"], other["stem.weight"])


def test_the_signal_keeps_its_size_through_the_stages() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(replace(SPEC, n_samples=2500), ConvConfig(normalise="window", blocks=2)).eval()
    x = torch.randn(4, C, 2500, generator=torch.Generator().manual_seed(1))
    sizes = [float(h.detach().std()) for h in run(encoder, Batch(x, NAMES, 50.0), layers=(0, 1, 2)).hidden]
    assert all(0.3 < size < 10 for size in sizes)


def test_a_block_is_slower_the_nearer_to_the_signal() -> None:
    encoder = make()
    scales = layer_scales(encoder, 0.5)
    assert scales[encoder.stem.weight] == 0.0625
    each = [{scales[p] for p in stage.parameters()} for stage in encoder.blocks]
    assert each == [{0.125}, {0.25}, {0.5}] and {scales[p] for p in encoder.norm.parameters()} == {1.0}


# ---------------------------------------------------------------------------------------------- folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(make().float(), tmp_path_factory.mktemp("conv") / "enc", seen={"subjects": {"s:a"}})


def test_a_folder_brings_back_the_same_bits(folder: Path) -> None:
    loaded = load_encoder(folder)
    assert isinstance(loaded, ConvEncoder) and loaded.config == CONFIG and loaded.info["seen"]["subjects"] == ["s:a"]
    x = batch().x.float()
    assert torch.equal(loaded.embed(x, "mean+std+max"), make().float().embed(x, "mean+std+max"))
    assert load_yaml(folder / "encoder.yaml")["architecture"] == "convnet"
    assert "Residual convolutions along time, stages of width 8, 16, 24" in (folder / "README.md").read_text()


def test_every_architecture_is_written_by_the_name_it_is_read_by() -> None:
    assert {name: resolve(target).architecture for name, target in ENCODERS.items()} == {name: name for name in ENCODERS}


def edit(key: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        about = load_yaml(path / "encoder.yaml")
        place = about["config"] if key in about["config"] else about
        place[key] = value
        (path / "encoder.yaml").write_text(dump_yaml(about))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (edit("widths", [8, 16, 16]), "tensor blocks.2.0.short.weight .* is not expected"),
        (edit("widths", [8, 16, 10**9]), "width 1000000000 and depth 3 do not fit the stored weights"),
        (edit("blocks", 10**6), "do not fit the stored weights"),
        (edit("widths", []), "key 'spec' or 'config' is damaged"),
        (edit("stem_stride", 0), "key 'spec' or 'config' is damaged"),
        (edit("stem_stride", 2), "do not reproduce the stored fingerprint"),
        (edit("architecture", "transformer"), "key 'widths' is not known"),
        (edit("architecture", "lstm"), "of architecture lstm is not read"),
        (edit("architecture", ["convnet"]), "is not read"),
        (lambda p: (p / "weights.safetensors").write_bytes(b"x"), "not a whole safetensors file"),
    ],
)
def test_a_damaged_folder_is_one_line(folder: Path, damage: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(BiosslError, match=words) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- refusals and recipes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": [8, 12]}, "encoder.widths: .* multiples of 8"),
        ({"widths": []}, "encoder.widths"),
        ({"kernel": 4}, "encoder.kernel: 4 must be odd; take 3 or 5"),
        ({"blocks": 0}, "blocks and stem_stride must be at least 1"),
        ({"drop_path": 1.0}, "drop_path in"),
        ({"widths": [8] * 7}, "7 stages make one token of 128 samples, the window has 90"),
        ({"normalise": "fixed"}, "encoder.scale: normalise 'fixed' needs a positive divisor"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_nothing_can_be_hidden_from_it() -> None:
    encoder = make()
    for keep in (torch.arange(4), TimeKeep(torch.arange(4))):
        with pytest.raises(RequestError, match="whole windows only"):
            run(encoder, batch(), keep=keep)


@pytest.mark.parametrize("method", ["jepa", "mae", "neuronet", "cpc", "ts2vec", "spcl", "lejepa", "simclr_ser"])
def test_an_objective_that_hides_or_moves_patches_refuses_it_in_one_line(method: str) -> None:
    from biossl.recipe.load import recipe_from_dict

    plain = load_recipe(f"ecg/{method}_small").to_dict()
    plain["model"] = {"name": "convnet"}
    recipe = recipe_from_dict(plain, where=method)
    if method == "lejepa" and not recipe.objective.config.masked_views:  # hides nothing
        assert check_recipe(recipe)["encoder_parameters"] > 0
        return
    with pytest.raises(RequestError, match="convnet.*take model.name: transformer") as caught:
        check_recipe(recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["byol", "dino", "swav", "vicreg", "barlow", "clocs", "transforms"])
def test_objectives_of_whole_windows_take_it(method: str) -> None:
    from biossl.recipe.load import recipe_from_dict

    plain = load_recipe(f"ecg/{method}_small").to_dict()
    plain["model"] = {"name": "convnet", "widths": [8, 16], "normalise": "none"}
    recipe = recipe_from_dict(plain, where=method)
    spec = replace(SPEC, n_samples=200, sfreq=100.0)
    objective = recipe.build(spec)
    x = torch.randn(8, C, 200)
    windows = Batch(x, NAMES, 100.0, subject=torch.arange(8) // 2, index=torch.arange(8))
    if objective.needs.pairing != "none":
        windows.paired["window"] = Batch(x.flip(0), NAMES, 100.0, subject=torch.arange(8) // 2, index=torch.arange(8))
    outcome = objective.step(windows, step=0, keys=Keys(0, 0, torch.arange(8)))
    outcome.loss.backward()
    encoder: Any = objective.export()
    assert torch.isfinite(outcome.loss) and encoder.stem.weight.grad.abs().max() > 0


def test_the_memory_that_check_states_is_what_a_step_saves() -> None:
    recipe = load_recipe("imu/simclr_conv_small", {"data.batch_size": "64"})
    from biossl.recipe.check import example_spec

    spec = example_spec(recipe)
    objective = recipe.build(spec)
    own, held = {p.untyped_storage()._cdata for p in objective.parameters()}, {}

    def remember(t: Tensor) -> Tensor:
        if t.untyped_storage()._cdata not in own:
            held[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    x = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 6, 128)).astype(np.float32))
    windows = Batch(x, spec.ch_names, 50.0, subject=torch.arange(64), index=torch.arange(64))
    windows.paired["window"] = replace(windows, paired={})
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        objective.step(windows, step=0, keys=Keys(0, 0, torch.arange(64)))
    real = (16 * sum(p.numel() for p in objective.parameters()) + sum(s.nbytes() for s in held.values())) / 1e9
    assert check_recipe(recipe)["memory_gb"] == pytest.approx(real, rel=0.25, abs=0.01)
