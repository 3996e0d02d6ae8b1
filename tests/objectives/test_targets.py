"""Targets of reconstruction against loops over single samples in float64; gaps; what each keeps and deletes."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from biossl.objectives.targets import TargetConfig, patch_targets, token_values

B, C, P, PATCH = 2, 3, 4, 6
SCALE = torch.tensor([[2.0], [0.5], [1.0]], dtype=torch.float64)
FLOOR = torch.tensor([[0.02], [0.01], [0.05]], dtype=torch.float64)
CONFIGS = [
    TargetConfig("raw"),
    TargetConfig("recording"),
    TargetConfig("recording", per="recording"),
    TargetConfig("patch"),
    TargetConfig("spectrum"),
    TargetConfig("derivative", scales=[0, 1, 3]),
]


def windows() -> tuple[Tensor, Tensor]:
    """Windows of which one channel is flat, and what of them was observed."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(B, C, P * PATCH, dtype=torch.float64, generator=g).cumsum(dim=2)
    x[1, 2] = 0.7
    observed = torch.rand(B, C, P * PATCH, generator=g) > 0.25
    observed[0, 1, :PATCH] = True
    observed[0, 2] = False
    return x, observed


def mean_sd(values: list[float], floor: float) -> tuple[float, float]:
    mean = sum(values) / len(values) if values else 0.0
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else 0.0
    return mean, max(sd, floor)


def slow(x: Tensor, observed: Tensor, config: TargetConfig) -> list[float | None]:
    """One number at a time, in the order (window, channel, patch, value); None = does not exist."""
    out: list[float | None] = []
    for b in range(B):
        scaled = [[float(v) / float(SCALE[c]) for v in x[b, c]] for c in range(C)]
        floors = [float(FLOOR[c]) / float(SCALE[c]) for c in range(C)]
        seen = observed[b].tolist()
        every = [v for c in range(C) for v, s in zip(scaled[c], seen[c], strict=True) if s]
        for c in range(C):
            own = [v for v, s in zip(scaled[c], seen[c], strict=True) if s]
            together = config.per == "recording"
            mean, sd = mean_sd(every, min(floors)) if together else mean_sd(own, floors[c])
            size = {}
            for s in config.scales:
                jumps = [
                    scaled[c][t + s] - scaled[c][t]
                    for t in range(P * PATCH - s)
                    if t // PATCH == (t + s) // PATCH and seen[c][t] and seen[c][t + s]
                ]
                size[s] = max(math.sqrt(sum(j * j for j in jumps) / len(jumps)) if jumps else 0.0, floors[c])
            for p in range(P):
                at = range(p * PATCH, (p + 1) * PATCH)
                if config.target == "patch":
                    mean, sd = mean_sd([scaled[c][t] for t in at if seen[c][t]], floors[c])
                if config.target in ("raw", "recording", "patch"):
                    for t in at:
                        value = scaled[c][t] if config.target == "raw" else (scaled[c][t] - mean) / sd
                        out.append(value if seen[c][t] else None)
                elif config.target == "spectrum":
                    for k in range(PATCH // 2 + 1):
                        turn = sum(scaled[c][t] * cmath.exp(-2j * cmath.pi * k * i / PATCH) for i, t in enumerate(at))
                        value = math.log(1 + 2 * abs(turn) / PATCH / floors[c])
                        out.append(value if all(seen[c][t] for t in at) else None)
                else:
                    for s in config.scales:
                        for t in list(at)[: PATCH - s]:
                            value = (scaled[c][t + s] - scaled[c][t]) / size[s] if s else (scaled[c][t] - mean) / sd
                            out.append(value if seen[c][t] and seen[c][t + s] else None)
    return out


def got(x: Tensor, observed: Tensor | None, config: TargetConfig) -> list[float | None]:
    values, exist = patch_targets(x, observed, PATCH, config, scale=SCALE, floor=FLOOR)
    assert values.shape == (B, C, P, config.n_values(PATCH)) and not values.requires_grad
    flat = values.flatten().tolist()
    return flat if exist is None else [v if e else None for v, e in zip(flat, exist.flatten().tolist(), strict=True)]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.target}-{c.per}")
def test_every_target_equals_a_loop_over_single_samples(config: TargetConfig, gaps: bool) -> None:
    x, observed = windows()
    if not gaps:
        observed = torch.ones_like(observed)
    want = slow(x, observed, config)
    have = got(x, observed if gaps else None, config)
    assert [v is None for v in have] == [v is None for v in want] and (None in want) == gaps
    assert [v for v in have if v is not None] == pytest.approx([v for v in want if v is not None], rel=1e-9, abs=1e-9)
    for other in CONFIGS:  # mutants: no other target passes for this one
        if other != config:
            assert len(slow(x, observed, other)) != len(want) or slow(x, observed, other) != pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.target}-{c.per}")
def test_what_was_not_observed_changes_no_target_not_even_when_it_is_not_a_number(config: TargetConfig) -> None:
    x, observed = windows()
    clean = patch_targets(x, observed, PATCH, config, scale=SCALE, floor=FLOOR)
    for other in (99.0, float("nan"), float("inf")):
        dirty = patch_targets(torch.where(observed, x, other), observed, PATCH, config, scale=SCALE, floor=FLOOR)
        assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True) if a is not None and b is not None)
    assert clean[1] is not None and bool((clean[0][~clean[1]] == 0).all())


def test_a_flat_channel_is_not_blown_up_to_noise() -> None:
    x = (3.0 * SCALE).expand(B, C, P * PATCH)
    x = x + 1e-4 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for config in CONFIGS[1:4]:
        assert float(patch_targets(x, None, PATCH, config, scale=SCALE, floor=FLOOR)[0].abs().max()) < 0.1
    for config in CONFIGS:
        want = slow(x, torch.ones_like(x, dtype=torch.bool), config)
        assert got(x, None, config) == pytest.approx(want, rel=1e-6, abs=1e-9)


def test_voltage_survives_normalising_by_recording_but_not_by_patch() -> None:
    x, _ = windows()
    louder = x.clone()
    louder[..., :PATCH] *= 10  # one patch ten times as large

    def first(config: TargetConfig) -> Tensor:
        values = [patch_targets(a, None, PATCH, config, scale=SCALE, floor=1e-9 * FLOOR)[0][:, :2] for a in (x, louder)]
        return (
            values[1][:, :, 0].std(dim=-1)
            / values[1][:, :, 1].std(dim=-1)
            / (values[0][:, :, 0].std(dim=-1) / values[0][:, :, 1].std(dim=-1))
        )

    assert torch.allclose(first(TargetConfig("recording")), torch.tensor(10.0, dtype=torch.float64))
    assert torch.allclose(first(TargetConfig("patch")), torch.tensor(1.0, dtype=torch.float64))


def test_values_lie_in_the_order_of_the_tokens() -> None:
    values = torch.arange(B * C * P * 2).view(B, C, P, 2)
    assert token_values(values, joint=False)[1, 2 * P + 3].tolist() == values[1, 2, 3].tolist()
    assert token_values(values, joint=True)[1, 3].tolist() == values[1, :, 3].flatten().tolist()


@pytest.mark.parametrize("scales", [[], [-1], [1, 1]])
def test_scales_without_meaning_are_refused(scales: list[int]) -> None:
    with pytest.raises(ValueError, match="scales must be different"):
        TargetConfig(scales=scales)
