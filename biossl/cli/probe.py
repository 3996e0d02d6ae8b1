"""``biossl probe``: judge a frozen encoder beside honest baselines."""

from __future__ import annotations

from typing import Any

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl probe runs/ecg corpora/ptbxl --label superclass --pool mean+std+max"


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument("encoder", help="encoder folder, or a run that holds one")
    parser.add_argument("corpus", help="corpus folder")
    parser.add_argument("--label", required=True, help="label to judge by (`biossl check CORPUS` names them)")
    parser.add_argument("--splits", default=None, help="split; default: official, or the only one; NAME:2 is a fold of it")
    parser.add_argument("--part", default="test", help="part that is judged: test or val")
    parser.add_argument("--pool", default="mean", help="mean, std, max, or several joined by +")
    parser.add_argument("--labels-fraction", type=float, default=None, help="train on this share of labelled windows (20 draws)")
    parser.add_argument("--n-subjects", type=int, default=None, help="train on this many labelled subjects (20 draws)")
    parser.add_argument("--layers", default=None, help="also judge these blocks: all, or numbers joined by commas")
    parser.add_argument("--no-baselines", action="store_true", help="leave out the random-initialised encoder and hand features")
    parser.add_argument("--allow-seen", action="store_true", help="go on when the encoder has seen judged subjects")
    parser.add_argument("--adapt", action="store_true", help="accept a corpus with other channels or filters than the encoder's")
    parser.add_argument("--seed", type=int, default=0, help="of draws, folds, random encoders and resamples")
    parser.add_argument(
        "--out", default=None,
        help="JSON file; default: RUN/probes/CORPUS-LABEL[-PART][-SPLIT][-POOL][-labelsF|-subjectsN].json, each where it is not the usual one",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the JSON file")


def run(args: Any) -> dict[str, Any]:
    """Judge, print the table."""
    layers = _layers(args.layers)
    from biossl.probe import probe
    from biossl.probe_text import as_text

    result = probe(
        args.encoder, args.corpus, args.label, split=args.splits, part=args.part, pool=args.pool,
        labels_fraction=args.labels_fraction, n_subjects=args.n_subjects, layers=layers, baselines=not args.no_baselines,
        allow_seen=args.allow_seen, adapt=args.adapt, seed=args.seed, out=args.out, overwrite=args.overwrite,
    )  # fmt: skip
    say(as_text(result))
    return result


def _layers(text: str | None) -> list[int] | str | None:
    if text is None or text == "all":
        return text
    try:
        return [int(n) for n in text.split(",")]
    except ValueError:
        raise RequestError(f"--layers {text}: write all, or block numbers joined by commas, e.g. 0,5") from None
