"""DINO and SwAV: whose assignment goes to whom, the teacher's temperature and centre, balanced codes."""

from __future__ import annotations

import pytest
import torch
from two_view_toys import KEYS, embed, make, windows

from biossl.objectives.losses_clustering import centred_targets, sinkhorn, swapped_cross_entropy


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
