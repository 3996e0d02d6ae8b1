"""Windows unlike those of training are flagged, and those of new people of the same kind mostly are not."""

from __future__ import annotations

import numpy as np
import pytest

from biossl.downstream.ood import Familiar, fit_familiar
from biossl.errors import DataError, RequestError


def people(seed: int, n_subjects: int = 12, n: int = 60, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes around means of their own, subjects a little apart: features (n, 4), subjects, classes."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat([f"{seed}-{i}" for i in range(n_subjects)], n)
    classes = rng.integers(0, 2, len(subjects))
    own = np.repeat(rng.normal(0, spread, (n_subjects, 4)), n, axis=0)
    return own + 6.0 * classes[:, None] + rng.normal(size=(len(subjects), 4)), subjects, classes


@pytest.fixture(scope="module")
def known() -> Familiar:
    x, subjects, classes = people(0)
    return fit_familiar(x, subjects, classes=classes)


def test_new_people_of_the_same_kind_pass_about_as_often_as_promised(known: Familiar) -> None:
    distances = known.distances(people(1)[0])
    for name, limit in known.limits.items():
        assert 0.85 < (distances[name] <= limit).mean() < 0.995


@pytest.mark.parametrize("where", [(3.0, 3.0, 3.0, 3.0), (0.0, 6.0, 0.0, 6.0), (40.0, 40.0, 40.0, 40.0)])
def test_windows_between_beside_and_beyond_the_classes_are_flagged(known: Familiar, where: tuple[float, ...]) -> None:
    assert known.unfamiliar([where]).tolist() == [True]


def test_mahalanobis_is_the_slow_formula(known: Familiar) -> None:
    x = people(2)[0][:20]
    slow = []
    for row in (x - known.mean) / known.scale:
        slow.append(min(np.sqrt((row - c) @ known.precision @ (row - c)) for c in known.centres))
    np.testing.assert_allclose(known.distances(x)["mahalanobis"], slow, rtol=1e-9)


def test_knn_is_the_distance_to_the_tenth_nearest_direction(known: Familiar) -> None:
    z = (people(2)[0][:20] - known.mean) / known.scale
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    slow = np.sort(np.linalg.norm(unit[:, None] - known.memory[None], axis=2), axis=1)[:, 9]
    np.testing.assert_allclose(known.distances(people(2)[0][:20])["knn"], slow, rtol=1e-7)


def test_a_window_without_features_is_infinitely_far_and_its_neighbours_are_not(known: Familiar) -> None:
    x = people(1)[0][:3]
    x[1, 2] = np.nan
    distances = known.distances(x)
    assert np.isinf(distances["knn"]).tolist() == [False, True, False]
    assert known.unfamiliar(x)[1]


def test_the_limits_come_from_people_held_out() -> None:
    """Limits set on the very people the distances were fitted on are too tight where people differ."""
    x, subjects, classes = people(0, spread=4.0)
    apart = fit_familiar(x, subjects, classes=classes)
    own = apart.distances(x)["mahalanobis"]
    assert np.quantile(own, 0.95) < 0.8 * apart.limits["mahalanobis"]


def test_it_comes_back_from_its_arrays(known: Familiar) -> None:
    again = Familiar.from_arrays(known.to_arrays())
    x = people(1)[0]
    assert again.limits == known.limits
    np.testing.assert_array_equal(again.unfamiliar(x), known.unfamiliar(x))


def test_constant_features_and_no_classes_are_served() -> None:
    x, subjects, _ = people(0)
    x = np.c_[x, np.ones(len(x))]
    plain = fit_familiar(x, subjects)
    assert np.isfinite(plain.distances(x)["mahalanobis"]).all()
    assert plain.centres.shape == (1, 5)


def test_what_cannot_be_fitted_is_one_clear_line(known: Familiar) -> None:
    x, subjects, _ = people(0)
    with pytest.raises(DataError, match="one training subject"):
        fit_familiar(x, np.full(len(x), "a"))
    with pytest.raises(DataError, match="not finite"):
        fit_familiar(np.where(x > 0, np.nan, x), subjects)
    with pytest.raises(RequestError, match="share 1"):
        fit_familiar(x, subjects, share=1.0)
    with pytest.raises(DataError, match="3 features a window"):
        known.distances(np.zeros((2, 3)))
