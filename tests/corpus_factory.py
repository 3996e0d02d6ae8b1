"""A tiny synthetic corpus through the real writer, for everyone's tests: ``from corpus_factory import make_corpus``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from biossl.corpus.card import Card, Files, Label, Split, View
from biossl.corpus.convert import convert_tasks
from biossl.corpus.index import Corpus
from biossl.corpus.views import Cut, RecordTask

CHANNELS = {
    "ecg": "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split(),
    "eeg": "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split(),
    "imu": "acc_x acc_y acc_z gyro_x gyro_y gyro_z".split(),
}
SFREQ = {"ecg": 100.0, "eeg": 100.0, "imu": 50.0}


def synthetic_card(
    modality: str = "ecg", n_channels: int | None = None, n_samples: int = 200, sfreq: float | None = None, **facts: object
) -> Card:
    """A card with one view ``main``, labels ``group`` (multiclass), ``findings`` (multilabel), ``age``, ``state`` (overlap)."""
    sfreq = sfreq or SFREQ[modality]
    view = View(
        sfreq=sfreq, window_s=n_samples / sfreq, stride_s=n_samples / sfreq, channels=CHANNELS[modality][: n_channels or None]
    )
    labels = {
        "group": Label(kind="multiclass", source="covariate", column="group", map={"slow": ["slow"], "fast": ["fast"]}),
        "findings": Label(kind="multilabel", source="covariate", column="codes", parse="codes", map={"A": ["a"], "B": ["b"]}),
        "age": Label(kind="regression", source="covariate", column="age"),
        "state": Label(kind="multiclass", source="overlap", event_kind="state", map={"rest": ["rest"], "work": ["work"]}),
    }
    kw: dict[str, object] = {
        "format": 1, "name": f"synthetic_{modality}", "title": "Synthetic", "modality": modality, "licence": "none",
        "citation": "none", "version": "1", "obtain": "made here", "files": [Files(r"(?P<record>.+)\.dat", "wfdb")],
        "native_sfreq": [sfreq], "views": {"main": view}, "labels": labels,
        "splits": {"official": Split("covariate", {"train": ["train"], "val": ["val"], "test": ["test"]}, column="fold")},
    } | facts  # fmt: skip
    return Card(**kw)  # type: ignore[arg-type]


class SyntheticLoader:
    """Stands where ``load_windows`` stands: whole counts of 0.005, a rhythm whose rate is the subject's group."""

    def __init__(self, windows_per_subject: int = 8, seed: int = 0) -> None:
        self.n, self.seed = windows_per_subject, seed

    def __call__(self, card: Card, view: str, task: RecordTask) -> tuple[Cut, str | None]:
        import pandas as pd

        v = card.views[view]
        c, t = len(v.channels), int(round(v.window_s * v.sfreq))
        number = int(task.groups["number"])
        rng = np.random.default_rng([self.seed, number])
        rate = (1.0 if task.covariates["group"] == "slow" else 2.5) * rng.uniform(0.95, 1.05)
        time = np.arange(self.n * t) / v.sfreq
        amplitude = rng.uniform(0.5, 1.5, (c, 1))
        x = amplitude * np.sin(2 * np.pi * rate * time + rng.uniform(0, 6.28, (c, 1))) + 0.2 * rng.normal(size=(c, self.n * t))
        x = (np.rint(x / 0.005) * 0.005).astype(np.float32)
        data = np.ascontiguousarray(x.reshape(c, self.n, t).transpose(1, 0, 2))
        sha = [hashlib.sha256(w.tobytes()).hexdigest() for w in data]
        data[0, 0, : t // 10] = np.nan
        half = self.n * t / v.sfreq / 2
        events = pd.DataFrame(
            [[0.0, half, "rest", "", "state", "made"], [half, half, "work", "", "state", "made"]],
            columns=["onset_s", "duration_s", "label", "channel", "kind", "source"],
        )
        cut = Cut(
            data=data, start_s=np.arange(self.n) * t / v.sfreq, segment=np.zeros(self.n, np.int32),
            event=np.full(self.n, -1), quality=np.ones(self.n, np.float32), events=events, sha256=sha,
            lsb=np.full(c, 0.005), baseline=np.zeros(c), dropped={}, covariates=dict(task.covariates), record=task.record,
            subject=task.subject, sfreq=v.sfreq,
            record_sha256=hashlib.sha256(f"{self.seed} {number} {task.covariates['group']}".encode()).hexdigest(),
        )  # fmt: skip
        return cut, f"2020-01-{number % 28 + 1:02d}T08:00:00"


def synthetic_tasks(n_subjects: int = 6, labels: bool = True) -> list[RecordTask]:
    """One record a subject; two thirds are ``train``, then ``val`` and ``test`` by turns."""
    out = []
    for i in range(n_subjects):
        covariates = {"fold": ("train", "train", "val", "train", "train", "test")[i % 6], "age": str(40 + i), "site": "ab"[i % 2]}
        covariates |= {"group": ("slow", "fast")[i % 2], "codes": ("a", "b", "a,b", "")[i % 4]} if labels else {"group": ""}
        out.append(
            RecordTask(f"r{i:03d}", f"s{i:03d}", "nowhere", f"r{i:03d}.dat", groups={"number": str(i)}, covariates=covariates)
        )
    return out


def make_corpus(
    path: str | Path, *, modality: str = "ecg", n_subjects: int = 6, windows_per_subject: int = 8,
    n_channels: int | None = None, n_samples: int = 200, sfreq: float | None = None, seed: int = 0, labels: bool = True,
    **facts: object,
) -> Corpus:  # fmt: skip
    """A corpus of ``n_subjects * windows_per_subject`` windows; ``facts`` override fields of the card (``public=False``).

    Splits: ``official`` train/val/test. Labels: ``group``, ``findings``, ``age``, ``state``.
    """
    card = synthetic_card(modality, n_channels, n_samples, sfreq, **facts)
    convert_tasks(
        card, synthetic_tasks(n_subjects, labels), path, view="main", load=SyntheticLoader(windows_per_subject, seed), n_jobs=1
    )
    return Corpus.open(path)
