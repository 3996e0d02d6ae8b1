"""A locked model of random weights with a planted threshold, its run folder, and evaluations whose predictions are planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from biossl.corpus import Corpus
from biossl.downstream.lock import Lock
from biossl.downstream.model import Model, make_task, save_model
from biossl.metrics.operating import OperatingPoint
from biossl.models.task_heads import LinearHeadConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.supervised import n_outputs
from biossl.recipe.schema import Part
from biossl.report.judged import Judged


def make_locked(run: Path, corpus: Corpus, label: str, thresholds: dict[str, float] | None = None, subjects: int = 4) -> Path:
    """A run folder whose model was never trained; ``thresholds`` of its yes/no classes."""
    torch.manual_seed(2)
    task = make_task(corpus, label)
    encoder = TransformerEncoder(corpus.spec, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.32))
    config = LinearHeadConfig()
    model = Model(
        encoder, config.build(encoder, n_outputs(task.kind, len(task.classes))), kind=task.kind, classes=task.classes, scale=(50.0, 9.0)
    )  # fmt: skip
    model.lock = Lock(points={c: OperatingPoint("youden", None, t, 0.8, 0.7, 9, 9) for c, t in (thresholds or {}).items()})
    about = {
        "label": label, "mode": "frozen", "split": None, "seed": 0, "choices": [], "inner": None,
        "seen": {"subjects": "s:before", "corpora": [{"name": "toy", "hash": "none", "windows": 0}]},
        "trained": {"windows": 4 * subjects, "subjects": subjects, "rows": None, "steps": 9, "taken_at": 9}, "encoder_hash": "0" * 64,
    }  # fmt: skip
    save_model(model, run / "model", head=Part("linear", config), about=about)
    facts = {"finished": True, "plan": {"recipe": {"name": "toy"}, "corpora": []}, "corpora_at": [str(corpus.path)], "seed": 0}
    (run / "run.json").write_text(json.dumps(facts))
    return run


def planted(
    corpus: Corpus, label: str, prediction: np.ndarray, rows: np.ndarray | None = None, *, abstain: Any = False,
    thresholds: dict[str, float] | None = None,
) -> Judged:  # fmt: skip
    """An evaluation of rows of a corpus (default all) with these predictions."""
    task = make_task(corpus, label)
    rows = np.arange(len(corpus)) if rows is None else rows
    table = corpus.index.iloc[rows][["subject", "record", "segment", "start_s"]].reset_index(drop=True)
    y = task.values[rows].astype(float)
    if task.kind == "regression":
        table["y"], table["value"] = y[:, 0], prediction
    elif task.kind == "multiclass":
        table["y"] = [task.classes[int(v)] for v in y[:, 0]]
    else:
        table = table.assign(**{f"y_{c}": y[:, k] for k, c in enumerate(task.classes)})
    table = table.assign(**{f"p_{c}": prediction[:, k] for k, c in enumerate(task.classes)})
    points = [{"class": c, "threshold": t, "reason": "planted"} for c, t in (thresholds or {}).items()]
    result = {
        "kind": task.kind, "classes": list(task.classes), "label": label, "seed": 0, "thresholds": points, "decision_curve": None,
        "notes": [], "corpus": {"path": str(corpus.path), "hash": corpus.hash},
    }  # fmt: skip
    return Judged(result, pd.DataFrame(table).assign(abstain=abstain), corpus, rows)
