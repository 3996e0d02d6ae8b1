"""A corpus of two rhythms, an encoder that tells them apart, and a locked model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from sklearn.linear_model import LogisticRegression

from biossl.checkpoint import load_encoder, save_encoder
from biossl.corpus import Corpus, subject_keys
from biossl.downstream.model import Model, save_model
from biossl.inference import embed_corpus
from biossl.models.task_heads import LinearHeadConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.recipe.schema import Part


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sixteen windows of each of 24 subjects: 16 train, 4 val, 4 test."""
    made = make_corpus(
        tmp_path_factory.mktemp("audit") / "imu",
        modality="imu",
        n_subjects=24,
        windows_per_subject=16,
        n_samples=128,
        n_channels=3,
    )
    made.prepare()
    return made


@pytest.fixture(scope="session")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Width 16, two blocks, freshly drawn weights: enough for two rhythms of different rates."""
    torch.manual_seed(3)
    config = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.16, init="fan_in")
    return save_encoder(
        TransformerEncoder(corpus.spec, config), tmp_path_factory.mktemp("audit") / "encoder", seen={"subjects": set()}
    )


@pytest.fixture(scope="session")
def tuned(encoder: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `biossl finetune` leaves it: the encoder and a linear head, here set to a logistic regression."""
    loaded, head = load_encoder(encoder), Part("linear", LinearHeadConfig(pool="mean+std"))
    model = Model(loaded, head.config.build(loaded, 2), kind="multiclass", classes=("slow", "fast"), scale=(0.0, 1.0))
    train = np.flatnonzero(corpus.split() == "train")
    x = embed_corpus(loaded, corpus, train, pool="mean+std")
    mean, std = x.mean(axis=0), x.std(axis=0)
    found = LogisticRegression(C=0.1, max_iter=500).fit((x - mean) / std, corpus.labels("group").values[train, 0])
    with torch.no_grad():
        model.head.norm.mean.copy_(torch.from_numpy(mean))
        model.head.norm.std.copy_(torch.from_numpy(std))
        weight = torch.from_numpy(found.coef_[0]).float()
        model.head.out.weight.copy_(torch.stack([-weight / 2, weight / 2]))
        model.head.out.bias.copy_(torch.tensor([-0.5, 0.5]) * float(found.intercept_[0]))
    seen = " ".join(sorted(subject_keys(corpus, train)))
    folder = tmp_path_factory.mktemp("audit") / "run"
    save_model(model, folder / "model", head=head, about={"label": "group", "seen": {"subjects": seen}})
    return folder
