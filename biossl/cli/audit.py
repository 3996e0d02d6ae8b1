"""``biossl audit``: labels that embeddings contradict, what a model looks at, what more labels would buy."""

from __future__ import annotations

from typing import Any, Literal

from biossl.cli import say
from biossl.errors import RequestError

EXAMPLE = "biossl audit labels runs/hapt corpora/hapt --label activity6 --out audits/hapt"
# options of single kinds; the others are everybody's
_OWN = {"part": ("labels",), "n": ("labels", "occlusion"), "rows": ("occlusion",), "record": ("occlusion",)}


def arguments(parser: Any) -> None:
    """Options of the verb."""
    parser.add_argument(
        "kind", type=Literal["labels", "occlusion", "learning-curve"],
        help="labels: windows whose neighbours contradict their label; occlusion: what a locked model looks at; learning-curve: what "
        "more labels would buy",
    )  # fmt: skip
    parser.add_argument(
        "source", help="encoder folder or run (labels, learning-curve), run of `biossl finetune` (labels, occlusion)"
    )
    parser.add_argument("corpus", help="corpus folder")
    parser.add_argument("--label", required=True, help="label of the corpus (`biossl check CORPUS` names them)")
    parser.add_argument("--splits", default=None, help="split; default: official, or the only one; NAME:2 is a fold of it")
    parser.add_argument("--part", default=None, help="labels: part that is looked at; default: train and val; all = every window")
    parser.add_argument("--n", type=int, default=None, help="windows listed or drawn; default: 50 (labels), 6 (occlusion)")
    parser.add_argument("--rows", type=int, nargs="+", default=None, help="occlusion: rows of the index, from 0")
    parser.add_argument("--record", default=None, help="occlusion: windows of this record, its name as the corpus has it")
    parser.add_argument("--adapt", action="store_true", help="accept a corpus with other channels or filters than the encoder's")
    parser.add_argument("--seed", type=int, default=0, help="of folds, draws and resamples")
    parser.add_argument("--out", required=True, help="folder for tables and page")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result there")


def run(args: Any) -> dict[str, Any]:
    """Audit, write, say the main thing."""
    for name, kinds in _OWN.items():
        if getattr(args, name) is not None and args.kind not in kinds:
            raise RequestError(f"--{name} belongs to `biossl audit {kinds[0]}`, not to {args.kind}; leave it out")
    return {"labels": _labels, "occlusion": _occlusion, "learning-curve": _curve}[args.kind](args)


def _labels(args: Any) -> dict[str, Any]:
    from biossl.audit.features import free_folder
    from biossl.audit.labels import FILE, audit_labels, write_list
    from biossl.corpus import Corpus
    from biossl.report.audit_pages import label_page

    corpus = Corpus.open(args.corpus)
    free_folder(args.out, FILE, args.overwrite)
    found = audit_labels(
        args.source, corpus, args.label, split=args.splits, part=args.part, n=50 if args.n is None else args.n, adapt=args.adapt,
        seed=args.seed,
    )  # fmt: skip
    file = write_list(found, args.out, overwrite=args.overwrite)
    page = label_page(corpus, found, file.parent)
    about = found.about
    say(
        f"{about['suspect']:,} of {about['windows']:,} windows (part {about['part']}) have most of {about['k']} neighbours against their label; "
        f"the {about['listed']:,} most suspect are listed"
    )
    for line in about["notes"]:
        say(f"note: {line}")
    say(f"list: {file}\npage: {page}")
    return about | {"list": str(file), "page": str(page)}


def _occlusion(args: Any) -> dict[str, Any]:
    from biossl.audit.features import free_folder
    from biossl.audit.occlusion import FILE, audit_occlusion, write_maps
    from biossl.corpus import Corpus
    from biossl.report.audit_pages import check_line, occlusion_page

    corpus = Corpus.open(args.corpus)
    free_folder(args.out, FILE, args.overwrite)
    found = audit_occlusion(
        args.source, corpus, args.label, split=args.splits, rows=args.rows, record=args.record, n=6 if args.n is None else args.n,
        adapt=args.adapt, seed=args.seed,
    )  # fmt: skip
    file = write_maps(corpus, found, args.out, overwrite=args.overwrite)
    page = occlusion_page(corpus, found, file.parent)
    say(check_line(found))
    for line in found.about["notes"]:
        say(f"note: {line}")
    say(f"maps: {file}\npage: {page}")
    windows = [
        {"row": int(r), "label": t, "answer": a, "log_odds": float(o)}
        for r, t, a, o in zip(found.rows, found.truth, found.answer, found.odds, strict=True)
    ]
    return found.about | {"windows": windows, "groups": found.groups, "check": found.check, "maps": str(file), "page": str(page)}


def _curve(args: Any) -> dict[str, Any]:
    from biossl.audit.features import free_folder
    from biossl.audit.learning import FILE, learning_curve, write_curve
    from biossl.report.audit_pages import curve_figure

    free_folder(args.out, FILE, args.overwrite)
    result = learning_curve(args.source, args.corpus, args.label, split=args.splits, adapt=args.adapt, seed=args.seed)
    file = write_curve(result, args.out, overwrite=args.overwrite)
    drawn = curve_figure(result, file.parent)
    say(f"{result['metric']} on held-out subjects of part train, mean of {result['draws']} draws")
    for r in result["rows"]:
        if r["score"] is not None:
            say(f"  {r['subjects']:>5,} subjects {r['windows']:>8,} windows  {r['score']:.3f} [{r['low']:.3f}, {r['high']:.3f}]")
    say(result["sentence"])
    for line in result["notes"]:
        say(f"note: {line}")
    say(f"curve: {file}\nfigures: {', '.join(str(f) for f in drawn)}")
    return result | {"out": str(file), "figures": [str(f) for f in drawn]}
