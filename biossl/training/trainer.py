"""The Lightning trainer as the loop wants it: steps only, no loggers, no bars, no tips.

What lives here: :func:`fit`, and which of the trainer's warnings do not apply to this loop.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from biossl.training.loop import Loop


@contextmanager
def _quiet() -> Iterator[None]:
    """No tips and no start-up lines; warnings are dropped only where they do not apply to this loop."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # data.workers is the person's choice, and counts that only need gathering seldom want more
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # a target encoder is in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # the trainer calling torch, nothing of ours
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        try:
            yield
        finally:
            logger.setLevel(level)


def fit(
    loop: Loop,
    *,
    device: str,
    devices: int = 1,
    strategy: str = "auto",
    io: CheckpointIO | None = None,
    resume: Path | None = None,
) -> None:
    """Run a loop to ``train.steps``, from the start or from a checkpoint folder."""
    train = loop.recipe.train
    with _quiet():
        trainer = Trainer(
            max_steps=train.steps, max_epochs=-1, accumulate_grad_batches=train.accumulate,
            precision="bf16-mixed" if train.precision == "bf16" else "32-true",
            accelerator="gpu" if device == "cuda" else "cpu", devices=devices, strategy=strategy,
            plugins=None if io is None else [io], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(loop, ckpt_path=None if resume is None else str(resume))
