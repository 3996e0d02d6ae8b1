"""The signal contract: units are converted or refused, recordings cannot be inconsistent, specs survive a round trip."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biossl.errors import RecordError
from biossl.signal import CANONICAL_UNIT, CH_TYPES, FilterSpec, InputSpec, Recording, unit_factor


def recording(**changes):
    fields = dict(
        data=np.zeros((2, 100), np.float32),
        sfreq=50.0,
        ch_names=("I", "II"),
        ch_types=("ecg", "ecg"),
        units=("mV", "mV"),
        record="00123",
    )
    return Recording(**{**fields, **changes})


SPEC = InputSpec("eeg", 128.0, 512, ("Fz", "Cz"), ("eeg", "eeg"), ("uV", "uV"), FilterSpec(0.5, 45.0, 50.0), "average")


@pytest.mark.parametrize(
    ("unit", "ch_type", "canonical", "factor"),
    [
        ("V", "ecg", "mV", 1e3), ("uV", "ecg", "mV", 1e-3), ("µV", "eeg", "uV", 1.0), ("μV", "eeg", "uV", 1.0), ("mv", "ecg", "mV", 1.0),
        ("nV", "eeg", "uV", 1e-3), ("m/s2", "acc", "g", 1 / 9.80665), ("mg", "acc", "g", 1e-3), ("deg/s", "gyro", "rad/s", np.pi / 180),
        ("1", "ecg", "1", 1.0), ("mmHg", "other", "mmHg", 1.0),
    ],
)  # fmt: skip
def test_units_become_canonical(unit, ch_type, canonical, factor):
    assert unit_factor(unit, ch_type) == (canonical, pytest.approx(factor, rel=1e-12))


@pytest.mark.parametrize(
    ("unit", "ch_type"), [("MV", "ecg"), ("", "eeg"), ("mmHg", "ecg"), ("g", "gyro"), ("uV", "acc"), ("count", "eeg")]
)
def test_unknown_unit_is_refused_not_guessed(unit, ch_type):
    with pytest.raises(RecordError) as error:
        unit_factor(unit, ch_type)
    assert error.value.code == "unknown_unit" and "state it in the card" in str(error.value)


def test_every_channel_type_has_a_canonical_unit():
    assert set(CANONICAL_UNIT) == set(CH_TYPES)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": np.zeros((2, 100))}, {"data": np.zeros(100, np.float32)}, {"sfreq": 0.0}, {"sfreq": float("nan")}, {"ch_names": ("I",)},
        {"ch_names": ("I", "I")}, {"ch_types": ("ecg", "heart")}, {"record": 123}, {"subject": 7}, {"lsb": np.ones(3)},
    ],
)  # fmt: skip
def test_an_inconsistent_recording_cannot_be_made(changes):
    with pytest.raises((TypeError, ValueError)):
        recording(**changes)


def test_pick_reorders_everything_together():
    r = recording(
        data=np.arange(4, dtype=np.float32).reshape(2, 2),
        ch_names=("V5", "MLII"),
        units=("mV", "1"),
        lsb=np.array([1.0, 2.0]),
        baseline=np.array([3.0, 4.0]),
    )
    p = r.pick(["MLII", "V5"])
    assert p.ch_names == ("MLII", "V5") and p.units == ("1", "mV")
    assert p.data.tolist() == [[2, 3], [0, 1]] and p.lsb.tolist() == [2, 1] and p.baseline.tolist() == [4, 3]


def test_pick_names_the_absent_channel_and_what_is_there():
    with pytest.raises(RecordError, match=r"00123: no channel V9; it has I, II") as error:
        recording().pick(["I", "V9"])
    assert error.value.code == "missing_channel"


@given(st.floats(1, 2000), st.integers(1, 10_000), st.integers(1, 20))
def test_spec_survives_json(sfreq, n, c):
    spec = InputSpec("ecg", sfreq, n, tuple(f"c{i}" for i in range(c)), ("ecg",) * c, ("mV",) * c)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_differences_are_readable_and_complete():
    other = InputSpec("eeg", 256.0, 512, ("Cz", "Fz"), ("eeg", "eeg"), ("uV", "uV"), FilterSpec(0.5, 45.0, 50.0), "average")
    assert SPEC.differences(SPEC) == []
    lines = SPEC.differences(other)
    assert lines == ["sfreq: 128.0 here, 256.0 there", "ch_names: Fz Cz here, Cz Fz there"]


def test_spec_refuses_unknown_keys():
    with pytest.raises(ValueError, match="sfrq"):
        InputSpec.from_dict({**SPEC.to_dict(), "sfrq": 1})
