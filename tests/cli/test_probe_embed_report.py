"""probe, embed and report from the command line: printed table, strict JSON, exit codes, one-line errors."""

import json

import numpy as np
import pandas as pd
import pytest
from probe_factory import make_run, small_encoder

from biossl import cli
from biossl.checkpoint import save_encoder
from biossl.corpus import subject_keys


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("verbs"))


def call(capsys, *argv):
    code = cli.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def last(err):
    return err.strip().splitlines()[-1]


def test_probe_embed_report_one_after_the_other(run, tmp_path, capsys):
    folder, corpus = run
    code, out, _ = call(capsys, "probe", folder, corpus.path, "--label", "group", "--splits", "thirds", "--no-baselines")
    assert code == 0 and "macro F1" in out and "seen in pretraining: 0 of the 6 judged subjects" in out
    table = tmp_path / "e.parquet"
    code, out, _ = call(capsys, "embed", folder, corpus.path, table, "--per", "subject", "--json")
    assert code == 0 and json.loads(out)["rows"] == 18
    assert len(pd.read_parquet(table)) == 18
    code, out, _ = call(capsys, "report", folder, "--json")
    assert code == 0 and json.loads(out)["out"].endswith("report.html") and (folder / "report.html").exists()


def test_probe_prints_exactly_one_json_object(run, tmp_path, capsys):
    folder, corpus = run
    argv = (
        "probe",
        folder,
        corpus.path,
        "--label",
        "age",
        "--no-baselines",
        "--layers",
        "0,1",
        "--json",
        "--out",
        tmp_path / "o.json",
    )
    code, out, err = call(capsys, *argv)
    assert code == 0
    assert json.loads(out)["layers"][1]["layer"] == 1 and "linear probe of each block" in err
    assert json.loads(out) == json.loads((tmp_path / "o.json").read_text())


def test_seen_subjects_end_with_exit_4_and_the_option_that_allows_them(run, tmp_path, capsys):
    _, corpus = run
    saw = save_encoder(small_encoder(corpus), tmp_path / "saw", seen={"subjects": subject_keys(corpus, np.arange(len(corpus)))})
    code, out, err = call(capsys, "probe", saw, corpus.path, "--label", "group")
    assert code == 4 and out == "" and "--allow-seen" in last(err) and last(err).startswith("biossl probe: ")
    code, out, _ = call(capsys, "probe", saw, corpus.path, "--label", "group", "--allow-seen", "--no-baselines")
    assert code == 0 and "note: the encoder has seen 6 of the 6 judged subjects" in out


@pytest.mark.parametrize(
    "argv, code, words",
    [
        (("probe", "{run}", "{corpus}", "--label", "gruop"), 4, "did you mean 'group'"),
        (("probe", "{run}", "nowhere", "--label", "group"), 2, "nowhere"),
        (("probe", "nowhere", "{corpus}", "--label", "group"), 2, "no such encoder folder"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--layers", "x"), 2, "--layers x"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--labels-fraction", "2"), 2, "--labels-fraction 2"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--layers", "99"), 2, "--layers 99: the encoder has blocks 0 to"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--layers=-1"), 2, "--layers -1"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--seed", "-1"), 2, "--seed -1"),
        (("probe", "{run}", "{corpus}", "--label", "group", "--n-subjects", "99"), 2, "has 12 labelled subjects"),
        (("embed", "{run}", "{corpus}"), 2, "one path given"),
        (("embed", "{run}", "{corpus}", "x.csv"), 2, "ends in .parquet"),
        (("embed", "{run}", "{corpus}", "x.parquet", "--per", "day"), 2, "--per day"),
        (("embed", "{run}", "none.edf", "x.parquet"), 4, "none.edf"),
        (("report", "nowhere"), 2, "no such folder"),
    ],
)
def test_faults_are_one_line_with_the_right_exit_code(run, tmp_path, monkeypatch, capsys, argv, code, words):
    folder, corpus = run
    monkeypatch.chdir(tmp_path)
    found, out, err = call(capsys, *(a.format(run=folder, corpus=corpus.path) for a in argv))
    lines = [line for line in err.strip().splitlines() if line.startswith("biossl ")]
    assert found == code and out == "" and len(lines) == 1 and words in lines[0] and "Traceback" not in err
    assert list(tmp_path.glob("*.parquet")) == []
