"""The encoder folder: save, load strictly, compare with a corpus.

What lives here: four files (``weights.safetensors``, ``encoder.yaml`` with architecture, InputSpec and fingerprint,
``recipe.yaml``, ``README.md``, the model card), written whole or not at all. Nothing is unpickled: a foreign ``.pth``
goes through ``biossl import``. The training state of a run is not here (``biossl.training.state``).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from biossl import __version__
from biossl.atomic import atomic_folder
from biossl.batch import Batch
from biossl.config import build, dump_yaml, load_yaml, to_plain
from biossl.errors import DataError, RequestError
from biossl.models.encoder import Encoder, EncoderSettings
from biossl.recipe.tables import ENCODERS, config_class, resolve
from biossl.signal import InputSpec

FILES = ("weights.safetensors", "encoder.yaml", "recipe.yaml", "README.md")
FORMAT = 1
_PICKLED = {".pth", ".pt", ".ckpt", ".bin", ".pkl", ".pickle"}
_AMPLITUDE = {"ecg": 0.5, "eeg": 20.0, "eog": 50.0, "emg": 10.0, "acc": 0.3, "gyro": 1.0, "spo2": 1.0}
_N_VALUES = 16
_MAX_VALUES = 2**28  # tokens x width of one window: 1 GB
_REMEDY = "copy the folder again or export the encoder anew"
_TOLERANCE = 1e-3  # relative; other machines and threads differ by under 1e-5, another model by over 1e-2


class Match(NamedTuple):
    """How a corpus feeds an encoder: ``rows`` of the corpus' channels in the encoder's order, and what was adapted."""

    rows: tuple[int, ...]
    notes: tuple[str, ...]


def save_encoder(
    encoder: Encoder,
    folder: str | Path,
    *,
    recipe: Any = None,
    seen: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Any] | None = None,
    provenance: str = "",
    overwrite: bool = False,
) -> Path:
    """Write an encoder folder.

    Parameters
    ----------
    encoder : Encoder
    folder : path
    recipe : dict or dataclass, optional
        The resolved recipe; kept as ``recipe.yaml``.
    seen : mapping, optional
        What the weights have seen: ``corpora`` (list of mappings: name, hash, windows ...), ``subjects`` (keys from
        ``biossl.corpus.subject_keys``).
    numbers : mapping, optional
        Results to show in the model card: name -> value.
    provenance : str
        One sentence for the model card: where the weights come from, their licence.
    overwrite : bool

    Returns
    -------
    Path

    Raises
    ------
    RequestError
        The folder exists.
    DataError
        A weight is not finite.
    MachineError
        Disk full, no right to write.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    tensors = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in encoder.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{folder}: tensor {name} holds NaN or infinity; take an earlier checkpoint")
    plain_seen = to_plain(dict(seen or {}))
    if "subjects" in plain_seen:
        plain_seen["subjects"] = _join(plain_seen["subjects"])
    with atomic_folder(folder, overwrite=overwrite) as part:
        save_file(tensors, part / "weights.safetensors", metadata={"format": "pt"})
        about = {
            "format": FORMAT,
            "architecture": encoder.architecture,
            "biossl": __version__,
            "config": to_plain(encoder.config),
            "spec": encoder.spec.to_dict(),
            "weights": {
                "sha256": sha256(part / "weights.safetensors"),
                "tensors": len(tensors),
                "parameters": sum(t.numel() for t in tensors.values()),
            },
            "fingerprint": fingerprint(copy.deepcopy(encoder).to("cpu", torch.float32)),
            "seen": plain_seen,
            "numbers": to_plain(dict(numbers or {})),
            "provenance": provenance,
        }
        _write(part / "encoder.yaml", dump_yaml(about))
        text = dump_yaml(recipe) if recipe else "# These weights were not trained by a recipe of biossl.\n{}\n"
        _write(part / "recipe.yaml", text)
        _write(part / "README.md", model_card(about, folder.name, encoder.config.describe()))
    return folder


