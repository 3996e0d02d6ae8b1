"""Watching for collapse, because the loss of a joint-embedding method is no sign of progress.

What lives here: numbers computed from embeddings (std, RankMe twice), the alarm over them, the variances of targets and
predictions with the rule that stops a run, and a linear probe on the training part. Not here: when they run.

Why these and not one: embeddings that are constant but for 1e-3 of noise have a *centred* RankMe near full rank and are
seen by std and the *uncentred* one; embeddings along one direction have a healthy std and are seen by the centred one.
RankMe grows with the number of samples (an isotropic embedding of width 256 gives 61 / 118 / 205 / 247 for n = 64 / 128
/ 256 / 1024), so it is read on a fixed set of at least 4 D training windows where the corpus has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from biossl.errors import DataError, RequestError
from biossl.keys import hash_ints
from biossl.metrics import MAIN_METRIC, score
from biossl.recipe.schema import Monitor, Probe
from biossl.training.data import Source
from biossl.training.sampling import permutation

COLUMNS = ("std", "rankme_centred", "rankme_uncentred", "target_variance", "prediction_variance")
# A transformer's mean-pooled features share a large constant part (positions, biases): with random weights their std is
# 0.003 to 0.03 and a probe still works. So std is judged against its value before the first step, not against 1.
USUAL_STD = 0.1
LEAST_OF_START = 0.1
MIN_STD = 1e-4
MIN_RANK = 2.0
LOW_OF_START = 1 / 3  # worth a word at the end of a run; a dip of the first hundreds of steps is usual
LOW_RANK = 1.5
_CHUNK = 64
_ROWS, _FOLD = 0x3017, 0x3018  # permutation numbers of the monitoring rows and of the probe's subjects


def embedding_std(z: Tensor) -> float:
    """Standard deviation over rows of L2-normalised embeddings, mean of the features, times sqrt(D).

    About 1 for isotropic embeddings, 0 for constant ones (arXiv 2011.10566).

    Parameters
    ----------
    z : Tensor, (n, D)
    """
    unit = nn.functional.normalize(z.double(), dim=1)
    return float(unit.std(dim=0).mean() * z.shape[1] ** 0.5)


def rankme(z: Tensor, *, centred: bool) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (arXiv 2210.02885).

    Parameters
    ----------
    z : Tensor, (n, D)
        Use n >= 4 D; below that it under-reads.
    centred : bool
        Subtract the mean row first.

    Returns
    -------
    float
        Between 1 and min(n, D).

    Examples
    --------
    >>> round(rankme(torch.eye(4), centred=False), 6)
    4.0
    """
    z = z.double()
    if centred:
        z = z - z.mean(dim=0)
    values = torch.linalg.svdvals(z)
    total = values.sum()
    if total == 0:
        return 1.0
    p = values / total
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def feature_variance(x: Tensor) -> Tensor:
    """Variance over rows (samples and positions), mean of the features; scalar on the device of ``x`` (n, D).

    Layer-normalised targets have variance 1 *within* each token by construction, whatever they say; over rows it is at
    most about 1 and falls to 0 when all tokens become alike. data2vec 2.0 (arXiv 2212.07525) stops a run on the mean
    over features of the standard deviation, 0.1 for targets and 0.01 for predictions: variances of 0.01 and 0.0001.
    """
    return x.detach().float().var(dim=0).mean()


