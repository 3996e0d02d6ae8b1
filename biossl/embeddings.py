"""The table of embeddings: one Parquet file with keys, times, labels, quality, features and where they come from.

What lives here: writing that file from a corpus or from recording files. It is made in parts of :data:`PART_ROWS`
windows in a folder beside the output, a list of independent tasks that joblib runs, so a command that was killed goes
on where it stopped; the output's own name only ever names a whole file. Statistics on embeddings are ``probe.py``'s.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biossl import __version__
from biossl.atomic import atomic_file, write_bytes
from biossl.checkpoint import find_encoder, load_encoder, require_match
from biossl.corpus import Corpus
from biossl.corpus.card import Card, load_card
from biossl.corpus.privacy import private_fault
from biossl.errors import BiosslError, DataError, RecordError, RequestError
from biossl.inference import embed_rows, embed_windows, pick_device, require_modality, windows_of_file
from biossl.models.encoder import Encoder, pool_parts
from biossl.progress import Progress, track

if TYPE_CHECKING:
    import pyarrow as pa

    from biossl.corpus.views import Cut

Array = NDArray[Any]
PER = ("window", "recording", "subject")
KEYS = ("subject", "record", "segment", "start_s", "split", "event", "quality")
PART_ROWS = 2_048


def embed_to_parquet(
    encoder_folder: str | Path,
    source: str | Path | list[str | Path],
    out: str | Path,
    *,
    per: str = "window",
    wide: bool = False,
    pool: str = "mean",
    adapt: bool = False,
    card: str | Path | None = None,
    keep_names: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write the table of embeddings of a corpus or of recording files.

    Parameters
    ----------
    encoder_folder : path
        Encoder folder, or a run that holds one.
    source : path or list of paths
        A corpus folder, or recording files that :func:`biossl.io.read` understands; files are filtered, resampled and
        cut into the encoder's windows.
    out : path
        ``.parquet`` file.
    per : {"window", "recording", "subject"}
        One row each; recordings and subjects get the mean of their windows' embeddings, and the labels on which all of
        their windows agree.
    wide : bool
        One column a feature (``e0000`` ...) instead of one list column ``embedding``.
    pool : str
        ``mean``, ``std``, ``max`` or several joined by ``+``.
    adapt : bool
        Accept a corpus or files with other channels (a subset) or, of a corpus, filters than the encoder's.
    card : str or path, optional
        Of recording files: the card that says how they are read (columns of a table, names and units of channels).
    keep_names : bool
        Of recording files: the column ``record`` and the result hold their names. Otherwise they hold ``file-0001`` for
        the first file given, and so on: a name may be a patient's.
    overwrite : bool
    tell : callable, optional
        Takes one line, with its name, for every file that was left out: for a screen, not to be kept.

    Returns
    -------
    dict
        ``out``, ``rows``, ``dim``, ``encoder`` and ``corpus`` hashes, ``unreadable`` (one line a file), ``notes``.

    Raises
    ------
    RequestError
        ``out`` exists; unknown ``per`` or ``pool``.
    DataError
        The corpus does not fit the encoder, or no file gave a window.

    Examples
    --------
    >>> embed_to_parquet("runs/a", "corpora/ptbxl", "ptbxl.parquet", per="subject")  # doctest: +SKIP
    """
    out = Path(out)
    if per not in PER:
        raise RequestError(f"--per {per}: choose one of {', '.join(PER)}")
    dim_parts = len(pool_parts(pool))
    if out.is_dir():
        raise RequestError(f"{out}: a folder; give the name of a .parquet file")
    if out.exists() and not overwrite:
        raise RequestError(f"{out}: exists; give another name or add --overwrite")
    sources = [Path(s) for s in (source if isinstance(source, list) else [source])]
    folder = find_encoder(encoder_folder)
    encoder = load_encoder(folder).to(pick_device())
    of_corpus = len(sources) == 1 and sources[0].is_dir()
    if of_corpus and (card is not None or keep_names):
        raise RequestError(f"{sources[0]}: a corpus has its own card and record names; leave out --card and --keep-names")
    facts: dict[str, Any] = {
        "biossl": __version__, "encoder": encoder.info["hash"], "corpus": "", "pool": pool, "per": per,
        "dim": encoder.dim * dim_parts, "spec": encoder.spec.to_dict(), "notes": [],
    }  # fmt: skip
    unreadable: list[str] = []
    told: list[str] = []
    screen: list[str] = []  # names files
    if of_corpus:
        corpus = Corpus.open(sources[0])
        match = require_match(encoder.spec, corpus.spec, adapt=adapt)
        facts |= {"corpus": corpus.hash, "notes": list(match.notes)}
        key = hashlib.sha256(f"{facts['encoder']} {corpus.hash} {pool} {PART_ROWS}".encode()).hexdigest()[:12]
        parts = out.parent / f".{out.name}.parts-{key}"
        pieces = _corpus_pieces(folder, corpus, parts, pool, adapt)
    elif per == "subject":
        raise RequestError("--per subject: recording files do not say whose they are; convert them with a card first")
    else:
        if not keep_names:
            told.append("record file-0001 is the first file given, and so on; --keep-names writes the files' names instead")
        how = load_card(card) if card is not None else None
        if how is not None:
            require_modality(how, encoder.spec)
        pieces = file_pieces(
            encoder, sources, lambda x, names, _: embed_windows(encoder, x, names, encoder.spec.sfreq, pool=pool), unreadable, told,
            screen, card=how, adapt=adapt, keep_names=keep_names,
        )  # fmt: skip
    if per != "window":
        pieces = iter([_grouped(pieces, {"recording": "record", "subject": "subject"}[per])])
    n = _write(out, pieces, facts, wide)
    for left in out.parent.glob(f".{glob.escape(out.name)}.parts-*"):
        shutil.rmtree(left, ignore_errors=True)
    if tell is not None:
        for line in screen:
            tell(f"left out: {line}")
    return {
        "out": str(out), "rows": n, "per": per, "dim": facts["dim"], "pool": pool, "encoder": facts["encoder"],
        "corpus": facts["corpus"], "unreadable": unreadable, "notes": [*facts["notes"], *told],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- corpus


def _corpus_pieces(folder: Path, corpus: Corpus, parts: Path, pool: str, adapt: bool) -> Iterator[tuple[pd.DataFrame, Array]]:
    """(keys, embeddings) of each part, after all parts are there."""
    from joblib import Parallel, delayed

    keys = _keys(corpus)  # first: a table that is damaged is told before any work
    corpus.prepare()  # the memory map is made once, not by every task
    ranges = [(i, min(i + PART_ROWS, len(corpus))) for i in range(0, len(corpus), PART_ROWS)]
    files = [parts / f"part-{i:05d}.npy" for i in range(len(ranges))]
    missing = [(r, f) for r, f in zip(ranges, files, strict=True) if not f.exists()]
    parts.mkdir(parents=True, exist_ok=True)
    with Progress(len(corpus), "embed", "windows") as bar:
        bar.update(len(corpus) - sum(b - a for (a, b), _ in missing))
        # no n_jobs: one process unless `joblib.parallel_config` names an engine, since torch uses the cores already
        work = (delayed(_embed_part)(str(folder), str(corpus.path), r, str(f), pool, adapt) for r, f in missing)
        for n in Parallel(return_as="generator")(work):
            bar.update(n)
    for (a, b), file in zip(ranges, files, strict=True):
        yield keys.iloc[a:b], np.load(file, allow_pickle=False)


@lru_cache(maxsize=1)
def _opened(folder: str, corpus: str) -> tuple[Encoder, Corpus]:
    """Encoder and corpus of this process."""
    return load_encoder(folder).to(pick_device()), Corpus.open(corpus)


def _embed_part(folder: str, corpus_path: str, rows: tuple[int, int], file: str, pool: str, adapt: bool) -> int:
    """One idempotent task: the features of a range of rows, written whole."""
    encoder, corpus = _opened(folder, corpus_path)
    match = require_match(encoder.spec, corpus.spec, adapt=adapt)
    features = embed_rows(encoder, corpus, np.arange(*rows), match, pool=pool)
    held = io.BytesIO()  # numpy's own writing does not say that the disk is full
    np.save(held, features, allow_pickle=False)
    write_bytes(file, held.getbuffer())
    return len(features)


def _keys(corpus: Corpus) -> pd.DataFrame:
    """Keys and labels of every window; unknown labels are null."""
    frame = corpus.index[[k for k in KEYS if k in corpus.index]].copy()
    for name in corpus.label_names():
        corpus.events  # noqa: B018 (a missing table is an error, not a label left out)
        try:
            labels = corpus.labels(name)
        except DataError:
            continue  # a label of other windows than this view's
        if labels.kind == "multilabel":
            for k, c in enumerate(labels.classes):
                frame[f"label_{name}_{c}"] = labels.values[:, k]
        elif labels.kind == "multiclass":
            v = labels.values[:, 0]
            known = ~np.isnan(v)
            text = np.full(len(v), None, object)
            text[known] = np.array(labels.classes, object)[v[known].astype(int)]
            frame[f"label_{name}"] = text
        else:
            frame[f"label_{name}"] = labels.values[:, 0]
    return frame


# ---------------------------------------------------------------------------------------------- files


def file_pieces(
    encoder: Encoder, files: list[Path], compute: Callable[[Array, Sequence[str], Array], Array], unreadable: list[str],
    told: list[str], screen: list[str], *, card: Card | None, adapt: bool, keep_names: bool, verb: str = "embed",
) -> Iterator[tuple[pd.DataFrame, Array]]:  # fmt: skip
    """Keys of each file's windows, and what is computed of them.

    A file that cannot be used costs one line in ``unreadable`` (without names unless they are kept) and in ``screen``; that no file
    could be used is a DataError. ``compute`` takes windows (n, C, T), the names of their channels and their starts in seconds.
    """
    records: set[str] = set()
    for number, file in enumerate(track(files, len(files), verb, "files"), start=1):
        record = f"file-{number:04d}"
        try:
            cut = windows_of_file(file, encoder.spec, card=card, adapt=adapt)
            if not len(cut.data):
                reasons = ", ".join(f"{n} {why}" for why, n in cut.dropped.items() if n) or "shorter than one window"
                raise DataError(f"{file}: no window of {encoder.spec.window_s:g} s ({reasons})")
            names = _observed(file, cut, encoder, told, str(file) if keep_names else record) if adapt else encoder.spec.ch_names
        except BiosslError as error:
            screen.append(str(error))
            unreadable.append(str(error) if keep_names else _unnamed(error, file, record, encoder.spec.modality))
            continue
        if keep_names:
            record = cut.record if cut.record not in records else str(file)  # two folders may hold files of one name
        records.add(record)
        frame = pd.DataFrame({
            "subject": pd.array([cut.subject] * len(cut.data), dtype="string"), "record": record, "segment": cut.segment,
            "start_s": cut.start_s, "split": "", "event": "", "quality": cut.quality,
        })  # fmt: skip
        x = cut.data[:, [encoder.spec.ch_names.index(n) for n in names]]
        yield frame, compute(x, names, np.asarray(cut.start_s, np.float64))
    if not records:
        more = f" (and {len(screen) - 1} more)" if len(screen) > 1 else ""
        raise DataError(f"{screen[0]}{more}" if screen else "no files; name at least one recording")


def _unnamed(error: BiosslError, file: Path, record: str, modality: str) -> str:
    """An error without names: a reader's own words may hold those of other files, of folders and of a header."""
    if not isinstance(error, RecordError):
        return str(error).replace(str(file), record)
    if error.code == "missing_channel":
        return f"{record}: a channel of the encoder is not in it; map its name with --card, or add --adapt"
    return f"{record}: {private_fault(error.code, modality)}"


def _observed(file: Path, cut: Cut, encoder: Encoder, told: list[str], shown: str) -> tuple[str, ...]:
    """Channels of the encoder that a file has, as with a corpus that lacks some; a note names the others."""
    there = np.isfinite(cut.data).any(axis=(0, 2))
    absent = " ".join(n for n, has in zip(encoder.spec.ch_names, there, strict=True) if not has)
    if absent and encoder.config.tokenizer == "joint":
        raise DataError(f"{file}: channels {absent} are missing; an encoder with a joint tokenizer needs all of its channels")
    if absent:
        told.append(f"adapted {shown}: channels {absent} are unobserved")
    return tuple(n for n, has in zip(encoder.spec.ch_names, there, strict=True) if has)


# ---------------------------------------------------------------------------------------------- rows and file


def _grouped(pieces: Iterator[tuple[pd.DataFrame, Array]], key: str) -> tuple[pd.DataFrame, Array]:
    """One row a recording or subject: mean embedding of its observed windows, labels where all windows agree."""
    frames: list[pd.DataFrame] = []
    number: dict[str, int] = {}
    total, count = np.zeros((0, 1)), np.zeros(0)
    for frame, features in pieces:
        ids = frame[key].astype("string").fillna("").tolist()
        for name in ids:
            number.setdefault(name, len(number))
        codes = np.array([number[name] for name in ids])
        grown = np.zeros((len(number), features.shape[1]))
        grown[: len(total)] += total
        total, count = grown, np.pad(count, (0, len(number) - len(count)))
        seen = np.isfinite(features).all(axis=1)
        np.add.at(total, codes[seen], features[seen])
        np.add.at(count, codes[seen], 1)
        frames.append(frame.assign(_code=codes))
    table = pd.concat(frames, ignore_index=True)
    groups = table.groupby("_code", sort=True)
    rows: dict[str, Any] = {}
    for name in table.columns.drop("_code"):
        if name in ("segment", "event") or (name == "record" and key == "subject"):
            continue
        if name == "start_s":
            rows[name] = groups[name].min()
        elif name == "quality":
            rows[name] = groups[name].mean()
        else:
            rows[name] = groups[name].first().where(groups[name].nunique(dropna=False) == 1)
    frame = pd.DataFrame(rows)
    if key == "subject":
        frame = frame.drop(columns="start_s").assign(n_records=groups["record"].nunique())
    frame = frame.assign(n_windows=groups.size()).reset_index(drop=True)
    with np.errstate(invalid="ignore"):
        return frame, (total / count[:, None]).astype(np.float32)


def _write(out: Path, pieces: Iterator[tuple[pd.DataFrame, Array]], facts: dict[str, Any], wide: bool) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 0
    writer = None
    with atomic_file(out) as part:
        try:
            for frame, features in pieces:
                table = _arrow(frame, features, wide)
                if writer is None:
                    schema = table.schema.with_metadata({"biossl": json.dumps(facts)})
                    writer = pq.ParquetWriter(part, _plain(schema, pa), compression="zstd")
                writer.write_table(table.cast(writer.schema))
                n += len(frame)
        finally:
            if writer is not None:
                writer.close()
    return n


def _plain(schema: pa.Schema, pa: Any) -> pa.Schema:
    """A column that is empty in the first part (type null) is text: labels unknown there may come later."""
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _arrow(frame: pd.DataFrame, features: Array, wide: bool) -> pa.Table:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    features = np.ascontiguousarray(features, np.float32)
    if wide:
        for i in range(features.shape[1]):
            table = table.append_column(f"e{i:04d}", pa.array(features[:, i]))
    else:
        column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
        table = table.append_column("embedding", column)
    return table.replace_schema_metadata(None)
