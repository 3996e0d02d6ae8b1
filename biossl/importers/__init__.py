"""Converters of published checkpoints to encoder folders, one file a model family.

``KINDS`` names them for ``biossl import``: kind -> ("module:function", one line). A function takes (checkpoint, out) and
``overwrite`` and returns facts of what it wrote.
"""

from __future__ import annotations

KINDS: dict[str, tuple[str, str]] = {
    "ecg-jepa": (
        "biossl.importers.ecg_jepa:import_ecg_jepa",
        "ECG-JEPA base (arXiv 2410.08559): random_epoch100.pth, multiblock_epoch100.pth",
    ),
}
