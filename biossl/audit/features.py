"""What the audits share: features of corpus rows by an encoder or by a fine-tuned model's encoder, and which people it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from biossl.checkpoint import find_encoder, load_encoder, require_match
from biossl.corpus import Corpus, seen
from biossl.downstream.model import load_model
from biossl.errors import RequestError
from biossl.inference import embed_corpus
from biossl.models.encoder import Encoder

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """An encoder, where it is from, the subjects it has seen (hashes), and whether it was trained with labels."""

    folder: Path
    encoder: Encoder
    hash: str
    marks: list[str]
    tuned: bool


def open_source(path: str | Path) -> Source:
    """The encoder of a fine-tuned run or model folder, else an encoder folder or the run that holds one.

    Raises
    ------
    RequestError
        It holds neither.
    """
    folder = Path(path)
    if (folder / "model.yaml").is_file() or (folder / "model" / "model.yaml").is_file():
        model = load_model(folder)
        marks = model.about["seen"]["subjects"]
        return Source(folder, model.encoder, model.about["weights"]["sha256"], _list(marks), True)
    folder = find_encoder(path)
    encoder = load_encoder(folder)
    return Source(folder, encoder, encoder.info["hash"], _list(encoder.info["seen"].get("subjects", [])), False)


def features(source: Source, corpus: Corpus, rows: Array, *, adapt: bool) -> tuple[Array, list[str]]:
    """Mean-pooled features (n, D) of rows, NaN where nothing was observed, and notes on what did not match."""
    match = require_match(source.encoder.spec, corpus.spec, adapt=adapt)
    return embed_corpus(source.encoder, corpus, rows, adapt=adapt), list(match.notes)


def seen_note(source: Source, corpus: Corpus, rows: Array, what: str) -> list[str]:
    """One line when the encoder was trained on people among ``rows``; ``what`` follows from it."""
    known = seen(corpus, rows, source.marks)
    return [f"the encoder has seen {known} of these subjects in training: {what}"] if known else []


def free_folder(out: str | Path, file: str, overwrite: bool) -> Path:
    """The folder to write to; RequestError when it holds such a result already."""
    folder = Path(out)
    if folder.is_file():
        raise RequestError(f"{folder}: a file; give the name of a folder")
    if (folder / file).exists() and not overwrite:
        raise RequestError(f"{folder / file}: exists, perhaps with somebody's decisions; give another --out or add --overwrite")
    return folder


def _list(marks: Any) -> list[str]:
    return marks.split() if isinstance(marks, str) else list(marks)
