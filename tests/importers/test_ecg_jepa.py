"""Published ECG-JEPA weights give the published representation.

The golden numbers are one run of the original with weights made by a closed formula (``golden_ecg_jepa.py``).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import biossl
from biossl.cli import main
from biossl.importers import ecg_jepa
from biossl.models.positions import sincos_2d

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden_ecg_jepa.json").read_text())


def _formulas() -> Any:
    spec = importlib.util.spec_from_file_location("golden_ecg_jepa", HERE / "golden_ecg_jepa.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


formulas = _formulas()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[biossl.TransformerEncoder]:
    """Through the whole path: .pth, ``biossl import``, encoder folder, ``load_encoder``."""
    folder = tmp_path_factory.mktemp("published")
    state = {**formulas.weights(), "pos_embed": sincos_2d(8, 50, 768)}
    torch.save({"encoder": state, "epoch": 100}, folder / "weights.pth")
    assert main(["import", "ecg-jepa", str(folder / "weights.pth"), str(folder / "encoder")]) == 0
    yield biossl.load_encoder(folder / "encoder")
    for file in folder.rglob("*.*"):  # over a gigabyte otherwise waits for the end of the session
        if file.suffix in (".pth", ".safetensors"):
            file.unlink()


def distance(found: Tensor, expected: list[list[float]]) -> float:
    """Largest relative norm of the difference."""
    golden = torch.tensor(expected, dtype=torch.float64)
    return float(((found.double() - golden).norm(dim=1) / golden.norm(dim=1)).max())


def test_embedding_equals_the_original(encoder: biossl.TransformerEncoder) -> None:
    out = encoder.embed(formulas.window(2))
    assert out.shape == (2, 768) and out.dtype == torch.float32
    assert distance(out, GOLDEN["embedding"]) < 1e-4


def test_two_leads_equal_the_original_restricted_to_them(encoder: biossl.TransformerEncoder) -> None:
    x = formulas.window(2)[:, [2, 1]]  # in another order than the encoder's, named
    out = encoder.embed(biossl.Batch(x, ("V1", "II"), 250.0))
    assert distance(out[:, ::16], GOLDEN["leads_II_V1"]) < 1e-4


def _swap_halves(encoder: Any) -> None:
    encoder.position = encoder.position.roll(384, dims=1)


def _time_major_table(encoder: Any) -> None:
    encoder.position = encoder.position.view(8, 50, 768).transpose(0, 1).reshape(400, 768).contiguous()


def _position_once(encoder: Any) -> None:
    encoder.config = replace(encoder.config, position="once")


def _full_attention(encoder: Any) -> None:
    encoder.config = replace(encoder.config, attention="full")


def _time_major_tokens(encoder: Any) -> None:
    forward = encoder.tokenizer.forward
    encoder.tokenizer.forward = lambda x: forward(x).view(len(x), 8, 50, 768).transpose(1, 2).reshape(len(x), 400, 768)


def _heads_before_qkv(encoder: Any) -> None:
    for block in encoder.blocks:
        weight = block.attn.qkv.weight.data
        weight.copy_(weight.view(16, 3, 48, 768).transpose(0, 1).reshape(2304, 768).clone())


@pytest.mark.parametrize(
    "mutate", [_swap_halves, _time_major_table, _time_major_tokens, _position_once, _full_attention, _heads_before_qkv]
)
def test_a_wrong_reading_of_the_weights_would_be_seen(
    encoder: biossl.TransformerEncoder, mutate: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    qkv = [block.attn.qkv.weight.data.clone() for block in encoder.blocks] if mutate is _heads_before_qkv else []
    position, config, forward = encoder.position, encoder.config, encoder.tokenizer.forward
    try:
        mutate(encoder)
        assert distance(encoder.embed(formulas.window(1)), GOLDEN["embedding"][:1]) > 1e-2
    finally:
        encoder.position, encoder.config = position, config
        encoder.tokenizer.forward = forward  # type: ignore[method-assign]
        for block, weight in zip(encoder.blocks, qkv, strict=False):
            block.attn.qkv.weight.data.copy_(weight)


def test_position_table_is_the_original(encoder: biossl.TransformerEncoder) -> None:
    for row, values in GOLDEN["position_rows"].items():
        assert encoder.position[int(row), ::48].tolist() == pytest.approx(values, abs=1e-6)


def test_the_folder_says_where_the_weights_come_from(encoder: biossl.TransformerEncoder) -> None:
    assert encoder.spec.ch_names == ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    assert "2410.08559" in encoder.info["provenance"] and "epoch 100" in encoder.info["provenance"]
    assert "c:code15:published" in encoder.info["seen"]["subjects"]  # so a probe on CODE-15 counts all as seen
    assert GOLDEN["trainable_parameters_with_predictor"] == 96_299_520  # see test_predictors


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Checkpoints without the cost of their numbers: what the child process would hand over."""

    def hand_over(**changes: Tensor | None) -> None:
        tensors = {f"encoder.{k}": torch.empty(s) for k, s in formulas.shapes().items()}
        tensors["encoder.pos_embed"] = sincos_2d(8, 50, 768)
        for key, value in changes.items():
            if value is None:
                del tensors[key]
            else:
                tensors[key] = value
        monkeypatch.setattr("biossl.importers.pth.read_pth", lambda path: (tensors, {}))

    return hand_over


NORM = "encoder.norm.weight"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({NORM: None}, f"tensor {NORM} \\(768\\) is missing"),
        ({"encoder.pos_embed": None}, "tensor encoder.pos_embed \\(400, 768\\) is missing"),
        ({NORM: torch.ones(384)}, f"tensor {NORM} has shape \\(384\\), expected \\(768\\)"),
        ({"predictor.mask_token": torch.ones(1)}, "tensor predictor.mask_token \\(1\\) is not expected"),
        ({"encoder.pos_embed": sincos_2d(50, 8, 768)}, "tensor encoder.pos_embed differs from the published sine-cosine table"),
    ],
)
def test_another_layout_is_one_line_naming_the_tensor(
    tmp_path: Path, reader: Callable[..., None], changes: dict[str, Tensor | None], words: str
) -> None:
    reader(**changes)
    with pytest.raises(biossl.DataError, match=f"x.pth: {words}.*give the published"):
        ecg_jepa.import_ecg_jepa(tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert main(["import", "ecg-jepa", str(tmp_path / "x.pth"), str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["import", "ecg-jepa", str(tmp_path / "x.pth"), str(tmp_path / "new")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
