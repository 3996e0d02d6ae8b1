"""A fine-tuned run on a set that is not public, with people and windows lost at every step, for the tests of the written reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks

from biossl.checkpoint import save_encoder
from biossl.corpus import Corpus, add_split
from biossl.corpus.convert import convert_tasks
from biossl.corpus.views import RecordTask
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.errors import RecordError
from biossl.models.transformer import EncoderConfig, TransformerEncoder

CANARIES = ("Zebrowski", "zebrowski", "MRN7788", "ward_q7", "12/04/1937", "1937-04-12", "19370412", "2020-01", "2020/01")


class Leaky(SyntheticLoader):
    """A file that breaks off, three windows of which too little was observed, and one without a sample."""

    def __call__(self, card: Any, view: str, task: RecordTask) -> Any:
        number = int(task.groups["number"])
        if number == 24:
            raise RecordError("truncated", "zebrowski_24.dat of Zebrowski ends early", path="ward_q7/zebrowski_24.dat")
        cut, start = super().__call__(card, view, task)
        if number == 0:
            cut.dropped["unobserved"] = 3
        if number == 19:
            cut.data[0] = np.nan
        return cut, start


@dataclass
class Written:
    """What the tests read."""

    run: Path
    corpus: Corpus
    result: dict[str, Any]


def make_written(folder: Path, *, public: bool = False) -> Written:
    """25 recordings: number 24 cannot be read, 20 and 21 have no known label, 22 is in no part; 12 train, 5 val, 4 test."""
    tasks = []
    for task in synthetic_tasks(25):
        number = int(task.groups["number"])
        covariates = dict(task.covariates) | {
            "note": "seen by Zebrowski",
            "remark": "Zebrowski 12/04/1937",
            "date_of_birth": "1937-04-12",
            "day_seen": "1937-04-12",
        }
        covariates["group"] = "" if number in (20, 21) else covariates["group"]
        name = f"zebrowski_MRN7788{number:02d}"
        tasks.append(
            RecordTask(name, f"MRN7788{number:02d}", "nowhere", f"ward_q7/{name}.dat", groups=task.groups, covariates=covariates)
        )
    card = synthetic_card(
        "imu",
        3,
        128,
        public=public,
        title="Waist sensors of one ward",
        citation="Doe 2031",
        obtain="https://example.org/sensors",
        splits={},
    )
    place = folder / "ward_q7"
    convert_tasks(card, tasks, place, view="main", load=Leaky(4), n_jobs=1)
    corpus = Corpus.open(place)
    part = ["train"] * 12 + ["val"] * 5 + ["test"] * 5 + [None, "test"]
    lines = [f"MRN7788{i:02d},{p}" for i, p in enumerate(part) if p]
    (folder / "parts.csv").write_text("subject,part\n" + "\n".join(lines) + "\n")
    add_split(corpus, folder / "parts.csv", name="thirds")
    torch.manual_seed(3)
    config = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.16, tokenizer="joint", attention="full", init="fan_in")
    encoder = save_encoder(TransformerEncoder(corpus.spec, config), folder / "encoder", seen={"subjects": {"s:before"}})
    run = finetune(encoder, corpus, "group", folder / "run", mode="full", split="thirds", steps=20)
    result = evaluate(run, corpus, split="thirds", by=["site"], baselines=False)
    return Written(run, corpus, result)
