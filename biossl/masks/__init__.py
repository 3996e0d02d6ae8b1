"""Masks as index tensors, batched, keyed, of exact size: over times, over tokens, and what makes a place likelier."""

from biossl.masks.times import (
    Mask,
    disjoint_times,
    exact_count,
    multi_block,
    multi_block_exact,
    partition_times,
    random_times,
    random_times_exact,
    step_share,
    visible_spans,
)
from biossl.masks.tokens import random_tokens, spatial_tokens, stdm_tokens, tube_tokens, whole_channels

__all__ = [
    "Mask",
    "disjoint_times",
    "exact_count",
    "multi_block",
    "multi_block_exact",
    "partition_times",
    "random_times",
    "random_times_exact",
    "random_tokens",
    "spatial_tokens",
    "stdm_tokens",
    "step_share",
    "tube_tokens",
    "visible_spans",
    "whole_channels",
]
