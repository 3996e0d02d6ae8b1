"""Run a function in two forked processes of one gloo group, and hear of it when one fails."""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _loopback() -> bool:
    """Whether this machine can talk to itself; a namespace whose loopback is down cannot, and gloo needs it."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
        return True
    except OSError:
        return False


needs_two_processes = pytest.mark.skipif(
    sys.platform != "linux" or not _loopback(), reason="needs fork and a loopback interface that is up"
)


def _child(number: int, function: Callable[..., Any], args: tuple[Any, ...], store: str, pipe: Any) -> None:
    torch.set_num_threads(1)  # worker threads of the parent are not there after a fork, and would be waited for
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
        pipe.send(("done", function(number, *args)))
        dist.destroy_process_group()
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
        raise


def run_in_two(function: Callable[..., Any], *args: Any, store: Path, timeout: float = 60.0) -> list[Any]:
    """What ``function(rank, *args)`` returned in process 0 and in process 1 (plain values, no tensors).

    Parameters
    ----------
    function : callable
    args
        Passed by fork, not pickled.
    store : Path
        A file in a temporary folder, for the two to meet.
    timeout : float
        Seconds until the test fails instead of hanging.
    """
    context = mp.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    jobs = [context.Process(target=_child, args=(i, function, args, str(store), pipes[i][1]), daemon=True) for i in range(2)]
    for job in jobs:
        job.start()
    try:
        out = []
        for i, (receive, _) in enumerate(pipes):
            assert receive.poll(timeout), f"process {i} gave no answer in {timeout:.0f} s"
            kind, value = receive.recv()
            assert kind == "done", f"process {i}:\n{value}"
            out.append(value)
        return out
    finally:
        for job in jobs:
            job.join(5)
            if job.is_alive():
                job.kill()
