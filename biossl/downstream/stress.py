"""A locked model under worse input than it was judged on: channels lost, a slower device, noise. Nothing is fitted again.

What lives here: the conditions, what each does to windows, and :func:`stress_test`, which judges the same rows under each, in pairs
with the clean ones, and says of how many windows the model itself notices that they are unlike those it knows. What is lost is NaN,
as a channel that was never recorded is; what stays on a flat channel is taken for a signal, as a device that does not notice gives it.
Changes are functions of (seed, row) alone and are made to windows as the corpus holds them, after the view's filters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly

from biossl import metrics
from biossl.augment import functional as F
from biossl.augment.contacts import BaselineWander, ElectrodeMotion, Mains
from biossl.augment.spatial import electrode_matrix
from biossl.batch import Batch
from biossl.checkpoint import require_match
from biossl.compare.corrupt import Corruption, corrupt
from biossl.corpus import Corpus
from biossl.downstream.model import Model, read_rows
from biossl.downstream.predictions import calibrated, columns
from biossl.downstream.units import Units, pooled
from biossl.errors import BiosslError, RequestError
from biossl.keys import Keys
from biossl.protocol import Target, spread
from biossl.signal import InputSpec
from biossl.simulate.noise import coloured

Array = NDArray[Any]
Change = Callable[[Array, Array], Array]  # windows (n, C, T) of the model's channels, their rows -> worse windows
SNR_DB = (24.0, 18.0, 12.0, 6.0, 0.0)
ALONE_DB = 6.0  # at which each kind of noise also stands alone
SLOWER = (2, 4)
MOST_DROPPED = 16  # channels up to which each is dropped in turn
POWER_ROWS = 512  # judged windows by which the power of the signal is taken
CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
LEADS = {  # 6, 3 and 2 after the PhysioNet/CinC challenge of 2021; 8 from which the other four of twelve follow; 1 of a watch
    "8 leads": ("I", "II", *CHEST),
    "6 limb leads": ("I", "II", "III", "aVR", "aVL", "aVF"),
    "3 leads": ("I", "II", "V2"),
    "2 leads": ("I", "II"),
    "1 lead": ("I",),
}


@dataclass(frozen=True)
class Condition:
    """One way of being worse.

    ``kind`` (``channels``, ``rate``, ``lead_off``, ``noise``), ``name`` for a table, ``at``: channels left, share of the rate, or SNR
    in dB; ``change``, or None and why it is ``impossible``.
    """

    kind: str
    name: str
    at: float | None
    change: Change | None
    impossible: str = ""


class Worse(Corpus):
    """A corpus whose windows are changed while they are read; nothing is written."""

    def __init__(self, corpus: Corpus, columns: list[int], change: Change) -> None:
        super().__init__(corpus.path, corpus.facts)
        self.index = corpus.index
        self.spec: InputSpec = corpus.spec
        self._whole, self._columns, self._change = corpus, columns, change

    def signal(self, rows: Any) -> Array:
        """As of :class:`Corpus`, with the columns changed."""
        x = self._whole.signal(rows).copy()
        x[:, self._columns] = self._change(x[:, self._columns], np.atleast_1d(np.asarray(rows)))
        return x


def stress_test(
    model: Model, corpus: Corpus, rows: Array, units: Units, target: Target, p: Array, table: pd.DataFrame, people: Array, *,
    adapt: bool, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Judge a locked model on the same rows under each condition.

    Parameters
    ----------
    model : Model
    corpus : Corpus
    rows : ndarray of int, (n,)
        Rows of judged windows.
    units : Units
        What they are judged together as.
    target : Target
        Of the units.
    p : ndarray, (m, K) or (m,)
        Predictions of the clean units.
    table : DataFrame
        Of the clean units.
    people : ndarray of str, (m,)
    adapt : bool
        Accept a corpus with other channels or filters than the model's.
    seed : int
        Of resamples and noise.

    Returns
    -------
    list of dict
        First the clean input, then each condition: ``kind``, ``name``, ``at``, ``score``, ``minus`` (worse minus clean, paired),
        ``unfamiliar`` and ``abstain`` (shares; the first None where the model has no limits), ``kept`` (score of what keeps a
        decision), ``reason`` where something is missing.
    """
    match = require_match(model.encoder.spec, corpus.spec, adapt=adapt)
    used = list(match.rows)
    out = [{"kind": "clean", "name": "as it is", "at": None} | _figures(target, p, None, table, people, seed)]
    for how in conditions(_spec(corpus.spec, used), _power(corpus, rows, used), seed):
        entry: dict[str, Any] = {"kind": how.kind, "name": how.name, "at": how.at}
        empty = {"score": None, "minus": None, "unfamiliar": None, "abstain": None, "kept": None}
        if how.change is None:
            out.append(entry | empty | {"reason": f"not possible: {how.impossible}"})
            continue
        try:
            prediction, features = read_rows(model, Worse(corpus, used, how.change), rows, adapt=adapt, desc=how.name)
        except BiosslError as error:
            out.append(entry | empty | {"reason": f"not possible: {error}"})
            continue
        blank: Array = np.asarray(~np.isfinite(features).all(axis=1))
        if blank.all():
            out.append(entry | empty | {"abstain": 1.0, "reason": "nothing is left that was observed"})
            continue
        some = units.pool(blank.astype(np.float64)) == 0
        seen = calibrated(model, prediction[~blank])
        each = np.zeros((len(rows), *seen.shape[1:]))
        each[~blank] = seen
        q = units.pool(each)
        worse = pooled(model, units, q, columns(model, prediction, features))
        found = _figures(target, q, p, worse, people, seed, some)
        if not some.all():
            found["reason"] = f"without {int((~some).sum())} {units.per}s of which nothing is left"
        out.append(entry | found)
    return out


