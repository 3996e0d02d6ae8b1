"""A corpus whose label is the rhythm, and an encoder folder for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpus_factory import make_corpus

from biossl.checkpoint import save_encoder
from biossl.corpus import Corpus, add_split
from biossl.downstream.finetune import finetune
from biossl.models.transformer import EncoderConfig, TransformerEncoder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four windows of each of 24 subjects: 16 train, 4 val (all of one class), 4 test."""
    made = make_corpus(
        tmp_path_factory.mktemp("tune") / "imu", modality="imu", n_subjects=24, windows_per_subject=4, n_samples=128, n_channels=3
    )
    made.prepare()
    return made


@pytest.fixture(scope="session")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Width 16, two blocks, freshly drawn weights."""
    torch.manual_seed(3)
    config = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.16, tokenizer="joint", attention="full", init="fan_in")
    return save_encoder(
        TransformerEncoder(corpus.spec, config), tmp_path_factory.mktemp("tune") / "encoder", seen={"subjects": {"s:before"}}
    )


@pytest.fixture(scope="session")
def halves(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A split whose parts hold both classes: 14 subjects train, 5 val, 5 test."""
    subjects = sorted(set(corpus.index["subject"]))
    table = tmp_path_factory.mktemp("split") / "halves.csv"
    table.write_text(
        "subject,part\n" + "".join(f"{s},{'train' if i < 14 else 'val' if i < 19 else 'test'}\n" for i, s in enumerate(subjects))
    )
    add_split(corpus, table, name="halves")
    return "halves"


@pytest.fixture(scope="session")
def locked(encoder: Path, corpus: Corpus, halves: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose locked model knows the rhythm; nobody writes into it."""
    return finetune(encoder, corpus, "group", tmp_path_factory.mktemp("locked") / "run", mode="full", split=halves, steps=40)
