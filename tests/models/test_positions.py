"""The position table is the published function of time and channel."""

from __future__ import annotations

import math

import pytest
import torch

from biossl.models.positions import sincos_2d


def test_table_equals_the_formula_entry_by_entry() -> None:
    C, P, D = 3, 4, 16
    table = sincos_2d(C, P, D)
    assert table.shape == (C * P, D) and table.dtype == torch.float32
    quarter = D // 4
    for channel in range(C):
        for time in range(P):
            row = table[channel * P + time]
            for i in range(quarter):
                w = 10000.0 ** (-i / quarter)
                expected = [math.sin(time * w), math.cos(time * w), math.sin(channel * w), math.cos(channel * w)]
                found = [row[i], row[quarter + i], row[2 * quarter + i], row[3 * quarter + i]]
                assert [float(f) for f in found] == pytest.approx(expected, abs=1e-7)


def test_one_channel_has_a_constant_second_half() -> None:
    table = sincos_2d(1, 50, 384)
    assert (table[:, 192:288] == 0).all() and (table[:, 288:] == 1).all()


def test_width_must_be_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(2, 3, 6)


def test_table_is_real_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert sincos_2d(2, 3, 8).device.type == "cpu"
