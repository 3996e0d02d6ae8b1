"""Conversion: a bad file costs a line, a kill costs nothing, and names of a private set stay where they are."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_toys import TABLES, Bad, hashes, run, small_shards
from corpus_factory import SyntheticLoader, make_corpus, synthetic_card, synthetic_tasks
from wfdb_folder import card_facts, write_card, write_record

from biossl.atomic import folder_lock
from biossl.config import build
from biossl.corpus import Corpus, convert
from biossl.corpus.card import Card
from biossl.corpus.convert import convert_tasks
from biossl.errors import DataError, MachineError, RequestError

# ---------------------------------------------------------------------- bad files


def test_a_bad_file_costs_one_line_and_moves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    run(tmp_path / "good")
    result = run(tmp_path / "bad", Bad({"r002": "record error", "r003": "any error", "r005": "short"}))
    with open(tmp_path / "bad" / "quarantine.csv") as f:
        lines = list(csv.reader(f))
    assert lines == [
        ["record", "code", "message"],
        ["r002", "truncated", "r002.dat: ends early; copy it again"],
        ["r003", "unreadable", "IndexError: list index out of range; look at it with `biossl inspect`"],
        ["r005", "no_windows", "no window could be cut (1 short)"],
    ]
    good, bad = hashes(tmp_path / "good"), hashes(tmp_path / "bad")
    assert good["shard-00000.h5"] == bad["shard-00000.h5"] and good["shard-00001.h5"] != bad["shard-00001.h5"]
    corpus = Corpus.open(tmp_path / "bad")
    assert corpus.index["record"].unique().tolist() == ["r000", "r001", "r004"]
    assert result["funnel"] == {
        "files_found": 6, "quarantined": {"no_windows": 1, "truncated": 1, "unreadable": 1}, "records_read": 4,
        "records_with_windows": 3, "windows_dropped": {"short": 1}, "windows": 12, "subjects": 3,
    }  # fmt: skip
    np.testing.assert_array_equal(
        corpus.signal([11])[0], SyntheticLoader(4)(corpus.card, "main", synthetic_tasks()[4])[0].data[3]
    )


@pytest.mark.slow
def test_a_file_that_kills_its_reader_costs_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    run(tmp_path / "c", Bad({"r002": "crash"}), n_jobs=2)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.index["record"].nunique() == 5
    assert (tmp_path / "c" / "quarantine.csv").read_text().splitlines()[1].startswith("r002,crashed,")


def test_nothing_converted_is_an_error_and_mended_files_are_read_again(tmp_path: Path) -> None:
    every = {f"r{i:03d}": "record error" for i in range(6)}
    with pytest.raises(DataError, match="nothing could be converted, 6 records.*6 truncated.*quarantine.csv") as caught:
        run(tmp_path / "c", Bad(every))
    assert caught.value.exit_code == 4 and os.listdir(tmp_path / "c") == ["quarantine.csv"]
    run(tmp_path / "c")
    assert len(Corpus.open(tmp_path / "c")) == 24


def test_a_message_cannot_become_a_formula(tmp_path: Path) -> None:
    tasks = synthetic_tasks(2)
    tasks[0] = type(tasks[0])(**(vars(tasks[0]) | {"record": "=1+1"}))
    convert_tasks(
        synthetic_card(n_channels=1), tasks, tmp_path / "c", view="main", load=Bad({"=1+1": "any error"}), n_jobs=1
    )  # fmt: skip
    assert "'=1+1,unreadable" in (tmp_path / "c" / "quarantine.csv").read_text()


# ---------------------------------------------------------------------- again, resumed, in parallel


def test_again_and_in_parallel_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    for name, n_jobs in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, n_jobs=n_jobs)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == hashes(tmp_path / "c")


KILLED = """
import sys, time
from pathlib import Path
from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks
from biossl.corpus.convert import convert_tasks
sys.modules["biossl.corpus.shardplan"]._SHARD_RECORDS = 2
class Slow(SyntheticLoader):
    def __call__(self, *args):
        time.sleep(0.05)
        return super().__call__(*args)
