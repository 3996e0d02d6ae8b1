"""Common spatial patterns and their discriminant, by themselves and beside a locked model of EEG trials; the published figure on real runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit

from biossl import read
from biossl.corpus.card import load_card
from biossl.corpus.views import cut, discover, load_record
from biossl.csp import band_pass, csp_lda
from biossl.protocol import Target

IMAGERY = ("S001R06", "S001R10", "S001R14")


def trials(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sources of 12 Hz mixed into six channels; a class is which of them is strong. One channel alone says little."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2.0
    mix = np.random.default_rng(9).normal(size=(6, 6))
    t = np.arange(480) / 160
    power = np.where(y[:, None] == np.arange(2), 1.6, 0.8)
    s = rng.normal(size=(n, 6, 480))
    s[:, :2] += power[..., None] * np.sin(2 * np.pi * 12 * t + rng.uniform(0, 6.3, (n, 2, 1)))
    return np.einsum("ij,njt->nit", mix, s), y


def classes(y: np.ndarray) -> Target:
    return Target("multiclass", y, ("hands", "feet", "never"))


def test_a_spatial_pattern_is_found_and_an_absent_class_is_never_said() -> None:
    (x, y), (a, b) = trials(60, 0), trials(60, 1)
    found = csp_lda(band_pass(x, 160.0), classes(y), np.full(60, "s"), band_pass(a, 160.0)).prediction
    assert (found.argmax(1) == b).mean() > 0.9
    assert np.allclose(found.sum(1), 1) and (found[:, 2] == 0).all()


def test_one_class_alone_is_always_said() -> None:
    x, _ = trials(10, 0)
    assert (csp_lda(x, classes(np.zeros(10)), np.full(10, "s"), x).prediction == [1, 0, 0]).all()


def test_only_the_band_passes_and_gaps_count_as_zero() -> None:
    t = np.arange(640) / 160
    x = np.stack([np.sin(2 * np.pi * f * t) for f in (2.0, 15.0, 50.0)])
    power = (band_pass(x, 160.0)[:, 160:480] ** 2).mean(1)
    assert power[1] > 0.45 and power[0] < 0.005 and power[2] < 0.005
    x[1, 100:200] = np.nan
    assert np.array_equal(band_pass(x, 160.0), band_pass(np.nan_to_num(x), 160.0))


@pytest.mark.data
def test_the_published_accuracy_on_motor_imagery(data_root: Path) -> None:
    """MNE-Python's example "CSP on motor imagery": its steps on signals of our reader. It gives 0.9333."""
    import mne
    from mne.decoding import CSP
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    raws = []
    for name in IMAGERY:
        (r,) = read(data_root / "eegmmidb_s001" / f"{name}.edf")
        raw = mne.io.RawArray(r.data.astype(float) * 1e-6, mne.create_info(list(r.ch_names), r.sfreq, "eeg"), verbose="ERROR")
        marks = [(a.onset_s, a.duration_s, a.label) for a in r.annotations]
        raws.append(raw.set_annotations(mne.Annotations(*zip(*marks, strict=True))))
    with mne.use_log_level("ERROR"):
        raw = mne.concatenate_raws(raws).set_eeg_reference(projection=True)
        raw.filter(7.0, 30.0, fir_design="firwin", skip_by_annotation="edge")
        epochs = mne.Epochs(raw, event_id=["T1", "T2"], tmin=1.0, tmax=2.0, baseline=None, preload=True)
        model = make_pipeline(CSP(4, reg=None, log=True, norm_trace=False), LinearDiscriminantAnalysis())
        folds = ShuffleSplit(10, test_size=0.2, random_state=42)
        scores = cross_val_score(model, epochs.get_data(copy=False), epochs.events[:, -1], cv=folds)
    assert len(epochs) == 45 and scores.mean() == pytest.approx(0.9333, abs=5e-5)


@pytest.mark.data
def test_the_windows_of_the_view_give_it_too(data_root: Path) -> None:
    """View ``hands_feet`` (0.5-45 Hz, average reference, 4 s from the cue), each window band-passed by itself, then 1-2 s of it."""
    card = load_card("eegmmidb")
    tasks = [t for t in discover(card, data_root / "eegmmidb_s001", "hands_feet") if t.record in IMAGERY]
    cuts = [cut(card, "hands_feet", load_record(card, t)) for t in tasks]
    x = band_pass(np.concatenate([c.data for c in cuts]), 160.0)
    y = np.array([float(c.events["label"].iloc[e] == "both_feet") for c in cuts for e in c.event])
    scores = []
    for train, test in ShuffleSplit(10, test_size=0.2, random_state=42).split(x):
        found = csp_lda(x[train, :, 160:321], classes(y[train]), np.full(len(train), "s"), x[test, :, 160:321]).prediction
        scores.append((found.argmax(1) == y[test]).mean())
    assert len(x) == 45 and np.mean(scores) == pytest.approx(0.9333, abs=5e-5)