def load_encoder(folder: str | Path, *, spec: InputSpec | None = None, adapt: bool = False) -> Encoder:
    """Read an encoder folder, strictly.

    Parameters
    ----------
    folder : path
        An encoder folder, or a run or step folder that holds one (the latest step is taken).
    spec : InputSpec, optional
        A corpus' spec the encoder must match; see :func:`require_match`.
    adapt : bool
        Accept a subset or another order of channels and other filters.

    Returns
    -------
    Encoder
        On the CPU, float32, evaluation mode. ``encoder.info`` holds ``path``, ``hash`` (SHA-256 of the weights), ``seen``
        (with ``subjects`` as a list), ``numbers``, ``provenance``, ``recipe``.

    Raises
    ------
    RequestError
        Missing, not a folder, a pickled checkpoint, a URL, not an encoder folder.
    DataError
        A tensor missing, unexpected or of another shape; bytes that differ; a fingerprint that differs; a spec that
        does not match.

    Examples
    --------
    >>> load_encoder("https://example.org/encoder")
    Traceback (most recent call last):
    ...
    biossl.errors.RequestError: https://example.org/encoder: URLs are not opened; download the folder and give its path
    """
    path = find_encoder(folder)
    about = read_about(path)
    config = build_config(about, where=f"{path / 'encoder.yaml'} config")
    shapes = _weight_shapes(path)
    try:
        spec_there = InputSpec.from_dict(about["spec"])
        _require_plausible(path, config, spec_there, shapes)
        encoder = empty_encoder(about["architecture"], spec_there, config)
    except (TypeError, ValueError, KeyError, ArithmeticError, RequestError) as error:
        raise DataError(f"{path / 'encoder.yaml'}: key 'spec' or 'config' is damaged ({error}); copy the folder again") from None
    encoder.load_state_dict(_read_weights(path, encoder, about, shapes), assign=True)
    found = fingerprint(encoder)
    _compare_fingerprint(path, about["fingerprint"], found)
    if spec is not None:
        require_match(encoder.spec, spec, adapt=adapt)
    encoder.info = {
        "path": str(path),
        "hash": about["weights"]["sha256"],
        "seen": about.get("seen") or {},
        "numbers": about.get("numbers") or {},
        "provenance": about.get("provenance") or "",
        "recipe": load_yaml(path / "recipe.yaml"),
    }
    return encoder.eval()


def build_config(about: Mapping[str, Any], *, where: str) -> EncoderSettings:
    """The settings of the encoder that ``architecture`` and ``config`` describe."""
    config: EncoderSettings = build(config_class("model", about["architecture"], where=where), about["config"], where=where)
    return config


def empty_encoder(architecture: str, spec: InputSpec, config: EncoderSettings) -> Encoder:
    """An encoder whose weights are still to be assigned: no memory, no random numbers drawn."""
    with torch.device("meta"):
        encoder: Encoder = resolve(ENCODERS[architecture])(spec, config)
        return encoder


def find_encoder(folder: str | Path) -> Path:
    """The encoder folder meant by a path: itself, ``encoder/`` inside it, or that of a run's latest step."""
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]+:/", str(folder)):
        raise RequestError(f"{folder}: URLs are not opened; download the folder and give its path")
    path = Path(folder)
    if not path.exists():
        raise RequestError(f"{path}: no such encoder folder; check the path")
    if path.is_file():
        if path.suffix in _PICKLED:
            raise RequestError(
                f"{path}: a foreign checkpoint is not opened here; convert it with `biossl import KIND {path} OUT`"
            )
        raise RequestError(f"{path}: a file; give the encoder folder ({', '.join(FILES)})")
    candidates = [path, path / "encoder"]
    latest = path / "checkpoints" / "latest"
    if latest.is_file():
        candidates.append(path / "checkpoints" / latest.read_text(encoding="utf-8", errors="replace").strip() / "encoder")
    for candidate in candidates:
        if (candidate / "encoder.yaml").is_file():
            absent = [f for f in FILES if not (candidate / f).is_file()]
            if absent:
                raise DataError(f"{candidate}: {absent[0]} is missing from the encoder folder; copy the folder again")
            return candidate
    raise RequestError(f"{path}: not an encoder folder (no encoder.yaml); give the folder that holds {', '.join(FILES)}")


def read_about(path: Path) -> dict[str, Any]:
    """``encoder.yaml`` as plain values, with ``seen.subjects`` as a list; DataError when a section is absent."""
    file = path / "encoder.yaml"
    about = load_yaml(file)
    about.setdefault("architecture", "transformer")  # what a folder that does not say it holds
    if about.get("format") != FORMAT or str(about["architecture"]) not in ENCODERS:
        raise DataError(
            f"{file}: format {about.get('format')} of architecture {about['architecture']} is not read by "
            f"biossl {__version__}; install the version that wrote it ({about.get('biossl', 'unknown')})"
        )
    for key in ("config", "spec", "weights", "fingerprint", "seen"):
        if not isinstance(about.get(key), dict):
            raise DataError(f"{file}: key '{key}' is missing; copy the folder again")
    seen = about["seen"]
    if not isinstance(seen.get("subjects", ""), str):  # read as nobody, they would let a test subject through
        raise DataError(f"{file}: key 'seen.subjects' is damaged; copy the folder again")
    if "subjects" in seen:
        seen["subjects"] = [unquote(key) for key in seen["subjects"].split()]
    return about


