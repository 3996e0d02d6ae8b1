"""Classes of a card that nobody in the corpus has: no rows of dashes, one line that names them, whole results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from biossl.config import dump_yaml, load_yaml
from biossl.corpus import Corpus, add_labels
from biossl.downstream.absent import absent_classes
from biossl.downstream.evaluate import evaluate
from biossl.downstream.evaluate_text import as_text
from biossl.downstream.finetune import finetune
from biossl.downstream.folds import finetune_folds
from biossl.downstream.folds_text import as_text as folds_as_text
from biossl.probe_text import warnings
from biossl.report.run_page import write_report

KW: dict[str, Any] = {"mode": "full", "steps": 60, "lr": 0.01}  # enough never to say a class that nobody has
LINE = "nobody in training or judged has odd, rare: left out of tables"


@pytest.fixture(scope="module")
def wide(corpus: Corpus, halves: str) -> Corpus:
    """The label knows two classes that no window has, one of them between those that are there."""
    other = Corpus.open(corpus.path)
    label = other.card.labels["group"]
    other.card.labels["group"] = replace(label, map={"slow": ["slow"], "odd": ["odd"], "fast": ["fast"], "rare": ["r"]})
    return other


@pytest.fixture(scope="module")
def run(wide: Corpus, encoder: Path, halves: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(encoder, wide, "group", tmp_path_factory.mktemp("absent") / "run", split=halves, **KW)


def test_tables_leave_out_classes_that_nobody_has_and_results_keep_them(run: Path, wide: Corpus, halves: str) -> None:
    assert load_yaml(run / "model" / "model.yaml")["trained"]["classes"] == ["slow", "fast"]
    found = evaluate(run, wide, split=halves, baselines=False)
    stored = json.loads((Path(found["out"]) / "results.json").read_text())
    assert [r["class"] for r in stored["per_class"]] == stored["classes"] == ["slow", "odd", "fast", "rare"]
    assert len(stored["confusion"]) == 4 and stored["counts"]["classes"]["odd"] == 0
    assert stored["absent"] == ["odd", "rare"] and found["notes"].count(LINE) == 1
    text = as_text(found)
    assert LINE in text and text.count("odd") == text.count("rare") == 1 and "\nfast  " in text
    write_report(run)
    page = (run / "report.html").read_text()
    assert LINE in page and ">odd<" not in page and ">fast<" in page


def test_of_models_that_do_not_say_their_classes_the_own_corpus_does(
    run: Path, wide: Corpus, halves: str, tmp_path: Path
) -> None:
    model = shutil.copytree(run / "model", tmp_path / "model")
    file = model / "model.yaml"
    about = load_yaml(file)
    del about["trained"]["classes"]
    file.write_text(dump_yaml(about))
    assert evaluate(model, wide, split=halves, baselines=False, out=tmp_path / "a")["absent"] == ["odd", "rare"]
    about["seen"]["corpora"][-1]["hash"] = "0" * 64
    file.write_text(dump_yaml(about))
    found = evaluate(model, wide, split=halves, baselines=False, out=tmp_path / "b")
    assert found["absent"] == [] and "odd" in as_text(found)  # who knows what another corpus had


def test_folds_and_seeds_leave_out_what_no_fold_has(wide: Corpus, encoder: Path, halves: str, tmp_path: Path) -> None:
    run = finetune_folds(encoder, wide, "group", tmp_path / "run", seeds=[0, 1], split=halves, **KW)
    found = evaluate(run, wide, split=halves, baselines=False)
    assert found["absent"] == ["odd", "rare"] and len(found["per_class"]) == 4
    assert folds_as_text(found).count("odd") == 1
    write_report(run)
    assert ">odd<" not in (run / "report.html").read_text()


def test_a_class_that_was_learnt_judged_or_said_stays() -> None:
    rows = [{"class": c, "n": n} for c, n in (("a", 3), ("b", 0), ("c", 0), ("d", 2), ("e", 0))]
    confusion = [[1, 0, 2, 0, 0], [0] * 5, [0] * 5, [2, 0, 0, 0, 0], [0] * 5]
    figures = {"per_class": rows, "confusion": confusion}
    assert absent_classes([["a"], ["b"]], figures)[0] == ["e"]  # b was learnt by the second model, c was said, d is judged
    assert absent_classes([["a"], None], figures) == ([], [])
    assert absent_classes([["a"]], {"per_class": rows, "confusion": None})[0] == ["b", "c", "e"]


def test_a_class_that_training_lacks_or_that_is_judged_alone_is_said() -> None:
    rows = [{"class": c, "n": n} for c, n in (("a", 3), ("b", 0))]
    figures = {"per_class": rows, "confusion": [[1, 2], [0, 0]]}
    assert absent_classes([["a", "b"]], figures)[1] == [
        "only class a is judged: macro F1 and balanced accuracy are of it alone, and say nothing of the others"
    ]
    assert absent_classes([["a"]], figures | {"confusion": None}) == (
        ["b"],
        ["nobody in training or judged has b: left out of tables"],
    )
    assert absent_classes([["b"]], figures)[1][1:] == ["no training window of a, which its model cannot know"]


def test_training_and_evaluation_name_a_judged_class_that_nobody_was_trained_on(
    corpus: Corpus, encoder: Path, halves: str, tmp_path: Path
) -> None:
    own = Corpus.open(shutil.copytree(corpus.path, tmp_path / "corpus"))
    part = dict(zip(own.index["subject"], own.split(halves), strict=True))
    lines = [f"{s},{'c' if p == 'test' and i % 3 == 0 else 'ab'[i % 2]}" for i, (s, p) in enumerate(sorted(part.items()))]
    (tmp_path / "new.csv").write_text("subject,new\n" + "\n".join(lines) + "\n")
    add_labels(own, tmp_path / "new.csv", key="subject", name="new")
    run = finetune(encoder, Corpus.open(own.path), "new", tmp_path / "run", split=halves, steps=2)
    said = "no training window of c, which its model cannot know"
    assert said in load_yaml(run / "model" / "model.yaml")["choices"]
    assert said in evaluate(run, Corpus.open(own.path), split=halves, baselines=False)["notes"]


def test_a_mean_over_fewer_classes_than_it_names_says_so_before_any_figure() -> None:
    rows = [
        {"class": "NORM", "n": 0, "auroc": None},
        {"class": "CD", "n": 6, "auroc": 0.9},
        {"class": "HYP", "n": 4, "auroc": 0.7},
    ]
    (line,) = warnings({"metric": "macro_auroc", "per_class": rows})
    few = {"metric": "r2", "scores": {}, "seen": {"subjects": 0, "of": 9}}
    assert warnings(few)[0].startswith("9 judged subjects say little") and not warnings(few | {"seen": {"subjects": 0, "of": 15}})
    assert line.startswith("macro AUROC is of 2 of 3 classes: NORM cannot be judged here")
    assert not warnings({"metric": "macro_auroc", "per_class": rows[1:]}) and not warnings({"metric": "r2", "per_class": []})
