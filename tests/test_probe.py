"""A probe judges the same rows for every model, refuses seen subjects, records openings, and says what it cannot do."""

import json

import numpy as np
import pytest
from corpus_factory import make_corpus
from probe_factory import make_run, small_encoder

from biossl import metrics
from biossl import probe as module
from biossl.checkpoint import save_encoder
from biossl.corpus import Corpus, add_labels, add_split, make_split, subject_keys
from biossl.errors import DataError, RequestError
from biossl.probe import probe
from biossl.probe_text import as_text, interval, verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def result(run):
    folder, corpus = run
    return probe(folder, corpus, "group", layers="all", pool="mean+std")


def main(result, model="pretrained", head="linear"):
    return next(m for m in result["models"] if m["model"] == model and m["head"] == head)


def test_every_model_is_judged_on_the_same_rows_with_intervals(result):
    assert result["counts"]["train"]["subjects"] == 12 and result["counts"]["judged"]["subjects"] == 6
    names = {(m["model"], m["head"]) for m in result["models"]}
    models = ("pretrained", "random-initialised", "hand features", "age and sex")
    assert names == {(m, h) for m in models for h in ("linear", "kNN")}
    for entry in result["models"]:
        f1 = entry["scores"]["macro_f1"]
        assert f1["low"] <= f1["value"] <= f1["high"] and f1["n_subjects"] == 6
    assert main(result, "random-initialised")["n"] == module.N_RANDOM
    assert main(result, "hand features")["scores"]["macro_f1"]["value"] > 0.9  # the rate of the rhythm is the group
    assert {(d["minus"], d["head"]) for d in result["paired"]} == {(m, h) for m in models[1:] for h in ("linear", "kNN")}


def test_paired_difference_is_the_difference_of_the_printed_scores(result):
    for d in result["paired"]:
        other = main(result, d["minus"], d["head"])["scores"]["macro_f1"]["value"]
        mine = main(result, "pretrained", d["head"])["scores"]["macro_f1"]["value"]
        assert d["value"] == pytest.approx(mine - other)


def test_few_test_subjects_get_a_cross_validation_beside_that_says_who_was_seen(result):
    cross = result["cross_validation"]
    assert cross["counts"]["subjects"] == 18 and cross["seen"] == 12
    assert [m["model"] for m in cross["models"]] == ["pretrained", "random-initialised", "hand features"]


def test_layers_confusion_and_classes_belong_to_the_judged_rows(result):
    assert [r["layer"] for r in result["layers"]] == [0, 1]
    assert np.sum(result["confusion"]) == 24 and sum(r["n"] for r in result["per_class"]) == 24
    assert len(result["per_subject"]["each"]) == 6


def test_the_result_is_kept_in_the_run_and_is_strict_json(run, result):
    folder, corpus = run
    file = folder / "probes" / "corpus-group-thirds-mean+std.json"
    assert result["out"] == str(file)
    stored = json.loads(file.read_text(), parse_constant=lambda c: pytest.fail(c))
    assert stored["paired"] == result["paired"]
    with pytest.raises(RequestError, match="exists; give another --out or add --overwrite"):
        probe(folder, corpus, "group", pool="mean+std")


def test_each_opening_of_the_test_part_is_in_the_ledger(run, result):
    _, corpus = run
    assert result["ledger"]["openings"] == 1
    entry = json.loads((corpus.path / "ledger.jsonl").read_text().splitlines()[0])
    assert entry["label"] == "group" and entry["encoder"] == result["encoder"]["hash"]
    assert entry["score"]["value"] == main(result)["scores"]["macro_f1"]["value"]


def test_the_text_says_what_to_know(result):
    text = as_text(result)
    for words in (
        "seen in pretraining: 0 of the 6 judged subjects", "random-initialised (mean of 3)", "pretrained - hand features",
        "cross-validation grouped by subject over all 18 subjects", "test openings of this label so far: 1", "macro F1",
    ):  # fmt: skip
        assert words in text
    assert all(len(line) < 250 for line in text.splitlines())


