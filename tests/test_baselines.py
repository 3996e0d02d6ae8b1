"""Hand features find what they are named for, survive gaps and flat leads, and are the honest floor on real recordings."""

import numpy as np
import pytest

from biossl import baselines, metrics
from biossl.signal import InputSpec


def spec(modality, n_channels, sfreq, n):
    kind = {"ecg": ("ecg", "mV"), "eeg": ("eeg", "uV"), "imu": ("acc", "g")}[modality]
    names = {"ecg": "I II V1".split(), "eeg": "O1 O2 Cz".split(), "imu": "acc_x acc_y acc_z".split()}[modality][:n_channels]
    return InputSpec(modality, sfreq, n, tuple(names), (kind[0],) * n_channels, (kind[1],) * n_channels)


def beats(rr_s, sfreq=250.0, seconds=10.0, n_channels=3, noise=0.02, seed=0):
    """Gaussian P, QRS and T on every channel; returns signal (C, T) and R samples."""
    t = np.arange(int(seconds * sfreq)) / sfreq
    r = np.arange(0.5, seconds - 0.3, rr_s)
    x = sum(
        a * np.exp(-((t[:, None] - r - d) ** 2) / (2 * w**2)).sum(1)
        for a, d, w in ((0.1, -0.16, 0.02), (1.0, 0.0, 0.012), (-0.2, 0.03, 0.01), (0.3, 0.25, 0.04))
    )
    x = np.stack([x * g for g in (1.0, 0.6, -0.8)[:n_channels]])
    return x + noise * np.random.default_rng(seed).normal(size=x.shape), np.round(r * sfreq).astype(int)


@pytest.mark.parametrize("rr_s", [0.5, 0.8, 1.3])
@pytest.mark.parametrize("sfreq", [100.0, 250.0, 500.0])
def test_r_peaks_and_intervals_are_found(rr_s, sfreq):
    x, r = beats(rr_s, sfreq)
    found = baselines.r_peaks(x, sfreq)
    assert len(found) == len(r) and np.abs(found - r).max() <= 0.03 * sfreq
    features, names = baselines.hand_features(x[None], spec("ecg", 3, sfreq, x.shape[1]))
    row = dict(zip(names, features[0], strict=True))
    assert row["rr_mean_s"] == pytest.approx(rr_s, rel=0.02) and row["n_beats"] == len(r)
    assert row["r_I"] == pytest.approx(1.0, abs=0.12) and row["r_I"] > row["r_II"] > row["r_V1"]
    assert row["t_max_I"] == pytest.approx(0.3, abs=0.1) and row["t_min_V1"] == pytest.approx(-0.24, abs=0.1)


def test_r_peaks_of_nothing_are_none():
    assert len(baselines.r_peaks(np.zeros((2, 1000)), 100.0)) == 0
    assert len(baselines.r_peaks(np.full((2, 1000), np.nan), 100.0)) == 0


def test_eeg_band_power_sits_in_the_right_band_and_scale():
    s = spec("eeg", 3, 160.0, 640)
    t = np.arange(640) / 160
    x = np.stack([20 * np.sin(2 * np.pi * f * t) for f in (2, 10, 20)])[None]
    features, names = baselines.hand_features(x, s)
    row = dict(zip(names, features[0], strict=True))
    assert row["rel_delta_O1"] > 0.95 and row["rel_alpha_O2"] > 0.95 and row["rel_beta_Cz"] > 0.95
    assert 10 ** row["log_alpha_O2"] == pytest.approx(200, rel=0.05)  # a sine of 20 uV has 200 uV2
    slow, names = baselines.hand_features(x[..., :200], spec("eeg", 3, 50.0, 200))
    assert "rel_gamma_O1" not in names  # beyond the Nyquist frequency


