"""Tables of events that a locked dense model finds in a corpus or in recording files.

What lives here: :func:`corpus_events` and :func:`file_events`, one row an event, for ``biossl predict``. How samples become events is
``decoding.py``'s, how good they are ``delineation.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl.checkpoint import require_match
from biossl.corpus import Corpus
from biossl.downstream.decoding import Stretch, decode, dense_rows, follow, read_dense, stitch, stretches
from biossl.downstream.lock import Decoder
from biossl.downstream.model import Model
from biossl.errors import DataError
from biossl.inference import pick_device

Array = NDArray[Any]
Pieces = Callable[[Callable[[Array, Sequence[str], Array], Array]], Any]


def decoder_of(model: Model) -> Decoder:
    """The frozen decoder of a dense model; DataError where its folder has none."""
    if model.lock.decoder is None:
        raise DataError("the model has no frozen decoder of its samples (key 'lock.decoder'); fine-tune anew")
    return model.lock.decoder


def events_of(
    stretch: Stretch, classes: Sequence[str], channels: Sequence[str], decoder: Decoder, far: Array | None
) -> pd.DataFrame:  # fmt: skip
    """Events of a stretch as a table.

    Parameters
    ----------
    stretch : Stretch
    classes : sequence of str
    channels : sequence of str
        Of ``stretch.p``; not used where events are of all channels.
    decoder : Decoder
    far : ndarray of bool, (n,), or None
        Which windows are unlike those of training.

    Returns
    -------
    DataFrame
        ``record``, ``channel`` ('' = all), ``label``, ``onset_s`` and ``duration_s`` (seconds in the record), ``probability`` (mean over the
        event), ``unfamiliar`` (any window it touches is; absent without ``far``).
    """
    found = decode(stretch.p, classes, stretch.sfreq, decoder)
    table = pd.DataFrame({
        "record": pd.Series([stretch.record] * len(found), dtype=str),
        "channel": pd.Series([channels[c] if decoder.per_channel else "" for c, *_ in found], dtype=str),
        "label": pd.Series([name for _, name, *_ in found], dtype=str),
        "onset_s": np.array([stretch.start_s + a / stretch.sfreq for _, _, a, _, _ in found], float),
        "duration_s": np.array([(b - a) / stretch.sfreq for _, _, a, b, _ in found], float),
        "probability": np.array([p for *_, p in found], float),
    })  # fmt: skip
    if far is not None:
        onset, end = (table[k].to_numpy()[:, None] for k in ("onset_s", "duration_s"))
        touch = (stretch.windows[None, :, 0] < onset + end) & (stretch.windows[None, :, 1] > onset)
        table["unfamiliar"] = (touch & far).any(axis=1)
    return table


def far_windows(model: Model, features: Array) -> Array | None:
    """Which windows are unlike those of training, by either frozen limit; None where there is none."""
    if model.lock.familiar is None:
        return None
    distances = model.lock.familiar.distances(features)
    return np.any([d > model.lock.familiar.limits[k] for k, d in distances.items()], axis=0)


def corpus_events(model: Model, corpus: Corpus, *, adapt: bool = False) -> pd.DataFrame:
    """Events of every recording of a corpus: ``subject`` and the columns of :func:`events_of`, by record, channel and time."""
    decoder = decoder_of(model)
    names = [corpus.spec.ch_names[i] for i in require_match(model.encoder.spec, corpus.spec, adapt=adapt).rows]
    subject = corpus.index["subject"].astype(str).to_numpy()
    found = []
    for stretch, features in stretches(model, corpus, np.arange(len(corpus)), per_channel=decoder.per_channel, adapt=adapt):
        table = events_of(stretch, model.classes, names, decoder, far_windows(model, features))
        table.insert(0, "subject", subject[stretch.rows[0]])
        found.append(table)
    return pd.concat(found, ignore_index=True)


def file_events(model: Model, pieces: Pieces) -> pd.DataFrame:
    """Events of recording files.

    Parameters
    ----------
    model : Model
    pieces : function
        From a function of windows and channel names to (keys, what it gave) of every file: :func:`biossl.embeddings.file_pieces`.
    """
    decoder, spec = decoder_of(model), model.encoder.spec
    model.to(pick_device())
    held: dict[str, Any] = {}

    def compute(x: Array, names: Sequence[str], start_s: Array) -> Array:
        size = dense_rows(model, x.shape[1], x.shape[2])
        parts = [
            read_dense(model, x[i : i + size], names, spec.sfreq, per_channel=decoder.per_channel) for i in range(0, len(x), size)
        ]
        held["names"], held["features"] = list(names), np.concatenate([f for _, f in parts])
        return np.concatenate([p for p, _ in parts])

    found = []
    for keys, p in pieces(compute):
        start = keys["start_s"].to_numpy(np.float64)
        far = far_windows(model, held["features"])
        for at in follow(keys[["record", "segment", "start_s"]], spec.window_s, spec.sfreq):
            stretch = stitch(str(keys["record"].iloc[at[0]]), start[at], p[at], spec.sfreq, at)
            table = events_of(stretch, model.classes, held["names"], decoder, None if far is None else far[at])
            table.insert(0, "subject", keys["subject"].iloc[at[0]])
            found.append(table)
    if not found:
        raise DataError("no file gave a window; see the lines above")
    return pd.concat(found, ignore_index=True)
