"""Whether a recipe can run, alone or on a corpus, found before anything is trained.

What lives here: :func:`check_recipe` (it can be built; what it costs), :func:`check_pair` (it fits a corpus) and the
estimates, made on tensors without memory. Nothing is trained, written or printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biossl.config import nearest
from biossl.errors import BiosslError, DataError, MachineError, RequestError
from biossl.recipe.limits import check_limits, remarks
from biossl.recipe.schema import Recipe
from biossl.signal import InputSpec

if TYPE_CHECKING:
    from biossl.corpus import Corpus
    from biossl.objectives.base import SamplePlan

# What a recipe that leaves rate and length to the corpus is built for when it is checked alone.
EXAMPLES = {
    "ecg": InputSpec("ecg", 250.0, 2500, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), ("ecg",) * 8, ("mV",) * 8),
    "eeg": InputSpec(
        "eeg", 128.0, 512,
        tuple("Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split()), ("eeg",) * 19, ("uV",) * 19,
    ),
    "imu": InputSpec(
        "imu", 50.0, 128, ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        ("acc",) * 3 + ("gyro",) * 3, ("g",) * 3 + ("rad/s",) * 3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing found: ``kind`` says whose fault it is (``note`` = none), ``text`` is one line with the remedy."""

    kind: Literal["request", "data", "machine", "note"]
    text: str

    def error(self) -> BiosslError:
        """The exception of this kind."""
        kinds: dict[str, type[BiosslError]] = {"request": RequestError, "data": DataError, "machine": MachineError}
        return kinds[self.kind](self.text)


def example_spec(recipe: Recipe) -> InputSpec:
    """Windows to build a recipe for when there is no corpus: what ``data`` states, the modality's usual elsewhere."""
    spec = EXAMPLES[recipe.modality]
    names = tuple(recipe.data.channels) or spec.ch_names
    kinds = dict(zip(spec.ch_names, zip(spec.ch_types, spec.units, strict=True), strict=True))
    first = kinds[spec.ch_names[0]]
    types, units = zip(*(kinds.get(n, first) for n in names), strict=True)
    sfreq = recipe.data.sfreq or spec.sfreq
    return replace(
        spec,
        sfreq=sfreq,
        n_samples=round((recipe.data.window_s or spec.window_s) * sfreq),
        ch_names=names,
        ch_types=types,
        units=units,
    )


def check_recipe(recipe: Recipe, spec: InputSpec | None = None) -> dict[str, Any]:
    """Build a recipe without memory and say what it is.

    Parameters
    ----------
    recipe : Recipe
    spec : InputSpec, optional
        Windows to build for; default :func:`example_spec`.

    Returns
    -------
    dict
        ``parameters`` (trainable), ``encoder_parameters``, ``grid`` (channels, patches), ``hidden`` share, ``steps``,
        ``batch_size``, ``memory_gb`` (weights, optimiser, activations of one micro-batch; an estimate), ``hash``.

    Raises
    ------
    RequestError
        The recipe contradicts itself or the spec.
    """
    return _examine(recipe, spec)[0]


