"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Root of the real recordings (environment variable BIOSSL_DATA); tests that use it carry the ``data`` marker."""
    root = os.environ.get("BIOSSL_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("BIOSSL_DATA does not name a folder of real recordings")
    return Path(root)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many real-data tests passed: the CI compares it with the committed count."""
    passed = sum("data" in report.keywords for report in terminalreporter.stats.get("passed", []))
    if passed:
        terminalreporter.write_line(f"real-data tests passed: {passed}")
