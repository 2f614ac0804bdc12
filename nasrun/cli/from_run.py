"""``from=RUN_DIR``: take plain settings from an earlier run, which may be a stranger's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasrun.cli.run_names import LATEST, OUTPUTS, resolve
from nasrun.config.compose import compose, flatten, parse, quote
from nasrun.config.explain import CONFIGURATION_ERRORS, explain
from nasrun.config.groups import groups
from nasrun.config.paths import is_path, with_absolute
from nasrun.errors import UserError, shortened
from nasrun.report.run_files import RunDirectory
from nasrun.run.commands import command
from nasrun.run.files import at_home, printable
from nasrun.run.layout import RECORD
from nasrun.task.base import Task, find_task

SETTINGS_NOT_TAKEN = (
    *("task", "from", "architecture", "pick", "trial", "outputs", "resume", "name", "notes"),
    "report",
    *("rank.truth_store", "budget.latency.store", "evaluator.store", "rank.also.store"),
)
"""Settings of the earlier run that are not taken over: they say what it did and where."""

MAX_OVERRIDES = 200
"""Upper bound of the overrides taken from a run, since a stranger's run may hold any number."""

MAX_OVERRIDE_CHARACTERS = 1000
"""Length of an override that is taken from a run."""

MAX_BRACKETS = 20
"""Opening brackets, or dots of a key, in an override: Hydra reads both by recursion."""


