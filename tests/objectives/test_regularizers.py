"""Terms against collapse: which rows they are taken over, what is not counted, settings that cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from biossl.batch import Encoded
from biossl.keys import Keys
from biossl.models.heads import ProjectorConfig
from biossl.objectives.losses import decorrelation, sigreg, variance_hinge
from biossl.objectives.regularizers import Regularizer, RegularizerConfig, step_directions

KEYS = Keys(0, 3, torch.arange(5))


def encoded(rows: int = 10) -> Encoded:
    x = torch.randn(rows, 7, 6, generator=torch.Generator().manual_seed(0))
    return Encoded(x, x.new_empty(rows, 0, 6), torch.ones(rows, 7, dtype=torch.bool))


def test_tokens_are_taken_as_they_are_and_the_hinge_alone_is_one_setting() -> None:
    e = encoded()
    terms = Regularizer(6, RegularizerConfig("vicreg", weight=2.0, covariance=0.0))(e, KEYS)
    assert set(terms) == {"variance"}
    torch.testing.assert_close(terms["variance"], variance_hinge(e.x.flatten(0, 1)))


def test_windows_are_means_of_their_tokens_and_each_mask_is_a_view() -> None:
    e = encoded()
    z = e.x.mean(dim=1)
    part = Regularizer(6, RegularizerConfig("vicreg", of="pooled", weight=3.0, covariance=0.2))
    terms = part(e, KEYS)
    torch.testing.assert_close(terms["variance"], (variance_hinge(z[:5]) + variance_hinge(z[5:])) / 2)
    torch.testing.assert_close(terms["covariance"], (decorrelation(z[:5]) + decorrelation(z[5:])) / 2)
    torch.testing.assert_close(part.weighted(terms), 3.0 * (terms["variance"] + 0.2 * terms["covariance"]))
    assert not torch.allclose(terms["variance"], variance_hinge(z))  # rows of two masks of a window are not two windows
    (gauss,) = Regularizer(6, RegularizerConfig("sigreg", of="pooled", directions=9))(e, KEYS).values()
    a = step_directions(KEYS, 9, z)
    torch.testing.assert_close(gauss, (sigreg(z[:5], a) + sigreg(z[5:], a)) / 2)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("name", ["vicreg", "sigreg"])
def test_a_window_in_which_nothing_was_observed_does_not_count(name: Any, norm: Any) -> None:
    part = Regularizer(6, RegularizerConfig(name, of="pooled", projector=ProjectorConfig(hidden=4, out=4, norm=norm)))
    e = encoded(5)
    e.observed[2] = False
    e.x.requires_grad_()
    got = part.weighted(part(e, KEYS))
    got.backward()
    assert e.x.grad is not None and bool(torch.isfinite(e.x.grad).all()) and bool((e.x.grad[2] == 0).all())
    keep = [0, 1, 3, 4]
    short = Encoded(e.x.detach()[keep], e.registers[keep], e.observed[keep])
    torch.testing.assert_close(got.detach(), part.weighted(part(short, Keys(0, 3, torch.arange(4)))).detach())


def test_directions_change_with_the_step_and_not_with_the_process() -> None:
    z = torch.zeros(2, 6)
    a = step_directions(KEYS, 9, z)
    assert torch.equal(a, step_directions(Keys(0, 3, torch.arange(9, 14), micro=1, rank=4), 9, z))
    assert not torch.equal(a, step_directions(Keys(0, 4, KEYS.position), 9, z))


@pytest.mark.parametrize(
    "settings", [{"weight": 0.0}, {"covariance": -1.0}, {"directions": 0}, {"name": "sigreg"}, {"name": "sigreg", "of": "tokens"}]
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be|set of: pooled|weight"):
        RegularizerConfig(**{"name": "vicreg"} | settings)
