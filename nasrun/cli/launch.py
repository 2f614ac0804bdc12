"""Prepare a task to run in its directory: a new run, or one that is continued."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nasrun.cli import commands, reporting
from nasrun.cli.stores import with_places
from nasrun.config.build import build, build_setup
from nasrun.config.compose import check_top_level
from nasrun.config.efforts import made_up
from nasrun.config.groups import tasks
from nasrun.config.other_data import fit_to_data
from nasrun.config.paths import with_absolute, with_homes
from nasrun.config.prune import leave_out
from nasrun.config.unused import refuse_unused_sampler
from nasrun.errors import Mistakes
from nasrun.run.layout import ResumedRun

if TYPE_CHECKING:
    from nasrun.run.compute import Compute
    from nasrun.task.base import Task
    from nasrun.task.setup import Setup


@dataclass(frozen=True)
class Prepared:
    """All that a task needs to run, built and checked.

    settings: with absolute places of shared folders. source: file of another run, if any.
    """

    name: str
    settings: dict[str, Any]
    source: Path | None
    setup: Setup
    task: Task
    compute: Compute


def fitted(
    settings: dict[str, Any], overrides: Sequence[str], config_dir: str | None
) -> dict[str, Any]:
    """Return the settings as they are used: a recipe's fitted to what the command line chooses.

    Notes of what is left out or changed go to standard error.
    overrides: of the command line. config_dir: the user's folder of options, if any.
    """
    settings = with_homes(settings)
    notes = []
    if left_out := leave_out(settings, overrides):
        notes.append(f"the recipe's {', '.join(left_out)} mean nothing to the chosen option")
    notes += fit_to_data(settings, overrides, config_dir)
    notes += filter(None, [made_up(overrides, config_dir)])
    for note in notes:
        sys.stderr.write(f"nasrun: note: {note}\n")
    refuse_unused_sampler(settings, overrides)
    return settings


def prepare(settings: Mapping[str, Any], *, continued: Path | None = None) -> Prepared:
    """Build all that a task needs; raises all mistakes that are found as one error.

    continued: the directory of the run that goes on; None: a new run.
    """
    name = str(settings["task"])
    mistakes = Mistakes()
    with mistakes:
        check_top_level(settings, name)
    with mistakes:
        reporting.check(settings)
    from nasrun.run.compute import Compute
    from nasrun.run.threads import set_threads
    from nasrun.task.base import Task, find_task

    found = find_task(name)
    settings = with_places(settings, found.stores)
    with mistakes:
        # A continued run has copies of its inputs and reads nothing outside its directory again.
        source = (
            found.source(settings)
            if continued is None
            else found.copy_of_source(settings, continued)
        )
    setup: Setup | None = None
    with mistakes:
        setup = build_setup(settings)
    if setup is None and isinstance(device := settings.get("device"), str):
        with mistakes:  # else it is chosen below
            Compute.choose(device, precision="auto", deterministic=False)
    own = found.settings
    with mistakes:
        task = cast(Task, build(settings[own], own, (found,))) if own else found()
    mistakes.report()
    assert setup is not None  # else its mistakes have been reported  # noqa: S101
    set_threads(setup.threads)
    compute = Compute.choose(
        setup.device,
        precision=setup.precision,
        deterministic=setup.deterministic,
        batch_size=setup.batch_size,
        on_nonfinite=setup.on_nonfinite,
        sync_batch_norm=setup.sync_batch_norm,
        compiling=setup.compile,
        repeats=found.repeats_shapes,
    )
    return Prepared(name, settings, source, setup, task, compute)


@contextmanager
def launched(
    settings: Mapping[str, Any],
    directory: Path,
    overrides: list[str],
    *,
    earlier: ResumedRun | None = None,
    changed: frozenset[str] = frozenset(),
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Build all that a task needs, and yield the function that runs it.

    The caller holds the lock of ``directory``.
    earlier: the run to be continued. changed: settings that differ from those it had.
    """
    ready = prepare(settings, continued=None if earlier is None else directory)
    from nasrun.run.run import Run

    run = Run(
        directory,
        task=ready.name,
        config=with_absolute(ready.settings),
        overrides=overrides,
        seed=ready.setup.seed,
        compute=ready.compute,
        checkpoint=ready.setup.checkpoint,
        earlier=earlier,
        changed=changed,
        logger=ready.setup.logger,
    )

    def go() -> dict[str, Any]:
        result = ready.task.run(ready.setup, run, ready.source)
        if run.writes:
            reporting.after_run(
                ready.settings,
                directory,
                ready.setup.search_space,
                lambda words: run.say(words, "yellow"),
            )
        run.say_end([*tasks(), *commands.names()])
        return result

    try:
        yield go
    finally:
        run.close()
