"""``biossl predict``: a locked model's decisions for a corpus or recordings."""

from __future__ import annotations

import sys
from typing import Any

from biossl.cli import say

EXAMPLE = "biossl predict runs/hapt-6 corpora/hapt predictions.parquet"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("run", help="run or model folder of `biossl finetune`")
    parser.add_argument("source", nargs="+", help="corpus folder, or recording files; then the .parquet file to write")
    parser.add_argument("--adapt", action="store_true", help="accept other channels (a subset) or filters than the model's")
    parser.add_argument("--card", default=None, help="of recording files: data card that says how they are read")
    parser.add_argument("--keep-names", action="store_true", help="of recording files: write their names instead of file-0001")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")


def run(args: Any) -> dict[str, Any]:
    """Predict, say what was decided."""
    from biossl.downstream.predictions import predict
    from biossl.errors import RequestError

    *source, out = args.source
    if not source:
        raise RequestError("give what to predict, then the .parquet file to write")
    result = predict(
        args.run, source[0] if len(source) == 1 else source, out, adapt=args.adapt, card=args.card, keep_names=args.keep_names,
        overwrite=args.overwrite, tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    said = ", ".join(f"{name} {n:,}" for name, n in result["decisions"].items())
    say(f"{result['rows']:,} {'events' if result['kind'] == 'dense' else 'windows'}{f': {said}' if said else ''}")
    if result["abstain"]:
        say(f"no decision on {result['abstain']:,} of them: unlike the training windows, or nothing observed")
    for line in result["notes"]:
        say(f"note: {line}")
    say(f"written: {result['out']}")
    return result
