"""Decoders: what a prediction may depend on, any mask, channels that are absent, what was not observed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from biossl.errors import RequestError
from biossl.models.decoders import Decoder, DecoderConfig

R, C, P, D, V = 2, 3, 5, 12, 7


def make(scope: str = "joint", grid: tuple[int, int] = (C, P)) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(D, grid, V, DecoderConfig(scope=scope, dim=8, depth=2, heads=2))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return decoder


# row 0 hides all of channel 2 and one patch of channel 0; row 1 something else of the same size: no grid of visible tokens
MASKED = torch.tensor([[1, 10, 11, 12, 13, 14], [0, 3, 5, 7, 11, 14]])
VISIBLE = torch.stack([torch.tensor([n for n in range(C * P) if n not in row.tolist()]) for row in MASKED])


def features(rows: int = R) -> Tensor:
    return torch.randn(rows, VISIBLE.shape[1], D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scope", ["joint", "channel"])
def test_a_row_alone_gives_what_it_gives_in_the_batch_and_order_of_visible_tokens_does_not_matter(scope: str) -> None:
    decoder, x = make(scope), features()
    out = decoder(x, VISIBLE, MASKED)
    assert out.shape == (R, MASKED.shape[1], V)
    for r in range(R):
        torch.testing.assert_close(decoder(x[r : r + 1], VISIBLE[r : r + 1], MASKED[r : r + 1])[0], out[r])
    turn = torch.randperm(VISIBLE.shape[1])
    torch.testing.assert_close(decoder(x[:, turn], VISIBLE[:, turn], MASKED), out)
    back = decoder(x, VISIBLE, MASKED.flip(1)).flip(1)
    torch.testing.assert_close(back, out)


def test_a_decoder_of_single_channels_lets_none_see_another_and_a_joint_one_does() -> None:
    for scope in ("joint", "channel"):
        x = features().requires_grad_()
        out = make(scope)(x, VISIBLE, MASKED)
        of_0 = MASKED[0] // P == 0
        (grad,) = torch.autograd.grad(out[0, of_0].square().sum(), x)
        reached = grad[0].abs().sum(dim=1) > 0
        own = VISIBLE[0] // P == 0
        assert reached.tolist() == (own.tolist() if scope == "channel" else [True] * len(own))
        assert not bool(grad[1].any())


def test_hidden_tokens_of_one_channel_are_told_apart_by_time_and_in_a_joint_decoder_by_channel() -> None:
    for scope in ("joint", "channel"):
        nothing = make(scope)(torch.zeros(1, 0, D), torch.zeros(1, 0, dtype=torch.int64), torch.arange(C * P)[None])
        table = nothing[0].detach().view(C, P, V)
        assert all(not torch.allclose(table[0, i], table[0, j], atol=1e-4) for i in range(P) for j in range(i))
        assert torch.allclose(table[0], table[1], atol=1e-5) == (scope == "channel")


@pytest.mark.parametrize("scope", ["joint", "channel"])
def test_a_visible_token_that_was_not_observed_counts_as_hidden(scope: str) -> None:
    decoder, x = make(scope), features()
    observed = torch.ones(VISIBLE.shape, dtype=torch.bool)
    observed[0, 2] = observed[1, 5] = False
    out = decoder(x, VISIBLE, MASKED, observed=observed)
    other = torch.where(observed[..., None], x, 50.0)
    assert torch.equal(decoder(other, VISIBLE, MASKED, observed=observed), out)
    keep = [n for n in range(VISIBLE.shape[1]) if n != 2]
    torch.testing.assert_close(decoder(x[:1, keep], VISIBLE[:1, keep], MASKED[:1])[0], out[0])
    assert torch.equal(decoder(x, VISIBLE, MASKED, observed=torch.ones_like(observed)), decoder(x, VISIBLE, MASKED))


def test_channels_that_are_absent_shift_no_position() -> None:
    decoder = make("joint")
    visible, masked = torch.tensor([[0, 1, 6]]), torch.tensor([[2, 8]])  # of the two channels 0 and 2
    x = torch.randn(1, 3, D)
    out = decoder(x, visible, masked, channel=torch.tensor([0, 2]))
    small = make("joint", (2, P))
    small.load_state_dict(decoder.state_dict())
    assert not torch.allclose(small(x, visible, masked), out, atol=1e-3)
    small.position = decoder.position.view(C, P, -1)[[0, 2]].flatten(0, 1)
    torch.testing.assert_close(small(x, visible, masked), out)


@pytest.mark.parametrize(("settings", "text"), [({"dim": 10, "heads": 3}, "decoder.dim: 10"), ({"depth": 0}, "decoder.depth: 0")])
def test_what_cannot_be_built_is_refused(settings: dict[str, int], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        Decoder(D, (C, P), V, DecoderConfig(**settings))  # type: ignore[arg-type]
