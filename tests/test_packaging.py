"""The wheel is what users get: built, installed apart from the checkout, it lists its recipes and cards."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_types_recipes_cards_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "biossl/py.typed" in names
    assert "biossl/_resources/recipes/ecg/jepa_small.yaml" in names and "biossl/_resources/data_cards/ptbxl.yaml" in names
    assert not [n for n in names if n.startswith("tests")]
    assert {n.split("/")[0] for n in names} == {"biossl", next(n for n in names if ".dist-info" in n).split("/")[0]}


def test_the_installed_wheel_lists_recipes(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = (
        "import biossl, sys; print(biossl.__file__); from biossl.cli import main; sys.exit(main(['list', 'recipes', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(site))
    assert "ecg/jepa_small" in done.stdout
