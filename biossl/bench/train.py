"""A pretraining step of a recipe, as the one training loop takes it, on simulated windows.

What lives here: the loop with a stopwatch. Objective, optimiser, averaged copies, schedules and precision are those of
``biossl pretrain``; monitors, log and checkpoints are off. A step is timed from its batch on the device to the end of the averages,
so loading is left out (``biossl bench load`` measures it).
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from biossl.bench.ceiling import best_matmul, mlp_shape
from biossl.bench.data import quiet, simulated_corpus
from biossl.bench.frame import Times, peak_bytes, summary
from biossl.keys import Keys
from biossl.objectives.masking import draw_masks
from biossl.recipe import Recipe
from biossl.recipe.check import example_spec
from biossl.recipe.limits import check_limits
from biossl.training.data import RawBatch, make_loader, make_order, make_sources
from biossl.training.loop import Loop
from biossl.training.run import raise_out_of_memory
from biossl.training.trainer import fit

CEILING_STEPS, CEILING_WARMUP = 5, 2


class TimedLoop(Loop):
    """The training loop with a stopwatch: ``warmup`` steps, ``steps`` timed ones, then one whose operations are counted.

    Attributes
    ----------
    times : Times
        Of the timed steps.
    losses : list of Tensor
        Of every micro-batch of the timed steps.
    flops : int
        Of the counted step; attention in its plain form (two products), whichever kernel runs otherwise.
    peak : int or None
        Bytes, before the counted step.
    """

    def __init__(self, *args: Any, warmup: int, steps: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timed = range(warmup, warmup + steps)
        self.times, self.losses, self.flops = Times(), list[Tensor](), 0
        self.peak: int | None = None
        self._counting = ExitStack()
        self._counter = FlopCounterMode(display=False)

    def on_train_batch_start(self, raw: RawBatch, batch_idx: int) -> None:
        """The batch is on the device, nothing else has happened."""
        if raw.micro > 0:
            return
        if raw.step in self.timed:
            if raw.step == self.timed.start and self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self.times.start(self.device)
        elif raw.step == self.timed.stop:
            self.peak = peak_bytes(self.device)
            self._counting.enter_context(self._counter)
            self._counting.enter_context(sdpa_kernel(SDPBackend.MATH))

    def training_step(self, raw: RawBatch, batch_idx: int) -> Tensor:
        """The loop's own, remembered."""
        loss = super().training_step(raw, batch_idx)
        if raw.step in self.timed:
            self.losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, raw: RawBatch, batch_idx: int) -> None:
        """Optimiser and averages have moved."""
        if raw.micro + 1 == self.recipe.train.accumulate:
            if raw.step in self.timed:
                self.times.stop(self.device)
            elif raw.step == self.timed.stop:
                self._counting.close()
                self.flops = int(self._counter.get_total_flops())
                self.trainer.should_stop = True
        super().on_train_batch_end(outputs, raw, batch_idx)


def bench_recipe(recipe: Recipe, *, batch: int, precision: Literal["fp32", "bf16"], steps: int) -> Recipe:
    """The recipe with another batch and precision, long enough, and with nothing that is not a step of it."""
    monitor = dataclasses.replace(
        recipe.monitor, every=0, log_every=10**9, probe=dataclasses.replace(recipe.monitor.probe, label="")
    )
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, batch_size=batch, workers=0),
        train=dataclasses.replace(recipe.train, precision=precision, steps=max(recipe.train.steps, steps)),
        monitor=monitor,
        checkpoint=dataclasses.replace(recipe.checkpoint, every=10**9),
    )


def bench_train(
    recipe: Recipe, *, batch: int, steps: int, warmup: int, precision: Literal["fp32", "bf16"], device: torch.device
) -> dict[str, Any]:
    """Time, memory and operations of an optimiser step.

    Parameters
    ----------
    recipe : Recipe
    batch : int
        Windows a step (``data.batch_size``).
    steps, warmup : int
        Timed steps, and steps before them.
    precision : {"fp32", "bf16"}
        ``train.precision``.
    device : torch.device

    Returns
    -------
    dict
        ``seconds_per_step`` (summary), ``samples_per_s``, ``peak_memory_bytes``, ``loss_first_last``, ``masked_fraction`` (summary;
        absent where no mask is drawn or a prior weighs it), ``trainable_params``, ``flops_per_step``, ``achieved_gflops``,
        ``ceiling_gflops`` (the faster of two matrix products in this process), ``share_of_ceiling``.

    Raises
    ------
    RequestError
        The recipe contradicts itself or the batch.
    MachineError
        Out of memory.
    """
    recipe = bench_recipe(recipe, batch=batch, precision=precision, steps=warmup + steps + 2)
    check_limits(recipe)
    accumulate = recipe.train.accumulate
    objective = recipe.build(example_spec(recipe))
    with tempfile.TemporaryDirectory() as folder:
        corpus = simulated_corpus(Path(folder) / "simulated", example_spec(recipe), windows=batch, plan=objective.needs)
        sources, _ = make_sources([(corpus, 1.0)], channels=recipe.data.channels)
        order, _ = make_order(
            sources, objective.needs, batch_size=batch, accumulate=accumulate, seed=recipe.seed, steps=recipe.train.steps
        )
        loop = TimedLoop(
            objective, recipe, sources=sources, warmup=warmup, steps=steps,
            loader=lambda rank, world: make_loader(
                sources, order, accumulate=accumulate, start_step=0, steps=recipe.train.steps, workers=0, rank=rank, world=world
            ),
        )  # fmt: skip
        try:
            with quiet():
                fit(loop, device=device.type)
        except (MemoryError, RuntimeError) as error:
            raise_out_of_memory(error, f"--batch {batch}: out of memory; take fewer")
            raise
    losses = torch.stack(loop.losses).float().reshape(steps, accumulate).mean(dim=1).tolist()
    shape = mlp_shape(objective.export(), batch // accumulate)
    ceiling = best_matmul(shape, precision, steps=CEILING_STEPS, warmup=CEILING_WARMUP, device=device)
    achieved = loop.flops / loop.times.median
    return {
        **loop.times.per("step"),
        "samples_per_s": batch / loop.times.median,
        "peak_memory_bytes": loop.peak,
        "loss_first_last": [losses[0], losses[-1]],
        **_masked(recipe, objective.export(), loop.timed),
        "trainable_params": sum(p.numel() for p in objective.parameters() if p.requires_grad),
        "flops_per_step": summary([loop.flops]),
        "achieved_gflops": achieved / 1e9,
        "ceiling_gflops": ceiling / 1e9,
        "share_of_ceiling": achieved / ceiling,
    }


def _masked(recipe: Recipe, encoder: Any, steps: range) -> dict[str, Any]:
    """Share of patches hidden in each step: the masks are drawn again, for they are a function of seed, step and position."""
    if recipe.mask is None or recipe.mask.config.prior is not None:
        return {}
    mask = recipe.mask.config.require(encoder.grid, encoder.spec)
    shares = []
    for step in steps:
        drawn = draw_masks(mask, Keys(recipe.seed, step, torch.arange(1)), encoder.grid, 1)
        shares.append(drawn.masked.shape[1] / (drawn.masked.shape[1] + drawn.visible.shape[1]))
    return {"masked_fraction": summary(shares)}
