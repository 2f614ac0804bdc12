"""A job of a sweep, in whatever process its launcher runs it: its directory and its number.

Launchers may run jobs in other processes or on other machines (joblib, submitit, Ray), which share
only the folder of the sweep. So whatever a job knows comes from Hydra's configuration of the job
and from files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
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
    jobs = _jobs.setdefault(given.parent, KnownJobs(given.parent))
    jobs.look()
    if (found := jobs.find(wanted)) is not None:
        return found
    numbers = chain([int(given.name)], count(jobs.count))
    return given.with_name(str(next(n for n in numbers if n not in jobs.taken)))


class KnownJobs:
    """The jobs in the folder of a sweep, each of whose overrides are read only once.

    A sweep of n jobs lists its folder n times; if each job also read the overrides of all others,
    ten thousand jobs would open a hundred million files.

    taken: numbers of the folders that hold something. count: of all folders of jobs.
    """

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.taken: set[int] = set()
        self.count = 0
        self._of: dict[int, frozenset[str] | None] = {}
        self._by: dict[frozenset[str], set[int]] = {}

    def look(self) -> None:
        """Find out which folders have come and gone since the last look."""
        with os.scandir(self.sweep) as inside:
            numbers = {int(entry.name) for entry in inside if entry.name.isdecimal()}
        self.count = len(numbers)
        for number in self.taken - numbers:
            self._forget(number)
        for number in sorted(numbers - self.taken):
            self._read(number)

    def find(self, wanted: frozenset[str]) -> Path | None:
        """Return the folder of the first job with these overrides; None if there is none."""
        for number in sorted(self._by.get(wanted, ())):
            self._forget(number)  # another process may have begun another job there
            self._read(number)
            if self._of.get(number) == wanted:
                return self.sweep / str(number)
        return None

    def _read(self, number: int) -> None:
        path = self.sweep / str(number)
        if not path.is_dir() or not any(path.iterdir()):
            return
        self.taken.add(number)
        with suppress(UserError):  # damaged: it holds no overrides
            found = identity(job_files(path).overrides_of_job)
            self._of[number] = found
            self._by.setdefault(found, set()).add(number)

    def _forget(self, number: int) -> None:
        self.taken.discard(number)
        found = self._of.pop(number, None)
        if found is not None:
            self._by[found].discard(number)


_jobs: dict[Path, KnownJobs] = {}
"""The jobs of sweeps as this process knows them, by the folder of the sweep."""


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
