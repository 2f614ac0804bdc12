"""From a resolved configuration to a task that runs in its directory, anew or continued."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from nasrun.config.build import build_setup
from nasrun.config.compose import check_top_level
from nasrun.errors import UserError
from nasrun.run.files import read_json_or_text
from nasrun.run.layout import ARCHITECTURE, FRONT, SUPERNET, Earlier


def launch(
    settings: Mapping[str, Any],
    directory: Path,
    overrides: list[str],
    *,
    earlier: Earlier | None = None,
    changed: frozenset[str] = frozenset(),
) -> None:
    """Build the setup and call the task; the caller holds the lock of ``directory``.

    earlier: the run to be continued; changed: the settings it had otherwise.
    """
    task = str(settings["task"])
    check_top_level(settings, task)
    try:
        run_task = getattr(import_module(f"nasrun.task.{task}"), task)  # imports torch
    except ModuleNotFoundError as error:
        if error.name != f"nasrun.task.{task}":
            raise
        raise UserError(f"task {task} has no code: there is no module {error.name}") from error
    # A run that is continued has its own copies: nothing outside its directory is read again.
    further = {}
    parameters = inspect.signature(run_task).parameters
    if "source" in parameters:
        further["source"] = source(settings) if earlier is None else directory / ARCHITECTURE
    if "weights" in parameters and settings.get("from") is not None:
        place = Path(str(settings["from"])).expanduser() if earlier is None else directory
        further["weights"] = place / SUPERNET
    setup = build_setup(settings)
    import torch

    from nasrun.run.compute import Compute
    from nasrun.run.run import Run

    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    run = Run(
        directory,
        task=task,
        config=settings,
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
        run_task(setup, run, **further)
    finally:
        run.close()


def source(settings: Mapping[str, Any]) -> Path:
    """The file with the architecture to retrain; raises UserError unless exactly one is given."""
    directory, file, pick = (settings.get(key) for key in ("from", "architecture", "pick"))
    if (directory is None) == (file is None):
        raise UserError("retrain needs either from=RUN_DIR or architecture=FILE")
    if pick is not None and directory is None:
        raise UserError("pick is a place in the front of a search: it needs from=RUN_DIR")
    name = ARCHITECTURE if pick is None else FRONT
    path = Path(str(file)) if directory is None else Path(str(directory)) / name
    path = path.expanduser()
    if directory is None:
        path = path.resolve()  # the user's own file may well be a link
    hint = f"give the {ARCHITECTURE} of a search, or an architecture as its space writes it"
    if pick is not None:
        hint = "pick needs a search that ended with a front (search_algo=nsga2)"
    read_json_or_text(path, hint)
    return path
