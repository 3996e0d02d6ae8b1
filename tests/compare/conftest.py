"""A tiny corpus, two tiny recipes, and one finished comparison of them for all tests of the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compare_toys import SETTINGS, two_recipes
from corpus_factory import make_corpus

from biossl import minirocket
from biossl.compare import compare, scratch
from biossl.corpus import Corpus


@pytest.fixture(autouse=True, scope="session")
def small_baselines():
    """Baselines at a size of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "LEAST_STEPS", 3)
        patch.setattr(scratch, "EPOCHS", 1)
        patch.setattr(minirocket, "N_FEATURES", 168)
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
    return compare(two_recipes(), corpus, "group", out=out, **SETTINGS), out
