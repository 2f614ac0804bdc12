"""``nasrun resume RUN_DIR``: continue a run, which may be a stranger's.

The whole configuration is taken from run.json as plain values and built through the allow-list;
nothing in it is interpolated, composed or looked up in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nasrun.cli.launch import launched
from nasrun.cli.stores import keep_near, with_places
from nasrun.config.compose import flatten, parse
from nasrun.config.groups import tasks
from nasrun.config.paths import absolute, is_path, readable, with_absolute
from nasrun.errors import UserError
from nasrun.report.run_files import RunDirectory
from nasrun.run.files import at_home
from nasrun.run.layout import RECORD
from nasrun.run.lock import Lock
from nasrun.run.provenance import MACHINE_SETTINGS, made_here
from nasrun.run.screen import Screen

SETTINGS_OF_NEW_RUNS = ("resume", "outputs")
"""Settings that have no meaning once a run has a directory."""

REMARKS = ("name", "notes")
"""Settings that say nothing of how a run computes. Notes do not identify a run; a name does."""

Changes = dict[str, Any]
"""Full key -> its new value."""


def resume(directory: Path, overrides: Sequence[str]) -> None:
    """Resume a run for the user, with a few settings changed.

    Raises UserError if ``directory`` is no run, is in use, or a setting must not change.
    """
    directory = at_home(directory)
    overrides = list(map(readable, overrides))
    if not directory.is_dir():
        raise UserError(f"{directory}: there is no such directory")
    if not RunDirectory(directory).has(RECORD):
        raise UserError(f"{directory} has no {RECORD}, so no run has begun in it")
    changes: Changes = {}
    for override in overrides:
        parsed = parse(override)
        key = parsed.get_key_element().replace("/", ".")
        if parsed.is_sweep_override() or key[0] in "+~" or "@" in key:
            raise UserError(f"{override}: resume takes only KEY=VALUE")
        changes[key] = parsed.value()
    with Lock(directory.absolute()) as lock:
        tell_of_stale(lock)
        with continued(directory.absolute(), changes, list(overrides), trusted=False) as go:
            go()


@contextmanager
def continued(
    directory: Path, changes: Changes, overrides: list[str], *, trusted: bool
) -> Iterator[Callable[[], object]]:
    """Yield the function that continues the run in ``directory``, whose lock is held.

    If the run is finished, the function only says so.

    trusted: whether the user has just typed the settings. If not, and if the run was not begun in
    this directory by this user, it may be a stranger's, which must not choose where data sets are
    downloaded to or where ground truth is stored.
    """
    run = RunDirectory(directory)
    settings = deepcopy(run.config)
    if run.task not in tasks() or settings.get("task") != run.task:
        raise UserError(f"{directory / RECORD} names no task and configuration of nasrun")
    from nasrun.task.base import find_task

    task = find_task(run.task)
    changed = apply(settings, changes, task.changeable)
    if run.status == "done" and "retrain.trainer.epochs" not in changed:
        reached = run.result.get("test_accuracy")
        words = f", test accuracy {100 * reached:.2f} %" if isinstance(reached, float) else ""
        line = f"the run in {directory} is finished{words}: nothing is left to do"
        yield partial(Screen().say, line)
        return
    trusted = trusted or made_here(run.record, directory)
    if not trusted:
        for line in keep_near(settings, directory, changes, task.stores):
            Screen().say(line, "yellow")
        if loses_logger(settings):
            words = "so it is logged for TensorBoard alone"
            Screen().say(f"this run was not begun here by you, {words}", "yellow")
    dataset = settings.get("dataset")
    fetch = trusted or "dataset.download" in changes
    if isinstance(dataset, dict) and dataset.get("download") and not fetch:
        dataset["download"] = False
        words = "add dataset.download=true if that is wanted"
        Screen().say(f"nothing is downloaded for a run that was not begun here: {words}", "yellow")
    with launched(settings, directory, overrides, earlier=run.earlier, changed=changed) as go:
        yield go


def loses_logger(settings: dict[str, Any]) -> bool:
    """Keep a stranger's run from telling other programs; returns whether it would have."""
    logger = settings.get("logger")
    target = logger.get("_target_") if isinstance(logger, dict) else None
    if target in (None, "nasrun.run.loggers.TensorBoard", "nasrun.run.loggers.NoLogger"):
        return False
    del settings["logger"]
    return True


def apply(settings: dict[str, Any], changes: Changes, changeable: Sequence[str]) -> frozenset[str]:
    """Put ``changes`` into ``settings``; returns the keys whose values have changed.

    Raises UserError if a setting does not exist or must not change.
    """
    known = flatten(settings)
    changed = set()
    for key, value in changes.items():
        node: Any = settings
        *parents, leaf = key.split(".")
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        exists = isinstance(node, dict) and leaf in node
        if key in SETTINGS_OF_NEW_RUNS or (exists and same(key, node[leaf], value)):
            continue
        if not exists or not matches(key, (*changeable, *REMARKS)):
            was = f" (it is {node[leaf]!r})" if exists and key in known else ""
            raise UserError(
                f"{key}={value}: a run cannot go on with another {key}{was}; what may change: "
                f"{', '.join((*changeable, *REMARKS))}. For anything else start a new run"
            )
        node[leaf] = value
        changed.add(key)
    return frozenset(changed)


def same(key: str, one: Any, other: Any) -> bool:
    """Tell whether two values of a setting mean the same; a path may be written as relative."""
    return bool(one == other or (is_path(key) and absolute(one) == absolute(other)))


def differences(settings: Mapping[str, Any], directory: Path) -> Changes:
    """Find the settings that differ from those of the run in ``directory``."""
    from nasrun.task.base import find_task

    run = RunDirectory(directory)
    stores = find_task(run.task).stores if run.task in tasks() else {}
    then, now = (
        flatten(with_absolute(with_places(config, stores))) for config in (run.config, settings)
    )
    gone = {key: None for key in then if key not in now}
    return gone | {key: now[key] for key in now if key not in then or then[key] != now[key]}


def run_name(
    task: str, overrides: Sequence[str], config_dir: str | None, *, sweep: bool = False
) -> str:
    """Name the directory of ``resume=auto``; equal command lines give equal names.

    Settings of the machine alone make no difference, nor do the seeds of a sweep: with one seed
    more it is the same sweep.
    """
    meant = sorted(
        override
        for override in identity(overrides)
        if not (sweep and parse(override).get_key_element() == "seed")
    )
    text = "\n".join([task, config_dir or "", *meant])
    return f"auto_{blake2b(text.encode(), digest_size=5).hexdigest()}"


def identity(overrides: Iterable[str]) -> frozenset[str]:
    """Return the overrides that say what a run is, not how this machine computes it."""
    return frozenset(
        override
        for override in overrides
        if not matches(
            parse(override).get_key_element(), (*MACHINE_SETTINGS, *SETTINGS_OF_NEW_RUNS, "notes")
        )
    )


def matches(key: str, patterns: Sequence[str]) -> bool:
    """Tell whether a key fits any of the patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def tell_of_stale(lock: Lock) -> None:
    """Say whose lock is taken over, if its process died."""
    if lock.stale:
        Screen().say(f"taking over the lock that {lock.stale} has left behind")
