"""A within-subject split from training to the page: who may be judged, by what intervals, and that everything says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from within_toys import make_recordings

from biossl import metrics
from biossl.audit.learning import learning_curve
from biossl.checkpoint import save_encoder
from biossl.cli import main
from biossl.corpus import Corpus, make_split, subject_keys
from biossl.corpus.within import WARNING
from biossl.downstream import rivals
from biossl.downstream.evaluate import evaluate
from biossl.downstream.finetune import finetune
from biossl.downstream.folds import finetune_folds
from biossl.downstream.model import load_model
from biossl.errors import DataError, RequestError
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.probe import probe
from biossl.probe_text import as_text
from biossl.report.ethics import write_ethics
from biossl.report.run_page import write_report

KW: dict[str, Any] = {"mode": "frozen", "steps": 4, "split": "runs:0"}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "TREES", 10)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two people of four recordings, four windows each."""
    made = make_recordings(tmp_path_factory.mktemp("within") / "c", (4, 4), windows=4, n_samples=128)
    made.prepare()
    make_split(made, "runs", by="recording", folds=2)
    make_split(made, "people", folds=2)
    return Corpus.open(made.path)


def encoder_of(folder: Path, corpus: Corpus, part: str | None) -> Path:
    """Freshly drawn weights that say they were trained on a part of fold 0."""
    torch.manual_seed(3)
    rows = np.flatnonzero(corpus.split("runs:0") == part) if part else np.arange(0)
    network = TransformerEncoder(
        corpus.spec, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.16, tokenizer="joint", attention="full")
    )
    return save_encoder(network, folder, seen={"subjects": subject_keys(corpus, rows) if part else {"s:before"}})


@pytest.fixture(scope="module")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has seen the training recordings of the very people who are judged."""
    return encoder_of(tmp_path_factory.mktemp("within") / "encoder", corpus, "train")


@pytest.fixture(scope="module")
def run(encoder: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(encoder, corpus, "state", tmp_path_factory.mktemp("within") / "run", **KW)


@pytest.fixture(scope="module")
def result(run: Path, corpus: Corpus) -> dict[str, Any]:
    return evaluate(run, corpus, split="runs:0")


def test_the_model_and_its_evaluation_say_what_they_are(run: Path, result: dict[str, Any]) -> None:
    about = load_model(run).about
    assert about["within_subject"] is True and WARNING in about["choices"]
    assert about["trained"]["subjects"] == 2
    held = json.loads((Path(result["out"]) / "results.json").read_text())
    assert held["within_subject"] is True and WARNING in held["notes"]
    assert held["seen"] == {"subjects": 0, "of": 2} and held["counts"]["subjects"] == 2


def test_intervals_resample_recordings(result: dict[str, Any], corpus: Corpus) -> None:
    table = pd.read_parquet(Path(result["out"]) / "predictions.parquet")
    y = table["y"].map({"rest": 0.0, "work": 1.0}).to_numpy()
    p = table[["p_rest", "p_work"]].to_numpy()
    for column, same in (("record", True), ("subject", False)):
        slow = metrics.subject_bootstrap(y, p, table[column], "accuracy", seed=0)
        assert (slow.to_dict() == result["scores"]["accuracy"]) is same
    assert {e["subject"] for e in result["per_subject"]} == set(table["record"])
    assert table["record"].nunique() == 4 and set(table["subject"]) == {"a", "b"}


def test_the_page_and_both_reports_say_it_in_words(run: Path, result: dict[str, Any], tmp_path: Path) -> None:
    write_report(run, tmp_path / "page.html")
    write_ethics(run, tmp_path / "ethics.html")
    for name in ("page.html", "page.md", "ethics.html"):
        text = (tmp_path / name).read_text()
        assert WARNING in text and "intervals resample recordings, not subjects" in text, name
        assert "interval over recordings" in text or "intervals over recordings" in text, name
        assert "intervals over subjects" not in text and "unseen subjects" not in text, name


def test_an_encoder_of_the_judged_recordings_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    seen = encoder_of(tmp_path / "encoder", corpus, "test")
    made = finetune(seen, corpus, "state", tmp_path / "run", **KW)
    with pytest.raises(DataError, match="have seen 2 of the 2 subjects"):
        evaluate(made, corpus, split="runs:0", baselines=False)
    with pytest.raises(DataError, match="the encoder has seen 2 of the 2 subjects"):
        probe(seen, corpus, "state", split="runs:0")


def test_under_an_ordinary_split_its_people_are_seen(run: Path, corpus: Corpus) -> None:
    with pytest.raises(DataError, match="have seen 1 of the 1 subjects"):
        evaluate(run, corpus, split="people:0", baselines=False)


def test_people_have_no_one_part(run: Path, corpus: Corpus, encoder: Path) -> None:
    with pytest.raises(RequestError, match="--per subject: split 'runs:0' is within-subject"):
        evaluate(run, corpus, split="runs:0", per="subject")
    with pytest.raises(DataError, match="--n-subjects speaks of new people"):
        probe(encoder, corpus, "state", split="runs:0", n_subjects=1)
    with pytest.raises(DataError, match="a learning curve over subjects speaks of new people"):
        learning_curve(encoder, corpus, "state", split="runs:0")


def test_folds_leave_each_recording_out_once(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = encoder_of(tmp_path / "encoder", corpus, None)
    run = finetune_folds(fresh, corpus, "state", tmp_path / "cv", folds=True, mode="frozen", steps=4, split="runs")
    assert main(["evaluate", str(run), str(corpus.path), "--no-baselines"]) == 0
    printed = capsys.readouterr().out
    assert WARNING in printed and "mean over 8 recordings" in printed and "mean over 2 subjects" not in printed
    (file,) = (run / "evaluations").glob("*/results.json")
    held = json.loads(file.read_text())
    assert held["within_subject"] is True and len(held["per_subject"]) == 8
    assert "8 judged recordings are few: intervals over so few are not to be trusted" in held["notes"]
    write_report(run)
    page = (run / "report.html").read_text()
    assert WARNING in page and "trained without its recording" in page and "intervals over all recordings" in page


def test_a_probe_says_it(encoder: Path, corpus: Corpus, tmp_path: Path) -> None:
    result = probe(encoder, corpus, "state", split="runs:0", baselines=False, out=tmp_path / "probe.json")
    assert json.loads((tmp_path / "probe.json").read_text())["within_subject"] is True
    assert result["counts"]["judged"]["subjects"] == 2 and "cross_validation" not in result
    assert WARNING in as_text(result) and "accuracy per recording" in as_text(result)
    assert "4 judged recordings: an interval over so few is not to be trusted" in result["notes"]


def test_an_ordinary_result_says_nothing_of_it(corpus: Corpus, tmp_path: Path) -> None:
    fresh = encoder_of(tmp_path / "encoder", corpus, None)
    run = finetune(fresh, corpus, "state", tmp_path / "run", mode="frozen", steps=2, split="people:0")
    result = evaluate(run, corpus, split="people:0", baselines=False)
    write_report(run)
    assert result["within_subject"] is False and load_model(run).about["within_subject"] is False
    for name in ("report.html", "report.md"):
        text = (run / name).read_text()
        assert "within-subject" not in text and "intervals over subjects" in text
