"""Progress on a log file: a line now and then, none twice, no rate of 0."""

import pytest

from biossl import progress
from biossl.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_last_line_is_not_printed_twice(clock, capsys):
    with Progress(2, "heads", "fits") as bar:
        clock[0] += 11
        bar.update()
        clock[0] += 11
        bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" fits")[0] for line in lines] == ["heads: 1/2", "heads: 2/2"]


def test_slow_work_shows_seconds_each_not_a_rate_of_0(clock, capsys):
    with Progress(3, "heads", "fits") as bar:
        clock[0] += 40
        bar.update()
    assert capsys.readouterr().err == "heads: 1/3 fits, 40.0 s each, 80 s left\n"


def test_nothing_done_prints_nothing(clock, capsys):
    with Progress(3, "heads", "fits"):
        pass
    assert capsys.readouterr().err == ""
