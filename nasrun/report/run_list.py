"""The runs and sweeps below a folder, each as one entry: what ``nasrun runs`` lists.

Any of them may be damaged, or a stranger's. Nothing is composed or built, torch is not needed, and
of each run only run.json and result.json are read.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from nasrun.errors import shortened
from nasrun.report.run_files import RunDirectory
from nasrun.run.files import printable
from nasrun.run.layout import CHECKPOINTS, LOCK, RECORD, RESULT, SWEEP_JOBS, SWEEP_RECORD
from nasrun.run.lock import is_held

MAX_LEVELS = 6
"""Folders below the given one that are looked into; ours lie two or three levels deep."""

MAX_FOLDERS = 200_000
"""Upper bound of the folders that are looked into."""

MAX_RECORD_BYTES = 2**20
"""Size of a run.json or result.json that is still read; ours have some thousand bytes."""

MAX_NAME_CHARACTERS = 100
"""Length of a run's name or of an override that is shown."""

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"

_BY_TIME = re.compile(r"(?:multirun_)?\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-(\d{6})", re.ASCII)
_BY_LINE = re.compile(r"(?:multirun_)?auto_([0-9a-f]{10})", re.ASCII)

Wanted = Callable[[RunDirectory, str], bool]
"""Tells by a run and its status whether it is wanted."""


@dataclass(frozen=True)
class Entry:
    """A run, or a sweep.

    status: running, done, failed or stopped. overrides: of a sweep with all values of its jobs.
    started: seconds since 1970. result: content of result.json; of a sweep the cost of all jobs.
    jobs: of a sweep the number of its jobs by status; None: it is a run.
    """

    path: Path
    status: str
    task: str
    name: str
    notes: str
    overrides: tuple[str, ...]
    started: float
    result: Mapping[str, Any]
    jobs: Mapping[str, int] | None = None

    @property
    def word(self) -> str:
        """The shortest word that names it: its name, or else a part of its folder's name."""
        return self.name or short_name(self.path)

    @property
    def spent(self) -> Mapping[str, Any]:
        """The cost of the result; empty if it is unknown."""
        spent = self.result.get("spent")
        return spent if isinstance(spent, dict) else {}


@dataclass
class _Place:
    """A folder that holds a run or a sweep. files: the names in it. jobs: folders of the jobs."""

    path: Path
    files: frozenset[str]
    jobs: list[_Place] = field(default_factory=list)
    sweep: bool = False


def short_name(path: Path) -> str:
    """Return the part of a folder's name that tells it from others: microseconds, a digest."""
    found = _BY_TIME.fullmatch(path.name) or _BY_LINE.fullmatch(path.name)
    return found[1] if found else path.name


def is_sweep(path: Path) -> bool:
    """Tell whether a folder is that of a sweep."""
    return (path / SWEEP_RECORD).exists() and not (path / RECORD).exists()


def entries(folder: Path, wanted: Wanted | None = None, *, jobs: bool = False) -> list[Entry]:
    """List runs and sweeps at or below ``folder``, the newest last; links are not followed.

    wanted: which runs are listed; a sweep is if any of its jobs is. jobs: if ``folder`` is a sweep,
    list its jobs instead.
    """
    found = []
    for place in _places(folder):
        if place.sweep and not (jobs and place.path == folder):
            entry = _sweep(place, wanted)
        elif place.sweep:
            found += [each for job in place.jobs if (each := _run(job, wanted))]
            continue
        else:
            entry = _run(place, wanted)
        if entry is not None:
            found.append(entry)
    if jobs and is_sweep(folder):
        return sorted(found, key=lambda entry: int(entry.path.name))
    return sorted(found, key=lambda entry: (entry.started, str(entry.path)))


def _places(folder: Path) -> Iterator[_Place]:
    """Find runs and sweeps, in no particular order."""
    left = [(folder, 0)]
    seen = 0
    while left and seen < MAX_FOLDERS:
        path, level = left.pop()
        seen += 1
        place, folders = _look(path)
        if RECORD in place.files:
            yield place
        elif SWEEP_RECORD in place.files:
            numbers = sorted((inner for inner in folders if inner.isdecimal()), key=int)
            place.sweep = True
            place.jobs = [_look(path / number)[0] for number in numbers]
            seen += len(numbers)
            yield place
        elif level < MAX_LEVELS:
            left += [(path / inner, level + 1) for inner in folders if inner != CHECKPOINTS]


