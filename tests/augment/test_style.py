"""The style of a batch against sums in float64: amplitudes of one window, phases of each; which window, on how many processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from two_processes import needs_two_processes, run_in_two

from biossl.augment.base import Augmentation, Pipeline
from biossl.augment.depends import breaking
from biossl.augment.style import BatchStyle
from biossl.batch import Batch
from biossl.keys import Keys
from biossl.recipe.schema import Part
from biossl.signal import InputSpec

SPEC = InputSpec("ecg", 20.0, 40, ("I", "II"), ("ecg",) * 2, ("mV",) * 2)
BAND = [0.0, 2.0]  # bins 0 to 4, half a Hz apart


def windows(n: int = 6) -> Batch:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 2, 40)) + 0.7)
    return Batch(x, SPEC.ch_names, SPEC.sfreq)


def style() -> Augmentation:
    return BatchStyle(band_hz=BAND).build(SPEC)


def keys(first: int = 0, n: int = 6, step: int = 3) -> Keys:
    return Keys(7, step, torch.arange(first, first + n))


def slow(x: np.ndarray, reference: np.ndarray, mutant: str = "") -> np.ndarray:
    """One sum a bin and a cosine a bin: what channel ``x`` becomes with the amplitudes of ``reference``."""
    n = len(x)
    t = np.arange(n)
    out = np.zeros(n)
    for k in range(n // 2 + 1):
        wave = np.exp(-2j * np.pi * k * t / n)
        mine, other = (x * wave).sum(), (reference * wave).sum()
        size, angle = abs(mine), np.angle(mine)
        if BAND[0] <= k * 20.0 / n <= BAND[1]:
            size = abs(other)
            angle = np.angle(other) if mutant == "phase_too" else angle
        both = 1 if k == 0 or 2 * k == n else 2
        out += both * size * np.cos(2 * np.pi * k * t / n + angle)
    return out / n


def chosen(out: torch.Tensor, x: torch.Tensor) -> int:
    """The window that kept its own amplitudes."""
    near = (out - x).abs().amax(dim=(1, 2))
    assert int((near < 1e-6).sum()) == 1
    return int(near.argmin())


def test_all_windows_take_the_low_amplitudes_of_one_and_keep_their_phases() -> None:
    batch = windows()
    out = style()(batch, keys(), 10).x
    r = chosen(out, batch.x)
    for b in range(6):
        for c in range(2):
            want = slow(batch.x[b, c].numpy(), batch.x[r, c].numpy())
            np.testing.assert_allclose(out[b, c].numpy(), want, atol=1e-9)
            if b != r:  # another window's amplitudes, or its phases with them, would be seen
                assert np.abs(want - slow(batch.x[b, c].numpy(), batch.x[r, c].numpy(), "phase_too")).max() > 1e-2
                assert np.abs(want - slow(batch.x[b, c].numpy(), batch.x[(r + 1) % 6, c].numpy())).max() > 1e-2
    spectrum = torch.fft.rfft(out)
    torch.testing.assert_close(spectrum.abs()[:, :, :5], spectrum.abs()[r, :, :5].expand(6, 2, 5))
    torch.testing.assert_close(spectrum[:, :, 5:], torch.fft.rfft(batch.x)[:, :, 5:])


def test_every_view_and_step_draws_its_window_and_every_window_is_drawn() -> None:
    batch, pipeline = windows(), Pipeline([style()])
    drawn = [[chosen(pipeline(batch, keys(step=s), view=v).x, batch.x) for v in (0, 1)] for s in range(40)]
    assert {r for both in drawn for r in both} == set(range(6))
    assert 1 < sum(a != b for a, b in drawn) < 40
    assert drawn[0] == [chosen(pipeline(batch, keys(step=0), view=v).x, batch.x) for v in (0, 1)]


def test_a_window_without_a_signal_in_every_channel_gives_no_style() -> None:
    batch, part = windows(), style()
    seen = torch.ones_like(batch.x, dtype=torch.bool)
    seen[:5, 1] = False
    holed = Batch(torch.where(seen, batch.x, 0.0), SPEC.ch_names, SPEC.sfreq, observed=seen)
    for step in range(10):
        out = part(holed, keys(step=step), 10)
        assert chosen(out.x, holed.x) == 5 and out.observed is not None and bool((out.x[~out.observed] == 0).all())
    seen[5, 0] = False
    nobody = Batch(torch.where(seen, batch.x, 0.0), SPEC.ch_names, SPEC.sfreq, observed=seen)
    assert torch.equal(part(nobody, keys(), 10).x, nobody.x)


def test_what_is_broken_depends_on_the_band() -> None:
    def lines(band: list[float]) -> list[str]:
        return breaking([Part("batch_style", BatchStyle(band_hz=band))], ["posture", "amplitude", "morphology"])

    assert lines([0.3, 0.6]) == []
    assert "breaks posture (direction of gravity); remove it, or keep band_hz above 0 and within 0.67" in lines([0.0, 0.6])[0]
    assert "amplitude" in lines([0.1, 3.0])[0] and "posture" not in lines([0.1, 3.0])[0]


def _half(number: int, part: Augmentation, batch: Batch) -> list[float]:
    mine = Batch(batch.x[3 * number : 3 * number + 3], batch.channels, batch.sfreq)
    out: list[float] = part(mine, keys(3 * number, 3), 10).x.flatten().tolist()
    return out


@needs_two_processes
def test_two_processes_take_the_style_of_one(tmp_path: Path) -> None:
    batch, part = windows(), style()
    want = part(batch, keys(), 10).x
    halves = run_in_two(_half, part, batch, store=tmp_path / "store")
    torch.testing.assert_close(torch.tensor(halves, dtype=torch.float64).view(6, 2, 40), want, rtol=0, atol=1e-12)
