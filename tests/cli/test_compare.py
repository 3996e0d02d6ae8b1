"""The verb compare: one command gives table, CSV, figures and page; a wrong request is one line."""

import json

import pytest
from compare_toys import two_recipes
from corpus_factory import make_corpus

from biossl import minirocket
from biossl.cli import main
from biossl.compare import scratch
from biossl.config import dump_yaml


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verb")
    make_corpus(folder / "corpus", modality="imu", n_subjects=4, windows_per_subject=4, n_samples=128, splits={})
    for recipe in two_recipes():
        (folder / f"{recipe.name}.yaml").write_text(dump_yaml(recipe.to_dict()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "LEAST_STEPS", 2)
        patch.setattr(scratch, "EPOCHS", 1)
        patch.setattr(minirocket, "N_FEATURES", 84)
        yield folder


def test_one_command_gives_table_figures_and_page(place, capsys):
    words = ["compare", f"{place}/first.yaml", f"{place}/second.yaml", f"{place}/corpus", "--label", "group", "--folds", "2"]
    words += ["--steps", "2", "--fractions", "1", "--n-subjects", "1", "--draws", "2", "--out", f"{place}/out", "--pool", "mean"]
    assert main([*words, "--json"]) == 0
    done = capsys.readouterr()
    result = json.loads(done.out)
    assert [r["name"] for r in result["recipes"]] == ["first", "second"] and "first" in done.err and "RankMe" in done.err
    assert {p.name for p in (place / "out").glob("compare.*")} == {f"compare.{s}" for s in ("json", "csv", "svg", "png", "html")}
    assert (place / "out" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    page = (place / "out" / "compare.html").read_text()
    assert "from scratch" in page and "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert main(words) == 0 and "first" in capsys.readouterr().out  # again: read, not computed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["{0}/first.yaml"], "and, last, the corpus folder"),
        (["{0}/first.yaml", "{0}/first.yaml", "{0}/corpus"], "two recipes are named 'first'"),
        (["{0}/first.yaml", "{0}/second.yaml", "{0}/corpus"], "no split; give --folds"),
        (["{0}/first.yaml", "{0}/nothing"], "no such folder"),
        (["{0}/first.yaml", "{0}/second.yaml"], "second.yaml: a recipe, and the last name is the corpus folder; add it"),
        (["ecg/jepa_small", "{0}/corpus"], "ecg/jepa_small: for ecg, the signals of {0}/corpus are imu; take recipes of imu/"),
    ],
)
def test_a_wrong_request_is_one_line(place, capsys, words, text):
    words = [w.format(place) for w in words]
    assert main(["compare", *words, "--label", "group", "--out", f"{place}/other"]) in (2, 4)
    err = capsys.readouterr().err.strip()
    assert text.format(place) in err and len(err.splitlines()) == 1 and not (place / "other").exists()
