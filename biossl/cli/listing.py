"""``biossl list``: name what is packaged, and copy one to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EXAMPLE = "biossl list recipes --copy ecg/jepa_small my_recipe.yaml"


def arguments(parser: Any) -> None:
    """Arguments of the verb."""
    parser.add_argument("kind", choices=["recipes", "cards", "formats", "encoders"], help="what to name")
    parser.add_argument("--copy", nargs=2, metavar=("NAME", "DEST"), help="copy a packaged recipe or card to a file or folder")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST of --copy when it exists")


def run(args: Any) -> dict[str, Any]:
    """Print the names with one line each, or copy one."""
    from biossl.cli import say

    if args.copy:
        name, dest = args.copy
        path = copy(args.kind, name, Path(dest), overwrite=args.overwrite)
        say(f"{path} is a copy of {name}; edit it and give the path instead of the name")
        return {"copied": name, "to": str(path)}
    found = names(args.kind)
    width = max((len(n) for n in found), default=0)
    for name, line in found.items():
        say(f"{name:<{width}}  {line}")
    return {args.kind: found}


def names(kind: str) -> dict[str, str]:
    """Name -> one line, of ``recipes``, ``cards``, ``formats`` or ``encoders``."""
    if kind == "formats":
        from biossl.io import formats

        return formats()
    if kind == "encoders":
        from biossl.recipe.tables import ENCODERS, resolve

        return {name: (resolve(target).__doc__ or "").strip().splitlines()[0] for name, target in ENCODERS.items()}
    from biossl.resources import resource_root, resources

    folder = _FOLDER[kind]
    return {n.removesuffix(".yaml"): _first_line(resource_root(folder) / n) for n in resources(folder)}


def copy(kind: str, name: str, dest: Path, *, overwrite: bool = False) -> Path:
    """Copy a packaged recipe or card; returns the path written."""
    from biossl.atomic import write_bytes
    from biossl.config import nearest
    from biossl.errors import RequestError
    from biossl.resources import resource_root, resources

    if kind not in _FOLDER:
        raise RequestError(f"--copy: {kind} are no files; copy one of `biossl list recipes` or `biossl list cards`")
    folder = _FOLDER[kind]
    file = f"{name.removeprefix(folder + '/').removesuffix('.yaml')}.yaml"
    if file not in resources(folder):
        known = [n.removesuffix(".yaml") for n in resources(folder)]
        raise RequestError(f"--copy {name}: not one of the packaged {kind}; {nearest(name, known)}")
    target = dest / Path(file).name if dest.is_dir() else dest
    if target.exists() and not overwrite:
        raise RequestError(f"{target}: exists; give another name, or --overwrite")
    write_bytes(target, (resource_root(folder) / file).read_bytes())
    return target


_FOLDER = {"recipes": "recipes", "cards": "data_cards"}


def _first_line(path: Path) -> str:
    """First comment line of a YAML file, or its ``title``."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
        if line.startswith("title:"):
            return line.removeprefix("title:").strip().strip("'\"")
    return ""
