"""The import surface: lazy public names, light imports, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import biossl

ROOT = Path(biossl.__file__).resolve().parent
HEAVY = ("torch", "lightning", "mne", "wfdb", "neurokit2", "pandas", "sklearn", "matplotlib", "scipy", "h5py")

# Left to right, never back; rooms of one rank may use each other.
RANKS = [
    ("errors", "signal", "channels", "config", "keys", "batch", "progress", "atomic", "resources", "schedules", "distributed"),
    ("preprocess", "quality"),
    ("masks", "augment", "kernels"),
    ("io", "simulate"),
    ("corpus",),
    ("models",),
    ("objectives",),
    ("recipe",),
    ("checkpoint",),
    ("importers",),
    (
        "inference",
        "metrics",
        "baselines",
        "minirocket",
        "csp",
        "riemann",
        "probe",
        "forgetting",
        "probe_text",
        "protocol",
        "judging",
        "ledger",
        "embeddings",
    ),
    ("training",),
    ("compare",),
    ("downstream", "audit", "export", "bench"),
    ("report",),
    ("demo",),
    ("cli",),
]
RANK = {room: i for i, rooms in enumerate(RANKS) for room in rooms}

# package -> the only rooms that may import it
ONLY_IN = {
    "lightning": {"training"},
    "wfdb": {"io", "corpus", "simulate", "preprocess", "baselines"},
    "mne": {"io", "corpus", "simulate", "preprocess", "baselines", "csp"},
    "pyriemann": {"riemann"},
    "neurokit2": {"io", "corpus", "simulate", "preprocess", "baselines"},
    "h5py": {"io", "corpus", "simulate", "preprocess", "baselines"},
}
# rooms that run with torch alone
TORCH_ALONE = {"masks", "augment", "kernels", "models", "objectives", "batch", "keys"}
NOT_BESIDE_TORCH = {"lightning", "mne", "wfdb", "neurokit2", "pandas", "sklearn", "matplotlib", "scipy", "h5py", "pyarrow"}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import in a file, those inside functions too, those for type checkers not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    out = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            out += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            out += [(node.lineno, node.module)]
            if node.module == "biossl":
                out += [(node.lineno, f"biossl.{alias.name}") for alias in node.names]
    return out


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


SOURCES = sorted(p for p in ROOT.rglob("*.py") if "_resources" not in p.parts)


def faults(path: Path, here: str) -> list[str]:
    """What a file imports against the rules."""
    out = []
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] == "biossl" and len(parts) > 1 and parts[1] in RANK and RANK[parts[1]] > RANK[here]:
            out.append(f"{path.name}:{line}: {here} imports {parts[1]}")
        if here == "objectives" and parts[:2] == ["biossl", "corpus"]:
            out.append(f"{path.name}:{line}: objectives imports corpus")
        if parts[0] in ONLY_IN and here not in ONLY_IN[parts[0]]:
            out.append(f"{path.name}:{line}: {here} imports {parts[0]}")
        if here in TORCH_ALONE and parts[0] in NOT_BESIDE_TORCH:
            out.append(f"{path.name}:{line}: {here} imports {parts[0]}")
    return out


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    if path.parent == ROOT and path.name in ("__init__.py", "__main__.py"):
        return
    assert room(path) in RANK, f"{room(path)} has no place in the order of rooms"
    assert faults(path, room(path)) == []


def test_a_wrong_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from biossl import corpus\n    import lightning as L\n    import biossl.cli.list\n")
    assert len(faults(file, "objectives")) == 4  # corpus, lightning twice over, cli


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('loaded', *sorted(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    word, *modules = done.stdout.splitlines()[-1].split()
    assert word == "loaded"
    return set(modules)


def test_import_biossl_pulls_in_nothing_heavy() -> None:
    assert loaded_after("import biossl") == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert loaded_after("import biossl\nbiossl.EncoderConfig") >= {"torch"}


def test_help_pulls_in_nothing_heavy() -> None:
    assert loaded_after("from biossl.cli import main\nassert main(['--help']) == 0") == set()


def test_every_public_name_is_there() -> None:
    assert 20 <= len(biossl.__all__) <= 30
    for name in biossl.__all__:
        assert getattr(biossl, name) is not None
        assert name in dir(biossl)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_encodr'"):
        _ = biossl.load_encodr  # type: ignore[attr-defined]


def test_one_version() -> None:
    project = ROOT.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("not a checkout")
    assert tomllib.loads(project.read_text())["project"]["version"] == biossl.__version__
    assert (ROOT / "py.typed").is_file()
