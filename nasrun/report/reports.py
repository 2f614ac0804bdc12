"""Reports of runs and sweeps: the document, and its two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.errors import UserError
from nasrun.report.document import Document
from nasrun.report.html.page import GENERATOR, page
from nasrun.report.markdown import markdown
from nasrun.report.run_files import Job, job_files
from nasrun.report.sections import (
    caution,
    comparison,
    curves,
    headline,
    others,
    ranking,
    repeat,
    sweep,
    sweep_jobs,
    training,
    trials,
    winner,
)
from nasrun.report.sections.sweep import SweepView
from nasrun.report.sections.view import RunView
from nasrun.run.files import read_beginning, write_bytes

if TYPE_CHECKING:
    from nasrun.search_space.base import SearchSpace  # needs torch, which is slow to import


def of_run(directory: Path, space: SearchSpace | None, *, going: bool = False) -> Document:
    """Return the report of one run; sections without data are left out.

    space: its search space; None: it cannot be built. going: whether a process works on it now.
    """
    view = RunView(job_files(directory), space, going)
    name = view.setting("name")
    title = f"{view.run.task or 'run'} {name if isinstance(name, str) else directory.name}"
    return Document(
        title[:200],
        headline.asked(view),
        [
            headline.came_out(view),
            winner.winner(view),
            trials.trials(view),
            ranking.ranking(view),
            comparison.comparison(view),
            others.others(view),
            curves.curves(view),
            winner.lineage(view),
            training.health(view),
            training.data(view),
            caution.caution(view),
            repeat.repeat(view),
        ],
    )


def of_jobs(jobs: Sequence[Job], place: Path | None) -> Document:
    """Return the report of a sweep in ``place``, or of several runs that were named (None)."""
    view = SweepView(jobs, place)
    task = view.tasks[0] if len(view.tasks) == 1 else ""
    title = f"{task} sweep {place.name}".strip() if place is not None else f"{len(jobs)} runs"
    return Document(
        title[:200],
        sweep.asked(view),
        [
            sweep.came_out(view),
            sweep.table(view),
            sweep.tests(view),
            sweep_jobs.settings(view),
            sweep_jobs.failures(view),
            sweep_jobs.jobs(view),
            sweep_jobs.caution(view),
            sweep_jobs.repeat(view),
        ],
    )


def write(document: Document, html: Path) -> list[Path]:
    """Write the page, and the text beside it with the suffix ``.md``; returns both paths.

    Raises UserError instead of replacing a file that is no report of ours.
    """
    text = html.with_suffix(".md")
    for path in (html, text):
        if path.exists() and GENERATOR not in _beginning(path):
            raise UserError(
                f"{path} is no report that nasrun has written, so it is not replaced: name another "
                "file with out=FILE.html"
            )
    write_bytes(html, page(document).encode(errors="replace"))
    write_bytes(text, markdown(document).encode(errors="replace"))
    return [html, text]


def _beginning(path: Path) -> str:
    try:
        return read_beginning(path, 4096)[0].decode(errors="replace")
    except UserError:  # a link, which is replaced by a file of its own
        return GENERATOR
