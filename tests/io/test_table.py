"""Tables of samples: what a spec promises, and one clear line for every table that breaks it."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.corpus.discover import list_files
from biossl.errors import RecordError
from biossl.io.table import Companion, TableSpec, guess_spec, read_table
from biossl.signal import STANDARD_GRAVITY

G = {"acc": "g", "gyro": "rad/s"}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def stamped(path: Path, t: np.ndarray, x: np.ndarray) -> Path:
    rows = "\n".join(f"{a!r},{b!r}" for a, b in zip(t.tolist(), x.tolist(), strict=True))
    return write(path, f"t,acc_x\n{rows}\n")


def test_units_of_the_card_take_values_to_canonical_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "00123.csv", "acc_x, acc_y\n9.80665,0\n-9.80665,19.6133\n")
    (r,) = read_table(path, TableSpec(sfreq=50), units={"acc": "m/s2"})
    assert r.record == "00123" and r.units == ("g", "g") and r.data.dtype == np.float32
    np.testing.assert_allclose(r.data, [[1, -1], [0, 2]], rtol=1e-6)
    assert STANDARD_GRAVITY == 9.80665


def test_a_table_whose_unit_nobody_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="units") as e:
        read_table(write(tmp_path / "a.csv", "acc_x\n1\n"), TableSpec(sfreq=50))
    assert e.value.code == "unknown_unit"


def test_companion_in_a_zip_is_read_row_for_row(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as z:
        z.writestr("raw/acc_1.txt", "1 2 3\n4 5 6\n")
        z.writestr("raw/gyro_1.txt", "7 8 9\n10 11 12\n")
    spec = TableSpec(
        sfreq=50, separator="whitespace", names=["acc_x", "acc_y", "acc_z"],
        companions=[Companion(["acc_", "gyro_"], ["gyro_x", "gyro_y", "gyro_z"])],
    )  # fmt: skip
    (r,) = read_table(f"{tmp_path}/set.zip!raw/acc_1.txt", spec, units=G)
    assert r.ch_names == ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z") and r.record == "acc_1"
    np.testing.assert_array_equal(r.data.T, [[1, 2, 3, 7, 8, 9], [4, 5, 6, 10, 11, 12]])


def test_companion_of_another_length_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "acc_1.txt", "1\n2\n")
    write(tmp_path / "gyro_1.txt", "1\n")
    spec = TableSpec(sfreq=50, names=["acc_x"], companions=[Companion(["acc_", "gyro_"], ["gyro_x"])])
    with pytest.raises(RecordError, match="2 rows, its companion 1") as e:
        read_table(tmp_path / "acc_1.txt", spec, units=G)
    assert e.value.code == "length"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "empty", "empty"),
        ("acc_x,acc_y\n", "empty", "no rows"),
        ("acc_x,acc_y\n1,2\n1,abc\n", "wrong_format", "line 3, column 'acc_y': 'abc'"),
        ("acc_x,acc_y\n1,2\n1,inf\n", "wrong_format", "line 3, column 'acc_y': 'inf'"),
        ("acc_x,acc_y\n1,2\n\n1,2\n", "wrong_format", "line 3"),
        ("acc_x,acc_y\n1,2\n1\n", "wrong_format", "line 3 has 1 cells, the header names 2"),
        ("acc_x,acc_y\n1,2\n1,2,3\n", "wrong_format", "line 3"),
        ("acc_x;acc_y\n1;2\n", "wrong_format", "no column 'acc_x'"),
        ("acc_x,acc_y\n1;2\n", "wrong_format", "check the separator ','"),
        ("acc_x,other\n1,2\n", "wrong_format", "no column 'acc_y'"),
        ("acc_x,acc_x\n1,2\n", "wrong_format", "two columns are named"),
        ("acc_x,acc_y\nnan,\n,NA\n", "all_nan", "nothing to read"),
        ("acc_x,acc_y\n1,2\n1,\0\n", "wrong_format", "zero bytes"),
    ],
)
def test_a_bad_table_is_one_line_naming_file_and_place(tmp_path: Path, text: str, code: str, words: str) -> None:
    path = write(tmp_path / "walk.csv", text)
    with pytest.raises(RecordError) as e:
        read_table(path, TableSpec(sfreq=50, channels={"acc_x": "acc_x", "acc_y": "acc_y"}), units=G)
    assert e.value.code == code and words in str(e.value)
    assert "walk.csv" in str(e.value) and "\n" not in str(e.value)


def test_bytes_that_are_no_text_a_missing_file_and_a_missing_member(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x01binary")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as z:
        z.writestr("b.csv", "acc_x\n1\n")
    (tmp_path / "broken.zip").write_bytes((tmp_path / "z.zip").read_bytes()[:20])
    for path, code in (
        ("a.csv", "wrong_format"),
        ("no.csv", "missing"),
        ("z.zip!c.csv", "missing"),
        ("broken.zip!b.csv", "wrong_format"),
    ):
        with pytest.raises(RecordError) as e:
            read_table(f"{tmp_path}/{path}", TableSpec(sfreq=50), units=G)
        assert e.value.code == code, path


def test_headerless_lines_with_another_number_of_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "1 2 3\n4 5 6\n")
    with pytest.raises(RecordError, match="line 1 has 3 cells, the card names 2 columns"):
        read_table(path, TableSpec(sfreq=50, separator="whitespace", names=["acc_x", "acc_y"]), units=G)


def test_line_end_is_demanded_of_every_line(tmp_path: Path) -> None:
    spec = TableSpec(sfreq=20, names=["acc_x", "acc_y"], line_end=";")
    (r,) = read_table(write(tmp_path / "a.txt", "1,2;\n3,4;\n"), spec, units=G)
    np.testing.assert_array_equal(r.data, [[1, 3], [2, 4]])
    with pytest.raises(RecordError, match="line 2 does not end with ';'"):
        read_table(write(tmp_path / "b.txt", "1,2;\n3,4\n5,6;\n"), spec, units=G)


def test_empty_cells_are_not_observed(tmp_path: Path) -> None:
    (r,) = read_table(write(tmp_path / "a.csv", "acc_x,acc_y\n1,\nNaN,2\n"), TableSpec(sfreq=50), units=G)
    np.testing.assert_array_equal(r.data, [[1, np.nan], [np.nan, 2]])


def test_a_change_of_user_or_activity_starts_a_recording(tmp_path: Path) -> None:
    rows = ["007,A,1"] * 3 + ["007,B,2"] * 2 + ["007,A,3"] * 4
    spec = TableSpec(
        sfreq=20, names=["user", "activity", "x"], channels={"x": "acc_x"}, label="activity", runs=["user", "activity"]
    )
    got = read_table(write(tmp_path / "a.txt", "\n".join(rows)), spec, units=G)
    assert [r.data.shape[1] for r in got] == [3, 2, 4]
    np.testing.assert_allclose([r.offset_s for r in got], [0, 3 / 20, 5 / 20])
    marks = got[0].annotations
    assert [m.label for m in marks] == ["A", "B", "A"] and got[1].annotations == marks
    np.testing.assert_allclose([(m.onset_s, m.duration_s) for m in marks], [(0, 0.15), (0.15, 0.1), (0.25, 0.2)])


def test_regular_stamps_leave_the_samples_alone(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal(200)
    t = np.round(np.arange(200) / 30, 3)  # milliseconds: 33, 33, 34
    (r,) = read_table(stamped(tmp_path / "a.csv", t, x), TableSpec(sfreq=30, time="t"), units=G)
    np.testing.assert_array_equal(r.data[0], x.astype(np.float32))


def bursts(n: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True times of even samples and the stamps of a device that delivers some of them late, several at once."""
    true = np.arange(n) / rate
    stamps = true.copy()
    for start in rng.choice(np.arange(5, n - 10), size=n // 15, replace=False):
        late = slice(start, start + 5)
        stamps[late] = np.maximum(stamps[late], true[start + 4])
    return true, np.round(np.maximum.accumulate(stamps), 3)


def test_late_delivery_is_undone(tmp_path: Path) -> None:
    """The samples of a burst are as far apart as all others: a 5 Hz sine comes back, which its stamps distort."""
    true, stamps = bursts(1500, 102.5, np.random.default_rng(1))
    path = stamped(tmp_path / "a.csv", stamps, np.sin(2 * np.pi * 5 * true))
    error = {}
    for mode in ("delivered", "measured"):
        (r,) = read_table(path, TableSpec(sfreq=100, time="t", stamps=mode), units=G)
        at = np.arange(r.data.shape[1]) / 100
        lag = np.linspace(-0.03, 0.03, 61)  # stamps say when samples arrived, so a constant delay stays
        error[mode] = min(np.abs(r.data[0] - np.sin(2 * np.pi * 5 * (at + d)))[20:-20].max() for d in lag)
    assert error["delivered"] < 0.03 < 0.2 < error["measured"]


def test_measured_stamps_are_sorted_and_equal_ones_averaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    t = np.sort(np.arange(300) / 50 + rng.uniform(-0.008, 0.008, 300))
    x = np.sin(2 * np.pi * t)
    (plain,) = read_table(stamped(tmp_path / "a.csv", t, x), TableSpec(sfreq=50, time="t"), units=G)
    np.testing.assert_allclose(plain.data[0], np.sin(2 * np.pi * (t[0] + np.arange(plain.data.shape[1]) / 50)), atol=0.02)
    twice, values = np.repeat(t, 2), np.repeat(x, 2) + np.tile([0.5, -0.5], 300)
    order = rng.permutation(600)
    spec = TableSpec(sfreq=50, time="t")
    with pytest.raises(RecordError, match="give 100"):  # twice the samples in the same time is another rate
        read_table(stamped(tmp_path / "b.csv", twice, values), spec, units=G)
    keep = np.concatenate([np.flatnonzero(np.arange(600) % 2 == 0), [101, 203]])
    half = np.sort(keep)
    shuffled = half[np.argsort(order[: half.size])]
    values[:] = np.repeat(x, 2)
    values[[100, 101]] += [0.5, -0.5]
    values[[202, 203]] += [-0.25, 0.25]
    (r,) = read_table(stamped(tmp_path / "c.csv", twice[shuffled], values[shuffled]), spec, units=G)
    np.testing.assert_allclose(r.data, plain.data, atol=1e-6)


def test_a_long_gap_splits_and_the_second_run_keeps_its_time(tmp_path: Path) -> None:
    t = np.concatenate([np.arange(100), np.arange(100) + 350]) / 50.0 + 1.6e9
    got = read_table(stamped(tmp_path / "a.csv", t, np.arange(200.0)), TableSpec(sfreq=50, time="t", gap_s=1), units=G)
    assert [r.data.shape[1] for r in got] == [100, 100]
    assert [r.offset_s for r in got] == pytest.approx([0, 7.0], abs=1e-6)


def test_what_the_slower_grid_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    """A 57 Hz tone at 118 Hz would appear at 43 Hz on a 100 Hz grid; a 20 Hz tone stays."""
    t = np.arange(2000) / 118 + 1e-3 * (np.arange(2000) % 2)
    for tone, low, high in ((57.0, 0.0, 0.05), (20.0, 0.9, 1.1)):
        path = stamped(tmp_path / f"{tone}.csv", t, np.sin(2 * np.pi * tone * np.arange(2000) / 118))
        (r,) = read_table(path, TableSpec(sfreq=100, time="t", stamps="delivered"), units=G)
        rms = np.sqrt(2 * np.mean(r.data[0, 100:-100] ** 2))
        assert low <= rms <= high, (tone, rms)


def test_stamps_that_contradict_the_rate(tmp_path: Path) -> None:
    path = stamped(tmp_path / "a.csv", np.arange(500) / 50.0, np.arange(500.0))
    with pytest.raises(RecordError, match="give 50 Hz, the card says 100 Hz") as e:
        read_table(path, TableSpec(sfreq=100, time="t"), units=G)
    assert e.value.code == "rate"


def test_a_label_column_becomes_intervals_at_sample_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "t,acc_x,what\n" + "".join(f"{i / 10},{i},{'UP' if i < 4 else 'DOWN'}\n" for i in range(10)))
    (r,) = read_table(path, TableSpec(sfreq=10, time="t", label="what", channels={"acc_x": "acc_x"}), units=G)
    assert [(m.label, m.kind, m.source) for m in r.annotations] == [("UP", "activity", "what"), ("DOWN", "activity", "what")]
    np.testing.assert_allclose([(m.onset_s, m.duration_s) for m in r.annotations], [(0, 0.4), (0.4, 0.6)])