convert_tasks(synthetic_card(n_channels=2, public=sys.argv[2] == "public"), synthetic_tasks(16), sys.argv[1], view="main", load=Slow(4), n_jobs=1)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("public", ["public", pytest.param("private", marks=pytest.mark.slow)])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: str) -> None:
    small_shards(monkeypatch)
    out = tmp_path / "killed"
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    kept: set[str] = set()
    for wanted in (1, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out), public], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while len(list(out.glob("shard-*.json"))) < wanted and child.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (out / "spec.json").exists(), "the child was too fast for this test"
        stamps = {f"{p.name} {p.stat().st_mtime_ns}" for p in out.glob("shard-*.h5")}
        assert kept <= stamps, "a shard that was whole was made again"
        kept = {s for s in stamps if (out / s.split(".")[0]).with_suffix(".json").exists()}
        with pytest.raises(RequestError, match="has not ended"):
            Corpus.open(out)
    (out / ".shard-00003.h5.partial-1-ab").write_text("half")
    facts = {"public": public == "public"}
    run(out, n=16, facts=facts)
    whole = tmp_path / "whole"
    if public == "private":
        whole.mkdir()
        (whole / "secret.key").write_bytes((out / "secret.key").read_bytes())
        os.chmod(whole / "secret.key", 0o600)
    run(whole, n=16, facts=facts)
    a, b = hashes(out), hashes(whole)
    a.pop(".gitignore", None), b.pop(".gitignore", None)
    assert a == b and set(TABLES) < set(a) and not any("json" in n and "shard" in n or "partial" in n for n in a)


def test_a_shard_damaged_between_runs_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    run(tmp_path / "whole")

    class Stop(SyntheticLoader):
        def __call__(self, card: Any, view: str, task: Any) -> Any:
            if task.record == "r004":
                raise MachineError("the disk is full")
            return super().__call__(card, view, task)

    with pytest.raises(MachineError):
        run(tmp_path / "c", Stop(4))
    shard = tmp_path / "c" / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-7])
    run(tmp_path / "c")
    assert hashes(tmp_path / "c") == hashes(tmp_path / "whole")


