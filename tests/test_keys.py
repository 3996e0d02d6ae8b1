"""Randomness as a pure function: the same numbers whatever the world size, independent draws, sane distribution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biossl.keys import Keys, hash_ints


@given(st.integers(0, 2**31), st.integers(0, 10**9), st.integers(1, 7), st.integers(1, 7))
def test_numbers_do_not_depend_on_how_the_batch_is_split(seed, step, left, right):
    whole = Keys(seed, step, torch.arange(left + right)).uniform((3,), draw=2)
    parts = [
        Keys(seed, step, p, micro=i, rank=i).uniform((3,), draw=2)
        for i, p in enumerate(torch.arange(left + right).split([left, right]))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_draws_steps_and_samples_differ():
    keys = Keys(0, 0, torch.arange(4))
    values = torch.stack(
        [
            keys.uniform((5,), 0),
            keys.uniform((5,), 1),
            Keys(0, 1, keys.position).uniform((5,), 0),
            Keys(1, 0, keys.position).uniform((5,), 0),
        ]
    )
    assert len(values.unique()) == values.numel()


def test_uniform_is_uniform():
    u = Keys(3, 5, torch.arange(500)).uniform((400,), 0).flatten()
    assert 0 <= u.min() and u.max() < 1
    counts = torch.histc(u.float(), bins=20, min=0, max=1)
    expected = len(u) / 20
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 45  # 19 degrees of freedom: 0.999 quantile 43.8
    pairs = torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]
    assert abs(pairs) < 0.01


def test_shared_is_the_same_for_every_sample_and_differs_by_step():
    a = Keys(0, 7, torch.arange(4)).shared((2,), 1)
    assert torch.equal(a, Keys(0, 7, torch.arange(9)).shared((2,), 1))
    assert not torch.equal(a, Keys(0, 8, torch.arange(4)).shared((2,), 1))


def test_bulk_seeds_differ_by_micro_and_rank():
    position = torch.arange(1)
    seeds = {Keys(0, 0, position, micro, rank).fold() for micro in range(3) for rank in range(3)}
    assert len(seeds) == 9


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, 2**64 - 1, -(2**63)])
def test_hash_takes_any_integer_and_is_a_valid_seed(value):
    h = hash_ints(value)
    assert 0 <= h < 2**63
    torch.Generator().manual_seed(h)
