"""Policies: lists of augmentations by name, as a recipe's ``augment: NAME`` stands for.

What lives here: three a modality. ``*_weak``: what another recording of the same moment might look like. ``*_strong``: for
contrastive views, breaks what most labels depend on. The third keeps what its name says. Amounts by channel type are in mV
(ecg), uV (eeg), g (acc) and rad/s (gyro). Settings are starting points and were not tuned.
"""

from __future__ import annotations

from typing import Any

POLICIES: dict[str, list[dict[str, Any]]] = {
    "ecg_weak": [
        {"name": "gain", "factor": [0.8, 1.25]},
        {"name": "baseline_wander", "amplitude": {"ecg": 0.1}, "p": 0.5},  # mV
        {"name": "fda_free", "band_hz": [0.5, 40.0], "p": 0.5},  # Hz
        {"name": "jitter", "sd": {"ecg": 0.02}, "p": 0.5},  # mV
        {"name": "time_mask", "share": [0.05, 0.15], "p": 0.5},
    ],
    "ecg_strong": [
        {"name": "crop_resize", "share": [0.6, 1.0], "p": 0.8},
        {"name": "gain", "factor": [0.5, 2.0]},
        {"name": "lead_dropout", "share": 0.3, "p": 0.5},
        {"name": "baseline_wander", "amplitude": {"ecg": 0.3}, "p": 0.5},  # mV
        {"name": "electrode_motion", "amplitude": {"ecg": 0.5}, "p": 0.3},  # mV
        {"name": "jitter", "sd": {"ecg": 0.05}, "p": 0.5},  # mV
        {"name": "time_mask", "share": [0.1, 0.3], "p": 0.5},
    ],
    # rhythm, beats and diagnoses: shape, size within 10 %, order and leads stay
    "ecg_diagnosis": [
        {"name": "gain", "factor": [0.9, 1.1]},
        {"name": "baseline_wander", "amplitude": {"ecg": 0.1}, "p": 0.5},  # mV
        {"name": "rate_jitter", "drift": 0.02, "p": 0.5},
        {"name": "jitter", "sd": {"ecg": 0.02}, "p": 0.5},  # mV
    ],
    "eeg_weak": [
        {"name": "gain", "factor": [0.8, 1.25]},
        {"name": "jitter", "sd": {"eeg": 2.0}, "p": 0.5},  # uV
        {"name": "rereference", "to": "average", "p": 0.5},
        {"name": "time_mask", "share": [0.05, 0.15], "p": 0.5},
    ],
    "eeg_strong": [
        {"name": "fourier_surrogate", "magnitude": 0.9, "p": 0.5},
        {"name": "frequency_shift", "max_hz": 0.3, "p": 0.5},  # Hz
        {"name": "band_stop", "centre_hz": [2.0, 38.0], "width_hz": 2.0, "p": 0.5},  # Hz
        {"name": "time_reverse", "p": 0.5},
        {"name": "sign_flip", "p": 0.5},
        {"name": "gain", "factor": [0.5, 2.0]},
        {"name": "lead_dropout", "share": 0.3, "p": 0.5},
        {"name": "jitter", "sd": {"eeg": 5.0}, "p": 0.5},  # uV
        {"name": "time_mask", "share": [0.1, 0.3], "p": 0.5},
    ],
    # sleep stages, workload, states of minutes: the amplitude spectrum and the topography stay
    "eeg_spectrum": [
        {"name": "fourier_surrogate", "magnitude": 0.9, "p": 0.5},
        {"name": "time_reverse", "p": 0.5},
        {"name": "sign_flip", "p": 0.5},
        {"name": "gain", "factor": [0.8, 1.25]},
        {"name": "time_mask", "share": [0.05, 0.15], "p": 0.5},
    ],
    "imu_weak": [
        {"name": "tilt", "max_deg": 10.0},
        {"name": "gain", "factor": [0.9, 1.1]},
        {"name": "jitter", "sd": {"acc": 0.02, "gyro": 0.03}, "p": 0.5},  # g, rad/s
        {"name": "time_mask", "share": [0.05, 0.15], "p": 0.5},
    ],
    "imu_strong": [
        {"name": "rotation", "p": 0.8},
        {"name": "time_warp", "sd": 0.2, "p": 0.5},
        {"name": "permutation", "segments": 4, "p": 0.3},
        {"name": "gain", "factor": [0.7, 1.4]},
        {"name": "magnitude_warp", "sd": 0.2, "p": 0.3},
        {"name": "jitter", "sd": {"acc": 0.05, "gyro": 0.1}, "p": 0.5},  # g, rad/s
        {"name": "time_mask", "share": [0.1, 0.3], "p": 0.5},
    ],
    # activities and postures: gravity turns by at most 20 degrees
    "imu_posture": [
        {"name": "tilt", "max_deg": 20.0},
        {"name": "gain", "factor": [0.85, 1.15], "per_channel": True},
        {"name": "jitter", "sd": {"acc": 0.03, "gyro": 0.05}},  # g, rad/s
        {"name": "time_mask", "share": [0.05, 0.15], "p": 0.8},
    ],
}
