"""The map of judged windows: reproducible axes, points that carry their own signal, and a script that needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_factory import CHANNELS, make_corpus
from judged_toys import make_locked, planted

from biossl.corpus import Corpus
from biossl.downstream.evaluate import evaluate
from biossl.report import judged_map as maps
from biossl.report import worst
from biossl.report.judged import Judged
from biossl.report.run_page import write_report
from biossl.signal import InputSpec


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(
        tmp_path_factory.mktemp("map") / "c", modality="imu", n_subjects=12, windows_per_subject=3, n_samples=64, n_channels=6
    )


@pytest.fixture(scope="module")
def judged(corpus: Corpus) -> Judged:
    """Row 5 is wrong, row 7 without a decision."""
    truth = corpus.labels("group").values[:, 0].astype(int)
    p = np.eye(2)[truth] * 0.8 + 0.1
    p[[5, 7]] = p[[5, 7], ::-1]
    return planted(corpus, "group", p, abstain=np.arange(len(corpus)) == 7)


def features(rows: np.ndarray) -> np.ndarray:
    return (
        np.random.default_rng(0).normal(size=(500, 6))[rows] * [5, 3, 1, 1, 1, 1] @ np.random.default_rng(1).normal(size=(6, 6))
    )


def data(page: str) -> dict[str, Any]:
    found = re.search(r'class="map-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_axes_are_the_two_of_most_variance_and_equal_features_give_an_equal_page(judged: Judged) -> None:
    z = features(np.arange(36))
    xy, share = maps.project(z)
    scaled = (z - z.mean(0)) / z.std(0)
    values = np.linalg.eigvalsh(np.cov(scaled.T))[::-1]
    assert share == pytest.approx(values[:2].sum() / values.sum())
    np.testing.assert_allclose(xy.var(0, ddof=1), values[:2])
    page = maps.judged_map(judged, features)
    assert f"they hold {share:.0%} of the variance" in page and "all 36 judged windows" in page
    assert page == maps.judged_map(judged, features)


def test_a_point_says_what_is_true_and_said_and_carries_the_signal_of_its_window(judged: Judged, corpus: Corpus) -> None:
    page = maps.judged_map(judged, features)
    held = data(page)
    assert [p[2] for p in held["points"]][4:8] == [
        "true fast, predicted fast (0.90)", "true fast, predicted slow (0.90)", "true slow, predicted slow (0.90)",
        "true slow, predicted fast (0.90); no decision (abstained)",
    ]  # fmt: skip
    assert page.count('stroke="#000" stroke-width="1.6"') == 1  # of the one that was decided wrongly
    x = corpus.signal([5])[0, :3]
    low, high = np.nanmin(x), np.nanmax(x)
    assert held["points"][5][3] == f"{low:.3g} to {high:.3g} g"
    for row, text in zip(x, held["points"][5][4], strict=True):
        assert [c == "." for c in text] == list(np.isnan(row))  # what was not observed stays a gap
        back = np.array([low + (high - low) * held["levels"].index(c) / 63 for c in text if c != "."])
        np.testing.assert_allclose(back, row[~np.isnan(row)], atol=(high - low) / 126 + 1e-6)


def test_long_windows_keep_their_spikes() -> None:
    x = np.zeros((1, 2500))
    x[0, 1234], x[0, 1300] = 5.0, -3.0
    (text,), said = maps.trace(x, "mV", False)
    assert (
        len(text) <= 120 and "_" in text and "A" in text and text.index("_") < text.index("A") and said == "a lane is 8 mV high"
    )
    assert maps.trace(np.full((2, 300), np.nan), "mV", False)[1] == "nothing observed"


def test_channels_of_a_trace_are_those_a_reader_looks_for() -> None:
    def picked(modality: str, kind: str, unit: str) -> list[str]:
        names = tuple(CHANNELS[modality])
        kinds = (kind,) * 3 + (("gyro",) * 3 if modality == "imu" else (kind,) * (len(names) - 3))
        units = (unit,) * 3 + (("rad/s",) * 3 if modality == "imu" else (unit,) * (len(names) - 3))
        return [names[i] for i in maps.lanes(InputSpec(modality, 100.0, 100, names, kinds, units))[0]]

    assert picked("ecg", "ecg", "mV") == ["II", "V1", "V5"]
    assert picked("imu", "acc", "g") == ["acc_x", "acc_y", "acc_z"]
    assert picked("eeg", "eeg", "uV") == ["Fp1", "Cz", "O2"]


def test_at_most_so_many_windows_and_too_few_are_one_line(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST", 10)
    page = maps.judged_map(judged, features)
    assert len(data(page)["points"]) == 10 and "10 of the 36 judged windows, evenly spaced" in page
    assert "0 are too few" in maps.judged_map(judged, lambda rows: np.full((len(rows), 3), np.nan))
    assert maps.judged_map(Judged(judged.result, judged.table, None, None), features) == ""


def test_a_class_name_cannot_end_the_data(judged: Judged) -> None:
    names = ["slow", "</script><b>"]
    table = judged.table.rename(columns={"p_fast": "p_</script><b>"}).replace({"y": {"fast": names[1]}})  # type: ignore[union-attr]
    page = maps.judged_map(Judged(judged.result | {"classes": names}, table, judged.corpus, judged.rows), features)
    assert "</script><b>" not in page and names[1] in data(page)["points"][4][2]


STUB = """
const element = extra => Object.assign({ attributes: {}, handlers: {}, children: [], hidden: true, textContent: '',
  setAttribute(k, v) { this.attributes[k] = v; }, removeAttribute(k) { delete this.attributes[k]; },
  addEventListener(k, f) { this.handlers[k] = f; }, querySelectorAll() { return this.children; } }, extra);
