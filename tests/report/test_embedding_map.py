"""The map shows unseen windows where there are any, and says what neighbours share beside chance."""

import numpy as np
import pytest
from corpus_factory import make_corpus

from biossl.report import sections
from biossl.report.embedding_map import _neighbours, embedding_map


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("map") / "c", n_subjects=6, n_channels=2, windows_per_subject=8)


def test_neighbours_that_share_a_group_are_told_from_chance():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2, -1], 50)
    apart = rng.normal(size=(200, 4)) + 20 * np.maximum(group, 0)[:, None]
    share, chance = _neighbours(apart, group)
    assert share == 1.0 and chance == pytest.approx(49 / 149)
    mixed, chance = _neighbours(rng.normal(size=(200, 4)), group)
    assert abs(mixed - chance) < 0.12
    assert _neighbours(apart, np.zeros(200, int)) is None


def test_validation_windows_are_shown_before_test_windows(corpus):
    asked = []

    def embed(rows):
        asked.append(rows)
        return np.random.default_rng(0).normal(size=(len(rows), 4))

    picture = embedding_map(corpus, "group", "official", embed)
    assert picture.part == "part val of split official" and (corpus.split()[asked[0]] == "val").all()
    assert picture.n == 8 and picture.pca.shape == (8, 2) and picture.tsne is None
    assert picture.same_label is None and picture.same_subject is None  # 8 windows say nothing of neighbours
    text = sections.embedding_map(picture)
    assert "8 windows of 1 subject, part val of split official" in text and "of variance)" not in text
    whole = embedding_map(corpus, "age", None, embed)
    assert (
        whole.n == 48
        and whole.tsne.shape == (48, 2)
        and whole.same_subject
        and len(whole.names) == 4
        and set(whole.group) == {0, 1, 2, 3}
    )


def test_windows_without_features_are_left_out(corpus):
    def embed(rows):
        z = np.random.default_rng(0).normal(size=(len(rows), 4))
        z[::2] = np.nan
        return z

    assert embedding_map(corpus, "findings", None, embed).n == 24
    assert embedding_map(corpus, None, None, lambda rows: np.full((len(rows), 4), np.nan)) is None
