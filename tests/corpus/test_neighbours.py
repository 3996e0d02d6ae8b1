"""A neighbour is the next window of the same recording without a gap, and never anything else."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from biossl.corpus.neighbours import neighbours

SFREQ, LENGTH = 50.0, 100  # 2 s windows


def table(draw: np.random.Generator, n: int) -> pd.DataFrame:
    starts = np.cumsum(draw.choice([1.0, 2.0, 2.5], n))  # overlapping, touching, with a gap
    return pd.DataFrame(
        {
            "subject": draw.choice(["a", "b"], n),
            "record": draw.choice(["r1", "r2"], n),  # the same name at two people is two recordings
            "segment": draw.integers(0, 2, n),
            "start_s": starts,
            "n_samples": LENGTH,
        }
    ).iloc[draw.permutation(n)]


@given(seed=st.integers(0, 10_000), n=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_neighbours_equal_a_plain_search(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    index = table(draw, n)
    rows = np.sort(draw.permutation(n)[: draw.integers(1, n + 1)])
    out = neighbours(index, rows, sfreq=SFREQ)
    for i, row in enumerate(rows):
        here = index.iloc[row]
        same = [
            (float(index.iloc[other]["start_s"]), j)
            for j, other in enumerate(rows)
            if all(index.iloc[other][k] == here[k] for k in ("subject", "record", "segment"))
        ]
        later = [s for s in sorted(same) if s[0] > here["start_s"]]
        before = [s for s in sorted(same) if s[0] < here["start_s"]]
        if later and later[0][0] <= here["start_s"] + 2.0 + 0.5 / SFREQ:
            assert out[i] == later[0][1]
        elif before and here["start_s"] <= before[-1][0] + 2.0 + 0.5 / SFREQ:
            assert out[i] == before[-1][1]
        else:
            assert out[i] == i


def test_windows_outside_the_rows_are_no_neighbours() -> None:
    index = pd.DataFrame({"subject": "s", "record": "r", "segment": 0, "start_s": [0.0, 2.0, 4.0], "n_samples": LENGTH})
    assert neighbours(index, np.array([0, 1, 2]), sfreq=SFREQ).tolist() == [1, 2, 1]
    assert neighbours(index, np.array([0, 2]), sfreq=SFREQ).tolist() == [0, 1]  # the one between is of another part
