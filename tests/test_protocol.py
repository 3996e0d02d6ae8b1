"""Heads choose their setting inside the training subjects, never mix subjects, and scarce draws keep every class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl import metrics, protocol
from biossl.errors import DataError, RequestError
from biossl.protocol import Target


def problem(kind="multiclass", n=240, seed=0, n_subjects=12, d=8):
    rng = np.random.default_rng(seed)
    subjects = np.array([f"s{i:02d}" for i in rng.integers(0, n_subjects, n)])
    z = rng.normal(size=(n, 3))
    x = np.concatenate([z, rng.normal(size=(n, d - 3))], axis=1).astype(np.float32)
    x[:, -1] += [int(s[1:]) * 3 for s in subjects]  # a feature that tells subjects apart
    if kind == "multiclass":
        return x, Target(kind, z.argmax(1).astype(float), ("a", "b", "c")), subjects
    if kind == "multilabel":
        y = (z[:, :2] > 0).astype(float)
        y[rng.random(y.shape) < 0.1] = np.nan
        return x, Target(kind, y, ("a", "b")), subjects
    if kind == "binary":
        return x, Target(kind, (z[:, :1] > 0.8).astype(float), ("a",)), subjects
    return x, Target(kind, z[:, 0] * 5 + 70, ()), subjects


@pytest.mark.parametrize("head", ["linear", "kNN"])
@pytest.mark.parametrize("kind, good", [("multiclass", 0.8), ("multilabel", 0.85), ("binary", 0.85), ("regression", 0.5)])
def test_heads_learn_and_say_what_they_chose(head, kind, good):
    x, target, subjects = problem(kind, n=400)
    train, test = np.arange(300), np.arange(300, 400)
    f = protocol.HEADS[head](x[train], target.take(train), subjects[train], x[test])
    assert metrics.score(target.y[test], f.prediction, target.metric) > good - (0.15 if head == "kNN" else 0)
    grid = protocol.K_GRID if head == "kNN" else protocol.ALPHA_GRID if kind == "regression" else protocol.C_GRID
    assert f.setting in grid and f.inner is not None
    assert f.prediction.shape == ((100,) if kind == "regression" else (100, len(target.classes)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9), st.sampled_from(["multiclass", "regression", "multilabel"]))
def test_folds_never_share_a_subject_and_cover_every_row_once(seed, n_subjects, kind):
    _, target, subjects = problem(kind, n=60, seed=seed, n_subjects=n_subjects)
    folds = protocol.grouped_folds(target, subjects, 5, seed)
    assert len(folds) == min(5, len(set(subjects)))
    for train, test in folds:
        assert not set(subjects[train]) & set(subjects[test])
    assert sorted(np.concatenate([t for _, t in folds]).tolist()) == list(range(60))


def test_the_choice_looks_only_at_training_rows():
    x, target, subjects = problem()
    train, test = np.arange(150), np.arange(150, 240)
    first = protocol.linear(x[train], target.take(train), subjects[train], x[test])
    shuffled = protocol.linear(x[train], target.take(train), subjects[train], x[test][::-1])
    assert first.setting == shuffled.setting and first.inner == shuffled.inner
    np.testing.assert_allclose(first.prediction, shuffled.prediction[::-1], atol=1e-6)


def test_out_of_fold_predictions_do_not_know_the_rows_own_subject():
    """Labels that are nothing but the subject's own coin: a leak would score far above chance."""
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"s{i}" for i in range(20)], 10)
    coin = np.repeat(rng.permutation([0.0, 1.0] * 10), 10)
    x = np.repeat(rng.normal(size=(20, 12)), 10, axis=0) + 0.01 * rng.normal(size=(200, 12))
    target = Target("multiclass", coin, ("no", "yes"))
    held = protocol.out_of_fold(protocol.linear, x, target, subjects)
    leaky = protocol.linear(x, target, subjects, x).prediction
    assert metrics.score(coin, leaky, "accuracy") > 0.75
    assert metrics.score(coin, held, "accuracy") < 0.75
    with pytest.raises(DataError, match="one subject"):
        protocol.out_of_fold(protocol.linear, x[:10], target.take(np.arange(10)), subjects[:10])


def test_one_training_subject_uses_the_default_setting():
    x, target, _ = problem(n=60)
    f = protocol.linear(x, target, np.full(60, "only"), x[:5])
    assert f.setting == protocol.DEFAULT_C and f.inner is None


def test_missing_features_are_imputed_and_marked():
    x, target, subjects = problem(n=300)
    x[::2, 3] = np.nan
    x[:, 4] = np.nan
    f = protocol.linear(x[:200], target.take(np.arange(200)), subjects[:200], x[200:])
    assert np.isfinite(f.prediction).all() and metrics.score(target.y[200:], f.prediction, "macro_f1") > 0.75


def test_one_class_in_a_draw_is_a_constant_not_a_failure():
    x, target, subjects = problem(n=50)
    one = Target("multiclass", np.full(50, 2.0), target.classes)
    f = protocol.linear(x, one, subjects, x[:4])
    assert (f.prediction.argmax(1) == 2).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.005, 1.0), st.integers(0, 100), st.sampled_from(["multiclass", "multilabel", "binary"]))
def test_scarce_draws_are_stratified_and_keep_every_class(fraction, seed, kind):
    _, target, _ = problem(kind, seed=seed)
    for rows in protocol.draw_windows(target, fraction, 3, seed):
        assert len(set(rows)) == len(rows)
        y = target.y[rows]
        if kind == "multiclass":
            for k in range(3):
                n = (target.y == k).sum()
                assert (y == k).sum() == max(1, round(fraction * n))
        else:
            assert ((y == 1).any(axis=0) & (y == 0).any(axis=0)).all()


def test_subject_draws_hold_whole_subjects():
    subjects = np.array(list("aabbccdd"))
    for rows in protocol.draw_subjects(subjects, 2, 6, 0):
        assert len(set(subjects[rows])) == 2 and len(rows) == 4
    assert len({tuple(r) for r in protocol.draw_subjects(subjects, 2, 6, 0)}) > 1
    with pytest.raises(RequestError, match="has 4 labelled subjects"):
        protocol.draw_subjects(subjects, 5, 1, 0)
    with pytest.raises(RequestError, match="labels-fraction"):
        protocol.draw_windows(Target("regression", np.zeros(8), ()), 0.0, 1, 0)


def test_two_rows_of_two_classes_and_subjects_still_make_folds():
    """scikit-learn's stratified folds refuse when every class has fewer rows than there are folds."""
    target = protocol.Target("multiclass", np.array([0.0, 1.0]), ("a", "b"))
    folds = protocol.grouped_folds(target, np.array(["x", "y"]), 3, 0)
    assert sorted(int(test[0]) for _, test in folds) == [0, 1]
