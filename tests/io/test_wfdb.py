from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from biossl.errors import RecordError
from biossl.io.wfdb import read_wfdb

RNG = np.random.default_rng(0)
BITS = {"16": 16, "24": 20, "32": 20, "80": 8, "212": 12, "508": 8, "516": 16, "524": 20}  # what wfdb can write


def write(folder: Path, name: str = "rec", n: int = 500, fmt: str = "16", **more: object) -> np.ndarray:
    """Two leads of whole counts; returns the counts (T, 2)."""
    half = 2 ** (BITS[fmt] - 1) - 2
    counts = RNG.integers(-half, half, (n, 2))
    wfdb.wrsamp(
        name, fs=250, units=["mV", "mV"], sig_name=["I", "II"], d_signal=counts, fmt=[fmt, fmt], adc_gain=[200.0, 100.0],
        baseline=[10, -20], write_dir=str(folder), **more,
    )  # fmt: skip
    return counts


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def code_of(path: Path, **options: object) -> str:
    with pytest.raises(RecordError) as error:
        read_wfdb(path, **options)  # type: ignore[arg-type]
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return error.value.code


@pytest.mark.parametrize("fmt", sorted(BITS))
def test_every_storage_format_gives_back_its_counts(tmp_path: Path, fmt: str) -> None:
    counts = write(tmp_path, fmt=fmt)
    (got,) = read_wfdb(tmp_path / "rec.hea")
    np.testing.assert_allclose(got.data, (counts.T - [[10], [-20]]) / [[200.0], [100.0]], rtol=1e-6)
    assert got.lsb is not None and got.baseline is not None
    back = (got.data.astype(np.float64) - got.baseline[:, None]) / got.lsb[:, None]
    np.testing.assert_array_equal(np.rint(back), counts.T)
    assert np.abs(back - np.rint(back)).max() < 0.2
    assert (got.sfreq, got.ch_names, got.units, got.record) == (250.0, ("I", "II"), ("mV", "mV"), "rec")


def test_header_stem_and_signal_file_name_the_same_record(tmp_path: Path) -> None:
    write(tmp_path)
    want = read_wfdb(tmp_path / "rec.hea")[0].data
    for name in ("rec", "rec.dat"):
        np.testing.assert_array_equal(read_wfdb(tmp_path / name)[0].data, want)


def test_invalid_samples_become_nan(tmp_path: Path) -> None:
    counts = write(tmp_path)
    counts[100:110, 1] = -32768
    wfdb.wrsamp("bad", fs=250, units=["mV"] * 2, sig_name=["I", "II"], d_signal=counts, fmt=["16"] * 2, adc_gain=[200.0] * 2,
                baseline=[0, 0], write_dir=str(tmp_path))  # fmt: skip
    x = read_wfdb(tmp_path / "bad.hea")[0].data
    assert np.isnan(x[1, 100:110]).all() and np.isfinite(x[0]).all() and np.isnan(x).sum() == 10


def test_several_samples_per_frame_keep_their_own_rate(tmp_path: Path) -> None:
    fast, slow = RNG.integers(-99, 99, 400), RNG.integers(-99, 99, 100)
    frames = np.concatenate([fast.reshape(100, 4), slow[:, None]], axis=1).astype("<i2")
    (tmp_path / "m.dat").write_bytes(frames.tobytes())
    lines = [
        "m 2 50 100",
        f"m.dat 16x4 100/mV 16 0 {fast[0]} {int(fast.sum()) % 65536} 0 V1",
        f"m.dat 16 1/Ohm 16 0 {slow[0]} {int(slow.sum()) % 65536} 0 RESP",
    ]
    (tmp_path / "m.hea").write_text("\n".join(lines) + "\n")
    a, b = read_wfdb(tmp_path / "m.hea")
    assert (a.sfreq, a.ch_names, b.sfreq, b.ch_names) == (200.0, ("V1",), 50.0, ("RESP",))
    np.testing.assert_allclose(a.data[0], fast / 100, rtol=1e-6)
    np.testing.assert_allclose(b.data[0], slow, rtol=1e-6)


def test_skewed_signals_are_aligned_and_the_rest_is_nan(tmp_path: Path) -> None:
    counts = write(tmp_path)
    edit(tmp_path / "rec.hea", "rec.dat 16 100", "rec.dat 16:7 100")
    x = read_wfdb(tmp_path / "rec.hea")[0].data
    np.testing.assert_allclose(x[1, :-7], (counts[7:, 1] + 20) / 100, rtol=1e-6)
    assert np.isnan(x[1, -7:]).all() and np.isfinite(x[0]).all()


