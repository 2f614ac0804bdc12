"""The summary of a sweep: a table on the screen, summary.csv, jobs.csv, pictures.

Hydra tells a callback nothing about the jobs, so each job writes a result.json, which is read here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasrun.errors import UserError, plural, shortened
from nasrun.report.run_files import Job, read_jobs
from nasrun.run import files
from nasrun.run.layout import SWEEP_JOBS, SWEEP_SUMMARY
from nasrun.run.provenance import of_machine

NO_WORDS = "(as it is)"
"""Name of a combination that has none of the overrides that differ."""

REMARKS = ("resume", "outputs", "notes")
"""Settings that say nothing of how a run computes."""


MAX_SHOWN = 200
"""Combinations on the screen; of more the first ones are shown, and the files hold all."""


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, the factor to the title's unit, decimals."""

    title: str
    factor: float
    digits: int

    def cost(self, average: float | None, spread: float | None) -> str:
        """Write a cost, which has a deviation only where jobs differ."""
        return self.cell(average, spread or None)

    def cell(self, average: float | None, spread: float | None) -> str:
        """Write a mean and its standard deviation in the unit of the title."""
        if average is None:
            return "-"
        shown = f"{average * self.factor:,.{self.digits}f}"
        return shown if spread is None else f"{shown}±{spread * self.factor:,.{self.digits}f}"


RESULTS = {
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
    "ranking_seconds": Column("s to rank", 1, 0),
}
"""Results on the screen, in this order; the files hold all numbers."""

COSTS = {
    "spent_evaluations": Column("evaluations", 1, 0),
    "spent_training_steps": Column("steps", 1, 0),
    "spent_images": Column("images", 1, 0),
    "spent_device_seconds": Column("core or GPU s", 1, 0),
    "seconds": Column("seconds", 1, 0),
}
"""Costs on the screen, in this order."""

COLUMNS = RESULTS | COSTS
"""All columns of the tables on the screen."""


def differing(jobs: Sequence[Job]) -> dict[int, str]:
    """Find for each job the overrides, without the seed, that not all of the jobs have.

    Settings that say nothing of what a run is count only if every job has them, as in a sweep of
    devices: a sweep that goes on may do so on another machine.
    """
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if jobs else set()
    keys = [{word.partition("=")[0] for word in job.overrides} for job in jobs]
    everywhere = set.intersection(*keys) if keys else set()

    def tells(word: str) -> bool:
        key = word.partition("=")[0]
        aside = key in REMARKS or of_machine(word)
        return word not in shared and key != "seed" and (not aside or key in everywhere)

    return {job.number: " ".join(filter(tells, job.overrides)) for job in jobs}


