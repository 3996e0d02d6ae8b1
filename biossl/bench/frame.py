"""The clock and the frame that all benchmarks share: repeated timing, summaries, the machine, lines for a person.

What lives here: how times are taken and written. A result is a plain dict; every time in it is a summary (``median``, ``q1``,
``q3``, ``min``, ``max``, ``n``) under a key that begins with ``seconds_per_`` (wall clock) or ``cpu_seconds_per_`` (processor time
of all threads of the process, which other programs on the machine disturb less). What is timed is in the other files.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from biossl import __version__
from biossl.errors import RequestError

WALL, CPU = "seconds_per_", "cpu_seconds_per_"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles (linear between neighbours), smallest, largest and number of values.

    Examples
    --------
    >>> summary([4.0, 1.0, 2.0, 3.0])
    {'median': 2.5, 'q1': 1.75, 'q3': 3.25, 'min': 1.0, 'max': 4.0, 'n': 4}
    """
    q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": q2, "q1": q1, "q3": q3, "min": min(values), "max": max(values), "n": len(values)}


@dataclass
class Times:
    """Seconds of repetitions: ``wall`` clock, and ``cpu`` of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _begun: tuple[float, float] = (0.0, 0.0)

    def start(self, device: torch.device) -> None:
        """The device is waited for first, so that nothing earlier counts."""
        _wait(device)
        self._begun = time.perf_counter(), time.process_time()

    def stop(self, device: torch.device) -> None:
        """The device is waited for, so that everything since :meth:`start` counts."""
        _wait(device)
        self.wall.append(time.perf_counter() - self._begun[0])
        self.cpu.append(time.process_time() - self._begun[1])

    @property
    def median(self) -> float:
        """Of the wall clock, seconds."""
        return statistics.median(self.wall)

    def per(self, what: str, share: float = 1.0) -> dict[str, Any]:
        """``seconds_per_WHAT`` and ``cpu_seconds_per_WHAT``, where one repetition did ``1 / share`` of them."""
        return {WALL + what: summary([t * share for t in self.wall]), CPU + what: summary([t * share for t in self.cpu])}


def repeat(call: Callable[[], Any], *, steps: int, warmup: int, device: torch.device) -> Times:
    """Time ``steps`` calls after ``warmup`` calls that do not count."""
    for _ in range(warmup):
        call()
    times = Times()
    for _ in range(steps):
        times.start(device)
        call()
        times.stop(device)
    return times


def per_call(each: Mapping[str, Times]) -> dict[str, Any]:
    """``seconds_per_call`` and ``cpu_seconds_per_call`` of several named things."""
    return {key: {name: t.per("call")[key] for name, t in each.items()} for key in (WALL + "call", CPU + "call")}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: torch.device) -> int | None:
    """Most memory held so far: allocated on a GPU, resident of the whole process on the CPU (None where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def threads(number: int | None) -> Iterator[int]:
    """Run with so many threads (None = as it is), then as before."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def at_least(option: str, value: int, least: int = 1) -> None:
    """RequestError when a number given on the command line is too small."""
    if value < least:
        raise RequestError(f"--{option} {value}: give {least} or more")


def machine(device: torch.device) -> dict[str, Any]:
    """Where and when: device, processor, cores, threads and versions."""
    cpu = cpu_model()
    return {
        "biossl": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(0) if device.type == "cuda" else cpu,
        "cpu_model": cpu,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def summaries(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Every time of a result by its path: ``seconds_per_step``, ``seconds_per_call.random``."""
    out: dict[str, dict[str, float]] = {}
    for key, value in result.items():
        if not key.startswith((WALL, CPU)) or not isinstance(value, dict):
            continue
        if "median" in value:
            out[key] = value
        else:
            out |= {f"{key}.{name}": v for name, v in value.items() if isinstance(v, dict) and "median" in v}
    return out


def as_text(result: Mapping[str, Any]) -> str:
    """Lines for a person: every wall-clock time with its quartiles, then rates, operations, memory and the machine."""
    lines = [
        f"{path.removeprefix(WALL + 'call.').replace('_', ' '):<32} {_time(s['median']):>10}  "
        f"({_time(s['q1'])} to {_time(s['q3'])}; {s['n']} times)"
        for path, s in summaries(result).items()
        if path.startswith(WALL)
    ]
    for key, unit in (("flops_per_s", "GFLOP/s"), ("bytes_per_s", "GB/s")):
        lines += [f"{name.replace('_', ' '):<32} {value / 1e9:>10.4g}  {unit}" for name, value in result.get(key, {}).items()]
    rates = ("samples_per_s", "samples_per_s_one_process", "records_per_s")
    lines += [f"{key.replace('_', ' '):<32} {result[key]:>10.4g}" for key in rates if key in result]
    if "achieved_gflops" in result:
        lines.append(f"{'achieved':<32} {result['achieved_gflops']:>10.4g}  GFLOP/s")
    if "share_of_ceiling" in result:
        lines.append(f"{'of the matmul ceiling':<32} {100 * result['share_of_ceiling']:>8.1f} %")
    if result.get("peak_memory_bytes") is not None:
        lines.append(f"{'peak memory':<32} {result['peak_memory_bytes'] / 1e9:>10.3g}  GB")
    lines += [f"left out {name}: {why}" for name, why in result.get("left_out", {}).items()]
    s = result["setting"]
    lines.append(f"{s['device_name']}, {s['threads']} threads of {s['cores']}, torch {s['torch']}, {s['date']}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"
