"""``biossl report``: one HTML page of a run, or the packet for an ethics board."""

from __future__ import annotations

from typing import Any

from biossl.cli import say

EXAMPLE = "biossl report runs/ecg"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("run", help="run folder of `biossl pretrain` or `biossl finetune`")
    parser.add_argument("--out", default=None, help="HTML file; default: RUN/report.html")
    parser.add_argument("--label", default=None, help="colours the map of embeddings; default: the first probed label")
    parser.add_argument(
        "--ethics", default=None, help="HTML file: write the packet for an ethics board on a fine-tuned model instead of the page"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: Any) -> dict[str, Any]:
    """Write the page or the packet, name what was written."""
    from biossl.errors import RequestError
    from biossl.report import write_ethics, write_report

    if args.ethics is not None:
        if args.out is not None or args.label is not None:
            raise RequestError("--out and --label are of the page; --ethics FILE writes the packet alone")
        packet = write_ethics(args.run, args.ethics, overwrite=args.overwrite)
        for line in packet["notes"]:
            say(f"note: {line}")
        say(f"packet for an ethics board: {packet['out']} ({packet['to_fill']} places are for the authors to fill)")
        return packet
    result = write_report(args.run, args.out, label=args.label, overwrite=args.overwrite)
    for line in result["notes"]:
        say(f"note: {line}")
    say(f"report: {result['out']}")
    if result["markdown"]:
        say(f"after TRIPOD+AI: {result['markdown']}")
    return result
