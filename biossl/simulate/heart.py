"""A heart of a few segments in a torso of nine electrodes: anatomy, disease and body-surface potentials.

What lives here: the source model of simulated ECG and the forward model. Every wall segment is a current dipole that
fires once at depolarisation and once at repolarisation; an electrode sees ``strength * (d . r) / (|r|^3 + c)`` of it (an
infinite medium, softened because a wall is no point). Leads are differences of electrodes, so Einthoven's law holds by
construction and a change in one territory shows in the leads that face it. No rhythm, no noise, no files.

Frame (Frank): x to the patient's left, y to the feet, z to the back; centimetres, origin at the heart's centre. Times in
milliseconds from the onset of QRS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
# limb electrodes sit where the trunk ends electrically, not at the wrists: an arm is a wire
ELECTRODE_CM = np.array([
    (-11, -12, 1), (12, -11, 1), (3, 19, 1),
    (-4.5, -1.5, -8.5), (1.5, -1.5, -9), (4.5, 0.5, -9), (7.5, 2.5, -8.5), (11, 2.5, -5), (12.5, 2.5, 0.5),
])  # fmt: skip

SEGMENTS = ("septum", "rv", "apex", "anterior", "lateral", "inferior", "posterior", "basal", "outflow")
# position, direction endocardium to epicardium, onset ms, width ms (sd), strength of QRS, strength of T
_ANATOMY = {
    "septum": ((-0.5, 0.5, -1.0), (-0.60, -0.10, -0.80), 12, 6, 0.35, 0.25),
    "rv": ((-3.0, 0.5, -3.0), (-0.75, 0.10, -0.65), 36, 9, 0.55, 0.15),
    "apex": ((3.0, 3.5, -2.0), (0.55, 0.75, -0.35), 28, 8, 0.75, 0.95),
    "anterior": ((1.5, 0.0, -3.0), (0.35, -0.10, -0.93), 32, 8, 0.75, 1.00),
    "lateral": ((4.0, 0.0, 1.0), (0.93, 0.00, 0.37), 42, 10, 1.30, 0.95),
    "inferior": ((0.5, 3.0, 1.5), (0.15, 0.90, 0.40), 40, 9, 0.95, 0.80),
    "posterior": ((2.0, 0.0, 3.5), (0.45, 0.10, 0.90), 48, 10, 1.00, 0.30),
    "basal": ((1.0, -3.0, 2.0), (0.10, -0.60, 0.80), 60, 9, 0.60, -0.10),
    "outflow": ((-2.0, -3.0, -1.0), (-0.60, -0.75, 0.20), 66, 8, 0.30, 0.05),
}
TERRITORIES = {
    "anterior": ("septum", "anterior", "apex"),
    "lateral": ("lateral", "apex"),
    "inferior": ("inferior", "posterior"),
}
_ATRIA = (((-3.5, -4.0, -1.0), (0.35, 0.80, -0.50)), ((1.0, -4.0, 3.0), (0.85, 0.35, 0.40)))  # right, left
SOFTENING_CM3 = 60.0
MILLIVOLT = 100.0  # puts a mean adult at R = 1.0 mV in lead II
T_SHARE = 0.36  # T dipoles relative to QRS dipoles of strength 1

DIAGNOSES = ("NORM", "MI", "STTC", "CD", "HYP")


def segment(*names: str) -> list[int]:
    """Indices of segments by name."""
    return [SEGMENTS.index(n) for n in names]


@dataclass
class Hearts:
    """Hearts of n patients; S segments. Positions cm, times ms, strengths relative to a mean adult.

    ``position`` and ``direction`` (n, S, 3) are already turned to the patient's axis; ``onset``, ``width``, ``strength``,
    ``t_strength``, ``injury`` (n, S); ``t_shift`` (n, S) delays of local repolarisation; ``pr_ms``, ``qtc_ms``,
    ``p_strength``, ``p_gap_ms`` (between the atria) (n,); ``atria`` (n, 2, 2, 3) position and direction.
    """

    position: Array
    direction: Array
    onset: Array
    width: Array
    strength: Array
    t_strength: Array
    t_shift: Array
    injury: Array
    pr_ms: Array
    qtc_ms: Array
    p_strength: Array
    p_gap_ms: Array
    atria: Array

    def take(self, rows: Array) -> Hearts:
        """The hearts of some patients."""
        return Hearts(**{name: value[rows] for name, value in vars(self).items()})


def rotations(angles_deg: Array) -> Array:
    """Rotation matrices (n, 3, 3) from angles (n, 3) about z (frontal axis), y (horizontal) and x (tilt), degrees."""
    c, s = np.cos(np.radians(angles_deg)), np.sin(np.radians(angles_deg))
    zero, one = np.zeros(len(c)), np.ones(len(c))
    rz = np.stack([c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0], zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
    ry = np.stack([c[:, 1], zero, s[:, 1], zero, one, zero, -s[:, 1], zero, c[:, 1]], axis=1).reshape(-1, 3, 3)
    rx = np.stack([one, zero, zero, zero, c[:, 2], -s[:, 2], zero, s[:, 2], c[:, 2]], axis=1).reshape(-1, 3, 3)
    return rz @ ry @ rx


def draw_hearts(rng: np.random.Generator, age: Array, female: Array) -> Hearts:
    """Healthy hearts of people of given age (years) and sex, with the spread of a clinic's population."""
    n, table = len(age), list(_ANATOMY.values())
    size = len(SEGMENTS)
    # the axis turns left with age; men and women differ little
    turn = rng.normal(0, (17, 12, 9), (n, 3)) + np.stack([-0.25 * (age - 50), np.zeros(n), np.zeros(n)], axis=1)
    rotation = rotations(turn)
    shift = rng.normal(0, (0.7, 0.8, 0.5), (n, 3))[:, None]
    position = np.einsum("nij,sj->nsi", rotation, [v[0] for v in table]) + shift
    direction = np.array([v[1] for v in table]) + rng.normal(0, 0.12, (n, size, 3))
    direction = np.einsum("nij,nsj->nsi", rotation, direction / np.linalg.norm(direction, axis=2, keepdims=True))
    atria = np.einsum("nij,abj->nabi", rotation, np.array(_ATRIA)) + rng.normal(0, 0.1, (n, 2, 2, 3))
    tempo = np.exp(rng.normal(0, 0.07, n))[:, None] * np.where(female, 0.95, 1.0)[:, None]
    onset = np.array([v[2] for v in table]) * tempo + rng.normal(0, 2.0, (n, size))
    width = np.array([v[3] for v in table]) * tempo * np.exp(rng.normal(0, 0.08, (n, size)))
    # women have lower voltages, the young higher ones
    whole = np.exp(rng.normal(0, 0.18, n) - 0.004 * (age - 50) - 0.10 * female)[:, None]
    strength = np.array([v[4] for v in table]) * whole * np.exp(rng.normal(0, 0.20, (n, size)))
    t_whole = np.exp(rng.normal(0, 0.30, n) - 0.004 * (age - 50) - 0.10 * female)[:, None]
    t_strength = np.array([v[5] for v in table]) * t_whole * np.exp(rng.normal(0, 0.18, (n, size)))
    t_strength += rng.normal(0, 0.07, (n, size))
    # early repolarisation: harmless ST elevation of young men
    early = np.maximum(0.0, rng.normal(0, 0.030, n) + 0.03 * (~female) * (age < 45))
    injury = np.zeros((n, size))
    injury[:, segment("anterior", "apex")] = early[:, None]
    injury += rng.normal(0, 0.012, (n, size))
    return Hearts(
        position=position, direction=direction, onset=np.maximum(onset, 4.0), width=width, strength=strength,
        t_strength=t_strength, t_shift=rng.normal(0, 8.0, (n, size)), injury=injury,
        pr_ms=np.clip(rng.normal(152 + 0.25 * (age - 50), 17, n), 115, 199),
        qtc_ms=np.clip(rng.normal(408 + 8 * female, 17, n), 360, 465),
        p_strength=0.16 * np.exp(rng.normal(0, 0.25, n)), p_gap_ms=np.clip(rng.normal(32, 7, n), 12, 55), atria=atria,
    )  # fmt: skip


