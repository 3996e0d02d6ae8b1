"""Beat-by-beat comparison after ANSI/AAMI EC57: QRS, ventricular and supraventricular ectopic beats.

What lives here: the table of one record (reference class by detected class) and the statistics of tables, gross and average, with
intervals over subjects. Which annotation symbol is which class is said by the data set's card, not here.

EC57 pairs beats within 150 ms, counts the classes N, S, V, F and Q, and leaves out ventricular flutter and fibrillation, in which no
beats are annotated. It also leaves out the first five minutes of a record as time for the algorithm to learn the patient; a
classifier that does not adapt needs none, so ``start_s`` is 0 unless :data:`LEARNING_S` is asked for, and a table says which it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biossl.errors import DataError
from biossl.metrics.arrays import Array, ratio
from biossl.metrics.events import gross_and_average, inside, match_events
from biossl.metrics.intervals import N_RESAMPLES, Interval, Statistic

WINDOW_S = 0.15
LEARNING_S = 300.0
CLASSES = ("N", "S", "V", "F", "Q")
_NONE = len(CLASSES)  # last row: no reference beat; last column: no detected beat


def beat_table(
    reference_s: ArrayLike,
    reference_class: Sequence[str],
    detected_s: ArrayLike,
    detected_class: Sequence[str],
    *,
    start_s: float = 0.0,
    excluded: ArrayLike = (),
    window_s: float = WINDOW_S,
) -> Array:
    """Counts of one record: rows N S V F Q and *no beat* of the reference, columns the same of the detector.

    Beats are paired first (:func:`biossl.metrics.events.match_events`); the reference's time decides whether a pair is judged, its own
    time whether an extra detection is, so a pair across the border costs nothing.

    Parameters
    ----------
    reference_s, detected_s : array, shape (n,), (m,)
        Seconds from the start of the record.
    reference_class, detected_class : sequence of str
        ``N``, ``S``, ``V``, ``F`` or ``Q``.
    start_s : float
        Beats before it are not judged; :data:`LEARNING_S` for the standard's learning time.
    excluded : array, shape (k, 2)
        Start and end of ventricular flutter or fibrillation, seconds.
    window_s : float
        Largest distance of a pair.

    Returns
    -------
    ndarray of int, shape (6, 6)

    Raises
    ------
    DataError
        A class that is none of the five, or lengths that differ.

    Examples
    --------
    >>> beat_table([1.0, 2.0], "NV", [1.1, 3.0], "NN").sum(1).tolist()
    [1, 0, 1, 0, 0, 1]
    """
    ref, det = np.asarray(reference_s, float).reshape(-1), np.asarray(detected_s, float).reshape(-1)
    of_ref, of_det = _classes(reference_class, len(ref), "reference"), _classes(detected_class, len(det), "detected")
    rows, columns = match_events(ref, det, window_s)
    partner, paired = np.full(len(ref), _NONE), np.zeros(len(det), bool)
    partner[rows] = of_det[columns]
    paired[columns] = True
    table = np.zeros((_NONE + 1, _NONE + 1), np.int64)
    judged = inside(ref, start_s, excluded)
    np.add.at(table, (of_ref[judged], partner[judged]), 1)
    extra = ~paired & inside(det, start_s, excluded)
    np.add.at(table, (np.full(int(extra.sum()), _NONE), of_det[extra]), 1)
    return table


def _classes(names: Sequence[str], n: int, what: str) -> Array:
    if len(names) != n:
        raise DataError(f"{n} {what} beats but {len(names)} classes: give one class for each beat")
    unknown = sorted({str(c) for c in names} - set(CLASSES))
    if unknown:
        raise DataError(f"{what} beat class '{unknown[0]}' is none of {', '.join(CLASSES)}: map the annotation symbols first")
    return np.array([CLASSES.index(c) for c in names], np.int64)


def _share(hit: Sequence[str], missed: Sequence[str]) -> Statistic:
    """Hits over hits and misses; cells as reference and detected letter, ``O`` for no beat."""
    letters = "NSVFQO"

    def cells(pairs: Sequence[str]) -> list[int]:
        return [letters.index(p[0]) * len(letters) + letters.index(p[1]) for p in pairs]

    hits, misses = cells(hit), cells(missed)

    def statistic(counts: Array) -> Array:
        return ratio(counts[:, hits].sum(1), counts[:, hits + misses].sum(1))

    return statistic


_FOUND = [a + b for a in CLASSES for b in CLASSES]
STATISTICS: dict[str, Statistic] = {
    "qrs_sensitivity": _share(_FOUND, [a + "O" for a in CLASSES]),
    "qrs_ppv": _share(_FOUND, ["O" + b for b in CLASSES]),
    "veb_sensitivity": _share(["VV"], ["VN", "VS", "VF", "VQ", "VO"]),
    "veb_ppv": _share(["VV"], ["NV", "SV", "OV"]),  # F or Q called V is neither right nor wrong
    "sveb_sensitivity": _share(["SS"], ["SN", "SV", "SF", "SQ", "SO"]),
    "sveb_ppv": _share(["SS"], ["NS", "VS", "FS", "OS"]),  # Q called S is neither right nor wrong
}


def score_beats(
    tables: Sequence[Array], subjects: ArrayLike, *, n: int = N_RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Sensitivity and positive predictive value of QRS, VEB and SVEB: gross and average, with intervals over subjects.

    Parameters
    ----------
    tables : sequence of ndarray, each (6, 6)
        Of :func:`beat_table`, one a record.
    subjects : array, shape (n_records,)
    n, seed
        As in :func:`biossl.metrics.subject_bootstrap`.

    Returns
    -------
    dict
        Name to ``{"gross": Interval, "average": Interval}``, as :func:`biossl.metrics.events.score_events`.

    Examples
    --------
    >>> score_beats([beat_table([1.0], "V", [1.0], "V")], ["a"])["veb_sensitivity"]["gross"].value
    1.0
    """
    flat = np.array([np.asarray(t).reshape(-1) for t in tables], float).reshape(-1, (_NONE + 1) ** 2)
    return gross_and_average(flat, subjects, STATISTICS, n=n, seed=seed)
