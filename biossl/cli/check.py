"""``biossl check``: validate a recipe, card, corpus or encoder, alone or against a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EXAMPLE = "biossl check recipes/ecg/jepa_small.yaml corpora/ptbxl"
OVERRIDES = True


def arguments(parser: Any) -> None:
    """Arguments of the verb."""
    parser.add_argument("thing", type=str, help="recipe, card, corpus folder or encoder folder; told apart by content")
    parser.add_argument("corpus", type=str, nargs="?", default=None, help="a corpus the recipe or encoder is to be used on")
    parser.add_argument("--label", type=str, default=None, help="a label the corpus must have")
    parser.add_argument("--splits", type=str, default=None, help="the split whose part 'train' would be used (default: official)")


def run(args: Any) -> dict[str, Any]:
    """Check; the first fault is the error, everything else is printed."""
    from biossl.cli import say
    from biossl.errors import RequestError

    kind = kind_of(args.thing)
    if args.overrides and kind != "recipe":
        raise RequestError(f"--{next(iter(args.overrides))}: only a recipe has keys to set; {args.thing} is a {kind}")
    corpus = None
    if args.corpus is not None or kind == "corpus":
        from biossl.corpus import Corpus

        corpus = Corpus.open(args.thing if kind == "corpus" else args.corpus)
    if args.label is not None:
        if corpus is None:
            raise RequestError(f"--label {args.label}: needs a corpus; give it after {args.thing}")
        corpus.labels(args.label)  # raises, naming the nearest
    result = {"recipe": _recipe, "card": _card, "corpus": _corpus, "encoder": _encoder}[kind](args, corpus)
    say(f"{kind} {args.thing}: good")
    for key, value in result.items():
        if key == "notes":
            for note in value:
                say(f"  note: {note}")
        else:
            say(f"  {key}: {_shown(value)}")
    return {"kind": kind, "thing": args.thing, **result}


def kind_of(thing: str) -> str:
    """``recipe``, ``card``, ``corpus`` or ``encoder``, by what the file or folder holds, or by a packaged name."""
    from biossl.config import load_yaml
    from biossl.errors import RequestError
    from biossl.resources import resources

    path = Path(thing)
    if path.is_file():
        keys = set(load_yaml(path))
        if {"objective", "train"} & keys:
            return "recipe"
        if {"views", "files"} & keys:
            return "card"
        raise RequestError(f"{path}: neither a recipe (objective, train) nor a card (views, files); check the file")
    if (path / "spec.json").is_file() or (path / "plan.json").is_file():
        return "corpus"
    if any((path / p).is_file() for p in ("encoder.yaml", "encoder/encoder.yaml", "checkpoints/latest")):
        return "encoder"
    name = path.as_posix().removeprefix("./").removesuffix(".yaml")
    if f"{name.removeprefix('data_cards/')}.yaml" in resources("data_cards"):
        return "card"
    if path.is_dir() and f"{name.removeprefix('recipes/')}.yaml" not in resources("recipes"):
        raise RequestError(f"{path}: neither a corpus (spec.json) nor an encoder folder (encoder.yaml); check the path")
    return "recipe"  # find_recipe says what is wrong when it is none


def _recipe(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.recipe import load_recipe
    from biossl.recipe.check import check_pair, check_recipe, pick_channels

    recipe = load_recipe(args.thing, args.overrides)
    if corpus is None:
        return check_recipe(recipe)
    findings = check_pair(recipe, corpus, split=args.splits)
    for finding in findings:
        if finding.kind != "note":
            raise finding.error()
    summary = check_recipe(recipe, pick_channels(corpus.spec, recipe.data.channels, where=corpus.path.name))
    return {**summary, "windows": len(corpus), "notes": [f.text for f in findings]}


def _card(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.corpus.card import load_card

    card = load_card(args.thing)
    return {
        "name": card.name, "modality": card.modality, "licence": card.licence, "public": card.public,
        "views": sorted(card.views), "labels": sorted(card.labels), "splits": sorted(card.splits),
    }  # fmt: skip


def _corpus(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.corpus import guard_split

    corpus.verify()
    for name in corpus.split_names():
        guard_split([corpus], name)
    spec = corpus.spec
    return {
        "card": corpus.card.name, "view": corpus.view, "windows": len(corpus), "subjects": int(corpus.index["subject"].nunique()),
        "sfreq": spec.sfreq, "window_s": spec.window_s, "channels": list(spec.ch_names), "labels": corpus.label_names(),
        "splits": corpus.split_names(), "hash": corpus.hash, "notes": corpus.findings,
    }  # fmt: skip


def _encoder(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.checkpoint import load_encoder

    encoder = load_encoder(args.thing, spec=None if corpus is None else corpus.spec)
    subjects = encoder.info["seen"].get("subjects", [])
    out: dict[str, Any] = {
        "parameters": sum(p.numel() for p in encoder.parameters()), "dim": encoder.dim, "grid": list(encoder.grid),
        "sfreq": encoder.spec.sfreq, "window_s": encoder.spec.window_s, "channels": list(encoder.spec.ch_names),
        "subjects_seen": sum(s.startswith("s:") for s in subjects), "hash": encoder.info["hash"],
    }  # fmt: skip
    if corpus is not None:
        from biossl.corpus import seen

        n = seen(corpus, range(len(corpus)), subjects)
        total = int(corpus.index["subject"].nunique())
        out["notes"] = [f"the encoder has seen {n} of the {total} subjects of {args.corpus}"]
    return out


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
