from __future__ import annotations

import filecmp

import numpy as np
import pandas as pd
import pytest

from biossl.corpus import Corpus, convert
from biossl.errors import RequestError
from biossl.simulate import ecg, heart


@pytest.fixture(scope="module")
def cohort():
    blocks = list(ecg.simulate_patients(256, seed=5))
    return np.concatenate([b.millivolts for b in blocks]), pd.DataFrame([t for b in blocks for t in b.truth])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim") / "a"
    ecg.write_patients(folder, n_patients=12, seed=7, recordings_per_patient=2)
    return folder


def lead(x, name):
    return x[:, ecg.LEADS.index(name)]


def test_signals_are_finite_and_of_the_size_of_an_ecg(cohort):
    x, _ = cohort
    assert np.isfinite(x).all()
    size = np.ptp(np.median(np.abs(lead(x, "V4")), axis=0))
    assert size < 5
    assert 0.3 < np.median(np.ptp(lead(x, "II"), axis=1)) < 4
    assert np.abs(x).max() < 20


def test_einthoven_and_goldberger_hold_to_one_count():
    for block in ecg.simulate_patients(64, seed=1):
        counts = block.counts.astype(int)
        i, ii, iii, avr, avl, avf = counts[:, :6].transpose(1, 0, 2)
        assert (iii == ii - i).all()
        assert np.abs(avr + (i + ii) / 2).max() <= 1
        assert np.abs(avl - (i - ii / 2)).max() <= 1
        assert np.abs(avf - (ii - i / 2)).max() <= 1


def test_intervals_lie_in_human_ranges(cohort):
    _, truth = cohort
    assert truth.rate_bpm.between(35, 185).all()
    assert truth.pr_ms.between(110, 345).all()
    assert truth.qrs_ms.between(55, 200).all()
    assert truth.qt_ms.between(250, 560).all()
    normal = truth[truth.diagnosis == "NORM"]
    assert 70 < normal.qrs_ms.median() < 105
    assert 0 < normal.axis_deg.median() < 75


def test_rate_in_the_truth_is_the_rate_in_the_signal(cohort):
    from biossl.baselines import r_peaks

    x, truth = cohort
    calm = truth[(truth.noise_grade < 0.8) & (truth.n_ectopic == 0) & (truth.rhythm == "SR")].index[:20]
    seen = [60 * 250 / np.median(np.diff(r_peaks(x[i], 250.0))) for i in calm]
    assert np.median(np.abs(np.array(seen) / truth.rate_bpm[calm] - 1)) < 0.02


def test_atrial_fibrillation_is_irregular_and_sinus_rhythm_is_not(cohort):
    _, truth = cohort
    af, sinus = truth[truth.rhythm == "AF"], truth[(truth.rhythm == "SR") & (truth.n_ectopic == 0)]
    assert len(af) >= 3
    assert (af.rr_sd_s * af.rate_bpm / 60).min() > 0.07
    assert (sinus.rr_sd_s * sinus.rate_bpm / 60).median() < 0.06


def test_every_diagnosis_is_common_and_normal_excludes_the_others(cohort):
    _, truth = cohort
    labels = truth.diagnosis.str.get_dummies(" ")
    assert set(labels) == set(heart.DIAGNOSES)
    assert labels.mean().between(0.1, 0.6).all()
    assert (labels.loc[labels.NORM == 1].sum(axis=1) == 1).all()


def clean_beats(**disease):
    """Electrode patterns of mean hearts, healthy and with one disease at full severity."""
    out = []
    for sick in (False, True):
        rng = np.random.default_rng(3)
        n = 40
        age = np.full(n, 55.0)
        h = heart.draw_hearts(rng, age, np.zeros(n, bool))
        none = {k: np.zeros(n) for k in ("MI", "STTC", "CD", "HYP", "strain")}
        none |= {k: np.full(n, "") for k in ("MI_territory", "STTC_territory", "STTC_form", "CD_form", "HYP_form")}
        none["MI_acute"] = np.zeros(n, bool)
        if sick:
            none |= {k: np.full(n, v) for k, v in disease.items()}
        heart.afflict(h, none)
        waves = heart.sinus_waves(h, heart.place_electrodes(rng, np.ones(n)))
        ms = np.tile(np.arange(-100.0, 500.0), (n, 1))
        phi = ecg._one_beat(waves, ms, np.full(n, 400.0))
        chest = phi[:, 3:] - phi[:, :3].mean(axis=1, keepdims=True)
        limb = np.stack([phi[:, 1] - phi[:, 0], phi[:, 2] - phi[:, 0]], axis=1)
        out.append(np.median(np.concatenate([limb, chest], axis=1), axis=0))
    return out


