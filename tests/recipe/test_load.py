"""Recipes: every packaged one loads, round-trips and builds; faults are one line with key and nearest valid one."""

import copy
import math

import pytest
import torch

from biossl.config import dump_yaml, parse_yaml
from biossl.errors import BiosslError, DataError, RequestError
from biossl.recipe import find_recipe, load_recipe, recipe_from_dict
from biossl.recipe.check import check_recipe, example_spec
from biossl.recipe.tables import CONFIGS, ENCODERS, OBJECTIVES, resolve
from biossl.resources import resource, resources

NAMES = [r.removesuffix(".yaml") for r in resources("recipes")]
SMALL = {
    "model.dim": "16",
    "model.depth": "1",
    "model.heads": "2",
    "objective.target_layers": "1",
    "objective.predictor.dim": "8",
}
SMALL |= {"objective.predictor.depth": "1", "objective.predictor.heads": "2"}


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_recipe_loads_builds_and_survives_being_saved(name):
    recipe = load_recipe(name)
    check_recipe(recipe)
    again = recipe_from_dict(parse_yaml(dump_yaml(recipe.to_dict()), where="f"), where=recipe.source)
    assert again == recipe and again.hash == recipe.hash
    for same in (name, f"{name}.yaml", f"recipes/{name}.yaml"):
        assert find_recipe(same).resolve() == resource(f"recipes/{name}.yaml").resolve()
    assert load_recipe(f"recipes/{name}.yaml").hash == recipe.hash


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_recipe_opens_with_a_line_for_the_list_and_says_what_came_out(name):
    lines = [line for line in resource(f"recipes/{name}.yaml").read_text().splitlines() if line.startswith("#")]
    text = "\n".join(lines)
    assert 20 < len(lines[0]) <= 130
    assert all(word in text for word in ("Source:", "Data:", "Command:", "Hardware:", "Expected"))
    assert ("Command: biossl demo" if name.startswith("demo/") else f"Command: biossl pretrain recipes/{name}.yaml") in text


def test_every_name_in_the_tables_exists():
    for target in [t for table in CONFIGS.values() for t in table.values()] + [*ENCODERS.values(), *OBJECTIVES.values()]:
        resolve(target)
    assert set(ENCODERS) == set(CONFIGS["model"]) and set(OBJECTIVES) == set(CONFIGS["objective"])


