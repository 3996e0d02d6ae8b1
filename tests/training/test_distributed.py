"""Two processes (gloo) do what one does with the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from corpus_factory import make_corpus
from torch import Tensor
from training_toys import Toy, small_recipe, toy_loop
from two_processes import needs_two_processes, run_in_two

from biossl.batch import Batch
from biossl.distributed import all_gather, rank, world_size
from biossl.keys import Keys
from biossl.objectives.base import Outcome
from biossl.training.data import make_sources
from biossl.training.trainer import fit


def cross_batch_loss(z: Tensor) -> Tensor:
    """Depends on all rows at once, as contrastive and variance losses do."""
    return (z.std(dim=0) - 1).square().sum() + (z @ z.T).softmax(dim=1).diagonal().log().mean()


def _gradient(number: int, x: Tensor, weight: Tensor) -> list[list[float]]:
    w = weight.clone().requires_grad_()
    rows = x.chunk(2)[number]
    cross_batch_loss(all_gather(rows @ w)).backward()
    assert (rank(), world_size()) == (number, 2) and w.grad is not None
    dist.all_reduce(w.grad)  # what DDP does: the mean over processes
    grad: list[list[float]] = (w.grad / 2).tolist()
    return grad


@needs_two_processes
def test_gradient_through_all_gather_is_that_of_one_process(tmp_path: Path) -> None:
    x, weight = torch.randn(8, 5, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    w = weight.clone().requires_grad_()
    assert world_size() == 1 and all_gather(x) is x
    cross_batch_loss(all_gather(x @ w)).backward()
    for grad in run_in_two(_gradient, x, weight, store=tmp_path / "store"):
        torch.testing.assert_close(torch.tensor(grad, dtype=torch.float64), w.grad)


class Shared(Toy):
    """A loss over the gathered batch; writes what each process was given and the gradient it stepped with."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def step(self, batch: Batch, *, step: int, keys: Keys) -> Outcome:
        outcome = super().step(batch, step=step, keys=keys)
        z = all_gather(self.head(self.encoder(batch.x)))
        outcome.loss = outcome.loss + cross_batch_loss(z)
        return outcome

    def ema_momentum(self, step: int) -> float:
        gradient = {k: p.grad.clone() for k, p in self.named_parameters() if p.grad is not None}
        torch.save(
            {"given": self.given, "gradient": gradient, "weights": dict(self.named_parameters())},
            self.folder / f"{world_size()}-{rank()}-{step}.pt",
        )
        return super().ema_momentum(step)


@needs_two_processes
def test_two_processes_step_like_one(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=4, n_samples=40)
    sources, _ = make_sources([(corpus, 1.0)])
    recipe = small_recipe(train__steps=3, train__clip_norm="null", monitor__every=0)
    fit(toy_loop(Shared(tmp_path), recipe, sources), device="cpu")
    fit(toy_loop(Shared(tmp_path), recipe, sources), device="cpu", devices=2, strategy="ddp_fork")
    for step in range(3):
        one, left, right = (torch.load(tmp_path / f"{name}-{step}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1"))
        for (s, rows, keys), (_, rows0, keys0), (_, rows1, keys1) in zip(
            one["given"], left["given"], right["given"], strict=True
        ):
            assert s <= step and rows == rows0 + rows1  # the same global batch in the same order
            assert torch.equal(keys, torch.cat([keys0, keys1]))  # and the same masks
        for name, gradient in one["gradient"].items():
            torch.testing.assert_close(left["gradient"][name], gradient, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(left["gradient"][name], right["gradient"][name], rtol=0, atol=0)
        for name, weight in one["weights"].items():
            torch.testing.assert_close(left["weights"][name], weight, rtol=1e-3, atol=1e-5)
