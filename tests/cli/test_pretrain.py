"""``biossl pretrain`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_factory import make_corpus
from training_toys import SMALL

from biossl.checkpoint import load_encoder
from biossl.cli import main, take_overrides
from biossl.cli.pretrain import parse_corpus
from biossl.corpus import make_split
from biossl.errors import RequestError

OVERRIDES = [word for key, value in SMALL.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("cli")
    a = make_corpus(root / "site_a", modality="imu", n_samples=64)
    b = make_corpus(root / "site_b", modality="imu", n_subjects=3, n_samples=64, name="synthetic_b")
    return [str(a.path), str(b.path)]


def test_one_command_trains_and_json_is_one_object(
    corpora: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "pretrain",
        "imu/jepa_small",
        corpora[0],
        f"{corpora[1]}=0.5",
        *OVERRIDES,
        "--train.steps=4",
        "--seed",
        "3",
        "--json",
    ]
    assert main(words) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["run"] == "runs/imu_jepa_small-site_a+site_b" and result["steps"] == 4 and result["resumed_from"] is None
    first = err.splitlines()[0]
    assert "M parameters" in first and "48 windows" in first and "4 steps of 8 windows" in first and "site_a, site_b" in first
    assert load_encoder(result["encoder"]).dim == 16
    assert main(words) == 2
    assert "exists, a finished run" in capsys.readouterr().err


def test_the_next_command_names_the_split_that_was_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = make_corpus(tmp_path / "bare", modality="imu", n_subjects=9, n_samples=64, splits={})
    words = ["pretrain", "imu/jepa_small", str(bare.path), *OVERRIDES, "--train.steps", "1", "--overwrite", "--out"]
    assert main([*words, str(tmp_path / "all")]) == 0
    out, err = capsys.readouterr()
    assert "no split; all 72 windows" in err and out.rstrip().endswith("--label NAME")
    make_split(bare, "cv", folds=3)
    assert main([*words, str(tmp_path / "one")]) == 0
    out, err = capsys.readouterr()
    assert "bare: split 'cv' is used, the only one" in err and out.rstrip().endswith("--label NAME --splits cv")
    make_split(bare, "other")
    assert main([*words, str(tmp_path / "two")]) == 2
    assert "several splits (cv, other)" in capsys.readouterr().err and not (tmp_path / "two").exists()
    assert main([*words, str(tmp_path / "two"), "--splits", "cv:2"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("--label NAME --splits cv:2")


@pytest.mark.parametrize(
    ("extra", "code", "text"),
    [
        (["--train.stepz", "4"], 2, "did you mean 'steps'"),
        (["--train.steps"], 2, "--train.steps: no value given"),
        (["--splits", "nosuch"], 4, "no split 'nosuch'"),
        (["--init", "nowhere"], 2, "no such encoder folder"),
        (["--monitor.probe.label", "grup"], 2, "no corpus has 'grup'"),
        (["--train.accumulate", "3"], 2, "not divisible by train.accumulate"),
        (["--data.channels", "[acc_x, ecg_v1]"], 4, "no channel ecg_v1"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    extra: list[str], code: int, text: str, corpora: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "imu/jepa_small", corpora[0], *OVERRIDES, "--out", str(tmp_path / "run"), *extra]) == code
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1 and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_words_of_the_command() -> None:
    assert take_overrides(["a", "--x.y", "-1", "--out=b.c", "--p.q=[1, 2]"]) == (
        ["a", "--out=b.c"],
        {"x.y": "-1", "p.q": "[1, 2]"},
    )
    assert parse_corpus("x=y/z=2") == ("x=y/z", 2.0)
    with pytest.raises(RequestError, match="the weight 'two' is not a number"):
        parse_corpus("a=two")
