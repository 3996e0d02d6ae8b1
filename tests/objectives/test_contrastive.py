"""SimCLR, CLOCS and S-PCL: what is compared with what, what a window without a signal changes, one-line refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from two_view_toys import KEYS, SPEC, SUBJECT, embed, encoder, gain, windows

from biossl.batch import Batch, TimeKeep
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.models.decoders import DecoderConfig
from biossl.models.encoder import pool_tokens
from biossl.objectives.clocs import CLOCS, CLOCSConfig
from biossl.objectives.hybrid import Hybrid, HybridConfig
from biossl.objectives.lejepa import LeJEPA, LeJEPAConfig
from biossl.objectives.losses_contrastive import clocs_nce, nt_xent
from biossl.objectives.masking import PartitionMask, RandomMask, draw_masks
from biossl.objectives.redundancy import BarlowTwinsConfig, RedundancyReduction, VICRegConfig
from biossl.objectives.simclr import SimCLR, SimCLRConfig
from biossl.objectives.spcl import SPCL, SPCLConfig
from biossl.objectives.views import two_views


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


@pytest.mark.parametrize(("make", "match"), [
    (lambda: CLOCS(encoder("joint"), CLOCSConfig()), "each needs an encoder that serves single leads"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=None), "two disjoint halves"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=RandomMask(0.5)), "two disjoint halves"),
    (lambda: SPCL(encoder(), SPCLConfig(), mask=PartitionMask(patches=9)), "take fewer"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(make: Any, match: str) -> None:
    with pytest.raises(RequestError, match=match) as error:
        make()
    assert "\n" not in str(error.value)