def compare_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Weight-match report: one line a fault, empty when names and shapes agree."""
    lines = [f"tensor {k} {_shape(s)} is missing" for k, s in expected.items() if k not in found]
    lines += [f"tensor {k} {_shape(s)} is not expected" for k, s in found.items() if k not in expected]
    lines += [
        f"tensor {k} has shape {_shape(found[k])}, expected {_shape(s)}"
        for k, s in expected.items()
        if k in found and tuple(found[k]) != tuple(s)
    ]
    return lines


def require_tensors(
    where: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], remedy: str
) -> None:
    """DataError with the first fault of :func:`compare_tensors` and how many there are."""
    faults = compare_tensors(expected, found)
    if faults:
        more = f" (and {len(faults) - 1} more; {len(expected)} tensors expected)" if len(faults) > 1 else ""
        raise DataError(f"{where}: {faults[0]}{more}; {remedy}")


def require_match(encoder_spec: InputSpec, corpus_spec: InputSpec, *, adapt: bool = False) -> Match:
    """How a corpus feeds an encoder, or a refusal that names each difference.

    Parameters
    ----------
    encoder_spec, corpus_spec : InputSpec
    adapt : bool
        Accept other channels (a subset, more, another order), other filters and another reference, each with a note.
        Rate, length, modality and units are never adapted.

    Raises
    ------
    DataError
        One line: ``sfreq: 250.0 here, 500.0 there`` (here = the encoder, there = the corpus).
    """
    differences = {line.split(":")[0]: line for line in encoder_spec.differences(corpus_spec)}
    common = [c for c in encoder_spec.ch_names if c in corpus_spec.ch_names]
    if "ch_names" in differences:  # then types and units differ in length or order too: compare channel by channel
        differences.pop("ch_types", None)
        differences.pop("units", None)
        for name in common:
            i, j = encoder_spec.ch_names.index(name), corpus_spec.ch_names.index(name)
            for key in ("ch_types", "units"):
                a, b = getattr(encoder_spec, key)[i], getattr(corpus_spec, key)[j]
                if a != b:
                    differences[key] = f"{key} of {name}: {a} here, {b} there"
    adaptable = {"ch_names", "filter", "reference"}
    hard = [line for key, line in differences.items() if key not in adaptable]
    soft = [line for key, line in differences.items() if key in adaptable]
    if not common:
        soft = [line for line in soft if not line.startswith("ch_names")]
        hard.append(f"no channel in common ({' '.join(encoder_spec.ch_names)} here, {' '.join(corpus_spec.ch_names)} there)")
    if hard:
        raise DataError(
            f"the corpus does not fit the encoder: {'; '.join(hard + soft)} (here: the encoder); convert with a view that matches"
        )
    if soft and not adapt:
        raise DataError(
            f"the corpus does not fit the encoder: {'; '.join(soft)} (here: the encoder); convert with a view that matches, or add --adapt"
        )
    return Match(tuple(corpus_spec.ch_names.index(c) for c in common), tuple(f"adapted {line}" for line in soft))


def fingerprint_input(spec: InputSpec) -> Tensor:
    """One window of closed-form sines at the usual amplitude of each channel type, float32, (1, C, T)."""
    t = np.arange(spec.n_samples) / spec.sfreq
    rows = [
        _AMPLITUDE.get(kind, 1.0) * (np.sin(2 * np.pi * (1.1 + 0.37 * c) * t + c) + 0.4 * np.sin(2 * np.pi * 7.3 * t + 2.0 * c))
        for c, kind in enumerate(spec.ch_types)
    ]
    return torch.from_numpy(np.stack(rows).astype(np.float32))[None]


def fingerprint(encoder: Encoder) -> dict[str, Any]:
    """What the encoder (on the CPU, float32) makes of :func:`fingerprint_input`: norm and evenly spaced values."""
    with torch.autocast("cpu", enabled=False):
        value = encoder.embed(Batch(fingerprint_input(encoder.spec), encoder.spec.ch_names, encoder.spec.sfreq))[0].double()
    step = max(1, encoder.dim // _N_VALUES)
    return {
        "input": "sines-1",
        "pool": "mean",
        "norm": float(f"{value.norm():.7g}"),
        "embedding": [float(f"{v:.7g}") for v in value[::step][:_N_VALUES]],
    }


def _compare_fingerprint(path: Path, stored: dict[str, Any], found: dict[str, Any]) -> None:
    try:
        a = np.array([stored.get("norm", np.nan), *stored.get("embedding", [])], dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{path / 'encoder.yaml'}: key 'fingerprint' is damaged; copy the folder again") from None
    b = np.array([found["norm"], *found["embedding"]], dtype=np.float64)
    if a.shape != b.shape or not np.linalg.norm(a - b) <= _TOLERANCE * np.linalg.norm(b):
        raise DataError(
            f"{path / 'encoder.yaml'}: the weights do not reproduce the stored fingerprint; install the biossl version that "
            "wrote the folder, or export the encoder again"
        )


def _weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored tensors, none of which is read."""
    file = path / "weights.safetensors"
    try:
        with safe_open(file, framework="pt") as handle:
            slices = {k: handle.get_slice(k) for k in handle.keys()}  # noqa: SIM118 (not a dict)
            odd = [k for k, s in slices.items() if s.get_dtype() != "F32"]
            if odd:
                raise DataError(f"{file}: tensor {odd[0]} is {slices[odd[0]].get_dtype()}, expected F32; {_REMEDY}")
            return {k: tuple(s.get_shape()) for k, s in slices.items()}
    except SafetensorError as error:
        raise DataError(f"{file}: not a whole safetensors file ({error}); {_REMEDY}") from None


