"""Fine-tuning once a fold and once a seed: who is judged by whom, what is kept after a kill, figures against slow versions."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from corpus_factory import make_corpus
from run_toys import forks
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from biossl import protocol
from biossl.baselines import corpus_features
from biossl.cli import main
from biossl.config import dump_yaml, load_yaml
from biossl.corpus import Corpus, make_split
from biossl.downstream import folds as module
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.downstream.foldrun import read_folds
from biossl.downstream.folds import finetune_folds
from biossl.downstream.folds_text import as_text
from biossl.downstream.model import load_model, make_task
from biossl.downstream.predictions import predict
from biossl.errors import DataError, RequestError
from biossl.ledger import openings
from biossl.report.run_page import write_report

KW: dict[str, Any] = {"mode": "frozen", "steps": 4, "split": "cv"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four windows of each of 12 subjects, in three folds that hold both groups."""
    made = make_corpus(
        tmp_path_factory.mktemp("folds") / "imu",
        modality="imu",
        n_subjects=12,
        windows_per_subject=4,
        n_samples=128,
        n_channels=3,
    )
    made.prepare()
    make_split(made, "cv", folds=3, stratify="group")
    return Corpus.open(made.path)


@pytest.fixture(scope="module")
def crossed(encoder: Path, site: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune_folds(encoder, site, "state", tmp_path_factory.mktemp("cv") / "run", folds=True, seeds=[0, 1], **KW)


@pytest.fixture(scope="module")
def result(crossed: Path, site: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(crossed, site, out=tmp_path_factory.mktemp("judged") / "a")


@pytest.fixture(scope="module")
def table(result: dict[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(Path(result["out"]) / "predictions.parquet")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "weights.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(v, right[k]) for k, v in left.items())


def test_every_row_is_judged_once_a_seed_by_the_fold_that_held_it_out(table: pd.DataFrame, site: Corpus) -> None:
    assert len(table) == 2 * len(site)
    for _, mine in table.groupby("seed"):
        assert (mine["record"] + mine["start_s"].astype(str)).is_unique
        held = {s: k for k in range(3) for s in site.index["subject"][site.split(f"cv:{k}") == "test"]}
        assert (mine["fold"] == mine["subject"].map(held)).all()


def test_a_fold_is_the_training_one_would_get_by_naming_it(crossed: Path, encoder: Path, site: Corpus, tmp_path: Path) -> None:
    alone = finetune(encoder, site, "state", tmp_path / "run", mode="frozen", steps=4, split="cv:1", seed=1)
    assert same(alone, crossed / "seed-1" / "fold-1")
    about = load_model(alone).about
    assert about["choices"] == load_model(crossed / "seed-1" / "fold-1").about["choices"]


def test_seeds_and_folds_differ(crossed: Path) -> None:
    assert not same(crossed / "seed-0" / "fold-0", crossed / "seed-1" / "fold-0")
    assert not same(crossed / "seed-0" / "fold-0", crossed / "seed-0" / "fold-1")
    a, b = (weights(crossed / f"seed-{s}" / "fold-0") for s in (0, 1))
    encoder = [k for k in a if k.startswith("encoder.")]
    assert encoder and all(torch.equal(a[k], b[k]) for k in encoder)  # frozen: a seed is the head's alone


def test_scores_are_means_over_seeds_of_the_pooled_rows(result: dict[str, Any], table: pd.DataFrame) -> None:
    each = {}
    for seed, mine in table.groupby("seed"):
        said = mine[["p_rest", "p_work"]].to_numpy().argmax(1)
        each[seed] = ((mine["y"] == "work").to_numpy().astype(int), said, mine["subject"].to_numpy())
    f1 = [f1_score(t, s, average="macro") for t, s, _ in each.values()]
    found = result["scores"]["macro_f1"]
    assert found["value"] == pytest.approx(np.mean(f1), abs=1e-9)
    assert (found["min"], found["max"]) == pytest.approx((min(f1), max(f1)), abs=1e-9)
    assert [s["value"] for s in found["seeds"]] == pytest.approx(f1, abs=1e-9) and found["n_subjects"] == 12
    own = {
        who: np.mean([balanced_accuracy_score(t[w == who], s[w == who]) for t, s, w in each.values()])
        for who in set(table["subject"])
    }
    mean = result["subject_means"]["balanced_accuracy"]
    assert mean["value"] == pytest.approx(np.mean(list(own.values())), abs=1e-9) and mean["low"] <= mean["value"] <= mean["high"]
    assert {s["subject"]: s["balanced_accuracy"]["value"] for s in result["per_subject"]} == pytest.approx(own, abs=1e-9)
    for fold in result["folds"]:
        some = table[table["fold"] == fold["fold"]]
        by_seed = [
            f1_score(m["y"] == "work", m[["p_rest", "p_work"]].to_numpy().argmax(1), average="macro")
            for _, m in some.groupby("seed")
        ]
        assert fold["macro_f1"]["value"] == pytest.approx(np.mean(by_seed), abs=1e-9) and fold["subjects"] == 4
    assert np.sum(result["confusion"]) == len(table)
    first = each[0]
    assert result["scores"]["accuracy"]["seeds"][0]["value"] == pytest.approx(accuracy_score(first[0], first[1]), abs=1e-9)


def test_simple_models_are_fitted_in_each_fold_on_its_training_rows(result: dict[str, Any], site: Corpus) -> None:
    """Hand features against the same head fitted fold by fold, slowly."""
    task = make_task(site, "state")
    y, who = task.values[:, 0], site.index["subject"].to_numpy().astype(str)
    x, said = corpus_features(site, np.arange(len(site)))[0], np.full(len(site), -1)
    for k in range(3):
        part = site.split(f"cv:{k}").to_numpy().astype(str)
        a, b = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
        target = protocol.Target("multiclass", y[a].astype(float), task.classes)
        said[b] = protocol.linear(x[a], target, who[a], x[b], seed=0).prediction.argmax(1)
    rivals = {r["model"]: r for r in result["rivals"]}
    assert {"hand features", "hand features, forest", "MiniRocket", "gravity alone"} <= set(rivals)
    expected = f1_score(y, said, average="macro")
    assert rivals["hand features"]["score"]["value"] == pytest.approx(expected, abs=1e-9)
    for rival in rivals.values():
        gap = result["scores"]["macro_f1"]["value"] - rival["score"]["value"]
        assert rival["minus"]["value"] == pytest.approx(gap, abs=1e-9) and rival["minus"]["low"] <= gap <= rival["minus"]["high"]


def test_the_printed_form_has_every_figure(result: dict[str, Any]) -> None:
    text = as_text(result)
    for rival in result["rivals"]:
        assert rival["model"] in text and f"{rival['minus']['value']:+.3f}" in text
        assert f"{rival['subject_means']['balanced_accuracy']['minus']['value']:+.3f}" in text
    for entry in [*result["per_subject"], *result["folds"]]:
        found = entry["macro_f1"] if "macro_f1" in entry else entry["balanced_accuracy"]
        assert f"{found['value']:.3f}" in text and f"{found['min']:.3f} to {found['max']:.3f}" in text
    assert "6 locked models (2 seeds)" in text and "this model minus that" in text and "locked minus simple" in text


def test_held_out_labels_change_no_choice(crossed: Path, encoder: Path, site: Corpus, tmp_path: Path) -> None:
    """Steps, calibration, thresholds and weights of a fold are the same when the labels of its held-out people are shuffled."""
    task = make_task(site, "state")
    values = task.values.copy()
    held = np.flatnonzero(site.split("cv:2") == "test")
    values[held] = np.random.default_rng(0).permutation(1 - values[held])
    assert not np.array_equal(values, task.values)
    other = finetune_folds(encoder, site, replace(task, values=values), tmp_path / "run", folds=True, **KW)
    a, b = (load_yaml(f / "model" / "model.yaml") for f in (crossed / "seed-0" / "fold-2", other / "fold-2"))
    assert {k: a[k] for k in ("choices", "inner", "trained", "lock", "weights")} == {
        k: b[k] for k in ("choices", "inner", "trained", "lock", "weights")
    }
    assert not same(crossed / "seed-0" / "fold-0", other / "fold-0")  # where they are trained on they matter


def test_one_opening_names_every_fold_and_seed(crossed: Path, site: Corpus, tmp_path: Path) -> None:
    before = len(openings(site.path, "state"))
    again = evaluate(crossed, site, out=tmp_path / "a", baselines=False)
    found = openings(site.path, "state")
    assert len(found) == before + 1 == again["ledger"]["openings"]
    entry = found[-1]
    assert entry["folds"] == [0, 1, 2] and entry["seeds"] == [0, 1] and len(entry["models"]) == 6
    assert entry["score"]["value"] == again["scores"]["macro_f1"]["value"]


def planted(crossed: Path, to: Path) -> Path:
    """Fold 0's folder holds the training of fold 1, and says that it is fold 0's."""
    shutil.copytree(crossed, to)
    shutil.rmtree(to / "seed-0" / "fold-0")
    shutil.copytree(to / "seed-0" / "fold-1", to / "seed-0" / "fold-0")
    return to


def test_a_model_that_has_seen_its_fold_is_refused(crossed: Path, site: Corpus, tmp_path: Path) -> None:
    run = planted(crossed, tmp_path / "run")
    with pytest.raises(DataError, match="its model says split cv:1, the folder stands for cv:0"):
        evaluate(run, site, out=tmp_path / "a", allow_seen=True)
    file = run / "seed-0" / "fold-0" / "model" / "model.yaml"
    file.write_text(dump_yaml(load_yaml(file) | {"split": "cv:0"}))  # and now it lies
    before = len(openings(site.path))
    with pytest.raises(DataError, match="seed-0/fold-0: model or encoder have seen 4 of the 4 subjects.*--allow-seen"):
        evaluate(run, site, out=tmp_path / "a")
    assert len(openings(site.path)) == before and not (tmp_path / "a").exists()
    flagged = evaluate(run, site, out=tmp_path / "b", allow_seen=True, baselines=False)
    assert flagged["seen"] == {"subjects": 4, "of": 12} and any("optimistic" in n for n in flagged["notes"])


def test_folds_that_were_made_anew_are_refused(crossed: Path, site: Corpus, tmp_path: Path) -> None:
    moved = tmp_path / "imu"
    shutil.copytree(site.path, moved)
    make_split(Corpus.open(moved), "cv", folds=3, stratify="group", seed=5, overwrite=True)
    with pytest.raises(DataError, match="split 'cv' of .* was changed since the training"):
        evaluate(crossed, moved, out=tmp_path / "a")


@forks
def test_killed_and_gone_on_with(encoder: Path, site: Corpus, crossed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def child() -> None:
        usual, calls = module.finetune, []

        def dying(*args: Any, **kw: Any) -> Path:
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(*args, **kw)

        module.finetune = dying  # type: ignore[assignment]
        finetune_folds(encoder, Corpus.open(site.path), "state", run, folds=True, seeds=[0], **KW)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(RequestError, match="1 of 3 models are not trained yet .seed-0/fold-2.; give the command"):
        evaluate(run, site, out=tmp_path / "a")
    when = (run / "seed-0" / "fold-0" / "model" / "model.yaml").stat().st_mtime_ns
    finetune_folds(encoder, site, "state", run, folds=True, seeds=[0, 1], **KW)  # a seed may be added
    assert (run / "seed-0" / "fold-0" / "model" / "model.yaml").stat().st_mtime_ns == when
    assert all(same(run / m.folder, crossed / m.folder) for m in read_folds(crossed).members)
    with pytest.raises(RequestError, match="'steps' differs.; give another --out, or --overwrite"):
        finetune_folds(encoder, site, "state", run, folds=True, seeds=[0, 1], **KW | {"steps": 5})
    with pytest.raises(RequestError, match="'seeds' differs"):
        finetune_folds(encoder, site, "state", run, folds=True, seeds=[1], **KW)


@pytest.mark.parametrize(
    ("kw", "says"),
    [
        ({"split": "official", "folds": True}, "--fold all: split 'official' of .* has no folds; make one with `biossl split"),
        ({"split": "cv:1", "folds": True}, "--splits cv:1: names one fold; give --splits cv for all, or leave --fold out"),
        ({"split": "cv", "seeds": [1, 1]}, "--seeds 1 1: give different numbers"),
        ({"split": "cv"}, "give --fold all or --seeds"),
    ],
)
def test_a_wrong_request_is_one_line(encoder: Path, site: Corpus, tmp_path: Path, kw: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        finetune_folds(encoder, site, "state", tmp_path / "x", **kw)
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()


def test_a_class_that_a_fold_cannot_learn_is_named_before_anything_is_trained(
    encoder: Path, site: Corpus, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "finetune", lambda *_, **__: None)
    task = make_task(site, "state")
    values, part = task.values.copy(), site.split("cv:0").to_numpy().astype(str)
    values[np.flatnonzero(part == "test")[:2], 0] = 2.0
    rare = replace(task, values=values, classes=("rest", "work", "odd"))
    finetune_folds(encoder, site, rare, tmp_path / "run", folds=True, **KW)
    said = capsys.readouterr().err
    assert "note: fold 0: no training window of odd, which its model cannot know" in said
    values[part != "test", 0] = 0.0
    with pytest.raises(DataError, match="every labelled training window is of one class"):
        finetune_folds(encoder, site, replace(rare, values=values), tmp_path / "other", folds=True, **KW)
    assert not (tmp_path / "other").exists()


def test_seeds_alone_judge_one_part_and_may_judge_another_site(encoder: Path, site: Corpus, tmp_path: Path) -> None:
    run = finetune_folds(encoder, site, "state", tmp_path / "run", seeds=[0, 1], scratch=True, steps=4, split="official")
    started = [load_model(run / f"seed-{k}").about["encoder_hash"] for k in (0, 1)]
    assert started == ["random-0", "random-1"]  # from scratch a seed is the encoder's as well
    found = evaluate(run, site, out=tmp_path / "a", baselines=False)
    test = int((site.split("official") == "test").sum())
    assert found["counts"]["windows"] == test and found["folds"] == [] and found["split"] == "official"
    assert len(pd.read_parquet(tmp_path / "a" / "predictions.parquet")) == 2 * test
    other = make_corpus(
        tmp_path / "b",
        modality="imu",
        n_subjects=4,
        windows_per_subject=4,
        n_samples=128,
        n_channels=3,
        splits={},
        seed=9,
        name="b",
    )
    assert evaluate(run, other, out=tmp_path / "c", baselines=False)["counts"]["windows"] == 16


def test_a_cross_validated_folder_judges_no_other_corpus_and_is_no_model(crossed: Path, site: Corpus, tmp_path: Path) -> None:
    other = make_corpus(
        tmp_path / "b",
        modality="imu",
        n_subjects=4,
        windows_per_subject=4,
        n_samples=128,
        n_channels=3,
        splits={},
        seed=9,
        name="b",
    )
    with pytest.raises(DataError, match="no fold was held out there. Take one of its models, e.g. .*seed-0/fold-0"):
        evaluate(crossed, other, out=tmp_path / "a")
    with pytest.raises(RequestError, match="leave out --splits and --part"):
        evaluate(crossed, site, part="val", out=tmp_path / "a")
    with pytest.raises(RequestError, match="an estimate, not a model; choose one of its models, e.g. .*seed-0/fold-0"):
        predict(crossed, site.path, tmp_path / "p.parquet")


def test_a_yes_no_label_is_decided_by_the_frozen_threshold_of_each_fold(encoder: Path, site: Corpus, tmp_path: Path) -> None:
    moved = tmp_path / "imu"
    shutil.copytree(site.path, moved)
    people = sorted(set(site.index["subject"]))
    (tmp_path / "l.csv").write_text("subject,sick\n" + "".join(f"{s},{i % 2}\n" for i, s in enumerate(people)))
    assert main(["label", str(moved), str(tmp_path / "l.csv"), "--key", "subject", "--name", "sick"]) == 0
    run = finetune_folds(encoder, Corpus.open(moved), "sick", tmp_path / "run", folds=True, **KW)
    found = evaluate(run, moved, out=tmp_path / "a", baselines=False)
    table = pd.read_parquet(tmp_path / "a" / "predictions.parquet")
    at = {k: load_model(run / f"fold-{k}").lock.points for k in range(3)}
    by = table["fold"].map({k: v["sick"].threshold if "sick" in v else 0.5 for k, v in at.items()})
    right = (table["p_sick"] >= by) == (table["y_sick"] == 1)
    assert found["subject_means"]["accuracy"]["value"] == pytest.approx(right.groupby(table["subject"]).mean().mean(), abs=1e-9)
    one = found["subject_means"]["balanced_accuracy"]
    assert one["value"] is None and "no subject's own rows" in one["reason"]  # each is of one class


@pytest.mark.parametrize(("label", "measures"), [("age", {"mae"}), ("findings", set())])
def test_other_kinds_of_label(label: str, measures: set[str], encoder: Path, site: Corpus, tmp_path: Path) -> None:
    run = finetune_folds(encoder, site, label, tmp_path / "run", folds=True, **KW)
    found = evaluate(run, site, out=tmp_path / "a", baselines=label == "age")
    known = int(make_task(site, label).known.sum())
    assert len(pd.read_parquet(tmp_path / "a" / "predictions.parquet")) == found["counts"]["windows"] == known
    assert found["scores"][found["metric"]]["value"] is not None and set(found["subject_means"]) == measures
    assert known == len(site) or f"{len(site) - known} windows have no known 'findings' and are left out" in found["notes"]


def test_the_verbs_with_scarce_labels_of_each_fold(encoder: Path, site: Corpus, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    base = ["finetune", str(encoder), str(site.path), "--label", "state", "--splits", "cv", "--steps", "4", "--mode", "frozen"]
    assert main([*base, "--fold", "all", "--seeds", "1", "--n-subjects", "3", "--out", str(run)]) == 0
    out = capsys.readouterr()
    assert "3 models in" in out.out and "biossl evaluate" in out.out and "seed 1, fold 2, 3 of 3" in out.err
    about = load_model(run / "seed-1" / "fold-0").about
    assert about["trained"]["subjects"] == 3 and about["seed"] == 1
    assert main(["evaluate", str(run), str(site.path), "--no-baselines"]) == 0
    text = capsys.readouterr().out
    assert "all 3 folds of split cv; 3 locked models (seed 1), mode frozen, nothing refitted" in text
    assert "balanced acc., mean over 12 subjects" in text and "beside it" not in text
    assert main(["evaluate", str(run), str(site.path), "--by", "group", "--out", str(tmp_path / "a")]) == 2
    assert re.search("--by: is for one model, .* holds several; take one, e.g. .*seed-1/fold-0", capsys.readouterr().err)
    assert main([*base, "--fold", "2", "--out", str(run)]) == 2
    assert "--fold 2: give all; one fold is --splits NAME:2" in capsys.readouterr().err
    assert main([*base, "--seed", "1", "--seeds", "1", "2", "--out", str(run)]) == 2
    assert "--seed 1 and --seeds: give one of them" in capsys.readouterr().err
    assert main(["predict", str(run), str(site.path), str(tmp_path / "p.parquet")]) == 2
    assert "cross-validated: an estimate, not a model" in capsys.readouterr().err


def test_the_page_shows_people_folds_and_seeds_without_names(crossed: Path, site: Corpus, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(crossed, run)
    assert write_report(run, tmp_path / "bare.html")["notes"] == []
    assert "It was not judged yet" in (tmp_path / "bare.html").read_text()
    found = evaluate(run, site, baselines=False)
    write_report(run)
    page = (run / "report.html").read_text()
    for value in (found["scores"]["macro_f1"], found["subject_means"]["balanced_accuracy"], found["folds"][1]["macro_f1"]):
        assert f"{value['value']:.3f}" in page and f"{value['min']:.3f} to {value['max']:.3f}" in page
    assert "Single subjects" in page and "Folds and seeds" in page and "It is an estimate, not a model" in page
    assert not any(f">{s}<" in page for s in set(site.index["subject"]))
    file = Path(found["out"]) / "results.json"
    file.write_text(json.dumps(found | {"model": found["model"] | {"sha256": "0" * 64}}))
    assert any("judged other weights" in n for n in write_report(run, overwrite=True)["notes"])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9}', '{"format": 1, "members": []}'])
def test_a_damaged_folder_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(DataError, match=r"folds\.json: (damaged|format 9)") as caught:
        read_folds(tmp_path)
    assert "\n" not in str(caught.value)
