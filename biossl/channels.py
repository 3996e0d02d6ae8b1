"""The channel vocabulary: canonical names and types, aliases, electrode positions, derivable ECG leads.

What lives here: pure functions on names, and the arithmetic between the six limb leads. No file of a data set is
opened; the only file read is the packaged ``channels.csv`` (EEG positions). Readers call :func:`name_channels`, views
call :func:`derive`.

Canonical names: ECG ``I II III aVR aVL aVF V1..V6``; ambulatory leads stay what they are (``MLII`` is not ``II``: its
electrodes sit on the torso); Frank leads ``vx vy vz``; EEG the 10-10 names with ``T7 T8 P7 P8``; a bipolar pair keeps
both ends (``C4-M1``, anode first); IMU ``acc_x .. gyro_z``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from biossl.errors import RecordError
from biossl.signal import Recording

LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")
ECG_LEADS = LIMB_LEADS + ("V1", "V2", "V3", "V4", "V5", "V6")
FRANK_LEADS = ("vx", "vy", "vz")
IMU_AXES = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")

# lead = a * I + b * II (Einthoven, Goldberger)
_LIMB = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}

# Further ECG leads that real files name: torso-mounted limb leads, bipolar chest leads, and right-sided or posterior leads.
_MORE_LEADS = tuple("MLI MLII MLIII MCL1 MCL6 CM2 CM4 CM5 CC5 MV2 V V3R V4R V5R V6R V7 V8 V9 ECG".split())
_ECG = {n.casefold(): n for n in ECG_LEADS + FRANK_LEADS + _MORE_LEADS} | {
    "ml1": "MLI",
    "ml2": "MLII",
    "ml3": "MLIII",
    "ekg": "ECG",
}
_IEC_CHEST = {f"c{i}": f"V{i}" for i in range(1, 7)}  # IEC colour code names; EEG has electrodes of the same names

_OLD_EEG = {"t3": "T7", "t4": "T8", "t5": "P7", "t6": "P8"}

_PREFIX_TYPE = {
    "eeg": "eeg", "ecg": "ecg", "ekg": "ecg", "eog": "eog", "emg": "emg", "resp": "resp", "pleth": "ppg", "ppg": "ppg",
    "spo2": "spo2", "sao2": "spo2",
}  # fmt: skip
_AUX = {
    "heog": "eog", "veog": "eog", "eogh": "eog", "eogv": "eog", "loc": "eog", "roc": "eog", "leog": "eog", "reog": "eog", "e1": "eog", "e2": "eog",
    "chin": "emg", "chin1": "emg", "chin2": "emg", "chin3": "emg", "submental": "emg", "ltib": "emg", "rtib": "emg",
    "flow": "resp", "airflow": "resp", "nasal": "resp", "thorax": "resp", "thor": "resp", "abdomen": "resp",
    "abdo": "resp", "abd": "resp", "snore": "other", "pleth": "ppg", "ppg": "ppg", "spo2": "spo2", "sao2": "spo2",
}  # fmt: skip
_AUX_NAMES = {"spo2": "SpO2", "sao2": "SaO2", "resp": "RESP", "pleth": "PLETH", "ppg": "PPG"}

_IMU = re.compile(
    r"(?:(?P<kind>acc|accel|accelerometer|acceleration|gyr|gyro|gyroscope)[ _.-]?(?P<axis>[xyz])"
    r"|(?P<short>[agw])(?P<axis2>[xyz])|(?P<axis3>[xyz]))(?: ?[\[(].*[\])])?",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"-(?:ref|le|ar|avg|\d)$", re.IGNORECASE)


@cache
def _positions() -> dict[str, tuple[float, float, float]]:
    text = resources.files("biossl").joinpath("channels.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")][1:]
    return {name: (float(x), float(y), float(z)) for name, x, y, z in rows}


@cache
def _eeg_names() -> dict[str, str]:
    return {name.casefold(): name for name in _positions()} | _OLD_EEG


def canonical(name: str, modality: str | None = None) -> tuple[str, str]:
    """Canonical name and channel type of a name found in a file.

    Parameters
    ----------
    name : str
        As the file states it: ``"EEG FP1-REF"``, ``"Fc5."``, ``"ECG I"``, ``"AVR"``, ``"T3-P3"``, ``"Accelerometer_X"``.
    modality : str, optional
        ``ecg``, ``eeg`` or ``imu``: settles names that two vocabularies share (``C1`` is an EEG electrode, and V1 in
        IEC chest naming; ``x`` is an axis only for ``imu``).

    Returns
    -------
    (str, str)
        Canonical name, channel type. A name that nothing knows is returned stripped, with type ``other`` (or the type
        its prefix states: ``"EMG submental"`` is ``emg``).

    Examples
    --------
    >>> canonical("EEG T3-REF")
    ('T7', 'eeg')
    >>> canonical("C4-M1"), canonical("avf")
    (('C4-M1', 'eeg'), ('aVF', 'ecg'))
    """
    text = re.sub(r"^(ECG|EKG|EEG)_(?=\w)", r"\1 ", " ".join(name.split()).strip(" ."), flags=re.IGNORECASE)
    head, _, rest = text.partition(" ")
    stated = _PREFIX_TYPE.get(head.casefold()) if rest else None
    bare = rest if stated else text
    if bare.casefold().startswith("lead ") and stated in (None, "ecg"):
        stated, bare = "ecg", bare[5:]
    if stated in ("eog", "emg", "resp", "ppg", "spo2"):
        return text, stated
    if modality == "imu" and (axis := _imu_axis(bare)):
        return axis
    if stated != "eeg" and (lead := _ecg_lead(bare, modality)):
        return lead, "ecg"
    if stated != "ecg" and (electrode := _eeg_name(bare)):
        return electrode, "eeg"
    key = bare.casefold()
    if stated is None and len(bare) > 2 and (axis := _imu_axis(bare)):
        return axis
    if key in _AUX or key.partition("-")[0] in ("e1", "e2", "loc", "roc"):
        return _AUX_NAMES.get(key, bare), _AUX.get(key, "eog")
    if stated == "ecg" and bare.isdigit():
        return f"ECG{bare}", "ecg"
    if stated:
        return bare, stated
    for prefix, kind in (_PREFIX_TYPE | {"flow": "resp"}).items():  # "ECG1", "EOG-L", "RESP", "Pleth2"
        if key.startswith(prefix) and not key[len(prefix) :][:1].isalpha():
            return _AUX_NAMES.get(key, bare), kind
    return bare or name, "other"


def _ecg_lead(bare: str, modality: str | None) -> str | None:
    key = _SUFFIX.sub("", bare.casefold())
    if modality == "ecg" and key in _IEC_CHEST:
        return _IEC_CHEST[key]
    return _ECG.get(key) or _ECG.get(key.replace(" ", "").replace("_", ""))


def _eeg_name(bare: str) -> str | None:
    """An electrode, or a bipolar pair with both ends named canonically."""
    names = _eeg_names()
    text = re.sub(r"\.+", "", bare)
    for _ in range(3):  # "T8-P8-0" sheds "-0" and becomes a pair; "FP1-REF" becomes an electrode
        if text.casefold() in names:
            return names[text.casefold()]
        ends = [names.get(end.strip().casefold()) for end in text.split("-")]
        if len(ends) == 2 and all(ends):
            return "-".join(end for end in ends if end)
        shorter = _SUFFIX.sub("", text)
        if shorter == text:
            return None
        text = shorter
    return None


def _imu_axis(bare: str) -> tuple[str, str] | None:
    match = _IMU.fullmatch(bare)
    if not match:
        return None
    axis = next(a for a in (match["axis"], match["axis2"], match["axis3"]) if a).lower()
    kind = (match["kind"] or match["short"] or "a").lower()
    is_gyro = kind.startswith(("gyr", "g", "w"))
    return (f"gyro_{axis}", "gyro") if is_gyro else (f"acc_{axis}", "acc")


def name_channels(
    originals: Sequence[str], modality: str | None = None, channel_map: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Canonical names and types of a file's channels, made unique.

    Parameters
    ----------
    originals : sequence of str
        Names as in the file.
    modality : str, optional
        See :func:`canonical`.
    channel_map : mapping, optional
        Source name -> canonical name, from the card; wins over the packaged aliases.

    Returns
    -------
    names, types : tuple of str
    repeated : list of str
        Names that were given a suffix (``"F1#2"``) because the file has them more than once.
    """
    names, types, repeated = [], [], []
    seen: dict[str, int] = {}
    for original in originals:
        name, kind = canonical((channel_map or {}).get(original, (channel_map or {}).get(original.strip(), original)), modality)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name}#{seen[name]}"
            repeated.append(name)
        names.append(name)
        types.append(kind)
    return tuple(names), tuple(types), repeated


