"""Objectives that compare windows, small: of one encoder and one batch, or as recipes for whole runs on made windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from corpus_factory import make_corpus
from torch import Tensor

from biossl.augment.amplitude import Gain
from biossl.augment.base import Pipeline
from biossl.batch import Batch
from biossl.corpus import Corpus
from biossl.keys import Keys
from biossl.models.encoder import pool_tokens
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.byol import BYOL, BYOLConfig
from biossl.objectives.clustering import DINO, DINOConfig, SwAV, SwAVConfig
from biossl.objectives.moco import MoCo, MoCoConfig
from biossl.objectives.redundancy import BarlowTwinsConfig, RedundancyReduction, VICRegConfig
from biossl.objectives.simclr import SimCLR, SimCLRConfig
from biossl.recipe import Recipe
from biossl.recipe.load import recipe_from_dict
from biossl.signal import InputSpec

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)
SUBJECT = torch.tensor([0, 0, 1, 2])
KEYS = Keys(seed=3, step=5, position=torch.arange(4))

# every objective that is a TwoViews: class, settings, what of these is not the default
MAKE: dict[str, Any] = {
    "simclr": (SimCLR, SimCLRConfig, {}),
    "vicreg": (RedundancyReduction, VICRegConfig, {}),
    "barlow_twins": (RedundancyReduction, BarlowTwinsConfig, {}),
    "moco": (MoCo, MoCoConfig, {"queue": 8}),
    "byol": (BYOL, BYOLConfig, {}),
    "simsiam": (BYOL, BYOLConfig, {"ema": "off"}),
    "dino": (DINO, DINOConfig, {"prototypes": 12}),
    "swav": (SwAV, SwAVConfig, {"prototypes": 3}),
}


def encoder(tokenizer: Any = "channel") -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in", tokenizer=tokenizer))


def gain(p: float = 1.0) -> Pipeline:
    return Pipeline([Gain(factor=[0.5, 2.0], per_channel=True, p=p).build(SPEC)])


def windows(seed: int = 1, *, pair: bool = True, n: int = 4) -> Batch:
    x = torch.randn(n, 3, 100, generator=torch.Generator().manual_seed(seed))
    paired = {"window": windows(seed + 1, pair=False, n=n)} if pair else {}
    return Batch(x, SPEC.ch_names, SPEC.sfreq, subject=SUBJECT.repeat(n // 4), index=torch.arange(n), paired=paired)


def make(name: str, *, augment: Pipeline | None = None, norm: str = "", **settings: Any) -> Any:
    """An objective whose copy, where there is one, has drifted from it."""
    cls, config, own = MAKE[name]
    built = config(**own | {"pairing": "adjacent"} | settings)
    built.projector.norm = norm or built.projector.norm
    model = cls(encoder(), built, augment=augment, steps=100)
    with torch.no_grad():
        for _, target in model.ema_pairs():
            for p in target.parameters():
                p.mul_(1.1)
    return model


def embed(net: TransformerEncoder, batch: Batch) -> Tensor:
    return pool_tokens(net.encode(net.tokenize(batch)))


# recipes: objective and, where there is one, mask
OBJECTIVES: dict[str, dict[str, Any]] = {
    "simclr": {"objective": {"name": "simclr", "pairing": "adjacent", "pairing_share": 0.5, "same_subject": "drop"}},
    "clocs": {"objective": {"name": "clocs", "variant": "cmsc", "leads": "together"}},
    "spcl": {"objective": {"name": "spcl"}, "mask": {"name": "partition", "patches": 2}},
    "vicreg": {"objective": {"name": "vicreg", "projector": {"hidden": 16, "out": 16}}},
    "barlow_twins": {"objective": {"name": "barlow_twins", "projector": {"hidden": 16, "out": 16}}},
    "moco": {"objective": {"name": "moco", "queue": 16, "same_subject": "drop", "ema_start": 0.9, "ema_end": 0.9, "pairing": "adjacent"}},
    "byol": {"objective": {"name": "byol", "ema_start": 0.9, "projector": {"hidden": 32, "out": 16}, "predictor_hidden": 32}},
    "simsiam": {"objective": {"name": "byol", "ema": "off", "projector": {"hidden": 32, "out": 16, "layers": 3}, "predictor_hidden": 8}},
    "dino": {"objective": {"name": "dino", "prototypes": 16, "ema_start": 0.9, "teacher_noise": 0.2,
                           "projector": {"hidden": 32, "out": 16, "layers": 2, "norm": "none"}}},
    "swav": {"objective": {"name": "swav", "prototypes": 4, "projector": {"hidden": 32, "out": 16}}},
}  # fmt: skip


def small(name: str, **train: Any) -> Recipe:
    return recipe_from_dict(
        {
            "format": 1, "name": name, "modality": "imu", "data": {"batch_size": 8},
            "model": {"name": "transformer", "dim": 16, "depth": 1, "heads": 2, "patch_s": 0.1, "tokenizer": "joint", "attention": "full",
                      "init": "fan_in", "position": "once"},
            "augment": [{"name": "gain", "factor": [0.8, 1.25], "per_channel": True}, {"name": "time_mask", "share": [0.1, 0.3]}],
            "train": {"steps": 3, "optimizer": {"lr": 1e-3}, "schedule": {"name": "warmup_cosine", "warmup_steps": 1}} | train,
            "monitor": {"every": 0}, "checkpoint": {"every": 3, "keep": 2}, **OBJECTIVES[name],
        },
        where=name,
    )  # fmt: skip


def watched_small(name: str, *, steps: int, lr: float, weight_decay: float) -> Recipe:
    """A recipe whose monitors read every tenth step and may stop the run from there on."""
    recipe = small(name, steps=steps, optimizer={"lr": lr, "weight_decay": weight_decay})
    recipe.monitor.every, recipe.monitor.samples, recipe.monitor.stop_after = 10, 48, 10
    return recipe


def imu_corpus(path: Path) -> Corpus:
    return make_corpus(path, modality="imu", n_subjects=6, windows_per_subject=8, n_samples=50, splits={})
