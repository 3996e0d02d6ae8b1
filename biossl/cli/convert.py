"""``biossl convert``: recordings to a corpus of windows."""

from __future__ import annotations

from typing import Any

from biossl.cli import say

_SHOWN = 10  # findings printed
EXAMPLE = "biossl convert ptbxl recordings/ptbxl corpora/ptbxl --view resting --partial"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("card", type=str, help="a data card (YAML), or a name from `biossl list cards`")
    parser.add_argument("source", type=str, help="folder or zip with the recordings")
    parser.add_argument("corpus", type=str, help="the corpus folder to make; an unfinished conversion goes on")
    parser.add_argument("--view", type=str, required=True, help="one of the card's views")
    parser.add_argument("--partial", action="store_true", help="allow fewer records or subjects than the card expects")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="make the corpus anew when the folder holds one")


def run(args: Any) -> dict[str, Any]:
    """Convert, and print the way of the cohort from files to windows."""
    from biossl.corpus import convert
    from biossl.corpus.card_check import unfinished

    note = unfinished(args.card)
    if note:  # before hours of work as well as after them
        say(f"note: {note}")
    result = convert(
        args.card, args.source, args.corpus, view=args.view, partial=args.partial, n_jobs=args.jobs, overwrite=args.overwrite
    )
    for line in summary(result):
        say(line)
    if note:
        say(f"note: {note}")
    return {**result, "notes": [note] if note else []}


def summary(result: dict[str, Any]) -> list[str]:
    """The cohort's way, one line a step.

    Examples
    --------
    >>> funnel = {"files_found": 3, "quarantined": {"truncated": 1}, "records_read": 2, "records_with_windows": 2,
    ...           "windows_dropped": {}, "windows": 40, "subjects": 2}
    >>> summary({"funnel": funnel, "findings": [], "path": "c", "window_s": 10.0})[-1]
    'windows                 40  (10 s each, of 2 subjects)'
    """
    funnel, path = result["funnel"], result["path"]
    lines = [f"records found     {funnel['files_found']:>8,}"]
    if funnel["quarantined"]:
        reasons = ", ".join(f"{n:,} {code}" for code, n in funnel["quarantined"].items())
        lines.append(f"quarantined       {sum(funnel['quarantined'].values()):>8,}  ({reasons}; see {path}/quarantine.csv)")
    if result.get("private_paths"):
        lines.append(
            f"which files these keys stand for: {result['private_paths']} (holds file names: it never leaves this place)"
        )
    without = funnel["records_read"] - funnel["records_with_windows"]
    if without:
        lines.append(f"without a window  {without:>8,}")
    lines.append(f"records with windows  {funnel['records_with_windows']:>4,}")
    if funnel["windows_dropped"]:
        reasons = ", ".join(f"{n:,} {why}" for why, n in funnel["windows_dropped"].items())
        lines.append(f"windows left out  {sum(funnel['windows_dropped'].values()):>8,}  ({reasons})")
    lines.append(
        f"windows           {funnel['windows']:>8,}  ({result['window_s']:g} s each, of {funnel['subjects']:,} subjects)"
    )
    shown = result["findings"][:_SHOWN]
    lines += [f"finding: {text}" for text in shown]
    if len(result["findings"]) > len(shown):
        lines.append(f"... and {len(result['findings']) - len(shown)} more findings, in {path}/spec.json")
    return lines
