"""Low-rank adapters: nothing changes at first, merged equals unmerged, ranks by importance within a budget, only adapters train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from biossl.batch import Batch
from biossl.downstream.lowrank import allocate_ranks, importance, joint_statistics, low_rank, total_rank
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.models.lowrank import (
    adapter_state,
    adapters_of,
    add_adapters,
    draw_active,
    load_adapters,
    merged,
    n_trained,
    set_ranks,
)
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.signal import InputSpec


def encoder() -> TransformerEncoder:
    torch.manual_seed(0)
    spec = InputSpec("ecg", 50.0, 40, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
    return TransformerEncoder(spec, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in")).eval()


class Convs(nn.Module):
    """A stem of convolutions with batch norm, one of them of groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv1d(2, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm1d(8)
        self.grouped = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.dilated = nn.Conv1d(8, 6, 3, dilation=2, bias=False)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dilated(self.grouped(self.norm(self.first(x)).relu())).mean(dim=2))


def moved(network: nn.Module) -> None:
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))


NETWORKS: dict[str, Any] = {
    "transformer": (encoder, lambda n, x: n.encode(n.tokenize(Batch(x, ("I", "II"), 50.0))).x),
    "convolutions": (lambda: Convs().eval(), lambda n, x: n(x)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_merged_equals_unmerged_and_fresh_adapters_change_nothing(name: str, dtype: torch.dtype, tolerance: float) -> None:
    make, run = NETWORKS[name]
    network, x = make().to(dtype), torch.randn(4, 2, 40, dtype=dtype)
    keys = set(network.state_dict())
    before = run(network, x)
    add_adapters(network, rank=4, p=0.2, seed=0)
    torch.testing.assert_close(run(network, x), before, rtol=0, atol=0)
    moved(network)
    plain = merged(network)
    assert set(plain.state_dict()) == keys and not adapters_of(plain) and adapters_of(network)
    a, b = run(network, x), run(plain, x)
    assert float((a - b).detach().abs().max() / a.detach().abs().max()) <= tolerance
    assert float((a - before).detach().abs().max()) > 1e-3  # the adapters had something to say
    network.train()  # all active: not what is merged, for that is the mean over draws
    assert float((run(network, x) - b).detach().abs().max()) > 1e-4


def test_what_trains_is_adapters_and_biases() -> None:
    network = encoder()
    frozen = {k: v.clone() for k, v in network.state_dict().items() if not k.endswith("bias")}
    whole = n_trained(network)
    adapters = add_adapters(network, rank=4, p=0.0, seed=0)
    assert list(adapters) == [
        "tokenizer.proj", *(f"blocks.{i}.{n}" for i in (0, 1) for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))
    ]  # fmt: skip
    expected = sum(p.numel() for n, p in network.named_parameters() if n.endswith("bias"))
    expected += sum(4 * (a.weight.shape[0] + a.weight.shape[1]) for a in adapters.values())
    assert n_trained(network) == expected < whole
    run = NETWORKS["transformer"][1]
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # B moves first, then A
        optimizer.zero_grad()
        run(network.train(), torch.randn(4, 2, 40)).pow(3).sum().backward()
        optimizer.step()
    state = network.state_dict()
    assert all(torch.equal(state[k], v) for k, v in frozen.items())
    assert all(float(a.up.detach().abs().max()) > 0 for a in adapters.values())


def test_each_adapter_starts_differently_and_equal_seeds_alike() -> None:
    a, b, c = (encoder() for _ in range(3))
    for network, seed in ((a, 1), (b, 1), (c, 2)):
        add_adapters(network, rank=4, p=0.2, seed=seed)
    first, second = (adapters_of(a)[f"blocks.{i}.mlp.fc1"].down for i in (0, 1))
    assert not torch.equal(first, second)
    assert all(torch.equal(v, adapter_state(b)[k]) for k, v in adapter_state(a).items())
    assert not torch.equal(first, adapters_of(c)["blocks.0.mlp.fc1"].down)


def test_deactivation_is_drawn_by_matrix_and_step_whatever_the_batch() -> None:
    network = encoder().train()
    adapters = add_adapters(network, rank=4, p=0.2, seed=0)
    drawn = []
    for step in range(400):
        draw_active(network, Keys(0, step, torch.arange(3), micro=step % 2, rank=1))
        drawn.append([a.active for a in adapters.values()])
        draw_active(network, Keys(0, step, torch.arange(5)))
        assert drawn[-1] == [a.active for a in adapters.values()]
    share = np.mean(drawn, axis=0)
    assert (np.abs(share - 0.8) < 0.08).all() and set(np.unique(drawn)) == {0.0, 1.0}
    together = np.corrcoef(np.array(drawn).T)[np.triu_indices(len(adapters), 1)]
    assert np.abs(together).max() < 0.25  # one matrix's draw says nothing of another's


def slow_importance(network: nn.Module, batches: list[Tensor], how: str) -> dict[str, float]:
    out = {}
    for name, adapter in adapters_of(network).items():
        per_batch = []
        for x in batches:
            network.zero_grad()
            network(x).square().mean().backward()
            grad, A = adapter.up.grad, adapter.down
            assert grad is not None
            W = adapter.weight.reshape(len(adapter.weight), -1)
            total = 0.0
            for i in range(W.shape[0]):
                for j in range(W.shape[1]):
                    g = sum(grad[i, r].item() * A[r, j].item() for r in range(adapter.rank))
                    total += (g * (W[i, j].item() if how == "taylor" else 1.0)) ** 2
            per_batch.append(total / W.numel())
        out[name] = sum(per_batch) / len(per_batch)
    return out


@pytest.mark.parametrize("how", ["taylor", "fisher"])
def test_importance_equals_the_slow_version(how: Any) -> None:
    network = Convs().double().train()
    adapters = add_adapters(network, rank=4, p=0.2, seed=0)
    batches = [torch.randn(4, 2, 40, dtype=torch.float64) for _ in range(2)]
    ours = importance(adapters, (network(x).square().mean() for x in batches), how)
    slow = slow_importance(network, batches, how)
    assert set(ours) == {"first", "dilated", "last"} and ours == pytest.approx(slow, rel=1e-9)
    assert len(set(ours.values())) == 3 and min(ours.values()) > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from([4, 8, 16]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_ranks_keep_the_budget_and_the_order_of_importance(values: list[float], rank: int, share: float) -> None:
    named = {f"m{i}": v for i, v in enumerate(values)}
    budget = total_rank(len(values), rank, share)
    ranks = allocate_ranks(named, rank=rank, budget=budget)
    assert sum(ranks.values()) == budget and set(ranks.values()) <= {rank, low_rank(rank)}
    low = [named[n] for n, r in ranks.items() if r < rank]
    high = [named[n] for n, r in ranks.items() if r == rank]
    assert not low or not high or max(low) <= min(high)
    assert len(low) == int(len(values) * share + 1e-9)


def test_published_ranks_and_a_budget_too_small() -> None:
    assert (low_rank(16), low_rank(4)) == (8, 2)
    ranks = allocate_ranks({str(i): float(i) for i in range(35)}, rank=16, budget=total_rank(35, 16, 0.6))
    assert [ranks[str(i)] for i in (0, 20, 21, 34)] == [8, 8, 16, 16]
    with pytest.raises(ValueError, match="at least 24"):
        allocate_ranks({"a": 1.0, "b": 2.0, "c": 3.0}, rank=16, budget=23)


def test_the_state_of_the_adapters_alone_is_enough() -> None:
    a, b = encoder(), encoder()
    add_adapters(a, rank=4, p=0.2, seed=0)
    set_ranks(a, {n: 4 if i % 2 else 2 for i, n in enumerate(adapters_of(a))}, seed=3)
    moved(a)
    state = adapter_state(a)
    assert sum(v.numel() for v in state.values()) == n_trained(a)
    add_adapters(b, rank=4, p=0.2, seed=9)
    load_adapters(b, state)
    x, run = torch.randn(2, 2, 40), NETWORKS["transformer"][1]
    torch.testing.assert_close(run(a, x), run(b, x), rtol=0, atol=0)
    with pytest.raises(DataError, match="blocks.0.attn.qkv.up is missing"):
        load_adapters(b, {k: v for k, v in state.items() if k != "blocks.0.attn.qkv.up"})
    with pytest.raises(RequestError, match="no linear layer"):
        add_adapters(nn.LayerNorm(4), rank=4, p=0.2, seed=0)


def test_batch_norm_sees_both_halves_and_only_the_labelled_one_comes_back() -> None:
    stem = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)).train()
    labelled, unlabelled = torch.randn(6, 2, 9), 5 + torch.randn(6, 2, 9)
    out = joint_statistics(stem, labelled, unlabelled)
    both = stem[0](torch.cat([labelled, unlabelled])).detach().double()
    mean, var = both.mean(dim=(0, 2)), both.var(dim=(0, 2), unbiased=False)
    expected = (both[:6] - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem[1].running_mean.double(), 0.1 * mean, rtol=1e-4, atol=1e-5)
    assert float((stem[0](labelled).mean((0, 2)).detach() - mean).abs().max()) > 0.1  # the labelled half alone has another mean
    met: list[int] = []
    plain = nn.Conv1d(2, 4, 3)
    plain.register_forward_hook(lambda m, i, o: met.append(len(i[0])))
    joint_statistics(plain, labelled, unlabelled)
    assert met == [6]
