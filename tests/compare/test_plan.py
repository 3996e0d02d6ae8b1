"""Only recipes that differ in the method are compared, and nobody is on both sides of a fold."""

import pickle

import numpy as np
import pytest
from compare_toys import two_recipes
from corpus_factory import make_corpus
from training_toys import small_recipe

from biossl.compare.plan import (
    ALL,
    Setting,
    agree,
    draw,
    for_budget,
    make_folds,
    make_settings,
    own_steps,
    pairs,
)  # fmt: skip
from biossl.corpus import make_split
from biossl.errors import DataError, RequestError
from biossl.recipe.plan import refuse_breaking
from biossl.recipe.schema import Part


@pytest.mark.parametrize(
    ("key", "there", "here"),
    [("model.dim", "32", "16"), ("data.batch_size", "16", "8"), ("model.normalise", "window", "fixed")],
)
def test_another_backbone_or_data_section_is_refused_with_its_key(key, there, here):
    other = small_recipe(name="other", **{key.replace(".", "__"): there})
    with pytest.raises(RequestError, match=rf"'{key}' is {there}, in .* it is {here}.*--{key}") as caught:
        agree([small_recipe(), other])
    assert "\n" not in str(caught.value)


def test_recipes_of_two_signals_are_told_so():
    from biossl.recipe import load_recipe

    with pytest.raises(RequestError, match="ecg/jepa_small: for ecg, imu/jepa_small is for imu; compare recipes of one signal"):
        agree([load_recipe("imu/jepa_small"), load_recipe("ecg/jepa_small")])


def test_batch_sizes_may_differ_where_the_budget_weighs_them():
    other = small_recipe(name="other", data__batch_size=16, data__workers=1)
    with pytest.raises(RequestError, match="'data.batch_size' is 16.*or a budget that weighs it, --flops or --seconds"):
        agree([small_recipe(), other])
    assert [r.data.batch_size for r in agree([small_recipe(), other], own_batch=True)] == [8, 16]
    with pytest.raises(RequestError, match="'data.channels'"):
        agree([small_recipe(), small_recipe(name="other", data__channels="[acc_x]")], own_batch=True)


def test_a_forced_backbone_replaces_every_recipe_s():
    other = small_recipe(name="other", model__dim=32)
    assert [r.model.config.dim for r in agree([small_recipe(), other], model_from=other)] == [32, 32]
    with pytest.raises(RequestError, match="two recipes are named"):
        agree([small_recipe(), small_recipe()])


def test_a_budget_scales_the_schedule_and_never_stops_a_run():
    recipe = small_recipe(train__steps=100, train__schedule__warmup_steps=10)
    scaled = for_budget(recipe, 40, 7)
    assert (scaled.train.steps, scaled.train.schedule.config.warmup_steps, scaled.seed) == (40, 4, 7)
    assert scaled.monitor.stop_target_variance == scaled.monitor.stop_prediction_variance == 0
    assert recipe.train.steps == 100 and recipe.train.schedule.config.warmup_steps == 10
    shape = [recipe.train.lr(5 * i) for i in range(20)]
    assert np.allclose([scaled.train.lr(2 * i) for i in range(20)], shape, rtol=1e-6)


def test_without_a_budget_the_recipes_must_agree_on_steps():
    assert own_steps(two_recipes()) == 8
    with pytest.raises(RequestError, match="train.steps differs .*give the budget"):
        own_steps([small_recipe(), small_recipe(name="longer", train__steps=9)])


class Breaks:
    breaks, remedy = frozenset({"posture"}), "remove it"


def test_an_augmentation_that_breaks_the_label_is_refused(tmp_path):
    from biossl.corpus.card import Label

    labels = {
        "group": Label("multiclass", "covariate", {"slow": ["slow"], "fast": ["fast"]}, column="group", depends=["posture"])
    }
    corpus = make_corpus(tmp_path / "c", modality="imu", n_samples=128, n_subjects=2, windows_per_subject=2, labels=True)
    corpus.card.labels.update(labels)
    recipe = small_recipe()
    recipe.augment = [Part("spin", Breaks())]
    with pytest.raises(RequestError, match=r"augment.0 spin breaks posture .*\(label 'group'\)"):
        refuse_breaking([recipe], corpus, "group")
    refuse_breaking([recipe], corpus, "state")


