"""``biossl split``: make a named split of a corpus, by subject unless recordings are asked for."""

from __future__ import annotations

import sys
from typing import Any, Literal

from biossl.cli import say

EXAMPLE = "biossl split corpora/ptbxl --name cv --by subject --folds 5 --stratify superclass"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("corpus", type=str, help="a corpus folder")
    parser.add_argument("--name", type=str, required=True, help="name of the split")
    parser.add_argument(
        "--by", type=Literal["subject", "time", "site", "recording"], default="subject",
        help="subject: at random; time: by first recording day; site: one fold a site (covariate 'site'); recording: the recordings of "
        "each subject (a within-subject split, which says nothing about new people)",
    )  # fmt: skip
    parser.add_argument(
        "--fractions", type=float, nargs=3, default=[0.7, 0.15, 0.15], help="of subjects (or recordings of each): train val test"
    )
    parser.add_argument("--folds", type=int, default=None, help="cross-validation folds instead of fractions")
    parser.add_argument("--stratify", type=str, default=None, help="label whose classes are spread evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the random order")
    parser.add_argument("--csv", type=str, default=None, help="a split made elsewhere: columns 'part' and 'subject' or 'record'")
    parser.add_argument("--key", type=Literal["record", "subject"], default="subject", help="which id --csv holds")
    parser.add_argument("--overwrite", action="store_true", help="replace a split of this name")


def run(args: Any) -> dict[str, Any]:
    """Make or join the split, and print who went where."""
    from biossl.corpus import Corpus, add_split, make_split

    corpus = Corpus.open(args.corpus)
    if args.csv is not None:
        report = add_split(
            corpus, args.csv, name=args.name, key=args.key, within_subject=args.by == "recording", overwrite=args.overwrite
        )
        say(f"{report['matched']:,} {args.key} ids matched, {report['unmatched']:,} are not in the corpus")
    else:
        report = make_split(
            corpus, args.name, by=args.by, fractions=args.fractions, seed=args.seed, stratify=args.stratify, folds=args.folds,
            overwrite=args.overwrite,
        )  # fmt: skip
    for part, count in report["counts"].items():
        say(
            f"{report['by']} {part:<6} {count['subjects']:>6,} subjects {count['recordings']:>6,} recordings {count['windows']:>9,} windows"
        )
    for note in report["notes"]:
        print(f"note: {note}", file=sys.stderr)
    return report
