from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.channels import (
    ECG_LEADS,
    LIMB_LEADS,
    canonical,
    derive,
    limb_residuals,
    name_channels,
    positions,
)
from biossl.errors import RecordError
from biossl.signal import Recording


@pytest.mark.parametrize(
    ("name", "modality", "want"),
    [
        ("AVR", None, ("aVR", "ecg")), ("avl", None, ("aVL", "ecg")), ("ECG I", None, ("I", "ecg")),
        ("V1-REF", None, ("V1", "ecg")), ("Lead II", None, ("II", "ecg")), ("MLII", None, ("MLII", "ecg")),
        ("vx", None, ("vx", "ecg")), ("ECG ECG", None, ("ECG", "ecg")), ("ECG 1", None, ("ECG1", "ecg")),
        ("V", None, ("V", "ecg")), ("C1", "ecg", ("V1", "ecg")), ("C1", None, ("C1", "eeg")),
        ("EEG FP1-REF", None, ("Fp1", "eeg")), ("EEG T3-LE", None, ("T7", "eeg")), ("Fc5.", None, ("FC5", "eeg")),
        ("Iz..", None, ("Iz", "eeg")), ("T5", None, ("P7", "eeg")), ("T6", None, ("P8", "eeg")), ("t4", None, ("T8", "eeg")),
        ("EEG A2-A1", None, ("A2-A1", "eeg")), ("C4-M1", None, ("C4-M1", "eeg")), ("T3-P3", None, ("T7-P3", "eeg")),
        ("T8-P8-0", None, ("T8-P8", "eeg")), ("EEG Fpz-Cz", None, ("Fpz-Cz", "eeg")), ("EEG X1", None, ("X1", "eeg")),
        ("EOG horizontal", None, ("EOG horizontal", "eog")), ("E1-M2", None, ("E1-M2", "eog")), ("REOG", None, ("REOG", "eog")),
        ("EMG submental", None, ("EMG submental", "emg")), ("Resp oro-nasal", None, ("Resp oro-nasal", "resp")),
        ("RESP", None, ("RESP", "resp")), ("Pleth", None, ("PLETH", "ppg")), ("SpO2", None, ("SpO2", "spo2")),
        ("Accelerometer_X", None, ("acc_x", "acc")), ("gyro_z", None, ("gyro_z", "gyro")), ("az", "imu", ("acc_z", "acc")),
        ("wx", "imu", ("gyro_x", "gyro")), ("x", "imu", ("acc_x", "acc")), ("x", None, ("x", "other")),
        ("Status", None, ("Status", "other")), ("ABP", None, ("ABP", "other")),
    ],
)  # fmt: skip
def test_names_found_in_real_files(name: str, modality: str | None, want: tuple[str, str]) -> None:
    assert canonical(name, modality) == want


def test_holter_lead_is_not_taken_for_the_standard_lead() -> None:
    assert canonical("MLII")[0] != canonical("II")[0]


@given(st.sampled_from([*ECG_LEADS, "Fp1", "T7", "AFF5h", "C4-M1", "acc_x", "gyro_y", "MLII", "vx"]))
def test_canonical_names_are_fixed_points_whatever_the_case(name: str) -> None:
    kind = "imu" if "_" in name else None
    assert canonical(name, kind)[0] == name
    assert canonical(name.upper(), kind)[0] == name
    assert canonical(f" {name.lower()} ", kind)[0] == name


def test_the_card_map_wins_and_repeated_names_get_a_number() -> None:
    names, types, repeated = name_channels(["EEG F1-Ref", "F1", "ch7"], channel_map={"ch7": "Cz"})
    assert names == ("F1", "F1#2", "Cz")
    assert types == ("eeg",) * 3
    assert repeated == ["F1#2"]


