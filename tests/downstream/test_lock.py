"""What is frozen with a model comes from held-out training people, comes back from its file, and says what it lacks."""

from __future__ import annotations

import numpy as np
import pytest

from biossl.downstream.lock import COVERAGES, Lock, confidence, fit_lock
from biossl.errors import DataError


def overconfident(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes and probabilities that are far too sure."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    p = 1 / (1 + np.exp(-6 * z))
    return y, np.stack([1 - p, p], axis=1)


def test_probabilities_of_an_overconfident_model_are_cooled_and_their_order_stays() -> None:
    y, p = overconfident()
    lock = fit_lock("multiclass", ("a", "b"), y[:, None], p)
    cooled = lock.probabilities(p)
    assert lock.calibration is not None and lock.calibration.curves[0][0][0] == pytest.approx(6, rel=0.4)
    assert (cooled.argmax(1) == p.argmax(1)).all()
    right = np.arange(len(y)), y.astype(int)
    assert -np.log(cooled[right]).mean() < -np.log(p[right]).mean()


def test_a_cut_off_keeps_its_share_of_the_held_out_windows() -> None:
    y, p = overconfident()
    lock = fit_lock("multiclass", ("a", "b"), y[:, None], p)
    sure = confidence(lock.probabilities(p), "multiclass")
    for share in COVERAGES:
        assert (sure >= lock.cutoffs[share]).mean() == pytest.approx(share, abs=0.01)


def test_yes_no_classes_are_decided_by_their_own_thresholds() -> None:
    y, p = overconfident()
    both = np.stack([y, 1 - y], axis=1)
    lock = fit_lock("multilabel", ("af", "block"), both, p[:, ::-1])
    said = lock.decisions(lock.probabilities(p[:, ::-1]), ("af", "block"), "multilabel")
    for k, name in enumerate(("af", "block")):
        found = said[both[:, k] == 1, k].mean()
        assert found == pytest.approx(lock.points[name].sensitivity, abs=1e-9)


def test_without_anyone_held_out_nothing_is_calibrated_and_it_says_so() -> None:
    lock = fit_lock("binary", ("af",), None, None)
    assert lock.calibration is None and lock.notes == ("no calibration: nobody was held out in training",)
    p = np.array([[0.4], [0.6]])
    assert (lock.probabilities(p) == p).all()
    assert lock.decisions(p, ("af",), "binary").tolist() == [[0], [1]]


def test_one_class_held_out_is_a_line_and_not_a_number() -> None:
    lock = fit_lock("binary", ("af",), np.ones((5, 1)), np.full((5, 1), 0.7))
    assert lock.calibration is None and not lock.points
    assert any("no calibration" in n for n in lock.notes) and any("threshold of af stays at .5" in n for n in lock.notes)


def test_a_class_that_allows_no_calibration_leaves_the_others_theirs() -> None:
    y, p = overconfident()
    both = np.stack([y, np.zeros_like(y)], axis=1)
    lock = fit_lock("multilabel", ("af", "rare"), both, np.stack([p[:, 1], p[:, 0]], axis=1))
    assert any(n.startswith("no calibration of rare: ") for n in lock.notes)
    cooled = lock.probabilities(np.stack([p[:, 1], p[:, 0]], axis=1))
    np.testing.assert_allclose(cooled[:, 1], np.clip(p[:, 0], 1e-6, 1 - 1e-6), atol=1e-5)
    assert np.abs(cooled[:, 0] - 0.5).mean() < np.abs(p[:, 1] - 0.5).mean() - 0.05


def test_two_yes_no_classes_are_not_taken_for_one_choice_when_they_sum_to_one() -> None:
    p = np.array([[0.9, 0.1], [0.4, 0.6]])
    np.testing.assert_allclose(confidence(p, "multilabel"), [0.9, 0.6])
    np.testing.assert_allclose(confidence(np.array([[0.95, 0.6]]), "multilabel"), [0.6])
    np.testing.assert_allclose(confidence(np.array([[0.3, 0.3, 0.4]]), "multiclass"), [0.4])


def test_it_comes_back_from_plain_values() -> None:
    y, p = overconfident()
    lock = fit_lock("multilabel", ("af",), y[:, None], p[:, 1:])
    again = Lock.from_dict(lock.to_dict(), None)
    assert again == lock
    for broken in ({}, lock.to_dict() | {"cutoffs": 3}, lock.to_dict() | {"points": {"af": {}}}):
        with pytest.raises(DataError, match=r"(key 'lock': damaged|operating point)"):
            Lock.from_dict(broken, None)