class Variances:
    """Running means of :func:`feature_variance` of what an objective lets be watched, kept on the device."""

    def __init__(self) -> None:
        self._sum: dict[str, Tensor] = {}
        self._n: dict[str, int] = {}

    def add(self, watch: dict[str, Tensor]) -> None:
        """Add one step's ``target`` and ``prediction`` (n, D)."""
        for name in ("target", "prediction"):
            if name in watch:
                value = feature_variance(watch[name])
                self._sum[name] = self._sum[name] + value if name in self._sum else value
                self._n[name] = self._n.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Means since the last call (the device is waited for)."""
        out = {f"{name}_variance": float(total) / self._n[name] for name, total in self._sum.items()}
        self._sum, self._n = {}, {}
        return out


def alarm(reading: dict[str, float], *, start_std: float = USUAL_STD) -> str:
    """One line when a reading looks collapsed, else an empty text.

    Parameters
    ----------
    reading : dict
        ``std`` and ``rankme_centred``.
    start_std : float
        ``std`` before the first step.
    """
    least = max(LEAST_OF_START * start_std, MIN_STD)
    if reading.get("std", least) < least:
        return f"embeddings have become nearly the same for all windows (std {reading['std']:.2g}, at the start {start_std:.2g})"
    if reading.get("rankme_centred", MIN_RANK) < MIN_RANK:
        return f"embeddings vary along one direction only (centred RankMe {reading['rankme_centred']:.3g} < {MIN_RANK})"
    return ""


def concern(numbers: dict[str, float]) -> str:
    """One line on the last reading of a run that is not alarming but low, with what would be an alarm; else an empty text.

    Parameters
    ----------
    numbers : dict
        ``std``, ``start_std`` and ``rankme_uncentred`` as last logged; what is absent is not judged.

    Examples
    --------
    >>> concern({"std": 0.2, "start_std": 0.19})
    ''
    """
    std, start, rank = (numbers.get(k) for k in ("std", "start_std", "rankme_uncentred"))
    found = []
    if std is not None and start is not None and std < LOW_OF_START * start:
        found.append(f"the spread of the embeddings is {std:.2g}, {std / start:.0%} of that before the first step ({start:.2g})")
    if rank is not None and rank < LOW_RANK:
        found.append(f"all embeddings point nearly the same way (uncentred RankMe {rank:.2g})")
    if not found:
        return ""
    least = max(LEAST_OF_START * (USUAL_STD if start is None else start), MIN_STD)
    return (
        f"{' and '.join(found)}: a dip in a short run, or the way to a collapse; train longer or with a lower train.optimizer.lr, and "
        f"let the probe judge (an alarm would be std below {least:.2g} or centred RankMe below {MIN_RANK:g})"
    )


def stop_if_collapsed(reading: dict[str, float], settings: Monitor, step: int) -> None:
    """Stop the run when targets or predictions have become alike.

    Raises
    ------
    DataError
        A variance is below its threshold at or after ``monitor.stop_after`` steps.
    """
    if step < settings.stop_after:
        return
    for name in ("target", "prediction"):
        value, least = reading.get(f"{name}_variance"), getattr(settings, f"stop_{name}_variance")
        if value is not None and value < least:
            raise DataError(
                f"step {step}: collapsed, {name} variance {value:.2g} < {least:g}; begin a new run with a lower "
                f"train.optimizer.lr or a momentum nearer 1 (monitor.stop_{name}_variance=0 switches this rule off)"
            )


@torch.no_grad()
def embed_rows(encoder: nn.Module, sources: Sequence[Source], rows: Sequence[np.ndarray]) -> Tensor:
    """Embeddings (n, D), float32 on the CPU, of index rows of each source, in evaluation mode."""
    device = next(encoder.parameters()).device
    modes = [(m, m.training) for m in encoder.modules()]
    encoder.eval()
    out = []
    try:
        for source, mine in zip(sources, rows, strict=True):
            for start in range(0, len(mine), _CHUNK):
                batch = source.batch(mine[start : start + _CHUNK]).to(device).decode(source)
                out.append(encoder.embed(batch).float().cpu())  # type: ignore[operator]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(out)


class Watcher:
    """Fixed training windows that are embedded again and again, and the probe if a label is named.

    Parameters
    ----------
    sources : list of Source
    settings : Monitor
    dim : int
        Width of the encoder.
    seed : int

    Attributes
    ----------
    n : int
        Windows per reading.
    """

    def __init__(self, sources: list[Source], settings: Monitor, *, dim: int, seed: int) -> None:
        self.sources, self.settings = sources, settings
        wanted = max(settings.samples, 4 * dim)
        shares = np.array([s.weight for s in sources])
        shares = shares / shares.sum()
        self.rows = []
        for k, (source, share) in enumerate(zip(sources, shares, strict=True)):
            chosen = permutation(len(source.rows), seed=seed, corpus=k, epoch=_ROWS)[: max(1, round(wanted * share))]
            self.rows.append(np.sort(source.rows[chosen]))
        self.n = sum(len(r) for r in self.rows)
        self.note = f"monitors read {self.n} windows"
        if self.n < 4 * dim:
            self.note += f" (fewer than 4 x {dim}: RankMe under-reads)"
        self.probe = LinearProbe(sources, settings.probe, seed=seed) if settings.probe.label else None

    def read(self, encoder: nn.Module, *, collapse: bool = True, probe: bool = True) -> dict[str, float]:
        """``std``, ``rankme_centred`` and ``rankme_uncentred`` of an encoder, and ``probe`` when a label is named."""
        out: dict[str, float] = {}
        if collapse:
            z = embed_rows(encoder, self.sources, self.rows)
            z = z[torch.isfinite(z).all(dim=1)]  # a window in which nothing was observed has no embedding
            if len(z) < 2:
                raise DataError(
                    "no embedding of the monitoring windows is finite; begin a new run with a lower train.optimizer.lr"
                )
            out["std"] = embedding_std(z)
            out["rankme_centred"], out["rankme_uncentred"] = rankme(z, centred=True), rankme(z, centred=False)
        if probe and self.probe is not None:
            out["probe"] = self.probe.read(encoder)
        return out


class LinearProbe:
    """Ridge regression on frozen embeddings of training windows, judged on subjects of the training part kept out of it.

    For watching a run only: nothing outside the part ``train`` is opened, and no step depends on it.

    Parameters
    ----------
    sources : list of Source
        The first corpus that has the label is used.
    settings : Probe
    seed : int

    Raises
    ------
    RequestError
        No corpus has the label.
    DataError
        Fewer than two subjects with a known label.
    """

    def __init__(self, sources: list[Source], settings: Probe, *, seed: int) -> None:
        having = [s for s in sources if settings.label in s.corpus.label_names()]
        if not having:
            names = sorted({n for s in sources for n in s.corpus.label_names()})
            raise RequestError(
                f"monitor.probe.label: no corpus has '{settings.label}'; labels there: {', '.join(names) or 'none'}"
            )
        self.source = having[0]
        labels = self.source.corpus.labels(settings.label)
        values = np.asarray(labels.values, np.float64)
        known = self.source.rows[~np.isnan(values[self.source.rows]).all(axis=1)]
        self.rows = np.sort(known[permutation(len(known), seed=seed, corpus=0, epoch=_ROWS)][: settings.samples])
        people, code = np.unique(self.source.subject[self.rows], return_inverse=True)
        if len(people) < 2:
            raise DataError(f"monitor.probe.label '{settings.label}': {len(people)} subjects with a known label, two are needed")
        kept = permutation(len(people), seed=hash_ints(seed, _FOLD), corpus=0, epoch=0)[: max(1, len(people) // 3)]
        self.held = np.isin(code, kept)
        self.metric = "macro_auroc" if labels.kind != "regression" else MAIN_METRIC["regression"]
        y = values[self.rows]
        if labels.kind == "multiclass":
            y = (y == np.arange(len(labels.classes))).astype(np.float64)
        self.y = y

    def read(self, encoder: nn.Module) -> float:
        """Macro AUROC (R2 for a regression label) on the kept-out subjects; NaN when it cannot be computed."""
        z = embed_rows(encoder, [self.source], [self.rows]).double().numpy()
        fit, held = ~self.held, self.held
        z = (z - z[fit].mean(axis=0)) / (z[fit].std(axis=0) + 1e-6)
        scores = np.zeros((held.sum(), self.y.shape[1]))
        for k in range(self.y.shape[1]):  # each class has its own unknown rows
            use = fit & ~np.isnan(self.y[:, k])
            if use.any():
                scores[:, k] = _ridge(z[use], self.y[use, k], z[held])
        y = self.y[held]
        return score(y[:, 0], scores[:, 0], "r2") if self.metric == "r2" else score(y, scores, self.metric)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions of a ridge regression with intercept; the penalty is a tenth of the number of rows."""
    mean = y.mean()
    centre = x.mean(axis=0)
    x = x - centre
    weight = np.linalg.solve(x.T @ x + 0.1 * len(x) * np.eye(x.shape[1]), x.T @ (y - mean))
    return (new - centre) @ weight + mean
