"""A tiny corpus, an encoder that has seen its train part, and the run folder around it, for the tests of probe and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from corpus_factory import make_corpus

from biossl.checkpoint import save_encoder
from biossl.config import dump_yaml
from biossl.corpus import Corpus, add_split, subject_keys
from biossl.models.transformer import EncoderConfig, TransformerEncoder


def small_encoder(corpus: Corpus, seed: int = 5) -> TransformerEncoder:
    """Width 16, one block."""
    torch.manual_seed(seed)
    return TransformerEncoder(corpus.spec, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2))


def make_run(folder: Path, *, n_subjects: int = 18, seen_parts: tuple[str, ...] = ("train",)) -> tuple[Path, Corpus]:
    """``folder/run`` and a corpus in ``folder/corpus`` with the split ``thirds`` (train, train, test by turns)."""
    corpus = make_corpus(folder / "corpus", n_subjects=n_subjects, n_channels=2, windows_per_subject=4, n_samples=400, splits={})
    subjects = sorted(set(corpus.index["subject"]))
    lines = [f"{s},{('train', 'train', 'test')[i % 3]}" for i, s in enumerate(subjects)]
    (folder / "thirds.csv").write_text("subject,part\n" + "\n".join(lines) + "\n")
    add_split(corpus, folder / "thirds.csv", name="thirds")
    corpus = Corpus.open(corpus.path)
    rows = np.flatnonzero(np.isin(corpus.split("thirds").to_numpy().astype(str), seen_parts))
    run = folder / "run"
    run.mkdir()
    save_encoder(small_encoder(corpus), run / "encoder", seen={"subjects": subject_keys(corpus, rows) if len(rows) else set()})
    (run / "recipe.yaml").write_text(dump_yaml({"format": 1, "name": "toy"}))
    (run / "log.csv").write_text(
        "step,loss,std,rankme_centred,rankme_uncentred,target_variance,prediction_variance,probe\n"
        "0,,0.9,8,5,,,\n1,0.5,,,,0.9,0.4,\n2,0.4,1.0,9,6,0.9,0.5,0.6\n"
    )
    (run / "run.json").write_text(json.dumps({
        "finished": True, "plan": {"recipe": {"name": "toy"}, "corpora": [
            {"name": "corpus", "hash": corpus.hash, "weight": 1.0, "windows": len(rows), "split": "thirds"}]},
        "corpora_at": [str(corpus.path)], "seed": 0, "parameters": 1234, "steps": 2, "wall_s": 1.5,
        "versions": {"biossl": "0"}, "numbers": {"loss": 0.4}, "alarms": [],
    }))  # fmt: skip
    return run, corpus
