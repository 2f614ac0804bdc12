"""The only reader of run directories: strict about one run, tolerant of the jobs of a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from nasrun.errors import UserError
from nasrun.metrics.bootstrap import Estimate
from nasrun.report.run_lines import (
    Curves,
    Damage,
    TrialLine,
    architecture_in,
    read_curves,
    read_front,
    read_trials,
)
from nasrun.report.run_ranking import FoundBias, Ranking, read_biases, read_ranking
from nasrun.run.files import MAX_JSON_BYTES, parse_json, read_bytes, read_json, read_object
from nasrun.run.layout import (
    COMPARISON,
    FRONT,
    JOB,
    METRICS,
    RANKING,
    RANKING_TABLE,
    RECORD,
    RESULT,
    SWEEP_BEGUN,
    SWEEP_REFUSALS,
    TRIALS,
    ResumedRun,
)

NOT_METRICS = ("seed", "job", "test_images", "validation_images")
"""Numbers of a result that are no measurements."""

Points = list[tuple[float, Estimate]]
"""A measure by epoch: (epoch, estimate)."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Regret:
    """One search algorithm of ``nasrun compare`` at the end of its searches.

    regret: mean over ``seeds`` searches.
    wins: share of the seeds whose regret ends below the control's; None: this is the control.
    p: of the mean difference from the control, Holm-corrected; None: this is the control.
    """

    algorithm: str
    seeds: int
    regret: Estimate
    wins: float | None
    p: float | None


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, as typed values.

    strict: whether an absent or damaged file raises UserError, as for ``from=RUN_DIR`` and
    ``resume``, where the run may be a stranger's. Otherwise such a file counts as empty, since some
    jobs of a sweep may have failed.
    """

    path: Path
    strict: bool = True
    limit: int = MAX_JSON_BYTES
    """Size of a JSON file that is still read where ``strict`` is false."""

    def has(self, name: str) -> bool:
        """Tell whether the run has a file ``name``."""
        return (self.path / name).exists()

    def read_object(self, name: str, hint: str = "") -> dict[str, Any]:
        """Read the JSON object in the file ``name``; hint: advice for the error message."""
        if self.strict:
            return read_object(self.path / name, hint)
        try:
            value = parse_json(read_bytes(self.path / name, self.limit))
        except (OSError, ValueError, UserError):
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of run.json."""
        return self.read_object(RECORD, "is this the directory of a run?")

    @property
    def task(self) -> str:
        """The task that was run."""
        task: str = self._field("task", str)
        return task

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration in plain values, with the changes of resumptions."""
        config: dict[str, Any] = self._field("config", dict)
        return config

    @property
    def overrides(self) -> list[Any]:
        """The overrides of the command line, then those of each resumption, unchecked."""
        given: list[Any] = self._field("overrides", list)
        resumed = self.record.get("resumed")
        entries = resumed if isinstance(resumed, list) else []
        lists = [entry.get("overrides") for entry in entries if isinstance(entry, dict)]
        return given + [word for words in lists if isinstance(words, list) for word in words]

    @property
    def overrides_of_job(self) -> list[str]:
        """The overrides of a job of a sweep, also if it has not begun; empty if unknown."""
        for name in (RECORD, RESULT, JOB):
            if not self.has(name):
                continue
            content = self.record if name == RECORD else self.read_object(name)
            found = content.get("overrides")
            if isinstance(found, list) and all(isinstance(word, str) for word in found):
                return found
        return []

    @property
    def seed(self) -> int | None:
        """The run's seed; None if run.json does not hold it."""
        seed = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def device(self) -> str:
        """The device of the run in words; empty if run.json does not hold it."""
        return str(self.record.get("device", ""))

    @property
    def result(self) -> dict[str, Any]:
        """Content of result.json; empty if the run has not ended."""
        return self.read_object(RESULT) if self.has(RESULT) else {}

    @property
    def status(self) -> str | None:
        """``done``, ``failed``, or None if the run has not ended."""
        status = self.result.get("status")
        return status if isinstance(status, str) else None

    @property
    def earlier(self) -> ResumedRun:
        """The record and the result, for a continuation of the run."""
        return ResumedRun(self.record, self.result if self.has(RESULT) else None)

    @cached_property
    def trials(self) -> tuple[list[TrialLine], Damage]:
        """The lines of trials.jsonl that can be read; empty if there are none."""
        return read_trials(self.path / TRIALS)

    @cached_property
    def curves(self) -> tuple[Curves, Damage]:
        """The curves of metrics.jsonl by stage and metric; empty if there are none."""
        return read_curves(self.path / METRICS)

    @cached_property
    def front(self) -> dict[str, tuple[int, dict[str, float]]]:
        """Places in front.json, and costs, by the digest of the architecture; may be empty."""
        return read_front(self.path / FRONT)

    @property
    def ranking(self) -> Ranking | None:
        """The last ranking of ``nasrun rank``; None if there is none."""

        def read() -> Ranking:
            content = self.read_object(RANKING)
            if not self.record:
                raise ValueError(f"no {RECORD} beside it")
            return read_ranking(self.path / RANKING_TABLE, content, self.seed)

        return self._checked(RANKING, read, None)

    def agreement(self, measure: str) -> Points:
        """A measure of agreement by epoch, e.g. ``kendall``; empty if there is no ranking."""

        def read() -> Points:
            epochs = self.read_object(RANKING)["epochs"]
            return [
                (float(epoch), Estimate.from_json(report["agreement"][measure]))
                for epoch, report in epochs.items()
            ]

        return self._checked(RANKING, read, [])

    @property
    def measures(self) -> dict[str, Estimate]:
        """All measures of the last ranking, and ``ceiling_NAME``; empty if there is no ranking."""

        def read() -> dict[str, Estimate]:
            found = self.read_object(RANKING)
            report = found["epochs"][max(found["epochs"], key=float)]
            named = {f"ceiling_{name}": value for name, value in found["noise_ceiling"].items()}
            for group in report.values():
                named |= group if isinstance(group, dict) else {}
            return {name: Estimate.from_json(value) for name, value in named.items()}

        return self._checked(RANKING, read, {})

    @property
    def size_biases(self) -> dict[str, FoundBias]:
        """The biases of the last ranking by the name of the size; empty if they are not known."""
        return self._checked(RANKING, lambda: read_biases(self.read_object(RANKING)), {})

    @property
    def comparison(self) -> list[Regret]:
        """The rows of ``nasrun compare``, in order; empty if there are none."""

        def read() -> list[Regret]:
            return [
                Regret(
                    *(name, int(row["seeds"]), Estimate.from_json(row["regret"])),
                    *(row["wins"], row["p"]),
                )
                for name, row in self.read_object(COMPARISON)["algorithms"].items()
            ]

        return self._checked(COMPARISON, read, [])

    def architecture_of(self, trial: Any) -> Any:
        """The architecture, as JSON, in line ``trial`` of trials.jsonl, counted from 1.

        Raises UserError if there is none.
        """
        if type(trial) is not int:
            raise UserError(f"trial={trial}: must be the number of a line of {TRIALS}")
        return architecture_in(self.path / TRIALS, trial)

    def architecture_at(self, pick: Any) -> Any:
        """The architecture, as JSON, at place ``pick`` of the front.

        Raises UserError if there is none.
        """
        path = self.path / FRONT
        front = read_json(path)
        if not isinstance(front, list) or not all(isinstance(row, dict) for row in front):
            raise UserError(f"{path} is no front")
        if type(pick) is not int or not 0 <= pick < len(front):
            raise UserError(f"pick={pick}: {path} has the places 0 to {len(front) - 1}")
        return front[pick].get("architecture")

    def _field(self, name: str, kind: type[Any]) -> Any:
        value = self.record.get(name)
        if isinstance(value, kind):
            return value
        if self.strict:
            raise UserError(f"{self.path / RECORD} lacks task, overrides or config")
        return kind()

    def _checked(self, name: str, read: Callable[[], _T], empty: _T) -> _T:
        """Call ``read``; if the file ``name`` is damaged, raise UserError or return ``empty``."""
        try:
            return read()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if self.strict:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise UserError(f"{self.path / name} is absent or damaged ({reason})") from error
            return empty
        except UserError:  # a link, or too large
            if self.strict:
                raise
            return empty


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    error: None if the job has ended well. mended_by_user: whether the error is a user's mistake.
    """

    number: int
    directory: Path
    overrides: tuple[str, ...]
    metrics: dict[str, float]
    error: str | None
    mended_by_user: bool = False


def read_jobs(directory: Path) -> list[Job]:
    """Read the jobs of a sweep from their directories, in order."""
    refused = _refusals(directory)
    folders = [path for path in _listed(directory) if path.is_dir() and path.name.isdecimal()]
    return [
        read_job(folder, int(folder.name), refused.get(int(folder.name)))
        for folder in sorted(folders, key=lambda path: int(path.name))
    ]


def of_last_line(jobs: Sequence[Job], directory: Path) -> list[Job]:
    """Return the jobs of a sweep that the last command line was about; all if it is unknown.

    A folder may hold jobs of earlier lines, with other values.
    """
    numbers = set(_refusals(directory))
    for entry in _lines(directory / SWEEP_BEGUN):
        with suppress(ValueError, LookupError, TypeError):
            numbers.add(int(entry["job"]))
    return [job for job in jobs if job.number in numbers or not numbers]


def _refusals(directory: Path) -> dict[int, dict[str, Any]]:
    """Read why jobs of a sweep were refused, by the number of the job; skips damaged lines."""
    found: dict[int, dict[str, Any]] = {}
    for entry in _lines(directory / SWEEP_REFUSALS):
        with suppress(ValueError, LookupError, TypeError):
            found[int(entry["job"])] = entry
    return found


def _lines(path: Path) -> list[Any]:
    """Read the JSON value of each line of a file; damaged lines are left out."""
    try:
        lines = read_bytes(path, MAX_JSON_BYTES).splitlines()
    except (OSError, ValueError, UserError):
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(parse_json(line))
    return found


def job_files(directory: Path) -> RunDirectory:
    """Return the files of a job of a sweep; absent or damaged files count as empty."""
    return RunDirectory(directory, strict=False)


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.glob("*"))
    except (OSError, ValueError):  # a name that no directory can have
        return []


def read_job(folder: Path, number: int, refusal: dict[str, Any] | None = None) -> Job:
    """Read a job; refusal: why it was refused, which counts more than a result of another run."""
    run = job_files(folder)
    result = refusal or run.result
    overrides = result.get("overrides") or run.overrides_of_job
    error = None
    if not result:
        error = f"it has left no {RESULT}"
    elif result.get("status") == "failed":
        error = str(result.get("error"))
    spent = result.get("spent")
    costs = {f"spent_{key}": value for key, value in (spent if type(spent) is dict else {}).items()}
    metrics = {
        key: float(value)
        for key, value in {**result, **costs}.items()
        if type(value) in (int, float) and math.isfinite(value) and key not in NOT_METRICS
    }
    return Job(
        number,
        folder,
        tuple(str(override) for override in overrides),
        {} if error else metrics,
        error,
        result.get("kind") == "user",
    )
