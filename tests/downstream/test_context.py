"""Heads over several windows, end to end: what only the neighbours know is learnt, by corpus and by rows; what may not be is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from corpus_factory import make_corpus

from biossl.corpus import Corpus, add_split
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.downstream.model import Task, load_model, predict_rows, read_rows
from biossl.downstream.predictions import predict
from biossl.errors import RequestError
from biossl.models.group_heads import PoolingHeadConfig, SequenceHeadConfig
from biossl.recipe.schema import Part

HEAD = Part("sequence", SequenceHeadConfig(windows=4, dim=16, dropout=0.3))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Five windows of each of 60 subjects, 40 of whom are train and ten test."""
    made = make_corpus(
        tmp_path_factory.mktemp("tune") / "imu", modality="imu", n_subjects=60, windows_per_subject=5, n_samples=128, n_channels=3
    )
    made.prepare()
    table = tmp_path_factory.mktemp("split") / "halves.csv"
    parts = [
        f"{s},{'train' if i < 40 else 'val' if i < 50 else 'test'}" for i, s in enumerate(sorted(set(made.index["subject"])))
    ]
    table.write_text("subject,part\n" + "\n".join(parts) + "\n")
    add_split(made, table, name="halves")
    return made


@pytest.fixture(scope="module")
def next_task(people: Corpus) -> Task:
    """Whether a window is not the first of its recording: no window shows it, its neighbours do."""
    first = (people.index["start_s"] == people.index.groupby(["subject", "record"])["start_s"].transform("min")).to_numpy()
    values = (~first).astype(np.float32)[:, None]
    return Task("later", "multiclass", ("first", "later"), values)


@pytest.fixture(scope="module")
def run(encoder: Path, people: Corpus, next_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("context") / "run"
    return finetune(
        encoder,
        people,
        next_task,
        out,
        mode="frozen",
        head=HEAD,
        split="halves",
        steps=300,
        lr=1e-2,
        batch_size=32,
        class_weight="balanced",
    )


def test_what_only_the_neighbours_know_is_learnt_for_new_people(
    run: Path, encoder: Path, people: Corpus, next_task: Task, tmp_path: Path
) -> None:
    held = np.flatnonzero(people.split("halves") == "test")
    y = next_task.values[held, 0]
    p = predict_rows(load_model(run), people, held)
    alone = finetune(
        encoder, people, next_task, tmp_path / "alone", mode="frozen", split="halves", steps=120, class_weight="balanced"
    )
    q = predict_rows(load_model(alone), people, held)

    def balanced(p: Any) -> float:
        return float(np.mean([(p.argmax(1) == y)[y == k].mean() for k in (0, 1)]))

    assert balanced(p) > 0.8 and balanced(q) < 0.65


def test_rows_in_any_order_are_read_in_the_context_of_their_whole_recordings(run: Path, people: Corpus) -> None:
    model = load_model(run)
    every, features = read_rows(model, people, np.arange(len(people.index)), desc=None)
    some = np.array([50, 3, 2])
    p, f = read_rows(model, people, some, desc=None)
    np.testing.assert_allclose(p, every[some], atol=1e-5)
    np.testing.assert_allclose(f, features[some], atol=1e-4)


def test_scarce_labels_use_the_signal_of_other_windows_but_not_their_labels(
    encoder: Path, people: Corpus, next_task: Task, tmp_path: Path
) -> None:
    train = np.flatnonzero(people.split("halves") == "train")[::3]
    other = next_task.values.copy()
    hidden = np.setdiff1d(np.flatnonzero(people.split("halves") != "val"), train)
    other[hidden] = 1 - other[hidden]
    options: dict[str, Any] = {"mode": "frozen", "head": HEAD, "split": "halves", "steps": 20, "batch_size": 16, "rows": train}
    a = finetune(encoder, people, next_task, tmp_path / "a", **options)
    b = finetune(encoder, people, replace(next_task, values=other), tmp_path / "b", **options)
    np.testing.assert_array_equal(predict_rows(load_model(a), people, train), predict_rows(load_model(b), people, train))


def test_a_pooled_head_says_one_thing_of_a_recording(encoder: Path, people: Corpus, tmp_path: Path) -> None:
    head = Part("pooling", PoolingHeadConfig("attention", windows=4, hidden=4))
    out = finetune(encoder, people, "group", tmp_path / "run", mode="full", head=head, split="halves", steps=10, batch_size=16)
    p = predict_rows(load_model(out), people, np.arange(len(people.index)))
    for rows in people.index.groupby(["subject", "record"]).indices.values():
        np.testing.assert_allclose(p[rows], p[rows[:1]].repeat(len(rows), 0))


def test_a_head_over_several_windows_is_judged_and_stressed_and_predicts(encoder: Path, people: Corpus, tmp_path: Path) -> None:
    out = finetune(encoder, people, "group", tmp_path / "run", mode="frozen", head=HEAD, split="halves", steps=20, batch_size=16)
    result = evaluate(out, people, split="halves", stress=True, baselines=False, out=tmp_path / "judged")
    assert result["counts"]["windows"] == 50 and len(result["stress"]) > 5
    table = pd.read_parquet(tmp_path / "judged" / "predictions.parquet")
    assert predict(out, people.path, tmp_path / "all.parquet")["rows"] == len(people)
    every = pd.read_parquet(tmp_path / "all.parquet")
    both = table.merge(every, on=["subject", "record", "start_s"], suffixes=("", "_all"))
    assert len(both) == 50 and np.allclose(both["p_fast"], both["p_fast_all"], atol=1e-5)


def test_windows_that_were_cut_along_labels_are_refused(encoder: Path, next_task: Task, tmp_path: Path) -> None:
    cut = make_corpus(tmp_path / "imu", modality="imu", n_subjects=4, windows_per_subject=4, n_samples=128, n_channels=3)
    cut.prepare()
    cut.card.views[cut.view] = replace(cut.card.views[cut.view], policy="inside_labels")
    with pytest.raises(RequestError, match="neighbours say where its label begins"):
        finetune(encoder, cut, "group", tmp_path / "run", mode="frozen", head=HEAD, steps=4)


def test_low_rank_adapters_under_a_head_over_several_windows(
    encoder: Path, people: Corpus, next_task: Task, tmp_path: Path
) -> None:
    """Ranks are allocated by the loss of stretches, as training has it; unlabelled windows of a stretch count for nothing."""
    train = np.flatnonzero(people.split("halves") == "train")[::3]
    options: dict[str, Any] = {"mode": "lowrank", "head": HEAD, "split": "halves", "steps": 8, "batch_size": 16, "rows": train}
    a = load_model(finetune(encoder, people, next_task, tmp_path / "a", **options))
    other = next_task.values.copy()
    hidden = np.setdiff1d(np.flatnonzero(people.split("halves") != "val"), train)
    other[hidden] = 1 - other[hidden]
    b = load_model(finetune(encoder, people, replace(next_task, values=other), tmp_path / "b", **options))
    np.testing.assert_array_equal(predict_rows(a, people, train), predict_rows(b, people, train))
