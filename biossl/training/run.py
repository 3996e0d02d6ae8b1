"""A pretraining run from request to encoder folder: new, or gone on with after a stop.

What lives here: :func:`pretrain`, which checks the request and builds what the loop needs, and :func:`run_objective`, which runs it
and writes what a run leaves behind (``recipe.yaml``, ``run.json``, ``log.csv``, ``checkpoints/``, ``encoder/``). What happens in a
step is ``loop.py``'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from biossl import __version__
from biossl.atomic import folder_lock, require_free, write_text
from biossl.checkpoint import load_encoder, require_match, require_tensors, save_encoder
from biossl.config import dump_yaml, to_plain
from biossl.corpus import Corpus, guard_split, subject_keys
from biossl.corpus.splits import default_split, with_fold
from biossl.errors import MachineError, RequestError
from biossl.objectives.base import Objective
from biossl.progress import Progress
from biossl.recipe import Recipe
from biossl.recipe.limits import check_limits, remarks
from biossl.recipe.plan import refuse_breaking
from biossl.signal import InputSpec
from biossl.training.continuing import Past, find_past, without_beginning
from biossl.training.data import Order, Source, make_loader, make_order, make_sources
from biossl.training.log import TrainLog
from biossl.training.loop import Loop
from biossl.training.monitors import Watcher, concern
from biossl.training.state import Interrupt, NumericPath, RunCheckpointIO, RunFolder, note
from biossl.training.trainer import fit

_PACKAGES = ("torch", "lightning", "numpy", "scipy", "h5py", "safetensors")


def pretrain(
    recipe: Recipe,
    corpora: Sequence[tuple[Corpus, float]],
    out: str | Path,
    *,
    init: str | Path | None = None,
    continue_from: str | Path | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train an encoder without labels, or go on with a run that was stopped.

    Parameters
    ----------
    recipe : Recipe
    corpora : sequence of (Corpus, weight)
        Weights are shares of steps; each step takes its whole batch from one corpus.
    out : path
        Run folder. An unfinished run of the same recipe and corpora in it is resumed by itself; the result is then, on the
        CPU, bit for bit that of a run that was never stopped.
    init : path, optional
        Encoder folder to begin from. Its architecture and input must be those of recipe and corpus.
    continue_from : path, optional
        Finished run to go on from: from its checkpoint before the anneal, with its averaged copies and optimiser moments and no
        second warm-up. Both schedules must have a constant phase (``infinite``, ``constant_cooldown``); momentum of the averages
        and other schedules begin anew.
    split : str, optional
        Split whose part ``train`` is used; default :func:`~biossl.corpus.splits.default_split`, and all rows of a corpus
        without splits.
    overwrite : bool
        Remove a run that is in ``out``.

    Returns
    -------
    dict
        ``run``, ``encoder`` (folders), ``steps``, ``resumed_from`` (step or None), ``numbers`` (last values logged),
        ``alarms``, ``parameters``, ``wall_s``.

    Raises
    ------
    RequestError
        ``out`` holds a finished or another run or is being written by another process, no such split, the encoder of ``init`` has another architecture.
    DataError
        Corpus and recipe do not fit, a shard is missing or damaged, parts of the split share subjects, loss or gradient not finite, collapse.
    MachineError
        Disk full, out of memory.
    KeyboardInterrupt
        Ctrl-C or SIGTERM, after a checkpoint was written.

    Examples
    --------
    >>> recipe = load_recipe("imu/jepa_small")                                     # doctest: +SKIP
    >>> pretrain(recipe, [(Corpus.open("corpora/hapt"), 1.0)], "runs/hapt")        # doctest: +SKIP
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RequestError(
            "WORLD_SIZE is above 1: a run folder is written by one process; start the command once, without torchrun"
        )
    check_limits(recipe)
    begun = time.monotonic()
    past = None
    if continue_from is not None:
        if init is not None:
            raise RequestError("--init and --continue both say where to begin; give one of them")
        past = find_past(continue_from, recipe)
        recipe = without_beginning(recipe)
    sources, notes = make_sources(corpora, channels=recipe.data.channels, split=split)
    if recipe.monitor.probe.label:
        for source in sources:
            refuse_breaking([recipe], source.corpus, recipe.monitor.probe.label)
    splits = _splits(sources, split)
    _guard(sources, splits)
    notes += dict.fromkeys(note for _, note in _with_folds(sources, split) if note)
    notes += remarks(recipe)
    spec = sources[0].spec
    objective = _build(recipe, spec)
    started_from = _load_init(objective, init) if init is not None else {}
    if past is not None:
        require_match(load_encoder(past.checkpoint / "encoder").spec, spec)
        started_from = {"hash": past.hash, "seen": past.seen}
    plan = {
        "recipe": recipe.to_dict(),
        "corpora": [
            {
                "name": s.corpus.path.resolve().name,
                "hash": s.corpus.hash,
                "weight": s.weight,
                "windows": len(s.rows),
                "split": chosen,
            }
            for s, chosen in zip(sources, splits, strict=True)
        ],
        "split": split or "",
        "init": started_from.get("hash", ""),
    }
    accumulate = recipe.train.accumulate
    notes += [
        f"{s.corpus.path.name}: {len(s.rows)} training windows, fewer than data.batch_size {recipe.data.batch_size}; windows repeat in a step"
        for s in sources
        if len(s.rows) < recipe.data.batch_size
    ]
    if recipe.data.batch_size % accumulate:
        raise RequestError(
            f"data.batch_size: {recipe.data.batch_size} is not divisible by train.accumulate ({accumulate}); change one"
        )
    order, asked = make_order(
        sources,
        objective.needs,
        batch_size=recipe.data.batch_size,
        accumulate=accumulate,
        seed=recipe.seed,
        steps=recipe.train.steps,
    )
    notes += asked
    watcher = Watcher(sources, recipe.monitor, dim=_width(objective), seed=recipe.seed) if _watched(recipe) else None
    return run_objective(
        objective, recipe, sources, order, out, plan=plan, seen=_seen(sources, started_from), notes=notes, watcher=watcher, past=past,
        overwrite=overwrite, begun=begun,
    )  # fmt: skip


def run_objective(
    objective: Objective, recipe: Recipe, sources: list[Source], order: Order, out: str | Path, *, plan: dict[str, Any],
    seen: dict[str, Any], notes: Sequence[str] = (), watcher: Watcher | None = None, past: Past | None = None, verb: str = "pretrain",
    overwrite: bool = False, begun: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run any objective over sources to the end, in a run folder that a stopped run goes on in: what ``pretrain`` and ``finetune`` share.

    Parameters
    ----------
    objective : Objective
        As it stands before the first step: a pure function of what ``plan`` says.
    recipe : Recipe
        Its ``train``, ``data``, ``monitor``, ``checkpoint`` and ``seed`` are used; all of it is kept.
    sources : list of Source
    order : Order
        Over them.
    out : path
        Run folder.
    plan : dict
        Plain values that say what the run is; a folder of another plan is refused.
    seen : dict
        What the encoder will have seen, ``subjects`` and ``corpora``.
    notes : sequence of str
        Lines for a person.
    watcher, past
        Of ``pretrain``.
    verb : str
        For the progress line.
    overwrite : bool
    begun : float, optional
        ``time.monotonic()`` when the command began; now by default.

    Returns
    -------
    dict
        As of :func:`pretrain`.
    """
    begun = time.monotonic() if begun is None else begun
    steps, accumulate = recipe.train.steps, recipe.train.accumulate
    run = RunFolder(Path(out))
    run.allow(plan, overwrite=overwrite)
    for source in sources:
        source.corpus.require_readable()
    require_free(run.path, 2 * _checkpoint_bytes(objective))  # told now, not when the first checkpoint is written
    with folder_lock(run.path):
        found = run.begin(plan, overwrite=overwrite)
        facts = run.saved() if run.facts.is_file() else {}
        path = NumericPath(**facts["numeric_path"]) if facts else NumericPath.choose(recipe.train.precision)
        lines = [*notes, *path.force()]
        checkpoint, state = found if found is not None else (None, {})
        start, spent = int(state.get("step", 0)), float(state.get("wall_s", 0.0))
        facts = {
            "finished": False,
            "plan": plan,
            "numeric_path": asdict(path),
            "versions": {"biossl": __version__, **{name: version(name) for name in _PACKAGES}},
            "seed": recipe.seed,
            "corpora_at": [str(s.corpus.path.resolve()) for s in sources],  # where the report looks for them
            "seen_subjects": _n_subjects(sources),
            "seen_keys": len(seen["subjects"]),
            "parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
        }
        run.write_facts(facts)  # first: by it a folder is known as a run
        write_text(run.recipe, dump_yaml(recipe.to_dict()))
        for line in [_headline(recipe, sources, facts), *([watcher.note] if watcher is not None else []), *lines]:
            note(line)
        if checkpoint is not None:
            note(f"going on from {checkpoint} ({steps - start} of {steps} steps to do)")
        elif past is not None:
            note(f"continues {past.run} from {past.checkpoint.name}, before its anneal")

        interrupt = Interrupt()
        bar = Progress(steps - start, verb, "steps")
        loop = Loop(
            objective, recipe, sources=sources, watcher=watcher, checkpoints=run.checkpoints, bar=bar, interrupt=interrupt,
            log=TrainLog(run.log, resume_step=start), begin=past.moments if past is not None and checkpoint is None else None,
            loader=lambda rank, world: make_loader(
                sources, order, accumulate=accumulate, start_step=start, steps=steps, workers=recipe.data.workers, rank=rank, world=world
            ),
        )  # fmt: skip
        if checkpoint is not None:
            _same_tensors(checkpoint, loop)
        elif past is not None:
            _same_tensors(past.checkpoint, loop)
            past.start(loop)
        loop.last.update(state.get("last", {}))
        loop.alarms.extend(state.get("alarms", []))

        def write_encoder(folder: Path) -> None:
            save_encoder(objective.export(), folder, recipe=recipe.to_dict(), seen=seen, numbers=_numbers(loop), overwrite=True)  # type: ignore[arg-type]

        io = RunCheckpointIO(
            run.checkpoints,
            keep=recipe.checkpoint.keep,
            always=recipe.train.schedule.config.released_from(steps),
            save_encoder=write_encoder,
            facts=lambda: {"wall_s": spent + time.monotonic() - begun, "last": loop.last, "alarms": loop.alarms},
        )
        if checkpoint is not None and start == steps:  # stopped between the last checkpoint and the end
            loop.load_state_dict(load_file(checkpoint / "state" / "objective.safetensors"))
        else:
            _fit(loop, path, io, checkpoint, interrupt, bar)
        write_encoder(run.encoder)
        result = {
            "run": str(run.path),
            "encoder": str(run.encoder),
            "steps": steps,
            "resumed_from": start if checkpoint is not None else None,
            "numbers": _numbers(loop),
            "alarms": loop.alarms,
            "parameters": facts["parameters"],
            "wall_s": round(spent + time.monotonic() - begun, 3),
        }
        low = concern(result["numbers"])
        if low:
            note(f"warning: {low}")
        run.write_facts({**facts, "finished": True, **{k: result[k] for k in ("steps", "numbers", "alarms", "wall_s")}})
        return result


