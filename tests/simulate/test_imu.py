from __future__ import annotations

import filecmp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.corpus import Corpus, convert
from biossl.simulate import imu


@pytest.fixture(scope="module")
def people():
    return [imu.simulate_subject(seed=1, subject=k) for k in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("imu") / "a"
    imu.write_subjects(path, n_subjects=2, seed=3, bout_s=6.0)
    return path


def of(person, *activities):
    x, labels, _ = person
    return x[:, np.isin(labels, activities)]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gravity_is_one_g_at_rest_and_the_body_hardly_turns(seed):
    person = imu.simulate_subject(seed=seed, subject=0, bout_s=4.0)
    still = of(person, "standing", "sitting", "lying")
    assert np.abs(np.linalg.norm(still[:3], axis=0) - 1).max() < 0.08
    assert np.abs(still[3:]).max() < 0.35


def test_lying_turns_gravity_to_another_axis(people):
    for person in people:
        up, flat = of(person, "standing")[:3].mean(axis=1), of(person, "lying")[:3].mean(axis=1)
        angle = np.degrees(np.arccos(up @ flat / np.linalg.norm(up) / np.linalg.norm(flat)))
        assert 55 < angle < 125


def test_walking_has_the_cadence_of_the_truth(people):
    for x, labels, truth in people:
        at = np.flatnonzero(np.array(labels) == "walking")[:900]
        size = np.linalg.norm(x[:3, at], axis=0)
        spectrum = np.abs(np.fft.rfft((size - size.mean()) * np.hanning(len(at)), 4096))
        f = np.fft.rfftfreq(4096, 1 / 50.0)
        band = (f > 1.3) & (f < 2.6)
        assert abs(f[band][spectrum[band].argmax()] - truth["cadence_hz"]) < 0.2


def test_gyroscope_integrates_to_the_change_of_gravity(people):
    """From standing to lying: the rotation the gyroscope adds up turns gravity as the accelerometer sees it."""
    x, labels, _ = people[0]
    names = np.array(labels)
    starts = np.flatnonzero((names[1:] == imu.TRANSITION) & (names[:-1] != imu.TRANSITION)) + 1
    checked = 0
    for a in starts:
        b = a + np.flatnonzero(names[a:] != imu.TRANSITION)[0]
        if names[a - 1] not in imu._STILL or names[b] not in imu._STILL or names[a - 1] == names[b]:
            continue
        rotation = np.eye(3)
        for w in x[3:, a:b].T.astype(float) / 50.0:
            k = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
            rotation = rotation @ (np.eye(3) + k + k @ k / 2)
        predicted = rotation.T @ x[:3, a - 30 : a].mean(axis=1)
        assert np.abs(predicted - x[:3, b : b + 30].mean(axis=1)).max() < 0.15
        checked += 1
    assert checked >= 2


def test_stairs_differ_from_walking_in_cadence_and_impact(people):
    def sharpness(*activity):
        return np.mean([np.abs(np.diff(np.linalg.norm(of(p, *activity)[:3], axis=0))).mean() for p in people])

    assert sharpness("downstairs") > 1.2 * sharpness("walking") > 1.2 * sharpness("upstairs")


def test_files_are_byte_identical_and_convert_inside_labels(folder, tmp_path):
    imu.write_subjects(tmp_path / "b", n_subjects=2, seed=3, bout_s=6.0)
    names = sorted(p.name for p in folder.iterdir())
    assert filecmp.cmpfiles(folder, tmp_path / "b", names, shallow=False)[0] == names
    convert(folder / "card.yaml", folder, tmp_path / "c", view="activities", n_jobs=1)
    corpus = Corpus.open(tmp_path / "c")
    # 12 bouts a person of 300 samples: windows of 128 every 64 -> 3 in each
    assert corpus.index.event.value_counts().to_dict() == {a: 2 * 2 * 3 for a in imu.ACTIVITIES}
    assert np.isfinite(corpus.signal(np.arange(4))).all()
