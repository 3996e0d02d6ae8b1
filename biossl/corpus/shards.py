"""One shard: windows as int16 counts in HDF5, made in memory and written whole.

What lives here: quantising, the shard's bytes, and reading a shard without trusting it. Which records make a shard is
``convert.py``'s business, which row means what the index's.

Layout of ``shard-00000.h5``: ``signal`` int16 (N, C, T), one window a chunk, gzip 1 + shuffle; ``scale`` and ``offset``
float64 (N, C). Physical value = (counts + offset) * scale; -32768 = not observed. ``scale`` is the source's own LSB
where samples are still whole counts (then nothing is lost), else it follows from the 99.99 % range. Rows of which
int16 would clip more than 0.01 % are kept besides as float32 in ``exact``, numbered by ``exact_rows``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from biossl.errors import DataError, RecordError

SCHEMA = 1
UNOBSERVED = -32768
LIMIT = 32767
HEADROOM = 8.0  # a peak of up to 8 times the 99.99 % range is stored without clipping, at 1/4095 of that range or finer
MAX_CLIPPED = 1e-4


@dataclass
class Counts:
    """Quantised windows of one record.

    ``counts`` int16 (n, C, T); ``scale``, ``offset`` float64 (C,); ``exact`` float32 (n, C, T) or None; ``lossless``
    bool (C,); ``clipped`` number of samples that were limited.
    """

    counts: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    lossless: np.ndarray
    exact: np.ndarray | None = None
    clipped: int = 0


def quantise(data: np.ndarray, lsb: np.ndarray | None = None, baseline: np.ndarray | None = None) -> Counts:
    """Counts of the windows of one record.

    Parameters
    ----------
    data : ndarray, float32, (n, C, T)
        Canonical units, NaN = not observed.
    lsb, baseline : ndarray, float64, (C,), optional
        One count and the value of count 0 of the source. They are believed only where every sample is a whole count
        (a filtered or resampled channel is not).

    Returns
    -------
    Counts

    Raises
    ------
    RecordError
        Code ``infinite`` when a sample is infinite.

    Examples
    --------
    >>> q = quantise(np.float32([[[0.005, -0.01, np.nan]]]), lsb=np.array([0.005]))
    >>> q.counts.tolist(), float(q.scale[0])
    ([[[1, -2, -32768]]], 0.005)
    """
    n, c, _ = data.shape
    out = np.full(data.shape, UNOBSERVED, np.int16)
    scale, offset = np.ones(c), np.zeros(c)
    lossless = np.zeros(c, bool)
    clipped, too_many = 0, False
    for i in range(c):
        observed = ~np.isnan(data[:, i])
        values = data[:, i][observed].astype(np.float64)
        if values.size == 0:
            continue
        if not np.isfinite(values).all():
            raise RecordError("infinite", "a sample is infinite; mend the file or the gain in its header")
        own = _whole_counts(values, i, lsb, baseline)
        if own is not None:
            counts, scale[i], offset[i] = own
            lossless[i] = True
        else:
            counts, scale[i], offset[i], over = _fit(values)
            clipped += over
            too_many |= over > MAX_CLIPPED * values.size
        out[:, i][observed] = counts
    return Counts(out, scale, offset, lossless, data.copy() if too_many else None, clipped)


def _whole_counts(
    values: np.ndarray, i: int, lsb: np.ndarray | None, baseline: np.ndarray | None
) -> tuple[np.ndarray, float, float] | None:
    """The source's own counts, where every sample is one and they fit 16 bits; then scale and offset."""
    if lsb is None or not np.isfinite(lsb[i]) or lsb[i] <= 0:
        return None
    step = float(lsb[i])
    zero = float(baseline[i]) / step if baseline is not None and np.isfinite(baseline[i]) else 0.0
    zero = float(np.round(zero)) if abs(zero - np.round(zero)) < 1e-6 else zero  # a whole count in every format but EDF
    counts = np.rint(values / step - zero)
    low, high = counts.min(), counts.max()
    shift = 0.0 if low >= -LIMIT and high <= LIMIT else float(np.rint((low + high) / 2))
    if low - shift < -LIMIT or high - shift > LIMIT:
        return None
    if not np.array_equal(((counts + zero) * step).astype(np.float32), values.astype(np.float32)):
        if np.abs(values / step - zero - counts).max() > 0.01:  # float32 arithmetic of a reader errs by less
            return None
    return (counts - shift).astype(np.int16), step, zero + shift


def _fit(values: np.ndarray) -> tuple[np.ndarray, float, float, int]:
    """Counts, scale, offset and number of clipped samples from the 99.99 % range."""
    middle = float(np.median(values))
    size = np.abs(values - middle)
    peak = float(size.max())
    if peak == 0:  # constant: one count holds the value
        step = abs(middle) or 1.0
        return np.zeros(values.shape, np.int16), step, float(np.sign(middle)), 0
    usual = float(np.quantile(size, 1 - MAX_CLIPPED, method="lower"))
    reach = min(peak, HEADROOM * usual) if usual > 0 else peak
    step = reach / (LIMIT - 1)  # one count is spare for rounding the offset
    offset = float(np.rint(middle / step))
    counts = np.rint(values / step) - offset
    over = int((np.abs(counts) > LIMIT).sum())
    return np.clip(counts, -LIMIT, LIMIT).astype(np.int16), step, offset, over


