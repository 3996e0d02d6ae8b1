"""The command's frame: help is light, verbs are found or suggested, every verb shows an example, JSON stays alone on stdout."""

import json
import subprocess
import sys

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