def test_imu_statistics_equal_numpy():
    x = np.random.default_rng(0).normal(size=(5, 3, 128))
    features, names = baselines.hand_features(x, spec("imu", 3, 50.0, 128))
    table = dict(zip(names, features.T, strict=True))
    assert table["mean_acc_y"] == pytest.approx(x[:, 1].mean(1), rel=1e-5)
    assert table["sd_acc_x"] == pytest.approx(x[:, 0].std(1), rel=1e-5)
    assert table["corr_acc_x_acc_z"][2] == pytest.approx(np.corrcoef(x[2, 0], x[2, 2])[0, 1], rel=1e-4)
    assert table["mean_acc_norm"] == pytest.approx(np.linalg.norm(x, axis=1).mean(1), rel=1e-5)


@pytest.mark.parametrize(
    "modality, sfreq, n", [("ecg", 100.0, 1000), ("ecg", 100.0, 80), ("eeg", 100.0, 400), ("imu", 50.0, 128)]
)
def test_gaps_and_dead_channels_give_nan_not_failure(modality, sfreq, n):
    x = np.random.default_rng(1).normal(size=(5, 3, n))
    x[0, 0, : n // 3] = np.nan
    x[1, 1] = np.nan
    x[2] = np.nan
    x[3] = 0.0
    features, names = baselines.hand_features(x, spec(modality, 3, sfreq, n))
    assert features.shape == (5, len(names)) and len(set(names)) == len(names)
    assert not np.isinf(features).any() and np.isfinite(features[4]).all()
    assert np.isnan(features[2]).mean() > 0.8 and np.isnan(features[1]).any()
    alone, _ = baselines.hand_features(x[4:], spec(modality, 3, sfreq, n))
    np.testing.assert_allclose(alone[0], features[4], rtol=1e-4, atol=1e-5)  # a window does not depend on its neighbours


def test_neighbour_intervals_stay_inside_a_record_and_follow_time():
    record = ["b", "a", "a", "a", "b"]
    start = np.array([7.0, 2.0, 0.0, 1.0, 5.0])
    f, names = baselines.neighbour_intervals(record, start, np.arange(5))
    assert np.isnan(f[2, 0]) and f[2, 1] == 1.0  # first beat of a
    assert f[3, :2].tolist() == [1.0, 1.0] and np.isnan(f[1, 1])
    assert f[0, 0] == 2.0 and np.isnan(f[0, 1]) and len(names) == f.shape[1]


def test_corpus_features_come_in_the_order_asked_for(tmp_path):
    from corpus_factory import make_corpus

    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=2, windows_per_subject=4)
    all_rows, names = baselines.corpus_features(corpus, np.arange(8))
    some, again = baselines.corpus_features(corpus, np.array([5, 0]))
    assert names == again
    np.testing.assert_array_equal(some, all_rows[[5, 0]])


@pytest.mark.data
def test_hapt_hand_features_reach_the_measured_floor(data_root, tmp_path):
    """Statistics + FFT and logistic regression: macro F1 0.945 on the six activities (measured with other tools)."""
    from biossl import protocol
    from biossl.corpus import convert

    corpus = convert_hapt(convert, data_root, tmp_path)
    labels = corpus.labels("activity6")
    part = corpus.split().to_numpy().astype(str)
    rows = np.flatnonzero(labels.known)
    x, _ = baselines.corpus_features(corpus, rows)
    y, subject = labels.values[rows, 0].astype(float), corpus.index["subject"].to_numpy().astype(str)[rows]
    target = protocol.Target("multiclass", y, labels.classes)
    train, test = np.flatnonzero(part[rows] == "train"), np.flatnonzero(part[rows] == "test")
    assert (len(train), len(test)) == (7415, 2996)
    fitted = protocol.linear(x[train], target.take(train), subject[train], x[test])
    assert metrics.score(y[test], fitted.prediction, "macro_f1") > 0.94


def convert_hapt(convert, data_root, tmp_path):
    from biossl.corpus import Corpus
    from biossl.corpus.card import load_card

    convert(load_card("hapt"), data_root / "hapt", tmp_path / "hapt", view="activity")
    return Corpus.open(tmp_path / "hapt")