def physical(counts: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Values in canonical units, float32 (n, C, T), NaN where not observed.

    Parameters
    ----------
    counts : ndarray, int16, (n, C, T)
    scale, offset : ndarray, (n, C)
    """
    out = np.empty(counts.shape, np.float32)
    for i in range(len(counts)):  # one window at a time: float64 on the way, without a float64 copy of the batch
        out[i] = (counts[i] + offset[i][:, None].astype(np.float64)) * scale[i][:, None].astype(np.float64)
    out[counts == UNOBSERVED] = np.nan
    return out


def shard_bytes(parts: Sequence[Counts], n_channels: int, n_samples: int, attributes: dict[str, Any]) -> bytes:
    """The bytes of a shard file: equal input, equal bytes.

    Parameters
    ----------
    parts : sequence of Counts
        Records in order.
    n_channels, n_samples : int
        C and T (also of an empty shard).
    attributes : dict of str to str, int or float
    """
    n = sum(len(p.counts) for p in parts)
    shape = (n, n_channels, n_samples)
    buffer = io.BytesIO()
    with h5py.File("shard", "w", driver="core", backing_store=False, libver=("earliest", "v110"), track_order=True) as f:
        f.attrs["schema"] = SCHEMA
        for key in sorted(attributes):
            f.attrs[key] = attributes[key]
        gzip: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if n else {}
        chunks = (1, n_channels, n_samples) if n else None
        signal = f.create_dataset("signal", shape, "<i2", chunks=chunks, track_times=False, **gzip)
        scale, offset = np.ones(shape[:2]), np.zeros(shape[:2])
        exact_rows: list[int] = []
        row = 0
        for part in parts:
            stop = row + len(part.counts)
            for k, window in enumerate(part.counts):
                signal[row + k] = window
            scale[row:stop], offset[row:stop] = part.scale, part.offset
            if part.exact is not None:
                exact_rows += range(row, stop)
            row = stop
        f.create_dataset("scale", data=scale, dtype="<f8", track_times=False)
        f.create_dataset("offset", data=offset, dtype="<f8", track_times=False)
        if exact_rows:
            f.create_dataset("exact_rows", data=np.array(exact_rows), dtype="<i8", track_times=False)
            exact = f.create_dataset("exact", (len(exact_rows), *shape[1:]), "<f4", chunks=chunks, track_times=False, **gzip)
            for k, window in enumerate(w for p in parts if p.exact is not None for w in p.exact):
                exact[k] = window
        f.flush()
        buffer.write(f.id.get_file_image())
    return buffer.getvalue()


class Shard:
    """An open shard; every dataset is checked before a byte of it is read.

    Parameters
    ----------
    path : Path
    n_rows, n_channels, n_samples : int
        What the corpus says it holds; another shape is refused before anything is allocated.

    Raises
    ------
    DataError
        Missing, not HDF5, links that lead outside the file, a shape or type the corpus does not declare.
    """

    def __init__(self, path: Path, n_rows: int, n_channels: int, n_samples: int) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise DataError(f"{path}: shard is missing; make the corpus again with `biossl convert`") from None
        except OSError as error:
            raise _damaged(path, f"not readable as HDF5 ({str(error)[:60]})") from None
        try:
            self.signal = self._dataset("signal", (n_rows, n_channels, n_samples), "i2")
            self.scale = self._dataset("scale", (n_rows, n_channels), "f8")[...]
            self.offset = self._dataset("offset", (n_rows, n_channels), "f8")[...]
            self.exact_rows = np.zeros(0, np.int64)
            self._exact: h5py.Dataset | None = None
            if "exact_rows" in self._file:
                size = self._file["exact_rows"].size
                if size > n_rows:
                    raise _damaged(path, "more exact rows than rows")
                self.exact_rows = self._dataset("exact_rows", (size,), "i8")[...]
                self._exact = self._dataset("exact", (size, n_channels, n_samples), "f4")
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            self.close()
            raise _damaged(path, str(error)[:80]) from None
        except DataError:
            self.close()
            raise

    def _dataset(self, name: str, shape: tuple[int, ...], kind: str) -> h5py.Dataset:
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise _damaged(self.path, f"'{name}' is absent or a link")
        data = self._file[name]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise _damaged(self.path, f"'{name}' leads outside the file")
        if data.shape != shape or data.dtype.str[1:] != kind:
            raise _damaged(self.path, f"'{name}' is {data.dtype} {data.shape}, expected {kind} {shape}")
        return data

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """int16 (n, C, T) of the rows in the order given."""
        out = np.empty((len(rows), *self.signal.shape[1:]), np.int16)
        try:
            for k, row in enumerate(rows):  # a loop: h5py's list indexing is 7-35 times slower
                self.signal.read_direct(out, np.s_[int(row)], np.s_[k])
        except OSError as error:
            raise _damaged(self.path, str(error)[:80]) from None
        return out

    def exact(self, row: int) -> np.ndarray | None:
        """float32 (C, T) of a row kept exactly, else None."""
        if self._exact is None:
            return None
        found = np.searchsorted(self.exact_rows, row)
        if found == len(self.exact_rows) or self.exact_rows[found] != row:
            return None
        return self._exact[int(found)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: damaged shard, {what}; make the corpus again with `biossl convert ... --overwrite`")
