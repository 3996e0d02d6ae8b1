"""A run is gone on with from before its anneal, and says what it forgot."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from corpus_factory import make_corpus
from safetensors.torch import load_file
from training_toys import small_recipe

from biossl.checkpoint import load_encoder
from biossl.cli import main
from biossl.config import dump_yaml
from biossl.corpus import Corpus
from biossl.corpus.splits import make_split
from biossl.errors import BiosslError, DataError, RequestError
from biossl.forgetting import as_line, forgetting
from biossl.recipe import Recipe, recipe_from_dict
from biossl.schedules import ConstantCooldown, Infinite, WarmupCosine
from biossl.training import pretrain
from biossl.training.continuing import find_past
from biossl.training.data import RawBatch
from biossl.training.loop import Loop

INFINITE = {"name": "infinite", "warmup_steps": 2, "cooldown_steps": 2, "constant_lr": 4e-4, "anneal_steps": 4}


def endless(steps: int = 12, **overrides: object) -> Recipe:
    plain = small_recipe(train__steps=steps, checkpoint__every=3, checkpoint__keep=1, **overrides).to_dict()
    plain["train"]["schedule"] = dict(INFINITE)
    return recipe_from_dict(plain, where="endless")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = make_corpus(tmp_path_factory.mktemp("old") / "old", modality="imu", n_samples=120, n_subjects=12)
    make_split(corpus, "even", stratify="group", fractions=(0.5, 0.5, 0.0))
    make_split(corpus, "held", stratify="group", fractions=(0.5, 0.0, 0.5))
    return Corpus.open(corpus.path)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("new") / "new", modality="imu", n_samples=120, seed=7, name="another_site")


@pytest.fixture(scope="module")
def run(old: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    pretrain(endless(), [(old, 1.0)], out)
    return out


def rates(run: Path) -> list[float]:
    with open(run / "log.csv", encoding="utf-8") as handle:
        return [float(row["lr"]) for row in csv.DictReader(handle) if row["lr"]]


def test_the_checkpoint_before_the_anneal_stays(run: Path) -> None:
    kept = sorted(p.name for p in (run / "checkpoints").glob("step-*"))
    assert kept == ["step-00000008", "step-00000012"]  # keep: 1, and the one to go on from
    assert find_past(run, endless()).checkpoint.name == "step-00000008"


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        (Infinite(2, 2, 4e-4, anneal_steps=5), 95),
        (Infinite(2, 2, 4e-4), 100),
        (ConstantCooldown(10, 20), 80),
        (WarmupCosine(10), None),
    ],
)
def test_a_schedule_says_where_its_constant_phase_ends(schedule: object, step: int | None) -> None:
    assert schedule.released_from(100) == step  # type: ignore[attr-defined]


def test_it_begins_with_weights_and_moments_and_without_a_warm_up(
    run: Path, new: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = find_past(run, endless()).checkpoint
    weights = load_file(checkpoint / "state" / "objective.safetensors")
    moments = load_file(checkpoint / "state" / "optimizer.safetensors")
    begun: dict[str, dict[str, torch.Tensor]] = {}
    real = Loop.training_step

    def first_step(self: Loop, raw: RawBatch, batch_idx: int) -> torch.Tensor:
        if not begun:
            begun["weights"] = {k: v.clone() for k, v in self.state_dict().items()}
            state = self.optimizers(use_pl_optimizer=False).state_dict()["state"]  # type: ignore[union-attr]
            begun["moments"] = {f"0/{i}/{k}": v.clone() for i, each in state.items() for k, v in each.items()}
        return real(self, raw, batch_idx)

    monkeypatch.setattr(Loop, "training_step", first_step)
    plain = endless(monitor__log_every=1, seed=5).to_dict()  # another seed: fresh weights would be others
    plain["train"]["optimizer"]["lr"] = 1.0  # the peak of a second warm-up would be seen
    pretrain(recipe_from_dict(plain, where="x"), [(new, 1.0)], tmp_path / "second", continue_from=run)
    assert rates(tmp_path / "second")[:8] == pytest.approx([4e-4] * 8)
    for there, here in ((weights, begun["weights"]), (moments, begun["moments"])):
        assert there.keys() == here.keys()
        assert all(torch.equal(there[k], here[k]) for k in there)


def test_the_subjects_of_both_runs_are_remembered(run: Path, new: Corpus, tmp_path: Path) -> None:
    done = pretrain(endless(), [(new, 1.0)], tmp_path / "second", continue_from=run)
    before = set(load_encoder(run / "encoder").info["seen"]["subjects"])
    both = set(load_encoder(done["encoder"]).info["seen"]["subjects"])
    assert before < both
    assert json.loads((tmp_path / "second" / "run.json").read_text())["plan"]["init"] == find_past(run, endless()).hash


def test_a_continued_run_that_is_killed_goes_on_to_the_same_bits(
    run: Path, new: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(endless(), [(new, 1.0)], tmp_path / "whole", continue_from=run)
    from biossl.objectives.jepa import JEPA

    step = JEPA.step

    def killed(self: JEPA, batch: object, *, step: int, keys: object, real: object = step) -> object:
        if step == 7:
            raise KeyError("killed")
        return real(self, batch, step=step, keys=keys)  # type: ignore[operator]

    monkeypatch.setattr(JEPA, "step", killed)
    with pytest.raises(KeyError):
        pretrain(endless(), [(new, 1.0)], tmp_path / "cut", continue_from=run)
    monkeypatch.setattr(JEPA, "step", step)
    cut = pretrain(endless(), [(new, 1.0)], tmp_path / "cut", continue_from=run)
    assert cut["resumed_from"] == 6
    for name, value in load_encoder(whole["encoder"]).state_dict().items():
        assert torch.equal(value, load_encoder(cut["encoder"]).state_dict()[name]), name


def test_what_cannot_be_gone_on_from_is_one_line(run: Path, old: Corpus, new: Corpus, tmp_path: Path) -> None:
    def refused(recipe: Recipe, source: Path, text: str, kind: type[BiosslError] = RequestError, **kw: object) -> None:
        with pytest.raises(kind, match=text) as caught:
            pretrain(recipe, [(new, 1.0)], tmp_path / "no", continue_from=source, **kw)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value) and not (tmp_path / "no").exists()

    refused(endless(), tmp_path / "nowhere", "no run of")
    refused(endless(), run, "give one of them", init=run)
    refused(small_recipe(), run, "both must be infinite")
    refused(endless(model__depth=1), run, "section 'model'")
    gone = tmp_path / "gone"
    shutil.copytree(run, gone)
    shutil.rmtree(gone / "checkpoints" / "step-00000008")
    refused(endless(), gone, "is gone", DataError)
    facts = json.loads((gone / "run.json").read_text())
    (gone / "run.json").write_text(json.dumps(facts | {"finished": False}))
    refused(endless(), gone, "not finished")


def test_the_same_encoder_forgets_nothing_and_random_weights_do(run: Path, old: Corpus, tmp_path: Path) -> None:
    same = forgetting(run, run, old, "group", split="even")
    assert (same["change"]["value"], same["change"]["low"], same["change"]["high"]) == (0.0, 0.0, 0.0)
    assert same["part"] == "val" and "ledger" not in same and same["before"] == same["after"]
    broken = tmp_path / "broken"
    shutil.copytree(run / "encoder", broken)
    from biossl.checkpoint import save_encoder

    encoder = load_encoder(broken)
    with torch.no_grad():
        for p in encoder.parameters():
            p.zero_()
    save_encoder(encoder, broken, recipe={}, seen={"subjects": set(), "corpora": []}, numbers={}, overwrite=True)
    lost = forgetting(run, broken, old, "group", split="even")
    assert lost["after"]["value"] < lost["before"]["value"] and lost["change"]["value"] < 0
    assert "change -" in as_line(lost)
    assert "ledger" in forgetting(run, run, old, "group", split="held")  # no part val: the test part was opened


def test_the_verb_reports_what_was_forgotten(
    run: Path, old: Corpus, new: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "endless.yaml"
    recipe.write_text(dump_yaml(endless().to_dict()), encoding="utf-8")
    command = ["pretrain", str(recipe), str(new.path), "--continue", str(run), "--out", str(tmp_path / "second"), "--json"]
    assert main([*command, "--old", str(old.path)]) == 2 and "go together" in capsys.readouterr().err
    task = ["--old", str(old.path), "--label", "group"]
    assert main([*command, *task]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)["forgetting"]
    file = tmp_path / "second" / "forgetting.json"
    assert told == json.loads(file.read_text())
    assert told["label"] == "group" and "old task group" in out.err
    file.unlink()  # killed after the training and before the judging: only that is done
    weights = (tmp_path / "second" / "encoder" / "weights.safetensors").stat().st_mtime_ns
    assert main([*command, *task]) == 0 and json.loads(capsys.readouterr().out)["forgetting"] == told
    assert (tmp_path / "second" / "encoder" / "weights.safetensors").stat().st_mtime_ns == weights
    assert main([*command, *task]) == 2 and "a finished run" in capsys.readouterr().err


def test_an_old_task_that_cannot_be_judged_is_told_before_the_training(
    run: Path, new: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "endless.yaml"
    recipe.write_text(dump_yaml(endless().to_dict()), encoding="utf-8")
    bare = make_corpus(tmp_path / "bare", modality="imu", n_samples=120, splits={})
    short = make_corpus(tmp_path / "short", modality="imu", n_samples=40, n_subjects=12)
    command = [
        "pretrain",
        str(recipe),
        str(new.path),
        "--continue",
        str(run),
        "--out",
        str(tmp_path / "second"),
        "--label",
        "group",
    ]
    for corpus, text in ((bare, "held-out subjects"), (short, "encoder")):
        assert main([*command, "--old", str(corpus.path)]) == 4
        assert text in capsys.readouterr().err and not (tmp_path / "second").exists()
