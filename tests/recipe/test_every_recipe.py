"""Every file of ``recipes/`` trains: two steps through the real loader and loop, at a width of 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_factory import CHANNELS, make_corpus

from biossl.checkpoint import load_encoder
from biossl.corpus import Corpus
from biossl.recipe import Recipe, load_recipe, recipe_from_dict
from biossl.recipe.check import example_spec
from biossl.resources import resources
from biossl.training import pretrain

NAMES = [r.removesuffix(".yaml") for r in resources("recipes")]
SMALL = {"dim": 16, "depth": 2, "heads": 2, "hidden": 16, "out": 8, "queue": 8}


def shrink(section: Any) -> Any:
    """The same settings with every network of width 16, and a queue of one batch."""
    if isinstance(section, list):
        return [shrink(v) for v in section]
    if not isinstance(section, dict):
        return section
    return {k: SMALL[k] if k in SMALL and isinstance(v, int) else shrink(v) for k, v in section.items()}


def small(name: str) -> Recipe:
    plain = load_recipe(name).to_dict()
    plain["model"], plain["objective"] = shrink(plain["model"]), shrink(plain["objective"])
    layers = plain["objective"].get("target_layers", 0)
    plain["objective"] |= {"target_layers": min(layers, 2)} if layers else {}
    plain["data"] |= {"batch_size": 8, "workers": 0}
    made, wanted = CHANNELS[plain["modality"]], plain["data"]["channels"]
    if not set(wanted) <= set(made):  # a derivation that the made corpora have not
        plain["data"]["channels"] = made[: len(wanted)]
    plain["train"] |= {"steps": 2, "accumulate": 1, "schedule": {"name": "warmup_cosine", "warmup_steps": 1}, "precision": "fp32"}
    plain["monitor"] |= {"every": 2, "samples": 8, "log_every": 1, "stop_after": 100}
    return recipe_from_dict(plain, where=name)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One corpus a kind of window, made when first asked for."""
    made: dict[Any, Corpus] = {}

    def get(modality: str, sfreq: float, n_samples: int) -> Corpus:
        key = (modality, sfreq, n_samples)
        if key not in made:
            folder = tmp_path_factory.mktemp("corpus") / f"{modality}_{sfreq:g}_{n_samples}"
            made[key] = make_corpus(folder, modality=modality, n_samples=n_samples, sfreq=sfreq, windows_per_subject=3)
        return made[key]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_move_every_weight_that_is_trained(name: str, corpora: Any, tmp_path: Path) -> None:
    recipe = small(name)
    spec = example_spec(recipe)
    corpus = corpora(recipe.modality, spec.sfreq, spec.n_samples)
    done = pretrain(recipe, [(corpus, 1.0)], tmp_path / "run")
    assert done["steps"] == 2 and np.isfinite(done["numbers"]["loss"])
    encoder = load_encoder(done["encoder"])
    fresh = recipe.build(encoder.spec).export()
    still = [k for k, v in encoder.state_dict().items() if torch.equal(v, fresh.state_dict()[k])]
    assert not still, f"not trained: {still}"
    x = torch.from_numpy(np.nan_to_num(corpus.signal([0, 1])))
    x = x[:, [corpus.spec.ch_names.index(c) for c in encoder.spec.ch_names]]
    assert torch.isfinite(encoder.embed(x)).all()