def draw_disease(rng: np.random.Generator, age: Array) -> dict[str, Array]:
    """Who has what, how badly: severities in (0, 1] per diagnosis (0 = absent), territories, forms.

    Conditions become commoner with age and may come together; most cases are mild, as in a clinic's archive.
    """
    n = len(age)
    out: dict[str, Array] = {}
    for name, base in {"MI": 0.20, "STTC": 0.17, "CD": 0.20, "HYP": 0.17}.items():
        logit = np.log(base / (1 - base)) + 0.025 * (age - 58)
        present = rng.random(n) < 1 / (1 + np.exp(-logit))
        out[name] = np.where(present, 0.20 + 0.80 * rng.beta(1.6, 1.6, n), 0.0)
    areas = np.array(list(TERRITORIES))
    out["MI_territory"] = rng.choice(areas, n, p=[0.42, 0.18, 0.40])
    out["STTC_territory"] = rng.choice(areas, n, p=[0.35, 0.40, 0.25])
    out["MI_acute"] = rng.random(n) < 0.2
    out["STTC_form"] = rng.choice(["ischaemia", "inversion", "flat"], n, p=[0.40, 0.35, 0.25])
    out["CD_form"] = rng.choice(["LBBB", "RBBB", "LAFB", "AVB1"], n, p=[0.27, 0.33, 0.22, 0.18])
    out["HYP_form"] = rng.choice(["LVH", "RVH"], n, p=[0.82, 0.18])
    out["strain"] = np.where((out["HYP"] > 0) & (rng.random(n) < 0.45), rng.uniform(0.2, 1.0, n), 0.0)
    for name in ("MI", "STTC", "CD", "HYP"):
        for key in [k for k in out if k.startswith(f"{name}_") and out[k].dtype.kind == "U"]:
            out[key] = np.where(out[name] > 0, out[key], "")
    return out


