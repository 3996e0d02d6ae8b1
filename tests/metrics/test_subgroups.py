"""Groups of a covariate are scored on the same resampled subjects; small ones are named, not scored."""

import numpy as np
import pytest

from biossl import metrics
from biossl.errors import DataError, RequestError
from biossl.metrics.subgroups import cut, subgroups


def cohort(seed=0, n_subjects=60, rows=10):
    """Sixty subjects; the model is right in 90 % of rows of men and 70 % of women; age is missing for six."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat([f"s{i:02d}" for i in range(n_subjects)], rows)
    sex = np.where(np.arange(n_subjects) % 2, "f", "m").repeat(rows)
    age = rng.integers(20, 90, n_subjects).astype(float)
    age[:6] = np.nan
    y = rng.integers(0, 2, n_subjects * rows)
    right = rng.random(len(y)) < np.where(sex == "m", 0.9, 0.7)
    return y, np.where(right, y, 1 - y), subjects, sex, age.repeat(rows)


def test_scores_and_gaps_are_those_of_the_rows():
    y, said, subjects, sex, _ = cohort()
    women, men = subgroups(y, said, subjects, "accuracy", sex, n=500)
    assert (women.name, men.name) == ("f", "m") and women.n_rows == 300 and women.n_subjects == 30
    assert women.score.value == pytest.approx(metrics.score(y[sex == "f"], said[sex == "f"], "accuracy"))
    assert women.gap.value == pytest.approx(women.score.value - men.score.value)
    assert women.gap.high < 0 < men.gap.low
    assert (women.gap.low, women.gap.high) == pytest.approx((-men.gap.high, -men.gap.low))  # the same resamples


def test_the_gap_of_a_resample_is_that_of_its_rows_written_out():
    y, said, subjects, sex, _ = cohort(n_subjects=20, rows=4)
    codes, weights = metrics.intervals.draw(subjects, 200, seed=0)
    gaps = []
    for w in weights:
        rows = np.concatenate([np.repeat(np.flatnonzero(codes == c), int(m)) for c, m in enumerate(w)])
        right, f = y[rows] == said[rows], sex[rows] == "f"
        gaps.append(right[f].mean() - right[~f].mean())
    women = subgroups(y, said, subjects, "accuracy", sex, n=200)[0]
    assert (women.gap.low, women.gap.high) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])), abs=1e-12)


def test_a_missing_covariate_is_a_group_and_a_small_group_is_named_only():
    y, said, subjects, _, age = cohort()
    groups = subgroups(y, said, subjects, "accuracy", age, edges=[40, 65], n=50)
    assert [g.name for g in groups] == ["< 40", "40 to < 65", ">= 65", "missing"]
    assert sum(g.n_rows for g in groups) == 600
    missing = groups[-1]
    assert missing.n_subjects == 6 and missing.score is None and missing.gap is None
    assert missing.reason == "6 subjects with a label: not scored below 10"
    assert missing.to_dict() == {
        "name": "missing", "n_rows": 60, "n_subjects": 6, "score": None, "gap": None, "reason": missing.reason,
    }  # fmt: skip


def test_a_group_of_everybody_has_a_score_and_no_gap():
    y, said, subjects, _, _ = cohort()
    (everybody,) = subgroups(y, said, subjects, "accuracy", ["x"] * 600, n=50)
    assert everybody.score.value == pytest.approx((y == said).mean()) and everybody.gap is None
    assert "the rest has 0 subjects" in everybody.reason


def test_only_labelled_rows_count_towards_the_minimum():
    y, said, subjects, sex, _ = cohort()
    y = y.astype(float)
    y[(sex == "f") & (subjects >= "s15")] = np.nan
    women, men = subgroups(y, said, subjects, "accuracy", sex, n=50)
    assert women.n_subjects == 7 and women.score is None
    assert men.score is not None and men.gap is None and "the rest has 7" in men.reason


def test_a_group_of_one_class_says_why_it_has_no_auroc():
    y, said, subjects, sex, _ = cohort()
    y = np.where(sex == "f", 1, y)
    women, men = subgroups(y, said.astype(float), subjects, "auroc", sex, n=50)
    assert np.isnan(women.score.value) and "one class only" in women.score.reason
    assert np.isnan(men.gap.value) and men.gap.reason.startswith("the rest: one class only")
    assert women.gap.reason.startswith("the group: one class only")
    assert women.to_dict()["score"]["value"] is None


def test_cutting():
    groups, names = cut([1, 2, 2, 3, 4, None], quantiles=2)
    assert names == ["< 2", ">= 2", "missing"] and groups.tolist() == [0, 1, 1, 1, 1, 2]
    assert cut([5, 5, 5], quantiles=4)[1] == ["all values"]
    assert cut(["b", "a", "", None, " "])[1] == ["a", "b", "missing"]
    assert cut([1.0, 2.0, np.nan])[1] == ["1", "2", "missing"]
    groups, names = cut(np.arange(100.0), quantiles=4)
    assert np.bincount(groups).tolist() == [25] * 4
    assert cut([None, None], edges=[3.0])[0].tolist() == [2, 2]


def test_what_subgroups_refuse():
    y, said, subjects, sex, age = cohort()
    with pytest.raises(RequestError, match="two ways"):
        subgroups(y, said, subjects, "accuracy", age, edges=[40], quantiles=3)
    with pytest.raises(RequestError, match="rising"):
        subgroups(y, said, subjects, "accuracy", age, edges=[65, 40])
    with pytest.raises(RequestError, match="'m' is no number"):
        subgroups(y, said, subjects, "accuracy", sex, quantiles=2)
    with pytest.raises(RequestError, match="3 or more"):
        subgroups(y, said, subjects, "accuracy", sex, min_subjects=2)
    with pytest.raises(DataError, match="600 reference labels but 300 covariates"):
        subgroups(y, said, subjects, "accuracy", sex[:300])
    with pytest.raises(DataError, match="NaN in 1 of 600"):
        subgroups(y, np.r_[np.nan, said[1:]], subjects, "accuracy", sex)
    with pytest.raises(DataError, match="no row has a known label"):
        subgroups(np.full(600, np.nan), said, subjects, "accuracy", sex)
