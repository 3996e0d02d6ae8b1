"""A map of the judged windows whose points show their signal: two principal axes of the locked model's features.

What lives here: which windows, the projection, the points as SVG, their traces as text in the page, and the one script of the page. Without
scripts the map stands as it is, with what was said of each window as its title. Points are reached by pointer, touch and arrow keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from biossl.report import figures, html
from biossl.report.embedding_map import groups
from biossl.report.judged import YES_NO, Judged
from biossl.signal import InputSpec

Array = NDArray[np.float64]
MOST = 300
LEAST = 4
_WIDTH, _HEIGHT, _EDGE = 600, 420, 14
_POINTS = 120  # of one trace
_LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"  # a sample a letter; '.' = not observed
_SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "m-3.5-3.5h7v7h-7z", "m0-4.5l4.4 8h-8.8z", "m0-4.8l4.8 4.8l-4.8 4.8l-4.8-4.8z",
    "m0 4.5l4.4-8h-8.8z", "m-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "m-4.6-3l1.6-1.6l3 3l3-3l1.6 1.6l-3 3l3 3l-1.6 1.6l-3-3l-3 3l-1.6-1.6l3-3z",
    "m0-5l1.4 3.2l3.5.4l-2.6 2.3l.8 3.5l-3.1-1.8l-3.1 1.8l.8-3.5l-2.6-2.3l3.5-.4z",
)  # fmt: skip
SCRIPT = """
for (const box of document.querySelectorAll('.map')) {
  const data = JSON.parse(box.querySelector('.map-data').textContent), points = data.points;
  const stage = box.querySelector('.stage'), svg = stage.querySelector('svg'), ring = svg.querySelector('.ring');
  const said = box.querySelector('.said'), trace = box.querySelector('.trace');
  const by = [0, 1].map(k => points.map((_, i) => i).sort((a, b) => points[a][k] - points[b][k] || a - b));
  let at = -1;
  svg.querySelectorAll('title').forEach(t => t.remove());
  box.querySelector('.live').hidden = false;
  const line = (text, top, height) => {
    let path = '', pen = 'M';
    for (let i = 0; i < text.length; i++) {
      const level = data.levels.indexOf(text[i]);
      if (level < 0) { pen = 'M'; continue; }
      path += pen + (70 + 520 * i / (text.length - 1)).toFixed(1) + ' ' + (top + height * (1 - level / 63)).toFixed(1);
      pen = 'L';
    }
    return path;
  };
  const show = i => {
    if (i === at) return;
    at = i;
    ring.setAttribute('transform', 'translate(' + points[i][0] + ' ' + points[i][1] + ')');
    ring.removeAttribute('display');
    const lanes = points[i][4], together = data.together, height = together ? 132 : 132 / lanes.length;
    lanes.forEach((text, k) => {
      trace.querySelectorAll('path')[k].setAttribute('d', line(text, 4 + (together ? 0 : k * height), height - 4));
    });
    said.textContent = points[i][2];
    box.querySelector('.range').textContent = points[i][3];
  };
  const nearest = event => {
    const area = svg.getBoundingClientRect(), scale = data.width / area.width;
    const x = (event.clientX - area.left) * scale, y = (event.clientY - area.top) * scale;
    let best = -1, least = 900;
    points.forEach((p, i) => { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < least) { least = d; best = i; } });
    if (best >= 0) show(best);
  };
  svg.addEventListener('pointermove', nearest);
  svg.addEventListener('pointerdown', nearest);
  stage.addEventListener('focus', () => { if (at < 0) show(by[0][0]); });
  stage.addEventListener('keydown', event => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 1], ArrowUp: [1, -1] }, move = moves[event.key];
    const last = points.length - 1;
    if (move) show(by[move[0]][Math.min(last, Math.max(0, by[move[0]].indexOf(at) + move[1]))]);
    else if (event.key === 'Home') show(by[0][0]);
    else if (event.key === 'End') show(by[0][last]);
    else return;
    event.preventDefault();
  });
}
"""


def judged_map(judged: Judged, features: Callable[[NDArray[np.int64]], Array]) -> str:
    """The map as HTML without its script; a line where there are too few windows, '' without a table or corpus.

    Parameters
    ----------
    judged : Judged
    features : callable
        Rows of the corpus to the locked model's features (n, D).
    """
    if judged.table is None or judged.corpus is None or judged.rows is None:
        return ""
    some = np.unique(np.linspace(0, len(judged.rows) - 1, min(MOST, len(judged.rows))).astype(int))
    z = features(judged.rows[some])
    seen = np.isfinite(z).all(axis=1)
    some, z = some[seen], z[seen]
    if len(some) < LEAST:
        return html.para(f"No map of the judged windows: {len(some)} are too few.")
    xy, explained = project(z)
    low, high = xy.min(axis=0), xy.max(axis=0)
    place = _EDGE + (xy - low) / np.maximum(high - low, 1e-12) * ([_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE])
    place[:, 1] = _HEIGHT - place[:, 1]
    rows = judged.rows[some]
    group, names = groups(judged.corpus, judged.result["label"], rows)
    words, wrong = zip(*(describe(judged, int(i)) for i in some), strict=True)
    picked, together = lanes(judged.corpus.spec)
    traces = [trace(x[picked], judged.corpus.spec.units[picked[0]], together) for x in judged.corpus.signal(rows)]
    points = [
        [round(float(x), 1), round(float(y), 1), w, unit, text]
        for (x, y), w, (text, unit) in zip(place, words, traces, strict=True)
    ]
    of = (
        f"{len(some)} of the {len(judged.rows):,} judged windows, evenly spaced"
        if len(some) < len(judged.rows)
        else f"all {len(some)} judged windows"
    )
    what = (
        f"Two principal axes of the locked model's features of {of}; they hold {explained:.0%} of the variance. Colour and shape: {judged.result['label']}; "
        "black edge: decided wrongly."
    )
    return _html(judged, points, np.asarray(group), names, wrong, picked, together, what)


def project(z: Array) -> tuple[Array, float]:
    """Two principal axes of standardised features (n, D): coordinates (n, 2) and the share of variance they hold."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    pca = PCA(min(2, *z.shape), svd_solver="full")
    xy = pca.fit_transform(StandardScaler().fit_transform(np.asarray(z, np.float64)))
    share = pca.explained_variance_ratio_
    return np.pad(xy, ((0, 0), (0, 2 - xy.shape[1]))), float(share.sum()) if np.isfinite(share).all() else 0.0


