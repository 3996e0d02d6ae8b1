"""The table of a locked model's predictions: one row a window, with probabilities, decision, and whether to believe it.

What lives here: turning predictions and features into columns, and :func:`predict` (new files or a corpus, no label needed).
Nothing is fitted: calibration, thresholds and limits come with the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import __version__
from biossl.atomic import write_parquet
from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.corpus.card import load_card
from biossl.downstream.events import corpus_events, file_events
from biossl.downstream.foldrun import require_one_model
from biossl.downstream.lock import KINDS, confidence
from biossl.downstream.model import Model, load_model, read_rows
from biossl.embeddings import file_pieces
from biossl.errors import DataError, RequestError
from biossl.inference import batch_rows, make_batch, pick_device, require_modality

Array = NDArray[Any]
KEYS = ("subject", "record", "segment", "start_s", "quality")


def columns(model: Model, prediction: Array, features: Array) -> pd.DataFrame:
    """Columns of predictions of windows.

    Parameters
    ----------
    model : Model
    prediction : ndarray, (n, K), or (n,) for values and log hazards
    features : ndarray, (n, D)
        NaN where nothing was observed.

    Returns
    -------
    DataFrame
        ``p_CLASS`` calibrated probabilities and ``decision`` (a class; of several yes/no classes those that are said, joined by
        ``+``), ``confidence``; or ``value`` or ``log_hazard``. ``mahalanobis``, ``knn`` (distances, over their limits: above 1 is
        unfamiliar), ``unfamiliar``, ``abstain`` (unfamiliar, or nothing observed; then no decision).

    Raises
    ------
    RequestError
        A model of dense labels: its predictions are not one a window.
    """
    if model.kind == "dense":
        raise RequestError("this model says something of every sample, not of windows; a table of windows cannot hold that")
    seen: Array = np.asarray(np.isfinite(features).all(axis=1))
    table: dict[str, Any] = {}
    lock, decided = model.lock, None
    if model.kind in (*KINDS, "ordinal"):
        p, sure = np.full(prediction.shape, np.nan), np.full(len(prediction), np.nan)
        decided = np.full(len(p), None, object)
        if seen.any():
            p[seen] = lock.probabilities(prediction[seen])
            decided[seen] = said(lock.decisions(p[seen], model.classes, model.kind), model.classes, model.kind)
            sure[seen] = confidence(p[seen], model.kind)
        table |= {f"p_{name}": p[:, k] for k, name in enumerate(model.classes)}
        table["confidence"] = sure
    else:
        name = "log_hazard" if model.kind == "survival" else "value"
        table[name] = np.where(seen, prediction.reshape(len(seen)), np.nan)
    abstain = ~seen
    if lock.familiar is not None:
        distances = lock.familiar.distances(features)
        far = np.zeros(len(seen), bool)
        for name, distance in distances.items():
            table[name] = distance / lock.familiar.limits[name]
            far |= distance > lock.familiar.limits[name]
        table["unfamiliar"] = far
        abstain = abstain | far
    table["abstain"] = abstain
    if decided is not None:
        decided[abstain] = None
        table["decision"] = decided
    return pd.DataFrame(table)


def calibrated(model: Model, prediction: Array) -> Array:
    """Predictions as they are judged: probabilities (n, K) by the frozen calibration, or values and log hazards (n,)."""
    if model.kind in ("regression", "survival"):
        return prediction.reshape(len(prediction))
    return model.lock.probabilities(prediction)


def said(decisions: Array, classes: tuple[str, ...], kind: str) -> list[str]:
    """Decisions of :meth:`~biossl.downstream.lock.Lock.decisions` in words: a class, 0 or 1, or those that are said joined by ``+``."""
    if kind in ("multiclass", "ordinal"):
        return [classes[int(k)] for k in decisions]
    if kind == "binary":
        return ["1" if row[0] else "0" for row in decisions]
    return ["+".join(c for c, yes in zip(classes, row, strict=True) if yes) for row in decisions]


def predict(
    run: str | Path,
    source: str | Path | list[str | Path],
    out: str | Path,
    *,
    adapt: bool = False,
    card: str | Path | None = None,
    keep_names: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a locked model's predictions of a corpus or of recording files.

    Parameters
    ----------
    run : path
        Run or model folder of `biossl finetune`.
    source : path or list of paths
        A corpus folder, or recording files; files are filtered, resampled and cut into the model's windows.
    out : path
        ``.parquet`` file; its metadata holds the model's hash, classes, thresholds and limits.
    adapt, card, keep_names, overwrite, tell
        As in :func:`biossl.embeddings.embed_to_parquet`.

    Returns
    -------
    dict
        ``out``, ``rows``, ``unfamiliar``, ``abstain`` (numbers of windows), ``decisions`` (windows of each), ``model``, ``unreadable``,
        ``notes``. Of a dense model rows are events (:func:`biossl.downstream.events.events_of`), and so are the numbers.

    Raises
    ------
    RequestError
        ``out`` exists; not a model folder; a corpus with options of files.
    DataError
        Nothing fits the model.

    Examples
    --------
    >>> predict("runs/hapt-6", "corpora/hapt", "hapt.parquet")["rows"]  # doctest: +SKIP
    """
    out = Path(out)
    if out.is_dir():
        raise RequestError(f"{out}: a folder; give the name of a .parquet file")
    if out.exists() and not overwrite:
        raise RequestError(f"{out}: exists; give another name or add --overwrite")
    require_one_model(run)
    model = load_model(run)
    sources = [Path(s) for s in (source if isinstance(source, list) else [source])]
    unreadable: list[str] = []
    told: list[str] = []
    screen: list[str] = []
    if len(sources) == 1 and sources[0].is_dir():
        if card is not None or keep_names:
            raise RequestError(f"{sources[0]}: a corpus has its own card and record names; leave out --card and --keep-names")
        corpus = Corpus.open(sources[0])
        told += require_match(model.encoder.spec, corpus.spec, adapt=adapt).notes
        keys = corpus.index[[k for k in KEYS if k in corpus.index]].reset_index(drop=True)
        if model.kind == "dense":
            table = corpus_events(model, corpus, adapt=adapt)
        else:
            table = pd.concat([keys, columns(model, *read_rows(model, corpus, np.arange(len(corpus)), adapt=adapt))], axis=1)
    else:
        table = _of_files(model, sources, card, adapt, keep_names, unreadable, told, screen)
    facts = {
        "biossl": __version__, "model": model.about["weights"]["sha256"], "label": model.about.get("label"), "kind": model.kind,
        "classes": list(model.classes), "lock": model.about["lock"],
    }  # fmt: skip
    write_parquet(out, table, metadata={"biossl": json.dumps(facts)})
    for line in screen if tell is not None else []:
        assert tell is not None
        tell(f"left out: {line}")
    counts = table[word].value_counts() if (word := "label" if model.kind == "dense" else "decision") in table else {}
    return {
        "out": str(out), "rows": len(table), "unfamiliar": int(table["unfamiliar"].sum()) if "unfamiliar" in table else None,
        "abstain": int(table["abstain"].sum()) if "abstain" in table else 0, "decisions": {str(k): int(v) for k, v in counts.items()},
        "model": facts["model"], "kind": model.kind, "unreadable": unreadable, "notes": [*told, *model.lock.notes],
    }  # fmt: skip


