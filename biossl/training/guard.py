"""Losses and gradients that are not finite: found without waiting for a GPU, and named.

What lives here: :class:`FiniteGuard`. Nothing is saved after a value that was not finite, so the newest checkpoint on
disk is the last good state.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from biossl.errors import DataError
from biossl.training.data import RawBatch, Source

_SHOWN = 8


class FiniteGuard:
    """Collects scalars that must be finite.

    On the CPU each is asked about at once, before the optimiser moves; on a GPU asking is a wait, so it happens when
    :meth:`check` is called (at log rows and checkpoints).

    Parameters
    ----------
    sources : list of Source
    checkpoints : Path or None
        ``RUN/checkpoints``, named in the error.
    """

    def __init__(self, sources: list[Source], checkpoints: Path | None) -> None:
        self.sources, self.checkpoints = sources, checkpoints
        self._pending: list[tuple[str, int, int, Tensor, Tensor]] = []  # what, step, source, rows, finite or not
        self._newest: tuple[int, int, Tensor] | None = None

    def expect(self, what: str, value: Tensor, raw: RawBatch | None = None) -> None:
        """Remember a scalar of a batch (None = the newest one)."""
        if raw is not None:
            self._newest = raw.step, raw.source, raw.index
        assert self._newest is not None
        self._pending.append((what, *self._newest, torch.isfinite(value.detach())))
        if value.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Ask about everything remembered.

        Raises
        ------
        DataError
            Names the step, the corpus, the rows and the window of the largest amplitude.
        """
        pending, self._pending = self._pending, []
        if not pending or bool(torch.stack([ok for *_, ok in pending]).all()):
            return
        what, step, number, index = next((w, s, k, i) for w, s, k, i, ok in pending if not bool(ok))
        source, rows = self.sources[number], index.cpu().numpy()
        peak = source.batch(rows).decode(source).x.abs().amax(dim=(1, 2))
        worst = int(peak.argmax())
        record = source.corpus.index["record"].astype(str).iloc[rows[worst]]
        shown = ", ".join(str(r) for r in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")
        raise DataError(
            f"step {step}: {what} is not finite; batch: corpus {source.corpus.path.name}, rows {shown}; largest amplitude "
            f"{float(peak[worst]):.3g} in row {rows[worst]} (record {record}); {self._last_good()}; look at that record with "
            "`biossl inspect`, or begin a new run with a lower train.optimizer.lr"
        )

    def _last_good(self) -> str:
        latest = None if self.checkpoints is None else self.checkpoints / "latest"
        if latest is None or not latest.is_file():
            return "no checkpoint was written yet"
        return f"the last good state is {latest.parent / latest.read_text(encoding='utf-8', errors='replace').strip()}"
