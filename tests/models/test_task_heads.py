"""Heads: shapes, what is not observed changes nothing, order of thresholds, settings without meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from biossl.batch import Batch, Encoded
from biossl.config import build
from biossl.errors import RequestError
from biossl.models.task_heads import (
    AttentionHead,
    AttentionHeadConfig,
    DenseHeadConfig,
    LinearHeadConfig,
    MLPHeadConfig,
    Ordinal,
    PooledHead,
    Standardise,
)
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.recipe.tables import config_class
from biossl.signal import InputSpec

NAMES = ("I", "II", "V1")


def encoder(tokenizer: Any = "channel") -> TransformerEncoder:
    torch.manual_seed(0)
    spec = InputSpec("ecg", 50.0, 60, NAMES, ("ecg",) * 3, ("mV",) * 3)
    return TransformerEncoder(spec, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.2, tokenizer=tokenizer)).eval()


def encoded(seed: int = 0, B: int = 4, C: int = 3, P: int = 6, D: int = 16) -> Encoded:
    g = torch.Generator().manual_seed(seed)
    seen = torch.rand(B, C * P, generator=g) < 0.7
    seen[0] = True
    return Encoded(torch.randn(B, C * P, D, generator=g), torch.zeros(B, 0, D), seen, grid=(C, P))


WINDOW_HEADS = {
    "linear": LinearHeadConfig(),
    "mlp": MLPHeadConfig(hidden=8, layers=2),
    "attention": AttentionHeadConfig(queries=2, heads=2),
    "dense": DenseHeadConfig(hidden=4, kernel=5),
    "dense joint": DenseHeadConfig("joint", hidden=4, kernel=5),
}


def made(name: str, n_outputs: int = 5) -> Any:
    torch.manual_seed(1)
    head = WINDOW_HEADS[name].build(encoder(), n_outputs).eval()
    with torch.no_grad():  # a fresh output layer says next to nothing; these tests need heads that speak
        for p in head.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return head


@pytest.mark.parametrize("name", WINDOW_HEADS)
def test_what_is_not_observed_changes_no_output(name: str) -> None:
    head, e = made(name), encoded()
    noise = torch.where(e.observed[..., None], e.x, 1e3 * torch.randn_like(e.x))
    a, b = head(e), head(replace(e, x=noise))
    torch.testing.assert_close(a, b)
    one = replace(e, x=e.x[2:3], observed=e.observed[2:3], registers=e.registers[2:3])
    torch.testing.assert_close(head(one), a[2:3], rtol=1e-4, atol=1e-5)  # and windows do not see each other
    assert not torch.allclose(head(replace(e, x=e.x + 1e-1 * torch.randn_like(e.x))), a, atol=1e-4)  # what is observed does


@pytest.mark.parametrize("name", WINDOW_HEADS)
def test_a_window_without_any_signal_has_an_output_and_gradients_stay_finite(name: str) -> None:
    head, e = made(name), encoded()
    e = replace(e, x=e.x.requires_grad_(), observed=e.observed & (torch.arange(4) != 1)[:, None])
    out = head(e)
    out.square().sum().backward()
    assert bool(out.isfinite().all()) and e.x.grad is not None and bool(e.x.grad.isfinite().all())
    assert bool((e.x.grad[1] == 0).all()) and bool(all(p.grad is None or p.grad.isfinite().all() for p in head.parameters()))


def test_shapes_and_names_of_the_table() -> None:
    e = encoded()
    expected = {"linear": (4, 5), "mlp": (4, 5), "attention": (4, 5), "dense": (4, 3, 5, 60), "dense joint": (4, 5, 60)}
    assert {name: tuple(made(name)(e).shape) for name in WINDOW_HEADS} == expected
    for name in ("linear", "attention", "mlp", "dense", "sequence", "pooling"):
        assert config_class("head", name, where="r.yaml")().build(encoder(), 2) is not None


def test_a_dense_head_serves_any_channels_and_each_alone() -> None:
    enc, head = encoder(), made("dense")
    x = torch.randn(2, 3, 60)
    with torch.no_grad():
        both = head(enc.encode(enc.tokenize(Batch(x, NAMES, 50.0))))
        e = enc.encode(enc.tokenize(Batch(x[:, :2], NAMES[:2], 50.0)))
        assert head(e).shape == (2, 2, 5, 60) and both.shape == (2, 3, 5, 60)
        # a lead's answer comes from its own tokens only
        other = replace(e, x=torch.cat([e.x[:, :6], torch.randn_like(e.x[:, 6:])], dim=1))
        torch.testing.assert_close(head(other)[:, 0], head(e)[:, 0])
        joint = made("dense joint")(e)
        assert joint.shape == (2, 5, 60)
    one = DenseHeadConfig("joint", hidden=4).build(encoder("joint"), 3)
    assert one(encoded(C=1)).shape == (4, 3, 60)
    with pytest.raises(RequestError, match="set it to joint"):
        DenseHeadConfig("channel").build(encoder("joint"), 3)


def test_a_dense_head_puts_a_patch_at_its_own_time() -> None:
    head, e = made("dense joint"), replace(encoded(), observed=torch.ones(4, 18, dtype=torch.bool))
    x = e.x.clone()
    x.view(4, 3, 6, 16)[:, :, 3] += 5.0
    changed = (head(replace(e, x=x)) - head(e)).abs().amax(dim=(0, 1)) > 1e-6
    reach = 2 * 2  # two convolutions of length 5
    assert bool(changed[30:40].all()) and not bool(changed[: 30 - reach].any()) and not bool(changed[40 + reach :].any())


def test_standardise_is_that_of_the_rows_it_was_given() -> None:
    x = np.random.default_rng(0).normal(3, 2, (50, 3))
    x[:, 1] = 7.0
    norm = Standardise(3)
    norm.fit(torch.tensor(x))
    z = norm(torch.tensor(x, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(z[:, 0], (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(ddof=1), atol=1e-5)
    assert np.abs(z[:, 1]).max() < 1e-5
    norm.fit(torch.ones(1, 3))  # one window: nothing to divide by
    assert bool(norm(torch.zeros(2, 3)).isfinite().all())


def test_attention_over_equal_tokens_is_their_mean() -> None:
    head: AttentionHead = made("attention")
    e = encoded()
    same = replace(e, x=e.x[:, :1].expand_as(e.x))
    first = replace(e, x=e.x[:, :1], observed=torch.ones(4, 1, dtype=torch.bool), grid=None)
    torch.testing.assert_close(head(same), head(first))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_thresholds_never_cross(classes: int) -> None:
    layer = Ordinal(4, classes)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(5 * torch.randn_like(p))
    c = layer(torch.randn(9, 4))
    assert c.shape == (9, classes - 1) and bool((c.diff(dim=1) > 0).all())
    head = LinearHeadConfig(pool="mean", ordinal=True).build(encoder(), classes - 1)
    assert isinstance(head, PooledHead) and head(encoded()).shape == (4, classes - 1)


def test_settings_without_meaning_are_one_line() -> None:
    for cls, settings, text in [
        (LinearHeadConfig, {"pool": "median"}, "pool 'median' is not known"),
        (MLPHeadConfig, {"layers": 0}, "hidden and layers must be at least 1"),
        (DenseHeadConfig, {"kernel": 4}, "kernel odd"),
        (AttentionHeadConfig, {"dropout": 1.0}, "dropout must be in"),
    ]:
        with pytest.raises(RequestError, match=text):
            build(cls, settings, where="recipe", prefix="head.")
    with pytest.raises(RequestError, match="does not divide"):
        AttentionHeadConfig(heads=3).build(encoder(), 2)
