"""The command's frame: help is light, verbs are found or suggested, every verb shows an example, JSON stays alone on stdout."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from biossl import cli
from biossl.errors import DataError


def run(*argv):
    return subprocess.run([sys.executable, "-m", "biossl", *argv], capture_output=True, text=True)


def test_help_names_every_verb():
    out = run("--help")
    assert out.returncode == 0
    assert all(f"  {verb} " in out.stdout for verb in cli.VERBS)


def test_an_unknown_verb_is_one_line_with_the_nearest():
    out = run("pretrian")
    assert out.returncode == 2 and out.stdout == ""
    assert out.stderr.strip() == "biossl: no verb 'pretrian'; did you mean pretrain? `biossl --help` names them"


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_helps_with_an_example_and_json(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"biossl {verb}" in text.split("example:")[1] and "--json" in text


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_refuses_an_unknown_option_in_one_line(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--no-such-option"])
    err = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and err.startswith(f"biossl {verb}: ") and "\n" not in err


def test_a_data_error_is_one_line_and_exit_4(monkeypatch, capsys):
    from biossl.cli import listing as list_verb

    def fail(args):
        raise DataError("corpus x: subject 7 is in train and test; make the split by subject")

    monkeypatch.setattr(list_verb, "run", fail)
    assert cli.main(["list", "recipes"]) == 4
    captured = capsys.readouterr()
    assert (
        captured.err == "biossl list: corpus x: subject 7 is in train and test; make the split by subject\n"
        and captured.out == ""
    )


def test_json_is_one_object_on_stdout_and_text_goes_to_stderr(monkeypatch, capsys):
    from biossl.cli import listing as list_verb

    def answer(args):
        cli.say("for people")
        return {"n": 1}

    monkeypatch.setattr(list_verb, "run", answer)
    assert cli.main(["list", "recipes", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"n": 1} and captured.err == "for people\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pretrian", "--json"], 2), (["list", "bogus", "--json"], 2), (["list", "--json"], 2),
        (["pretrain", "a", "--train.steps", "--json"], 2), (["inspect", "/nowhere", "--json"], 2), (["list", "--jso", "cards"], 2),
    ],
)  # fmt: skip
def test_a_failure_is_one_json_object_too(words, code, capsys):
    try:
        found = cli.main(words)
    except SystemExit as stop:
        found = stop.code
    captured = capsys.readouterr()
    assert found == code and captured.err.count("\n") == 1
    if "--json" in words:
        said = json.loads(captured.out)
        assert said["exit_code"] == code and said["error"] in captured.err
    else:
        assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("x: y; z"), 4), (KeyboardInterrupt(), 130), (MemoryError(), 3), (OSError(28, "full", "f"), 3), (ZeroDivisionError(), 1)],
)  # fmt: skip
def test_whatever_goes_wrong_stdout_holds_one_object(error, code, monkeypatch, capsys):
    from biossl.cli import listing as list_verb

    def fail(args):
        print("a library that prints")
        raise error

    monkeypatch.setattr(list_verb, "run", fail)
    if code == 1:
        with pytest.raises(ZeroDivisionError):
            cli.main(["list", "recipes", "--json"])
    else:
        assert cli.main(["list", "recipes", "--json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit_code"] == code and "a library that prints" in captured.err


def test_numbers_that_are_not_finite_are_null(monkeypatch, capsys):
    from biossl.cli import listing as list_verb

    monkeypatch.setattr(
        list_verb, "run", lambda args: {"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": ({1: None},)}
    )
    assert cli.main(["list", "recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 3], "c": [{"1": None}]}


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(f"'{sys.executable}' -m biossl list cards | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="bash",
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_sigterm_ends_a_verb_in_one_line_and_leaves_no_litter(tmp_path):
    """As a queue's cancel does it: the block that writes is left as by Ctrl-C."""
    code = (
        "import sys, time; from biossl import atomic, cli; from biossl.cli import listing\n"
        "def run(args):\n"
        f"    with atomic.atomic_file({str(tmp_path / 'a')!r}) as part:\n"
        "        part.write_text('half'); print('begun', flush=True); time.sleep(60)\n"
        "listing.run = run; sys.argv = ['biossl', 'list', 'cards']; cli.entry()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "begun\n" and len(list(tmp_path.iterdir())) == 1
    child.terminate()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and err.count("\n") == 1 and "stopped" in err
    assert list(tmp_path.iterdir()) == []


def test_text_that_the_terminal_cannot_show_is_no_error(tmp_path):
    code = (
        "import sys; from biossl import cli; from biossl.cli import listing\n"
        "listing.run = lambda args: cli.say('caf\\udcff \\u00b5') or {}\n"
        "sys.argv = ['biossl', 'list', 'cards']; cli.entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout == b"caf\\udcff \\xb5\n"
