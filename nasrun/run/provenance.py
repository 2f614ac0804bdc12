"""The content of run.json: the settings, the versions of packages and code, the device."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nasrun import __version__
from nasrun.run.compute import Compute


def record(
    task: str, config: Mapping[str, Any], overrides: list[str], seed: int, compute: Compute
) -> dict[str, Any]:
    """Return the content of run.json at the beginning of a run."""
    return {
        "nasrun": __version__,
        "task": task,
        "overrides": overrides,
        "seed": seed,
        "device": compute.describe(),
        "versions": _versions(),
        "git": _git_state(),
        "started": _now(),
        "config": config,
    }


def resumption(overrides: list[str], seconds: float, compute: Compute) -> dict[str, Any]:
    """Return an entry of ``resumed`` in run.json. seconds: computing time before."""
    return {
        "at": _now(),
        "seconds": round(seconds, 1),
        "overrides": overrides,
        "device": compute.describe(),
        "versions": _versions(),
        "git": _git_state(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "numpy", "hydra-core", "omegaconf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that nasrun runs from, and whether it is clean; None: no checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return None
