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
    parser.add_argument(
        "--label", type=str, default=None, help="a label the corpus must have; of a corpus, its classes are counted"
    )
    parser.add_argument(
        "--splits", type=str, default=None,
        help="the split whose part 'train' would be used, NAME:2 is a fold of it (default: official, or the only one)",
    )  # fmt: skip


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
        from biossl.corpus.labels import is_dense

        corpus = Corpus.open(args.thing if kind == "corpus" else args.corpus)
    if args.label is not None:
        if corpus is None:
            raise RequestError(f"--label {args.label}: needs a corpus; give it after {args.thing}")
        if not is_dense(corpus, args.label):
            corpus.labels(args.label)  # raises, naming the nearest
    if args.splits is not None:
        if corpus is None:
            raise RequestError(f"--splits {args.splits}: needs a corpus; give it after {args.thing}")
        corpus.split(args.splits)
    result = {"recipe": _recipe, "card": _card, "corpus": _corpus, "encoder": _encoder}[kind](args, corpus)
    say(f"{kind} {args.thing}: {'not finished' if result.get('unfinished') else 'good'}")
    for key, value in result.items():
        if key == "notes":
            for note in value:
                say(f"  note: {note}")
        elif key == "label":
            for line in label_lines(value):
                say(f"  {line}".rstrip())
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
    from biossl.corpus.splits import default_split
    from biossl.recipe import load_recipe
    from biossl.recipe.check import check_pair, check_recipe, pick_channels
    from biossl.recipe.limits import remarks

    recipe = load_recipe(args.thing, args.overrides)
    if corpus is None:
        return {**check_recipe(recipe), "notes": remarks(recipe)}
    findings = check_pair(recipe, corpus, split=args.splits, label=args.label)
    for finding in findings:
        if finding.kind != "note":
            raise finding.error()
    summary = check_recipe(recipe, pick_channels(corpus.spec, recipe.data.channels, where=corpus.path.name))
    split = args.splits if args.splits is not None else default_split(corpus)[0]
    training = len(corpus) if split is None else int((corpus.split(split) == "train").sum())
    return {
        **summary, "windows": len(corpus), "split": split or "none", "training_windows": training,
        "notes": [f.text for f in findings],
    }  # fmt: skip


def _card(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.corpus.card import load_card
    from biossl.corpus.card_check import CHECK, unfinished

    card = load_card(args.thing)
    draft = unfinished(args.thing)
    open_licence = card.licence.startswith(CHECK)
    return {
        "name": card.name, "modality": card.modality,
        "licence": f"not filled in ({card.licence})" if open_licence else card.licence, "public": card.public,
        "views": sorted(card.views), "labels": sorted(card.labels), "splits": sorted(card.splits),
        "unfinished": bool(draft), "notes": [draft] if draft else [],
    }  # fmt: skip


def _corpus(args: Any, corpus: Any) -> dict[str, Any]:
    from biossl.corpus import guard_split
    from biossl.corpus.within import WARNING, is_within_subject

    corpus.verify()
    within = []
    for name in corpus.split_names():
        guard_split([corpus], name)
        within += [f"split '{name}' is {WARNING}"] if is_within_subject(corpus, name) else []
    spec = corpus.spec
    out: dict[str, Any] = {
        "card": corpus.card.name, "view": corpus.view, "windows": len(corpus), "subjects": int(corpus.index["subject"].nunique()),
        "sfreq": spec.sfreq, "window_s": spec.window_s, "channels": list(spec.ch_names), "labels": corpus.label_names(),
        "splits": corpus.split_names(), "hash": corpus.hash, "notes": [*corpus.findings, *within],
    }  # fmt: skip
    for file in sorted(corpus.path.glob("labels/*.parquet")):
        corpus.labels(file.stem)  # raises where what was added is damaged
    if args.label is not None:
        out["label"], notes = _label(corpus, args.label, args.splits)
        out["notes"] += notes
    return out


def _label(corpus: Any, name: str, split: str | None) -> tuple[dict[str, Any], list[str]]:
    """Counts of a label over the whole corpus and over each part of the split, and what is to be said of them."""
    from biossl.corpus.labels import is_dense
    from biossl.corpus.splits import chosen_split
    from biossl.corpus.tally import tally
    from biossl.errors import RequestError

    count: Any = tally
    if is_dense(corpus, name):
        from biossl.downstream.dense import dense_tally, make_dense

        labels, count = make_dense(corpus, name), dense_tally
    else:
        labels = corpus.labels(name)
    try:
        split, notes = chosen_split(corpus, split)
    except RequestError as error:  # a corpus with several splits is a good one
        notes = [str(error)]
    counts = {"all": count(corpus, labels)}
    if split is not None:
        parts = corpus.split(split).to_numpy().astype(str)
        there = [p for p in ("train", "val", "test") if (parts == p).any()]
        counts |= {p: count(corpus, labels, parts == p) for p in [*there, *sorted({*parts} - {*there, ""})]}
    present = [c["class"] for c in counts["all"][:-1] if c["windows"]]
    if len(labels.classes) > 1 and len(present) == 1:
        notes.append(f"label '{name}': only class {present[0]} occurs; nothing can be learned from it")
    if not labels.known.any():
        notes.append(f"label '{name}' is unknown for every window; check the label's source")
    return {"name": name, "kind": labels.kind, "split": split, "counts": counts}, notes


def label_lines(label: dict[str, Any]) -> list[str]:
    """Counts of a label as an aligned table: one row a part and class."""
    from biossl.probe_text import table

    more = [k for k in ("negative", "seconds", "low", "median", "high") if k in label["counts"]["all"][0]]
    columns = ["class", "windows", "records", "subjects", *more]
    rows = [["part", *columns]]
    for part, entries in label["counts"].items():
        for entry in entries:
            cells = [entry.get(c, "") for c in columns]
            rows.append([part, *(c if isinstance(c, str) else f"{c:,}" if isinstance(c, int) else f"{c:.6g}" for c in cells)])
    head = f"label {label['name']} ({label['kind']})"
    return [f"{head}, parts of split {label['split']}:" if label["split"] else f"{head}:", *(f"  {line}" for line in table(rows))]


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
        import numpy as np

        from biossl.corpus import seen

        groups = {args.corpus: np.ones(len(corpus), bool)}
        if args.splits is not None:
            parts = corpus.split(args.splits).to_numpy().astype(str)
            groups |= {f"part {p} of split {args.splits}": parts == p for p in sorted({*parts} - {""})}
        subjects_of = corpus.index["subject"].to_numpy()
        out["notes"] = [
            f"the encoder has seen {seen(corpus, np.flatnonzero(some), subjects, split=args.splits)} of the {len(set(subjects_of[some]))} subjects of {name}"
            for name, some in groups.items()
        ]
    return out


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
