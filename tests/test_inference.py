"""Features of a corpus equal the encoder's own, in the order asked for; what does not fit is refused by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from probe_factory import small_encoder

from biossl import inference
from biossl.errors import DataError, RecordError
from biossl.models.transformer import EncoderConfig, TransformerEncoder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("inference") / "c", n_subjects=3, n_channels=3, windows_per_subject=4)


def test_features_equal_embed_window_by_window_in_any_order(corpus, monkeypatch):
    encoder = small_encoder(corpus)
    rows = np.array([7, 0, 11, 3, 3])
    monkeypatch.setattr(inference, "BLOCK_ROWS", 2)
    got = inference.embed_corpus(encoder, corpus, rows, pool="mean+std+max")
    expect = np.stack([encoder.embed(corpus.signal([r]), "mean+std+max")[0].numpy() for r in rows])
    np.testing.assert_allclose(got, expect, atol=1e-5)
    assert got.dtype == np.float32 and got.shape == (5, 48)
    assert inference.embed_corpus(encoder, corpus, []).shape == (0, 16)


def test_unobserved_samples_are_masked_not_read_as_zero(corpus):
    encoder = small_encoder(corpus)
    x = corpus.signal([0])
    assert np.isnan(x).any()
    masked = inference.embed_windows(encoder, x, corpus.spec.ch_names, corpus.spec.sfreq)
    zeros = inference.embed_windows(encoder, np.nan_to_num(x), corpus.spec.ch_names, corpus.spec.sfreq)
    assert np.abs(masked - zeros).max() > 1e-3


def test_the_last_block_is_the_output_before_the_final_norm(corpus):
    encoder = small_encoder(corpus)
    blocks = inference.embed_corpus(encoder, corpus, [1, 2], layers=[0, 1])
    assert blocks.shape == (2, 2, 16)
    batch = inference.make_batch(corpus.signal([1, 2]), corpus.spec.ch_names, corpus.spec.sfreq, torch.device("cpu"))
    hidden = encoder.encode(encoder.tokenize(batch), layers=[1]).hidden[0]
    np.testing.assert_allclose(blocks[:, 1], hidden.mean(1).detach().numpy(), atol=1e-5)


def test_another_rate_is_refused_and_a_subset_of_channels_needs_adapt(corpus):
    config = EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.2)
    fast = TransformerEncoder(replace(corpus.spec, sfreq=200.0), config)
    with pytest.raises(DataError, match="sfreq: 200.0 here, 100.0 there"):
        inference.embed_corpus(fast, corpus, [0])
    wider = replace(
        corpus.spec, ch_names=("V1", "II", "I"), ch_types=("ecg",) * 3, units=("mV",) * 3
    )  # another order, one channel the corpus lacks, and one (III) it does not know
    encoder = TransformerEncoder(wider, config)
    with pytest.raises(DataError, match="--adapt"):
        inference.embed_corpus(encoder, corpus, [5])
    got = inference.embed_corpus(encoder, corpus, [5], adapt=True)
    x = corpus.signal([5])
    direct = inference.embed_windows(encoder, x[:, [1, 0]], ("II", "I"), 100.0)
    np.testing.assert_allclose(got, direct, atol=1e-6)


def test_a_file_that_is_no_recording_is_a_record_error(corpus, tmp_path):
    (tmp_path / "x.edf").write_bytes(b"")
    with pytest.raises(RecordError):
        inference.windows_of_file(tmp_path / "x.edf", corpus.spec)


@pytest.mark.data
def test_files_give_the_same_features_as_the_corpus_made_from_them(data_root, tmp_path):
    from biossl.corpus import Corpus, convert
    from biossl.corpus.card import load_card

    card = load_card("ptbxl")
    convert(card, data_root / "ptbxl_subset", tmp_path / "c", view="resting", partial=True)
    corpus = Corpus.open(tmp_path / "c")
    encoder = small_encoder(corpus)
    file = next((data_root / "ptbxl_subset" / "records100").rglob("00001_lr.hea"))
    cut = inference.windows_of_file(file, corpus.spec)
    direct = inference.embed_windows(encoder, cut.data, corpus.spec.ch_names, corpus.spec.sfreq)
    row = np.flatnonzero(corpus.index["record"] == "00001")
    np.testing.assert_allclose(direct, inference.embed_corpus(encoder, corpus, row), atol=1e-6)