def positions(names: Sequence[str]) -> np.ndarray | None:
    """Electrode positions, metres.

    Parameters
    ----------
    names : sequence of str, length C
        Canonical EEG names; a bipolar pair sits midway between its electrodes.

    Returns
    -------
    ndarray, float32, shape (C, 3), or None
        NaN rows for names without a position; None when no name has one. Source: ``biossl/channels.csv``.

    Examples
    --------
    >>> positions(["C3", "C3-C4"]).shape
    (2, 3)
    """
    table = _positions()
    out = np.full((len(names), 3), np.nan, dtype=np.float32)
    for i, name in enumerate(names):
        ends = [table.get(end) for end in name.partition("#")[0].split("-")]
        if len(ends) <= 2 and all(ends):
            out[i] = np.mean(np.array(ends), axis=0)
    return None if np.isnan(out).all() else out


def derive(recording: Recording, names: Sequence[str]) -> Recording:
    """Pick channels in order; absent limb leads are computed from any two that are there.

    ``III = II - I``, ``aVR = -(I + II) / 2``, ``aVL = I - II / 2``, ``aVF = II - I / 2``, and back. Computed in float64.

    Parameters
    ----------
    recording : Recording
    names : sequence of str
        Canonical names.

    Returns
    -------
    Recording
        ``lsb`` and ``baseline`` are dropped when a lead was computed (it is no longer whole counts of the source).

    Raises
    ------
    RecordError
        ``missing_channel`` when a channel is neither there nor derivable.

    Examples
    --------
    >>> import numpy as np
    >>> r = Recording(np.ones((2, 5), np.float32), 100.0, ("I", "II"), ("ecg",) * 2, ("mV",) * 2, "a")
    >>> derive(r, ["aVF", "I"]).data[:, 0]
    array([0.5, 1. ], dtype=float32)
    """
    absent = [n for n in names if n not in recording.ch_names]
    there = [n for n in LIMB_LEADS if n in recording.ch_names]
    if not absent:
        return recording.pick(list(names))
    cannot = [n for n in absent if n not in _LIMB]
    if cannot or len(there) < 2:
        raise RecordError(
            "missing_channel",
            f"{recording.record}: no channel {', '.join(cannot or absent)} and it cannot be derived; "
            f"it has {', '.join(recording.ch_names)}",
        )
    pair = there[:2]
    rows = [recording.ch_names.index(n) for n in pair]
    units = {recording.units[i] for i in rows}
    if len(units) > 1:
        raise RecordError("unknown_unit", f"{recording.record}: leads {' and '.join(pair)} have different units")
    both = np.linalg.solve(np.array([_LIMB[n] for n in pair]), recording.data[rows].astype(np.float64))  # I and II
    data = np.empty((len(names), recording.data.shape[1]), dtype=np.float32)
    types, out_units = [], []
    for k, name in enumerate(names):
        if name in recording.ch_names:
            i = recording.ch_names.index(name)
            data[k] = recording.data[i]
            types.append(recording.ch_types[i])
            out_units.append(recording.units[i])
        else:
            data[k] = np.array(_LIMB[name]) @ both
            types.append("ecg")
            out_units.append(recording.units[rows[0]])
    return Recording(
        data=data, sfreq=recording.sfreq, ch_names=tuple(names), ch_types=tuple(types), units=tuple(out_units),
        record=recording.record, offset_s=recording.offset_s, start=recording.start, annotations=recording.annotations,
        subject=recording.subject, meta=recording.meta | {"derived_from": pair, "derived": absent},
    )  # fmt: skip


