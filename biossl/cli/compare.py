"""``biossl compare``: same backbone, data, budget and seeds; one table with paired intervals."""

from __future__ import annotations

from typing import Any

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl compare imu/jepa_small my_recipe.yaml corpora/hapt --label activity6 --steps 2000 --seeds 0 1 2 --out compared"
OVERRIDES = True


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument(
        "recipes", nargs="+", help="recipes (files or names), then the corpus folder; --mask.ratio 0.6 is for all"
    )
    parser.add_argument("--label", required=True, help="label to judge by (`biossl check CORPUS` names them)")
    parser.add_argument("--splits", default=None, help="split; default: official, or the only one; all folds of one with folds")
    parser.add_argument("--folds", type=int, default=None, help="grouped folds over the subjects, each pretrained anew")
    parser.add_argument("--within", default=None, help="with --folds: only this part of the split (train: no test row is opened)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of every model")
    parser.add_argument("--steps", type=int, default=None, help="budget of one pretraining in steps; default: the recipes' own")
    parser.add_argument("--flops", type=float, default=None, help="budget in floating-point operations, e.g. 1e15")
    parser.add_argument("--seconds", type=float, default=None, help="budget in seconds (what it buys depends on the machine)")
    parser.add_argument(
        "--fractions", type=float, nargs="+", default=None, help="shares of labelled windows (default: 0.01 0.1 1)"
    )
    parser.add_argument("--n-subjects", type=int, nargs="+", default=None, help="numbers of labelled subjects (default: 1 2 5)")
    parser.add_argument("--draws", type=int, default=20, help="draws of scarce labels, shared out over the seeds")
    parser.add_argument("--pool", default="mean+std+max", help="mean, std, max, or several joined by +")
    parser.add_argument("--identity", nargs="+", default=["subject"], help="subject, and covariates such as site or device")
    parser.add_argument("--corrupt", nargs="+", default=[], help="also judge under lead_off, burst or gap")
    parser.add_argument("--model-from", default=None, help="take the backbone of this recipe for all")
    parser.add_argument(
        "--pretrain-on", nargs="+", action="append", default=[], metavar="CORPUS[=WEIGHT]",
        help="pretrain on these corpora (training subjects only) instead of the judged one; given several times, each is compared",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="jobs side by side; each gets its share of the cores")
    parser.add_argument("--out", default=None, help="folder (default: compared/CORPUS-LABEL)")
    parser.add_argument("--overwrite", action="store_true", help="replace the table of another comparison in the folder")


def run(args: Any) -> dict[str, Any]:
    """Compare, write the page, print the table."""
    from pathlib import Path

    if len(args.recipes) < 2:
        raise RequestError(f"{args.recipes[0]}: give one or more recipes and, last, the corpus folder")
    *names, corpus = args.recipes
    out = Path(args.out) if args.out else Path("compared") / f"{Path(corpus).resolve().name}-{args.label}"

    from biossl.cli.pretrain import parse_corpus
    from biossl.compare import compare
    from biossl.corpus import Corpus
    from biossl.recipe import load_recipe
    from biossl.report import comparison

    if not Path(corpus).is_dir() and _is_recipe(corpus):
        raise RequestError(f"{corpus}: a recipe, and the last name is the corpus folder; add it")
    result = compare(
        [load_recipe(name, args.overrides) for name in names], corpus, args.label, out=out, split=args.splits, folds=args.folds,
        within=args.within, seeds=args.seeds, steps=args.steps, flops=args.flops, seconds=args.seconds, fractions=args.fractions,
        n_subjects=args.n_subjects, draws=args.draws, pool=args.pool, identity=args.identity, corrupt=args.corrupt,
        model_from=load_recipe(args.model_from, args.overrides) if args.model_from else None,
        pretrain_on=[[(Corpus.open(path), weight) for path, weight in map(parse_corpus, some)] for some in args.pretrain_on],
        n_jobs=args.jobs, overwrite=args.overwrite,
    )  # fmt: skip
    comparison.write(result, out)
    say(comparison.as_text(result))
    return result


def _is_recipe(text: str) -> bool:
    from biossl.errors import BiosslError
    from biossl.recipe import load_recipe

    try:
        load_recipe(text)
    except BiosslError:
        return False
    return True
