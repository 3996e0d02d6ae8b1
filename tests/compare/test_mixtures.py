"""Whatever is pretrained on, nobody who is judged is in it, and every mixture is a row of its own."""

import json

import pytest
from corpus_factory import make_corpus
from training_toys import small_recipe

from biossl.checkpoint import load_encoder
from biossl.compare import compare
from biossl.compare.mixtures import Mixture
from biossl.compare.plan import make_folds
from biossl.corpus import seen
from biossl.errors import DataError, RequestError

REQUEST = {"folds": 2, "steps": 2, "fractions": [1.0], "n_subjects": [], "draws": 1, "identity": [], "pool": "mean"}


def made(folder, **facts):
    """The corpus of the room, or a relative of it: by default the same card and people."""
    settings = {"modality": "imu", "n_subjects": 8, "windows_per_subject": 8, "n_samples": 128, "splits": {}} | facts
    return make_corpus(folder, **{k: v for k, v in settings.items() if v is not None})


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """The same eight people with other windows, and two whom the judged corpus does not know."""
    return made(tmp_path_factory.mktemp("mixtures") / "longer", n_subjects=10, windows_per_subject=6)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Another card: other people, of whom some are a test part."""
    return made(tmp_path_factory.mktemp("mixtures") / "strangers", name="elsewhere", seed=1, n_subjects=12)


def people(corpus, split):
    return set(corpus.index["subject"][corpus.split(split).to_numpy() == "train"].astype(str))


def test_of_another_corpus_only_people_who_are_not_judged_are_trained_on(corpus, longer):
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    known = set(corpus.index["subject"].astype(str))
    for fold in folds:
        ((used, weight),) = Mixture(((longer, 2.0),)).sources(fold)
        judged = set(rows.subject[fold.judged].astype(str))
        everyone = set(longer.index["subject"].astype(str))
        assert weight == 2.0 and people(used, fold.split) == everyone - judged
        assert len(everyone - known) == 2 and everyone - known <= people(used, fold.split)


def test_a_test_part_of_another_set_stays_closed(corpus, tmp_path):
    other = made(tmp_path / "c", name="elsewhere", seed=1, n_subjects=12, splits=None)
    _, (fold, _), _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    ((used, _),) = Mixture(((other, 1.0),)).sources(fold)
    assert people(used, fold.split) == people(other, "official") < set(other.index["subject"].astype(str))


def test_the_trained_encoders_have_seen_no_judged_subject(corpus, longer, strangers, tmp_path):
    mixtures = [[(longer, 1.0)], [(corpus, 1.0), (strangers, 0.5)]]
    result = compare([small_recipe()], corpus, "group", out=tmp_path / "out", pretrain_on=mixtures, **REQUEST)
    assert result["pretrained_on"] == ["longer", "corpus=1 strangers=0.5"]
    names = [r["name"] for r in result["recipes"]]
    assert names == [f"{small_recipe().name} on {text}" for text in result["pretrained_on"]]
    assert {m["model"] for m in result["models"]} > set(names)
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    runs = list((tmp_path / "out" / "runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        encoder = load_encoder(run / "encoder")
        fold = next(f for f in folds if f"-fold{f.number}-" in run.name)
        assert seen(corpus, rows.index[fold.judged], encoder.info["seen"]["subjects"]) == 0
        assert seen(corpus, rows.index[fold.train], encoder.info["seen"]["subjects"]) == 4


def test_one_corpus_in_place_of_the_judged_one_keeps_the_recipe_s_name_and_goes_on(corpus, longer, tmp_path):
    result = compare([small_recipe()], corpus, "group", out=tmp_path / "out", pretrain_on=[[(longer, 1.0)]], **REQUEST)
    assert [r["name"] for r in result["recipes"]] == [small_recipe().name]
    again = compare([small_recipe()], corpus, "group", out=tmp_path / "out", pretrain_on=[[(longer, 1.0)]], **REQUEST)
    assert again["date"] == result["date"]
    with pytest.raises(RequestError, match="'pretrained_on' differs"):
        compare([small_recipe()], corpus, "group", out=tmp_path / "out", **REQUEST)
    plans = [json.loads(f.read_text())["plan"] for f in (tmp_path / "out" / "jobs").glob("*.json")]
    assert sum("pretrained_on" in p for p in plans) == 2  # no other model depends on it


def test_a_set_whose_people_may_be_the_judged_ones_is_refused(corpus, tmp_path):
    overlapping = made(tmp_path / "c", name="elsewhere", overlaps=["synthetic_imu"])
    with pytest.raises(DataError, match="nobody is left to pretrain on"):
        compare([small_recipe()], corpus, "group", out=tmp_path / "out", pretrain_on=[[(overlapping, 1.0)]], **REQUEST)


def test_a_mixture_that_cannot_be_meant_is_one_line(corpus, longer, tmp_path):
    shorter = made(tmp_path / "c", n_samples=64)
    narrow = made(tmp_path / "d", n_channels=3)
    for mixtures, message in (
        ([[(longer, 0.0)]], "--pretrain-on longer=0: a weight must be above 0"),
        ([[(longer, 1.0)], [(longer, 1.0)]], "--pretrain-on longer: given twice"),
        ([[(shorter, 1.0)]], "--pretrain-on c: n_samples.*convert it with a view"),
        ([[(narrow, 1.0)]], "--pretrain-on d: it has channels acc_x acc_y acc_z, wanted.*--data.channels"),
    ):
        with pytest.raises(RequestError, match=message) as caught:
            compare([small_recipe()], corpus, "group", out=tmp_path / "out", pretrain_on=mixtures, **REQUEST)
        assert "\n" not in str(caught.value)
