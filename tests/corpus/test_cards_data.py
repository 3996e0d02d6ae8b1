"""The packaged cards on the real recordings: counts, labels and orders that the sets' own papers and files state."""

from __future__ import annotations

import ast
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from biossl.corpus import Corpus, convert
from biossl.corpus.card import load_card
from biossl.corpus.views import Cut, cut, discover, load_record
from biossl.errors import RecordError

pytestmark = pytest.mark.data


def cuts(name: str, source: Path, view: str, keep: str = "") -> list[Cut]:
    card = load_card(name)
    return [cut(card, view, load_record(card, t)) for t in discover(card, source, view) if keep in t.record]


def test_hapt_gives_the_official_windows_in_the_official_order(data_root: Path) -> None:
    card = load_card("hapt")
    got = cuts("hapt", data_root / "hapt", "activity")
    assert sum(len(c.data) for c in got) == 10_929 and all(c.data.shape[1:] == (6, 128) for c in got)
    parts = card.splits["official"].parts
    with zipfile.ZipFile(data_root / "hapt" / "HAPT Data Set.zip") as z:
        for part, size in (("train", 7_767), ("test", 3_162)):
            mine = [c for c in got if c.subject in parts[part]]
            folder = f"HAPT Data Set/{part.capitalize()}"
            labels = [c.events["label"].iloc[e] for c in mine for e in c.event]
            people = [str(int(c.subject or "")) for c in mine for _ in c.event]
            assert len(labels) == size
            assert labels == z.read(f"{folder}/y_{part}.txt").decode().split()
            assert people == z.read(f"{folder}/subject_id_{part}.txt").decode().split()
    assert {s for c in got for s in c.sha256}.__len__() == 10_929
    assert sorted(v for values in card.labels["activity"].map.values() for v in values) == sorted(str(i) for i in range(1, 13))


def test_hapt_continuous_covers_the_recordings(data_root: Path) -> None:
    got = cuts("hapt", data_root / "hapt", "continuous", "exp01")
    assert len(got) == 1 and len(got[0].data) == 1 + (20_598 - 128) // 64


def test_mitdb_beats_have_the_published_aami_counts(data_root: Path) -> None:
    card = load_card("mitdb")
    aami = {v: k for k, values in card.labels["beat"].map.items() for v in values}
    counts: Counter[str] = Counter()
    by_part: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
    for c in cuts("mitdb", data_root / "mitdb", "beats"):
        assert not c.dropped, c.record
        classes = [aami[c.events["label"].iloc[e]] for e in c.event]
        counts.update(classes)
        for part, records in card.splits["official"].parts.items():
            if c.record in records:
                by_part[part].update(classes)
    assert counts == {"N": 69_654, "S": 1_303, "V": 5_343, "F": 780, "Q": 13}
    assert by_part["train"] == {"N": 45_866, "S": 944, "V": 3_788, "F": 415, "Q": 8}
    assert by_part["test"] == {"N": 23_788, "S": 359, "V": 1_555, "F": 365, "Q": 5}


def test_mitdb_record_114_has_its_leads_in_the_order_of_the_view(data_root: Path) -> None:
    card = load_card("mitdb")
    task = next(t for t in discover(card, data_root / "mitdb", "rhythm") if t.record == "114")
    (r,) = load_record(card, task)
    assert r.ch_names == ("V5", "MLII")
    window = cut(card, "rhythm", [r]).data[3]
    from biossl.preprocess.filters import filter_signal, resample

    mlii = resample(filter_signal(r.data[1:2], 360, card.views["rhythm"].filter.spec()), 360, 250)[0, 7500:10_000]
    np.testing.assert_allclose(window[0], mlii, atol=1e-6)