def _look(path: Path) -> tuple[_Place, list[str]]:
    """Return a folder with its file names, and the names of the folders in it."""
    files, folders = [], []
    try:
        with os.scandir(path) as inside:
            for entry in inside:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    files.append(entry.name)
    except (OSError, ValueError):  # not ours to read, removed meanwhile, or no possible name
        pass
    return _Place(path, frozenset(files)), folders


def _run(place: _Place, wanted: Wanted | None) -> Entry | None:
    run, result, status = _read(place)
    if wanted is not None and not wanted(run, status):
        return None
    overrides = run.overrides if RECORD in place.files else run.overrides_of_job
    return Entry(
        place.path,
        status,
        _text(run.record.get("task")),
        name_of(run),
        _text(run.config.get("notes")),
        tuple(_text(word) for word in overrides),
        _started(run),
        result,
    )


def _read(place: _Place) -> tuple[RunDirectory, dict[str, Any], str]:
    """Return the files of a run, its result, and its status."""
    run = RunDirectory(place.path, strict=False, limit=MAX_RECORD_BYTES)
    result = run.read_object(RESULT) if RESULT in place.files else {}
    status = {"done": DONE, "failed": FAILED}.get(str(result.get("status")), STOPPED)
    if LOCK in place.files and is_held(place.path):
        status = RUNNING
    return run, result, status


def _sweep(place: _Place, wanted: Wanted | None) -> Entry | None:
    """Read all jobs of a sweep into one entry."""
    counts: Counter[str] = Counter()
    cost: dict[str, float] = {}
    words: list[tuple[str, ...]] = []
    heads: dict[tuple[str, str, str], None] = {}
    started = []
    matched = wanted is None
    for job in place.jobs:
        run, result, status = _read(job)
        for kind, value in _cost(result).items():
            cost[kind] = cost.get(kind, 0) + value
        matched = matched or (wanted is not None and wanted(run, status))
        counts[status] += 1
        words.append(tuple(_text(word) for word in run.overrides_of_job))
        if RECORD in job.files:
            head = _text(run.record.get("task")), name_of(run), _text(run.config.get("notes"))
            heads[head] = None
            started.append(_started(run))
    if not matched:
        return None
    task, name, notes = next(iter(heads)) if heads else (place.path.parent.name, "", "")
    if len({head[1] for head in heads}) > 1:
        name = ""  # each job has a name of its own
    begun = min(started) if started else _changed(place.path / SWEEP_RECORD)
    status = next((each for each in (RUNNING, FAILED, STOPPED) if counts[each]), DONE)
    if status == DONE and _changed(place.path / SWEEP_JOBS) < _changed(place.path / SWEEP_RECORD):
        status = STOPPED  # before its summary, so some of its jobs were never begun
    total: dict[str, Any] = dict(cost)
    seconds = {"seconds": total.pop("seconds")} if "seconds" in total else {}
    return Entry(
        *(place.path, status, task, name, notes, together(words), begun),
        {"spent": total, **seconds},
        dict(counts),
    )


def _cost(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a job has cost, as far as it is known."""
    spent = result.get("spent")
    found = {**(spent if isinstance(spent, dict) else {}), "seconds": result.get("seconds")}
    return {
        key: value
        for key, value in found.items()
        if type(value) in (int, float) and math.isfinite(value)
    }


def together(overrides: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return one list of overrides for all jobs of a sweep, those that differ first.

    Example: ``seed=0,1,2`` of ``seed=0``, ``seed=1`` and ``seed=2``.
    """
    values: dict[str, dict[str, None]] = {}
    for words in overrides:
        for word in words:
            key, _, value = word.partition("=")
            values.setdefault(key, {})[value] = None
    swept = [f"{key}={','.join(found)}" for key, found in values.items() if len(found) > 1]
    shared = [f"{key}={next(iter(found))}" for key, found in values.items() if len(found) == 1]
    return (*swept, *shared)


def name_of(run: RunDirectory) -> str:
    """Return the name that a run was given; empty if it has none."""
    return _text(run.config.get("name"))


def _text(value: Any) -> str:
    """Return a text of a file, which may be a stranger's, fit to be shown."""
    if value is None or isinstance(value, dict | list):
        return ""
    return printable(shortened(str(value), MAX_NAME_CHARACTERS))


def _started(run: RunDirectory) -> float:
    """Return when a run began, or else when its folder was last changed; seconds since 1970."""
    try:
        return datetime.fromisoformat(str(run.record.get("started"))).timestamp()
    except (ValueError, OverflowError, OSError):
        return _changed(run.path)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except (OSError, ValueError):
        return 0.0
