"""The noisy teacher: how large its noise is, of what it is a function, whom it reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from biossl.batch import Batch, Tokens
from biossl.keys import Keys
from biossl.models.predictors import PredictorConfig
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.objectives.averaged import noisy_tokens
from biossl.objectives.base import Objective
from biossl.objectives.byol import BYOL, BYOLConfig
from biossl.objectives.clustering import DINO, DINOConfig
from biossl.objectives.jepa import JEPA, JEPAConfig
from biossl.objectives.masking import RandomMask
from biossl.signal import InputSpec

SPEC = InputSpec("ecg", 50.0, 100, ("I", "II", "V1"), ("ecg",) * 3, ("mV",) * 3)


def encoder(**settings: Any) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(SPEC, EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2, init="fan_in", **settings))


def windows() -> Batch:
    x = torch.randn(2, 4, 3, 100, generator=torch.Generator().manual_seed(1))
    return Batch(x[0], SPEC.ch_names, SPEC.sfreq, paired={"window": Batch(x[1], SPEC.ch_names, SPEC.sfreq)})


def noise_of(seed: int, step: int, position: Tensor, view: int = 0, level: float = 0.5) -> Tensor:
    x = torch.randn(len(position), 40, 24, generator=torch.Generator().manual_seed(2))
    seen = torch.ones(len(position), 40, dtype=torch.bool)
    tokens = Tokens(3.0 * x, torch.zeros(len(position), 40), torch.zeros(len(position), 40), seen)
    return noisy_tokens(tokens, Keys(seed, step, position), level, view=view).x - tokens.x


def test_noise_has_the_size_asked_for_and_is_a_function_of_seed_step_position_and_view() -> None:
    noise = noise_of(0, 0, torch.arange(64))
    assert float(noise.std()) == pytest.approx(1.5, rel=0.02) and abs(float(noise.mean())) < 0.02
    assert float(noise.flatten(1).std(dim=1).min()) > 1.2 and float((noise.abs() > 3.0).float().mean()) == pytest.approx(
        0.0455, abs=0.005
    )
    assert torch.equal(noise, noise_of(0, 0, torch.arange(64)))
    assert torch.equal(noise[:1], noise_of(0, 0, torch.arange(1)))
    for other in (noise_of(1, 0, torch.arange(64)), noise_of(0, 1, torch.arange(64)), noise_of(0, 0, torch.arange(64), view=1),
                  noise_of(0, 0, torch.arange(64) + 64)):  # fmt: skip
        assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1])) < 0.02


def test_noise_is_as_large_as_the_observed_tokens_say() -> None:
    x = torch.cat([torch.full((1, 4, 8), 2.0), torch.full((1, 4, 8), 100.0)], dim=1)
    seen = torch.arange(8)[None] < 4
    tokens = Tokens(x, torch.zeros(1, 8), torch.zeros(1, 8), seen)
    noise = noisy_tokens(tokens, Keys(0, 0, torch.arange(1)), 0.1).x - x
    assert 0.12 < float(noise.std()) < 0.3
    none = Tokens(x, torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1, 8, dtype=torch.bool))
    assert torch.equal(noisy_tokens(none, Keys(0, 0, torch.arange(1)), 0.1).x, x)


def jepa(noise: float, **settings: Any) -> JEPA:
    torch.manual_seed(0)
    config = JEPAConfig(predictor=PredictorConfig(dim=8, depth=1, heads=2), teacher_noise=noise, **settings)
    return JEPA(encoder(), config, mask=RandomMask(0.5), steps=10)


def twin(cls: Any, config: Any, noise: float) -> Any:
    return cls(encoder(), config(teacher_noise=noise, pairing="adjacent"), augment=None, steps=10)


@pytest.mark.parametrize("build", [
    lambda noise: jepa(noise), lambda noise: twin(BYOL, BYOLConfig, noise), lambda noise: twin(DINO, DINOConfig, noise),
], ids=["jepa", "byol", "dino"])  # fmt: skip
def test_noise_reaches_targets_in_training_alone_and_never_the_student(build: Any) -> None:
    def watch(model: Objective, **keys: Any) -> dict[str, Tensor]:
        return model.step(windows(), step=0, keys=Keys(**{"seed": 3, "step": 5, "position": torch.arange(4)} | keys)).watch

    quiet, noisy = build(0.0), build(0.3)
    noisy.load_state_dict(quiet.state_dict())
    a, b = watch(quiet), watch(noisy)
    assert torch.equal(a["prediction"], b["prediction"]) and not torch.allclose(a["target"], b["target"], atol=1e-3)
    assert torch.equal(b["target"], watch(noisy)["target"])  # no state, no global generator
    assert torch.equal(b["target"], watch(noisy, rank=1, micro=3)["target"])  # nor who computes it
    for model in (quiet, noisy):
        model.eval()
    assert torch.equal(watch(quiet)["target"], watch(noisy)["target"])
    noisy.train()
    assert torch.equal(b["target"], watch(noisy)["target"])
    assert torch.equal(quiet.export().embed(windows().x), noisy.export().embed(windows().x))


def test_a_teacher_drops_no_paths() -> None:
    model = BYOL(encoder(drop_path=0.5), BYOLConfig(pairing="adjacent"), augment=None, steps=10).train()
    first, second = (model.step(windows(), step=0, keys=Keys(3, 5, torch.arange(4))).watch for _ in range(2))
    assert torch.equal(first["target"], second["target"]) and not torch.equal(first["prediction"], second["prediction"])
