"""Run a frozen encoder over windows in memory, a corpus or a recording file; the result is an array of features.

What lives here: batches, the device, streaming with progress, cutting a file into the encoder's windows. The table that
is written to disk is ``embeddings.py``; no training and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biossl.batch import Batch, Encoded
from biossl.checkpoint import Match, require_match
from biossl.corpus import Corpus
from biossl.errors import RecordError, RequestError
from biossl.models.encoder import Encoder, pool_parts, pool_tokens
from biossl.progress import Progress

if TYPE_CHECKING:
    from biossl.corpus.card import Card, Files
    from biossl.corpus.views import Cut
    from biossl.signal import InputSpec

Array = NDArray[Any]
BLOCK_ROWS = 512  # windows read at once
TOKENS_AT_ONCE = 40_000  # tokens of one batch: a few hundred MB at the widths that ship


def pick_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_rows(encoder: nn.Module) -> int:
    """Windows of one batch, from the number of tokens of a window."""
    channels, patches = getattr(encoder, "grid", (1, 256))
    return int(np.clip(TOKENS_AT_ONCE // (channels * patches), 1, 512))


def make_batch(x: Array, channels: Sequence[str], sfreq: float, device: torch.device) -> Batch:
    """A Batch of float32 windows (n, C, T) in which NaN means not observed."""
    t = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    seen = t.isfinite()
    whole = bool(seen.all())
    batch = Batch(t if whole else torch.where(seen, t, 0.0), tuple(channels), sfreq, observed=None if whole else seen)
    return batch.to(device)


@torch.no_grad()
def embed_windows(
    encoder: Encoder,
    x: Array,
    channels: Sequence[str],
    sfreq: float,
    *,
    pool: str = "mean",
    layers: Sequence[int] = (),
) -> Array:
    """Features of windows in memory.

    Parameters
    ----------
    encoder : Encoder
        Used as it is, on its device.
    x : ndarray, float32, shape (n, C, T)
        Canonical units, NaN = not observed.
    channels : sequence of str, length C
    sfreq : float
        Hz.
    pool : str
        ``mean``, ``std``, ``max`` or several joined by ``+``.
    layers : sequence of int
        Blocks to pool instead of the encoder's output.

    Returns
    -------
    ndarray, float32, shape (n, D * parts), or (n, layers, D * parts) when layers are named
    """
    device = next(encoder.parameters()).device
    step = batch_rows(encoder)
    out: list[Tensor] = []
    for i in range(0, len(x), step):
        batch = make_batch(x[i : i + step], channels, sfreq, device)
        if not layers:
            out.append(encoder.embed(batch, pool).float().cpu())
            continue
        encoder.eval()
        encoded = encoder.encode(encoder.tokenize(batch), layers=layers)
        seen = encoded.hidden_observed or (encoded.observed,) * len(layers)
        each = [pool_tokens(Encoded(h, encoded.registers, o), pool) for h, o in zip(encoded.hidden, seen, strict=True)]
        out.append(torch.stack(each, dim=1).float().cpu())
    return torch.cat(out).numpy()


def embed_corpus(
    encoder: Encoder,
    corpus: Corpus,
    rows: Any = None,
    *,
    pool: str = "mean",
    layers: Sequence[int] = (),
    adapt: bool = False,
    desc: str = "embed",
) -> Array:
    """Features of corpus rows, streamed with progress.

    Parameters
    ----------
    encoder : Encoder
    corpus : Corpus
    rows : sequence of int, optional
        Rows of the index; all by default.
    pool, layers
        As in :func:`embed_windows`.
    adapt : bool
        Accept a subset of the encoder's channels and other filters.

    Returns
    -------
    ndarray, float32, shape (n, D * parts) or (n, layers, D * parts)

    Raises
    ------
    DataError
        The corpus does not fit the encoder (each difference is named).

    Examples
    --------
    >>> embed_corpus(encoder, corpus, [0, 1], pool="mean+std")  # doctest: +SKIP
    """
    rows = np.arange(len(corpus)) if rows is None else np.asarray(rows, np.int64)
    match = require_match(encoder.spec, corpus.spec, adapt=adapt)
    encoder = encoder.to(pick_device())
    width = layer_width(encoder, layers) * len(pool_parts(pool))
    out = np.empty((len(rows), len(layers), width) if layers else (len(rows), width), np.float32)
    with Progress(len(rows), desc, "windows") as bar:
        for i in range(0, len(rows), BLOCK_ROWS):
            block = rows[i : i + BLOCK_ROWS]
            out[i : i + len(block)] = embed_rows(encoder, corpus, block, match, pool=pool, layers=layers)
            bar.update(len(block))
    return out


def layer_width(encoder: Encoder, layers: Sequence[int]) -> int:
    """Width of the outputs of blocks, of the encoder's own where none is named; RequestError where they differ."""
    widths = {encoder.layer_dims[n] for n in layers} or {encoder.dim}
    if len(widths) > 1:
        raise RequestError(
            f"--layers: blocks of this encoder are {', '.join(map(str, encoder.layer_dims))} wide, and those of one call must be "
            "equally wide; take one at a time"
        )
    return widths.pop()