def segments(folder: Path, *, gap: bool) -> list[np.ndarray]:
    parts = [write(folder, f"s{i}", n) for i, n in enumerate((300, 200))]
    middle = "~ 100\n" if gap else ""
    (folder / "all.hea").write_text(f"all/{3 if gap else 2} 2 250 {600 if gap else 500}\ns0 300\n{middle}s1 200\n")
    return parts


def test_segments_that_touch_are_one_recording(tmp_path: Path) -> None:
    parts = segments(tmp_path, gap=False)
    (got,) = read_wfdb(tmp_path / "all.hea")
    np.testing.assert_allclose(got.data[0], (np.concatenate(parts)[:, 0] - 10) / 200, rtol=1e-6)
    assert got.lsb is not None


def test_a_null_segment_splits_and_keeps_time(tmp_path: Path) -> None:
    segments(tmp_path, gap=True)
    a, b = read_wfdb(tmp_path / "all.hea")
    assert (a.data.shape[1], a.offset_s, b.data.shape[1], b.offset_s) == (300, 0.0, 200, 400 / 250)


def test_an_absent_segment_is_a_gap_with_a_finding(tmp_path: Path) -> None:
    segments(tmp_path, gap=False)
    (tmp_path / "s0.hea").unlink()
    (got,) = read_wfdb(tmp_path / "all.hea")
    assert got.offset_s == 300 / 250
    assert [f.code for f in got.meta["findings"]] == ["missing_segment"]
    (tmp_path / "s1.hea").unlink()
    assert code_of(tmp_path / "all.hea") == "missing"


def test_variable_layout_fills_absent_signals_with_nan_and_keeps_units(tmp_path: Path) -> None:
    one = write(tmp_path, "s0", 300)
    two = RNG.integers(-99, 99, (200, 1))
    wfdb.wrsamp("s1", fs=250, units=["mV"], sig_name=["II"], d_signal=two, fmt=["16"], adc_gain=[50.0], baseline=[0],
                write_dir=str(tmp_path))  # fmt: skip
    (tmp_path / "lay.hea").write_text("lay 2 250 0\n~ 0 200/mV 16 0 0 0 0 I\n~ 0 100/mV 16 0 0 0 0 II\n")
    (tmp_path / "all.hea").write_text("all/3 2 250 500\nlay 0\ns0 300\ns1 200\n")
    (got,) = read_wfdb(tmp_path / "all.hea")
    assert np.isnan(got.data[0, 300:]).all() and np.isfinite(got.data[1]).all()
    np.testing.assert_allclose(got.data[1], np.concatenate([(one[:, 1] + 20) / 100, two[:, 0] / 50]), rtol=1e-6)
    assert got.lsb is None  # two gains: no one count
    assert code_of(tmp_path / "lay.hea") == "no_signal"


def test_comments_become_keys(tmp_path: Path) -> None:
    write(tmp_path, comments=["Age: 51", "<sex>: F <diagnoses>: none", "free words"])
    comments = read_wfdb(tmp_path / "rec.hea")[0].meta["comments"]
    assert comments == {"Age": "51", "sex": "F", "diagnoses": "none", "comment_3": "free words"}


def test_beats_rhythms_and_notes_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, n=2500)
    wfdb.wrann("rec", "atr", np.array([10, 100, 500, 750, 1000, 1500]), list("+NV+N\""), fs=250, write_dir=str(tmp_path),
               aux_note=["(N", "", "", "(AFIB", "None", "artefact"])  # fmt: skip
    marks = read_wfdb(tmp_path / "rec.hea", ["atr"])[0].annotations
    assert [(a.onset_s, a.label) for a in marks if a.kind == "beat"] == [(0.4, "N"), (2.0, "V"), (4.0, "N")]
    assert [(a.onset_s, a.duration_s, a.label) for a in marks if a.kind == "rhythm"] == [
        (0.04, pytest.approx(2.96), "N"),
        (3.0, pytest.approx(7.0), "AFIB"),
    ]
    assert [(a.onset_s, a.label) for a in marks if a.kind == "note"] == [(6.0, "artefact")]


