"""What the simulators share in writing files: an empty folder, a card, a truth table.

What lives here: file handling only; the physiology is in the modality's own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biossl.config import dump_yaml
from biossl.errors import RequestError


def fresh_folder(folder: str | Path) -> Path:
    """Make the folder; RequestError when it holds something already."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RequestError(f"{path}: exists and is not an empty folder; name another or remove it")
    path.mkdir(parents=True, exist_ok=True)
    return path


def at_least_one(**values: float) -> None:
    """RequestError for the first value that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise RequestError(f"{name}: {value} is not positive; give at least one")


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write ``card.yaml`` (fields of a data card; this room comes before the one that reads cards)."""
    (folder / "card.yaml").write_text(dump_yaml(card), encoding="utf-8", newline="\n")


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as CSV in UTF-8; floats with 6 significant digits, so that files are byte-identical everywhere."""

    def text(value: Any) -> str:
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    lines = [",".join(rows[0])] + [",".join(text(v) for v in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
