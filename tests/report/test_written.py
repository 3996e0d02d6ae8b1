"""The written side of a fine-tuned run's report: flow, report.md, ethics packet. What is planted comes out; what is private does not."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from written_toys import CANARIES, Written, make_written

from biossl import cli
from biossl.downstream.lock import Lock
from biossl.errors import RequestError
from biossl.metrics.calibrators import Calibration
from biossl.metrics.operating import OperatingPoint
from biossl.models.convnets import ConvConfig
from biossl.report import flow, known, people, tripod, write_ethics, write_report
from biossl.report.ethics import packet
from biossl.report.run_page import read_run
from biossl.report.study import Study, read_study, without_places


def study_of(run: Path) -> Study:
    held = read_run(run)
    return read_study(run, held.facts, held.corpora, held.evaluations)


class Plain(HTMLParser):
    """A page as text, one line a row or paragraph; complains about what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.out, self.stack, self.tags = "", [], []
        self.feed(text[text.index("<body>") :])
        assert not self.stack or self.stack == ["html"]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "html":
            return
        assert self.stack.pop() == tag
        self.out += "\n" if tag in ("tr", "p", "li", "h1", "h2", "h3", "caption") else " | " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.out += data


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return make_written(tmp_path_factory.mktemp("private"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return make_written(tmp_path_factory.mktemp("public"), public=True)


@pytest.fixture(scope="module")
def study(private: Written) -> Study:
    return study_of(private.run)


@pytest.fixture(scope="module")
def markdown(study: Study) -> str:
    return tripod.report(study)


@pytest.fixture(scope="module")
def ethics(private: Written, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("packet") / "ethics.html"
    done = write_ethics(private.run, out)
    text = out.read_text(encoding="utf-8")
    assert done["to_fill"] == text.count("TO BE FILLED BY THE AUTHORS: ") == 5 and done["notes"] == []
    return text


def item(markdown: str, number: str) -> str:
    start = markdown.index(f"### {number} ")
    return re.split(r"\n##", markdown[start + 3 :], maxsplit=1)[0]


# ---------------------------------------------------------------------------------------------- flow

STEPS = [
    ["found", "25", "not known", "not known", "-"],
    ["readable", "24", "99", "24", "1 recording: truncated"],
    ["quality passed", "24", "96", "24", "3 windows: too little of it was observed"],
    ["labelled", "22", "88", "22", "8 windows (all of 2 recordings and 2 subjects): label unknown"],
    ["in a part of the split", "21", "84", "21", "4 windows (all of 1 recording and 1 subject): in no part of the split"],
    ["part train", "12", "48", "12", "-"],
    ["trained on", "12", "48", "12", "-"],
    ["part val", "5", "20", "5", "-"],
    ["chosen by", "5", "20", "5", "-"],
    ["part test", "4", "16", "4", "-"],
    ["judged", "4", "15", "4", "1 window: no observed sample"],
]


def test_everyone_who_was_planted_to_fall_out_is_counted_where_they_fell(study: Study) -> None:
    (found,) = flow.flows(study)
    assert flow.rows(found)[1:] == STEPS and found.notes == ()


def test_scarce_labels_are_a_loss_of_their_own(study: Study) -> None:
    about = study.model.about | {"trained": study.model.about["trained"] | {"rows": [0, 1, 4, 5], "windows": 4, "subjects": 2}}
    model = SimpleNamespace(about=about, kind="multiclass", lock=study.model.lock)
    (found,) = flow.flows(replace(study, model=model))
    box = next(b for arm in found.arms for b in arm if b.name == "trained on")
    assert (box.recordings, box.windows, box.subjects) == (2, 4, 2)
    assert box.out == ("44 windows: label left out on purpose (scarce labels)",)


def test_an_evaluation_by_another_label_or_of_all_rows_has_a_flow_of_its_own(study: Study) -> None:
    (judged,) = study.judged
    other = replace(judged, result=judged.result | {"label": "state", "split": None, "part": "all", "classes": ["rest"]})
    first, second = flow.flows(replace(study, judged=[judged, other]))
    assert flow.rows(first)[1:] == STEPS
    end = second.arms[-1][-1]
    assert [b.name for b in second.arms[-1]] == ["all (no split)", "judged"] and "trained on" not in str(second.arms)
    assert (
        end.out[0].startswith("48 windows: of a class the model does not know")
        or "of a class the model does not know" in end.out[0]
    )


def test_a_corpus_that_has_gone_is_said_to_be_unknown_not_guessed(private: Written, tmp_path: Path) -> None:
    run = moved(private, tmp_path)
    (found,) = flow.flows(study_of(run))
    table = {row[0]: row[1:] for row in flow.rows(found)[1:]}
    assert all(table[name][:3] == ["not known"] * 3 for name in ("found", "readable", "quality passed", "labelled", "part train"))
    assert table["trained on"][:3] == ["not known", "48", "12"]
    assert table["judged"] == ["4", "15", "4", "1 window: no observed sample"]
    assert "not at hand or has changed" in found.notes[0]
    text = tripod.report(study_of(run))
    assert "Not known: the corpora are not at hand." in item(text, "21") and "not at hand" in item(text, "5a")


def moved(written: Written, folder: Path, **changes: Any) -> Path:
    """A copy of the run that finds its corpus nowhere; ``changes`` go into its results."""
    run = folder / "run"
    shutil.copytree(written.run, run, ignore=shutil.ignore_patterns("report.*", "checkpoints"))
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"corpora_at": ["gone"]}))
    for file in (run / "evaluations").glob("*/results.json"):
        result = json.loads(file.read_text())
        result["corpus"]["path"] = "gone"
        result["ledger"]["file"] = "gone/ledger.jsonl"
        file.write_text(json.dumps(result | changes))
    return run