@settings(max_examples=25, deadline=None)
@given(st.integers(60, 200), st.integers(0, 2**31), st.sampled_from([0.0, 0.005, 0.015]))
def test_the_grid_is_regular_and_invents_no_extremes(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, jitter: float
) -> None:
    rng = np.random.default_rng(seed)
    t = np.sort(np.arange(n) / 50 * 1.02 + rng.uniform(0, jitter, n))
    x = rng.standard_normal(n)
    (r,) = read_table(stamped(tmp_path_factory.mktemp("g") / "a.csv", t, x), TableSpec(sfreq=50, time="t"), units=G)
    assert abs(r.data.shape[1] - (t[-1] - t[0]) * 50 - 1) <= 1.01 + REGULAR_SLACK
    assert np.isfinite(r.data).all() and x.min() - 1e-5 <= r.data.min() and r.data.max() <= x.max() + 1e-5


REGULAR_SLACK = 0.25  # stamps this near to the grid are taken as the grid


def test_a_cell_that_was_not_observed_stays_so_on_the_new_grid(tmp_path: Path) -> None:
    t = np.sort(np.arange(200) / 50 + np.random.default_rng(0).uniform(-0.008, 0.008, 200))
    x = np.sin(t)
    x[80:90] = np.nan
    (r,) = read_table(stamped(tmp_path / "a.csv", t, x), TableSpec(sfreq=50, time="t"), units=G)
    bad = np.flatnonzero(np.isnan(r.data[0]))
    assert 9 <= bad.size <= 12 and t[79] < bad[0] / 50 + t[0] and bad[-1] / 50 + t[0] < t[90]


