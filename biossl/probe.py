"""Judge a frozen encoder on one label, beside a random-initialised encoder and hand features, with intervals by subject.

What lives here: which rows are used, the models that are compared, the seen-subjects rule, the ledger entry, the result
as plain values. Comparing is ``judging.py``, heads and their choice ``protocol.py``, scores ``metrics.py``, the printed
table ``probe_text.py``. Nothing is trained but the heads; every model is judged on the same rows and resamples.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from biossl import __version__, metrics, protocol
from biossl.atomic import write_text
from biossl.baselines import SINGLE_BEAT_S, corpus_features
from biossl.checkpoint import find_encoder, load_encoder, require_match
from biossl.corpus import Corpus, seen
from biossl.corpus.labels import confounds
from biossl.corpus.splits import chosen_split
from biossl.corpus.within import groups, is_within_subject, refuse_within_subject
from biossl.errors import DataError, RequestError
from biossl.inference import embed_corpus, layer_width
from biossl.judging import PRETRAINED, Model, Rows, cross_validate, held_out, in_threads
from biossl.ledger import openings, record_opening
from biossl.models.encoder import Encoder, pool_parts
from biossl.probe_text import resampled
from biossl.protocol import Target

Array = NDArray[Any]
FORMAT = 1
N_RANDOM = 3  # random-initialised encoders
N_DRAWS = 20  # draws of scarce labels
FEW_SUBJECTS = 15  # below this a single test part says little: a cross-validation over all subjects stands beside it
RANDOM, HAND, DEMOGRAPHIC = "random-initialised", "hand features", "age and sex"


def probe(
    encoder_folder: str | Path,
    corpus: str | Path | Corpus,
    label: str,
    *,
    split: str | None = None,
    part: str = "test",
    pool: str = "mean",
    labels_fraction: float | None = None,
    n_subjects: int | None = None,
    layers: Sequence[int] | str | None = None,
    baselines: bool = True,
    allow_seen: bool = False,
    adapt: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Probe frozen features.

    Parameters
    ----------
    encoder_folder : path
        Encoder folder, or a run that holds one.
    corpus : path or Corpus
    label : str
        One of ``corpus.label_names()``.
    split : str, optional
        Default: :func:`~biossl.corpus.splits.default_split`. Without any split: grouped cross-validation over all labelled
        rows.
    part : {"test", "val"}
        Rows that are judged; heads are trained on ``train``.
    pool : str
        ``mean``, ``std``, ``max`` or several joined by ``+``; the random-initialised encoder gets the same.
    labels_fraction : float, optional
        Train heads on this share of the labelled windows (stratified, at least one per class, 20 draws).
    n_subjects : int, optional
        Train heads on this many subjects (20 draws).
    layers : "all" or list of int, optional
        Also judge the output of these blocks.
    baselines : bool
        False leaves out the random-initialised encoder and hand features; such a figure means little.
    allow_seen : bool
        Go on when the encoder has seen judged subjects; the result says so.
    adapt : bool
        Accept a corpus with other channels (a subset) or filters than the encoder's.
    seed : int
        Of draws, folds, random encoders and resamples.
    out : path, optional
        JSON file. Default: ``RUN/probes/CORPUS-LABEL.json`` when the encoder lies in a run; part, split (not ``official``),
        pool (not ``mean``) and scarce labels follow the label, joined by ``-``.
    overwrite : bool
        Replace that file.

    Returns
    -------
    dict
        Plain values; :func:`biossl.probe_text.as_text` prints it. ``out`` names the file, if one was written.

    Raises
    ------
    DataError
        Unknown label, one class only, no labelled row, a subject on both sides, seen subjects, spec that differs.
    RequestError
        Options that do not go together.

    Examples
    --------
    >>> probe("runs/a", "corpora/hapt", "activity", pool="mean+std+max")["paired"]  # doctest: +SKIP
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    folder = find_encoder(encoder_folder)
    encoder = load_encoder(folder)
    pool_parts(pool)
    _check_request(part, labels_fraction, n_subjects)
    if seed < 0:
        raise RequestError(f"--seed {seed}: give 0 or more")
    if layers is not None:
        wanted = _check_layers(layers, len(encoder.blocks))
        layer_width(encoder, wanted)
    match = require_match(encoder.spec, corpus.spec, adapt=adapt)
    split, chosen = chosen_split(corpus, split)
    within = is_within_subject(corpus, split)
    if n_subjects is not None:
        refuse_within_subject(corpus, split, "--n-subjects")
    if split is None and (labels_fraction is not None or n_subjects is not None):
        raise RequestError(f"{corpus.path}: scarce labels need a split with a train part; make one with `biossl split`")
    rows, notes = labelled_rows(corpus, label, split)
    notes += ["; ".join(chosen)] if chosen else []
    judged = rows.where(part) if split is not None else np.arange(len(rows.index))
    train = rows.where("train") if split is not None else judged
    check_rows(corpus, rows, train, judged, label, split, part)
    _check_judged(corpus, rows, judged, label, split, part)
    out_file = _out_file(out, folder, corpus, label, split, part, pool, labels_fraction, n_subjects)
    if out_file is not None and out_file.exists() and not overwrite:
        raise RequestError(f"{out_file}: exists; give another --out or add --overwrite")
    if out_file is not None and out_file.is_dir():
        raise RequestError(f"{out_file}: a folder; give the name of a .json file")
    if n_subjects is not None:  # before the features, which take long
        protocol.draw_subjects(rows.subject[train], n_subjects, 1, seed)
    known = seen(corpus, rows.index[judged], encoder.info["seen"].get("subjects", []), split=split)
    total = int(corpus.index["subject"].iloc[rows.index[judged]].nunique())
    if known and not allow_seen:
        raise DataError(
            f"{folder}: the encoder has seen {known} of the {total} subjects it would be judged on; use a split whose test "
            "subjects were left out of pretraining (`biossl pretrain ... --splits NAME`), or add --allow-seen"
        )
    few = split is not None and not within and labels_fraction is None and n_subjects is None and total < FEW_SUBJECTS
    if split is None or few:
        used = np.flatnonzero(rows.part != "") if split is not None else judged
    else:
        used = np.union1d(train, judged)
    models = _models(encoder, corpus, rows, used, pool, baselines=baselines, adapt=adapt, seed=seed)
    result: dict[str, Any] = {
        "format": FORMAT, "biossl": __version__, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label, "kind": rows.target.kind, "classes": list(rows.target.classes), "metric": rows.target.metric,
        "corpus": {"path": str(corpus.path), "name": corpus.card.name, "view": corpus.view, "hash": corpus.hash},
        "encoder": {"folder": str(folder), "hash": encoder.info["hash"], "dim": encoder.dim},
        "pool": pool, "within_subject": within, "confounds": confounds(corpus, label), "split": split, "part": part if split is not None else "cross-validation", "seed": seed,
        "labels_fraction": labels_fraction, "n_subjects": n_subjects,
        "seen": {"subjects": known, "of": total},
    }  # fmt: skip
    if split is None:
        result["counts"] = {"judged": count_rows(corpus, rows, judged)}
        notes.append("no split: every figure is of out-of-fold predictions of a cross-validation grouped by subject")
        result |= cross_validate(models, rows, judged, seed)
    else:
        draws = _draws(rows, train, labels_fraction, n_subjects, seed)
        result["counts"] = {
            "train": count_rows(corpus, rows, train),
            "judged": count_rows(corpus, rows, judged),
            "draws": len(draws),
        }
        result |= held_out(models, rows, draws, judged, seed)
        if few:
            notes.append(
                f"{total} test subjects are few (under {FEW_SUBJECTS}): see the cross-validation over all subjects beside it"
            )
            everyone = seen(corpus, rows.index[used], encoder.info["seen"].get("subjects", []))
            cross = cross_validate([m for m in models if m.name != DEMOGRAPHIC], rows, used, seed)
            result["cross_validation"] = {
                key: cross[key] for key in ("models", "paired")
            } | {"counts": count_rows(corpus, rows, used), "seen": everyone}  # fmt: skip
    if (split is None or few) and len(used) > protocol.CROSS_ROWS:
        notes.append(f"each fold of the cross-validation trains on {protocol.CROSS_ROWS:,} windows at most, drawn evenly")
    if layers is not None:
        result["layers"] = _layers(encoder, corpus, rows, train, judged, pool, layers, adapt, seed, split is None)
    if known:
        notes.append(f"the encoder has seen {known} of the {total} judged subjects in pretraining (--allow-seen)")
    absent = [r["class"] for r in result["per_class"] if not r["n"]]
    if absent:
        notes.append(f"no judged window of class {', '.join(absent)}")
    main = result["models"][0]["scores"][rows.target.metric]
    what, n = resampled(result), len(np.unique(rows.subject[judged]))
    if 0 < main["n_resamples"] < metrics.N_RESAMPLES and n > 1:
        lost = metrics.N_RESAMPLES - main["n_resamples"]
        notes.append(
            f"{lost:,} of {metrics.N_RESAMPLES:,} resamples of the {what} held one class (or value) only and are left out of the intervals"
        )
    if n < 5:
        notes.append(f"{n} judged {what}: an interval over so few is not to be trusted")
    if labels_fraction is not None or n_subjects is not None:
        notes.append(f"scarce labels: means over {len(draws)} draws; intervals cover {what} and draws")
    if encoder.spec.modality == "ecg" and corpus.spec.window_s <= SINGLE_BEAT_S and baselines:
        notes.append("hand features include the intervals to the neighbouring beats, which lie outside the window")
    result["notes"] = [*notes, *match.notes]
    return _keep(result, corpus, folder, out_file, part)


# ---------------------------------------------------------------------------------------------- rows


def _check_request(part: str, labels_fraction: float | None, n_subjects: int | None) -> None:
    if part not in ("test", "val"):
        raise RequestError(f"--part {part}: choose test or val")
    if labels_fraction is not None and n_subjects is not None:
        raise RequestError("--labels-fraction and --n-subjects are two axes; give one of them")
    if labels_fraction is not None and not 0 < labels_fraction <= 1:
        raise RequestError(f"--labels-fraction {labels_fraction:g}: give a share above 0 and up to 1, e.g. 0.1")


def _check_layers(layers: Sequence[int] | str, depth: int) -> list[int]:
    wanted = list(range(depth)) if layers == "all" else [int(n) for n in layers]
    wrong = [n for n in wanted if not 0 <= n < depth]
    if wrong:
        raise RequestError(f"--layers {wrong[0]}: the encoder has blocks 0 to {depth - 1}")
    return wanted


def labelled_rows(corpus: Corpus, label: str, split: str | None) -> tuple[Rows, list[str]]:
    """Rows with a known label (and, for multi-label, at least one known class); ``subject`` is the recording in a within-subject split."""
    labels = corpus.labels(label)
    known = np.flatnonzero(labels.known)
    notes = []
    if len(known) < len(labels.values):
        notes.append(
            f"{len(labels.values) - len(known)} of {len(labels.values)} windows have no known '{label}' and are left out"
        )
    if not len(known):
        raise DataError(f"{corpus.path}: label '{label}' is unknown for every window; check the label's source")
    values = labels.values[known].astype(np.float64)
    y = values if labels.kind in ("multilabel", "binary") else values[:, 0]
    classes = (label,) if labels.kind == "binary" else labels.classes  # only the class looked for is scored
    part = corpus.split(split).to_numpy().astype(str)[known] if split is not None else np.full(len(known), "")
    return Rows(known, Target(labels.kind, y, classes), groups(corpus, split)[known], part), notes


def check_rows(corpus: Corpus, rows: Rows, train: Array, judged: Array, label: str, split: str | None, part: str) -> None:
    """DataError where heads could not be trained on ``train`` or judged on ``judged``: nothing labelled, one class, shared subjects."""
    where = f"{corpus.path}: label '{label}'"
    if split is not None:
        for name, some in (("train", train), (part, judged)):
            if not len(some):
                parts = sorted(set(rows.part) - {""})
                raise DataError(
                    f"{where}: no labelled window in part '{name}' of split '{split}'; labelled parts: {', '.join(parts) or 'none'}; "
                    f"its splits: {', '.join(corpus.split_names())} (--splits NAME)"
                )
        both = set(rows.subject[train]) & set(rows.subject[judged])
        if both:
            raise DataError(
                f"{corpus.path}: split '{split}' has {len(both)} subjects in train and {part}; make one by subject with `biossl split`"
            )
    elif len(np.unique(rows.subject)) < 2:
        raise DataError(f"{where}: one labelled subject only; a figure by subject needs at least two")
    y = rows.target.y[train]
    if rows.target.kind == "multiclass" and len(np.unique(y)) < 2:
        only = rows.target.classes[int(y[0])]
        raise DataError(f"{where}: every labelled training window is '{only}'; two classes are needed")
    if rows.target.kind in ("multilabel", "binary") and not any(len(np.unique(c[~np.isnan(c)])) > 1 for c in y.T):
        raise DataError(f"{where}: no class has both positives and negatives in training; add labels")
    if rows.target.kind == "regression" and np.ptp(y) == 0:
        raise DataError(f"{where}: every training value is {y[0]:g}; there is nothing to predict")


def _check_judged(corpus: Corpus, rows: Rows, judged: Array, label: str, split: str | None, part: str) -> None:
    """DataError where the metric cannot be computed on the judged rows: told before they are opened and the ledger notes it."""
    target = rows.target.take(judged)
    columns = [target.y] if target.kind in ("multiclass", "regression") else list(target.y.T)
    if any(len(np.unique(c[~np.isnan(c)])) > 1 for c in columns):
        return
    where = f"part '{part}' of split '{split}'" if split is not None else "the corpus"
    what, even = ("one value", "") if target.kind == "regression" else ("one class", f" --stratify {label}")
    raise DataError(
        f"{corpus.path}: label '{label}' has {what} only in {where}, so nothing can be judged there; take another split (--splits NAME) or "
        f"make one with folds or a larger test share (`biossl split {corpus.path} --name NAME --folds 3{even}`)"
    )


def count_rows(corpus: Corpus, rows: Rows, some: Array) -> dict[str, Any]:
    """Windows, records, subjects and, for classes, windows of each, of ``some`` of the labelled rows."""
    index = rows.index[some]
    y = rows.target.y[some]
    out: dict[str, Any] = {
        "windows": len(index), "records": int(corpus.index["record"].iloc[index].nunique()),
        "subjects": int(corpus.index["subject"].iloc[index].nunique()),
    }  # fmt: skip
    if rows.target.kind == "multiclass":
        out["classes"] = {c: int((y == k).sum()) for k, c in enumerate(rows.target.classes)}
    elif rows.target.kind == "multilabel":
        out["classes"] = {c: int(np.nansum(y[:, k])) for k, c in enumerate(rows.target.classes)}
    elif rows.target.kind == "binary":
        out["positive"] = int(np.nansum(y))
    return out


def _draws(rows: Rows, train: Array, fraction: float | None, n_subjects: int | None, seed: int) -> list[Array]:
    """Training rows of each draw; one draw of all when labels are not scarce."""
    if fraction is not None and fraction < 1:
        return [train[d] for d in protocol.draw_windows(rows.target.take(train), fraction, N_DRAWS, seed)]
    if n_subjects is not None:
        every = len(np.unique(rows.subject[train]))
        n_draws = 1 if n_subjects == every else N_DRAWS
        return [train[d] for d in protocol.draw_subjects(rows.subject[train], n_subjects, n_draws, seed)]
    return [train]


# ---------------------------------------------------------------------------------------------- models


def _models(
    encoder: Encoder, corpus: Corpus, rows: Rows, used: Array, pool: str, *, baselines: bool, adapt: bool, seed: int
) -> list[Model]:
    """Features of the rows used, in arrays aligned to all rows (the others stay NaN)."""
    index = rows.index[used]

    def spread(features: Array) -> Array:
        out = np.full((len(rows.index), features.shape[1]), np.nan, np.float32)
        out[used] = features
        return out

    models = [Model(PRETRAINED, [spread(embed_corpus(encoder, corpus, index, pool=pool, adapt=adapt, desc="pretrained"))])]
    if not baselines:
        return models
    random = []
    for i in range(N_RANDOM):
        twin = random_encoder(encoder, seed + i)
        random.append(spread(embed_corpus(twin, corpus, index, pool=pool, adapt=adapt, desc=f"random {i + 1}/{N_RANDOM}")))
    models.append(Model(RANDOM, random))
    models.append(Model(HAND, [spread(corpus_features(corpus, index)[0])]))
    demographic = age_and_sex(corpus)
    if demographic is not None:
        models.append(Model(DEMOGRAPHIC, [spread(demographic[index])]))
    return models


def random_encoder(encoder: Encoder, seed: int) -> Encoder:
    """The same architecture with freshly drawn weights; torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin: Encoder = cast(Any, type(encoder))(encoder.spec, encoder.config)
        return twin.eval()


