"""Within-subject splits: recordings of one person in different parts, as brain-computer interfaces are judged.

What lives here: dealing out recordings, the mark by which such a split is known, and :func:`groups`: who or what may not be torn apart
under a split. Everything that judges asks here, so that an ordinary split keeps people apart and a within-subject one says what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.errors import DataError

if TYPE_CHECKING:
    from biossl.corpus.index import Corpus

MARK = "within_subject"  # in the metadata of the split's file
WARNING = "within-subject: the model has seen other recordings of the same person; this says nothing about new people"


def is_within_subject(corpus: Corpus, split: str | None) -> bool:
    """Whether a split (``runs``, or a fold of it, ``runs:2``) deals out the recordings of each person.

    Examples
    --------
    >>> is_within_subject(corpus, "official")  # doctest: +SKIP
    False
    """
    from biossl.corpus.splits import read_split

    if split is None or split == "official":
        return False
    file = corpus.path / "splits" / f"{split.partition(':')[0]}.parquet"
    return file.is_file() and read_split(file)[1].get(MARK) == "true"


def groups(corpus: Corpus, split: str | None) -> np.ndarray:
    """Of every row who or what is in one part only: its subject, or its recording where the split is within-subject.

    Inner folds are grouped by it and intervals resample it.

    Parameters
    ----------
    corpus : Corpus
    split : str or None

    Returns
    -------
    ndarray of str, (n_index,)
    """
    column = "record" if is_within_subject(corpus, split) else "subject"
    return corpus.index[column].to_numpy().astype(str)


def refuse_within_subject(corpus: Corpus, split: str | None, what: str) -> None:
    """DataError where something that speaks of new people is asked of a within-subject split."""
    if is_within_subject(corpus, split):
        raise DataError(f"{corpus.path}: split '{split}' is within-subject, and {what} speaks of new people; take one by subject")


def dealt_recordings(
    corpus: Corpus, n: int, deal: Callable[[int], list[int]], *, seed: int, stratum: dict[str, int]
) -> tuple[list[str], list[int], list[str]]:
    """Recordings of every person dealt out to ``n`` folds or parts.

    Parameters
    ----------
    corpus : Corpus
    n : int
    deal : function
        Number of recordings -> the fold or part of each, in order.
    seed : int
    stratum : dict of str to int
        Of recordings, those of one stratum stand together before they are dealt; empty = all alike.

    Returns
    -------
    list of str, list of int
        Recordings and where each goes.
    list of str
        A note for people with fewer than ``n`` recordings, who are left out: in some fold nothing of theirs would be trained on.

    Raises
    ------
    DataError
        Nobody has ``n`` recordings.
    """
    table = corpus.index[["subject", "record"]].drop_duplicates().sort_values(["subject", "record"])
    each = [sorted(rows) for _, rows in table.groupby("subject")["record"]]
    enough = [records for records in each if len(records) >= n]
    if not enough:
        most = max(map(len, each), default=0)
        raise DataError(
            f"{corpus.path}: --by recording needs {n} recordings of a person and nobody has more than {most}; take fewer folds or parts, or --by subject"
        )
    rng = np.random.default_rng(seed)
    names: list[str] = []
    places: list[int] = []
    for records in enough:
        order = [records[i] for i in rng.permutation(len(records))]
        order.sort(key=lambda r: stratum.get(r, 0))  # stable: random within a stratum
        names += order
        places += deal(len(order))
    left = len(each) - len(enough)
    notes = [f"{left} of {len(each)} subjects have fewer than {n} recordings and are in no part"] if left else []
    return names, places, [WARNING, *notes]


def check_given(parts: dict[str, str], owner: dict[str, str], csv: Any) -> None:
    """A split of recordings made elsewhere: DataError where it is not one, or where a judged person is not trained on.

    Parameters
    ----------
    parts : dict
        Recording -> part.
    owner : dict
        Recording -> subject.
    csv : path
        Named in the error.
    """
    by_subject: dict[str, set[str]] = {}
    for record, part in parts.items():
        by_subject.setdefault(owner[record], set()).update({part} - {""})
    if not any(len(held) > 1 for held in by_subject.values()):
        raise DataError(f"{csv}: nobody is in two parts, so it is a split by subject; leave out --by recording")
    new = [s for s, held in by_subject.items() if held and "train" not in held]
    if new:
        raise DataError(
            f"{csv}: {len(new)} of {len(by_subject)} subjects are judged and have no recording in train; a within-subject split needs one of each"
        )