def _of_files(
    model: Model, files: list[Path], card: str | Path | None, adapt: bool, keep_names: bool, unreadable: list[str], told: list[str],
    screen: list[str],
) -> pd.DataFrame:  # fmt: skip
    """Keys and predictions of the windows of recording files."""
    how = load_card(card) if card is not None else None
    if how is not None:
        require_modality(how, model.encoder.spec)
    if not keep_names:
        told.append("record file-0001 is the first file given, and so on; --keep-names writes the files' names instead")

    def pieces_of(compute: Callable[[Array, Sequence[str], Array], Array]) -> Any:
        return file_pieces(
            model.encoder, files, compute, unreadable, told, screen, card=how, adapt=adapt, keep_names=keep_names, verb="predict"
        )

    if model.kind == "dense":
        return file_events(model, pieces_of)
    model.to(pick_device())
    device, sfreq = model.encoder.device, model.encoder.spec.sfreq
    size, width = batch_rows(model.encoder), model.encoder.dim

    def compute(x: Array, names: Sequence[str], start_s: Array) -> Array:
        batches = (make_batch(x[i : i + size], names, sfreq, device) for i in range(0, len(x), size))
        prediction, features = model.read(batches, [start_s])
        return np.concatenate([features.astype(np.float64), prediction.reshape(len(features), -1)], axis=1)

    frames = []
    for frame, both in pieces_of(compute):
        keys = frame[[k for k in KEYS if k in frame]].reset_index(drop=True)
        frames.append(pd.concat([keys, columns(model, both[:, width:], both[:, :width])], axis=1))
    if not frames:
        raise DataError("no file gave a window; see the lines above")
    return pd.concat(frames, ignore_index=True)
