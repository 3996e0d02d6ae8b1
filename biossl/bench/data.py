"""Simulated input for benchmarks: windows in memory, a corpus of windows, and recordings as files.

What lives here: signals without meaning but of the right shape, rate and units (a rhythm with noise), written to disk by the
real converter, and the simulated patients of ``biossl.simulate`` where recordings are wanted. Time does not depend on what the
windows say.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from biossl.corpus import Corpus
from biossl.corpus.card import Card, Files, View
from biossl.corpus.convert import convert_tasks
from biossl.corpus.views import Cut, RecordTask
from biossl.objectives.base import SamplePlan
from biossl.signal import InputSpec

LEAST_WINDOWS = 4  # of a subject: neighbours and partners can be drawn
STEP = {"ecg": 0.005, "eeg": 0.5, "imu": 0.004}  # of one count, in mV, uV, g or rad/s
_EVENTS = ["onset_s", "duration_s", "label", "channel", "kind", "source"]


def simulated_windows(spec: InputSpec, n: int, seed: int = 0) -> np.ndarray:
    """Windows of one recording that follow each other, float32 (n, C, T): about 200 counts of rhythm, 40 of noise."""
    rng = np.random.default_rng([seed, n])
    channels, time = len(spec.ch_names), np.arange(n * spec.n_samples) / spec.sfreq
    phase = rng.uniform(0, 2 * np.pi, (channels, 1))
    x = 200 * np.sin(2 * np.pi * rng.uniform(0.8, 2.5) * time + phase) + 40 * rng.standard_normal((channels, len(time)))
    x = (np.rint(x) * STEP[spec.modality]).astype(np.float32)
    return np.ascontiguousarray(x.reshape(channels, n, spec.n_samples).transpose(1, 0, 2))


@dataclass(frozen=True)
class _Load:
    """Stands where the reader of recordings stands: (card, view, task) to windows."""

    spec: InputSpec
    windows: int

    def __call__(self, card: Card, view: str, task: RecordTask) -> tuple[Cut, str | None]:
        n, channels = self.windows, len(self.spec.ch_names)
        data = simulated_windows(self.spec, n, int(task.groups["number"]))
        cut = Cut(
            data=data, start_s=np.arange(n) * self.spec.window_s, segment=np.zeros(n, np.int32), event=np.full(n, -1),
            quality=np.ones(n, np.float32), events=pd.DataFrame(columns=_EVENTS),
            sha256=[hashlib.sha256(w.tobytes()).hexdigest() for w in data], lsb=np.full(channels, STEP[self.spec.modality]),
            baseline=np.zeros(channels), dropped={}, covariates={}, record=task.record, subject=task.subject,
            sfreq=self.spec.sfreq, record_sha256=hashlib.sha256(data.tobytes()).hexdigest(),
        )  # fmt: skip
        return cut, None


def simulated_corpus(folder: Path, spec: InputSpec, *, windows: int, plan: SamplePlan | None = None) -> Corpus:
    """A corpus of at least so many windows in a folder, without splits, with its memory map made.

    Parameters
    ----------
    folder : Path
        Absent.
    spec : InputSpec
        What the windows are.
    windows : int
    plan : SamplePlan, optional
        What an objective asks of the loader; the corpus has enough windows a subject, and subjects, for it.
    """
    plan = plan or SamplePlan()
    each = max(LEAST_WINDOWS, plan.windows_per_subject, plan.stretch)
    subjects = max(2, math.ceil(max(windows, plan.queue) / each), windows // plan.windows_per_subject)
    view = View(sfreq=spec.sfreq, window_s=spec.window_s, stride_s=spec.window_s, channels=list(spec.ch_names))
    card = Card(
        format=1, name="simulated", title="", modality=cast(Any, spec.modality), licence="", citation="", version="", obtain="",
        files=[Files(pattern=r"(?P<record>.+)\.dat", reader="wfdb")], native_sfreq=[spec.sfreq], views={"windows": view},
    )  # fmt: skip
    tasks = [
        RecordTask(f"r{k:06d}", f"s{k:06d}", "simulated", f"r{k:06d}.dat", groups={"number": str(k)}) for k in range(subjects)
    ]
    with quiet():
        convert_tasks(card, tasks, folder, view="windows", load=_Load(spec, each), n_jobs=1)
    corpus = Corpus.open(folder)
    corpus.prepare()
    return corpus


def simulated_recordings(folder: Path, modality: str, records: int) -> Path:
    """About so many recordings as files of the modality's usual format; the path of their card.

    ECG: WFDB, 12 leads, 10 s; EEG: EDF, 60 s, two a subject; IMU: CSV, one a subject.
    """
    from biossl.simulate import ecg, eeg, imu

    with quiet():
        if modality == "ecg":
            return ecg.write_patients(folder, n_patients=records, seed=0)
        if modality == "eeg":
            return eeg.write_subjects(folder, n_subjects=math.ceil(records / len(eeg.STATES)), seed=0)
        return imu.write_subjects(folder, n_subjects=records, seed=0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress lines: preparing the input is no part of what is measured."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
