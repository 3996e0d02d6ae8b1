"""From recordings to windows: load a record the way its card says and cut it into the windows of a view.

What lives here: the dataclasses ``RecordTask`` (one file to be read) and ``Cut`` (the windows of one record), and the
pure functions between them. Listing files is ``discover.py``'s business, storing ``convert.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

EVENT_COLUMNS = ("onset_s", "duration_s", "label", "channel", "kind", "source")


@dataclass(frozen=True)
class RecordTask:
    """One record to be read: plain text only, so it crosses process borders and sorts.

    Attributes
    ----------
    record : str
        Name, unique among the tasks of a view.
    subject : str or None
        After same-person aliases. None when the card's table has no row for it: ``load_record`` then raises.
    source : str
        The folder (or zip) given by the user.
    path : str
        File relative to ``source``, forward slashes; inside a zip ``archive.zip!inner/name.txt``.
    file : int
        Number of the entry of ``card.files`` that matched.
    groups : dict of str to str
        Named groups of the pattern (without ``record`` and ``subject``).
    covariates : dict of str to str
        Groups, constants of the files entry and metadata columns; ``""`` = unknown. Header covariates are added when
        the record is loaded. Every task of a view has the same keys.
    """

    record: str
    subject: str | None
    source: str
    path: str
    file: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    covariates: dict[str, str] = field(default_factory=dict)


@dataclass
class Cut:
    """The windows of one record.

    Attributes
    ----------
    data : ndarray, float32, (n, C, T)
        Canonical units, NaN = not observed, channels in the order of the view's InputSpec. n may be 0.
    start_s : ndarray, float64, (n,)
        Seconds from the start of the file to the window's first sample (may be below 0 for ``around_events``).
    segment : ndarray, int32, (n,)
        Contiguity id within the record: windows of one id come from one gap-free run.
    event : ndarray, int64, (n,)
        Row of ``events`` the window belongs to (``inside_labels``, ``around_events``), else -1.
    quality : ndarray, float32, (n,)
        Share of the samples that are observed and not part of a flat channel, 0 to 1.
    events : DataFrame
        All marks of the record: ``onset_s``, ``duration_s``, ``label``, ``channel``, ``kind``, ``source``.
    sha256 : list of str, length n
        Of the source samples under the window before filtering and resampling (chosen channels, float32, little
        endian); ``""`` when they are constant or not observed, since a flat line identifies nobody.
    lsb, baseline : ndarray, float64, (C,), or None
        Of the source, where samples are still its whole counts (only picked, never filtered, resampled or derived).
    dropped : dict of str to int
        Windows left out, by reason: ``unobserved`` (over ``max_missing``), ``short`` (runs or intervals shorter than a
        window), ``outside`` (events whose window lies outside every run).
    covariates : dict of str to str
        As in the task, plus header covariates.
    record : str
    subject : str or None
    sfreq : float
        Hz of ``data``.
    """

    data: np.ndarray
    start_s: np.ndarray
    segment: np.ndarray
    event: np.ndarray
    quality: np.ndarray
    events: pd.DataFrame
    sha256: list[str]
    lsb: np.ndarray | None
    baseline: np.ndarray | None
    dropped: dict[str, int]
    covariates: dict[str, str]
    record: str
    subject: str | None
    sfreq: float
