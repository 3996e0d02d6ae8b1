"""``biossl convert``, ``label`` and ``split`` from the command line: one line and the right exit code, never a traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from wfdb_folder import write_card, write_record

from biossl.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``src`` with six records of three people, ``card.yaml`` and the converted ``corpus``."""
    place = tmp_path_factory.mktemp("cli")
    for i, name in enumerate(("a1", "a2", "b1", "b2", "c1", "c2")):
        write_record(place / "src", name, seed=i)
    write_card(place / "card.yaml", expected={"records": 8, "subjects": 3})
    assert (
        main(
            [
                "convert",
                str(place / "card.yaml"),
                str(place / "src"),
                str(place / "corpus"),
                "--view",
                "main",
                "--partial",
                "--jobs",
                "1",
            ]
        )
        == 0
    )
    return place


def test_convert_prints_the_cohorts_way(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "convert",
        str(place / "card.yaml"),
        str(place / "src"),
        str(tmp_path / "c"),
        "--view",
        "main",
        "--partial",
        "--jobs",
        "1",
    ]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert re.search(r"records found +6\n", out) and re.search(r"windows +30  \(2 s each, of 3 subjects\)", out)
    assert "finding: 6 records found, the card expects 8" in out and "convert: 6/6 records" in err


def test_json_is_one_object_on_stdout(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "convert",
        str(place / "card.yaml"),
        str(place / "src"),
        str(tmp_path / "c"),
        "--view",
        "main",
        "--partial",
        "--jobs",
        "1",
        "--json",
    ]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["funnel"]["windows"] == 30 and "records found" in err


def _convert(
    place: Path, card: str = "card.yaml", source: str = "src", corpus: str = "new", view: str = "main", *more: str
) -> list[str]:
    return ["convert", str(place / card), str(place / source), str(place / corpus), "--view", view, "--jobs", "1", *more]


def _cases(place: Path) -> dict[str, tuple[list[str], int, str]]:
    corpus = str(place / "corpus")
    table = place / "t.csv"
    table.write_text("record,part,v\na1,train,1\na2,test,0\nb1,train,\n")
    return {
        "card missing": (_convert(place, card="none.yaml"), 2, "none.yaml: no such file"),
        "source missing": (_convert(place, source="none"), 2, "none: no such folder"),
        "view unknown": (_convert(place, view="mian"), 2, "did you mean 'main'"),
        "output exists": (_convert(place, corpus="corpus"), 2, "finished corpus; choose another folder or add --overwrite"),
        "fewer than expected": (_convert(place), 4, "6 of 8 records are there; complete the copy, or add --partial"),
        "corpus missing": (["split", str(place / "none"), "--name", "x"], 2, "no such folder"),
        "not a corpus": (["split", str(place / "src"), "--name", "x"], 2, "not a corpus"),
        "label absent": (["split", corpus, "--name", "x", "--stratify", "sex"], 4, "no label 'sex'"),
        "ids that match nothing": (["label", corpus, str(table), "--key", "subject", "--name", "v"], 2, "no column 'subject'"),
        "no process": ([*_convert(place, corpus="c0"), "--partial", "--jobs", "0"], 2, "--jobs 0: give 1 or more"),
        "negative seed": (["split", corpus, "--name", "x", "--seed", "-1"], 2, "--seed -1"),
        "unknown option": (["label", corpus, str(table), "--key", "record", "--name", "v", "--nearst", "x"], 2, "nearst"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        "card missing", "source missing", "view unknown", "output exists", "fewer than expected", "corpus missing", "not a corpus",
        "label absent", "ids that match nothing", "no process", "negative seed", "unknown option",
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(place: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    words, code, text = _cases(place)[case]
    try:
        found = main(words)
    except SystemExit as stop:
        found = int(str(stop.code))
    out, err = capsys.readouterr()
    assert found == code and text in err, err
    assert out == "" and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not (place / "c0").exists()


def test_every_file_bad_is_exit_4_and_some_bad_is_exit_0(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "src", "a1", seed=1)
    (tmp_path / "src" / "b1.hea").write_text("")
    (tmp_path / "src" / "c1.hea").write_bytes((tmp_path / "src" / "a1.hea").read_bytes().replace(b"a1", b"c1"))
    (tmp_path / "src" / "d1.hea").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    write_card(tmp_path / "card.yaml")
    assert main(_convert(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert re.search(r"quarantined +3", out) and "Traceback" not in err
    lines = (tmp_path / "new" / "quarantine.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["record", "b1", "c1", "d1"] and str(tmp_path) not in "".join(lines)
    (tmp_path / "src" / "a1.dat").unlink()
    assert main(_convert(tmp_path, corpus="none")) == 4
    assert "nothing could be converted, 4 records" in capsys.readouterr().err


def test_label_and_split(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = str(place / "corpus")
    (tmp_path / "l.csv").write_text("subject,sex\na,m\nb,f\nz,f\n")
    assert main(["label", corpus, str(tmp_path / "l.csv"), "--key", "subject", "--name", "sex"]) == 0
    assert "2 of 3 subject ids matched (1 not in the corpus, 1 subjects without a label); 20 windows" in capsys.readouterr().out
    assert main(["split", corpus, "--name", "cv", "--folds", "3", "--stratify", "sex", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [n for n in report["notes"] if "label 'sex'" in n] and all(f"note: {n}\n" in err for n in report["notes"])
    assert main(["split", corpus, "--name", "cv2", "--folds", "3"]) == 0
    out, err = capsys.readouterr()
    assert "note" not in out and "note: fold 0: label 'sex' has " in err
    assert report["counts"]["0"] == {"subjects": 1, "recordings": 2, "windows": 10} and re.fullmatch(
        "[0-9a-f]{64}", report["hash"]
    )
    (tmp_path / "s.csv").write_text("record,part\na1,train\na2,test\nb1,train\n")
    assert main(["split", corpus, "--name", "x", "--csv", str(tmp_path / "s.csv"), "--key", "record"]) == 4
    assert "1 of 2 subjects are in more than one part" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["convert", "label", "split"])
def test_help_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0 and f"biossl {verb} " in " ".join(capsys.readouterr().out.split())


@pytest.mark.data
@pytest.mark.parametrize(
    ("card", "folder", "view", "windows"),
    [("eegmat", "eegmat", "rest_task", 597), ("ludb", "ludb", "resting", 140), ("eegmmidb", "eegmmidb_s001", "hands_feet", 75)],
)
def test_real_sets(card: str, folder: str, view: str, windows: int, tmp_path: Path, data_root: Path) -> None:
    from biossl.corpus import Corpus

    words = ["convert", card, str(data_root / folder), str(tmp_path / "c"), "--view", view, "--partial"]
    assert main(words) == 0
    corpus = Corpus.open(tmp_path / "c")
    corpus.verify()
    assert len(corpus) == windows
    if card == "ludb":
        waves = corpus.events[corpus.events["kind"] == "wave"]["label"].value_counts().to_dict()
        assert waves == {"N": 15_425, "t": 13_805, "p": 11_076}
    if card == "eegmmidb":
        assert corpus.labels("hands_feet").counts() == {"hands": 36, "feet": 39}
