"""Write report.html, one page that tells a run, a sweep, or several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError
from nasrun.run.files import at_home, printable

if TYPE_CHECKING:
    from nasrun.report.document import Document
    from nasrun.search_space.base import SearchSpace

USAGE = "RUN_OR_SWEEP ... [out=FILE.html]"
SWITCHES = ()


def run(line: CommandLine) -> int:
    """Write the report of what the words name; says where it is."""
    from nasrun.cli.run_names import resolve
    from nasrun.report import reports
    from nasrun.run.layout import REPORT_PAGE

    out = [word.removeprefix("out=") for word in line.overrides if word.startswith("out=")]
    named = [word for word in line.overrides if not word.startswith("out=")]
    if line.switches or not named or len(out) > 1:
        switch = f", and no switch like {line.switches[0]}" if line.switches else ""
        raise UserError(f"report takes directories of runs: nasrun report {USAGE}{switch}")
    places = list(dict.fromkeys(resolve(word, best=False) for word in named))
    page = places[0] / REPORT_PAGE if len(places) == 1 else Path(REPORT_PAGE).absolute()
    if out:
        page = at_home(out[0]).absolute()
        if page.suffix not in (".html", ".htm"):
            raise UserError(f"out={out[0]}: the name of a page ends with .html")
        if not page.parent.is_dir():
            raise UserError(f"out={out[0]}: there is no folder {page.parent}")
    document = document_of(places)
    try:
        written = reports.write(document, page)
    except OSError as error:
        raise UserError(
            f"cannot write {page}: {error.strerror}; name another file with out=FILE.html"
        ) from error
    sys.stdout.write(f"report    {written[0]}\nas text   {written[1]}\n")
    return 0


def document_of(places: Sequence[Path]) -> Document:
    """Return the report of runs and sweeps; raises UserError if a directory is neither."""
    from nasrun.report import reports
    from nasrun.report.run_files import RunDirectory, read_job, read_jobs
    from nasrun.report.run_list import is_sweep
    from nasrun.run.layout import RECORD, RESULT
    from nasrun.run.lock import is_held

    sweeps = {place for place in places if is_sweep(place)}
    for place in places:
        if place not in sweeps and not any(RunDirectory(place).has(n) for n in (RECORD, RESULT)):
            raise UserError(
                f"{place} has no {RECORD}, so no run has begun in it, and it is no sweep"
            )
    if len(places) == 1 and not sweeps:
        run = RunDirectory(places[0])  # a damaged record is refused here, by name
        record = run.record if run.has(RECORD) else {}  # a job that was refused has none
        return reports.of_run(places[0], space_of(record), going=is_held(places[0]))
    if len(places) == 1:
        found = read_jobs(places[0])
        if not found:
            raise UserError(f"{places[0]} is a sweep without any job")
        return reports.of_jobs(found, places[0])
    folders: list[Path] = []
    for place in places:
        folders += [job.directory for job in read_jobs(place)] if place in sweeps else [place]
    return reports.of_jobs([read_job(each, number) for number, each in enumerate(folders, 1)], None)


def space_of(record: dict[str, object]) -> SearchSpace | None:
    """Build the search space of a run; None, and a note, if that is not possible here."""
    from nasrun.building.build import build
    from nasrun.search_space.base import SearchSpace

    config = record.get("config")
    node = config.get("search_space") if isinstance(config, dict) else None
    try:
        found = build(node, "search_space", (SearchSpace,))
    except (ArithmeticError, LookupError, TypeError, ValueError, UserError) as error:
        words = printable(" ".join(str(error).split())[:300])
        sys.stderr.write(f"nasrun: note: architectures are shown by their choices: {words}\n")
        return None
    return found if isinstance(found, SearchSpace) else None
