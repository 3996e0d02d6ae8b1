"""Simulated subjects with 19-channel EEG at rest and in a mental task, written as EDF.

What lives here: cortical and ocular dipoles mixed into scalp electrodes, background, rhythms, artefacts, files. In the task
alpha falls and frontal-midline theta rises, by a subject's own amount; every subject has an own alpha frequency.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.channels import positions
from biossl.progress import track
from biossl.simulate.files import at_least_one, fresh_folder, write_card, write_table
from biossl.simulate.noise import coloured, transients

Array = NDArray[Any]

CHANNELS = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4", "P8", "O1", "O2",
)  # fmt: skip
STATES = ("rest", "task")
N_BACKGROUND = 48
BRAIN_M = 0.068  # dipoles lie on a sphere inside the scalp
CENTRE_M = np.array([0.0, -0.015, 0.0])  # of the head in the frame of the electrode positions
EYES_M = np.array([(-0.032, 0.085, -0.045), (0.032, 0.085, -0.045)])
SOFTENING_M3 = 0.03**3


def simulate_subject(*, seed: int, subject: int, sfreq: float = 250.0, duration_s: float = 60.0) -> tuple[Array, dict[str, Any]]:
    """Both recordings of one subject.

    Parameters
    ----------
    seed, subject : int
        Subject k of a seed is the same person whoever else is simulated.
    sfreq, duration_s : float
        Hz, seconds.

    Returns
    -------
    signals : ndarray, float32, shape (2, 19, T)
        uV, referenced to the mean of T7 and T8; rest, then task.
    truth : dict
        ``alpha_hz``, ``theta_hz``, ``alpha_share`` (task / rest amplitude), ``theta_share``, ``blinks_per_min_rest``,
        ``blinks_per_min_task``.

    Examples
    --------
    >>> simulate_subject(seed=0, subject=1, duration_s=4.0)[0].shape
    (2, 19, 1000)
    """
    at_least_one(sfreq=sfreq, duration_s=duration_s)
    rng = np.random.default_rng([seed, 3, subject])
    t = round(duration_s * sfreq)
    seat = positions(CHANNELS)
    assert seat is not None  # all 19 are in the packaged table
    where = rng.normal(0, 1, (N_BACKGROUND, 3)) * (1, 1, 0.8) + (0, 0, 0.5)
    where = BRAIN_M * where / np.linalg.norm(where, axis=1, keepdims=True)
    background = _seen(seat, CENTRE_M + where, where + rng.normal(0, 0.5 * BRAIN_M, where.shape))
    occipital = _rhythm_sources(rng, seat, [(-0.025, -0.055, 0.02), (0.025, -0.055, 0.02), (0.0, -0.045, 0.045)])
    midline = _rhythm_sources(rng, seat, [(0.0, 0.035, 0.055)])
    central = _rhythm_sources(rng, seat, [(-0.045, 0.0, 0.045), (0.045, 0.0, 0.045)])
    eyes = _seen(seat, EYES_M, np.array([(0, 0.4, 1.0), (0, 0.4, 1.0)])).sum(axis=1)
    truth = {
        "alpha_hz": float(np.clip(rng.normal(10.0, 0.9), 8.2, 12.2)), "theta_hz": float(rng.uniform(5.0, 7.0)),
        "alpha_share": float(rng.uniform(0.45, 0.9)), "theta_share": float(rng.uniform(1.1, 1.8)),
        "blinks_per_min_rest": float(rng.uniform(0, 4)), "blinks_per_min_task": float(rng.uniform(4, 20)),
    }  # fmt: skip
    slope, level = rng.uniform(0.9, 1.3), 13.0 * np.exp(rng.normal(0, 0.25))
    alpha, theta, beta = 12 * np.exp(rng.normal(0, 0.45)), 3.5 * np.exp(rng.normal(0, 0.3)), 2.5 * np.exp(rng.normal(0, 0.3))
    muscle = 2.5 * np.exp(rng.normal(0, 0.5, len(CHANNELS))) * np.isin(CHANNELS, ("F7", "F8", "T7", "T8", "Fp1", "Fp2"))
    out = np.empty((2, len(CHANNELS), t), np.float32)
    for state, name in enumerate(STATES):
        x = level * background @ coloured(rng, (N_BACKGROUND, t), sfreq, lambda f: np.maximum(f, 0.5) ** -slope)
        x += _band(rng, occipital, t, sfreq, truth["alpha_hz"], 0.8) * alpha * (truth["alpha_share"] if state else 1.0)
        x += _band(rng, midline, t, sfreq, truth["theta_hz"], 0.9) * theta * (truth["theta_share"] if state else 1.0)
        x += _band(rng, central, t, sfreq, 19.0, 4.0) * beta
        blinks = rng.poisson(truth[f"blinks_per_min_{name}"] * duration_s / 60)
        x += np.outer(eyes, _blinks(rng, blinks, t, sfreq)) * rng.uniform(80, 160)
        bursts = np.exp(0.9 * coloured(rng, (1, t), sfreq, lambda f: (f < 0.5) / (f + 0.1)))
        x += muscle[:, None] * bursts * coloured(rng, x.shape, sfreq, lambda f: f / (f + 30))
        x += 1.2 * coloured(rng, x.shape, sfreq, np.ones_like) + 6 * coloured(
            rng, x.shape, sfreq, lambda f: (f < 0.4) / (f + 0.02)
        )
        x += rng.uniform(0.2, 2.0, (len(CHANNELS), 1)) * np.sin(2 * np.pi * 50 * np.arange(t) / sfreq)
        x += 25 * transients(rng, rng.poisson(0.004 * duration_s, len(CHANNELS)), t, sfreq)
        ears = [CHANNELS.index("T7"), CHANNELS.index("T8")]
        out[state] = x - 0.5 * x[ears].mean(axis=0)  # a reference that itself picks up half of the temporal field
    return out, truth


def write_subjects(folder: str | Path, *, n_subjects: int, seed: int, sfreq: float = 250.0, duration_s: float = 60.0) -> Path:
    """Write simulated subjects as EDF files with a card and a truth table.

    Parameters
    ----------
    folder : path
        Absent or empty. Gets ``card.yaml``, ``subjects.csv`` and ``sNNN_rest.edf``, ``sNNN_task.edf``.
    n_subjects, seed : int
    sfreq : float
        Hz, a whole number (EDF records of one second).
    duration_s : float
        Seconds a recording, whole.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    RequestError
        The folder is not empty, or a number is not positive.

    Examples
    --------
    >>> write_subjects("sim_eeg", n_subjects=2, seed=0)  # doctest: +SKIP
    PosixPath('sim_eeg/card.yaml')
    """
    import edfio

    at_least_one(n_subjects=n_subjects)
    path = fresh_folder(folder)
    rows = []
    for k in track(range(n_subjects), n_subjects, "simulate", "subjects"):
        signals, truth = simulate_subject(seed=seed, subject=k, sfreq=sfreq, duration_s=duration_s)
        for state, x in zip(STATES, signals, strict=True):
            channels = [
                edfio.EdfSignal(
                    np.clip(row, -2000, 2000).astype(np.float64), sampling_frequency=sfreq, label=f"EEG {name}",
                    physical_dimension="uV", physical_range=(-2000, 2000),
                )
                for name, row in zip(CHANNELS, x, strict=True)
            ]  # fmt: skip
            edfio.Edf(channels, data_record_duration=1.0).write(path / f"s{k:03d}_{state}.edf")
        rows.append({"subject": f"s{k:03d}"} | truth)
    write_table(path / "subjects.csv", rows)
    write_card(path, _card(seed, sfreq, n_subjects))
    return path / "card.yaml"


def _seen(seat: Array, source: Array, moment: Array) -> Array:
    """Lead field (C, K) of dipoles at ``source`` with ``moment`` (K, 3), scaled so that a source's largest weight is 1."""
    r = seat[:, None] - source[None]
    field = (r * moment).sum(axis=2) / (np.linalg.norm(r, axis=2) ** 3 + SOFTENING_M3)
    return field / np.abs(field).max(axis=0, keepdims=True)