def describe(judged: Judged, i: int) -> tuple[str, bool]:
    """What is true and what was said of a row of the table, and whether that is wrong; of values never wrong, of unknown never."""
    y, p, names = judged.reference, judged.probabilities, judged.classes
    end = "; no decision (abstained)" if judged.abstained[i] else ""
    if judged.result["kind"] == "regression":
        return f"true {y[i]:.4g}, predicted {p[i]:.4g}{end}", False
    if judged.result["kind"] not in YES_NO:
        k = int(p[i].argmax())
        truth = "unknown" if np.isnan(y[i]) else names[int(y[i])]
        return f"true {truth}, predicted {names[k]} ({p[i, k]:.2f}){end}", bool(not np.isnan(y[i]) and k != y[i]) and not end
    yes = p[i] >= judged.thresholds
    truth, said = ("+".join(n for n, v in zip(names, row, strict=True) if v) or "none" for row in (y[i] == 1, yes))
    wrong = bool((~np.isnan(y[i]) & (yes != (y[i] == 1))).any()) and not end
    return f"true {truth}, predicted {said}{end}", wrong


def lanes(spec: InputSpec) -> tuple[list[int], bool]:
    """Up to three channels of a trace, of one unit, and whether they share one lane (axes of a sensor)."""
    if spec.modality == "imu":
        return [i for i, kind in enumerate(spec.ch_types) if kind == spec.ch_types[0]][:3], True
    alike = [
        i for i, (k, u) in enumerate(zip(spec.ch_types, spec.units, strict=True)) if k == spec.modality and u == spec.units[0]
    ] or [0]
    leads = [spec.ch_names.index(c) for c in ("II", "V1", "V5") if c in spec.ch_names and spec.ch_names.index(c) in alike]
    spread = [alike[j] for j in np.unique(np.linspace(0, len(alike) - 1, min(3, len(alike))).astype(int))]
    return leads if len(leads) > 1 else spread, False


