"""``biossl pretrain``: train an encoder without labels."""

from __future__ import annotations

import json
from typing import Any

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl pretrain recipes/ecg/jepa_small.yaml corpora/ptbxl --out runs/first --train.steps 500"
OVERRIDES = True
FORGETTING = "forgetting.json"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("recipe", type=str, help="a YAML file, or a name from `biossl list recipes`")
    parser.add_argument(
        "corpus", type=str, nargs="+", help="a corpus folder; several: CORPUS=weight, the weight being its share of steps"
    )
    parser.add_argument("--init", type=str, default=None, help="begin from the weights of this encoder folder")
    parser.add_argument(
        "--continue",
        dest="continue_from",
        type=str,
        default=None,
        help="go on with this finished run from before its anneal (schedules infinite, constant_cooldown), on these recordings",
    )
    parser.add_argument(
        "--old", type=str, default=None, help="with --continue: corpus of the old task, to see what was forgotten"
    )
    parser.add_argument("--label", type=str, default=None, help="label of --old to judge by")
    parser.add_argument(
        "--splits",
        type=str,
        default=None,
        help="train on part 'train' of this split, NAME:2 is a fold of it (default: official, or the only one)",
    )
    parser.add_argument("--seed", type=int, default=None, help="the recipe's seed, replaced")
    parser.add_argument("--out", type=str, default=None, help="run folder (default: runs/RECIPE-CORPUS)")
    parser.add_argument("--overwrite", action="store_true", help="remove the run that is in the run folder")


def run(args: Any) -> dict[str, Any]:
    """Train, or go on where an unfinished run of the same recipe and corpora stopped."""
    from pathlib import Path

    from biossl.corpus import Corpus
    from biossl.recipe import load_recipe
    from biossl.training import pretrain
    from biossl.training.continuing import already_done, find_past

    overrides = dict(args.overrides)
    if args.seed is not None:
        overrides["seed"] = str(args.seed)
    recipe = load_recipe(args.recipe, overrides)
    old = _old_task(args)
    corpora = [(Corpus.open(path), weight) for path, weight in map(parse_corpus, args.corpus)]
    names = "+".join(corpus.path.resolve().name for corpus, _ in corpora)
    out = Path(args.out) if args.out else Path("runs") / f"{recipe.name}-{names}"
    result = None
    if old is not None and not args.overwrite and not (out / FORGETTING).exists():
        result = already_done(out, find_past(args.continue_from, recipe), recipe)
    result = result or pretrain(
        recipe, corpora, out, init=args.init, continue_from=args.continue_from, split=args.splits, overwrite=args.overwrite
    )
    say(
        f"{result['steps']} steps, loss {result['numbers'].get('loss', float('nan')):.4g}; encoder in {result['encoder']}; "
        f"next: biossl probe {result['run']} CORPUS --label NAME{_splits(corpora, args.splits)}"
    )
    if old is not None:
        from biossl.atomic import write_text
        from biossl.forgetting import as_line, forgetting

        result["forgetting"] = forgetting(args.continue_from, result["run"], old, args.label, seed=recipe.seed)
        write_text(Path(result["run"]) / FORGETTING, json.dumps(result["forgetting"], indent=1, allow_nan=False) + "\n")
        say(as_line(result["forgetting"]))
    return result


def _old_task(args: Any) -> Any:
    """The corpus of the old task, found to be usable before anything is trained; None without one."""
    from biossl.checkpoint import find_encoder, load_encoder, require_match
    from biossl.corpus import Corpus
    from biossl.forgetting import judged_rows

    if (args.old is None) != (args.label is None):
        raise RequestError("--old CORPUS and --label NAME go together: the old task is a label of a corpus")
    if args.old is None:
        return None
    if args.continue_from is None:
        raise RequestError("--old needs --continue RUN, the run whose task may be forgotten")
    corpus = Corpus.open(args.old)
    judged_rows(corpus, args.label)
    require_match(load_encoder(find_encoder(args.continue_from)).spec, corpus.spec)
    return corpus


def _splits(corpora: Any, given: str | None) -> str:
    """`` --splits NAME`` where the probe needs the same split as the training, and its name is not ``official``."""
    from biossl.corpus.splits import default_split

    names = {given or default_split(corpus)[0] for corpus, _ in corpora} - {None, "official"}
    return f" --splits {names.pop()}" if len(names) == 1 else ""


def parse_corpus(text: str) -> tuple[str, float]:
    """Path and weight of ``CORPUS`` or ``CORPUS=weight``.

    Examples
    --------
    >>> parse_corpus("corpora/ptbxl=2.5"), parse_corpus("corpora/ludb")
    (('corpora/ptbxl', 2.5), ('corpora/ludb', 1.0))
    """
    path, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise RequestError(f"{text}: the weight '{weight}' is not a number; write CORPUS=2.5") from None
