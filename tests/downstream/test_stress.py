"""A locked model under degraded input: what each condition does to windows, and that what is reported follows from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import CHANNELS

from biossl.corpus import Corpus
from biossl.downstream import stress as module
from biossl.downstream.evaluate import evaluate
from biossl.downstream.evaluate_text import stress_rows
from biossl.downstream.model import load_model, make_task
from biossl.downstream.stress import at_snr, conditions, slower
from biossl.report.run_page import write_report
from biossl.signal import InputSpec


def spec(modality: str = "ecg", names: tuple[str, ...] = tuple(CHANNELS["ecg"]), sfreq: float = 250.0, n: int = 500) -> InputSpec:
    kind, unit = {"ecg": ("ecg", "mV"), "eeg": ("eeg", "uV"), "imu": ("acc", "g")}[modality]
    return InputSpec(modality, sfreq, n, names, (kind,) * len(names), (unit,) * len(names))


def windows(n: int = 3, channels: int = 12, samples: int = 500) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, channels, samples)).astype(np.float32)


def test_the_lead_sets_keep_exactly_their_leads() -> None:
    found = {c.name: c for c in conditions(spec(), {"ecg": 1.0}, 0) if c.kind == "channels"}
    kept = {}
    for name, how in found.items():
        assert how.change is not None
        left = np.isfinite(how.change(windows(), np.arange(3))).all(axis=(0, 2))
        kept[name] = [c for c, yes in zip(CHANNELS["ecg"], left, strict=True) if yes]
        assert how.at == len(kept[name])
    assert kept["8 leads"] == ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert kept["6 limb leads"] == CHANNELS["ecg"][:6] and kept["3 leads (I II V2)"] == ["I", "II", "V2"]
    assert kept["2 leads (I II)"] == ["I", "II"] and kept["1 lead (I)"] == ["I"]


def test_what_cannot_be_done_says_why() -> None:
    holter = {c.name: c for c in conditions(spec(names=("II", "V5")), {"ecg": 1.0}, 0)}
    assert {"without II", "without V5"} <= set(holter)
    few = {c.name: c for c in conditions(spec(names=("I", "II", "V1")), {"ecg": 1.0}, 0)}
    assert few["3 leads (I II V2)"].change is None and few["3 leads (I II V2)"].impossible == "no lead V2 here"
    assert few["2 leads (I II)"].change is not None
    one = {c.name: c.impossible for c in conditions(spec("imu", ("acc_x",), 50.0, 6), {"acc": 1.0}, 0) if c.change is None}
    assert one["fewer channels"] == one["one channel off"] == "there is one channel only"
    assert one["a device of 12.5 Hz (1/4)"] == "a window has 6 samples"
    slow = {c.name: c.impossible for c in conditions(spec(sfreq=100.0), {"ecg": 1.0}, 0) if c.change is None}
    assert "mains, 6 dB" in slow  # 50 Hz lie at the Nyquist frequency
    many = conditions(spec("eeg", tuple(f"E{i}" for i in range(17))), {"eeg": 1.0}, 0)
    assert [c.impossible for c in many if c.kind == "channels"] == ["17 channels are more than 16"]


@pytest.mark.parametrize("k", [2, 4])
def test_a_slower_device_keeps_what_it_can_hold_and_nothing_above(k: int) -> None:
    t = np.arange(1000) / 100.0
    slow, fast = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * 40 * t)
    x = np.stack([slow, fast, slow + fast])[None].astype(np.float32)
    x[0, 0, 100:120] = np.nan
    y = slower(x, k)
    assert np.array_equal(np.isnan(y), np.isnan(x)) and y.dtype == np.float32
    inside = slice(200, -200)
    assert np.abs(y[0, 0, inside] - slow[inside]).max() < 0.02 and np.abs(y[0, 1, inside]).max() < 0.02
    assert np.abs(y[0, 2, inside] - slow[inside]).max() < 0.03


@pytest.mark.parametrize(
    ("modality", "names"), [("ecg", tuple(CHANNELS["ecg"])), ("eeg", ("C3", "C4")), ("imu", ("acc_x", "acc_y"))]
)
def test_noise_has_the_ratio_it_says_and_depends_on_the_row_alone(modality: str, names: tuple[str, ...]) -> None:
    s = spec(modality, names)
    power = {s.ch_types[0]: 0.04}
    found = [c for c in conditions(s, power, 7) if c.kind.startswith("noise")]
    assert [c.at for c in found if c.kind == "noise"] == [24.0, 18.0, 12.0, 6.0, 0.0]
    assert len([c for c in found if c.kind == "noise_alone"]) == (2 if modality == "imu" else 4)
    x, rows = windows(4, len(names)), np.array([5, 9, 2, 30])
    for how in found:
        assert how.change is not None and how.at is not None
        y = how.change(x, rows)
        noise = (y - x).astype(np.float64)
        ratio = 10 * np.log10(0.04 / noise.var(axis=2).mean(axis=1))
        assert np.allclose(ratio, how.at, atol=1e-3), how.name
        assert np.allclose(how.change(x[2:3], rows[2:3])[0], y[2]) and not np.allclose(noise[0], noise[1])
    other = [c for c in conditions(s, power, 8) if c.kind == "noise"][0]
    assert other.change is not None and not np.allclose(other.change(x, rows), found[0].change(x, rows))  # type: ignore[misc]


def test_noise_at_electrodes_obeys_einthoven_and_each_type_has_its_own_level() -> None:
    x, rows = windows(), np.arange(3)
    for how in (c for c in conditions(spec(), {"ecg": 1.0}, 0) if c.kind.startswith("noise")):
        noise = (how.change(x, rows) - x).astype(np.float64)  # type: ignore[misc]
        assert np.abs(noise[:, 0] + noise[:, 2] - noise[:, 1]).max() < 1e-5, how.name  # I + III = II
    two = InputSpec("imu", 50.0, 400, ("acc_x", "gyro_x"), ("acc", "gyro"), ("g", "rad/s"))
    noise = at_snr(windows(2, 2, 400), {"acc": 0.01, "gyro": 4.0}, 10.0, two)
    assert np.allclose(noise.var(axis=2), [[0.001, 0.4]] * 2, rtol=1e-4)


def test_a_lead_that_is_off_is_the_same_one_whether_it_is_known_or_not() -> None:
    off, flat = (c for c in conditions(spec(), {"ecg": 1.0}, 3) if c.kind == "lead_off")
    x, rows = windows(8), np.arange(8)
    x[:, 4] = np.nan  # never recorded: cannot come off
    a, b = off.change(x, rows), flat.change(x, rows)  # type: ignore[misc]
    lost = np.isnan(a).all(axis=2) & ~np.isnan(x).all(axis=2)
    assert (lost.sum(axis=1) == 1).all() and len(set(lost.argmax(axis=1))) > 1
    assert np.array_equal(np.isnan(b), np.isnan(x)) and (np.ptp(b[lost], axis=1) == 0).all()
    assert np.array_equal(a[~lost], b[~lost], equal_nan=True) and np.allclose(b[lost][:, 0], np.median(x[lost], axis=1))


def test_an_evaluation_under_stress_and_its_page(locked: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    run = shutil.copytree(locked, tmp_path / "run")
    found = evaluate(run, corpus, split=halves, baselines=False, stress=True, per="subject")
    clean, *worse = found["stress"]
    assert clean["score"] == found["scores"]["macro_f1"] and clean["minus"] is None
    assert [e["name"] for e in worse[:3]] == ["without acc_x", "without acc_y", "without acc_z"]
    for e in worse:
        if e["score"] is not None:
            assert e["minus"]["value"] == pytest.approx(e["score"]["value"] - clean["score"]["value"], abs=1e-12)
    model = load_model(run)
    rows = np.flatnonzero(corpus.split(halves) == "test")
    lost = corpus.signal(rows).copy()
    lost[:, 0] = np.nan
    held = Corpus.open(corpus.path)
    held.signal = lambda some: lost[np.searchsorted(rows, some)]  # type: ignore[method-assign]
    from biossl.downstream.model import read_rows
    from biossl.downstream.predictions import columns

    table = columns(model, *read_rows(model, held, rows))
    share = table.groupby(corpus.index["subject"].to_numpy()[rows])["unfamiliar"].mean()
    assert worse[0]["unfamiliar"] == pytest.approx((share > 0.5).mean())
    assert len({len(r) for r in stress_rows(found)}) == 1 and len(stress_rows(found)) == len(found["stress"]) + 1
    json.loads((Path(found["out"]) / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    write_report(run)
    page = (run / "report.html").read_text()
    assert "Degraded input" in page and "one channel off, flat in the data" in page and "signal to noise, dB" in page


def test_a_model_that_looks_at_one_channel_falls_with_it_alone(
    locked: Path, corpus: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the prediction is the class where acc_y is observed, and a guess where it is not; features tell that it is lost."""
    truth, model = make_task(corpus, "group").values[:, 0], load_model(locked)
    limit = model.lock.familiar
    assert limit is not None

    def planted(m: Any, source: Corpus, rows: np.ndarray, **kw: Any) -> tuple[np.ndarray, np.ndarray]:
        there = np.isfinite(source.signal(rows)[:, 1]).any(axis=1)
        right = np.where(there, truth[rows], 0).astype(int)
        features = np.where(there[:, None], limit.mean, limit.mean + 1e3 * limit.scale)
        return np.eye(2)[right] * 0.98 + 0.01, features

    monkeypatch.setattr(module, "read_rows", planted)
    monkeypatch.setattr("biossl.downstream.evaluate.read_rows", planted)
    found = evaluate(locked, corpus, split=halves, baselines=False, stress=True, out=tmp_path / "a")["stress"]
    by = {e["name"]: e for e in found}
    assert by["as it is"]["score"]["value"] == 1.0
    for name in ("without acc_x", "without acc_z", "noise, 0 dB", "one channel off, flat in the data"):
        assert by[name]["score"]["value"] == 1.0 and by[name]["minus"]["value"] == 0.0
    blind = by["without acc_y"]
    assert blind["score"]["value"] < 0.5 and blind["minus"]["value"] < -0.5
    assert blind["unfamiliar"] == blind["abstain"] == 1.0 and blind["kept"] is None  # and it knows
    some = by["one channel off, known to be"]
    assert 0 < some["abstain"] < 1 and some["kept"]["value"] == 1.0 > some["score"]["value"]


def test_windows_of_which_nothing_is_left_are_counted_and_not_scored(
    locked: Path, corpus: Corpus, halves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, usual = Corpus.open(corpus.path), corpus.signal
    first = int(np.flatnonzero(corpus.split(halves) == "test")[0])

    def signal(rows: Any) -> np.ndarray:
        x = usual(rows).copy()
        x[np.asarray(rows) == first, 1:] = np.nan  # one window was recorded on acc_x alone
        return x

    held.signal = signal  # type: ignore[method-assign]
    found = evaluate(locked, held, split=halves, baselines=False, stress=True, out=tmp_path / "a")["stress"]
    lost = next(e for e in found if e["name"] == "without acc_x")
    assert lost["reason"] == "without 1 windows of which nothing is left" and lost["score"]["value"] is not None
    assert lost["abstain"] >= 1 / 20
