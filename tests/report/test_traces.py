from __future__ import annotations

import numpy as np
import pytest

from biossl.channels import ECG_LEADS
from biossl.report.traces import MM, draw
from biossl.signal import Recording


def recording(names: tuple[str, ...], kind: str, unit: str, sfreq: float = 250.0) -> Recording:
    x = np.random.default_rng(0).standard_normal((len(names), round(20 * sfreq))).astype(np.float32)
    return Recording(x, sfreq, names, (kind,) * len(names), (unit,) * len(names), "r1")


@pytest.mark.parametrize("names", [ECG_LEADS, ("MLII", "V5")])
def test_ecg_paper_is_true_to_size(names: tuple[str, ...]) -> None:
    figure = draw(recording(names, "ecg", "mV"))
    (axes,) = figure.axes
    box = axes.get_window_extent()
    seconds, millivolts = np.diff(axes.get_xlim())[0], np.diff(axes.get_ylim())[0]
    assert box.width / figure.dpi / MM / seconds == pytest.approx(25, rel=1e-3)
    assert box.height / figure.dpi / MM / millivolts == pytest.approx(10, rel=1e-3)
    assert set(names) <= {t.get_text() for t in axes.texts}


def test_eeg_has_the_first_channel_on_top_and_negative_up() -> None:
    r = recording(("Fp1", "Cz", "O2"), "eeg", "uV")
    r.data[:] = 0
    r.data[0, 100] = 50.0
    figure = draw(r)
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Fp1", "Cz", "O2"]
    assert axes.lines[0].get_ydata()[100] > axes.lines[0].get_ydata()[0]  # further down the page


def test_inertial_sensors_have_a_panel_each() -> None:
    a = recording(("acc_x", "acc_y", "acc_z"), "acc", "g", 50.0)
    g = recording(("gyro_x", "gyro_y", "gyro_z"), "gyro", "rad/s", 50.0)
    both = Recording(
        np.concatenate([a.data, g.data]), 50.0, a.ch_names + g.ch_names, a.ch_types + g.ch_types, a.units + g.units, "r"
    )
    acceleration, rotation = draw(both).axes
    assert [x.get_ylabel() for x in (acceleration, rotation)] == ["acceleration (g)", "rotation (deg/s)"]
    np.testing.assert_allclose(rotation.lines[1].get_ydata(), np.rad2deg(g.data[1, :500]), rtol=1e-6)
    np.testing.assert_allclose(acceleration.lines[1].get_ydata(), a.data[1, :500])


def test_eeg_has_a_bar_that_is_as_long_as_it_says() -> None:
    r = recording(("Fp1", "Cz", "O2"), "eeg", "uV")
    (axes,) = draw(r).axes
    said = float(next(t.get_text() for t in axes.texts if t.get_text().endswith(" uV")).split()[0])
    bar = axes.lines[-1].get_ydata()
    trace = axes.lines[0].get_ydata()
    rows_per_uv = np.ptp(trace) / np.ptp(r.data[0, :2500])
    assert abs(bar[1] - bar[0]) == pytest.approx(said * rows_per_uv, rel=1e-5)


def test_a_short_beat_has_room_for_its_title() -> None:
    beat = recording(("II",), "ecg", "mV")
    figure = draw(beat, seconds=0.6)
    title = figure.axes[0].get_window_extent().x0 + figure.axes[0]._left_title.get_window_extent().width
    assert title < figure.bbox.width


def test_missing_samples_and_short_recordings_are_drawn() -> None:
    r = recording(("II", "V1"), "ecg", "mV")
    r.data[0] = np.nan
    draw(r)
    draw(Recording(r.data[:, :40], 250.0, r.ch_names, r.ch_types, r.units, "short"), start_s=99.0)
