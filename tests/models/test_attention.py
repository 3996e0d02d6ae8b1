"""CroPA as blocks equals dense attention under the published mask, values and gradients, in every layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from biossl.models.attention import Attention, cropa_attention, dense_attention, make_layout

C, K, D, HEADS = 3, 5, 12, 2


def published_mask(channel: Tensor, time: Tensor, registers: int = 0) -> Tensor:
    """Slow and plain: token by token."""
    n = len(channel)
    allowed = torch.ones(registers + n, registers + n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            allowed[registers + i, registers + j] = bool(channel[i] == channel[j] or time[i] == time[j])
    return allowed


def plain(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v with -inf where not allowed."""
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return logits.masked_fill(~allowed, float("-inf")).softmax(-1) @ v


def qkv(n: int, seed: int = 0, batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(batch, HEADS, n, D // HEADS, generator=g, dtype=torch.float64) for _ in range(3)]


def grid_tokens() -> tuple[Tensor, Tensor]:
    number = torch.arange(C * K)
    return number // K, number % K


@pytest.mark.parametrize("registers", [0, 2])
def test_blocks_equal_the_dense_form_with_gradients(registers: int) -> None:
    tensors = qkv(registers + C * K)
    a = [t.clone().requires_grad_() for t in tensors]
    b = [t.clone().requires_grad_() for t in tensors]
    fast = cropa_attention(*a, (C, K), registers=registers)
    slow = plain(*b, published_mask(*grid_tokens(), registers))
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    weight = torch.linspace(-1, 1, fast.numel(), dtype=torch.float64).view_as(fast)
    (fast * weight).sum().backward()
    (slow * weight).sum().backward()
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)


def test_counting_the_own_position_twice_would_be_seen() -> None:
    q, k, v = qkv(C * K)
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    logits = logits.masked_fill(~published_mask(*grid_tokens()), float("-inf"))
    twice = logits + torch.eye(C * K, dtype=torch.float64) * torch.log(torch.tensor(2.0, dtype=torch.float64))
    mutant = twice.softmax(-1) @ v
    assert (cropa_attention(q, k, v, (C, K)) - mutant).abs().max() > 1e-3


@pytest.mark.parametrize("registers", [0, 1])
def test_unobserved_tokens_are_keys_for_themselves_only(registers: int) -> None:
    q, k, v = qkv(registers + C * K, seed=1)
    observed = torch.ones(2, C * K, dtype=torch.bool)
    observed[0, 4] = observed[0, 7] = False
    observed[1, :] = False
    allowed = published_mask(*grid_tokens(), registers)[None].repeat(2, 1, 1)
    for b in range(2):
        for j in range(C * K):
            if not observed[b, j]:
                column = allowed[b, :, registers + j].clone()
                allowed[b, :, registers + j] = False
                allowed[b, registers + j, registers + j] = column[registers + j]
    fast = cropa_attention(q, k, v, (C, K), registers=registers, observed=observed)
    torch.testing.assert_close(fast, plain(q, k, v, allowed[:, None]), rtol=0, atol=1e-12)
    assert fast.isfinite().all()


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("hidden", [False, True])
def test_both_layouts_of_a_module_agree(registers: int, hidden: bool) -> None:
    """Grid given (blocks) and not given (boolean mask) are the same attention, with unobserved tokens too."""
    torch.manual_seed(0)
    module = Attention(D, HEADS, qkv_bias=True).double()
    x = torch.randn(2, registers + C * K, D, dtype=torch.float64)
    channel, time = grid_tokens()
    observed = torch.rand(2, C * K) > 0.4 if hidden else None
    blocks = make_layout("cropa", registers=registers, grid=(C, K), observed=observed)
    dense = make_layout("cropa", registers=registers, channel=channel[None], time=time[None], observed=observed)
    assert blocks.grid == (C, K) and dense.grid is None
    torch.testing.assert_close(module(x, blocks), module(x, dense), rtol=0, atol=1e-12)


def test_full_attention_sees_everything_and_one_channel_is_full() -> None:
    assert make_layout("full").allowed is None
    layout = make_layout("cropa", grid=(1, K), registers=1)
    assert layout.grid is None and layout.allowed is None
    q, k, v = qkv(K)
    everything = torch.ones(K, K, dtype=torch.bool)
    torch.testing.assert_close(dense_attention(q, k, v), plain(q, k, v, everything), rtol=0, atol=1e-12)


def test_bfloat16_on_the_cpu_is_close_to_float64() -> None:
    q, k, v = qkv(C * K, seed=2)
    allowed = published_mask(*grid_tokens())
    slow = plain(q, k, v, allowed)
    low = dense_attention(*(t.bfloat16() for t in (q, k, v)), allowed)
    assert low.dtype == torch.bfloat16
    assert (low.double() - slow).norm() / slow.norm() < 2e-2


def test_packed_projection_is_q_k_v_then_head_then_feature() -> None:
    module = Attention(D, HEADS, qkv_bias=False).double()
    x = torch.randn(1, 4, D, dtype=torch.float64)
    d = D // HEADS
    weight = module.qkv.weight
    out = []
    for h in range(HEADS):
        q, k, v = (x @ weight[part * D + h * d : part * D + (h + 1) * d].T for part in range(3))
        out.append((q @ k.transpose(-2, -1) / d**0.5).softmax(-1) @ v)
    torch.testing.assert_close(module(x, make_layout("full")), module.proj(torch.cat(out, -1)), rtol=0, atol=1e-12)
