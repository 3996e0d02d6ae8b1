"""``biossl embed``: write a table of embeddings."""

from __future__ import annotations

from typing import Any

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl embed runs/ecg corpora/ptbxl embeddings.parquet --per recording"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("encoder", help="encoder folder, or a run that holds one")
    parser.add_argument("paths", nargs="+", help="a corpus folder, or recording files; then the table to write (OUT.parquet)")
    parser.add_argument("--per", default="window", help="one row per window, recording or subject")
    parser.add_argument("--pool", default="mean", help="mean, std, max, or several joined by +")
    parser.add_argument("--wide", action="store_true", help="one column a feature (e0000 ...) instead of one list column")
    parser.add_argument(
        "--adapt", action="store_true", help="accept other channels (or, of a corpus, filters) than the encoder's"
    )
    parser.add_argument("--card", default=None, help="for files: the card that says how they are read (needed for tables)")
    parser.add_argument("--keep-names", action="store_true", help="for files: write their names, not file-0001, into the table")
    parser.add_argument("--overwrite", action="store_true", help="replace the table")


def run(args: Any) -> dict[str, Any]:
    """Write the table, say what is in it."""
    *sources, out = args.paths
    if not sources:
        raise RequestError(f"{out}: one path given; name a corpus or files, then the table to write: `{EXAMPLE}`")
    if not out.endswith(".parquet"):
        raise RequestError(f"{out}: the last path is the table to write and ends in .parquet")
    from biossl.embeddings import embed_to_parquet

    result = embed_to_parquet(
        args.encoder, sources, out, per=args.per, wide=args.wide, pool=args.pool, adapt=args.adapt, card=args.card,
        keep_names=args.keep_names, overwrite=args.overwrite, tell=say,
    )  # fmt: skip
    for line in result["notes"]:
        say(line)
    say(f"{result['rows']:,} rows (one a {result['per']}) of {result['dim']} features in {out}")
    return result
