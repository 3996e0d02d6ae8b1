"""What the machine itself can do: matrix products and memory copies, measured with plain torch.

What lives here: the ceilings that a training step or an embedding is held against. A share is only as good as its ceiling, so
both are measured in the same process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from biossl.bench.frame import Times, per_call, repeat, threads
from biossl.recipe import Recipe
from biossl.recipe.check import example_spec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LARGE = {"cpu": 2048, "cuda": 8192}  # side of the square product
COPIED = {"cpu": 2**28, "cuda": 2**31}  # bytes of the tensor that is copied: beyond every cache

Shape = tuple[int, int, int]


def mlp_shape(encoder: nn.Module, batch: int) -> Shape:
    """(m, k, n) of the first product of an MLP block over all tokens of a batch: (B * C * P, D) by (D, 4 D)."""
    channels, patches = encoder.grid  # type: ignore[misc]
    dim = int(encoder.dim)  # type: ignore[arg-type]
    return batch * channels * patches, dim, 4 * dim


def recipe_shape(recipe: Recipe, batch: int) -> Shape:
    """:func:`mlp_shape` of a recipe, without memory for its weights."""
    with torch.device("meta"):
        return mlp_shape(recipe.build(example_spec(recipe)).export(), batch)


def shapes(first: Shape, device: torch.device) -> dict[str, Shape]:
    """The two sizes that are measured: ``recipe`` and ``large``."""
    side = LARGE[device.type]
    return {"recipe": first, "large": (side, side, side)}


def matmul(shape: Shape, precision: str, *, steps: int, warmup: int, device: torch.device) -> tuple[Times, float]:
    """Times of one product (m, k) by (k, n), and FLOP/s at the median (multiply and add count as two)."""
    m, k, n = shape
    a = torch.randn(m, k, device=device).to(DTYPES[precision])
    weight = torch.randn(n, k, device=device).to(DTYPES[precision])
    with torch.no_grad():
        times = repeat(lambda: nn.functional.linear(a, weight), steps=steps, warmup=warmup, device=device)
    return times, 2.0 * m * k * n / times.median


def best_matmul(first: Shape, precision: str, *, steps: int, warmup: int, device: torch.device) -> float:
    """FLOP/s of the faster of the two sizes: the ceiling of a share."""
    each = shapes(first, device).values()
    return max(matmul(shape, precision, steps=steps, warmup=warmup, device=device)[1] for shape in each)


def copy(*, steps: int, warmup: int, device: torch.device) -> tuple[Times, float]:
    """Times of copying a large tensor, and bytes/s at the median, read and written counted both."""
    source = torch.ones(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    times = repeat(lambda: target.copy_(source), steps=steps, warmup=warmup, device=device)
    return times, 2 * source.nbytes / times.median


def bench_ceiling(recipe: Recipe, *, batch: int, steps: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """Matrix products in fp32 and bf16 at two sizes, and memory copy, with one thread and with all.

    Returns
    -------
    dict
        ``seconds_per_call`` (summaries), ``flops_per_s``, ``bytes_per_s`` by name: ``fp32_recipe_1t`` is the product of the
        recipe's size in fp32 with one thread. On a GPU, where threads do not matter, the names end in ``gpu``.
    """
    sizes = shapes(recipe_shape(recipe, batch), device)
    each: dict[str, Times] = {}
    flops: dict[str, float] = {}
    moved: dict[str, float] = {}
    for number in _thread_counts(device):
        with threads(number) as count:
            end = "gpu" if device.type == "cuda" else f"{count}t"
            for precision in DTYPES:
                for size, shape in sizes.items():
                    name = f"{precision}_{size}_{end}"
                    each[name], flops[name] = matmul(shape, precision, steps=steps, warmup=warmup, device=device)
            each[f"copy_{end}"], moved[f"copy_{end}"] = copy(steps=steps, warmup=warmup, device=device)
    return {
        **per_call(each),
        "flops_per_s": flops,
        "bytes_per_s": moved,
        "shapes": {name: list(shape) for name, shape in sizes.items()},
        "copied_bytes": COPIED[device.type],
    }


def _thread_counts(device: torch.device) -> Sequence[int | None]:
    return [None] if device.type == "cuda" else sorted({1, torch.get_num_threads()})
