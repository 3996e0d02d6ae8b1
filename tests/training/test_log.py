"""The training log: fixed columns, cut back on resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from biossl.errors import DataError
from biossl.training.log import FIRST, Tally, TrainLog
from biossl.training.monitors import COLUMNS


def test_columns_are_fixed_by_the_first_row_with_a_loss(tmp_path: Path) -> None:
    log = TrainLog(tmp_path / "log.csv")
    log.write({"step": 0.0, "std": 0.5})
    assert not (tmp_path / "log.csv").exists()  # the objective's terms are not known yet
    log.write({"step": 10.0, "loss": 1.25, "hinge": 0.5, "probe": 0.75})
    log.write({"step": 20.0, "loss": 1.0, "std": 0.25})
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == ",".join([*FIRST, "hinge", *COLUMNS, "probe"])
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "10", "20"]
    assert lines[2].startswith("10,1.25,") and lines[2].endswith(",0.75") and "0.25" in lines[3]


def test_resume_drops_later_and_torn_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n2,0.5\n4,0.4\n6,0.3\n8")  # the last row was torn by a kill
    TrainLog(path, resume_step=4).write({"step": 6.0, "loss": 0.25})
    assert path.read_text() == "step,loss\n2,0.5\n4,0.4\n6,0.25\n"
    TrainLog(path)  # a new run
    assert not path.exists()
    for damaged in (b"a,b\n1,2\n", b"", b"\xff\xfe\x00\n", b'step,loss\n"' + b"x" * 200_000):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a training log"):
            TrainLog(path, resume_step=4)


def test_tally_gives_means_since_it_was_last_asked() -> None:
    tally = Tally()
    for value in (1.0, 2.0, 6.0):
        tally.add({"loss": torch.tensor(value)})
    tally.add({"grad_norm": torch.tensor(4.0)})
    tally.count(30)
    out = tally.take()
    assert (out["loss"], out["grad_norm"]) == (3.0, 4.0) and out["samples_per_s"] > 0
    assert set(tally.take()) == {"samples_per_s"}
