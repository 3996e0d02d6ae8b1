"""A locked model on people it has never seen: the figures are scikit-learn's, nothing is refitted, every opening is counted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from corpus_factory import make_corpus
from sklearn.metrics import accuracy_score, f1_score

from biossl.cli import main
from biossl.config import dump_yaml, load_yaml
from biossl.corpus import Corpus
from biossl.downstream.evaluate import _groups, evaluate
from biossl.downstream.finetune import scarce_rows
from biossl.downstream.model import load_model
from biossl.downstream.predictions import predict
from biossl.errors import DataError, RequestError
from biossl.protocol import Target
from biossl.report.run_page import write_report


@pytest.fixture(scope="module")
def tuned(locked: Path) -> Path:
    return locked


@pytest.fixture(scope="module")
def result(tuned: Path, corpus: Corpus, halves: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(tuned, corpus, split=halves, out=tmp_path_factory.mktemp("judged") / "a")


def test_scores_are_those_of_the_written_predictions(result: dict[str, Any], corpus: Corpus, halves: str) -> None:
    table = pd.read_parquet(Path(result["out"]) / "predictions.parquet")
    assert len(table) == result["counts"]["windows"] == int((corpus.split(halves) == "test").sum())
    said = table[["p_slow", "p_fast"]].to_numpy().argmax(1)
    true = (table["y"] == "fast").to_numpy().astype(int)
    assert result["scores"]["macro_f1"]["value"] == pytest.approx(f1_score(true, said, average="macro"), abs=1e-9)
    assert result["scores"]["accuracy"]["value"] == pytest.approx(accuracy_score(true, said), abs=1e-9)
    assert result["confusion"] == [[int(((true == a) & (said == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    decided = table[~table["abstain"]]
    assert (decided["decision"] == np.array(["slow", "fast"])[said][~table["abstain"]]).all()
    assert table.loc[table["abstain"], "decision"].isna().all()


def test_simple_models_stand_beside_it(result: dict[str, Any]) -> None:
    assert [r["model"] for r in result["rivals"]] == [
        "hand features",
        "hand features, forest",
        "MiniRocket",
        "gravity alone",
        "age and sex",
    ]
    for rival in result["rivals"]:
        gap = result["scores"]["macro_f1"]["value"] - rival["score"]["value"]
        assert rival["minus"]["value"] == pytest.approx(gap, abs=1e-9)


def test_json_is_strict_and_what_was_returned(result: dict[str, Any]) -> None:
    stored = json.loads((Path(result["out"]) / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert stored["scores"] == result["scores"] and stored["model"]["sha256"] == result["model"]["sha256"]
    assert {c["kept"].split()[0] for c in stored["coverage"]} == {"all", "familiar", "confidence"}


def test_nothing_is_fitted_on_the_judged_rows(
    tuned: Path, corpus: Corpus, halves: str, result: dict[str, Any], tmp_path: Path
) -> None:
    """Other labels of the judged people change scores, and neither a probability nor a decision."""
    other = tmp_path / "imu"
    shutil.copytree(corpus.path, other)
    subjects = sorted(set(corpus.index["subject"]))
    group = corpus.index.drop_duplicates("subject").set_index("subject")["group"]
    test = set(corpus.index["subject"][corpus.split(halves) == "test"])
    turned = {"slow": "fast", "fast": "slow"}
    (tmp_path / "l.csv").write_text(
        "subject,turned\n" + "".join(f"{s},{turned[group[s]] if s in test else group[s]}\n" for s in subjects)
    )
    assert main(["label", str(other), str(tmp_path / "l.csv"), "--key", "subject", "--name", "turned"]) == 0
    wrong = evaluate(tuned, other, label="turned", split=halves, out=tmp_path / "b", baselines=False)
    a, b = (pd.read_parquet(Path(r["out"]) / "predictions.parquet") for r in (result, wrong))
    pd.testing.assert_frame_equal(a.drop(columns="y"), b.drop(columns="y"))
    assert wrong["scores"]["accuracy"]["value"] == pytest.approx(1 - result["scores"]["accuracy"]["value"])


def test_every_opening_of_a_test_part_is_in_the_ledger(tuned: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    before = evaluate(tuned, corpus, split=halves, out=tmp_path / "a", baselines=False)["ledger"]["openings"]
    assert evaluate(tuned, corpus, split=halves, out=tmp_path / "b", baselines=False)["ledger"]["openings"] == before + 1
    val = evaluate(tuned, corpus, split=halves, part="val", out=tmp_path / "c", baselines=False, allow_seen=True)
    assert "ledger" not in val


def test_people_it_was_trained_or_chosen_on_are_refused(tuned: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    for part, n in (("train", 14), ("val", 5)):
        with pytest.raises(DataError, match=rf"have seen {n} of the {n} subjects.*--allow-seen"):
            evaluate(tuned, corpus, split=halves, part=part, out=tmp_path / part)
    flagged = evaluate(tuned, corpus, split=halves, part="val", out=tmp_path / "v", baselines=False, allow_seen=True)
    assert any("optimistic" in n for n in flagged["notes"])


def test_a_second_label_judges_some_of_the_rows_and_a_confound_is_told(
    tuned: Path, corpus: Corpus, halves: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is that of ``group``; judged by its label of the last seconds of each recording, which the card calls confounded."""
    other = tmp_path / "imu"
    shutil.copytree(corpus.path, other)
    card = load_yaml(other / "card.yaml")
    card["labels"]["late"] = card["labels"]["group"] | {"last_s": 5.2, "confounds": "fast always came <after> slow"}
    (other / "card.yaml").write_text(dump_yaml(card))
    assert main(["evaluate", str(tuned), str(other), "--label", "late", "--splits", halves, "--no-baselines"]) == 0
    assert "confound of 'late': fast always came <after> slow" in capsys.readouterr().out
    (file,) = (tuned / "evaluations").glob("imu-late-*/results.json")
    held = json.loads(file.read_text())
    assert held["confounds"] == "fast always came <after> slow" and held["counts"]["windows"] == 2 * 5
    table = pd.read_parquet(file.parent / "predictions.parquet")
    assert (table.groupby("record")["start_s"].min() > 4).all()
    write_report(tuned, tmp_path / "page.html")
    for name in ("page.html", "page.md"):
        assert "fast always came &lt;after" in (tmp_path / name).read_text(), name
    shutil.rmtree(file.parent)


