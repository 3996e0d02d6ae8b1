"""MoCo, BYOL, SimSiam, DINO and SwAV alike: what is compared, two processes, micro-batches, resuming, gaps, collapse, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_factory import make_corpus
from run_toys import assert_same, bits, unfinished
from torch import Tensor
from training_toys import toy_loop
from two_processes import needs_two_processes

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.corpus import Corpus
from biossl.distributed import rank, world_size
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.models.transformer import EncoderConfig, TransformerEncoder, pool_tokens
from biossl.objectives import byol
from biossl.objectives.byol import BYOL, BYOLConfig
from biossl.objectives.clustering import DINO, DINOConfig, SwAV, SwAVConfig
from biossl.objectives.losses_averaged import cosine_distance
from biossl.objectives.losses_clustering import centred_targets, sinkhorn, swapped_cross_entropy
from biossl.objectives.masking import RandomMask
from biossl.objectives.moco import MoCo, MoCoConfig
from biossl.recipe import Recipe
from biossl.recipe.load import recipe_from_dict
from biossl.signal import InputSpec
from biossl.training.data import make_sources
from biossl.training.monitors import Watcher
from biossl.training.run import pretrain
from biossl.training.trainer import fit

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
SUBJECT = torch.tensor([0, 0, 1, 2])
KEYS = Keys(seed=3, step=5, position=torch.arange(4))
MAKE: dict[str, Any] = {
    "moco": (MoCo, MoCoConfig, {"queue": 8}),
    "byol": (BYOL, BYOLConfig, {}),
    "simsiam": (BYOL, BYOLConfig, {"ema": "off"}),
    "dino": (DINO, DINOConfig, {"prototypes": 12}),
    "swav": (SwAV, SwAVConfig, {"prototypes": 3}),
}


def encoder() -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in"))


def gain() -> Pipeline:
    return Pipeline([Gain(factor=[0.5, 2.0], per_channel=True).build(SPEC)])


def windows(seed: int = 1, *, pair: bool = True, n: int = 4) -> Batch:
    x = torch.randn(n, 3, 100, generator=torch.Generator().manual_seed(seed))
    paired = {"window": windows(seed + 1, pair=False, n=n)} if pair else {}
    return Batch(x, SPEC.ch_names, SPEC.sfreq, subject=SUBJECT.repeat(n // 4), index=torch.arange(n), paired=paired)


def make(name: str, *, augment: Pipeline | None = None, norm: str = "", **settings: Any) -> Any:
    """An objective whose copy, where there is one, has drifted from it."""
    cls, config, own = MAKE[name]
    built = config(**own | {"pairing": "adjacent"} | settings)
    built.projector.norm = norm or built.projector.norm
    model = cls(encoder(), built, augment=augment, steps=100)
    with torch.no_grad():
        for _, target in model.ema_pairs():
            for p in target.parameters():
                p.mul_(1.1)
    return model


def embed(net: TransformerEncoder, batch: Batch) -> Tensor:
    return pool_tokens(net.encode(net.tokenize(batch)))


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


def test_dino_gives_the_teachers_centred_targets_to_the_other_view() -> None:
    model, batch = make("dino"), windows()
    model.centre.copy_(torch.linspace(-0.3, 0.3, 12))
    before = model.centre.clone()
    views = (batch, batch.paired["window"])
    scores = [model.head(embed(model.encoder, view))[1] for view in views]
    taught = [model.teacher.head(embed(model.teacher.encoder, view))[1] for view in views]
    for step, temperature in ((0, 0.04), (15, 0.055), (30, 0.07), (99, 0.07)):  # warmed up in 0.3 of 100 steps
        targets = [centred_targets(t, before, temperature=temperature) for t in taught]
        outcome = model.step(batch, step=step, keys=KEYS)
        torch.testing.assert_close(outcome.loss, swapped_cross_entropy(*targets, *scores, temperature=0.1))
    assert torch.equal(model.centre, before)  # within a step it rests
    model.after_step()
    torch.testing.assert_close(model.centre, 0.9 * before + 0.1 * torch.cat(taught).mean(dim=0))
    entropy = torch.cat([-(t * t.log()).sum(dim=1) for t in targets])
    assert 0 < float(outcome.terms["target_entropy"]) < float(entropy.max()) + 1e-4
    assert [model.ema_momentum(s) for s in (0, 50, 100)] == pytest.approx([0.996, 0.998, 1.0])


def test_swav_gives_each_view_the_balanced_code_of_the_other() -> None:
    model, batch = make("swav"), windows()
    scores = [model.head(embed(model.encoder, view))[1] for view in (batch, batch.paired["window"])]
    outcome = model.step(batch, step=0, keys=KEYS)
    torch.testing.assert_close(outcome.loss, swapped_cross_entropy(*map(sinkhorn, scores), *scores, temperature=0.1))
    with torch.no_grad():
        model.head.prototypes.mul_(7.0)  # only their directions count
    torch.testing.assert_close(model.step(batch, step=0, keys=KEYS).loss, outcome.loss)
    assert max(float(s.detach().abs().max()) for s in scores) <= 1.0 + 1e-6


@pytest.mark.parametrize("name", MAKE)
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


# ------------------------------------------------------------------------------------------ whole runs

OBJECTIVES: dict[str, dict[str, Any]] = {
    "moco": {"name": "moco", "queue": 16, "same_subject": "drop", "ema_start": 0.9, "ema_end": 0.9, "pairing": "adjacent"},
    "byol": {"name": "byol", "ema_start": 0.9, "projector": {"hidden": 32, "out": 16}, "predictor_hidden": 32},
    "simsiam": {"name": "byol", "ema": "off", "projector": {"hidden": 32, "out": 16, "layers": 3}, "predictor_hidden": 8},
    "dino": {"name": "dino", "prototypes": 16, "ema_start": 0.9, "teacher_noise": 0.2, "projector": {"hidden": 32, "out": 16, "layers": 2, "norm": "none"}},
    "swav": {"name": "swav", "prototypes": 4, "projector": {"hidden": 32, "out": 16}},
}  # fmt: skip


def small(name: str, **train: Any) -> Recipe:
    return recipe_from_dict(
        {
            "format": 1, "name": name, "modality": "imu", "data": {"batch_size": 8},
            "model": {"name": "transformer", "dim": 16, "depth": 1, "heads": 2, "patch_s": 0.1, "tokenizer": "joint", "attention": "full",
                      "init": "fan_in", "position": "once"},
            "augment": [{"name": "gain", "factor": [0.8, 1.25], "per_channel": True}, {"name": "time_mask", "share": [0.1, 0.3]}],
            "train": {"steps": 3, "optimizer": {"lr": 1e-3}, "schedule": {"name": "warmup_cosine", "warmup_steps": 1}} | train,
            "monitor": {"every": 0}, "checkpoint": {"every": 3, "keep": 2}, "objective": OBJECTIVES[name],
        },
        where=name,
    )  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("averaged") / "imu"
    return make_corpus(path, modality="imu", n_subjects=6, windows_per_subject=8, n_samples=50, splits={})


@needs_two_processes
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_step_like_one(name: str, corpus: Corpus, tmp_path: Path) -> None:
    """Gradients of three steps, and then queue, centre and copies."""
    sources, _ = make_sources([(corpus, 1.0)])
    # eps: before a batch norm a bias has a gradient of rounding alone, which AdamW would make a whole step of
    recipe = small(name, optimizer={"lr": 1e-3, "eps": 1e-5})

    def run(**kw: Any) -> None:
        objective = recipe.build(sources[0].spec)
        momentum, after = objective.ema_momentum, objective.after_step
        done = iter(range(3))

        def at_momentum(step: int) -> float:
            state = {k: p.grad.clone() for k, p in objective.named_parameters() if p.grad is not None}
            torch.save(state, tmp_path / f"{world_size()}-{rank()}-{step}.pt")
            return momentum(step)

        def after_step() -> None:
            after()
            torch.save(objective.state_dict(), tmp_path / f"{world_size()}-{rank()}-state-{next(done)}.pt")

        objective.ema_momentum, objective.after_step = at_momentum, after_step  # type: ignore[method-assign]
        fit(toy_loop(objective, recipe, sources), device="cpu", **kw)

    run()
    run(devices=2, strategy="ddp_fork")
    for step in range(3):
        one, left, right = (torch.load(tmp_path / f"{who}-{step}.pt") for who in ("1-0", "2-0", "2-1"))
        assert {k.split(".")[0] for k in one} == {"encoder"} | ({"head"} if name in ("dino", "swav") else {"projector"}) | (
            {"predictor"} if name in ("byol", "simsiam") else set()
        )
        largest = max(float(gradient.abs().max()) for gradient in one.values())  # some are 0 but for rounding
        assert largest > 0 or (name, step) == ("moco", 0)  # the queue is empty then
        for key, gradient in one.items():
            torch.testing.assert_close(left[key], gradient, rtol=1e-3, atol=1e-4 * largest)
            torch.testing.assert_close(left[key], right[key], rtol=0, atol=0)
    one, left, right = (torch.load(tmp_path / f"{who}-state-2.pt") for who in ("1-0", "2-0", "2-1"))
    for key, value in one.items():
        if key.startswith(("queue.", "centre", "teacher.")):
            torch.testing.assert_close(left[key], value, rtol=1e-2, atol=1e-4)
            assert torch.equal(left[key], right[key]), key


@pytest.mark.parametrize("name", OBJECTIVES)
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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_healthy_run_learns_and_raises_no_alarm(name: str, corpus: Corpus, tmp_path: Path) -> None:
    recipe = small(name, steps=60, optimizer={"lr": 3e-3, "weight_decay": 0.01})
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 10, 48, 10
    result = pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert result["alarms"] == [] and result["numbers"]["prediction_variance"] > 0.01
    assert result["numbers"].get("target_variance", 1.0) > 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_planted_collapse_is_noticed(name: str, corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    recipe = small(name, steps=4)
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 2, 48, 3
    model: Any = recipe.build(sources[0].spec)
    for net in (model.encoder, *(target for source, target in model.ema_pairs() if source is model.encoder)):
        net.norm.weight.requires_grad_(False).zero_()  # every token of every window is the same
    loop = toy_loop(model, recipe, sources, watcher=Watcher(sources, recipe.monitor, dim=16, seed=0))
    with pytest.raises(DataError, match="step 4: collapsed, (target|prediction) variance"):
        fit(loop, device="cpu")
    assert "step 2: embeddings have become nearly the same" in loop.alarms[0]


def test_simsiam_whose_targets_are_trained_too_collapses_and_is_stopped(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def towards_each_other(p1: Tensor, p2: Tensor, *_: Tensor, **__: Any) -> Tensor:
        return 4.0 - 4.0 * torch.nn.functional.cosine_similarity(p1, p2).mean()

    monkeypatch.setattr(byol, "cosine_distance", towards_each_other)
    recipe = small("simsiam", steps=80, optimizer={"lr": 3e-2, "weight_decay": 0.0})
    recipe.objective.config.projector.norm = "none"
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 10, 48, 10
    with pytest.raises(DataError, match="collapsed, (target|prediction) variance"):
        pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("name", MAKE)
def test_a_mask_or_two_equal_views_are_one_line(name: str) -> None:
    cls, config, own = MAKE[name]
    called = "byol" if name == "simsiam" else name
    for kw, match in (({"augment": None}, f"objective {called}: without augmentations and without pairing both views are the same"),
                      ({"augment": gain(), "mask": RandomMask(0.5)}, f"objective {called} hides nothing; leave the section out")):  # fmt: skip
        with pytest.raises(RequestError, match=match) as error:
            cls(encoder(), config(**own), **kw)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "objective", "match"), [
    ("moco", {"temperature": 0.0}, "temperature must be above 0, not 0"),
    ("moco", {"queue": 0}, "queue must be at least 1, not 0"),
    ("moco", {"ema_start": 0.999, "ema_end": 0.9}, "ema_start and ema_end must satisfy"),
    ("moco", {"same_subject": "positive"}, "same_subject"),
    ("byol", {"ema_end": 1.1}, "ema_start and ema_end must satisfy"),
    ("byol", {"teacher_noise": -1.0}, "teacher_noise must be at least 0"),
    ("byol", {"predictor_hidden": 0}, "predictor_hidden must be at least 1"),
    ("byol", {"pairing_share": 0.5}, "pairing_share has a meaning with pairing"),
    ("simsiam", {"teacher_noise": 0.1}, "teacher_noise needs a teacher; set ema: on"),
    ("dino", {"temperature": 0.0}, "temperature must be above 0, not 0"),
    ("dino", {"teacher_end": 0.2}, "below temperature 0.1, not 0.04 and 0.2"),
    ("dino", {"prototypes": 1}, "prototypes must be at least 2, not 1"),
    ("dino", {"teacher_warmup": 30}, "teacher_warmup must be from 0 to 1"),
    ("dino", {"centre_momentum": 1.0}, "centre_momentum from 0 to below 1"),
    ("swav", {"temperature": -1.0}, "temperature must be above 0, not -1"),
    ("swav", {"eps": 0.0}, "eps must be above 0"),
    ("swav", {"iterations": 0}, "iterations at least 1, not 0.05 and 0"),
])  # fmt: skip
def test_a_number_without_meaning_is_one_line_of_the_recipe(name: str, objective: dict[str, Any], match: str) -> None:
    raw = small(name).to_dict()
    raw["objective"] |= objective
    with pytest.raises(RequestError, match=match) as error:
        recipe_from_dict(raw, where="mine.yaml")
    assert str(error.value).startswith("mine.yaml:") and "\n" not in str(error.value)


def test_one_subject_is_refused_where_subjects_are_told_apart(tmp_path: Path) -> None:
    alone = make_corpus(tmp_path / "alone", modality="imu", n_subjects=1, windows_per_subject=24, n_samples=50, splits={})
    with pytest.raises(RequestError, match="alone: one subject; this objective tells subjects apart"):
        pretrain(small("moco"), [(alone, 1.0)], tmp_path / "run")
    assert pretrain(small("byol"), [(alone, 1.0)], tmp_path / "byol")["steps"] == 3
