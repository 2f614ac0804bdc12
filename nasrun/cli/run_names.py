"""Words that name a run: ``latest``, its name, its folder, or the folder of a sweep."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nasrun.config.groups import tasks
from nasrun.errors import UserError, nearest
from nasrun.report.run_files import RunDirectory, job_files, read_jobs
from nasrun.report.run_list import Entry, entries, is_sweep, short_name
from nasrun.run.commands import command
from nasrun.run.files import at_home, printable

LATEST = "latest"
"""The word for the newest run or sweep."""

OUTPUTS = "outputs"
"""Folder in which names are looked for, unless the setting ``outputs`` names another."""

Needed = str | Callable[[], str | None] | None
"""A file that the run must have; or a function that names it, called if there is a choice."""


def resolve(
    word: str, *, needed: Needed = None, outputs: str | Path = OUTPUTS, best: bool = True
) -> Path:
    """Return the absolute directory of the run that a word names; what was chosen is said.

    An existing directory is itself, or of a sweep its best job. ``latest`` is the newest run below
    ``outputs``; any other word is a run's name, or the last part of its folder's name, of several
    the newest.

    needed: see above. best: whether a sweep stands for its best job, or for itself.
    Raises UserError if there is no such run, naming the nearest, or if no best job can be told.
    """
    path = at_home(word)
    if _is_folder(path):
        path = path.resolve() if ".." in path.parts else path.absolute()
        return best_job(path, _name(needed)) if best and is_sweep(path) else path
    if "/" in word or word.startswith((".", "~")):
        raise UserError(f"{word}: there is no such directory")
    found = entries(at_home(outputs).absolute())
    named = found if word == LATEST else [entry for entry in found if word in words_of(entry)]
    if not named:
        raise UserError(_unknown(word, found, outputs))
    file = _name(needed)
    fit = [entry for entry in named if file is None or _holds(entry, file, best)]
    if not fit:
        if word == LATEST:
            raise UserError(f"{word}: no run below {outputs} has a {file}")
        place = named[-1].path
        if named[-1].jobs is not None:
            return best_job(place, file)  # which tells what is missing
        raise UserError(
            f"{word} ({place}) has no {file} yet: if it was stopped, go on with it "
            f"({command('resume', place)})"
        )
    chosen = fit[-1]
    if word == LATEST:
        _say(f"latest is {chosen.path}{f' ({chosen.name})' if chosen.name else ''}")
    elif len(fit) > 1:
        _say(f"{len(fit)} runs are called {word}: taking the newest, {chosen.path}")
    if best and chosen.jobs is not None:
        return best_job(chosen.path, file)
    return chosen.path


def words_of(entry: Entry) -> set[str]:
    """Return the words that name a run or a sweep, apart from its path."""
    return {entry.name, entry.path.name, short_name(entry.path)} - {""}


def best_job(sweep: Path, needed: str | None = None) -> Path:
    """Return the directory of the job of a sweep that validation images judge best.

    It goes by the number that a sweeper would maximise (``Task.objective``), never by test
    accuracy, which would no longer be an honest one of the chosen.

    needed: a file that the job must have. Raises UserError if no job is finished, or if nothing
    but test images could tell which is the best.
    """
    done = [
        job
        for job in read_jobs(sweep)
        if job.error is None and (needed is None or (job.directory / needed).exists())
    ]
    if not done:
        what = f"finished job with {needed}" if needed else "finished job"
        raise UserError(f"{sweep} has no {what}: go on with the sweep ({command('resume', sweep)})")
    if len(done) == 1:
        _say(f"{sweep} is a sweep: taking its only such job, {done[0].number}")
        return done[0].directory
    measures = {_objective(job_files(job.directory)) for job in done}
    measure = measures.pop() if len(measures) == 1 else None
    if measure is None or not all(measure in job.metrics for job in done):
        raise UserError(
            f"{sweep} is a sweep whose jobs have no score in common on validation images, so none "
            f"is the best: name one, e.g. {done[0].directory}"
        )
    chosen = max(done, key=lambda job: job.metrics[measure])  # of equal ones the first
    value = chosen.metrics[measure]
    shown = f"{value:.4f}" if math.isfinite(value) else "nan"
    shared = set.intersection(*(set(job.overrides) for job in done))
    words = printable(" ".join(word for word in chosen.overrides if word not in shared))
    _say(
        f"{sweep} is a sweep: taking job {chosen.number} ({words}), the best of {len(done)} by "
        f"{measure} ({shown})"
    )
    return chosen.directory


def _objective(run: RunDirectory) -> str | None:
    """Name the number by which a job is judged; None if it has none, or is damaged."""
    from nasrun.task.base import find_task

    try:
        return find_task(run.task).objective(run.config) if run.task in tasks() else None
    except (UserError, LookupError, TypeError, AttributeError):
        return None


def _unknown(word: str, found: Sequence[Entry], outputs: str | Path) -> str:
    if word == LATEST:
        return f"{word}: there is no run below {outputs} (outputs=DIR names another folder)"
    names = sorted({name for entry in found for name in (entry.name, entry.path.name) if name})
    return (
        f"{word}: there is no such directory, and no run of that name below {outputs}"
        f"{nearest(word, [LATEST, *names])}; `nasrun runs` lists them"
    )


def _holds(entry: Entry, file: str, best: bool) -> bool:
    if entry.jobs is not None and not best:
        return True
    if entry.jobs is None:
        return (entry.path / file).exists()
    done = [job.directory for job in read_jobs(entry.path) if job.error is None]
    return any((directory / file).exists() for directory in done)


def _name(needed: Needed) -> str | None:
    return needed() if callable(needed) else needed


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no directory can have
        return False


def _say(line: str) -> None:
    sys.stderr.write(f"nasrun: note: {line}\n")
