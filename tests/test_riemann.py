"""Covariances in a tangent space: the map itself, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm, sqrtm

from biossl.riemann import covariances, tangent_features


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.einsum("nij,njt->nit", rng.normal(size=(12, 4, 4)) + 2 * np.eye(4), rng.normal(size=(12, 4, 200)))


def test_vectors_are_logarithms_at_the_affine_invariant_mean_of_training(windows: np.ndarray) -> None:
    c = covariances(windows)
    a, b = tangent_features(c[:8], c[8:])
    mean = c[:8].mean(0)
    for _ in range(200):  # the mean is where the logarithms of the training windows add up to nothing
        root = np.real(sqrtm(mean))
        back = np.linalg.inv(root)
        mean = root @ _exp(np.mean([np.real(logm(back @ m @ back)) for m in c[:8]], axis=0)) @ root
    back, upper = np.linalg.inv(np.real(sqrtm(mean))), np.triu_indices(4)
    weight = np.where(upper[0] == upper[1], 1.0, np.sqrt(2))
    wanted = np.stack([(np.real(logm(back @ m @ back))[upper] * weight) for m in c])
    np.testing.assert_allclose(np.concatenate([a, b]), wanted, atol=2e-4)


def _exp(m: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(m)
    return np.asarray((vectors * np.exp(values)) @ vectors.T)


def test_distances_do_not_depend_on_how_electrodes_are_mixed(windows: np.ndarray) -> None:
    """Montages and gains are invertible mixtures; a linear model of covariances themselves would see them."""
    c, mix = covariances(windows), np.random.default_rng(1).normal(size=(4, 4)) + 3 * np.eye(4)
    plain, mixed = (np.concatenate(tangent_features(v[:8], v[8:])) for v in (c, mix @ c @ mix.T))
    far = [np.linalg.norm(v[:, None] - v[None], axis=-1) for v in (plain, mixed)]
    np.testing.assert_allclose(far[0], far[1], rtol=1e-3, atol=1e-3)


def test_a_lost_channel_and_an_average_reference_give_numbers(windows: np.ndarray) -> None:
    lost = windows.copy()
    lost[3, 2] = np.nan
    lost -= np.nanmean(lost, axis=1, keepdims=True)
    c = covariances(lost)
    assert all(np.isfinite(v).all() for v in tangent_features(c[:8], c[8:]))


def test_judged_windows_do_not_move_the_mean(windows: np.ndarray) -> None:
    c = covariances(windows)
    np.testing.assert_array_equal(tangent_features(c[:8], c[8:])[1][:1], tangent_features(c[:8], c[8:9])[1])
