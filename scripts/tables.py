"""Helpers for tables of papers: run a sweep, and show its numbers beside a paper's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

from rich import box
from rich.console import Console
from rich.table import Table

from nasrun.cli.main import main
from nasrun.report.run_files import Job, job_files, read_jobs
from nasrun.report.sweep import combinations

Measure = Callable[[Path], float | None]
"""A number of a run directory, or None if the run does not have it."""


def sweep(words: Sequence[str], doc: str | None) -> dict[str, list[Job]]:
    """Run ``nasrun WORDS`` as a sweep, or read an existing one; returns jobs by overrides."""
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n")[0],
        epilog="Further words go to nasrun: effort=smoke, device=cpu, seed=0,1,2, resume=auto ...",
    )
    parser.add_argument("--of", type=Path, help="a sweep that has been run: only print the table")
    parser.add_argument("--into", type=Path, help="directory of the sweep")
    arguments, further = parser.parse_known_args()
    directory: Path = arguments.of or arguments.into or Path("outputs", Path(sys.argv[0]).stem)
    if arguments.of is None:
        # A word of the user replaces ours, since Hydra takes each key once.
        ours = [word for word in words if not any(_key(word) == _key(other) for other in further)]
        if status := main([*ours, *further, f"hydra.sweep.dir={directory}"]):
            sys.exit(status)
    jobs = [job for job in read_jobs(directory) if job.error is None]
    if not jobs:
        sys.exit(f"{directory} has no job that ended well")
    return combinations(jobs)


def _key(word: str) -> str:
    return word.split("=", 1)[0]


def with_words(jobs: dict[str, list[Job]], *words: str) -> list[Job]:
    """Return the jobs that were run with all of ``words`` on their command line."""
    every = [job for members in jobs.values() for job in members]
    return [job for job in every if set(words) <= set(job.overrides)]


def result_of(directory: Path, name: str) -> float | None:
    """Return a number of result.json, or None if the run does not have it."""
    value = job_files(directory).result.get(name)
    return None if value is None else float(value)


def pairs(directory: Path) -> float | None:
    """Return the pairwise accuracy of a ranking at the end of its training."""
    return result_of(directory, "pairwise_accuracy")


def test_error(directory: Path) -> float | None:
    """Return the share of test images that the retrained winner gets wrong."""
    accuracy = result_of(directory, "test_accuracy")
    return None if accuracy is None else 1 - accuracy


def ours(jobs: Sequence[Job], measure: Measure, factor: float = 100, digits: int = 2) -> str:
    """Write mean ± sample standard deviation over the jobs, times ``factor``."""
    values = [factor * value for job in jobs if (value := measure(job.directory)) is not None]
    if not values:
        return "-"
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread} (n={len(values)})"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"\n{title}")
    console.print(table)