def _fit(
    loop: Loop, path: NumericPath, io: RunCheckpointIO, checkpoint: Path | None, interrupt: Interrupt, bar: Progress
) -> None:
    interrupt.install()
    try:
        with bar:
            fit(loop, device=path.device, io=io, resume=checkpoint)
    except SystemExit:  # the trainer's answer to a second Ctrl-C
        raise KeyboardInterrupt from None
    except (MemoryError, RuntimeError) as error:
        raise_out_of_memory(error)
        raise
    finally:
        interrupt.restore()
    if interrupt.requested and loop.trainer.global_step < loop.recipe.train.steps:
        note(f"stopped after step {loop.trainer.global_step}; its checkpoint is in {loop.checkpoints}")
        raise KeyboardInterrupt


def _checkpoint_bytes(objective: Objective) -> int:
    """About: all tensors, and AdamW's two moments of the trained ones."""
    trained = sum(p.nbytes for p in objective.parameters() if p.requires_grad)
    return sum(t.nbytes for t in objective.state_dict().values()) + 2 * trained


def _same_tensors(checkpoint: Path, loop: Loop) -> None:
    """DataError when the checkpoint is not one of this loop: made by another version of biossl."""
    file = checkpoint / "state" / "objective.safetensors"
    with safe_open(file, framework="pt") as handle:
        found = {k: tuple(handle.get_slice(k).get_shape()) for k in handle.keys()}  # noqa: SIM118 (not a dict)
    expected = {k: tuple(v.shape) for k, v in loop.state_dict().items()}
    require_tensors(str(file), expected, found, "go on with the biossl version in run.json, or begin again with --overwrite")


