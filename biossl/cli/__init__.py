"""The ``biossl`` command: finds the verb, parses, prints. One short file a verb; no logic here or there.

With ``--json`` a failure is an object too: ``{"error": "one line", "exit_code": 4}``. A verb's module has ``EXAMPLE`` (a command line), ``arguments(parser)`` and ``run(args) -> dict``. A verb that takes a
recipe also sets ``OVERRIDES = True``: every option with a dot (``--mask.ratio 0.6``) then arrives in ``args.overrides``
as text and never reaches the parser. Text for people is printed with :func:`say`; the returned dict is what ``--json``
prints. Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import math
import os
import signal
import sys
from typing import Any

from biossl.errors import BiosslError, RequestError

# verb -> (module, one line)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("biossl.cli.demo", "simulated patients, end to end"),
    "list": ("biossl.cli.listing", "name the packaged recipes, cards, formats and encoders"),
    "check": ("biossl.cli.check", "validate a recipe, card, corpus or encoder, alone or as a pair"),
    "inspect": ("biossl.cli.inspect", "say what a file or folder holds, with findings"),
    "card": ("biossl.cli.card", "draft a data card for a folder"),
    "convert": ("biossl.cli.convert", "recordings to a corpus of windows (resumable)"),
    "label": ("biossl.cli.label", "join a CSV of labels to a corpus"),
    "split": ("biossl.cli.split", "make a named split of a corpus"),
    "pretrain": ("biossl.cli.pretrain", "train an encoder without labels"),
    "probe": ("biossl.cli.probe", "judge a frozen encoder beside honest baselines"),
    "finetune": ("biossl.cli.finetune", "train an encoder and a head with labels, and lock the model"),
    "predict": ("biossl.cli.predict", "a locked model's decisions for a corpus or recordings"),
    "evaluate": ("biossl.cli.evaluate", "judge a locked model; nothing is fitted again"),
    "audit": ("biossl.cli.audit", "doubtful labels, what a model looks at, what more labels would buy"),
    "compare": ("biossl.cli.compare", "recipes on one backbone and budget, with paired intervals"),
    "embed": ("biossl.cli.embed", "write a table of embeddings"),
    "bench": ("biossl.cli.bench", "time, memory and operations on this machine, and ratios"),
    "report": ("biossl.cli.report", "one HTML page of a run"),
    "import": ("biossl.cli.import_weights", "convert published weights"),
}

_json_mode = False


def say(text: str = "") -> None:
    """A line for a person: stdout, or stderr when stdout carries JSON."""
    print(text, file=sys.stderr if _json_mode else sys.stdout, flush=True)


def _failed(verb: str, text: str, code: int) -> int:
    """One line on stderr and, where it was asked for, one object on stdout; gives the exit code back."""
    print(f"biossl {verb}: {text}" if verb else f"biossl: {text}", file=sys.stderr)
    if _json_mode:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


def make_parser(verb: str) -> Any:
    """Parser of one verb with the options every verb has."""
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            text = " ".join(str(message).split())
            raise SystemExit(_failed(verb, f"{text}; `biossl {verb} --help` shows an example", 2))

    class Formatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
        """Keeps the example on its own line; leaves out types and empty defaults, which say nothing to a person."""

        def _get_help_string(self, action: argparse.Action) -> str:
            text = action.help or ""
            return (
                text
                if action.default in (None, False, argparse.SUPPRESS) or "default:" in text
                else f"{text} (default: %(default)s)"
            )

    module = importlib.import_module(VERBS[verb][0])
    parser = Parser(
        prog=f"biossl {verb}",
        description=f"{VERBS[verb][1]}.\n\nexample:\n  {module.EXAMPLE}",
        formatter_class=Formatter,
        allow_abbrev=False,  # `--over` must not remove anything
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout; text goes to stderr")
    return parser, module


def take_overrides(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Part recipe overrides from a verb's own words.

    Examples
    --------
    >>> take_overrides(["r.yaml", "--mask.ratio=0.6", "--train.steps", "50", "--out", "runs/a.b"])
    (['r.yaml', '--out', 'runs/a.b'], {'mask.ratio': '0.6', 'train.steps': '50'})
    """
    rest: list[str] = []
    overrides: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, value = word[2:].partition("=")
        if not word.startswith("--") or "." not in key:
            rest.append(word)
            continue
        if not equals:
            if not left:
                raise RequestError(f"--{key}: no value given; write --{key} VALUE")
            value = left.pop(0)
        overrides[key] = value
    return rest, overrides


def _plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null; numpy scalars become numbers."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code (0 done, 2 request, 3 machine, 4 data)."""
    global _json_mode
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "biossl: from biosignal recordings to a pretrained encoder, honest numbers and embeddings\n\nusage: biossl VERB ...\n"
        )
        print("\n".join(f"  {name:<10}{text}" for name, (_, text) in VERBS.items()))
        print("\n`biossl VERB --help` shows the options and an example.")
        return 0 if argv else 2
    if argv[0] == "--version":
        from biossl import __version__

        print(__version__)
        return 0
    verb = argv[0]
    _json_mode = "--json" in argv
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return _failed("", f"no verb '{verb}'; {hint}`biossl --help` names them", 2)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    try:
        parser, module = make_parser(verb)
        words, overrides = take_overrides(argv[1:]) if getattr(module, "OVERRIDES", False) else (argv[1:], {})
        args = parser.parse_args(words)
        if getattr(module, "OVERRIDES", False):
            args.overrides = overrides
        with contextlib.redirect_stdout(sys.stderr) if _json_mode else contextlib.nullcontext():
            result = module.run(args)
    except BiosslError as error:
        return _failed(verb, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _failed(verb, "stopped; run the same command again to go on", 130)
    except MemoryError:
        return _failed(verb, "not enough memory; close other programs or use a larger machine", 3)
    except BrokenPipeError:  # the reader of our output has gone; nothing may be flushed into it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}; check path, permissions and free space"
        return _failed(verb, text, 3)
    except Exception as error:  # a fault of biossl: the traceback is wanted, and the object still promised
        if _json_mode:
            print(json.dumps({"error": f"{type(error).__name__}: {error}", "exit_code": 1}))
        raise
    if _json_mode:
        print(json.dumps(_plain(result), allow_nan=False, default=str))
    return 0


def entry() -> None:
    """Console script. SIGTERM (a queue's cancel, a container's stop) ends a verb as Ctrl-C does: workers and litter go."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    sys.exit(main())
