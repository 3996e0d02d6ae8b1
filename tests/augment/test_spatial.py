"""Rotations, exchanged electrodes, noise at contacts, names of sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from biossl.augment import spatial
from biossl.augment.functional import normal
from biossl.channels import ECG_LEADS, IMU_AXES
from biossl.keys import Keys

WEIGHTS = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}


def twelve(n: int = 40) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Twelve leads from potentials of RA, LA, LL and six chest electrodes; the potentials."""
    rng = np.random.default_rng(0)
    e = {name: rng.normal(size=n) for name in ("RA", "LA", "LL", "C1", "C2", "C3", "C4", "C5", "C6")}
    return leads(e), e


def leads(e: dict[str, np.ndarray]) -> torch.Tensor:
    wct = (e["RA"] + e["LA"] + e["LL"]) / 3
    rows = [
        e["LA"] - e["RA"], e["LL"] - e["RA"], e["LL"] - e["LA"], e["RA"] - (e["LA"] + e["LL"]) / 2,
        e["LA"] - (e["RA"] + e["LL"]) / 2, e["LL"] - (e["RA"] + e["LA"]) / 2, *(e[f"C{i}"] - wct for i in range(1, 7)),
    ]  # fmt: skip
    return torch.tensor(np.stack(rows))[None]


def swapped(x: torch.Tensor, swap: str, channels: tuple[str, ...] = ECG_LEADS) -> torch.Tensor:
    weight = spatial.reversal_matrix(channels, swap).double()[None]
    return spatial.mix_channels(x, weight)[0]


