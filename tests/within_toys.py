"""People with several recordings each, for the tests of within-subject splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corpus_factory import SyntheticLoader, synthetic_card, synthetic_tasks

from biossl.corpus import Corpus
from biossl.corpus.convert import convert_tasks


def make_recordings(
    path: Path, each: Sequence[int] = (4, 4, 4, 1), *, windows: int = 2, n_samples: int = 40, seed: int = 0, **facts: object
) -> Corpus:
    """Subject ``a`` with ``each[0]`` recordings, ``b`` with ``each[1]`` and so on; label ``state`` has both classes in every recording."""
    subjects = [chr(ord("a") + i) for i, n in enumerate(each) for _ in range(n)]
    tasks = [replace(t, subject=s) for t, s in zip(synthetic_tasks(len(subjects)), subjects, strict=True)]
    card = synthetic_card(n_channels=2, n_samples=n_samples, splits={}, **facts)
    convert_tasks(card, tasks, path, view="main", load=SyntheticLoader(windows, seed), n_jobs=1)
    return Corpus.open(path)
