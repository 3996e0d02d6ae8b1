from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biossl.errors import RecordError
from biossl.io.brainvision import read_brainvision

HEADER = """Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
Codepage=UTF-8
DataFile=a.eeg
MarkerFile=a.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels=3
SamplingInterval=4000
[Binary Infos]
BinaryFormat=INT_16
[Channel Infos]
Ch1=FP1,,0.5,µV
Ch2=T3,,0.001,mV
Ch3=Cz,,0.1,
"""
MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0
[Common Infos]
Codepage=UTF-8
DataFile=a.eeg
[Marker Infos]
Mk1=New Segment,,1,1,0,20200102030405000000
Mk2=Stimulus,S  1,251,1,0
Mk3=Comment,eyes closed,501,1,0
"""


def write(folder: Path, header: str = HEADER, markers: str = MARKERS) -> np.ndarray:
    counts = np.random.default_rng(0).integers(-3000, 3000, (1000, 3)).astype("<i2")
    (folder / "a.eeg").write_bytes(counts.tobytes())
    (folder / "a.vhdr").write_text(header, encoding="utf-8")
    (folder / "a.vmrk").write_text(markers, encoding="utf-8")
    return counts


def code_of(path: Path) -> str:
    with pytest.raises(RecordError) as error:
        read_brainvision(path)
    return error.value.code


def test_units_are_the_headers_and_empty_means_microvolts(tmp_path: Path) -> None:
    counts = write(tmp_path)
    (r,) = read_brainvision(tmp_path / "a.vhdr")
    assert (r.ch_names, r.units, r.sfreq) == (("Fp1", "T7", "Cz"), ("uV",) * 3, 250.0)
    lsb = np.array([0.5, 1.0, 0.1])
    np.testing.assert_allclose(r.data, counts.T * lsb[:, None], rtol=1e-5)
    np.testing.assert_allclose(r.lsb, lsb)
    assert r.start == "2020-01-02T03:04:05"
    assert [(a.onset_s, a.label, a.kind) for a in r.annotations] == [(1.0, "S  1", "trial"), (2.0, "eyes closed", "note")]


def test_a_pause_splits(tmp_path: Path) -> None:
    write(tmp_path, markers=MARKERS + "Mk4=New Segment,,601,1,0,20200102040405000000\n")
    a, b = read_brainvision(tmp_path / "a.vhdr")
    assert (a.data.shape[1], b.data.shape[1], b.offset_s) == (600, 400, 2.4)
    assert [f.code for f in a.meta["findings"]] == ["gap"]


def test_a_unit_nobody_knows_is_refused_and_can_be_stated(tmp_path: Path) -> None:
    counts = write(tmp_path, HEADER.replace("0.1,", "0.1,BS"))
    with pytest.raises(RecordError, match="Cz.*'BS'.*units: {Cz: uV}") as error:
        read_brainvision(tmp_path / "a.vhdr")
    assert error.value.code == "unknown_unit"
    (r,) = read_brainvision(tmp_path / "a.vhdr", units={"Cz": "mV"})
    np.testing.assert_allclose(r.data[2], counts[:, 2] * 100.0, rtol=1e-5)


def test_faults_have_codes(tmp_path: Path) -> None:
    write(tmp_path)
    eeg = tmp_path / "a.eeg"
    eeg.write_bytes(eeg.read_bytes()[:-3])
    assert code_of(tmp_path / "a.vhdr") == "truncated"
    eeg.write_bytes(b"")
    assert code_of(tmp_path / "a.vhdr") == "empty"
    eeg.unlink()
    assert code_of(tmp_path / "a.vhdr") == "missing"
    (tmp_path / "a.vhdr").write_text("something else")
    assert code_of(tmp_path / "a.vhdr") == "wrong_format"
    write(tmp_path, HEADER.replace("NumberOfChannels=3", "NumberOfChannels=4"))
    assert code_of(tmp_path / "a.vhdr") in ("lying_header", "unreadable")
    write(tmp_path, HEADER.replace("DataFile=a.eeg", "DataFile=../a.eeg"))
    assert code_of(tmp_path / "a.vhdr") == "missing"
