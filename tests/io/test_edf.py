from __future__ import annotations

from pathlib import Path

import edfio
import numpy as np
import pyedflib
import pytest

from biossl.errors import RecordError
from biossl.io.edf import read_edf

RNG = np.random.default_rng(0)
SIGNALS = (("EEG Fp1-REF", 200, "uV"), ("EEG T3-REF", 200, "mV"), ("ECG I", 100, "uV"), ("SpO2", 1, "%"))


def write(
    path: Path, *, bdf: bool = False, seconds: int = 10, marks: tuple[tuple[float, float, str], ...] = ((2.5, 1.0, "T1"),)
) -> None:
    """Four signals at three rates, one annotation."""
    signal, file = (edfio.BdfSignal, edfio.Bdf) if bdf else (edfio.EdfSignal, edfio.Edf)
    signals = [
        signal(RNG.uniform(-90, 90, seconds * hz), hz, label=label, physical_dimension=unit, physical_range=(-100, 100))
        for label, hz, unit in SIGNALS
    ]
    notes = [edfio.EdfAnnotation(*mark) for mark in marks]
    file(signals, data_record_duration=1, annotations=notes).write(path)


def make_discontinuous(path: Path, gaps: dict[int, float]) -> None:
    """Mark a file EDF+D and move the time stamps of all records from ``record`` on by ``seconds``."""
    raw = bytearray(path.read_bytes())
    raw[192:197] = b"EDF+D"
    offset, n = int(raw[184:192]), int(raw[252:256])
    samples = [int(raw[256 + n * 216 + i * 8 : 256 + n * 216 + i * 8 + 8]) for i in range(n)]
    size, begin = sum(samples) * 2, sum(samples[:-1]) * 2
    for k in range(int(raw[236:244])):
        at = offset + k * size + begin
        field = bytes(raw[at : offset + (k + 1) * size])
        field = field.replace(b"+2\x151\x14room\x14\x00", b"").ljust(len(field), b"\x00")  # a mark that only made room
        rest = field[field.index(b"\x14\x14\x00") :].rstrip(b"\x00")
        stamp = f"+{k + sum(s for r, s in gaps.items() if k >= r):g}".encode()
        new = (stamp + rest + b"\x00").ljust(len(field), b"\x00")
        assert len(new) == len(field)
        raw[at : offset + (k + 1) * size] = new
    path.write_bytes(bytes(raw))


def patch(path: Path, at: int, text: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(text)] = text
    path.write_bytes(bytes(raw))


def code_of(path: Path, **options: object) -> str:
    with pytest.raises(RecordError) as error:
        read_edf(path, **options)  # type: ignore[arg-type]
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return error.value.code


@pytest.mark.parametrize("bdf", [False, True])
def test_values_equal_an_independent_reader_in_canonical_units(tmp_path: Path, bdf: bool) -> None:
    path = tmp_path / "a.edf"
    write(path, bdf=bdf)
    groups = read_edf(path)
    assert [(r.sfreq, r.ch_names) for r in groups] == [(200.0, ("Fp1", "T7")), (100.0, ("I",)), (1.0, ("SpO2",))]
    assert [r.units for r in groups] == [("uV", "uV"), ("mV",), ("%",)]
    factors = [1.0, 1e3, 1e-3, 1.0]
    with pyedflib.EdfReader(str(path)) as oracle:
        want = [oracle.readSignal(i) * factors[i] for i in range(4)]
    got = [row for r in groups for row in r.data]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_counts_can_be_got_back(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    r = read_edf(path)[0]
    assert r.lsb is not None and r.baseline is not None
    counts = (r.data.astype(np.float64) - r.baseline[:, None]) / r.lsb[:, None]
    with pyedflib.EdfReader(str(path)) as oracle:
        np.testing.assert_array_equal(np.rint(counts[1]), oracle.readSignal(1, digital=True))


def test_a_reversed_physical_range_is_read_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    before = read_edf(path)[0].data[0]
    n = 5
    patch(path, 256 + n * 104, b"100     ")  # physical minimum of the first signal
    patch(path, 256 + n * 112, b"-100    ")
    r = read_edf(path)[0]
    np.testing.assert_allclose(r.data[0], -before, atol=0.01)
    assert r.lsb is not None and (r.lsb > 0).all()


def test_annotations_are_trials_stages_or_notes(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path, marks=((0.0, 4.2, "T0"), (3.0, 30.0, "Sleep stage 2"), (5.5, 0.0, "Schläfrig")))
    marks = read_edf(path)[0].annotations
    assert [(a.onset_s, a.duration_s, a.label, a.kind) for a in marks] == [
        (0.0, 4.2, "T0", "trial"), (3.0, 30.0, "Sleep stage 2", "stage"), (5.5, 0.0, "Schläfrig", "note"),
    ]  # fmt: skip


def test_gaps_of_edf_d_split_and_are_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    make_discontinuous(path, {4: 100.0, 7: 0.5})
    fast = [r for r in read_edf(path) if r.sfreq == 200]
    assert [(r.offset_s, r.data.shape[1]) for r in fast] == [(0.0, 800), (104.0, 600), (107.5, 600)]
    assert "gap" in [f.code for f in fast[0].meta["findings"]]
    patch(path, 192, b"EDF+C")  # a file that claims to be continuous and is not is split as well
    assert len([r for r in read_edf(path) if r.sfreq == 200]) == 3


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    make_discontinuous(path, {4: -0.5})
    assert code_of(path) == "lying_header"


def test_time_counts_from_the_first_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path, marks=((2.5, 1.0, "T1"), (2.0, 1.0, "room")))
    make_discontinuous(path, {0: 0.25})
    patch(path, 168, b"02.03.2104.05.06")
    r = read_edf(path)[0]
    assert r.offset_s == 0.0 and r.start == "2021-03-02T04:05:06.250000"
    assert [a.onset_s for a in r.annotations if a.label == "T1"] == [pytest.approx(2.25)]


