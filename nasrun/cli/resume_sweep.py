"""``nasrun resume SWEEP_DIR``: go on with all that is missing of a sweep that was stopped.

Its line is read from Hydra's record, as plain data, and given again with ``resume=auto``: jobs that
are done stay as they are, stopped ones go on, those that failed or never began are done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Glob, RangeSweep
from hydra.errors import HydraException

from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.cli.from_run import MAX_OVERRIDES, check_foreign
from nasrun.cli.resume import matches
from nasrun.config.compose import parse, quote
from nasrun.config.groups import groups, tasks
from nasrun.config.guard import SETTINGS
from nasrun.config.paths import readable
from nasrun.errors import UserError, shortened
from nasrun.report.run_files import job_files
from nasrun.run.commands import command
from nasrun.run.files import read_bytes
from nasrun.run.layout import RECORD, SWEEP_RECORD
from nasrun.run.provenance import MACHINE_SETTINGS, made_here

MAX_RECORD_BYTES = 2**20
"""Size of Hydra's record of a sweep that is still read; ours have 15,000 bytes."""

MAX_VALUES = 10_000
"""Upper bound of the values of one setting of a sweep."""

SET_ANEW = ("hydra.sweep.dir", "hydra.mode", "hydra.run.dir")
"""Settings of Hydra that are not taken from the record: they follow from the folder."""

CHANGEABLE = (*MACHINE_SETTINGS, "hydra.launcher.*", "hydra/launcher")
"""Patterns of the settings that may be given when a sweep goes on."""

_CHOICE = re.compile(r"hydra/(launcher|sweeper)(/\w+)?=\w+", re.ASCII)
_PLAIN = re.compile(rf"hydra\.({'|'.join(map(re.escape, SETTINGS))})=[\w./$:{{}}-]+", re.ASCII)