def test_another_site_is_judged_whole_and_its_strange_class_left_out(tuned: Path, tmp_path: Path) -> None:
    site = make_corpus(
        tmp_path / "site",
        modality="imu",
        n_subjects=5,
        windows_per_subject=4,
        n_samples=128,
        n_channels=3,
        splits={},
        seed=9,
        name="site",
    )
    people = sorted(set(site.index["subject"]))
    group = site.index.drop_duplicates("subject").set_index("subject")["group"]
    rows = "".join(f"{s},{'odd' if i == 0 else group[s]}\n" for i, s in enumerate(people))
    (tmp_path / "l.csv").write_text("subject,kind\n" + rows)
    assert main(["label", str(site.path), str(tmp_path / "l.csv"), "--key", "subject", "--name", "kind"]) == 0
    found = evaluate(tuned, Corpus.open(site.path), label="kind", out=tmp_path / "out", by=["group"])
    note = "unknown to the model and their windows are left out: class 'odd'"
    assert found["counts"]["subjects"] == 4 and note in found["notes"]
    assert any("no split: every labelled window" in n for n in found["notes"])
    assert {g["name"] for g in found["groups"]["group"]} <= {"slow", "fast"}
    assert all(g["score"] is None and g["reason"] for g in found["groups"]["group"])  # under ten subjects
    assert [r["model"] for r in found["rivals"]] == [
        "hand features",
        "hand features, forest",
        "MiniRocket",
        "gravity alone",
        "age and sex",
    ]  # fitted where the model was


def test_a_corpus_that_has_gone_is_a_note_and_no_simple_model(tuned: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"corpora_at": [str(tmp_path / "gone")]}))
    found = evaluate(run, corpus, split=halves, out=tmp_path / "out")
    assert found["rivals"] == [] and any("no simple models beside it" in n for n in found["notes"])