def _require_plausible(path: Path, config: EncoderSettings, spec: InputSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """DataError before anything of a size that only ``encoder.yaml`` states is made."""
    file = path / "encoder.yaml"
    widest = max((n for shape in shapes.values() for n in shape), default=0)
    dim, depth, values = config.size(spec)
    if dim > widest or depth > len(shapes):
        raise DataError(f"{file}: width {dim} and depth {depth} do not fit the stored weights; copy the folder again")
    if values > _MAX_VALUES:
        raise DataError(f"{file}: n_samples {spec.n_samples} makes {values:.3g} numbers of one window; mend the key")


def _read_weights(
    path: Path, encoder: Encoder, about: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    file = path / "weights.safetensors"
    require_tensors(str(file), {k: tuple(v.shape) for k, v in encoder.state_dict().items()}, shapes, _REMEDY)
    if sha256(file) != about["weights"].get("sha256"):
        raise DataError(f"{file}: the bytes differ from the SHA-256 in encoder.yaml; {_REMEDY}")
    return load_file(file)


def model_card(about: Mapping[str, Any], name: str, network: str) -> str:
    """Text of the folder's ``README.md``; ``network`` says what the encoder is."""
    spec, seen, config = about["spec"], about["seen"], about["config"]
    corpora = [
        "- " + ", ".join(f"{k} {v}" for k, v in c.items()) if isinstance(c, dict) else f"- {c}" for c in seen.get("corpora", [])
    ]
    filters = ", ".join(f"{k} {v:g}" for k, v in spec["filter"].items() if k.endswith("_hz") and v is not None)
    n_subjects = len(seen["subjects"].split()) if "subjects" in seen else 0
    numbers = [f"| {k} | {v} |" for k, v in about["numbers"].items()]
    lines = [
        f"# Encoder {name}",
        "",
        about["provenance"] or "Trained with biossl; the resolved recipe is in `recipe.yaml`.",
        "",
        "## Input",
        "",
        f"{spec['modality'].upper()}, {len(spec['ch_names'])} channels ({' '.join(spec['ch_names'])}) in "
        f"{' '.join(sorted(set(spec['units'])))}, {spec['sfreq']:g} Hz, windows of {spec['n_samples']} samples "
        f"({spec['n_samples'] / spec['sfreq']:g} s), filters: {filters or 'none'}, reference {spec['reference']}, "
        f"amplitudes normalised: {config['normalise']}.",
        "",
        "## Architecture",
        "",
        f"{network}, {about['weights']['parameters']:,} parameters.",
        "",
        "## Data seen in training",
        "",
        *(corpora or ["Not recorded."]),
        "",
        f"Keys of what was seen, kept in `encoder.yaml`: {n_subjects}. Probing on these subjects is refused unless asked for.",
        "",
        "## Numbers",
        "",
        *(["| what | value |", "| --- | --- |", *numbers] if numbers else ["None recorded here."]),
        "",
        "## Limits",
        "",
        "For research. Not validated for diagnosis. Features are meant for signals like those above; another rate, unit, "
        "device or population needs its own evaluation.",
        "",
        "## Use",
        "",
        "```python",
        "import biossl",
        f'features = biossl.load_encoder("{name}").embed(x)  # x (B, {len(spec["ch_names"])}, {spec["n_samples"]})',
        "```",
        "",
        f"Weights SHA-256 `{about['weights']['sha256']}`, written by biossl {about['biossl']}.",
        "",
    ]
    return "\n".join(lines)


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """RequestError when the output is there and may not be replaced."""
    if folder.exists() and not overwrite:
        raise RequestError(f"{folder}: exists; name another folder or add --overwrite")


def _join(subjects: Any) -> str:
    """Keys as one text, spaces and the like percent-encoded: a list of 200,000 would take YAML minutes."""
    return " ".join(sorted({quote(str(s), safe=":/@+,;=._-") for s in subjects}))


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(s) for s in shape) + ")"
