"""Runs are compared in pairs, and what cannot be compared is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from biossl.bench.compare import as_text, compare_runs
from biossl.bench.frame import as_text as lines_of
from biossl.bench.frame import summary
from biossl.errors import DataError, RequestError


def result(seconds: float, **facts: Any) -> dict[str, Any]:
    return {"seconds_per_step": summary([seconds] * 3), "setting": {"batch": 8}} | facts


def write(path: Path, *runs: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(run) + "\n" for run in runs))
    return path


def test_the_ratio_is_the_median_of_the_ratios_of_pairs(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", *(result(s) for s in (4.0, 30.0, 9.0, 8.0, 10.0)))
    b = write(tmp_path / "b.json", *(result(s) for s in (2.0, 10.0, 2.0, 8.0, 2.0)))
    found = compare_runs(a, b)
    ratio = found["ratios"]["seconds_per_step"]
    # 2, 3, 4.5, 1, 5: the ratio of the medians would be 9 / 2
    assert ratio["ratio"] == {"median": 3.0, "q1": 2.0, "q3": 4.5, "min": 1.0, "max": 5.0, "n": 5}
    assert ratio["a"]["median"] == 9.0 and ratio["b"]["median"] == 2.0 and found["pairs"] == 5 and found["notes"] == []
    assert "seconds_per_step  3       2 to 4.5" in as_text(found)


def test_a_folder_is_its_files_in_order_of_their_names(tmp_path: Path) -> None:
    for side, times in (("a", (1.0, 2.0)), ("b", (4.0, 1.0))):
        (tmp_path / side).mkdir()
        for number, seconds in enumerate(times):
            write(tmp_path / side / f"{number}.json", result(seconds))
    ratio = compare_runs(tmp_path / "a", tmp_path / "b")["ratios"]["seconds_per_step"]["ratio"]
    assert (ratio["min"], ratio["max"], ratio["n"]) == (0.25, 2.0, 2)


def test_the_reference_harness_s_results_will_do(tmp_path: Path) -> None:
    harness = {
        "seconds_per_call": {name: {"median": 1e-3, "min": 1e-3, "max": 2e-3, "n": 50} for name in ("random", "attention_mask")},
        "setting": {"batch": 4},
    }
    own = {"seconds_per_call": {"random": summary([1e-4]), "span": summary([1e-4])}, "setting": {"batch": 64}}
    found = compare_runs(write(tmp_path / "a.json", harness), write(tmp_path / "b.json", own))
    assert found["ratios"]["seconds_per_call.random"]["ratio"]["median"] == pytest.approx(10)
    assert (found["only_a"], found["only_b"]) == (["seconds_per_call.attention_mask"], ["seconds_per_call.span"])
    assert "batch is 4 of A, 64 of B" in found["notes"]


def test_different_masks_are_noted(tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{s}.json", result(1.0, masked_fraction=summary([f]))) for s, f in (("a", 0.55), ("b", 0.65)))
    assert any("hides 0.55 of the patches, B 0.65" in note for note in compare_runs(a, b)["notes"])


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (None, RequestError, "no such file of results"),
        ("", DataError, "empty"),
        ('{"seconds_per_step": ', DataError, "result 1 is not JSON"),
        ('{"error": "out of memory", "exit_code": 3}', DataError, "has no times: out of memory"),
        (json.dumps({"seconds_per_batch": summary([1.0])}), RequestError, "no time in common"),
        (json.dumps(result(1.0)) * 2, RequestError, "has 1 runs.* has 2"),
        (json.dumps(result(1.0)) + json.dumps({"seconds_per_batch": summary([1.0])}), DataError, "different things"),
    ],
    ids=["absent", "empty", "cut", "failed", "other", "more", "mixed"],
)
def test_what_cannot_be_compared_is_refused(text: str | None, error: type[Exception], said: str, tmp_path: Path) -> None:
    other = tmp_path / "b.json"
    if text is not None:
        other.write_text(text)
    runs = 2 if said == "different things" else 1
    with pytest.raises(error, match=said) as raised:
        compare_runs(write(tmp_path / "a.json", *[result(1.0)] * runs), other)
    assert "\n" not in str(raised.value)


def test_text_gives_each_time_with_its_unit() -> None:
    setting = {"device_name": "a cpu", "threads": 1, "cores": 2, "torch": "2", "date": "2020-01-01"}
    shown = lines_of({"seconds_per_call": {"random": summary([2e-3, 4e-3])}, "setting": setting})
    assert shown.splitlines()[0].split() == "random 3 ms (2.5 ms to 3.5 ms; 2 times)".split()
