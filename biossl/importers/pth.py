"""Tensors of a ``.pth`` file, read weights-only in a child process that hands them over as safetensors.

A pickle is a program. ``weights_only`` refuses all but tensors and plain containers; the child process keeps even a fault
in that reader away from the caller. Run as a module this file *is* the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biossl.errors import DataError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_S = 600
_NO_TENSORS, _UNREADABLE = 11, 12  # exit codes of the child


def read_pth(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of a PyTorch checkpoint.

    Parameters
    ----------
    path : path

    Returns
    -------
    (dict of str to Tensor, dict of str to number or text)
        Nested dictionaries are flattened with dots: ``encoder.norm.weight``.

    Raises
    ------
    RequestError
        Missing, a folder.
    DataError
        Not a PyTorch file, holds objects other than tensors, truncated.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if not path.exists():
        raise RequestError(f"{path}: no such checkpoint; check the path")
    if path.is_dir():
        raise RequestError(f"{path}: a folder; give the checkpoint file (.pth)")
    with tempfile.TemporaryDirectory(prefix="biossl-import-") as folder:
        out = Path(folder) / "tensors.safetensors"
        # -P and the parent's own path: a file in the working directory cannot stand in for a module
        command = [sys.executable, "-P", "-m", "biossl.importers.pth", str(path.absolute()), str(out)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        try:
            child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, env=env)
        except subprocess.TimeoutExpired:
            raise DataError(f"{path}: not read within {TIMEOUT_S} s; download the checkpoint again") from None
        if child.returncode == _NO_TENSORS:
            raise DataError(f"{path}: holds no tensors; download the checkpoint again")
        if child.returncode != 0:
            why = child.stderr.strip().splitlines()[-1][:200] if child.stderr.strip() else f"reader ended with {child.returncode}"
            raise DataError(f"{path}: not a readable weights-only PyTorch checkpoint ({why}); download it again")
        return load_file(out), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


def _flatten(value: Any, prefix: str, tensors: dict[str, Any], plain: dict[str, Any]) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        tensors[prefix] = value.detach().clone().contiguous()
    elif isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{prefix}.{key}" if prefix else str(key), tensors, plain)
    elif isinstance(value, (int, float, str, bool)):
        plain[prefix] = value


def _child(source: str, out: str) -> int:
    import torch
    from safetensors.torch import save_file

    try:
        raw = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever the reader says becomes one line in the parent
        text = " ".join(str(error).split())
        refused = "Unsupported" in text or "WeightsUnpickler" in text
        print("it holds objects other than tensors" if refused else f"{type(error).__name__}: {text[:120]}", file=sys.stderr)
        return _UNREADABLE
    tensors: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    _flatten(raw, "", tensors, plain)
    if not tensors:
        return _NO_TENSORS
    save_file(tensors, out)
    Path(out).with_suffix(".json").write_text(json.dumps(plain), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:3]))