const paths = [element(), element(), element()], ring = element({ attributes: { display: 'none' } });
const range = element(), said = element(), live = element(), trace = element({ children: paths });
const titles = [{ gone: false, remove() { this.gone = true; } }];
const svg = element({ children: titles, querySelector: () => ring, getBoundingClientRect: () => ({ left: 10, top: 20, width: 300 }) });
const stage = element({ querySelector: () => svg });
const parts = { '.map-data': element({ textContent: require('fs').readFileSync(0, 'utf8') }), '.stage': stage, '.said': said,
  '.trace': trace, '.live': live, '.range': range };
globalThis.document = { querySelectorAll: () => [{ querySelector: s => parts[s] }] };
const key = name => { let held = false; stage.handlers.keydown({ key: name, preventDefault() { held = true; } }); return held; };
const now = () => [said.textContent, ring.attributes.transform];
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_pointer_and_keys_show_the_window_they_are_at(judged: Judged, tmp_path: Path) -> None:
    held = data(maps.judged_map(judged, features))
    points = held["points"]
    x, y = points[17][:2]
    moves = f"""
    const out = {{}};
    stage.handlers.focus(); out.focus = now();
    out.held = [key('ArrowRight'), key('Tab')]; out.right = now();
    key('End'); out.end = now(); key('ArrowRight'); out.stays = now(); key('Home'); key('ArrowLeft'); out.home = now();
    key('ArrowDown'); out.down = now();
    svg.handlers.pointermove({{ clientX: 10 + {x} / 2, clientY: 20 + {y} / 2 }}); out.pointed = now();
    out.path = paths[0].attributes.d; out.range = range.textContent; out.hidden = live.hidden; out.titles = titles[0].gone;
    out.ring = 'display' in ring.attributes;
    svg.handlers.pointermove({{ clientX: -5000, clientY: 0 }}); out.far = now();
    console.log(JSON.stringify(out));
    """
    (tmp_path / "run.js").write_text(STUB + maps.SCRIPT + moves)
    done = subprocess.run(["node", str(tmp_path / "run.js")], input=json.dumps(held), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    across = sorted(range(len(points)), key=lambda i: (points[i][0], i))
    down = sorted(range(len(points)), key=lambda i: (points[i][1], i))

    def at(i: int) -> list[str]:
        return [points[i][2], f"translate({points[i][0]:g} {points[i][1]:g})"]

    assert out["focus"] == out["home"] == at(across[0]) and out["right"] == at(across[1])
    assert out["end"] == out["stays"] == at(across[-1]) and out["held"] == [True, False]
    assert out["down"] == at(down[down.index(across[0]) + 1])
    near = min(range(len(points)), key=lambda i: (points[i][0] - x) ** 2 + (points[i][1] - y) ** 2)
    assert out["pointed"] == out["far"] == at(near) and out["range"] == points[near][3]
    assert out["path"].startswith("M") and out["path"].count("L") > 40
    assert not out["hidden"] and out["titles"] and not out["ring"]


def test_the_whole_page_has_one_script_and_needs_nothing_from_outside(corpus: Corpus, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(worst, "MOST", 1)
    run = make_locked(tmp_path / "run", corpus, "group")
    other = make_locked(tmp_path / "more", corpus, "group", subjects=8)
    evaluate(run, corpus, part="all", baselines=False, by=["site"], out=run / "evaluations" / "a")
    evaluate(other, corpus, part="all", baselines=False, out=run / "evaluations" / "b")
    rows = [{"subjects": n, "windows": 9 * n, "score": 0.1 * n, "low": None, "high": None} for n in (1, 2, 4)]
    (run / "learning_curve.json").write_text(json.dumps({"label": "group", "metric": "macro F1", "rows": rows}))
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    write_report(moved)
    page = (moved / "report.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script([^>]*)>", page)
    assert scripts.count("") == 1 and all(s in ("", ' type="application/json" class="map-data"') for s in scripts)
    assert not re.search(r'(?:src|href)="(?!#|data:)', page) and "@import" not in page and not re.search(r"url\((?!#)", page)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b", maps.SCRIPT) and len(page) < 3_000_000
    for words in ("ROC", "Precision and recall", "Decision curve: fast", "site a, not drawn", "Worst cases", "map-data"):
        assert words in page
    assert "treat it like the recordings themselves" in page and "Scripts are off" in page
    assert page.count("Score by amount of training") >= 1 and "group: one dot a model" in page
    assert not any(re.search(rf"\b{s}\b", page) for s in set(corpus.index["subject"]))
