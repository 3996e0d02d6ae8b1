"""The report is one page that needs nothing else, shows what the run's files say, and names no subject."""

import json
import re
from html.parser import HTMLParser

import pytest
from probe_factory import make_run

from biossl.corpus import make_split
from biossl.errors import DataError, RequestError
from biossl.probe import probe
from biossl.report import sections, write_report


class Tags(HTMLParser):
    """Collects tags, and complains about what is not closed in order."""

    VOID = {"meta", "br", "img", "link", "path", "use"}

    def __init__(self, text):
        super().__init__()
        self.seen, self.stack, self.ids, self.links = [], [], [], []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.seen.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, corpus = make_run(tmp_path_factory.mktemp("report"))
    probe(folder, corpus, "group", pool="mean+std", layers=[0])
    probe(folder, corpus, "findings", baselines=False)
    return folder, corpus


@pytest.fixture(scope="module")
def page(run):
    result = write_report(run[0])
    assert result["probes"] == 2 and result["notes"] == []
    return (run[0] / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_no_network_or_script(page):
    tags = Tags(page)
    assert not any(tag in ("script", "link", "iframe", "img") for tag, _ in tags.seen)
    assert not re.search(r'(?:src|href)="(?!#|data:)', page.replace('xlink:href="#', 'href="#').replace('xlink:href="data:', ""))
    assert "@import" not in page and "url(http" not in page
    assert len(page) < 3_000_000


def test_ids_are_unique_and_links_lead_somewhere(page):
    tags = Tags(page)
    anchors = [a["href"][1:] for t, a in tags.seen if t == "a"]
    assert anchors and set(anchors) <= set(tags.ids)
    sections = [a["id"] for t, a in tags.seen if t == "section"]
    assert len(set(sections)) == len(sections) == 7


def test_every_figure_has_a_text_for_those_who_do_not_see_it(page):
    figures = [a for t, a in Tags(page).seen if t == "svg"]
    assert len(figures) >= 6
    assert all(a.get("role") == "img" and len(a["aria-label"]) > 30 and "viewbox" in a and "width" not in a for a in figures)


def test_cohort_flow_and_split_counts_are_those_of_the_corpus(run, page):
    _, corpus = run
    flow = page[page.index('class="flow"') :]
    assert f"<b>{corpus.funnel['files_found']}</b>recordings found" in flow
    assert f"<b>{len(corpus)}</b>windows of 4 s" in flow and "<b>18</b>subjects" in flow
    assert re.search(r"<td>train</td><td[^>]*>12</td><td[^>]*>12</td><td[^>]*>48</td>", page)


def test_probe_numbers_are_those_of_the_result_files(run, page):
    result = json.loads((run[0] / "probes" / "corpus-group-thirds-mean+std.json").read_text())
    for entry in result["models"]:
        assert f"{entry['scores']['macro_f1']['value']:.3f}" in page
    for d in result["paired"]:
        assert f"{d['value']:+.3f}" in page
    assert (
        "Cross-validation grouped by subject over all 18 subjects; 12 of them were seen" in page
        and "Openings of test parts" in page
    )
    assert "AUROC and AUPRC are of class fast" in page


def test_the_split_that_pretraining_used_stands_out_and_others_are_folded_away(run, tmp_path):
    _, corpus = run
    make_split(corpus, "later", folds=3)
    write_report(run[0], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "Split thirds: pretraining used its part train" in text and "(part train of split thirds)" in text
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "Other splits: later" in folded and "Split later" in folded and "thirds" not in folded
    (corpus.path / "splits" / "later.parquet").unlink()


def changed(run, folder, **facts):
    """A copy of the run with other facts; its page."""
    import shutil

    shutil.copytree(run[0], folder, ignore=shutil.ignore_patterns("report.html", "probes"))
    old = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(old | facts))
    write_report(folder)
    return (folder / "report.html").read_text()


def test_when_a_run_stops_by_itself_is_what_its_recipe_says(run, tmp_path):
    monitor = {"stop_after": 500, "stop_target_variance": 0.01, "stop_prediction_variance": 1e-4}
    plan = json.loads((run[0] / "run.json").read_text())["plan"]

    def page(name, steps, **keys):
        recipe = {"name": "toy", "monitor": monitor | keys, "train": {"steps": steps}}
        return changed(run, tmp_path / name, plan=plan | {"recipe": recipe})

    rule = "From step 500 on the run stops by itself at target variance below 0.01 or prediction variance below 0.0001"
    assert f"{rule}." in page("long", 1000)
    assert f"{rule}; with its 200 steps this run was too short for that." in page("short", 200)
    assert "switched off" in page("off", 1000, stop_target_variance=0, stop_prediction_variance=0)


def test_a_low_spread_at_the_end_is_told_with_what_would_be_an_alarm(run, tmp_path):
    numbers = {"loss": 0.1, "start_std": 0.185, "std": 0.039, "variance": 0.0}
    text = changed(run, tmp_path / "low", numbers=numbers)
    assert "Look closer" in text and "an alarm would be std below 0.018 or centred RankMe below 2" in text
    assert "variance hinge (0 = no feature is too flat; no sign of collapse)" in text and "before the first step" in text
    assert "Look closer" not in changed(run, tmp_path / "good", numbers=numbers | {"std": 0.15})


def test_two_probes_of_one_label_are_told_apart_and_the_one_that_saw_is_marked(run):
    probes = [json.loads(f.read_text()) for f in sorted((run[0] / "probes").glob("*group*.json"))] * 2
    first, second = probes[0], json.loads(json.dumps(probes[1])) | {"split": "cv:1"}
    second["seen"] = {"subjects": 4, "of": 6}
    lines = sections.lead({"finished": True}, [first, second]).split("</p>")
    assert "group (split thirds):" in lines[1] and "optimistic" not in lines[1]
    assert "group (split cv fold 1):" in lines[2] and "optimistic: 4 of the 6 judged subjects" in lines[2]


def test_the_map_is_of_the_split_that_pretraining_used(run, tmp_path):
    _, corpus = run
    make_split(corpus, "later", folds=3)
    text = changed(run, tmp_path / "run")
    assert "part test of split thirds" in text
    (corpus.path / "splits" / "later.parquet").unlink()


def test_no_subject_or_record_name_and_no_path_reaches_the_page(run, page):
    _, corpus = run
    for name in {*corpus.index["subject"], *corpus.index["record"]}:
        assert not re.search(rf"\b{name}\b", page)
    assert str(corpus.path) not in page and str(run[0]) not in page


def test_names_from_files_are_escaped(run, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run[0], folder, ignore=shutil.ignore_patterns("report.html"))
    (folder / "recipe.yaml").write_text("name: <script>alert(1)</script>\n")
    write_report(folder)
    text = (folder / "report.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_an_existing_page_is_kept_and_equal_input_gives_equal_text(run, page):
    with pytest.raises(RequestError, match="report.html: exists"):
        write_report(run[0])
    write_report(run[0], overwrite=True)
    assert (run[0] / "report.html").read_text(encoding="utf-8") == page


def test_probes_of_other_weights_and_lost_corpora_are_named(run, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run[0], folder, ignore=shutil.ignore_patterns("report.html"))
    file = folder / "probes" / "corpus-findings-thirds.json"
    stored = json.loads(file.read_text())
    stored["encoder"]["hash"] = "0" * 64
    file.write_text(json.dumps(stored))
    for name in folder.joinpath("probes").glob("*group*"):
        name.unlink()
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"corpora_at": ["nowhere"]}))
    notes = write_report(folder)["notes"]
    assert any("judged other weights" in n for n in notes) and any("its cohort flow and map are left out" in n for n in notes)
    text = (folder / "report.html").read_text()
    assert "No probe was run" in text and "not at hand" in text


def test_an_unfinished_run_without_log_or_encoder_still_has_a_page(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"finished": False, "plan": {"recipe": {"name": "x"}, "corpora": []}}))
    result = write_report(tmp_path)
    assert "NOT finished" in (tmp_path / "report.html").read_text() and result["probes"] == 0


def test_faults_are_one_line(run, tmp_path):
    with pytest.raises(RequestError, match="no such folder"):
        write_report(tmp_path / "none")
    with pytest.raises(RequestError, match="not a run"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match="run.json: damaged"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="no label 'grup'; did you mean 'group'"):
        write_report(run[0], tmp_path / "x.html", label="grup")
    assert not (tmp_path / "x.html").exists()
