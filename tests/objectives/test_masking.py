"""Recipe-level masks: exact size per sample or one as published per step, several stacked, bad settings refused."""

import pytest
import torch

from biossl.keys import Keys
from biossl.objectives.masking import MultiBlockMask, RandomMask, draw_masks

KEYS = Keys(0, 7, torch.arange(6))


@pytest.mark.parametrize("mask", [RandomMask(0.6), MultiBlockMask(0.6)])
def test_a_single_ratio_hides_exactly_that_share_of_every_sample(mask):
    drawn = mask.draw(KEYS, (1, 50), 0)
    assert mask.per_sample and drawn.masked.shape == (6, 30) and drawn.visible.shape == (6, 20)
    both = torch.cat([drawn.masked, drawn.visible], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(50).expand(6, 50))
    assert len({tuple(row) for row in drawn.masked.tolist()}) == 6


@pytest.mark.parametrize("mask", [RandomMask([0.6, 0.7]), MultiBlockMask(None)])
def test_as_published_all_samples_share_one_mask_whose_size_varies(mask):
    sizes = set()
    for step in range(40):
        drawn = mask.draw(Keys(0, step, KEYS.position), (1, 50), 0)
        assert not mask.per_sample and bool((drawn.masked == drawn.masked[:1]).all())
        sizes.add(drawn.masked.shape[1])
    assert len(sizes) > 2


def test_several_masks_are_stacked_mask_by_mask_and_differ():
    mask = MultiBlockMask(0.5)
    stacked = draw_masks(mask, KEYS, (1, 20), 3)
    assert stacked.masked.shape == (18, 10)
    for m in range(3):
        assert torch.equal(stacked.masked[m * 6 : (m + 1) * 6], mask.draw(KEYS, (1, 20), m).masked)
    assert not torch.equal(stacked.masked[:6], stacked.masked[6:12])
    with pytest.raises(ValueError, match="one size"):
        draw_masks(RandomMask([0.5, 0.6]), KEYS, (1, 20), 2)


def test_a_samples_mask_depends_on_its_place_in_the_step_alone():
    whole = draw_masks(RandomMask(0.5), KEYS, (1, 20), 1).masked
    tail = draw_masks(RandomMask(0.5), Keys(0, 7, torch.arange(4, 6)), (1, 20), 1).masked
    assert torch.equal(whole[4:], tail)


@pytest.mark.parametrize(
    "make",
    [lambda: RandomMask(1.5), lambda: RandomMask([0.7, 0.6]), lambda: MultiBlockMask(0.0), lambda: MultiBlockMask(0.5, blocks=0),
     lambda: MultiBlockMask(0.5, length=[0.1])],
)  # fmt: skip
def test_settings_outside_their_range_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_the_expected_share_is_near_the_measured_one():
    for mask in (RandomMask(0.6), RandomMask([0.6, 0.7]), MultiBlockMask(0.55), MultiBlockMask(None)):
        drawn = [mask.draw(Keys(0, s, KEYS.position), (1, 50), 0).masked.shape[1] / 50 for s in range(200)]
        assert sum(drawn) / len(drawn) == pytest.approx(mask.share(), abs=0.05)
