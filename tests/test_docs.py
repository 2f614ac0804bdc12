"""Commands in README and docs: all of them compose, and those marked ``test`` run.

A fenced block whose first line is ```` ```bash test ```` is run as it stands; the blocks of a file
run in one folder, one after the other. ``needs=MODULE`` leaves it out where that is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nasrun.architectures.published import find_published
from nasrun.cli import arguments, commands
from nasrun.cli.main import main, ready_overrides
from nasrun.config.compose import compose
from nasrun.config.groups import tasks
from nasrun.search_space.library_models.libraries import Torchvision

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]{2,}\b|\.\.\.")
INLINE = re.compile(r"`(nasrun [^`]+)`")
CONTESTANTS = "### Networks that papers compare with"
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[list[str], str]]:
    """The fenced blocks of a page: the words behind the fence, and the content."""
    return [(info.split(), text) for info, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def prose_of(page: Path) -> str:
    """The text of a page outside of its fenced blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def lines() -> list[str]:
    """The commands of all pages that name a task, and neither a placeholder nor a run."""
    found: dict[str, None] = {}
    for page in PAGES:
        commands = [
            line for _, text in blocks(page) for line in text.replace("\\\n", " ").splitlines()
        ]
        commands += [" ".join(code.split()) for code in INLINE.findall(prose_of(page))]
        for line in commands:
            if re.match(rf"nasrun ({'|'.join(tasks())}) ", line):
                found[shlex.join(shlex.split(line, comments=True))] = None
    return [line for line in found if not PLACEHOLDER.search(line) and " from=" not in line]


def first_value(override: str) -> str:
    """An override with the first of its values, where a sweep has several."""
    key, equals, value = override.partition("=")
    first = re.split(r",(?! |[^(]*[)])", value)[0]
    return override if "[" in value else f"{key}{equals}{first}"


@pytest.mark.few(1)
@pytest.mark.parametrize("line", lines())
def test_every_command_composes(line: str) -> None:
    typed = arguments.split(shlex.split(line)[1:], commands.switches)
    words = [first_value(word) for word in ready_overrides(typed) if not word.startswith("hydra")]
    words = [word for word in words if "interval(" not in word and word != "resume=auto"]
    assert compose([f"task={typed.task}", *words])["task"] == typed.task


def contestants() -> list[list[str]]:
    """The words of each command in the table of networks that papers compare with."""
    page = prose_of(ROOT / "docs" / "methods.md").partition(CONTESTANTS)[2].partition("\n## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    found = [code.split()[1:] for row in rows for code in INLINE.findall(row)]
    return [words for words in found if words[0] == "retrain"]


def test_networks_that_papers_compare_with_are_there() -> None:
    models: list[str] = []
    for words in contestants():
        settings = dict(word.split("=") for word in words if "=" in word)
        assert ("architecture" in settings) != ("search_space" in settings)
        assert all(map(find_published, settings.get("architecture", "snas").split(",")))
        if settings.get("search_space") == "torchvision":
            models += settings["search_space.model"].split(",")
    for model in models:
        Torchvision().check(model)
    assert len(models) == 8


@pytest.mark.soak
@pytest.mark.parametrize("words", contestants(), ids=" ".join)
def test_networks_that_papers_compare_with_are_trained(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "search_space=timm" in words:
        pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    assert main([*words, "effort=smoke", "threads=1"]) == 0


@pytest.mark.soak
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_commands_run(page: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nasrun", "pytest"):
        run = f"exec {shlex.quote(sys.executable)} -m {name}"
        (programs / name).write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{ROOT}" {run} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    place = tmp_path / "work"
    place.mkdir()
    for info, text in blocks(page):
        needs = [word.removeprefix("needs=") for word in info if word.startswith("needs=")]
        if "test" not in info or not all(map(_installed, needs)):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607
            cwd=place,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_links_of_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose_of(page)):
            if not re.match(r"\w+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
