"""Damaged checkpoints, run files and shards, a full disk, bad numbers: one line each, and the last good state stays."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_toys import assert_same, forks, unfinished
from safetensors.torch import load_file, save_file
from training_toys import small_recipe

from biossl.checkpoint import load_encoder
from biossl.corpus import Corpus
from biossl.errors import DataError, MachineError
from biossl.training import pretrain, state


@pytest.mark.parametrize("cache", ["made here", "cannot be made"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_shard_that_cannot_be_read_is_told_before_a_run_folder_is_made(
    cache: str, damage: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corpus.path, tmp_path / "c", ignore=shutil.ignore_patterns("cache"))
    shard = sorted((tmp_path / "c").glob("shard-*.h5"))[-1]
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-100])
    if cache == "cannot be made":
        monkeypatch.setattr("biossl.corpus.index._Handles._make_map", lambda self: None)
    with pytest.raises(DataError, match=f"{shard.name}: .*make the corpus again"):
        pretrain(small_recipe(monitor__every=0), [(Corpus.open(tmp_path / "c"), 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "half"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: str, corpus: Corpus, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unfinished(whole, tmp_path / "run")
    newest, before = run / "checkpoints" / "step-00000006", run / "checkpoints" / "step-00000003"
    shutil.copytree(newest, before)  # whatever is in it: only which one is chosen matters here
    file = newest / "state" / "objective.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "missing":
        file.unlink()
    else:
        (newest / "SHA256SUMS").unlink()
    found = state.find_checkpoint(run / "checkpoints")
    assert found is not None and found[0] == before
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "step-00000006" in err and "the previous checkpoint is tried" in err
    (before / "state" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="no checkpoint is whole"):
        state.find_checkpoint(run / "checkpoints")


@pytest.mark.parametrize(
    "change", [{"step": "6"}, {"groups": None}, {"trainer": None}, {"format": 9}, {"alarms": {}}], ids=lambda c: next(iter(c))
)
def test_a_state_that_cannot_be_gone_on_with_counts_as_damaged(
    change: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sums agree: another version wrote it, or somebody mended them."""
    run = unfinished(whole, tmp_path / "run")
    newest, before = run / "checkpoints" / "step-00000006", run / "checkpoints" / "step-00000003"
    shutil.copytree(newest, before)
    file = newest / "state" / "state.json"
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    changed = {k: v for k, v in (json.loads(file.read_text()) | change).items() if v is not None}
    file.write_text(json.dumps(changed))
    sums = (newest / "SHA256SUMS").read_text()
    (newest / "SHA256SUMS").write_text(sums.replace(old, hashlib.sha256(file.read_bytes()).hexdigest()))
    found = state.find_checkpoint(run / "checkpoints")
    assert found is not None and found[0] == before
    assert "step-00000006" in capsys.readouterr().err


@pytest.mark.parametrize("text", [b"step-00000099\n", b"", b"\xff\xfe\x00"])
def test_latest_may_be_damaged(text: bytes, whole: Path, tmp_path: Path) -> None:
    run = unfinished(whole, tmp_path / "run")
    (run / "checkpoints" / "latest").write_bytes(text)
    found = state.find_checkpoint(run / "checkpoints")
    assert found is not None and found[0].name == "step-00000006"


@pytest.mark.parametrize("change", [{"plan": "x"}, {"numeric_path": {"device": "cpu"}}, {"numeric_path": None}, []])
def test_a_damaged_run_file_is_one_line(change: Any, corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    run = unfinished(whole, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | change if change else change))
    with pytest.raises(DataError, match=r"run\.json: damaged; give another --out or --overwrite"):
        pretrain(small_recipe(), [(corpus, 1.0)], run)


def test_a_checkpoint_with_other_tensors_is_one_line(corpus: Corpus, whole: Path, tmp_path: Path) -> None:
    """As another version of biossl would leave it; the sums agree."""
    run = unfinished(whole, tmp_path / "run")
    newest = run / "checkpoints" / "step-00000006"
    file = newest / "state" / "objective.safetensors"
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    tensors = load_file(file)
    tensors.pop("objective.encoder.norm.weight")
    save_file(tensors, file)
    sums = (newest / "SHA256SUMS").read_text()
    (newest / "SHA256SUMS").write_text(sums.replace(old, hashlib.sha256(file.read_bytes()).hexdigest()))
    with pytest.raises(
        DataError, match=r"tensor objective\.encoder\.norm\.weight \(16\) is missing; go on with the biossl version"
    ):
        pretrain(small_recipe(), [(corpus, 1.0)], run)


def test_room_for_a_checkpoint_is_asked_for_before_the_first_step(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**4))
    with pytest.raises(MachineError, match="are needed and 0 MB are free"):
        pretrain(small_recipe(monitor__every=0), [(corpus, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_numbers_keep_the_last_good_state(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from biossl.objectives.jepa import JEPA

    usual = JEPA.step

    def broken(self: JEPA, batch: Any, *, step: int, keys: Any) -> Any:
        outcome = usual(self, batch, step=step, keys=keys)
        outcome.loss = outcome.loss * (float("inf") if step == 4 else 1.0)
        return outcome

    monkeypatch.setattr(JEPA, "step", broken)
    with pytest.raises(DataError, match=r"step 4: loss is not finite.*the last good state is .*step-00000003"):
        pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    found = state.find_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None and found[1]["step"] == 3
    assert load_encoder(tmp_path / "run").dim == 16  # the last good encoder can be used


@forks
def test_a_disk_that_fills_inside_a_checkpoint_is_one_line_and_the_run_goes_on(
    corpus: Corpus, whole: Path, tmp_path: Path
) -> None:
    import resource

    answers = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        usual = state.RunCheckpointIO.save_checkpoint

        def full(self: state.RunCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            if checkpoint["global_step"] == 6:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            usual(self, checkpoint, path, storage_options)

        state.RunCheckpointIO.save_checkpoint = full  # type: ignore[method-assign]
        try:
            pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
        except MachineError as error:
            answers.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    text = answers.get()
    assert process.exitcode == 0 and "cannot be written" in text and "\n" not in text
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["latest", "step-00000003"]
    pretrain(small_recipe(), [(corpus, 1.0)], tmp_path / "run")
    assert_same(tmp_path / "run", whole)
