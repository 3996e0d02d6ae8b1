"""A fine-tuned model: encoder and head in one, what it predicts, and the folder it is kept in.

What lives here: :class:`Task` (what is predicted), :class:`Model`, predictions of corpus rows, and the model folder
(``weights.safetensors``, ``model.yaml``, ``familiar.safetensors``), written whole and read strictly. How a model is trained is ``finetune.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from biossl import __version__, metrics
from biossl.atomic import atomic_folder
from biossl.batch import Batch
from biossl.checkpoint import build_config, empty_encoder, refuse_existing, require_match, require_tensors, sha256
from biossl.config import build, dump_yaml, load_yaml, to_plain
from biossl.corpus import Corpus
from biossl.corpus.labels import is_dense
from biossl.corpus.neighbours import recordings, rows_of_recordings
from biossl.downstream.lock import Lock
from biossl.downstream.ood import Familiar
from biossl.errors import DataError, RequestError
from biossl.inference import batch_rows, make_batch, pick_device
from biossl.models.encoder import Encoder, pool_tokens
from biossl.models.group_heads import GroupHead, outputs_of_recording
from biossl.models.task_heads import TaskHead
from biossl.objectives.supervised import Kind, n_outputs, predictions
from biossl.progress import Progress
from biossl.recipe.schema import Part
from biossl.recipe.tables import config_class
from biossl.signal import InputSpec

Array = NDArray[Any]
FORMAT = 1
BLOCK_ROWS = 512
FAMILIAR = "familiar.safetensors"
_REMEDY = "copy the folder again or fine-tune anew"


@dataclass(frozen=True)
class Task:
    """What is predicted of every row of a corpus.

    Attributes
    ----------
    label : str
    kind : str
    classes : tuple of str
        Of a binary label the one that is looked for; empty for values and survival.
    values : ndarray, float32, (n_index, k), or (n_index, T) or (n_index, C, T) for ``dense``
        NaN = unknown: class number, 0/1 of every label, value, or time and event.
    """

    label: str
    kind: Kind
    classes: tuple[str, ...]
    values: Array

    @property
    def known(self) -> Array:
        """Rows that can be learnt from, bool (n_index,): with anything known, of survival with both."""
        flat = ~np.isnan(self.values.reshape(len(self.values), -1))
        return np.asarray(flat.all(axis=1) if self.kind == "survival" else flat.any(axis=1))


def make_task(corpus: Corpus, label: str, *, kind: str | None = None, event: str | None = None) -> Task:
    """The task a label of a corpus is.

    Parameters
    ----------
    corpus : Corpus
    label : str
    kind : str, optional
        ``ordinal`` for classes that are in order, ``dense`` for intervals sample by sample; default what the label is.
    event : str, optional
        A binary label: ``label`` is then the time of its event or of the end of watching.

    Raises
    ------
    RequestError
        The label is not of a kind that can be taken so.
    """
    where = f"{corpus.path}: label '{label}'"
    if kind in (None, "dense") and event is None and (kind == "dense" or is_dense(corpus, label)):
        from biossl.downstream.dense import make_dense  # it builds on this file

        return make_dense(corpus, label)
    found = corpus.labels(label)
    if event is not None:
        happened = corpus.labels(event)
        if found.kind != "regression" or happened.kind != "binary":
            raise RequestError(
                f"{where} is {found.kind} and '{event}' {happened.kind}; a survival target is a time (regression) and a binary event"
            )
        return Task(label, "survival", (), np.concatenate([found.values, happened.values], axis=1))
    if kind not in (None, found.kind) and (kind, found.kind) != ("ordinal", "multiclass"):
        raise RequestError(f"{where} is {found.kind}, which cannot be taken as {kind}; only multiclass can, as ordinal or dense")
    if kind == "ordinal" and len(found.classes) < 2:
        raise RequestError(f"{where} has {len(found.classes)} classes; ordered ones are at least two")
    classes = (label,) if found.kind == "binary" else found.classes
    return Task(label, kind or found.kind, classes, found.values)  # type: ignore[arg-type]


def score(task: Task, rows: Array, prediction: Array) -> float:
    """How good predictions of rows are, larger = better: the main metric of the kind.

    Macro F1, macro AUROC, AUROC, R2; of ordered classes minus the mean absolute error of the expected class
    number, of survival the concordance index. NaN where it cannot be computed. Of ``dense`` see :mod:`~biossl.downstream.decoding`.
    """
    y = task.values[rows].astype(np.float64)
    if task.kind == "survival":
        return metrics.score(y, prediction, "concordance")
    if task.kind == "ordinal":
        return -metrics.score(y[:, 0], prediction @ np.arange(prediction.shape[1]), "mae")
    y = y[:, 0] if task.kind in ("multiclass", "regression") else y
    return metrics.score(y, prediction, metrics.MAIN_METRIC[task.kind])


class Model(nn.Module):
    """An encoder and a head.

    Attributes
    ----------
    encoder : Encoder
    head : TaskHead
    kind, classes
        Of the task.
    scale : (mean, std)
        Of the values of a regression.
    about : dict
        What ``model.yaml`` says beside.
    lock : Lock
        Calibration, thresholds, what is unfamiliar.
    """

    def __init__(
        self, encoder: Encoder, head: TaskHead, *, kind: Kind, classes: tuple[str, ...], scale: tuple[float, float]
    ) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        self.head, self.kind, self.classes, self.scale = head, kind, classes, scale
        self.about: dict[str, Any] = {}
        self.lock = Lock()

    @torch.no_grad()
    def read(self, batches: Iterable[Batch], seconds: Sequence[Array] | None = None) -> tuple[Array, Array]:
        """Predictions of windows and their mean-pooled features, in evaluation mode.

        Parameters
        ----------
        batches : iterable of Batch
        seconds : sequence of ndarray, float64
            For a head over several windows: starts of the windows of each recording in turn, rising; together all windows.

        Returns
        -------
        ndarray, float64, (n, K) or (n,) or as the head's outputs for ``dense``, and ndarray, float32, (n, D)
            Probabilities, values or log hazards; features of a window in which nothing was observed are NaN.
        """
        self.eval()
        out, features, windows = [], [], []
        for batch in batches:
            encoded = self.encoder.encode(self.encoder.tokenize(batch.to(self.encoder.device)), layers=self.head.layers)
            features.append(pool_tokens(encoded, "mean").float().cpu().numpy())
            if isinstance(self.head, GroupHead):
                windows.append(self.head.features(encoded))
            else:
                out.append(predictions(self.head(encoded).float(), self.kind, self.scale).cpu().numpy())
        if isinstance(self.head, GroupHead):
            assert seconds is not None
            sizes = [len(s) for s in seconds]
            found, seen = (torch.cat(parts).split(sizes) for parts in zip(*windows, strict=True))
            for f, there, start in zip(found, seen, seconds, strict=True):
                raw = outputs_of_recording(self.head, f, there, torch.from_numpy(start).to(f.device))
                out.append(predictions(raw.float(), self.kind, self.scale).cpu().numpy())
        return np.concatenate(out), np.concatenate(features)


def predict_rows(model: Model, corpus: Corpus, rows: Array, *, adapt: bool = False, desc: str | None = "predict") -> Array:
    """Predictions of corpus rows: the first of :func:`read_rows`."""
    return read_rows(model, corpus, rows, adapt=adapt, desc=desc)[0]


def read_rows(
    model: Model, corpus: Corpus, rows: Array, *, adapt: bool = False, desc: str | None = "predict"
) -> tuple[Array, Array]:
    """Predictions and features of corpus rows, streamed.

    Parameters
    ----------
    model : Model
    corpus : Corpus
    rows : ndarray of int
    adapt : bool
        Accept a subset of the encoder's channels and other filters.
    desc : str or None
        Of the progress line; None = no line.

    Returns
    -------
    ndarray, float64, and ndarray, float32, (n, D)
        As :meth:`Model.read` for all rows.

    Raises
    ------
    DataError
        The corpus does not fit the encoder.
    """
    match = require_match(model.encoder.spec, corpus.spec, adapt=adapt)
    names, columns = [corpus.spec.ch_names[i] for i in match.rows], list(match.rows)
    model.to(pick_device())
    size, seconds, back = batch_rows(model.encoder), None, None
    if isinstance(model.head, GroupHead):  # whole recordings, in the order of time
        require_sliding(corpus)
        every = rows_of_recordings(corpus.index, rows)
        runs = [every[run] for run in recordings(corpus.index, every)]
        start = corpus.index["start_s"].to_numpy(np.float64)
        seconds, wanted = [start[run] for run in runs], rows
        rows = np.concatenate(runs) if runs else rows
        place = np.empty(len(corpus.index), np.int64)
        place[rows] = np.arange(len(rows))
        back = place[wanted]

    def batches() -> Iterator[Batch]:
        with nullcontext() if desc is None else Progress(len(rows), desc, "windows") as bar:
            for i in range(0, len(rows), BLOCK_ROWS):
                x = corpus.signal(rows[i : i + BLOCK_ROWS])[:, columns]
                for j in range(0, len(x), size):
                    yield make_batch(x[j : j + size], names, corpus.spec.sfreq, model.encoder.device)
                if bar is not None:
                    bar.update(len(x))

    prediction, features = model.read(batches(), seconds)
    return (prediction, features) if back is None else (prediction[back], features[back])


def require_sliding(corpus: Corpus) -> None:
    """Refuse a head over several windows where the windows were cut along the labels (RequestError)."""
    if corpus.card.views[corpus.view].policy == "inside_labels":
        raise RequestError(
            f"{corpus.path}: windows of view '{corpus.view}' lie inside labelled intervals, so a window's neighbours say where its label "
            "begins and ends, which nobody knows of a new patient; convert a view of policy sliding for a head over several windows"
        )


def save_model(model: Model, folder: str | Path, *, head: Part, about: Mapping[str, Any], overwrite: bool = False) -> Path:
    """Write a model folder.

    Parameters
    ----------
    model : Model
        With plain layers: adapters merged.
    folder : path
    head : Part
        Name in the table ``head`` and settings.
    about : mapping
        What else is to be known: label, seen subjects, choices and why.
    overwrite : bool

    Raises
    ------
    RequestError
        The folder exists.
    DataError
        A weight is not finite.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    tensors = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in model.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{folder}: tensor {name} holds NaN or infinity; take a lower learning rate")
    with atomic_folder(folder, overwrite=overwrite) as part:
        save_file(tensors, part / "weights.safetensors", metadata={"format": "pt"})
        if model.lock.familiar is not None:
            known = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in model.lock.familiar.to_arrays().items()}
            save_file(known, part / FAMILIAR, metadata={"format": "pt"})
        facts = {
            "lock": model.lock.to_dict() | {"familiar": sha256(part / FAMILIAR) if model.lock.familiar is not None else None},
            "format": FORMAT, "biossl": __version__, "kind": model.kind, "classes": list(model.classes),
            "scale": [float(v) for v in model.scale], "head": head.to_dict(), "pool": getattr(head.config, "pool", ""),
            "encoder": {
                "architecture": model.encoder.architecture, "config": to_plain(model.encoder.config),
                "spec": model.encoder.spec.to_dict(),
            },
            "weights": {"sha256": sha256(part / "weights.safetensors"), "parameters": sum(t.numel() for t in tensors.values())},
        }  # fmt: skip
        (part / "model.yaml").write_text(dump_yaml(facts | to_plain(dict(about))), encoding="utf-8", newline="\n")
    return folder


