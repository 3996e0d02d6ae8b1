"""Low-rank adapters in place of linear and convolution layers: W + d B A, W frozen (LoRA, arXiv 2106.09685; CE-SSL, arXiv 2406.14377).

What lives here: the layers, putting them into a network, merging them into plain layers again, their state alone. A matrix is
deactivated at random in training (CE-SSL): d is 0 with probability p and 1 otherwise, drawn for each matrix, and 1 - p in evaluation
and when merged. Which matrix deserves which rank is ``downstream/lowrank.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biossl.errors import DataError, RequestError
from biossl.keys import Keys, hash_ints

_ACTIVE, _START = 0x10A4, 0x10A5  # draw numbers of the deactivation and of the first weights


@dataclass
class LowRankConfig:
    """Settings of the adapters; defaults of CE-SSL.

    Attributes
    ----------
    rank : int
        Of the important matrices; the others have ``2 * (rank // 4)``.
    low_share : float
        Share of the matrices that are of the lower rank.
    importance : {"taylor", "fisher"}
        How they are told apart (:func:`biossl.downstream.lowrank.importance`).
    p : float
        Probability that a matrix is deactivated in a training step.
    """

    rank: int = 16
    low_share: float = 0.6
    importance: Literal["taylor", "fisher"] = "taylor"
    p: float = 0.2

    def __post_init__(self) -> None:
        if self.rank < 4 or not 0 <= self.low_share <= 1 or not 0 <= self.p < 1:
            raise ValueError(
                f"rank must be at least 4, low_share in [0, 1] and p in [0, 1), not {self.rank}, {self.low_share:g}, {self.p:g}"
            )


class Adapter(nn.Module):
    """What both kinds of layers share: ``down`` (rank, inputs) is A, ``up`` (outputs, rank) is B."""

    weight: Any  # torch's own annotations differ between linear layers and convolutions
    bias: Any
    down: nn.Parameter
    up: nn.Parameter
    p: float
    active: float  # d of the step at hand
    wide: bool  # one layer that stands for several: A starts larger

    def _take(self, base: nn.Module, rank: int, p: float, *, wide: bool) -> None:
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        self.p, self.active, self.wide = p, 1.0, wide
        self.reset(rank, 0)

    def reset(self, rank: int, seed: int) -> None:
        """New A and B of a rank: A from N(0, 0.02^2), of a fused projection Kaiming uniform, B 0: the layer does what it did."""
        n_out, n_in = self.weight.shape[0], self.weight[0].numel()
        rank = min(rank, n_out, n_in)
        g = torch.Generator().manual_seed(hash_ints(seed, _START))
        down = torch.randn(rank, n_in, generator=g) * 0.02
        if self.wide:
            down = (2 * torch.rand(rank, n_in, generator=g) - 1) * n_in**-0.5
        self.down = nn.Parameter(down.to(self.weight))
        self.up = nn.Parameter(torch.zeros(n_out, rank).to(self.weight))

    @property
    def rank(self) -> int:
        """Of its matrices."""
        return len(self.down)

    @property
    def strength(self) -> float:
        """d: of this step in training, its mean in evaluation."""
        return self.active if self.training else 1.0 - self.p

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + (1 - p) B A, of the shape of W."""
        out: Tensor = self.weight + (1.0 - self.p) * (self.up @ self.down).view_as(self.weight)
        return out


class LowRankLinear(Adapter, nn.Linear):
    """A linear layer with an adapter."""

    def __init__(self, base: nn.Linear, rank: int, p: float, *, wide: bool = False) -> None:
        nn.Linear.__init__(self, base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self._take(base, rank, p, wide=wide)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight, self.bias) + self.strength * F.linear(F.linear(x, self.down), self.up)

    def plain(self) -> nn.Linear:
        """The layer it stands for, merged."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        return _filled(layer, self)


class LowRankConv1d(Adapter, nn.Conv1d):
    """A convolution with an adapter: A is ``rank`` kernels, B mixes their outputs; together a kernel of low rank."""

    def __init__(self, base: nn.Conv1d, rank: int, p: float, *, wide: bool = False) -> None:
        nn.Conv1d.__init__(self, **_geometry(base), device="meta")
        self._take(base, rank, p, wide=wide)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) to (B, outputs, T')."""
        low = self._conv_forward(x, self.down.view(self.rank, *self.weight.shape[1:]), None)
        added = F.conv1d(low, self.up[:, :, None])
        return self._conv_forward(x, self.weight, self.bias) + self.strength * added

    def plain(self) -> nn.Conv1d:
        """The layer it stands for, merged."""
        return _filled(nn.Conv1d(**_geometry(self), device="meta"), self)


def _geometry(conv: nn.Conv1d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None}


def _filled(layer: Any, adapter: Adapter) -> Any:
    layer.weight = nn.Parameter(adapter.merged_weight())
    if adapter.bias is not None:
        layer.bias = nn.Parameter(adapter.bias.detach().clone())
    return layer.train(adapter.training)


def add_adapters(network: nn.Module, *, rank: int, p: float, seed: int) -> dict[str, Adapter]:
    """Put adapters into every linear layer and convolution (of one group) of a network; what is trained is A, B and all biases.

    Parameters
    ----------
    network : nn.Module
        Changed in place; its output stays what it was in evaluation.
    rank : int
        At most; a layer narrower than it has its own width.
    p : float
        Probability of deactivation.
    seed : int

    Returns
    -------
    dict of str to Adapter
        By the name of the layer, in the order of the network.

    Raises
    ------
    RequestError
        There is no such layer.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))
    >>> [a.rank for a in add_adapters(network, rank=4, p=0.2, seed=0).values()]
    [4, 2]
    """
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        new: nn.Module
        if isinstance(module, nn.Linear) and not isinstance(module, Adapter):
            new = LowRankLinear(module, rank, p, wide=name.rpartition(".")[2] == "qkv")
        elif type(module) is nn.Conv1d and module.groups == 1:  # not its kinds: adapters, convolutions along the time of images
            new = LowRankConv1d(module, rank, p)
        else:
            continue
        _replace(network, name, new.train(module.training))
    found = adapters_of(network)
    if not found:
        raise RequestError("mode lowrank: this encoder has no linear layer and no convolution; take full or frozen")
    for name, p_ in network.named_parameters():
        if name.rpartition(".")[2] == "bias":
            p_.requires_grad_(True)
    set_ranks(network, dict.fromkeys(found, rank), seed=seed)
    return found


def adapters_of(network: nn.Module) -> dict[str, Adapter]:
    """Its adapters by the name of the layer."""
    return {name: m for name, m in network.named_modules() if isinstance(m, Adapter)}


def set_ranks(network: nn.Module, ranks: Mapping[str, int], *, seed: int) -> None:
    """Begin anew with a rank for each adapter by name; each has first weights of its own."""
    for number, (name, adapter) in enumerate(adapters_of(network).items()):
        adapter.reset(ranks[name], hash_ints(seed, number))


def draw_active(network: nn.Module, keys: Keys) -> None:
    """Draw which adapters are active in a step: the same for all micro-batches and processes."""
    adapters = list(adapters_of(network).values())
    drawn = Keys(keys.seed, keys.step, torch.zeros(1, dtype=torch.int64)).shared((len(adapters),), _ACTIVE)  # on the CPU: no sync
    for adapter, u in zip(adapters, drawn.tolist(), strict=True):
        adapter.active = float(u >= adapter.p)


def merged(network: nn.Module) -> Any:
    """A copy with plain layers that does what the network does in evaluation; a copy without more where it has no adapters."""
    out = copy.deepcopy(network)
    for name, adapter in adapters_of(out).items():
        _replace(out, name, adapter.plain())  # type: ignore[operator]
    return out


def n_trained(network: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """What tuning changed, by name: A, B and the biases; the network it was put into is not in it."""
    return {name: p.detach().cpu().clone() for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_adapters(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put an :func:`adapter_state` into a network with adapters; ranks are taken from it.

    Raises
    ------
    DataError
        It is not the state of this network's adapters.
    """
    for name, adapter in adapters_of(network).items():
        if f"{name}.down" in state:
            adapter.reset(len(state[f"{name}.down"]), 0)
    own = {name: p for name, p in network.named_parameters() if p.requires_grad}
    odd = sorted(set(own) ^ set(state)) + [n for n in own if n in state and own[n].shape != state[n].shape]
    if odd:
        raise DataError(f"adapters: tensor {odd[0]} is missing, not expected or of another shape; take those of this encoder")
    for name, p in own.items():
        p.copy_(state[name])


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)