def test_an_unfinished_conversion_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", _interrupt)
    for change, words in (({"n": 5}, "list of files"), ({"facts": {"citation": "other"}}, "card")):
        with pytest.raises(RequestError, match=f"unfinished conversion with another {words}.*--overwrite"):
            run(tmp_path / "c", **change)
    run(tmp_path / "c", n=5, overwrite=True)
    assert Corpus.open(tmp_path / "c").funnel["files_found"] == 5


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    run(tmp_path / "whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))  # the plan fits, a shard does not
    try:
        with pytest.raises(MachineError, match="shard-00000.h5") as caught:
            run(tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 3 and not list((tmp_path / "c").glob("*partial*"))
    run(tmp_path / "c")
    assert hashes(tmp_path / "c") == hashes(tmp_path / "whole")


# ---------------------------------------------------------------------- what is refused


def test_a_finished_corpus_is_not_overwritten_unasked(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "c", n_channels=2)
    before = hashes(made.path)
    with pytest.raises(RequestError, match="finished corpus.*--overwrite"):
        run(made.path)
    assert hashes(made.path) == before
    (made.path / "labels").mkdir()
    (made.path / "labels" / "mine.parquet").write_bytes(b"x")
    run(made.path, overwrite=True)
    assert len(Corpus.open(made.path)) == 24 and (made.path / "labels" / "mine.parquet").exists()


def test_a_folder_with_other_files_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(RequestError, match="holds other files \\(thesis.txt\\)"):
            run(tmp_path, overwrite=overwrite)
    with pytest.raises(RequestError, match="is a file"):
        run(tmp_path / "thesis.txt")


def test_a_part_of_a_set_is_converted_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6 of 1,000 records are there.*--partial") as caught:
        run(tmp_path / "c", facts={"expected": {"records": 1000, "subjects": 6}})
    assert caught.value.exit_code == 4 and not (tmp_path / "c").exists()
    result = run(tmp_path / "c", facts={"expected": {"records": 1000}}, partial=True)
    assert "6 records found, the card expects 1,000" in result["findings"]


def test_wrong_view_and_jobs(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--view 'mian'.*did you mean 'main'"):
        convert_tasks(synthetic_card(), synthetic_tasks(), tmp_path / "c", view="mian", load=SyntheticLoader())
    with pytest.raises(RequestError, match="--jobs 0"):
        run(tmp_path / "c", n_jobs=0)


# ---------------------------------------------------------------------- from files


def test_from_wfdb_files_bit_exact(tmp_path: Path, source: Path) -> None:
    (source / "b1.dat").write_bytes((source / "b1.dat").read_bytes()[:-100])
    convert(build(Card, card_facts(), where="card"), source, tmp_path / "c", view="main", n_jobs=1)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.index.groupby("record").size().to_dict() == {"a1": 5, "a2": 5, "c1": 5}
    assert "b1," in (tmp_path / "c" / "quarantine.csv").read_text()
    raw = np.frombuffer((source / "c1.dat").read_bytes(), "<i2").reshape(5, 200, 3).transpose(0, 2, 1)
    counts, scale, offset = corpus.read(range(10, 15))
    np.testing.assert_array_equal(counts, raw)
    assert np.unique(scale).tolist() == [np.float32(1 / 200)] and not offset.any()
    np.testing.assert_array_equal(corpus.signal(range(10, 15)), (raw / 200.0).astype(np.float32))


def test_files_that_change_between_runs_are_noticed(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = build(Card, card_facts(), where="card")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sys.modules["biossl.corpus.convert"], "load_windows", _interrupt)
        convert(card, source, tmp_path / "c", view="main", n_jobs=1)
    write_record(source, "c1", seed=3, n=1400)
    with pytest.raises(RequestError, match="another list of files"):
        convert(card, source, tmp_path / "c", view="main", n_jobs=1)
    convert(card, source, tmp_path / "c", view="main", n_jobs=1, overwrite=True)


def test_the_card_may_be_a_path(tmp_path: Path, source: Path) -> None:
    card = write_card(tmp_path / "card.yaml")
    convert(card, source, tmp_path / "c", view="main", n_jobs=1)
    assert Corpus.open(tmp_path / "c").card == build(Card, card_facts(), where="card")


def test_files_that_look_like_recordings_and_match_nothing_are_told(tmp_path: Path, source: Path) -> None:
    (source / "b1.hea").rename(source / "Ada Zebrowski.hea")
    (source / "walk.csv").write_text("time,I\n0.00,1\n0.01,2\n")
    (source / "patients.csv").write_text("id,age\n1,50\n2,60\n")
    (source / "README.txt").write_text("Two lines\nof text\n")
    for public in (True, False):
        out = tmp_path / str(public)
        result = convert(build(Card, card_facts(public=public), where="card"), source, out, view="main", n_jobs=1)
        assert result["unmatched"] == 2 and result["unmatched_files"] == (["Ada Zebrowski.hea", "walk.csv"] if public else [])
        (note,) = [n for n in Corpus.open(out).findings if "match no pattern" in n]
        assert note.startswith("2 files look like recordings") and ("Zebrowski" in note) == public
        held = [f.name for f in out.rglob("*") if f.is_file() and b"Zebrowski" in f.read_bytes()]
        assert held == (["spec.json"] if public else ["private_paths.csv"])


def test_what_the_card_uses_otherwise_is_no_stray_file(tmp_path: Path, source: Path) -> None:
    (source / "times.csv").write_text("record,time\na1,1.5\na2,2.5\n")
    (source / "a1s.hea").write_text((source / "a1.hea").read_text())
    (source / "c1.hea").write_text("c1/1 3 100 1000\na1s 1000\n")
    facts = card_facts(tables=[{"file": "times.csv", "key": "record", "columns": {"time": "hour"}}])
    convert(build(Card, facts, where="card"), source, tmp_path / "c", view="main", n_jobs=1)
    assert not [n for n in Corpus.open(tmp_path / "c").findings if "pattern" in n]


def test_a_corpus_is_never_made_among_the_recordings(tmp_path: Path, source: Path) -> None:
    before = hashes(source)
    for out in (source, source / "corpus", source / ".." / "src" / "x"):
        with pytest.raises(RequestError, match="is the folder of the recordings|lies inside the source") as caught:
            convert(build(Card, card_facts(), where="card"), source, out, view="main", n_jobs=1)
        assert "new folder" in str(caught.value)
    assert hashes(source) == before
    with pytest.raises(RequestError, match="new folder with `biossl convert CARD .*src corpora/src --view NAME`"):
        Corpus.open(source)


def test_a_kill_right_before_the_end_leaves_nothing_behind(tmp_path: Path) -> None:
    run(tmp_path / "c", SyntheticLoader(2))
    whole = hashes(tmp_path / "c")
    for name in ("plan.json", "shard-00000.json", "shard-00001.json"):
        (tmp_path / "c" / name).write_text("{}")
    with pytest.raises(RequestError, match="holds a finished corpus"):
        run(tmp_path / "c", SyntheticLoader(2))
    assert hashes(tmp_path / "c") == whole


def test_a_corpus_folder_has_one_writer(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "c"), pytest.raises(RequestError, match="another biossl process is writing there"):
        run(tmp_path / "c", SyntheticLoader(2))
    run(tmp_path / "c", SyntheticLoader(2))


# ---------------------------------------------------------------------- real recordings


@pytest.mark.data
def test_hapt_windows_and_labels_are_the_official_ones(tmp_path: Path, data_root: Path) -> None:
    import zipfile

    convert("hapt", data_root / "hapt", tmp_path / "c", view="activity")
    corpus = Corpus.open(tmp_path / "c")
    part, label = corpus.split().to_numpy(), corpus.labels("activity").values[:, 0]
    assert len(corpus) == 10_929
    with zipfile.ZipFile(next((data_root / "hapt").glob("*.zip"))) as archive:
        for name, count in (("train", 7767), ("test", 3162)):
            member = next(n for n in archive.namelist() if n.endswith(f"y_{name}.txt"))
            official = np.array(archive.read(member).decode().split(), int)
            assert (part == name).sum() == count
            np.testing.assert_array_equal(label[part == name] + 1, official)


@pytest.mark.data
def test_ptbxl_is_lossless_and_has_its_superclasses(tmp_path: Path, data_root: Path) -> None:
    from biossl.corpus.views import cut, discover, load_record

    convert("ptbxl", data_root / "ptbxl_subset", tmp_path / "c", view="resting", partial=True)
    corpus = Corpus.open(tmp_path / "c")
    assert len(corpus) == 353 and corpus.index["subject"].nunique() == 339
    assert corpus.labels("superclass").counts() == {"NORM": 225, "MI": 49, "STTC": 59, "CD": 57, "HYP": 25}
    tasks = discover(corpus.card, data_root / "ptbxl_subset", "resting")
    for row in range(0, 353, 37):
        source = cut(corpus.card, "resting", load_record(corpus.card, tasks[row]))
        np.testing.assert_array_equal(corpus.signal([row]), source.data)


@pytest.mark.data
def test_native_mitdb_comes_back_bit_exact(tmp_path: Path, data_root: Path) -> None:
    from biossl.corpus.card import View, load_card
    from biossl.corpus.views import cut, discover, load_record

    card = load_card("mitdb")
    chest = next(c for c in card.views["beats"].channels if c != "MLII") if len(card.views["beats"].channels) > 1 else ""
    card.views["native"] = View(360.0, 10.0, 10.0, ["MLII", *([chest] if chest else [])], files="10[0135]")
    convert(card, data_root / "mitdb", tmp_path / "c", view="native", partial=True)
    corpus = Corpus.open(tmp_path / "c")
    stop = 0
    for task in discover(card, data_root / "mitdb", "native"):
        source = cut(card, "native", load_record(card, task))
        start, stop = stop, stop + len(source.data)
        assert source.lsb is not None
        np.testing.assert_array_equal(corpus.signal(range(start, stop)), source.data)
    assert stop == len(corpus) > 500
