"""What `check` finds before anything is trained, and that its estimates are near what really happens."""

import re

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus

from biossl.batch import Batch
from biossl.corpus import subject_keys
from biossl.errors import DataError, RequestError
from biossl.keys import Keys
from biossl.recipe import load_recipe
from biossl.recipe.check import check_pair, check_recipe, example_spec

SMALL = {"model.dim": "16", "model.depth": "2", "model.heads": "2", "objective.predictor.dim": "8", "data.batch_size": "8"}
SMALL |= {"objective.predictor.depth": "1", "objective.predictor.heads": "2", "objective.target_layers": "1"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("c") / "ecg", n_channels=8, n_samples=200)


def recipe(**overrides):
    return load_recipe("ecg/jepa_small", SMALL | {k.replace("__", "."): str(v) for k, v in overrides.items()})


def test_a_pair_that_fits_has_no_finding(corpus):
    assert check_pair(recipe(), corpus) == []


@pytest.mark.parametrize(
    ("overrides", "kind", "text"),
    [
        ({"model__patch_s": 0.123}, "request", "model.patch_s: 0.123 s at 100 Hz is 12.3 samples, not a whole number"),
        ({"model__patch_s": 0.3}, "request", "model.patch_s: patches of 30 samples do not divide the window of 200"),
        ({"data__channels": "[I, V9]"}, "data", "ecg: no channel V9; it has I II"),
        ({"data__sfreq": 250}, "data", "data.sfreq is 250 Hz, the corpus has 100 Hz"),
        ({"data__window_s": 10}, "data", "data.window_s is 10 s, the corpus has 2 s"),
        ({"monitor__probe__label": "grop"}, "data", "monitor.probe.label: ecg has no label 'grop'; did you mean 'group'?"),
        ({"train__accumulate": 3}, "request", "data.batch_size 8 is not divisible by train.accumulate 3"),
        ({"model__heads": 3}, "request", "model.dim: 16 must be a multiple of 4 and of model.heads (3)"),
        ({"data__batch_size": 64}, "note", "32 training windows, fewer than data.batch_size 64"),
    ],
)
def test_each_misfit_is_one_line(corpus, overrides, kind, text):
    (finding,) = check_pair(recipe(**overrides), corpus)
    assert finding.kind == kind and text in finding.text and "\n" not in finding.text
    if kind != "note":
        assert isinstance(finding.error(), RequestError if kind == "request" else DataError)


def test_another_modality_and_an_unknown_split(corpus):
    (finding,) = check_pair(load_recipe("eeg/jepa_small"), corpus)
    assert "the recipe is for eeg, the corpus is ecg" in finding.text
    (finding,) = check_pair(recipe(), corpus, split="by_sex")
    assert finding.kind == "data" and "ecg: no split 'by_sex'" in finding.text


def test_without_a_named_split_check_says_what_training_would_do(tmp_path):
    from biossl.corpus import make_split
    from biossl.training.data import make_sources

    bare = make_corpus(tmp_path / "bare", n_channels=2, n_subjects=9, windows_per_subject=4, splits={})
    (note,) = check_pair(recipe(), bare)
    assert note.kind == "note" and note.text == "bare: no split; all 36 windows would be trained on"
    make_split(bare, "cv", folds=3)
    notes = check_pair(recipe(), bare)
    assert {note.kind for note in notes} == {"note"} and [note.text for note in notes] == [
        "bare: split 'cv' is used, the only one", "split cv: fold 0 of 3; --splits cv:1 is another",
    ]  # fmt: skip
    assert make_sources([(bare, 1.0)])[1] == [notes[0].text]
    assert check_pair(recipe(), bare, split="cv:2") == []
    make_split(bare, "other")
    (fault,) = check_pair(recipe(), bare)
    with pytest.raises(RequestError) as refused:
        make_sources([(bare, 1.0)])
    assert fault.kind == "request" and fault.text == str(refused.value) and "(cv, other)" in fault.text


def test_the_small_ecg_recipe_takes_as_few_leads_as_its_header_says(tmp_path):
    from biossl.resources import resource

    low, high = (
        int(n) for n in re.search(r"\((\d+) to (\d+) leads", resource("recipes/ecg/jepa_small.yaml").read_text()).groups()
    )
    for n in (low, high):
        made = make_corpus(tmp_path / str(n), n_channels=n, n_samples=200)
        assert len(made.spec.ch_names) == n and check_pair(recipe(), made) == []
        model = recipe().build(made.spec)
        x = torch.from_numpy(np.nan_to_num(made.signal(range(8))))
        out = model.step(Batch(x, made.spec.ch_names, made.spec.sfreq), step=0, keys=Keys(0, 0, torch.arange(8)))
        out.loss.backward()
        assert torch.isfinite(out.loss) and model.export().embed(x).shape == (8, 16)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_a_split_that_shares_a_subject_is_found(tmp_path):
    shared = make_corpus(tmp_path / "shared", n_channels=2, same_person=[["s000", "s002"]])  # one in train, one in val
    (finding,) = check_pair(recipe(), shared)
    assert finding.kind == "data" and "more than one part" in finding.text


def test_what_the_starting_encoder_has_seen_is_told(corpus):
    test = np.flatnonzero(corpus.split("official").to_numpy() == "test")
    (finding,) = check_pair(recipe(), corpus, seen=subject_keys(corpus, test))
    assert finding.kind == "note" and "has seen 1 subjects outside part 'train'" in finding.text
    train = np.flatnonzero(corpus.split("official").to_numpy() == "train")
    assert check_pair(recipe(), corpus, seen=subject_keys(corpus, train)) == []


def test_the_memory_estimate_equals_what_a_real_step_saves(corpus):
    small = recipe(data__batch_size=4)
    spec = example_spec(small)
    model = small.build(spec)
    held = {}
    own = {p.untyped_storage()._cdata for p in model.parameters()}

    def remember(t):
        if t.untyped_storage()._cdata not in own:
            held[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    batch = Batch(torch.randn(4, 8, spec.n_samples), spec.ch_names, spec.sfreq)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        model.step(batch, step=0, keys=Keys(0, 0, torch.arange(4)))
    n_all = sum(p.numel() for p in model.parameters())
    n_train = sum(p.numel() for p in model.parameters() if p.requires_grad)
    real = (4 * n_all + 12 * n_train + sum(s.nbytes() for s in held.values())) / 1e9
    assert check_recipe(small)["memory_gb"] == pytest.approx(real, rel=0.25, abs=0.01)
    assert check_recipe(small)["parameters"] == n_train


def test_accumulation_lowers_the_estimate():
    base = load_recipe("ecg/jepa")
    less = load_recipe("ecg/jepa", {"train.accumulate": "8"})
    assert check_recipe(less)["memory_gb"] < 0.5 * check_recipe(base)["memory_gb"]
