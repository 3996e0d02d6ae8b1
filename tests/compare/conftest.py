"""A tiny corpus, two tiny recipes, and one finished comparison of them for all tests of the room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compare_toys import SETTINGS, two_recipes
from corpus_factory import make_corpus

from biossl import minirocket
from biossl.compare import compare, scratch
from biossl.corpus import Corpus


@contextmanager
def small() -> Iterator[None]:
    """Baselines at a size of seconds, and as they were afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "LEAST_STEPS", 3)
        patch.setattr(scratch, "EPOCHS", 1)
        patch.setattr(minirocket, "N_FEATURES", 168)
        yield


@pytest.fixture(autouse=True, scope="module")
def small_baselines() -> Iterator[None]:
    """For every test of the room."""
    with small():
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Eight subjects of eight windows, no split."""
    return make_corpus(
        tmp_path_factory.mktemp("compare") / "corpus",
        modality="imu",
        n_subjects=8,
        windows_per_subject=8,
        n_samples=128,
        splits={},
    )


@pytest.fixture(scope="session")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A whole comparison and its folder."""
    out = tmp_path_factory.mktemp("compare") / "out"
    with small():
        return compare(two_recipes(), corpus, "group", out=out, **SETTINGS), out
