"""The dispatcher: format by content, one error type, no crash on damaged files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from biossl.errors import BiosslError, RecordError
from biossl.io import formats, read
from biossl.io.detect import detect


def edf(path: Path) -> Path:
    x = np.random.default_rng(0).standard_normal(1000) * 20
    edfio.Edf([edfio.EdfSignal(x, 100, label="Cz", physical_dimension="uV")], annotations=[]).write(path)
    return path


def record(folder: Path) -> Path:
    counts = np.random.default_rng(0).integers(-99, 99, (1000, 1))
    wfdb.wrsamp("rec", fs=250, units=["mV"], sig_name=["II"], d_signal=counts, fmt=["16"], adc_gain=[200.0], baseline=[0],
                write_dir=str(folder))  # fmt: skip
    return folder / "rec.hea"


def test_the_suffix_does_not_decide(tmp_path: Path) -> None:
    path = edf(tmp_path / "misnamed.csv")
    assert detect(path) == "edf"
    assert read(path)[0].ch_names == ("Cz",)
    header = record(tmp_path)
    assert detect(header) == detect(tmp_path / "rec") == detect(tmp_path / "rec.dat") == "wfdb"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty"), (b"\x00" * 500, "empty"), (b"\x89PNG\r\n\x1a\n....", "wrong_format"), (b"\x00\x01\xfe" * 99, "wrong_format"),
     (b"MATLAB 5.0 MAT-file", "wrong_format"), (b"t,x\n0,1\n", "needs_card")],
)  # fmt: skip
def test_what_cannot_be_read_says_so(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "x.edf"
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert error.value.code == code and str(error.value).startswith(str(path))


def test_a_header_that_makes_samples_infinite_is_refused(tmp_path: Path) -> None:
    path = edf(tmp_path / "a.edf")
    raw = bytearray(path.read_bytes())
    n = int(raw[252:256])
    low, high = 256 + n * (16 + 80 + 8), 256 + n * (16 + 80 + 8 + 8)  # physical minimum and maximum of the first signal
    raw[low : low + 8], raw[high : high + 8] = b"-9E300  ", b"9E300   "
    path.write_bytes(raw)
    with pytest.raises(RecordError, match="a sample is infinite; mend the file or the gain in its header") as error:
        read(path)
    assert error.value.code == "infinite"


def test_a_missing_file_and_a_folder_are_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.edf", tmp_path):
        with pytest.raises(RecordError) as error:
            read(path)
        assert error.value.code == "missing"


def test_an_unknown_option_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="known: annotations"):
        read(edf(tmp_path / "a.edf"), unit={"Cz": "uV"})


def test_wav_is_read_as_uncalibrated_counts(tmp_path: Path) -> None:
    from scipy.io import wavfile

    x = np.random.default_rng(0).integers(-999, 999, (500, 2)).astype(np.int16)
    wavfile.write(tmp_path / "a.wav", 100, x)
    (r,) = read(tmp_path / "a.wav")
    np.testing.assert_array_equal(r.data, x.T)
    assert (r.units, r.sfreq) == (("1", "1"), 100.0)


@pytest.mark.parametrize("kind", ["edf", "wfdb"])
def test_damaged_bytes_never_escape_as_another_exception(tmp_path: Path, kind: str) -> None:
    """Mutate header and data: a result or one RecordError, nothing else."""
    path = edf(tmp_path / "a.edf") if kind == "edf" else record(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        raw = bytearray(whole)
        for at in rng.integers(0, min(len(raw), 800), rng.integers(1, 4)):
            raw[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            raw = raw[: rng.integers(1, len(raw))]
        path.write_bytes(bytes(raw))
        try:
            for r in read(path, modality="eeg"):
                assert r.data.ndim == 2 and r.sfreq > 0
        except BiosslError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_importing_the_room_is_light() -> None:
    code = "import sys, biossl.io, biossl.channels, biossl.quality; sys.exit(any(m in sys.modules for m in ('mne', 'wfdb', 'pandas', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_formats_are_named() -> None:
    assert {"wfdb", "edf", "brainvision", "table"} <= set(formats())


@pytest.mark.parametrize("name", ["a.hea", "a.edf", "a.vhdr"])
def test_a_text_under_a_header_name_is_said_to_be_no_header(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello, this is a text\n")
    with pytest.raises(RecordError, match="a text that is no .* header; copy it again"):
        read(tmp_path / name)