def test_ptbxl_superclasses_subjects_and_folds(data_root: Path) -> None:
    card = load_card("ptbxl")
    tasks = discover(card, data_root / "ptbxl_subset", "resting")
    assert len(tasks) == 353 and len({t.subject for t in tasks}) == 339
    counts: Counter[str] = Counter()
    for t in tasks:
        codes = ast.literal_eval(t.covariates["scp_codes"])
        counts.update(k for k, values in card.labels["superclass"].map.items() if set(values) & set(codes))
    assert counts == {"NORM": 225, "STTC": 59, "CD": 57, "MI": 49, "HYP": 25}
    assert {t.covariates["strat_fold"] for t in tasks} == {str(i) for i in range(1, 9)}
    assert max(float(t.covariates["age"]) for t in tasks if t.covariates["age"]) < 100  # 300 was read as what it means
    assert len(discover(card, data_root / "ptbxl_subset", "resting500")) == 110


def test_ptbxl_windows_are_lossless_at_100_hz_and_the_two_rates_agree(data_root: Path) -> None:
    low = cuts("ptbxl", data_root / "ptbxl_subset", "resting", "00001")[0]
    high = cuts("ptbxl", data_root / "ptbxl_subset", "resting500", "00001")[0]
    assert low.data.shape == (1, 8, 1000) and high.data.shape == (1, 8, 2500)
    assert low.lsb is not None and high.lsb is None
    whole = low.data[0] / low.lsb[:, None]
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-3)
    a, b = low.data[0][:, 50:-50], high.data[0][:, ::5][:, 25:-25]  # both at 50 Hz
    assert all(np.corrcoef(x[::2], y)[0, 1] > 0.97 for x, y in zip(a, b, strict=True))


def test_ludb_waves(data_root: Path) -> None:
    counts: Counter[str] = Counter()
    rhythms: Counter[str] = Counter()
    card = load_card("ludb")
    known = {v for values in card.labels["rhythm"].map.values() for v in values}
    for c in cuts("ludb", data_root / "ludb", "resting"):
        assert c.data.shape == (1, 12, 5000) and c.lsb is not None
        counts.update(c.events.loc[c.events["kind"] == "wave", "label"])
        rhythms[c.covariates["rhythm"]] += 1
    assert counts == {"p": 11_076, "N": 15_425, "t": 13_805}
    assert set(rhythms) <= known and sum(rhythms.values()) == 140


def test_eegmmidb_trials_mean_what_the_run_says(data_root: Path) -> None:
    got = cuts("eegmmidb", data_root / "eegmmidb_s001", "hands_feet")
    assert [c.record[-2:] for c in got] == ["05", "06", "10", "13", "14"]
    for c in got:
        labels = c.events["label"].iloc[c.event]
        assert len(c.data) == 15 and set(labels) == {"both_fists", "both_feet"} and c.data.shape[1:] == (64, 640)
        assert c.covariates["mode"] == ("execute" if c.record[-2:] in ("05", "13") else "imagine")
        assert np.nanmax(np.abs(c.data.mean(axis=1))) < 1e-3  # average reference
        assert 5 < np.nanstd(c.data) < 200  # microvolt


def test_eegmat_rest_and_task(data_root: Path) -> None:
    got = cuts("eegmat", data_root / "eegmat", "rest_task")
    n = Counter()
    for c in got:
        n[c.covariates["condition"]] += len(c.data)
        assert c.data.shape[1:] == (19, 512)
    assert n == {"1": 9 * 45 + 42, "2": 10 * 15} and len({c.subject for c in got}) == 10
    assert {c.covariates["sex"] for c in got} == {"female", "male"}


def test_cinc2021_codes_and_units(data_root: Path) -> None:
    got = cuts("cinc2021", data_root / "cinc2021_sample", "resting")
    assert len(got) == 36 and all(c.data.shape == (1, 8, 2500) for c in got)
    assert Counter(c.covariates["site"] for c in got) == {"E": 15, "HR": 7, "JS": 14}
    scored = {v for values in load_card("cinc2021").labels["diagnosis"].map.values() for v in values}
    assert len(scored) == 30 and sum(bool(scored & set(c.covariates["dx"].split(","))) for c in got) > 30
    size = {site: np.median([np.nanstd(c.data) for c in got if c.covariates["site"] == site]) for site in ("E", "HR", "JS")}
    assert all(0.03 < v < 1 for v in size.values()), size  # millivolt in all three, whatever the case of the unit


