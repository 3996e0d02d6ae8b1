"""SimCLR, CLOCS, S-PCL, VICReg and Barlow Twins: what is compared with what, two processes, collapse, one-line refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_factory import make_corpus
from torch import Tensor
from training_toys import toy_loop
from two_processes import needs_two_processes

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch, TimeKeep
from biossl.corpus import Corpus
from biossl.distributed import rank, world_size
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.models.decoders import DecoderConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder, pool_tokens
from biossl.objectives.contrastive import CLOCS, SPCL, CLOCSConfig, SimCLR, SimCLRConfig, SPCLConfig
from biossl.objectives.hybrid import Hybrid, HybridConfig
from biossl.objectives.lejepa import LeJEPA, LeJEPAConfig
from biossl.objectives.losses_contrastive import barlow_twins, clocs_nce, nt_xent, vicreg
from biossl.objectives.masking import PartitionMask, RandomMask, draw_masks
from biossl.objectives.redundancy import BarlowTwinsConfig, RedundancyReduction, VICRegConfig
from biossl.objectives.views import two_views
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


def encoder(tokenizer: Any = "channel") -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in", tokenizer=tokenizer))


def windows(seed: int = 1, *, pair: bool = True) -> Batch:
    x = torch.randn(4, 3, 100, generator=torch.Generator().manual_seed(seed))
    return Batch(x, SPEC.ch_names, SPEC.sfreq, subject=SUBJECT, paired={"window": windows(seed + 1, pair=False)} if pair else {})


def gain() -> Pipeline:
    return Pipeline([Gain(factor=[0.5, 2.0], per_channel=True).build(SPEC)])


def embed(net: TransformerEncoder, batch: Batch) -> Tensor:
    return pool_tokens(net.encode(net.tokenize(batch)))


def lead(batch: Batch, c: int) -> Batch:
    return Batch(batch.x[:, c : c + 1], (SPEC.ch_names[c],), SPEC.sfreq)


@pytest.mark.parametrize("mode", ["negative", "positive", "drop"])
def test_simclr_contrasts_two_augmented_views(mode: Any) -> None:
    net, augment, batch = encoder(), gain(), windows(pair=False)
    model = SimCLR(net, SimCLRConfig(same_subject=mode), augment=augment)
    z1, z2 = (model.projector(embed(net, augment(batch, KEYS, view=v))) for v in (0, 1))
    outcome = model.step(batch, step=0, keys=KEYS)
    wanted = nt_xent(z1, z2, temperature=0.2, subject=SUBJECT, same_subject=mode)
    torch.testing.assert_close(outcome.loss, wanted)
    assert not torch.equal(z1, z2) and model.needs.several_subjects == (mode != "negative")
    assert outcome.watch["embedding"].shape == (4, 16) and not outcome.watch["embedding"].requires_grad
    torch.testing.assert_close(outcome.watch["prediction"].square().mean(dim=1), torch.ones(4))


def test_with_pairing_the_second_view_is_the_partner_of_a_share_of_windows() -> None:
    net, batch = encoder(), windows()
    model = SimCLR(net, SimCLRConfig(pairing="adjacent"), augment=None)
    z1, z2 = (model.projector(embed(net, b)) for b in (batch, batch.paired["window"]))
    torch.testing.assert_close(model.step(batch, step=0, keys=KEYS).loss, nt_xent(z1, z2, temperature=0.2))
    keys = Keys(0, 0, torch.arange(400))
    many = Batch(torch.zeros(400, 3, 100), SPEC.ch_names, SPEC.sfreq)
    ones = Batch(torch.ones(400, 3, 100), SPEC.ch_names, SPEC.sfreq, observed=torch.rand(400, 3, 100) < 0.5)
    many.paired["window"] = ones
    first, second = two_views(many, keys, None, pairing="adjacent", share=0.3)
    taken = second.x[:, 0, 0] == 1
    assert torch.equal(first.x, many.x) and 0.22 < taken.float().mean() < 0.38
    assert torch.equal(second.x, taken[:, None, None].expand_as(many.x).float())  # whole windows, never a mixture
    assert second.observed is not None and ones.observed is not None
    assert torch.equal(second.observed, ones.observed | ~taken[:, None, None])


@pytest.mark.parametrize(("variant", "pairs"), [
    ("cmsc", [(0, 0), (1, 1), (2, 2)]),
    ("cmlc", [(0, 1), (0, 2), (1, 2)]),
    ("cmsmlc", [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]),
])  # fmt: skip
def test_clocs_compares_segments_and_leads(variant: Any, pairs: list[tuple[int, int]]) -> None:
    net, batch = encoder(), windows()
    config = CLOCSConfig(variant=variant)
    config.projector.norm = "none"  # no batch statistics: leads can be projected one by one here
    model = CLOCS(net, config)
    second = batch if variant == "cmlc" else batch.paired["window"]
    parts = [
        clocs_nce(*(model.projector(embed(net, lead(b, c)))[None] for b, c in ((batch, i), (second, j))), temperature=0.1, subject=SUBJECT)
        for i, j in pairs
    ]  # fmt: skip
    torch.testing.assert_close(model.step(batch, step=0, keys=KEYS).loss, torch.stack(parts).mean())
    assert model.needs.pairing == ("none" if variant == "cmlc" else "adjacent") and model.needs.several_subjects


def test_clocs_compares_whole_windows_of_a_joint_tokenizer() -> None:
    net, batch = encoder("joint"), windows()
    model = CLOCS(net, CLOCSConfig(leads="together"))
    z1, z2 = (model.projector(embed(net, b))[None] for b in (batch, batch.paired["window"]))
    torch.testing.assert_close(model.step(batch, step=0, keys=KEYS).loss, clocs_nce(z1, z2, temperature=0.1, subject=SUBJECT))


def test_spcl_contrasts_disjoint_halves_encoded_apart() -> None:
    net, batch, mask = encoder(), windows(pair=False), PartitionMask(parts=2, patches=2)
    model = SPCL(net, SPCLConfig(), mask=mask)
    halves = draw_masks(mask, KEYS, net.grid, 2).visible.chunk(2)
    for a, b in zip(*halves, strict=True):
        assert not set(a.tolist()) & set(b.tolist()) and len(a) == net.grid[1] // 2
    tokens = net.tokenize(batch)
    z1, z2 = (model.projector(pool_tokens(net.encode(tokens, keep=TimeKeep(half)))) for half in halves)
    torch.testing.assert_close(model.step(batch, step=0, keys=KEYS).loss, nt_xent(z1, z2, temperature=0.2))


def test_redundancy_objectives_weigh_their_terms() -> None:
    net, augment, batch = encoder(), gain(), windows(pair=False)
    for model, terms, weights in (
        (RedundancyReduction(net, VICRegConfig(), augment=augment), vicreg, (25.0, 25.0, 1.0)),
        (RedundancyReduction(net, BarlowTwinsConfig(), augment=augment), barlow_twins, (1.0, 1.0)),
    ):
        z1, z2 = (model.projector(embed(net, augment(batch, KEYS, view=v))) for v in (0, 1))
        outcome = model.step(batch, step=0, keys=KEYS)
        wanted = terms(z1, z2)  # type: ignore[operator]
        torch.testing.assert_close(outcome.loss, sum(w * t for w, t in zip(weights, wanted.values(), strict=True)))
        torch.testing.assert_close(outcome.terms, {k: v.detach() for k, v in wanted.items()})


def test_a_window_or_lead_of_which_nothing_was_observed_is_left_out() -> None:
    """The loss is that of the batch without it, and nothing becomes NaN."""
    for make in (
        lambda: SimCLR(encoder(), config(SimCLRConfig(pairing="adjacent")), augment=None),
        lambda: CLOCS(encoder(), config(CLOCSConfig(variant="cmsmlc"))),
        lambda: SPCL(encoder(), config(SPCLConfig()), mask=PartitionMask(patches=2)),
        lambda: RedundancyReduction(encoder(), config(VICRegConfig(pairing="adjacent")), augment=None),
    ):
        model, batch = make(), windows()
        seen = torch.ones(4, 3, 100, dtype=torch.bool)
        seen[2] = False
        holed = Batch(batch.x * seen, SPEC.ch_names, SPEC.sfreq, observed=seen, subject=SUBJECT, paired=batch.paired)
        loss = model.step(holed, step=0, keys=KEYS).loss
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        keep = [0, 1, 3]
        small = Batch(batch.x[keep], SPEC.ch_names, SPEC.sfreq, subject=SUBJECT[keep])
        small.paired["window"] = Batch(batch.paired["window"].x[keep], SPEC.ch_names, SPEC.sfreq)
        without = model.step(small, step=0, keys=Keys(3, 5, torch.tensor(keep))).loss
        torch.testing.assert_close(loss, without, rtol=1e-4, atol=1e-5)


def test_a_window_that_counts_for_nothing_leaves_the_projectors_batch_statistics_alone() -> None:
    """With batch norm, and whatever the window's samples hold; in every objective that projects pooled features."""
    x = torch.randn(8, 3, 100, generator=torch.Generator().manual_seed(4))
    seen = torch.ones(8, 3, 100, dtype=torch.bool)
    seen[5] = False
    subject, keep = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4]), [0, 1, 2, 3, 4, 6, 7]
    for model in (
        SimCLR(encoder(), SimCLRConfig(), augment=gain()),
        RedundancyReduction(encoder(), VICRegConfig(), augment=gain()),
        RedundancyReduction(encoder(), BarlowTwinsConfig(), augment=gain()),
        CLOCS(encoder(), CLOCSConfig(variant="cmlc")),
        SPCL(encoder(), SPCLConfig(), mask=PartitionMask(patches=2)),
        LeJEPA(encoder(), LeJEPAConfig(directions=8), mask=None, steps=1, augment=gain()),
        Hybrid(encoder(), HybridConfig(decoder=DecoderConfig(dim=8, depth=1, heads=2), reconstruction=1e-6), mask=RandomMask(0.5),
               steps=1),
    ):  # fmt: skip
        holed = Batch(x * seen, SPEC.ch_names, SPEC.sfreq, observed=seen, subject=subject)
        fewer = Batch(x[keep], SPEC.ch_names, SPEC.sfreq, subject=subject[keep])
        loss = model.step(holed, step=0, keys=Keys(3, 5, torch.arange(8))).loss
        without = model.step(fewer, step=0, keys=Keys(3, 5, torch.tensor(keep))).loss
        torch.testing.assert_close(loss, without, rtol=1e-4, atol=1e-5, msg=lambda m, of=model: f"{type(of).__name__}: {m}")