@dataclass(frozen=True)
class EarlierRun:
    """A run whose settings are taken over.

    overrides: settings that say how it was run. config: the whole configuration at that time.
    """

    directory: Path
    task: str
    overrides: tuple[str, ...]
    config: dict[str, Any]
    _composed: dict[str | None, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def read(directory: Path, needed: str, config_dir: str | None) -> EarlierRun:
        """Read a run; raises UserError if it is no run, or if an override is refused.

        needed: a file that the run must have written.
        """
        if not directory.is_dir():
            raise UserError(f"from={directory}: there is no such directory")
        run = RunDirectory(directory)
        overrides, task, config = run.overrides, run.task, run.config
        if not run.has(needed):
            raise UserError(
                f"{directory} has no {needed} yet: if the run was stopped, go on with it "
                f"({command('resume', directory)})"
            )
        if needed.endswith(".json"):
            run.read_object(needed)
        if len(overrides) > MAX_OVERRIDES:
            raise UserError(f"{directory / RECORD} has {len(overrides)} overrides, too many")
        options = groups(config_dir)
        record, recorded = directory / RECORD, flatten(config)
        kept = [
            in_place(override, recorded)
            for override in overrides
            if check_foreign(override, options, record) not in SETTINGS_NOT_TAKEN
        ]
        for override in kept:
            check_foreign(override, options, record)
        return EarlierRun(directory, task, tuple(kept), config)

    def split(self) -> str:
        """The override that sets the split of images of that run.

        A supernet must not be scored on images that it was trained on. Raises UserError if
        run.json does not hold the split.
        """
        seed = self.config.get("split_seed", self.config.get("seed"))
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise UserError(f"{self.directory / RECORD} has no seed of a split")
        return f"split_seed={seed}"

    def merged(self, overrides: Iterable[str], config_dir: str | None) -> list[str]:
        """Return the run's overrides that the user does not replace, then the user's overrides."""
        mine = list(overrides)
        own_keys = {parse(override).get_key_element().lstrip("+~") for override in mine}
        options = groups(config_dir)
        replaced = {place_of(word) for word in mine if parse(word).key_or_group in options}
        kept = [
            override
            for override in (*self.overrides, *self.images(config_dir))
            if (key := parse(override).get_key_element()) not in own_keys
            # If the user chooses another option, settings of the old option mean nothing.
            and not any(key.startswith(f"{group}.") for group in replaced)
        ]
        if "dataset.download" not in own_keys and self._places_data(kept, config_dir):
            kept.append("dataset.download=false")
        return [*kept, *mine]

    def images(self, config_dir: str | None) -> list[str]:
        """Return an override that finds the run's images, where the default folder is not here.

        A run that was begun elsewhere with the default folder has recorded where that is.
        """
        dataset = self.config.get("dataset")
        root = dataset.get("root") if isinstance(dataset, dict) else None
        given = any(place_of(word) == "dataset.root" for word in self.overrides)
        if given or not isinstance(root, str) or not Path(root).is_absolute():
            return []
        if not is_folder(root):
            return []
        default = self._today(config_dir).get("dataset.root")
        if not isinstance(default, str) or is_folder(default):
            return []
        override = f"dataset.root={quote(root)}"
        check_foreign(override, groups(config_dir), self.directory / RECORD)
        return [override]

    def _places_data(self, kept: list[str], config_dir: str | None) -> bool:
        """Tell whether ``kept`` would download a data set to a folder that the run chose.

        The folder may be anywhere, and the user has not been asked.
        """
        if not any(parse(override).get_key_element() == "dataset.root" for override in kept):
            return False
        return "dataset.download" in self._today(config_dir)

    def _today(self, config_dir: str | None) -> dict[str, Any]:
        """Return full key -> value of the run's overrides with the defaults of today."""
        if config_dir not in self._composed:
            self._composed[config_dir] = flatten(compose(self.overrides, config_dir))
        return self._composed[config_dir]

    def changed_defaults(
        self, overrides: Iterable[str], config_dir: str | None
    ) -> dict[str, tuple[Any, Any]]:
        """Find settings whose default has changed since the run: key -> (then, now).

        Settings in ``overrides``, or unknown to the earlier run, are left out.
        """
        if self.task not in groups(config_dir)["task"]:
            return {}
        composed = compose([*self.overrides, f"task={self.task}"], config_dir)
        then, now = flatten(with_absolute(self.config)), flatten(with_absolute(composed))
        given = [place_of(word) for word in (*overrides, *self.images(config_dir))]
        return {
            key: (then[key], value)
            for key, value in now.items()
            if key in then
            and then[key] != value
            and not {key, key.partition(".")[0]} & {*SETTINGS_NOT_TAKEN}
            and not any(key == other or key.startswith(f"{other}.") for other in given)
        }


def in_place(override: str, recorded: Mapping[str, Any]) -> str:
    """Return an override whose relative path is the absolute one that the run has recorded.

    So it means the same folder wherever the run is used. recorded: full key -> value, as in
    run.json; older runs recorded relative paths, which stay so.
    """
    parsed = parse(override)
    key = parsed.get_key_element()
    if not is_path(key):
        return override
    value, place = parsed.value(), recorded.get(key)
    if not isinstance(value, str) or not isinstance(place, str) or not Path(place).is_absolute():
        return override
    parts, whole = Path(value).parts, Path(place).parts
    meant = not Path(value).is_absolute() and whole[len(whole) - len(parts) :] == parts
    return f"{key}={quote(place)}" if meant else override


def earlier_run(task: str, given: Mapping[str, str]) -> Path:
    """Return the absolute directory of the run that ``from=`` names on the line of a task.

    given: the values of from, outputs and resume, as far as they are on the line.
    For a task that takes it, the file itself may be named; it is returned then.
    """
    file = at_home(given["from"])
    if file.is_file() and find_task(task).takes_file:
        return file.absolute()
    if given["from"] == LATEST and given.get("resume") == "auto":
        raise UserError(
            "from=latest resume=auto: the latest run is another one when the line is repeated; "
            "give the run's name or its directory"
        )

    def needed() -> str | None:  # torch takes seconds to import, so unknown runs come first
        return find_task(task).takes

    try:
        return resolve(given["from"], needed=needed, outputs=given.get("outputs", OUTPUTS))
    except UserError as error:
        raise UserError(f"from={error}") from error


def place_of(override: str) -> str:
    """Return the setting that an override sets: ``rank.also`` of ``evaluator@rank.also=kl``."""
    parsed = parse(override)
    return parsed.package or parsed.key_or_group.replace("/", ".")


def is_folder(name: str) -> bool:
    """Tell whether there is a folder of this name, which may be any text."""
    try:
        return Path(name).is_dir()
    except OSError:  # too long a name
        return False


def check_foreign(override: object, options: dict[str, list[str]], where: Path) -> str:
    """Return the key of an override from a file; raises UserError unless it is a plain setting.

    Refused are additions and deletions, sweeps, interpolations, Hydra's own settings, and options
    that do not exist here (an option is the path of a file).
    """
    refused = f"{where}: refused the override {shortened(repr(override))}"
    if not isinstance(override, str) or override.startswith("-") or "${" in override:
        raise UserError(f"{refused}: only plain KEY=VALUE is taken from a run")
    nested = max(sum(map(override.count, "[{(")), override.partition("=")[0].count("."))
    if len(override) > MAX_OVERRIDE_CHARACTERS or nested > MAX_BRACKETS:
        raise UserError(f"{refused}: it is longer, or more deeply nested, than any setting")
    try:
        parsed = parse(override)
    except UserError as error:
        raise UserError(f"{refused}: {error}") from error
    if parsed.is_sweep_override() or parsed.get_key_element()[0] in "+~":
        raise UserError(f"{refused}: only plain KEY=VALUE is taken from a run")
    key, package = parsed.key_or_group, parsed.package or ""
    heads = {part for name in (key, package) for part in name.replace("/", ".").split(".")[:1]}
    if "hydra" in heads or "hydra" in package:
        raise UserError(f"{refused}: it touches Hydra's own configuration")
    value = parsed.value()
    if isinstance(value, dict) and "." not in key:
        raise UserError(f"{refused}: only single settings are taken from a run")
    if key in options and value is not None and value not in options[key]:
        raise UserError(f"{refused}: {key} has no such option; options: {', '.join(options[key])}")
    if package and key not in options:
        raise UserError(f"{refused}: there is no group {key}")
    return key


def with_earlier(
    directory: Path, task: type[Task], overrides: list[str], config_dir: str | None
) -> list[str]:
    """Put the overrides of a run before the user's, and report defaults that have changed.

    directory: of the run, or the file itself, which may lie in the directory of its run.
    task: the task that uses a file of that run.
    """
    if directory.is_file():
        if directory.name != task.takes or not (directory.parent / RECORD).is_file():
            return overrides
        directory = directory.parent
    earlier = EarlierRun.read(at_home(directory), str(task.takes), config_dir)
    if any(override.startswith("experiment=") for override in overrides):
        # A recipe is complete: overrides that were made for another recipe would spoil it.
        left_out = printable(shortened(" ".join(earlier.overrides), 1000))
        if left_out:
            sys.stderr.write(f"nasrun: note: not taken over from {directory}: {left_out}\n")
        return overrides
    try:
        changed = earlier.changed_defaults(overrides, config_dir)
        merged = earlier.merged(overrides, config_dir)
        own = any(override.startswith("split_seed=") for override in overrides)
        if task.same_images and not own:
            merged = [word for word in merged if not word.startswith("split_seed=")]
            merged.append(earlier.split())
    except CONFIGURATION_ERRORS as error:
        told = explain(error, earlier.overrides, config_dir)
        raise UserError(f"the overrides of {directory} no longer fit: {told}") from error
    if changed:
        shown = [
            printable(f"{key} (was {shortened(str(was), 80)}, is now {shortened(str(new), 80)})")
            for key, (was, new) in changed.items()
        ]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        sys.stderr.write(
            f"nasrun: note: defaults have changed since {directory}: {', '.join(shown[:6])}{more}\n"
        )
    return merged
