"""A picture of one recording the way a clinician knows it.

What lives here: ECG on paper (25 mm/s, 10 mm/mV, true to size at the figure's dpi), EEG as stacked traces with negative
up and a bar of its scale, inertial sensors one panel a sensor, rotation in degrees a second. Matplotlib without its global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.channels import ECG_LEADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from biossl.signal import Recording

MM = 1 / 25.4  # inches
_STANDARD = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_MAX_ROWS = 64
_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's
_DASHES = ("-", "--", "-.", ":")
_LEAST_MM = 90  # so that a short stretch has room for its title


def draw(recording: Recording, start_s: float = 0.0, seconds: float = 10.0, *, band: np.ndarray | None = None) -> Figure:
    """Draw a stretch of a recording.

    Parameters
    ----------
    recording : Recording
        Drawn by its first ECG, EEG or inertial channels; others in panels.
    start_s, seconds : float
        Stretch, from the recording's first sample.
    band : ndarray, (C, P), optional
        From -1 (orange) to 1 (purple), a value for each of P equal parts of the stretch: a band of colours under each trace; NaN = none.

    Returns
    -------
    Figure
        ``figure.savefig("trace.png")`` writes it; ECG at 25 mm/s and 10 mm/mV when printed at its own size.
    """
    a = min(max(round(start_s * recording.sfreq), 0), recording.data.shape[1] - 1)
    b = min(a + max(round(seconds * recording.sfreq), 2), recording.data.shape[1])
    x = recording.data[:, a:b].astype(np.float64)
    t = np.arange(x.shape[1]) / recording.sfreq
    types = recording.ch_types
    title = f"{recording.record}, from {recording.offset_s + a / recording.sfreq:.4g} s"
    if "ecg" in types and "eeg" not in types:
        return _ecg(recording, x, t, title, band)
    if "eeg" in types:
        return _eeg(recording, x, t, title, band)
    return _panels(recording, x, t, title, band)


def _colours(axes: Any, values: np.ndarray | None, t: np.ndarray, low: float, high: float, within: tuple[float, float]) -> None:
    """A band of colours from ``low`` to ``high`` (data units) over the part of the stretch that is ``within`` (seconds)."""
    if values is None or not np.isfinite(values).any():
        return
    edges = np.linspace(0.0, float(t[-1]) + float(t[1]) - float(t[0]), len(values) + 1)
    some = (edges[1:] > within[0] + 1e-9) & (edges[:-1] < within[1] - 1e-9)
    x = np.clip(edges[np.flatnonzero(some)[0] : np.flatnonzero(some)[-1] + 2], *within)
    axes.pcolormesh(x, [low, high], values[some][None], cmap="PuOr", vmin=-1, vmax=1, zorder=0.5, rasterized=True)


def _figure(width_in: float, height_in: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=150)
    FigureCanvasAgg(figure)
    return figure


def _ecg(recording: Recording, x: np.ndarray, t: np.ndarray, title: str, band: np.ndarray | None) -> Figure:
    """Paper: 1 mm and 5 mm lines; 3 x 4 leads of a quarter each and lead II below when all twelve are there."""
    mv = [i for i, (k, u) in enumerate(zip(recording.ch_types, recording.units, strict=True)) if k == "ecg" and u == "mV"]
    if not mv:
        return _panels(recording, x, t, title, band)
    index = {recording.ch_names[i]: i for i in mv}
    length = max(float(t[-1]), 1.0)
    rows: list[list[tuple[int, float, float]]]  # channel, from, to (seconds)
    if all(lead in index for lead in ECG_LEADS):
        quarter = length / 4
        rows = [[(index[lead], k * quarter, (k + 1) * quarter) for k, lead in enumerate(row)] for row in _STANDARD]
        rows.append([(index["II"], 0.0, length)])
    else:
        rows = [[(i, 0.0, length)] for i in mv[:_MAX_ROWS]]
    height_mv = 3.0  # 30 mm a row
    width_mm, height_mm = max(25 * length + 20, _LEAST_MM), 10 * height_mv * len(rows) + 20
    figure = _figure(width_mm * MM, height_mm * MM)
    axes = figure.add_axes((10 / width_mm, 10 / height_mm, 25 * length / width_mm, 10 * height_mv * len(rows) / height_mm))
    _paper(axes, length, height_mv * len(rows))
    for r, row in enumerate(rows):
        base = height_mv * (len(rows) - 1 - r) + height_mv / 2
        for i, begin, end in row:
            part = (t >= begin) & (t <= end)
            _colours(axes, None if band is None else band[i], t, base - 1.45, base - 1.2, (begin, end))
            trace = x[i] - (np.nanmedian(x[i]) if np.isfinite(x[i]).any() else 0.0)
            axes.plot(t[part], np.clip(trace[part], -height_mv, height_mv) + base, color="black", linewidth=0.7)
            axes.text(begin + 0.05, base + 0.9, recording.ch_names[i], fontsize=8, weight="bold")
        axes.plot(
            [-0.32, -0.28, -0.28, -0.08, -0.08, -0.04], [base, base, base + 1, base + 1, base, base], "k-", lw=0.8, clip_on=False
        )
    axes.set_title(f"{title}   25 mm/s   10 mm/mV", fontsize=8, loc="left")
    return figure


def _paper(axes: Any, length: float, height: float) -> None:
    axes.set_xlim(0, length)
    axes.set_ylim(0, height)
    fine_x, fine_y = np.arange(0, length + 1e-9, 0.04), np.arange(0, height + 1e-9, 0.1)
    for step, color, width in ((1, "#f6cccc", 0.3), (5, "#e58f8f", 0.6)):
        for some, end, across in (
            (fine_x[::step], height, False),
            (fine_y[::step], length, True),
        ):  # one path: an SVG stays small
            along = np.stack([some, some, np.full(len(some), np.nan)], axis=1).ravel()
            ends = np.tile([0.0, end, np.nan], len(some))
            axes.plot(*((ends, along) if across else (along, ends)), color=color, linewidth=width, zorder=0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _eeg(recording: Recording, x: np.ndarray, t: np.ndarray, title: str, band: np.ndarray | None) -> Figure:
    """One row a channel, all EEG in one scale, negative up; other channels below, upright, in their own scale."""
    order = [i for i, k in enumerate(recording.ch_types) if k == "eeg"]
    order = (order + [i for i, k in enumerate(recording.ch_types) if k in ("eog", "emg", "ecg", "resp")])[:_MAX_ROWS]
    spread = [float(np.nanstd(x[i])) for i in order if recording.ch_types[i] == "eeg" and np.isfinite(x[i]).any()]
    step = _nice(5 * float(np.median(spread))) if spread else 100.0
    figure = _figure(max(30 * MM * max(float(t[-1]), 1.0) + 1.2, _LEAST_MM * MM), 0.28 * len(order) + 1.0)
    axes = figure.add_subplot()
    for row, i in enumerate(order):
        trace = x[i] - (np.nanmean(x[i]) if np.isfinite(x[i]).any() else 0.0)
        own = step
        if recording.ch_types[i] != "eeg" and np.isfinite(trace).any():
            own = -max(6 * float(np.nanstd(trace)), 1e-12)  # upright
        axes.plot(
            t, row + np.clip(trace / own, -2, 2), linewidth=0.5, color="black" if recording.ch_types[i] == "eeg" else "#30608f"
        )
        _colours(axes, None if band is None else band[i], t, row + 0.3, row + 0.5, (0.0, np.inf))
    bar = axes.get_yaxis_transform()  # beside the traces, one row high
    axes.plot([1.01, 1.01], [0, 1], color="black", linewidth=1.5, transform=bar, clip_on=False)
    axes.text(1.015, 0.5, f"{step:g} uV", transform=bar, fontsize=7, va="center")
    axes.set_ylim(len(order), -1)  # first channel on top, so a positive value goes down
    axes.set_yticks(range(len(order)), [recording.ch_names[i] for i in order], fontsize=7)
    axes.set_xlim(0, max(float(t[-1]), 1.0))
    axes.set_xticks(np.arange(0, t[-1] + 1e-9, 1.0))
    axes.grid(axis="x", color="#cccccc", linewidth=0.5)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("time (s)", fontsize=8)
    axes.set_title(f"{title}   rows {step:g} uV apart, negative up", fontsize=8, loc="left")
    figure.subplots_adjust(left=0.1, right=0.91, bottom=0.6 / (0.28 * len(order) + 1.0), top=1 - 0.3 / (0.28 * len(order) + 1.0))
    return figure


def _panels(recording: Recording, x: np.ndarray, t: np.ndarray, title: str, band: np.ndarray | None) -> Figure:
    """One panel a type and unit: acceleration and rotation with their axes together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(recording.ch_types, recording.units, strict=True)):
        groups.setdefault(key, []).append(i)
    words = {"acc": "acceleration", "gyro": "rotation"}
    height = 2.2 * len(groups) + 0.6
    figure = _figure(10, height)
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axis, ((kind, unit), rows) in zip(axes, groups.items(), strict=True):
        turned = unit == "rad/s"
        for k, i in enumerate(rows[:12]):
            trace = np.rad2deg(x[i]) if turned else x[i]
            axis.plot(t, trace, _DASHES[k % 4], color=_COLOURS[k % 3], linewidth=0.9, label=recording.ch_names[i])
        if band is not None:  # a strip for each channel below its panel's traces
            (floor, top), sides = axis.get_ylim(), axis.get_xlim()
            step = 0.07 * (top - floor)
            for j, i in enumerate(rows[:12]):
                _colours(axis, band[i], t, floor - (j + 1) * step, floor - j * step, (0.0, np.inf))
            axis.set(xlim=sides, ylim=(floor - (len(rows[:12]) + 0.3) * step, top))
        axis.set_ylabel(f"{words.get(kind, kind)} ({'deg/s' if turned else unit})", fontsize=8)
        axis.legend(fontsize=7, loc="upper right", ncols=3)
        axis.grid(color="#dddddd", linewidth=0.5)
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("time (s)", fontsize=8)
    axes[0].set_title(title, fontsize=8, loc="left")
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.5 / height, top=1 - 0.3 / height, hspace=0.12)
    return figure


def _nice(value: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``value``."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * k for k in (1, 2, 5, 10) if power * k >= value * 0.999))
