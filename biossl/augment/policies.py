"""Policies: lists of augmentations by name, as a recipe's ``augment: NAME`` would spell them out."""

from __future__ import annotations

from typing import Any

POLICIES: dict[str, list[dict[str, Any]]] = {}
