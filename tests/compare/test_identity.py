"""Identity probes find who is written into features, do not find who is not, and never need labels."""

import numpy as np
import pytest

from biossl.compare.identity import check_identity, effective_rank, identity
from biossl.errors import RequestError


@pytest.fixture(scope="module")
def index(corpus):
    return np.arange(len(corpus))


def features(corpus, index, column, weight, width=8, seed=0):
    names, code = np.unique(corpus.index[column].astype(str).to_numpy()[index], return_inverse=True)
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(len(index), width)) + weight * rng.normal(size=(len(names), width))[code]).astype(np.float32)


def test_a_subject_that_is_written_in_is_found_and_chance_is_not_beaten_without(corpus, index):
    written = identity(features(corpus, index, "subject", 5), corpus, index, "subject")
    absent = identity(features(corpus, index, "subject", 0), corpus, index, "subject")
    assert written["classes"] == 8 and written["chance"] == 1 / 8 and written["balanced_accuracy"] > 0.9
    assert absent["balanced_accuracy"] < 0.35 and written["windows"] == 32  # every second block of four


def test_a_site_is_judged_on_subjects_that_were_not_trained_on(corpus, index):
    written = identity(features(corpus, index, "site", 5), corpus, index, "site")
    # features that name the subject only: nothing to be learnt about the site of another subject
    person = [
        identity(features(corpus, index, "subject", 50, seed=s), corpus, index, "site")["balanced_accuracy"] for s in range(6)
    ]
    assert written["balanced_accuracy"] > 0.9 and written["chance"] == 0.5 and np.mean(person) < 0.8


def test_one_window_a_subject_cannot_be_judged(corpus):
    _, first = np.unique(corpus.index["subject"], return_index=True)
    assert identity(features(corpus, first, "subject", 5), corpus, first, "subject")["balanced_accuracy"] is None


def test_an_absent_covariate_is_refused(corpus):
    check_identity(corpus, ("subject", "site"))
    with pytest.raises(RequestError, match="--identity device"):
        check_identity(corpus, ("device",))


def test_rank_of_one_direction_is_one_and_rows_that_are_unknown_are_left_out():
    x = np.random.default_rng(0).normal(size=(100, 1)) * np.ones((1, 6))
    x[3] = np.nan
    assert effective_rank(x) == pytest.approx(1.0)
    assert effective_rank(np.random.default_rng(0).normal(size=(400, 6))) > 5.5
