"""Files that are either whole or absent: temporary file in the same folder, fsync, ``os.replace``, fsync the folder.

What lives here: the one helper everything that writes goes through, and the lock that keeps two processes from writing one
folder. A full disk, a missing right or a read-only folder is one :class:`MachineError` line, and the file that was there
before stays as it was.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from biossl.errors import MachineError, RequestError

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial-"  # in the name of everything unfinished
LOCK_FILE = ".lock"  # only where folders themselves cannot be locked
_WINDOWS = os.name == "nt"


def machine_error(path: str | Path, error: OSError) -> MachineError:
    """The one line for an operating-system failure while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"{path}: the disk is full; free space or choose another folder, then run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(f"{path}: no right to write there; mend the permissions or choose another folder")
    return MachineError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{PARTIAL}{os.getpid()}-{os.urandom(4).hex()}")


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder durable (nothing to do on Windows, where a folder cannot be opened)."""
    if _WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def _fsync_file(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


def _replace(source: Path, target: Path) -> None:
    if not _WINDOWS:
        os.replace(source, target)
        return
    for attempt in range(6):  # Windows refuses while a reader or a virus scanner holds the target
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if attempt == 5:
                raise
            time.sleep(0.05 * 2**attempt)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes ``path`` when the block ends well and vanishes when it does not.

    Raises
    ------
    MachineError
        Disk full, no right, read-only.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_file(pathlib.Path(folder) / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     (pathlib.Path(folder) / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    part = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _fsync_file(part)
        _replace(part, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise machine_error(path, error) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` that is renamed to it when the block ends well.

    An existing ``path`` is replaced only with ``overwrite``; it is moved aside first and removed last, so one whole
    folder exists at every moment under one of the two names.

    Raises
    ------
    MachineError
        Disk full, no right, or ``path`` exists and ``overwrite`` is False.
    """
    path = Path(path)
    part = _partial(path)
    try:
        part.mkdir(parents=True)
        yield part
        for item in sorted(part.rglob("*")):
            if item.is_file():
                _fsync_file(item)
            elif item.is_dir():
                fsync_folder(item)
        fsync_folder(part)
        old = None
        if path.exists():
            if not overwrite:
                raise FileExistsError(errno.EEXIST, "exists already", str(path))
            old = _partial(path)
            _replace(path, old)
        _replace(part, path)
        fsync_folder(path.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise machine_error(path, error) from error
    finally:
        if part.exists():
            shutil.rmtree(part, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes | memoryview, *, mode: int | None = None) -> None:
    """Write a whole file, or leave the old one untouched; ``mode`` sets the permission bits (e.g. ``0o600``)."""
    with atomic_file(path) as part:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(part, flags, 0o666 if mode is None else mode), "wb") as handle:
            handle.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file with LF line ends, or leave the old one untouched."""
    write_bytes(path, text.encode("utf-8"))


def write_parquet(path: str | Path, frame: pd.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write a table (zstd, no index column); ``metadata`` goes into the schema. Equal input gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    own = {k.encode(): v.encode() for k, v in (metadata or {}).items()}
    table = table.replace_schema_metadata(own or None)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(path, memoryview(sink.getvalue()))


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left behind in a folder."""
    for item in folder.glob(f".*{PARTIAL}*"):
        if item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)


def require_free(folder: Path, n_bytes: int) -> None:
    """MachineError when the file system of ``folder`` has less than ``n_bytes`` free."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise MachineError(
            f"{folder}: about {n_bytes / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free; free space or choose another disk"
        )


# ---------------------------------------------------------------------------------------------- one writer a folder

_locks: set[int] = set()  # descriptors of locked folders


def _forget_locks() -> None:
    """In a child after a fork (a loader's worker): a lock must end with the process that took it."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, made if absent, against every other process; the lock ends with this one, however that ends.

    The folder itself is locked (``flock``), so nothing is left behind. Where that cannot be (Windows, some network file
    systems) a file ``.lock`` names machine and process instead; one whose process is gone is taken over, one of another
    machine is believed.

    Raises
    ------
    RequestError
        Another process holds it, or it is a file.
    MachineError
        It cannot be made or opened.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder, folder_lock(pathlib.Path(folder) / "run"):
    ...     pass
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _flock(folder)
    except BlockingIOError:
        raise RequestError(f"{folder}: another biossl process is writing there; wait for it, or choose another folder") from None
    except OSError as error:
        raise machine_error(folder, error) from error
    if handle is None:
        with _lock_file(folder):
            yield
        return
    _locks.add(handle)
    try:
        yield
    finally:
        if handle in _locks:  # not in a child, which has let go of it
            _locks.remove(handle)
            os.close(handle)


def _flock(folder: Path) -> int | None:
    """Descriptor of the locked folder, None where folders cannot be locked; BlockingIOError when it is held."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def _lock_file(folder: Path) -> Iterator[None]:
    file = folder / LOCK_FILE
    here = platform.node()
    for last in (False, True):
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            break
        except FileExistsError:
            if last or not _abandoned(file, here):
                raise RequestError(
                    f"{folder}: another biossl process is writing there; wait for it, or remove {file} when none is"
                ) from None
        except OSError as error:
            raise machine_error(folder, error) from error
    try:
        os.write(handle, f"{here} {os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)
        file.unlink(missing_ok=True)


def _abandoned(file: Path, here: str) -> bool:
    """Remove the lock of a process of this machine that is gone; True when that was done."""
    try:
        machine, process = file.read_text().split()
        if machine != here:
            return False
        if not _WINDOWS:  # there a file that is still held open cannot be removed, which says the same
            os.kill(int(process), 0)
            return False
    except FileNotFoundError:
        return True  # given back in between
    except ProcessLookupError:
        pass
    except (OSError, ValueError):
        return False
    try:
        file.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True
