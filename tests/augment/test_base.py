"""The contract, over every augmentation of the table: shapes, keys, micro-batches, gaps, p, and who refuses what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from biossl.augment.base import DEPENDENCES, Augmentation, Pipeline, build_pipeline
from biossl.batch import Batch
from biossl.config import build, dump_yaml, parse_yaml
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.recipe.check import EXAMPLES
from biossl.recipe.schema import Part
from biossl.recipe.tables import CONFIGS, resolve
from biossl.signal import InputSpec

AMOUNT = {"ecg": 0.1, "eeg": 10.0, "acc": 0.1, "gyro": 0.2}
# settings of those that need some, or whose default is mild
SETTINGS: dict[str, dict[str, Any]] = {
    "jitter": {"sd": AMOUNT},
    "quantise": {"step": AMOUNT},
    "band_stop": {"centre_hz": [2.0, 20.0]},
    "fda_free": {"band_hz": [0.5, 20.0]},
    "batch_style": {"band_hz": [0.0, 5.0]},
    "baseline_wander": {"amplitude": AMOUNT},
    "mains": {"amplitude": AMOUNT},
    "electrode_motion": {"amplitude": AMOUNT, "share": 0.9},
    "lead_dropout": {"share": 0.5},
    "lead_reversal": {"swaps": ["RA-LA", "LA-LL", "V1-V2"]},
}
BULK = {"jitter"}  # noise from a generator of (seed, step, micro-batch, rank)
OF_THE_BATCH = {"batch_style"}  # looks at the other windows, by its nature
MOVES_FLAGS = {
    "time_reverse", "permutation", "time_warp", "crop_resize", "rate_jitter", "time_mask", "lead_dropout", "lead_reversal",
    "rereference", "side_swap_eeg", "rotation", "tilt",
}  # fmt: skip
# three channels that each can work on
FEW = {"ecg": ("I", "II", "V3"), "eeg": ("C3", "C4", "Cz"), "imu": ("acc_x", "acc_y", "acc_z")}
T = 100


def cases() -> list[Any]:
    out = []
    for name, target in CONFIGS["augment"].items():
        for modality in resolve(target).modalities:
            out.append(pytest.param(name, modality, id=f"{name}-{modality}"))
    return out


def spec_of(modality: str, channels: tuple[str, ...] = ()) -> InputSpec:
    spec = EXAMPLES[modality]
    rows = [spec.ch_names.index(c) for c in channels or spec.ch_names]
    return replace(
        spec, sfreq=max(spec.sfreq, 128.0), n_samples=T, ch_names=tuple(spec.ch_names[i] for i in rows),
        ch_types=tuple(spec.ch_types[i] for i in rows), units=tuple(spec.units[i] for i in rows),
    )  # fmt: skip


def make(name: str, spec: InputSpec, **more: Any) -> Augmentation:
    torch.manual_seed(0)
    config = build(resolve(CONFIGS["augment"][name]), {"p": 1.0} | SETTINGS.get(name, {}) | more, where="recipe.yaml")
    return config.build(spec)  # type: ignore[no-any-return, attr-defined]


def windows(spec: InputSpec, n: int = 6, *, gaps: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, len(spec.ch_names), T, generator=generator) + 0.5
    if not gaps:
        return Batch(x, spec.ch_names, spec.sfreq, subject=torch.arange(n))
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, :, 30:45] = False
    seen[0, 0] = False
    seen[1] = False
    return Batch(torch.where(seen, x, 0.0), spec.ch_names, spec.sfreq, observed=seen)


def keys(n: int, first: int = 0, step: int = 3) -> Keys:
    return Keys(7, step, torch.arange(first, first + n))


@pytest.mark.parametrize(("name", "modality"), cases())
def test_shape_type_and_finite(name: str, modality: str) -> None:
    spec = spec_of(modality)
    batch = windows(spec)
    before = batch.x.clone()
    out = make(name, spec)(batch, keys(6), 10)
    assert out.x.shape == batch.x.shape and out.x.dtype == torch.float32 and out.x.isfinite().all()
    assert out.channels == spec.ch_names and out.subject is batch.subject
    assert torch.equal(batch.x, before), "the batch that came in was written to"
    if out.observed is not None:
        assert out.observed.dtype == torch.bool and (out.x[~out.observed] == 0).all()
    assert not torch.equal(out.x, batch.x)


@pytest.mark.parametrize(("name", "modality"), cases())
def test_same_keys_same_result_other_keys_another(name: str, modality: str) -> None:
    spec = spec_of(modality)
    batch, augmentation = windows(spec), make(name, spec, p=0.5)
    first = augmentation(batch, keys(6), 10)
    torch.manual_seed(99)
    assert torch.equal(first.x, augmentation(batch, keys(6), 10).x)
    for other in (keys(6, step=4), keys(6, first=100), Keys(8, 3, torch.arange(6))):
        assert not torch.equal(first.x, augmentation(batch, other, 10).x)
    assert not torch.equal(first.x, augmentation(batch, keys(6), 1010).x)


@pytest.mark.parametrize(("name", "modality"), cases())
def test_a_sample_does_not_depend_on_its_micro_batch(name: str, modality: str) -> None:
    """Except the bulk noise of jitter and the style of a batch: which samples get it does not depend, the noise or style does."""
    spec = spec_of(modality)
    batch, augmentation = windows(spec, gaps=True), make(name, spec, p=0.5)
    together = augmentation(batch, keys(6), 10)
    for i in range(6):
        assert batch.observed is not None and together.observed is not None
        one = Batch(batch.x[i : i + 1], batch.channels, batch.sfreq, observed=batch.observed[i : i + 1])
        alone = augmentation(one, keys(1, first=i), 10)
        assert alone.observed is not None and torch.equal(alone.observed, together.observed[i : i + 1])
        if name in OF_THE_BATCH:
            torch.testing.assert_close(alone.x, one.x, atol=1e-5, rtol=1e-5)  # its own style
        elif name in BULK:
            assert torch.equal(alone.x, one.x) == torch.equal(together.x[i], batch.x[i])
        else:
            torch.testing.assert_close(alone.x, together.x[i : i + 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "modality"), cases())
def test_p_is_the_share_of_changed_samples(name: str, modality: str) -> None:
    spec = spec_of(modality)
    batch = windows(spec, 64)
    still = make(name, spec, p=0.0)
    out = still(batch, keys(64), 10)
    assert torch.equal(out.x, batch.x) and (out.observed is None or out.observed.all())
    assert still.breaks == frozenset()
    half = make(name, spec, p=0.5)(batch, keys(64), 10)
    changed = (half.x != batch.x).flatten(1).any(1).sum()
    assert 10 <= changed <= 50


@pytest.mark.parametrize(("name", "modality"), cases())
def test_what_was_not_observed_stays_0_and_unobserved(name: str, modality: str) -> None:
    spec = spec_of(modality)
    batch = windows(spec, gaps=True)
    out = make(name, spec)(batch, keys(6), 10)
    assert out.observed is not None and batch.observed is not None
    assert (out.x[~out.observed] == 0).all() and out.x.isfinite().all()
    assert not out.observed[1].any()  # a window without a signal has none afterwards
    if name not in MOVES_FLAGS:
        assert torch.equal(out.observed, batch.observed)
    assert out.observed[2:].any(dim=(1, 2)).all()


@pytest.mark.parametrize(("name", "modality"), cases())
def test_what_stands_in_a_gap_is_never_read(name: str, modality: str) -> None:
    spec = spec_of(modality)
    batch, augmentation = windows(spec, gaps=True), make(name, spec)
    assert batch.observed is not None
    other = replace(batch, x=torch.where(batch.observed, batch.x, 1e3))
    a, b = augmentation(batch, keys(6), 10), augmentation(other, keys(6), 10)
    torch.testing.assert_close(a.x, b.x, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("name", "modality"), cases())
def test_few_channels_will_do(name: str, modality: str) -> None:
    spec = spec_of(modality, FEW[modality])
    more = {"swaps": ["RA-LA"]} if name == "lead_reversal" else {}
    out = make(name, spec, **more)(windows(spec), keys(6), 10)
    assert out.x.shape == (6, 3, T) and out.x.isfinite().all()


@pytest.mark.parametrize("name", CONFIGS["augment"])
def test_settings_survive_a_file_and_name_units_modalities_and_what_they_break(name: str) -> None:
    cls = resolve(CONFIGS["augment"][name])
    config = build(cls, SETTINGS.get(name, {}), where="recipe.yaml")
    again = build(cls, parse_yaml(dump_yaml(config), where="recipe.yaml"), where="recipe.yaml")
    assert again == config and 0 < config.p <= 1
    assert config.units and set(config.modalities) <= {"ecg", "eeg", "imu"}
    assert config.breaks <= set(DEPENDENCES)
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")


@pytest.mark.parametrize(("name", "modality"), cases())
def test_without_memory_for_the_check_of_a_recipe(name: str, modality: str) -> None:
    spec = spec_of(modality)
    with torch.device("meta"):
        augmentation = make(name, spec).to("meta")
    out = augmentation(windows(spec).to("meta"), Keys(0, 0, torch.arange(6, device="meta")), 10)
    assert out.x.device.type == "meta" and out.x.shape == (6, len(spec.ch_names), T)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("gain", {"p": 1.5}, "p is 1.5; it is a probability"),
    ("gain", {"factor": [2.0, 0.5]}, "factor is [2.0, 0.5]; it is [least, most]"),
    ("jitter", {"sd": {"acc": -0.1}}, "sd.acc is -0.1 g; it is at least 0"),
    ("jitter", {"sd": {"ekg": 0.1}}, "names channel type 'ekg'"),
    ("jitter", {"sd": {}}, "sd is empty"),
    ("quantise", {}, "neither step nor limit"),
    ("magnitude_warp", {"sd": -1.0}, "sd is -1"),
    ("time_warp", {"knots": 1}, "knots at least 2"),
    ("crop_resize", {"share": [0.5, 1.5]}, "share is [0.5, 1.5]"),
    ("time_mask", {"share": [0.1]}, "share is [0.1]"),
    ("rate_jitter", {"drift": 2.0}, "drift is 2"),
    ("permutation", {"segments": 1}, "at least 2"),
    ("fourier_surrogate", {"magnitude": 2.0}, "magnitude is 2"),
    ("band_stop", {"centre_hz": [5.0, 1.0]}, "centre_hz is [5.0, 1.0]"),
    ("batch_style", {"band_hz": [2.0, 1.0]}, "band_hz is [2.0, 1.0]; it is [least, most]"),
    ("fda", {"temperature": 0.0}, "temperature is above 0"),
    ("fda_free", {"power": 0.0}, "power is above 0"),
    ("mains", {"amplitude": {"ecg": 0.1}, "hz": 55}, "cannot be 55"),
    ("lead_reversal", {"swaps": ["RA-LB"]}, "swaps has no 'RA-LB'"),
    ("lead_dropout", {"share": -0.1}, "share is -0.1"),
    ("tilt", {"max_deg": 400.0}, "from 0 to 180 degrees"),
]


@pytest.mark.parametrize(("name", "settings", "text"), WRONG)
def test_a_wrong_setting_is_one_line(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError) as caught:
        build(resolve(CONFIGS["augment"][name]), settings, where="r.yaml", prefix="augment.0.")
    assert text in str(caught.value) and str(caught.value).startswith("r.yaml: ") and "\n" not in str(caught.value)


UNFIT: list[tuple[str, dict[str, Any], InputSpec, str]] = [
    ("rotation", {}, spec_of("ecg"), "it is for imu, not for ecg"),
    ("rotation", {}, spec_of("imu", ("acc_x", "acc_y")), "channel acc_x has not all three axes"),
    ("side_swap_eeg", {}, spec_of("eeg", ("C3", "Cz")), "C3 has no C4 on the other side"),
    ("lead_reversal", {}, spec_of("ecg", ("II", "V1")), "at least two limb leads"),
    ("rereference", {}, spec_of("eeg", ("Cz",)), "two or more EEG electrodes"),
    ("lead_dropout", {}, spec_of("ecg", ("II",)), "the windows have one channel, and one always stays"),
    ("jitter", {"sd": {"gyro": 0.1}}, spec_of("ecg"), "no channel is of type gyro; here: ecg"),
    ("jitter", {"sd": {"ecg": 0.1}}, replace(spec_of("ecg"), units=("1",) * 8), "is in unit '1', not mV"),
    ("mains", {"amplitude": {"ecg": 0.1}}, replace(spec_of("ecg"), sfreq=100.0), "not below half the rate, 50 Hz"),
    ("band_stop", {"centre_hz": [1.0, 64.0]}, spec_of("eeg"), "centre_hz plus half of width_hz: 65 Hz"),
    ("fda_free", {}, replace(spec_of("imu"), sfreq=50.0), "band_hz: 40 Hz is not below half the rate, 25 Hz"),
    ("batch_style", {"band_hz": [0.1, 0.2]}, spec_of("ecg"), "no frequency of a window of 0.4 s lies in [0.1, 0.2]"),
    ("batch_style", {"band_hz": [0.0, 300.0]}, spec_of("ecg"), "band_hz: 300 Hz is not below half the rate"),
    ("permutation", {"segments": 500}, spec_of("imu"), "500 segments of 100 samples"),
]


@pytest.mark.parametrize(("name", "settings", "spec", "text"), UNFIT)
def test_what_has_no_meaning_for_the_windows_is_one_line(name: str, settings: dict[str, Any], spec: InputSpec, text: str) -> None:
    config = build(resolve(CONFIGS["augment"][name]), settings, where="r.yaml")
    with pytest.raises(RequestError) as caught:
        build_pipeline([Part("gain", resolve(CONFIGS["augment"]["gain"])()), Part(name, config)], spec)
    assert str(caught.value).startswith(f"augment.1 {name}: ") and text in str(caught.value)


def test_views_of_a_pipeline_differ_and_parts_draw_apart() -> None:
    spec = spec_of("imu")
    pipeline = Pipeline([make("gain", spec), make("gain", spec)])
    batch = windows(spec)
    one, two = pipeline(batch, keys(6), view=0), pipeline(batch, keys(6), view=1)
    assert not torch.equal(one.x, two.x)
    factor = (one.x / batch.x).mean(dim=(1, 2))
    single = (pipeline.parts[0](batch, keys(6), 1_000_000).x / batch.x).mean(dim=(1, 2))
    assert not torch.allclose(factor, single.square(), rtol=1e-3)  # the second is not the first again


def test_a_pipeline_serves_the_channels_it_was_built_for_and_no_others() -> None:
    spec = spec_of("imu")
    pipeline = build_pipeline([Part("rotation", resolve(CONFIGS["augment"]["rotation"])())], spec)
    batch = windows(spec)
    pipeline(batch, keys(6))
    turned = replace(batch, x=batch.x.flip(1), channels=spec.ch_names[::-1])
    fewer = replace(batch, x=batch.x[:, :3], channels=spec.ch_names[:3])
    for other in (turned, fewer):
        with pytest.raises(ValueError, match="^augment was built for channels acc_x [^\n]*, the batch has [^\n]*$"):
            pipeline(other, keys(6))


def test_a_gain_of_each_channel_turns_gravity_and_the_axis_when_it_is_large() -> None:
    gain = resolve(CONFIGS["augment"]["gain"])
    assert gain(per_channel=True).breaks == frozenset() and gain(factor=[0.5, 2.0]).breaks == {"amplitude"}
    assert gain(factor=[0.5, 2.0], per_channel=True).breaks == {"amplitude", "posture", "polarity"}


def test_a_pipeline_computes_in_full_precision_under_autocast() -> None:
    spec = spec_of("imu")
    pipeline, batch = Pipeline([make("rotation", spec)]), windows(spec)
    want = pipeline(batch, keys(6)).x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pipeline(batch, keys(6)).x, want)


def test_learned_scores_have_gradient_penalty_and_a_rate_of_their_own() -> None:
    spec = spec_of("ecg")
    fda = make("fda", spec, lr_scale=0.5, sparsity=0.2)
    pipeline = Pipeline([make("gain", spec), fda])
    batch = windows(spec)
    loss = (pipeline(batch, keys(6)).x - batch.x).square().mean()
    loss.backward()
    (score,) = fda.parameters()
    assert score.grad is not None and score.grad.abs().sum() > 0
    (group,) = pipeline.own_groups()
    assert group["lr_scale"] == 0.5 and group["weight_decay"] == 0 and group["params"][0] is score
    penalty = pipeline.penalty()
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.2 * torch.sigmoid(score).sum().item() / T)
    fda.eval()
    assert torch.equal(fda(batch, keys(6), 10).x, fda(batch, keys(6, step=9), 10).x)  # no draw of bins


def test_movement_run_backwards_turns_the_other_way() -> None:
    spec = spec_of("imu")
    batch = windows(spec)
    out = make("time_reverse", spec)(batch, keys(6), 10).x
    assert torch.equal(out[:, :3], batch.x[:, :3].flip(2)) and torch.equal(out[:, 3:], -batch.x[:, 3:].flip(2))
    kept = make("time_reverse", spec, gyro="keep")(batch, keys(6), 10).x
    assert torch.equal(kept, batch.x.flip(2))


def test_a_mirror_image_turns_axial_vectors_the_other_way() -> None:
    """s = diag(-1, 1, 1): r x v of mirrored vectors is -s (r x v)."""
    spec = spec_of("imu")
    batch = windows(spec)
    out = make("side_swap_imu", spec, axis="x")(batch, keys(6), 10).x
    sign = torch.tensor([-1.0, 1, 1, 1, -1, -1])
    assert torch.equal(out, batch.x * sign[:, None])
    r, v = batch.x[:, :3], batch.x[:, 3:]
    s = sign[:3, None]
    torch.testing.assert_close(torch.linalg.cross(s * r, s * v, dim=1), -s * torch.linalg.cross(r, v, dim=1))


def test_one_rotation_a_site_and_no_tilt_beyond_its_angle() -> None:
    names = tuple(f"{site}_acc_{a}" for site in ("hip", "wrist") for a in "xyz")
    spec = InputSpec("imu", 50.0, T, names, ("acc",) * 6, ("g",) * 6)
    x = torch.zeros(200, 6, T)
    x[:, 2] = x[:, 5] = 1.0  # gravity along z at both
    batch = Batch(x, names, 50.0)
    turned = make("rotation", spec)(batch, keys(200), 10).x[:, :, 0]
    assert (turned[:, :3] - turned[:, 3:]).norm(dim=1).min() > 1e-3
    tilted = make("tilt", spec, max_deg=20.0)(batch, keys(200), 10).x[:, :, 0]
    angle = torch.rad2deg(torch.acos(tilted[:, 2].clamp(-1, 1)))
    assert angle.max() <= 20.1 and angle.mean() > 5


def test_the_rotation_of_a_recipe_is_uniform_on_so3() -> None:
    """E R = 0, E (tr R)^2 = 1, and the angle has density (1 - cos) / pi."""
    n, spec = 20_000, spec_of("imu", FEW["imu"])
    axes = torch.zeros(n, 3, T)
    axes[:, :, :3] = torch.eye(3)
    R = make("rotation", spec)(Batch(axes, spec.ch_names, spec.sfreq), keys(n), 10).x[:, :, :3].double()
    assert R.mean(0).abs().max() < 5 / n**0.5
    trace = R.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.square().mean() - 1) < 10 / n**0.5
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    for a in (0.5, 1.0, 1.5, 2.0, 2.5):
        share = (a - math.sin(a)) / math.pi
        assert (angle < a).double().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_noise_reaches_the_leads_as_from_a_contact() -> None:
    spec = InputSpec("ecg", 250.0, T, ("I", "II", "III", "V1"), ("ecg",) * 4, ("mV",) * 4)
    zero = Batch(torch.zeros(4, 4, T), spec.ch_names, 250.0)
    for name in ("baseline_wander", "mains", "electrode_motion"):
        x = make(name, spec)(zero, keys(4), 10).x
        torch.testing.assert_close(x[:, 2], x[:, 1] - x[:, 0], atol=1e-5, rtol=0)
        assert 0.001 < x.abs().max() < 0.41  # mV: two electrodes at most 0.1 each, two pulls


def test_mains_hum_has_its_frequency_and_its_size() -> None:
    spec = InputSpec("eeg", 250.0, 2500, ("Cz",), ("eeg",), ("uV",))
    zero = Batch(torch.zeros(64, 1, 2500), ("Cz",), 250.0)
    config = build(resolve(CONFIGS["augment"]["mains"]), {"amplitude": {"eeg": 5.0}, "hz": 60}, where="r")
    x = config.build(spec)(zero, keys(64), 10).x[:, 0]  # type: ignore[attr-defined]
    assert torch.fft.rfft(x[0]).abs().argmax().item() / 10 == pytest.approx(60, abs=0.11)
    assert 4.7 < x.abs().max() <= 5.0  # uV: amplitudes are uniform up to the one that is set


def test_a_dropped_lead_is_unobserved_and_one_that_was_observed_stays() -> None:
    spec = spec_of("ecg")
    batch = windows(spec, 64)
    out = make("lead_dropout", spec, share=1.0)(batch, keys(64), 10)
    assert out.observed is not None
    assert (out.observed.all(2).sum(1) == 1).all() and (out.observed.any(2).sum(1) == 1).all()
    share = make("lead_dropout", spec, share=0.2)(batch, keys(64), 10).observed
    assert share is not None and share.float().mean() == pytest.approx(0.8, abs=0.06)
    seen = torch.zeros_like(batch.x, dtype=torch.bool)
    seen[:, 3] = True
    gone = make("lead_dropout", spec, share=1.0)(replace(batch, x=batch.x * seen, observed=seen), keys(64), 10).observed
    assert gone is not None and torch.equal(gone, seen)


def test_references() -> None:
    spec = spec_of("eeg")
    batch = windows(spec)
    average = make("rereference", spec, to="average")(batch, keys(6), 10)
    torch.testing.assert_close(average.x, batch.x - batch.x.mean(1, keepdim=True))
    out = make("rereference", spec)(batch, keys(6), 10)
    assert out.observed is not None
    chosen = (~out.observed).all(2)
    assert (chosen.sum(1) == 1).all() and len(chosen.int().argmax(1).unique()) > 1
    reference = batch.x[chosen][:, None]
    torch.testing.assert_close(out.x, torch.where(out.observed, batch.x - reference, 0.0))


def test_the_average_is_over_what_is_observed() -> None:
    spec = spec_of("eeg", FEW["eeg"])
    x = torch.tensor([1.0, 3.0, 0.0])[None, :, None].expand(2, 3, T).clone()
    seen = torch.tensor([True, True, False])[None, :, None].expand(2, 3, T)
    out = make("rereference", spec, to="average")(Batch(x, spec.ch_names, spec.sfreq, observed=seen), keys(2), 10)
    assert out.x[0, :, 0].tolist() == [-1, 1, 0]


def test_sides_are_exchanged_by_name() -> None:
    spec = spec_of("eeg", ("Cz", "F8", "C3", "F7", "C4"))
    batch = windows(spec)
    out = make("side_swap_eeg", spec)(batch, keys(6), 10).x
    assert torch.equal(out, batch.x[:, [0, 3, 4, 1, 2]])


def test_a_cut_out_lies_inside_and_has_the_stated_length() -> None:
    spec = spec_of("imu")
    seen = make("time_mask", spec, share=[0.1, 0.3])(windows(spec, 200), keys(200), 10).observed
    assert seen is not None
    length = (~seen[:, 0]).sum(1)
    assert 10 <= length.min() <= 12 and 28 <= length.max() <= 30
    assert (seen == seen[:, :1]).all()
