"""Curves are scikit-learn's, and their band is that of subjects drawn again with all their rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from biossl.errors import DataError, RequestError
from biossl.metrics.curves import GRID, curve
from biossl.metrics.intervals import draw


def rows(seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, tied scores, 12 subjects."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(float)
    return y, np.round(np.clip(0.3 * y + 0.7 * rng.random(n), 0, 1), 1), rng.integers(0, 12, n).astype(str)


def test_points_are_those_of_scikit_learn() -> None:
    y, s, who = rows()
    wrong, found, _ = roc_curve(y, s, drop_intermediate=False)
    ours = curve(y, s, who, "roc", n=5)
    np.testing.assert_allclose((ours.x, ours.y), (wrong, found), atol=1e-12)
    assert auc(ours.x, ours.y) == pytest.approx(roc_auc_score(y, s), abs=1e-9)
    precision, recall, _ = precision_recall_curve(y, s)
    ours = curve(y, s, who, "precision_recall", n=5)
    np.testing.assert_allclose((ours.x, ours.y), (recall[:-1][::-1], precision[:-1][::-1]), atol=1e-12)
    assert ours.prevalence == pytest.approx(y.mean())


def slow(y: np.ndarray, s: np.ndarray, what: str) -> np.ndarray:
    """Heights at the grid, one at a time, from the definition."""
    if what == "roc":
        wrong, found, _ = roc_curve(y, s, drop_intermediate=False)
        out = []
        for g in GRID:
            left = max(i for i in range(len(wrong)) if wrong[i] <= g + 1e-12)
            if wrong[left] >= g - 1e-12 or left == len(wrong) - 1:
                out.append(found[left])
            else:
                share = (g - wrong[left]) / (wrong[left + 1] - wrong[left])
                out.append(found[left] + share * (found[left + 1] - found[left]))
        return np.array(out)
    thresholds = sorted(set(s), reverse=True)
    out = []
    for g in GRID:
        at = next(t for t in thresholds if y[s >= t].sum() / y.sum() >= g - 1e-12)
        out.append(y[s >= at].mean())
    return np.array(out)


@pytest.mark.parametrize("what", ["roc", "precision_recall"])
def test_the_band_is_that_of_resampled_subjects_with_all_their_rows(what: str) -> None:
    y, s, who = rows(1)
    n, seed = 40, 3
    codes, weights = draw(who, n, seed)
    heights = []
    for w in weights.astype(int):
        some = np.repeat(np.arange(len(y)), w[codes])
        if 0 < y[some].sum() < len(some):
            heights.append(slow(y[some], s[some], what))
    low, high = np.percentile(heights, [2.5, 97.5], axis=0)
    ours = curve(y, s, who, what, n=n, seed=seed)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.low, low, atol=1e-9)
    np.testing.assert_allclose(ours.high, high, atol=1e-9)
    assert (high - low).max() > 0.05  # a band that could be told from none


def test_rows_without_a_label_count_nowhere_and_two_subjects_have_no_band() -> None:
    y, s, who = rows(2)
    lost = y.copy()
    lost[::3] = np.nan
    keep = ~np.isnan(lost)
    a, b = curve(lost, s, who, "roc", n=5), curve(y[keep], s[keep], who[keep], "roc", n=5)
    np.testing.assert_array_equal(a.y, b.y)
    np.testing.assert_array_equal(a.low, b.low)
    assert np.isnan(curve([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.4], list("aabb"), "roc").low).all()


def test_what_has_no_curve_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="both classes; the known labels are only 1"):
        curve([1, 1, np.nan], [0.1, 0.2, 0.3], list("abc"), "roc")
    with pytest.raises(DataError, match="NaN in 1 of 2 rows"):
        curve([0, 1], [np.nan, 0.2], list("ab"), "roc")
    with pytest.raises(RequestError, match="curve 'lift' is not known"):
        curve([0, 1], [0.1, 0.2], list("ab"), "lift")  # type: ignore[arg-type]
