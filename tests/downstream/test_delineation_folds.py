"""Waves and episodes over folds and seeds: counts added by hand over the models, equal to the single evaluations where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense_toys import wave_corpus

from biossl.checkpoint import save_encoder
from biossl.cli import main
from biossl.config import load_yaml
from biossl.corpus import Corpus, make_split
from biossl.downstream import wave_counts
from biossl.downstream.delineation import spread_of_seeds
from biossl.downstream.dense import Codes, DenseTask
from biossl.downstream.evaluate import evaluate
from biossl.downstream.event_counts import Counted
from biossl.downstream.folds import finetune_folds
from biossl.downstream.folds_text import as_text
from biossl.downstream.model import make_task
from biossl.metrics.boundaries import STATISTICS, annotated_span, boundary_counts
from biossl.metrics.intervals import draw
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.report.run_page import write_report

KW: dict[str, Any] = {"mode": "full", "steps": 30, "batch_size": 4, "lr": 0.01, "split": "cv"}
NAMES, SIDES = ("P", "QRS", "T"), ("onset", "offset")


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Nine subjects, 8 s each, in three folds; and in two."""
    made = wave_corpus(tmp_path_factory.mktemp("folds") / "ecg", n_subjects=9)
    make_split(made, "cv", folds=3)
    make_split(made, "pair", folds=2)
    return Corpus.open(made.path)


@pytest.fixture(scope="module")
def encoder(waves: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    config = EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.1, attention="full", init="fan_in")
    return save_encoder(TransformerEncoder(waves.spec, config), tmp_path_factory.mktemp("folds") / "encoder")


