"""Cards: every packaged one keeps the contract, a faulty one is one line, a draft says what it cannot know."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from biossl.channels import canonical
from biossl.cli import main
from biossl.corpus.card import Card, load_card
from biossl.corpus.card_check import covariate_names, event_kinds, parse_channel, unfinished
from biossl.corpus.naming import name_pattern
from biossl.corpus.views import cut, discover, load_record, view_spec
from biossl.errors import RequestError
from biossl.resources import resources
from biossl.signal import MODALITIES

PACKAGED = [n.removesuffix(".yaml") for n in resources("data_cards")]


def test_the_sets_that_have_signals_have_cards() -> None:
    want = "mitdb ptbxl ludb cinc2021 cpsc2021 bidmc eegmat eegmmidb hapt geotec_har wisdm2019".split()
    assert set(want) <= set(PACKAGED)


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_card_keeps_the_contract(name: str) -> None:
    card = load_card(name)
    assert card.name == name and card.public and card.modality in MODALITIES
    assert all((card.licence, card.citation, card.version, card.title)) and card.obtain.startswith("https://")
    assert card.expected and card.known_defects
    for view in card.views:
        spec = view_spec(card, view)
        assert spec.modality == card.modality and spec.n_samples == round(spec.window_s * spec.sfreq)
        assert all(kind != "other" for kind in spec.ch_types), spec.ch_names
        for text in card.views[view].channels:
            assert all(canonical(o, card.modality)[0] == o for o in parse_channel(text)[1])
        assert spec == type(spec).from_dict(spec.to_dict())
    for label in card.labels.values():
        assert label.column in covariate_names(card) if label.source == "covariate" else label.event_kind in event_kinds(card)
        if label.source == "event":
            assert any(v.policy != "sliding" and v.event_kind == label.event_kind for v in card.views.values())
    for split in card.splits.values():
        values = [v for part in split.parts.values() for v in part]
        assert len(values) == len(set(values)) and split.citation
        assert "train" in split.parts


def test_mitdb_leaves_the_paced_records_and_the_leaking_person_out() -> None:
    parts = load_card("mitdb").splits["official"].parts
    assert len(parts["train"]) == 22 and len(parts["test"]) == 21
    assert "201" in parts["train"] and "202" not in parts["test"]
    assert not {"102", "104", "107", "217"} & {*parts["train"], *parts["test"]}


def minimal(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "format": 1, "name": "my_set", "title": "t", "modality": "ecg", "licence": "l", "citation": "c", "version": "1",
        "obtain": "o",
        "files": [{"pattern": r"(?P<record>(?P<subject>\d+)_(?P<visit>\d))\.hea", "reader": "wfdb", "annotations": ["atr"]}],
        "native_sfreq": [500],
        "views": {"w": {"sfreq": 250, "window_s": 10, "stride_s": 10, "channels": ["I", "II"]}},
        "labels": {"beat": {"kind": "multiclass", "source": "overlap", "event_kind": "beat", "map": {"N": ["N"], "V": ["V"]}}},
        "splits": {"official": {"by": "subject", "parts": {"train": ["1", "2"], "test": ["3"]}}},
    }  # fmt: skip
    for path, value in changes.items():
        at = raw
        *head, last = path.split("__")
        for key in head:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})  # type: ignore[assignment]
        at[last] = value
    return raw


def load(tmp_path: Path, raw: dict[str, Any]) -> Card:
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return load_card(path)


def test_the_minimal_card_is_right(tmp_path: Path) -> None:
    assert load(tmp_path, minimal()).views["w"].stride_s == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"views__w__sfrq": 1}, "key 'views.w.sfrq' is not known; did you mean 'sfreq'?"),
        ({"format": 2}, "key 'format' is 2"),
        ({"name": "My Set"}, "key 'name'"),
        ({"views": {}}, "'views' is empty"),
        ({"labels__beat__last_s": 60}, "labels.beat.last_s' must be seconds, 0 or more, of a label from a covariate"),
        ({"files__0__pattern": "("}, "files[0].pattern' is not a regular expression"),
        ({"files__0__pattern": r"(?P<record>\d+)\.hea"}, "no group (?P<subject>...)"),
        (
            {"files__0__reader": "table", "files__0__annotations": []},
            "'files[0]' has 'reader: table' and no 'table:'; add how to read one, e.g. table: {sfreq: 100, time: time, channels:",
        ),
        ({"files__0__table": {"sfreq": 50}}, "'files[0].table' is of no use to 'reader: wfdb'; write 'reader: table', or remove"),
        ({"files__0__reader": "edf"}, "files[0].annotations' are WFDB extensions"),
        ({"views__w__channels": ["I", "Q7"]}, "channel 'Q7' is not known"),
        ({"views__w__channels": ["I", "avf"]}, "channel 'avf' is called 'aVF' here"),
        ({"views__w__channels": ["I", "I"]}, "names I twice"),
        ({"views__w__channels": ["a=I|PLETH"]}, "of different types"),
        ({"views__w__channels": []}, "views.w.channels' is empty"),
        ({"views__w__window_s": 0.0101}, "is 2.525 samples"),
        ({"views__w__window_s": 0}, "views.w.window_s' must be above 0"),
        ({"views__w__max_missing": 1}, "views.w.max_missing'"),
        ({"views__w__reference": "average"}, "average needs EEG channels"),
        (
            {"views__w__policy": "around_events", "views__w__event_kind": "beet"},
            "views.w.event_kind' cannot be 'beet'; did you mean 'beat'?",
        ),
        ({"labels__beat__event_kind": "stage"}, "labels.beat.event_kind' cannot be 'stage'"),
        ({"labels__beat__map": {"N": ["N"], "V": ["N"]}}, "source label 'N' stands in two classes"),
        ({"labels__beat__map": {}}, "labels.beat.map' needs its classes"),
        ({"labels__v": {"kind": "regression", "source": "covariate", "column": "visti"}}, "did you mean 'visit'?"),
        ({"splits__official__parts": {"train": ["1"], "test": ["1"]}}, "'1' is in train and in test"),
        ({"overlap_where": {"ptbxl": {"site": ["HR"]}}}, "'overlap_where' names 'ptbxl', which is not in 'overlaps'"),
        ({"overlaps": ["x"], "overlap_where": {"x": {"sitte": ["HR"]}}}, "'overlap_where.x' cannot be of 'sitte'"),
        ({"same_person": [["1", "3"]]}, "'3' (same person as 1) is in train and in test"),
        ({"splits__official__by": "covariate", "splits__official__column": "fold"}, "splits.official.column' cannot be 'fold'"),
        ({"subjects": "table"}, "needs a table with 'subject_column'"),
        ({"tables": [{"file": "a.csv", "key": "id", "on": "patient"}]}, "tables[0].on' cannot be 'patient'"),
        ({"tables": [{"file": "a.csv", "key": "id", "key_format": "{:05d"}]}, "key_format"),
        ({"units": {"ecg": "furlong"}}, "units.ecg' 'furlong' is no unit"),
        ({"units": {"ecg": "UNKNOWN"}}, "units.ecg' is still to be filled in"),
        ({"native_sfreq": [500, "x"]}, "native_sfreq[1]"),
    ],
)
def test_a_card_that_contradicts_itself_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as e:
        load(tmp_path, minimal(**changes))
    assert words in str(e.value) and "card.yaml" in str(e.value) and "\n" not in str(e.value)


def test_unknown_names_and_paths() -> None:
    with pytest.raises(RequestError, match="biossl list cards"):
        load_card("no_such_card")
    with pytest.raises(RequestError, match="no such file"):
        load_card("somewhere/card.yaml")


def test_a_table_spec_in_a_card_is_checked_too(tmp_path: Path) -> None:
    files = [{"pattern": r"(?P<subject>\d+)\.csv", "reader": "table", "table": {"sfreq": 50, "names": ["a"], "time": "t"}}]
    with pytest.raises(RequestError, match="column 't' is not among names"):
        load(tmp_path, minimal(files=files, labels={}))
    files[0]["table"] = {"sfreq": 50, "separator": "ab"}  # type: ignore[index]
    with pytest.raises(RequestError, match="'files.0..table'|separator 'ab'"):
        load(tmp_path, minimal(files=files, labels={}))


@pytest.mark.parametrize(
    ("names", "pattern", "subjects"),
    [
        ([f"{i}.hea" for i in (100, 101, 214)], r"(?P<record>\d{3})\.hea", "record"),
        (["x/S001R05.edf", "x/S001R06.edf", "x/S002R05.edf"], r"(?P<record>(?P<subject>S\d{3})R\d{2})\.edf", "group"),
        (["z.zip!s1_sp.csv", "z.zip!s1_sw.csv", "z.zip!s12_sw.csv"], r"(?P<record>(?P<subject>s\d+)_[A-Za-z]+)\.csv", "group"),
        (["p01/ecg.edf", "p02/ecg.edf"], r"(?P<record>(?P<subject>p\d{2})/ecg)\.edf", "group"),
        (["1_1.hea", "1_2.hea", "2_1.hea", "README_x.hea"], r"(?P<record>.+)\.hea", "record"),
        (["P1_a.edf", "P1_b.edf", "P2_Émile 7.EDF"], r"(?P<record>(?P<subject>P\d)(?!\d)[^/!]*)\.(?i:edf)", "group"),
        (["a/1/x.edf", "b/1/x.edf"], r"(?P<record>.+)\.edf", "record"),
    ],
)
def test_the_pattern_of_a_draft(names: list[str], pattern: str, subjects: str) -> None:
    assert name_pattern(names) == (pattern, subjects)


def tables(folder: Path, unit_free: str = "acc_x,acc_y,acc_z") -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "all.zip", "w") as z:
        for subject in (1, 2):
            for visit in (1, 2):
                rows = "\n".join(
                    f"{i / 50:.3f},{a:.3f},{b:.3f},{c:.3f}" for i, (a, b, c) in enumerate(rng.standard_normal((600, 3)))
                )
                z.writestr(f"p{subject:02d}_{visit}.csv", f"time,{unit_free}\n{rows}\n")
    return folder


def test_a_draft_of_tables_is_used_after_its_unit_is_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tables(tmp_path / "set")
    out = tmp_path / "draft.yaml"
    assert main(["card", "new", str(folder), "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rates"] == [50.0] and facts["modality"] == "imu" and any("units" in line for line in facts["to_do"])
    with pytest.raises(RequestError, match="units.acc' is still to be filled in"):
        load_card(out)
    out.write_text(out.read_text(encoding="utf-8").replace("UNKNOWN", "g"), encoding="utf-8")
    card = load_card(out)
    assert not card.public
    tasks = discover(card, folder, "windows")
    assert [(t.record, t.subject) for t in tasks] == [("p01_1", "p01"), ("p01_2", "p01"), ("p02_1", "p02"), ("p02_2", "p02")]
    assert cut(card, "windows", load_record(card, tasks[0])).data.shape == (4, 3, 128)


def folder_of_tables(folder: Path, columns: dict[str, list[str]]) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, names in columns.items():
        rows = [f"{i / 50:.3f}," + ",".join(f"{v:.3f}" for v in rng.standard_normal(len(names))) for i in range(600)]
        (folder / f"{name}.csv").write_text("time," + ",".join(names) + "\n" + "\n".join(rows) + "\n")
    return folder


def test_a_draft_names_the_channels_that_only_some_files_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acc = ["acc_x", "acc_y", "acc_z"]
    folder = folder_of_tables(tmp_path / "set", {"p01": [*acc, "gyro_x"], "p02": [*acc, "gyro_x", "temp"], "p03": acc})
    out = tmp_path / "Site-A 2.yaml"
    assert main(["card", "new", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "channel gyro_x is in 2 of the 3 files read" in said and "channel temp is in 1 of the 3 files read" in said
    text = out.read_text(encoding="utf-8")
    assert "# CHECK the channels: gyro_x is in 2 of the 3 files read, so the view leaves it out" in text
    assert "name: site-a_2\n" in text  # as the file is called, not the folder
    out.write_text(text.replace("UNKNOWN", "g"), encoding="utf-8")
    assert load_card(out).views["windows"].channels == acc
    assert main(["convert", str(out), str(folder), str(tmp_path / "c"), "--view", "windows", "--jobs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["funnel"]["records_with_windows"] == 3  # a channel that some lack costs no file
    n = sum(line.startswith("# CHECK") or ": CHECK" in line for line in text.splitlines())
    first = next(i for i, line in enumerate(text.splitlines(), 1) if ": CHECK" in line)
    (note,) = result["notes"]
    assert f"{n} places are still marked CHECK, the first in line {first}" in note and n > 5
    assert main(["check", str(out)]) == 0
    assert note in capsys.readouterr().out


def test_a_finished_card_and_a_packaged_one_have_no_open_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, minimal(title="checks of CHECK-UP rooms"))
    for card in (str(tmp_path / "card.yaml"), "hapt"):
        assert unfinished(card) == "" and main(["check", card]) == 0
        assert "note" not in capsys.readouterr().out


def test_the_name_of_a_printed_draft_is_the_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_tables(tmp_path / "Ward 7", {"p01": ["acc_x"], "p02": ["acc_x"]})
    assert main(["card", "new", str(folder)]) == 0
    assert "name: ward_7\n" in capsys.readouterr().out


def test_card_new_asks_for_what_it_must_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a1.txt").write_text("1 2 3\n4 5 6\n", encoding="utf-8")
    assert main(["card", "new", str(folder)]) == 2
    assert "--sfreq" in capsys.readouterr().err
    assert main(["card", "new", str(folder), "--sfreq", "50", "--out", str(tmp_path / "c.yaml")]) == 0
    assert main(["card", "new", str(folder), "--sfreq", "50", "--out", str(tmp_path / "c.yaml")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["card", "new", str(tmp_path / "nowhere")]) == 2
    (folder / "a1.txt").rename(folder / "a1.xyz")
    assert main(["card", "new", str(folder)]) == 2
    assert "biossl list formats" in capsys.readouterr().err