@pytest.mark.parametrize("swap", spatial.LIMB_SWAPS)
def test_a_limb_swap_equals_recording_with_exchanged_electrodes(swap: str) -> None:
    _, e = twelve()
    e["RL"] = e["LL"]  # the assumption that the docs state
    first, second = swap.split("-")
    want = leads(e | {first: e[second], second: e[first]})
    torch.testing.assert_close(swapped(leads(e), swap), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("swap", spatial.LIMB_SWAPS)
def test_a_swap_keeps_einthoven_and_goldberger(swap: str) -> None:
    i, ii, iii, avr, avl, avf = swapped(twelve()[0], swap)[0, :6]
    torch.testing.assert_close(iii, ii - i, atol=1e-6, rtol=0)
    torch.testing.assert_close(avr, -(i + ii) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(avl, i - ii / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(avf, ii - i / 2, atol=1e-6, rtol=0)


def test_arms_exchanged_as_every_textbook_has_it() -> None:
    x = twelve()[0]
    out = swapped(x, "RA-LA")
    assert torch.equal(out[:, 0], -x[:, 0])
    assert torch.equal(out[:, 1], x[:, 2]) and torch.equal(out[:, 2], x[:, 1])
    assert torch.equal(out[:, 3], x[:, 4]) and torch.equal(out[:, 4], x[:, 3])
    assert torch.equal(out[:, 5:], x[:, 5:])


def test_eight_leads_give_what_twelve_give() -> None:
    rows = [0, 1, *range(6, 12)]
    eight = tuple(ECG_LEADS[i] for i in rows)
    x = twelve()[0]
    for swap in spatial.LIMB_SWAPS + spatial.CHEST_SWAPS:
        torch.testing.assert_close(swapped(x[:, rows], swap, eight), swapped(x, swap)[:, rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("channels", "swap", "text"),
    [
        (("II", "V1"), "RA-LA", "at least two limb leads"),
        (("I", "II", "V2"), "V1-V2", "both leads"),
        (("I", "II"), "LA-RA", "no swap"),
    ],
)
def test_a_swap_that_the_leads_do_not_determine_is_refused(channels: tuple[str, ...], swap: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        spatial.reversal_matrix(channels, swap)


def test_noise_of_contacts_obeys_the_equations_of_the_leads() -> None:
    matrix = spatial.electrode_matrix(ECG_LEADS, average=[False] * 12).double()
    noise = matrix @ torch.randn(matrix.shape[1], 20, dtype=torch.float64)
    i, ii = noise[0], noise[1]
    for row, lead in enumerate(WEIGHTS):
        torch.testing.assert_close(noise[row], WEIGHTS[lead][0] * i + WEIGHTS[lead][1] * ii)
    left_arm = matrix[:, 1]
    assert left_arm[[0, 2]].tolist() == [1, -1]
    torch.testing.assert_close(left_arm[6:], torch.full((6,), -1 / 3, dtype=torch.float64))


def test_noise_of_eeg_contacts_follows_pairs_and_the_average() -> None:
    assert spatial.electrode_matrix(["C3-M2", "M2"], average=[False] * 2).tolist() == [[1, -1], [0, 1]]
    matrix = spatial.electrode_matrix(["C3", "C4", "EOG"], average=[True, True, False])
    assert matrix.tolist() == [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]


def matrices(n: int) -> torch.Tensor:
    u = Keys(0, 0, torch.arange(n)).uniform((4,), 5)
    return spatial.quaternion_matrix(normal(u))


def test_rotations_are_proper() -> None:
    R = matrices(200)
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(200, 3, 3))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(200, dtype=torch.float64))


def test_rotations_are_uniform_on_so3() -> None:
    """Moments of Haar measure: E R = 0, E R_ij^2 = 1/3, E tr R = 0, E (tr R)^2 = 1; the angle has density (1 - cos) / pi."""
    n = 40_000
    R = matrices(n)
    five = 5 / n**0.5  # five standard errors for variables of variance up to 1
    assert R.mean(0).abs().max() < five
    assert (R.square().mean(0) - 1 / 3).abs().max() < five
    trace = R.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < five and abs(trace.square().mean() - 1) < 2 * five
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    for a in (0.5, 1.0, 2.0, 3.0):
        assert (angle < a).double().mean() == pytest.approx((a - np.sin(a)) / np.pi, abs=0.012)


def test_a_tilt_turns_about_its_axis_by_its_angle() -> None:
    R = spatial.tilt_matrix(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    c, s = np.cos(0.3), np.sin(0.3)
    np.testing.assert_allclose(R.numpy(), [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-12)


def test_rotation_keeps_norms_and_the_angle_between_sensors() -> None:
    x = torch.randn(5, 6, 30, dtype=torch.float64)
    table, kinds, sites, lonely = spatial.triad_table(IMU_AXES)
    assert kinds == ["acc", "gyro"] and sites == ["", ""] and lonely == []
    out, _ = spatial.rotate(x, matrices(5), table)
    torch.testing.assert_close(out[:, :3].norm(dim=1), x[:, :3].norm(dim=1))
    torch.testing.assert_close((out[:, :3] * out[:, 3:]).sum(1), (x[:, :3] * x[:, 3:]).sum(1))
    assert not torch.allclose(out, x)


def test_the_gyroscope_is_an_axial_vector() -> None:
    """Turned like acceleration by a proper rotation: the rate of a turned frame is the turned rate."""
    R0, R1 = matrices(2)
    w = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    skew = torch.tensor([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]], dtype=torch.float64)
    turned = R1 @ skew @ R1.T  # rate matrix seen from the turned sensor
    x = torch.zeros(1, 6, 1, dtype=torch.float64)
    x[0, 3:, 0] = w
    out, _ = spatial.rotate(x, R1[None], spatial.triad_table(IMU_AXES)[0])
    torch.testing.assert_close(out[0, 3:, 0], torch.stack([turned[2, 1], turned[0, 2], turned[1, 0]]))


def test_sites_are_told_apart_and_an_axis_alone_is_named() -> None:
    names = [f"{site}_{axis}" for site in ("wrist", "hip") for axis in ("acc_x", "acc_y", "acc_z")] + ["gyro_y"]
    _, kinds, sites, lonely = spatial.triad_table(names)
    assert kinds == ["acc", "acc"] and len(set(sites)) == 2 and lonely == ["gyro_y"]


def test_a_mixture_is_observed_where_all_its_parts_are() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [5.0, 6.0]]])
    seen = torch.tensor([[[True, True], [True, False], [True, False]]])
    weight = torch.tensor([[[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    out, moved = spatial.mix_channels(x, weight, seen)
    assert out.tolist() == [[[4, 0], [2, 4], [0, 0]]]
    assert moved is not None and moved.tolist() == [[[True, False], [True, True], [True, False]]]


@pytest.mark.parametrize(("name", "other"), [("Fp1", "Fp2"), ("P10", "P9"), ("Fz", "Fz"), ("T7-P7", "T8-P8"), ("Oz", "Oz")])
def test_sides_by_name(name: str, other: str) -> None:
    assert spatial.mirrored_name(name) == other and spatial.mirrored_name(other) == name