def limb_residuals(recording: Recording, tolerance: float = 0.05) -> dict[str, Any]:
    """Do the limb leads obey Einthoven and Goldberger? Names swapped, reversed or wrongly scaled leads.

    Each limb lead is predicted from the others by least squares on ``I`` and ``II``; the residual is the rms of
    (lead - prediction) over the rms of both. A single fault (two names swapped, one sign, one gain, the gains of the
    header) that takes most of the residual away is named. Exchanged *electrodes* obey the equations and cannot be seen
    here. Measured on 10 s records: up to 0.007 in PTB-XL, 0.02 in CinC 2021; with aVL and aVF swapped from 0.5 on. In LUDB
    0.1 to 0.9: the gains of its headers are wrong (the raw counts obey the equations).

    Parameters
    ----------
    recording : Recording
        At least three limb leads; otherwise the result holds no residuals.
    tolerance : float
        Largest residual taken for rounding and filters.

    Returns
    -------
    dict
        ``residuals`` lead -> share (0 = consistent), ``worst`` the largest (0.0 without residuals), ``suspects`` list
        of text, likeliest first (empty when consistent, or when no single fault explains it).
    """
    leads = [n for n in LIMB_LEADS if n in recording.ch_names]
    rows = [recording.ch_names.index(n) for n in leads]
    x = recording.data[rows].astype(np.float64)
    x = x[:, np.isfinite(x).all(axis=0)]
    if len(leads) < 3 or x.shape[1] < 2:
        return {"residuals": {}, "worst": 0.0, "suspects": []}
    x -= x.mean(axis=1, keepdims=True)  # a mean keeps the equations, a median would not
    gram = x @ x.T / x.shape[1]  # all that follows needs the second moments only
    residuals = dict(zip(leads, _residuals(gram, leads).tolist(), strict=True))
    worst = max(residuals.values())
    suspects = _suspects(gram, leads, worst) if worst > tolerance else []
    if worst > tolerance and recording.lsb is not None:
        counts = gram / np.outer(recording.lsb[rows], recording.lsb[rows])
        if _residuals(counts, leads).max() < worst / 3:
            suspects.insert(0, "the gains of the header are wrong (its raw counts obey the equations)")
    return {"residuals": residuals, "worst": worst, "suspects": suspects}


