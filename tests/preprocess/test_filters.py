from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as sps

from biossl.errors import RequestError
from biossl.preprocess.filters import design, filter_signal, resample, settling_samples
from biossl.signal import FilterSpec

BAND = FilterSpec(highpass_hz=0.5, lowpass_hz=40.0, order=2)


def tone(hz: float, sfreq: float, seconds: float, phase: float = 0.3) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(sfreq * seconds)) / sfreq + phase)[None]


def test_passes_the_band_without_delay_and_removes_drift_and_mains() -> None:
    wanted = tone(10, 250, 20)
    x = wanted + 5 * tone(0.02, 250, 20) + tone(50, 250, 20)
    y = filter_signal(x, 250.0, FilterSpec(highpass_hz=0.5, lowpass_hz=40.0, notch_hz=50.0))
    inner = slice(1000, 4000)
    assert np.abs(y[:, inner] - wanted[:, inner]).max() < 0.02


def test_equals_forward_backward_butterworth_in_the_interior() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5000))
    b, a = sps.butter(2, 0.5, "highpass", fs=250)
    d, c = sps.butter(2, 40, "lowpass", fs=250)
    slow = sps.filtfilt(d, c, sps.filtfilt(b, a, x, axis=1), axis=1)
    np.testing.assert_allclose(filter_signal(x, 250.0, BAND)[:, 1500:3500], slow[:, 1500:3500], atol=1e-3)


def test_nan_stays_nan_and_long_gaps_separate_runs() -> None:
    x = np.random.default_rng(1).standard_normal((3, 4000))
    x[1, 1000:1050] = np.nan  # 0.2 s: bridged
    x[2, 2000:2500] = np.nan  # 2 s: splits
    y = filter_signal(x, 250.0, BAND)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    alone = filter_signal(x[2:, 2500:], 250.0, BAND)
    np.testing.assert_allclose(y[2:, 2500:], alone, atol=1e-12)  # what lies before a long gap has no influence


def test_a_step_across_a_long_gap_does_not_leak() -> None:
    x = np.concatenate([np.zeros(2000), np.full(500, np.nan), np.full(2000, 100.0)])[None]
    y = filter_signal(x, 250.0, BAND)
    assert np.nanmax(np.abs(y)) < 1e-6  # filtered as one piece it would ring with tens of units


def test_runs_shorter_than_settling_become_nan() -> None:
    settle = settling_samples(design(250.0, BAND))
    x = np.full((1, 2000), np.nan)
    x[0, :400] = 1.0
    x[0, 1000 : 1000 + settle - 1] = 1.0
    y = filter_signal(x, 250.0, BAND)
    assert np.isfinite(y[0, :400]).all() == (settle <= 400)
    assert np.isnan(y[0, 1000:]).all()


def test_settling_is_where_the_impulse_response_has_died() -> None:
    sos = design(250.0, BAND)
    impulse = np.zeros(5000)
    impulse[0] = 1.0
    y = np.abs(sps.sosfilt(sos, impulse))
    assert 0.2 < settling_samples(sos) / 250 < 3
    assert y[3 * settling_samples(sos) :].max() < 2e-3 * y.max()


def test_nothing_to_do_returns_a_copy() -> None:
    x = np.arange(6.0).reshape(1, 6)
    y = filter_signal(x, 100.0, FilterSpec(lowpass_hz=60.0, notch_hz=50.0))
    np.testing.assert_array_equal(x, y)
    assert y is not x


def test_highpass_above_nyquist_is_refused() -> None:
    with pytest.raises(RequestError, match="Nyquist"):
        filter_signal(np.zeros((1, 100)), 20.0, FilterSpec(highpass_hz=15.0))


@pytest.mark.parametrize(("f_in", "f_out"), [(500, 250), (360, 250), (250, 360), (500, 100), (128, 200), (249.89, 250)])
def test_resampled_tone_is_the_tone_sampled_at_the_new_rate(f_in: float, f_out: float) -> None:
    hz = 0.3 * min(f_in, f_out) / 2
    y = resample(tone(hz, f_in, 8), f_in, f_out)
    want = np.sin(2 * np.pi * hz * np.arange(y.shape[1]) / f_out + 0.3)[None]
    inner = slice(30, -30)
    assert np.abs(y - want)[:, inner].max() < 5e-3
    assert np.abs(y - want).max() < 0.25  # edges: no ringing, no drop to zero


def test_what_the_new_rate_cannot_hold_is_removed_not_folded() -> None:
    y = resample(tone(80, 500, 10), 500.0, 100.0)
    assert np.abs(y[:, 50:-50]).max() < 0.01


def test_constants_and_lines_survive_to_the_edges() -> None:
    np.testing.assert_allclose(resample(np.full((1, 777), 3.0), 360.0, 250.0), 3.0, rtol=2e-3)
    line = np.linspace(0, 100, 1000)[None]
    y = resample(line, 500.0, 250.0)
    np.testing.assert_allclose(y, line[:, ::2], atol=0.05)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3000),
    f_in=st.sampled_from([20.0, 50.0, 62.4725, 100.0, 128.0, 160.0, 360.0, 500.0, 512.0]),
    f_out=st.sampled_from([20.0, 50.0, 100.0, 125.0, 200.0, 250.0, 256.0, 500.0]),
)
def test_length_is_duration_times_rate(n: int, f_in: float, f_out: float) -> None:
    y = resample(np.ones((1, n)), f_in, f_out)
    assert abs(y.shape[1] - n * f_out / f_in) <= 0.5 + 1e-6
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y, 1.0, rtol=5e-3)


@settings(max_examples=40, deadline=None)
@given(a=st.integers(0, 900), b=st.integers(1, 400), f_out=st.sampled_from([100.0, 250.0, 360.0]))
def test_gaps_keep_their_place(a: int, b: int, f_out: float) -> None:
    x = np.full((1, 1000), 7.0)
    x[0, a : a + b] = np.nan
    y = resample(x, 250.0, f_out)
    at = np.arange(y.shape[1]) * 250.0 / f_out  # instant of each output in input samples
    left, right = np.floor(at + 1e-9).astype(int), np.ceil(at - 1e-9).astype(int)
    seen = np.isfinite(x[0])
    want = seen[np.minimum(left, 999)] & seen[np.minimum(right, 999)]
    np.testing.assert_array_equal(np.isfinite(y[0]), want)
    np.testing.assert_allclose(y[np.isfinite(y)], 7.0, rtol=1e-2)


def test_a_gap_does_not_ring() -> None:
    x = 50 + tone(2, 250, 8)
    x[0, 900:1100] = np.nan
    y = resample(x, 250.0, 100.0)
    want = 50 + np.sin(2 * np.pi * 2 * np.arange(y.shape[1]) / 100 + 0.3)
    assert np.nanmax(np.abs(y[0] - want)) < 0.1  # zero-filling the gap would give errors near 50


def test_equal_rates_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    np.testing.assert_array_equal(resample(x, 250.0, 250.0), x)
    assert resample(x, 250.0, 125.0).dtype == np.float32


def test_day_long_drift_is_kept() -> None:
    """A clock 1e-5 fast is still 1e-5 fast after resampling (a truncated ratio would lose 0.9 s a day)."""
    assert resample(np.zeros((1, 2_000_020)), 100.001, 100.0).shape[1] == 2_000_000
