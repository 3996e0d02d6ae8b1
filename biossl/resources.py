"""Finds packaged recipes and data cards, in the installed wheel or in a checkout."""

from __future__ import annotations

import difflib
from pathlib import Path

from biossl.errors import RequestError

_PACKAGE = Path(__file__).resolve().parent


def resource_root(kind: str) -> Path:
    """Folder of ``recipes`` or ``data_cards``."""
    for root in (_PACKAGE / "_resources" / kind, _PACKAGE.parent / kind):
        if root.is_dir():
            return root
    raise RequestError(f"{kind}: not found beside the package; reinstall biossl")


def resource(name: str) -> Path:
    """Path of a packaged file, e.g. ``recipes/ecg/jepa_small.yaml`` or ``data_cards/ptbxl.yaml``."""
    kind, _, rest = name.partition("/")
    path = resource_root(kind) / rest
    if not path.is_file():
        raise RequestError(
            f"{name}: no such packaged file{_near(rest, kind)}; `biossl list {'recipes' if kind == 'recipes' else 'cards'}` names them"
        )
    return path


def _near(name: str, kind: str) -> str:
    near = difflib.get_close_matches(name, resources(kind), n=1)
    return f", did you mean '{near[0].removesuffix('.yaml')}'?" if near else ""


def resources(kind: str) -> list[str]:
    """Names of all packaged YAML files of a kind, sorted: ``ecg/jepa_small.yaml``."""
    root = resource_root(kind)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.yaml"))