def test_clocs_pairs_the_leads_that_the_batch_has() -> None:
    net, batch = encoder(), windows(pair=False)
    settings = config(CLOCSConfig(variant="cmlc"))
    model, some = CLOCS(net, settings), Batch(batch.x[:, [0, 2]], ("I", "V1"), SPEC.sfreq, subject=SUBJECT)
    z1, z2 = (model.projector(embed(net, Batch(some.x[:, [c]], (some.channels[c],), SPEC.sfreq)))[None] for c in (0, 1))
    torch.testing.assert_close(model.step(some, step=0, keys=KEYS).loss, clocs_nce(z1, z2, temperature=0.1, subject=SUBJECT))


def config(settings: Any) -> Any:
    settings.projector.norm = "none"
    return settings


OBJECTIVES: dict[str, dict[str, Any]] = {
    "simclr": {"objective": {"name": "simclr", "pairing": "adjacent", "pairing_share": 0.5, "same_subject": "drop"}},
    "clocs": {"objective": {"name": "clocs", "variant": "cmsc", "leads": "together"}},
    "spcl": {"objective": {"name": "spcl"}, "mask": {"name": "partition", "patches": 2}},
    "vicreg": {"objective": {"name": "vicreg", "projector": {"hidden": 16, "out": 16}}},
    "barlow_twins": {"objective": {"name": "barlow_twins", "projector": {"hidden": 16, "out": 16}}},
}


