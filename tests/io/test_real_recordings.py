"""Readers on the real recordings: counts and values that the data sets' own documentation or another reader states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import edfio
import numpy as np
import pyedflib
import pytest
import wfdb

from biossl.channels import ECG_LEADS, limb_residuals
from biossl.errors import RecordError
from biossl.io import read
from biossl.signal import Recording

pytestmark = pytest.mark.data

AAMI = {"N": "NLRejnB", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}


def test_every_wfdb_storage_format(data_root: Path) -> None:
    folder = data_root / "wfdb_formats"
    headers = [p for p in folder.rglob("*.hea") if not p.name.endswith("_layout.hea")]
    assert len(headers) == 36
    for header in headers:
        for r in read(header):
            assert np.isfinite(r.data).any()
    assert read(folder / "SC4001E0-PSG.wav")[0].data.shape == (7, 79500)


@pytest.mark.parametrize("name", ["binformats", "flacformats", "100_3chan", "3000003_0003", "a103l", "s0010_re", "test01_00s"])
def test_values_equal_the_wfdb_package(data_root: Path, name: str) -> None:
    (got,) = read(data_root / "wfdb_formats" / f"{name}.hea")
    want = wfdb.rdrecord(str(data_root / "wfdb_formats" / name)).p_signal.T
    np.testing.assert_allclose(got.data, want, rtol=1e-6)


def test_samples_per_frame_stay_apart(data_root: Path) -> None:
    groups = read(data_root / "wfdb_formats" / "mixedsignals.hea")
    assert [(r.ch_names, round(r.sfreq, 4), r.data.shape[1]) for r in groups] == [
        (("II", "III", "V"), 249.89, 57600), (("ABP", "PLETH"), 124.945, 28800), (("RESP",), 62.4725, 14400),
    ]  # fmt: skip


def test_multi_segment_records(data_root: Path) -> None:
    folder = data_root / "wfdb_formats" / "multi-segment"
    fast, slow = read(folder / "041s" / "041s.hea")
    assert (fast.data.shape, slow.data.shape) == ((3, 8000), (4, 2000))
    (gapped,) = read(folder / "p000878" / "p000878-2137-10-26-16-57.hea")
    assert (gapped.offset_s, gapped.data.shape) == (30.0, (4, 3750))
    assert [f.code for f in gapped.meta["findings"]] == ["missing_segment"]
    (whole,) = read(folder / "s25047" / "s25047-2704-05-04-10-44.hea")
    assert whole.offset_s == 25740 / 125 and whole.data.shape == (3, 517500)
    record = wfdb.rdrecord(str(folder / "s25047" / "s25047-2704-05-04-10-44"), m2s=True)
    want = record.p_signal[25740:, [record.sig_name.index(n) for n in whole.ch_names]].T
    np.testing.assert_allclose(whole.data, want, rtol=1e-6)


def test_mitdb_beats_and_lead_order(data_root: Path) -> None:
    beats: Counter[str] = Counter()
    symbol_class = {s: k for k, symbols in AAMI.items() for s in symbols}
    headers = sorted((data_root / "mitdb").glob("*.hea"))
    assert len(headers) == 33
    for header in headers:
        (r,) = read(header, annotations=["atr"])
        assert r.data.shape == (2, 650_000) and r.units == ("mV", "mV") and r.sfreq == 360
        beats.update(symbol_class[a.label] for a in r.annotations if a.kind == "beat")
    assert beats == {"N": 69_654, "S": 1_303, "V": 5_343, "F": 780, "Q": 13}
    assert read(data_root / "mitdb" / "114.hea")[0].ch_names == ("V5", "MLII")


def test_ludb_waves(data_root: Path) -> None:
    waves: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    outlined = 0
    for header in (data_root / "ludb" / "data").glob("*.hea"):
        (r,) = read(header, annotations=[lead.lower() for lead in ECG_LEADS])
        assert r.ch_names == ECG_LEADS
        waves.update(a.label for a in r.annotations)
        missing.update(a.missing for a in r.annotations)
        outlined += sum(a.duration_s > 0 for a in r.annotations)
    assert waves == {"p": 11_076, "N": 15_425, "t": 13_805}
    assert outlined == sum(waves.values()) - 25  # these have no bracket
    assert missing == {"": 40_198, "onset": 105, "offset": 3}


def test_ludb_headers_have_wrong_gains_and_this_is_noticed(data_root: Path) -> None:
    """Its raw counts obey Einthoven and Goldberger, its millivolts do not."""
    (r,) = read(data_root / "ludb" / "data" / "1.hea")
    assert "gains of the header" in limb_residuals(r)["suspects"][0]


def test_ptbxl_leads_are_consistent_and_a_swap_is_noticed(data_root: Path) -> None:
    headers = sorted((data_root / "ptbxl_subset" / "records500").rglob("*.hea"))
    assert len(headers) == 110
    for header in headers:
        (r,) = read(header)
        assert r.ch_names == ECG_LEADS and r.data.shape == (12, 5000)
        assert limb_residuals(r)["worst"] < 0.01
        swapped = Recording(r.data[[0, 1, 2, 3, 5, 4, *range(6, 12)]], r.sfreq, r.ch_names, r.ch_types, r.units, r.record)
        assert limb_residuals(swapped)["suspects"][0] == "aVL and aVF swapped"


def test_cinc2021_mat_files_and_their_lower_case_unit(data_root: Path) -> None:
    files = sorted((data_root / "cinc2021_sample").glob("*.mat"))
    assert len(files) == 36
    for path in files:
        (r,) = read(path)
        assert r.ch_names == ECG_LEADS and set(r.units) == {"mV"} and 0.01 < np.nanstd(r.data) < 2
        assert r.meta["comments"]["Dx"].replace(",", "").isdigit()


def test_cpsc2021_rhythms(data_root: Path) -> None:
    kinds: Counter[str] = Counter()
    for header in (data_root / "cpsc2021_sample").glob("*.hea"):
        (r,) = read(header, annotations=["atr"])
        assert r.ch_names == ("I", "II") and r.sfreq == 200
        kinds.update(a.label for a in r.annotations if a.kind == "rhythm")
        assert not any(a.label == "None" for a in r.annotations)
    assert set(kinds) == {"AFIB", "N"} and kinds["AFIB"] >= 1


def test_eegmat_channels(data_root: Path) -> None:
    files = sorted((data_root / "eegmat").glob("*.edf"))
    assert len(files) == 20
    for path in files:
        (r,) = read(path)
        seconds = 170 if path.stem == "Subject04_1" else 182 if path.stem.endswith("_1") else 62
        assert (r.sfreq, r.duration_s) == (500.0, seconds)
        assert r.ch_types == ("eeg",) * 20 + ("ecg",) and r.units == ("uV",) * 20 + ("mV",)
        assert r.ch_names[-2:] == ("A2-A1", "ECG") and {"T7", "P8"} <= set(r.ch_names)


def test_eegmmidb_trials(data_root: Path) -> None:
    files = sorted((data_root / "eegmmidb_s001").glob("*.edf"))
    assert len(files) == 5
    for path in files:
        (r,) = read(path)
        trials = Counter(a.label for a in r.annotations if a.kind == "trial")
        assert trials["T1"] + trials["T2"] == 15 and trials["T0"] == 15
        assert r.data.shape == (64, 20_000) and set(r.ch_types) == {"eeg"} and {"FC5", "Iz", "T10"} <= set(r.ch_names)


@pytest.mark.parametrize(
    "name",
    ["edfio/mne_test.edf", "edfio/short_psg.bdf", "edfio/short_psg.edf", "mne/test_bdf_stim_channel.bdf",
     "mne/test_edf_stim_channel.edf", "mne/test_uneven_samp.edf", "pyedflib/test_generator.bdf", "mne/duplicate_channel_labels.edf"],
)  # fmt: skip
def test_edf_and_bdf_values_equal_pyedflib(data_root: Path, name: str) -> None:
    path = data_root / "eeg_formats" / name
    groups = read(path)
    got: dict[str, list[tuple[np.ndarray, str]]] = {}  # a label may be there twice
    for r in groups:
        for label, row, unit in zip(r.meta["ch_names_original"], r.data, r.units, strict=True):
            got.setdefault(label, []).append((row, unit))
    with pyedflib.EdfReader(str(path)) as oracle:
        for i in range(oracle.signals_in_file):
            row, unit = got[oracle.getLabel(i).strip()].pop(0)
            factor = {("uV", "mV"): 1e-3, ("mV", "uV"): 1e3}.get((oracle.getPhysicalDimension(i).strip(), unit), 1.0)
            np.testing.assert_allclose(row, oracle.readSignal(i) * factor, rtol=2e-6, atol=1e-6)
    assert not any(got.values())


def test_a_bdf_that_pyedflib_refuses_equals_edfio(data_root: Path) -> None:
    path = data_root / "eeg_formats" / "mne" / "test.bdf"
    (r,) = read(path)
    np.testing.assert_allclose(r.data, np.stack([s.data for s in edfio.read_bdf(path).signals]), rtol=2e-6, atol=1e-6)


def test_utf8_annotations_and_subsecond_start(data_root: Path) -> None:
    (r,) = read(data_root / "eeg_formats" / "pyedflib" / "test_utf8.edf")
    assert "中文测试八个字" in [a.label for a in r.annotations]
    assert str(r.start).startswith("2020-01-24T04:05:56.39")


def test_brainvision_refuses_the_nonsense_units_and_reads_the_rest(data_root: Path) -> None:
    path = data_root / "eeg_formats" / "mne" / "test.vhdr"
    with pytest.raises(RecordError, match="CP5") as error:
        read(path)
    assert error.value.code == "unknown_unit"
    (r,) = read(path, units={"CP5": "1", "CP6": "1"})
    assert r.data.shape == (32, 7900) and r.units[:4] == ("uV",) * 4
    counts = np.fromfile(path.with_suffix(".eeg"), "<i2").reshape(-1, 32).T
    np.testing.assert_allclose(r.data[:26], counts[:26] * 0.5, rtol=1e-6)
    assert [a.label for a in r.annotations if a.kind == "trial"][:2] == ["S253", "S255"]


def test_hypnograms_have_no_signal(data_root: Path) -> None:
    with pytest.raises(RecordError) as error:
        read(next((data_root / "sleepedf_hypnograms").glob("*.edf")))
    assert error.value.code == "no_signal"
