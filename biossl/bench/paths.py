"""The ways of the data: recordings to a corpus, a corpus to batches, batches to embeddings.

What lives here: the clocks around :func:`biossl.corpus.convert`, the training loader and :func:`biossl.inference.embed_windows`,
each on simulated input and as the verbs use them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from biossl.bench.ceiling import best_matmul, mlp_shape
from biossl.bench.data import quiet, simulated_corpus, simulated_recordings, simulated_windows
from biossl.bench.frame import CPU, WALL, Times, peak_bytes, repeat
from biossl.bench.train import CEILING_STEPS, CEILING_WARMUP
from biossl.corpus import Corpus, convert
from biossl.corpus.card import load_card
from biossl.inference import embed_windows
from biossl.objectives.base import SamplePlan
from biossl.recipe import Recipe
from biossl.recipe.check import example_spec
from biossl.training.data import make_loader, make_order, make_sources


def bench_embed(recipe: Recipe, *, batch: int, steps: int, warmup: int, device: torch.device) -> dict[str, Any]:
    """Windows in memory to features in memory, with a recipe's encoder as it is before training, in fp32.

    Returns
    -------
    dict
        ``seconds_per_batch`` (summary), ``samples_per_s``, ``peak_memory_bytes``, ``flops_per_batch``, ``achieved_gflops``,
        ``ceiling_gflops``, ``share_of_ceiling``.
    """
    spec = example_spec(recipe)
    encoder: Any = recipe.build(spec).export().to(device).eval()
    x = simulated_windows(spec, batch)

    def call() -> Any:
        return embed_windows(encoder, x, spec.ch_names, spec.sfreq)

    times = repeat(call, steps=steps, warmup=warmup, device=device)
    peak = peak_bytes(device)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    achieved = counter.get_total_flops() / times.median
    ceiling = best_matmul(mlp_shape(encoder, batch), "fp32", steps=CEILING_STEPS, warmup=CEILING_WARMUP, device=device)
    return {
        **times.per("batch"),
        "samples_per_s": batch / times.median,
        "peak_memory_bytes": peak,
        "flops_per_batch": counter.get_total_flops(),
        "achieved_gflops": achieved / 1e9,
        "ceiling_gflops": ceiling / 1e9,
        "share_of_ceiling": achieved / ceiling,
    }


def bench_load(recipe: Recipe, *, batch: int, steps: int, warmup: int) -> dict[str, Any]:
    """The training loader in one process: rows of a corpus to physical values in memory, whole batches.

    The corpus was just written, so its memory map is in the page cache: what is measured is the gathering, not the disk.

    Returns
    -------
    dict
        ``seconds_per_sample`` with ``first_epoch`` and ``later_epoch`` (summaries over batches),
        ``samples_per_s_one_process`` (first epoch), ``peak_memory_bytes``.
    """
    cpu = torch.device("cpu")
    epoch = warmup + steps  # batches
    with tempfile.TemporaryDirectory() as folder:
        corpus = simulated_corpus(Path(folder) / "simulated", example_spec(recipe), windows=batch * epoch)
        sources, _ = make_sources([(corpus, 1.0)], channels=recipe.data.channels)
        order, _ = make_order(sources, SamplePlan(), batch_size=batch, accumulate=1, seed=recipe.seed, steps=2 * epoch)
        batches = iter(make_loader(sources, order, accumulate=1, start_step=0, steps=2 * epoch, workers=0))
        epochs = {
            name: repeat(lambda: next(batches).decode(sources[0]), steps=steps, warmup=warmup, device=cpu)
            for name in ("first_epoch", "later_epoch")
        }
    each = {name: times.per("sample", 1 / batch) for name, times in epochs.items()}
    return {
        **{key: {name: t[key] for name, t in each.items()} for key in (WALL + "sample", CPU + "sample")},
        "samples_per_s_one_process": batch / epochs["first_epoch"].median,
        "peak_memory_bytes": peak_bytes(cpu),
    }


def bench_convert(recipe: Recipe, *, batch: int, steps: int, warmup: int) -> dict[str, Any]:
    """Simulated recordings of the recipe's modality to a corpus, in one process: read, filtered, cut, written.

    Returns
    -------
    dict
        ``seconds_per_record`` (summary over conversions), ``records_per_s``, ``records``, ``windows``, ``peak_memory_bytes``.
    """
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = simulated_recordings(Path(folder) / "recordings", recipe.modality, batch)
        card = load_card(path)
        view, out = next(iter(card.views)), Path(folder) / "corpus"
        times = Times()
        for number in range(warmup + steps):
            shutil.rmtree(out, ignore_errors=True)
            if number == warmup:
                times = Times()
            with quiet():
                times.start(cpu)
                convert(card, path.parent, out, view=view, n_jobs=1)
                times.stop(cpu)
        corpus = Corpus.open(out)
        records, windows = int(corpus.index["record"].nunique()), len(corpus)
    return {
        **times.per("record", 1 / records),
        "records_per_s": records / times.median,
        "records": records,
        "windows": windows,
        "peak_memory_bytes": peak_bytes(cpu),
    }
