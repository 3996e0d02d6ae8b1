"""A corpus of planted waves: P, QRS and T whose bounds are known to the sample, in two leads of their own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks

from biossl.corpus import Corpus
from biossl.corpus.card import Files, Label
from biossl.corpus.convert import convert_tasks

WAVES = {"p": (0.0, 0.10, 0.5), "N": (0.16, 0.08, -2.0), "t": (0.34, 0.20, 1.0)}  # onset in the beat, duration, size
COLUMNS = ["onset_s", "duration_s", "label", "channel", "kind", "source"]
LABEL = Label(
    kind="dense",
    source="overlap",
    event_kind="wave",
    background="none",
    judged="annotated",
    map={"P": ["p"], "QRS": ["N"], "T": ["t"]},
    depends=["timing"],
)


class PlantedWaves(SyntheticLoader):
    """Beats 0.7 to 0.9 s apart; the first and the last beat of a record are not outlined, as in LUDB."""

    def __call__(self, card: Any, view: str, task: Any) -> Any:
        cut, start = super().__call__(card, view, task)
        n, c, t = cut.data.shape
        sfreq, rng = cut.sfreq, np.random.default_rng([self.seed, 7, int(task.groups["number"])])
        x = 0.02 * rng.normal(size=(c, n * t))
        beats = np.cumsum(np.round(rng.uniform(0.7, 0.9, 200), 2))
        beats = beats[beats + 0.6 < n * t / sfreq]
        rows = []
        for k, beat in enumerate(beats):
            for label, (at, lasts, size) in WAVES.items():
                i, j = (round((beat + v) * sfreq) for v in (at, at + lasts))
                for channel in range(c):
                    x[channel, i:j] += (1.0, 0.6)[channel % 2] * size * np.hanning(j - i + 2)[1:-1]
                    if 0 < k < len(beats) - 1:
                        rows.append([i / sfreq, (j - i) / sfreq, label, card.views[view].channels[channel], "wave", "made"])
        cut.data = np.ascontiguousarray((np.rint(x / 0.005) * 0.005).astype(np.float32).reshape(c, n, t).transpose(1, 0, 2))
        cut.events = pd.concat([cut.events, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True)
        return cut, start


def wave_corpus(path: Path, *, n_subjects: int = 12, windows: int = 2, seed: int = 0, label: Label = LABEL) -> Corpus:
    """Two leads at 100 Hz, windows of 4 s; labels ``waves`` and, of intervals without a channel, ``state``."""
    card = synthetic_card("ecg", 2, 400, files=[Files(r"(?P<record>.+)\.dat", "wfdb", annotations=["atr"])])
    card.labels["waves"] = label
    convert_tasks(card, synthetic_tasks(n_subjects), path, view="main", load=PlantedWaves(windows, seed), n_jobs=1)
    return Corpus.open(path)
