from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biossl.quality import findings, mains_ratio, recording_findings
from biossl.signal import Recording


def ecg(n: int = 5000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n) * 0.2


def codes(row: np.ndarray, kind: str = "ecg", unit: str = "mV", sfreq: float = 500.0) -> list[str]:
    return [f.code for f in findings(row[None], sfreq, [kind], [unit])]


def test_a_clean_signal_has_no_finding() -> None:
    assert codes(ecg()) == []
    assert codes(ecg() * 100, "eeg", "uV") == []


def test_missing_samples_are_counted() -> None:
    x = ecg()
    x[:500] = np.nan
    (found,) = findings(x[None], 500.0, ["ecg"], ["mV"], ["II"])
    assert (found.code, found.channel, found.share) == ("missing", "II", pytest.approx(0.1))
    assert codes(np.full(100, np.nan)) == ["missing"]


def test_flat_runs_longer_than_a_second_only() -> None:
    x = ecg()
    x[1000:1400] = 0.1
    assert codes(x) == []
    x[1000:2000] = 0.1
    found = findings(x[None], 500.0, ["ecg"], ["mV"])
    assert [f.code for f in found] == ["flat"] and found[0].share == pytest.approx(0.2)


def test_a_slow_channel_may_repeat_a_value() -> None:
    assert codes(np.repeat(np.arange(100.0), 3), "other", "1", sfreq=1.0) == []


def test_rails_are_found_and_single_peaks_are_not() -> None:
    assert codes(np.clip(ecg(), -0.3, 0.3)) == ["clipped"]
    x = ecg()
    x[100] = 5.0
    assert codes(x) == []


@pytest.mark.parametrize(
    ("factor", "kind", "unit"), [(1e3, "ecg", "mV"), (1e-3, "ecg", "mV"), (1e6, "eeg", "uV"), (1e-1, "eeg", "uV")]
)
def test_a_wrong_unit_shows_as_amplitude(factor: float, kind: str, unit: str) -> None:
    assert codes(ecg() * factor, kind, unit) == ["amplitude"]


def test_uncalibrated_channels_have_no_plausible_range() -> None:
    assert codes(ecg() * 1e6, "ecg", "1") == []


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_mains_is_named_by_its_frequency(hz: float) -> None:
    t = np.arange(5000) / 500
    x = 0.1 * ecg() + 0.3 * np.sin(2 * np.pi * hz * t)
    (found,) = findings(x[None], 500.0, ["ecg"], ["mV"])
    assert found.code == "mains" and f"{hz:.0f} Hz" in found.message
    assert mains_ratio(x, 500.0, 110.0 - hz) < 0.05
    assert mains_ratio(x[::5], 100.0, 50.0) == 0.0  # beyond Nyquist nothing is claimed


@pytest.mark.parametrize(("scale", "hint"), [(1000.0, "unit"), (0.02, "gravity was removed"), (9.81, "unit")])
def test_gravity_tells_a_wrong_unit(scale: float, hint: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1000)) * 0.05 + np.array([[0.0], [0.6], [0.8]])
    assert findings(x, 50.0, ["acc"] * 3, ["g"] * 3) == []
    (found,) = findings(x * scale, 50.0, ["acc"] * 3, ["g"] * 3)
    assert found.code == "gravity" and hint in found.message


def test_recording_findings_name_swapped_leads() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 4000)).cumsum(axis=1) / 30
    names = ("I", "II", "aVL", "aVF")
    good = Recording(np.stack([a, b, a - b / 2, b - a / 2]).astype(np.float32), 500.0, names, ("ecg",) * 4, ("mV",) * 4, "x")
    assert "limb_leads" not in [f.code for f in recording_findings(good)]
    bad = replace(good, data=good.data[[0, 1, 3, 2]])
    (found,) = [f for f in recording_findings(bad) if f.code == "limb_leads"]
    assert "aVL and aVF swapped" in found.message
