"""What the tests of whole runs share: comparing two runs, and a run that was stopped."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

forks = pytest.mark.skipif(sys.platform != "linux", reason="kills a forked process")


def bits(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint (objective, EMA copy, optimiser) and of the final encoder."""
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    out: dict[str, torch.Tensor] = {}
    for file in (*sorted((folder / "state").glob("*.safetensors")), run / "encoder" / "weights.safetensors"):
        out |= {f"{file.name}:{k}": v for k, v in load_file(file).items()}
    return out


def assert_same(run: Path, other: Path) -> None:
    a, b = bits(run), bits(other)
    assert a.keys() == b.keys() and len(a) > 20
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def assert_log(run: Path, other: Path) -> None:
    """The same rows but for the speed; no step twice."""
    a, b = rows(run), rows(other)
    assert [r["step"] for r in a] == ["0", "2", "4", "6", "8"]
    for left, right in zip(a, b, strict=True):
        # means since the last row: a resume between two rows leaves fewer steps to average
        for key in ("step", "lr", "weight_decay", "momentum", "std", "rankme_centred", "rankme_uncentred"):
            assert left[key] == right[key], key


def unfinished(whole: Path, out: Path) -> Path:
    """The folder of a run that was stopped after step 6."""
    shutil.copytree(whole, out)
    shutil.rmtree(out / "encoder")
    shutil.rmtree(out / "checkpoints" / "step-00000008")
    (out / "checkpoints" / "latest").write_text("step-00000006\n")
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "finished": False}))
    return out