def _figures(
    target: Target, q: Array, p: Array | None, table: pd.DataFrame, people: Array, seed: int, some: Array | None = None
) -> dict[str, Any]:
    """Score of units, its difference to the clean predictions ``p`` of them, and what the model notices."""
    at = np.ones(len(people), bool) if some is None else some
    y, who, abstain = target.y, people, table["abstain"].to_numpy(bool)

    def score(rows: Array) -> dict[str, Any] | None:
        return metrics.subject_bootstrap(y[rows], q[rows], who[rows], target.metric, seed=seed).to_dict() if rows.any() else None

    minus = None
    if p is not None and at.any():
        minus = metrics.paired_difference(y[at], q[at], p[at], who[at], target.metric, seed=seed).to_dict()
    return {
        "score": score(at), "minus": minus, "unfamiliar": float(table["unfamiliar"].mean()) if "unfamiliar" in table else None,
        "abstain": float(abstain.mean()), "kept": score(at & ~abstain),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- conditions


def conditions(spec: InputSpec, power: dict[str, float], seed: int) -> list[Condition]:
    """What a model is put through.

    Parameters
    ----------
    spec : InputSpec
        Of the channels the model is given.
    power : dict
        Channel type -> mean variance of the judged windows, by which noise is scaled.
    seed : int

    Examples
    --------
    >>> spec = InputSpec("ecg", 100.0, 200, ("I", "II"), ("ecg", "ecg"), ("mV", "mV"))
    >>> [c.name for c in conditions(spec, {}, 0) if c.kind == "channels" and c.change]
    ['1 lead (I)']
    """
    return [*_channels(spec), *_rates(spec), *_lead_off(spec, seed), *_noises(spec, power, seed)]


def _channels(spec: InputSpec) -> list[Condition]:
    names = spec.ch_names
    if len(names) == 1:
        return [Condition("channels", "fewer channels", None, None, "there is one channel only")]
    if spec.modality == "ecg" and "I" in names:
        out = []
        for name, leads in LEADS.items():
            absent = [c for c in leads if c not in names]
            title = f"{name} ({' '.join(leads)})" if len(leads) < 6 else name
            if absent:
                out.append(Condition("channels", title, len(leads), None, f"no lead {', '.join(absent)} here"))
            elif len(leads) < len(names):
                out.append(Condition("channels", title, len(leads), _without([i for i, c in enumerate(names) if c not in leads])))
        return out
    if len(names) > MOST_DROPPED:
        why = f"{len(names)} channels are more than {MOST_DROPPED}"
        return [Condition("channels", "each channel dropped in turn", None, None, why)]
    return [Condition("channels", f"without {c}", len(names) - 1, _without([i])) for i, c in enumerate(names)]


def _without(lost: list[int]) -> Change:
    def change(x: Array, rows: Array) -> Array:
        x = x.copy()
        x[:, lost] = np.nan
        return x

    return change


def _rates(spec: InputSpec) -> list[Condition]:
    out = []
    for k in SLOWER:
        name = f"a device of {spec.sfreq / k:g} Hz (1/{k})"
        if spec.n_samples < 4 * k:
            out.append(Condition("rate", name, 1 / k, None, f"a window has {spec.n_samples} samples"))
        else:
            out.append(Condition("rate", name, 1 / k, lambda x, rows, k=k: slower(x, k)))  # type: ignore[misc]
    return out


def slower(x: Array, k: int) -> Array:
    """Windows as a device of 1/k of the rate gives them, brought back to the rate: what was faster than it can hold is gone.

    Parameters
    ----------
    x : ndarray, float32, (n, C, T)
        NaN = not observed, and stays so; gaps are bridged for filtering alone.
    k : int

    Examples
    --------
    >>> bool(np.allclose(slower(np.ones((1, 1, 32), np.float32), 2), 1.0, atol=1e-3))
    True
    """
    seen = np.isfinite(x)
    whole = F.fill_gaps(torch.from_numpy(np.where(seen, x, 0.0)), torch.from_numpy(seen)).numpy()
    few = resample_poly(whole, 1, k, axis=2, padtype="line")
    back = resample_poly(few, k, 1, axis=2, padtype="line")[..., : x.shape[2]]
    return np.where(seen, back, np.nan).astype(np.float32)


def _lead_off(spec: InputSpec, seed: int) -> list[Condition]:
    """One channel of each window, the same in both: noticed by the device, and not."""
    if len(spec.ch_names) == 1:
        return [Condition("lead_off", "one channel off", None, None, "there is one channel only")]
    one = Corruption("lead_off", 0.0)  # at least one is lost, so exactly one

    def off(x: Array, rows: Array) -> Array:
        return corrupt(x, rows + seed, one)

    def flat(x: Array, rows: Array) -> Array:
        lost = np.isnan(off(x, rows)) & ~np.isnan(x)
        middle = np.zeros((*x.shape[:2], 1), x.dtype)
        some = np.isfinite(x).any(axis=2)
        middle[some, 0] = np.nanmedian(x[some], axis=1)
        return np.where(lost, middle, x)

    left = len(spec.ch_names) - 1
    return [
        Condition("lead_off", "one channel off, known to be", left, off),
        Condition("lead_off", "one channel off, flat in the data", left, flat),
    ]


# ---------------------------------------------------------------------------------------------- noise


def _noises(spec: InputSpec, power: dict[str, float], seed: int) -> list[Condition]:
    """All kinds together at each SNR, then each alone."""
    made: dict[str, Change] = {}
    out: list[Condition] = []
    for k, (name, make) in enumerate((IMU_NOISE if spec.modality == "imu" else ELECTRODE_NOISE).items()):
        try:
            made[name] = make(spec, seed, k)
        except RequestError as error:
            out.append(Condition("noise", f"{name}, {ALONE_DB:g} dB", ALONE_DB, None, str(error)))
    if not made:
        return out

    def add(kinds: list[Change], snr_db: float) -> Change:
        return lambda x, rows: x + at_snr(np.sum([unit(k(x, rows), spec) for k in kinds], axis=0), power, snr_db, spec)

    together = [Condition("noise", f"noise, {snr:g} dB", snr, add(list(made.values()), snr)) for snr in SNR_DB]
    alone = [Condition("noise_alone", f"{name}, {ALONE_DB:g} dB", ALONE_DB, add([kind], ALONE_DB)) for name, kind in made.items()]
    return together + (alone if len(made) > 1 else []) + out


def unit(noise: Array, spec: InputSpec) -> Array:
    """Noise (n, C, T) of mean variance 1 over the channels of each type, in each window; what is silent stays so."""
    out = noise.astype(np.float64)
    types = np.array(spec.ch_types)
    for kind in np.unique(types):
        at = np.flatnonzero(types == kind)
        size = np.sqrt(out[:, at].var(axis=2).mean(axis=1))
        out[:, at] /= np.where(size > 0, size, 1.0)[:, None, None]
    return out


def at_snr(noise: Array, power: dict[str, float], snr_db: float, spec: InputSpec) -> Array:
    """Noise scaled to lie ``snr_db`` below the signal.

    Parameters
    ----------
    noise : ndarray, (n, C, T)
    power : dict
        Channel type -> variance of the signal: one number for all windows, since a device's noise does not know how large the signal is.
    snr_db : float
    spec : InputSpec

    Returns
    -------
    ndarray, float32, (n, C, T)
    """
    factor = np.array([np.sqrt(power[kind] / 10 ** (snr_db / 10)) for kind in spec.ch_types])
    return np.asarray(unit(noise, spec) * factor[None, :, None], np.float32)


def _power(corpus: Corpus, rows: Array, used: list[int]) -> dict[str, float]:
    """Mean variance over windows and channels of each type, of evenly drawn judged windows."""
    x = corpus.signal(rows[spread(len(rows), POWER_ROWS, 0)])[:, used]
    some = np.isfinite(x).any(axis=2)
    variance = np.full(some.shape, np.nan)
    variance[some] = np.nanvar(x[some].astype(np.float64), axis=1)
    types = np.array([corpus.spec.ch_types[i] for i in used])
    return {
        str(kind): float(np.nanmean(v)) if np.isfinite(v := variance[:, types == kind]).any() else 0.0
        for kind in np.unique(types)
    }


def _contact(part: Any) -> Callable[[InputSpec, int, int], Change]:
    """Noise of an augmentation at electrodes."""

    def make(spec: InputSpec, seed: int, k: int) -> Change:
        pipeline = part(amplitude=dict.fromkeys(spec.ch_types, 1.0)).build(spec)

        def change(x: Array, rows: Array) -> Array:
            nothing = Batch(torch.zeros(x.shape), spec.ch_names, spec.sfreq)
            noise: Array = pipeline(nothing, Keys(seed, 0, torch.as_tensor(rows)), 1000 * k).x.numpy()
            return noise

        return change

    return make


def _muscle(spec: InputSpec, seed: int, k: int) -> Change:
    """Broad-band noise at each electrode, little of it below 15 Hz."""
    average = [spec.reference == "average" and kind == "eeg" for kind in spec.ch_types]
    mix = electrode_matrix(spec.ch_names, average=average).numpy()
    return _drawn(spec, seed, k, mix, lambda f: f / (f + 15.0))


def _sensor(amplitude: Callable[[Array], Array]) -> Callable[[InputSpec, int, int], Change]:
    return lambda spec, seed, k: _drawn(spec, seed, k, np.eye(len(spec.ch_names)), amplitude)


def _drawn(spec: InputSpec, seed: int, k: int, mix: Array, amplitude: Callable[[Array], Array]) -> Change:
    def change(x: Array, rows: Array) -> Array:
        each = [
            coloured(np.random.default_rng([seed, k, int(r)]), (mix.shape[1], x.shape[2]), spec.sfreq, amplitude) for r in rows
        ]
        return mix @ np.stack(each)

    return change


ELECTRODE_NOISE: dict[str, Callable[[InputSpec, int, int], Change]] = {
    "baseline wander": _contact(BaselineWander),
    "mains": _contact(Mains),
    "electrode motion": _contact(lambda amplitude: ElectrodeMotion(amplitude=amplitude, share=1.0)),
    "muscle": _muscle,
}
IMU_NOISE: dict[str, Callable[[InputSpec, int, int], Change]] = {
    "white noise": _sensor(np.ones_like),
    "drift": _sensor(lambda f: 1.0 / f),
}


def _spec(spec: InputSpec, used: list[int]) -> InputSpec:
    names, types, units = (tuple(v[i] for i in used) for v in (spec.ch_names, spec.ch_types, spec.units))
    return replace(spec, ch_names=names, ch_types=types, units=units)
