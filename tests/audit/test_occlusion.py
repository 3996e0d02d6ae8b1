"""A map finds the one stretch and channel that matter, says nothing of a head that was shuffled, and is drawn under its trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.audit.occlusion import Maps, audit_occlusion, bridge, channel_groups, occlude, write_maps
from biossl.channels import ECG_LEADS
from biossl.cli import main
from biossl.corpus import Corpus
from biossl.downstream.model import load_model, read_rows
from biossl.errors import RequestError
from biossl.report.traces import draw
from biossl.signal import Recording


@pytest.fixture(scope="module")
def found(tuned: Path, corpus: Corpus) -> Maps:
    return audit_occlusion(tuned, corpus, "group", n=3)


def test_the_maximum_lies_on_the_one_event_that_matters() -> None:
    """A rhythm on three leads; the score is the size of one short spike on the second."""
    t = np.arange(500) / 100
    x = np.stack([np.sin(2 * np.pi * t), np.cos(3 * np.pi * t), np.sin(5 * t)])
    x[1, 312:320] += 3.0
    found = occlude(lambda w: w[:, 1, 312:320].max(axis=1) - w[:, 1, 305:309].max(axis=1), x, [[0], [1], [2]])
    assert found.shape == (3, 50)
    group, cell = np.unravel_index(found.argmax(), found.shape)
    assert group == 1 and 312 <= (cell + 0.5) * 10 <= 320
    assert (found[[0, 2]] == 0).all()
    assert (np.abs(found[1]) > 0.5).sum() <= 4


def test_a_cell_is_the_mean_of_the_stretches_that_cover_it() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 103)), rng.normal(size=(2, 103))
    found = occlude(lambda w: (w * weight).sum(axis=(1, 2)), x, [[0, 1]], batch=7)
    edges = np.round(np.linspace(0, 103, 51)).astype(int)
    each = [(x * weight).sum() - (bridge(x, [0, 1], edges[i], edges[i + 2]) * weight).sum() for i in range(49)]
    want = [each[0], *[(each[i - 1] + each[i]) / 2 for i in range(1, 49)], each[48]]
    np.testing.assert_allclose(found[0], want, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 39), st.integers(1, 40))
def test_a_bridge_makes_no_jump_and_touches_nothing_else(seed: int, start: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 40)).cumsum(axis=1) + 100.0  # a drift on an offset
    stop = min(start + length, 40)
    out = bridge(x, [1], start, stop)
    assert (out[0] == x[0]).all() and (np.delete(out[1], np.s_[start:stop]) == np.delete(x[1], np.s_[start:stop])).all()
    if stop - start == 40:
        assert (out == x).all()  # nothing is left to stand on
        return
    step = np.diff(out[1, max(start - 1, 0) : stop + 1])
    np.testing.assert_allclose(step, step.mean(), atol=1e-9)
    a, b = x[1, max(start - 1, 0)], x[1, min(stop, 39)]
    inside = out[1, start:stop]
    if 0 < start and stop < 40:
        assert inside.min() >= min(a, b) - 1e-9 and inside.max() <= max(a, b) + 1e-9


def test_what_was_not_observed_stays_so() -> None:
    x = np.arange(10.0)[None].repeat(2, 0)
    x[0, 4], x[0, 6], x[1] = np.nan, np.nan, np.nan
    out = bridge(x, [0, 1], 3, 6)
    assert np.isnan(out[0, [4, 6]]).all() and np.isnan(out[1]).all()
    np.testing.assert_allclose(out[0, [3, 5]], [3, 5])  # the edge that is missing is the next one


def test_channels_that_carry_the_same_go_together() -> None:
    assert channel_groups(ECG_LEADS, ["ecg"] * 12) == {
        "limb": [0, 1, 2, 3, 4, 5], "V1-V2": [6, 7], "V3-V4": [8, 9], "V5-V6": [10, 11],
    }  # fmt: skip
    assert channel_groups(("MLII", "V5"), ["ecg"] * 2) == {"MLII": [0], "V5": [1]}
    names = ("Fp1", "F3", "F4", "Fz", "C3", "Cz", "O1")
    assert channel_groups(names, ["eeg"] * 7) == {"Fp": [0], "F": [1, 2, 3], "C": [4, 5], "O": [6]}
    six = [f"{k}_{a}" for k in ("acc", "gyro") for a in "xyz"]
    assert channel_groups(six, ["acc"] * 3 + ["gyro"] * 3) == {"acc": [0, 1, 2], "gyro": [3, 4, 5]}


def test_log_odds_are_the_models_and_windows_those_it_may_show(tuned: Path, corpus: Corpus, found: Maps) -> None:
    p = read_rows(load_model(tuned), corpus, found.rows)[0]
    best = p.max(axis=1)
    np.testing.assert_allclose(found.odds, np.log(best / (1 - best)), rtol=1e-4)
    assert found.answer == [("slow", "fast")[k] for k in p.argmax(axis=1)]
    assert set(corpus.split()[found.rows]) == {"val"} and corpus.index["subject"][found.rows].nunique() == 3
    assert found.drop.shape == (3, 3, 50) and np.isfinite(found.drop).all()


def test_the_check_tells_a_map_of_the_head_from_one_of_the_signal(found: Maps) -> None:
    assert found.check["n"] == 9 and 0 < found.check["mean"] < 1
    assert any("do not read them" in n for n in found.about["notes"]) == (found.check["mean"] >= 0.5)


def test_table_page_and_json(tuned: Path, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "audit",
        "occlusion",
        str(tuned),
        str(corpus.path),
        "--label",
        "group",
        "--rows",
        "5",
        "0",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [w["row"] for w in told["windows"]] == [5, 0] and told["groups"] == {"acc": ["acc_x", "acc_y", "acc_z"]}
    table = pd.read_parquet(tmp_path / "occlusion.parquet")
    assert {"record", "start_s", "channel", "time_s", "drop"} <= set(table) and len(table) == 2 * 3 * 50
    assert table["time_s"].between(0, corpus.spec.window_s).all()
    page = (tmp_path / "occlusion.html").read_text()
    assert page.count("<img ") == 2 and "Randomisation check: rank correlation" in page and "http" not in page
    assert main(words) == 2 and "exists" in capsys.readouterr().err


def test_windows_of_a_record_and_of_the_test_part_are_told(tuned: Path, corpus: Corpus) -> None:
    record = corpus.index["record"][corpus.split() == "test"].iloc[0]
    found = audit_occlusion(tuned, corpus, "group", record=str(record), n=2)
    assert (corpus.index["record"][found.rows] == record).all() and any("of part 'test'" in n for n in found.about["notes"])
    for request, words in (
        ({"rows": [10**6]}, "--rows 1000000: the corpus has rows"), ({"record": "Miller"}, "no record of that name"),
        ({"rows": [1], "record": "a"}, "give one of them"), ({"n": 0}, "--n 0"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match=words):
            audit_occlusion(tuned, corpus, "group", **request)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no such folder"):
        audit_occlusion("nowhere", corpus, "group")


def test_maps_are_written_once(found: Maps, corpus: Corpus, tmp_path: Path) -> None:
    write_maps(corpus, found, tmp_path)
    with pytest.raises(RequestError, match="--overwrite"):
        write_maps(corpus, found, tmp_path)


@pytest.mark.parametrize(
    ("names", "kind", "unit"), [(ECG_LEADS, "ecg", "mV"), (("Fp1", "Cz"), "eeg", "uV"), (("acc_x", "acc_y", "acc_z"), "acc", "g")]
)
def test_a_band_lies_under_its_trace_and_leaves_the_picture_as_it_was(names: tuple[str, ...], kind: str, unit: str) -> None:
    x = np.random.default_rng(0).standard_normal((len(names), 1000)).astype(np.float32) * 0.3
    recording = Recording(x, 100.0, names, (kind,) * len(names), (unit,) * len(names), "r")
    band = np.zeros((len(names), 50))
    band[:, 25] = 1.0
    plain, coloured = draw(recording).axes[0], draw(recording, band=band).axes[0]
    assert plain.get_xlim() == coloured.get_xlim()
    if kind == "ecg":  # still true to size
        assert plain.get_ylim() == coloured.get_ylim() and len(coloured.collections) == len(plain.collections) + 13
    strips = [c for c in coloured.collections if c not in plain.collections and hasattr(c, "get_coordinates")]
    full = [c for c in strips if np.asarray(c.get_array()).max() == 1.0]
    assert len(full) == (4 if kind == "ecg" else len(names))  # of twelve leads the third column and the rhythm strip
    for strip in full:
        at = np.asarray(strip.get_array()).ravel().argmax()
        corners = strip.get_coordinates()
        assert corners[0, at, 0] <= 5.0 + 1e-6 and corners[0, at + 1, 0] >= 5.0 - 1e-6
