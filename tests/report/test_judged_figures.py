"""What is drawn of an evaluation is what its files say: areas, the frozen threshold, net benefit, groups, amounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import make_corpus
from judged_toys import make_locked, planted
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score

from biossl.corpus import Corpus
from biossl.downstream.evaluate import evaluate
from biossl.metrics.decision import decision_curve
from biossl.report import figures, judged_figures
from biossl.report.judged import Judged, open_judged


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three windows of each of 12 subjects."""
    return make_corpus(
        tmp_path_factory.mktemp("figures") / "c", modality="imu", n_subjects=12, windows_per_subject=3, n_samples=64, n_channels=3
    )


@pytest.fixture(scope="module")
def judged(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A locked model with thresholds .45 of A and .5 of B, judged as `biossl evaluate` does."""
    run = make_locked(tmp_path_factory.mktemp("run") / "run", corpus, "findings", {"A": 0.45, "B": 0.5})
    result = evaluate(run, corpus, part="all", baselines=False)
    return open_judged(result, result["out"])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order they are drawn; they are not turned into SVG."""
    kept: list[Figure] = []
    monkeypatch.setattr(
        figures, "svg", lambda figure, alt, salt, **kw: (kept.append(figure), f"<svg aria-label='{alt}'></svg>")[1]
    )
    return kept


def test_the_table_of_areas_is_scikit_learns(judged: Judged, drawn: list[Figure]) -> None:
    page = judged_figures.curves(judged)
    assert judged.table is not None
    for c in ("A", "B"):
        y, p = judged.table[f"y_{c}"], judged.table[f"p_{c}"]
        assert f"<td>{c}</td>" in page and f">{100 * y.mean():.1f} %<" in page
        assert f">{roc_auc_score(y, p):.3f} [" in page and f">{average_precision_score(y, p):.3f} [" in page
    recall = drawn[1].axes[0]
    levels = {round(float(line.get_ydata()[0]), 9) for line in recall.lines if len(line.get_xdata()) == 2}
    assert levels == {round(float(judged.table[f"y_{c}"].mean()), 9) for c in ("A", "B")}  # the precision of guessing


def test_the_point_on_the_roc_is_the_locks_threshold_on_these_windows(judged: Judged, drawn: list[Figure]) -> None:
    page = judged_figures.curves(judged)
    assert judged.table is not None
    y, said = judged.table["y_A"].to_numpy(), judged.table["p_A"].to_numpy() >= 0.45
    sensitivity, wrong = said[y == 1].mean(), said[y == 0].mean()
    marks = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in drawn[0].axes[0].lines if line.get_marker() in "os"
    ]
    assert marks[0] == pytest.approx((wrong, sensitivity), abs=1e-12) and len(marks) == 2
    curve = next(line for line in drawn[0].axes[0].lines if line.get_label().startswith("A "))
    assert np.abs(np.stack(curve.get_data(), 1) - marks[0]).sum(1).min() < 1e-9  # it lies on the curve
    assert f"frozen threshold 0.450 gives sensitivity {sensitivity:.3f}" in page and "thresholds frozen in training" in page


def several(corpus: Corpus, classes: int, seed: int = 0) -> Judged:
    """The corpus' windows under invented classes with probabilities that know a little."""
    rng = np.random.default_rng(seed)
    base = planted(corpus, "group", np.full((len(corpus), 2), 0.5))
    names = [f"class {k}" for k in range(classes)]
    y = np.arange(len(corpus)) % classes
    p = rng.dirichlet(np.ones(classes), len(corpus)) + 0.5 * np.eye(classes)[y]
    table = base.table.drop(columns=["p_slow", "p_fast"]).assign(y=[names[k] for k in y])  # type: ignore[union-attr]
    table = table.assign(**{f"p_{c}": p[:, k] / p.sum(1) for k, c in enumerate(names)})
    return Judged(base.result | {"classes": names}, table, base.corpus, base.rows)


def test_many_classes_are_parted_over_panels_and_none_has_a_point(corpus: Corpus, drawn: list[Figure]) -> None:
    page = judged_figures.curves(several(corpus, 12))
    assert len(drawn) == 6  # three panels of four classes, ROC and precision-recall each
    assert [len(f.axes[0].lines) for f in drawn[::2]] == [5, 5, 5]
    assert page.count("<tr") == 13 and "no threshold to mark" in page


def test_of_two_exclusive_classes_one_curve_is_drawn_and_of_one_class_none(corpus: Corpus, drawn: list[Figure]) -> None:
    assert ">fast<" in (page := judged_figures.curves(pair(corpus))) and ">slow<" not in page
    single = pair(corpus)
    single = Judged(single.result, single.table.assign(y="fast"), None, None)  # type: ignore[union-attr]
    assert "No curve of fast: a curve needs rows of both classes; the known labels are only 1." in judged_figures.curves(single)
    assert judged_figures.curves(planted(corpus, "age", np.zeros(len(corpus)))) == ""


def pair(corpus: Corpus) -> Judged:
    p = np.random.default_rng(1).uniform(0.1, 0.9, len(corpus))
    y = corpus.labels("group").values[:, 0]
    return planted(corpus, "group", np.stack([1 - (p + y) / 2, (p + y) / 2], 1))


