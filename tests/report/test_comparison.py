"""The page and the printed table of a comparison say what its JSON says, also where something is missing."""

import copy

import pytest

from biossl.report import comparison


def score(model, head, axis, amount, text, value, low=None, high=None, key=None):
    one = {"value": value, "low": low, "high": high}
    return {
        "model": model, "head": head, "axis": axis, "amount": amount, "text": text, "key": key or f"{axis}-{amount:g}", "n": 1,
        "scores": {"macro_f1": one},
    }  # fmt: skip


@pytest.fixture
def result():
    scores = []
    for model, plus in (("jepa <a>", 0.1), ("from scratch", 0.0)):
        head = "linear" if plus else "network"
        scores += [score(model, head, "windows", 1.0, "all labels", 0.8 + plus, 0.7, 0.9)]
        scores += [score(model, head, "windows", 0.01, "1 % of windows", 0.5 + plus, 0.4, 0.6)]
        scores += [score(model, head, "subjects", 2.0, "2 subjects", None)]
        scores += [score(model, head, "gap", 0.2, "20 % of time missing", 0.6 + plus, 0.5, 0.8, key="windows-1|gap-0.2")]
    counts = {"windows": 40, "records": 4, "subjects": 4, "classes": {"a": 20, "b": 20}}
    pair = {"model": "jepa <a>", "head": "linear", "minus": "from scratch", "minus_head": "network", "metric": "macro_f1"}
    return {
        "biossl": "0", "commit": "c", "date": "d", "label": "state", "kind": "multiclass", "metric": "macro_f1", "within": None,
        "request": {"identity": ["subject"]}, "corpus": {"name": "set", "view": "main"}, "seeds": [0, 1], "pool": "mean", "pretrained_on": ["long"],
        "budget": {"kind": "steps", "amount": 10}, "folds": [{"split": "official", "train": counts, "judged": counts}],
        "recipes": [{"name": "jepa <a>", "steps": 10, "flops": 1e9, "hash": "h", "source": "s"}],
        "models": [
            {"model": "jepa <a>", "rankme": 5.5, "features": 16, "identity": {"subject": {"balanced_accuracy": 0.4, "chance": 0.1}},
             "train_s": 3.0, "features_s": 1.0},
            {"model": "from scratch", "rankme": None, "features": None, "identity": {}, "train_s": 2.0, "features_s": None},
        ],
        "scores": scores,
        "paired": [
            pair | {"axis": "windows", "amount": 1.0, "text": "all labels", "key": "windows-1", "value": 0.1, "low": 0.05, "high": 0.2},
            pair | {"axis": "subjects", "amount": 2.0, "text": "2 subjects", "key": "subjects-2", "value": None, "low": None, "high": None},
        ],
        "notes": ["2 seeds"], "out": "somewhere", "ledger": {"openings": 3, "file": "l"},
    }  # fmt: skip


def test_the_text_holds_every_figure_and_marks_what_excludes_zero(result):
    text = comparison.as_text(result)
    for part in (
        "0.900 [0.700, 0.900]",
        "+0.100 [+0.050, +0.200] *",
        "5.5 of 16",
        "0.400 (0.100)",
        "1.00e+09",
        "openings",
        "pretrained on long",
        "note: 2 seeds",
    ):
        assert part in text
    assert "20 % of time missing" in text
    result["scores"] = [s for s in result["scores"] if s["axis"] != "gap"]
    assert "corrupted" not in comparison.as_text(result)


def test_the_page_escapes_names_and_has_both_panels(result, tmp_path):
    files = comparison.write(result, tmp_path)
    assert all(f.is_file() for f in files)
    page = (tmp_path / "compare.html").read_text()
    assert "<a>" not in page and "jepa &lt;a&gt;" in page
    assert "labelled training windows" in page and "labelled training subjects (all: 4)" in page


def test_equal_results_give_equal_figures(result):
    assert comparison.figure(result) == comparison.figure(copy.deepcopy(result))


def test_a_budget_in_seconds_is_said_to_be_the_machine_s(result):
    result["budget"] = {"kind": "seconds", "amount": 60}
    assert "60 seconds on this machine each" in comparison.lead(result)
