"""The run folder: checkpoints that are whole or absent, what a run is, and the numeric path it was begun on.

What lives here: the one CheckpointIO plugin, finding the checkpoint to go on from, comparing a request with the run it
would go on with. Layout::

    RUN/recipe.yaml  run.json  log.csv  encoder/
    RUN/checkpoints/latest                      text: the name of the newest checkpoint
    RUN/checkpoints/step-00012000/encoder/      an encoder folder
    RUN/checkpoints/step-00012000/state/        state.json, objective.safetensors, optimizer.safetensors
    RUN/checkpoints/step-00012000/SHA256SUMS    checked before anything is loaded

A checkpoint is written into ``step-XXXXXXXX.partial``, synced, renamed, and only then named in ``latest``; older ones are
removed last. Nothing is pickled: tensors are safetensors, everything else JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from biossl.atomic import LOCK_FILE, PARTIAL, fsync_folder, machine_error, require_free, write_text
from biossl.errors import DataError, MachineError, RequestError

STATE_FORMAT = 1
_SUMS = "SHA256SUMS"


def note(text: str) -> None:
    """A line for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- numeric path


@dataclass(frozen=True)
class NumericPath:
    """What decides the last bits of a result: chosen once per run, saved, forced on resume."""

    device: str
    threads: int
    precision: str
    onednn: bool
    cpu_capability: str
    torch: str

    @classmethod
    def choose(cls, precision: str) -> NumericPath:
        """The path of a new run on this machine."""
        return cls(
            device="cuda" if torch.cuda.is_available() else "cpu",
            threads=torch.get_num_threads(),
            precision=precision,
            onednn=bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            torch=torch.__version__,
        )

    def force(self) -> list[str]:
        """Set it in this process; lines for what cannot be set and may change the last bits.

        Raises
        ------
        MachineError
            The run was begun on a GPU and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise MachineError("the run was begun on a GPU and none is found here; go on there, or begin a new run with --init")
        torch.set_num_threads(self.threads)
        torch.backends.mkldnn.enabled = self.onednn  # type: ignore[assignment]
        here = NumericPath.choose(self.precision)
        return [
            f"note: begun with {name} {getattr(self, name)}, here it is {getattr(here, name)}: results may differ in the last bits"
            for name in ("torch", "cpu_capability")
            if getattr(self, name) != getattr(here, name)
        ]


# ---------------------------------------------------------------------------------------------- checkpoints


def checkpoint_name(step: int) -> str:
    """``step-00012000``."""
    return f"step-{step:08d}"


class RunCheckpointIO(CheckpointIO):
    """Writes and reads the checkpoint folders of one run.

    Parameters
    ----------
    folder : Path
        ``RUN/checkpoints``.
    keep : int
        Checkpoints that stay.
    save_encoder : callable
        Writes the encoder folder at a path.
    always : int, optional
        Step whose checkpoint stays besides: the one before the anneal.
    facts : callable
        Plain values that go into ``state.json`` beside the step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        save_encoder: Callable[[Path], None],
        facts: Callable[[], dict[str, Any]],
        always: int | None = None,
    ) -> None:
        self.folder, self.keep, self._save_encoder, self._facts = folder, max(1, keep), save_encoder, facts
        self._always = None if always is None else checkpoint_name(always)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint folder whole; RUN/checkpoints/latest names it afterwards."""
        final = Path(path)
        partial = final.with_name(final.name + ".partial")
        model = _own(checkpoint["state_dict"])
        optimizer, groups = _flatten(checkpoint["optimizer_states"])
        state = {
            "format": STATE_FORMAT,
            "step": int(checkpoint["global_step"]),
            **self._facts(),
            "groups": groups,
            "trainer": {k: checkpoint[k] for k in ("epoch", "global_step", "pytorch-lightning_version", "loops")},
        }
        try:
            need = sum(t.nbytes for t in (*model.values(), *optimizer.values()))
            require_free(self.folder, 2 * need)
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "state").mkdir(parents=True)
            self._save_encoder(partial / "encoder")
            save_file(model, partial / "state" / "objective.safetensors")
            save_file(optimizer, partial / "state" / "optimizer.safetensors")
            (partial / "state" / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            files = sorted(p for p in partial.rglob("*") if p.is_file())
            sums = [f"{_sha256(p)}  {p.relative_to(partial).as_posix()}\n" for p in files]
            (partial / _SUMS).write_text("".join(sums), encoding="utf-8")
            for item in sorted(partial.rglob("*")):
                _sync(item)
            _sync(partial)
            if final.exists():  # the same step of a run that was killed before it named this checkpoint
                shutil.rmtree(final)
            os.replace(partial, final)
            fsync_folder(self.folder)
            write_text(self.folder / "latest", final.name + "\n")
        except SafetensorError as error:  # its writer hides the operating system's error number
            raise MachineError(f"{final}: cannot be written ({error}); free space, then run the same command again") from error
        except OSError as error:
            raise machine_error(final, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in [p for p in sorted(self.folder.glob("step-*[0-9]")) if p.name != self._always][: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """What the trainer needs, after the checksums were compared."""
        path = Path(path)
        verify_checkpoint(path)
        state = json.loads((path / "state" / "state.json").read_text(encoding="utf-8"))
        optimizer = load_file(path / "state" / "optimizer.safetensors")
        return {
            **state["trainer"],
            "state_dict": load_file(path / "state" / "objective.safetensors"),
            "optimizer_states": _unflatten(optimizer, state["groups"]),
            "lr_schedulers": [],
        }

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint folder."""
        shutil.rmtree(path, ignore_errors=True)