def _build(recipe: Recipe, spec: InputSpec) -> Objective:
    try:
        return recipe.build(spec)
    except (MemoryError, RuntimeError) as error:
        raise_out_of_memory(error, "the model does not fit in memory; lower model.dim or model.depth")
        raise


def raise_out_of_memory(error: Exception, text: str = "out of memory; double train.accumulate or lower data.batch_size") -> None:
    """MachineError when that is what the error says; the frameworks say it in three ways."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        raise MachineError(text) from None


def _watched(recipe: Recipe) -> bool:
    return recipe.monitor.every > 0 or bool(recipe.monitor.probe.label)


def _width(objective: Objective) -> int:
    return int(objective.export().dim)  # type: ignore[arg-type]


def _splits(sources: list[Source], split: str | None) -> list[str]:
    """The split of each corpus whose part ``train`` is used, with its fold; '' = all windows."""
    return [name for name, _ in _with_folds(sources, split)]


def _with_folds(sources: list[Source], split: str | None) -> list[tuple[str, str]]:
    names = [split if split is not None else default_split(s.corpus)[0] for s in sources]
    return [("", "") if name is None else with_fold(s.corpus, name) for s, name in zip(sources, names, strict=True)]


def _guard(sources: list[Source], splits: list[str]) -> None:
    """The leak guard over all corpora that are split; one without splits is trained on whole, which a note says."""
    having = [(s.corpus, name) for s, name in zip(sources, splits, strict=True) if name]
    if having:
        guard_split([corpus for corpus, _ in having], [name for _, name in having])


def _load_init(objective: Objective, init: str | Path) -> dict[str, Any]:
    """Put an encoder folder's weights into the objective; what that encoder is and has seen."""
    loaded = load_encoder(init)
    ours: Any = objective.encoder
    require_match(loaded.spec, ours.spec)
    there, here = ({"name": e.architecture, **to_plain(e.config)} for e in (loaded, ours))
    lines = [
        f"model.{key}: {there.get(key)} there, {here.get(key)} in the recipe"
        for key in sorted({*there, *here} - {"drop_path", "init"})  # decide no weight
        if there.get(key) != here.get(key)
    ]
    if lines:
        raise RequestError(
            f"{init}: another architecture than the recipe's ({'; '.join(lines)}); set those keys to the encoder's"
        )
    ours.load_state_dict(loaded.state_dict())
    for source, target in objective.ema_pairs():
        target.load_state_dict(source.state_dict())
    return {"hash": loaded.info["hash"], "seen": loaded.info["seen"]}


