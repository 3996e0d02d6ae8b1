"""Hand features a clinical engineer would compute first: the floor any encoder has to beat.

What lives here: features of windows per modality, as plain numbers from SciPy, NaN where one cannot be computed (the
probe's pipeline imputes and marks it). No models and no labels. ECG: intervals between beats, amplitudes of the median
beat and band power; single beats: their shape and the intervals to their neighbours; EEG: band power; IMU: statistics
and spectra of axes and magnitudes; its gravity alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps
from scipy import stats

from biossl.progress import Progress
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.corpus import Corpus

Array = NDArray[Any]
EEG_BANDS_HZ = {"delta": (1.0, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 45.0)}
ECG_BANDS_HZ = {"vlf": (0.5, 2.0), "low": (2.0, 5.0), "qrs": (5.0, 15.0), "high": (15.0, 40.0)}
SINGLE_BEAT_S = 2.5  # an ECG window up to this long is taken as one beat with its surroundings
SHAPE_HZ = 60.0  # samples that describe a single beat, per lead
FFT_BINS = 24
_BLOCK = 256
_FEW = 2_000  # windows that are done sooner than worker processes start


def hand_features(x: Array, spec: InputSpec) -> tuple[Array, list[str]]:
    """Features of windows.

    Parameters
    ----------
    x : ndarray, float, shape (n, C, T)
        Canonical units, NaN where not observed.
    spec : InputSpec
        What the windows are; its modality chooses the features.

    Returns
    -------
    features : ndarray, float32, shape (n, F)
        NaN where a feature cannot be computed.
    names : list of str, length F

    Examples
    --------
    >>> spec = InputSpec("imu", 50.0, 128, ("acc_x",), ("acc",), ("g",))
    >>> hand_features(np.zeros((2, 1, 128)), spec)[0].shape[0]
    2
    """
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # empty slices: their features are NaN, as documented
        if spec.modality == "imu":
            table = _imu(x, spec)
        elif spec.modality == "eeg":
            table = _eeg(x, spec)
        elif spec.window_s <= SINGLE_BEAT_S:
            table = _single_beat(x, spec)
        else:
            table = _ecg(x, spec)
    features = np.stack(list(table.values()), axis=1).astype(np.float32)
    return np.where(np.isfinite(features), features, np.nan), list(table)


def corpus_features(corpus: Corpus, rows: Array, *, n_jobs: int = -1) -> tuple[Array, list[str]]:
    """Hand features of corpus rows, computed in parallel blocks.

    Windows around single heart beats also get the intervals to the neighbouring beats of the record, in seconds and
    relative to the record's median: what a person would use, although it lies outside the window.

    Parameters
    ----------
    corpus : Corpus
    rows : ndarray of int, shape (n,)
    n_jobs : int
        As for joblib.

    Returns
    -------
    features : ndarray, float32, shape (n, F)
    names : list of str
    """
    from joblib import Parallel, delayed

    rows = np.asarray(rows)
    blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
    parts: list[Array] = []
    names: list[str] = []
    with Progress(len(rows), "hand features", "windows") as bar:
        work = (delayed(hand_features)(corpus.signal(block), corpus.spec) for block in blocks)
        n_jobs = n_jobs if len(rows) > _FEW else 1
        for done in Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="2*n_jobs")(work):
            parts.append(done[0])
            names = done[1]
            bar.update(len(done[0]))
    features = np.concatenate(parts)
    events = corpus.index["event"].fillna("").astype(str) if "event" in corpus.index else None
    if corpus.spec.modality == "ecg" and corpus.spec.window_s <= SINGLE_BEAT_S and events is not None and (events != "").any():
        context, more = neighbour_intervals(
            corpus.index["record"].to_numpy(), corpus.index["start_s"].to_numpy(dtype=float), rows
        )
        features, names = np.concatenate([features, context], axis=1), names + more
    return features, names


def gravity_features(x: Array, spec: InputSpec) -> Array:
    """Mean acceleration of each axis, its length, and its angle to each axis: how a sensor lies, and nothing of how it moves.

    Parameters
    ----------
    x : ndarray, float, shape (n, C, T)
        g, NaN where not observed.
    spec : InputSpec
        Channels of type ``acc`` whose names differ in the axis alone are one sensor.

    Returns
    -------
    ndarray, float32, shape (n, 2 axes + 1 for each sensor)
        g and radians; NaN where nothing was observed.

    Examples
    --------
    >>> spec = InputSpec("imu", 50.0, 4, ("acc_x", "acc_y"), ("acc", "acc"), ("g", "g"))
    >>> np.degrees(gravity_features(np.stack([np.zeros(4), np.ones(4)])[None], spec)[0, 3:]).round().tolist()
    [90.0, 0.0]
    """
    sensors: dict[str, list[int]] = {}
    for c, name in enumerate(spec.ch_names):
        if spec.ch_types[c] == "acc":
            sensors.setdefault(name.rpartition("_")[0], []).append(c)
    parts = []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without a sample: NaN, as documented
        for axes in sensors.values():
            mean = np.nanmean(np.asarray(x[:, axes], np.float64), axis=2)
            length = np.linalg.norm(mean, axis=1, keepdims=True)
            parts += [mean, length, np.arccos(np.clip(mean / length, -1.0, 1.0))]
    return np.concatenate(parts, axis=1).astype(np.float32)


def neighbour_intervals(record: Sequence[Any] | Array, start_s: Array, rows: Array) -> tuple[Array, list[str]]:
    """Seconds to the beat before and after, and both relative to the record's median interval.

    Parameters
    ----------
    record : sequence, length n_index
        Record of every window of the corpus.
    start_s : ndarray, shape (n_index,)
    rows : ndarray of int
        The windows wanted.

    Returns
    -------
    features : ndarray, float32, shape (len(rows), 5)
        NaN at the ends of a record.
    names : list of str

    Examples
    --------
    >>> neighbour_intervals(["a"] * 3, np.array([0.0, 1.0, 1.5]), np.array([1]))[0][0, :2].tolist()
    [1.0, 0.5]
    """
    _, codes = np.unique(np.asarray(record).astype(str), return_inverse=True)
    order = np.lexsort((start_s, codes))
    gap = np.diff(start_s[order])
    gap[np.diff(codes[order]) != 0] = np.nan
    before, after = np.full(len(order), np.nan), np.full(len(order), np.nan)
    before[order[1:]], after[order[:-1]] = gap, gap
    median = np.array([np.nanmedian(v) if np.isfinite(v := before[codes == c]).any() else np.nan for c in range(codes.max() + 1)])
    usual = median[codes]
    table = np.stack([before, after, before / usual, after / usual, before / after], axis=1)
    return table[rows].astype(np.float32), ["rr_before_s", "rr_after_s", "rr_before_rel", "rr_after_rel", "rr_ratio"]


def r_peaks(x: Array, sfreq: float) -> Array:
    """Sample numbers of the R peaks of one window (C, T), from the QRS-band energy of all leads together.

    Empty when no beat stands out. Not a diagnostic detector: good enough for intervals and a median beat.
    """
    x = _filled(x[None])[0]
    if x.shape[1] < int(sfreq):
        return np.zeros(0, np.int64)
    top = min(20.0, 0.45 * sfreq)
    band = sps.sosfiltfilt(sps.butter(2, [5.0, top], "bandpass", fs=sfreq, output="sos"), x, axis=1)
    scale = np.percentile(np.abs(band), 98, axis=1, keepdims=True)
    energy = np.where(scale > 1e-6, np.abs(band) / np.maximum(scale, 1e-6), 0.0).mean(axis=0)
    width = max(1, round(0.08 * sfreq))
    energy = np.convolve(energy, np.ones(width) / width, mode="same")
    if energy.max(initial=0.0) <= 0:
        return np.zeros(0, np.int64)
    peaks, _ = sps.find_peaks(energy, height=0.35 * np.percentile(energy, 99), distance=max(1, round(0.27 * sfreq)))
    return peaks


def _filled(x: Array) -> Array:
    """NaN replaced by the channel's median of the window; a channel never observed becomes 0."""
    if not np.isnan(x).any():
        return x
    seen = np.isfinite(x).any(axis=-1, keepdims=True)
    middle = np.nanmedian(np.where(seen, x, 0.0), axis=-1, keepdims=True)
    return np.where(np.isnan(x), middle, x)