def test_guess_finds_separator_header_time_unit_and_rate(tmp_path: Path) -> None:
    rows = "\n".join(f"{1657533977000 + 20 * i};{i};0.5;SEATED" for i in range(100))
    spec = guess_spec(write(tmp_path / "a.csv", f"timestamp;x_acc;y_acc;label\n{rows}\n"))
    assert (spec.separator, spec.time, spec.time_unit_s, spec.sfreq) == (";", "timestamp", 0.001, 50.0)
    assert spec.channels == {"x_acc": "acc_x", "y_acc": "acc_y"}
    with pytest.raises(RecordError) as e:
        guess_spec(write(tmp_path / "b.txt", "1 2 3\n4 5 6\n"))
    assert e.value.code == "needs_card"
    assert guess_spec(tmp_path / "b.txt", sfreq=50).names == ["column_1", "column_2", "column_3"]


@pytest.mark.parametrize("stamps", [("3", "2", "1"), ("1", "1", "1"), ("0", "1e-320", "2e-320"), ("nan", "nan", "nan")])
def test_a_time_column_that_gives_no_rate_is_an_error_with_a_remedy(tmp_path: Path, stamps: tuple[str, ...]) -> None:
    rows = "".join(f"{t},{i}.5\n" for i, t in enumerate(stamps))
    path = write(tmp_path / "a.csv", f"time,acc_x\n{rows}")
    with pytest.raises(RecordError, match="'time' does not count time forward; state the rate"):
        guess_spec(path)
    assert guess_spec(path, sfreq=50).sfreq == 50


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biossl.io.table._BOMB_BYTES", 2**16)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("bomb.csv", "a\n" + "0\n" * 2**20)
        z.writestr("good.csv", "acc_x\n" + "".join(f"{(i * 7919) % 1000 / 999:.6f}\n" for i in range(2**14)))
    with pytest.raises(RecordError, match=r"bomb.csv would unpack to .* leave it out") as caught:
        read_table(f"{tmp_path / 'b.zip'}!bomb.csv", TableSpec(sfreq=50))
    assert caught.value.code == "too_large"
    assert read_table(f"{tmp_path / 'b.zip'}!good.csv", TableSpec(sfreq=50), units={"acc": "g"})[0].data.shape == (1, 2**14)


@given(st.data())
def test_a_damaged_zip_is_a_record_error_whatever_is_damaged(data: st.DataObject) -> None:
    held = io.BytesIO()
    method = data.draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(held, "w", method) as z:
        z.writestr("é.csv", "acc_x\n" + "1.5\n" * 40)
    damaged = bytearray(held.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zip"
        path.write_bytes(damaged)
        list_files(path.parent)
        try:
            guess_spec(f"{path}!é.csv", sfreq=50)
        except RecordError:
            pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(RecordError, match="a.csv: is not an ordinary file"):
        read_table(tmp_path / "a.csv", TableSpec(sfreq=50))
