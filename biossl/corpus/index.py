"""The Corpus: one converted folder, opened for reading.

What lives here: opening, gathering windows by row, verifying. Labels are derived in ``labels.py``, splits in
``splits.py``; nothing here writes except the memory map beside the shards.

A folder holds ``card.yaml``, ``spec.json``, ``index.parquet``, ``events.parquet``, ``shard-*.h5``, ``quarantine.csv``,
``labels/``, ``splits/`` and, after the first read, ``cache/`` (the same counts as one int16 ``.npy``: the fast path).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biossl.errors import DataError, MachineError, RequestError
from biossl.signal import InputSpec

if TYPE_CHECKING:
    import pandas as pd

    from biossl.corpus.card import Card
    from biossl.corpus.labels import Labels
    from biossl.corpus.shards import Shard

CORPUS_FORMAT = 1
INDEX_COLUMNS = (
    "shard", "row", "subject", "record", "segment", "start_s", "n_samples", "quality", "split", "event", "sha256", "record_sha256",
)  # fmt: skip
EVENT_COLUMNS = ("subject", "record", "onset_s", "duration_s", "label", "channel", "kind", "source")
_OPEN_SHARDS = 8


class Corpus:
    """One view of one card, on disk. Make it with :meth:`open`.

    Attributes
    ----------
    path : Path
    spec : InputSpec
        What one window is.
    view : str
        Name of the card's view.
    hash : str
        Hex; the same on every machine for the same windows, keys and spec.
    funnel : dict
        Counts of the conversion: files found, readable, windows cut and dropped by reason.
    findings : list of str

    Examples
    --------
    >>> corpus = Corpus.open("corpora/ptbxl")            # doctest: +SKIP
    >>> counts, scale, offset = corpus.read([0, 5])      # doctest: +SKIP
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts = facts
        self.spec = InputSpec.from_dict(facts["input"])
        self.view: str = facts["view"]
        self.hash: str = facts["hash"]
        self.funnel: dict[str, Any] = facts["funnel"]
        self.findings: list[str] = facts["findings"]
        self.stops = np.cumsum([s["rows"] for s in facts["shards"]], dtype=np.int64)  # first row after each shard
        self._local: _Handles | None = None

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Open a finished corpus; shards are not touched.

        Raises
        ------
        RequestError
            No such folder, not a corpus, or a conversion that has not ended.
        DataError
            ``spec.json`` is damaged or of another format.
        """
        path = Path(path)
        file = path / "spec.json"
        if not file.is_file():
            if (path / "plan.json").is_file():
                raise RequestError(f"{path}: the conversion has not ended; run the same `biossl convert` command again")
            if not path.is_dir():
                raise RequestError(f"{path}: no such folder; make a corpus with `biossl convert CARD SOURCE {path} --view NAME`")
            new = f"`biossl convert CARD {path} corpora/{path.resolve().name} --view NAME`"
            raise RequestError(
                f"{path}: not a corpus (no spec.json); if it holds recordings, make one in a new folder with {new}"
            )
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            if facts["format"] != CORPUS_FORMAT:
                raise DataError(f"{file}: corpus format {facts['format']}, this biossl reads {CORPUS_FORMAT}; convert it again")
            _require_facts(facts)
            return cls(path, facts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}: damaged ({str(error)[:60]}); make the corpus again with `biossl convert`") from None

    def __repr__(self) -> str:
        s = self.spec
        return f"Corpus({self.path}, {len(self)} windows of {len(s.ch_names)} x {s.n_samples} at {s.sfreq:g} Hz)"

    def __len__(self) -> int:
        return int(self.stops[-1]) if len(self.stops) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "facts": self.facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["facts"])  # type: ignore[misc]

    @cached_property
    def card(self) -> Card:
        """The card as it was used."""
        from biossl.config import build, load_yaml
        from biossl.corpus.card import Card

        file = self.path / "card.yaml"
        if not file.is_file():
            raise DataError(f"{file}: missing; make the corpus again with `biossl convert ... --overwrite`")
        card = build(Card, load_yaml(file), where=str(file))
        known = self.facts["card"]
        if (card.name, card.version, card.public) != (known["name"], known["version"], known["public"]):
            raise DataError(f"{file}: name, version or public is not the card's that was converted; put the right file back")
        return card

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row a window, in shard order: :data:`INDEX_COLUMNS` and the record's covariates.

        Raises
        ------
        DataError
            Missing, damaged, or not what ``spec.json`` and its hash say: then nothing that is said of the corpus holds.
        """
        file = self.path / "index.parquet"
        index = _table(file)
        if len(index) != len(self) or corpus_hash(self.facts, index) != self.hash:
            raise DataError(
                f"{file}: it or spec.json differs from what was written; make the corpus again with `biossl convert ... --overwrite`"
            )
        return index

    @cached_property
    def events(self) -> pd.DataFrame:
        """All events of the records: :data:`EVENT_COLUMNS`, and ``missing`` where any lacks a bound (:class:`~biossl.signal.Annotation`)."""
        file = self.path / "events.parquet"
        events = _table(file)
        absent = [name for name in EVENT_COLUMNS if name not in events]
        if absent:
            raise DataError(f"{file}: no column '{absent[0]}'; make the corpus again with `biossl convert ... --overwrite`")
        return events

    @cached_property
    def positions(self) -> np.ndarray | None:
        """Where channels sit, float32 (C, 3) in metres, or None when the channels have no place."""
        from biossl.channels import positions

        return positions(self.spec.ch_names)

    # ------------------------------------------------------------------ windows

    def read(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gather windows as counts: value = (counts + offset) * scale, -32768 = not observed.

        Parameters
        ----------
        rows : sequence of int
            Rows of the index, in any order.

        Returns
        -------
        counts : ndarray, int16, (n, C, T)
        scale, offset : ndarray, float32, (n, C)
        """
        rows = self._rows(rows)
        counts, scale, offset = self._gather(rows)
        return counts, scale.astype(np.float32), offset.astype(np.float32)

    def signal(self, rows: Any) -> np.ndarray:
        """Gather windows in canonical units, float32 (n, C, T), NaN where not observed."""
        from biossl.corpus.shards import physical

        rows = self._rows(rows)
        out = physical(*self._gather(rows))
        for k, row in enumerate(rows):
            shard = int(np.searchsorted(self.stops, row, side="right"))
            if self.facts["shards"][shard]["exact"]:
                exact = self._handles.shard(shard).exact(int(row - self._first(shard)))
                if exact is not None:
                    out[k] = exact
        return out

    def prepare(self) -> bool:
        """Make the memory map beside the shards if it is absent; False where the folder cannot hold it."""
        return self._handles.map() is not None

    def require_readable(self) -> None:
        """Make the memory map, or see that every shard opens with the declared shape (:meth:`verify` compares bytes).

        Raises
        ------
        DataError
            Names the shard that is missing or damaged, and the remedy.
        """
        mapped = self.prepare()
        for number, shard in enumerate(self.facts["shards"]):
            if shard["exact"] or not mapped:
                self._handles.shard(number)

    def _rows(self, rows: Any) -> np.ndarray:
        rows = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in 0..{len(self) - 1}")
        return rows

    def _first(self, shard: int) -> int:
        return int(self.stops[shard - 1]) if shard else 0

    @property
    def _handles(self) -> _Handles:
        if self._local is None or self._local.pid != os.getpid():  # a handle must not cross a fork
            self._local = _Handles(self)
        return self._local

    def _gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        held = self._handles.map()
        if held is not None:
            return held[0][rows], held[1][rows], held[2][rows]
        shape = (len(rows), len(self.spec.ch_names))
        counts = np.empty((*shape, self.spec.n_samples), np.int16)
        scale, offset = np.empty(shape), np.empty(shape)
        shards = np.searchsorted(self.stops, rows, side="right")
        for number in np.unique(shards):
            where = np.flatnonzero(shards == number)
            shard, inside = self._handles.shard(int(number)), rows[where] - self._first(int(number))
            counts[where], scale[where], offset[where] = shard.counts(inside), shard.scale[inside], shard.offset[inside]
        return counts, scale, offset

    # ------------------------------------------------------------------ labels and splits

    def label_names(self) -> list[str]:
        """Names of all labels: the card's and the added ones."""
        from biossl.corpus.labels import label_names

        return label_names(self)

    def labels(self, name: str) -> Labels:
        """A label for every row; see :func:`biossl.corpus.labels.load_labels`."""
        from biossl.corpus.labels import load_labels

        return load_labels(self, name)

    def split_names(self) -> list[str]:
        """Names of all splits; ``official`` is the card's first."""
        from biossl.corpus.splits import split_names

        return split_names(self)

    def split(self, name: str = "official") -> pd.Series:
        """Part of every row (``train``, ``val``, ``test``; '' = in none), aligned to the index."""
        from biossl.corpus.splits import load_split

        return load_split(self, name)

    # ------------------------------------------------------------------ trust

    def verify(self) -> None:
        """Compare every shard and the index with the hashes taken when they were written.

        Raises
        ------
        DataError
            Names the damaged file and the remedy.
        """
        for shard in self.facts["shards"]:
            file = self.path / shard["file"]
            if not file.is_file():
                raise DataError(f"{file}: shard is missing; make the corpus again with `biossl convert ... --overwrite`")
            with open(file, "rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found != shard["sha256"]:
                raise DataError(
                    f"{file}: damaged shard, its SHA-256 differs from the one in spec.json; "
                    "make the corpus again with `biossl convert ... --overwrite`"
                )
        self.events  # noqa: B018 (raises when the table is missing or damaged)
        self.index  # noqa: B018 (likewise)


class _Handles:
    """What one process holds open of a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self.pid = os.getpid()
        self.corpus = corpus
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._map: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._mapped = False

    def shard(self, number: int) -> Shard:
        from biossl.corpus.shards import Shard

        if number not in self._shards:
            while len(self._shards) >= _OPEN_SHARDS:
                self._shards.popitem(last=False)[1].close()
            facts, spec = self.corpus.facts["shards"][number], self.corpus.spec
            self._shards[number] = Shard(self.corpus.path / facts["file"], facts["rows"], len(spec.ch_names), spec.n_samples)
        self._shards.move_to_end(number)
        return self._shards[number]

    def map(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Counts, scale and offset as memory maps, or None where they cannot be made."""
        if not self._mapped:
            self._mapped = True
            self._map = self._open_map()
            if self._map is None:
                self._make_map()
                self._map = self._open_map()  # perhaps another process made it meanwhile
        return self._map

    def _files(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        n, c, t = len(self.corpus), len(self.corpus.spec.ch_names), self.corpus.spec.n_samples
        return {"signal.i16.npy": ("<i2", (n, c, t)), "scale.f64.npy": ("<f8", (n, c)), "offset.f64.npy": ("<f8", (n, c))}

    def _open_map(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        folder = self.corpus.path / "cache"
        try:
            if (folder / "made_from.txt").read_text().strip() != self.corpus.hash:
                return None
            out = []
            for name, (kind, shape) in self._files().items():
                array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
                if array.shape != shape or array.dtype.str != kind:
                    return None
                out.append(array)
            return out[0], out[1], out[2]
        except (OSError, ValueError):
            return None

    def _make_map(self) -> None:
        from biossl.atomic import atomic_folder, require_free
        from biossl.progress import Progress

        corpus = self.corpus
        if not len(corpus) or not os.access(corpus.path, os.W_OK):
            return
        files = self._files()
        try:
            require_free(corpus.path, int(np.prod(files["signal.i16.npy"][1])) * 2 + 2**24)
            with atomic_folder(corpus.path / "cache", overwrite=True) as part:
                streams = {name: open(part / name, "wb") for name in files}
                try:
                    for name, (kind, shape) in files.items():
                        np.lib.format.write_array_header_2_0(
                            streams[name], {"descr": kind, "fortran_order": False, "shape": shape}
                        )
                    quiet = int(np.prod(files["signal.i16.npy"][1])) < 2**28  # half a GB takes a few seconds
                    with Progress(None if quiet else len(corpus), "memory map", "windows") as bar:
                        for number in range(len(corpus.stops)):
                            shard = self.shard(number)
                            # written, not mapped: a full disk under a map is a bus error
                            for start in range(0, len(shard.scale), 256):
                                rows = np.arange(start, min(start + 256, len(shard.scale)))
                                streams["signal.i16.npy"].write(shard.counts(rows).data)
                                if not quiet:
                                    bar.update(len(rows))
                            streams["scale.f64.npy"].write(shard.scale.data)
                            streams["offset.f64.npy"].write(shard.offset.data)
                finally:
                    for stream in streams.values():
                        stream.close()
                (part / "made_from.txt").write_text(corpus.hash + "\n")
        except MachineError:
            return  # full or read-only: the shards serve


def _require_facts(facts: dict[str, Any]) -> None:
    """KeyError, TypeError or ValueError where ``spec.json`` is not what a conversion writes."""
    kinds: list[tuple[Any, str, type]] = [(facts, "view", str), (facts, "hash", str), (facts, "funnel", dict)]
    kinds += [(facts, "findings", list), (facts, "shards", list), (facts["card"], "public", bool)]
    kinds += [(facts["card"], key, str) for key in ("name", "version", "secret_id")]
    for shard in facts["shards"]:
        kinds += [(shard, "file", str), (shard, "sha256", str), (shard, "rows", int), (shard, "exact", int)]
    for held, key, kind in kinds:
        if not isinstance(held[key], kind):
            raise TypeError(f"'{key}' is of another type")
    for shard in facts["shards"]:
        if shard["rows"] < 0 or Path(shard["file"]).name != shard["file"]:
            raise ValueError("a shard of no such name or size")


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; make the corpus again with `biossl convert ... --overwrite`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({str(error)[:60]}); make the corpus again with `biossl convert ... --overwrite`"
        ) from None


def corpus_hash(facts: dict[str, Any], index: pd.DataFrame) -> str:
    """Identity of a corpus: its spec, view, card and every index value; no path, no library version.

    Parameters
    ----------
    facts : dict
        ``format``, ``input``, ``view`` and ``card`` of ``spec.json`` are used.
    index : DataFrame
        Holds the SHA-256 of every window's source samples, so the signal is covered.
    """
    digest = hashlib.sha256()
    head = {key: facts[key] for key in ("format", "input", "view", "card")}
    digest.update(json.dumps(head, sort_keys=True).encode())
    for name in index.columns:
        if name in ("shard", "row"):  # where a window lies is not what it is
            continue
        column = index[name]
        digest.update(f"\x1e{name}\x1f".encode())
        if column.dtype.kind in "iufb":
            digest.update(column.to_numpy(np.float64).astype("<f8").tobytes())
        else:
            values = column.tolist()
            if not all(type(value) is str for value in values):
                values = ["" if value is None else str(value) for value in values]
            digest.update("\x1f".join(values).encode())
    return digest.hexdigest()
