"""Augmentations: batched on the device, in physical units, keyed; each says which labels it breaks."""