def test_the_figure_has_every_count_and_reason_and_is_told_in_words(study: Study) -> None:
    (found,) = flow.flows(study)
    svg = flow.figure(found)
    words = flow.alt(found)
    for name, recordings, _, _, out in STEPS:
        assert f">{name}</text>" in svg and f"{name}: {recordings} recordings" in words
        assert out in words
    assert "1 recording: truncated" in svg and 'role="img"' in svg and "aria-label" in svg
    assert svg == flow.figure(found)


# ---------------------------------------------------------------------------------------------- report.md


def test_items_stand_in_the_order_of_the_checklist(markdown: str) -> None:
    numbers = re.findall(r"(?m)^### (\d+[a-g]?) ", markdown)
    assert sorted({int(re.sub(r"\D", "", n)) for n in numbers}) == list(range(1, 28))
    assert numbers == sorted(numbers, key=lambda n: (int(re.sub(r"\D", "", n)), n)) and len(set(numbers)) == len(numbers)
    gaps = int(re.search(r"(\d+) places are for the authors", markdown)[1])  # type: ignore[index]
    assert gaps == markdown.count("TO BE FILLED BY THE AUTHORS: ")


@pytest.mark.parametrize("number", ["3a", "3c", "6c", "8b", "8c", "17", "18a", "18b", "18c", "18d", "19", "27c"])
def test_what_only_the_authors_know_is_asked_and_nothing_else_said(markdown: str, number: str) -> None:
    lines = [line for line in item(markdown, number).splitlines()[1:] if line]
    assert len(lines) == 1 and lines[0].startswith("TO BE FILLED BY THE AUTHORS: ") and len(lines[0]) > 45


def test_every_item_says_what_the_files_of_the_run_say(private: Written, study: Study, markdown: str) -> None:
    r, about = private.result, study.model.about
    facts = json.loads((private.run / "run.json").read_text())
    shown = (
        f"{r['scores']['macro_f1']['value']:.3f} [{r['scores']['macro_f1']['low']:.3f}, {r['scores']['macro_f1']['high']:.3f}]"
    )
    expected = {
        "1": "development and evaluation", "2": shown, "4": "split thirds, part test", "5a": "Waist sensors of one ward, version 1, IMU, licence none",
        "6a": "column site has 2 values", "7": "windows of 2.56 s at 50 Hz", "8a": "group: multiclass, classes slow, fast; read from column group",
        "9b": "channels acc_x acc_y acc_z in g, 50 Hz", "10": "48 windows of 12 subjects", "11": "all of 2 recordings and 2 subjects): label unknown",
        "12a": "no subject standing in two parts; part val chose", "12c": f"{study.model.encoder.config.describe()}; head linear; fine-tuned in mode full for 20 steps", "12e": "2,000 resamples", "12f": "None",
        "13": "neither weighted", "14": "Scored apart by site", "15": f"{next(iter(study.model.lock.cutoffs.values())):.3f} (95%)",
        "16": "0 of the 4 judged subjects", "18f": f"torch {facts['versions']['torch']}", "20a": "| judged | 4 | 15 | 4 | 1 window: no observed sample |",
        "20b": "| subjects | 12 | 5 | 4 |", "21": "| trained on | slow | 24 | 6 | 6 |", "22": about["weights"]["sha256"], "23a": shown,
        "23b": "of 4 single subjects", "24": "None", "25": shown, "26": "4 judged subjects are few", "27a": f"{study.model.lock.familiar.limits['knn']:.3g}",  # type: ignore[union-attr]
    }  # fmt: skip
    assert about["choices"][1] in item(markdown, "12c")
    for number, text in expected.items():
        assert text in item(markdown, number), number
    assert r["scores"]["auroc"]["value"] == pytest.approx(
        float(re.search(r"\| AUROC \| ([\d.]+)", item(markdown, "23a"))[1]), abs=5e-4
    )  # type: ignore[index]


