"""The state of the checkout that nasrun runs from, read without running anything of its own.

A repository, and the environment, can name programs that git starts: hooks, monitors of the file
system, filters of contents, pagers. None of them may run because a run records its state.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 20
"""After which git is given up; the state then counts as unknown."""

HARMLESS = {
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.pager": "cat",
    "core.editor": "true",
    "core.askPass": "",
    "core.sshCommand": "false",
    "credential.helper": "",
    "submodule.recurse": "false",
}
"""Settings of git, on top of those of the repository."""


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return the commit of a checkout and whether it is clean; None: there is no checkout.

    folder: within the checkout; None: that of nasrun.
    """
    place = folder or Path(__file__).parent
    try:
        commit = _git(place, HARMLESS, "rev-parse", "--verify", "HEAD").strip()
        named = _git(place, HARMLESS, "config", "--null", "--name-only", "--list").split("\0")
        # To compare contents, git runs the filters that the repository names, whatever they are.
        filters = {name: "" for name in named if name.startswith("filter.")}
        filters |= {name: "false" for name in filters if name.endswith(".required")}
        settings = HARMLESS | filters
        changed = _git(place, settings, "status", "--porcelain", "--ignore-submodules=all")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "clean": not changed}


def _git(folder: Path, settings: dict[str, str], *words: str) -> str:
    """Run git in an environment of its own; raises SubprocessError where it fails."""
    kept = ("PATH", "HOME", "SYSTEMROOT", "TMPDIR")  # HOME: for the user's list of ignored files
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_PAGER": "cat",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (name, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return subprocess.run(
        ["git", "-C", str(folder), "--no-pager", *words],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
    ).stdout