def trace(x: Array, unit: str, together: bool) -> tuple[list[str], str]:
    """Channels (C, T) as text, one letter a sample of at most :data:`_POINTS`, and the range they are drawn in.

    Of long windows each piece gives its least and greatest value, in their order, so that spikes stay.
    """
    x = np.asarray(x, np.float64)
    if x.shape[1] > _POINTS:
        size = -(-x.shape[1] // (_POINTS // 2))
        pieces = np.pad(x, ((0, 0), (0, -x.shape[1] % size)), constant_values=np.nan).reshape(len(x), -1, size)
        ends = np.stack([np.where(np.isnan(sign * pieces), np.inf, sign * pieces).argmin(axis=2) for sign in (1, -1)], axis=2)
        x = np.take_along_axis(pieces, np.sort(ends, axis=2), axis=2).reshape(len(x), -1)
    known = np.isfinite(x)
    if not known.any():
        return ["." * x.shape[1]] * len(x), "nothing observed"
    if not together:  # each about its middle, all in one scale
        x = x - np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in x])[:, None]
    low, high = (float(np.nanmin(x)), float(np.nanmax(x)))
    level = np.rint(63 * (np.where(known, x, low) - low) / max(high - low, 1e-12)).astype(int)
    text = [
        "".join(_LEVELS[v] if seen else "." for v, seen in zip(row, there, strict=True))
        for row, there in zip(level, known, strict=True)
    ]
    return text, f"{low:.3g} to {high:.3g} {unit}" if together else f"a lane is {high - low:.3g} {unit} high"


def _html(
    judged: Judged, points: list[list[object]], group: NDArray[np.int64], names: tuple[str, ...], wrong: tuple[bool, ...], picked: list[int],
    together: bool, what: str,
) -> str:  # fmt: skip
    assert judged.corpus is not None
    marks = "".join(
        f'<path d="M{x} {y}{_SHAPES[_shape(int(g))]}" fill="{_colour(int(g))}" stroke="{"#000" if bad else "#fff"}" '
        f'stroke-width="{1.6 if bad else 0.5}"><title>{html.esc(words)}</title></path>'
        for (x, y, words, *_), g, bad in sorted(zip(points, group, wrong, strict=True), key=lambda v: v[2])
    )
    keys = "".join(_key(k, name) for k, name in enumerate(names)) + (_key(-1, "unknown") if (group < 0).any() else "")
    channels = [judged.corpus.spec.ch_names[i] for i in picked]
    step = 132 / len(channels)
    named = "".join(
        f'<path fill="none" stroke="{figures.COLOURS[k] if together else "#1b1f24"}" stroke-width="1.2"{_dash(k) if together else ""}/>'
        f'<text x="4" y="{4 + step * (k + 0.5) + 5:.0f}" fill="{figures.COLOURS[k] if together else "#1b1f24"}">{html.esc(c)}</text>'
        for k, c in enumerate(channels)
    )
    data = {"points": points, "levels": _LEVELS, "width": _WIDTH, "together": together}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    right = len(points) - sum(wrong)
    alt = f"{what} {right} of {len(points)} are not marked wrong."
    window = f"{judged.corpus.spec.window_s:g} s"
    return (
        f'<figure class="map"><ul class="keys">{keys}</ul><div class="stage" tabindex="0" role="application" '
        f'aria-label="Map of judged windows; arrow keys move from point to point">'
        f'<svg role="img" aria-label="{html.esc(alt)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{marks}'
        f'<circle class="ring" r="9" fill="none" stroke="#000" stroke-width="2" display="none"/></svg></div>'
        f'<div class="live" hidden><p class="said" aria-live="polite">Point at a window, touch it, or press an arrow key in the map.</p>'
        f'<svg class="trace" role="img" aria-label="Signal of the chosen window, {window} of {html.esc(", ".join(channels))}" viewBox="0 0 600 140">'
        f'{named}</svg><p class="soft">{window}, <span class="range"></span></p></div>'
        f"<noscript><p>Scripts are off: point at a window for what was said of it; its signal is not shown.</p></noscript>"
        f"<figcaption>{html.esc(what)}</figcaption>"
        f'<script type="application/json" class="map-data">{text}</script></figure>'
    )


def _shape(group: int) -> int:
    return (group + group // 8) % 8 if group >= 0 else 0


def _colour(group: int) -> str:
    return figures.COLOURS[group % 8] if group >= 0 else "#bbbbbb"


def _dash(k: int) -> str:
    return ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')[k]


def _key(group: int, name: str) -> str:
    mark = f'<path d="M7 7{_SHAPES[_shape(group)]}" fill="{_colour(group)}"/>'
    return f'<li><svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{mark}</svg>{html.esc(name)}</li>'
