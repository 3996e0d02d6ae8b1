"""The encoder folder: what is saved comes back exactly, and nothing damaged, foreign or unsuitable gets in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biossl.checkpoint import FILES, compare_tensors, find_encoder, load_encoder, require_match, save_encoder, sha256
from biossl.config import dump_yaml, load_yaml
from biossl.errors import BiosslError, DataError, RequestError
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.signal import FilterSpec, InputSpec

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3, FilterSpec(highpass_hz=0.5))
CONFIG = EncoderConfig(dim=16, depth=2, heads=2, registers=1, normalise="fixed", scale={"ecg": 0.5})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformerEncoder, Path]:
    torch.manual_seed(0)
    encoder = TransformerEncoder(SPEC, CONFIG)
    folder = tmp_path_factory.mktemp("encoder") / "small"
    save_encoder(
        encoder,
        folder,
        recipe={"name": "ecg/test", "seed": 3},
        seen={"corpora": [{"name": "ptbxl", "hash": "ab12", "split": "official/train"}], "subjects": {"s:k2", "c:my card:"}},
        numbers={"macro AUROC": 0.81},
        provenance="Made by a test.",
    )
    return encoder, folder


@pytest.fixture
def folder(saved: tuple[TransformerEncoder, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[1], tmp_path / "small"))


def test_four_files_bring_back_the_same_features_and_facts(saved: tuple[TransformerEncoder, Path]) -> None:
    encoder, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    loaded = load_encoder(folder)
    x = torch.randn(4, 3, 100)
    assert torch.equal(loaded.embed(x, "mean+std+max"), encoder.embed(x, "mean+std+max"))
    assert loaded.spec == SPEC and loaded.config == CONFIG and not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    assert loaded.info["seen"]["subjects"] == ["c:my card:", "s:k2"] and loaded.info["seen"]["corpora"][0]["hash"] == "ab12"
    assert loaded.info["numbers"] == {"macro AUROC": 0.81} and loaded.info["recipe"] == {"name": "ecg/test", "seed": 3}
    assert loaded.info["hash"] == sha256(folder / "weights.safetensors")


def test_model_card_names_data_numbers_and_limits(saved: tuple[TransformerEncoder, Path]) -> None:
    text = (saved[1] / "README.md").read_text(encoding="utf-8")
    for word in (
        "Made by a test.",
        "ptbxl",
        "ab12",
        "| macro AUROC | 0.81 |",
        "I II V1",
        "50 Hz",
        "highpass_hz 0.5",
        "Not validated",
    ):
        assert word in text


def test_saving_twice_gives_the_same_bytes_and_draws_no_random_numbers(
    saved: tuple[TransformerEncoder, Path], tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    again = save_encoder(saved[0], tmp_path / "small", recipe={"name": "ecg/test", "seed": 3})
    assert (again / "weights.safetensors").read_bytes() == (saved[1] / "weights.safetensors").read_bytes()
    load_encoder(again)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_is_stored_as_float32(saved: tuple[TransformerEncoder, Path], tmp_path: Path) -> None:
    encoder = TransformerEncoder(SPEC, CONFIG).bfloat16()
    folder = save_encoder(encoder, tmp_path / "e")
    assert all(t.dtype == torch.float32 for t in load_file(folder / "weights.safetensors").values())
    load_encoder(folder)


def test_an_existing_folder_is_kept_unless_asked(saved: tuple[TransformerEncoder, Path], folder: Path) -> None:
    with pytest.raises(RequestError, match="exists.*--overwrite"):
        save_encoder(saved[0], folder)
    save_encoder(saved[0], folder, overwrite=True, provenance="second")
    assert load_encoder(folder).info["provenance"] == "second"
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


def test_nan_is_not_saved(tmp_path: Path) -> None:
    encoder = TransformerEncoder(SPEC, CONFIG)
    encoder.blocks[1].mlp.fc1.bias.data[3] = float("nan")  # type: ignore[union-attr,index]
    with pytest.raises(DataError, match="blocks.1.mlp.fc1.bias"):
        save_encoder(encoder, tmp_path / "e")
    assert not any(tmp_path.iterdir())


def test_a_run_folder_stands_for_its_latest_encoder(folder: Path, tmp_path: Path) -> None:
    step = tmp_path / "run" / "checkpoints" / "step-00000010"
    shutil.copytree(folder, step / "encoder")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("step-00000010\n")
    assert find_encoder(tmp_path / "run") == find_encoder(step) == step / "encoder"


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], *, honest: bool = True) -> None:
    """Change the weights; ``honest`` also mends the SHA-256, as somebody who exports by hand would."""
    file = folder / "weights.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    if honest:
        about = load_yaml(folder / "encoder.yaml")
        about["weights"]["sha256"] = sha256(file)
        (folder / "encoder.yaml").write_text(dump_yaml(about))


def flip_a_byte(folder: Path) -> None:
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-10] ^= 0x10
    file.write_bytes(data)


def truncate(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def edit_yaml(folder: Path, old: str, new: str) -> None:
    file = folder / "encoder.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


QKV = "blocks.0.attn.qkv.weight"


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda f: edit_tensors(f, lambda t: t.pop(QKV)), DataError, f"tensor {QKV} \\(48, 16\\) is missing; copy"),
        (lambda f: edit_tensors(f, lambda t: t.update(head=torch.zeros(2))), DataError, "tensor head \\(2\\) is not expected"),
        (
            lambda f: edit_tensors(f, lambda t: t.update({QKV: t[QKV][:47]})),
            DataError,
            "shape \\(47, 16\\), expected \\(48, 16\\)",
        ),
        (lambda f: edit_tensors(f, lambda t: (t.pop(QKV), t.pop("norm.bias"))), DataError, "and 1 more; 2. tensors expected"),
        (lambda f: edit_tensors(f, lambda t: t[QKV].neg_(), honest=False), DataError, "SHA-256"),
        (lambda f: edit_tensors(f, lambda t: t[QKV].mul_(30)), DataError, "fingerprint"),
        (flip_a_byte, DataError, "weights.safetensors: the bytes differ"),
        (truncate, DataError, "weights.safetensors: not a whole safetensors file"),
        (lambda f: edit_yaml(f, "position: every_block", "position: once"), DataError, "fingerprint"),
        (lambda f: edit_yaml(f, "depth: 2", "depht: 2"), RequestError, "'depht' is not known; did you mean 'depth'"),
        (lambda f: edit_yaml(f, "modality: ecg", "modality: xyz"), DataError, "key 'spec' or 'config' is damaged"),
        (lambda f: edit_yaml(f, "sfreq: 50", "sfreq: 0"), DataError, "key 'spec' or 'config' is damaged"),
        (lambda f: edit_yaml(f, "heads: 2", "heads: 0"), DataError, "key 'spec' or 'config' is damaged .*heads at least 1"),
        (
            lambda f: edit_yaml(f, "dim: 16", "dim: 1600000000"),
            DataError,
            "width 1600000000 and depth 2 do not fit the stored weights",
        ),
        (lambda f: edit_yaml(f, "depth: 2", "depth: 100000"), DataError, "depth 100000 do not fit the stored weights"),
        (
            lambda f: edit_yaml(f, "n_samples: 100", "n_samples: 10000000000"),
            DataError,
            "n_samples 10000000000 makes",
        ),
        (lambda f: edit_yaml(f, "norm: ", "norm: about "), DataError, "key 'fingerprint' is damaged"),
        (lambda f: edit_yaml(f, "seen:", "seen_by:"), DataError, "key 'seen' is missing"),
        (lambda f: edit_yaml(f, "subjects: ", "subjects: 7 #"), DataError, "key 'seen.subjects' is damaged"),
        (lambda f: edit_tensors(f, lambda t: t.update({QKV: t[QKV].half()})), DataError, f"{QKV} is F16, expected F32; copy"),
        (lambda f: edit_yaml(f, "format: 1", "format: 9"), DataError, "format 9"),
        (lambda f: (f / "encoder.yaml").write_text("a: ["), RequestError, "not valid YAML"),
        (lambda f: (f / "recipe.yaml").unlink(), DataError, "recipe.yaml is missing"),
        (lambda f: (f / "weights.safetensors").unlink(), DataError, "weights.safetensors is missing"),
        (lambda f: (f / "encoder.yaml").unlink(), RequestError, "not an encoder folder"),
        (shutil.rmtree, RequestError, "no such encoder folder"),
    ],
)
def test_a_damaged_folder_is_one_line_that_says_what_and_what_to_do(
    folder: Path, damage: Callable[[Path], object], error: type[BiosslError], words: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=words) as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value) and str(folder.name) in str(caught.value)


def test_foreign_files_and_urls_are_not_opened(tmp_path: Path) -> None:
    for name, word in (
        ("weights.pth", "biossl import"),
        ("model.ckpt", "biossl import"),
        ("x.safetensors", "give the encoder folder"),
    ):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
        with pytest.raises(RequestError, match=word):
            load_encoder(tmp_path / name)
    for url in ("https://example.org/e", "s3://bucket/e", "hf://org/e"):
        with pytest.raises(RequestError, match="URLs are not opened"):
            load_encoder(url)


def test_weight_report_names_every_fault() -> None:
    lines = compare_tensors({"a": (2,), "b": (3, 4), "c": (1,)}, {"a": (2,), "b": (4, 3), "d": (5,)})
    assert lines == ["tensor c (1) is missing", "tensor d (5) is not expected", "tensor b has shape (4, 3), expected (3, 4)"]


def test_a_corpus_that_matches_needs_no_note(folder: Path) -> None:
    assert require_match(SPEC, SPEC) == ((0, 1, 2), ())
    load_encoder(folder, spec=SPEC)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sfreq": 100.0}, "sfreq: 50.0 here, 100.0 there"),
        ({"n_samples": 50}, "n_samples: 100 here, 50 there"),
        ({"modality": "eeg"}, "modality: ecg here, eeg there"),
        ({"units": ("mV", "uV", "mV")}, "units: mV mV mV here"),
        ({"ch_names": ("x", "y", "z")}, "no channel in common"),
        ({"ch_names": ("V1", "II", "x"), "units": ("uV", "mV", "mV")}, "units of V1: mV here, uV there"),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_the_difference(folder: Path, change: dict[str, object], words: str) -> None:
    other = replace(SPEC, **change)  # type: ignore[arg-type]
    for adapt in (False, True):
        with pytest.raises(DataError, match=words) as caught:
            load_encoder(folder, spec=other, adapt=adapt)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"ch_names": ("V1", "I", "II")}, (1, 2, 0)),
        ({"ch_names": ("V1", "II"), "ch_types": ("ecg",) * 2, "units": ("mV",) * 2}, (1, 0)),
        ({"ch_names": ("x", "I", "II", "V1"), "ch_types": ("ecg",) * 4, "units": ("mV",) * 4}, (1, 2, 3)),
        ({"filter": FilterSpec()}, (0, 1, 2)),
    ],
)
def test_other_channels_and_filters_need_adapt_and_leave_a_note(change: dict[str, object], rows: tuple[int, ...]) -> None:
    other = replace(SPEC, **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="--adapt"):
        require_match(SPEC, other)
    match = require_match(SPEC, other, adapt=True)
    assert match.rows == rows and len(match.notes) == 1 and match.notes[0].startswith("adapted ")
