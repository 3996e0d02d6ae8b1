"""VICReg and Barlow Twins: how their terms are weighed, and that without its variance term VICReg collapses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from two_view_toys import KEYS, embed, encoder, gain, imu_corpus, watched_small, windows

from biossl.errors import DataError
from biossl.objectives.losses_contrastive import barlow_twins, vicreg
from biossl.objectives.redundancy import BarlowTwinsConfig, RedundancyReduction, VICRegConfig
from biossl.training.run import pretrain


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


def test_vicreg_without_its_variance_term_collapses_and_is_stopped(tmp_path: Path) -> None:
    recipe = watched_small("vicreg", steps=60, lr=3e-2, weight_decay=0.0)
    recipe.objective.config.variance = recipe.objective.config.covariance = 0.0
    recipe.objective.config.projector.norm = "none"
    corpus = imu_corpus(tmp_path / "imu")
    with pytest.raises(DataError, match="collapsed, prediction variance"):
        pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