def test_the_published_base_configuration():
    recipe = load_recipe("ecg/jepa")
    spec = example_spec(recipe)
    assert (spec.sfreq, spec.n_samples, spec.ch_names) == (250.0, 2500, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
    summary = check_recipe(recipe)
    assert summary["parameters"] == pytest.approx(96.3e6, rel=1e-3) and summary["grid"] == [8, 50]
    encoder, predictor, jepa, train = (
        recipe.model.config,
        recipe.objective.config.predictor,
        recipe.objective.config,
        recipe.train,
    )
    assert (encoder.dim, encoder.depth, encoder.heads, encoder.mlp_ratio, encoder.qkv_bias) == (768, 12, 16, 4.0, False)
    assert (encoder.attention, encoder.position, encoder.registers, encoder.norm_eps) == ("cropa", "every_block", 0, 1e-5)
    assert (encoder.drop_path, encoder.normalise, encoder.tokenizer) == (0.1, "none", "channel")
    assert (predictor.dim, predictor.depth, predictor.heads, predictor.qkv_bias) == (384, 6, 12, False)
    assert (jepa.loss, jepa.beta, jepa.ema_start, jepa.ema_end, jepa.target_train_mode) == ("smooth_l1", 1.0, 0.996, 1.0, True)
    assert (jepa.target_layers, jepa.n_masks, jepa.regularizer.name) == (0, 1, "none")
    assert (recipe.mask.name, recipe.mask.config.ratio, recipe.data.batch_size) == ("random", [0.6, 0.7], 128)
    assert (train.optimizer.lr, train.optimizer.weight_decay, train.optimizer.betas) == (2.5e-5, 0.05, [0.9, 0.999])
    # 100 epochs of 174,140 records, 5 of warm-up, both ends at 1e-6
    assert train.steps == 100 * -(-174_140 // 128) and train.schedule.config.warmup_steps == train.steps // 20
    late = 1e-6 + 0.5 * (2.5e-5 - 1e-6) * (1 + math.cos(math.pi / 20))  # its cosine is counted from step 0
    assert [train.lr(s) for s in (0, train.steps // 20, train.steps)] == pytest.approx([1e-6, late, 1e-6])

    other = load_recipe("ecg/jepa_multiblock")
    assert (other.train.optimizer.lr, other.data.batch_size) == (5e-5, 64)
    assert (other.mask.config.ratio, other.mask.config.blocks, other.mask.config.length) == (None, 4, [0.175, 0.225])
    assert other.train.steps == 100 * -(-174_140 // 64)


def test_overrides_of_any_key_by_the_rules_of_the_file():
    recipe = load_recipe(
        "imu/jepa_small", {"--mask.ratio": "0.4", "train.optimizer.lr": "2e-4", "train.clip_norm": "null", "seed": "7"}
    )
    assert (recipe.mask.config.ratio, recipe.train.optimizer.lr, recipe.train.clip_norm, recipe.seed) == (0.4, 2e-4, None, 7)
    recipe = load_recipe("imu/jepa_small", {"data.channels": "[acc_x, acc_y, acc_z]", "monitor.probe.label": "activity"})
    assert recipe.data.channels == ["acc_x", "acc_y", "acc_z"] and recipe.monitor.probe.label == "activity"
    assert load_recipe("imu/jepa_small", {"seed": "7"}).hash != load_recipe("imu/jepa_small").hash
    assert load_recipe("imu/jepa_small", {"name": "other"}).hash == load_recipe("imu/jepa_small").hash


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"mask.rato": "0.6"}, "key 'mask.rato' is not known; did you mean 'ratio'?"),
        ({"trian.steps": "5"}, "key 'trian' is not known; did you mean 'train'?"),
        ({"train.optimizer.lrr": "5"}, "key 'train.optimizer.lrr' is not known; did you mean 'lr'?"),
        ({"objective.predictor.dept": "5"}, "key 'objective.predictor.dept' is not known; did you mean 'depth'?"),
        ({"objective.name": "jpea"}, "objective 'jpea' is not known; did you mean 'jepa'?"),
        ({"mask.name": "randm"}, "mask 'randm' is not known; did you mean 'random'?"),
        ({"train.schedule.name": "os:system"}, "schedule 'os:system' is not known"),
        ({"train.steps": "many"}, "key 'train.steps' must be a whole number, not 'many'"),
        ({"mask.ratio": "1.5"}, "'mask': ratio must be between 0 and 1, not 1.5"),
        ({"train.precision": "fp61"}, "key 'train.precision' cannot be 'fp61'; did you mean 'fp16'?"),
        ({"train": "5"}, "'train' must hold keys and values, not 5"),
        ({"train.steps.x": "5"}, "--train.steps.x: 'train.steps' holds a value"),
        ({"format": "2"}, "format 2; this version reads recipes with 'format: 1'"),
        ({"modality": "ppg"}, "key 'modality' cannot be 'ppg'"),
    ],
)
def test_a_fault_is_one_line_with_file_key_and_nearest(overrides, text):
    with pytest.raises(RequestError) as error:
        load_recipe("imu/jepa_small", overrides)
    message = str(error.value)
    assert "\n" not in message and message.startswith("imu/jepa_small: ")
    assert text.replace("; did you mean 'fp16'?", "") in message


def test_a_missing_key_or_name_is_named(tmp_path):
    raw = load_recipe("imu/jepa_small").to_dict()
    for path, text in [
        (["train", "steps"], "key 'train.steps' is missing"),
        (["train", "schedule"], "key 'train.schedule' is missing"),
        (["objective"], "key 'objective' is missing"),
        (["objective", "name"], "key 'objective.name' is missing; say which"),
        (["format"], "no 'format'"),
    ]:
        cut = copy.deepcopy(raw)
        place = cut
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        with pytest.raises(RequestError) as error:
            recipe_from_dict(cut, where="r.yaml")
        assert text in str(error.value)


def test_a_recipe_that_is_nowhere_names_the_nearest_packaged_one(tmp_path):
    with pytest.raises(RequestError, match="no such file and no packaged recipe; did you mean 'imu/jepa_small'"):
        load_recipe("imu/jepa_smal")
    with pytest.raises(RequestError, match="a folder, not a recipe"):
        load_recipe(tmp_path)


def test_build_is_a_pure_function_of_seed_recipe_and_spec():
    recipe = load_recipe("imu/jepa_small", SMALL)
    spec = example_spec(recipe)
    state = torch.get_rng_state()
    first = recipe.build(spec).state_dict()
    assert torch.equal(state, torch.get_rng_state())  # nothing global is touched
    torch.manual_seed(99)
    second = recipe.build(spec).state_dict()
    other = load_recipe("imu/jepa_small", SMALL | {"seed": "1"}).build(spec).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize(
    ("name", "overrides", "kind", "text"),
    [
        ("ecg/jepa", {}, DataError, "data.sfreq is 250 Hz, the corpus has 100 Hz"),
        ("ecg/jepa", {"data.sfreq": "100"}, DataError, "data.window_s is 10 s, the corpus has 3 s"),
        ("eeg/jepa_small", {}, RequestError, "the recipe is for eeg, the corpus is ecg"),
        ("ecg/jepa_small", {"model.patch_s": "0.123"}, RequestError, "model.patch_s: 0.123 s at 100 Hz is 12.3 samples"),
        ("ecg/jepa_small", {"model.heads": "5"}, RequestError, "model.dim"),
        ("ecg/jepa_small", {"objective.target_layers": "99"}, RequestError, "objective.target_layers: 99"),
        ("ecg/jepa_small", {"objective.predictor.heads": "7"}, RequestError, "predictor.dim"),
    ],
)
def test_windows_that_do_not_fit_are_refused_before_anything_is_trained(name, overrides, kind, text):
    recipe = load_recipe(name, overrides)
    spec = load_recipe("ecg/jepa_small")
    windows = example_spec(spec)
    windows = type(windows)(**{**windows.__dict__, "sfreq": 100.0, "n_samples": 300})
    with pytest.raises(BiosslError) as error:
        recipe.build(windows)
    assert type(error.value) is kind and text in str(error.value) and str(error.value).startswith(f"{name}: ")
