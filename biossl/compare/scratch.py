"""The same backbone trained from scratch with the labels alone: what pretraining has to beat.

What lives here: a plain supervised training on the rows of one draw. Its length is a fixed rule (:data:`EPOCHS` passes,
no fewer than :data:`LEAST_STEPS` steps, no more than :data:`MOST_STEPS`, last weights), set before any test row was judged.
No augmentation. Fine-tuning a pretrained encoder is not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biossl.batch import Batch
from biossl.corpus import Corpus
from biossl.inference import batch_rows, make_batch, pick_device
from biossl.keys import hash_ints
from biossl.models.encoder import Encoder, pool_parts
from biossl.models.task_heads import pool_observed
from biossl.objectives.supervised import predictions, supervised_loss
from biossl.protocol import Target
from biossl.schedules import warmup_cosine

Array = NDArray[Any]
EPOCHS, LEAST_STEPS, MOST_STEPS = 20, 200, 3000
BATCH, LR, WEIGHT_DECAY, CLIP = 64, 1e-3, 0.05, 1.0


class Network(nn.Module):
    """Encoder, pooling as in the probes, norm, one linear layer: windows to class scores (B, K) or values (B, 1)."""

    def __init__(self, encoder: Encoder, pool: str, n_outputs: int) -> None:
        super().__init__()
        self.encoder, self.pool = encoder, pool
        width = encoder.dim * len(pool_parts(pool))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Scores before softmax, or standardised values."""
        features, _ = pool_observed(self.encoder.encode(self.encoder.tokenize(batch)), self.pool)
        return self.head(self.norm(features))


def n_steps(n_rows: int) -> int:
    """Optimiser steps for a number of labelled windows.

    Examples
    --------
    >>> n_steps(50), n_steps(6400), n_steps(1_000_000)
    (200, 2000, 3000)
    """
    return min(max(LEAST_STEPS, EPOCHS * -(-n_rows // BATCH)), MOST_STEPS)


def train_and_predict(
    encoder: Encoder, corpus: Corpus, rows: Array, target: Target, judged: Array, *, pool: str, seed: int
) -> tuple[Array, Network, tuple[float, float]]:
    """Train a network on a few rows and predict others.

    Parameters
    ----------
    encoder : Encoder
        Freshly initialised; it is trained in place.
    corpus : Corpus
        With the encoder's channels (:class:`~biossl.compare.corrupt.Seen`).
    rows : ndarray of int
        Corpus rows that are trained on, aligned with ``target``.
    target : Target
    judged : ndarray of int
        Corpus rows to predict.
    pool : str
    seed : int
        Of the head's weights, the order of windows and dropout.

    Returns
    -------
    prediction : ndarray, (m, K) probabilities, or (m,) values
    network : Network
    scale : (mean, std) of the values of a regression, (0, 1) otherwise
    """
    device = pick_device()
    y = torch.from_numpy(np.asarray(target.y, np.float64))
    scale = (0.0, 1.0)
    if target.kind == "regression":
        scale = (float(y.mean()), float(y.std(unbiased=False)) or 1.0)
        y = (y - scale[0]) / scale[1]
    outputs = 1 if target.kind == "regression" else len(target.classes)
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(hash_ints(seed, 0x5C7A))
        network = Network(encoder, pool, outputs).to(device)
        _fit(network, corpus, rows, y.to(device), target.kind, seed)
    return predict(network, corpus, judged, target.kind, scale), network, scale


def _fit(network: Network, corpus: Corpus, rows: Array, y: Tensor, kind: str, seed: int) -> None:
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    total = n_steps(len(rows))
    order = np.random.default_rng([seed, len(rows)])
    size = min(BATCH, len(rows))
    waiting = np.zeros(0, np.int64)
    network.train()
    for step in range(total):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, order.permutation(len(rows))])
        some, waiting = waiting[:size], waiting[size:]
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, peak=LR, total=total, warmup_steps=total // 10)
        score = network(read(network.encoder, corpus, rows[some]))
        loss = supervised_loss(score, y[torch.from_numpy(some).to(y.device)], kind)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()


@torch.no_grad()
def predict(network: Network, corpus: Corpus, rows: Array, kind: str, scale: tuple[float, float]) -> Array:
    """Predictions of corpus rows: (m, K) probabilities or (m,) values."""
    network.eval()
    out = []
    step = batch_rows(network.encoder)
    for i in range(0, len(rows), step):
        score = network(read(network.encoder, corpus, rows[i : i + step])).float()
        out.append(predictions(score, kind, scale).cpu().numpy())
    return np.concatenate(out)


def read(encoder: Encoder, corpus: Corpus, rows: Array) -> Batch:
    """The windows of some rows, on the encoder's device; NaN became ``observed = False``."""
    return make_batch(corpus.signal(rows), corpus.spec.ch_names, corpus.spec.sfreq, encoder.device)
