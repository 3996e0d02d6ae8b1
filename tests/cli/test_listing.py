"""``biossl list``: what is packaged, one line each, and copies to edit."""

import json

import pytest

from biossl import cli
from biossl.recipe import load_recipe
from biossl.resources import resource, resources


def run(capsys, *argv):
    code = cli.main(["list", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(("kind", "folder"), [("recipes", "recipes"), ("cards", "data_cards")])
def test_every_packaged_file_is_named_with_a_line(capsys, kind, folder):
    code, out, _ = run(capsys, kind)
    names = [n.removesuffix(".yaml") for n in resources(folder)]
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == names
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in out.splitlines())


def test_formats_and_encoders(capsys):
    code, out, _ = run(capsys, "formats")
    assert code == 0 and {"wfdb", "edf", "table"} <= {line.split()[0] for line in out.splitlines()}
    code, out, _ = run(capsys, "encoders", "--json")
    assert code == 0 and "transformer" in json.loads(out)["encoders"]


def test_a_copy_is_the_same_file_and_can_be_used(capsys, tmp_path):
    code, out, _ = run(capsys, "recipes", "--copy", "ecg/jepa_small", tmp_path / "sub" / "mine.yaml")
    assert code == 0 and "mine.yaml" in out
    assert (tmp_path / "sub" / "mine.yaml").read_bytes() == resource("recipes/ecg/jepa_small.yaml").read_bytes()
    assert load_recipe(tmp_path / "sub" / "mine.yaml").hash == load_recipe("ecg/jepa_small").hash
    assert run(capsys, "cards", "--copy", "hapt", tmp_path)[0] == 0 and (tmp_path / "hapt.yaml").is_file()


def test_what_exists_is_not_replaced_unless_asked(capsys, tmp_path):
    target = tmp_path / "a.yaml"
    target.write_text("mine")
    code, _, err = run(capsys, "recipes", "--copy", "ecg/jepa", target)
    assert code == 2 and "exists" in err and target.read_text() == "mine"
    assert run(capsys, "recipes", "--copy", "ecg/jepa", target, "--overwrite")[0] == 0 and target.read_text() != "mine"


@pytest.mark.parametrize(
    ("argv", "text"),
    [(["recipes", "--copy", "ecg/jep", "x"], "did you mean 'ecg/jepa'?"), (["formats", "--copy", "edf", "x"], "are no files")],
)
def test_a_wrong_name_is_one_line(capsys, argv, text):
    code, _, err = run(capsys, *argv)
    assert code == 2 and text in err and err.count("\n") == 1


def test_a_copy_that_cannot_be_written_leaves_nothing(capsys, tmp_path, monkeypatch):
    import errno

    from biossl import atomic

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "_fsync_file", full)
    code, out, err = run(capsys, "recipes", "--copy", "ecg/jepa_small", str(tmp_path / "x.yaml"))
    assert code == 3 and out == "" and "x.yaml: the disk is full" in err and list(tmp_path.iterdir()) == []