@pytest.mark.parametrize(("stated", "year"), [(b"01.01.85", "1985"), (b"01.01.84", "2084")])
def test_two_digit_years_turn_in_1985(tmp_path: Path, stated: bytes, year: str) -> None:
    path = tmp_path / "a.edf"
    write(path)
    patch(path, 88, b"X".ljust(80))
    patch(path, 168, stated)
    assert str(read_edf(path)[0].start).startswith(year)


N = 5  # signals in the file, annotations included


@pytest.mark.parametrize(
    ("at", "text", "code"),
    [
        (0, b"1       ", "wrong_format"),
        (236, b"9       ", "lying_header"),
        (236, b"11      ", "truncated"),
        (236, b"5000000 ", "lying_header"),
        (236, b"ten     ", "lying_header"),
        (244, b"0       ", "lying_header"),
        (244, b"nan     ", "lying_header"),
        (252, b"6   ", "lying_header"),
        (256 + N * 96, b"furlong ", "unknown_unit"),
        (256 + N * 96, b"        ", "unknown_unit"),
        (256 + N * 96, b"MV      ", "unknown_unit"),
        (256 + N * 104, b"100     ", "zero_gain"),
        (256 + N * 120, b"32767   ", "lying_header"),
        (256 + N * 216, b"200.5x  ", "lying_header"),
    ],
)
def test_a_wrong_header_is_a_record_error(tmp_path: Path, at: int, text: bytes, code: str) -> None:
    path = tmp_path / "a.edf"
    write(path)
    patch(path, at, text)
    assert code_of(path) == code


def test_files_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    raw = path.read_bytes()
    for part, code in ((raw[:-100], "truncated"), (raw[:900], "truncated"), (raw[:200], "truncated"), (b"", "empty")):
        path.write_bytes(part)
        assert code_of(path) == code
    path.write_bytes(raw.replace(b"\n", b"\r\n") + b"\r\n")  # what a transfer in text mode does
    assert code_of(path) == "lying_header"
    path.unlink()
    assert code_of(path) == "missing"


def test_an_unfinished_recording_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    patch(path, 236, b"-1      ")
    assert read_edf(path)[0].duration_s == 10.0


def test_edf_d_without_time_stamps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    edfio.Edf([edfio.EdfSignal(np.arange(100.0), 10, label="Cz", physical_dimension="uV")]).write(path)
    patch(path, 192, b"EDF+D")
    assert code_of(path) == "gap"


def test_unknown_units_can_be_stated_by_channel_or_type(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    want = read_edf(path)[0].data
    patch(path, 256 + N * 96, b"        ")
    for units in ({"Fp1": "uV"}, {"EEG Fp1-REF": "uV"}, {"eeg": "uV"}):
        np.testing.assert_array_equal(read_edf(path, units=units)[0].data, want)
    assert read_edf(path, units={"Fp1": "1"})[0].units[0] == "1"


def test_an_auxiliary_channel_without_unit_is_uncalibrated_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    patch(path, 256 + N * 96 + 3 * 8, b"        ")
    assert read_edf(path)[2].units == ("1",)


def test_annotations_alone_are_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "hypnogram.edf"
    edfio.Edf([], annotations=[edfio.EdfAnnotation(0, 30, "Sleep stage W")]).write(path)
    assert code_of(path) == "no_signal"


def test_an_impossible_rate_is_a_lying_header(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write(path)
    patch(path, 244, b"1e-30   ")
    assert code_of(path) == "lying_header"
