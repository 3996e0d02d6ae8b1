"""The ledger of test openings: every time scores of a test part are computed, one line is appended and shown.

What lives here: ``ledger.jsonl`` beside a corpus (or beside the result where the corpus cannot be written). A test part
that was looked at twenty times is a validation part; the report prints how often.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from biossl.errors import MachineError

FILE = "ledger.jsonl"


def record_opening(folders: list[Path], entry: dict[str, Any]) -> tuple[Path, int]:
    """Append one opening to the first folder that can be written.

    Parameters
    ----------
    folders : list of Path
        In order of preference: the corpus, the run.
    entry : dict
        Plain values; ``date`` (UTC) and ``commit`` are added. ``label``, ``split`` and ``part`` say what was opened.

    Returns
    -------
    (Path, int)
        The ledger, and how often test parts of this label have been opened by now, whatever the split: another split of
        the same subjects is no fresh test.

    Raises
    ------
    MachineError
        None of the folders can be written.
    """
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({"date": stamp, "commit": commit(), **entry}, allow_nan=False, default=str) + "\n"
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # one write of one line with O_APPEND: two probes at once do not mix their lines
            handle = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, line.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            continue
        return folder / FILE, len(openings(folder, entry["label"]))
    raise MachineError(f"{folders[0] / FILE}: cannot be written, so the opening of the test part cannot be recorded; give --out")


def openings(folder: Path, label: str | None = None, split: str | None = None) -> list[dict[str, Any]]:
    """Entries of a ledger, oldest first; lines that were cut off are left out."""
    wanted = {k: v for k, v in (("label", label), ("split", split)) if v is not None}
    out = []
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if all(entry.get(k) == v for k, v in wanted.items()):
            out.append(entry)
    return out


def commit() -> str:
    """Commit of the checkout biossl runs from, with ``+`` when it was changed since; '' when installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
