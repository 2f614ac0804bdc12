"""Prepare a task to run in its directory: a new run, or one that is continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from nasrun.cli.stores import with_places
from nasrun.config.build import build, build_setup
from nasrun.config.compose import check_top_level
from nasrun.config.paths import with_absolute
from nasrun.run.layout import ResumedRun


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
    name = str(settings["task"])
    check_top_level(settings, name)
    import torch

    from nasrun.run.compute import Compute
    from nasrun.run.run import Run
    from nasrun.task.base import Task, find_task

    found = find_task(name)
    settings = with_places(settings, found.stores)
    # A continued run has copies of its inputs and reads nothing outside its directory again.
    source = (
        found.source(settings) if earlier is None else found.copy_of_source(settings, directory)
    )
    setup = build_setup(settings)
    own = found.settings
    task = cast(Task, build(settings[own], own, (found,))) if own else found()
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    run = Run(
        directory,
        task=name,
        config=with_absolute(settings),
        overrides=overrides,
        seed=setup.seed,
        compute=Compute.choose(
            setup.device,
            precision=setup.precision,
            deterministic=setup.deterministic,
            batch_size=setup.batch_size,
            on_nonfinite=setup.on_nonfinite,
        ),
        checkpoint=setup.checkpoint,
        earlier=earlier,
        changed=changed,
    )
    try:
        yield partial(task.run, setup, run, source)
    finally:
        run.close()
