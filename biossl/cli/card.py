"""``biossl card new``: draft a data card for a folder of recordings."""

from __future__ import annotations

from typing import Any, Literal

from biossl.cli import say

EXAMPLE = "biossl card new recordings/2024 --out cards/site_a.yaml"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("action", type=Literal["new"], help="what to do: new")
    parser.add_argument("folder", type=str, help="a folder of recordings, or a zip of tables")
    parser.add_argument("--out", type=str, default=None, help="file to write; default: the card is printed")
    parser.add_argument("--sfreq", type=float, default=None, help="Hz, for tables without a time column")
    parser.add_argument("--overwrite", action="store_true", help="replace the file when it exists")


def run(args: Any) -> dict[str, Any]:
    """Draft, write or print, and say what is left to a person."""
    from pathlib import Path

    from biossl.corpus.draft import draft_card
    from biossl.errors import RequestError

    out = Path(args.out) if args.out else None
    if out is not None and out.exists() and not args.overwrite:
        raise RequestError(f"{out}: exists; give another name, or --overwrite")
    text, facts = draft_card(args.folder, sfreq=args.sfreq, name=out.stem if out else None)
    if out is None:
        say(text.rstrip())
    else:
        from biossl.atomic import write_text

        write_text(out, text)
        count = ", ".join(f"{n} {kind}" for kind, n in facts["formats"].items())
        say(f"{out}: {facts['files']} files ({count}), {facts['modality']}, {len(facts['channels'])} channels")
    if facts["read"] < facts["files"]:
        say(f"{facts['read']} of {facts['files']} files were opened; `biossl inspect {args.folder}` looks at all")
    for line in facts["unreadable"]:
        say(f"! {line}")
    for line in facts["left_out"]:
        say(f"! left out {line}")
    for channel, n in facts["not_common"].items():
        say(f"! channel {channel} is in {n} of the {facts['read']} files read, so the view leaves it out")
    for line in facts["to_do"]:
        say(f"to do: {line}")
    return {"out": None if out is None else str(out), "card": text, **facts}
