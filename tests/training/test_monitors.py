"""Collapse monitors: planted collapses are seen, a healthy embedding is not accused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_factory import make_corpus
from torch import Tensor, nn

from biossl.batch import Batch
from biossl.errors import DataError, RequestError
from biossl.recipe.schema import Monitor, Probe
from biossl.training.data import make_sources
from biossl.training.monitors import (
    Variances,
    Watcher,
    alarm,
    concern,
    embedding_std,
    feature_variance,
    rankme,
    stop_if_collapsed,
)

D = 64


def gaussian(n: int = 4 * D) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(0))


def reading(z: Tensor) -> dict[str, float]:
    return {"std": embedding_std(z), "rankme_centred": rankme(z, centred=True), "rankme_uncentred": rankme(z, centred=False)}


def constant() -> Tensor:
    return gaussian(1).expand(4 * D, D)


def rank_one() -> Tensor:
    return gaussian()[:, :1] * gaussian(1)


def constant_and_noise() -> Tensor:
    return constant() + 1e-3 * gaussian()


@pytest.mark.parametrize("planted", [constant, rank_one, constant_and_noise])
def test_alarm_on_planted_collapse(planted: object) -> None:
    assert alarm(reading(planted()))  # type: ignore[operator]


def test_alarm_is_silent_on_a_healthy_embedding() -> None:
    assert alarm(reading(gaussian())) == ""
    assert alarm(reading(gaussian() + 30.0)) == ""  # a common offset is no collapse: a probe removes it
    assert alarm(reading(gaussian() @ gaussian(D)[:, :8] @ gaussian(8))) == ""  # rank 8


def test_std_is_judged_against_the_start() -> None:
    low = reading(gaussian() + 300.0)  # an untrained transformer looks like this
    assert alarm(low) and not alarm(low, start_std=low["std"])
    assert alarm({**low, "std": low["std"] / 20}, start_std=low["std"])


def test_a_low_last_reading_is_told_with_what_would_be_an_alarm() -> None:
    short = {"std": 0.039, "start_std": 0.185, "rankme_centred": 64.0, "rankme_uncentred": 3.8}
    assert alarm(short, start_std=0.185) == ""  # a fifth is not a tenth
    assert "0.039, 21% of that before the first step (0.18" in concern(short) and "std below 0.018" in concern(short)
    assert concern(short | {"std": 0.1}) == "" and concern({}) == ""
    assert "uncentred RankMe 1.1" in concern(short | {"std": 0.1, "rankme_uncentred": 1.1})


def test_each_monitor_misses_what_another_sees() -> None:
    noisy, line = reading(constant_and_noise()), reading(rank_one())
    assert noisy["rankme_centred"] > 0.8 * D and noisy["rankme_uncentred"] < 1.5 and noisy["std"] < 0.01
    assert line["std"] > 0.5 and line["rankme_centred"] < 1.01


def test_rankme_and_std_follow_their_equations() -> None:
    z = gaussian(100).double().numpy() + 0.3
    for centred in (True, False):
        s = np.linalg.svd(z - z.mean(0) * centred, compute_uv=False)
        p = s / s.sum()
        assert rankme(torch.from_numpy(z), centred=centred) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    assert embedding_std(torch.from_numpy(z)) == pytest.approx(unit.std(axis=0, ddof=1).mean() * np.sqrt(D), rel=1e-6)
    assert embedding_std(gaussian(4000)) == pytest.approx(1.0, abs=0.02)
    assert rankme(torch.zeros(8, 4), centred=True) == 1.0


def test_variance_is_over_rows_not_within_a_token() -> None:
    alike = torch.nn.functional.layer_norm(constant(), (D,))
    assert alike.var(dim=1).mean() == pytest.approx(1.0, abs=0.05)  # by construction, collapsed or not
    assert feature_variance(alike) < 1e-10
    assert 0.5 < feature_variance(torch.nn.functional.layer_norm(gaussian(), (D,))) < 1.1


def test_variances_are_means_over_steps_and_start_again() -> None:
    seen = Variances()
    seen.add({"target": gaussian(), "prediction": 0.1 * gaussian(), "embedding": gaussian()})
    seen.add({"target": 0 * gaussian()})
    out = seen.take()
    assert out["target_variance"] == pytest.approx(float(feature_variance(gaussian())) / 2)
    assert out["prediction_variance"] == pytest.approx(0.01 * float(feature_variance(gaussian())), rel=1e-4)
    assert seen.take() == {}


def test_stopping_rule() -> None:
    settings = Monitor(stop_after=100)
    good = {"target_variance": 0.5, "prediction_variance": 0.1}
    stop_if_collapsed(good, settings, 1000)
    stop_if_collapsed({"target_variance": 0.0}, settings, 99)  # too early to judge
    with pytest.raises(DataError, match=r"step 100: collapsed, target variance 0.002 < 0.01"):
        stop_if_collapsed({**good, "target_variance": 0.002}, settings, 100)
    with pytest.raises(DataError, match="prediction variance"):
        stop_if_collapsed({**good, "prediction_variance": 1e-6}, settings, 100)
    stop_if_collapsed({"target_variance": 0.0}, Monitor(stop_after=0, stop_target_variance=0), 5)


class Spectrum(nn.Module):
    """Stands for an encoder: power of two bands per channel."""

    dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.inner = nn.Dropout(0.5)

    def embed(self, batch: Batch) -> Tensor:
        assert not self.inner.training
        power = torch.fft.rfft(batch.x).abs()
        return self.gain * torch.cat([power[..., 3:6].mean(-1), power[..., 7:14].mean(-1)], dim=1)


def test_watcher_reads_training_windows_and_leaves_modes_alone(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=12, windows_per_subject=8, n_samples=200)
    sources, _ = make_sources([(corpus, 1.0)])
    settings = Monitor(samples=16, probe=Probe(label="group", samples=64))
    watcher = Watcher(sources, settings, dim=Spectrum.dim, seed=0)
    assert watcher.n == 4 * Spectrum.dim and set(watcher.rows[0]) <= set(sources[0].rows)
    assert set(watcher.probe.rows) <= set(sources[0].rows)  # type: ignore[union-attr]  # never validation or test rows
    encoder = Spectrum().train()
    encoder.inner.train()
    first, again = watcher.read(encoder), watcher.read(encoder)
    assert first == again and encoder.training and encoder.inner.training
    assert set(first) == {"std", "rankme_centred", "rankme_uncentred", "probe"}
    assert first["probe"] > 0.9  # the rate of the rhythm is the group
    probe = watcher.probe
    assert probe is not None
    held = set(sources[0].subject[probe.rows[probe.held]])
    assert held and not held & set(sources[0].subject[probe.rows[~probe.held]])  # apart by subject


def test_probe_takes_every_kind_of_label_and_names_a_missing_one(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", modality="imu", n_subjects=30, windows_per_subject=2, n_samples=50)
    sources, _ = make_sources([(corpus, 1.0)])
    with pytest.raises(RequestError, match="no corpus has 'grup'; labels there: .*group"):
        Watcher(sources, Monitor(probe=Probe(label="grup")), dim=4, seed=0)
    multi = Watcher(sources, Monitor(probe=Probe(label="findings")), dim=4, seed=0)
    assert 0.0 <= multi.read(Spectrum())["probe"] <= 1.0
    age = Watcher(sources, Monitor(probe=Probe(label="age")), dim=4, seed=0)
    assert age.read(Spectrum(), collapse=False)["probe"] < 1.0