def optimizer_moments(path: Path) -> dict[int, dict[str, Tensor]]:
    """State of the one optimiser of a checkpoint: number of the parameter -> name -> tensor."""
    state = json.loads((path / "state" / "state.json").read_text(encoding="utf-8"))
    moments: dict[int, dict[str, Tensor]] = _unflatten(load_file(path / "state" / "optimizer.safetensors"), state["groups"])[0][
        "state"
    ]
    return moments


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint whose files all have the sums they were written with.

    Raises
    ------
    DataError
        Missing, extra-short or changed files.
    """
    try:
        lines = (path / _SUMS).read_text(encoding="utf-8").splitlines()
        wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        if "state/state.json" not in wanted:
            raise DataError(f"{path / _SUMS}: does not list state/state.json")
        for name, digest in wanted.items():
            if _sha256(path / name) != digest:
                raise DataError(f"{path / name}: damaged (its SHA-256 differs from {_SUMS})")
        state: dict[str, Any] = json.loads((path / "state" / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged checkpoint ({getattr(error, 'strerror', None) or error})") from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != STATE_FORMAT:
        raise DataError(f"{path}: checkpoint format {found}, this biossl reads {STATE_FORMAT}")
    kinds = {"step": int, "wall_s": float, "last": dict, "alarms": list, "groups": list, "trainer": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise DataError(f"{path / 'state' / 'state.json'}: key '{wrong[0]}' is missing or of another type")
    return state


def find_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of ``RUN/checkpoints`` and its state.json; damaged ones are named and passed over.

    Raises
    ------
    DataError
        There are checkpoints and none is whole.
    """
    found = sorted(folder.glob("step-*[0-9]"), reverse=True)
    try:
        named = folder / (folder / "latest").read_text(encoding="utf-8").strip()
        found.sort(key=lambda p: p != named)  # the named one first, the others newest first
    except (OSError, ValueError):
        pass  # damaged, or killed between rename and `latest`: the newest it is
    for path in found:
        try:
            return path, verify_checkpoint(path)
        except DataError as error:
            note(f"warning: {error}; the previous checkpoint is tried")
    if found:
        raise DataError(f"{folder}: no checkpoint is whole; begin again with --overwrite")
    return None


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies: safetensors takes no shared memory (tied weights are stored twice and stay equal)."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _flatten(states: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[Any]]:
    """Optimiser states as named tensors and plain groups."""
    tensors = {
        f"{i}/{parameter}/{name}": value
        for i, state in enumerate(states)
        for parameter, values in state["state"].items()
        for name, value in values.items()
    }
    return _own(tensors), [state["param_groups"] for state in states]