def test_net_benefit_is_the_metrics_for_each_class_against_all_others(corpus: Corpus, drawn: list[Figure]) -> None:
    judged = several(corpus, 3)
    page = judged_figures.decisions(judged)
    assert len(drawn) == 3 and page.count("<details open>") == 1 and page.count("<details>") == 2
    assert "Decision curve of class 2 against all other classes" in page
    y, p = (judged.table["y"] == "class 2").astype(float), judged.table["p_class 2"]  # type: ignore[index]
    want = decision_curve(y, p, judged.people, judged_figures.AT, n=20)
    lines = {line.get_label(): line.get_ydata() for line in drawn[2].axes[0].lines}
    np.testing.assert_allclose(lines["locked model"], [r["model"].value for r in want], atol=1e-12)
    np.testing.assert_allclose(lines["treat all"], [r["all"].value for r in want], atol=1e-12)
    assert set(np.asarray(lines["treat none"])) == {0}


def test_uncalibrated_probabilities_are_told_beside_a_decision_curve(judged: Judged, drawn: list[Figure]) -> None:
    told = Judged(judged.result | {"notes": ["no calibration: nobody was held out in training"]}, judged.table, None, None)
    assert "not calibrated (no calibration: nobody was held out in training)" in judged_figures.decisions(told)
    assert "not calibrated" not in judged_figures.decisions(judged) and len(drawn) == 4


def interval(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, **more}


def test_groups_under_the_minimum_are_listed_and_not_drawn(drawn: list[Figure]) -> None:
    groups = [
        {"name": "women", "n_subjects": 14, "score": interval(0.9, 0.8, 0.95), "gap": interval(0.2, 0.1, 0.3)},
        {"name": "men", "n_subjects": 12, "score": interval(0.7, 0.6, 0.8), "gap": None, "reason": "the rest has 4 subjects"},
        {
            "name": "missing",
            "n_subjects": 4,
            "score": None,
            "gap": None,
            "reason": "4 subjects with a label: not scored below 10",
        },
        {"name": "other", "n_subjects": 11, "score": interval(None, reason="one class only"), "gap": None},
    ]
    page = judged_figures.groups(
        {"metric": "macro_f1", "scores": {"macro_f1": interval(0.8, 0.7, 0.9)}, "groups": {"sex": groups}}
    )
    assert "sex missing, not drawn: 4 subjects with a label: not scored below 10." in page
    assert "sex other, not drawn: one class only." in page and "scored from 10 subjects" in page
    left, right = drawn[0].axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["women\nn = 14", "men\nn = 12"]
    values = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in left.lines if line.get_marker() == "o"]
    assert values == [(0.9, 0), (0.7, 1)]
    assert [t.get_text().strip() for t in right.texts] == ["no gap"]


def test_the_page_of_a_run_with_groups_says_the_rule_where_none_is_drawn(drawn: list[Figure]) -> None:
    few = [{"name": "a", "n_subjects": 2, "score": None, "gap": None, "reason": "2 subjects with a label: not scored below 10"}]
    page = judged_figures.groups({"metric": "macro_f1", "scores": {"macro_f1": interval(0.8)}, "groups": {"site": few}})
    assert not drawn and "site a, not drawn" in page


def test_scores_by_amount_need_two_amounts_and_are_in_order(drawn: list[Figure]) -> None:
    rows = [
        {"subjects": n, "windows": 4 * n, "score": s, "low": s - 0.1, "high": s + 0.1} for n, s in ((10, 0.8), (2, 0.5), (5, 0.7))
    ]
    assert judged_figures.scarcity(rows[:1], "t", "macro F1") == "" == judged_figures.scarcity([], "t", "macro F1")
    page = judged_figures.scarcity(rows, "activity", "macro F1")
    line = drawn[0].axes[0].lines[3]
    assert list(line.get_xdata()) == [2, 5, 10] and list(line.get_ydata()) == [0.5, 0.7, 0.8]
    assert "2 subjects: 0.500 [0.400, 0.600]; 5 subjects" in page
    same = [r | {"subjects": 5} for r in rows]
    judged_figures.scarcity(same, "activity", "macro F1")
    assert drawn[1].axes[0].get_xlabel() == "labelled training windows"


def test_predictions_of_other_windows_than_the_corpus_holds_are_not_drawn(judged: Judged, corpus: Corpus, tmp_path: Path) -> None:
    known = np.flatnonzero(corpus.labels("findings").known)
    assert 0 < len(known) < len(corpus) and np.array_equal(judged.rows, known)  # type: ignore[arg-type]
    strange = judged.table.assign(record="nobody")  # type: ignore[union-attr]
    strange.to_parquet(tmp_path / "predictions.parquet")
    assert open_judged(judged.result, tmp_path).rows is None
    turned = judged.table.iloc[::-1]  # type: ignore[union-attr]
    turned.to_parquet(tmp_path / "predictions.parquet")
    assert list(open_judged(judged.result, tmp_path).rows) == list(known[::-1])  # type: ignore[arg-type]
