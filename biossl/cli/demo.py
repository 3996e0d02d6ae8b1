"""``biossl demo``: simulated patients, end to end."""

from __future__ import annotations

from typing import Any

EXAMPLE = "biossl demo --out runs/demo"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("--out", type=str, default="runs/demo", help="folder to make")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated patients")
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo in that folder")


def run(args: Any) -> dict[str, Any]:
    """Run every step and print the probe's table."""
    from biossl.cli import say
    from biossl.demo import demo
    from biossl.probe_text import as_text

    done = demo(args.out, seed=args.seed, overwrite=args.overwrite)
    say(as_text(done["probe"]))
    say(f"embeddings: {done['embeddings']}")
    say(f"report: {done['report']}  ({done['seconds']:.0f} s in all)")
    return done
