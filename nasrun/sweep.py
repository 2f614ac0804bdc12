"""Sweeps: what their jobs came to, as a table, summary.csv and jobs.csv; and where output goes.

Hydra tells a callback nothing of the jobs, so each leaves a result.json and they are read here.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasrun import sweep_curves, sweep_methods, sweep_rankings


@dataclass(frozen=True)
class Column:
    """How a metric is shown: its title, the factor to the title's unit, decimals."""

    title: str
    factor: float
    digits: int

    def cell(self, average: float | None, spread: float | None) -> str:
        if average is None:
            return "-"
        shown = f"{average * self.factor:,.{self.digits}f}"
        return shown if spread is None else f"{shown}±{spread * self.factor:,.{self.digits}f}"


COLUMNS = {
    "true_accuracy": Column("true %", 100, 2),
    "test_accuracy": Column("test %", 100, 2),
    "validation_accuracy": Column("val. %", 100, 2),
    "score": Column("score %", 100, 2),
    "kendall": Column("τ-b", 1, 3),
    "pairwise_accuracy": Column("pairs %", 100, 1),
    "partial_macs": Column("τ given MACs", 1, 3),
    "macs_alone": Column("τ of MACs", 1, 3),
    "params_alone": Column("τ of params", 1, 3),
    "params": Column("params M", 1e-6, 3),
    "macs": Column("MACs M", 1e-6, 2),
    "seconds": Column("seconds", 1, 0),
}
"""Metrics on the screen, in this order; the files hold every number of the results."""

NOT_METRICS = ("seed", "job")


@dataclass
class Output:
    """The run or sweep directory of this process.

    made: it and those of its parents that did not exist before, deepest first.
    jobs: how many jobs the sweep has; 0: no sweep, or a sweeper that decides as it goes.
    swept: the overrides that take several values.
    """

    directory: Path
    sweep: bool
    made: list[Path] = field(default_factory=list)
    jobs: int = 0
    swept: frozenset[str] = frozenset()

    def remove_if_empty(self) -> None:
        """Take away what this process has made and left empty."""
        if self.sweep and [path.name for path in _listed(self.directory)] == ["multirun.yaml"]:
            (self.directory / "multirun.yaml").unlink()
        inside = sorted(_listed(self.directory, "**/*"), reverse=True) if self.made else []
        if any(not path.is_dir() for path in inside):
            return
        for path in [*inside, *self.made]:
            with suppress(OSError, ValueError):  # not empty, or never made
                path.rmdir()


def _listed(directory: Path, pattern: str = "*") -> list[Path]:
    try:
        return list(directory.glob(pattern))
    except (OSError, ValueError):  # a name that no directory can have
        return []


current: list[Output] = []
"""The output of the command under way: Hydra makes the callback itself and never hands it out."""


class Outputs(Callback):
    """Registered in config.yaml: notes directories before Hydra makes them, sums up sweeps."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(OmegaConfBaseException, TypeError):  # Hydra says itself what is wrong with it
            note(Path(config.hydra.run.dir), sweep=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        output = note(Path(config.hydra.sweep.dir), sweep=True)
        words = list(config.hydra.overrides.task)
        # A recipe may sweep as well; what the command line says of the same key wins.
        typed = {word.partition("=")[0] for word in words}
        for key, value in (config.hydra.sweeper.get("params") or {}).items():
            words += [] if key in typed else [f"{key}={value}"]
        parsed = OverridesParser.create().parse_overrides(words)
        swept = [override for override in parsed if override.is_sweep_override()]
        output.swept = frozenset(override.get_key_element() for override in swept)
        if all(override.is_discrete_sweep() for override in swept):
            output.jobs = math.prod(len(list(o.sweep_string_iterator())) for o in swept)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        jobs = read_jobs(directory)
        # what is no terminal has no width of its own
        console = Console() if sys.stdout.isatty() else Console(width=160)
        show(jobs, directory, console)
        done = {
            label: [job.directory for job in members if job.error is None]
            for label, members in combinations(jobs).items()
        }
        methods = sweep_methods.compare(
            {
                label: [job for job in members if job.error is None]
                for label, members in combinations(jobs).items()
            }
        )
        pictures: list[Path] = []
        if methods is not None:
            sweep_methods.show(methods, console)
            pictures = sweep_methods.draw(methods, directory)
        for words, drawn in (
            ("the methods are in  ", pictures),
            ("the curves are in   ", sweep_curves.draw(done, directory)),
            ("the pictures are in ", sweep_rankings.draw(done, directory)),
        ):
            names = ", ".join(path.name for path in drawn if path.suffix == ".png")
            if names:
                console.print(f"{words} {directory} ({names})", markup=False, soft_wrap=True)
        try:
            write_csv(directory / "jobs.csv", job_rows(jobs))
            write_csv(directory / "summary.csv", summary_rows(jobs))
        except OSError as error:
            sys.stderr.write(f"nasrun: error: cannot write the summary in {directory}: {error}\n")


def note(directory: Path, *, sweep: bool) -> Output:
    """Remember a directory that is about to be made."""
    directory = directory.absolute()
    made = [path for path in (directory, *directory.parents) if not _exists(path)]
    current[:] = [Output(directory, sweep, made)]
    return current[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long
        return False


@dataclass(frozen=True)
class Job:
    """One job of a sweep. error is None where it has ended well."""

    number: int
    directory: Path
    overrides: tuple[str, ...]
    metrics: dict[str, float]
    error: str | None
    mended_by_user: bool = False


def read_jobs(directory: Path) -> list[Job]:
    """The jobs of a sweep by what they have left in their directories, in order."""
    folders = [path for path in _listed(directory) if path.is_dir() and path.name.isdecimal()]
    return [_read_job(folder) for folder in sorted(folders, key=lambda path: int(path.name))]


def _read_job(folder: Path) -> Job:
    result, run = _object(folder / "result.json"), _object(folder / "run.json")
    overrides = result.get("overrides") or run.get("overrides") or []
    error = None
    if not result:
        error = "it has left no result.json"
    elif result.get("status") == "failed":
        error = str(result.get("error"))
    metrics = {
        key: float(value)
        for key, value in result.items()
        if type(value) in (int, float) and math.isfinite(value) and key not in NOT_METRICS
    }
    return Job(
        int(folder.name),
        folder,
        tuple(str(override) for override in overrides),
        {} if error else metrics,
        error,
        result.get("kind") == "user",
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def differing(jobs: Sequence[Job]) -> dict[int, str]:
    """For each job the overrides, without the seed, that not all of the jobs have."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if jobs else set()
    return {
        job.number: " ".join(
            override
            for override in job.overrides
            if override not in shared and not override.startswith("seed=")
        )
        for job in jobs
    }