def test_a_convolutional_encoder_is_described_as_one(study: Study) -> None:
    m = study.model
    encoder = SimpleNamespace(spec=m.encoder.spec, config=ConvConfig(widths=[8, 24], normalise="window"))
    model = SimpleNamespace(about=m.about, lock=m.lock, kind=m.kind, classes=m.classes, head=m.head, encoder=encoder)
    text = tripod.report(replace(study, model=model))  # type: ignore[arg-type]
    assert "Residual convolutions along time, stages of width 8, 24" in item(text, "12c") and "ransformer" not in text
    assert "normalised: window" in item(text, "12b")


def test_tables_of_the_markdown_are_whole_and_no_cell_breaks_out(markdown: str) -> None:
    rows: list[str] = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            assert len({len(re.findall(r"(?<!\\)\|", r)) for r in rows}) == 1 and set(rows[1]) <= set("| -")
            rows = []
    assert tripod._table([["a|b", "<i>x"], ["1\n2", "3"]]) == ["| a\\|b | &lt;i>x |", "| --- | --- |", "| 1 2 | 3 |"]


def test_a_public_set_is_named_with_citation_source_and_dates(public: Written) -> None:
    study = study_of(public.run)
    text = tripod.report(study)
    assert "Doe 2031; obtained from https://example.org/sensors" in item(text, "5a")
    assert "recordings are dated 2020-01-01 to 2020-01-24" in item(text, "5b") and "https://example.org/sensors" in item(
        text, "18e"
    )
    assert "TO BE FILLED" not in item(text, "18e") and "The set is public" in packet(study)


def test_thresholds_say_by_what_rule_and_on_whom_they_were_chosen(study: Study) -> None:
    point = OperatingPoint("youden", None, 0.314, 0.91, 0.87, 41, 97)
    lock = Lock(
        Calibration("multilabel", "temperature", ("AF", "PVC"), (((1.5,),), ((2.25,),))), {"AF": point}, {0.9: 0.66}, None
    )
    model = SimpleNamespace(**vars(study.model) | {"kind": "multilabel", "classes": ("AF", "PVC"), "lock": lock})
    other = replace(study, model=model)  # type: ignore[arg-type]
    first, second = known.thresholds(other)
    assert (
        "AF: yes from probability 0.314" in first
        and "sensitivity + specificity - 1 on part val" in first
        and "41 positive and 97 negative" in first
    )
    assert second.startswith("PVC: yes from probability .5")
    assert "(1.500, 2.250)" in known.calibration(other) and "0.660 (90%)" in known.cutoffs(other)
    assert "not flagged" in " ".join(known.familiar(other))


# ---------------------------------------------------------------------------------------------- page and files


