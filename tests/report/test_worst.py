"""The errors on the page are the most confident ones, of different people, drawn from the corpus, and name nobody of a private set."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import make_corpus
from judged_toys import planted

from biossl.corpus import Corpus
from biossl.report.judged import Judged
from biossl.report.worst import worst, worst_cases


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four windows of each of 10 subjects; even subjects are slow, odd ones fast."""
    return make_corpus(
        tmp_path_factory.mktemp("worst") / "c", modality="imu", n_subjects=10, windows_per_subject=4, n_samples=64, n_channels=6
    )


def two_classes(corpus: Corpus, wrong: dict[int, float], **kw: object) -> Judged:
    """Right with .9 everywhere but in these rows, where the wrong class has this probability."""
    truth = corpus.labels("group").values[:, 0].astype(int)
    p = np.full((len(corpus), 2), 0.1)
    p[np.arange(len(p)), truth] = 0.9
    for row, sure in wrong.items():
        p[row, truth[row]], p[row, 1 - truth[row]] = 1 - sure, sure
    return planted(corpus, "group", p, **kw)  # type: ignore[arg-type]


def test_the_most_confident_errors_come_first_and_one_of_each_person(corpus: Corpus) -> None:
    wrong = {0: 0.99, 1: 0.98, 4: 0.6, 8: 0.95, 12: 0.7, 16: 0.8, 20: 0.65, 24: 0.55, 28: 0.97}
    cases = worst(two_classes(corpus, wrong))
    assert [c.row for c in cases] == [0, 28, 8, 16, 12, 20]  # 1 is subject 0's second, 4 and 24 are less sure
    assert [c.wrong for c in cases] == pytest.approx([0.99, 0.97, 0.95, 0.8, 0.7, 0.65])
    assert cases[0].truth == "slow" and cases[0].said == "fast (probability 0.990)"


def test_too_few_people_fill_up_with_their_next_errors(corpus: Corpus) -> None:
    judged = two_classes(corpus, {1: 0.9, 2: 0.8})
    assert [c.row for c in worst(two_classes(corpus, {0: 0.6, 1: 0.9, 2: 0.8, 5: 0.7, 6: 0.75}))] == [1, 2, 6, 5, 0]
    assert "some are shown more than once" in worst_cases(judged)


def test_a_window_without_a_decision_is_no_error(corpus: Corpus) -> None:
    abstain = np.arange(len(corpus)) == 0
    judged = two_classes(corpus, {0: 0.99, 8: 0.7}, abstain=abstain)
    assert [c.row for c in worst(judged)] == [8]
    assert "Windows without a decision (abstained: 1) are not among them" in worst_cases(judged)


def test_yes_no_answers_are_wrong_by_their_frozen_threshold(corpus: Corpus) -> None:
    y = corpus.labels("findings").values
    p = np.where(y == 1, 0.9, 0.1).astype(float)
    rows = {k: np.flatnonzero(y[:, 0] == k)[::4] for k in (0, 1)}
    p[rows[0][0], 0] = 0.35  # over the threshold of .3, so a false alarm
    p[rows[1][0], 0] = 0.4  # right by that threshold, wrong by .5
    p[rows[1][1], 0] = 0.05  # missed, with .95 on the wrong side
    cases = worst(planted(corpus, "findings", p, thresholds={"A": 0.3}))
    assert [c.row for c in cases] == [rows[1][1], rows[0][0]]
    assert (cases[0].truth, cases[0].said) == ("A: yes", "A: no (probability of yes 0.050)")
    assert (cases[1].truth, cases[1].said) == ("A: no", "A: yes (probability of yes 0.350)")


def test_values_are_wrong_by_their_distance(corpus: Corpus) -> None:
    age = corpus.labels("age").values[:, 0]
    said = age + np.where(np.arange(len(age)) == 9, -30.0, 1.0)
    first = worst(planted(corpus, "age", said))[0]
    assert first.row == 9 and first.wrong == pytest.approx(30) and first.truth == "42" and first.said == "12"


def test_the_picture_is_of_the_very_window_with_id_and_start(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from biossl.report import traces

    seen, draw = [], traces.draw
    monkeypatch.setattr(traces, "draw", lambda r, *a: (seen.append(r), draw(r, *a))[1])
    page = worst_cases(two_classes(corpus, {9: 0.99}))
    np.testing.assert_array_equal(seen[0].data, corpus.signal([9])[0])
    row = corpus.index.iloc[9]
    assert f"True slow, predicted fast (probability 0.990); record {row['record']}, from {row['start_s']:.4g} s" in page
    assert seen[0].units == corpus.spec.units and "rotation (deg/s)" in page and "acceleration (g)" in page


def test_ecg_is_on_paper_of_true_size(tmp_path: Path) -> None:
    ecg = make_corpus(tmp_path / "ecg", n_subjects=4, windows_per_subject=1, n_samples=500, n_channels=2)
    page = worst_cases(two_classes(ecg, {1: 0.9}))
    assert "25 mm/s and 10 mm/mV, pulse 1 mV" in page
    width = float(re.search(r'<svg style="width:([\d.]+)mm', page)[1])  # type: ignore[index]
    assert width == pytest.approx(25 * 4.99 + 20, abs=0.2)  # 5 s


def test_of_a_private_set_only_keys_are_shown(tmp_path: Path) -> None:
    private = make_corpus(
        tmp_path / "p", modality="imu", n_subjects=4, windows_per_subject=1, n_samples=64, n_channels=3, public=False
    )
    page = worst_cases(two_classes(private, {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6}))
    assert not re.search(r"\b[rs]00\d\b", page) and "record" not in page
    assert all(f"key {record}," in page for record in private.index["record"])


def test_a_corpus_that_has_gone_is_one_line(corpus: Corpus) -> None:
    judged = two_classes(corpus, {9: 0.99})
    page = worst_cases(Judged(judged.result, judged.table, None, None))
    assert page.count("<p>") == 1 and "no longer where it was" in page and "<svg" not in page
    assert "no judged window with a decision is wrong" in worst_cases(two_classes(corpus, {}))