@dataclass(frozen=True)
class SweepLine:
    """The command line of a sweep, as Hydra has recorded it.

    overrides: without the task, those of several values as they were typed. hydra: settings under
    ``hydra``. directory: the working directory. options: whether it had a folder of options (-cd).
    """

    task: str
    overrides: tuple[str, ...]
    hydra: tuple[str, ...]
    directory: str
    options: bool

    def words(self, sweep: Path) -> list[str]:
        """Return the words of the line that goes on with the sweep, for a shell."""
        place = f"hydra.sweep.dir={quote(str(sweep))}"
        return [self.task, "-m", *self.overrides, *self.hydra, place, "resume=auto"]


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """A loader of plain data without references, by which a small file can mean a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references")
        return super().compose_node(parent, index)


def resume_sweep(sweep: Path, given: Sequence[str], config_dir: str | None) -> int:
    """Do what is left of a sweep; returns the exit status of its jobs.

    sweep: its folder. given: settings of the machine that change.
    Raises UserError if the sweep was not begun here, or its record is none.
    """
    from nasrun.cli.main import hydra_main

    line = read_line(sweep)
    if not begun_here(sweep):
        raise UserError(
            f"{sweep} has no job that was begun there by you, so its settings are not taken "
            f"unread; if you trust them: {command(*line.words(sweep))}"
        )
    config_dir = str(Path(config_dir).absolute()) if config_dir else None
    if line.options and config_dir is None:
        raise UserError("the sweep was begun with a folder of options: add it, -cd DIR")
    given = [readable(word) for word in given]
    keys = {checked_change(word) for word in given}
    own = [word for word in line.overrides if parse(word).get_key_element() not in keys]
    hydra = [word for word in line.hydra if word.partition("=")[0] not in keys]
    try:
        for word in own:
            check_swept(word, groups(config_dir), sweep / SWEEP_RECORD)
    except UserError as error:
        raise UserError(f"{error}; repeat the line: {command(*line.words(sweep))}") from error
    for word in hydra:
        if not (_CHOICE.fullmatch(word) or _PLAIN.fullmatch(word)):
            raise UserError(
                f"{shortened(word)} of the sweep is not taken from a file: say it again, "
                f"{command('resume', sweep, shortened(word))}"
            )
    place = f"hydra.sweep.dir={quote(str(sweep))}"
    overrides = (*own, *hydra, *given, place, "resume=auto")
    switches = (
        arguments.MULTIRUN[0],
        *((arguments.CONFIG_DIR[0], config_dir) if config_dir else ()),
    )
    back = line.directory if Path(line.directory).is_dir() else None
    with chdir(back) if back else nullcontext():
        return hydra_main(CommandLine(line.task, overrides, switches), ready=True)


def read_line(sweep: Path) -> SweepLine:
    """Read the line of a sweep; raises UserError if the record is damaged or none of nasrun."""
    path = sweep / SWEEP_RECORD
    try:
        root = _PlainLoader(read_bytes(path, MAX_RECORD_BYTES)).get_single_data()
        runtime, overrides = root["hydra"]["runtime"], root["hydra"]["overrides"]
        words, hydra = list(overrides["task"]), list(overrides["hydra"])
        sources = [source.get("provider") for source in runtime["config_sources"]]
        directory = runtime["cwd"]
    except (OSError, RecursionError, yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {shortened(' '.join(str(error).split()))}"
        ) from error
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not Hydra's record of a sweep") from error
    task = root.get("task")
    text = all(isinstance(word, str) for word in (*words, *hydra, directory))
    known = isinstance(task, str) and task in tasks()
    if not known or not text or len(words) + len(hydra) > MAX_OVERRIDES:
        raise UserError(f"{path} is no record of a sweep of nasrun")
    kept = [word for word in hydra if word.partition("=")[0] not in SET_ANEW]
    own = [word for word in words if word.partition("=")[0] not in ("task", "resume")]
    return SweepLine(task, tuple(own), tuple(kept), directory, "command-line" in sources)


def begun_here(sweep: Path) -> bool:
    """Tell whether the jobs of a sweep were begun in its folder by this user, and any was."""
    begun = [path for path in sweep.iterdir() if path.name.isdecimal() and (path / RECORD).exists()]
    return bool(begun) and all(made_here(job_files(path).record, path) for path in begun)


def check_swept(override: str, options: Mapping[str, list[str]], where: Path) -> None:
    """Check each value of an override from a file as ``from=RUN_DIR`` does; raises UserError."""
    known = dict(options)
    parsed = parse(override) if isinstance(override, str) else None
    if parsed is None or not parsed.is_sweep_override():
        check_foreign(override, known, where)
        return
    key = parsed.get_key_element()
    swept = parsed.value()
    if isinstance(swept, Glob) and key in options:  # its values are options that there are
        return
    if not parsed.is_discrete_sweep():  # interval(0,1), for a sweeper that chooses
        check_foreign(f"{key}=0", known, where)
        return
    refused = f"{where}: refused the override {shortened(override)}"
    if isinstance(swept, RangeSweep) and swept.shuffle:
        raise UserError(f"{refused}: a shuffled range is not taken from a file")
    try:
        values = list(islice(parsed.sweep_string_iterator(), MAX_VALUES + 1))
    except (HydraException, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise UserError(refused) from error
    if len(values) > MAX_VALUES:
        raise UserError(f"{refused}: it has over {MAX_VALUES:,} values")
    for value in values:
        check_foreign(f"{key}={value}", known, where)


def checked_change(word: str) -> str:
    """Return the key of a setting that the user gives; raises UserError if it must not change."""
    parsed = parse(word)
    key = parsed.get_key_element()
    if parsed.is_sweep_override() or not matches(key, CHANGEABLE):
        raise UserError(
            f"{word}: a sweep goes on with its own settings; what may change: "
            f"{', '.join(CHANGEABLE)}. For more jobs repeat its line with resume=auto"
        )
    return key