def test_equal_seeds_give_equal_results(run, result, tmp_path):
    folder, corpus = run
    again = probe(folder, corpus, "group", pool="mean+std", out=tmp_path / "again.json")
    assert again["models"] == result["models"] and again["paired"] == result["paired"]


def test_the_linear_probe_equals_scikit_learn_on_the_same_features(run, result):
    """The whole way from corpus to score, written out: nothing of the test part enters scaling, choice or fit."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import StandardScaler

    from biossl.checkpoint import load_encoder
    from biossl.inference import embed_corpus

    folder, corpus = run
    z = embed_corpus(load_encoder(folder), corpus, pool="mean+std")
    y = corpus.labels("group").values[:, 0]
    part = corpus.split("thirds").to_numpy()
    train, test = part == "train", part == "test"
    scale = StandardScaler().fit(z[train])
    c = main(result)["setting"]
    fit = LogisticRegression(C=c, max_iter=1000).fit(scale.transform(z[train]), y[train])
    expect = f1_score(y[test], fit.predict(scale.transform(z[test])), average="macro")
    assert main(result)["scores"]["macro_f1"]["value"] == pytest.approx(expect, abs=1e-9)


def test_an_encoder_that_has_seen_judged_subjects_is_refused(run, tmp_path):
    folder, corpus = run
    saw = save_encoder(small_encoder(corpus), tmp_path / "saw", seen={"subjects": subject_keys(corpus, np.arange(len(corpus)))})
    with pytest.raises(DataError, match="has seen 6 of the 6 subjects .*--allow-seen"):
        probe(saw, corpus, "group")
    done = probe(saw, corpus, "group", allow_seen=True, baselines=False)
    assert done["seen"] == {"subjects": 6, "of": 6} and any("has seen 6" in n for n in done["notes"])
    assert done["out"] == "" and done["paired"] == []


def test_scarce_labels_draw_windows_or_subjects(run, tmp_path, monkeypatch):
    folder, corpus = run
    monkeypatch.setattr(module, "N_DRAWS", 6)
    some = probe(folder, corpus, "group", labels_fraction=0.25, out=tmp_path / "w.json")
    entry = main(some)
    assert entry["n"] == module.N_DRAWS and entry["scores"]["macro_f1"]["min"] < entry["scores"]["macro_f1"]["max"]
    assert "cross_validation" not in some and some["counts"]["draws"] == 6
    two = probe(folder, corpus, "group", n_subjects=2, out=tmp_path / "s.json")
    assert main(two, "hand features")["scores"]["macro_f1"]["value"] < main(some, "hand features")["scores"]["macro_f1"]["value"]
    every = probe(folder, corpus, "group", n_subjects=12, out=tmp_path / "all.json", baselines=False)
    assert main(every)["n"] == 1


@pytest.mark.parametrize("label, metric", [("findings", "macro_auroc"), ("age", "r2"), ("state", "macro_f1")])
def test_other_kinds_of_label_are_judged_by_their_own_metric(run, tmp_path, label, metric):
    folder, corpus = run
    done = probe(folder, corpus, label, baselines=False, out=tmp_path / "r.json")
    assert done["metric"] == metric and done["counts"]["train"]["windows"] > 0
    if label == "findings":  # records without a known code are left out, not negative
        assert done["counts"]["train"]["windows"] + done["counts"]["judged"]["windows"] == 56
        assert any("have no known 'findings'" in n for n in done["notes"])
    as_text(done)


def test_a_column_of_0_and_1_is_judged_by_auroc_and_auprc_of_1(run, tmp_path):
    from sklearn.metrics import average_precision_score, roc_auc_score

    folder, corpus = run
    rows = "".join(f"s{i:03d},{int(i % 4 == 0)}\n" for i in range(18))
    (tmp_path / "l.csv").write_text("subject,low_ef\n" + rows)
    assert add_labels(corpus, tmp_path / "l.csv", key="subject", name="low_ef")["kind"] == "binary"
    done = probe(folder, corpus, "low_ef", baselines=False, out=tmp_path / "r.json")
    assert (done["kind"], done["metric"], done["classes"]) == ("binary", "auroc", ["low_ef"])
    assert done["counts"]["judged"]["positive"] == 4 and list(main(done)["scores"]) == ["auroc", "auprc"]
    text = as_text(done)
    assert "(4 positive)" in text and "AUROC and AUPRC are of class low_ef" in text
    assert "AUROC" in text and "AUPRC" in text and "macro" not in text
    target = module.labelled_rows(corpus, "low_ef", "thirds")[0]
    judged, train = target.where("test"), target.where("train")
    x = module.embed_corpus(module.load_encoder(folder / "encoder"), corpus, target.index)
    p = module.protocol.linear(x[train], target.target.take(train), target.subject[train], x[judged]).prediction[:, 0]
    y = target.target.y[judged, 0]
    assert main(done)["scores"]["auroc"]["value"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert main(done)["scores"]["auprc"]["value"] == pytest.approx(average_precision_score(y, p), abs=1e-9)


def test_the_only_split_is_used_and_named(run, tmp_path):
    folder, corpus = run
    done = probe(folder, corpus, "group", baselines=False, out=tmp_path / "r.json")
    assert done["split"] == "thirds" and "corpus: split 'thirds' is used, the only one" in done["notes"]
    named = probe(folder, corpus, "group", split="thirds", baselines=False, out=tmp_path / "n.json")
    assert named["models"] == done["models"] and not any("the only one" in n for n in named["notes"])


def test_without_a_split_all_rows_are_cross_validated_by_subject(tmp_path):
    corpus = make_corpus(tmp_path / "c", n_subjects=8, n_channels=2, windows_per_subject=4, n_samples=400, splits={})
    encoder = save_encoder(small_encoder(corpus), tmp_path / "e")
    done = probe(encoder, corpus, "group")
    assert done["split"] is None and done["part"] == "cross-validation"
    assert done["counts"]["judged"] == {"windows": 32, "records": 8, "subjects": 8, "classes": {"slow": 16, "fast": 16}}
    assert main(done, "hand features")["scores"]["accuracy"]["value"] > 0.9
    assert done["ledger"]["openings"] == 1
    with pytest.raises(RequestError, match="scarce labels need a split"):
        probe(encoder, corpus, "group", labels_fraction=0.5)
    saw = save_encoder(small_encoder(corpus), tmp_path / "saw", seen={"subjects": subject_keys(corpus, [0])})
    with pytest.raises(DataError, match="has seen 1 of the 8"):
        probe(saw, corpus, "group")


def test_faults_of_labels_and_splits_are_one_line(tmp_path):
    corpus = make_corpus(tmp_path / "c", n_subjects=6, n_channels=2, windows_per_subject=2)
    encoder = save_encoder(small_encoder(corpus), tmp_path / "e")

    def csv(name, lines):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / f"{name}.csv"

    with pytest.raises(DataError, match="no label 'gruop'; did you mean 'group'"):
        probe(encoder, corpus, "gruop")
    add_labels(corpus, csv("one", ["subject,one", *(f"s00{i},yes" for i in range(5)), "s005,no"]), key="subject", name="one")
    with pytest.raises(DataError, match="every labelled training window is 'yes'"):
        probe(encoder, corpus, "one")
    add_labels(corpus, csv("few", ["subject,few", "s000,a", "s001,b", "s003,a"]), key="subject", name="few")
    with pytest.raises(
        DataError, match="no labelled window in part 'test' of split 'official'; labelled parts: train; its splits: official"
    ):
        probe(encoder, corpus, "few")
    with pytest.raises(DataError, match="no split 'offical'; did you mean 'official'"):
        probe(encoder, corpus, "group", split="offical")
    with pytest.raises(RequestError, match="choose test or val"):
        probe(encoder, corpus, "group", part="train")
    with pytest.raises(RequestError, match="two axes"):
        probe(encoder, corpus, "group", labels_fraction=0.5, n_subjects=2)
    with pytest.raises(RequestError, match="pool 'sum'"):
        probe(encoder, corpus, "group", pool="sum")
    wrong = make_corpus(tmp_path / "wrong", n_subjects=6, n_channels=2, n_samples=300)
    with pytest.raises(DataError, match="n_samples: 200 here, 300 there"):
        probe(encoder, wrong, "group")


def test_a_part_of_one_class_is_refused_before_it_is_opened(tmp_path):
    corpus = make_corpus(tmp_path / "c", n_subjects=6, n_channels=2, windows_per_subject=4)  # test is one subject, 'fast'
    encoder = save_encoder(small_encoder(corpus), tmp_path / "e")
    for label, what in (("group", "one class"), ("age", "one value")):
        with pytest.raises(DataError, match=f"label '{label}' has {what} only in part 'test' of split 'official'.*--folds 3"):
            probe(encoder, corpus, label, baselines=False)
    assert not (corpus.path / "ledger.jsonl").exists()
    done = probe(encoder, corpus, "state", baselines=False)  # both classes in the one subject
    assert any("1 judged subjects" in n for n in done["notes"])


def test_of_two_classes_auroc_and_auprc_look_for_the_second(run, result):
    from sklearn.metrics import average_precision_score, roc_auc_score

    assert result["classes"] == ["slow", "fast"] and "AUROC and AUPRC are of class fast" in as_text(result)
    folder, corpus = run
    rows = module.labelled_rows(corpus, "group", "thirds")[0]
    judged, train = rows.where("test"), rows.where("train")
    x = module.embed_corpus(module.load_encoder(folder / "encoder"), corpus, rows.index, pool="mean+std")
    for head in ("linear", "kNN"):
        p = module.protocol.HEADS[head](x[train], rows.target.take(train), rows.subject[train], x[judged]).prediction[:, 1]
        scores, y = main(result, head=head)["scores"], rows.target.y[judged] == 1
        assert list(scores) == ["macro_f1", "accuracy", "balanced_accuracy", "auroc", "auprc"]
        assert scores["auroc"]["value"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
        assert scores["auprc"]["value"] == pytest.approx(average_precision_score(y, p), abs=1e-9)


def test_resamples_of_one_class_are_dropped_and_counted(result):
    f1, right = (main(result)["scores"][m] for m in ("macro_f1", "accuracy"))
    lost = metrics.N_RESAMPLES - f1["n_resamples"]
    assert 0 < lost < 200 and right["n_resamples"] == metrics.N_RESAMPLES  # 6 subjects, 3 of each class: 2 * 2 ** -6
    assert any(f"{lost} of 2,000 resamples of the subjects held one class" in n for n in result["notes"])


def test_a_split_with_folds_names_the_fold_that_is_judged(tmp_path):
    corpus = make_corpus(tmp_path / "c", n_subjects=12, n_channels=2, windows_per_subject=2, n_samples=400, splits={})
    encoder = save_encoder(small_encoder(corpus), tmp_path / "e")
    make_split(corpus, "cv", folds=3, stratify="group")
    only = as_text(probe(encoder, corpus, "group", part="val", baselines=False))
    assert "c: split 'cv' is used, the only one; split cv: fold 0 of 3; --splits cv:1 is another" in only
    make_split(corpus, "other", folds=3, stratify="group")
    done = probe(encoder, corpus, "group", split="cv", baselines=False)
    text = as_text(done)
    assert done["split"] == "cv:0" and "split cv fold 0, judged on test" in text
    assert "note: split cv: fold 0 of 3; --splits cv:1 is another" in text
    probe(encoder, corpus, "group", split="cv:0", baselines=False)
    again = probe(encoder, corpus, "group", split="other:2", baselines=False)
    assert again["ledger"]["openings"] == 3 and again["ledger"]["this_split"] == 1  # another split is no fresh test
    assert "test openings of this label so far: 3, 1 on this split" in as_text(again)
    with pytest.raises(RequestError, match="folds 0 to 2, not 7"):
        probe(encoder, corpus, "group", split="cv:7")


def test_a_cross_validation_over_seen_subjects_is_marked_as_optimistic(result):
    text = as_text(result)
    assert "over all 18 subjects; 12 of them were seen, unlabelled, in pretraining: optimistic" in text
    above, below = text.split("cross-validation grouped")
    assert "(optimistic)" not in above
    lines = [line for line in below.splitlines() if line.startswith("pretrained - ")]
    assert lines and all(line.endswith(" (optimistic)") for line in lines)


@pytest.mark.parametrize(
    "value, low, high, text",
    [
        (-0.0004, -0.0008, -0.0001, "+0.000 [-0.001, +0.000], no difference shown"),
        (-0.0364, -0.0729, -0.0003, "-0.036 [-0.073, +0.000], no difference shown"),
        (0.0004, 0.0006, 0.0006, "+0.000 [+0.001, +0.001], no difference worth naming"),
        (-0.02, -0.03, -0.01, "-0.020 [-0.030, -0.010], worse"),
        (0.02, -0.01, 0.03, "+0.020 [-0.010, +0.030], no difference shown"),
        (0.02, 0.01, 0.03, "+0.020 [+0.010, +0.030], better"),
    ],
)
def test_the_words_do_not_contradict_the_digits(value, low, high, text):
    d = {"value": value, "low": low, "high": high}
    assert interval(d, signed=True) + verdict(d) == text


def test_several_splits_without_an_official_one_must_be_named(run, tmp_path):
    corpus = make_corpus(tmp_path / "c", n_subjects=6, n_channels=2, windows_per_subject=2, splits={})
    for name in ("a", "b"):
        (tmp_path / "p.csv").write_text("subject,part\ns000,train\ns001,train\ns002,test\n")
        add_split(corpus, tmp_path / "p.csv", name=name)
    encoder = save_encoder(small_encoder(corpus), tmp_path / "e")
    with pytest.raises(RequestError, match=r"several splits \(a, b\)"):
        probe(encoder, Corpus.open(corpus.path), "group")


def test_random_encoders_differ_by_seed_and_leave_torch_alone(run):
    import torch

    _, corpus = run
    encoder = small_encoder(corpus)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two, again = (module.random_encoder(encoder, s) for s in (0, 1, 0))
    assert torch.equal(before, torch.random.get_rng_state())
    x = torch.randn(2, 2, 400)
    assert torch.equal(one.embed(x), again.embed(x)) and not torch.allclose(one.embed(x), two.embed(x))


@pytest.mark.data
def test_age_and_sex_alone_reach_what_was_measured_on_ptbxl(data_root, tmp_path):
    """Macro AUROC 0.766 of age and sex on fold 8 (measured with other tools): no encoder is judged without it."""
    from biossl import protocol
    from biossl.corpus import convert
    from biossl.corpus.card import load_card

    convert(load_card("ptbxl"), data_root / "ptbxl_subset", tmp_path / "c", view="resting", partial=True)
    corpus = Corpus.open(tmp_path / "c")
    rows, _ = module.labelled_rows(corpus, "superclass", "subset")
    x = module.age_and_sex(corpus)[rows.index]
    train, test = rows.where("train"), rows.where("test")
    f = protocol.linear(x[train], rows.target.take(train), rows.subject[train], x[test])
    assert metrics.score(rows.target.y[test], f.prediction, "macro_auroc") == pytest.approx(0.766, abs=0.02)