def _ecg(x: Array, spec: InputSpec) -> dict[str, Array]:
    rows = [_ecg_one(one, spec) for one in x]
    table = {name: np.array([r[name] for r in rows]) for name in (rows[0] if rows else {})}
    power, names = _band_power(x, spec.sfreq, ECG_BANDS_HZ)
    total = power.sum(axis=2, keepdims=True)
    share = np.log10(np.nanmean(power / total, axis=1) + 1e-6)
    return table | {f"power_{name}": share[:, i] for i, name in enumerate(names)}


def _ecg_one(x: Array, spec: InputSpec) -> dict[str, float]:
    """Intervals of the window and amplitudes of every lead's median beat."""
    fs = spec.sfreq
    peaks = r_peaks(x, fs)
    rr = np.diff(peaks) / fs
    few = len(rr) < 2
    out = {
        "rr_mean_s": float(rr.mean()) if len(rr) else np.nan,
        "rr_sd_s": np.nan if few else float(rr.std()),
        "rr_rmssd_s": np.nan if few else float(np.sqrt(np.mean(np.diff(rr) ** 2))),
        "rr_min_rel": np.nan if few else float(rr.min() / np.median(rr)),
        "rr_max_rel": np.nan if few else float(rr.max() / np.median(rr)),
        "n_beats": float(len(peaks)),
    }
    before, after = round(0.25 * fs), round(0.45 * fs)
    inside = peaks[(peaks >= before) & (peaks + after < x.shape[1])]
    beat = np.full((x.shape[0], before + after), np.nan)
    if len(inside):
        beat = np.nanmedian(np.stack([x[:, p - before : p + after] for p in inside]), axis=0)
    rest = np.nanmedian(x, axis=1, keepdims=True)
    beat = beat - rest

    def part(lo_s: float, hi_s: float) -> Array:
        return beat[:, before + round(lo_s * fs) : before + round(hi_s * fs)]

    slope = np.abs(np.diff(part(-0.12, 0.14), axis=1))
    columns = {
        "p": np.nanmax(part(-0.25, -0.08), axis=1),
        "q": np.nanmin(part(-0.08, 0.01), axis=1),
        "r": np.nanmax(part(-0.06, 0.07), axis=1),
        "s": np.nanmin(part(0.0, 0.1), axis=1),
        "st": np.nanmean(part(0.08, 0.12), axis=1),
        "t_max": np.nanmax(part(0.14, 0.4), axis=1),
        "t_min": np.nanmin(part(0.14, 0.4), axis=1),
        "qrs_area": np.nanmean(part(-0.06, 0.08), axis=1),
        "qrs_s": np.nansum(slope > 0.2 * np.nanmax(slope, axis=1, keepdims=True), axis=1) / fs,
        "sd": np.nanstd(x, axis=1),
    }
    for name, values in columns.items():
        out |= {f"{name}_{ch}": float(v) for ch, v in zip(spec.ch_names, values, strict=True)}
    return out