def test_positions_are_metres_with_left_and_front_where_they_belong() -> None:
    found = positions(["Fp1", "O2", "C3", "C4", "Cz", "C3-C4", "EXG1"])
    assert found is not None
    fp1, o2, c3, c4, cz, pair, unknown = found
    assert fp1[0] < 0 < o2[0] and fp1[1] > 0 > o2[1]
    assert cz[2] == max(found[:5, 2])
    assert 0.05 < np.linalg.norm(c3 - c4) < 0.2
    np.testing.assert_allclose(pair, (c3 + c4) / 2, atol=1e-6)
    assert np.isnan(unknown).all()
    assert positions(["I", "II"]) is None


def test_old_and_new_temporal_names_are_one_place() -> None:
    np.testing.assert_array_equal(positions([canonical("T5")[0]]), positions(["P7"]))


def twelve(n: int = 2000, seed: int = 0) -> Recording:
    """I, II and chest leads at random, the rest by the equations."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n)).cumsum(axis=1) / 30
    limb = [a, b, b - a, -(a + b) / 2, a - b / 2, b - a / 2]
    data = np.stack([*limb, *rng.standard_normal((6, n))]).astype(np.float32)
    return Recording(data, 500.0, ECG_LEADS, ("ecg",) * 12, ("mV",) * 12, "x", lsb=np.full(12, 1e-3), baseline=np.zeros(12))


@pytest.mark.parametrize("pair", [(a, b) for i, a in enumerate(LIMB_LEADS) for b in LIMB_LEADS[i + 1 :]])
def test_any_two_limb_leads_give_the_other_four(pair: tuple[str, str]) -> None:
    whole = twelve()
    got = derive(whole.pick(pair), LIMB_LEADS)
    np.testing.assert_allclose(got.data, whole.data[:6], atol=1e-5)
    assert got.lsb is None and got.ch_names == LIMB_LEADS


def test_deriving_nothing_keeps_counts() -> None:
    assert derive(twelve(), ["V1", "II"]).lsb is not None


def test_chest_leads_cannot_be_derived() -> None:
    with pytest.raises(RecordError, match="V3") as error:
        derive(twelve().pick(["I", "II"]), ["I", "V3"])
    assert error.value.code == "missing_channel"
    with pytest.raises(RecordError, match="III"):
        derive(twelve().pick(["I", "V1"]), ["III"])


def test_consistent_leads_have_no_residual() -> None:
    found = limb_residuals(twelve())
    assert found["worst"] < 1e-4 and found["suspects"] == []


@pytest.mark.parametrize(("i", "j"), [(4, 5), (0, 1), (3, 4), (0, 2)])
def test_swapped_leads_are_named(i: int, j: int) -> None:
    order = list(range(12))
    order[i], order[j] = j, i
    found = limb_residuals(replace(twelve(), data=twelve().data[order]))
    assert found["worst"] > 0.25
    assert found["suspects"][0] == f"{LIMB_LEADS[i]} and {LIMB_LEADS[j]} swapped"


@pytest.mark.parametrize(("factor", "text"), [(-1.0, "aVF reversed"), (0.5, "aVF has 0.5 times its gain")])
def test_wrong_sign_or_gain_is_named(factor: float, text: str) -> None:
    data = twelve().data.copy()
    data[5] *= factor
    assert limb_residuals(replace(twelve(), data=data))["suspects"][0] == text


def test_gains_that_only_the_header_got_wrong_are_named() -> None:
    gains = np.array([1.4, 0.9, 1.0, 1.2, 0.7, 1.6, 1, 1, 1, 1, 1, 1])
    spoilt = replace(twelve(), data=(twelve().data * gains[:, None]).astype(np.float32), lsb=1e-3 * gains)
    assert "gains of the header" in limb_residuals(spoilt)["suspects"][0]


def test_exchanged_arm_electrodes_obey_the_equations() -> None:
    """LA and RA exchanged: I reversed, II and III exchanged, aVR and aVL exchanged. Documented as not detectable."""
    x = twelve().data
    assert limb_residuals(replace(twelve(), data=np.stack([-x[0], x[2], x[1], x[4], x[3], x[5], *x[6:]])))["worst"] < 1e-4


def test_two_limb_leads_cannot_be_checked() -> None:
    assert limb_residuals(twelve().pick(["I", "II", "V1"])) == {"residuals": {}, "worst": 0.0, "suspects": []}
