"""``biossl label``: join a CSV of labels to a corpus."""

from __future__ import annotations

from typing import Any, Literal

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl label corpora/site outcomes.csv --key subject --name low_ef --nearest echo_date --within 30d"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("corpus", type=str, help="a corpus folder")
    parser.add_argument("csv", type=str, help="a table with a column 'record' or 'subject' and the label's column")
    parser.add_argument(
        "--key", type=Literal["record", "subject", "window"], required=True,
        help="which id the table holds (ids are text); window: record and start_s, to correct single windows of --base",
    )  # fmt: skip
    parser.add_argument("--name", type=str, required=True, help="name of the label, and of its column unless there is only one")
    parser.add_argument("--base", type=str, default=None, help="with --key window: the label that the new one starts from")
    parser.add_argument("--nearest", type=str, default=None, help="date column: the row nearest to the recording's day counts")
    parser.add_argument("--within", type=str, default=None, help="largest distance for --nearest, e.g. 30d")
    parser.add_argument(
        "--kind", type=Literal["binary", "multiclass", "multilabel", "regression"], default=None, help="default: from the values"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an added label of this name")


def run(args: Any) -> dict[str, Any]:
    """Join, and say what matched."""
    from biossl.corpus import Corpus, add_labels

    if (args.key == "window") != (args.base is not None):
        raise RequestError("--key window and --base LABEL go together: single windows of that label are corrected")
    if args.key == "window":
        return _correct(args)
    report = add_labels(
        Corpus.open(args.corpus), args.csv, key=args.key, name=args.name, nearest=args.nearest, within=args.within,
        kind=args.kind, overwrite=args.overwrite,
    )  # fmt: skip
    say(
        f"{report['matched']:,} of {report['ids']:,} {args.key} ids matched ({report['unmatched']:,} not in the corpus, "
        f"{report[f'{args.key}s_without']:,} {args.key}s without a label); {report['windows']:,} windows labelled"
    )
    if args.nearest:
        say(
            f"{report['records_labelled']:,} records labelled; unknown: {report['records_too_far']:,} had no row near enough, "
            f"{report['records_tied']:,} had two different values equally near, {report['records_undated']:,} have no date"
        )
    say(
        f"label '{args.name}', {report['kind']}, windows: "
        + (", ".join(f"{c}: {n:,}" for c, n in report["counts"].items()) or "numbers")
    )
    return report


def _correct(args: Any) -> dict[str, Any]:
    """Correct single windows, and say what changed."""
    from biossl.corpus import Corpus, correct_labels

    if args.nearest or args.within or args.kind:
        raise RequestError(
            "--key window: the kind is that of --base, and there are no dates; leave out --nearest, --within and --kind"
        )
    report = correct_labels(Corpus.open(args.corpus), args.csv, name=args.name, base=args.base, overwrite=args.overwrite)
    say(
        f"{report['filled']:,} rows filled: {report['changed']:,} windows changed, {report['kept']:,} kept, "
        f"{report['made_unknown']:,} made unknown, {report['unmatched']:,} rows match no window"
    )
    say(
        f"label '{args.name}' (from '{args.base}'), {report['kind']}, windows: "
        + (", ".join(f"{c}: {n:,}" for c, n in report["counts"].items()) or "numbers")
    )
    return report
