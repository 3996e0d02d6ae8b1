"""All objectives that compare windows alike: two processes, healthy runs, planted collapse, one-line refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_toys import toy_loop
from two_processes import needs_two_processes
from two_view_toys import MAKE, OBJECTIVES, encoder, gain, imu_corpus, small, watched_small

from biossl.corpus import Corpus
from biossl.distributed import rank, world_size
from biossl.errors import DataError, RequestError
from biossl.objectives.masking import RandomMask
from biossl.objectives.views import TwoViews
from biossl.recipe.load import recipe_from_dict
from biossl.recipe.tables import OBJECTIVES as TABLE
from biossl.recipe.tables import resolve
from biossl.training.data import make_sources
from biossl.training.monitors import Watcher
from biossl.training.run import pretrain
from biossl.training.trainer import fit

LATER = ("moco", "byol", "simsiam", "dino", "swav")  # with a copy, a stopped gradient or codes: they need more steps, and may
# collapse in their targets first


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return imu_corpus(tmp_path_factory.mktemp("two_views") / "imu")


def test_every_objective_of_two_views_stands_in_the_tables_of_these_tests() -> None:
    named = {name for name, target in TABLE.items() if issubclass(resolve(target), TwoViews)}
    assert named == {config.name for _, config, _ in MAKE.values()} and named <= set(OBJECTIVES)


@needs_two_processes
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_step_like_one(name: str, corpus: Corpus, tmp_path: Path) -> None:
    """Gradients of three steps, and then queue, centre and copies."""
    sources, _ = make_sources([(corpus, 1.0)])
    # eps: before a batch norm a bias has a gradient of rounding alone, which AdamW would make a whole step of
    recipe = small(name, optimizer={"lr": 1e-3} | ({"eps": 1e-5} if name in LATER else {}))

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
def test_a_healthy_run_learns_and_raises_no_alarm(name: str, corpus: Corpus, tmp_path: Path) -> None:
    later = name in LATER
    recipe = watched_small(name, steps=60 if later else 40, lr=3e-3 if later else 1e-3, weight_decay=0.01 if later else 0.05)
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
    what = "(target|prediction)" if name in LATER else "prediction"
    with pytest.raises(DataError, match=f"step 4: collapsed, {what} variance"):
        fit(loop, device="cpu")
    assert "step 2: embeddings have become nearly the same" in loop.alarms[0]


@pytest.mark.parametrize("name", MAKE)
def test_a_mask_or_two_equal_views_are_one_line(name: str) -> None:
    cls, config, own = MAKE[name]
    called = "byol" if name == "simsiam" else name
    same = f"objective {called}: without augmentations and without pairing both views are the same"
    for kw, match in (({"augment": None}, same), ({"augment": gain(p=0.0)}, same),
                      ({"augment": gain(), "mask": RandomMask(0.5)}, f"objective {called} hides nothing; leave the section out")):  # fmt: skip
        with pytest.raises(RequestError, match=match) as error:
            cls(encoder(), config(**own), **kw)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "objective", "match"), [
    ("simclr", {"temperature": 0.0}, "'objective': temperature must be above 0, not 0"),
    ("clocs", {"temperature": -1.0}, "temperature must be above 0, not -1"),
    ("clocs", {"variant": "cmlc"}, "variant cmlc compares leads, so they must be embedded one by one"),
    ("simclr", {"pairing": "none"}, "pairing_share has a meaning with pairing"),
    ("simclr", {"pairing_share": 0.0}, "pairing_share must be above 0"),
    ("simclr", {"windows_per_subject": 4}, "windows_per_subject 4 has a meaning with sampler subjects only"),
    ("barlow_twins", {"lam": 0.0}, "lam must be above 0"),
    ("vicreg", {"covariance": -1.0}, "weights must be at least 0"),
    ("simclr", {"projector": {"out": 1}}, "'objective.projector': hidden and layers"),
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