def _single_beat(x: Array, spec: InputSpec) -> dict[str, Array]:
    """Shape of one beat: resampled samples about the lead's median, amplitudes, steepness."""
    out: dict[str, Array] = {}
    n_points = min(x.shape[2], max(2, round(SHAPE_HZ * spec.window_s)))
    grid = np.linspace(0, x.shape[2] - 1, n_points).round().astype(int)
    level = x - np.nanmedian(x, axis=2, keepdims=True)
    smooth = sps.convolve(_filled(level), np.full((1, 1, 3), 1 / 3), mode="same")
    for c, ch in enumerate(spec.ch_names):
        unseen = np.isnan(level[:, c]).all(axis=1)
        shape = np.where(unseen[:, None], np.nan, smooth[:, c][:, grid])
        out |= {f"shape{i:03d}_{ch}": shape[:, i] for i in range(len(grid))}
        out[f"range_{ch}"] = np.nanmax(level[:, c], axis=1) - np.nanmin(level[:, c], axis=1)
        out[f"sd_{ch}"] = np.nanstd(level[:, c], axis=1)
        out[f"slope_{ch}"] = np.nanmax(np.abs(np.diff(level[:, c], axis=1)), axis=1) * spec.sfreq
        steep = np.abs(np.diff(smooth[:, c], axis=1))
        out[f"steep_s_{ch}"] = (steep > 0.2 * steep.max(axis=1, keepdims=True)).sum(axis=1) / spec.sfreq
    return out


def _band_power(x: Array, sfreq: float, bands: dict[str, tuple[float, float]]) -> tuple[Array, list[str]]:
    """Power (n, C, bands) by Welch over 2 s pieces; bands beyond the Nyquist frequency are left out."""
    n = min(x.shape[2], max(8, round(2 * sfreq)))
    f, p = sps.welch(_filled(x), fs=sfreq, nperseg=n, axis=2)
    p = np.where(np.isfinite(x).any(axis=2, keepdims=True), p, np.nan)
    kept = [name for name, (lo, hi) in bands.items() if hi <= sfreq / 2 and ((f >= lo) & (f < hi)).any()]
    power = np.stack([p[..., (f >= bands[k][0]) & (f < bands[k][1])].sum(axis=2) * (f[1] - f[0]) for k in kept], axis=2)
    return power, kept


