"""What happens to a batch before the encoder sees it: augmentations and masks, each entry of the tables alone.

What lives here: the settings under which each is timed, and the clocks. What they do is theirs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from biossl.augment.base import build_pipeline
from biossl.batch import Batch
from biossl.bench.data import simulated_windows
from biossl.bench.frame import peak_bytes, per_call, repeat
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.objectives.masking import draw_masks
from biossl.recipe import Recipe
from biossl.recipe.check import example_spec
from biossl.recipe.schema import Part
from biossl.recipe.tables import CONFIGS, config_class
from biossl.signal import InputSpec

SFREQ, SAMPLES = 250.0, 2500
_ECG = tuple("I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split())
_EEG = tuple("F7 F3 F4 F8 T7 C3 C4 T8 P3 P4 O1 O2".split())
_IMU = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
SPECS = {
    "ecg": InputSpec("ecg", SFREQ, SAMPLES, _ECG, ("ecg",) * 12, ("mV",) * 12),
    "eeg": InputSpec("eeg", SFREQ, SAMPLES, _EEG, ("eeg",) * 12, ("uV",) * 12),
    "imu": InputSpec("imu", SFREQ, SAMPLES, _IMU, ("acc",) * 3 + ("gyro",) * 3, ("g",) * 3 + ("rad/s",) * 3),
}
# what a recipe has to say because there is no default; amounts in mV and Hz
SETTINGS: dict[str, dict[str, Any]] = {
    "jitter": {"sd": {"ecg": 0.02}},
    "quantise": {"step": {"ecg": 0.005}},
    "band_stop": {"centre_hz": [2.0, 38.0]},
    "batch_style": {"band_hz": [0.5, 40.0]},
    "baseline_wander": {"amplitude": {"ecg": 0.1}},
    "mains": {"amplitude": {"ecg": 0.05}},
    "electrode_motion": {"amplitude": {"ecg": 0.5}},
}


def bench_augment(*, batch: int, steps: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """Every augmentation on a batch of 12 channels x 2500 samples (6 for those of movement alone), every window changed.

    Returns
    -------
    dict
        ``seconds_per_call`` by name (summaries of whole batches), ``shapes``, ``peak_memory_bytes``.
    """
    each, shapes = {}, {}
    batches = {name: simulated_batch(spec, batch, device) for name, spec in SPECS.items()}
    for name in CONFIGS["augment"]:
        config = config_class("augment", name, where="bench")(p=1.0, **SETTINGS.get(name, {}))
        modality = config.modalities[0]
        pipeline = build_pipeline([Part(name, config)], SPECS[modality]).to(device)
        x, keys = batches[modality], Keys(0, 0, torch.arange(batch, device=device))
        shapes[name] = list(x.x.shape)
        with torch.no_grad():
            each[name] = repeat(partial(pipeline, x, keys), steps=steps, warmup=warmup, device=device)
    return {**per_call(each), "shapes": shapes, "peak_memory_bytes": peak_bytes(device)}


def simulated_batch(spec: InputSpec, n: int, device: torch.device) -> Batch:
    """:func:`simulated_windows` as a batch of n subjects."""
    rows = torch.arange(n, device=device)
    x = torch.from_numpy(simulated_windows(spec, n)).to(device)
    return Batch(x, spec.ch_names, spec.sfreq, subject=rows, index=rows)


def bench_masks(recipe: Recipe, *, batch: int, steps: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """Every mask with its default settings on the token grid of a recipe, one mask a window.

    Returns
    -------
    dict
        ``seconds_per_call`` by name (summaries; a call draws ``masks_per_call`` masks: one a window, or one for all of them),
        ``masks_per_s``, ``grid``, ``left_out`` (masks that the grid or the channels do not allow, with the reason).
    """
    spec = example_spec(recipe)
    with torch.device("meta"):
        encoder: Any = recipe.build(spec).export()
    grid = encoder.grid
    each, number, left_out = {}, {}, {}
    keys = Keys(0, 0, torch.arange(batch, device=device))
    for name in CONFIGS["mask"]:
        try:
            mask = config_class("mask", name, where="bench")().require(grid, spec)
        except RequestError as error:
            left_out[name] = str(error)
            continue
        each[name] = repeat(partial(draw_masks, mask, keys, grid, 1), steps=steps, warmup=warmup, device=device)
        number[name] = batch if mask.per_sample else 1
    return {
        **per_call(each),
        "masks_per_call": number,
        "masks_per_s": {name: number[name] / times.median for name, times in each.items()},
        "grid": list(grid),
        "left_out": left_out,
    }
