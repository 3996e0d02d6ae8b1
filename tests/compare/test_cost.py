"""Operations of a step are counted, attention among them, and equal budgets buy equal work."""

import pytest
from training_toys import small_recipe

from biossl.compare.cost import Cost, measure, steps_for
from biossl.compare.plan import make_folds
from biossl.errors import RequestError


@pytest.fixture(scope="module")
def fold(corpus):
    one = make_folds(corpus, "group", split=None, folds=2, within=None)[1][0]
    return [(one.corpus, 1.0)], one.split


def linear_flops(recipe, tokens):
    """Forward products of one encoder pass over all tokens: four of the attention, two of the MLP, logits and values."""
    config = recipe.model.config
    per_token = 8 * config.dim**2 + 4 * config.dim * int(config.dim * config.mlp_ratio) + 4 * tokens * config.dim
    return config.depth * per_token * tokens


def test_flops_grow_with_the_batch_and_hold_the_encoder_s_products(fold):
    small, large = (measure(small_recipe(data__batch_size=b), *fold, timed=False).flops for b in (4, 8))
    assert large == 2 * small
    # the target encoder sees every token of every window once, forward only
    assert small > 4 * linear_flops(small_recipe(), 16)


def test_accumulation_does_not_change_the_count(fold):
    assert (
        measure(small_recipe(train__accumulate=2), *fold, timed=False).flops == measure(small_recipe(), *fold, timed=False).flops
    )


def test_time_is_taken_when_asked_for(fold):
    assert measure(small_recipe(), *fold, timed=True).seconds > 0


def test_equal_flops_buy_work_that_differs_by_less_than_a_step():
    budget = 1e12
    for flops in (10**9, 3 * 10**9, 7_777_777_777):
        steps = steps_for(small_recipe(), Cost(flops, 1.0), "flops", budget)
        assert 0 <= budget - steps * flops < flops
    assert steps_for(small_recipe(), Cost(1, 0.25), "seconds", 10) == 40
    assert steps_for(small_recipe(), Cost(1, 0.25), "steps", 7) == 7
    with pytest.raises(RequestError, match="less than one step"):
        steps_for(small_recipe(), Cost(10, 1.0), "flops", 9)
