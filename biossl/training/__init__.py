"""Training: one loop for every objective (the only room that imports Lightning)."""

from biossl.training.run import pretrain

__all__ = ["pretrain"]
