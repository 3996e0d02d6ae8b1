"""Simulated patients with 12-lead ECG, known diagnoses and known intervals.

What lives here: people, devices, noise and files around the heart of ``heart.py`` and the beats of ``rhythm.py``. The
question the labels ask is that of a resting-ECG archive (normal, infarction, ST/T change, conduction disturbance,
hypertrophy; several at once), most cases are mild, and axis, habitus, electrode placement, rhythm, devices and noise
vary at least as much as disease does. Nothing here was chosen by looking at a trained encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.progress import Progress
from biossl.simulate.files import at_least_one, fresh_folder, write_card, write_table
from biossl.simulate.heart import (
    DIAGNOSES,
    ELECTRODES,
    Waves,
    afflict,
    diagnose,
    draw_disease,
    draw_hearts,
    ectopic_waves,
    place_electrodes,
    potentials,
    sinus_waves,
)
from biossl.simulate.noise import coloured, transients
from biossl.simulate.rhythm import Rhythm, draw_rhythm

Array = NDArray[Any]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
BLOCK = 32  # patients drawn together: patient k is the same whatever n_patients is
PAD_S = 1.0  # simulated before and after, so that waves and filters have no edges
# low-pass Hz, high-pass Hz, counts per mV, gain error, noise, mains Hz
DEVICES = {
    "A": (150.0, 0.05, 1000.0, 1.00, 0.8, 50.0),
    "B": (40.0, 0.30, 204.8, 1.05, 1.0, 50.0),
    "C": (100.0, 0.10, 400.0, 0.95, 1.7, 60.0),
}


@dataclass
class Recordings:
    """Simulated recordings of some patients.

    ``counts`` (n, 12, T) int16 in the order of :data:`LEADS`; ``per_mv`` (n,) counts per mV; ``truth`` one dict a
    recording (identity, diagnoses, severities, intervals, device, noise).
    """

    counts: Array
    per_mv: Array
    truth: list[dict[str, Any]]

    @property
    def millivolts(self) -> Array:
        """Signals in mV, float32 (n, 12, T)."""
        return (self.counts / self.per_mv[:, None, None]).astype(np.float32)


def simulate_patients(
    n_patients: int, *, seed: int, recordings_per_patient: int = 1, sfreq: float = 250.0, duration_s: float = 10.0
) -> Iterator[Recordings]:
    """Simulate in memory, a block of patients at a time.

    Parameters
    ----------
    n_patients, seed, recordings_per_patient : int
        Patient k of a seed is the same person whatever ``n_patients`` is.
    sfreq : float
        Hz.
    duration_s : float
        Seconds.

    Yields
    ------
    Recordings
        Of up to 32 patients, patient by patient.

    Examples
    --------
    >>> next(simulate_patients(2, seed=0)).counts.shape
    (2, 12, 2500)
    """
    at_least_one(n_patients=n_patients, recordings_per_patient=recordings_per_patient, sfreq=sfreq, duration_s=duration_s)
    for block in range(-(-n_patients // BLOCK)):
        whole = _block(seed, block, recordings_per_patient, sfreq, duration_s)
        keep = min(BLOCK, n_patients - block * BLOCK) * recordings_per_patient
        yield Recordings(whole.counts[:keep], whole.per_mv[:keep], whole.truth[:keep])


def write_patients(
    folder: str | Path,
    *,
    n_patients: int,
    seed: int,
    recordings_per_patient: int = 1,
    sfreq: float = 250.0,
    duration_s: float = 10.0,
    test_share: float = 0.25,
) -> Path:
    """Write simulated patients as WFDB files with a card and a truth table.

    Parameters
    ----------
    folder : path
        Absent or empty. Gets ``card.yaml``, ``records.csv`` (truth, one row a recording) and ``records/*.hea, *.dat``.
    n_patients, seed, recordings_per_patient : int
    sfreq : float
        Hz of the files.
    duration_s : float
        Seconds a recording.
    test_share : float
        Share of patients in the official split's part ``test`` (the others are ``train``), drawn by patient.

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
    >>> write_patients("sim", n_patients=4, seed=0)  # doctest: +SKIP
    PosixPath('sim/card.yaml')
    """
    import wfdb

    at_least_one(n_patients=n_patients, recordings_per_patient=recordings_per_patient, sfreq=sfreq, duration_s=duration_s)
    path = fresh_folder(folder)
    (path / "records").mkdir()
    parts = np.random.default_rng([seed, 2]).random(n_patients) < test_share
    rows: list[dict[str, Any]] = []
    with Progress(n_patients * recordings_per_patient, "simulate", "recordings") as bar:
        blocks = simulate_patients(
            n_patients, seed=seed, recordings_per_patient=recordings_per_patient, sfreq=sfreq, duration_s=duration_s
        )
        for found in blocks:
            for counts, per_mv, truth in zip(found.counts, found.per_mv, found.truth, strict=True):
                wfdb.wrsamp(
                    truth["record"], fs=sfreq, units=["mV"] * 12, sig_name=list(LEADS), d_signal=counts.T.astype(np.int64),
                    fmt=["16"] * 12, adc_gain=[float(per_mv)] * 12, baseline=[0] * 12, write_dir=str(path / "records"),
                    comments=[f"Age: {truth['age']}", f"Sex: {truth['sex']}"],
                )  # fmt: skip
                part = "test" if parts[len(rows) // recordings_per_patient] else "train"
                rows.append({"record": truth["record"], "patient": truth["patient"], "part": part} | truth)
                bar.update()
    write_table(path / "records.csv", rows)
    write_card(path, _card(seed, sfreq, duration_s, len(rows), n_patients))
    return path / "card.yaml"


def _block(seed: int, block: int, visits: int, sfreq: float, duration_s: float) -> Recordings:
    """All recordings of one block of patients."""
    rng = np.random.default_rng([seed, 1, block])
    age = np.clip(rng.normal(58, 17, BLOCK), 18, 95).round()
    female = rng.random(BLOCK) < 0.48
    habitus = np.exp(rng.normal(0, 0.09, BLOCK)) * np.where(female, 0.97, 1.0)
    hearts = draw_hearts(rng, age, female)
    disease = draw_disease(rng, age)
    afflict(hearts, disease)
    rate = np.clip(rng.normal(72 + 3 * female, 11, BLOCK), 46, 120)
    fibrillator = rng.random(BLOCK) < np.clip(0.0022 * (age - 40), 0.005, 0.12)
    ectopic_prone = rng.random(BLOCK) < 0.12
    device = rng.choice(list(DEVICES), BLOCK, p=[0.4, 0.35, 0.25])

    who = np.repeat(np.arange(BLOCK), visits)
    n = len(who)
    electrodes = place_electrodes(rng, habitus[who])
    rhythm = draw_rhythm(
        rng, rate_bpm=np.clip(rate[who] * np.exp(rng.normal(0, 0.08, n)) * np.where(fibrillator[who], 1.2, 1.0), 42, 150),
        age=age[who], fibrillating=fibrillator[who], ectopy=np.where(ectopic_prone[who], rng.uniform(0.03, 0.2, n), 0.0),
        duration_s=duration_s + 2 * PAD_S,
    )  # fmt: skip
    own = hearts.take(who)
    samples = round((duration_s + 2 * PAD_S) * sfreq)
    sinus, ectopic = sinus_waves(own, electrodes), ectopic_waves(rng, own, electrodes)
    sinus.pattern[rhythm.fibrillating, :, :2] = 0.0  # no P wave
    volts = _beats(rhythm, sinus, ectopic, own.qtc_ms, samples, sfreq)
    volts += _fibrillation(rng, rhythm, electrodes, samples, sfreq)
    swapped = rng.random(n) < 0.01
    grade = np.exp(rng.normal(0, 0.45, n))
    noise = _noise(rng, rhythm, grade, device[who], samples, sfreq)
    potential = volts + noise
    potential[swapped, 0], potential[swapped, 1] = potential[swapped, 1], potential[swapped, 0].copy()
    counts, per_mv = _amplify(rng, potential, device[who], sfreq)

    labels = diagnose(disease)
    pad = round(PAD_S * sfreq)
    inside = (rhythm.onset_s >= PAD_S) & (rhythm.onset_s < PAD_S + duration_s)
    rr = np.where(inside, rhythm.rr_s, np.nan)
    mean_rr = np.nanmean(rr, axis=1)
    net = sinus.pattern[:, :3, 2 : 2 + hearts.onset.shape[1]].sum(axis=2)
    lead_i, avf = net[:, 1] - net[:, 0], net[:, 2] - (net[:, 0] + net[:, 1]) / 2
    truth = []
    for k, i in enumerate(who):
        patient = f"p{block * BLOCK + i:05d}"
        truth.append({
            "record": f"{patient}_{k % visits + 1}", "patient": patient,
            "age": int(age[i]), "sex": "F" if female[i] else "M", "device": str(device[i]),
            "diagnosis": " ".join(d for d, present in zip(DIAGNOSES, labels[i], strict=True) if present),
            "rhythm": "AF" if fibrillator[i] else "SR", "n_ectopic": int((rhythm.ectopic & inside)[k].sum()),
            "rate_bpm": float(60 / mean_rr[k]), "rr_sd_s": float(np.nanstd(rr[k])), "pr_ms": float(hearts.pr_ms[i]),
            "qrs_ms": float((own.onset + 2 * own.width)[k].max() - (own.onset - 2 * own.width)[k].min()),
            "qt_ms": float(hearts.qtc_ms[i] * mean_rr[k] ** (1 / 3)), "axis_deg": float(np.degrees(np.arctan2(avf[k], lead_i[k]))),
            **{f"{name.lower()}_severity": float(disease[name][i]) for name in ("MI", "STTC", "CD", "HYP")},
            "mi_territory": str(disease["MI_territory"][i]), "sttc_form": str(disease["STTC_form"][i]),
            "cd_form": str(disease["CD_form"][i]), "hyp_form": str(disease["HYP_form"][i]),
            "strain": float(disease["strain"][i]), "arms_swapped": int(swapped[k]), "noise_grade": float(grade[k]),
        })  # fmt: skip
    return Recordings(counts[:, :, pad : counts.shape[2] - pad], per_mv, truth)


def _beats(rhythm: Rhythm, sinus: Waves, ectopic: Waves, qtc_ms: Array, samples: int, sfreq: float) -> Array:
    """Electrode potentials (n, E, samples) mV of all beats, each evaluated from 0.4 s before to 0.8 s after its QRS onset."""
    n = len(qtc_ms)
    before, length = round(0.4 * sfreq), round(1.2 * sfreq)
    out = np.zeros((n, len(ELECTRODES), samples + 2 * length), np.float32)
    for k in range(rhythm.onset_s.shape[1]):
        started = rhythm.onset_s[:, k] * sfreq < samples + before
        for waves, of_kind in ((sinus, ~rhythm.ectopic[:, k]), (ectopic, rhythm.ectopic[:, k])):
            rows = np.flatnonzero(started & of_kind & (rhythm.onset_s[:, k] * sfreq > before - length))
            if len(rows) == 0:
                continue
            at = rhythm.onset_s[rows, k]
            first = np.floor(at * sfreq).astype(int) - before
            ms = ((first[:, None] + np.arange(length)) / sfreq - at[:, None]) * 1e3
            qt = qtc_ms[rows] * np.clip(rhythm.rr_s[rows, k], 0.4, 1.5) ** (1 / 3)
            breathing = 1 + 0.05 * np.sin(2 * np.pi * rhythm.breath[rows, 0] * at + rhythm.breath[rows, 1])
            beat = _one_beat(waves.take(rows), ms, qt) * breathing[:, None, None]
            columns = first[:, None] + length + np.arange(length)
            out[rows[:, None], :, columns] += beat.transpose(0, 2, 1).astype(np.float32)
    return out[:, :, length : length + samples]


def _one_beat(w: Waves, ms: Array, qt_ms: Array) -> Array:
    """Potentials (m, E, L) of one beat a recording at times ms (m, L)."""
    centre = w.centre + w.share * qt_ms[:, None]
    left, right = w.left + w.left_share * qt_ms[:, None], w.right + w.right_share * qt_ms[:, None]
    away = (ms[:, None] - centre[:, :, None]).astype(np.float32)
    width = np.where(away < 0, left[:, :, None], right[:, :, None]).astype(np.float32)
    shape = np.exp(-0.5 * (away / width) ** 2)
    end = 0.78 * qt_ms
    level = 0.5 * (np.tanh((ms - w.j_ms[:, None]) / 12) - np.tanh((ms - end[:, None]) / 40))
    return np.matmul(w.pattern.astype(np.float32), shape) + w.st[:, :, None] * np.maximum(level, 0)[:, None]


def _fibrillation(rng: np.random.Generator, rhythm: Rhythm, electrodes: Array, samples: int, sfreq: float) -> Array:
    """f-waves: narrow-band noise near 6 Hz from the atria, zero in sinus rhythm."""
    n = len(electrodes)
    rate, size = rng.uniform(4.5, 8.0, n), 0.06 * np.exp(rng.normal(0, 0.5, n))
    source = rng.normal(0, 1, (n, 1, 3))
    drift = coloured(rng, (n, samples), sfreq, lambda f: (f < 1.5) / f).cumsum(axis=1) / sfreq
    out = np.zeros((n, len(ELECTRODES), samples), np.float32)
    rows = np.flatnonzero(rhythm.fibrillating)
    if len(rows):
        phase = 2 * np.pi * rate[rows, None] * np.arange(samples) / sfreq + 2.5 * drift[rows]
        wave = np.sin(phase) + 0.4 * np.sin(2 * phase)
        moment = source[rows] / np.linalg.norm(source[rows], axis=2, keepdims=True) * size[rows, None, None]
        seen = potentials(electrodes[rows], np.broadcast_to(np.array([-3.0, -4.0, 0.0]), (len(rows), 1, 3)), moment)
        out[rows] = seen * wave[:, None]
    return out


def _noise(rng: np.random.Generator, rhythm: Rhythm, grade: Array, device: Array, samples: int, sfreq: float) -> Array:
    """Noise of every electrode in mV (n, E, samples): drift with breathing, mains, muscle, electrode movement."""
    n, e = len(grade), len(ELECTRODES)
    time = np.arange(samples, dtype=np.float32) / np.float32(sfreq)
    level = grade * np.array([DEVICES[d][4] for d in device])

    def sizes(median: float, spread: float) -> Array:
        return (median * level[:, None] * np.exp(rng.normal(0, spread, (n, e)) + rng.normal(0, spread, (n, 1))))[:, :, None]

    x = sizes(0.055, 0.5) * coloured(rng, (n, e, samples), sfreq, lambda f: np.where(f < 2, 1 / (f + 0.05), 0.25 / f))
    breathing = np.sin(2 * np.pi * rhythm.breath[:, :1] * time + rhythm.breath[:, 1:])[:, None]
    x += sizes(0.04, 0.5) * rng.choice([-1, 1], (n, e, 1)) * breathing
    mains = np.array([DEVICES[d][5] for d in device]) + rng.normal(0, 0.03, n)
    phase = 2 * np.pi * mains[:, None] * time + rng.uniform(0, 2 * np.pi, (n, 1))
    x += sizes(0.012, 0.6) * np.sin(phase)[:, None]
    muscle = coloured(rng, (n, e, samples), sfreq, lambda f: f / (f + 15))
    tension = np.exp(0.7 * coloured(rng, (n, 1, samples), sfreq, lambda f: (f < 0.8) / (f + 0.2)))
    x += sizes(0.022, 0.5) * muscle * tension
    counts = rng.poisson(0.12 * np.minimum(level, 3), (e, n)).T.reshape(-1)
    x += sizes(0.35, 0.4) * transients(rng, counts, samples, sfreq).reshape(n, e, samples)
    return x.astype(np.float32)


def _amplify(rng: np.random.Generator, potential: Array, device: Array, sfreq: float) -> tuple[Array, Array]:
    """Counts (n, 12, samples) int16 as the devices store them, and counts per mV (n,).

    Eight channels are amplified (I, II, V1-V6); the other four are computed from counts, so Einthoven's law holds.
    """
    n, _, samples = potential.shape
    facts = np.array([DEVICES[d] for d in device])
    centre = potential[:, :3].mean(axis=1)
    leads = np.concatenate(
        [potential[:, 1:2] - potential[:, :1], potential[:, 2:3] - potential[:, :1], potential[:, 3:] - centre[:, None]], axis=1
    )
    f = np.fft.rfftfreq(samples, 1 / sfreq)
    low, high = facts[:, :1], facts[:, 1:2]
    response = (1j * f / (1j * f + high)) / (1 + (f / low) ** 4)
    gain = facts[:, 3:4] * np.exp(rng.normal(0, 0.03, (n, 1)) + rng.normal(0, 0.015, (n, 8)))
    leads = np.fft.irfft(np.fft.rfft(leads, axis=2) * response[:, None].astype(np.complex64), n=samples, axis=2)
    per_mv = facts[:, 2]
    stored = np.clip(np.round(leads * (gain * per_mv[:, None])[:, :, None]), -32767, 32767).astype(np.int32)
    i, ii = stored[:, 0], stored[:, 1]
    limb = np.stack([i, ii, ii - i, -((i + ii) // 2), i - ii // 2, ii - i // 2], axis=1)
    return np.clip(np.concatenate([limb, stored[:, 2:]], axis=1), -32767, 32767).astype(np.int16), per_mv


def _card(seed: int, sfreq: float, duration_s: float, n_records: int, n_patients: int) -> dict[str, Any]:
    """The card of a folder written here."""
    return {
        "format": 1, "name": "simulated_ecg", "title": "Simulated patients with 12-lead resting ECG", "modality": "ecg",
        "licence": "CC0-1.0", "citation": "biossl.simulate.ecg", "version": f"seed {seed}",
        "obtain": "written by biossl.simulate.ecg.write_patients; no person was recorded",
        "files": [{"pattern": r"records/(?P<record>(?P<subject>p\d+)_(?P<visit>\d+))\.hea", "reader": "wfdb"}],
        "native_sfreq": [float(sfreq)],
        "tables": [{"file": "records.csv", "key": "record", "on": "record", "columns": {
            name: name for name in ("age", "sex", "device", "part", "diagnosis", "rhythm", "rate_bpm", "pr_ms", "qrs_ms", "axis_deg")
        }}],
        "labels": {
            "diagnosis": {
                "kind": "multilabel", "source": "covariate", "column": "diagnosis", "parse": "codes",
                "map": {d: [d] for d in DIAGNOSES},
                "description": "normal, infarction, ST/T change, conduction disturbance, hypertrophy; known, not judged",
            },
            "rhythm": {"kind": "multiclass", "source": "covariate", "column": "rhythm", "map": {"SR": ["SR"], "AF": ["AF"]}},
            "rate_bpm": {"kind": "regression", "source": "covariate", "column": "rate_bpm"},
        },
        "splits": {"official": {"by": "covariate", "column": "part", "parts": {"train": ["train"], "test": ["test"]}}},
        "views": {"resting": {
            "sfreq": 100.0, "window_s": float(min(10.0, duration_s)), "stride_s": float(min(10.0, duration_s)),
            "channels": ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"], "filter": {"highpass_hz": 0.5, "lowpass_hz": 40.0},
        }},
        "expected": {"records": n_records, "subjects": n_patients},
    }  # fmt: skip
