"""The training log: one CSV row per logging interval, and device-side sums until then.

What lives here: ``log.csv`` (written row by row, cut back to the checkpoint on resume) and :class:`Tally`, which adds up
losses and terms without waiting for the device.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from biossl.atomic import write_text
from biossl.distributed import world_size
from biossl.errors import DataError
from biossl.training.monitors import COLUMNS as MONITORS

FIRST = ("step", "loss", "grad_norm", "lr", "weight_decay", "momentum", "samples_per_s")


class Tally:
    """Sums of scalars on the device; :meth:`take` waits for it once and gives means."""

    def __init__(self) -> None:
        self._sum: dict[str, Tensor] = {}
        self._n: dict[str, int] = {}
        self._start = time.monotonic()
        self._samples = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add detached scalars by name."""
        for name, value in values.items():
            value = value.detach().float()
            self._sum[name] = self._sum[name] + value if name in self._sum else value
            self._n[name] = self._n.get(name, 0) + 1

    def count(self, samples: int) -> None:
        """Count samples for the rate."""
        self._samples += samples

    def restart_clock(self) -> None:
        """Leave what was done since the last :meth:`take` out of the rate."""
        self._start, self._samples = time.monotonic(), 0

    def take(self) -> dict[str, float]:
        """Means over micro-batches (and processes) since the last call, and ``samples_per_s``."""
        names = list(self._sum)
        out: dict[str, float] = {}
        if names:
            means = torch.stack([self._sum[n] / self._n[n] for n in names])
            if world_size() > 1:
                dist.all_reduce(means)
                means = means / world_size()
            out = dict(zip(names, means.tolist(), strict=True))
        out["samples_per_s"] = self._samples / max(time.monotonic() - self._start, 1e-9)
        self._sum, self._n = {}, {}
        self.restart_clock()
        return out


class TrainLog:
    """``log.csv`` of a run.

    Parameters
    ----------
    path : Path
    resume_step : int
        Rows of later steps are dropped: those steps will be done again. 0 = a new log.

    Raises
    ------
    DataError
        The log of a resumed run is damaged.
    """

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        self.path = path
        self.columns: list[str] = []
        self._held: list[dict[str, float]] = []
        if resume_step == 0 or not path.exists():
            path.unlink(missing_ok=True)
            return
        try:
            with open(path, newline="", encoding="utf-8") as handle:
                reader = csv.DictReader(handle)
                self.columns = list(reader.fieldnames or [])
                # a row that was cut off by a kill has no number of its own: it is dropped like one of a later step
                kept = [row for row in reader if (row.get("step") or "").isdigit() and None not in row.values()]
        except (ValueError, csv.Error):  # not text
            self.columns, kept = [], []
        if self.columns[:1] != ["step"]:
            raise DataError(f"{path}: not a training log (no column 'step'); remove it and run the same command again")
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in kept if int(row["step"]) <= resume_step)
        write_text(path, buffer.getvalue())

    def write(self, row: dict[str, float]) -> None:
        """Append a row; columns are those of the first row with a loss: the usual ones, terms, the monitors', ``probe``."""
        self._held.append(row)
        if not self.columns and "loss" not in row:
            return  # a reading before the first step: the objective's terms are not known yet
        new = not self.columns
        if new:
            terms = [k for k in row if k not in FIRST and k not in MONITORS and k != "probe"]
            self.columns = [*FIRST, *terms, *MONITORS, "probe"]
        with open(self.path, "a", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.columns, lineterminator="\n", extrasaction="ignore", restval="")
            if new:
                writer.writeheader()
            writer.writerows({k: int(v) if k == "step" else f"{v:.6g}" for k, v in held.items()} for held in self._held)
        self._held = []
