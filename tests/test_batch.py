"""Batch and Tokens: wrong shapes are refused at once, moving keeps everything, the grid view is free."""

import pytest
import torch

from biossl.batch import Batch, Tokens


def test_a_batch_with_wrong_shapes_is_refused():
    with pytest.raises(ValueError, match="2 channels, 1 names"):
        Batch(torch.zeros(1, 2, 3), ("I",), 100.0)
    with pytest.raises(ValueError, match=r"\(B, C, T\)"):
        Batch(torch.zeros(2, 3), ("I", "II"), 100.0)
    with pytest.raises(ValueError, match="observed"):
        Batch(torch.zeros(1, 1, 3), ("I",), 100.0, observed=torch.ones(1, 1, 2, dtype=torch.bool))


def test_to_moves_every_tensor_and_nested_batches():
    batch = Batch(
        torch.zeros(1, 1, 3), ("I",), 100.0, subject=torch.zeros(1, dtype=torch.int64), labels={"y": torch.ones(1)},
        paired={"watch": Batch(torch.zeros(1, 1, 3), ("acc_x",), 50.0), "report": ["text"]},
    )  # fmt: skip
    moved = batch.to("meta")
    assert moved.x.is_meta and moved.subject.is_meta and moved.labels["y"].is_meta and moved.paired["watch"].x.is_meta
    assert moved.paired["report"] == ["text"] and moved.channels == ("I",) and moved.sfreq == 100.0


def test_grid_view_shares_memory_and_is_lead_major():
    x = torch.arange(6.0).view(1, 6, 1)
    tokens = Tokens(x, torch.zeros(1, 6), torch.zeros(1, 6), torch.ones(1, 6, dtype=torch.bool), grid=(2, 3))
    grid = tokens.grid_view()
    assert grid.shape == (1, 2, 3, 1) and grid.data_ptr() == x.data_ptr()
    assert grid[0, 1, 0, 0] == 3
    with pytest.raises(ValueError, match="not on a grid"):
        Tokens(x, tokens.time_s, tokens.channel, tokens.observed).grid_view()
