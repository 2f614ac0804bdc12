"""The state of a checkout: right, and read without running what the checkout names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nasrun.run.git import git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(place: Path, *words: str) -> str:
    line = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(place), *words]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    place = tmp_path / "checkout"
    place.mkdir()
    git(place, "init", "-q")
    (place / "file.txt").write_text("one\n")
    (place / ".gitattributes").write_text("*.txt filter=theirs\n")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    return place


def test_commit_and_cleanness(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "clean": True}
    (checkout / "file.txt").write_text("two\n")
    assert git_state(checkout) == {"commit": commit, "clean": False}
    (tmp_path / "none").mkdir()
    assert git_state(tmp_path / "none") is None


PROGRAMS = ["core.fsmonitor", "filter.theirs.clean", "filter.theirs.process", "hook"]


@pytest.mark.parametrize("where", ["checkout", "environment", "global"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_runs(
    program: str, where: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, script = tmp_path / "canary", tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    script.chmod(0o755)
    name, value = program, str(script)
    if program == "hook":
        name, value = "core.hooksPath", str(tmp_path / "hooks")
        Path(value).mkdir()
        shutil.copy(script, Path(value) / "post-index-change")
    if where == "checkout":
        git(checkout, "config", name, value)
        if program.startswith("filter"):
            git(checkout, "config", "filter.theirs.required", "true")
    elif where == "environment":
        for key, content in {"COUNT": "1", "KEY_0": name, "VALUE_0": value}.items():
            monkeypatch.setenv(f"GIT_CONFIG_{key}", content)
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        git(tmp_path, "config", "--global", name, value)
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "file.txt").write_text("two\n")
    canary.unlink(missing_ok=True)
    assert git_state(checkout) == {"commit": commit, "clean": False}
    assert not canary.exists()
    os.utime(checkout / ".gitattributes", (1, 1))  # so that the index is refreshed
    line = ["git", "-C", str(checkout), "status"]  # fails where a filter is no real one
    subprocess.run(line, capture_output=True, check=False)
    assert canary.exists()  # plain git runs it


def test_no_other_repository_is_meant(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_WORK_TREE", "/")
    assert git_state(checkout) == {"commit": commit, "clean": True}
