"""A corpus of two rhythms, an encoder that tells them apart, and a locked model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpus_factory import make_corpus

from biossl.checkpoint import save_encoder
from biossl.corpus import Corpus
from biossl.models.transformer import EncoderConfig, TransformerEncoder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sixteen windows of each of 24 subjects: 16 train, 4 val, 4 test."""
    made = make_corpus(
        tmp_path_factory.mktemp("audit") / "imu", modality="imu", n_subjects=24, windows_per_subject=16, n_samples=128, n_channels=3
    )
    made.prepare()
    return made


@pytest.fixture(scope="session")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Width 16, two blocks, freshly drawn weights: enough for two rhythms of different rates."""
    torch.manual_seed(3)
    config = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.16, init="fan_in")
    return save_encoder(TransformerEncoder(corpus.spec, config), tmp_path_factory.mktemp("audit") / "encoder", seen={"subjects": set()})
