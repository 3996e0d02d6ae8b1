"""A comparison goes on where it stopped, treats every model alike, and pairs what it subtracts."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from compare_toys import SETTINGS, two_recipes
from corpus_factory import make_corpus
from training_toys import small_recipe

from biossl.checkpoint import load_encoder
from biossl.compare import compare, jobs
from biossl.compare import run as module
from biossl.compare.plan import for_budget, make_folds
from biossl.compare.table import gather
from biossl.corpus import seen
from biossl.errors import RequestError
from biossl.ledger import openings

MODELS = ("first", "second", "random-initialised", "MiniRocket", "from scratch", "hand features")


def value(result, model, head, key):
    found = next(s for s in result["scores"] if (s["model"], s["head"], s["key"]) == (model, head, key))
    return found["scores"][result["metric"]]


def numbers(result):
    """What must not depend on when it was computed."""
    models = [{k: v for k, v in m.items() if not k.endswith("_s")} for m in result["models"]]
    return json.dumps([result["scores"], result["paired"], result["rows"], models], sort_keys=True)


def test_every_model_meets_every_setting(finished):
    result, _ = finished
    heads = {"MiniRocket": "ridge", "from scratch": "network"}
    for model in MODELS:
        for key in ("windows-1", "windows-0.25", "subjects-2", "windows-1|gap-0.2", "windows-1|gap-0.5"):
            score = value(result, model, heads.get(model, "linear"), key)
            assert score["n_subjects"] == 8 and score["low"] <= score["value"] <= score["high"]
    assert {s["model"] for s in result["scores"] if s["head"] == "kNN"} == {*MODELS} - set(heads)
    assert value(result, "hand features", "linear", "windows-1")["value"] > 0.9  # the rate of the rhythm is the group


def test_draws_are_shared_out_over_the_seeds_and_all_are_used(finished):
    result, _ = finished
    for s in result["scores"]:
        scarce = s["key"] in ("windows-0.25", "subjects-2")
        assert s["n"] == (3 if scarce else 1 if s["model"] == "hand features" else 2)
    rows = [r for r in result["rows"] if (r["model"], r["key"], r["fold"]) == ("first", "subjects-2", 0)]
    assert [(r["seed"], r["draws"]) for r in rows] == [(0, 2), (1, 1)]


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(corpus, finished, tmp_path, monkeypatch):
    whole, _ = finished
    do, count = module.do, []

    def killed(job, common):
        count.append(job.name)
        if len(count) == 4:
            raise KeyboardInterrupt
        return do(job, common)

    monkeypatch.setattr(module, "do", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(two_recipes(), corpus, "group", out=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out" / "compare.json").exists()
    result = compare(two_recipes(), corpus, "group", out=tmp_path / "out", **SETTINGS)
    assert len(count) == len(set(count)) + 1  # the job at hand was done twice, no other
    assert numbers(result) == numbers(whole)


def test_jobs_side_by_side_give_the_numbers_of_one_after_the_other(corpus, tmp_path, capfd):
    """Runs are trained in processes of their own, on fold splits that are in memory only."""
    rows, parts, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    found = []
    for n in (1, 2):
        recipe = for_budget(small_recipe(), 4, 0)
        common = jobs.Common(rows, parts, [jobs.ALL], [], [0], 1, "mean", (), tmp_path / f"{n}", recipe)
        work = jobs.make_jobs(common, [[recipe]], [[[(f.corpus, 1.0)]] for f in parts], corpus, "group")
        # the trained baselines, made small for these tests, would be of full size in another process
        work = [j for j in work if j.model in (recipe.name, jobs.RANDOM)]
        assert module._work(work, common, n).keys() == {j.name for j in work}
        found.append([jobs.predictions(j, common) for j in work])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)
    said = capfd.readouterr().err
    assert "compare: 4 of 4 jobs done: " in said and f"job 1 of 4: {small_recipe().name}, seed 0, fold 0" in said


def test_a_finished_comparison_is_read_and_another_request_is_refused(corpus, finished):
    result, out = finished
    assert compare(two_recipes(), corpus, "group", out=out, **SETTINGS)["date"] == result["date"]
    with pytest.raises(RequestError, match="another comparison.*'seeds' differs.*--overwrite"):
        compare(two_recipes(), corpus, "group", out=out, **SETTINGS | {"seeds": [0]})


def test_paired_differences_equal_a_slow_bootstrap(corpus, finished):
    """The interval over subjects and seeds, resample by resample, from the predictions on disk."""
    result, out = finished
    folds, arrays = [], {}
    for file in (out / "jobs").glob("*.json"):
        plan = json.loads(file.read_text())["plan"]
        with np.load(file.with_suffix(".npz")) as table:
            key = "network|windows-1" if plan["model"] == "from scratch" else "linear|windows-1"
            if plan["model"] in ("first", "from scratch"):
                arrays[plan["model"], plan["seed"], plan["split"]] = table[key][0].astype(float)
    rows, folds, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    at = np.concatenate([f.judged for f in folds])
    y, subject = rows.target.y[at], rows.subject[at]
    ours, theirs = ([np.concatenate([arrays[m, s, f.split] for f in folds]) for s in (0, 1)] for m in ("first", "from scratch"))
    weights = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=2000)
    names, code = np.unique(subject, return_inverse=True)
    each = np.empty((2000, 2))
    for r in range(2000):
        some = np.concatenate(
            [np.repeat(np.flatnonzero(code == k), 1)[None].repeat(weights[r, k], 0).ravel() for k in range(len(names))]
        )
        for s in (0, 1):
            each[r, s] = f1(y[some], ours[s][some].argmax(1)) - f1(y[some], theirs[s][some].argmax(1))
    pick = np.random.default_rng([0, 1]).integers(0, 2, (2000, 2))
    spread = np.take_along_axis(each, pick, 1).mean(1)
    low, high = np.nanpercentile(spread, [2.5, 97.5])  # resamples of one class are left out
    found = next(
        d
        for d in result["paired"]
        if (d["model"], d["minus"], d["key"], d["head"]) == ("first", "from scratch", "windows-1", "linear")
    )
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def f1(y, p):
    if len(np.unique(y)) < 2:
        return np.nan
    return np.mean([2 * ((y == k) & (p == k)).sum() / ((y == k).sum() + (p == k).sum()) for k in np.unique(y)])


def test_differences_are_those_of_the_printed_scores(finished):
    result, _ = finished
    for d in result["paired"]:
        ours, theirs = value(result, d["model"], d["head"], d["key"]), value(result, d["minus"], d["minus_head"], d["key"])
        assert d["value"] == pytest.approx(ours["value"] - theirs["value"])
    for key in ("windows-1", "windows-0.25", "subjects-2"):
        pairs = {(d["model"], d["minus"]) for d in result["paired"] if d["key"] == key and d["head"] == "linear"}
        assert {(m, b) for m in MODELS[:2] for b in MODELS[2:]} < pairs
        best = max(MODELS[:2], key=lambda m: value(result, m, "linear", key)["value"])
        assert [(a, b) for a, b in pairs if b in MODELS[:2]] == [(best, MODELS[best == MODELS[0]])]


def test_budget_rank_identity_and_cost_are_there(finished):
    result, out = finished
    assert [r["steps"] for r in result["recipes"]] == [4, 4] and all(r["flops_per_step"] > 0 for r in result["recipes"])
    for m in result["models"]:
        frozen = m["model"] not in ("MiniRocket", "from scratch")
        assert (m["rankme"] is not None) == frozen and set(m["identity"]) == ({"subject", "site"} if frozen else set())
        assert (m["parameters"] is not None) == (m["model"] in MODELS[:2])
    rows = list(csv.DictReader((out / "compare.csv").open()))
    assert len(rows) == len(result["rows"]) and {"model", "seed", "fold", "head", "axis", "amount", "value"} <= set(rows[0])
    assert json.loads((out / "compare.json").read_text())["rows"] == result["rows"]
    assert not list(out.glob("runs/*/checkpoints"))


def test_only_a_judged_test_part_is_an_opening(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", modality="imu", n_subjects=12, windows_per_subject=4, n_samples=128)
    common = {"steps": 2, "fractions": [1.0], "n_subjects": [], "draws": 1}
    inside = compare([small_recipe()], corpus, "group", out=tmp_path / "a", folds=2, within="train", **common)
    assert "ledger" not in inside and not openings(corpus.path)
    subjects = set(corpus.index["subject"][corpus.split("official") == "train"])
    assert sum(f["judged"]["subjects"] for f in inside["folds"]) == len(subjects)
    test = compare([small_recipe()], corpus, "group", out=tmp_path / "b", **common)
    assert test["ledger"]["openings"] == 1 and openings(corpus.path)[0]["verb"] == "compare"
    compare([small_recipe()], corpus, "group", out=tmp_path / "b", **common)
    assert len(openings(corpus.path)) == 1  # read again, not judged again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1, 1]}, "--seeds 1 1"),
        ({"steps": 5, "flops": 1e9}, "one budget at a time"),
        ({"steps": None, "flops": 10.0}, "less than one step of first"),
        ({"draws": 0}, "--draws 0"),
        ({"folds": None}, "no split; give --folds"),
        ({"folds": 9}, "--folds 9: choose 2 to 8"),
        ({"within": "train"}, "--within train: needs a split"),
        ({"fractions": [2.0]}, "--fractions 2"),
        ({"n_subjects": [5]}, "--n-subjects 5: the training part has 4"),
        ({"identity": ["scanner"]}, "--identity scanner"),
        ({"corrupt": ["rain"]}, "--corrupt rain: choose among lead_off"),
        ({"pool": "median"}, "pool 'median'"),
        ({"n_jobs": 0}, "--jobs 0: give 1 or more"),
        ({"n_jobs": 2, "steps": None, "seconds": 1.0}, "--jobs 2: --seconds times one pretraining"),
    ],
)
def test_a_request_that_cannot_be_meant_is_one_line(corpus, tmp_path, change, message):
    with pytest.raises(RequestError, match=message) as caught:
        compare(two_recipes(), corpus, "group", out=tmp_path / "out", **SETTINGS | change)
    assert "\n" not in str(caught.value)


def encoders(corpus, label, folds, out, monkeypatch):
    """One comparison in a folder; how many judged subjects the encoder of each fold was trained on, and who is judged."""
    used, frozen = [], jobs.load_encoder

    def remembered(folder):
        used.append(folder)
        return frozen(folder)

    monkeypatch.setattr(jobs, "load_encoder", remembered)
    request = {"steps": 2, "fractions": [1.0], "n_subjects": [], "draws": 1, "identity": [], "pool": "mean"}
    compare([small_recipe()], corpus, label, out=out, folds=folds, overwrite=True, **request)
    monkeypatch.undo()
    rows, parts, _ = make_folds(corpus, label, split=None, folds=folds, within=None)
    assert len(used) == len(parts)
    known = [
        seen(corpus, rows.index[f.judged], load_encoder(u).info["seen"]["subjects"]) for f, u in zip(parts, used, strict=True)
    ]
    return known, [frozenset(rows.subject[f.judged]) for f in parts]


def test_no_encoder_is_used_again_where_it_has_seen_a_judged_subject(tmp_path, monkeypatch):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=9, windows_per_subject=4, n_samples=128, splits={})
    runs = [encoders(corpus, label, k, tmp_path / "out", monkeypatch) for label, k in (("group", 2), ("group", 3), ("age", 2))]
    assert [known for known, _ in runs] == [[0, 0], [0, 0, 0], [0, 0]]
    judged = [held for _, each in runs for held in each]
    assert len(set(judged)) == 7  # the folds do differ, so nothing could be shared


def test_the_cost_of_a_step_is_that_of_this_corpus(tmp_path, corpus):
    other = make_corpus(tmp_path / "c", modality="imu", n_subjects=8, windows_per_subject=3, n_samples=64, splits={})
    folds = [make_folds(c, "group", split=None, folds=2, within=None)[1][0] for c in (corpus, other)]
    long, short = (module._cost(tmp_path / "out", small_recipe(), [(f.corpus, 1.0)], f.split, timed=False).flops for f in folds)
    assert short < long


def test_unequal_folds_and_all_subjects_of_the_smaller_one_are_joined(tmp_path):
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=9, windows_per_subject=4, n_samples=128, splits={})
    request = {"folds": 2, "steps": 2, "fractions": [1.0], "n_subjects": [4], "draws": 3, "identity": [], "pool": "mean"}
    result = compare([small_recipe()], corpus, "group", out=tmp_path / "out", **request)
    assert {s["n"] for s in result["scores"] if s["key"] == "subjects-4"} == {3}


def test_hand_features_are_paired_draw_by_draw_with_more_seeds_than_draws(tmp_path, monkeypatch):
    """Every model predicts the number of its draw; a pair is two predictions of one draw."""
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=6, windows_per_subject=2, n_samples=128, splits={})
    rows, parts, _ = make_folds(corpus, "group", split=None, folds=2, within=None)
    settings = [jobs.ALL, jobs.Setting("subjects", 1.0)]
    common = jobs.Common(rows, parts, settings, [], [5, 6, 7], 2, "mean", (), tmp_path, small_recipe())

    def drawn(job, common):
        mine = list(range(2)) if job.model == jobs.HAND else [d for p, d in jobs.pairs(2, common.seeds) if p == job.place]
        return {"linear|windows-1": np.zeros((1, 1)), "linear|subjects-1": np.array(mine)[:, None]}

    monkeypatch.setattr("biossl.compare.table.predictions", drawn)
    table, _ = gather(common, jobs.make_jobs(common, [[], [], []], [[], []], corpus, "group"))
    each = {m: [int(p[0]) for p in several] for (m, _, key), several in table.items() if key == "subjects-1"}
    assert set(map(tuple, each.values())) == {(0, 1, 0)}
    assert len(table[jobs.HAND, "linear", "windows-1"]) == 1


def test_fewer_channels_are_what_every_model_meets(tmp_path, corpus):
    few = small_recipe(data__channels="[gyro_y, acc_x]")
    request = {"folds": 2, "steps": 2, "fractions": [1.0], "n_subjects": [], "draws": 1, "identity": [], "pool": "mean"}
    result = compare([few], corpus, "group", out=tmp_path / "out", corrupt=["lead_off"], **request)
    whole = compare([small_recipe()], corpus, "group", out=tmp_path / "whole", **request)
    width = [next(m["features"] for m in r["models"] if m["model"] == "hand features") for r in (result, whole)]
    assert width[0] < width[1]
    with pytest.raises(RequestError, match="lead_off: one channel"):
        one = small_recipe(data__channels="[acc_x]")
        compare([one], corpus, "group", out=tmp_path / "one", corrupt=["lead_off"], **request)


def test_an_opening_is_counted_once_when_the_table_was_not_written(tmp_path, monkeypatch):
    corpus = make_corpus(tmp_path / "corpus", modality="imu", n_subjects=12, windows_per_subject=4, n_samples=128)
    request = {"steps": 2, "fractions": [1.0], "n_subjects": [], "draws": 1, "identity": [], "pool": "mean"}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_write", killed)
        compare([small_recipe()], corpus, "group", out=tmp_path / "a", **request)
    assert len(openings(corpus.path)) == 1
    result = compare([small_recipe()], corpus, "group", out=tmp_path / "a", **request)
    assert result["ledger"]["openings"] == len(openings(corpus.path)) == 1
    compare([small_recipe()], corpus, "group", out=tmp_path / "b", **request)
    assert len(openings(corpus.path)) == 2  # computed anew: another look
