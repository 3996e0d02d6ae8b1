"""The per-lead predictor against a slow per-sequence form; its size with the published encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from biossl.errors import RequestError
from biossl.models.attention import make_layout
from biossl.models.predictors import GridPredictor, LeadPredictor, PredictorConfig

C, P, D = 3, 8, 12


def make(position: str = "every_block") -> LeadPredictor:
    torch.manual_seed(0)
    predictor = LeadPredictor(D, P, PredictorConfig(dim=8, depth=2, heads=2, position=position)).double().eval()  # type: ignore[arg-type]
    for p in predictor.parameters():
        if p.ndim > 1:
            p.data.mul_(10)
    return predictor


def slow(predictor: LeadPredictor, x: Tensor, visible: Tensor, masked: Tensor, *, once: bool = False) -> Tensor:
    """One sample and one channel at a time, tokens in their natural order."""
    B, K = visible.shape
    out = torch.zeros(B, C, masked.shape[1], D, dtype=x.dtype)
    for b in range(B):
        for c in range(C):
            z = predictor.mask_token.expand(P, -1).clone()
            z[visible[b]] = predictor.embed(x[b, c * K : (c + 1) * K])
            z = z[None]
            for i, block in enumerate(predictor.blocks):
                z = block(z if once and i else z + predictor.position, make_layout("full"))
            out[b, c] = predictor.proj(predictor.norm(z))[0, masked[b]]
    return out


def masks(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    order = torch.stack([torch.randperm(P, generator=g) for _ in range(n)])
    return order[:, :5].sort(dim=1).values, order[:, 5:].sort(dim=1).values


@pytest.mark.parametrize("position", ["once", "every_block"])
def test_visible_then_masked_equals_natural_order(position: str) -> None:
    predictor = make(position)
    visible, masked = masks(4)
    x = torch.randn(4, C * 5, D, dtype=torch.float64)
    expected = slow(predictor, x, visible, masked, once=position == "once")
    torch.testing.assert_close(predictor(x, visible, masked), expected, rtol=0, atol=1e-11)


def test_a_shared_mask_may_be_given_once_or_expanded() -> None:
    predictor = make()
    visible, masked = masks(1)
    x = torch.randn(4, C * 5, D, dtype=torch.float64)
    repeated = predictor(x, visible.repeat(4, 1), masked.repeat(4, 1))
    torch.testing.assert_close(predictor(x, visible[0], masked[0]), repeated, rtol=0, atol=1e-12)
    torch.testing.assert_close(predictor(x, visible.expand(4, -1), masked.expand(4, -1)), repeated, rtol=0, atol=1e-12)


def test_channels_are_predicted_apart() -> None:
    predictor = make()
    visible, masked = masks(1)
    x = torch.randn(1, C * 5, D, dtype=torch.float64)
    other = x.clone()
    other[:, 5:] = 0
    assert torch.equal(predictor(x, visible, masked)[:, 0], predictor(other, visible, masked)[:, 0])


def test_unobserved_visible_tokens_are_not_used() -> None:
    predictor = make()
    visible, masked = masks(2)
    x = torch.randn(2, C * 5, D, dtype=torch.float64)
    observed = torch.ones(2, C * 5, dtype=torch.bool)
    observed[0, 1] = observed[1, 7] = False
    other = torch.where(observed[..., None], x, 55.0)
    a, b = (predictor(v, visible, masked, observed=observed) for v in (x, other))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not torch.allclose(a, predictor(x, visible, masked))


def test_published_pair_has_96_million_trainable_parameters() -> None:
    from biossl.importers.ecg_jepa import ecg_jepa_config, ecg_jepa_spec
    from biossl.models.transformer import TransformerEncoder

    with torch.device("meta"):
        encoder = TransformerEncoder(ecg_jepa_spec(), ecg_jepa_config())
        predictor = LeadPredictor(768, 50, PredictorConfig(dim=384, depth=6, heads=12, drop_path=0.1, qkv_bias=False))
    assert sum(p.numel() for m in (encoder, predictor) for p in m.parameters()) == 96_299_520


def test_width_and_heads_must_fit() -> None:
    with pytest.raises(RequestError, match="predictor.dim"):
        LeadPredictor(D, P, PredictorConfig(dim=10, heads=3))


def make_grid(position: str = "every_block") -> GridPredictor:
    torch.manual_seed(0)
    config = PredictorConfig(kind="grid", dim=8, depth=2, heads=2, position=position)  # type: ignore[arg-type]
    predictor = GridPredictor(D, (C, P), config).double().eval()
    for p in predictor.parameters():
        if p.ndim > 1:
            p.data.mul_(10)
    return predictor


def slow_grid(predictor: GridPredictor, x: Tensor, visible: Tensor, masked: Tensor, *, once: bool = False) -> Tensor:
    """One sample at a time, tokens in their natural order; visible and masked need not be all tokens."""
    out = torch.zeros(len(x), masked.shape[1], D, dtype=x.dtype)
    for b in range(len(x)):
        there = sorted(visible[b].tolist() + masked[b].tolist())
        z = torch.zeros(1, len(there), 8, dtype=x.dtype)
        for place, token in enumerate(there):
            at = (visible[b] == token).nonzero()
            z[0, place] = predictor.embed(x[b, int(at)]) if len(at) else predictor.mask_token
        for i, block in enumerate(predictor.blocks):
            z = block(z if once and i else z + predictor.position[there], make_layout("full"))
        z = predictor.proj(predictor.norm(z))[0]
        out[b] = z[[there.index(t) for t in masked[b].tolist()]]
    return out


@pytest.mark.parametrize("position", ["once", "every_block"])
def test_the_grid_predictor_serves_any_mask(position: str) -> None:
    predictor = make_grid(position)
    order = torch.stack([torch.randperm(C * P, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    visible, masked = order[:, :9].sort(dim=1).values, order[:, 9:20].sort(dim=1).values
    x = torch.randn(4, 9, D, dtype=torch.float64)
    got = predictor(x, visible, masked)
    torch.testing.assert_close(got, slow_grid(predictor, x, visible, masked, once=position == "once"), rtol=0, atol=1e-11)
    assert not torch.allclose(got, slow_grid(predictor, x, visible, masked, once=position != "once"))
    shared = predictor(x, visible[0], masked[0])
    torch.testing.assert_close(shared, predictor(x, visible[:1].repeat(4, 1), masked[:1].repeat(4, 1)), rtol=0, atol=1e-12)


def test_the_grid_predictor_sees_across_channels_and_knows_which_channel_is_which() -> None:
    predictor = make_grid()
    visible, masked = torch.arange(P)[None], torch.arange(P, 2 * P)[None]
    x = torch.randn(1, P, D, dtype=torch.float64)
    base = predictor(x, visible, masked)
    assert not torch.allclose(base, predictor(x + 1.0, visible, masked))
    assert not torch.allclose(base, predictor(x, visible, masked + P))
    moved = predictor(x, visible, masked, channel=torch.tensor([0, 2]))  # the batch's second channel is the grid's third
    torch.testing.assert_close(moved, predictor(x, visible, masked + P), rtol=0, atol=1e-12)


def test_the_grid_predictor_does_not_use_unobserved_tokens() -> None:
    predictor = make_grid()
    visible, masked = torch.arange(6).repeat(2, 1), torch.arange(6, 20).repeat(2, 1)
    x = torch.randn(2, 6, D, dtype=torch.float64)
    observed = torch.ones(2, 6, dtype=torch.bool)
    observed[0, 2] = False
    other = torch.where(observed[..., None], x, 55.0)
    a, b = (predictor(v, visible, masked, observed=observed) for v in (x, other))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