def _seen(sources: list[Source], started_from: dict[str, Any]) -> dict[str, Any]:
    """Subjects and corpora the weights will have seen, those of the starting weights among them."""
    before = started_from.get("seen", {})
    keys: set[str] = set(before.get("subjects", []))
    corpora = list(before.get("corpora", []))
    for source in sources:
        keys |= subject_keys(source.corpus, source.rows)
        corpora.append({"name": source.corpus.path.resolve().name, "hash": source.corpus.hash, "windows": len(source.rows)})
    return {"subjects": keys, "corpora": corpora}


def _n_subjects(sources: list[Source]) -> int:
    return sum(len(np.unique(s.subject[s.rows])) for s in sources)


def _numbers(loop: Loop) -> dict[str, float]:
    return {k: float(f"{v:.6g}") for k, v in loop.last.items() if np.isfinite(v)}


def _headline(recipe: Recipe, sources: list[Source], facts: dict[str, Any]) -> str:
    rows, batch, steps = sum(len(s.rows) for s in sources), recipe.data.batch_size, recipe.train.steps
    names = ", ".join(s.corpus.path.resolve().name for s in sources)
    spec = sources[0].spec
    return (
        f"{recipe.name}: {facts['parameters'] / 1e6:.2f} M parameters; {rows} windows of {len(spec.ch_names)} x {spec.n_samples} from "
        f"{facts['seen_subjects']} subjects ({names}); {steps} steps of {batch} windows = {steps * batch / rows:.1f} epochs; "
        f"{facts['numeric_path']['device']}, {recipe.train.precision}"
    )
