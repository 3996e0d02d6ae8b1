"""Reports: what a file holds (``inspect``), one HTML page of a run (``run_page``), its packet for an ethics board (``ethics``)."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"write_ethics": "ethics", "write_report": "run_page"}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'biossl.report' has no attribute '{name}'")
    return getattr(importlib.import_module(f"biossl.report.{_PUBLIC[name]}"), name)
