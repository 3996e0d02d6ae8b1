"""An augmentation that breaks what a label is read from is found before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_factory import make_corpus

from biossl.augment.depends import DEPENDENCES, breaking
from biossl.cli import main
from biossl.config import dump_yaml
from biossl.corpus import Corpus
from biossl.corpus.card import load_card
from biossl.corpus.card_check import check_card
from biossl.errors import RequestError
from biossl.recipe import Recipe, load_recipe
from biossl.recipe.check import check_pair

SMALL = {"data.batch_size": "8", "model.dim": "16", "model.depth": "2", "model.heads": "2", "objective.target_layers": "1"}
SMALL |= {"objective.predictor.dim": "8", "objective.predictor.depth": "1", "objective.predictor.heads": "2"}


def recipe(augment: str, **more: str) -> Recipe:
    return load_recipe("imu/jepa_small", SMALL | {"augment": augment} | {k.replace("__", "."): v for k, v in more.items()})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("c") / "imu"
    card = make_corpus(path, modality="imu", n_samples=128).card
    card.labels["group"].depends = ["posture", "rate"]
    (path / "card.yaml").write_text(dump_yaml(card), encoding="utf-8")
    return Corpus.open(path)


def test_each_breaking_part_is_one_line_with_what_and_remedy() -> None:
    parts = recipe("[{name: gain}, {name: rotation}, {name: tilt, max_deg: 60}, {name: time_warp}]").augment
    lines = breaking(parts, ["posture", "rate"])
    assert [line.split()[:4] for line in lines] == [
        ["augment.1", "rotation", "breaks", "posture"], ["augment.2", "tilt", "breaks", "posture"],
        ["augment.3", "time_warp", "breaks", "rate"],
    ]  # fmt: skip
    assert "(direction of gravity); remove it, or take tilt with max_deg up to 30" in lines[0]
    assert breaking(parts, []) == [] and breaking(parts, ["laterality"]) == []


def test_settings_decide_what_is_broken() -> None:
    mild = "[{name: tilt, max_deg: 20}, {name: time_warp, sd: 0.05}, {name: rotation, p: 0.0}]"
    assert breaking(recipe(mild).augment, ["posture", "rate"]) == []


def test_a_pair_is_refused_for_the_probe_and_for_the_label_asked_about(corpus: Corpus) -> None:
    rotation = "[{name: rotation}]"
    assert check_pair(recipe(rotation), corpus) == []
    (finding,) = check_pair(recipe(rotation, monitor__probe__label="group"), corpus)
    assert finding.kind == "request"
    assert finding.text.startswith("imu label 'group': augment.0 rotation breaks posture") and "\n" not in finding.text
    assert check_pair(recipe(rotation), corpus, label="group") == [finding]
    assert check_pair(recipe("[{name: tilt}]"), corpus, label="group") == []
    assert check_pair(recipe(rotation), corpus, label="state") == []  # says nothing of what it depends on


def test_the_command_refuses_it_in_one_line(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(dump_yaml(recipe("[{name: rotation}]").to_dict()), encoding="utf-8")
    assert main(["check", str(file), str(corpus.path), "--label", "group"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "rotation breaks posture" in error[0]
    assert main(["check", str(file), str(corpus.path)]) == 0


def test_a_card_can_only_name_what_there_is_a_word_for() -> None:
    card = load_card("hapt")
    card.labels["activity"].depends = ["postur"]
    with pytest.raises(RequestError, match="'labels.activity.depends' cannot hold 'postur'; did you mean 'posture'"):
        check_card(card, where="card.yaml")
    card.labels["activity"].depends = list(DEPENDENCES)
    check_card(card, where="card.yaml")
