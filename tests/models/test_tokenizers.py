"""Patches, their order, amplitude normalisation and what counts as observed."""

from __future__ import annotations

import pytest
import torch

from biossl.errors import RequestError
from biossl.models.tokenizers import PatchTokenizer, amplitude, normalise, patch_samples
from biossl.signal import InputSpec


def spec(sfreq: float = 100.0, n: int = 200, types: tuple[str, ...] = ("acc", "gyro")) -> InputSpec:
    names = tuple(f"c{i}" for i in range(len(types)))
    return InputSpec("imu", sfreq, n, names, types, ("1",) * len(types))


def test_channel_tokens_are_lead_major_and_share_one_linear() -> None:
    tokenizer = PatchTokenizer(5, 4)
    x = torch.randn(2, 3, 20)
    tokens = tokenizer(x)
    assert tokens.shape == (2, 12, 4)
    for c in range(3):
        for p in range(4):
            torch.testing.assert_close(tokens[:, c * 4 + p], tokenizer.proj(x[:, c, 5 * p : 5 * p + 5]))


def test_joint_tokens_hold_all_channels_of_a_time() -> None:
    tokenizer = PatchTokenizer(5, 4, joint_channels=3)
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(tokenizer(x)[:, 2], tokenizer.proj(x[:, :, 10:15].reshape(2, 15)))


def test_a_patch_is_observed_when_any_sample_is() -> None:
    observed = torch.zeros(1, 2, 20, dtype=torch.bool)
    observed[0, 1, 7] = True
    assert PatchTokenizer(5, 4).observed(observed)[0].nonzero().tolist() == [[4 + 1]]
    assert PatchTokenizer(5, 4, joint_channels=2).observed(observed)[0].tolist() == [False, True, False, False]


def test_window_normalisation_uses_observed_samples_only() -> None:
    x = torch.randn(2, 2, 50) * 3 + 10
    observed = torch.rand(2, 2, 50) > 0.3
    out = normalise(torch.where(observed, x, 0.0), observed, "window", amplitude(spec(), "window", {}))
    for b in range(2):
        for c in range(2):
            part = x[b, c][observed[b, c]].double()
            expected = (part - part.mean()) / part.std(correction=0)
            torch.testing.assert_close(out[b, c][observed[b, c]].double(), expected, rtol=1e-4, atol=1e-5)
    assert (out[~observed] == 0).all()
    whole = torch.ones_like(observed)
    amount = amplitude(spec(), "window", {})
    torch.testing.assert_close(normalise(x, whole, "window", amount), normalise(x, None, "window", amount))


def test_a_flat_channel_is_not_amplified() -> None:
    x = 1e-5 * torch.randn(1, 2, 100)
    assert normalise(x, None, "window", amplitude(spec(), "window", {})).abs().max() < 0.01


def test_fixed_divides_by_channel_type() -> None:
    amount = amplitude(spec(), "fixed", {"acc": 2.0, "gyro": 4.0})
    assert normalise(torch.full((1, 2, 3), 8.0), None, "fixed", amount)[0, :, 0].tolist() == [4.0, 2.0]
    with pytest.raises(RequestError, match="encoder.scale.*gyro"):
        amplitude(spec(), "fixed", {"acc": 2.0})


@pytest.mark.parametrize(
    ("sfreq", "n", "patch_s", "word"),
    [(128.0, 1280, 0.2, "not a whole number"), (100.0, 250, 0.2, "do not divide"), (100.0, 200, 0.0, "not a whole number")],
)
def test_a_patch_that_does_not_fit_names_the_key_and_a_length_that_does(sfreq: float, n: int, patch_s: float, word: str) -> None:
    with pytest.raises(RequestError, match=f"encoder.patch_s.*{word}.*take") as caught:
        patch_samples(spec(sfreq, n), patch_s)
    if "divide" in word:
        assert patch_samples(spec(sfreq, n), float(str(caught.value).split("take ")[1].split()[0])) == 25