def _deviations(leads: list[str]) -> np.ndarray:
    """Row i: the combination of leads that is 0 by the equations (lead i minus its prediction from all others)."""
    mix = np.array([_LIMB[n] for n in leads])
    out = np.eye(len(leads))
    for i in range(len(leads)):
        others = [j for j in range(len(leads)) if j != i]
        out[i, others] = -mix[i] @ np.linalg.pinv(mix[others])
    return out


def _residuals(gram: np.ndarray, leads: list[str]) -> np.ndarray:
    """Residual of each lead against its prediction, from the leads' second moments."""
    away = _deviations(leads)
    predicts = np.eye(len(leads)) - away
    error, own, predicted = (np.einsum("ij,jk,ik->i", m, gram, m) for m in (away, np.eye(len(leads)), predicts))
    power = np.maximum(own + predicted, np.mean(own))  # an isoelectric lead is all rounding
    return np.sqrt(np.maximum(error, 0.0) / np.where(power > 0, power, 1.0))


def _suspects(gram: np.ndarray, leads: list[str], worst: float) -> list[str]:
    """Single faults whose mending leaves less than a third of the residual."""
    n = len(leads)
    found: list[tuple[float, str]] = []
    for i in range(n):
        for j in range(i + 1, n):
            order = list(range(n))
            order[i], order[j] = j, i
            found.append((_residuals(gram[np.ix_(order, order)], leads).max(), f"{leads[i]} and {leads[j]} swapped"))
    predicts = np.eye(n) - _deviations(leads)
    for i, name in enumerate(leads):
        power = predicts[i] @ gram @ predicts[i]
        gain = float(predicts[i] @ gram[i] / power) if power > 0 else 0.0
        if abs(gain) < 1e-3 or 0.9 < gain < 1.1:
            continue
        scale = np.ones(n)
        scale[i] = 1 / gain
        text = f"{name} reversed" if abs(gain + 1) < 0.1 else f"{name} has {gain:.2g} times its gain"
        found.append((_residuals(gram * np.outer(scale, scale), leads).max(), text))
    return [text for after, text in sorted(found) if after < worst / 3]