def _examine(recipe: Recipe, spec: InputSpec | None) -> tuple[dict[str, Any], SamplePlan]:
    """See :func:`check_recipe`; and what the objective asks of the loader."""
    check_limits(recipe)
    import torch

    from biossl.batch import Batch
    from biossl.keys import Keys

    spec = spec or example_spec(recipe)
    data, train = recipe.data, recipe.train
    where = recipe.source or recipe.name
    if data.batch_size % train.accumulate:
        raise RequestError(
            f"{where}: data.batch_size {data.batch_size} is not divisible by train.accumulate {train.accumulate}; change one"
        )
    with torch.device("meta"):
        objective = recipe.build(spec).to("meta")  # tables computed on the CPU follow
    micro = data.batch_size // train.accumulate

    def windows() -> Batch:
        rows = torch.empty(micro, dtype=torch.int64, device="meta")
        x = torch.empty(micro, len(spec.ch_names), spec.n_samples, device="meta")
        return Batch(x, spec.ch_names, spec.sfreq, subject=rows, index=rows)

    batch = windows()
    if objective.needs.pairing != "none":
        batch.paired["window"] = windows()
    weights = {p.untyped_storage()._cdata for p in objective.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        objective.step(batch, step=0, keys=Keys(recipe.seed, 0, torch.arange(micro, device="meta")))
    activations = sum(s.nbytes() for s in saved.values()) * (0.5 if train.precision == "bf16" else 1.0)
    n_all = sum(p.numel() for p in objective.parameters())
    n_train = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    encoder: Any = objective.export()
    out = {
        "name": recipe.name,
        "parameters": n_train,
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
        "grid": list(encoder.grid),
        "hidden": None if recipe.mask is None else round(recipe.mask.config.share(), 4),
        "steps": train.steps,
        "batch_size": data.batch_size,
        # weights of everything, then gradient and two moments of what is trained
        "memory_gb": round((4 * n_all + 12 * n_train + activations) / 1e9, 2),
        "hash": recipe.hash,
    }
    return out, objective.needs


def check_pair(
    recipe: Recipe, corpus: Corpus, *, split: str | None = None, seen: Iterable[str] = (), label: str | None = None
) -> list[Finding]:
    """Everything that speaks against training this recipe on this corpus.

    Parameters
    ----------
    recipe : Recipe
    corpus : Corpus
    split : str, optional
        Whose part ``train`` is used; default :func:`~biossl.corpus.splits.default_split`, as in training.
    seen : iterable of str
        Subject keys of the encoder the run would start from.
    label : str, optional
        A label the result will be judged by, beside ``monitor.probe.label``.

    Returns
    -------
    list of Finding
        Empty when nothing was found. Faults first, notes last.
    """
    from biossl.corpus import guard_split
    from biossl.corpus import seen as count_seen
    from biossl.corpus.splits import chosen_split
    from biossl.objectives.base import SamplePlan
    from biossl.recipe.plan import breaking_lines, check_plan

    name, faults, notes = corpus.path.name, [], []
    needs, spec = SamplePlan(), corpus.spec
    try:
        spec = pick_channels(corpus.spec, recipe.data.channels, where=name)
        summary, needs = _examine(recipe, spec)
        have = _memory_gb()
        if have and summary["memory_gb"] > have:
            more = "take a larger train.accumulate, or a machine with more memory"
            notes.append(Finding("note", f"about {summary['memory_gb']} GB needed, this machine has {have:.0f} GB; {more}"))
    except BiosslError as error:
        faults.append(_finding(error))
    wanted = recipe.monitor.probe.label
    if wanted and wanted not in corpus.label_names():
        text = nearest(wanted, corpus.label_names()) if corpus.label_names() else "it has none; add one with `biossl label`"
        faults.append(Finding("data", f"monitor.probe.label: {name} has no label '{wanted}'; {text}"))
    for judge in dict.fromkeys(filter(None, (wanted, label))):
        faults += [Finding("request", f"{name} label '{judge}': {line}") for line in breaking_lines(recipe, corpus, judge)]
    rows = np.arange(0)
    try:
        chosen, said = chosen_split(corpus, split)
        notes += [Finding("note", text) for text in said]
        part = np.full(len(corpus), "train") if chosen is None else corpus.split(chosen).to_numpy()
        rows = np.flatnonzero(part == "train")
        if chosen is None:
            notes.append(Finding("note", f"{name}: no split; all {len(rows)} windows would be trained on"))
        elif not len(rows):
            faults.append(Finding("data", f"{name}: split '{chosen}' has no window in part 'train'; make another"))
        remembered = set(seen)
        others = np.flatnonzero((part != "") & (part != "train"))
        n = count_seen(corpus, others, remembered, split=chosen) if remembered and len(others) else 0
        if n:
            notes.append(Finding("note", f"{name}: the encoder to start from has seen {n} subjects outside part 'train'"))
        if chosen is not None:
            guard_split([corpus], chosen)
    except BiosslError as error:
        faults.append(_finding(error))
    if len(rows):
        try:
            asked = check_plan(needs, corpus, rows, spec, batch_size=recipe.data.batch_size, accumulate=recipe.train.accumulate)
            notes += [Finding("note", text) for text in asked]
        except BiosslError as error:
            faults.append(_finding(error))
    if 0 < len(rows) < recipe.data.batch_size and not needs.in_batch:
        text = (
            f"{name}: {len(rows)} training windows, fewer than data.batch_size {recipe.data.batch_size}; windows repeat in a step"
        )
        notes.append(Finding("note", text))
    return faults + notes + [Finding("note", text) for text in remarks(recipe)]


def pick_channels(spec: InputSpec, channels: Iterable[str], *, where: str) -> InputSpec:
    """``spec`` restricted to the named channels, in that order (none named = all); DataError when one is absent."""
    wanted = tuple(channels) or spec.ch_names
    absent = [c for c in wanted if c not in spec.ch_names]
    if absent:
        raise DataError(
            f"{where}: no channel {', '.join(absent)}; it has {' '.join(spec.ch_names)}; set data.channels, or convert another view"
        )
    rows = [spec.ch_names.index(c) for c in wanted]
    return replace(
        spec, ch_names=wanted, ch_types=tuple(spec.ch_types[i] for i in rows), units=tuple(spec.units[i] for i in rows)
    )


def _finding(error: BiosslError) -> Finding:
    kind: Literal["request", "data"] = "request" if isinstance(error, RequestError) else "data"
    return Finding(kind, str(error))


def _memory_gb() -> float:
    """Memory of the machine, 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return 0.0
