"""``biossl inspect``: say what a file or folder holds, with findings; draw one recording."""

from __future__ import annotations

from typing import Any

EXAMPLE = "biossl inspect recordings/100.hea --plot 100.png"


def arguments(parser: Any) -> None:
    """Arguments of the verb."""
    parser.add_argument("path", help="a recording (any of its files), or a folder of recordings")
    parser.add_argument("--plot", default=None, metavar="PNG", help="draw the first readable recording into this picture")
    parser.add_argument("--start", type=float, default=0.0, help="seconds into the recording at which the picture begins")
    parser.add_argument("--card", default=None, help="data card (name or file) that states units and names the files do not")
    parser.add_argument("--overwrite", action="store_true", help="replace the picture when it exists")


def run(args: Any) -> dict[str, Any]:
    """Print one paragraph a file; a file that cannot be read is a line with its code."""
    from pathlib import Path

    from biossl.cli import say
    from biossl.errors import RecordError, RequestError
    from biossl.progress import track
    from biossl.report.inspect import contents, inspect_item, load, paragraph, place

    path = Path(args.path)
    plot = Path(args.plot) if args.plot else None
    if plot is not None and plot.exists() and not args.overwrite:
        raise RequestError(f"{plot}: exists; give another name, or --overwrite")
    if plot is not None and plot.is_dir():
        raise RequestError(f"{plot}: a folder; give the name of a .png file")
    if not path.exists() and not Path(f"{path}.hea").exists():
        raise RequestError(f"{path}: no such file or folder; check the path")
    card = None
    if args.card:
        from biossl.corpus.card import load_card

        card = load_card(args.card)
    items, others = contents(path, card) if path.is_dir() else ((path,), 0)
    if not items:
        raise RequestError(f"{path}: no recording in this folder ({others} other files); for tables name a --card")
    good: list[dict[str, Any]] = []
    bad: list[dict[str, str]] = []
    shown = None
    for item in track(items, len(items), "inspect", "files") if len(items) > 1 else items:
        try:
            good.append(inspect_item(item, card))
        except RecordError as error:
            if not path.is_dir():
                raise
            bad.append({"path": place(item), "code": error.code, "message": str(error)})
            say(f"! {error.code}: {error}")
            continue
        say(paragraph(good[-1]))
        shown = shown if shown is not None else item
    if path.is_dir():
        say(f"{len(good)} files read, {len(bad)} not readable, {others} other files")
    if plot is None or shown is None:
        return {"files": good, "bad": bad, "other_files": others, "plot": None}
    from biossl.atomic import atomic_file
    from biossl.report.traces import draw

    recordings = load(shown, card)
    drawn = next((r for r in recordings if {"ecg", "eeg", "acc"} & set(r.ch_types)), recordings[0])
    with atomic_file(plot) as part:
        draw(drawn, args.start).savefig(part, format="png")
    say(f"{plot} shows {drawn.record}")
    return {"files": good, "bad": bad, "other_files": others, "plot": str(plot)}