def _unflatten(tensors: dict[str, Tensor], groups: list[Any]) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = [{"state": {}, "param_groups": g} for g in groups]
    for key, value in tensors.items():
        i, parameter, name = key.split("/")
        states[int(i)]["state"].setdefault(int(parameter), {})[name] = value
    return states


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(item: Path) -> None:
    if item.is_dir():
        fsync_folder(item)
        return
    with open(item, "rb+") as handle:
        os.fsync(handle.fileno())


# ---------------------------------------------------------------------------------------------- the run


class RunFolder:
    """``RUN``: what is in it and what may be done with it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.recipe, self.facts, self.log, self.encoder = (path / n for n in ("recipe.yaml", "run.json", "log.csv", "encoder"))

    def allow(self, plan: dict[str, Any], *, overwrite: bool) -> bool:
        """True when an unfinished run of this plan is here to go on with; nothing is written.

        Parameters
        ----------
        plan : dict
            Plain values that say what the run is: recipe, corpora, split, starting weights.
        overwrite : bool
            A run that is there may be removed.

        Raises
        ------
        RequestError
            The folder holds something else, a finished run, or an unfinished one of another recipe or corpus.
        """
        if not self._used():
            return False
        if not self.facts.is_file():
            raise RequestError(f"{self.path}: exists and is no run of `biossl pretrain` (no run.json); give another --out")
        if overwrite:
            return False
        saved = self.saved()
        if saved.get("finished"):
            raise RequestError(f"{self.path}: exists, a finished run; give another --out or --overwrite")
        self._compare(saved.get("plan", {}), plan)
        return True

    def begin(self, plan: dict[str, Any], *, overwrite: bool) -> tuple[Path, dict[str, Any]] | None:
        """Make the folder ready: the checkpoint to go on from, or None for a new run. Parameters and errors: :meth:`allow`."""
        if self.allow(plan, overwrite=overwrite):
            return find_checkpoint(self.checkpoints)
        for item in (self.checkpoints, self.encoder):
            shutil.rmtree(item, ignore_errors=True)
        for item in (self.recipe, self.log, self.facts):
            item.unlink(missing_ok=True)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(self.path, error) from error
        return None

    def _used(self) -> bool:
        """Something is there, other than what a run that was killed in its first moments leaves."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(p.is_file() and PARTIAL not in p.name and p.name != LOCK_FILE for p in self.path.rglob("*"))

    def saved(self) -> dict[str, Any]:
        """What ``run.json`` holds; DataError when it is damaged."""
        try:
            saved: dict[str, Any] = json.loads(self.facts.read_text(encoding="utf-8"))
            if not isinstance(saved["plan"], dict) or set(saved["numeric_path"]) != set(NumericPath.__dataclass_fields__):
                raise ValueError
            return saved
        except (OSError, ValueError, TypeError, KeyError):
            raise DataError(f"{self.facts}: damaged; give another --out or --overwrite") from None

    def _compare(self, saved: dict[str, Any], plan: dict[str, Any]) -> None:
        lines = differences(saved, json.loads(json.dumps(plan)))
        if lines:
            shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
            raise RequestError(
                f"{self.path}: an unfinished run of something else ({shown}); ask for the same, or give another --out or --overwrite"
            )

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write ``run.json`` whole."""
        write_text(self.facts, json.dumps(facts, indent=1, default=str) + "\n")


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a request to stop after the step at hand; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Set the handlers (again, where something else has set its own); only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Put back what was there before the first :meth:`install`."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            note("stopping after this step; a checkpoint is written")
        self.requested = True


def differences(a: Any, b: Any, key: str = "") -> list[str]:
    """Readable lines for what differs between two trees of plain values: ``train.steps: 100 there, 200 asked for``."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line for k in sorted({*a, *b}, key=str) for line in differences(a.get(k), b.get(k), f"{key}.{k}" if key else str(k))
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [line for i, (x, y) in enumerate(zip(a, b, strict=True)) for line in differences(x, y, f"{key}[{i}]")]
    return [] if a == b else [f"{key}: {a} there, {b} asked for"]