def test_the_page_has_the_flow_and_every_opening_and_report_md_lies_beside_it(private: Written, tmp_path: Path) -> None:
    done = write_report(private.run, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert done["markdown"] == str(tmp_path / "a.md") and (tmp_path / "a.md").read_text(encoding="utf-8").startswith(
        "# A model for group"
    )
    assert 'aria-label="Cohort flow of Waist sensors of one ward' in page and "The same as a table" in page
    entries = [json.loads(line) for line in (private.corpus.path / "ledger.jsonl").read_text().splitlines()]
    assert len(entries) == 1
    part = page[page.index('id="provenance"') :]
    for e in entries:
        assert e["date"] in part and e["model"][:12] in part and f"{e['score']['value']:.3f} [" in part
        assert not e["commit"] or e["commit"] in part
    assert "1, 1 of them by this model" in part and private.result["model"]["sha256"] in part
    with pytest.raises(RequestError, match="exists"):
        write_report(private.run, tmp_path / "a.html")
    (tmp_path / "a.html").unlink()
    with pytest.raises(RequestError, match="a.md: exists"):
        write_report(private.run, tmp_path / "a.html")


def test_openings_of_other_models_are_shown_and_not_counted_as_own(private: Written, tmp_path: Path) -> None:
    run = moved(private, tmp_path)
    (run / "probes").mkdir()
    lines = [
        {"date": f"2031-0{i}-01T00:00:00+00:00", "commit": f"c0ffee{i}", "verb": "probe", "encoder": f"{i}" * 64, "label": "group", "split": "thirds",
         "part": "test", "pool": "mean", "metric": "macro_f1", "score": {"value": i / 10, "low": None, "high": None}} for i in (2, 1)
    ]  # fmt: skip
    (run / "probes" / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut of')
    study = study_of(run)
    assert [e["commit"] for e in study.openings] == ["c0ffee1", "c0ffee2"]
    text = packet(study)
    assert "opened 2 times by any model, 0 of them by this one" in text and "last evaluation was opening" not in text
    assert "c0ffee1" in text and "111111111111" in text and "0.100" in text
    (run / "probes" / "ledger.jsonl").unlink()
    assert "the last evaluation was opening 1 of this label" in known.opened(study_of(run))


# ---------------------------------------------------------------------------------------------- ethics packet


def test_the_packet_needs_nothing_else_and_is_about_four_pages(ethics: str) -> None:
    plain = Plain(ethics)
    assert not any(tag in ("script", "link", "iframe", "img", "svg", "form") for tag, _ in plain.tags)
    assert all(a["href"].startswith("#") for t, a in plain.tags if t == "a") and "src=" not in ethics
    assert not re.search(r"https?://|@import|url\(", ethics)
    assert 900 < len(plain.out.split()) < 2200  # at 8.5 points and a third of it tables: three to four pages
    headings = re.findall(r"(?m)^(\d)\. ", plain.out[plain.out.index("1. The model", plain.out.index("9. Software")) :])
    assert headings == list("123456789")


def test_the_packet_says_who_what_when_and_with_which_software(private: Written, study: Study, ethics: str) -> None:
    text = Plain(ethics).out
    facts = json.loads((private.run / "run.json").read_text())
    limits = study.model.lock.familiar.limits  # type: ignore[union-attr]
    wanted = [
        private.result["model"]["sha256"], "keyed hash (HMAC-SHA-256)", "whole days, shifted by one secret amount a person", "dropped (day of birth)",
        "Ages above 89 are stored as 90", "readable by its owner alone", "quality, split, event", "trained on | 12 | 48 | 12",
        f"further than {limits['mahalanobis']:.3g} from", f"further than {limits['knn']:.3g} from", "95% of the windows of held-out training people",
        "opened once by any model, 1 of them by this one", f"torch | {facts['versions']['torch']} | {importlib.metadata.version('torch')} | Apache-2.0",
        "by site", "fewer than 5 each | - (not scored)", "calibrated by temperature", "site", "note",
    ]  # fmt: skip
    assert [w for w in wanted if w not in text] == []
    kept = {
        name: row.split(" | ")[2]
        for row in text.splitlines()
        if row.count(" | ") == 3
        for name in row.split(" | ")[0].split(", ")
    }
    assert kept["date_of_birth"] == "dropped (day of birth)" and kept["remark"] == "dropped, or empty from the start"
    assert kept["note"] == "keyed hash; equal texts stay equal" and kept["age"].startswith("numbers (dates as shifted days)")


def test_a_secret_that_others_can_read_is_told(private: Written, tmp_path: Path) -> None:
    from biossl.corpus import Corpus

    place = tmp_path / "copy"
    shutil.copytree(private.corpus.path, place)
    (place / "secret.key").chmod(0o644)
    assert "WITH MODE 644: make it 600" in " ".join(known.privacy(Corpus.open(place)))
    (place / "secret.key").unlink()
    assert "is not in this copy" in " ".join(known.privacy(Corpus.open(place)))


def test_intended_use_comes_from_the_models_card_where_it_is_written(private: Written, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(private.run, run, ignore=shutil.ignore_patterns("report.*", "checkpoints"))
    (run / "model" / "README.md").write_text(
        "# Model\n\n## Intended use\n\nWaist sensors of adults,\nread by physiotherapists.\n\n## Out-of-scope use\n\nChildren.\n\n## Else\n\nNo.\n"
    )
    study = study_of(run)
    text = packet(study)
    assert "Waist sensors of adults, read by physiotherapists." in text and "Children." in text and ">No." not in text
    assert text.count("TO BE FILLED BY THE AUTHORS: ") == 3
    assert "From the model's card: Waist sensors" in item(tripod.report(study), "3b") and "Children." in item(
        tripod.report(study), "27b"
    )


def test_a_run_that_was_not_judged_has_both_and_they_say_so(private: Written, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(private.run, run, ignore=shutil.ignore_patterns("report.*", "checkpoints", "evaluations"))
    study = study_of(run)
    text, page = tripod.report(study), packet(study)
    assert "development (not evaluated)" in item(text, "1") and "was not evaluated" in item(text, "23a")
    assert "Not evaluated: nothing is known" in page and "macro F1" not in page
    (found,) = flow.flows(study)
    assert [b.name for arm in found.arms for b in arm] == ["part train", "trained on", "part val", "chosen by", "part test"]


def test_ethics_of_what_is_no_fine_tuned_model_is_one_clear_line(private: Written, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "pre").mkdir()
    (tmp_path / "pre" / "run.json").write_text("{}")
    for run, what in (("pre", "no locked model here"), ("none", "no such folder")):
        assert cli.main(["report", str(tmp_path / run), "--ethics", str(tmp_path / "e.html")]) == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert len(err) == 1 and what in err[0] and "biossl finetune" in err[0]
    assert not (tmp_path / "e.html").exists()
    assert cli.main(["report", str(private.run), "--ethics", str(tmp_path / "e.html"), "--out", "x.html"]) == 2
    assert cli.main(["report", str(private.run), "--ethics", str(tmp_path / "e.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to_fill"] == 5
    assert cli.main(["report", str(private.run), "--ethics", str(tmp_path / "e.html")]) == 2
    assert "e.html: exists" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- private sets


def test_no_name_id_date_or_path_of_a_private_set_is_in_what_is_written(
    private: Written, study: Study, markdown: str, ethics: str
) -> None:
    written = {"report.md": markdown, "ethics": ethics, "flow": flow.section(study)}
    found = [(name, c) for name, text in written.items() for c in CANARIES if c in text]
    found += [(name, "path") for name, text in written.items() if str(private.run) in text or str(private.run.parent) in text]
    keys = {*private.corpus.index["subject"], *private.corpus.index["record"]}
    found += [(name, "key") for name, text in written.items() if any(key in text for key in keys)]
    assert found == []
    assert "Doe 2031" not in markdown + ethics and "example.org" not in markdown + ethics


def test_the_same_canaries_are_there_to_be_leaked(private: Written) -> None:
    """The paths and names that must not come out do stand in the files the reports are made from."""
    facts = (private.run / "run.json").read_text() + json.dumps(private.result)
    assert "ward_q7" in facts and str(private.run) in facts
    assert "zebrowski" in (private.corpus.path / "private_paths.csv").read_text()


def test_a_note_that_names_a_place_is_printed_without_it(private: Written, tmp_path: Path) -> None:
    place = private.corpus.path
    note = f"no simple models beside it: the corpus it was trained on cannot be read ({place}/spec.json: damaged), see ward_q7 and yes/no"
    run = tmp_path / "run"
    shutil.copytree(private.run, run, ignore=shutil.ignore_patterns("report.*", "checkpoints"))
    for file in (run / "evaluations").glob("*/results.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"notes": [note]}))
    study = study_of(run)
    for text in (tripod.report(study), packet(study)):
        assert "cannot be read (" in text and "yes/no" in text
        assert "ward_q7" not in text and str(place.parent) not in text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("corpora/a: damaged", "(a place on disk): damaged"),
        ("see ../b/c.edf, please", "see (a place on disk), please"),
        ("C:\\Users\\x\\y.edf is gone", "(a place on disk) is gone"),
        ("~/z and yes/no and 3/4", "(a place on disk) and yes/no and 3/4"),
        ("corpora/ab stays", "corpora/ab stays"),
    ],
)
def test_places_are_taken_out_of_text(text: str, expected: str) -> None:
    assert without_places(text, ["corpora/a"]) == expected


def test_small_groups_of_a_private_set_are_not_counted_out(study: Study, public: Written) -> None:
    table = {row[0]: row[1:] for row in people.characteristics(study)}
    assert table["subjects"] == ["12", "5", "4"]
    assert table["site"] == ["a: 6, b: 6", "2 groups of fewer than 5", "2 groups of fewer than 5"]
    assert table["age"] == [
        "median 45.5, middle half 42.75 to 48.25",
        "5 subjects, too few to tell",
        "4 subjects, too few to tell",
    ]
    (judged,) = study.judged
    assert people.group_table(judged, "site")[1:] == [["2 groups", "fewer than 5 each", "- (not scored)", "-"]]
    assert people.group_table(study_of(public.run).judged[0], "site")[1][:2] == ["a", "1"]
    open_table = {row[0]: row[1:] for row in people.characteristics(study_of(public.run))}
    assert open_table["site"][1] == "a: 3, b: 2" and open_table["age"][1].startswith("median 54")
