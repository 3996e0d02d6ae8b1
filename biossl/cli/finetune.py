"""``biossl finetune``: train an encoder and a head with labels, and lock the model."""

from __future__ import annotations

from typing import Any

from biossl.cli import say

EXAMPLE = "biossl finetune runs/hapt corpora/hapt --label activity6 --out runs/hapt-6"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("encoder", help="encoder folder, or a run that holds one")
    parser.add_argument("corpus", help="corpus folder")
    parser.add_argument("--label", required=True, help="label to learn (`biossl check CORPUS` names them)")
    parser.add_argument(
        "--mode", default="auto", help="auto, frozen, lowrank or full; auto decides by how much is labelled and says why"
    )
    parser.add_argument(
        "--head",
        default=None,
        help="linear (default), attention or mlp on a window; sequence or pooling over the windows of a recording; of samples: dense or unet",
    )
    parser.add_argument(
        "--kind", default=None, help="ordinal, for classes that are in order; dense, for intervals; default: what the label is"
    )
    parser.add_argument("--event", default=None, help="binary label of the event, where --label is the time to it (survival)")
    parser.add_argument(
        "--splits", default=None, help="split whose part train is learnt from; default: official, or the only one"
    )
    parser.add_argument("--fold", default=None, help="all: one training for each fold of the split; one fold is --splits NAME:2")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="one training for each of these seeds, e.g. 0 1 2 3 4")
    parser.add_argument(
        "--labels-fraction", type=float, default=None, help="learn from this share of the labelled training windows"
    )
    parser.add_argument("--n-subjects", type=int, default=None, help="learn from this many labelled training subjects")
    parser.add_argument("--class-weight", default="none", help="none, sqrt or balanced")
    parser.add_argument("--augment", default="", help="policy of augmentations by name, e.g. imu_weak")
    parser.add_argument(
        "--self-training", action="store_true", help="fit again with the model's own sure answers on unlabelled windows"
    )
    parser.add_argument("--steps", type=int, default=None, help="default: 20 passes, at least 200 and at most 3,000")
    parser.add_argument("--batch-size", type=int, default=64, help="windows of a step")
    parser.add_argument("--lr", type=float, default=None, help="learning rate; default by mode")
    parser.add_argument(
        "--rank",
        type=int,
        default=None,
        help="of the adapters of mode lowrank (default: 16; matrices that matter less have half)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the head, the order of windows and draws of scarce labels")
    parser.add_argument("--adapt", action="store_true", help="accept a corpus with other channels or filters than the encoder's")
    parser.add_argument("--scratch", action="store_true", help="train the encoder's architecture from random weights instead")
    parser.add_argument("--out", default=None, help="run folder; default: runs/CORPUS-LABEL")
    parser.add_argument("--overwrite", action="store_true", help="replace the model of the folder")


def run(args: Any) -> dict[str, Any]:
    """Train, say what was chosen and where the model is."""
    from biossl.corpus import Corpus
    from biossl.downstream.finetune import finetune, scarce_rows
    from biossl.downstream.model import load_model

    corpus = Corpus.open(args.corpus)
    where = args.out or f"runs/{corpus.path.resolve().name}-{args.label}"
    settings: dict[str, Any] = {
        "mode": args.mode, "head": args.head, "kind": args.kind, "event": args.event, "class_weight": args.class_weight,
        "augment": args.augment, "self_training": args.self_training, "steps": args.steps, "batch_size": args.batch_size, "lr": args.lr,
        "adapt": args.adapt, "scratch": args.scratch, "split": args.splits, "seed": args.seed, "overwrite": args.overwrite,
    }  # fmt: skip
    if args.rank is not None:
        settings["lowrank"] = _adapters(args.rank, args.mode)
    if args.fold is not None or args.seeds is not None:
        return _several(args, corpus, where, settings)
    rows = scarce_rows(
        corpus, args.label, split=args.splits, fraction=args.labels_fraction, n_subjects=args.n_subjects, seed=args.seed
    )
    out = finetune(args.encoder, corpus, args.label, where, rows=rows, **settings)
    about = load_model(out).about
    say(f"model: {out / 'model'} ({about['label']}, {about['kind']}, mode {about['mode']})")
    say(f"judge it: biossl evaluate {out} {args.corpus}")
    return {"run": str(out), "model": str(out / "model")} | {k: about[k] for k in ("label", "kind", "mode", "choices", "inner")}


def _adapters(rank: int, mode: str) -> Any:
    """Settings of the adapters with this rank."""
    from biossl.errors import RequestError
    from biossl.models.lowrank import LowRankConfig

    if mode not in ("auto", "lowrank"):
        raise RequestError(f"--rank {rank}: belongs to --mode lowrank, not {mode}")
    try:
        return LowRankConfig(rank=rank)
    except ValueError as error:
        raise RequestError(f"--rank {rank}: {error}") from None


def _several(args: Any, corpus: Any, where: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One training a fold, a seed or both."""
    from biossl.downstream.foldrun import read_folds
    from biossl.downstream.folds import finetune_folds
    from biossl.errors import RequestError

    if args.fold not in (None, "all"):
        raise RequestError(f"--fold {args.fold}: give all; one fold is --splits NAME:{args.fold}")
    if args.seeds is not None and args.seed:
        raise RequestError(f"--seed {args.seed} and --seeds: give one of them")
    out = finetune_folds(
        args.encoder, corpus, args.label, where, folds=args.fold == "all", seeds=args.seeds, fraction=args.labels_fraction,
        n_subjects=args.n_subjects, **settings,
    )  # fmt: skip
    held = read_folds(out)
    say(f"{len(held.members)} models in {out} ({held.label}, {held.kind}); together they are an estimate")
    say(f"judge them: biossl evaluate {out} {args.corpus}")
    return {"run": str(out), "models": [m.folder for m in held.members], "folds": held.folds, "seeds": held.seeds} | {
        "label": held.label, "kind": held.kind
    }  # fmt: skip
