"""The content of run.json: the settings, the versions of packages and code, the device."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from nasrun import __version__
from nasrun.run.compute import Compute
from nasrun.run.git import git_state


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
        "git": git_state(),
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
        "git": git_state(),
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
