"""MoCo, BYOL, SimSiam, DINO and SwAV: BYOL's targets; gaps, micro-batches and resuming with what they carry from step to step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_factory import make_corpus
from run_toys import assert_same, bits, unfinished
from torch import Tensor
from two_view_toys import KEYS, SPEC, embed, imu_corpus, make, small, watched_small, windows

from biossl.batch import Batch
from biossl.corpus import Corpus
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.objectives import byol
from biossl.objectives.losses_averaged import cosine_distance
from biossl.training.run import pretrain

NAMES = ("moco", "byol", "simsiam", "dino", "swav")


@pytest.mark.parametrize("ema", ["on", "off"])
def test_byol_predicts_the_copys_projections_and_simsiam_its_own(ema: Any) -> None:
    model, batch = make("byol", ema=ema), windows()
    views = (batch, batch.paired["window"])
    z1, z2 = (model.projector(embed(model.encoder, view)) for view in views)
    goals = (z1, z2)
    if ema == "on":
        goals = tuple(model.teacher.head(embed(model.teacher.encoder, view)) for view in views)  # type: ignore[assignment]
    outcome = model.step(batch, step=0, keys=KEYS)
    torch.testing.assert_close(outcome.loss, cosine_distance(model.predictor(z1), model.predictor(z2), *goals))
    wrong = cosine_distance(model.predictor(z1), model.predictor(z2), *reversed(goals))
    assert abs(float(outcome.loss.detach()) - float(wrong.detach())) > 1e-3  # a view is not its own target
    assert (model.ema_pairs() == []) == (ema == "off")
    outcome.loss.backward()
    assert all(p.grad is None for _, target in model.ema_pairs() for p in target.parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["moco", "byol", "dino"])
def test_a_copied_objective_averages_its_own_networks(name: str) -> None:
    model = make(name)
    other = copy.deepcopy(model)
    (source, target), (head, copied) = other.ema_pairs()
    assert source is other.encoder and target is other.teacher.encoder and copied is other.teacher.head
    assert head is (other.head if name == "dino" else other.projector)
    assert [k for k in model.state_dict() if "sources" in k] == []  # nor is anything saved twice


@pytest.mark.parametrize("name", NAMES)
def test_a_window_of_which_nothing_was_observed_enters_nothing(name: str) -> None:
    """Loss, gradient, and the buffers that later steps read, are those of the batch without it; with batch norm too."""
    batch, keep = windows(n=8), [0, 1, 2, 3, 4, 6, 7]
    seen = torch.ones(8, 3, 100, dtype=torch.bool)
    seen[5] = False
    fewer = Batch(batch.x[keep], SPEC.ch_names, SPEC.sfreq, subject=batch.subject[keep], index=batch.index[keep])  # type: ignore[index]
    fewer.paired["window"] = Batch(batch.paired["window"].x[keep], SPEC.ch_names, SPEC.sfreq)
    states = []
    for norm in ("batch", "none"):
        for x in (batch.x * seen, torch.where(seen, batch.x, 9.0)):  # whatever its samples hold
            holed = Batch(
                x, SPEC.ch_names, SPEC.sfreq, observed=seen, subject=batch.subject, index=batch.index, paired=batch.paired
            )
            model, other = (make(name, norm=norm) for _ in range(2))
            for _ in range(2):
                loss = model.step(holed, step=0, keys=Keys(3, 5, torch.arange(8))).loss
                without = other.step(fewer, step=0, keys=Keys(3, 5, torch.tensor(keep))).loss
                model.after_step()
                other.after_step()
                torch.testing.assert_close(loss, without, rtol=1e-4, atol=1e-5)
            loss.backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
            for key, value in model.state_dict().items():
                torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-4, atol=1e-5, msg=key)
            states.append({k: v for k, v in model.state_dict().items() if k.startswith(("queue.", "centre"))})
    assert bool(states[0]) == (name in ("moco", "dino"))
    if name == "moco":
        assert sorted(set(states[0]["queue.window"].tolist())) == keep


@pytest.mark.parametrize("name", ["moco", "byol", "simsiam", "dino"])
def test_micro_batches_are_one_batch_without_batch_norm(name: str) -> None:
    """Over two steps: gradients, queue and centre."""
    whole, parts = make(name, norm="layer"), make(name, norm="layer")
    assert not whole.needs.in_batch and make(name, norm="batch").needs.in_batch
    for step in range(2):
        batch = windows(10 * step, n=8)
        batch.index += 8 * step  # type: ignore[operator]
        for model, size in ((whole, 8), (parts, 2)):
            model.zero_grad()
            for at in range(0, 8, size):
                mine = slice(at, at + size)
                piece = Batch(batch.x[mine], SPEC.ch_names, SPEC.sfreq, subject=batch.subject[mine], index=batch.index[mine])  # type: ignore[index]
                piece.paired["window"] = Batch(batch.paired["window"].x[mine], SPEC.ch_names, SPEC.sfreq)
                keys = Keys(3, step, torch.arange(at, at + size), micro=at // size)
                (model.step(piece, step=step, keys=keys).loss * size / 8).backward()
            model.after_step()
        for (key, p), q in zip(whole.named_parameters(), parts.parameters(), strict=True):
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6, msg=key)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[key], msg=key)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return imu_corpus(tmp_path_factory.mktemp("averaged") / "imu")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name: str, corpus: Corpus, tmp_path: Path) -> None:
    """Queue, centre and copies are among the tensors that are compared."""
    recipe = small(name, steps=8, accumulate=2)
    pretrain(recipe, [(corpus, 1.0)], tmp_path / "whole")
    held = {k.removeprefix("objective.safetensors:objective.") for k in bits(tmp_path / "whole")}
    wanted = {"moco": {"queue.key", "queue.subject", "queue.window", "queue.next"}, "dino": {"centre"}}.get(name, set())
    assert wanted <= held and any(k.startswith("teacher.") for k in held) == (name in ("moco", "byol", "dino"))
    result = pretrain(recipe, [(corpus, 1.0)], unfinished(tmp_path / "whole", tmp_path / "run"))
    assert result["resumed_from"] == 6
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_simsiam_whose_targets_are_trained_too_collapses_and_is_stopped(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def towards_each_other(p1: Tensor, p2: Tensor, *_: Tensor, **__: Any) -> Tensor:
        return 4.0 - 4.0 * torch.nn.functional.cosine_similarity(p1, p2).mean()

    monkeypatch.setattr(byol, "cosine_distance", towards_each_other)
    recipe = watched_small("simsiam", steps=80, lr=3e-2, weight_decay=0.0)
    recipe.objective.config.projector.norm = "none"
    with pytest.raises(DataError, match="collapsed, (target|prediction) variance"):
        pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")


def test_one_subject_is_refused_where_subjects_are_told_apart(tmp_path: Path) -> None:
    alone = make_corpus(tmp_path / "alone", modality="imu", n_subjects=1, windows_per_subject=24, n_samples=50, splits={})
    with pytest.raises(RequestError, match="alone: one subject; this objective tells subjects apart"):
        pretrain(small("moco"), [(alone, 1.0)], tmp_path / "run")
    assert pretrain(small("byol"), [(alone, 1.0)], tmp_path / "byol")["steps"] == 3
