"""Every command in the README and the docs is one the program understands."""

import re
import shlex
from pathlib import Path

import pytest

from biossl import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.S) + re.findall(r"(?m)^((?:    .*\n)+)", text)
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ")
                if line.startswith("biossl "):
                    yield pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")


@pytest.mark.parametrize("line", commands())
def test_a_documented_command_parses(line):
    words = shlex.split(line, comments=True)[1:]
    if words[0] in ("--help", "--version"):
        return
    assert words[0] in cli.VERBS
    if "--help" in words:
        return
    parser, module = cli.make_parser(words[0])
    rest = words[1:]
    if getattr(module, "OVERRIDES", False):
        rest, _ = cli.take_overrides(rest)
    parser.parse_args(rest)  # SystemExit(2) when the program would refuse it


def test_pages_link_to_files_that_exist():
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_nothing_tracked_names_a_machine_path():
    offenders = [
        f"{path.relative_to(ROOT)}"
        for folder in ("biossl", "tests", "recipes", "data_cards", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".md", ".csv"}
        and re.search(r"(?:^|[^A-Za-z0-9._-])/(?:home|root|tmp|work)/\w", path.read_text(encoding="utf-8"))
    ]
    assert offenders == []
