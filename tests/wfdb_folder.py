"""Small WFDB folders written by hand, for tests that start from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from biossl.config import dump_yaml

LEADS = ("I", "II", "V1")


def write_record(
    folder: Path, name: str, *, seed: int = 0, n: int = 1000, sfreq: int = 100, comments: tuple[str, ...] = (), when: str = ""
) -> None:
    """``NAME.hea`` and ``NAME.dat`` (format 16, 3 leads, 200 counts a mV, noise of 50 counts)."""
    x = np.random.default_rng(seed).normal(0, 50, (n, len(LEADS))).astype("<i2")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dat").write_bytes(x.tobytes())
    check = x.sum(0, dtype=np.int64).astype(np.int16)
    lines = [f"{name} {len(LEADS)} {sfreq} {n} {when}".strip()]
    lines += [f"{name}.dat 16 200/mV 16 0 {x[0, k]} {check[k]} 0 {lead}" for k, lead in enumerate(LEADS)]
    (folder / f"{name}.hea").write_text("\n".join([*lines, *(f"#{c}" for c in comments)]) + "\n")


def card_facts(**facts: Any) -> dict[str, Any]:
    """A card for these records: subject is the record's first letter; view ``main`` of 2 s, native rate."""
    return {
        "format": 1, "name": "byhand", "title": "By hand", "modality": "ecg", "licence": "none", "citation": "none",
        "version": "1", "obtain": "made here", "native_sfreq": [100.0],
        "files": [{"pattern": r"(?P<record>(?P<subject>[a-z])\d+)\.hea", "reader": "wfdb"}],
        "views": {"main": {"sfreq": 100.0, "window_s": 2.0, "stride_s": 2.0, "channels": list(LEADS)}},
    } | facts  # fmt: skip


def write_card(path: Path, **facts: Any) -> Path:
    """A card file."""
    path.write_text(dump_yaml(card_facts(**facts)))
    return path
