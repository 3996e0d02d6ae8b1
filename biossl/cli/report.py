"""``biossl report``: one HTML page of a run."""

from __future__ import annotations

from typing import Any

from biossl.cli import say

EXAMPLE = "biossl report runs/ecg"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("run", help="run folder of `biossl pretrain`")
    parser.add_argument("--out", default=None, help="HTML file; default: RUN/report.html")
    parser.add_argument("--label", default=None, help="colours the map of embeddings; default: the first probed label")
    parser.add_argument("--overwrite", action="store_true", help="replace the page")


def run(args: Any) -> dict[str, Any]:
    """Write the page, name it."""
    from biossl.report import write_report

    result = write_report(args.run, args.out, label=args.label, overwrite=args.overwrite)
    for line in result["notes"]:
        say(f"note: {line}")
    say(f"report: {result['out']}")
    return result
