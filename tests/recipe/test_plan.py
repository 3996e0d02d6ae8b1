"""What a corpus cannot give an objective is one line before anything is trained, from `check` and from `pretrain` alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import make_corpus

from biossl.corpus import Corpus
from biossl.errors import RequestError
from biossl.objectives.base import SamplePlan
from biossl.recipe import load_recipe
from biossl.recipe.check import check_pair
from biossl.recipe.plan import check_plan
from biossl.training.run import pretrain


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("plan") / "imu"
    return make_corpus(path, modality="imu", n_subjects=4, windows_per_subject=6, n_samples=128, splits={})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("plan") / "alone"
    return make_corpus(path, modality="imu", n_subjects=4, windows_per_subject=1, n_samples=128, splits={})


def ask(corpus: Corpus, *, rows: Any = None, batch_size: int = 8, accumulate: int = 1, **plan: Any) -> list[str]:
    rows = np.arange(len(corpus)) if rows is None else np.asarray(rows)
    return check_plan(SamplePlan(**plan), corpus, rows, corpus.spec, batch_size=batch_size, accumulate=accumulate)


@pytest.mark.parametrize(("kw", "match"), [
    ({"in_batch": True, "batch_size": 25}, r"24 training windows, data.batch_size is 25; .* take 24 or fewer"),
    ({"in_batch": True, "accumulate": 8}, r"data.batch_size: 8 in 8 micro-batches is one window each"),
    ({"several_subjects": True, "rows": range(6)}, r"imu: one subject; this objective tells subjects apart"),
    ({"queue": 25}, r"objective.queue: 25 keys, but there are 24 training windows, .* take 24 or fewer, or add a corpus"),
    ({"queue": 7}, r"objective.queue: 7 keys do not hold a batch, data.batch_size is 8"),
    ({"sampler": "subjects", "windows_per_subject": 3}, r"windows_per_subject: 3 does not divide data.batch_size 8"),
    ({"sampler": "subjects", "windows_per_subject": 1}, r"4 subjects, a batch takes 1 windows of each of 8"),
    ({"sampler": "subjects", "windows_per_subject": 8, "several_subjects": True}, r"8 of a micro-batch of 8 windows is one subject.*take 4 or"),
    ({"sampler": "subjects", "windows_per_subject": 2, "several_subjects": True, "accumulate": 4}, r"is one subject.*take 1 or fewer"),
    ({"pairing": "adjacent", "rows": [0, 2, 4, 6]}, r"every training window has no neighbour in its recording"),
    ({"pairing": "same_subject", "rows": [0, 6, 12]}, r"every training window is the only one of its subject"),
])  # fmt: skip
def test_what_a_corpus_cannot_give_is_one_line(corpus: Corpus, kw: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match) as error:
        ask(corpus, **kw)
    assert "\n" not in str(error.value)


def test_motion_needs_an_accelerometer(tmp_path: Path) -> None:
    ecg = make_corpus(tmp_path / "ecg", n_subjects=2, windows_per_subject=2, n_samples=50)
    with pytest.raises(RequestError, match="no acceleration channel, by which sampler motion draws"):
        ask(ecg, sampler="motion")


def test_notes_say_what_is_odd_and_nothing_else(corpus: Corpus) -> None:
    assert ask(corpus, pairing="adjacent", in_batch=True, several_subjects=True) == []
    (note,) = ask(corpus, in_batch=True, accumulate=2)
    assert note.startswith("train.accumulate 2: this objective compares the windows of a micro-batch, 4 of 8")
    (note,) = ask(corpus, pairing="adjacent", rows=[0, 1, 2, 6])
    assert "25 % of the training windows are paired with themselves" in note


def test_check_and_pretrain_refuse_alike(alone: Corpus, tmp_path: Path) -> None:
    recipe = load_recipe("imu/simclr_small", {"data.batch_size": "4", "objective.pairing": "adjacent"})
    (finding,) = [f for f in check_pair(recipe, alone) if f.kind != "note"]
    assert finding.kind == "request" and "can be paired" in finding.text
    with pytest.raises(RequestError) as error:
        pretrain(recipe, [(alone, 1.0)], tmp_path / "run")
    assert str(error.value) == finding.text and not (tmp_path / "run").exists()
