"""The supervised objective: what each mode trains, targets of every kind, frozen means frozen, one process equals two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from torch import Tensor
from training_toys import small_recipe
from two_processes import needs_two_processes, run_in_two

from biossl.batch import Batch
from biossl.keys import Keys
from biossl.models.lowrank import LowRankConfig, adapters_of
from biossl.models.task_heads import DenseHeadConfig, LinearHeadConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.losses_supervised import cross_entropy
from biossl.objectives.supervised import Supervised, SupervisedConfig, n_outputs, predictions, supervised_loss
from biossl.signal import InputSpec
from biossl.training.data import make_loader, make_order, make_sources
from biossl.training.optim import make_optimizer

NAN = float("nan")
SPEC = InputSpec("imu", 50.0, 40, ("acc_x", "acc_y"), ("acc",) * 2, ("g",) * 2)


def made(
    kind: Any = "multiclass", mode: Any = "full", *, spec: InputSpec = SPEC, drop_path: float = 0.3, **kw: Any
) -> Supervised:
    torch.manual_seed(0)
    encoder = TransformerEncoder(spec, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.16, init="fan_in", drop_path=drop_path))
    outputs = n_outputs(kind, 3)
    head = DenseHeadConfig(hidden=4, **kw).build(encoder, outputs) if kind == "dense" else LinearHeadConfig(
        ordinal=kind == "ordinal").build(encoder, outputs)  # fmt: skip
    config = SupervisedConfig("y", kind, ["a", "b", "c"], mode=mode, lowrank=LowRankConfig(rank=4), scale=[10.0, 2.0])
    return Supervised(encoder, head, config)


def batch(y: Tensor, n: int = 6) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(torch.randn(n, 2, 40, generator=g), SPEC.ch_names, 50.0, labels={"y": y})


CLASS = torch.tensor([[0.0], [1], [2], [NAN], [1], [0]])


def test_what_each_mode_trains() -> None:
    def trained(mode: str) -> set[str]:
        return {n for n, p in made(mode=mode).named_parameters() if p.requires_grad}

    frozen, lowrank, full = trained("frozen"), trained("lowrank"), trained("full")
    assert all(n.startswith("head.") for n in frozen) and frozen
    assert frozen < lowrank and {n.rpartition(".")[2] for n in lowrank - frozen} == {"up", "down", "bias"}
    assert full == {n for n, _ in made().named_parameters()}


def test_a_frozen_encoder_stays_in_evaluation_and_as_it_was() -> None:
    model = made(mode="frozen").train()
    assert not model.encoder.training and model.head.training and made().train().encoder.training
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for step in range(3):
        optimizer.zero_grad()
        model.step(batch(CLASS), step=step, keys=Keys(0, step, torch.arange(6))).loss.backward()
        optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    one, two = (model.step(batch(CLASS), step=0, keys=Keys(0, 0, torch.arange(6))).loss for _ in range(2))
    assert torch.equal(one, two)  # no dropped path


def test_layers_near_the_signal_learn_slower_and_the_head_fastest() -> None:
    train = small_recipe(train__optimizer__layer_decay=0.5).train
    model = made()
    scale = {p: g["lr_scale"] for g in make_optimizer(model, train).param_groups for p in g["params"]}
    named = dict(model.named_parameters())
    order = [
        "encoder.tokenizer.proj.weight",
        "encoder.blocks.0.mlp.fc1.weight",
        "encoder.blocks.1.mlp.fc1.weight",
        "head.out.weight",
    ]
    assert [scale[named[n]] for n in order] == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary", "ordinal", "regression", "survival"])
def test_every_kind_of_target_has_its_loss_and_unknown_rows_none(kind: Any) -> None:
    g = torch.Generator().manual_seed(2)
    y = {
        "multilabel": (torch.rand(6, 3, generator=g) < 0.5).float(), "binary": CLASS.clamp_max(1),
        "regression": 10 + 2 * torch.randn(6, 1, generator=g), "survival": torch.tensor([[1.0, 1], [2, 0], [2, 1], [3, 1], [4, 0], [5, 1]]),
    }.get(kind, CLASS).clone()  # fmt: skip
    y[3] = NAN
    model = made(kind).eval()
    with torch.no_grad():
        whole = model.loss(batch(y))
        outputs = model.outputs(batch(y))
        keep = torch.arange(6) != 3
        target = (y - 10) / 2 if kind == "regression" else y
        torch.testing.assert_close(whole, supervised_loss(outputs[keep], target[keep], kind))
        p = predictions(outputs, kind, (10.0, 2.0))
    assert p.dtype == torch.float64 and p.shape[0] == 6 and bool(p.isfinite().all())
    if kind == "regression":  # in its own units
        torch.testing.assert_close(p, outputs[:, 0].double() * 2 + 10)
    if kind in ("multiclass", "ordinal"):
        assert p.shape == (6, 3)
        torch.testing.assert_close(p.sum(1), torch.ones(6, dtype=torch.float64))
    assert model.needs.in_batch == (kind == "survival")


@pytest.mark.parametrize("per", ["channel", "joint"])
def test_dense_targets_skip_what_was_not_observed(per: Any) -> None:
    model = made("dense", per=per).eval()
    y = torch.randint(0, 3, (6, 40)).float()
    y[:, 30:] = NAN
    seen = torch.ones(6, 2, 40, dtype=torch.bool)
    seen[0, :, 8:16] = False
    b = replace(batch(y), observed=seen)
    b = replace(b, x=torch.where(seen, b.x, 0.0))
    with torch.no_grad():
        ours, z = model.loss(b), model.outputs(b)
        total, n = 0.0, 0
        logp = (z if per == "channel" else z[:, None]).double().log_softmax(2)
        for i in range(6):
            for c in range(logp.shape[1]):
                for t in range(30):
                    if i == 0 and 8 <= t < 16:
                        continue
                    total -= logp[i, c, int(y[i, t]), t].item()
                    n += 1
    assert float(ours) == pytest.approx(total / n, abs=1e-5)


def test_weights_and_smoothing_reach_the_loss() -> None:
    model = made().eval()
    config = replace(model.config, weights=[0.5, 1.0, 3.0], smoothing=0.2)
    weighted = Supervised(model.encoder, model.head, config).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            weighted.loss(batch(CLASS)),
            cross_entropy(model.outputs(batch(CLASS)), CLASS[:, 0], weight=torch.tensor([0.5, 1.0, 3.0]), smoothing=0.2),
        )
        assert not torch.allclose(weighted.loss(batch(CLASS)), model.loss(batch(CLASS)))


def test_export_of_lowrank_is_a_plain_encoder_that_says_the_same() -> None:
    model = made(mode="lowrank")
    with torch.no_grad():
        for adapter in adapters_of(model.encoder).values():
            adapter.up.add_(0.1 * torch.randn_like(adapter.up))
    plain, x = model.export().eval(), batch(CLASS)
    model.eval()
    assert set(plain.state_dict()) == set(made().encoder.state_dict())
    torch.testing.assert_close(plain.embed(x), model.encoder.embed(x), rtol=1e-5, atol=1e-5)  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------- the loader and the loop


def test_the_loader_carries_the_labels_of_its_rows(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "imu", modality="imu", windows_per_subject=4, n_samples=40)
    source = make_sources([(corpus, 1.0)])[0][0]
    values = np.random.default_rng(0).normal(size=(len(corpus), 3)).astype(np.float32)
    source = replace(source, labels={"y": values, "z": values[:, :1] * 2})
    order, _ = make_order([source], made().needs, batch_size=8, accumulate=2, seed=0, steps=3)
    seen = 0
    for raw in make_loader([source], order, accumulate=2, start_step=0, steps=3, workers=0):
        b = raw.to("cpu").decode(source)
        assert b.index is not None and set(b.labels) == {"y", "z"}
        assert torch.equal(b.labels["y"], torch.from_numpy(values[b.index.numpy()])) and len(b.labels["y"]) == 4
        seen += 1
    assert seen == 6


def _in_process(number: int, mode: str) -> list[float]:
    """The gradient of one half of a batch, averaged as DDP does."""
    import torch.distributed as dist

    model = made(mode=mode, drop_path=0.0)
    rows = slice(0, 3) if number == 0 else slice(3, 6)
    b = batch(CLASS)
    part = Batch(b.x[rows], b.channels, b.sfreq, labels={"y": CLASS[rows]})
    model.step(part, step=3, keys=Keys(0, 3, torch.arange(6)[rows], 0, number)).loss.backward()
    out = []
    for p in model.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)
            out += (p.grad / 2).flatten().tolist()
    return out


@needs_two_processes
@pytest.mark.parametrize("mode", ["frozen", "lowrank", "full"])
def test_two_processes_have_the_gradient_of_one(mode: str, tmp_path: Path) -> None:
    two = run_in_two(_in_process, mode, store=tmp_path / "store")
    model = made(mode=mode, drop_path=0.0)
    model.step(batch(CLASS), step=3, keys=Keys(0, 3, torch.arange(6))).loss.backward()
    one = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(one.abs().max()) > 1e-3
    for process in two:
        torch.testing.assert_close(torch.tensor(process), one, rtol=1e-4, atol=1e-6)


def test_accumulation_has_the_gradient_of_one_batch() -> None:
    known = torch.tensor([[0.0], [1], [2], [1], [1], [0]])
    gradients = []
    for parts in (1, 2):
        model = made(mode="lowrank", drop_path=0.0)
        for micro in range(parts):
            rows = torch.arange(6).chunk(parts)[micro]
            b = Batch(batch(known).x[rows], SPEC.ch_names, 50.0, labels={"y": known[rows]})
            (model.step(b, step=1, keys=Keys(0, 1, rows, micro)).loss / parts).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