def _rhythm_sources(rng: np.random.Generator, seat: Array, centres: list[tuple[float, float, float]]) -> Array:
    """Lead field (C, K) of radial dipoles near given places, a little elsewhere in every subject."""
    where = np.array(centres) + rng.normal(0, 0.006, (len(centres), 3))
    return _seen(seat, CENTRE_M + where, where)


def _band(rng: np.random.Generator, field: Array, t: int, sfreq: float, centre_hz: float, width_hz: float) -> Array:
    """A rhythm (C, t): narrow-band noise that the sources share in part, waxing and waning."""
    waves = coloured(rng, (field.shape[1] + 1, t), sfreq, lambda f: np.exp(-0.5 * ((f - centre_hz) / width_hz) ** 2))
    swell = np.exp(0.5 * coloured(rng, (1, t), sfreq, lambda f: (f < 0.3) / (f + 0.05)))
    return field @ (0.8 * waves[:1] + 0.6 * waves[1:]) * swell


def _blinks(rng: np.random.Generator, count: int, t: int, sfreq: float) -> Array:
    """``count`` lid movements of unit size, (t,)."""
    time = np.arange(t) / sfreq
    x = np.zeros(t)
    for at in rng.uniform(0, t / sfreq, count):
        fast, slow = rng.uniform(0.04, 0.06), rng.uniform(0.07, 0.11)
        x += rng.uniform(0.7, 1.3) * np.exp(-0.5 * ((time - at) / np.where(time < at, fast, slow)) ** 2)
    return x


def _card(seed: int, sfreq: float, n_subjects: int) -> dict[str, Any]:
    """The card of a folder written here."""
    return {
        "format": 1, "name": "simulated_eeg", "title": "Simulated subjects with EEG at rest and in a mental task",
        "modality": "eeg", "licence": "CC0-1.0", "citation": "biossl.simulate.eeg", "version": f"seed {seed}",
        "obtain": "written by biossl.simulate.eeg.write_subjects; no person was recorded",
        "files": [{"pattern": r"(?P<record>(?P<subject>s\d+)_(?P<state>rest|task))\.edf", "reader": "edf"}],
        "native_sfreq": [float(sfreq)],
        "labels": {"state": {
            "kind": "multiclass", "source": "covariate", "column": "state", "map": {"rest": ["rest"], "task": ["task"]},
        }},
        "views": {"windows4s": {
            "sfreq": 100.0, "window_s": 4.0, "stride_s": 4.0, "channels": list(CHANNELS), "reference": "average",
            "filter": {"highpass_hz": 0.5, "lowpass_hz": 45.0},
        }},
        "expected": {"records": 2 * n_subjects, "subjects": n_subjects},
    }  # fmt: skip
