"""Comparing pretraining recipes: same backbone, data, budget and seeds; one table with paired intervals."""

from biossl.compare.run import compare

__all__ = ["compare"]
