"""The demo: leaves foreign folders alone, begins anew after a stop, runs the main job end to end."""

from __future__ import annotations

import pandas as pd
import pytest

from biossl.demo import demo
from biossl.errors import RequestError


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="exists"):
        demo(tmp_path / "mine")
    with pytest.raises(RequestError, match="no demo"):
        demo(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_refused_and_kept(tmp_path):
    file = tmp_path / "demo"
    file.write_text("a file")
    with pytest.raises(RequestError):
        demo(file)
    with pytest.raises(RequestError):
        demo(file, overwrite=True)
    assert file.read_text() == "a file"


@pytest.mark.slow
def test_the_main_job_runs_end_to_end_and_reports_what_it_computed(tmp_path):
    out = tmp_path / "demo"
    done = demo(out, seed=3, patients=160)
    assert (out / "report.html").stat().st_size > 10_000
    table = pd.read_parquet(out / "embeddings.parquet")
    assert len(table) == 160
    judged = done["probe"]
    models = {m["model"]: m["scores"]["macro_auroc"]["value"] for m in judged["models"] if m["head"] == "linear"}
    assert {"pretrained", "random-initialised", "hand features"} <= set(models)
    assert all(0.4 < value < 1 for value in models.values())
    paired = [d for d in judged["paired"] if d["minus"] == "random-initialised" and d["head"] == "linear"]
    assert paired and all(d["low"] <= d["value"] <= d["high"] for d in paired)
    assert judged["seen"]["subjects"] == 0  # no judged patient was in pretraining
    with pytest.raises(RequestError, match="exists"):
        demo(out, seed=3, patients=160)
