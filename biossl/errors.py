"""Every error a user can cause, with the exit code the command line gives it.

What lives here: exception classes only. A message is one line: the place (file, key, row), what is wrong,
what to do about it. Nothing here imports anything else of biossl.
"""

from __future__ import annotations


class BiosslError(Exception):
    """Base of all errors meant for a person.

    Parameters
    ----------
    message : str
        One line: place, fault, remedy. Line breaks are folded to spaces.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class RequestError(BiosslError):
    """The request is wrong: unknown key, missing path, output that exists (exit code 2)."""

    exit_code = 2


class MachineError(BiosslError):
    """The machine cannot do it: disk full, out of memory (exit code 3)."""

    exit_code = 3


class DataError(BiosslError):
    """The data do not allow it: subjects shared by splits, label absent, rate that differs (exit code 4)."""

    exit_code = 4


class RecordError(DataError):
    """One recording cannot be used. Quarantined by ``convert``, a finding for ``inspect``.

    Parameters
    ----------
    code : str
        Stable machine-readable code, e.g. ``unknown_unit``, ``truncated``, ``bad_checksum``, ``lying_header``,
        ``zero_gain``, ``wrong_format``, ``missing``, ``empty``, ``all_nan``, ``gap``, ``unreadable``.
    message : str
        One line, without the file's path where the caller adds it.
    path : str, optional
        The file, put before the message.
    """

    def __init__(self, code: str, message: str, path: str | None = None) -> None:
        self.code = code
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_record_error, (self.code, str(self), self.path))


def _rebuild_record_error(code: str, text: str, path: str | None) -> RecordError:
    """Rebuild after crossing a process border without adding the path a second time."""
    error = RecordError(code, text)
    error.path = path
    return error
