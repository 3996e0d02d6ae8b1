"""The encoder: what a mask, a missing channel, a register or a gap does to its output, and what it must not do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from biossl.batch import Batch, Encoded, TimeKeep
from biossl.errors import DataError, RequestError
from biossl.models.encoder import pool_tokens
from biossl.models.transformer import DropPath, EncoderConfig, TransformerEncoder, init_weights, take_tokens
from biossl.signal import InputSpec

NAMES = ("I", "II", "V1", "V2")
C, P, T = 4, 10, 100
SPEC = InputSpec("ecg", 50.0, T, NAMES, ("ecg",) * C, ("mV",) * C)
CONFIG = EncoderConfig(dim=16, depth=3, heads=2)


def make(**changes: object) -> TransformerEncoder:
    """A small encoder in float64 whose attention matters."""
    torch.manual_seed(0)
    encoder = TransformerEncoder(SPEC, replace(CONFIG, **changes))  # type: ignore[arg-type]
    for p in encoder.parameters():
        if p.ndim > 1:
            p.data.mul_(8)
    return encoder.double().eval()


def batch(n: int = 3, names: tuple[str, ...] = NAMES, observed: Tensor | None = None) -> Batch:
    x = torch.randn(n, C, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = [NAMES.index(c) for c in names]
    return Batch(x[:, rows], names, 50.0, observed=observed)


def time_keep(n: int = 3, k: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(P, generator=g)[:k].sort().values for _ in range(n)])


def as_tokens(times: Tensor) -> Tensor:
    return (torch.arange(C)[:, None] * P + times[:, None, :]).flatten(1)


def test_tokens_carry_time_channel_and_grid() -> None:
    tokens = make().tokenize(batch())
    assert tokens.grid == (C, P) and tokens.complete and tokens.observed.all()
    assert tokens.x.shape == (3, C * P, 16) and tokens.grid_view().shape == (3, C, P, 16)
    assert tokens.channel[0].tolist() == [c for c in range(C) for _ in range(P)]
    assert tokens.time_s[0, :3].tolist() == pytest.approx([0.1, 0.3, 0.5])


@pytest.mark.parametrize("position", ["once", "every_block"])
def test_position_is_added_where_the_config_says(position: str) -> None:
    encoder = make(position=position, attention="full")
    tokens = encoder.tokenize(batch())
    from biossl.models.attention import make_layout

    x = tokens.x
    for i, block in enumerate(encoder.blocks):
        if position == "every_block" or i == 0:
            x = x + encoder.position
        x = block(x, make_layout("full"))
    torch.testing.assert_close(encoder.encode(tokens).x, encoder.norm(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("attention", ["cropa", "full"])
def test_kept_times_equal_kept_tokens(attention: str, registers: int) -> None:
    """The fast form on the smaller grid and the general form under a boolean mask are the same function."""
    encoder = make(attention=attention, registers=registers)
    tokens = encoder.tokenize(batch())
    times = time_keep()
    fast = encoder.encode(tokens, keep=TimeKeep(times))
    general = encoder.encode(tokens, keep=as_tokens(times))
    assert fast.grid == (C, 6) and general.grid is None
    torch.testing.assert_close(fast.x, general.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(fast.registers, general.registers, rtol=0, atol=1e-12)
    assert fast.registers.shape == (3, registers, 16)


def test_keeping_all_tokens_changes_nothing_and_shared_equals_repeated() -> None:
    encoder = make()
    tokens = encoder.tokenize(batch())
    everything = encoder.encode(tokens).x
    torch.testing.assert_close(encoder.encode(tokens, keep=TimeKeep(torch.arange(P))).x, everything, rtol=0, atol=1e-12)
    times = time_keep(1)
    shared = encoder.encode(tokens, keep=TimeKeep(times[0])).x
    for form in (times.expand(3, -1), times.repeat(3, 1)):
        torch.testing.assert_close(encoder.encode(tokens, keep=TimeKeep(form)).x, shared, rtol=0, atol=1e-12)


def test_hidden_times_do_not_reach_the_visible_ones() -> None:
    encoder = make(registers=1)
    times = torch.arange(6)
    a = batch()
    b = batch()
    b.x[:, :, 60:] = 99.0
    out = [encoder.encode(encoder.tokenize(v), keep=TimeKeep(times)) for v in (a, b)]
    assert torch.equal(out[0].x, out[1].x) and torch.equal(out[0].registers, out[1].registers)


def test_per_lead_masks_keep_different_times() -> None:
    encoder = make()
    tokens = encoder.tokenize(batch())
    keep = torch.tensor([0, 1, 12, 13, 25, 39])
    out = encoder.encode(tokens, keep=keep)
    assert out.x.shape == (3, 6, 16)
    lonely = encoder.encode(tokens, keep=torch.tensor([0, 39])).x  # other channel, other time: do not see each other
    alone = encoder.encode(tokens, keep=torch.tensor([39])).x
    torch.testing.assert_close(lonely[:, 1], alone[:, 0], rtol=0, atol=1e-12)


def test_stacked_masks_equal_one_pass_each() -> None:
    encoder = make()
    tokens = encoder.tokenize(batch())
    times = time_keep(6)  # two masks of three samples
    stacked = encoder.encode(tokens, keep=TimeKeep(times)).x
    for m in range(2):
        one = encoder.encode(tokens, keep=TimeKeep(times[3 * m : 3 * m + 3])).x
        torch.testing.assert_close(stacked[3 * m : 3 * m + 3], one, rtol=0, atol=1e-12)


def test_requested_layers_come_before_the_final_norm() -> None:
    encoder = make(registers=1)
    out = encoder.encode(encoder.tokenize(batch()), layers=(0, -1))
    assert [tuple(h.shape) for h in out.hidden] == [(3, C * P, 16)] * 2
    torch.testing.assert_close(encoder.norm(out.hidden[1]), out.x, rtol=0, atol=1e-12)
    with pytest.raises(RequestError, match="blocks 0 to 2"):
        encoder.encode(encoder.tokenize(batch()), layers=(3,))


def test_channels_are_found_by_name_whatever_their_order() -> None:
    encoder = make()
    torch.testing.assert_close(encoder.embed(batch(names=("V2", "I", "V1", "II"))), encoder.embed(batch()), rtol=0, atol=0)
    some = encoder.tokenize(batch(names=("V2", "II")))
    assert some.grid == (2, P) and some.channel[0, ::P].tolist() == [1, 3]
    # the same as keeping those channels' tokens of the whole set
    whole = encoder.encode(encoder.tokenize(batch()), keep=torch.cat([torch.arange(10, 20), torch.arange(30, 40)]))
    torch.testing.assert_close(encoder.encode(some).x, whole.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ["cropa", "full"])
def test_what_was_not_observed_changes_nothing(attention: str) -> None:
    encoder = make(attention=attention, registers=1)
    observed = torch.ones(3, C, T, dtype=torch.bool)
    observed[0, 2] = False
    observed[1, :, 30:50] = False
    a, b = batch(observed=observed), batch(observed=observed)
    a.x[~observed], b.x[~observed] = 0.0, 77.0
    ea, eb = encoder.embed(a, "mean+std+max"), encoder.embed(b, "mean+std+max")
    torch.testing.assert_close(ea, eb, rtol=0, atol=1e-12)
    # a wholly missing channel is the same as leaving it out; a window that misses nothing is not touched
    without = encoder.embed(batch(names=("I", "II", "V2")))
    torch.testing.assert_close(encoder.embed(a)[0], without[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(encoder.embed(a)[2], encoder.embed(batch())[2], rtol=0, atol=1e-10)


def test_an_array_with_nan_is_a_batch_with_gaps_and_an_empty_window_has_no_embedding() -> None:
    encoder = make().float()
    x = batch().x.float()
    x[0, 2] = float("nan")
    x[1] = float("nan")
    out = encoder.embed(x.numpy(), "mean+std+max")
    assert out[0].isfinite().all() and out[2].isfinite().all() and out[1].isnan().all()


def test_pooling_equals_a_loop_over_observed_tokens() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    observed = torch.tensor([[True, True, False, True, False], [False, False, True, False, True]])
    out = pool_tokens(Encoded(x=x, registers=x[:, :0], observed=observed), "mean+std+max")
    for b in range(2):
        seen = x[b][observed[b]]
        expected = torch.cat([seen.mean(0), seen.std(0, correction=0), seen.max(0).values])
        torch.testing.assert_close(out[b], expected, rtol=0, atol=1e-12)
    with pytest.raises(RequestError, match="mean, std, max"):
        pool_tokens(Encoded(x=x, registers=x[:, :0], observed=observed), "median")


def test_embed_is_frozen_and_leaves_the_mode_alone() -> None:
    encoder = make(drop_path=0.9).train()
    assert torch.equal(encoder.embed(batch()), encoder.embed(batch()))
    assert encoder.training and not encoder.embed(batch()).requires_grad


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert all(len(s.unique()) == 1 for s in out[:50])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)
    assert [b.drop_path.rate for b in make(drop_path=0.1).blocks] == pytest.approx([0.0, 0.05, 0.1])


def test_initialisation_scales_residual_outputs_by_depth() -> None:
    encoder = TransformerEncoder(SPEC, replace(CONFIG, dim=64, depth=4))
    init_weights(encoder, encoder.blocks)
    for layer, block in enumerate(encoder.blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * layer), rel=0.1)
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (block.mlp.fc1.bias == 0).all()


def test_fan_in_initialisation_keeps_small_widths_from_being_linear() -> None:
    spec = InputSpec("ecg", 100.0, 200, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
    encoder = TransformerEncoder(spec, EncoderConfig(dim=128, depth=2, heads=4, init="fan_in"))
    assert encoder.tokenizer.proj.weight.std().item() == pytest.approx(20**-0.5, rel=0.1)
    assert encoder.blocks[1].attn.qkv.weight.std().item() == pytest.approx(128**-0.5, rel=0.1)
    assert encoder.blocks[1].mlp.fc2.weight.std().item() == pytest.approx(512**-0.5 / math.sqrt(4), rel=0.1)


def test_the_published_encoder_has_its_published_size() -> None:
    from biossl.importers.ecg_jepa import ecg_jepa_config, ecg_jepa_spec

    with torch.device("meta"):
        encoder = TransformerEncoder(ecg_jepa_spec(), ecg_jepa_config())
    assert sum(p.numel() for p in encoder.parameters()) == 85_067_520
    assert encoder.position.shape == (400, 768) and encoder.position.device.type == "cpu"


def test_gradients_reach_every_weight() -> None:
    encoder = TransformerEncoder(SPEC, replace(CONFIG, registers=2)).double()
    encoder.encode(encoder.tokenize(batch()), keep=TimeKeep(time_keep())).x.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (Batch(torch.zeros(1, 4, 100), NAMES, 100.0), "50 Hz"),
        (Batch(torch.zeros(1, 4, 90), NAMES, 50.0), "90 samples"),
        (Batch(torch.zeros(1, 1, 100), ("aVR",), 50.0), "aVR.*knows I II V1 V2"),
        (torch.zeros(1, 3, 100), "expected \\(B, 4, 100\\)"),
    ],
)
def test_input_that_does_not_fit_is_refused_by_name(value: Batch | Tensor, word: str) -> None:
    with pytest.raises(DataError, match=word):
        TransformerEncoder(SPEC, CONFIG).embed(value)


def test_joint_tokens_need_all_channels() -> None:
    encoder = make(tokenizer="joint")
    tokens = encoder.tokenize(batch(names=("V2", "I", "V1", "II")))
    assert tokens.grid == (1, P) and (tokens.channel == -1).all()
    torch.testing.assert_close(encoder.encode(tokens).x, encoder.encode(encoder.tokenize(batch())).x, rtol=0, atol=0)
    with pytest.raises(DataError, match="V1 V2 are missing"):
        encoder.tokenize(batch(names=("I", "II")))


def test_a_configuration_that_cannot_be_built_names_the_key() -> None:
    with pytest.raises(RequestError, match="encoder.dim: 18"):
        TransformerEncoder(SPEC, replace(CONFIG, dim=18))
    with pytest.raises(RequestError, match="encoder.patch_s"):
        TransformerEncoder(SPEC, replace(CONFIG, patch_s=0.3))


def test_taking_tokens_equals_a_loop() -> None:
    x = torch.randn(2, 5, 3)
    index = torch.tensor([[0, 4], [1, 2], [3, 3], [4, 0]])
    expected = torch.stack([x[i % 2][index[i]] for i in range(4)])
    assert torch.equal(take_tokens(x, index), expected)
