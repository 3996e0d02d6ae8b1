"""The U-Net head: as many answers as samples, from what was observed, to the sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.models.convnets import ConvConfig, ConvEncoder
from biossl.models.dense_heads import UNetHead, UNetHeadConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.supervised import Supervised, SupervisedConfig
from biossl.signal import InputSpec

NAMES = ("I", "II")
SPEC = InputSpec("ecg", 50.0, 90, NAMES, ("ecg",) * 2, ("mV",) * 2)
CONFIG = ConvConfig(widths=[8, 16, 24], kernel=5)


def model(mode: Any = "full", spec: InputSpec = SPEC, seed: int = 0, **changes: Any) -> Supervised:
    torch.manual_seed(seed)
    encoder = ConvEncoder(spec, replace(CONFIG, **changes))
    head = UNetHeadConfig(hidden=8, kernel=5).build(encoder, 3)
    return Supervised(encoder, head, SupervisedConfig("wave", "dense", ["none", "low", "high"], mode=mode))


def steps(n: int, seed: int, T: int = 90) -> Batch:
    """Noise about 0 with one stretch above and one below; the label says which, from its first sample to its last."""
    g = torch.Generator().manual_seed(seed)
    edge = torch.rand(n, 2, 4, generator=g).mul(T).long().sort(dim=-1).values[..., None]
    t = torch.arange(T)
    y = torch.where((t >= edge[:, :, 0]) & (t < edge[:, :, 1]), 1, 0) + torch.where(
        (t >= edge[:, :, 2]) & (t < edge[:, :, 3]), 2, 0
    )
    x = torch.tensor([0.0, -1.0, 1.0])[y] + 0.1 * torch.randn(n, 2, T, generator=g)
    return Batch(x, NAMES, 50.0, labels={"wave": y.float()})


@pytest.mark.parametrize("tokenizer", ["channel", "joint"])
@pytest.mark.parametrize("stem_stride", [1, 2, 3])
@pytest.mark.parametrize("n_samples", [64, 90, 125])
def test_there_is_an_answer_for_every_sample(tokenizer: str, stem_stride: int, n_samples: int) -> None:
    found = model(spec=replace(SPEC, n_samples=n_samples), tokenizer=tokenizer, stem_stride=stem_stride)
    out = found.outputs(steps(3, 0, n_samples))
    assert out.shape == ((3, 2, 3, n_samples) if tokenizer == "channel" else (3, 3, n_samples))


@pytest.mark.parametrize("tokenizer", ["channel", "joint"])
def test_what_was_not_observed_and_other_windows_change_nothing(tokenizer: str) -> None:
    found, windows = model(tokenizer=tokenizer).eval(), steps(4, 1)
    seen = torch.ones_like(windows.x, dtype=torch.bool)
    seen[:, 0, 20:50] = False
    gap = replace(windows, observed=seen)
    first = found.outputs(gap)
    assert torch.equal(first, found.outputs(replace(gap, x=torch.where(seen, gap.x, 1e6))))
    order = [2, 0, 3, 1]
    turned = found.outputs(replace(gap, x=gap.x[order], observed=seen[order]))
    torch.testing.assert_close(turned, first[order], rtol=0, atol=1e-5)


def test_channels_by_name_have_the_answers_they_have_together() -> None:
    found, windows = model().eval(), steps(2, 2)
    alone = found.outputs(Batch(windows.x[:, 1:], ("II",), 50.0))
    torch.testing.assert_close(alone, found.outputs(windows)[:, 1:], rtol=0, atol=1e-5)


def test_a_gradient_reaches_every_stage_and_in_mode_frozen_the_head_alone() -> None:
    whole, windows = model(), steps(4, 3)
    whole.head.out.weight.data.normal_()  # near 0 when fresh
    whole.loss(windows).backward()
    assert not [n for n, p in whole.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    frozen = model("frozen")
    frozen.loss(windows).backward()
    assert all(p.grad is None for p in frozen.encoder.parameters())
    assert all(p.grad is not None for p in frozen.head.parameters())


def test_each_skip_is_read() -> None:
    """Taking away any one of what the decoder stands on changes the answers."""
    found = model().eval()
    found.head.out.weight.data.normal_()
    encoded = found.encoder.encode(found.encoder.tokenize(steps(2, 4)), layers=found.head.layers)
    whole = found.head(encoded)
    assert encoded.tokens is not None and found.head.layers == (0, 1)
    without = [replace(encoded, x=torch.zeros_like(encoded.x))]
    without += [replace(encoded, tokens=replace(encoded.tokens, x=torch.zeros_like(encoded.tokens.x)))]
    for i in (0, 1):
        hidden = tuple(torch.zeros_like(h) if k == i else h for k, h in enumerate(encoded.hidden))
        without.append(replace(encoded, hidden=hidden))
    assert all((found.head(other) - whole).abs().max() > 1e-3 for other in without)


def test_edges_of_steps_are_learnt_to_the_sample() -> None:
    found = model()
    optimizer = torch.optim.AdamW(found.parameters(), lr=5e-3)
    for step in range(60):
        loss = found.loss(steps(16, 100 + step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = steps(64, 7)
    said = found.eval().outputs(fresh).argmax(dim=2)
    assert (said == fresh.labels["wave"]).float().mean() > 0.98


def test_refusals_are_one_line() -> None:
    other = TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.2))
    with pytest.raises(RequestError, match="--head unet: .* this encoder is a transformer; take --head dense") as caught:
        UNetHeadConfig().build(other, 3)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="multiple of 8 and kernel odd, not 12 and 7"):
        UNetHeadConfig(hidden=12)
    assert isinstance(UNetHeadConfig().build(ConvEncoder(SPEC, CONFIG), 2), UNetHead)