def test_folds_hold_every_subject_out_once(corpus):
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=3, within=None)
    assert sorted(np.concatenate([f.judged for f in folds])) == list(range(len(rows.index)))
    for f in folds:
        assert not set(rows.subject[f.train]) & set(rows.subject[f.judged])
        part = f.corpus.split(f.split)
        assert set(corpus.index["subject"][part == "train"]) == set(rows.subject[f.train])
        assert f.split in f.corpus.split_names() and f.split not in corpus.split_names()
        assert pickle.loads(pickle.dumps(f.corpus)).split(f.split).equals(part)  # jobs run in processes of their own


def test_within_train_nothing_else_is_in_any_fold(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=12, windows_per_subject=3, n_samples=128)
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within="train")
    inside = corpus.split("official").to_numpy() == "train"
    for f in folds:
        assert ((f.corpus.split(f.split) != "").to_numpy() == inside).all()
        assert inside[rows.index[f.train]].all() and inside[rows.index[f.judged]].all()


def test_a_split_or_a_part_that_is_not_there_is_told_by_its_name(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=6, windows_per_subject=3, n_samples=128)
    with pytest.raises(DataError, match="no split 'nope'.*official"):
        make_folds(corpus, "group", split="nope", folds=None, within=None)
    with pytest.raises(RequestError, match="--within trn: no part of split 'official'; its parts: test, train"):
        make_folds(corpus, "group", split=None, folds=2, within="trn")


def test_a_split_made_with_folds_gives_all_of_them(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=6, windows_per_subject=3, n_samples=128, splits={})
    make_split(corpus, "cv", folds=3)
    rows, folds, _ = make_folds(corpus, "group", split="cv", folds=None, within=None)
    assert len(folds) == 3 and sorted(np.concatenate([f.judged for f in folds])) == list(range(len(rows.index)))
    assert all(len(f.train) + len(f.judged) == len(rows.index) for f in folds)
    one = make_folds(corpus, "group", split="cv:1", folds=None, within=None)[1]
    assert [f.split for f in one] == ["cv:1"]


def test_subjects_without_a_label_are_trained_on_and_never_judged(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=6, windows_per_subject=3, n_samples=128, splits={})
    corpus.index.loc[corpus.index["subject"] == corpus.index["subject"].iloc[0], "group"] = ""
    rows, folds, notes = make_folds(corpus, "group", split=None, folds=2, within=None)
    assert len(set(rows.subject)) == 5 and any("no known" in n for n in notes)
    for f in folds:
        assert (f.corpus.split(f.split)[corpus.index["group"] == ""] == "train").all()


def test_one_class_is_refused(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=4, windows_per_subject=2, n_samples=128, splits={})
    corpus.index["group"] = "slow"
    with pytest.raises(DataError, match="one class only"):
        make_folds(corpus, "group", split=None, folds=2, within=None)


def test_default_settings_leave_out_more_subjects_than_there_are(corpus):
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    keys = [s.key for s in make_settings(rows, folds, None, None)]
    assert keys == ["windows-1", "windows-0.01", "windows-0.1", "subjects-1", "subjects-2"]
    assert [s.text for s in make_settings(rows, folds, [0.005], [1])] == ["all labels", "0.5 % of windows", "1 subject"]


def test_draws_are_rows_of_the_training_part_and_the_same_for_all(corpus):
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    for setting, n in ((ALL, 1), (Setting("windows", 0.1), 4), (Setting("subjects", 2), 4), (Setting("subjects", 4), 4)):
        found = draw(rows, folds[0], setting, 4)
        assert len(found) == n and all(set(d) <= set(folds[0].train) for d in found)
        assert all((a == b).all() for a, b in zip(found, draw(rows, folds[0], setting, 4), strict=True))


def test_pairs_use_every_seed_and_every_draw():
    for n_draws, seeds in ((20, [0, 1, 2]), (1, [0, 1]), (3, [5, 6, 7, 8])):
        found = pairs(n_draws, seeds)
        assert {p for p, _ in found} == set(range(len(seeds))) and {d for _, d in found} == set(range(n_draws))
