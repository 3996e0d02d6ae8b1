"""MoCo: what a query is compared with, and a queue that holds each window's key once, in one order, whatever the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from corpus_factory import make_corpus
from torch import Tensor
from two_processes import needs_two_processes, run_in_two

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.encoder import pool_tokens
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.losses_averaged import queue_nce
from biossl.objectives.moco import KeyQueue, MoCo, MoCoConfig
from biossl.recipe import load_recipe
from biossl.recipe.check import check_pair
from biossl.signal import InputSpec
from biossl.training.run import pretrain

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
KEYS = Keys(seed=3, step=5, position=torch.arange(4))
SUBJECT, WINDOW = torch.tensor([0, 0, 1, 2]), torch.tensor([10, 11, 12, 13])


def make(**config: Any) -> MoCo:
    torch.manual_seed(0)
    encoder = TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in", drop_path=0.3))
    augment = Pipeline([Gain(factor=[0.5, 2.0], per_channel=True).build(SPEC)])
    return MoCo(encoder, MoCoConfig(**{"queue": 6} | config), augment=augment, steps=100)


def windows(seed: int = 1, **facts: Any) -> Batch:
    x = torch.randn(4, 3, 100, generator=torch.Generator().manual_seed(seed))
    return Batch(x, SPEC.ch_names, SPEC.sfreq, **{"subject": SUBJECT, "index": WINDOW, **facts})


def embed(net: TransformerEncoder, batch: Batch) -> Tensor:
    return pool_tokens(net.encode(net.tokenize(batch)))


def held(queue: KeyQueue) -> list[int]:
    return queue.window.tolist()


@pytest.mark.parametrize("mode", ["negative", "drop"])
def test_a_query_meets_its_key_and_the_queue_without_its_own_window_or_subject(mode: Any) -> None:
    model, batch = make(same_subject=mode), windows()
    model.encoder.eval()  # so that the query is the same again; the copy is without dropped paths anyhow
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.mul_(1.1)
    model.step(batch, step=0, keys=KEYS)
    model.after_step()
    assert held(model.queue) == [10, 11, 12, 13, -1, -1]
    again = windows(2, subject=torch.tensor([0, 1, 1, 3]), index=torch.tensor([10, 20, 12, 13]))
    query = model.projector(embed(model.encoder, model.augment(again, KEYS, view=0)))  # type: ignore[misc]
    key = model.teacher.head(embed(model.teacher.encoder, model.augment(again, KEYS, view=1)))  # type: ignore[misc]
    allowed = {  # a window of the same number in another subject's recordings is another window
        "negative": [[0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0]],
        "drop": [[0, 0, 1, 1, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0]],
    }[mode]
    wanted = queue_nce(query, key, model.queue.key, temperature=0.2, allowed=torch.tensor(allowed).bool())
    outcome = model.step(again, step=1, keys=KEYS)
    torch.testing.assert_close(outcome.loss, wanted)
    assert float(outcome.terms["compared"]) == pytest.approx(sum(map(sum, allowed)) / 24)
    assert model.needs.several_subjects == (mode == "drop") and model.needs.queue == 6 and not model.needs.in_batch
    assert outcome.watch["target"].shape == outcome.watch["prediction"].shape == (4, 128)


def test_the_oldest_keys_leave_first_and_what_was_not_observed_never_enters() -> None:
    queue = KeyQueue(6, 3)
    for number in range(3):
        window = torch.arange(4) + 10 * number
        valid = torch.tensor([True, number != 1, True, True])
        queue.add(torch.randn(4, 3), SUBJECT, window, valid)
        assert 10 * number not in held(queue)  # a step does not meet its own keys
        queue.advance()
    assert held(queue) == [20, 21, 22, 23, 12, 13] or held(queue) == [13, 20, 21, 22, 23, 12]
    torch.testing.assert_close(queue.key.norm(dim=1), torch.ones(6))
    queue.advance()
    assert sorted(held(queue)) == [12, 13, 20, 21, 22, 23]  # nothing waits: nothing moves


def test_a_wrong_order_of_micro_batches_would_be_seen() -> None:
    """Micro-batches of a step give the queue, key by key, that one batch gives."""
    key, subject, window = torch.randn(8, 3), torch.arange(8) % 3, torch.arange(8)
    whole, parts, turned = KeyQueue(12, 3), KeyQueue(12, 3), KeyQueue(12, 3)
    whole.add(key, subject, window, None)
    for queue, order in ((parts, (0, 4)), (turned, (4, 0))):
        for at in order:
            queue.add(key[at : at + 4], subject[at : at + 4], window[at : at + 4], None)
    for queue in (whole, parts, turned):
        queue.advance()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert held(whole) != held(turned)


def _queue(number: int, key: Tensor, valid: Tensor) -> list[list[float]]:
    queue = KeyQueue(10, 3)
    for micro in range(2):
        mine = slice(4 * micro + 2 * number, 4 * micro + 2 * number + 2)
        queue.add(key[mine], torch.arange(8)[mine] % 3, torch.arange(8)[mine], valid[mine])
    queue.advance()
    assert dist.get_world_size() == 2
    return [v.flatten().tolist() for v in queue.state_dict().values()]


@needs_two_processes
def test_two_processes_hold_the_queue_of_one(tmp_path: Path) -> None:
    key, valid = torch.randn(8, 3), torch.tensor([True, True, False, True, True, False, True, True])
    one = KeyQueue(10, 3)
    one.add(key, torch.arange(8) % 3, torch.arange(8), valid)
    one.advance()
    for found in run_in_two(_queue, key, valid, store=tmp_path / "store"):
        assert found == [v.flatten().tolist() for v in one.state_dict().values()]


def test_the_momentum_is_constant_as_published_or_rises_by_a_cosine() -> None:
    assert [make().ema_momentum(s) for s in (0, 50, 100)] == [0.999] * 3
    assert [make(ema_start=0.9, ema_end=1.0).ema_momentum(s) for s in (0, 50, 100)] == pytest.approx([0.9, 0.95, 1.0])


def test_a_queue_longer_than_the_data_or_shorter_than_a_batch_is_one_line(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", n_subjects=4, windows_per_subject=6, n_samples=128, splits={})
    for queue, match in ((25, "objective.queue: 25 keys, but there are 24 training windows, .* take 24 or fewer"),
                         (4, "objective.queue: 4 keys do not hold a batch, data.batch_size is 8")):  # fmt: skip
        recipe = load_recipe("imu/moco_small", {"data.batch_size": "8", "objective.queue": str(queue)})
        (finding,) = [f for f in check_pair(recipe, corpus) if f.kind != "note"]
        with pytest.raises(RequestError, match=match) as error:
            pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
        assert str(error.value) == finding.text and "\n" not in finding.text and not (tmp_path / "run").exists()


def test_two_corpora_share_a_queue(tmp_path: Path) -> None:
    made = [
        make_corpus(tmp_path / f"imu{i}", modality="imu", n_subjects=2, windows_per_subject=6, n_samples=128, splits={}, seed=i)
        for i in range(2)
    ]
    recipe = load_recipe(
        "imu/moco_small", {"data.batch_size": "8", "objective.queue": "20", "train.steps": "1", "model.depth": "1"}
    )
    assert pretrain(recipe, [(corpus, 1.0) for corpus in made], tmp_path / "run")["steps"] == 1