def small(name: str, **train: Any) -> Recipe:
    objective = OBJECTIVES[name]["objective"]
    return recipe_from_dict(
        {
            "format": 1, "name": name, "modality": "imu", "data": {"batch_size": 8},
            "model": {"name": "transformer", "dim": 16, "depth": 1, "heads": 2, "patch_s": 0.1, "tokenizer": "joint", "attention": "full",
                      "init": "fan_in", "position": "once"},
            "augment": [{"name": "gain", "factor": [0.8, 1.25], "per_channel": True}, {"name": "time_mask", "share": [0.1, 0.3]}],
            "train": {"steps": 3, "optimizer": {"lr": 1e-3}, "schedule": {"name": "warmup_cosine", "warmup_steps": 1}} | train,
            "monitor": {"every": 0}, **OBJECTIVES[name], "objective": objective,
        },
        where=name,
    )  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("contrast") / "imu"
    return make_corpus(path, modality="imu", n_subjects=6, windows_per_subject=8, n_samples=50, splits={})


@needs_two_processes
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_step_like_one(name: str, corpus: Corpus, tmp_path: Path) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    recipe = small(name)

    def run(**kw: Any) -> None:
        objective = recipe.build(sources[0].spec)

        def after_step(step: int) -> float:
            state = {k: p.grad.clone() for k, p in objective.named_parameters() if p.grad is not None}
            torch.save(state, tmp_path / f"{world_size()}-{rank()}-{step}.pt")
            return 1.0

        objective.ema_momentum = after_step  # type: ignore[method-assign]
        fit(toy_loop(objective, recipe, sources), device="cpu", **kw)

    run()
    run(devices=2, strategy="ddp_fork")
    for step in range(3):
        one, left, right = (torch.load(tmp_path / f"{who}-{step}.pt") for who in ("1-0", "2-0", "2-1"))
        assert {k.split(".")[0] for k in one} == {"encoder", "projector"}
        largest = max(float(gradient.abs().max()) for gradient in one.values())  # some are 0 but for rounding
        for key, gradient in one.items():
            torch.testing.assert_close(left[key], gradient, rtol=1e-3, atol=1e-4 * largest)
            torch.testing.assert_close(left[key], right[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_healthy_run_learns_and_raises_no_alarm(name: str, corpus: Corpus, tmp_path: Path) -> None:
    recipe = small(name, steps=40)
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 10, 48, 10
    result = pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert result["alarms"] == [] and result["numbers"]["prediction_variance"] > 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_planted_collapse_is_noticed(name: str, corpus: Corpus) -> None:
    sources, _ = make_sources([(corpus, 1.0)])
    recipe = small(name, steps=4)
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 2, 48, 3
    model: Any = recipe.build(sources[0].spec)
    model.encoder.norm.weight.requires_grad_(False).zero_()  # every token of every window is the same
    loop = toy_loop(model, recipe, sources, watcher=Watcher(sources, recipe.monitor, dim=16, seed=0))
    with pytest.raises(DataError, match="step 4: collapsed, prediction variance"):
        fit(loop, device="cpu")
    assert "step 2: embeddings have become nearly the same" in loop.alarms[0]


def test_vicreg_without_its_variance_term_collapses_and_is_stopped(corpus: Corpus, tmp_path: Path) -> None:
    recipe = small("vicreg", steps=60, optimizer={"lr": 3e-2, "weight_decay": 0.0})
    recipe.objective.config.variance = recipe.objective.config.covariance = 0.0
    recipe.objective.config.projector.norm = "none"
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 10, 48, 10
    with pytest.raises(DataError, match="collapsed, prediction variance"):
        pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")


@pytest.mark.parametrize(("make", "match"), [
    (lambda: SimCLR(encoder(), SimCLRConfig(), augment=None), "both views are the same window; give augment"),
    (lambda: SimCLR(encoder(), SimCLRConfig(), augment=gain(), mask=RandomMask(0.5)), "simclr hides nothing"),
    (lambda: RedundancyReduction(encoder(), VICRegConfig(), augment=None), "objective vicreg: without augmentations"),
    (lambda: RedundancyReduction(encoder(), BarlowTwinsConfig(), augment=None), "objective barlow_twins: without augmentations"),
    (lambda: CLOCS(encoder("joint"), CLOCSConfig()), "each needs an encoder that serves single leads"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=None), "two disjoint halves"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=RandomMask(0.5)), "two disjoint halves"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=PartitionMask(patches=9)), "take fewer"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(make: Any, match: str) -> None:
    with pytest.raises(RequestError, match=match) as error:
        make()
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
])  # fmt: skip
def test_a_number_without_meaning_is_one_line_of_the_recipe(name: str, objective: dict[str, Any], match: str) -> None:
    raw = small(name).to_dict()
    raw["objective"] |= objective
    with pytest.raises(RequestError, match=match) as error:
        recipe_from_dict(raw, where="mine.yaml")
    assert str(error.value).startswith("mine.yaml:") and "\n" not in str(error.value)
