"""The stored corpus: convert recordings, open them, label them, split them."""

from __future__ import annotations

import importlib
from typing import Any

from biossl.corpus.convert import convert  # at once: as a lazy name it would be hidden by its own module

_LAZY = {
    "Corpus": "index",
    "Labels": "labels",
    "add_labels": "label_csv",
    "correct_labels": "label_windows",
    "make_split": "splits",
    "add_split": "splits",
    "guard_split": "identity",
    "subject_keys": "identity",
    "seen": "identity",
    "seen_subjects": "identity",
}
__all__ = [
    "Corpus", "Labels", "add_labels", "add_split", "convert", "correct_labels", "guard_split", "make_split", "seen", "seen_subjects",
    "subject_keys",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'biossl.corpus' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"biossl.corpus.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
