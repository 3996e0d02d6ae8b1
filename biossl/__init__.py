"""biossl: from biosignal recordings to a pretrained encoder, honest numbers and embeddings.

The names below are the import surface; everything else may move. They are imported when first used, so ``import biossl``
pulls in none of torch, lightning, mne, wfdb, neurokit2 and pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> "module:attribute"
_PUBLIC = {
    # what a signal is
    "Annotation": "biossl.signal:Annotation",
    "FilterSpec": "biossl.signal:FilterSpec",
    "InputSpec": "biossl.signal:InputSpec",
    "Recording": "biossl.signal:Recording",
    # files to windows
    "read": "biossl.io:read",
    "load_card": "biossl.corpus.card:load_card",
    "convert": "biossl.corpus.convert:convert",
    "Corpus": "biossl.corpus.index:Corpus",
    "add_labels": "biossl.corpus.label_csv:add_labels",
    "make_split": "biossl.corpus.splits:make_split",
    # models
    "Batch": "biossl.batch:Batch",
    "Tokens": "biossl.batch:Tokens",
    "TimeKeep": "biossl.batch:TimeKeep",
    "EncoderConfig": "biossl.models.transformer:EncoderConfig",
    "TransformerEncoder": "biossl.models.transformer:TransformerEncoder",
    "load_encoder": "biossl.checkpoint:load_encoder",
    "save_encoder": "biossl.checkpoint:save_encoder",
    "import_ecg_jepa": "biossl.importers.ecg_jepa:import_ecg_jepa",
    # training and use
    "load_recipe": "biossl.recipe.load:load_recipe",
    "pretrain": "biossl.training:pretrain",
    "embed_corpus": "biossl.inference:embed_corpus",
    # errors meant for a person
    "BiosslError": "biossl.errors:BiosslError",
    "RequestError": "biossl.errors:RequestError",
    "MachineError": "biossl.errors:MachineError",
    "DataError": "biossl.errors:DataError",
    "RecordError": "biossl.errors:RecordError",
}
# modules reached as attributes: biossl.probe.probe(...), biossl.simulate.ecg ...
_MODULES = ("io", "masks", "metrics", "probe", "signal", "simulate")

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:  # for type checkers and editors
    from biossl.batch import Batch as Batch
    from biossl.batch import TimeKeep as TimeKeep
    from biossl.batch import Tokens as Tokens
    from biossl.checkpoint import load_encoder as load_encoder
    from biossl.checkpoint import save_encoder as save_encoder
    from biossl.corpus.index import Corpus as Corpus
    from biossl.errors import BiosslError as BiosslError
    from biossl.errors import DataError as DataError
    from biossl.errors import MachineError as MachineError
    from biossl.errors import RecordError as RecordError
    from biossl.errors import RequestError as RequestError
    from biossl.models.transformer import EncoderConfig as EncoderConfig
    from biossl.models.transformer import TransformerEncoder as TransformerEncoder
    from biossl.signal import Annotation as Annotation
    from biossl.signal import FilterSpec as FilterSpec
    from biossl.signal import InputSpec as InputSpec
    from biossl.signal import Recording as Recording


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].partition(":")
        value = getattr(importlib.import_module(module), attribute)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"biossl.{name}")
    raise AttributeError(f"module 'biossl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
