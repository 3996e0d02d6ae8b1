"""Moving averages of modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from biossl.training.ema import Ema


def test_parameters_and_buffers_follow_the_closed_form() -> None:
    source = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    target = copy.deepcopy(source)
    start = {k: v.double().clone() for k, v in target.state_dict().items()}
    ema = Ema([(source, target)])
    expected = dict(start)
    for step in range(7):
        source(torch.randn(8, 3))  # moves the running statistics
        with torch.no_grad():
            for p in source.parameters():
                p.add_(torch.randn_like(p))
        momentum = 0.9 + 0.01 * step
        ema.update(momentum)
        for k, v in source.state_dict().items():
            expected[k] = momentum * expected[k] + (1 - momentum) * v.double() if v.is_floating_point() else v.double()
    for k, v in target.state_dict().items():
        assert torch.allclose(v.double(), expected[k], atol=1e-6), k
    assert target[1].num_batches_tracked == 7


def test_momentum_one_changes_nothing_and_layouts_must_agree() -> None:
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    before = target.weight.clone()
    Ema([(source, target)]).update(1.0)
    assert torch.equal(before, target.weight)
    with pytest.raises(ValueError, match="layout"):
        Ema([(nn.Linear(2, 2), nn.Linear(2, 3))])