def embed_rows(encoder: Encoder, corpus: Corpus, rows: Array, match: Match, *, pool: str, layers: Sequence[int] = ()) -> Array:
    """Features of one block of corpus rows, with the channels ``match`` names."""
    x = corpus.signal(rows)
    if match.rows != tuple(range(x.shape[1])):
        x = x[:, list(match.rows)]
    names = [corpus.spec.ch_names[i] for i in match.rows]
    return embed_windows(encoder, x, names, corpus.spec.sfreq, pool=pool, layers=layers)


def windows_of_file(path: str | Path, spec: InputSpec, *, card: Card | None = None, adapt: bool = False) -> Cut:
    """Windows of one recording file as an encoder wants them: its channels, filter, rate and length, no overlap.

    Parameters
    ----------
    path : path
        A file :func:`biossl.io.read` understands; units and channel names are the file's own.
    spec : InputSpec
        The encoder's.
    card : Card, optional
        Says how files of this name are read: the reader, columns of a table, names and units of channels, possible rates.
    adapt : bool
        Channels that the file does not have are unobserved (NaN) instead of an error.

    Returns
    -------
    Cut
        ``subject`` is None: a file's own words about the patient are never taken.

    Raises
    ------
    RecordError
        The file cannot be read, a channel is missing, or its rate is not among the card's ``native_sfreq``.
    RequestError
        The card knows no file of this name, or is of another modality.
    """
    from biossl.corpus.card import Card, Files, Filter, View
    from biossl.corpus.load import read_as
    from biossl.corpus.views import cut
    from biossl.io import read

    view = View(
        sfreq=spec.sfreq, window_s=spec.window_s, stride_s=spec.window_s, channels=list(spec.ch_names),
        filter=Filter(**asdict(spec.filter)), reference=cast(Any, spec.reference), optional_channels=adapt,
    )  # fmt: skip
    if card is None:
        recordings = read(path, modality=spec.modality)
        card = Card(
            format=1, name="file", title="", modality=cast(Any, spec.modality), licence="", citation="", version="", obtain="",
            files=[Files(pattern=".*", reader="wfdb")], native_sfreq=sorted({r.sfreq for r in recordings}), views={}, public=False,
        )  # fmt: skip
    else:
        require_modality(card, spec)
        recordings = read_as(card, _files_entry(card, path), path)
    try:
        return cut(replace(card, views={"file": view}), "file", recordings)
    except RecordError as error:
        raise RecordError(error.code, str(error), str(path)) if str(path) not in str(error) else error from None


def require_modality(card: Card, spec: InputSpec) -> None:
    """Refuse a card of other signals than the encoder's (RequestError)."""
    if card.modality != spec.modality:
        raise RequestError(f"--card {card.name}: its signals are {card.modality}, the encoder's {spec.modality}")


def _files_entry(card: Card, path: str | Path) -> Files:
    """The card's entry whose pattern a file's name matches."""
    from biossl.corpus.discover import on_the_end

    for files in card.files:
        if on_the_end(files.pattern).fullmatch(Path(path).absolute().as_posix()):
            return files
    patterns = " or ".join(repr(f.pattern) for f in card.files)
    raise RequestError(f"{path}: card {card.name} knows no file of this name ({patterns}); give the card of this data set")