@pytest.fixture(scope="module")
def crossed(encoder: Path, waves: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune_folds(encoder, waves, "waves", tmp_path_factory.mktemp("cv") / "run", folds=True, seeds=[0, 1], **KW)


@pytest.fixture(scope="module")
def result(crossed: Path, waves: Corpus) -> dict[str, Any]:
    return evaluate(crossed, waves)


@pytest.fixture(scope="module")
def single(crossed: Path, waves: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    """Every model alone on its own fold."""
    out = tmp_path_factory.mktemp("single")
    return {
        (s, k): evaluate(crossed / f"seed-{s}" / f"fold-{k}", waves, split=f"cv:{k}", out=out / f"{s}-{k}") for s in (0, 1) for k in range(3)
    }  # fmt: skip


def counts_of(table: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Counts of written waves (2, 6), added by subject and class."""
    out: dict[tuple[str, str], np.ndarray] = {}
    for (who, _, _), line in table.groupby(["subject", "record", "channel"]):
        spans = {
            k: np.stack([v["onset_s"], v["onset_s"] + v["duration_s"]], axis=1) for k, v in line.groupby(["source", "label"])
        }
        true = {n: np.insert(spans["reference", n], 1, spans["reference", n].mean(axis=1), axis=1) for n in NAMES}
        for n in NAMES:
            found = boundary_counts(true[n], spans.get(("model", n), np.zeros((0, 2))), annotated_span(*true.values()))
            out[str(who), n] = out.get((str(who), n), 0) + found
    return out


def macro(parts: np.ndarray) -> float:
    """Mean F1 over classes and sides of counts (K, 2, 6)."""
    return float(np.mean(STATISTICS["f1"](parts.reshape(-1, 6))))


def test_counts_are_added_over_folds_for_each_seed_and_averaged_over_seeds(result: dict[str, Any], waves: Corpus) -> None:
    table = pd.read_parquet(Path(result["out"]) / "predictions.parquet")
    held = {s: k for k in range(3) for s in waves.index["subject"][waves.split(f"cv:{k}") == "test"]}
    assert (table["fold"] == table["subject"].map(held)).all() and set(table["subject"]) == set(waves.index["subject"])
    people = sorted(held)
    each = {s: counts_of(t) for s, t in table.groupby("seed")}
    stack = np.array([[[each[s][who, n] for n in NAMES] for who in people] for s in (0, 1)])  # seed, subject, class, side, 6
    total = stack.sum(axis=1)
    for i, name in enumerate(NAMES):
        for j, side in enumerate(SIDES):
            for what, statistic in STATISTICS.items():
                values = statistic(total[:, i, j])
                found = result["waves"][name][side][what]
                assert (found["value"], found["min"], found["max"]) == pytest.approx((values.mean(), values.min(), values.max()))
                assert [v["value"] for v in found["seeds"]] == pytest.approx(values)
    main_score = result["scores"]["boundary_f1"]
    assert main_score["value"] == pytest.approx(np.mean([macro(t) for t in total])) and main_score["n_subjects"] == 9
    _, weights = draw(people, 2000, 0)
    drawn = [np.mean([macro(np.tensordot(w, s, 1)) for s in stack]) for w in weights]
    assert (main_score["low"], main_score["high"]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1e-9)
    for k, who in enumerate(people):
        row = next(r for r in result["per_subject"] if r["subject"] == who)
        assert row["fold"] == held[who] and row["n"] == 2
        assert row["boundary_f1"]["value"] == pytest.approx(np.mean([macro(s[k]) for s in stack]))
        assert row["sd_ms"]["T"]["offset"]["max"] == pytest.approx(STATISTICS["sd_ms"](stack[:, k, 2, 1]).max())
    own = [np.mean([macro(s[k]) for s in stack]) for k in range(9)]
    assert result["subject_means"]["boundary_f1"]["value"] == pytest.approx(np.mean(own))


def test_each_fold_is_its_models_own_evaluation(result: dict[str, Any], single: dict[tuple[int, int], dict[str, Any]]) -> None:
    for fold in result["folds"]:
        values = [single[s, fold["fold"]]["scores"]["boundary_f1"]["value"] for s in (0, 1)]
        assert fold["boundary_f1"] == pytest.approx({"value": np.mean(values), "min": min(values), "max": max(values)})
        assert fold["subjects"] == 3
    for k, line in enumerate(result["per_channel"]):
        parts = {key: one["per_channel"][k]["offset"] for key, one in single.items()}
        assert line["offset"]["n"] == sum(p["n"] for (s, _), p in parts.items() if s == 0)
        for what in ("found", "detected"):
            assert line["offset"][what]["value"] == pytest.approx(sum(p[what] for p in parts.values()) / 2)
    assert len({v["value"] for f in result["folds"] for v in [f["boundary_f1"]]}) == 3  # and they do differ


def test_a_fold_without_a_judged_wave_has_no_score(waves: Corpus) -> None:
    """Its only annotated waves may reach beyond what was recorded."""
    keys = pd.DataFrame([], columns=["subject", "record", "channel", "label"])
    empty = Counted(keys, np.zeros((0, 12)), None, pd.DataFrame(), 0, 1)
    task = make_task(waves, "waves")
    assert isinstance(task, DenseTask) and spread_of_seeds([empty, empty], task) == {"value": None, "min": None, "max": None}


def test_one_seed_and_one_of_two_folds_give_what_the_single_evaluations_give(
    encoder: Path, waves: Corpus, tmp_path: Path
) -> None:
    run = finetune_folds(encoder, waves, "waves", tmp_path / "two", folds=True, **KW | {"split": "pair", "steps": 10})
    both = evaluate(run, waves, out=tmp_path / "a", baselines=False)
    for k in (0, 1):
        alone = evaluate(run / f"fold-{k}", waves, split=f"pair:{k}", out=tmp_path / f"b{k}", baselines=False)
        assert both["folds"][k]["boundary_f1"]["value"] == alone["scores"]["boundary_f1"]["value"]
        mine = {r["subject"]: r["boundary_f1"]["value"] for r in both["per_subject"] if r["fold"] == k}
        assert mine == {r["subject"]: r["boundary_f1"] for r in alone["per_subject"]}
    seeds = finetune_folds(encoder, waves, "waves", tmp_path / "one", seeds=[3], **KW | {"split": "cv:1", "steps": 10})
    one = evaluate(seeds, waves, out=tmp_path / "c", split="cv:1")
    alone = evaluate(seeds / "seed-3", waves, out=tmp_path / "d", split="cv:1")
    keys = ("value", "low", "high", "n_subjects")
    for name in NAMES:
        for side in SIDES:
            for what, value in alone["waves"][name][side].items():
                assert [one["waves"][name][side][what][k] for k in keys] == [value[k] for k in keys]
    assert [one["scores"]["boundary_f1"][k] for k in keys] == [alone["scores"]["boundary_f1"][k] for k in keys]
    assert one["rivals"][0]["minus"] == alone["rivals"][0]["minus"] and one["counts"] == alone["counts"] and one["folds"] == []


def test_what_is_chosen_does_not_depend_on_labels_of_the_people_held_out(
    crossed: Path, encoder: Path, waves: Corpus, tmp_path: Path
) -> None:
    """Fold 2's model, choice and decoder are the same when the waves of its held-out people are shuffled."""
    task = make_task(waves, "waves")
    assert isinstance(task, DenseTask)
    rng, rows = np.random.default_rng(0), np.flatnonzero(waves.split("cv:2") == "test")
    codes, marks = task.values.codes.copy(), task.marks.copy()  # type: ignore[attr-defined]
    codes[rows] = rng.permuted(codes[rows], axis=2)
    who = marks["subject"].isin(set(waves.index["subject"].iloc[rows])).to_numpy()
    marks.loc[who, "code"] = rng.permutation(marks["code"][who])
    marks.loc[who, "end_s"] = marks["onset_s"][who] + 0.001
    shuffled = replace(task, values=Codes(codes), marks=marks)  # type: ignore[arg-type]
    other = finetune_folds(encoder, waves, shuffled, tmp_path / "run", folds=True, **KW)
    kept = ("choices", "inner", "trained", "lock", "weights")
    a, b = (load_yaml(f / "model" / "model.yaml") for f in (crossed / "seed-0" / "fold-2", other / "fold-2"))
    assert {k: a[k] for k in kept} == {k: b[k] for k in kept}
    a, b = (load_yaml(f / "model" / "model.yaml") for f in (crossed / "seed-0" / "fold-0", other / "fold-0"))
    assert a["weights"] != b["weights"] and a["lock"] != b["lock"]  # where they are trained on they matter


def test_neurokit_stands_beside_it_once_and_paired(
    crossed: Path, result: dict[str, Any], waves: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = wave_counts.neurokit_waves, []
    monkeypatch.setattr(wave_counts, "neurokit_waves", lambda *args: calls.append(1) or usual(*args))
    again = evaluate(crossed, waves, out=tmp_path / "a")
    assert len(calls) == 9 * 2  # records and channels, not once more a seed
    rival = again["rivals"][0]
    assert rival == result["rivals"][0] and rival["model"].startswith("NeuroKit2")
    gap = again["scores"]["boundary_f1"]["value"] - rival["score"]["value"]
    assert rival["minus"]["value"] == pytest.approx(gap, abs=1e-9) and rival["minus"]["low"] <= gap <= rival["minus"]["high"]
    means = rival["subject_means"]["boundary_f1"]
    gap = again["subject_means"]["boundary_f1"]["value"] - means["score"]["value"]
    assert means["minus"]["value"] == pytest.approx(gap, abs=1e-9)


def test_it_is_printed_and_drawn_without_names(result: dict[str, Any], crossed: Path, waves: Corpus, capsys: Any) -> None:
    text = as_text(result)
    for word in ("all 3 folds of split cv; 6 locked models (2 seeds)", "F1, lowest to highest seed", "NeuroKit2 (dwt), macro F1 of boundaries",
                 "T offset sd ms", "By channel, mean of 2 seeds", "mean over 9 subjects"):  # fmt: skip
        assert word in text
    assert main(["evaluate", str(crossed), str(waves.path), "--overwrite", "--no-baselines"]) == 0
    assert "NeuroKit2" not in capsys.readouterr().out
    write_report(crossed)
    page = (crossed / "report.html").read_text()
    assert "each channel alone" in page and "Single subjects" in page and "Folds and seeds" in page
    sd = result["waves"]["QRS"]["onset"]["sd_ms"]["value"]
    assert f"{sd:.1f}" in page and not any(f">{s}<" in page for s in set(waves.index["subject"]))


def test_episodes_are_added_over_folds(encoder: Path, waves: Corpus, tmp_path: Path) -> None:
    run = finetune_folds(
        encoder, waves, "state", tmp_path / "run", kind="dense", folds=True, **KW | {"mode": "frozen", "steps": 4}
    )
    found = evaluate(run, waves, out=tmp_path / "a")
    table = pd.read_parquet(tmp_path / "a" / "predictions.parquet")
    ours = table[(table["source"] == "model") & (table["label"] == "work")]
    true = table[(table["source"] == "reference") & (table["label"] == "work")]
    shared = sum(
        max(0.0, min(a["onset_s"] + a["duration_s"], b["onset_s"] + b["duration_s"]) - max(a["onset_s"], b["onset_s"]))
        for record, mine in true.groupby("record") for _, a in mine.iterrows() for _, b in ours[ours["record"] == record].iterrows()
    )  # fmt: skip
    value = found["episodes"]["work"]["duration_sensitivity"]["gross"]
    assert value["value"] == pytest.approx(shared / true["duration_s"].sum()) and value["n_subjects"] == 9
    assert "episode sensitivity" in as_text(found) and found["subject_means"]["duration_f1"]["value"] is not None
