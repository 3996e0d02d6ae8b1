"""The projector: its shape, and a batch norm that is that of the whole batch on any number of processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from two_processes import needs_two_processes, run_in_two

from biossl.config import build
from biossl.errors import RequestError
from biossl.models.heads import BatchNorm, Projector, ProjectorConfig


@pytest.mark.parametrize(("layers", "norm", "kinds"), [
    (1, "batch", ["Linear"]),
    (2, "batch", ["Linear", "BatchNorm", "ReLU", "Linear"]),
    (3, "layer", ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU", "Linear"]),
    (2, "none", ["Linear", "ReLU", "Linear"]),
])  # fmt: skip
def test_layers_are_those_asked_for(layers: int, norm: str, kinds: list[str]) -> None:
    projector = ProjectorConfig(hidden=6, out=4, layers=layers, norm=norm).build(5)  # type: ignore[arg-type]
    assert [type(m).__name__ for m in projector] == kinds
    assert projector(torch.randn(7, 5)).shape == (7, 4)


def test_batch_norm_is_that_of_torch_in_training() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(9, 4) * 3 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def test_rows_that_do_not_count_change_no_other_row() -> None:
    x, use = torch.randn(9, 5), torch.tensor([True] * 4 + [False] * 2 + [True] * 3)
    projector = Projector(5, 6, 4, layers=3)
    torch.testing.assert_close(projector(x, use)[use], projector(x[use]))
    assert bool(projector(x, torch.zeros(9, dtype=torch.bool)).isfinite().all())


def test_settings_without_meaning_are_one_line() -> None:
    with pytest.raises(RequestError, match=r"recipe: 'objective.projector': hidden and layers must be at least 1"):
        build(ProjectorConfig, {"layers": 0}, where="recipe", prefix="objective.projector.")


def _gradient(number: int, x: Tensor, use: Tensor, state: dict[str, Tensor]) -> list[list[float]]:
    projector = Projector(5, 6, 4, layers=3)
    projector.load_state_dict(state)
    from biossl.distributed import all_gather

    all_gather(projector(x.chunk(2)[number], use.chunk(2)[number])).pow(3).sin().mean().backward()
    out = []
    for p in projector.parameters():
        assert p.grad is not None
        dist.all_reduce(p.grad)
        out.append((p.grad / 2).flatten().tolist())
    return out


@needs_two_processes
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    projector, x = Projector(5, 6, 4, layers=3), torch.randn(8, 5)
    use = torch.tensor([True, False, False, True, True, True, True, False])
    projector(x, use).pow(3).sin().mean().backward()
    for grads in run_in_two(_gradient, x, use, projector.state_dict(), store=tmp_path / "store"):
        for p, grad in zip(projector.parameters(), grads, strict=True):
            assert p.grad is not None
            torch.testing.assert_close(torch.tensor(grad), p.grad.flatten(), rtol=1e-4, atol=1e-5)
