"""``biossl evaluate``: judge a locked model; nothing is fitted again."""

from __future__ import annotations

from typing import Any

from biossl.cli import say

EXAMPLE = "biossl evaluate runs/hapt-6 corpora/hapt"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("run", help="run or model folder of `biossl finetune`, or a folder of folds or seeds")
    parser.add_argument("corpus", help="corpus folder: the model's own, or another site's")
    parser.add_argument("--label", default=None, help="label to judge by; default: the model's own")
    parser.add_argument("--event", default=None, help="of a survival model: binary label of the event; default: the model's own")
    parser.add_argument("--splits", default=None, help="split; default: official, or the only one; NAME:2 is a fold of it")
    parser.add_argument("--part", default="test", help="part that is judged; all = every row")
    parser.add_argument("--per", default="window", help="what is judged: window, recording or subject (the mean of its windows)")
    parser.add_argument(
        "--by", nargs="+", default=[], help="columns of the index whose groups are scored apart, e.g. sex age device"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="RUN",
        help="another locked model of the label, on the same rows; repeatable",
    )
    parser.add_argument("--stress", action="store_true", help="judge again with channels lost, lower rates and noise")
    parser.add_argument("--no-baselines", action="store_true", help="leave out the simple models")
    parser.add_argument("--allow-seen", action="store_true", help="go on when model or encoder have seen judged subjects")
    parser.add_argument("--adapt", action="store_true", help="accept a corpus with other channels or filters than the model's")
    parser.add_argument("--seed", type=int, default=0, help="of resamples and simple models")
    parser.add_argument("--out", default=None, help="folder; default: RUN/evaluations/CORPUS-LABEL-SPLIT-PART")
    parser.add_argument("--overwrite", action="store_true", help="replace the evaluation of the folder")


def run(args: Any) -> dict[str, Any]:
    """Judge, print the tables."""
    from biossl.downstream.evaluate import evaluate
    from biossl.downstream.evaluate_text import as_text
    from biossl.downstream.folds_text import as_text as folds_as_text

    result = evaluate(
        args.run, args.corpus, label=args.label, event=args.event, split=args.splits, part=args.part, per=args.per, by=args.by,
        beside=args.beside, stress=args.stress, baselines=not args.no_baselines, allow_seen=args.allow_seen, adapt=args.adapt,
        seed=args.seed, out=args.out, overwrite=args.overwrite,
    )  # fmt: skip
    say(folds_as_text(result) if "seeds" in result else as_text(result))
    return result