def _eeg(x: Array, spec: InputSpec) -> dict[str, Array]:
    power, names = _band_power(x, spec.sfreq, EEG_BANDS_HZ)
    log = np.log10(power + 1e-6)  # uV2: 1e-6 lies far below any amplifier's noise
    relative = power / power.sum(axis=2, keepdims=True)
    out: dict[str, Array] = {}
    for c, ch in enumerate(spec.ch_names):
        out |= {f"log_{name}_{ch}": log[:, c, i] for i, name in enumerate(names)}
        out |= {f"rel_{name}_{ch}": relative[:, c, i] for i, name in enumerate(names)}
    return out


def _imu(x: Array, spec: InputSpec) -> dict[str, Array]:
    """Statistics and spectrum of each axis and of the magnitude of each sensor."""
    series = {ch: x[:, c] for c, ch in enumerate(spec.ch_names)}
    for kind in ("acc", "gyro"):
        axes = [c for c, t in enumerate(spec.ch_types) if t == kind]
        if len(axes) > 1:
            series[f"{kind}_norm"] = np.sqrt((x[:, axes] ** 2).sum(axis=1))
    out: dict[str, Array] = {}
    for name, v in series.items():
        quartiles = np.nanpercentile(v, [10, 25, 50, 75, 90], axis=1)
        moving = v - np.nanmean(v, axis=1, keepdims=True)
        out |= {
            f"mean_{name}": np.nanmean(v, axis=1), f"sd_{name}": np.nanstd(v, axis=1),
            f"min_{name}": np.nanmin(v, axis=1), f"max_{name}": np.nanmax(v, axis=1),
            f"iqr_{name}": quartiles[3] - quartiles[1], f"median_{name}": quartiles[2],
            f"p10_{name}": quartiles[0], f"p90_{name}": quartiles[4],
            f"mad_{name}": np.nanmean(np.abs(moving), axis=1),
            f"jerk_{name}": np.nanstd(np.diff(v, axis=1), axis=1) * spec.sfreq,
            f"skew_{name}": stats.skew(moving, axis=1, nan_policy="omit"),
            f"crossings_{name}": (np.diff(np.sign(moving), axis=1) != 0).mean(axis=1),
        }  # fmt: skip
        unseen = np.isnan(v).all(axis=1, keepdims=True)
        spectrum = np.abs(np.fft.rfft(_filled(moving[:, None])[:, 0] * np.hanning(v.shape[1]), axis=1)) / v.shape[1]
        spectrum = np.where(unseen, np.nan, np.log10(spectrum[:, 1 : FFT_BINS + 1] + 1e-4))
        out |= {f"fft{i:02d}_{name}": spectrum[:, i] for i in range(spectrum.shape[1])}
    for i, a in enumerate(spec.ch_names):
        for b in spec.ch_names[i + 1 :]:
            u, w = (s - np.nanmean(s, axis=1, keepdims=True) for s in (series[a], series[b]))
            spread = np.nanstd(u, axis=1) * np.nanstd(w, axis=1)
            out[f"corr_{a}_{b}"] = np.nanmean(u * w, axis=1) / np.maximum(spread, 1e-9)
    return out


def neurokit_waves(x: Array, sfreq: float) -> dict[str, Array]:
    """P, QRS and T of one ECG lead by NeuroKit2's wavelet delineation (after Martinez 2004), R peaks found in the same lead.

    Parameters
    ----------
    x : ndarray, (T,)
        Millivolts; NaN is bridged by straight lines.
    sfreq : float
        Hz.

    Returns
    -------
    dict of str to ndarray, (n, 2)
        Onset and offset in seconds of each wave of which it gives both.

    Raises
    ------
    ValueError
        It finds nothing in the lead, or breaks off.
    """
    import neurokit2 as nk

    seen = np.isfinite(x)
    if not seen.any():
        raise ValueError("nothing was observed")
    whole = np.interp(np.arange(len(x)), np.flatnonzero(seen), x[seen])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            clean = nk.ecg_clean(whole, sampling_rate=sfreq)
            peaks = nk.ecg_peaks(clean, sampling_rate=sfreq)[1]["ECG_R_Peaks"]
            found = nk.ecg_delineate(clean, peaks, sampling_rate=sfreq, method="dwt")[1]
        except Exception as error:  # it raises what its parts raise
            raise ValueError(f"{type(error).__name__}: {error}") from None
    out = {}
    for name, key in (("P", "P"), ("QRS", "R"), ("T", "T")):
        both = np.array([found[f"ECG_{key}_Onsets"], found[f"ECG_{key}_Offsets"]], float).T.reshape(-1, 2)
        both = both[np.isfinite(both).all(axis=1)]
        out[name] = both[both[:, 1] >= both[:, 0]] / sfreq
    return out