def test_a_wave_with_one_bracket_lasts_from_there_to_its_peak_and_says_which_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    marks = np.array([10, 20, 40, 50, 60, 70, 80, 90, 100, 110])
    wfdb.wrann("rec", "i", marks, list("(pN)t()p)u"), fs=250, write_dir=str(tmp_path))
    waves = read_wfdb(tmp_path / "rec.hea", ["i"])[0].annotations
    assert [(a.label, round(a.onset_s * 250), round(a.duration_s * 250), a.missing) for a in waves] == [
        ("p", 10, 10, "offset"), ("N", 40, 10, "onset"), ("t", 60, 0, ""), ("p", 90, 10, "onset"), ("u", 110, 0, ""),
    ]  # fmt: skip


def test_wave_brackets_pair_and_lonely_peaks_stay_points(tmp_path: Path) -> None:
    write(tmp_path)
    wfdb.wrann("rec", "i", np.array([10, 20, 30, 50, 80, 90, 120]), list("(p)N(t)"), fs=250, write_dir=str(tmp_path))
    waves = read_wfdb(tmp_path / "rec.hea", ["i"])[0].annotations
    assert [(a.label, a.onset_s * 250, a.duration_s * 250) for a in waves] == [
        ("p", pytest.approx(10), pytest.approx(20)),
        ("N", pytest.approx(50), 0.0),
        ("t", pytest.approx(80), pytest.approx(40)),
    ]
    assert {(a.channel, a.kind) for a in waves} == {("I", "wave")}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("200.0(10)/mV", "0(10)/mV", "zero_gain"),
        ("200.0(10)/mV", "20000000000000000.0(10)/mV", "lying_header"),
        ("/mV", "/furlong", "unknown_unit"),
        (" 250 500", " 250 5000000000", "lying_header"),
        (" 250 500", " 250 600", "truncated"),
        (" 250 500", " 0 500", "lying_header"),
        ("rec 2 ", "rec 3 ", "lying_header"),
        ("rec.dat", "gone.dat", "missing"),
        ("rec.dat", "../rec.dat", "wrong_format"),
        ("rec 2 250", "one fine day", "wrong_format"),
    ],
)
def test_a_wrong_header_is_a_record_error(tmp_path: Path, old: str, new: str, code: str) -> None:
    write(tmp_path)
    edit(tmp_path / "rec.hea", old, new)
    assert code_of(tmp_path / "rec.hea") == code


def test_damaged_samples_are_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    data = bytearray((tmp_path / "rec.dat").read_bytes())
    data[777] ^= 0x04
    (tmp_path / "rec.dat").write_bytes(bytes(data))
    assert code_of(tmp_path / "rec.hea") == "bad_checksum"
    (tmp_path / "rec.dat").write_bytes(bytes(data[:1500]))
    assert code_of(tmp_path / "rec.hea") == "truncated"
    (tmp_path / "rec.dat").write_bytes(b"")
    assert code_of(tmp_path / "rec.hea") == "empty"
    (tmp_path / "rec.dat").unlink()
    assert code_of(tmp_path / "rec.hea") == "missing"
    (tmp_path / "rec.hea").write_text("")
    assert code_of(tmp_path / "rec.hea") == "empty"
    assert code_of(tmp_path / "nobody") == "missing"


def test_zero_gain_is_accepted_as_uncalibrated_only_when_the_card_says_so(tmp_path: Path) -> None:
    counts = write(tmp_path)
    edit(tmp_path / "rec.hea", "200.0(10)/mV", "0(10)/mV")
    (got,) = read_wfdb(tmp_path / "rec.hea", units={"I": "1"})
    assert got.units == ("1", "mV")
    np.testing.assert_allclose(got.data[0], counts[:, 0] - 10)


def test_units_of_the_card_replace_an_unknown_one(tmp_path: Path) -> None:
    counts = write(tmp_path)
    edit(tmp_path / "rec.hea", "/mV", "/furlong")
    (got,) = read_wfdb(tmp_path / "rec.hea", units={"ecg": "uV"})
    np.testing.assert_allclose(got.data[1], (counts[:, 1] + 20) / 100 * 1e-3, rtol=1e-5)


def test_a_record_without_one_valid_sample_is_refused(tmp_path: Path) -> None:
    wfdb.wrsamp("nan", fs=250, units=["mV"], sig_name=["I"], d_signal=np.full((100, 1), -32768), fmt=["16"], adc_gain=[200.0],
                baseline=[0], write_dir=str(tmp_path))  # fmt: skip
    assert code_of(tmp_path / "nan.hea") == "all_nan"


def test_missing_annotations_name_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    assert code_of(tmp_path / "rec.hea", annotations=["atr"]) == "missing"
