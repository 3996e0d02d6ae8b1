from __future__ import annotations

import json
import os
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from biossl import cli


def record(
    folder: Path, name: str = "rec", leads: tuple[str, ...] = ("I", "II", "aVL", "aVF"), order: tuple[int, ...] = (0, 1, 2, 3)
) -> Path:
    """Ten seconds of four consistent limb leads with beats, channels stored in ``order``."""
    a, b = np.random.default_rng(0).standard_normal((2, 2500)).cumsum(axis=1)
    rows = np.stack([a, b, a - b / 2, b - a / 2]) * 20
    wfdb.wrsamp(name, fs=250, units=["mV"] * 4, sig_name=list(leads), d_signal=np.rint(rows[list(order)]).astype(int).T,
                fmt=["16"] * 4, adc_gain=[1000.0] * 4, baseline=[0] * 4, write_dir=str(folder))  # fmt: skip
    wfdb.wrann(name, "atr", np.arange(100, 2500, 250), ["N"] * 8 + ["V"] * 2, fs=250, write_dir=str(folder))
    return folder / f"{name}.hea"


def edf(path: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((4, 2000)) * 20
    names = ("EEG Fp1-REF", "EEG T3-REF", "EEG Cz-REF", "ECG")
    edfio.Edf([edfio.EdfSignal(r, 200, label=n, physical_dimension="uV") for n, r in zip(names, x, strict=True)]).write(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(["inspect", *argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_one_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(record(tmp_path)))
    assert code == 0
    assert "wfdb: 10 s at 250 Hz, 4 channels" in out
    assert "ecg [mV]: I II aVL aVF" in out and "beat: 10 (N 8, V 2)" in out
    assert "limb_leads" not in out


def test_swapped_leads_are_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(record(tmp_path, order=(0, 1, 3, 2))))
    assert code == 0 and "! limb_leads:" in out and "aVL and aVF swapped" in out


def test_a_folder_lists_good_and_bad_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path)
    edf(tmp_path / "good.edf")
    broken = edf(tmp_path / "broken.edf")
    broken.write_bytes(broken.read_bytes()[:-50])
    (tmp_path / "notes.txt").write_text("nothing")
    code, out, _ = run(capsys, str(tmp_path), "--json")
    result = json.loads(out)
    assert code == 0
    assert sorted(Path(f["path"]).name for f in result["files"]) == ["good.edf", "rec.hea"]  # rec.dat and rec.atr are parts
    assert [(Path(b["path"]).name, b["code"]) for b in result["bad"]] == [("broken.edf", "truncated")]
    channels = {c["original"]: (c["name"], c["type"], c["unit"]) for c in result["files"][0]["recordings"][0]["channels"]}
    assert channels["EEG T3-REF"] == ("T7", "eeg", "uV") and channels["ECG"] == ("ECG", "ecg", "mV")


def test_segments_of_a_record_are_not_listed_on_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, "s0")
    record(tmp_path, "s1")
    (tmp_path / "all.hea").write_text("all/2 4 250 5000\ns0 2500\ns1 2500\n")
    _, out, _ = run(capsys, str(tmp_path), "--json")
    assert [Path(f["path"]).name for f in json.loads(out)["files"]] == ["all.hea"]


@pytest.mark.parametrize(("content", "code_text"), [(b"", "empty"), (b"\x89PNG\r\n\x1a\n", "picture"), (None, "no such file")])
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code_text: str
) -> None:
    path = tmp_path / "x.edf"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(capsys, str(path))
    assert code == (4 if content is not None else 2) and out == ""
    assert err.count("\n") == 1 and str(path) in err and code_text in err


def test_an_empty_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, str(tmp_path))
    assert code == 2 and "no recording" in err


@pytest.mark.parametrize("make", [record, lambda folder: edf(folder / "a.edf")])
def test_the_picture_is_written_whole_and_not_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str], make) -> None:  # type: ignore[no-untyped-def]
    path, picture = make(tmp_path), tmp_path / "out.png"
    assert run(capsys, str(path), "--plot", str(picture))[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    code, _, err = run(capsys, str(path), "--plot", str(picture))
    assert code == 2 and "--overwrite" in err
    assert run(capsys, str(path), "--plot", str(picture), "--overwrite")[0] == 0


@pytest.mark.data
def test_real_folders_are_read_whole(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(data_root / "wfdb_formats"), "--json")
    assert code == 0 and json.loads(out)["bad"] == [] and len(json.loads(out)["files"]) == 15
    code, out, _ = run(capsys, str(data_root / "eeg_formats"), "--json")
    assert [b["code"] for b in json.loads(out)["bad"]] == ["unknown_unit"] and len(json.loads(out)["files"]) == 10


@pytest.mark.data
def test_a_table_is_read_with_its_card(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(data_root / "bidmc_sample" / "bidmc_01_Signals.csv")
    code, _, err = run(capsys, path)
    assert code == 4 and "card" in err
    code, out, _ = run(capsys, path, "--card", "bidmc")
    assert code == 0 and "V aVR II" in out


def test_a_header_that_points_elsewhere_costs_its_own_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A segment named ``../x`` once ended the listing of the whole folder."""
    record(tmp_path)
    (tmp_path / "seg.hea").write_text("seg/2 1 360 2000\n../other/100 1000\ns3://x/y 1000\n")
    code, out, err = run(capsys, str(tmp_path))
    assert code == 0 and err.count("Traceback") == 0
    assert "rec.hea" in out and "! wrong_format:" in out and "1 files read, 1 not readable" in out
    (tmp_path / "plot").mkdir()
    code, _, err = run(capsys, str(tmp_path / "rec.hea"), "--plot", str(tmp_path / "plot"), "--overwrite")
    assert code == 2 and "a folder" in err


def test_a_folder_that_may_not_be_read_is_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold recordings: silence would be a wrong count."""
    record(tmp_path)
    (tmp_path / "closed").mkdir()
    usual = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out, err = run(capsys, str(tmp_path))
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "closed: Permission denied" in err and "change its rights or leave it out" in err


def test_a_file_that_may_not_be_read_costs_one_line_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, "good")
    record(tmp_path, "shut")
    usual = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "shut.hea":
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    code, out, _ = run(capsys, str(tmp_path))
    assert code == 0 and "1 files read, 1 not readable" in out and "shut.hea" in out
    assert sum(line.startswith("! unreadable") for line in out.splitlines()) == 1


def test_a_link_to_a_recording_that_was_not_copied_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path)
    (tmp_path / "away.edf").symlink_to(tmp_path / "nowhere")
    code, out, _ = run(capsys, str(tmp_path))
    assert code == 0 and "! missing: " in out and "away.edf" in out and "1 files read, 1 not readable" in out
