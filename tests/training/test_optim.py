"""The optimiser: what each parameter's first AdamW step is, with layer-wise decay and learned augmentations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_toys import Toy, small_recipe

from biossl.augment.base import Augmentation, Pipeline
from biossl.batch import Batch
from biossl.errors import RequestError
from biossl.keys import Keys
from biossl.objectives.base import Objective
from biossl.recipe.check import example_spec
from biossl.training.optim import make_optimizer, set_schedule


class Learned(Augmentation):
    """One trained and one frozen parameter."""

    lr_scale = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 2))
        self.still = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, batch: Batch, keys: Keys, draw: int) -> Batch:
        return batch


def jepa(**overrides: Any) -> tuple[Objective, Any]:
    """The small recipe's objective, and the recipe."""
    recipe = small_recipe(model__depth=3, model__registers=1, **overrides)
    return recipe.build(example_spec(recipe)), recipe.train


def moved(objective: Objective, train: Any, step: int = 1) -> dict[str, Tensor]:
    """How far one step with gradients of 1 takes every parameter, apart from weight decay: its learning rate."""
    optimizer = make_optimizer(objective, train)
    set_schedule(optimizer, train, step)
    before = {n: p.detach().clone() for n, p in objective.named_parameters()}
    for p in objective.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return {n: before[n] - p.detach() for n, p in objective.named_parameters()}


def test_layer_decay_slows_what_is_nearer_to_the_signal() -> None:
    objective, train = jepa(train__optimizer__layer_decay=0.5, train__optimizer__weight_decay=0)
    lr = train.lr(1)
    want = {"encoder.registers": 0.5**4, "encoder.tokenizer.": 0.5**4, "encoder.norm.": 1.0, "predictor.": 1.0, "target.": 0.0}
    want |= {f"encoder.blocks.{i}.": 0.5 ** (3 - i) for i in range(3)}
    for name, distance in moved(objective, train).items():
        (scale,) = [s for prefix, s in want.items() if name.startswith(prefix)]
        torch.testing.assert_close(distance, torch.full_like(distance, lr * scale), rtol=2e-2, atol=1e-8, msg=name)


def test_without_layer_decay_all_learn_alike_and_only_matrices_decay() -> None:
    objective, train = jepa()
    groups = make_optimizer(objective, train).param_groups
    assert [g["lr_scale"] for g in groups] == [1.0, 1.0] and [g["decay_scale"] for g in groups] == [1.0, 0.0]
    assert {p.ndim for p in groups[1]["params"]} == {1} and min(p.ndim for p in groups[0]["params"]) == 2


@pytest.mark.parametrize("decay", [1.0, 0.75])
def test_a_learned_augmentation_has_its_own_rate_and_every_parameter_is_in_one_group(decay: float) -> None:
    objective, train = jepa(train__optimizer__layer_decay=decay)
    objective.augment = Pipeline([Learned()])
    grouped = [p for g in make_optimizer(objective, train).param_groups for p in g["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {p for p in objective.parameters() if p.requires_grad}
    distance = moved(objective, train)
    gain = distance["augment.parts.0.gain"]
    torch.testing.assert_close(gain, torch.full_like(gain, 0.1 * train.lr(1)), rtol=2e-2, atol=1e-8)  # and no weight decay
    assert not distance["augment.parts.0.still"].any()


def test_layer_decay_of_an_encoder_without_blocks_is_refused_in_one_line() -> None:
    with pytest.raises(RequestError, match="^train.optimizer.layer_decay: this encoder has no blocks in a row; set it to 1$"):
        make_optimizer(Toy(), small_recipe(train__optimizer__layer_decay=0.5).train)


def test_weight_decay_goes_to_its_end_in_the_shape_the_recipe_names() -> None:
    ends = {"train__optimizer__weight_decay": 0.04, "train__optimizer__weight_decay_end": 0.4, "train__steps": 8}
    for ramp, quarter in (("linear", 0.13), ("cosine", 0.04 + 0.36 * 0.5 * (1 - 2**-0.5))):
        train = small_recipe(train__optimizer__weight_decay_ramp=ramp, **ends).train
        assert [train.weight_decay(s) for s in (0, 2, 4, 8)] == pytest.approx([0.04, quarter, 0.22, 0.4])
        optimizer = make_optimizer(Toy(), train)
        set_schedule(optimizer, train, 2)
        assert [g["weight_decay"] for g in optimizer.param_groups] == pytest.approx([quarter, 0.0])
