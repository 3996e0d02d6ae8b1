"""Training from scratch learns what there is to learn, for every kind of label, and repeats itself."""

import numpy as np
import pytest
import torch
from training_toys import small_recipe

from biossl.compare import scratch
from biossl.compare.scratch import train_and_predict
from biossl.protocol import Target
from biossl.recipe.tables import build_encoder


@pytest.fixture(scope="module")
def longer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "LEAST_STEPS", 60)
        yield


def fitted(corpus, target, **kw):
    encoder = build_encoder(small_recipe(model__drop_path=0.0), corpus.spec)
    rows = np.arange(len(corpus))
    return train_and_predict(encoder, corpus, rows, target, rows, pool="mean+std", seed=0, **kw)[0]


def group(corpus):
    return (corpus.index["group"] == "fast").to_numpy(float)


def test_it_fits_its_own_rows(corpus, longer):
    y = group(corpus)
    p = fitted(corpus, Target("multiclass", y, ("slow", "fast")))
    assert p.shape == (len(y), 2) and (p.argmax(1) == y).mean() > 0.9
    assert np.allclose(p.sum(1), 1)
    values = fitted(corpus, Target("regression", 100 + 10 * y, ()))
    assert values.shape == y.shape and np.corrcoef(values, y)[0, 1] > 0.8 and 95 < values.mean() < 115
    unknown = np.stack([y, np.where(np.arange(len(y)) % 3 == 0, np.nan, 1 - y)], axis=1)
    both = fitted(corpus, Target("multilabel", unknown, ("a", "b")))
    assert ((both[:, 1] > 0.5) == (y == 0)).mean() > 0.9
    one = fitted(corpus, Target("binary", y[:, None], ("fast",)))
    assert one.shape == (len(y), 1) and ((one[:, 0] > 0.5) == y).mean() > 0.9


def test_equal_seeds_give_equal_predictions_whatever_ran_before(corpus):
    target = Target("multiclass", group(corpus), ("slow", "fast"))
    a = fitted(corpus, target)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    b = fitted(corpus, target)
    assert (a == b).all() and torch.equal(before, torch.get_rng_state())
