"""Shards: nothing is lost that the source had, equal input gives equal bytes, and a foreign file is not trusted."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.corpus.shards import LIMIT, UNOBSERVED, Counts, Shard, physical, quantise, shard_bytes
from biossl.errors import DataError, RecordError


def back(q: Counts) -> np.ndarray:
    n = len(q.counts)
    return physical(q.counts, np.tile(q.scale, (n, 1)), np.tile(q.offset, (n, 1)))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    gain=st.sampled_from([200.0, 1000.0, 204.8, 0.3, 7.0]),
    zero=st.integers(-40000, 40000),
    span=st.integers(1, 32000),
    gaps=st.booleans(),
)
def test_whole_counts_of_a_source_come_back_bit_exact(seed: int, gain: float, zero: int, span: int, gaps: bool) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(-span, span + 1, (3, 2, 50)) + zero
    x = ((source - zero) / gain).astype(np.float32)
    if gaps:
        x[rng.random(x.shape) < 0.2] = np.nan
    q = quantise(x, lsb=np.full(2, 1 / gain), baseline=np.full(2, -zero / gain))
    assert q.lossless.all() or np.isnan(x).all(axis=(0, 2)).any()
    np.testing.assert_array_equal(back(q), x)


def test_a_24_bit_source_with_a_large_offset_is_still_whole_counts() -> None:
    source = np.random.default_rng(0).integers(4_000_000, 4_060_000, (2, 1, 400))
    x = (source * 0.03125).astype(np.float32)
    q = quantise(x, lsb=np.array([0.03125]), baseline=np.zeros(1))
    assert q.lossless[0]
    np.testing.assert_array_equal(back(q), x)


def test_a_baseline_between_counts_is_kept() -> None:
    """EDF: physical minimum and maximum need not make zero a whole count."""
    source = np.random.default_rng(0).integers(-32768, 32767, (2, 1, 400))
    step = 6553.5 / 65535
    x = (step * (source + 0.5)).astype(np.float32)
    q = quantise(x, lsb=np.array([step]), baseline=np.array([0.5 * step]))
    assert q.lossless[0]
    np.testing.assert_array_equal(back(q), x)


def test_a_stated_lsb_is_not_believed_when_samples_are_no_counts() -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 400)).astype(np.float32)
    q = quantise(x, lsb=np.array([0.005]), baseline=np.zeros(1))
    assert not q.lossless[0]
    assert np.abs(back(q) - x).max() < 1e-3


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.floats(1e-6, 1e6), shift=st.floats(-100, 100), gaps=st.floats(0, 1),
)  # fmt: skip
def test_what_is_not_lossless_errs_by_half_a_count_and_keeps_its_gaps(seed: int, size: float, shift: float, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    x = (size * (rng.normal(size=(3, 2, 60)) + shift)).astype(np.float32)
    x[rng.random(x.shape) < gaps] = np.nan
    q = quantise(x)
    y = back(q)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    if q.exact is None and not np.isnan(x).all():
        error = np.abs(y.astype(np.float64) - x)
        bound = 0.5 * q.scale[None, :, None] * 1.001 + 2 * np.spacing(np.abs(x))
        assert np.nanmax(error - bound) <= 0
    assert q.clipped == 0 or q.exact is not None


def test_a_rare_spike_in_a_long_record_is_limited_and_counted() -> None:
    x = np.random.default_rng(0).normal(size=(40, 1, 1000)).astype(np.float32)
    x[3, 0, 5] = 1e4
    q = quantise(x)
    assert q.clipped == 1 and q.exact is None and q.counts[3, 0, 5] == LIMIT
    assert q.scale[0] < 2e-3, "the spike must not cost everybody else their resolution"


def test_what_would_clip_more_than_one_in_ten_thousand_is_kept_as_float32(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 500)).astype(np.float32)
    x[1, 0, 7] = 1e6
    q = quantise(x)
    assert q.exact is not None
    plain = quantise(np.ones((3, 1, 500), np.float32))
    (tmp_path / "s.h5").write_bytes(shard_bytes([plain, q], 1, 500, {}))
    shard = Shard(tmp_path / "s.h5", 5, 1, 500)
    assert shard.exact(2) is None and shard.exact_rows.tolist() == [3, 4]
    found = shard.exact(4)
    assert found is not None
    np.testing.assert_array_equal(found, x[1])


@pytest.mark.parametrize("value", [0.0, 1.0, -0.37, 3e5])
def test_a_constant_channel(value: float) -> None:
    x = np.full((1, 1, 20), value, np.float32)
    np.testing.assert_allclose(back(quantise(x)), x, rtol=1e-7)


def test_nothing_observed() -> None:
    q = quantise(np.full((2, 3, 8), np.nan, np.float32))
    assert (q.counts == UNOBSERVED).all() and np.isnan(back(q)).all()


def test_infinite_samples_are_a_fault_of_the_record() -> None:
    x = np.zeros((1, 1, 8), np.float32)
    x[0, 0, 0] = np.inf
    with pytest.raises(RecordError) as caught:
        quantise(x)
    assert caught.value.code == "infinite"


def test_equal_input_equal_bytes_and_order_of_windows() -> None:
    x = np.random.default_rng(0).normal(size=(4, 2, 30)).astype(np.float32)
    a = shard_bytes([quantise(x)], 2, 30, {"b": 1, "a": "text"})
    assert a == shard_bytes([quantise(x)], 2, 30, {"a": "text", "b": 1})
    assert a != shard_bytes([quantise(x[::-1].copy())], 2, 30, {"a": "text", "b": 1})


def test_layout_is_one_window_a_chunk(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_bytes(shard_bytes([quantise(np.zeros((3, 2, 30), np.float32))], 2, 30, {}))
    with h5py.File(tmp_path / "s.h5") as f:
        d = f["signal"]
        assert d.chunks == (1, 2, 30) and d.compression == "gzip" and d.compression_opts == 1 and d.shuffle
        assert d.dtype == np.int16 and f["scale"].shape == f["offset"].shape == (3, 2)


def test_a_shard_without_windows(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_bytes(shard_bytes([], 2, 30, {}))
    assert Shard(tmp_path / "s.h5", 0, 2, 30).counts(np.zeros(0, int)).shape == (0, 2, 30)


def _good(f: h5py.File) -> None:
    f.create_dataset("signal", (3, 2, 30), "i2")
    f.create_dataset("scale", (3, 2), "f8")
    f.create_dataset("offset", (3, 2), "f8")


def _huge(f: h5py.File, folder: Path) -> None:
    f.create_dataset("signal", (2**34, 2, 30), "i2", chunks=(1, 2, 30))


def _external_link(f: h5py.File, folder: Path) -> None:
    f["signal"] = h5py.ExternalLink(str(folder / "other.h5"), "/signal")


def _soft_link(f: h5py.File, folder: Path) -> None:
    f["signal"] = h5py.SoftLink("/scale")


def _virtual(f: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 2, 30), "i2")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "signal", shape=(3, 2, 30))
    f.create_virtual_dataset("signal", layout)


def _external_storage(f: h5py.File, folder: Path) -> None:
    (folder / "raw").write_bytes(b"secret of another file" * 100)
    f.create_dataset("signal", (3, 2, 30), "i2", external=[(str(folder / "raw"), 0, h5py.h5f.UNLIMITED)])


def _group(f: h5py.File, folder: Path) -> None:
    f.create_group("signal")


def _type(f: h5py.File, folder: Path) -> None:
    f.create_dataset("signal", (3, 2, 30), "f4")


@pytest.mark.parametrize("trick", [_huge, _external_link, _soft_link, _virtual, _external_storage, _group, _type])
def test_a_file_that_is_not_what_the_corpus_says_is_refused(tmp_path: Path, trick: object) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as f:
        _good(f)
    with h5py.File(tmp_path / "s.h5", "w") as f:
        _good(f)
        del f["signal"]
        trick(f, tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match="s.h5: damaged shard.*biossl convert"):
        Shard(tmp_path / "s.h5", 3, 2, 30)


def test_no_hdf5_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_bytes(b"not hdf5")
    with pytest.raises(DataError, match="damaged shard"):
        Shard(tmp_path / "s.h5", 3, 2, 30)
    with pytest.raises(DataError, match="missing"):
        Shard(tmp_path / "t.h5", 3, 2, 30)