def combinations(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """The jobs by their overrides without the seed, in order of appearance."""
    labels = differing(jobs)
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(labels[job.number], []).append(job)
    return found


def metric_names(jobs: Iterable[Job]) -> list[str]:
    found = {name for job in jobs for name in job.metrics}
    return [name for name in COLUMNS if name in found] + sorted(found - COLUMNS.keys())


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None where too few values define it."""
    return (
        mean(values) if values else None,
        stdev(values) if len(values) > 1 else None,
    )


def summary_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """One row for each combination of overrides without the seed; n counts jobs that ended well."""
    rows = []
    for label, members in combinations(jobs).items():
        done = [job for job in members if job.error is None]
        row: dict[str, Any] = {
            "overrides": label,
            "n": len(done),
            "failed": len(members) - len(done),
        }
        for name in metric_names(jobs):
            values = [job.metrics[name] for job in done if name in job.metrics]
            row[f"{name}_mean"], row[f"{name}_sd"] = mean_and_sd(values)
        rows.append(row)
    return rows


def job_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [
        {
            "job": job.number,
            "overrides": " ".join(job.overrides),
            "status": "failed" if job.error else "done",
            **{name: job.metrics.get(name) for name in metric_names(jobs)},
            "error": job.error,
        }
        for job in jobs
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def show(jobs: Sequence[Job], directory: Path, console: Console) -> None:
    """The table of combinations, then the jobs that failed and why."""
    failed = [job for job in jobs if job.error]
    if len(failed) < len(jobs):
        console.print(
            f"\n{directory}: mean ± sample standard deviation over n seeds",
            markup=False,
            soft_wrap=True,
        )
        rows = summary_rows(jobs)
        names = [name for name in COLUMNS if name in metric_names(jobs)]
        # Long overrides would leave the numbers no room: then they stand below, by number.
        labels = [row["overrides"] or "(all)" for row in rows]
        beside = console.width >= 85 + max(map(len, labels))
        table = Table(
            "overrides" if beside else "#", "n", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for name in names:
            table.add_column(COLUMNS[name].title, justify="right", no_wrap=True)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True), 1):
            cells = [COLUMNS[name].cell(row[f"{name}_mean"], row[f"{name}_sd"]) for name in names]
            table.add_row(escape(label) if beside else str(number), str(row["n"]), *cells)
        console.print(table)
        for number, label in enumerate(labels, 1):
            if not beside:
                console.print(f"{number}  {label}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        count = "all" if len(failed) == len(jobs) else f"{len(failed)} of"
        console.print(f"{count} {len(jobs)} jobs failed (in their directories):", highlight=False)
    for job in failed:
        line = f"  {job.number}/ ({' '.join(job.overrides)}): {job.error}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def exit_status(jobs: Sequence[Job]) -> int:
    """0: all jobs ended well; 2: all failed, and by what the user can mend; 1: anything else."""
    if not any(job.error for job in jobs):
        return 0
    return 2 if all(job.error and job.mended_by_user for job in jobs) else 1
