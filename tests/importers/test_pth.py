"""A ``.pth`` gives up its tensors in a child process and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from biossl.errors import DataError, RequestError
from biossl.importers.pth import read_pth


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_nested_tensors_come_back_with_dotted_names(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save({"encoder": {"a.weight": shared.view(2, 3).T, "b": shared}, "epoch": 7}, tmp_path / "x.pth")
    tensors, plain = read_pth(tmp_path / "x.pth")
    assert plain == {"epoch": 7} and set(tensors) == {"encoder.a.weight", "encoder.b"}
    assert torch.equal(tensors["encoder.a.weight"], shared.view(2, 3).T)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"encoder": Evil(mark)}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="objects other than tensors"):
        read_pth(tmp_path / "evil.pth")
    assert not mark.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the mark is a fair test: a careless reader leaves it
    assert mark.exists()


def test_a_module_in_the_working_directory_does_not_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    (tmp_path / "json.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    assert set(read_pth("x.pth")[0]) == {"a"}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2]), b"PK\x03\x04broken"])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DataError, match="x.pth.*download") as caught:
        read_pth(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such checkpoint"):
        read_pth(tmp_path / "x.pth")
    with pytest.raises(RequestError, match="a folder"):
        read_pth(tmp_path)