@pytest.mark.parametrize(
    ("kw", "error", "says"),
    [
        ({"label": "nope"}, DataError, "no label 'nope'"),
        ({"part": "exam"}, RequestError, "--part exam: split 'halves' has test, train, val; or give --part all"),
        ({"by": ["shoe"]}, RequestError, "--by shoe: the index has no such column; it has .*group"),
    ],
)
def test_a_wrong_request_is_one_line(
    tuned: Path, corpus: Corpus, halves: str, tmp_path: Path, kw: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        evaluate(tuned, corpus, split=halves, out=tmp_path / "x", **kw)
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()


def test_an_evaluation_is_not_replaced_unasked(tuned: Path, corpus: Corpus, halves: str, result: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="exists; give another --out or add --overwrite"):
        evaluate(tuned, corpus, split=halves, out=result["out"])


def test_predictions_need_no_label_and_windows_unlike_training_get_no_decision(
    tuned: Path, corpus: Corpus, tmp_path: Path
) -> None:
    done = predict(tuned, corpus.path, tmp_path / "p.parquet")
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert len(table) == done["rows"] == len(corpus) and sum(done["decisions"].values()) == len(table) - done["abstain"]
    assert not {"y", "group"} & set(table.columns)
    with pytest.raises(RequestError, match="exists; give another name"):
        predict(tuned, corpus.path, tmp_path / "p.parquet")
    model = load_model(tuned)
    assert model.lock.familiar is not None
    odd = make_corpus(
        tmp_path / "odd", modality="imu", n_subjects=2, windows_per_subject=3, n_samples=128, n_channels=3, seed=4, splits={}
    )
    signal = np.random.default_rng(0).normal(0, 40, (6, 3, 128)).astype(np.float32)
    odd.signal = lambda rows: signal[np.asarray(rows)]  # type: ignore[method-assign]
    from biossl.downstream.model import read_rows
    from biossl.downstream.predictions import columns

    strange = columns(model, *read_rows(model, odd, np.arange(6)))
    assert strange["unfamiliar"].all() and strange["decision"].isna().all() and (strange["mahalanobis"] > 1).any()


def test_a_window_without_a_sample_gets_no_probability(tuned: Path, corpus: Corpus) -> None:
    from biossl.downstream.model import read_rows
    from biossl.downstream.predictions import columns

    held = Corpus.open(corpus.path)
    whole = held.signal(np.arange(2)).copy()
    whole[1] = np.nan
    held.signal = lambda rows: whole[np.asarray(rows)]  # type: ignore[method-assign]
    table = columns(load_model(tuned), *read_rows(load_model(tuned), held, np.arange(2)))
    assert table["p_slow"].isna().tolist() == [False, True] and bool(table["abstain"][1])


def test_the_verbs_from_scarce_labels_to_a_table(encoder: Path, corpus: Corpus, halves: str, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    base = [
        "finetune",
        str(encoder),
        str(corpus.path),
        "--label",
        "group",
        "--splits",
        halves,
        "--steps",
        "10",
        "--out",
        str(run),
    ]
    assert main([*base, "--n-subjects", "6"]) == 0
    about = load_model(run).about
    assert about["trained"]["subjects"] == 6 and len(about["trained"]["rows"]) == 24
    assert "biossl evaluate" in capsys.readouterr().out
    assert main(["evaluate", str(run), str(corpus.path), "--splits", halves]) == 0
    text = capsys.readouterr().out
    assert "nothing refitted" in text and "this model minus that" in text and "test openings of this label" in text
    assert main(["predict", str(run), str(corpus.path), str(tmp_path / "p.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == len(corpus)
    assert main(["finetune", *base[1:], "--n-subjects", "2", "--labels-fraction", "0.5", "--overwrite"]) == 2
    assert "more than the 8 of the 2 drawn subjects" in capsys.readouterr().err
    rows = scarce_rows(corpus, "group", split=halves, fraction=0.1, n_subjects=2)
    assert rows is not None and len(set(corpus.index["subject"].iloc[rows])) <= 2 and len(rows) == round(0.1 * 56)
    assert main(["predict", str(run), str(tmp_path / "q.parquet")]) == 2
    assert "give what to predict" in capsys.readouterr().err


def test_the_page_of_a_run_shows_its_evaluations_without_names(tuned: Path, corpus: Corpus, halves: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    bare = write_report(run, tmp_path / "bare.html")
    assert "The locked model was not judged" in (tmp_path / "bare.html").read_text() and bare["notes"] == []
    done = evaluate(run, corpus, split=halves, by=["group"], baselines=False)
    write_report(run)
    page = (run / "report.html").read_text()
    value = f"{done['scores']['macro_f1']['value']:.3f}"
    assert "The locked model" in page and value in page and "Single subjects" in page and "By group" in page
    assert not any(f">{s}<" in page for s in set(corpus.index["subject"]))
    other = json.loads((Path(done["out"]) / "results.json").read_text())
    other["model"]["sha256"] = "0" * 64
    (Path(done["out"]) / "results.json").write_text(json.dumps(other))
    assert any("judged other weights" in n for n in write_report(run, overwrite=True)["notes"])


def example(language: str, folder: Path) -> str:
    """The page's example in a language, for another folder."""
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    section = page[page.index("## evaluate:") : page.index("## predict:")]
    code = section[section.index(f"```{language}\n") + len(language) + 4 :]
    return code[: code.index("```")].replace("runs/hapt-6/evaluations/hapt-activity6-official-test", folder.as_posix())


def test_the_python_example_of_the_page_reads_what_was_written(
    result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example("python", Path(result["out"])), "docs/tasks.md", "exec"), {})
    out = capsys.readouterr().out
    assert f"'value': {result['scores']['macro_f1']['value']}" in out and "decision" in out


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="no R here")
def test_the_r_example_of_the_page_reads_what_was_written(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "read.R").write_text(example("r", Path(result["out"])))
    done = subprocess.run(["Rscript", str(tmp_path / "read.R")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_records_whose_names_are_numbers_are_groups_of_their_own_and_ages_are_cut() -> None:
    values = np.repeat([str(100 + k) for k in range(8)], 3).astype(object)
    y = np.tile([0.0, 1.0, 0.0], 8)
    target, p = Target("multiclass", y, ("a", "b")), np.stack([1 - y, y], axis=1)
    found = [g["name"] for g in _groups(target, p, values.astype(str), "record", values, 0)]
    assert found == [str(100 + k) for k in range(8)]
    assert len(_groups(target, p, values.astype(str), "age", values, 0)) == 3