def combinations(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Group the jobs by their overrides without the seed, in order of appearance."""
    labels = differing(jobs)
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(labels[job.number], []).append(job)
    return found


def metric_names(jobs: Iterable[Job]) -> list[str]:
    """Name the metrics that any job has: those of the table first, then by alphabet."""
    found = {name for job in jobs for name in job.metrics}
    return [name for name in COLUMNS if name in found] + sorted(found - COLUMNS.keys())


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None if there are too few values."""
    return (
        mean(values) if values else None,
        stdev(values) if len(values) > 1 else None,
    )


def summary_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Make a row for each combination of overrides without the seed; n: jobs that ended well."""
    rows, names = [], metric_names(jobs)
    for label, members in combinations(jobs).items():
        done = [job for job in members if job.error is None]
        row: dict[str, Any] = {
            "overrides": label,
            "n": len(done),
            "failed": len(members) - len(done),
        }
        for name in names:
            values = [job.metrics[name] for job in done if name in job.metrics]
            row[f"{name}_mean"], row[f"{name}_sd"] = mean_and_sd(values)
        rows.append(row)
    return rows


def job_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Make a row for each job."""
    names = metric_names(jobs)
    return [
        {
            "job": job.number,
            "overrides": " ".join(job.overrides),
            "status": "failed" if job.error else "done",
            **{name: job.metrics.get(name) for name in names},
            "error": job.error,
        }
        for job in jobs
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows whose keys are the columns; lines end as Excel wants it."""
    columns = list(rows[0]) if rows else []
    cells = ([row[name] for name in columns] for row in rows)
    files.write_csv(path, columns, cells, line_end="\r\n")


def show(jobs: Sequence[Job], directory: Path, console: Console) -> None:
    """Show the table of combinations, then the jobs that failed and why."""
    failed = [job for job in jobs if job.error]
    if len(failed) < len(jobs):
        console.print(
            f"\n{directory}: mean ± sample standard deviation over n seeds",
            markup=False,
            soft_wrap=True,
        )
        _show_tables(summary_rows(jobs), metric_names(jobs), console)
    if failed:
        count = "all" if len(failed) == len(jobs) else f"{len(failed)} of"
        console.print(
            f"{count} {plural(len(jobs), 'job')} failed (in their directories):", highlight=False
        )
    for line in failure_lines(failed):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _show_tables(rows: Sequence[dict[str, Any]], known: Sequence[str], console: Console) -> None:
    """Show a row for each combination: first the results, then what they have cost."""
    # Long overrides would leave no room for the numbers, so they are listed below the tables.
    left, rows = len(rows) - MAX_SHOWN, rows[:MAX_SHOWN]
    labels = [row["overrides"] or NO_WORDS for row in rows]
    beside = console.width >= 85 + max(map(len, labels))
    for columns in (RESULTS, COSTS):
        names = [name for name in columns if name in known]
        if not names:
            continue
        table = Table(
            "overrides" if beside else "#", "n", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for name in names:
            table.add_column(columns[name].title, justify="right", no_wrap=True)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True), 1):
            cells = [
                (columns[name].cost if columns is COSTS else columns[name].cell)(
                    row[f"{name}_mean"], row[f"{name}_sd"]
                )
                for name in names
            ]
            table.add_row(escape(label) if beside else str(number), str(row["n"]), *cells)
        console.print(table)
    for number, label in enumerate(labels, 1):
        if not beside:
            console.print(f"{number}  {label}", markup=False, highlight=False, soft_wrap=True)
    if left > 0:
        console.print(f"{plural(left, 'more combination')} in {SWEEP_SUMMARY}", highlight=False)


def failure_lines(failed: Sequence[Job]) -> list[str]:
    """Say why jobs failed, a line for each error; equal ones stand together."""
    found: dict[str, list[Job]] = {}
    for job in failed:
        found.setdefault(str(job.error).replace(str(job.directory), "JOB_DIR"), []).append(job)
    lines = []
    for error, jobs in found.items():
        job = jobs[0]
        if len(jobs) == 1:
            lines.append(f"{job.number}/ ({' '.join(job.overrides)}): {job.error}")
        else:
            numbers = ", ".join(str(job.number) for job in jobs)
            lines.append(f"{len(jobs)} jobs: {error} (jobs {shortened(numbers, 60)})")
    return lines


def summarise(directory: Path) -> None:
    """Show the results of a sweep, and write its tables and pictures."""
    from nasrun.report import sweep_methods, sweep_proxies, sweep_rankings  # matplotlib and scipy

    jobs = read_jobs(directory)
    # a file or pipe has no width of its own
    console = Console() if sys.stdout.isatty() else Console(width=160)
    show(jobs, directory, console)
    done = {
        label: [job.directory for job in members if job.error is None]
        for label, members in combinations(jobs).items()
    }
    compared = sweep_methods.compare_all(
        {
            label: [job for job in members if job.error is None]
            for label, members in combinations(jobs).items()
        }
    )
    pictures: list[Path] = []
    for methods in compared:
        sweep_methods.show(methods, console)
    if compared:
        pictures = sweep_methods.plot(compared[0], directory)
    proxies = sweep_proxies.compare(done)
    proxy_pictures: list[Path] = []
    if proxies is not None:
        sweep_proxies.show(proxies, console)
        proxy_pictures = sweep_proxies.plot(proxies, directory)
    for words, plotted in (
        ("the methods are in  ", pictures),
        ("the curves are in   ", sweep_rankings.plot_tau(done, directory)),
        ("the pictures are in ", sweep_rankings.plot(done, directory)),
        ("the proxies are in  ", proxy_pictures),
    ):
        names = ", ".join(path.name for path in plotted if path.suffix == ".png")
        if names:
            console.print(f"{words} {directory} ({names})", markup=False, soft_wrap=True)
    try:
        write_csv(directory / SWEEP_JOBS, job_rows(jobs))
        write_csv(directory / SWEEP_SUMMARY, summary_rows(jobs))
    except (OSError, UserError) as error:
        sys.stderr.write(f"nasrun: error: cannot write the summary in {directory}: {error}\n")


def exit_status(jobs: Sequence[Job]) -> int:
    """Exit status: 0: all jobs ended well; 2: all failed by the user's mistakes; else 1."""
    if not any(job.error for job in jobs):
        return 0
    return 2 if all(job.error and job.mended_by_user for job in jobs) else 1
