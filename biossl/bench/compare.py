"""Two programs, or two versions, by their times: ratios of runs that took turns.

What lives here: reading results and pairing them. Run i of A is divided by run i of B, because the load of a machine changes
between runs and hardly within a pair; the median of these ratios and its spread are the answer. Results of any program with
the same keys will do.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biossl.bench.frame import summaries, summary
from biossl.errors import DataError, RequestError

_ALIKE = ("batch", "threads", "device_name")  # of two sides, for their times to say something about the programs


def compare_runs(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Ratios A / B of every time that both sides have: above 1, B is so many times as fast.

    Parameters
    ----------
    a, b : path
        A JSON file with one result or several one after the other (as ``>>`` leaves them), in the order of the runs, or a
        folder of such files (``*.json``, by name).

    Returns
    -------
    dict
        ``pairs``; ``ratios``, by path of the time (``seconds_per_step``): ``a`` and ``b`` (summaries over runs of the runs' medians)
        and ``ratio`` (summary over pairs); ``only_a``, ``only_b`` (times without a partner); ``notes``.

    Raises
    ------
    RequestError
        No such file, different numbers of runs, no time in common.
    DataError
        A file holds something else than results.
    """
    left, right = read_results(a), read_results(b)
    if len(left) != len(right):
        raise RequestError(f"{a} has {len(left)} runs, {b} has {len(right)}; runs are compared in pairs: give as many of each")
    times_a, times_b = _medians(left, a), _medians(right, b)
    common = [path for path in times_a if path in times_b]
    if not common:
        raise RequestError(f"{a} and {b} have no time in common ({', '.join(times_a)} and {', '.join(times_b)})")
    return {
        "pairs": len(left),
        "ratios": {
            path: {
                "a": summary(times_a[path]),
                "b": summary(times_b[path]),
                "ratio": summary([x / y for x, y in zip(times_a[path], times_b[path], strict=True)]),
            }
            for path in common
        },
        "only_a": [path for path in times_a if path not in times_b],
        "only_b": [path for path in times_b if path not in times_a],
        "notes": _notes(left, right),
    }


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The results in a file or a folder of files, in order; see :func:`compare_runs`."""
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise RequestError(f"{path}: no such file of results; make one with `biossl bench train --json > {path.name}`")
    out: list[dict[str, Any]] = []
    for file in files:
        text, decoder = file.read_text(encoding="utf-8").strip(), json.JSONDecoder()
        while text:
            try:
                result, end = decoder.raw_decode(text)
            except ValueError as error:
                raise DataError(f"{file}: result {len(out) + 1} is not JSON ({error}); remove it, or run it again") from None
            if not isinstance(result, dict) or not summaries(result):
                said = f": {result['error']}" if isinstance(result, dict) and "error" in result else ""
                raise DataError(f"{file}: result {len(out) + 1} has no times{said}; remove it, or run it again")
            out.append(result)
            text = text[end:].lstrip()
    if not out:
        raise DataError(f"{path}: empty; run the benchmark again")
    return out


def _medians(runs: Sequence[dict[str, Any]], where: str | Path) -> dict[str, list[float]]:
    """Path -> the median of each run; DataError where the runs of a side are of different things."""
    each = [summaries(run) for run in runs]
    for number, found in enumerate(each[1:], 2):
        if found.keys() != each[0].keys():
            raise DataError(f"{where}: runs 1 and {number} are of different things; one side is one benchmark")
    return {path: [float(found[path]["median"]) for found in each] for path in each[0]}


def _notes(left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> list[str]:
    """What differs between the sides and may be the reason for the ratio."""
    notes = []
    for key in _ALIKE:
        a, b = ({str(run.get("setting", {}).get(key)) for run in runs} - {"None"} for runs in (left, right))
        if a and b and a != b:
            notes.append(f"{key} is {', '.join(sorted(a))} of A, {', '.join(sorted(b))} of B")
    hidden = [[float(run["masked_fraction"]["median"]) for run in runs if "masked_fraction" in run] for runs in (left, right)]
    if all(hidden):
        of_a, of_b = (statistics.median(values) for values in hidden)
        if abs(of_a - of_b) > 0.02:
            notes.append(f"A hides {of_a:.2f} of the patches, B {of_b:.2f}: they do not do the same work")
    if len(left) < 5:
        notes.append(f"{len(left)} {'pair' if len(left) == 1 else 'pairs'}: take turns at least 5 times before you say anything")
    return notes


def as_text(result: dict[str, Any]) -> str:
    """One line a ratio, then what has no partner and the notes."""
    width = max(map(len, result["ratios"]))
    lines = [f"{'A / B':<{width}}  median  quartiles      A, s       B, s       ({result['pairs']} pairs)"]
    lines += [
        f"{path:<{width}}  {r['ratio']['median']:<6.3g}  {r['ratio']['q1']:.3g} to {r['ratio']['q3']:<6.3g} "
        f"{r['a']['median']:<10.4g} {r['b']['median']:<10.4g}"
        for path, r in result["ratios"].items()
    ]
    lines += [f"only of {side}: {', '.join(result[key])}" for side, key in (("A", "only_a"), ("B", "only_b")) if result[key]]
    return "\n".join(lines + [f"note: {note}" for note in result["notes"]])
