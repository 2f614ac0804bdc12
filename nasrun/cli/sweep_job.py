"""A job of a sweep, in whatever process its launcher runs it: its directory and its number.

Launchers may run jobs in other processes or on other machines (joblib, submitit, Ray), which share
only the folder of the sweep. So whatever a job knows comes from Hydra's configuration of the job
and from files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from nasrun.cli.resume import identity
from nasrun.errors import UserError
from nasrun.report.run_files import job_files
from nasrun.run.files import append, make_folder, write_json
from nasrun.run.layout import JOB, RECORD, SWEEP_BEGUN
from nasrun.run.lock import InUseError, Lock

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's own sweeper: it runs all combinations and reads no number."""

WAIT_SECONDS = 60.0
"""Longest wait for another job that chooses its directory; to choose takes milliseconds."""


def in_sweep() -> bool:
    """Tell whether the current job belongs to a sweep, also in a process of a launcher."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def directory(overrides: Sequence[str], *, again: bool) -> Path:
    """Return the directory of this job; in a sweep it holds the overrides from now on.

    again: whether the sweep may be a repeated one (``resume=auto``). Then a job goes to the
    directory that has its overrides, whatever its number was, and a new job to a free one.
    """
    given = Path(HydraConfig.get().runtime.output_dir).absolute()
    if not in_sweep() or given.is_symlink():
        return given
    chosen = _prepared(given, overrides, again=again)
    if chosen.name.isdecimal():
        line = json.dumps({"job": int(chosen.name)})
        append(chosen.parent / SWEEP_BEGUN, line.encode() + b"\n")
    return chosen


def _prepared(given: Path, overrides: Sequence[str], *, again: bool) -> Path:
    """Choose the directory of a job, and write down its overrides."""
    if not again or not given.name.isdecimal():
        if not (given / RECORD).exists():
            write_json(given / JOB, {"overrides": list(overrides)})
        return given
    lock = _alone(given.parent)
    try:
        chosen = _chosen(given, overrides)
        make_folder(chosen)
        if not (chosen / RECORD).exists():
            write_json(chosen / JOB, {"overrides": list(overrides)})
        if chosen != given:
            with suppress(OSError):  # it holds another job
                given.rmdir()
    finally:
        lock.release()
    return chosen


def _alone(sweep: Path) -> Lock:
    """Take the lock of the folder of the sweep, which other jobs hold for moments only."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return Lock(sweep).acquire()
        except InUseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _chosen(given: Path, overrides: Sequence[str]) -> Path:
    """Choose the directory with the same overrides, else the given one, else the first free one."""
    wanted = identity(overrides)
    folders = sorted(
        (path for path in given.parent.iterdir() if path.name.isdecimal() and path.is_dir()),
        key=lambda path: int(path.name),
    )
    taken = {path for path in folders if any(path.iterdir())}
    for path in folders:
        with suppress(UserError):  # damaged: it holds no overrides
            if path in taken and identity(job_files(path).overrides_of_job) == wanted:
                return path
    number = int(given.name)
    while given.with_name(str(number)) in taken:
        number = number + 1 if number > int(given.name) else len(folders)
    return given.with_name(str(number))


def optimises() -> bool:
    """Tell whether the sweeper wants a number from each job."""
    return in_sweep() and HydraConfig.get().sweeper.get("_target_") != BASIC_SWEEPER


def objective_name(settings: Mapping[str, Any]) -> str | None:
    """Return the number of result.json that a sweeper maximises; None if there is none.

    It is never measured on test images: a setting that was chosen by them would have no honest
    test accuracy any more.
    """
    from nasrun.task.base import find_task

    return find_task(str(settings["task"])).objective(settings)


def check_objective(settings: Mapping[str, Any]) -> None:
    """Raise UserError if the sweeper optimises and this task gives it no number, or minimises."""
    if not optimises():
        return
    if objective_name(settings) is None:
        hint = "; it has one with retrain.images=train" if settings["task"] == "retrain" else ""
        raise UserError(f"nasrun {settings['task']} has no number for a sweeper to optimise{hint}")
    for word in HydraConfig.get().overrides.hydra:
        key, _, value = word.partition("=")
        if key == "hydra.sweeper.direction" and value != "maximize":
            raise UserError(f"{word}: the sweeper gets one number, and more of it is better")


def objective(settings: Mapping[str, Any], place: Path) -> float | None:
    """Return the number of the job in ``place``, which has ended, for the sweeper."""
    name = objective_name(settings)
    value = job_files(place).result.get(name) if name else None
    return float(value) if isinstance(value, int | float) else None