def diagnose(disease: dict[str, Array]) -> Array:
    """Labels (n, 5) bool in the order of :data:`DIAGNOSES`; strain of a hypertrophied heart counts as STTC."""
    found = np.stack(
        [disease["MI"] > 0, (disease["STTC"] > 0) | (disease["strain"] > 0), disease["CD"] > 0, disease["HYP"] > 0], axis=1
    )
    return np.concatenate([~found.any(axis=1, keepdims=True), found], axis=1)


def afflict(hearts: Hearts, disease: dict[str, Array]) -> None:
    """Change healthy hearts in place by what ails them: delays, scars, injury currents, thick walls."""
    h = hearts
    u = {k: disease[k] for k in ("MI", "STTC", "CD", "HYP", "strain")}
    left = segment("septum", "apex", "anterior", "lateral", "inferior", "posterior", "basal")
    wall = segment("apex", "anterior", "lateral", "inferior", "posterior", "basal")

    thick = np.where(disease["HYP_form"] == "LVH", u["HYP"], 0.0)[:, None]
    h.strength[:, wall] *= 1 + 0.95 * thick
    h.onset[:, wall] += 7 * thick
    lateral = segment("lateral", "apex")
    h.t_strength[:, lateral] *= 1 - 1.5 * u["strain"][:, None]
    h.injury[:, lateral] -= 0.09 * u["strain"][:, None]
    right = np.where(disease["HYP_form"] == "RVH", u["HYP"], 0.0)[:, None]
    h.strength[:, segment("rv", "outflow")] *= 1 + 2.6 * right
    h.strength[:, wall] *= 1 - 0.15 * right
    h.p_strength *= 1 + 0.35 * u["HYP"]
    h.p_gap_ms += 14 * thick[:, 0]

    form = disease["CD_form"]
    lbbb = np.where(form == "LBBB", u["CD"], 0.0)[:, None]
    delay = np.array([10, 30, 35, 55, 40, 60, 50])
    h.onset[:, left] += delay * lbbb
    h.width[:, left] *= 1 + 0.9 * lbbb
    h.direction[:, segment("septum")[0], 0] *= (1 - 2 * lbbb)[:, 0]  # the septum is crossed from right to left
    h.strength[:, left] *= 1 - 0.20 * lbbb
    h.t_strength[:, left] *= 1 - 1.8 * lbbb
    h.t_shift[:, left] += 25 * lbbb
    h.injury[:, wall] -= 0.07 * lbbb
    rbbb = np.where(form == "RBBB", u["CD"], 0.0)[:, None]
    late = segment("rv", "outflow")
    h.onset[:, late] += np.array([55, 38]) * rbbb
    h.width[:, late] *= 1 + 0.8 * rbbb
    h.strength[:, late] *= 1 + 0.8 * rbbb
    h.t_strength[:, segment("rv")] -= 0.5 * rbbb
    lafb = np.where(form == "LAFB", u["CD"], 0.0)
    h.onset[:, segment("anterior", "lateral", "basal")] += np.array([8, 12, 12]) * lafb[:, None]
    h.onset[:, segment("inferior")] -= 10 * lafb[:, None]
    h.strength[:, segment("basal")] *= 1 + 1.2 * lafb[:, None]
    h.direction[:, segment("basal")[0]] += np.array([0.9, -0.3, -0.4]) * lafb[:, None]
    h.pr_ms += np.where(form == "AVB1", 30 + 110 * u["CD"], 0.0)

    for name, members in TERRITORIES.items():
        here = segment(*members)
        scar = np.where(disease["MI_territory"] == name, u["MI"], 0.0)[:, None]
        acute = disease["MI_acute"][:, None]
        h.strength[:, here] *= 1 - 1.10 * scar
        h.t_strength[:, here] *= 1 - np.where(acute, 0.3, 1.5) * scar
        h.injury[:, here] += np.where(acute, 0.20, 0.02) * scar
        sick = np.where(disease["STTC_territory"] == name, u["STTC"], 0.0)[:, None]
        kind = disease["STTC_form"][:, None]
        h.t_strength[:, here] *= 1 - np.select([kind == "ischaemia", kind == "inversion"], [0.6, 1.7], 0.0) * sick
        h.injury[:, here] -= np.where(kind == "ischaemia", 0.16, 0.0) * sick
    flat = np.where(disease["STTC_form"] == "flat", u["STTC"], 0.0)
    h.t_strength *= 1 - 0.8 * flat[:, None]
    h.qtc_ms += 35 * flat


