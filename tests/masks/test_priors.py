"""Priors: the patch that holds the event weighs most, silence weighs least, misuse is one line."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.masks.priors import Prior, attention_received, p_t_energy, prior_weights, qrs_energy, require_prior, spindle_energy
from biossl.models.transformer import EncoderConfig, TransformerEncoder
from biossl.signal import InputSpec

ECG = InputSpec("ecg", 100.0, 400, ("I", "V1"), ("ecg",) * 2, ("mV",) * 2)
EEG = InputSpec("eeg", 100.0, 400, ("C3", "C4"), ("eeg",) * 2, ("uV",) * 2)
IMU = InputSpec("imu", 50.0, 100, ("acc_x", "acc_y", "gyro_x"), ("acc", "acc", "gyro"), ("g", "g", "rad/s"))
SMALL = EncoderConfig(dim=16, depth=2, heads=2, patch_s=0.2)


def bump(spec: InputSpec, at: float, width: float, hz: float = 0.0) -> Tensor:
    """A Gaussian bump, with a carrier if ``hz``."""
    t = torch.arange(spec.n_samples) / spec.sfreq
    return torch.exp(-0.5 * ((t - at) / width) ** 2) * (torch.cos(2 * math.pi * hz * (t - at)) if hz else 1.0)


def batch_of(spec: InputSpec, *rows: Tensor) -> Batch:
    return Batch(torch.stack(rows)[None], spec.ch_names, spec.sfreq)


def test_qrs_is_where_it_is_sharp_and_waves_are_where_it_is_not() -> None:
    x = bump(ECG, 1.5, 0.012) + 0.5 * bump(ECG, 1.9, 0.06) + 0.2 * bump(ECG, 3.1, 0.05)  # QRS, T, P
    batch = batch_of(ECG, x, 2 * x)
    qrs, waves = qrs_energy(batch, 20), p_t_energy(batch, 20)
    assert qrs.shape == waves.shape == (1, 2, 20)
    assert qrs.argmax(dim=2).tolist() == [[7, 7]] and float(qrs[0, 0, 9]) < 0.1
    assert int(waves[0, 0].argmax()) == 9 and float(waves[0, 0, 7]) < 0.3 and float(waves[0, 0, 15]) > 0.05
    torch.testing.assert_close(qrs[:, 0], qrs[:, 1])  # relative to the largest of its channel
    assert float(qrs.max()) == 1.0 and float(qrs.min()) >= 0.0


def test_a_spindle_is_found_beside_larger_slow_waves() -> None:
    x = bump(EEG, 2.5, 0.3, 13.0) + 5 * bump(EEG, 1.0, 0.4, 1.0)
    assert int(spindle_energy(batch_of(EEG, x, x), 20)[0, 0].argmax()) in (11, 12, 13)


def test_motion_is_the_spread_of_the_acceleration_and_the_same_for_all_channels() -> None:
    encoder = TransformerEncoder(IMU, SMALL)
    moving = torch.where((torch.arange(100) // 10) == 3, torch.randn(100), torch.zeros(100)) + 1.0
    weight = prior_weights(Prior("motion", contrast=4.0), batch_of(IMU, moving, torch.ones(100), torch.randn(100)), encoder)
    assert weight.shape == (1, 30) and weight.dtype == torch.float64
    assert [int(w.argmax()) for w in weight.view(3, 10)] == [3, 3, 3]
    assert float(weight.max()) == pytest.approx(4.0) and float(weight.min()) == pytest.approx(1.0)


def test_weights_follow_the_encoders_channel_order_and_its_tokenizer() -> None:
    a, b = bump(ECG, 0.5, 0.012), bump(ECG, 3.5, 0.012)
    encoder = TransformerEncoder(ECG, SMALL)
    straight = prior_weights(Prior("qrs"), batch_of(ECG, a, b), encoder).view(2, 20)
    assert straight.argmax(dim=1).tolist() == [2, 17]
    swapped = Batch(torch.stack([b, a])[None], ("V1", "I"), 100.0)
    torch.testing.assert_close(prior_weights(Prior("qrs"), swapped, encoder).view(2, 20), straight)
    joint = TransformerEncoder(ECG, EncoderConfig(dim=16, depth=1, heads=2, patch_s=0.2, tokenizer="joint"))
    both = prior_weights(Prior("qrs"), batch_of(ECG, a, b), joint)
    assert both.shape == (1, 20) and set(both[0].topk(2).indices.tolist()) == {2, 17}


def test_a_flat_window_has_equal_weights() -> None:
    encoder = TransformerEncoder(ECG, SMALL)
    assert prior_weights(Prior("qrs"), batch_of(ECG, torch.zeros(400), torch.zeros(400)), encoder).unique().tolist() == [1.0]


@pytest.mark.parametrize(("attention", "registers"), [("full", 0), ("full", 2), ("cropa", 1)])
def test_attention_received_equals_a_slow_loop(attention: str, registers: int) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(dim=8, depth=2, heads=2, patch_s=1.0, attention=attention, registers=registers, init="fan_in")  # type: ignore[arg-type]
    encoder = TransformerEncoder(ECG, config).eval()
    batch = Batch(torch.randn(2, 2, 400), ECG.ch_names, ECG.sfreq)
    got = attention_received(batch, encoder)
    inputs = []
    hook = encoder.blocks[-1].norm1.register_forward_hook(lambda m, i, o: inputs.append(o))
    encoder.encode(encoder.tokenize(batch))
    hook.remove()
    attn, N = encoder.blocks[-1].attn, 8
    for b in range(2):
        received = [0.0] * N
        qkv = (inputs[0][b] @ attn.qkv.weight.T + attn.qkv.bias).tolist()
        for h in range(2):
            for i in range(N + registers):
                score = {}
                for j in range(N + registers):
                    token_i, token_j = i - registers, j - registers
                    near = token_i // 4 == token_j // 4 or token_i % 4 == token_j % 4
                    if attention == "full" or token_i < 0 or token_j < 0 or near:
                        q, k = qkv[i][h * 4 : h * 4 + 4], qkv[j][8 + h * 4 : 8 + h * 4 + 4]
                        score[j] = math.exp(sum(x * y for x, y in zip(q, k, strict=True)) / 2.0)
                for j, value in score.items():
                    if j >= registers:
                        received[j - registers] += value / sum(score.values())
        for c in range(2):
            row = received[c * 4 : c * 4 + 4]
            assert got[b, c].tolist() == pytest.approx([r / max(row) for r in row], rel=1e-4)


def test_attention_is_read_in_evaluation_mode_and_draws_nothing() -> None:
    encoder = TransformerEncoder(ECG, replace(SMALL, drop_path=0.5)).train()
    batch = Batch(torch.randn(4, 2, 400), ECG.ch_names, ECG.sfreq)
    state = torch.random.get_rng_state()
    one, two = attention_received(batch, encoder), attention_received(batch, encoder)
    assert torch.equal(one, two) and torch.equal(torch.random.get_rng_state(), state) and encoder.training


def test_attention_does_not_fall_on_what_was_not_observed() -> None:
    encoder = TransformerEncoder(ECG, SMALL)
    observed = torch.ones(1, 2, 400, dtype=torch.bool)
    observed[0, 0, 100:200] = False
    batch = Batch(torch.where(observed, torch.randn(1, 2, 400), 0.0), ECG.ch_names, ECG.sfreq, observed=observed)
    weight = attention_received(batch, encoder)
    assert float(weight[0, 0, 5:10].max()) < 0.2 < float(weight[0, 0, 0])  # only themselves look at themselves


@pytest.mark.parametrize(
    ("name", "spec", "text"),
    [
        ("qrs", EEG, "qrs is for ecg, the windows are eeg"),
        ("motion", ECG, "motion is for imu, the windows are ecg"),
        ("p_t", InputSpec("ecg", 40.0, 400, ("I",), ("ecg",), ("mV",)), "needs signals up to 25 Hz, 40 Hz ends at 20"),
        ("motion", InputSpec("imu", 50.0, 100, ("gyro_x",), ("gyro",), ("rad/s",)), "needs an acceleration channel"),
    ],
)
def test_a_prior_without_meaning_is_one_line(name: str, spec: InputSpec, text: str) -> None:
    with pytest.raises(RequestError, match="^mask.prior.name[^\n]*$") as error:
        require_prior(Prior(name), spec)  # type: ignore[arg-type]
    assert text in str(error.value)
    with pytest.raises(ValueError, match="contrast"):
        Prior("qrs", contrast=0.5)
