"""Every policy builds and runs on its modality's windows, and those named after what they keep do keep it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from biossl.augment.base import breaking, build_pipeline
from biossl.augment.policies import POLICIES
from biossl.batch import Batch
from biossl.corpus.card import load_card
from biossl.keys import Keys
from biossl.recipe import Recipe, load_recipe
from biossl.recipe.check import EXAMPLES
from biossl.recipe.tables import CONFIGS
from biossl.resources import resources
from biossl.signal import MODALITIES


def recipe(policy: str) -> Recipe:
    return load_recipe(f"{policy[:3]}/jepa_small", {"augment": policy})


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_makes_two_different_views(name: str) -> None:
    spec = EXAMPLES[name[:3]]
    pipeline = build_pipeline(recipe(name).augment, spec)
    x = torch.randn(4, len(spec.ch_names), spec.n_samples, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, spec.ch_names, spec.sfreq)
    one, two = (pipeline(batch, Keys(0, 0, torch.arange(4)), view=v) for v in (0, 1))
    assert one.x.isfinite().all() and not torch.equal(one.x, two.x) and not torch.equal(one.x, batch.x)


def test_every_modality_has_a_weak_and_a_strong_one_and_one_that_keeps_something() -> None:
    for modality in MODALITIES:
        kinds = [name.removeprefix(f"{modality}_") for name in POLICIES if name.startswith(modality)]
        assert {"weak", "strong"} < set(kinds)


@pytest.mark.parametrize("name", [n for n in POLICIES if n.startswith("ecg")])
def test_ecg_policies_fit_100_hz(name: str) -> None:
    build_pipeline(recipe(name).augment, replace(EXAMPLES["ecg"], sfreq=100.0, n_samples=1000))


@pytest.mark.parametrize("policy", ["ecg_diagnosis", "eeg_spectrum", "imu_posture"])
def test_a_keeping_policy_breaks_no_label_of_a_packaged_card(policy: str) -> None:
    parts = recipe(policy).augment
    broken: dict[str, list[str]] = {}
    for path in resources("data_cards"):
        card = load_card(path.removesuffix(".yaml"))
        if card.modality == policy[:3]:
            broken |= {f"{card.name}.{n}": lines for n, label in card.labels.items() if (lines := breaking(parts, label.depends))}
    assert broken == {}


@pytest.mark.parametrize(
    ("policy", "card", "label"),
    [("imu_strong", "hapt", "activity6"), ("ecg_strong", "mitdb", "beat"), ("eeg_strong", "eegmat", "task")],
)
def test_a_strong_policy_breaks_labels(policy: str, card: str, label: str) -> None:
    assert breaking(recipe(policy).augment, load_card(card).labels[label].depends)


def test_the_page_names_every_augmentation_and_every_policy() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "methods" / "augmentations.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in [*CONFIGS["augment"], *POLICIES] if f"`{name}`" not in text] == []
