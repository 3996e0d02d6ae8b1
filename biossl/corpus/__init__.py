"""The stored corpus: convert recordings, open them, label them, split them."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Corpus": "index",
    "convert": "convert",
    "Labels": "labels",
    "add_labels": "labels",
    "make_split": "splits",
    "add_split": "splits",
    "guard_split": "identity",
    "subject_keys": "identity",
    "seen": "identity",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'biossl.corpus' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"biossl.corpus.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value