def test_cpsc2021_episodes_fill_their_records(data_root: Path) -> None:
    got = cuts("cpsc2021", data_root / "cpsc2021_sample", "rhythm")
    assert len(got) == 12 and {c.subject for c in got} == {"21", "35", "84", "101"}
    for c in got:
        rhythm = c.events[c.events["kind"] == "rhythm"].sort_values("onset_s")
        ends = rhythm["onset_s"] + rhythm["duration_s"]
        assert rhythm["onset_s"].iloc[0] == 0 and np.allclose(rhythm["onset_s"].iloc[1:], ends.iloc[:-1])
        share = rhythm.loc[rhythm["label"] == "AFIB", "duration_s"].sum() / ends.iloc[-1]
        klass = c.covariates["rhythm_class"].split()[0]
        assert share == 0 if klass == "non" else share > 0.95 if klass == "persistent" else 0 < share < 0.95


def test_bidmc_is_uncalibrated(data_root: Path) -> None:
    (c,) = cuts("bidmc", data_root / "bidmc_sample", "monitor")
    assert c.data.shape == (60, 3, 1000)
    assert c.data[:, 0].std() > 0.05  # a pulse and an ECG, whatever their unit


def test_geotec_gravity_rates_and_labels(data_root: Path) -> None:
    for view in ("watch", "phone"):
        got = cuts("geotec_har", data_root / "geotec_sp_sw_har", view)
        assert len(got) == 125 and len({c.subject for c in got}) == 13
        still = [c.data[c.events["label"].iloc[c.event].to_numpy() == "SEATED", :3] for c in got]
        gravity = np.linalg.norm(np.concatenate(still), axis=1).mean()
        assert abs(gravity - 1) < 0.05  # g, so m/s2 was converted
        assert set(c.covariates["placement"] for c in got) == {"sw" if view == "watch" else "sp"}
        assert {label for c in got for label in c.events["label"]} == set(load_card("geotec_har").labels["activity"].map)


def test_wisdm_windows_stay_inside_one_activity(data_root: Path) -> None:
    got = cuts("wisdm2019", data_root / "wisdm2019_watch6", "watch")
    assert len(got) == 30 and len({c.subject for c in got}) == 30
    for c in got:
        start, stop = c.start_s, c.start_s + 10
        marks = c.events.iloc[c.event]
        assert (start >= marks["onset_s"] - 1e-9).all() and (stop <= marks["onset_s"] + marks["duration_s"] + 1e-9).all()
    assert {label for c in got for label in c.events["label"]} == set("ABCDEM")


def test_the_wrong_source_or_reader_is_one_line(data_root: Path) -> None:
    from dataclasses import replace

    card = load_card("mitdb")
    task = discover(card, data_root / "mitdb", "beats")[0]
    wrong = replace(card.files[0], reader="edf", annotations=[])
    with pytest.raises(RecordError) as e:
        load_record(replace(card, files=[wrong]), task)
    assert e.value.code == "wrong_format" and "\n" not in str(e.value)


def test_eegmats_last_minute_of_rest_is_as_long_as_its_task(data_root: Path, tmp_path: Path) -> None:
    """Subject04's rest lasts 170 s, the others' 182 s, the last 2 s of every file being padding."""
    (tmp_path / "eegmat").mkdir()
    for name in ("Subject00_1.edf", "Subject00_2.edf", "Subject04_1.edf", "Subject04_2.edf", "subject-info.csv"):
        shutil.copy(next((data_root / "eegmat").rglob(name)), tmp_path / "eegmat")
    convert(load_card("eegmat"), tmp_path / "eegmat", tmp_path / "corpus", view="rest_task", partial=True)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.labels("task").counts() == {"rest": 87, "task": 30} and corpus.labels("task").classes == ("rest", "task")
    late = corpus.labels("task_last_minute")
    assert late.counts() == {"rest": 30, "task": 30} and late.classes == ("rest", "task")
    start = corpus.index["start_s"][late.known].groupby(corpus.index["record"]).agg(["min", "max"])
    assert start.to_numpy().tolist() == [[120, 176], [0, 56], [108, 164], [0, 56]]