def load_model(folder: str | Path) -> Model:
    """Read a model folder (or the ``model/`` of a run folder), strictly: on the CPU, float32, evaluation mode.

    Raises
    ------
    RequestError
        Not a model folder.
    DataError
        Damaged, or of another format.

    Examples
    --------
    >>> load_model("no/such/folder")
    Traceback (most recent call last):
    ...
    biossl.errors.RequestError: no/such/folder: no such folder; give RUN or RUN/model of `biossl finetune`
    """
    path = Path(folder)
    path = path / "model" if (path / "model" / "model.yaml").is_file() else path
    file = path / "model.yaml"
    if not file.is_file():
        what = "no model folder (no model.yaml)" if path.exists() else "no such folder"
        raise RequestError(f"{folder}: {what}; give RUN or RUN/model of `biossl finetune`")
    about = load_yaml(file)
    if about.get("format") != FORMAT:
        raise DataError(f"{file}: format {about.get('format')}; this version reads {FORMAT}")
    try:
        inside = {"architecture": "transformer"} | about["encoder"]
        encoder = empty_encoder(
            inside["architecture"], InputSpec.from_dict(inside["spec"]), build_config(inside, where=f"{file} encoder")
        )
        settings = dict(about["head"])
        config = config_class("head", settings.pop("name"), where=str(file))
        head = build(config, settings, where=f"{file} head").build(encoder, n_outputs(about["kind"], len(about["classes"])))
        mean, std = (float(v) for v in about["scale"])
        wanted = about["weights"]["sha256"]
        model = Model(encoder, head, kind=about["kind"], classes=tuple(about["classes"]), scale=(mean, std))
    except (KeyError, TypeError, ValueError, RequestError) as error:
        raise DataError(f"{file}: damaged ({error}); {_REMEDY}") from None
    if not (math.isfinite(mean) and std > 0):
        raise DataError(f"{file}: key 'scale' is damaged; {_REMEDY}")
    weights = path / "weights.safetensors"
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{weights}: not a whole safetensors file ({error}); {_REMEDY}") from None
    require_tensors(
        str(weights),
        {k: tuple(v.shape) for k, v in model.state_dict().items()},
        {k: tuple(v.shape) for k, v in tensors.items()},
        _REMEDY,
    )
    if sha256(weights) != wanted:
        raise DataError(f"{weights}: the bytes differ from the SHA-256 in model.yaml; {_REMEDY}")
    model.load_state_dict(tensors, assign=True)
    model.about, model.lock = about, _load_lock(path, about)
    return model.eval()


def _load_lock(path: Path, about: Mapping[str, Any]) -> Lock:
    """What is frozen beside the weights."""
    familiar, wanted = None, about["lock"].get("familiar") if isinstance(about.get("lock"), dict) else None
    if wanted is not None:
        file = path / FAMILIAR
        try:
            if sha256(file) != wanted:
                raise DataError(f"{file}: the bytes differ from the SHA-256 in model.yaml; {_REMEDY}")
            familiar = Familiar.from_arrays({k: v.numpy() for k, v in load_file(file).items()})
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(f"{file}: damaged ({error}); {_REMEDY}") from None
    try:
        return Lock.from_dict(about["lock"], familiar)
    except (KeyError, DataError) as error:
        raise DataError(f"{path / 'model.yaml'}: {error}") from None