def place_electrodes(rng: np.random.Generator, torso: Array) -> Array:
    """Electrode positions (n, 9, 3): a mean torso scaled by habitus, with the scatter of ordinary placement."""
    scatter = np.where(np.arange(9)[:, None] < 3, 1.5, 0.8)
    return (ELECTRODE_CM + rng.normal(0, 1, (len(torso), 9, 3)) * scatter) * torso[:, None, None]


def potentials(electrodes: Array, position: Array, moment: Array) -> Array:
    """Potentials in mV (n, E, S) of dipole moments (n, S, 3) at positions (n, S, 3) on electrodes (n, E, 3)."""
    r = electrodes[:, :, None] - position[:, None]
    distance = np.linalg.norm(r, axis=-1)
    return MILLIVOLT * np.einsum("nesi,nsi->nes", r, moment) / (distance**3 + SOFTENING_CM3)


@dataclass
class Waves:
    """Waves of one beat as seen by electrodes; W waves, centre and widths in ms from QRS onset.

    ``pattern`` (n, E, W) mV; Gaussian with ``left`` and ``right`` sd (n, W) about ``centre + share * QT`` (n, W);
    the widths of repolarisation are shares of QT as well (``left_share``, ``right_share``). ``st`` (n, E) is the ST
    level, ``j_ms`` (n,) where it begins.
    """

    pattern: Array
    centre: Array
    share: Array
    left: Array
    right: Array
    left_share: Array
    right_share: Array
    st: Array
    j_ms: Array

    def take(self, rows: Array) -> Waves:
        """The waves of some recordings."""
        return Waves(**{name: value[rows] for name, value in vars(self).items()})


def sinus_waves(h: Hearts, electrodes: Array) -> Waves:
    """Waves of a conducted beat: two of P, then QRS and T of each segment."""
    n, size = h.onset.shape
    p = potentials(electrodes, h.atria[:, :, 0], h.atria[:, :, 1] * h.p_strength[:, None, None])
    qrs = potentials(electrodes, h.position, h.direction * h.strength[..., None])
    t = T_SHARE * potentials(electrodes, h.position, h.direction * h.t_strength[..., None])
    p_centre = np.stack([38 - h.pr_ms, 38 - h.pr_ms + h.p_gap_ms], axis=1)
    zeros, still = np.zeros((n, size)), np.zeros((n, 2))
    return Waves(
        pattern=np.concatenate([p, qrs, t], axis=2),
        centre=np.concatenate([p_centre, h.onset, h.t_shift], axis=1),
        share=np.concatenate([still, zeros, zeros + 0.74], axis=1),
        left=np.concatenate([still + 17, h.width, zeros], axis=1),
        right=np.concatenate([still + 17, h.width, zeros], axis=1),
        left_share=np.concatenate([still, zeros, zeros + 0.125], axis=1),
        right_share=np.concatenate([still, zeros, zeros + 0.080], axis=1),
        st=potentials(electrodes, h.position, h.direction * h.injury[..., None]).sum(axis=2),
        j_ms=(h.onset + 2 * h.width).max(axis=1),
    )


def ectopic_waves(rng: np.random.Generator, h: Hearts, electrodes: Array) -> Waves:
    """Waves of a ventricular ectopic beat: the wall fires away from a focus, slowly, with a discordant T and no P."""
    n, size = h.onset.shape
    focus = h.position[np.arange(n), rng.integers(1, size, n)] * 1.1
    away = h.position - focus[:, None]
    distance = np.linalg.norm(away, axis=2)
    direction = 0.7 * away / (distance[..., None] + 0.5) + 0.3 * h.direction
    qrs = potentials(electrodes, h.position, direction * h.strength[..., None] * 1.2)
    t = -0.35 * T_SHARE * potentials(electrodes, h.position, direction * h.strength[..., None] * 1.2)
    zeros = np.zeros((n, size))
    onset = 15 + 95 * distance / distance.max(axis=1, keepdims=True)
    return Waves(
        pattern=np.concatenate([qrs, t], axis=2),
        centre=np.concatenate([onset, zeros + 20], axis=1),
        share=np.concatenate([zeros, zeros + 0.76], axis=1),
        left=np.concatenate([h.width * 1.7, zeros], axis=1),
        right=np.concatenate([h.width * 1.7, zeros], axis=1),
        left_share=np.concatenate([zeros, zeros + 0.14], axis=1),
        right_share=np.concatenate([zeros, zeros + 0.09], axis=1),
        st=t.sum(axis=2) * 0.3,
        j_ms=onset.max(axis=1) + 20,
    )
