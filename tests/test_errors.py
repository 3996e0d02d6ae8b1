"""Errors for people: one line, the right exit code, and whole after crossing a process border."""

import pickle

import pytest

from biossl.errors import BiosslError, DataError, MachineError, RecordError, RequestError


@pytest.mark.parametrize(("error", "code"), [(RequestError, 2), (MachineError, 3), (DataError, 4)])
def test_exit_codes(error, code):
    assert error("x").exit_code == code and issubclass(error, BiosslError)


def test_a_message_is_one_line():
    assert str(RequestError("a\n  b\tc")) == "a b c"


def test_record_error_survives_a_worker_process():
    error = RecordError("truncated", "holds 3 of 5 samples; fetch it again", "a/b.dat")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.code, back.path, back.exit_code) == (
        "a/b.dat: holds 3 of 5 samples; fetch it again",
        "truncated",
        "a/b.dat",
        4,
    )
