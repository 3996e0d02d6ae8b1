"""``biossl import``: convert published weights to an encoder folder."""

from __future__ import annotations

from typing import Any

EXAMPLE = "biossl import ecg-jepa multiblock_epoch100.pth encoders/ecg_jepa"


def arguments(parser: Any) -> None:
    """Arguments of the verb."""
    from biossl.importers import KINDS

    parser.add_argument("kind", choices=sorted(KINDS), help="; ".join(f"{k}: {line}" for k, (_, line) in KINDS.items()))
    parser.add_argument("checkpoint", help="the published checkpoint file, on this machine")
    parser.add_argument("out", help="encoder folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")


def run(args: Any) -> dict[str, Any]:
    """Convert and say what was written."""
    import importlib

    from biossl.cli import say
    from biossl.importers import KINDS

    module, _, function = KINDS[args.kind][0].partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(module), function)(
        args.checkpoint, args.out, overwrite=args.overwrite
    )
    say(f"{result['encoder']}: {result['tensors']} tensors match, {result['parameters']:,} parameters")
    say(f"next: biossl embed {result['encoder']} CORPUS features.parquet")
    return result
