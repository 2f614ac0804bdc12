"""The content of run.json: the settings, the versions of packages and code, the device."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from fnmatch import translate
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun import __version__
from nasrun.errors import shortened
from nasrun.run.files import printable
from nasrun.run.git import git_state
from nasrun.run.layout import RECORD

if TYPE_CHECKING:
    from nasrun.run.compute import Compute

MACHINE_SETTINGS = (
    *("device", "threads", "checkpoint.*", "dataset.workers", "report"),
    *("*.log_every", "*.report_every"),
)
"""Patterns of the settings of the machine, which say nothing of what a run is."""


def of_machine(override: str) -> bool:
    """Tell whether an override sets how a machine computes."""
    return bool(_OF_MACHINE(override.partition("=")[0]))


_OF_MACHINE = re.compile("|".join(map(translate, MACHINE_SETTINGS))).match
"""All patterns as one: a list of runs asks for each override of thousands."""


def record(
    task: str,
    config: Mapping[str, Any],
    overrides: list[str],
    seed: int,
    compute: Compute,
    directory: Path,
) -> dict[str, Any]:
    """Return the content of run.json at the beginning of a run in ``directory``."""
    return {
        "nasrun": __version__,
        "task": task,
        "overrides": overrides,
        "seed": seed,
        "device": compute.describe(),
        "threads": _threads(),
        "versions": _versions(),
        "git": git_state(),
        "inode": directory.stat().st_ino,
        "started": _now(),
        "config": config,
    }


def resumption(overrides: list[str], seconds: float, compute: Compute) -> dict[str, Any]:
    """Return an entry of ``resumed`` in run.json. seconds: computing time before."""
    return {
        "at": _now(),
        "seconds": round(seconds, 1),
        "overrides": overrides,
        "nasrun": __version__,
        "device": compute.describe(),
        "threads": _threads(),
        "versions": _versions(),
        "git": git_state(),
    }


def made_here(record: Mapping[str, Any], directory: Path) -> bool:
    """Tell whether this user began the run in this very directory, so that it is no stranger's.

    A run that was copied or unpacked has a directory with another number (inode), which nobody can
    know beforehand; what another user of the machine has written belongs to that user.

    record: content of the run's run.json.
    """
    try:
        place, file = directory.stat(), (directory / RECORD).lstat()
    except OSError:
        return False
    user = getattr(os, "geteuid", lambda: file.st_uid)()
    number = record.get("inode")
    same = type(number) is int and number == place.st_ino != 0
    return same and place.st_uid == file.st_uid == user


def differences(record: Mapping[str, Any]) -> str:
    """Say what has changed since a run was last worked on: versions and threads; else ``""``.

    record: content of the run's run.json, which may be a stranger's.
    """
    resumed = record.get("resumed")
    last = resumed[-1] if isinstance(resumed, list) and resumed else {}
    known = {**record, **(last if isinstance(last, dict) else {})}
    versions = known.get("versions")
    was = {
        "nasrun": known.get("nasrun"),
        "torch": versions.get("torch") if isinstance(versions, dict) else None,
        "threads": known.get("threads"),
    }
    now = {"nasrun": __version__, "torch": _torch_version(), "threads": _threads()}
    changed = [
        f"{name} {now[name]} (was {printable(shortened(str(value), 40))})"
        for name, value in was.items()
        if value is not None and value != now[name]
    ]
    return f"going on with {', '.join(changed)}: numbers may differ" if changed else ""


# torch is slow to import, and what reads the record of a run needs none of it.


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": _torch_version()}
    for package in ("torchvision", "numpy", "hydra-core", "omegaconf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
