"""Fixtures of the tests of corpora."""

from __future__ import annotations

from pathlib import Path

import pytest
from wfdb_folder import write_record


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of four WFDB records of three patients."""
    for i, name in enumerate(("a1", "a2", "b1", "c1")):
        write_record(tmp_path / "src", name, seed=i)
    return tmp_path / "src"
