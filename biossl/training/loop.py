"""THE training loop: one LightningModule for every objective, with no branch that asks which method runs.

What lives here: what happens in a step, and when weights are averaged, logged, watched and saved. What a step computes is
the objective's, which windows it sees ``data.py``'s. A step is one optimiser step; ``trainer.global_step`` is the number
of the step at hand (0-based) while it runs and the number of finished steps once it has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from biossl.errors import BiosslError
from biossl.keys import Keys
from biossl.objectives.base import Objective
from biossl.progress import Progress
from biossl.recipe.schema import Recipe
from biossl.training.data import RawBatch, Source
from biossl.training.ema import Ema
from biossl.training.guard import FiniteGuard
from biossl.training.log import Tally, TrainLog
from biossl.training.monitors import USUAL_STD, Variances, Watcher, alarm, stop_if_collapsed
from biossl.training.optim import make_optimizer, set_schedule
from biossl.training.state import Interrupt, checkpoint_name, note

_DROPOUT = 0xD409  # draw number of the generator for dropout and other bulk noise


class Loop(LightningModule):
    """One run.

    Parameters
    ----------
    objective : Objective
    recipe : Recipe
        Its ``train``, ``data``, ``monitor``, ``checkpoint`` and ``seed`` are used.
    sources : list of Source
    loader : callable
        ``loader(rank, world)`` gives the micro-batches of one process, from the first step still to do.
    log : TrainLog, optional
    watcher : Watcher, optional
    checkpoints : Path, optional
        ``RUN/checkpoints``.
    bar : Progress, optional
    interrupt : Interrupt, optional
    begin : callable, optional
        Called with the new optimiser, to put an earlier run's moments into it.

    Attributes
    ----------
    last : dict
        The newest value of every logged number.
    alarms : list of str
        Collapse alarms, each once when it began.
    """

    def __init__(
        self, objective: Objective, recipe: Recipe, *, sources: list[Source], loader: Callable[[int, int], Any],
        log: TrainLog | None = None, watcher: Watcher | None = None, checkpoints: Path | None = None,
        bar: Progress | None = None, interrupt: Interrupt | None = None,
        begin: Callable[[torch.optim.Optimizer], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.objective, self.recipe, self.sources = objective, recipe, sources
        self.loader, self.log_file, self.watcher = loader, log, watcher
        self.checkpoints, self.bar, self.interrupt, self.begin = checkpoints, bar, interrupt, begin
        self.tally, self.variances = Tally(), Variances()
        self.last: dict[str, float] = {}
        self.alarms: list[str] = []
        self._alarmed = False
        self._released = recipe.train.schedule.config.released_from(recipe.train.steps)
        self._guard = FiniteGuard(sources, checkpoints)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its schedules are set before every step."""
        optimizer = make_optimizer(self.objective, self.recipe.train)
        if self.begin is not None:
            self.begin(optimizer)
        return optimizer

    def train_dataloader(self) -> Any:
        """The micro-batches of this process."""
        return self.loader(self.global_rank, self.trainer.world_size)

    def on_train_start(self) -> None:
        """Once everything is on its device and the trainer has set its own signal handlers."""
        self.ema = Ema(self.objective.ema_pairs())
        if self.interrupt is not None:
            self.interrupt.install()
        if self.trainer.global_step == 0 and self.watcher is not None:
            start = self.watcher.read(self.objective.export())
            self.last["start_std"] = start["std"]
            if self.log_file is not None and self.global_rank == 0:
                self.log_file.write({"step": 0.0, **start})
        self.tally.restart_clock()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> RawBatch:
        """Counts to the device, or the loader's error to the person."""
        if isinstance(batch, BiosslError):
            raise batch
        moved: RawBatch = batch.to(device, non_blocking=True)
        return moved

    def training_step(self, raw: RawBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch; everything random in it is a function of (seed, step, position)."""
        step = self.trainer.global_step
        if raw.step != step or raw.position is None:
            raise RuntimeError(f"the loader is at step {raw.step}, the trainer at {step}")
        keys = Keys(self.recipe.seed, step, raw.position, raw.micro, self.global_rank)
        torch.manual_seed(keys.fold(_DROPOUT))
        outcome = self.objective.step(raw.decode(self.sources[raw.source]), step=step, keys=keys)
        self.tally.add({"loss": outcome.loss, **outcome.terms})
        self.tally.count(len(raw.index) * self.trainer.world_size)
        if self.recipe.monitor.every > 0:
            self.variances.add(outcome.watch)
        self._guard.expect("loss", outcome.loss, raw)
        return outcome.loss

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Once per optimiser step, over all micro-batches."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.train.clip_norm, norm)
        self.tally.add({"grad_norm": norm})
        self._guard.expect("gradient", norm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Schedules, step, the moving averages, then what else follows them: exactly once per optimiser step."""
        step = self.trainer.global_step
        set_schedule(optimizer, self.recipe.train, step)
        optimizer.step(closure=optimizer_closure)
        self.ema.update(self.objective.ema_momentum(step))
        self.objective.after_step()

    def on_train_batch_end(self, outputs: Any, raw: RawBatch, batch_idx: int) -> None:
        """After the last micro-batch of a step: log, watch, save, stop."""
        if raw.micro + 1 < self.recipe.train.accumulate:
            return
        step, monitor, probe = self.trainer.global_step, self.recipe.monitor, self.recipe.monitor.probe
        if self.bar is not None:
            self.bar.update(1)

        def due(every: int) -> bool:
            return every > 0 and (step % every == 0 or step == self.recipe.train.steps)

        collapse, probed = due(monitor.every), bool(probe.label) and due(probe.every)
        if collapse or probed or due(monitor.log_every):
            self._log(step, collapse=collapse, probe=probed)
        stopped = self.interrupt is not None and self.interrupt.requested
        save = due(self.recipe.checkpoint.every) or step in (self.recipe.train.steps, self._released) or stopped
        if self.checkpoints is not None and save:
            self._guard.check()
            self.trainer.save_checkpoint(self.checkpoints / checkpoint_name(step))
            self.tally.restart_clock()
        self.trainer.should_stop = self.trainer.should_stop or stopped

    def _log(self, step: int, *, collapse: bool, probe: bool) -> None:
        """One row; the only place where the device is waited for in an ordinary step."""
        self._guard.check()
        train = self.recipe.train
        row = {"step": float(step), "lr": train.lr(step - 1), "weight_decay": train.weight_decay(step - 1)}
        row |= {"momentum": self.objective.ema_momentum(step - 1), **self.tally.take()}
        if self.watcher is not None:
            row |= self.watcher.read(self.objective.export(), collapse=collapse, probe=probe)
        if collapse:
            row |= self.variances.take()
            text = alarm(row, start_std=self.last.get("start_std", USUAL_STD))
            if text and not self._alarmed:
                self.alarms.append(f"step {step}: {text}")
                note(f"warning: {self.alarms[-1]}")
            self._alarmed = bool(text)
        self.last |= row
        if self.log_file is not None and self.global_rank == 0:
            self.log_file.write(row)
        if self.bar is not None:
            self.bar.note = f"loss {row['loss']:.4g}, {row['samples_per_s']:.0f} samples/s"
        if collapse:
            stop_if_collapsed(row, self.recipe.monitor, step)
        self.tally.restart_clock()
