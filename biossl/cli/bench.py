"""``biossl bench``: what the toolkit costs on this machine, beside what the machine can do."""

from __future__ import annotations

from typing import Any, Literal

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl bench train --recipe ecg/jepa --batch 8 --steps 5 --precision bf16 --json"
OVERRIDES = True
RECIPE = "ecg/jepa"
BATCH = {"train": 8, "embed": 16, "load": 64, "convert": 16, "augment": 64, "masks": 64, "ceiling": 8}
_NOT = {"recipe": ("augment",), "precision": tuple(kind for kind in BATCH if kind != "train")}  # options of some kinds only


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument(
        "kind", type=Literal["train", "embed", "load", "convert", "augment", "masks", "ceiling", "compare"],
        help="train: a step of pretraining; embed: windows to features; load: a corpus to batches; convert: recordings to a corpus; "
        "augment, masks: each of them alone; ceiling: what the machine can do; compare: ratios of results",
    )  # fmt: skip
    parser.add_argument("files", nargs="*", help="compare: A.json B.json, files of results (or folders of them)")
    parser.add_argument(
        "--recipe", default=None, help=f"whose model, mask and window are used (default: {RECIPE}); --model.dim 96 changes it"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=None,
        help="windows at once, recordings of convert (default: train, ceiling 8, embed, convert 16, others 64)",
    )
    parser.add_argument("--steps", type=int, default=5, help="timed repetitions")
    parser.add_argument("--warmup", type=int, default=1, help="repetitions before them that do not count")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=None, help="train: fp32 (default) or bf16")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch on the CPU (default: its own choice)")


def run(args: Any) -> dict[str, Any]:
    """Measure, say the numbers."""
    if args.kind == "compare":
        return _compare(args)
    for name, kinds in _NOT.items():
        if getattr(args, name) is not None and args.kind in kinds:
            raise RequestError(f"--{name} says nothing about {args.kind}; leave it out")
    if args.files:
        raise RequestError(f"{args.files[0]}: files belong to `biossl bench compare`, not to {args.kind}")
    if args.overrides and args.kind == "augment":
        raise RequestError(f"--{next(iter(args.overrides))}: augment takes no recipe; leave it out")
    from biossl.bench.frame import as_text, at_least

    batch = BATCH[args.kind] if args.batch is None else args.batch
    for name, value, least in (("batch", batch, 1), ("steps", args.steps, 1), ("warmup", args.warmup, 0)):
        at_least(name, value, least)
    if args.threads is not None:
        at_least("threads", args.threads)
    result = _measure(args, batch)
    say(as_text(result))
    return result


def _measure(args: Any, batch: int) -> dict[str, Any]:
    """One result: what was measured, and the setting it was measured in."""
    import torch

    from biossl.bench.frame import machine, threads
    from biossl.inference import pick_device
    from biossl.recipe import load_recipe

    how: dict[str, Any] = {"batch": batch, "steps": args.steps, "warmup": args.warmup}
    setting = {"recipe": args.recipe or RECIPE, **args.overrides, **how, "precision": args.precision or "fp32"}
    for name, kinds in _NOT.items():
        if args.kind in kinds:
            del setting[name]
    device = torch.device("cpu") if args.kind in ("load", "convert") else pick_device()
    with threads(args.threads):
        if args.kind == "augment":
            from biossl.bench.draws import bench_augment

            measured = bench_augment(**how, device=device)
        else:
            recipe = load_recipe(args.recipe or RECIPE, args.overrides)
            measured = _of_a_recipe(args.kind, recipe, how, args.precision or "fp32", device)
        return {"bench": args.kind, **measured, "setting": setting | machine(device)}


def _of_a_recipe(kind: str, recipe: Any, how: dict[str, Any], precision: Any, device: Any) -> dict[str, Any]:
    if kind == "train":
        from biossl.bench.train import bench_train

        return bench_train(recipe, **how, precision=precision, device=device)
    if kind == "ceiling":
        from biossl.bench.ceiling import bench_ceiling

        return bench_ceiling(recipe, **how, device=device)
    if kind == "masks":
        from biossl.bench.draws import bench_masks

        return bench_masks(recipe, **how, device=device)
    from biossl.bench.paths import bench_convert, bench_embed, bench_load

    if kind == "embed":
        return bench_embed(recipe, **how, device=device)
    return (bench_load if kind == "load" else bench_convert)(recipe, **how)


def _compare(args: Any) -> dict[str, Any]:
    from biossl.bench.compare import as_text, compare_runs

    if len(args.files) != 2:
        raise RequestError(f"compare takes two files, A.json and B.json, not {len(args.files)}")
    result = compare_runs(*args.files)
    say(as_text(result))
    return {"bench": "compare", **result}
