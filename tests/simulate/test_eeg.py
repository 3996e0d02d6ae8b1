from __future__ import annotations

import filecmp

import numpy as np
import pytest
from scipy.signal import welch

from biossl.corpus import Corpus, convert
from biossl.io import read
from biossl.simulate import eeg


@pytest.fixture(scope="module")
def subjects():
    found = [eeg.simulate_subject(seed=2, subject=k, duration_s=30.0) for k in range(8)]
    return np.stack([x for x, _ in found]), [t for _, t in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eeg") / "a"
    eeg.write_subjects(path, n_subjects=2, seed=4, duration_s=12.0)
    return path


def power(x, lo, hi):
    f, p = welch(x, fs=250.0, nperseg=500, axis=-1)
    return p[..., (f >= lo) & (f < hi)].mean(axis=-1)


def test_signals_have_the_size_and_spectrum_of_scalp_eeg(subjects):
    x, _ = subjects
    assert np.isfinite(x).all()
    assert 5 < np.median(x.std(axis=-1)) < 60
    assert (power(x, 1, 4) > 3 * power(x, 20, 30)).mean() > 0.9


def test_alpha_falls_in_the_task_most_at_the_back_and_theta_rises_in_front(subjects):
    x, _ = subjects
    back, fz = [eeg.CHANNELS.index(c) for c in ("O1", "O2", "Pz")], eeg.CHANNELS.index("Fz")
    alpha = power(x, 8, 12.5)
    assert np.median(alpha[:, 1, back] / alpha[:, 0, back]) < 0.85
    assert alpha[:, 0, back].mean() > alpha[:, 0, fz].mean()
    theta = power(x, 5, 7)
    assert np.median(theta[:, 1, fz] / theta[:, 0, fz]) > 1.1


def test_the_alpha_peak_is_the_subjects_own(subjects):
    x, truth = subjects
    f, p = welch(x[:, 0, [eeg.CHANNELS.index("O1"), eeg.CHANNELS.index("O2")]], fs=250.0, nperseg=1000, axis=-1)
    band = (f > 7.5) & (f < 13)
    peak = f[band][(p.mean(axis=1) * f)[:, band].argmax(axis=1)]
    assert np.median(np.abs(peak - [t["alpha_hz"] for t in truth])) < 0.6


def test_blinks_are_largest_at_the_forehead(subjects):
    x, _ = subjects
    slow = x[:, 1] - x[:, 1].mean(axis=-1, keepdims=True)
    height = np.percentile(slow, 99.5, axis=-1).mean(axis=0)
    assert set(np.argsort(height)[-2:]) == {0, 1}


def test_files_are_byte_identical_and_read_back(folder, tmp_path):
    eeg.write_subjects(tmp_path / "b", n_subjects=2, seed=4, duration_s=12.0)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["card.yaml", "s000_rest.edf", "s000_task.edf", "s001_rest.edf", "s001_task.edf", "subjects.csv"]
    assert filecmp.cmpfiles(folder, tmp_path / "b", names, shallow=False)[0] == names
    (recording,) = read(folder / "s001_task.edf")
    assert recording.ch_names == eeg.CHANNELS and set(recording.units) == {"uV"} and recording.sfreq == 250.0
    x = eeg.simulate_subject(seed=4, subject=1, duration_s=12.0)[0][1]
    assert np.abs(recording.data - x).max() < 0.1  # 16 bits over 4 mV


def test_card_converts(folder, tmp_path):
    convert(folder / "card.yaml", folder, tmp_path / "c", view="windows4s", n_jobs=1)
    corpus = Corpus.open(tmp_path / "c")
    assert len(corpus.index) == 2 * 2 * 3
    assert corpus.labels("state").classes == ("rest", "task")
    assert corpus.labels("state").values[:, 0].mean() == 0.5
