"""Reports at the end of runs and sweeps; a failure of one never fails the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.errors import UserError
from nasrun.run.files import printable
from nasrun.run.layout import REPORT_PAGE

if TYPE_CHECKING:
    from nasrun.search_space.base import SearchSpace

Say = Callable[[str], object]


def check(settings: Mapping[str, Any]) -> None:
    """Raise UserError if the setting ``report`` is no truth value."""
    if not isinstance(settings.get("report", True), bool):
        raise UserError(f"report={settings['report']}: must be true or false")


def wanted(settings: Mapping[str, Any]) -> bool:
    """Tell whether a report is written at the end."""
    return settings.get("report", True) is True


def after_run(settings: Mapping[str, Any], directory: Path, space: SearchSpace, say: Say) -> None:
    """Write the report of a run that has just ended; says why if that fails.

    A job of a sweep gets none: a page contains the library of its charts, so a thousand would take
    a gigabyte, and the sweep has one page for all.
    """
    if not wanted(settings) or _in_sweep():
        return
    try:
        from nasrun.report import reports

        reports.write(reports.of_run(directory, space), directory / REPORT_PAGE)
    except Exception as error:  # whatever it is, the run itself is done
        say(_trouble(error))


def after_sweep(settings: Mapping[str, Any], directory: Path) -> None:
    """Write the report of a sweep that has just ended; says where it is, or why it is not."""
    if not wanted(settings):
        return
    try:
        from nasrun.report import reports
        from nasrun.report.run_files import read_jobs

        jobs = read_jobs(directory)
        if not jobs:
            return
        reports.write(reports.of_jobs(jobs, directory), directory / REPORT_PAGE)
        sys.stdout.write(f"the report is in     {directory / REPORT_PAGE}\n")
    except Exception as error:
        sys.stderr.write(f"nasrun: {_trouble(error)}\n")


def _trouble(error: Exception) -> str:
    words = printable(" ".join(str(error).split())[:300])
    return f"no report was written: {words or type(error).__name__}"


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig

    from nasrun.cli.sweep_job import in_sweep

    return bool(HydraConfig.initialized() and in_sweep())
