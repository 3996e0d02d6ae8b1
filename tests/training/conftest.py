"""Fixtures of the tests of training: a small corpus, and a run over it that was never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_factory import make_corpus
from training_toys import small_recipe

from biossl.corpus import Corpus
from biossl.training import pretrain


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Five windows of each of six subjects."""
    corpus = make_corpus(tmp_path_factory.mktemp("run") / "imu", modality="imu", windows_per_subject=5, n_samples=64)
    corpus.prepare()
    return corpus


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("run") / "whole"
    pretrain(small_recipe(), [(corpus, 1.0)], out)
    return out
