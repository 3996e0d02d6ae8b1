"""Files are whole or absent; a failing disk is one line and harms nothing that was there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from biossl import atomic
from biossl.errors import MachineError, RequestError


@contextmanager
def small_disk(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow past ``n_bytes``: a real write that fails half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    atomic.write_bytes(file, b"old")
    with small_disk(2**16), pytest.raises(MachineError, match="a.bin"):
        atomic.write_bytes(file, b"x" * 2**20)
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EROFS, "no right to write")]
)
def test_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def fail(_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(MachineError, match=words) as caught:
        atomic.write_text(tmp_path / "a.txt", "x")
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_an_exception_inside_the_block_is_passed_on_and_nothing_appears(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.atomic_file(tmp_path / "a") as part:
        part.write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_the_temporary_file_is_in_the_same_folder(tmp_path: Path) -> None:
    with atomic.atomic_file(tmp_path / "deep" / "a") as part:
        assert part.parent == tmp_path / "deep"
        part.write_text("x")
    assert (tmp_path / "deep" / "a").read_text() == "x"


@pytest.mark.skipif(os.name == "nt", reason="no permission bits")
def test_mode(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "secret", b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    with atomic.atomic_folder(tmp_path / "run") as part:
        (part / "a").write_text("1")
    with pytest.raises(MachineError, match="run"), atomic.atomic_folder(tmp_path / "run") as part:
        (part / "a").write_text("2")
    assert (tmp_path / "run" / "a").read_text() == "1"
    with atomic.atomic_folder(tmp_path / "run", overwrite=True) as part:
        (part / "b").write_text("3")
    assert os.listdir(tmp_path / "run") == ["b"] and os.listdir(tmp_path) == ["run"]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]})
    for name in "pq":
        atomic.write_parquet(tmp_path / name, frame, {"kind": "test"})
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "p"), frame)


def test_space_is_asked_for_before_work(tmp_path: Path) -> None:
    atomic.require_free(tmp_path / "not" / "yet", 1)
    with pytest.raises(MachineError, match="MB are free"):
        atomic.require_free(tmp_path, 2**62)


def test_litter_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.h5.partial-123-abcd").write_text("half")
    (tmp_path / "a.h5").write_text("whole")
    atomic.remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["a.h5"]


HOLD = """
import sys, time
from pathlib import Path
from biossl import atomic
if sys.argv[2] == "file":
    atomic._flock = lambda folder: None
with atomic.folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another(folder: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("how", ["folder", "file"])
def test_a_folder_has_one_writer_and_a_killed_one_is_no_hindrance(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "file" or os.name == "nt":
        monkeypatch.setattr(atomic, "_flock", lambda folder: None)
    with held_by_another(tmp_path / "run", how):
        with pytest.raises(RequestError, match="another biossl process is writing there; wait for it") as caught:
            with atomic.folder_lock(tmp_path / "run"):
                raise AssertionError
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    with atomic.folder_lock(tmp_path / "run"):  # killed, not ended: nothing was given back
        (tmp_path / "run" / "mine").write_text("x")
    with atomic.folder_lock(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path / "run") == ["mine"]


def test_a_lock_file_of_another_machine_or_unreadable_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_flock", lambda folder: None)
    for text in ("another-machine 1", "", "half"):
        (tmp_path / ".lock").write_text(text)
        with pytest.raises(RequestError, match=r"remove .*\.lock when none is"), atomic.folder_lock(tmp_path):
            raise AssertionError
        assert (tmp_path / ".lock").read_text() == text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    read, write = os.pipe()
    with atomic.folder_lock(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(write, b"x")
            signal.pause()
            os._exit(0)
        os.read(read, 1)
    try:
        with atomic.folder_lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_a_file_cannot_be_locked_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(RequestError, match="is a file; give a folder"), atomic.folder_lock(tmp_path / "a"):
        raise AssertionError