def test_disease_changes_the_leads_it_should():
    qrs, st, t = slice(100, 230), slice(210, 240), slice(330, 440)
    v1, v2, v3, v6 = 2, 3, 4, 7
    well, scar = clean_beats(MI=1.0, MI_territory="anterior")
    assert scar[v2 : v3 + 1, qrs].max(axis=1).sum() < 0.5 * well[v2 : v3 + 1, qrs].max(axis=1).sum()  # R waves lost
    well, thick = clean_beats(HYP=1.0, HYP_form="LVH")
    assert thick[v6, qrs].max() > 1.4 * well[v6, qrs].max()
    well, lbbb = clean_beats(CD=1.0, CD_form="LBBB")
    assert lbbb[v6, t].mean() < 0 < well[v6, t].mean()  # discordant T
    assert np.abs(lbbb[v6]).argmax() > np.abs(well[v6]).argmax() + 20  # late
    well, rbbb = clean_beats(CD=1.0, CD_form="RBBB")
    assert rbbb[v1, 170:200].max() > well[v1, 170:200].max() + 0.1  # second R in V1
    well, ischaemic = clean_beats(STTC=1.0, STTC_form="ischaemia", STTC_territory="lateral")
    assert ischaemic[v6, st].mean() < well[v6, st].mean() - 0.03


def test_a_patient_is_the_same_whoever_else_is_simulated():
    few = next(ecg.simulate_patients(3, seed=9)).counts
    many = next(ecg.simulate_patients(40, seed=9)).counts
    assert (few == many[:3]).all()
    assert not (few == next(ecg.simulate_patients(3, seed=10)).counts).all()


def test_files_are_byte_identical_for_a_seed(written, tmp_path):
    ecg.write_patients(tmp_path / "b", n_patients=12, seed=7, recordings_per_patient=2)
    names = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    assert len(names) == 2 * 24 + 2
    same, different, wrong = filecmp.cmpfiles(written, tmp_path / "b", names, shallow=False)
    assert len(same) == len(names) and not different and not wrong


def test_written_folder_converts_with_its_labels_and_split(written, tmp_path):
    report = convert(written / "card.yaml", written, tmp_path / "c", view="resting", n_jobs=1)
    assert report["funnel"]["windows"] == 24 and not report["findings"]
    corpus = Corpus.open(tmp_path / "c")
    truth = pd.read_csv(written / "records.csv", dtype=str, keep_default_na=False).set_index("record")
    labels = corpus.labels("diagnosis")
    for record, row in zip(corpus.index.record, labels.values, strict=True):
        assert {c for c, v in zip(labels.classes, row, strict=True) if v == 1} == set(truth.diagnosis[record].split())
        assert not np.isnan(row).any()
    assert set(corpus.split("official")) <= {"train", "test"}
    assert corpus.index.groupby("subject").split.nunique().max() == 1
    assert np.isfinite(corpus.signal(np.arange(24))).all()


def test_a_full_folder_or_no_patient_is_refused(written):
    with pytest.raises(RequestError, match="not an empty folder"):
        ecg.write_patients(written, n_patients=2, seed=0)
    with pytest.raises(RequestError, match="n_patients"):
        ecg.write_patients(written / "x", n_patients=0, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_hand_features_find_the_question_neither_trivial_nor_hopeless(seed):
    from scipy import signal as sps
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from biossl.baselines import hand_features
    from biossl.signal import InputSpec

    names = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    blocks = list(ecg.simulate_patients(400, seed=seed))
    x = np.concatenate([b.millivolts for b in blocks])[:, [ecg.LEADS.index(n) for n in names]]
    x = sps.sosfiltfilt(sps.butter(4, [0.5, 40], "bandpass", fs=100, output="sos"), sps.resample_poly(x, 2, 5, axis=2), axis=2)
    y = np.array([[d in t["diagnosis"].split() for d in heart.DIAGNOSES] for b in blocks for t in b.truth])
    f, _ = hand_features(x, InputSpec("ecg", 100.0, 1000, names, ("ecg",) * 8, ("mV",) * 8))
    scores = []
    for k in range(len(heart.DIAGNOSES)):
        model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(
            f[:200], y[:200, k]
        )
        scores.append(roc_auc_score(y[200:, k], model.decision_function(f[200:])))
    assert 0.65 < np.mean(scores) < 0.85
