"""Recipe-level masks: exact size per sample or one as published per step, several stacked, bad settings refused."""

import pytest
import torch

from biossl.batch import Batch, TimeKeep
from biossl.config import to_plain
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.masks.priors import Prior
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.masking import (
    ChannelMask,
    DisjointMask,
    MultiBlockMask,
    PartitionMask,
    RandomMask,
    SpanMask,
    SpatialMask,
    STDMMask,
    TubeMask,
    draw_masks,
    mask_prior,
    require_mask,
)
from biossl.recipe.tables import CONFIGS, resolve
from biossl.signal import InputSpec

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


HEAD = InputSpec("eeg", 50.0, 400, ("F3", "F4", "C3", "C4", "P3", "P4"), ("eeg",) * 6, ("uV",) * 6)
ECG = InputSpec("ecg", 50.0, 400, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)


def encoder(spec=HEAD, **config):
    return TransformerEncoder(spec, EncoderConfig(**{"dim": 8, "depth": 1, "heads": 2, "patch_s": 0.4} | config))


@pytest.mark.parametrize("name", CONFIGS["mask"])
def test_every_family_of_the_table_draws_exact_stackable_masks_that_an_encoder_takes(name):
    net = encoder()
    mask = require_mask(
        resolve(CONFIGS["mask"][name])(**({"patches": 2} if name in ("span", "partition") else {})), net, objective="x", n_masks=2
    )
    drawn = draw_masks(mask, KEYS, net.grid, 2)
    C, P = drawn.grid
    size = C * P if drawn.over == "token" else P
    assert mask.per_sample and drawn.masked.shape[0] == 12 and drawn.masked.shape[1] + drawn.visible.shape[1] == size
    both = torch.cat([drawn.masked_tokens(), drawn.visible_tokens()], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(C * P).expand(12, -1))
    assert isinstance(drawn.keep(), TimeKeep) == (drawn.over == "time")
    assert drawn.masked_tokens().shape[1] / (C * P) == pytest.approx(mask.share(), abs=0.11)
    x = torch.randn(6, 6, 400)
    encoded = net.encode(net.tokenize(Batch(x, HEAD.ch_names, 50.0)), keep=drawn.keep())
    assert encoded.x.shape == (12, drawn.visible_tokens().shape[1], 8)
    without_memory = Keys(0, 7, torch.arange(6, device="meta"))  # as `check` does
    assert draw_masks(mask, without_memory, net.grid, 2).masked.shape == drawn.masked.shape
    assert set(to_plain(mask)) >= set(to_plain(resolve(CONFIGS["mask"][name])()))


def test_a_mask_of_the_whole_step_stays_one_row_when_it_numbers_tokens():
    drawn = draw_masks(RandomMask([0.4, 0.6]), KEYS, (3, 10), 1)
    assert drawn.masked_tokens().stride(0) == drawn.visible_tokens().stride(0) == 0
    assert drawn.masked_tokens().shape == (6, 3 * drawn.masked.shape[1])


def test_a_size_drawn_for_each_step_is_shared_by_its_masks_and_in_the_stated_range():
    sizes = set()
    for step in range(60):
        drawn = draw_masks(SpanMask([0.75, 0.85], patches=10), Keys(0, step, KEYS.position), (1, 200), 2)
        sizes.add(drawn.visible.shape[1])
    assert 30 <= min(sizes) < 34 and 46 < max(sizes) <= 50


@pytest.mark.parametrize(
    ("mask", "spec", "config", "text"),
    [
        (None, HEAD, {}, "key 'mask' is missing; objective x needs one"),
        (RandomMask(), HEAD, {"patch_s": 8.0}, "a window has 1 patches, this mask needs at least 2"),
        (ChannelMask(), HEAD, {"tokenizer": "joint"}, "hides whole channels, but the tokens have 1"),
        (STDMMask(), HEAD, {"tokenizer": "joint"}, "hides whole channels, but the tokens have 1"),
        (TubeMask(), HEAD, {"tokenizer": "joint"}, "hides whole channels, but the tokens have 1"),
        (SpatialMask(), HEAD, {"tokenizer": "joint"}, "hides whole channels, but the tokens have 1"),
        (SpatialMask(), ECG, {}, "spatial needs electrode positions, none is known for I II V1"),
        (SpanMask(0.8, patches=10), HEAD, {}, "mask.patches: 10, but mask.ratio leaves only 4 of 20 patches visible"),
        (PartitionMask(3, patches=11), HEAD, {}, "3 parts of chunks of 11 need 33 patches, a window has 20"),
        (PartitionMask(parts=2), HEAD, {}, "objective.views: 3, but mask.parts is 2"),
        (MultiBlockMask(None), HEAD, {}, "objective.views: several masks need one size"),
        (RandomMask(0.5, prior=Prior("qrs")), HEAD, {}, "mask.prior.name: qrs is for ecg, the windows are eeg"),
    ],
)
def test_a_mask_that_leaves_nothing_or_cannot_be_drawn_is_one_line_when_the_objective_is_built(mask, spec, config, text):
    with pytest.raises(RequestError, match="^[^\n]*$") as error:
        require_mask(mask, encoder(spec, **config), objective="x", n_masks=3, key="views")
    assert text in str(error.value)


@pytest.mark.parametrize("mask", [RandomMask(0.3, prior=Prior("qrs", 50.0)), MultiBlockMask(0.3, prior=Prior("qrs", 50.0)),
                                  RandomMask(0.3, channelwise=True, prior=Prior("qrs", 50.0))])  # fmt: skip
def test_a_prior_of_the_recipe_moves_the_mask_to_the_event(mask):
    spec = InputSpec("ecg", 100.0, 400, ("I", "V1"), ("ecg",) * 2, ("mV",) * 2)
    net = encoder(spec)
    x = torch.zeros(200, 2, 400)
    x[:, :, 130:134] = 1.0  # patch 3 of 10
    batch = Batch(x, spec.ch_names, 100.0)
    prior = mask_prior(mask, batch, net)
    keys = Keys(0, 0, torch.arange(200))
    hidden = draw_masks(mask, keys, net.grid, 2, prior=prior).masked_tokens()
    plain = draw_masks(mask, keys, net.grid, 2).masked_tokens()
    assert float((hidden % 10 == 3).any(dim=1).float().mean()) > 0.85 > 0.7 > float((plain % 10 == 3).any(dim=1).float().mean())
    assert hidden.shape == plain.shape and mask_prior(DisjointMask(), batch, net) is None


@pytest.mark.parametrize(
    "make",
    [lambda: RandomMask([0.5, 0.6], channelwise=True), lambda: RandomMask([0.5, 0.6], prior=Prior("qrs")), lambda: DisjointMask(1.0),
     lambda: MultiBlockMask(None, prior=Prior("qrs")), lambda: PartitionMask(parts=1), lambda: PartitionMask(patches=0),
     lambda: SpanMask([0.8, 0.7]), lambda: SpanMask(patches=0), lambda: ChannelMask(0.0), lambda: STDMMask(time=1.0),
     lambda: TubeMask(channels=0.0), lambda: SpatialMask(2.0)],
)  # fmt: skip
def test_settings_of_the_other_families_outside_their_range_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
