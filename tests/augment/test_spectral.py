"""Spectral augmentations against slow float64 references written as sums, and FDA against its equations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from biossl.augment import spectral
from biossl.augment.functional import fill_gaps

SFREQ = 50.0


def signal(n: int, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, channels, n)) + 1.5


def dft(row: np.ndarray) -> np.ndarray:
    """X_k = sum_t x_t exp(-2 pi i k t / T), one sum at a time."""
    n = len(row)
    return np.array([sum(row[t] * np.exp(-2j * np.pi * k * t / n) for t in range(n)) for k in range(n)])


def inverse(half: np.ndarray, n: int) -> np.ndarray:
    """Real signal whose bins 0 .. n // 2 are ``half``, from cosines."""
    out = np.full(n, half[0].real)
    t = np.arange(n)
    for k in range(1, n // 2 + 1):
        both = 1 if 2 * k == n else 2
        out += both * (half[k] * np.exp(2j * np.pi * k * t / n)).real
    return out / n


@pytest.mark.parametrize("n", [40, 41])
@pytest.mark.parametrize("shared", [True, False])
def test_fourier_surrogate_equals_its_definition(n: int, shared: bool) -> None:
    x = signal(n)
    phase = np.random.default_rng(1).uniform(-np.pi, np.pi, (2, 1 if shared else 3, n // 2 + 1))
    out = spectral.fourier_surrogate(torch.tensor(x), torch.tensor(phase)).numpy()
    for b in range(2):
        for c in range(3):
            half = dft(x[b, c])[: n // 2 + 1]
            turned = half.copy()
            for k in range(1, n // 2 + 1):
                if 2 * k != n:
                    turned[k] = half[k] * np.exp(1j * phase[b, 0 if shared else c, k])
            np.testing.assert_allclose(out[b, c], inverse(turned, n), atol=1e-10)
            np.testing.assert_allclose(np.abs(dft(out[b, c])), np.abs(dft(x[b, c])), atol=1e-9)  # the spectrum is kept
            assert np.abs(out[b, c] - x[b, c]).max() > 0.1


def test_a_shared_phase_keeps_what_binds_the_channels() -> None:
    x = torch.tensor(signal(40))
    x[:, 2] = x[:, 1] - x[:, 0]
    phase = torch.rand(2, 1, 21, dtype=torch.float64) * 6
    out = spectral.fourier_surrogate(x, phase)
    torch.testing.assert_close(out[:, 2], out[:, 1] - out[:, 0])


@pytest.mark.parametrize("n", [40, 41])
def test_frequency_shift_equals_the_analytic_signal(n: int) -> None:
    x, shift = signal(n), np.array([3.0, -1.7])
    out = spectral.frequency_shift(torch.tensor(x), torch.tensor(shift), SFREQ).numpy()
    for b in range(2):
        for c in range(3):
            mean = x[b, c].mean()
            analytic = scipy.signal.hilbert(x[b, c] - mean)
            want = (analytic * np.exp(2j * np.pi * shift[b] * np.arange(n) / SFREQ)).real + mean
            np.testing.assert_allclose(out[b, c], want, atol=1e-10)


def test_frequency_shift_moves_a_tone_and_leaves_an_offset() -> None:
    t = torch.arange(500, dtype=torch.float64) / SFREQ
    x = (4 + torch.sin(2 * torch.pi * 8.0 * t))[None, None]
    out = spectral.frequency_shift(x, torch.tensor([2.0]), SFREQ)[0, 0]
    power = torch.fft.rfft(out - out.mean()).abs()
    assert power.argmax() == 100  # 10 Hz in 0.1 Hz bins
    assert out.mean() == pytest.approx(4, abs=1e-9)


@pytest.mark.parametrize("n", [60, 61])
def test_band_stop_equals_gains_bin_by_bin(n: int) -> None:
    x, centre, width, edge = signal(n), np.array([6.0, 13.3]), 4.0, 2.0
    out = spectral.band_stop(torch.tensor(x), torch.tensor(centre), width, SFREQ, edge_hz=edge).numpy()
    for b in range(2):
        for c in range(3):
            half = dft(x[b, c])[: n // 2 + 1]
            for k in range(n // 2 + 1):
                beyond = abs(k * SFREQ / n - centre[b]) - width / 2
                half[k] *= 0.0 if beyond <= 0 else 1.0 if beyond >= edge else 0.5 - 0.5 * np.cos(np.pi * beyond / edge)
            np.testing.assert_allclose(out[b, c], inverse(half, n), atol=1e-10)


def test_a_gap_puts_nothing_into_the_rest() -> None:
    x = torch.full((1, 1, 200), 3.0)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, :, 80:120] = False
    gapped = torch.where(seen, x, 0.0)
    out = spectral.band_stop(fill_gaps(gapped, seen), torch.tensor([2.0]), 2.0, SFREQ, edge_hz=1.0)
    torch.testing.assert_close(out[seen], x[seen])
    smeared = spectral.band_stop(gapped, torch.tensor([2.0]), 2.0, SFREQ, edge_hz=1.0)
    assert (smeared[seen] - x[seen]).abs().max() > 0.1  # what bridging prevents


def sigmoid(z: float) -> float:
    return 1 / (1 + np.exp(-z))


def test_learned_fda_equals_its_equations() -> None:
    n, rng = 30, np.random.default_rng(3)
    x, s, u = signal(n), rng.normal(0, 1, 16), rng.uniform(0, 1, (2, 16))
    out = spectral.fda_learned(torch.tensor(x), torch.tensor(s), torch.tensor(u), temperature=0.1).numpy()
    noise = [-v for v in s]
    bound = max(0.0, sum(noise) / 16)
    noise = [v if v >= bound else 0.0 for v in noise]
    left = [v for v in noise if v != 0]
    gamma = 1 / (sum(left) / len(left))
    for b in range(2):
        gain = []
        for k in range(16):
            v = 1e-4 + (1 - 2e-4) * u[b, k]
            gain.append(sigmoid((np.log(v / (1 - v)) + s[k]) / 0.1) + gamma * noise[k])
        for c in range(3):
            np.testing.assert_allclose(out[b, c], inverse(dft(x[b, c])[:16] * gain, n), atol=1e-9)
    evaluated = spectral.fda_weights(torch.tensor(s), None)[0].numpy()
    np.testing.assert_allclose(evaluated, [sigmoid(v) + gamma * m for v, m in zip(s, noise, strict=True)], atol=1e-12)


def test_learned_fda_without_unimportant_bins_adds_no_noise() -> None:
    score = torch.full((5,), 2.0)
    torch.testing.assert_close(spectral.fda_weights(score, None), torch.sigmoid(score)[None])


def test_the_noise_of_learned_fda_has_no_gradient() -> None:
    score = torch.tensor([-2.0, -1.9, 1.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])  # the sum of the noise alone is always the number of its bins
    (weight * spectral.fda_weights(score, None)).sum().backward()
    assert score.grad is not None
    keep = torch.sigmoid(score.detach())
    torch.testing.assert_close(score.grad, weight * keep * (1 - keep))


def test_learning_free_fda_equals_its_equations() -> None:
    n, rng = 50, np.random.default_rng(4)
    x = signal(n)
    x[:, :, :] += 3 * np.sin(2 * np.pi * 5 * np.arange(n) / SFREQ)  # 5 Hz stands out
    a, p = rng.normal(size=(2, 26)), rng.normal(size=(2, 26))
    tensor = torch.tensor(x)
    protected = spectral.fda_protected(tensor, SFREQ, band_hz=(0.5, 20.0), power=0.9)
    out = spectral.fda_free(tensor, protected, torch.tensor(a), torch.tensor(p), spread=0.3, spread_protected=0.03).numpy()
    for b in range(2):
        power = np.array([np.abs(dft(x[b, c])[:26]) ** 2 for c in range(3)])
        hz = np.arange(26) * SFREQ / n
        power[:, (hz < 0.5) | (hz > 20.0)] = 0
        q = (power / power.sum(axis=1, keepdims=True)).mean(axis=0)
        spared: set[int] = set()
        for k in sorted(range(26), key=lambda k: -q[k]):
            if sum(q[j] for j in spared) >= 0.9:
                break
            spared.add(k)
        assert set(np.flatnonzero(protected[b].numpy()).tolist()) == spared
        assert 5 in spared and len(spared) < 20
        for c in range(3):
            half = dft(x[b, c])[:26]
            for k in range(1, 26):
                size = 0.03 if k in spared else 0.3
                half[k] *= np.exp(size * a[b, k]) * (1 if 2 * k == n else np.exp(1j * size * p[b, k]))
            np.testing.assert_allclose(out[b, c], inverse(half, n), atol=1e-9)


def test_a_flat_window_has_no_protected_band_and_stays() -> None:
    x = torch.full((1, 2, 32), 7.0)
    protected = spectral.fda_protected(x, SFREQ, band_hz=(0.5, 20.0), power=0.9)
    assert not protected.any()
    noise = torch.randn(1, 17)
    torch.testing.assert_close(spectral.fda_free(x, protected, noise, noise, spread=0.3, spread_protected=0.0), x)
