"""Simulated people carrying a phone at the waist: postures, walking, stairs and the moves between, written as CSV.

What lives here: a body's posture angles and step movements, the sensor's frame (how the phone happens to sit), gravity and
rotation that agree with each other, sensor errors, files. The accelerometer reads specific force in g: at rest its length
is 1. The gyroscope reads the rotation rate in rad/s of the very orientation that turns gravity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biossl.progress import track
from biossl.simulate.files import at_least_one, fresh_folder, write_card, write_table
from biossl.simulate.noise import coloured

Array = NDArray[Any]

AXES = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
ACTIVITIES = ("standing", "sitting", "lying", "walking", "upstairs", "downstairs")
TRANSITION = "transition"
_STILL = ("standing", "sitting", "lying")
# trunk pitch from upright in degrees: mean over people, spread between people, spread between occasions
_PITCH_DEG = {"standing": (3, 4, 2), "sitting": (-14, 9, 4), "lying": (-86, 5, 4)}
# cadence in steps/s, vertical and forward size in g, heel-strike sharpness, sway in degrees
_GAIT = {
    "walking": (1.85, 0.25, 0.13, 0.35, 4.0),
    "upstairs": (1.55, 0.20, 0.15, 0.25, 6.0),
    "downstairs": (1.80, 0.36, 0.15, 0.75, 4.5),
}
MOVE_S = 3.0


def simulate_subject(
    *, seed: int, subject: int, sfreq: float = 50.0, bout_s: float = 20.0
) -> tuple[Array, list[str], dict[str, Any]]:
    """One person's session: every activity twice in a drawn order, with transitions between.

    Parameters
    ----------
    seed, subject : int
        Subject k of a seed is the same person whoever else is simulated.
    sfreq : float
        Hz.
    bout_s : float
        Seconds of an activity.

    Returns
    -------
    signals : ndarray, float32, shape (6, T)
        Axes in the order of :data:`AXES`, g and rad/s.
    labels : list of str, length T
        Activity or ``transition`` of every sample.
    truth : dict
        ``cadence_hz`` (steps per second when walking), ``device_deg`` (how far the phone is turned at the waist).

    Examples
    --------
    >>> simulate_subject(seed=0, subject=0, bout_s=5.0)[0].shape[0]
    6
    """
    at_least_one(sfreq=sfreq, bout_s=bout_s)
    rng = np.random.default_rng([seed, 4, subject])
    order = [a for _ in range(2) for a in rng.permutation(ACTIVITIES)]
    bout, move = round(bout_s * sfreq), round(MOVE_S * sfreq)
    pace, vigour = np.exp(rng.normal(0, 0.07)), np.exp(rng.normal(0, 0.25))
    own_pitch = {a: rng.normal(_PITCH_DEG[a][0], _PITCH_DEG[a][1]) for a in _STILL}
    pitch: list[Array] = []
    linear: list[Array] = []
    sway: list[Array] = []
    labels: list[str] = []
    for k, activity in enumerate(order):
        base = own_pitch[activity] + rng.normal(0, _PITCH_DEG[activity][2]) if activity in _STILL else own_pitch["standing"] + 4
        if k:
            ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(move) / move)
            before = pitch[-1][-1]
            pitch.append(before + (base - before) * ramp - 18 * np.sin(np.pi * ramp) * abs(base - before) / 60)
            effort = 0.12 * vigour * np.sin(np.pi * ramp)
            linear.append(effort * coloured(rng, (3, move), sfreq, lambda f: f / (f + 1) / (1 + (f / 3) ** 2)))
            sway.append(np.zeros((2, move)))
            labels += [TRANSITION] * move
        pitch.append(np.full(bout, base))
        moved, turned = _gait(rng, activity, pace, vigour, bout, sfreq) if activity in _GAIT else _tremor(rng, bout, sfreq)
        linear.append(moved)
        sway.append(turned)
        labels += [activity] * bout
    angles = np.radians(np.concatenate(pitch))
    roll, yaw = np.radians(np.concatenate(sway, axis=1))
    body = _rotation(angles, roll, yaw)
    device = rng.normal(0, (8, 8, 20))
    mount = _rotation(*np.radians(device)[:, None])[0]
    turn = body @ mount  # device axes in the world, (T, 3, 3)
    t = len(turn)
    # upright wearer: device x points up (as on a belt), so gravity reads +1 on x
    force = np.concatenate(linear, axis=1).T + (1.0, 0.0, 0.0)
    acc = np.einsum("tji,tj->ti", turn, force)
    gyro = _rate(turn, sfreq)
    acc = acc * (1 + rng.normal(0, 0.004, 3)) + rng.normal(0, 0.008, 3) + rng.normal(0, 0.004, (t, 3))
    gyro = gyro * (1 + rng.normal(0, 0.005, 3)) + rng.normal(0, 0.01, 3) + rng.normal(0, 0.008, (t, 3))
    truth = {
        "cadence_hz": float(_GAIT["walking"][0] * pace),
        "device_deg": float(np.degrees(np.arccos((np.trace(mount) - 1) / 2))),
    }
    return np.concatenate([acc, gyro], axis=1).T.astype(np.float32), labels, truth


def write_subjects(folder: str | Path, *, n_subjects: int, seed: int, sfreq: float = 50.0, bout_s: float = 20.0) -> Path:
    """Write simulated people as CSV files with a card and a truth table.

    Parameters
    ----------
    folder : path
        Absent or empty. Gets ``card.yaml``, ``subjects.csv`` and ``sNNN.csv`` (``time_s``, six axes, ``activity``).
    n_subjects, seed : int
    sfreq : float
        Hz.
    bout_s : float
        Seconds of an activity.

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
    >>> write_subjects("sim_imu", n_subjects=2, seed=0)  # doctest: +SKIP
    PosixPath('sim_imu/card.yaml')
    """
    at_least_one(n_subjects=n_subjects)
    path = fresh_folder(folder)
    rows = []
    for k in track(range(n_subjects), n_subjects, "simulate", "subjects"):
        x, labels, truth = simulate_subject(seed=seed, subject=k, sfreq=sfreq, bout_s=bout_s)
        lines = ["time_s," + ",".join(AXES) + ",activity"]
        lines += [
            f"{i / sfreq:.3f}," + ",".join(f"{v:.5f}" for v in sample) + f",{label}"
            for i, (sample, label) in enumerate(zip(x.T.tolist(), labels, strict=True))
        ]
        (path / f"s{k:03d}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        rows.append({"subject": f"s{k:03d}"} | truth)
    write_table(path / "subjects.csv", rows)
    write_card(path, _card(seed, sfreq, n_subjects))
    return path / "card.yaml"


def _gait(rng: np.random.Generator, activity: str, pace: float, vigour: float, t: int, sfreq: float) -> tuple[Array, Array]:
    """Linear acceleration in g (3, t), up, left, forward, and roll and yaw in degrees (2, t) of steps."""
    cadence, up, forward, sharp, sway = _GAIT[activity]
    wander = coloured(rng, (1, t), sfreq, lambda f: (f < 0.5) / (f + 0.05))[0]
    step = 2 * np.pi * np.cumsum(cadence * pace * (1 + 0.03 * wander)) / sfreq + rng.uniform(0, 2 * np.pi)
    stride = step / 2
    uneven = 1 + rng.uniform(-0.15, 0.15) * np.sin(stride)
    lag = rng.normal(0, 0.15, 3)
    vertical = (
        np.sin(step)
        + 0.45 * np.sin(2 * step + 0.8 + lag[0])
        + 0.5 * sharp * np.sin(3 * step + 1.6)
        + 0.3 * sharp * np.sin(4 * step + lag[1])
    )
    ahead = np.sin(step + 1.9 + lag[2]) + 0.35 * np.sin(2 * step + 0.3)
    aside = 0.55 * np.sin(stride) + 0.3 * np.sin(3 * stride + 0.5)
    moved = np.stack([up * vertical, 0.10 * aside, forward * ahead]) * vigour * uneven
    moved += 0.02 * vigour * coloured(rng, (3, t), sfreq, lambda f: f / (f + 4))
    turned = sway * np.stack([0.6 * np.sin(stride + 0.4), np.sin(stride)]) * uneven
    return moved, turned * _ends(t, sfreq)


def _tremor(rng: np.random.Generator, t: int, sfreq: float) -> tuple[Array, Array]:
    """Breathing and small corrections of a still body: acceleration in g (3, t), roll and yaw in degrees (2, t)."""
    moved = 0.004 * coloured(rng, (3, t), sfreq, lambda f: (f > 0.15) / (1 + (f / 2) ** 2))
    turned = 0.5 * coloured(rng, (2, t), sfreq, lambda f: (f < 0.6) / (f + 0.1))
    return moved, turned * _ends(t, sfreq)


def _ends(t: int, sfreq: float) -> Array:
    """1 within a bout, falling to 0 over its first and last second: angles do not jump between bouts."""
    return np.minimum(np.minimum(np.arange(t), t - 1 - np.arange(t)) / sfreq, 1.0)


def _rotation(pitch: Array, roll: Array, yaw: Array) -> Array:
    """Rotation matrices (T, 3, 3) about y (pitch), z (roll) and x (yaw, the long axis), angles in radians (T,)."""
    zero, one = np.zeros(len(pitch)), np.ones(len(pitch))

    def matrix(*entries: Array) -> Array:
        return np.stack(entries, axis=1).reshape(-1, 3, 3)

    c, s = np.cos(pitch), np.sin(pitch)
    about_y = matrix(c, zero, s, zero, one, zero, -s, zero, c)
    c, s = np.cos(roll), np.sin(roll)
    about_z = matrix(c, -s, zero, s, c, zero, zero, zero, one)
    c, s = np.cos(yaw), np.sin(yaw)
    about_x = matrix(one, zero, zero, zero, c, -s, zero, s, c)
    return about_y @ about_z @ about_x


def _rate(turn: Array, sfreq: float) -> Array:
    """Body-frame rotation rate (T, 3) in rad/s of orientations (T, 3, 3): the vector of R^T dR/dt."""
    change = np.gradient(turn, 1 / sfreq, axis=0)
    w = np.einsum("tji,tjk->tik", turn, change)
    return np.stack([w[:, 2, 1] - w[:, 1, 2], w[:, 0, 2] - w[:, 2, 0], w[:, 1, 0] - w[:, 0, 1]], axis=1) / 2


def _card(seed: int, sfreq: float, n_subjects: int) -> dict[str, Any]:
    """The card of a folder written here."""
    window_s = 2.56
    return {
        "format": 1, "name": "simulated_imu", "title": "Simulated people with a phone at the waist", "modality": "imu",
        "licence": "CC0-1.0", "citation": "biossl.simulate.imu", "version": f"seed {seed}",
        "obtain": "written by biossl.simulate.imu.write_subjects; no person was recorded",
        "files": [{
            "pattern": r"(?P<record>(?P<subject>s\d+))\.csv", "reader": "table",
            "table": {"sfreq": float(sfreq), "time": "time_s", "label": "activity", "label_kind": "activity"},
        }],
        "native_sfreq": [float(sfreq)], "units": {"acc": "g", "gyro": "rad/s"},
        "labels": {"activity": {
            "kind": "multiclass", "source": "event", "event_kind": "activity", "map": {a: [a] for a in ACTIVITIES},
        }},
        "views": {"activities": {
            "sfreq": 50.0, "window_s": window_s, "stride_s": window_s / 2, "channels": list(AXES), "policy": "inside_labels",
            "event_kind": "activity", "event_labels": list(ACTIVITIES),
        }},
        "expected": {"records": n_subjects, "subjects": n_subjects},
    }  # fmt: skip