def age_and_sex(corpus: Corpus) -> Array | None:
    """Age in years and sex as numbers (n_index, 2 or more) where the card has them, else None."""
    import pandas as pd

    index = corpus.index
    columns = []
    if "age" in index:
        columns.append(pd.to_numeric(index["age"], errors="coerce").to_numpy(dtype=np.float32))
    if "sex" in index:
        text = index["sex"].astype("string").fillna("").str.strip().str.lower()
        names = sorted(set(text) - {""})
        if 1 < len(names) <= 4:
            columns += [np.where(text == "", np.nan, text == n).astype(np.float32) for n in names[1:]]
    columns = [c for c in columns if len(np.unique(c[~np.isnan(c)])) > 1]
    return np.stack(columns, axis=1) if columns else None


# ---------------------------------------------------------------------------------------------- blocks


def _layers(
    encoder: Encoder, corpus: Corpus, rows: Rows, train: Array, judged: Array, pool: str,
    layers: Sequence[int] | str, adapt: bool, seed: int, cross: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Linear probe of each block's output; ``inner`` is the score inside training by which a layer may be chosen."""
    wanted = _check_layers(layers, len(encoder.blocks))
    used = np.union1d(train, judged)
    features = embed_corpus(encoder, corpus, rows.index[used], pool=pool, layers=wanted, adapt=adapt, desc="layers")
    to_train, to_judged = np.searchsorted(used, train), np.searchsorted(used, judged)
    target, subject = rows.target.take(judged), rows.subject[judged]

    def fit(i: int) -> protocol.Fitted:
        x = features[:, i]
        if cross:
            return protocol.Fitted(protocol.out_of_fold(protocol.linear, x[to_judged], target, subject, seed=seed), np.nan, None)
        return protocol.linear(x[to_train], rows.target.take(train), rows.subject[train], x[to_judged], seed=seed)

    out = []
    for number, fitted in zip(wanted, in_threads(fit, list(range(len(wanted))), "layers"), strict=True):
        interval = metrics.subject_bootstrap(target.y, fitted.prediction, subject, target.metric, seed=seed)
        out.append({"layer": number, "metric": target.metric, "inner": fitted.inner} | interval.to_dict())
    return out


# ---------------------------------------------------------------------------------------------- result


def _out_file(
    out: str | Path | None, folder: Path, corpus: Corpus, label: str, split: str | None, part: str, pool: str,
    labels_fraction: float | None, n_subjects: int | None,
) -> Path | None:  # fmt: skip
    if out is not None:
        return Path(out)
    run = run_of(folder)
    if run is None:
        return None
    name = [corpus.path.name, label]
    name += [part] if split is not None and part != "test" else []
    name += [split.replace(":", "-")] if split not in (None, "official") else []
    name += [pool] if pool != "mean" else []
    name += [f"labels{labels_fraction:g}"] if labels_fraction is not None else []
    name += [f"subjects{n_subjects}"] if n_subjects is not None else []
    return run / "probes" / ("-".join(name) + ".json")


def run_of(folder: Path) -> Path | None:
    """The run folder an encoder folder lies in, or None."""
    for parent in folder.resolve().parents:
        if (parent / "run.json").is_file():
            return parent
    return None


def _keep(result: dict[str, Any], corpus: Corpus, folder: Path, out_file: Path | None, part: str) -> dict[str, Any]:
    if part == "test":
        main = next(m for m in result["models"] if m["model"] == PRETRAINED and m["head"] == "linear")
        entry = {
            "verb": "probe", "corpus": corpus.hash, "encoder": result["encoder"]["hash"], "label": result["label"],
            "split": result["split"], "part": result["part"], "pool": result["pool"], "metric": result["metric"],
            "score": main["scores"][result["metric"]], "labels_fraction": result["labels_fraction"],
            "n_subjects": result["n_subjects"], "seed": result["seed"], "seen": result["seen"]["subjects"],
        }  # fmt: skip
        beside = out_file.parent if out_file else run_of(folder) or folder
        file, times = record_opening([corpus.path, beside], entry)
        result["ledger"] = {"file": str(file), "openings": times}
        if result["split"] is not None:
            result["ledger"]["this_split"] = len(openings(file.parent, result["label"], result["split"]))
    result["out"] = str(out_file) if out_file else ""
    if out_file is not None:
        write_text(out_file, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result
